"""Gradients with respect to the input, for nets without a spatial layer."""

import torch

from ._base import BaseSaliency
from ._recorder import class_scores

__all__ = ["InputGradient", "InputXGradient"]


class InputGradient(BaseSaliency):
    """Size of the gradient of a logit with respect to the input [1]_.

    Tells how fast the logit changes with each input, whatever the input's value; so it
    depends on the units of the features. For images, the largest over channels.

    References
    ----------
    .. [1] Simonyan et al., "Deep Inside Convolutional Networks: Visualising Image
       Classification Models and Saliency Maps", ICLR workshop 2014.
    """

    def explain(self, net, X, target=None, layer=None):
        """Compute the maps of a batch, at the resolution of the input.

        Parameters
        ----------
        net : skorch.NeuralNet
            The net, in eval mode.
        X : torch.Tensor of shape (n_samples, ...)
            Vectors or images.
        target : torch.Tensor of shape (n_samples,), dtype int64, default=None
            Classes to explain; None: the predicted ones.
        layer : None
            Not used.

        Returns
        -------
        maps : torch.Tensor of shape (n_samples, height, width), or that of vectors
            Not negative.
        """
        X = X.detach().clone().requires_grad_()
        # A copy of the leaf: the net may write into what it is given.
        scores = class_scores(net, net.infer(X.clone()), target)
        (gradients,) = torch.autograd.grad(scores.sum(), X)
        return self.reduce(X.detach(), gradients)

    def reduce(self, X, gradients):
        """Turn a batch and its gradients into maps, without the channel axis.

        Parameters
        ----------
        X, gradients : torch.Tensor of shape (n_samples, ...)
            The batch, and the gradient of the explained logits.

        Returns
        -------
        maps : torch.Tensor of shape (n_samples, height, width), or that of vectors
            Not negative.
        """
        size = gradients.abs()
        return size if X.ndim == 2 else size.amax(dim=1)


class InputXGradient(InputGradient):
    """Size of input times gradient [1]_: what the logit is made of.

    To first order, how much the logit changes when the input is set to 0, so it does
    not depend on the units of the features. For images, summed over channels first.

    References
    ----------
    .. [1] Shrikumar et al., "Not Just a Black Box: Learning Important Features Through
       Propagating Activation Differences", 2016, arXiv 1605.01713.
    """

    def reduce(self, X, gradients):
        """Turn a batch and its gradients into maps, without the channel axis."""
        product = X * gradients
        return (product if X.ndim == 2 else product.sum(dim=1)).abs()
