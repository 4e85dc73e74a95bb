"""Cross-validation that loses no concept."""

import numpy as np
from sklearn.model_selection import StratifiedKFold

from masktune_sk.concepts._check import check_concept

__all__ = ["ConceptStratifiedKFold"]


class ConceptStratifiedKFold(StratifiedKFold):
    """Stratified folds over class and concept.

    Stratified by class alone, a fold may get all of the few samples that show an
    artifact, and its training side none. Here every fold gets its share of each class
    with and without the artifact, and of those where it is unknown.

    Parameters
    ----------
    n_splits : int, default=5
        Number of folds.
    shuffle : bool, default=False
        Shuffle the samples before they are dealt out.
    random_state : int, RandomState instance or None, default=None
        The order, if `shuffle`.

    Examples
    --------
    With metadata routing a search passes `concept` on to the folds as well; without,
    pass ``groups=concept``.

    >>> import numpy as np
    >>> from masktune_sk.concepts import ConceptStratifiedKFold
    >>> y = np.repeat([0, 1], 20)
    >>> concept = np.r_[np.zeros(34), np.ones(6)]
    >>> folds = ConceptStratifiedKFold(n_splits=3)
    >>> [int(concept[test].sum()) for _, test in folds.split(y, y, concept)]
    [2, 2, 2]
    """

    # Metadata routing hands `concept` to the parameter `groups`.
    __metadata_request__split = {"groups": "concept"}

    def split(self, X, y, groups=None):
        """Generate indices to split data into training and test set.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples; only their number counts.
        y : array-like of shape (n_samples,)
            Class labels.
        groups : array-like of shape (n_samples,) or (n_samples, n_concepts)
            The concept: 1 with the artifact, 0 without, -1 or NaN unknown.

        Yields
        ------
        train : ndarray of int
            Indices of the training set of that split.
        test : ndarray of int
            Indices of its test set.

        Raises
        ------
        ValueError
            If the concept is missing or wrong, or has fewer than `n_splits` samples of
            a kind.
        """
        if groups is None:
            raise ValueError(
                "ConceptStratifiedKFold needs the concept of each sample: pass "
                "concept=... to the search with metadata routing enabled, groups=... "
                "without."
            )
        y = np.asarray(y)
        concept = check_concept(groups, len(y), min_samples=self.n_splits)
        _, codes = np.unique(y, return_inverse=True)
        kinds = np.column_stack([codes, np.nan_to_num(concept, nan=-1)])
        _, strata = np.unique(kinds, axis=0, return_inverse=True)
        yield from super().split(X, strata.ravel())
