"""Tests of any metric by group."""

import warnings
from functools import partial

import numpy as np
import pytest
from sklearn.exceptions import UndefinedMetricWarning
from sklearn.metrics import accuracy_score, log_loss

from masktune_sk.metrics import (
    augrc_loss,
    aurc_loss,
    coverage_at_risk,
    coverage_score,
    excess_aurc_loss,
    group_accuracies,
    metric_by_group,
    risk_at_coverage,
    risk_coverage_curve,
    selective_accuracy_score,
    worst_group_accuracy_score,
    worst_group_metric,
)

OF_SCORES = {
    aurc_loss: {},
    augrc_loss: {},
    excess_aurc_loss: {},
    risk_at_coverage: {"coverage": 0.8},
    coverage_at_risk: {"max_risk": 0.2},
}
LARGER_IS_BETTER = {coverage_at_risk, coverage_score, selective_accuracy_score}
BOTH = pytest.mark.parametrize("function", [metric_by_group, worst_group_metric])


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    groups = rng.integers(3, size=200)
    score = rng.integers(30, size=200)
    y_true = rng.integers(3, size=200)
    y_pred = np.where(rng.random(200) < 0.6 + 0.01 * score, y_true, 3)
    return y_true, y_pred, score, groups


@pytest.mark.parametrize("kind", [int, str])
@pytest.mark.parametrize("metric", OF_SCORES, ids=lambda metric: metric.__name__)
def test_equals_the_metric_of_each_groups_rows(sample, metric, kind):
    *arrays, groups = sample
    groups = groups.astype(kind)
    params = OF_SCORES[metric]
    values = metric_by_group(metric, *arrays, groups=groups, **params)
    assert values == {
        group: metric(*(array[groups == group] for array in arrays), **params)
        for group in [kind(0), kind(1), kind(2)]
    }
    assert list(values) == sorted(values)
    assert {type(group) for group in values} == {kind}
    best = max if metric in LARGER_IS_BETTER else min
    worst = worst_group_metric(metric, *arrays, groups=groups, **params)
    assert worst in values.values()
    assert type(worst) is float
    assert best([worst, *values.values()]) == best(values.values())
    assert len(set(values.values())) > 1
    assert worst != best(values.values())


@pytest.mark.parametrize("metric", [selective_accuracy_score, coverage_score])
def test_what_one_threshold_accepts(sample, metric):
    y_true, y_pred, score, groups = sample
    accepted = score >= 12
    arrays = [accepted] if metric is coverage_score else [y_true, y_pred, accepted]
    values = metric_by_group(metric, *arrays, groups=groups)
    for group, value in values.items():
        rows = groups == group
        if metric is coverage_score:
            assert value == accepted[rows].mean()
        else:
            assert value == (y_true == y_pred)[rows & accepted].mean()
    worst = worst_group_metric(metric, *arrays, groups=groups)
    assert worst == min(values.values())


def test_abstaining_can_help_on_average_and_hurt_a_group():
    # In group 0 the wrong ones are unsure, in group 1 the right ones.
    y_true, y_pred = [0] * 16, [0] * 8 + [1] * 4 + [1, 1, 0, 0]
    score = np.array([9] * 8 + [1] * 4 + [8, 8, 1, 1])
    groups = [0] * 12 + [1] * 4
    args = y_true, y_pred
    by_group = partial(metric_by_group, selective_accuracy_score, *args, groups=groups)
    everything, some = score >= 0, score >= 5
    assert selective_accuracy_score(*args, everything) == 10 / 16
    assert by_group(everything) == {0: 8 / 12, 1: 1 / 2}
    assert selective_accuracy_score(*args, some) == 8 / 10
    assert by_group(some) == {0: 1, 1: 0}


def test_accuracy_is_that_of_the_group_metrics(sample):
    y_true, y_pred, _, groups = sample
    args, params = (y_true, y_pred), {"groups": groups}
    assert metric_by_group(accuracy_score, *args, **params) == group_accuracies(
        *args, **params
    )
    assert worst_group_metric(
        accuracy_score, *args, **params
    ) == worst_group_accuracy_score(*args, **params)


