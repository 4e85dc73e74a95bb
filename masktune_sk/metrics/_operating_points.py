"""One operating point of predictions that may be refused."""

import warnings
from numbers import Real

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import check_consistent_length, column_or_1d

from masktune_sk.metrics._group import find_hits
from masktune_sk.metrics._selective import risk_coverage_curve

# Forgives the rounding of a target such as 1 - 0.9; far below one sample of a million.
_ROUNDING = 1e-12


def risk_at_coverage(y_true, y_pred, selection_score, *, coverage):
    """Risk when at least this share of samples is accepted.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True class labels.

    y_pred : array-like of shape (n_samples,)
        Predicted class labels, of all samples.

    selection_score : array-like of shape (n_samples,)
        How willing the classifier is to predict each sample; larger = more willing.

    coverage : float in (0, 1]
        Share to accept. As ties are accepted together, the share accepted is the
        smallest of the curve that is not below it.

    Returns
    -------
    risk : float
        Share of errors among the accepted, in [0, 1]. Lower is better.

    Raises
    ------
    ValueError
        If `coverage` is not in (0, 1], the lengths differ, there is no sample, a label
        is not a class label, or a score is not a finite number.

    See Also
    --------
    coverage_at_risk : The other way round.

    Notes
    -----
    The threshold is chosen on the samples that the risk is of, so it is a description
    of these samples and no guarantee for others.

    Examples
    --------
    >>> from masktune_sk.metrics import risk_at_coverage
    >>> y_true, y_pred, score = [0, 0, 1, 1], [0, 1, 1, 0], [0.9, 0.5, 0.8, 0.6]
    >>> risk_at_coverage(y_true, y_pred, score, coverage=0.5)
    0.0
    >>> risk_at_coverage(y_true, y_pred, score, coverage=1)
    0.5
    """
    if not (isinstance(coverage, Real) and 0 < coverage <= 1):
        raise ValueError(f"coverage must be in (0, 1], got {coverage!r}.")
    coverages, risks, _ = risk_coverage_curve(y_true, y_pred, selection_score)
    return float(risks[np.searchsorted(coverages, coverage - _ROUNDING)])


def coverage_at_risk(y_true, y_pred, selection_score, *, max_risk):
    """Largest share of samples that can be accepted at no more than this risk.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True class labels.

    y_pred : array-like of shape (n_samples,)
        Predicted class labels, of all samples.

    selection_score : array-like of shape (n_samples,)
        How willing the classifier is to predict each sample; larger = more willing.

    max_risk : float in [0, 1]
        Share of errors allowed among the accepted; 0 for none at all.

    Returns
    -------
    coverage : float
        In [0, 1]; 0 if every threshold has a higher risk, so that nothing can be
        accepted. Higher is better.

    Raises
    ------
    ValueError
        If `max_risk` is not in [0, 1], the lengths differ, there is no sample, a label
        is not a class label, or a score is not a finite number.

    See Also
    --------
    risk_at_coverage : The other way round.

    Notes
    -----
    The risk is not monotonic in coverage: it may be higher than `max_risk` at a smaller
    coverage. Where nothing can be accepted, torch-uncertainty has NaN.

    The threshold is chosen on the samples that the risk is of, so the risk of others is
    probably higher; a guarantee takes a confidence bound.

    Examples
    --------
    >>> from masktune_sk.metrics import coverage_at_risk
    >>> y_true, y_pred, score = [0, 0, 1, 1], [0, 1, 1, 0], [0.9, 0.5, 0.8, 0.6]
    >>> coverage_at_risk(y_true, y_pred, score, max_risk=0.4)
    0.75
    """
    if not (isinstance(max_risk, Real) and 0 <= max_risk <= 1):
        raise ValueError(f"max_risk must be in [0, 1], got {max_risk!r}.")
    coverages, risks, _ = risk_coverage_curve(y_true, y_pred, selection_score)
    return float(coverages[risks <= max_risk + _ROUNDING].max(initial=0))


def selective_accuracy_score(y_true, y_pred, accepted):
    """Accuracy among the accepted samples.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True class labels.

    y_pred : array-like of shape (n_samples,)
        Predicted class labels, of all samples.

    accepted : array-like of bool, shape (n_samples,)
        True = accepted; with `y_pred` what ``predict_with_reject`` returns.

    Returns
    -------
    score : float
        In [0, 1], or NaN if nothing is accepted. Higher is better.

    Raises
    ------
    ValueError
        If the lengths differ, there is no sample, a label is not a class label, or
        `accepted` is not boolean.

    Warns
    -----
    UndefinedMetricWarning
        If nothing is accepted.

    See Also
    --------
    coverage_score : Accuracy means little without it.

    Examples
    --------
    >>> from masktune_sk.metrics import selective_accuracy_score
    >>> selective_accuracy_score([0, 0, 1, 1], [0, 1, 1, 0], [True, False, True, True])
    0.6666666666666666
    """
    check_consistent_length(y_true, y_pred, accepted)
    right = find_hits(y_true, y_pred)
    accepted = check_accepted(accepted)
    if not accepted.any():
        warnings.warn(
            "The selective accuracy is undefined (NaN): no sample is accepted.",
            UndefinedMetricWarning,
            stacklevel=2,
        )
        return float("nan")
    return float(right[accepted].mean())


def coverage_score(accepted):
    """Share of samples that are accepted.

    Parameters
    ----------
    accepted : array-like of bool, shape (n_samples,)
        True = accepted.

    Returns
    -------
    score : float
        In [0, 1]. Higher is better.

    Raises
    ------
    ValueError
        If there is no sample, or `accepted` is not boolean.

    Examples
    --------
    >>> from masktune_sk.metrics import coverage_score
    >>> coverage_score([True, False, True, True])
    0.75
    """
    return float(check_accepted(accepted).mean())


def check_accepted(accepted):
    """Return a 1d array of booleans."""
    accepted = column_or_1d(accepted)
    if not len(accepted):
        raise ValueError("accepted is empty: at least one sample is needed.")
    # Strings would count as true, whatever they say.
    valid = np.isin(accepted, [0, 1]) & (accepted.dtype.kind in "biufO")
    if not valid.all():
        raise ValueError(
            "accepted must be booleans, True = accepted, got values such as "
            f"{accepted[~valid][0]!s}. Compare scores with a threshold: "
            "selection_score >= threshold."
        )
    return accepted.astype(bool)
