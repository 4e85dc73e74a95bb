"""Looking at one layer of a net: what it puts out, and what the logits make of it."""

from dataclasses import replace

import numpy as np
import torch

from ..metrics._concept import concept_sensitivity, tcav_score
from ..modules._derivatives import as_logits, choose_mode, directional_derivatives
from ..modules._latent import passed_through
from ..saliency._recorder import looking_inside
from ..training import batches_in_order, computing

__all__ = [
    "ConceptMeasuresMixin",
    "derivatives_of",
    "gaps_of",
    "latents_of",
    "layer_in",
    "measure_concept",
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


def measure_concept(net, source, layer, directions, concept=None, precision="float32"):
    """Measure how much logits move along concepts, for samples that show them.

    Parameters
    ----------
    net : skorch.NeuralNetClassifier
        An initialised net, edited or not.
    source : Source
        The samples.
    layer : LatentLayer
        The layer, by its name in the net that is not edited.
    directions : ConceptDirections or None
        The directions.
    concept : ndarray of shape (n_samples, n_concepts) or (n_samples, 1), default=None
        1 where a sample shows it; None: all do.
    precision : {"float32", "bf16"}, default="float32"
        See `computing`.

    Returns
    -------
    tcav, sensitivity : ndarray of shape (n_classes,) or (n_concepts, n_classes)
        See `tcav_score`, and `concept_sensitivity` with the gaps. None, None without
        directions.
    """
    if directions is None:
        return None, None
    n_concepts = len(directions.directions)
    shows = np.ones((len(source), 1), dtype=bool) if concept is None else concept == 1
    shows = np.broadcast_to(shows, (len(source), n_concepts))
    rows = np.flatnonzero(shows.any(axis=1))
    found = layer_in(net, layer)
    derivatives = derivatives_of(
        net,
        source.take(rows),
        found,
        directions.directions,
        # An edit that takes the direction out comes after what moves along it.
        first=found is not layer,
        precision=precision,
    )
    columns = [derivatives[shows[rows, j], j] for j in range(n_concepts)]
    gaps = gaps_of(directions)
    tcav = np.array([tcav_score(column) for column in columns])
    sensitivity = np.array(
        [concept_sensitivity(c, gap=g) for c, g in zip(columns, gaps, strict=True)]
    )
    return (tcav[0], sensitivity[0]) if n_concepts == 1 else (tcav, sensitivity)


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


class ConceptMeasuresMixin:
    """What a fitted estimator with a concept can tell of samples."""

    def _source_to_measure(self, X):
        source = self._dataset(X).source
        if self.concept_ is None:
            raise ValueError(
                "There is no direction to measure along: fit was given neither concept "
                "nor a cav that is an array."
            )
        return source

    def concept_score(self, X):
        """Compute how far samples lie along the concept.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples.

        Returns
        -------
        scores : ndarray of shape (n_samples,) or (n_samples, n_concepts)
            Direction times the pooled output of `layer_` in the net that predicts: of
            an edited net the same for all samples that were moved.

        Raises
        ------
        ValueError
            If fit knew of no direction.
        """
        source = self._source_to_measure(X)
        layer = layer_in(self.net_, self.layer_)
        latents = latents_of(self.net_, source, layer, precision=self.precision_)
        scores = self.concept_.scores(latents)
        return scores[:, 0] if scores.shape[1] == 1 else scores

    def concept_sensitivity(self, X):
        """Measure how much the logits move along the concept, before and after.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples, such as those that show the artifact.

        Returns
        -------
        measures : dict of ndarray of shape (n_classes,) or (n_concepts, n_classes)
            "tcav_before", "tcav_after", "sensitivity_before" and "sensitivity_after",
            as the attributes are for the training samples.

        Raises
        ------
        ValueError
            If fit knew of no direction.
        """
        source = self._source_to_measure(X)
        measures = {}
        nets = {"before": self.uncorrected_net_, "after": self.net_}
        for name, net in nets.items():
            tcav, sensitivity = measure_concept(
                net, source, self.layer_, self.concept_, None, self.precision_
            )
            measures |= {f"tcav_{name}": tcav, f"sensitivity_{name}": sensitivity}
        return measures