def test_curves_and_other_arrays(sample):
    *arrays, groups = sample
    curves = metric_by_group(risk_coverage_curve, *arrays, groups=groups)
    assert list(curves) == [0, 1, 2]
    assert {len(curve) for curve in curves.values()} == {3}
    proba = np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])
    losses = metric_by_group(
        log_loss, [0, 1, 1], proba, groups=["a", "a", "b"], labels=[0, 1]
    )
    assert losses["b"] == pytest.approx(-np.log(0.8))


def test_expected_group_without_sample():
    message = r"No sample is in \[2\] of expected_groups: .*undefined \(nan\)"
    arrays = [0, 1, 1], [0, 0, 1], [3, 2, 1]
    params = {"groups": [4, 1, 1], "expected_groups": [1, 2, 4]}
    with pytest.warns(UndefinedMetricWarning, match=message) as record:
        values = metric_by_group(aurc_loss, *arrays, **params)
    assert [warning.filename for warning in record] == [__file__]
    assert list(values) == [1, 2, 4]
    assert np.isnan(values[2])
    with pytest.warns(UndefinedMetricWarning, match=message) as record:
        worst = worst_group_metric(aurc_loss, *arrays, **params)
    assert [warning.filename for warning in record] == [__file__]
    assert worst == max(values[1], values[4])


def test_group_of_which_nothing_is_accepted():
    arrays = [0, 0, 0], [0, 1, 0], [True, True, False]
    message = "Group 'b': .* no sample is accepted"
    with pytest.warns(UndefinedMetricWarning, match=message) as record:
        values = metric_by_group(
            selective_accuracy_score, *arrays, groups=["a", "a", "b"]
        )
    assert [warning.filename for warning in record] == [__file__]
    assert values["a"] == 0.5
    assert np.isnan(values["b"])
    with pytest.warns(UndefinedMetricWarning, match=message):
        worst = worst_group_metric(
            selective_accuracy_score, *arrays, groups=["a", "a", "b"]
        )
    assert worst == 0.5
    with pytest.warns(UndefinedMetricWarning, match="Group"):
        worst = worst_group_metric(
            selective_accuracy_score, [0], [0], [False], groups=["a"]
        )
    assert np.isnan(worst)


def test_direction_may_be_given():
    def hits(y_true, y_pred):
        return int(np.sum(np.equal(y_true, y_pred)))

    args, groups = ([0, 0, 0], [0, 0, 1]), [0, 0, 1]
    for metric in (hits, partial(hits)):
        with pytest.raises(ValueError, match="does not end with _score.*greater_is_be"):
            worst_group_metric(metric, *args, groups=groups)
    worst = partial(worst_group_metric, hits, *args, groups=groups)
    assert worst(greater_is_better=True) == 0
    assert worst(greater_is_better=False) == 2


def test_no_number_has_no_worst(sample):
    *arrays, groups = sample
    with pytest.raises(ValueError, match="coverage_curve must return a number.*tuple"):
        worst_group_metric(
            risk_coverage_curve, *arrays, groups=groups, greater_is_better=True
        )


@BOTH
@pytest.mark.parametrize(
    ("arrays", "groups", "message"),
    [
        (([0, 1], [0, 1]), None, "groups must hold the group of each.*set_score_requ"),
        (([0, 1], [0, 1]), [0], "inconsistent numbers of samples"),
        (([0, 1], [0]), [0, 0], "inconsistent numbers of samples"),
        (([], []), [], "groups is empty: at least one sample"),
        (([0, 1], [0, 1]), ["a", None], "missing values: value 1 is None"),
        (([0, 1], [0, 1]), ["a", 1], "all strings or all integers"),
    ],
)
def test_bad_groups(function, arrays, groups, message):
    with pytest.raises(ValueError, match=message):
        function(accuracy_score, *arrays, groups=groups)


@BOTH
def test_bad_expected_groups(function):
    with pytest.raises(ValueError, match=r"holds \['c'\], not among .* \['a'\]"):
        function(
            accuracy_score, [0, 1], [0, 1], groups=["a", "c"], expected_groups=["a"]
        )
    with pytest.raises(ValueError, match="expected_groups must be all strings"):
        function(accuracy_score, [0], [0], groups=[0], expected_groups=[0, "1"])


@BOTH
def test_what_the_metric_raises_comes_through(function):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError, match="selection_score contains NaN"):
            function(aurc_loss, [0, 1], [0, 1], [0.5, np.nan], groups=[0, 1])
