"""Accuracy by group: a shortcut shows where it fails, not on average."""

import warnings

import numpy as np
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.utils import (
    assert_all_finite,
    check_consistent_length,
    column_or_1d,
)
from sklearn.utils.multiclass import type_of_target, unique_labels


def group_accuracies(y_true, y_pred, *, groups, expected_groups=None):
    """Accuracy within each group of samples.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True class labels.

    y_pred : array-like of shape (n_samples,)
        Predicted class labels.

    groups : array-like of shape (n_samples,)
        The group of each sample, all strings or all integers, such as class x bias.

    expected_groups : array-like of shape (n_groups,), default=None
        Every group that there is. One without a sample then gets NaN and a warning,
        and a group that is not among them is an error. If None, the groups are those
        in `groups`, and a group that is missing goes unnoticed.

    Returns
    -------
    accuracies : dict
        Group (str or int) to accuracy (float in [0, 1]), sorted by group.

    Raises
    ------
    ValueError
        If the lengths differ, there is no sample, a label is not a class label, a
        group is missing, neither a string nor an integer, or not expected.

    Warns
    -----
    UndefinedMetricWarning
        If a group of `expected_groups` has no sample.

    See Also
    --------
    worst_group_accuracy_score : The smallest of these, one number to select by.

    Examples
    --------
    >>> from masktune_sk.metrics import group_accuracies
    >>> y_true = [0, 0, 0, 1, 1, 1]
    >>> y_pred = [0, 0, 1, 1, 1, 0]
    >>> groups = ["aligned", "aligned", "conflicting"] * 2
    >>> group_accuracies(y_true, y_pred, groups=groups)
    {'aligned': 1.0, 'conflicting': 0.0}
    """
    return _accuracies(y_true, y_pred, groups, expected_groups)


def worst_group_accuracy_score(y_true, y_pred, *, groups, expected_groups=None):
    """Accuracy of the group that fares worst.

    A classifier that leans on a shortcut can be right on average and wrong on every
    sample that contradicts the shortcut. The worst group's accuracy [1]_, [2]_ tells.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True class labels.

    y_pred : array-like of shape (n_samples,)
        Predicted class labels.

    groups : array-like of shape (n_samples,)
        The group of each sample, all strings or all integers, such as class x bias.

    expected_groups : array-like of shape (n_groups,), default=None
        Every group that there is. One without a sample gets a warning and is left
        out, and a group that is not among them is an error. If None, the groups are
        those in `groups`: a fold that lost its hardest group scores too high, and
        nothing says so.

    Returns
    -------
    score : float
        The smallest accuracy of a group that has samples, in [0, 1].

    Raises
    ------
    ValueError
        If the lengths differ, there is no sample, a label is not a class label, a
        group is missing, neither a string nor an integer, or not expected.

    Warns
    -----
    UndefinedMetricWarning
        If a group of `expected_groups` has no sample.

    See Also
    --------
    group_accuracies : The accuracy of every group.

    Notes
    -----
    The accuracy of a group with few samples is coarse and its minimum is biased
    downwards: look at the sizes of the groups before comparing two scores.

    References
    ----------
    .. [1] Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts",
       ICLR 2020.
    .. [2] Asgari Taghanaki et al., "MaskTune: Mitigating Spurious Correlations by
       Forcing to Explore", NeurIPS 2022.

    Examples
    --------
    >>> from masktune_sk.metrics import worst_group_accuracy_score
    >>> y_true, y_pred = [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 0]
    >>> worst_group_accuracy_score(y_true, y_pred, groups=[0, 0, 1, 0, 0, 1])
    0.0

    As the score of a search, with the groups of each fold passed on by metadata
    routing:

    >>> import numpy as np
    >>> from sklearn import config_context
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.metrics import make_scorer
    >>> from sklearn.model_selection import GridSearchCV
    >>> rng = np.random.default_rng(0)
    >>> y = rng.integers(2, size=200)
    >>> bias = np.where(rng.random(200) < 0.8, y, 1 - y)
    >>> X = np.c_[y + rng.normal(size=200), bias]
    >>> with config_context(enable_metadata_routing=True):
    ...     scorer = make_scorer(worst_group_accuracy_score)
    ...     search = GridSearchCV(
    ...         LogisticRegression(),
    ...         {"C": [0.001, 1.0]},
    ...         scoring=scorer.set_score_request(groups=True),
    ...     ).fit(X, y, groups=2 * y + bias)
    >>> search.best_params_
    {'C': 1.0}
    """
    accuracies = _accuracies(y_true, y_pred, groups, expected_groups)
    return min(value for value in accuracies.values() if not np.isnan(value))


def _accuracies(y_true, y_pred, groups, expected_groups):
    """Validate, then count the hits of each group."""
    if groups is None:
        raise ValueError(
            "groups must hold the group of each sample, got None. In a scikit-learn "
            "search, pass groups to fit and request them with "
            "make_scorer(...).set_score_request(groups=True)."
        )
    check_consistent_length(y_true, y_pred, groups)
    y_true = _check_labels(y_true, "y_true")
    y_pred = _check_labels(y_pred, "y_pred")
    unique_labels(y_true, y_pred)  # refuses strings against numbers
    names, codes = np.unique(_check_groups(groups, "groups"), return_inverse=True)

    hits = np.bincount(codes, weights=y_true == y_pred)
    values = hits / np.bincount(codes)
    accuracies = dict(zip(names.tolist(), values.tolist(), strict=True))
    if expected_groups is None:
        return accuracies

    expected = np.unique(_check_groups(expected_groups, "expected_groups")).tolist()
    unknown = [name for name in accuracies if name not in expected]
    if unknown:
        raise ValueError(
            f"groups holds {unknown}, not among expected_groups {expected}. Add them "
            "to expected_groups, or leave it out to take the groups as they come."
        )
    empty = [name for name in expected if name not in accuracies]
    if empty:
        warnings.warn(
            f"No sample is in {empty} of expected_groups: the accuracy there is "
            "undefined (NaN), and the worst group is that of the others.",
            UndefinedMetricWarning,
            stacklevel=3,  # the caller of the public function
        )
    return {name: accuracies.get(name, float("nan")) for name in expected}


def _check_labels(y, name):
    """Return class labels as a 1d array."""
    y = column_or_1d(y)
    if not len(y):
        raise ValueError(f"{name} is empty: at least one sample is needed.")
    assert_all_finite(y, input_name=name)
    kind = type_of_target(y)
    if kind not in ("binary", "multiclass"):
        raise ValueError(
            f"{name} must hold class labels, got {kind} values. Pass what predict "
            "returns, not probabilities."
        )
    return y


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
