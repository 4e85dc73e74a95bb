"""Tests of metrics at one threshold, or of what was accepted."""

import warnings

import numpy as np
import pytest
from sklearn.exceptions import UndefinedMetricWarning

from masktune_sk.metrics import (
    coverage_at_risk,
    coverage_score,
    risk_at_coverage,
    risk_coverage_curve,
    selective_accuracy_score,
)

# Highest score first: right, wrong, two tied of which one is wrong, right.
Y_TRUE = [0, 0, 0, 0, 0]
Y_PRED = [0, 1, 1, 0, 0]
SCORE = [0.9, 0.8, 0.5, 0.5, 0.1]


@pytest.mark.parametrize(
    ("coverage", "risk"),
    [
        (1e-6, 0),
        (0.2, 0),
        (0.21, 1 / 2),
        (0.4, 1 / 2),
        (0.6, 2 / 4),  # the tie comes whole
        (0.8, 2 / 4),
        (0.81, 2 / 5),
        (1, 2 / 5),
    ],
)
def test_risk_at_coverage_never_accepts_less(coverage, risk):
    assert risk_at_coverage(Y_TRUE, Y_PRED, SCORE, coverage=coverage) == risk


@pytest.mark.parametrize(
    ("max_risk", "coverage"),
    [(0, 0.2), (0.39, 0.2), (0.4, 1), (0.5, 1), (1, 1)],
)
def test_coverage_at_risk_is_the_largest(max_risk, coverage):
    assert coverage_at_risk(Y_TRUE, Y_PRED, SCORE, max_risk=max_risk) == coverage


def test_coverage_at_risk_is_zero_where_nothing_can_be_accepted():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value = coverage_at_risk([0, 0, 0], [1, 0, 0], [3, 2, 1], max_risk=0.3)
    assert value == 0
    assert type(value) is float


def test_the_two_undo_each_other():
    rng = np.random.default_rng(0)
    score = rng.integers(40, size=300)
    y_true, y_pred = np.zeros(300, dtype=int), (rng.random(300) < 0.3).astype(int)
    coverages, risks, _ = risk_coverage_curve(y_true, y_pred, score)
    for coverage, risk in zip(coverages, risks, strict=True):
        assert risk_at_coverage(y_true, y_pred, score, coverage=coverage) == risk
        assert coverage_at_risk(y_true, y_pred, score, max_risk=risk) >= coverage


def test_rounding_of_targets_is_forgiven():
    y_true, score = [0] * 10, np.arange(10)[::-1]
    y_pred = [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]
    assert 0.1 + 0.2 > 0.3
    assert risk_at_coverage(y_true, y_pred, score, coverage=0.1 + 0.2) == 0
    y_pred = [0] * 9 + [1]
    assert 1 - 0.9 < 0.1
    assert coverage_at_risk(y_true, y_pred, score, max_risk=1 - 0.9) == 1


def test_selective_accuracy_and_coverage_by_hand():
    accepted = [True, False, True, True, False]
    assert selective_accuracy_score(Y_TRUE, Y_PRED, accepted) == 2 / 3
    assert coverage_score(accepted) == 3 / 5
    names = np.array(["a", "b"])
    assert selective_accuracy_score(names[Y_TRUE], names[Y_PRED], accepted) == 2 / 3
    for value in (
        selective_accuracy_score(Y_TRUE, Y_PRED, accepted),
        coverage_score(accepted),
    ):
        assert type(value) is float


@pytest.mark.parametrize(
    "accepted",
    [
        [True, False],
        (1, 0),
        np.array([1.0, 0.0]),
        np.array([True, False], dtype=object),
    ],
)
def test_containers_of_booleans(accepted):
    assert coverage_score(accepted) == 0.5
    assert selective_accuracy_score([0, 0], [0, 1], accepted) == 1


def test_nothing_accepted():
    with pytest.warns(UndefinedMetricWarning, match="no sample is accepted") as record:
        value = selective_accuracy_score([0, 1], [0, 1], [False, False])
    assert record[0].filename == __file__
    assert np.isnan(value)
    assert coverage_score([False, False]) == 0


@pytest.mark.parametrize("coverage", [0, -0.1, 1.1, np.nan, "0.9", None])
def test_bad_coverage(coverage):
    with pytest.raises(ValueError, match=r"coverage must be in \(0, 1\], got"):
        risk_at_coverage(Y_TRUE, Y_PRED, SCORE, coverage=coverage)


@pytest.mark.parametrize("max_risk", [-0.1, 1.1, np.nan, "0.1", None])
def test_bad_risk(max_risk):
    with pytest.raises(ValueError, match=r"max_risk must be in \[0, 1\], got"):
        coverage_at_risk(Y_TRUE, Y_PRED, SCORE, max_risk=max_risk)


@pytest.mark.parametrize(
    ("accepted", "message"),
    [
        ([0.3, 0.9], "accepted must be booleans.*such as 0.3.*selection_score >= t"),
        ([1, 2], "accepted must be booleans.*such as 2"),
        ([1, np.nan], "accepted must be booleans.*such as nan"),
        ([True, None], "accepted must be booleans.*such as None"),
        (["1", "0"], "accepted must be booleans.*such as 1"),
        ([[True], [False, True]], "inhomogeneous|1d array"),
        ([[True, False], [False, True]], "1d array"),
    ],
)
def test_bad_accepted(accepted, message):
    with pytest.raises(ValueError, match=message):
        coverage_score(accepted)
    with pytest.raises(ValueError, match=message):
        selective_accuracy_score([0, 1], [0, 1], accepted)


def test_bad_lengths():
    with pytest.raises(ValueError, match="accepted is empty: at least one sample"):
        coverage_score([])
    with pytest.raises(ValueError, match="y_true is empty: at least one sample"):
        selective_accuracy_score([], [], [])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        selective_accuracy_score([0, 1], [0, 1], [True])
