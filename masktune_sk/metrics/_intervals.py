"""Confidence intervals for shares: accuracy, risk and coverage are counts of n."""

from numbers import Real

import numpy as np
from scipy import stats
from sklearn.utils import check_consistent_length

from masktune_sk.metrics._by_group import evaluate_groups
from masktune_sk.metrics._group import find_hits
from masktune_sk.metrics._operating_points import check_accepted

_METHODS = ("clopper-pearson", "wilson")


def proportion_interval(count, n_samples, *, confidence=0.95, method="clopper-pearson"):
    """Two-sided confidence interval of a share, from a count.

    The share may be an accuracy (count right predictions among samples), a risk (count
    errors among accepted samples) or a coverage (count accepted samples).

    Parameters
    ----------
    count : int or array-like of int
        How many of the samples have the property, from 0 to `n_samples`.

    n_samples : int or array-like of int
        How many samples there are; broadcast with `count`.

    confidence : float in (0, 1), default=0.95
        Probability with which the interval holds the true share, before the samples
        are drawn. Higher makes it wider.

    method : {"clopper-pearson", "wilson"}, default="clopper-pearson"
        "clopper-pearson" holds the true share with at least this probability, whatever
        the share and the number of samples [1]_. "wilson" is narrower and holds it
        with about this probability on average over shares [2]_.

    Returns
    -------
    low, high : float, or ndarray of float64
        The ends of the interval, in [0, 1]; 0 and 1 where there is no sample.

    Raises
    ------
    ValueError
        If a count is not an integer from 0 to `n_samples`, `confidence` is not in
        (0, 1), or `method` is none of the above.

    See Also
    --------
    group_accuracy_intervals : Intervals of the accuracy by group.
    scipy.stats.binomtest : Its `proportion_ci` gives the same for one count.

    Notes
    -----
    The samples must be independent draws from the population that the share is of,
    and what is counted must not have been chosen by looking at them: a threshold
    tuned on the same samples has a risk that the interval does not know of.

    References
    ----------
    .. [1] Clopper and Pearson, "The use of confidence or fiducial limits illustrated
       in the case of the binomial", Biometrika 1934.
    .. [2] Wilson, "Probable inference, the law of succession, and statistical
       inference", JASA 1927.

    Examples
    --------
    >>> from masktune_sk.metrics import proportion_interval
    >>> low, high = proportion_interval(3, 50)
    >>> print(f"{low:.3f} {high:.3f}")
    0.013 0.165
    >>> low, high = proportion_interval(3, 50, method="wilson")
    >>> print(f"{low:.3f} {high:.3f}")
    0.021 0.162
    """
    check_interval(confidence, method)
    count, n_samples = np.broadcast_arrays(count, n_samples)
    for name, values in (("count", count), ("n_samples", n_samples)):
        if values.dtype.kind not in "iu":
            raise ValueError(f"{name} must be integers, got {values.dtype}.")
    count, n_samples = count.astype(np.int64), n_samples.astype(np.int64)
    outside = (count < 0) | (count > n_samples)
    if outside.any():
        raise ValueError(
            f"count must be from 0 to n_samples, got {count[outside][0]} of "
            f"{n_samples[outside][0]}."
        )
    bounds = _clopper_pearson if method == "clopper-pearson" else _wilson
    # A sample where there is none, for a division that nothing comes of.
    low, high = bounds(count, np.maximum(n_samples, 1), confidence)
    low = np.where(count == 0, 0.0, low)
    high = np.where(count == n_samples, 1.0, high)
    if low.ndim == 0:
        return float(low), float(high)
    return low, high


def group_accuracy_intervals(
    y_true,
    y_pred,
    accepted=None,
    *,
    groups,
    expected_groups=None,
    confidence=0.95,
    method="clopper-pearson",
):
    """Confidence interval of the accuracy within each group of samples.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True class labels.

    y_pred : array-like of shape (n_samples,)
        Predicted class labels, of all samples.

    accepted : array-like of bool, shape (n_samples,), default=None
        True = accepted: intervals of the selective accuracy. None: all are.

    groups : array-like of shape (n_samples,)
        The group of each sample, all strings or all integers, such as class x bias.

    expected_groups : array-like of shape (n_groups,), default=None
        Every group that there is. One without a sample then gets (0, 1) and a warning,
        and a group that is not among them is an error. If None, the groups are those
        in `groups`.

    confidence : float in (0, 1), default=0.95
        Of each interval by itself. For all of k groups at once, pass
        ``1 - (1 - confidence) / k``.

    method : {"clopper-pearson", "wilson"}, default="clopper-pearson"
        See `proportion_interval`.

    Returns
    -------
    intervals : dict
        Group (str or int) to (low, high), floats in [0, 1], sorted by group. (0, 1) if
        nothing of the group is accepted.

    Raises
    ------
    ValueError
        If the lengths differ, there is no sample, a label is not a class label, a
        group is missing, neither a string nor an integer, or not expected, `accepted`
        is not boolean, `confidence` is not in (0, 1), or `method` is unknown.

    Warns
    -----
    UndefinedMetricWarning
        If a group of `expected_groups` has no sample.

    See Also
    --------
    proportion_interval : The interval of any count, and what it needs.
    group_accuracies : The accuracies.

    Examples
    --------
    >>> from masktune_sk.metrics import group_accuracy_intervals
    >>> y_true, y_pred = [0] * 50 + [1] * 10, [0] * 55 + [1] * 5
    >>> groups = ["large"] * 50 + ["small"] * 10
    >>> intervals = group_accuracy_intervals(y_true, y_pred, groups=groups)
    >>> for group, (low, high) in intervals.items():
    ...     print(f"{group}: {low:.2f} to {high:.2f}")
    large: 0.93 to 1.00
    small: 0.19 to 0.81
    """
    check_interval(confidence, method)
    if accepted is None:
        accepted = np.ones(len(y_true), dtype=bool)
    check_consistent_length(y_true, y_pred, accepted)
    right, accepted = find_hits(y_true, y_pred), check_accepted(accepted)

    def interval(right, accepted):
        return proportion_interval(
            np.sum(right & accepted),
            np.sum(accepted),
            confidence=confidence,
            method=method,
        )

    return evaluate_groups(
        interval, (right, accepted), groups, expected_groups, {}, undefined=(0.0, 1.0)
    )


def check_interval(confidence, method):
    """Refuse a confidence, or a method, that is none."""
    if not (isinstance(confidence, Real) and 0 < confidence < 1):
        raise ValueError(f"confidence must be in (0, 1), got {confidence!r}.")
    if method not in _METHODS:
        raise ValueError(f"method must be one of {_METHODS}, got {method!r}.")


def _clopper_pearson(count, n_samples, confidence):
    tail = (1 - confidence) / 2
    # 1 in place of a parameter 0: the caller sets that end.
    low = stats.beta.ppf(tail, np.maximum(count, 1), n_samples - count + 1)
    high = stats.beta.isf(tail, count + 1, np.maximum(n_samples - count, 1))
    return low, high


def _wilson(count, n_samples, confidence):
    z = stats.norm.isf((1 - confidence) / 2)
    share = count / n_samples
    centre = share + z**2 / (2 * n_samples)
    half = z * np.sqrt(share * (1 - share) / n_samples + (z / (2 * n_samples)) ** 2)
    scale = 1 + z**2 / n_samples
    return (centre - half) / scale, (centre + half) / scale
