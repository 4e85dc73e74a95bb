"""Maps of all samples: which method, which layer, batch by batch."""

import numpy as np
import torch
from tqdm.auto import tqdm

from ..exceptions import NonFiniteError, TargetLayerError
from ..training import batches_in_order, computing
from ._base import BaseSaliency
from ._cam import CentredGradCAM, GradCAM, GradCAMPlusPlus, LayerCAM, XGradCAM
from ._gradient import InputGradient, InputXGradient
from ._layers import find_layer
from ._recorder import looking_inside

__all__ = ["METHODS", "compute_maps", "resolve_saliency"]

CHUNK = 4096
TINY = torch.finfo(torch.float32).tiny

METHODS = {
    "xgradcam": XGradCAM,
    "gradcam": GradCAM,
    "gradcam++": GradCAMPlusPlus,
    "layercam": LayerCAM,
    "input_gradient": InputGradient,
    "input_x_gradient": InputXGradient,
}


class CallableSaliency(BaseSaliency):
    """A user's function as a saliency method.

    Parameters
    ----------
    function : callable
        ``f(net, X, target) -> maps``.
    """

    def __init__(self, function):
        self.function = function

    def explain(self, net, X, target=None, layer=None):
        """Call the function."""
        return self.function(net, X, target)


def resolve_saliency(saliency, target_layer, net, X):
    """Choose the method and the layer.

    Parameters
    ----------
    saliency : str, BaseSaliency or callable
        What the user asked for. "auto": XGrad-CAM if the net has a layer with a spatial
        output (centred Grad-CAM if that layer has negative outputs, where XGrad-CAM is
        not defined), else input x gradient.
    target_layer : str or None
        Dotted name of the layer.
    net : skorch.NeuralNet
        An initialised net.
    X : torch.Tensor of shape (n_samples, ...)
        A few samples.

    Returns
    -------
    method : BaseSaliency
        The method.
    layer : Layer or None
        The layer, if the method needs one.

    Raises
    ------
    TypeError
        If it is a class.
    TargetLayerError
        If the method needs a layer that is not there, or a layer is named that the
        method does not use.
    """
    if isinstance(saliency, type):
        name = saliency.__name__
        raise TypeError(f"saliency={name} is a class; pass an instance, {name}().")
    method = None
    if isinstance(saliency, BaseSaliency):
        method = saliency
    elif callable(saliency):
        method = CallableSaliency(saliency)
    elif saliency != "auto":
        method = METHODS[saliency]()

    is_image = X.ndim == 4
    if method is not None and not method.needs_layer:
        if target_layer is not None:
            raise TargetLayerError(
                f"target_layer={target_layer!r} is given, but saliency={saliency!r} "
                "explains the input itself. Leave one of them out."
            )
        return method, None
    if not is_image:
        if method is None and target_layer is None:
            return InputXGradient(), None
        raise TargetLayerError(
            f"saliency={saliency!r} with target_layer={target_layer!r} needs a layer "
            "with a place for each position of an image, and X holds vectors of "
            f'{X.shape[1]} features. Use saliency="auto", "input_gradient" or '
            '"input_x_gradient" without a target_layer.'
        )
    layer = find_layer(net, X, target_layer)
    if layer is not None:
        return method or (CentredGradCAM() if layer.signed else XGradCAM()), layer
    if method is None:
        return InputXGradient(), None
    raise TargetLayerError(
        f"saliency={saliency!r} needs a layer with a spatial output, and no layer of "
        f"{type(net.module_).__name__} has one. Use "
        'saliency="input_gradient" or "input_x_gradient".'
    )


def compute_maps(
    net,
    source,
    method,
    layer=None,
    *,
    labels=None,
    pack=False,
    precision="float32",
    verbose=0,
):
    """Compute the saliency map of every sample.

    Parameters
    ----------
    net : skorch.NeuralNet
        An initialised net; nothing is left behind on it.
    source : Source
        The samples.
    method : BaseSaliency
        How.
    layer : Layer, default=None
        Which layer, if the method needs one.
    labels : ndarray of int, shape (n_samples,), default=None
        Classes to explain; None: the predicted ones.
    pack : bool, default=False
        Keep maps of the size of the images, as of input gradients, in float16, each
        scaled to [0, 1]: half of a memory that is large. Those of a deep layer are
        small, and stay as they are.
    precision : {"float32", "bf16"}, default="float32"
        Of the passes through the net.
    verbose : int, default=0
        1: a progress bar.

    Returns
    -------
    maps : ndarray of shape (n_samples, height, width), or that of vectors
        At the method's own resolution, float32 and not scaled unless packed. Zero for
        an image of one colour: there is nothing in it to look at.

    Raises
    ------
    NonFiniteError
        If a map is NaN or infinite.
    ValueError
        If a user's method returns maps of another shape.
    """
    maps, done, flat = None, 0, []
    with (
        looking_inside(net),
        computing(net, precision),
        tqdm(
            total=len(source), desc="saliency maps", unit="sample", disable=verbose < 1
        ) as bar,
    ):
        for X in batches_in_order(net, source):
            rows = slice(done, done + len(X))
            target = None
            if labels is not None:
                target = torch.from_numpy(labels[rows]).long()
            moved = X.to(net.device, non_blocking=True)
            batch = _checked(method.explain(net, moved, target, layer), method, X)
            packed = pack and batch.ndim == 3 and batch.shape[1:] == X.shape[2:]
            if packed:
                low = batch.amin((1, 2), keepdim=True)
                high = batch.amax((1, 2), keepdim=True)
                batch = (batch - low) / (high - low).clamp(min=TINY)
            if maps is None:
                # Pinned, so that the maps leave a device while it computes the next.
                maps = torch.empty(
                    (len(source), *batch.shape[1:]),
                    dtype=torch.float16 if packed else torch.float32,
                    pin_memory=batch.is_cuda,
                )
            maps[rows].copy_(batch, non_blocking=True)
            if X.ndim == 4:
                pixels = X.flatten(2)
                flat.append((pixels.amax(2) == pixels.amin(2)).all(1))
            done = rows.stop
            bar.update(len(X))
        if batch.is_cuda:
            torch.cuda.synchronize(batch.device)
    if flat:
        maps[torch.cat(flat).cpu()] = 0
    maps = maps.numpy()
    for start in range(0, len(maps), CHUNK):
        if not np.isfinite(maps[start : start + CHUNK]).all():
            raise NonFiniteError(
                f"The saliency method {_name_of(method)} returned maps that are NaN or "
                "infinite. Is the net trained (finite weights), and is the input "
                "scaled?"
            )
    return maps


def _name_of(method):
    if isinstance(method, CallableSaliency):
        return getattr(method.function, "__name__", repr(method.function))
    return type(method).__name__


def _checked(batch, method, X):
    """Return a batch of maps as a tensor, if it is one."""
    if not isinstance(batch, torch.Tensor):
        # A copy: what a function returns may be its own, or read-only.
        batch = torch.from_numpy(np.array(batch, dtype=np.float32))
    batch = batch.detach()
    right = (
        batch.shape == X.shape
        if X.ndim == 2
        else batch.ndim == 3 and len(batch) == len(X)
    )
    if not right:
        wanted = tuple(X.shape) if X.ndim == 2 else f"({len(X)}, height, width)"
        raise ValueError(
            f"The saliency method {_name_of(method)} returned maps of shape "
            f"{tuple(batch.shape)} for a batch of shape {tuple(X.shape)}; expected "
            f"{wanted}."
        )
    return batch
