"""From latents and who shows a concept to its direction."""

import warnings

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.utils import check_array, check_random_state, column_or_1d

from masktune_sk.concepts._check import check_concept, name_concept
from masktune_sk.concepts._estimators import (
    check_cav,
    kind_means,
    split_scope,
    tune_cav,
)
from masktune_sk.concepts._result import ConceptDirections
from masktune_sk.concepts._scope import check_scope, select_scope
from masktune_sk.exceptions import ConceptWarning

__all__ = ["concept_directions"]

_MEANINGFUL_AUC = 0.6
_MEANINGFUL_GAP = 0.1  # in standard deviations within class and kind
_MANY_SAMPLES = 20


def concept_directions(
    latents,
    concept,
    labels,
    *,
    cav="signal",
    scope="auto",
    min_samples=5,
    random_state=None,
):
    """Compute the directions along which concepts show in latents.

    Parameters
    ----------
    latents : array-like of shape (n_samples, n_latents)
        What a layer puts out for each sample, pooled over positions.
    concept : array-like of shape (n_samples,) or (n_samples, n_concepts), or None
        1 or True: the sample shows the artifact; 0 or False: it does not; -1 or NaN:
        unknown, left out. May be None if `cav` is an array.
    labels : array-like of shape (n_samples,) of int, or None
        The encoded class of each sample. May be None with ``scope="all"``.
    cav : str, estimator or array-like, default="signal"
        How a direction is computed:

        - "signal" (or "mean"): the difference of the means of artifact and clean
          samples, which is the pattern CAV of [1]_;
        - "svm", "ridge", "lasso", "logistic": the coefficients of a linear model with
          balanced kinds and an intercept. Its regularisation is that of ten powers of
          ten (lasso: six) which does best in a shuffled, stratified five-fold
          cross-validation, the strongest among equals;
        - a linear scikit-learn estimator: the coefficients of a clone of it;
        - an array of shape (n_latents,) or (n_concepts, n_latents): itself. With
          several directions and one column of `concept`, all are of that one.
    scope : {"auto", "all"} or list of int, default="auto"
        Which samples are compared. "auto": samples of the same class, in classes with
        `min_samples` of both kinds; if there is none, as "all", with a warning. A list
        of encoded classes: the same within those alone. "all": regardless of class.
    min_samples : int, default=5
        How many samples of both kinds a concept needs, and a class to be compared
        within.
    random_state : int, RandomState instance or None, default=None
        Shuffles the folds.

    Returns
    -------
    result : ConceptDirections
        Directions of unit norm, which point from clean to artifact, with the mean
        scores of both kinds, their gap and the AUC on held-out samples.

    Raises
    ------
    ValueError
        If a shape or a value is wrong, there are too few samples of a kind, the
        estimator has no coefficients, or a direction is zero.

    Warns
    -----
    ConceptWarning
        If a direction hardly tells held-out samples with the artifact from those
        without (AUC below 0.6, or a gap below a tenth of the standard deviation);
        fewer than 20 samples show the concept; or no class has both kinds.

    Notes
    -----
    An artifact that is more frequent in one class has the direction of that class in
    its difference of means; unlearning it unlearns the class. Within classes the
    signal is the mean of the differences in each class,
    ``sum_c omega_c (mu_1c - mu_0c)``, with the class's share of the artifact samples
    as its weight. Linear models see each class around the middle of its two means.

    A linear model looks for what tells the kinds apart best, and turns away from the
    concept where noise is correlated with it; the signal does not [2]_.

    References
    ----------
    .. [1] Pahde et al., "Navigating Neural Space: Revisiting Concept Activation
       Vectors to Overcome Directional Divergence", ICLR 2025.
    .. [2] Haufe et al., "On the interpretation of weight vectors of linear models in
       multivariate neuroimaging", NeuroImage 87, 2014.

    Examples
    --------
    >>> import numpy as np
    >>> from masktune_sk.concepts import concept_directions
    >>> rng = np.random.default_rng(0)
    >>> labels = rng.integers(2, size=400)
    >>> concept = rng.random(400) < np.where(labels == 1, 0.8, 0.2)
    >>> latents = rng.normal(size=(400, 3))
    >>> latents[:, 0] += 5 * labels
    >>> latents[:, 1] += 2 * concept
    >>> within = concept_directions(latents, concept, labels, random_state=0)
    >>> pooled = concept_directions(
    ...     latents, concept, labels, scope="all", random_state=0
    ... )
    >>> [int(abs(found.directions).argmax()) for found in (within, pooled)]
    [1, 0]
    """
    latents = check_array(latents, dtype=np.float64, input_name="latents")
    if isinstance(cav, str) or hasattr(cav, "fit"):
        name, cav = check_cav(cav)
        given = None
    else:
        name, given = "array", _check_directions(cav, latents.shape[1])
    if concept is None:
        if given is None:
            raise ValueError(
                "concept is missing: a direction is computed from samples that are "
                "known to show the artifact or not. Pass concept, or the direction "
                "itself as cav."
            )
        norms = np.linalg.norm(given, axis=1)
        return ConceptDirections(given / norms[:, None], norms)
    concept = check_concept(concept, len(latents), min_samples=min_samples)
    if given is not None:
        concept = _match_concepts(concept, len(given))
    labels = _check_labels(labels, len(latents), scope)
    scope = check_scope(scope, labels)
    seed = check_random_state(random_state).randint(np.iinfo(np.int32).max)
    found, scopes = [], []
    for j, column in enumerate(concept.T):
        what = name_concept(j, concept.shape[1])
        rows = select_scope(column, labels, scope, min_samples, name=what)
        source = cav if given is None else given[j]
        found.append(_one_direction(latents[rows.rows], rows, source, seed, what))
        scopes.append(rows.classes)
    arrays = {key: np.array([one[key] for one in found]) for key in found[0]}
    return ConceptDirections(**arrays, scopes=tuple(scopes), cav=name)


