"""What every saliency method is: something that explains a batch."""

from abc import ABCMeta, abstractmethod

from sklearn.base import BaseEstimator

__all__ = ["BaseSaliency"]


class BaseSaliency(BaseEstimator, metaclass=ABCMeta):
    """Base class of saliency methods.

    A method of your own is a subclass with one method, `explain`; or any callable
    ``f(net, X, target)`` with the same meaning.
    """

    #: Whether `explain` gets a layer with a spatial output (and X must be images).
    needs_layer = False

    @abstractmethod
    def explain(self, net, X, target=None, layer=None):
        """Compute the maps of a batch.

        Parameters
        ----------
        net : skorch.NeuralNet
            The net, in eval mode, no parameter requiring a gradient.
        X : torch.Tensor of shape (n_samples, ...)
            The batch, float32, on the net's device.
        target : torch.Tensor of shape (n_samples,), dtype int64, default=None
            Classes to explain; None: the predicted ones.
        layer : Layer, default=None
            The layer to explain, for methods with ``needs_layer``.

        Returns
        -------
        maps : torch.Tensor of shape (n_samples, height, width), or that of vectors
            Not negative, larger is more important, at the method's own resolution. Each
            sample's map must depend on that sample alone.
        """
