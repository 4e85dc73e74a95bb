"""Accuracy by group: a shortcut shows where it fails, not on average."""

import numpy as np
from sklearn.utils import (
    assert_all_finite,
    check_consistent_length,
    column_or_1d,
)
from sklearn.utils.multiclass import type_of_target, unique_labels

from masktune_sk.metrics._by_group import evaluate_groups


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
    hits = find_hits(y_true, y_pred)
    return evaluate_groups(_share, (hits,), groups, expected_groups, {})


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
    hits = find_hits(y_true, y_pred)
    accuracies = evaluate_groups(_share, (hits,), groups, expected_groups, {})
    return min(value for value in accuracies.values() if not np.isnan(value))


def find_hits(y_true, y_pred):
    """Validate labels; return which predictions are right."""
    check_consistent_length(y_true, y_pred)
    y_true = _check_labels(y_true, "y_true")
    y_pred = _check_labels(y_pred, "y_pred")
    unique_labels(y_true, y_pred)  # refuses strings against numbers
    return y_true == y_pred


def _share(hits):
    return float(hits.mean())


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
