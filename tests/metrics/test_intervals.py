"""Tests of confidence intervals."""

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import binom, binomtest
from sklearn.exceptions import UndefinedMetricWarning

from masktune_sk.metrics import group_accuracy_intervals, proportion_interval

METHODS = {"clopper-pearson": "exact", "wilson": "wilson"}
EACH = pytest.mark.parametrize("method", METHODS)


@EACH
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.parametrize("n", [1, 2, 10, 137, 5000])
def test_equals_scipy(method, confidence, n):
    counts = np.unique([0, 1, n // 3, n // 2, n - 1, n])
    low, high = proportion_interval(counts, n, confidence=confidence, method=method)
    assert low.shape == high.shape == counts.shape
    for i, count in enumerate(counts):
        expected = binomtest(count, n).proportion_ci(confidence, METHODS[method])
        # scipy's root finder stops at 1e-12.
        assert_allclose((low[i], high[i]), expected, rtol=1e-9, atol=4e-12)
        single = proportion_interval(
            int(count), n, confidence=confidence, method=method
        )
        assert single == (low[i], high[i])
        assert {type(end) for end in single} == {float}


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.93])
def test_clopper_pearson_holds_the_share_as_often_as_it_says(share):
    # By the exact distribution of counts, no simulation.
    for n in (5, 40, 300):
        counts = np.arange(n + 1)
        low, high = proportion_interval(counts, n, confidence=0.9)
        holds = (low <= share) & (share <= high)
        assert binom.pmf(counts, n, share)[holds].sum() >= 0.9


@EACH
def test_ends_without_errors_without_hits_and_without_samples(method):
    low, high = proportion_interval([0, 7, 0], [7, 7, 0], method=method)
    assert low[0] == 0
    assert 0.2 < high[0] < 0.5
    assert high[1] == 1
    assert_allclose(low[1], 1 - high[0], rtol=1e-12)
    assert (low[2], high[2]) == (0, 1)


@EACH
def test_more_samples_or_less_confidence_make_it_narrower(method):
    def width(count, n, confidence):
        low, high = proportion_interval(count, n, confidence=confidence, method=method)
        return high - low

    assert width(300, 1000, 0.95) < width(30, 100, 0.95)
    assert width(30, 100, 0.8) < width(30, 100, 0.95)


def test_small_integers_do_not_overflow():
    counts, n = np.array([0, 255], dtype=np.uint8), np.uint8(255)
    low, high = proportion_interval(counts, n)
    assert (low[0], high[0]) == proportion_interval(0, 255)
    assert (low[1], high[1]) == proportion_interval(255, 255)


def test_groups_by_hand():
    y_true = ["a"] * 6
    y_pred = ["a", "a", "b", "a", "b", "b"]
    groups = [3, 3, 3, 3, 5, 5]
    intervals = group_accuracy_intervals(y_true, y_pred, groups=groups)
    assert intervals == {3: proportion_interval(3, 4), 5: proportion_interval(0, 2)}
    params = {"confidence": 0.8, "method": "wilson"}
    accepted = [True, False, True, True, False, False]
    intervals = group_accuracy_intervals(
        y_true, y_pred, accepted, groups=groups, **params
    )
    assert intervals == {3: proportion_interval(2, 3, **params), 5: (0.0, 1.0)}


def test_expected_group_without_sample():
    with pytest.warns(UndefinedMetricWarning, match=r"\['b'\].*\(0.0, 1.0\)") as record:
        intervals = group_accuracy_intervals(
            [0, 1], [0, 1], groups=["a", "a"], expected_groups=["a", "b"]
        )
    assert [warning.filename for warning in record] == [__file__]
    assert intervals == {"a": proportion_interval(2, 2), "b": (0.0, 1.0)}


@pytest.mark.parametrize("confidence", [0, 1, 95, -0.5, np.nan, "0.9", None])
def test_bad_confidence(confidence):
    message = r"confidence must be in \(0, 1\), got"
    with pytest.raises(ValueError, match=message):
        proportion_interval(1, 2, confidence=confidence)
    with pytest.raises(ValueError, match=message):
        group_accuracy_intervals([0], [0], groups=[0], confidence=confidence)


def test_bad_method():
    with pytest.raises(ValueError, match="'clopper-pearson', 'wilson'.* got 'exact'"):
        proportion_interval(1, 2, method="exact")


@pytest.mark.parametrize(
    ("count", "n", "message"),
    [
        (3, 2, "from 0 to n_samples, got 3 of 2"),
        (-1, 2, "from 0 to n_samples, got -1 of 2"),
        ([1, 2, 5], [1, 2, 3], "got 5 of 3"),
        (0, -1, "from 0 to n_samples, got 0 of -1"),
        (0.5, 2, "count must be integers, got float64"),
        (1, 2.0, "n_samples must be integers, got float64"),
        (True, 2, "count must be integers, got bool"),
    ],
)
def test_bad_counts(count, n, message):
    with pytest.raises(ValueError, match=message):
        proportion_interval(count, n)


@pytest.mark.parametrize(
    ("y_true", "y_pred", "accepted", "groups", "message"),
    [
        ([0, 1], [0, 1], None, None, "groups must hold the group of each sample"),
        ([0, 1], [0, 1], None, [0], "inconsistent numbers of samples"),
        ([0, 1], [0], None, [0, 0], "inconsistent numbers of samples"),
        ([0, 1], [0, 1], [True], [0, 0], "inconsistent numbers of samples"),
        ([0, 1], [0, 1], [0.2, 0.9], [0, 0], "accepted must be booleans"),
        ([0, 1], [0.1, 0.9], None, [0, 0], "y_pred must hold class labels"),
        ([], [], None, [], "y_true is empty: at least one sample"),
    ],
)
def test_bad_input_of_groups(y_true, y_pred, accepted, groups, message):
    with pytest.raises(ValueError, match=message):
        group_accuracy_intervals(y_true, y_pred, accepted, groups=groups)
