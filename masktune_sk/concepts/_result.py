"""Directions of concepts, and how far they can be trusted."""

from dataclasses import dataclass

import numpy as np
from sklearn.utils import check_array

__all__ = ["ConceptDirections"]


@dataclass(frozen=True, eq=False, repr=False)
class ConceptDirections:
    """Directions in the latents of a layer, one for each concept.

    What `concept_directions` returns. The score of a sample is ``direction @ latent``.
    Where directions were given without samples that show the concept, everything that
    is measured on samples is None.

    Parameters
    ----------
    directions : ndarray of float64 of shape (n_concepts, n_latents)
        Rows of unit norm, which point from clean to artifact.
    norms : ndarray of float64 of shape (n_concepts,)
        The norms before that; of a signal the gap.
    z_clean, z_artifact : ndarray of float64 of shape (n_concepts,), or None
        The mean score of samples without and with the artifact. Within classes, the
        clean samples of each class weigh as much as its artifact samples.
    gap : ndarray of float64 of shape (n_concepts,), or None
        ``z_artifact - z_clean``, at least 0.
    auc : ndarray of float64 of shape (n_concepts,), or None
        Area under the ROC curve of the scores of held-out samples, by directions that
        were computed without them; within classes, the mean of the classes, weighted
        by their artifact samples. Of a given direction that of all samples. NaN: too
        few samples.
    n_concept, n_clean : ndarray of int of shape (n_concepts,), or None
        How many samples with and without the artifact were used.
    scopes : tuple of (ndarray of shape (n_classes_used,) or None), or None
        For each concept the encoded classes within which samples were compared; None:
        all samples were compared regardless of class.
    cav : str
        How the directions were computed: "signal", "svm", "ridge", "lasso",
        "logistic", the class of an estimator, or "array".
    """

    directions: np.ndarray
    norms: np.ndarray
    z_clean: np.ndarray | None = None
    z_artifact: np.ndarray | None = None
    gap: np.ndarray | None = None
    auc: np.ndarray | None = None
    n_concept: np.ndarray | None = None
    n_clean: np.ndarray | None = None
    scopes: tuple | None = None
    cav: str = "array"

    @property
    def scope(self):
        """The encoded classes that any direction was computed within, sorted.

        None if one of them was computed regardless of class, or given.
        """
        if self.scopes is None or any(classes is None for classes in self.scopes):
            return None
        return np.unique(np.concatenate(self.scopes))

    def scores(self, latents):
        """Return how far samples lie along each direction.

        Parameters
        ----------
        latents : array-like of shape (n_samples, n_latents)
            Pooled latents of the layer that the directions are of.

        Returns
        -------
        scores : ndarray of float64 of shape (n_samples, n_concepts)
            ``latents @ directions.T``.

        Raises
        ------
        ValueError
            If the latents have another width or are not finite.
        """
        latents = check_array(latents, dtype=np.float64, input_name="latents")
        if latents.shape[1] != self.directions.shape[1]:
            raise ValueError(
                f"latents must have {self.directions.shape[1]} columns, as many as the "
                f"directions are long; got {latents.shape[1]}."
            )
        return latents @ self.directions.T

    def __repr__(self):
        n_concepts, n_latents = self.directions.shape
        head = f"{n_concepts} of {n_latents} latents, cav={self.cav!r}"
        if self.gap is None:
            return f"ConceptDirections({head})"
        classes = "all" if self.scope is None else self.scope.tolist()
        lines = [
            f"gap {gap:.3g}, AUC {auc:.3f}, {n1} samples with and {n0} without"
            for gap, auc, n1, n0 in zip(
                self.gap, self.auc, self.n_concept, self.n_clean, strict=True
            )
        ]
        return f"ConceptDirections({head}, classes={classes}: {'; '.join(lines)})"
