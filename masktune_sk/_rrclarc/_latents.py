"""Looking at one layer of a net: what it puts out, and what the logits make of it."""

from dataclasses import replace

import numpy as np
import torch

from ..modules._derivatives import as_logits, choose_mode, directional_derivatives
from ..modules._latent import passed_through
from ..saliency._recorder import looking_inside
from ..training import batches_in_order, computing

__all__ = [
    "derivatives_of",
    "gaps_of",
    "latents_of",
    "layer_in",
]


def latents_of(net, source, layer, *, pooled=True, precision="float32"):
    """Record the output of a layer for samples.

    Parameters
    ----------
    net : skorch.NeuralNetClassifier
        An initialised net.
    source : Source
        The samples.
    layer : LatentLayer
        The layer.
    pooled : bool, default=True
        One vector a sample, or the output as it is.
    precision : {"float32", "bf16"}, default="float32"
        See `computing`.

    Returns
    -------
    latents : ndarray of float32 of shape (n_samples, n_latents) or (n_samples, ...)
        As other hooks of the layer leave its output.
    """
    shape = (layer.n_latents,) if pooled else layer.shape
    latents = np.empty((len(source), *shape), dtype=np.float32)
    found = []
    part = net.module_.get_submodule(layer.name)
    with (
        looking_inside(net),
        torch.no_grad(),
        computing(net, precision),
        passed_through(part, lambda output: found.append(output.clone())),
    ):
        start = 0
        for X in batches_in_order(net, source):
            found.clear()
            net.infer(X)
            output = layer.pooled(found[0]) if pooled else found[0]
            latents[start : start + len(X)] = output.float().cpu().numpy()
            start += len(X)
    return latents


def derivatives_of(net, source, layer, directions, *, first=False, precision="float32"):
    """Compute the derivatives of a net's logits along directions of a layer.

    Parameters
    ----------
    net : skorch.NeuralNetClassifier
        An initialised net.
    source : Source
        The samples.
    layer : LatentLayer
        The layer.
    directions : ndarray of shape (n_directions, n_latents)
        The directions.
    first : bool, default=False
        Move the output before other hooks of the layer edit it, not after.
    precision : {"float32", "bf16"}, default="float32"
        See `computing`.

    Returns
    -------
    derivatives : ndarray of float32 of shape (n_samples, n_directions, n_classes)
        Not scaled.
    """
    module = net.module_
    part = module.get_submodule(layer.name)
    log_proba = isinstance(net.criterion_, torch.nn.NLLLoss)
    device = next(module.parameters()).device
    along = torch.as_tensor(directions, dtype=torch.float32, device=device)
    along = layer.spread(along)
    rows, mode = [], None
    with looking_inside(net), torch.no_grad(), computing(net, precision):
        for X in batches_in_order(net, source):

            def run(shift, X=X):
                with passed_through(part, shift, first=first):
                    return as_logits(net.infer(X.clone()), log_proba)

            mode = mode or choose_mode(run, along)
            rows.append(directional_derivatives(run, along, mode)[1].float().cpu())
    return torch.cat(rows).numpy()


def gaps_of(directions):
    """Return the gap of each direction.

    Parameters
    ----------
    directions : ConceptDirections
        The directions.

    Returns
    -------
    gaps : ndarray of shape (n_concepts,)
        As measured; of directions that were given without samples their lengths.
    """
    return directions.norms if directions.gap is None else directions.gap


def layer_in(net, layer):
    """Return a layer by its name in a net, which may be around an edited one.

    Parameters
    ----------
    net : skorch.NeuralNetClassifier
        An initialised net.
    layer : LatentLayer
        The layer, as it is called before any edit.

    Returns
    -------
    layer : LatentLayer
        The same, under the name it has here.
    """
    if any(name == layer.name for name, _ in net.module_.named_modules()):
        return layer
    return replace(layer, name=f"module.{layer.name}")
