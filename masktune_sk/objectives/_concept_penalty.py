"""The concept penalty of RR-ClArC: logits shall not move along a concept."""

import torch
from torch import nn

__all__ = ["ConceptPenalty", "penalty_curvature"]

TARGETS = ("all", "all_random", "sum", "target", "max")
POWERS = {"l2": torch.square, "l1": torch.abs}


class ConceptPenalty(nn.Module):
    """Cross-entropy plus the size of the logits' derivatives along concepts.

    ``loss + weight * mean_x sum_j R_j(x)``, where ``R_j`` is made of the derivatives
    ``d_jk(x) = scale_j * d logit_k / d concept_j``: with the defaults
    ``sum_k d_jk(x)^2``, the squared norm of a Jacobian-vector product. The penalty of
    RR-ClArC [1]_ takes the square of ``sum_k s_k d_jk`` with random signs ``s_k``
    instead, whose expected value is the same.

    Parameters
    ----------
    loss : torch.nn.Module
        Of (logits, y), such as `torch.nn.CrossEntropyLoss`.
    weight : float
        Weight of the penalty.
    scale : array-like of shape (n_concepts,), default=1.0
        What derivatives are multiplied by. With the gap between samples with and
        without the concept a derivative is the number of logits that the concept is
        worth, and one weight means the same in every layer.
    target : str or int, default="all"
        "all": every class; "all_random": the sum of all classes with random signs, new
        ones for each sample; "sum": the sum of all classes; "target": the true class;
        "max": the predicted class; an integer: this class.
    norm : {"l2", "l1"}, default="l2"
        Squares, or absolute values.

    References
    ----------
    .. [1] Dreyer, Pahde, Anders, Samek, Lapuschkin, "From Hope to Safety: Unlearning
       Biases of Deep Models via Gradient Penalization in Latent Space", AAAI 2024.
    """

    def __init__(self, loss, weight, *, scale=1.0, target="all", norm="l2"):
        super().__init__()
        self.loss = loss
        self.weight = weight
        self.target = target
        self.norm = norm
        scale = torch.as_tensor(scale, dtype=torch.float32).reshape(-1, 1)
        self.register_buffer("scale", scale)

    def forward(self, outputs, y):
        """Return the loss.

        Parameters
        ----------
        outputs : tuple of torch.Tensor
            Logits of shape (n_samples, n_classes), and derivatives of shape
            (n_samples, n_concepts, n_classes).
        y : torch.Tensor of shape (n_samples,), dtype int64
            Encoded labels.

        Returns
        -------
        loss : torch.Tensor of shape ()
            Mean over samples.
        """
        return self.loss(outputs[0], y) + self.weight * self.penalty(outputs, y)

    def penalty(self, outputs, y):
        """Return the penalty alone, without its weight.

        Parameters
        ----------
        outputs : tuple of torch.Tensor
            Logits and derivatives.
        y : torch.Tensor of shape (n_samples,), dtype int64
            Encoded labels.

        Returns
        -------
        penalty : torch.Tensor of shape ()
            Sum over concepts, mean over samples.
        """
        logits, derivatives = outputs
        scaled = self.scale.to(derivatives.dtype) * derivatives
        chosen = self._choose(logits, scaled, y)
        return POWERS[self.norm](chosen).sum(dim=(1, 2)).mean()

    def _choose(self, logits, derivatives, y):
        """Return what is penalised, (n_samples, n_concepts, any number)."""
        if self.target == "all":
            return derivatives
        if self.target == "sum":
            return derivatives.sum(dim=2, keepdim=True)
        if self.target == "all_random":
            signs = 2 * torch.randint_like(derivatives[:, 0], 2) - 1
            return (signs[:, None] * derivatives).sum(dim=2, keepdim=True)
        if self.target == "target":
            classes = y
        elif self.target == "max":
            classes = logits.argmax(dim=1)
        else:
            return derivatives[:, :, [self.target]]
        index = classes[:, None, None].expand(-1, derivatives.shape[1], 1)
        return derivatives.gather(2, index)


def penalty_curvature(penalty, parameters, *, n_steps=10):
    """Estimate the largest curvature of a penalty in the weights.

    By power iteration on its Hessian. Gradient descent on a quadratic penalty is stable
    for rates below ``2 / curvature`` (with momentum ``m``, ``2 (1 + m) / curvature``).

    Parameters
    ----------
    penalty : torch.Tensor of shape ()
        With its graph.
    parameters : list of torch.Tensor
        The weights.
    n_steps : int, default=10
        Number of Hessian-vector products.

    Returns
    -------
    curvature : float
        The eigenvalue of the Hessian with the largest size, from below; 0 if the
        penalty is linear in the weights.
    """
    gradients = torch.autograd.grad(
        penalty, parameters, create_graph=True, allow_unused=True
    )
    pairs = [
        (gradient, parameter)
        for gradient, parameter in zip(gradients, parameters, strict=True)
        if gradient is not None and gradient.requires_grad
    ]
    if not pairs:
        return 0.0
    gradients, parameters = zip(*pairs, strict=True)
    generator = torch.Generator().manual_seed(0)
    vectors = [torch.randn(p.shape, generator=generator).to(p) for p in parameters]
    size = 0.0
    for _ in range(n_steps):
        norm = _norm(vectors)
        if not norm > 0:
            return 0.0
        products = torch.autograd.grad(
            gradients,
            parameters,
            [vector / norm for vector in vectors],
            retain_graph=True,
            allow_unused=True,
        )
        vectors = [
            torch.zeros_like(parameter) if product is None else product
            for product, parameter in zip(products, parameters, strict=True)
        ]
        size = _norm(vectors)
    return size


def _norm(tensors):
    return float(torch.stack([tensor.detach().norm() for tensor in tensors]).norm())