def _one_direction(latents, scope, cav, seed, name):
    """Return what there is to know about the direction of one concept."""
    tuned = None
    if isinstance(cav, np.ndarray):
        direction = cav
    else:
        tuned = tune_cav(cav, latents, scope, seed)
        direction = tuned.fit(latents, scope)
    norm = np.linalg.norm(direction)
    if not norm > 0:
        raise ValueError(
            f"The direction of {name} is zero: by cav={cav!r} the latents of samples "
            "with and without the artifact are the same. Check concept, or choose "
            "another layer."
        )
    direction = direction / norm
    z_clean, z_artifact = _mean_scores(latents @ direction, scope)
    if z_artifact < z_clean:
        direction, z_clean, z_artifact = -direction, -z_clean, -z_artifact
    scores = latents @ direction
    if tuned is None:
        auc = _auc(scores, scope)
    else:
        auc = _held_out_auc(tuned, latents, scope, seed)
    n_concept = int(scope.concept.sum())
    gap = z_artifact - z_clean
    _warn_if_doubtful(gap, _spread(scores, scope), auc, n_concept, name)
    return {
        "directions": direction,
        "norms": norm,
        "z_clean": z_clean,
        "z_artifact": z_artifact,
        "gap": gap,
        "auc": auc,
        "n_concept": n_concept,
        "n_clean": len(latents) - n_concept,
    }


def _mean_scores(scores, scope):
    """Return the mean score of clean and of artifact rows, strata weighted alike."""
    clean, artifact = kind_means(scores[:, None], scope)
    return float(scope.weights @ clean[:, 0]), float(scope.weights @ artifact[:, 0])


def _spread(scores, scope):
    """Return the standard deviation of scores within stratum and kind."""
    means = np.stack(kind_means(scores[:, None], scope))[..., 0]
    return float(np.std(scores - means[scope.concept, scope.strata]))


def _auc(scores, scope):
    """Return the mean AUC of the strata, weighted by their artifact rows."""
    strata = [scope.strata == s for s in range(len(scope.weights))]
    aucs = [roc_auc_score(scope.concept[at], scores[at]) for at in strata]
    return float(scope.weights @ aucs)


def _held_out_auc(tuned, latents, scope, seed):
    """Return the AUC of held-out rows by directions of the others, mean of folds."""
    splits = split_scope(scope, seed)
    if splits is None:
        return np.nan
    aucs, counts = [], []
    for train, test in splits:
        rows = scope.subset(train)
        direction = tuned.fit(latents[train], rows)
        # The sign is part of the direction, as in the one of all rows.
        z_clean, z_artifact = _mean_scores(latents[train] @ direction, rows)
        sign = np.sign(z_artifact - z_clean)
        held_out = scope.subset(test)
        aucs.append(_auc(sign * (latents[test] @ direction), held_out))
        counts.append(held_out.concept.sum())
    return float(np.average(aucs, weights=counts))


def _warn_if_doubtful(gap, spread, auc, n_concept, name):
    if auc < _MEANINGFUL_AUC or gap <= _MEANINGFUL_GAP * spread:
        warnings.warn(
            f"The direction of {name} means nothing: samples with and without the "
            f"artifact hardly differ along it (AUC on held-out samples {auc:.2f}, gap "
            f"{gap:.3g} at a standard deviation of {spread:.3g}). Check which samples "
            "are marked, mark more, or choose another layer.",
            ConceptWarning,
            stacklevel=4,
        )
    if n_concept < _MANY_SAMPLES:
        warnings.warn(
            f"Only {n_concept} samples show the artifact of {name} where it is "
            f"compared: with fewer than {_MANY_SAMPLES} the direction is noisy. Mark "
            "more samples.",
            ConceptWarning,
            stacklevel=4,
        )


def _check_directions(cav, n_latents):
    """Return given directions as an array of shape (n_concepts, n_latents)."""
    expected = (
        f"cav must be an array of shape ({n_latents},) or (n_concepts, {n_latents}), a "
        "number for each latent of the layer"
    )
    try:
        given = np.array(cav, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{expected}, the name of an estimator or a linear scikit-learn estimator; "
            f"got {cav!r}."
        ) from error
    directions = given[None] if given.ndim == 1 else given
    if directions.ndim != 2 or directions.shape[1] != n_latents or not len(directions):
        raise ValueError(f"{expected}; got the shape {given.shape}.")
    if not np.isfinite(directions).all():
        raise ValueError(f"{expected}; got NaN or infinity.")
    if not directions.any(axis=1).all():
        raise ValueError(f"{expected}; got a direction of zeros, which points nowhere.")
    return directions


def _match_concepts(concept, n_directions):
    """Return a column of the concept for each given direction."""
    n_concepts = concept.shape[1]
    if n_concepts == 1:
        return np.repeat(concept, n_directions, axis=1)
    if n_concepts != n_directions:
        raise ValueError(
            f"concept has {n_concepts} columns and cav {n_directions} directions: give "
            "one column, or one for each direction."
        )
    return concept


def _check_labels(labels, n_samples, scope):
    """Return a class for each sample."""
    if labels is None:
        if isinstance(scope, str) and scope == "all":
            return np.zeros(n_samples, dtype=np.intp)
        raise ValueError(
            "labels are missing: samples are compared within their class. Pass labels, "
            "or scope='all'."
        )
    labels = column_or_1d(labels)
    if len(labels) != n_samples:
        raise ValueError(
            f"labels must hold a class for each of the {n_samples} samples, got "
            f"{len(labels)}."
        )
    return labels
