"""Product of experts, and distillation."""

import torch
from torch import nn
from torch.nn import functional as F

__all__ = ["GuidedLoss", "distillation_loss", "product_of_experts"]


def product_of_experts(*logits):
    """Multiply the probabilities of experts, and normalise.

    Parameters
    ----------
    *logits : torch.Tensor of shape (n_samples, n_classes)
        Of each expert.

    Returns
    -------
    log_proba : torch.Tensor of shape (n_samples, n_classes)
        Logarithm of the normalised product, the log-softmax of the sum of the logits.
        For experts that share a linear head without a bias, that is what the head
        gives for the sum of their features.
    """
    return F.log_softmax(sum(logits), dim=-1)


def distillation_loss(student, teacher, temperature=2.0):
    """Compare a student with its teacher, both softened, by cross-entropy.

    ``- T**2 * mean_i sum_c softmax(teacher / T) * log_softmax(student / T)``: as a
    function of the student this is ``T**2 * KL(teacher || student)`` and a constant.
    The factor keeps the size of the gradients from falling with the temperature [1]_.

    Parameters
    ----------
    student : torch.Tensor of shape (n_samples, n_classes)
        Logits.
    teacher : torch.Tensor of shape (n_samples, n_classes)
        Logits. No gradient goes there.
    temperature : float, default=2.0
        Positive; a larger one compares the unlikely classes more.

    Returns
    -------
    loss : torch.Tensor of shape ()
        Mean over the samples.

    References
    ----------
    .. [1] Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015.
    """
    target = F.softmax(teacher.detach() / temperature, dim=-1)
    return temperature**2 * F.cross_entropy(student / temperature, target)


class GuidedLoss(nn.Module):
    """What the target of DeNetDM [1]_ is trained with, as a criterion.

    ``poe_weight * base(poe, y) + distill_weight * distillation_loss(target, teacher)``.

    Parameters
    ----------
    base : type, callable or torch.nn.Module
        A class or function that makes the criterion of logits and labels; or such a
        criterion.
    base_params : dict, default=None
        What to make it with.
    poe_weight : float, default=1.0
        Weight of the base criterion for target and biased branch together.
    distill_weight : float, default=1.0
        Weight of the distance of the target from the debiased branch.
    temperature : float, default=2.0
        Softens target and teacher.

    References
    ----------
    .. [1] Sreelatha et al., "DeNetDM: Debiasing by Network Depth Modulation",
       NeurIPS 2024, equations 5 to 8. Temperature and the two weights are those of the
       official code.
    """

    def __init__(
        self,
        base=nn.CrossEntropyLoss,
        base_params=None,
        *,
        poe_weight=1.0,
        distill_weight=1.0,
        temperature=2.0,
    ):
        super().__init__()
        is_made = isinstance(base, nn.Module) and not base_params
        self.base = base if is_made else base(**(base_params or {}))
        self.poe_weight = poe_weight
        self.distill_weight = distill_weight
        self.temperature = temperature

    def forward(self, y_pred, y_true):
        """Return the loss of a batch.

        Parameters
        ----------
        y_pred : tuple of torch.Tensor of shape (n_samples, n_classes)
            Logits of the target, of target and biased branch together, and of the
            teacher.
        y_true : torch.Tensor of shape (n_samples,), int64
            Labels.

        Returns
        -------
        loss : torch.Tensor of shape ()
            A term without weight is not computed.
        """
        target, poe, teacher = y_pred
        loss = torch.zeros((), device=target.device)
        if self.poe_weight:
            loss = loss + self.poe_weight * self.base(poe, y_true)
        if self.distill_weight:
            loss = loss + self.distill_weight * distillation_loss(
                target, teacher, self.temperature
            )
        return loss
