"""Class activation maps: one layer's output, weighed by the gradient of a class."""

from abc import abstractmethod

import torch

from ..exceptions import TargetLayerError
from ._base import BaseSaliency
from ._recorder import LayerRecorder, class_scores

__all__ = ["CentredGradCAM", "GradCAM", "GradCAMPlusPlus", "LayerCAM", "XGradCAM"]


class BaseCAM(BaseSaliency):
    """Base of the maps that are a positive part of weighted activations.

    One forward pass, and a backward pass down to the layer only. A variant is one
    method: the `weights` of the activations.
    """

    needs_layer = True

    @abstractmethod
    def weights(self, activations, gradients):
        """Weigh the activations.

        Parameters
        ----------
        activations, gradients : torch.Tensor of shape (n, n_channels, height, width)
            The layer's output, and the gradient of the explained logit.

        Returns
        -------
        weights : torch.Tensor that broadcasts with the activations
            They multiply the activations before the sum over channels.
        """

    def explain(self, net, X, target=None, layer=None):
        """Compute the maps of a batch, at the resolution of the layer.

        Parameters
        ----------
        net : skorch.NeuralNet
            The net, in eval mode.
        X : torch.Tensor of shape (n_samples, n_channels, height, width)
            The images.
        target : torch.Tensor of shape (n_samples,), dtype int64, default=None
            Classes to explain; None: the predicted ones.
        layer : Layer
            The layer to explain.

        Returns
        -------
        maps : torch.Tensor of shape (n_samples, layer_height, layer_width)
            Not negative.
        """
        with LayerRecorder(net.module_.get_submodule(layer.name)) as recorder:
            scores = class_scores(net, net.infer(X), target)
        gradients = None
        if scores.requires_grad:
            (gradients,) = torch.autograd.grad(
                scores.sum(), recorder.output, allow_unused=True
            )
        if gradients is None:
            raise TargetLayerError(
                f"No gradient reaches the layer {layer.name!r}: the module runs what "
                "comes after it without gradients. Name another target_layer."
            )
        gradients = layer.to_grid(gradients).float()
        activations = layer.to_grid(recorder.output.detach()).float()
        weighted = self.weights(activations, gradients) * activations
        return self.rectify(weighted.sum(dim=1))

    def rectify(self, maps):
        """Keep what speaks for the class.

        Parameters
        ----------
        maps : torch.Tensor of shape (n_samples, height, width)
            Sums of weighted activations.

        Returns
        -------
        maps : torch.Tensor of the same shape
            Their positive part.
        """
        return maps.clamp(min=0)


class GradCAM(BaseCAM):
    """Grad-CAM [1]_: channels weighed by their mean gradient.

    References
    ----------
    .. [1] Selvaraju et al., "Grad-CAM: Visual Explanations from Deep Networks via
       Gradient-based Localization", ICCV 2017, equations 1 and 2.
    """

    def weights(self, activations, gradients):
        """Average the gradient over positions."""
        return gradients.mean(dim=(2, 3), keepdim=True)


class CentredGradCAM(GradCAM):
    """Grad-CAM about the mean of each map, for layers with negative outputs.

    After a layer normalisation, or an activation without a zero, the channels have an
    offset that is the same everywhere and says nothing about where. It can turn a whole
    map negative, and Grad-CAM of it empty. Here what speaks *more* for the class than
    the average position is kept.
    """

    def rectify(self, maps):
        """Keep what is above the mean of each map."""
        return (maps - maps.mean(dim=(1, 2), keepdim=True)).clamp(min=0)


class XGradCAM(BaseCAM):
    """XGrad-CAM [1]_: channels weighed by their mean gradient, weighed by activation.

    It supposes activations that are not negative (after a rectifier); with signed ones
    the sum in the denominator can vanish.

    References
    ----------
    .. [1] Fu et al., "Axiom-based Grad-CAM: Towards Accurate Visualization and
       Explanation of CNNs", BMVC 2020, equation 8.
    """

    def weights(self, activations, gradients):
        """Average the gradient over positions, weighed by the activation there."""
        total = activations.sum(dim=(2, 3), keepdim=True)
        return (gradients * activations / (total + 1e-7)).sum(dim=(2, 3), keepdim=True)


class GradCAMPlusPlus(BaseCAM):
    """Grad-CAM++ [1]_: positive gradients, weighed by their higher powers.

    References
    ----------
    .. [1] Chattopadhay et al., "Grad-CAM++: Improved Visual Explanations for Deep
       Convolutional Networks", WACV 2018, equation 19.
    """

    def weights(self, activations, gradients):
        """Sum the positive gradients over positions with their coefficients."""
        square = gradients**2
        total = activations.sum(dim=(2, 3), keepdim=True)
        alpha = square / (2 * square + total * square * gradients + 1e-6)
        alpha = torch.where(gradients != 0, alpha, 0)
        return (gradients.clamp(min=0) * alpha).sum(dim=(2, 3), keepdim=True)


class LayerCAM(BaseCAM):
    """LayerCAM [1]_: each position weighed by its own positive gradient.

    References
    ----------
    .. [1] Jiang et al., "LayerCAM: Exploring Hierarchical Class Activation Maps for
       Localization", IEEE Transactions on Image Processing 2021, equation 6.
    """

    def weights(self, activations, gradients):
        """Take the positive part of the gradient."""
        return gradients.clamp(min=0)
