"""Any metric by group, and in the group where it is worst."""

import warnings
from numbers import Real

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import check_consistent_length

_LARGER_IS_BETTER = {"coverage_at_risk": True, "risk_at_coverage": False}


def metric_by_group(metric, *arrays, groups, expected_groups=None, **params):
    """Evaluate a metric within each group of samples.

    Parameters
    ----------
    metric : callable
        A metric of this package or of scikit-learn, or a function like them.

    *arrays : array-like of shape (n_samples, ...)
        What the metric takes of each sample, in the order in which it takes it, such
        as `y_true, y_pred, selection_score`.

    groups : array-like of shape (n_samples,)
        The group of each sample, all strings or all integers, such as class x bias.

    expected_groups : array-like of shape (n_groups,), default=None
        Every group that there is. One without a sample then gets NaN and a warning,
        and a group that is not among them is an error. If None, the groups are those
        in `groups`, and a group that is missing goes unnoticed.

    **params : dict
        Passed to the metric as they are, such as `coverage=0.9`.

    Returns
    -------
    values : dict
        Group (str or int) to what the metric returns for its samples, sorted by group.

    Raises
    ------
    ValueError
        If the lengths differ, there is no sample, or a group is missing, neither a
        string nor an integer, or not expected; and what the metric raises.

    Warns
    -----
    UndefinedMetricWarning
        If a group of `expected_groups` has no sample. What the metric warns of gets
        the group's name.

    See Also
    --------
    worst_group_metric : The worst of these.
    group_accuracies : The accuracy of each group.
    group_accuracy_intervals : How sure these are.

    Notes
    -----
    `risk_at_coverage` and `coverage_at_risk` choose a threshold for each group. To see
    what a threshold for all does, take the metrics of what it accepts:
    ``metric_by_group(selective_accuracy_score, y_true, y_pred, score >= threshold,
    groups=groups)``. Abstaining can lower the accuracy of a group while it raises that
    of all samples [1]_.

    References
    ----------
    .. [1] Jones et al., "Selective Classification Can Magnify Disparities Across
       Groups", ICLR 2021.

    Examples
    --------
    >>> from masktune_sk.metrics import coverage_score, metric_by_group
    >>> from masktune_sk.metrics import selective_accuracy_score
    >>> y_true, y_pred = [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 0]
    >>> accepted = [True, False, True, True, True, True]
    >>> groups = ["aligned", "aligned", "conflicting"] * 2
    >>> metric_by_group(
    ...     selective_accuracy_score, y_true, y_pred, accepted, groups=groups
    ... )
    {'aligned': 1.0, 'conflicting': 0.0}
    >>> metric_by_group(coverage_score, accepted, groups=groups)
    {'aligned': 0.75, 'conflicting': 1.0}
    """
    return evaluate_groups(metric, arrays, groups, expected_groups, params)


def worst_group_metric(
    metric,
    *arrays,
    groups,
    expected_groups=None,
    greater_is_better=None,
    **params,
):
    """Evaluate a metric in the group where it is worst.

    Parameters
    ----------
    metric : callable
        A metric of this package or of scikit-learn, or a function like them, that
        returns a number.

    *arrays : array-like of shape (n_samples, ...)
        What the metric takes of each sample, in the order in which it takes it, such
        as `y_true, y_pred, selection_score`.

    groups : array-like of shape (n_samples,)
        The group of each sample, all strings or all integers, such as class x bias.

    expected_groups : array-like of shape (n_groups,), default=None
        Every group that there is. One without a sample gets a warning and is left
        out, and a group that is not among them is an error. If None, the groups are
        those in `groups`.

    greater_is_better : bool, default=None
        Whether the worst is the smallest value. If None, the name of the metric tells:
        ``_score`` is better if greater, ``_loss``, ``_error`` and ``_deviance`` if
        smaller.

    **params : dict
        Passed to the metric as they are, such as `coverage=0.9`.

    Returns
    -------
    value : float
        The worst value. Groups where the metric is NaN are left out; NaN if all are.

    Raises
    ------
    ValueError
        If the name of the metric does not tell what is better, it returns no number,
        the lengths differ, there is no sample, or a group is missing, neither a string
        nor an integer, or not expected; and what the metric raises.

    Warns
    -----
    UndefinedMetricWarning
        If a group of `expected_groups` has no sample, or the metric is undefined in a
        group.

    See Also
    --------
    metric_by_group : The value of every group, also about thresholds.
    make_selective_scorer : This as the score of a search.

    Notes
    -----
    The selective accuracy of a group of which nothing is accepted is NaN, so that
    refusing all of the hardest group raises the worst of the others: look at the worst
    group's `coverage_score` too.

    Examples
    --------
    >>> from masktune_sk.metrics import aurc_loss, worst_group_metric
    >>> y_true, y_pred = [0, 0, 1, 1], [0, 1, 1, 0]
    >>> score = [0.9, 0.5, 0.8, 0.6]
    >>> worst_group_metric(aurc_loss, y_true, y_pred, score, groups=[0, 0, 0, 1])
    1.0
    """
    if greater_is_better is None:
        greater_is_better = is_greater_better(metric)
    values = evaluate_groups(metric, arrays, groups, expected_groups, params)
    odd = [value for value in values.values() if not isinstance(value, Real)]
    if odd:
        raise ValueError(
            f"{_name(metric)} must return a number to have a worst group, got "
            f"{type(odd[0]).__name__}. metric_by_group takes any."
        )
    defined = [float(value) for value in values.values() if not np.isnan(value)]
    if not defined:
        return float("nan")
    return min(defined) if greater_is_better else max(defined)


