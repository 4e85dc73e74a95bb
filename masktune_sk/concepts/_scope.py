"""The rows that a direction is computed from, and what is compared with what."""

import warnings
from dataclasses import dataclass

import numpy as np

from masktune_sk.exceptions import ConceptWarning

__all__ = ["Scope", "check_scope", "select_scope"]


@dataclass(frozen=True, eq=False)
class Scope:
    """Rows with a known concept, in strata that each hold both kinds.

    Samples are compared within a stratum only. A stratum is a class, or everything.
    """

    rows: np.ndarray  # (n_rows,) indices into all samples
    concept: np.ndarray  # (n_rows,) of {0, 1}
    strata: np.ndarray  # (n_rows,) of 0..n_strata-1
    classes: np.ndarray | None  # (n_strata,) the encoded class of each; None: all

    @property
    def cells(self):
        """Stratum x concept of each row, as integers."""
        return 2 * self.strata + self.concept

    @property
    def weights(self):
        """The share of the artifact samples that each stratum has, (n_strata,)."""
        counts = np.bincount(self.strata, weights=self.concept)
        return counts / counts.sum()

    def subset(self, index):
        """Return the scope of some of its rows, which leave no stratum empty."""
        return Scope(
            self.rows[index], self.concept[index], self.strata[index], self.classes
        )


def check_scope(scope, labels):
    """Validate a scope: return a string, or an array of encoded classes."""
    if isinstance(scope, str):
        if scope in ("auto", "all"):
            return scope
        raise ValueError(
            f"scope must be 'auto', 'all' or a list of class labels, got {scope!r}."
        )
    chosen = np.unique(np.atleast_1d(np.asarray(scope)))
    unknown = chosen[~np.isin(chosen, labels)]
    if not chosen.size or unknown.size:
        raise ValueError(
            "scope must be 'auto', 'all' or a list of class labels of the samples, "
            f"which are {np.unique(labels).tolist()}; got {np.asarray(scope).tolist()}."
        )
    return chosen


def select_scope(concept, labels, scope, min_samples, *, name):
    """Return the rows of one concept, (n_samples,) of {0, 1, NaN}."""
    known = np.flatnonzero(~np.isnan(concept))
    if isinstance(scope, str) and scope == "all":
        return _everything(known, concept)
    candidates = np.unique(labels[known]) if isinstance(scope, str) else scope
    n_clean, n_artifact = (
        np.array([np.sum((labels == c) & (concept == kind)) for c in candidates])
        for kind in (0, 1)
    )
    classes = candidates[np.minimum(n_clean, n_artifact) >= max(min_samples, 1)]
    if classes.size:
        rows = known[np.isin(labels[known], classes)]
        strata = np.searchsorted(classes, labels[rows])
        return Scope(rows, concept[rows].astype(np.intp), strata, classes)
    if not isinstance(scope, str):
        counts = ", ".join(
            f"class {c}: {n1} with, {n0} without"
            for c, n1, n0 in zip(candidates, n_artifact, n_clean, strict=True)
        )
        raise ValueError(
            f"No class in scope has {min_samples} samples with and {min_samples} "
            f"without the artifact of {name} ({counts}). Name other classes, mark more "
            "samples, or pass scope='all'."
        )
    warnings.warn(
        f"No class has {min_samples} samples with and {min_samples} without the "
        f"artifact of {name}: from these samples the artifact and the class cannot be "
        "told apart. The direction is computed over all classes and points to the "
        "class as well, so that removing it may remove what the net knows of the "
        "class. Mark samples of both kinds within a class.",
        ConceptWarning,
        stacklevel=3,
    )
    return _everything(known, concept)


def _everything(known, concept):
    """Return the scope of all known rows, compared regardless of class."""
    strata = np.zeros(len(known), dtype=np.intp)
    return Scope(known, concept[known].astype(np.intp), strata, None)
