"""What a net makes of an artifact, before and after its correction."""

import numpy as np

from ..metrics import artifact_relevance, concept_sensitivity, tcav_score
from ..saliency import InputXGradient, compute_maps
from ._checks import check_masks, check_masks_fit
from ._latents import derivatives_of, gaps_of, latents_of, layer_in

__all__ = ["ConceptMeasuresMixin", "measure_all"]


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


def measure_relevance(net, source, masks, precision="float32"):
    """Measure how much of what a net looks at is the artifact.

    Parameters
    ----------
    net : skorch.NeuralNetClassifier
        An initialised net, edited or not.
    source : Source
        The samples.
    masks : ndarray of bool, shape (n_samples, height, width) or \
            (n_samples, n_features), or None
        True where the artifact is.
    precision : {"float32", "bf16"}, default="float32"
        See `computing`.

    Returns
    -------
    relevance : float or None
        `artifact_relevance` of the maps of input times gradient, of the predicted
        class; None without masks.
    """
    if masks is None:
        return None
    rows = np.flatnonzero(masks.reshape(len(masks), -1).any(axis=1))
    maps = compute_maps(net, source.take(rows), InputXGradient(), precision=precision)
    return artifact_relevance(maps, masks[rows])


def measure_all(net, data, layer, directions, concept):
    """Measure what a net makes of the artifact in its training samples.

    Parameters
    ----------
    net : skorch.NeuralNetClassifier
        An initialised net, edited or not.
    data : FitData
        With the training samples, and their masks if there are any.
    layer, directions, concept
        As `measure_concept` takes them.

    Returns
    -------
    measures : dict
        "tcav", "sensitivity" and "artifact_relevance".
    """
    tcav, sensitivity = measure_concept(
        net, data.train, layer, directions, concept, data.precision
    )
    masks = data.known.get("artifact_mask")
    relevance = measure_relevance(net, data.train, masks, data.precision)
    return {
        "tcav": tcav,
        "sensitivity": sensitivity,
        "artifact_relevance": relevance,
    }


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

    def artifact_relevance(self, X, artifact_mask):
        """Measure how much of what the net looks at is the artifact, before and after.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples that show the artifact; others are left out.
        artifact_mask : array-like of bool, shape (n_samples, height, width) or \
                (n_samples, n_features)
            True where the artifact is.

        Returns
        -------
        relevance : dict of float
            "before" and "after": the share of input times gradient, of the predicted
            class, that lies on the artifact, as `metrics.artifact_relevance` counts it.

        Raises
        ------
        ValueError
            If the masks do not fit X, or are False everywhere.
        """
        source = self._dataset(X).source
        masks = check_masks(artifact_mask, len(source))
        check_masks_fit(self.method, masks, source.item_shape)
        nets = {"before": self.uncorrected_net_, "after": self.net_}
        return {
            name: measure_relevance(net, source, masks, self.precision_)
            for name, net in nets.items()
        }