def is_greater_better(metric):
    """Tell by the name of a metric whether greater is better."""
    name = _name(metric)
    if name in _LARGER_IS_BETTER:
        return _LARGER_IS_BETTER[name]
    if name.endswith("_score"):
        return True
    if name.endswith(("_loss", "_error", "_deviance")):
        return False
    raise ValueError(
        f"The name of {name} does not end with _score, _loss, _error or _deviance, so "
        "it does not tell what is better. Pass greater_is_better=True or False."
    )


def evaluate_groups(
    metric, arrays, groups, expected_groups, params, undefined=float("nan")
):
    """Validate groups, then evaluate the metric in each.

    Warnings point at the caller of the public function that calls this one.
    """
    if groups is None:
        raise ValueError(
            "groups must hold the group of each sample, got None. In a scikit-learn "
            "search, pass groups to fit and request them with "
            "set_score_request(groups=True)."
        )
    check_consistent_length(*arrays, groups)
    names, codes = np.unique(_check_groups(groups, "groups"), return_inverse=True)
    names = names.tolist()
    if not names:
        raise ValueError("groups is empty: at least one sample is needed.")
    expected = names
    if expected_groups is not None:
        expected = _check_groups(expected_groups, "expected_groups")
        expected = np.unique(expected).tolist()
        unknown = [name for name in names if name not in expected]
        if unknown:
            raise ValueError(
                f"groups holds {unknown}, not among expected_groups {expected}. Add "
                "them to expected_groups, or leave it out to take the groups as they "
                "come."
            )
    arrays = [np.asarray(array) for array in arrays]
    values = dict.fromkeys(expected, undefined)
    for code, name in enumerate(names):
        rows = codes == code
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            values[name] = metric(*(array[rows] for array in arrays), **params)
        for warning in caught:
            message = f"Group {name!r}: {warning.message}"
            warnings.warn(message, warning.category, stacklevel=3)
    empty = [name for name in expected if name not in names]
    if empty:
        warnings.warn(
            f"No sample is in {empty} of expected_groups: the value there is undefined "
            f"({undefined}), and the worst group is that of the others.",
            UndefinedMetricWarning,
            stacklevel=3,
        )
    return values


def _name(metric):
    return getattr(metric, "__name__", repr(metric))


def _check_groups(groups, name):
    """Return the groups as a 1d array of strings or of integers, none missing."""
    if not hasattr(groups, "dtype"):
        # numpy would turn a NaN, or an integer, among strings into one more string
        groups = np.array(list(groups), dtype=object)
    groups = np.asarray(groups)
    if groups.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {groups.shape}.")
    if groups.dtype.kind in "biuU":
        return groups
    values = groups.tolist()
    kind = str if values and isinstance(values[0], str) else (int, np.integer, np.bool_)
    odd = [i for i, value in enumerate(values) if not isinstance(value, kind)]
    if odd:
        if groups.dtype.kind == "f":  # name a NaN, if that is why they are floats
            odd = [np.argmax(np.isnan(groups))]
        raise ValueError(
            f"{name} must be all strings or all integers, without missing values: "
            f"value {odd[0]} is {values[odd[0]]!r}."
        )
    return np.array(values)
