"""What each layer of a module makes of some samples."""

from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.modules.conv import _ConvNd

from ..exceptions import NonFiniteError

__all__ = ["LayerFeatures", "layer_features"]


@dataclass(frozen=True)
class LayerFeatures:
    """The features of one layer.

    Parameters
    ----------
    name : str
        Dotted name of the layer in ``module.named_modules()``.
    depth : int
        How many layers have run, itself included.
    values : ndarray of shape (n_samples, n_features), dtype float64
        The features.
    """

    name: str
    depth: int
    values: np.ndarray


def layer_features(module, X, *, max_layers, batch_size=256):
    """Run a module in evaluation mode, and keep what each of its layers returns.

    A layer is whatever has a weight matrix or kernels of its own, together with the
    normalisation, activation, pooling and addition after it up to the next one: its
    features are the last output with as many channels. The last layer's features are
    what the module returns.

    Parameters
    ----------
    module : torch.nn.Module
        A module; its modes are as they were afterwards, and no hook stays.
    X : torch.Tensor of shape (n_samples, ...)
        The samples.
    max_layers : int
        Of more layers, as many are kept, evenly spaced, with the first and the last.
    batch_size : int, default=256
        Rows that run at once.

    Returns
    -------
    layers : list of LayerFeatures
        In the order of running; outputs with positions (of images, tokens) are averaged
        over these.

    Raises
    ------
    ValueError
        If the module does not return a tensor with a row a sample.
    NonFiniteError
        If a feature is NaN or infinite.
    """
    tensors = [*module.parameters(), *module.buffers()]
    device = tensors[0].device if tensors else None
    dtype = next((t.dtype for t in tensors if t.is_floating_point()), torch.float32)
    parts, chosen = [], None
    with _evaluating(module), _LayerTrace(module) as trace:
        for batch in X.split(batch_size):
            # A copy: a first layer may write in place.
            layers = trace.run(batch.to(device, dtype, copy=True))
            if chosen is None:
                # From the last one, which stays if there is room for one alone.
                last = len(layers) - 1
                before = np.linspace(0, last, min(max_layers, last + 1))
                chosen = np.unique(last - before.round().astype(int))
            parts.append([layers[i].features for i in chosen])
    found = []
    for i, features in zip(chosen, zip(*parts, strict=True), strict=True):
        values = np.concatenate(features).astype(np.float64)
        if not np.isfinite(values).all():
            raise NonFiniteError(
                f"Layer {layers[i].name!r} of {type(module).__name__} returned NaN or "
                "infinite features. Look at X, and at the weights of this layer."
            )
        found.append(LayerFeatures(layers[i].name, int(i) + 1, values))
    return found


@contextmanager
def _evaluating(module):
    """Put a module in eval mode without gradients, and back."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in modes:
            part.training = False
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes:
            part.training = mode


@dataclass
class _Layer:
    """A layer that has begun to run."""

    name: str
    channel_axis: int
    features: np.ndarray | None = None


class _LayerTrace:
    """Follow the layers of a module while it runs; a context manager."""

    def __init__(self, module):
        self.module = module

    def __enter__(self):
        self._handles = []
        for name, part in self.module.named_modules():
            if any(p.ndim > 1 for p in part.parameters(recurse=False)):
                self._handles.append(part.register_forward_pre_hook(self._begin(name)))
            self._handles.append(part.register_forward_hook(self._take))
        return self

    def __exit__(self, *error):
        for handle in self._handles:
            handle.remove()

    def run(self, batch):
        """Return the layers in the order in which they begin, with features."""
        self._layers, self._n_rows = [], len(batch)
        output = _first_of(self.module(batch))
        shape = getattr(output, "shape", None)
        if not isinstance(output, torch.Tensor) or shape[:1] != batch.shape[:1]:
            got = type(output).__name__ if shape is None else tuple(shape)
            raise ValueError(
                f"{type(self.module).__name__} must return a tensor with a row for "
                f"each of {len(batch)} samples, or a tuple with it first; got {got}."
            )
        # What only holds parameters for its children leaves no output of its own.
        layers = [layer for layer in self._layers if layer.features is not None]
        if not layers:
            layers = [_Layer(type(self.module).__name__, 1)]
        layers[-1].features = _average(output, layers[-1].channel_axis)
        return layers

    def _begin(self, name):
        def begin(part, args):
            axis = 1 if isinstance(part, _ConvNd) else -1
            self._layers.append(_Layer(name or type(part).__name__, axis))

        return begin

    def _take(self, part, args, output):
        output = _first_of(output)
        if not (self._layers and isinstance(output, torch.Tensor)):
            return
        if output.ndim < 2 or len(output) != self._n_rows:
            return
        layer = self._layers[-1]
        shape = output.shape
        width = shape[1] if len(shape) == 2 else shape[layer.channel_axis]
        # Others have flattened the positions, or turned the axes.
        if layer.features is None or layer.features.shape[1] == width:
            layer.features = _average(output, layer.channel_axis)


def _first_of(output):
    return output[0] if isinstance(output, tuple | list) else output


def _average(output, channel_axis):
    """Return the channels of an output, averaged over positions, as an array."""
    output = output.detach().float()
    if output.ndim > 2:
        output = output.movedim(channel_axis, 1).flatten(2).mean(dim=2)
    # A copy: what follows may write in place.
    return output.reshape(len(output), -1).to("cpu", copy=True).numpy()
