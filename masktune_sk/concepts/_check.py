"""What counts as a concept: who shows it, who does not, and who is unknown."""

import numpy as np
from sklearn.utils import check_array

__all__ = ["check_concept", "name_concept"]


def check_concept(concept, n_samples, *, min_samples=5):
    """Validate which samples show a concept, before anything is trained.

    Parameters
    ----------
    concept : array-like of shape (n_samples,) or (n_samples, n_concepts)
        1 or True: the sample shows the concept (the artifact); 0 or False: it does
        not; -1 or NaN: unknown.
    n_samples : int
        How many samples there are.
    min_samples : int, default=5
        How many samples each concept needs with it, and how many without.

    Returns
    -------
    concept : ndarray of float64 of shape (n_samples, n_concepts)
        0, 1, and NaN where unknown. The input is not changed.

    Raises
    ------
    ValueError
        If the length or a value is wrong, or a concept has fewer than `min_samples`
        samples of one kind.

    Examples
    --------
    >>> from masktune_sk.concepts import check_concept
    >>> check_concept([True, False, True, False], 4, min_samples=2).ravel()
    array([1., 0., 1., 0.])
    >>> check_concept([1, 0, -1], 3, min_samples=1).ravel()
    array([ 1.,  0., nan])
    """
    concept = np.array(_to_float(concept))
    if concept.ndim == 1:
        concept = concept[:, None]
    if concept.ndim != 2 or len(concept) != n_samples or not concept.shape[1]:
        raise ValueError(
            f"concept must have shape ({n_samples},) or ({n_samples}, n_concepts), a "
            f"value for each sample; got {_original_shape(concept)}."
        )
    concept[concept == -1] = np.nan
    odd = ~(np.isnan(concept) | np.isin(concept, (0, 1)))
    if odd.any():
        raise ValueError(
            "concept must hold 0 or False (without the artifact), 1 or True (with it), "
            f"and -1 or NaN (unknown); got {np.unique(concept[odd])[:5].tolist()}."
        )
    for j, column in enumerate(concept.T):
        _check_counts(column, name_concept(j, concept.shape[1]), min_samples)
    return concept


def name_concept(j, n_concepts):
    """Return how messages call the concept of column j."""
    return "concept" if n_concepts == 1 else f"concept[:, {j}]"


def _to_float(concept):
    try:
        return check_array(
            concept,
            dtype=np.float64,
            ensure_2d=False,
            allow_nd=True,
            ensure_all_finite="allow-nan",
            ensure_min_samples=0,
            ensure_min_features=0,
            input_name="concept",
        )
    except (TypeError, ValueError) as error:
        raise ValueError(
            "concept must hold 0 or False (without the artifact), 1 or True (with it), "
            f"and -1 or NaN (unknown); it does not convert to numbers: {error}"
        ) from error


def _original_shape(concept):
    """Return the shape as it was given, before a column was made of it."""
    return concept.shape[:1] if concept.shape[1:] == (1,) else concept.shape


def _check_counts(column, name, min_samples):
    n_artifact, n_clean = int((column == 1).sum()), int((column == 0).sum())
    few = min(n_artifact, n_clean)
    if few >= max(min_samples, 1):
        return
    kind = "with the artifact (1)" if n_artifact == few else "without it (0)"
    problem = f"{few} samples {kind}" if few else f"no sample {kind}"
    raise ValueError(
        f"{name} has {problem}, but a direction needs at least {max(min_samples, 1)} "
        f"of both kinds; got {n_artifact} with, {n_clean} without and "
        f"{int(np.isnan(column).sum())} unknown. Mark more samples. In a "
        "cross-validation fold all artifact samples may have gone to the other side: "
        "split with cv=ConceptStratifiedKFold()."
    )
