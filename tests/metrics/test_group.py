"""Tests of accuracy by group."""

import warnings

import numpy as np
import pytest
from sklearn import config_context
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, make_scorer
from sklearn.model_selection import GridSearchCV, StratifiedKFold

from masktune_sk.metrics import group_accuracies, worst_group_accuracy_score

BOTH = pytest.mark.parametrize("metric", [group_accuracies, worst_group_accuracy_score])


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    y_true = rng.integers(3, size=200)
    y_pred = np.where(rng.random(200) < 0.7, y_true, rng.integers(3, size=200))
    return y_true, y_pred, rng.integers(5, size=200)


@pytest.mark.parametrize("kind", [int, str])
@pytest.mark.parametrize("label", [int, str])
def test_equals_a_plain_loop(sample, kind, label):
    y_true, y_pred, groups = sample
    y_true, y_pred, groups = y_true.astype(label), y_pred.astype(label), groups + 3
    groups = groups.astype(kind)
    result = group_accuracies(y_true, y_pred, groups=groups)
    hits, counts = {}, {}
    for true, pred, group in zip(y_true, y_pred, groups.tolist(), strict=True):
        hits[group] = hits.get(group, 0) + (true == pred)
        counts[group] = counts.get(group, 0) + 1
    assert result == {group: hits[group] / counts[group] for group in sorted(counts)}
    assert list(result) == sorted(counts)
    assert {type(group) for group in result} == {kind}
    assert {type(value) for value in result.values()} == {float}
    worst = worst_group_accuracy_score(y_true, y_pred, groups=groups)
    assert worst == min(result.values())
    assert type(worst) is float


def test_one_group_is_accuracy(sample):
    y_true, y_pred, _ = sample
    groups = ["all"] * len(y_true)
    assert group_accuracies(y_true, y_pred, groups=groups) == {
        "all": accuracy_score(y_true, y_pred)
    }


def test_order_of_samples_does_not_matter(sample):
    y_true, y_pred, groups = sample
    order = np.random.default_rng(1).permutation(len(groups))
    assert group_accuracies(y_true, y_pred, groups=groups) == group_accuracies(
        y_true[order], y_pred[order], groups=groups[order]
    )


@pytest.mark.parametrize(
    "groups",
    [
        ["b", "a", "b", "a"],
        ("b", "a", "b", "a"),
        np.array(["b", "a", "b", "a"]),
        np.array(["b", "a", "b", "a"], dtype=object),
    ],
)
def test_containers_of_strings(groups):
    result = group_accuracies([0, 1, 0, 1], [0, 1, 1, 1], groups=groups)
    assert result == {"a": 1.0, "b": 0.5}
    assert {type(group) for group in result} == {str}


@pytest.mark.parametrize(
    "groups",
    [
        [7, -2, 7, -2],
        [np.int64(7), -2, 7, -2],
        np.array([7, -2, 7, -2], dtype=np.int8),
        np.array([7, -2, 7, -2], dtype=object),
    ],
)
def test_containers_of_integers(groups):
    result = group_accuracies([0, 1, 0, 1], [0, 1, 1, 1], groups=groups)
    assert result == {-2: 1.0, 7: 0.5}
    assert {type(group) for group in result} == {int}


def test_boolean_groups_count_as_integers():
    result = group_accuracies([0, 1], [0, 0], groups=np.array([True, False]))
    assert result == {0: 0.0, 1: 1.0}


def test_pandas_series():
    pd = pytest.importorskip("pandas")
    y_true, y_pred = pd.Series(["x", "y", "x"]), pd.Series(["x", "x", "x"])
    for groups in (
        pd.Series(["a", "b", "a"], index=[5, 6, 7]),
        pd.Series(["a", "b", "a"], dtype="category"),
    ):
        result = group_accuracies(y_true, y_pred, groups=groups)
        assert result == {"a": 1.0, "b": 0.0}
    with pytest.raises(ValueError, match="without missing values: value 1 is"):
        group_accuracies(y_true, y_pred, groups=pd.Series([1, None, 2], dtype="Int64"))


@pytest.mark.parametrize("expected", [["a", "b"], ("b", "a", "a"), {"a", "b"}])
def test_expected_groups_all_present(expected):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = group_accuracies(
            [0, 1, 1], [0, 0, 1], groups=["b", "a", "a"], expected_groups=expected
        )
    assert list(result.items()) == [("a", 0.5), ("b", 1.0)]


