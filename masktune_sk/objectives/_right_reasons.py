"""Right for the right reasons: the input gradient shall avoid what is irrelevant."""

import numpy as np
import torch
from torch import nn

from ..data import Source
from ..modules._derivatives import as_logits
from ..modules._latent_edit import PartlyFrozen

__all__ = ["InputGradientModule", "RightReasons", "WithMasks"]


class WithMasks(Source):
    """Samples with their artifact masks, as `InputGradientModule` takes them.

    Parameters
    ----------
    source : Source
        The samples.
    masks : ndarray of bool, shape (n_samples, height, width) or \
            (n_samples, n_features), default=None
        True where the artifact is; None: nowhere.
    """

    def __init__(self, source, masks=None):
        self.source = source
        self.masks = masks
        self.labels = source.labels
        n, *rest = source.item_shape
        self.item_shape = (n + 1, *rest) if rest else (2 * n,)

    def __len__(self):
        return len(self.source)

    def batch(self, indices):
        """Read samples; see `Source.batch`."""
        X = self.source.batch(indices)
        if self.masks is None:
            masks = torch.zeros_like(X[:, 0] if X.ndim == 4 else X)
        else:
            masks = torch.from_numpy(np.asarray(self.masks[indices], np.float32))
        return torch.cat([X, masks[:, None] if X.ndim == 4 else masks], dim=1)


class InputGradientModule(PartlyFrozen):
    """A module that returns the gradient of its prediction by the input, too.

    Parameters
    ----------
    module : torch.nn.Module
        The whole net.
    trainable : collection of str
        Which of its parameters train.
    log_proba : bool
        It returns probabilities, see `as_logits`.
    """

    def __init__(self, module, trainable, *, log_proba):
        super().__init__(module, trainable)
        self.log_proba = log_proba

    def forward(self, X):
        """Return logits, the input gradient and the masks.

        Parameters
        ----------
        X : torch.Tensor of shape (n_samples, n_channels + 1, height, width) or \
                (n_samples, 2 * n_features)
            Images with their mask as the last channel, or vectors followed by theirs.

        Returns
        -------
        logits : torch.Tensor of shape (n_samples, n_classes)
            Logits.
        gradients : torch.Tensor of shape (n_samples, n_channels, height, width) or \
                (n_samples, n_features)
            Of the sum over classes of the log-probabilities.
        masks : torch.Tensor of shape (n_samples, height, width) or \
                (n_samples, n_features)
            As they came.
        """
        keep = torch.is_grad_enabled()
        if X.ndim == 4:
            X, masks = X[:, :-1], X[:, -1]
        else:
            X, masks = X.chunk(2, dim=1)
        with torch.inference_mode(False), torch.enable_grad():
            X = X.detach().clone().requires_grad_()
            # A copy goes on: the module may write into what it is given.
            logits = as_logits(self.module(X.clone()), self.log_proba)
            total = torch.log_softmax(logits, dim=1).sum()
            (gradients,) = torch.autograd.grad(total, X, create_graph=keep)
        return (logits if keep else logits.detach()), gradients, masks


class RightReasons(nn.Module):
    """Cross-entropy plus the input gradient where it shall not be.

    Parameters
    ----------
    loss : torch.nn.Module
        Of (logits, y), such as `torch.nn.CrossEntropyLoss`.
    weight : float
        Weight of the penalty.
    norm : {"l2", "cosine"}, default="l2"
        "l2": the sum of the squared gradient over masked positions, as published [1]_;
        "cosine": the cosine between the mask and the size of the gradient, summed over
        channels, as in the experiments of RR-ClArC [2]_. It is not larger than 1 in
        any net, and a sample without a mask counts as 0.

    References
    ----------
    .. [1] Ross, Hughes, Doshi-Velez, "Right for the Right Reasons: Training
       Differentiable Models by Constraining their Explanations", IJCAI 2017.
    .. [2] Dreyer, Pahde, Anders, Samek, Lapuschkin, "From Hope to Safety: Unlearning
       Biases of Deep Models via Gradient Penalization in Latent Space", AAAI 2024.
    """

    def __init__(self, loss, weight, *, norm="l2"):
        super().__init__()
        self.loss = loss
        self.weight = weight
        self.norm = norm

    def forward(self, outputs, y):
        """Return the loss.

        Parameters
        ----------
        outputs : tuple of torch.Tensor
            What `InputGradientModule` returns.
        y : torch.Tensor of shape (n_samples,), dtype int64
            Encoded labels.

        Returns
        -------
        loss : torch.Tensor of shape ()
            Mean over samples.
        """
        return self.loss(outputs[0], y) + self.weight * self.penalty(outputs, y)

    def penalty(self, outputs, y=None):
        """Return the penalty alone, without its weight.

        Parameters
        ----------
        outputs : tuple of torch.Tensor
            What `InputGradientModule` returns.
        y : torch.Tensor, default=None
            Not used.

        Returns
        -------
        penalty : torch.Tensor of shape ()
            Mean over samples.
        """
        _, gradients, masks = outputs
        if gradients.ndim == 4 and self.norm == "l2":
            masks = masks[:, None]
        if self.norm == "l2":
            return (masks * gradients).square().flatten(1).sum(dim=1).mean()
        sizes = gradients.sum(dim=1) if gradients.ndim == 4 else gradients
        cosines = torch.cosine_similarity(sizes.abs().flatten(1), masks.flatten(1))
        return cosines.mean()