def test_expected_group_without_sample():
    y_true, y_pred, groups = [0, 1, 1], [0, 0, 1], [4, 1, 1]
    expected = [1, 2, 3, 4]
    message = r"No sample is in \[2, 3\] of expected_groups"
    with pytest.warns(UndefinedMetricWarning, match=message) as record:
        result = group_accuracies(
            y_true, y_pred, groups=groups, expected_groups=expected
        )
    assert record[0].filename == __file__
    assert list(result) == expected
    assert np.isnan([result[2], result[3]]).all()
    assert (result[1], result[4]) == (0.5, 1.0)
    with pytest.warns(UndefinedMetricWarning, match=message) as record:
        worst = worst_group_accuracy_score(
            y_true, y_pred, groups=groups, expected_groups=expected
        )
    assert record[0].filename == __file__
    assert worst == 0.5


@BOTH
@pytest.mark.parametrize(
    ("y_true", "y_pred", "groups", "message"),
    [
        ([0, 1], [0, 1], None, "groups must hold the group of each sample, got None"),
        ([0, 1], [0], [0, 0], "inconsistent numbers of samples"),
        ([0, 1], [0, 1], [0, 0, 1], "inconsistent numbers of samples"),
        ([], [], [], "y_true is empty: at least one sample"),
        ([0, 1], [0.2, 0.8], [0, 1], "y_pred must hold class labels, got continuous"),
        ([0, 1], [[0.2, 0.8], [1, 0]], [0, 1], "1d array"),
        ([0, float("nan")], [0, 1], [0, 1], "Input y_true contains NaN"),
        (["a", "b"], [0, 1], [0, 1], "Mix of label input types"),
        ([0, 1], [0, 1], ["a", None], "missing values: value 1 is None"),
        ([0, 1], [0, 1], ["a", float("nan")], "missing values: value 1 is nan"),
        ([0, 1], [0, 1], [float("nan"), "a"], "missing values: value 0 is nan"),
        ([0, 1], [0, 1], np.array([0, np.nan]), "missing values: value 1 is nan"),
        ([0, 1], [0, 1], np.array([2.0, 3]), "all integers.* value 0 is 2.0"),
        ([0, 1], [0, 1], ["a", 1], "all strings or all integers.* value 1 is 1"),
        ([0, 1], [0, 1], [[0, 1], [1, 0]], r"groups must be one-dim.* \(2, 2\)"),
    ],
)
def test_bad_input(metric, y_true, y_pred, groups, message):
    with pytest.raises(ValueError, match=message):
        metric(y_true, y_pred, groups=groups)


@BOTH
def test_bad_expected_groups(metric):
    labels = [0, 1, 1]
    with pytest.raises(ValueError, match=r"holds \['c', 'd'\], not among .* \['a'\]"):
        metric(labels, labels, groups=["d", "c", "a"], expected_groups=["a"])
    with pytest.raises(ValueError, match=r"holds \[0, 1\], not among .* \['0', '1'\]"):
        metric(labels, labels, groups=[0, 1, 1], expected_groups=["0", "1"])
    with pytest.raises(ValueError, match="expected_groups must be all strings or all"):
        metric(labels, labels, groups=[0, 1, 1], expected_groups=[0, "1"])


@BOTH
def test_groups_are_required(metric):
    with pytest.raises(TypeError, match="groups"):
        metric([0, 1], [0, 1])


def test_selects_in_a_grid_search():
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=400)
    bias = np.where(rng.random(400) < 0.85, y, 1 - y)
    groups = 2 * y + bias
    X = np.c_[y + rng.normal(scale=0.7, size=400), bias]
    cv = StratifiedKFold(4)
    with config_context(enable_metadata_routing=True):
        scorer = make_scorer(
            worst_group_accuracy_score, expected_groups=[0, 1, 2, 3]
        ).set_score_request(groups=True)
        search = GridSearchCV(
            LogisticRegression(), {"C": [1e-3, 1.0]}, scoring=scorer, cv=cv
        ).fit(X, y, groups=groups)
    for row, C in enumerate([1e-3, 1.0]):
        for fold, (train, test) in enumerate(cv.split(X, y)):
            y_pred = LogisticRegression(C=C).fit(X[train], y[train]).predict(X[test])
            by_hand = min(
                np.mean(y_pred[groups[test] == group] == y[test][groups[test] == group])
                for group in range(4)
            )
            assert search.cv_results_[f"split{fold}_test_score"][row] == by_hand
