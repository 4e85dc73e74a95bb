"""Tests of the risk-coverage curve and the areas under it."""

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from masktune_sk.metrics import (
    augrc_loss,
    aurc_loss,
    coverage_at_risk,
    excess_aurc_loss,
    risk_at_coverage,
    risk_coverage_curve,
)
from tests.metrics.data import make_selective_reference as script

REFERENCE = Path(__file__).parent / "data" / "selective_reference.npz"
AREAS = [aurc_loss, augrc_loss, excess_aurc_loss]
ALL = pytest.mark.parametrize("metric", [risk_coverage_curve, *AREAS])


def labels(wrong):
    """Labels of which these are wrong."""
    return np.zeros(len(wrong), dtype=int), np.asarray(wrong, dtype=int)


def draw(n=200, n_scores=None, seed=0):
    rng = np.random.default_rng(seed)
    score = rng.random(n)
    wrong = rng.random(n) > 0.4 + 0.6 * score
    if n_scores is not None:
        score = np.floor(n_scores * score) / n_scores
    return *labels(wrong), score


def scores_of_kind(kind, n=300):
    """Scores as they come from nets, and labels that errors are sorted by or not."""
    y_true, y_pred, score = draw(n)
    if kind == "70 % tied":
        score[score > np.quantile(score, 0.3)] = 1.0
    elif kind == "saturated":
        score = (1 - np.exp(-40 * score)).astype(np.float32)
        assert len(np.unique(score)) < 0.8 * n
    elif kind == "sorted":
        score = np.sort(score)
    return y_true, y_pred, score


KINDS = pytest.mark.parametrize(
    "kind", ["continuous", "70 % tied", "saturated", "sorted"]
)


# ------------------------------------------------------------------ the curve


@KINDS
def test_curve_equals_a_loop_over_thresholds(kind):
    y_true, y_pred, score = scores_of_kind(kind)
    coverages, risks, thresholds = risk_coverage_curve(y_true, y_pred, score)
    assert_array_equal(thresholds, np.unique(score)[::-1])
    for coverage, risk, threshold in zip(coverages, risks, thresholds, strict=True):
        accepted = score >= threshold
        assert coverage == np.mean(accepted)
        assert risk == np.mean((y_true != y_pred)[accepted])
    assert coverages[-1] == 1
    assert risks[-1] == np.mean(y_true != y_pred)
    assert {array.dtype for array in (coverages, risks, thresholds)} == {
        np.dtype(np.float64)
    }


@KINDS
@ALL
def test_order_of_rows_changes_nothing(metric, kind):
    arrays = scores_of_kind(kind)
    for order in (np.argsort(arrays[0] != arrays[1]), np.arange(300)[::-1]):
        assert_array_equal(metric(*(a[order] for a in arrays)), metric(*arrays))


@pytest.mark.parametrize(
    "transform",
    [lambda s: -1 / (s + 0.1), lambda s: np.round(50 * s).astype(np.uint8), np.sign],
    ids=["monotonic", "unsigned", "constant"],
)
@ALL
def test_only_the_order_of_scores_matters(metric, transform):
    y_true, y_pred, score = draw(n_scores=50)
    score = transform(score + 0.02)
    ranks = np.unique(score, return_inverse=True)[1]
    result, by_ranks = (metric(y_true, y_pred, s) for s in (score, ranks))
    if metric is risk_coverage_curve:
        result, by_ranks = result[:2], by_ranks[:2]
    assert_array_equal(result, by_ranks)


@ALL
def test_containers_and_string_labels(metric):
    pd = pytest.importorskip("pandas")
    y_true, y_pred, score = draw(20)
    expected = metric(y_true, y_pred, score)
    names = np.array(["cat", "dog"])
    assert_array_equal(metric(names[y_true], names[y_pred], score), expected)
    assert_array_equal(metric(list(y_true), tuple(y_pred), score.tolist()), expected)
    index = np.arange(20)[::-1]
    series = [pd.Series(values, index=index) for values in (y_true, y_pred, score)]
    assert_array_equal(metric(*series), expected)


# ------------------------------------------------------------------ the areas


def test_areas_by_hand():
    # Errors among the first k: 0, 1, 1, 2.
    args = *labels([0, 1, 0, 1]), [0.9, 0.7, 0.5, 0.3]
    risks = np.array([0, 1 / 2, 1 / 3, 2 / 4])
    oracle = np.array([0, 0, 1 / 3, 2 / 4])
    generalized = np.array([0, 1, 1, 2]) / 4
    weights = np.array([0.5, 1, 1, 0.5]) / 3
    assert_allclose(aurc_loss(*args), weights @ risks, rtol=1e-15)
    assert_allclose(augrc_loss(*args), weights @ generalized, rtol=1e-15)
    assert_allclose(excess_aurc_loss(*args), weights @ (risks - oracle), rtol=1e-15)


def test_a_tie_counts_as_the_mean_over_all_its_orders():
    wrong = np.array([0, 1, 0, 1, 1, 0])
    tied = np.array([9, 5, 5, 5, 5, 1])
    for metric in AREAS:
        values = []
        for order in permutations(range(1, 5)):
            score = tied.astype(float)
            score[1:5] += 0.1 * np.array(order)
            values.append(metric(*labels(wrong), score))
        assert_allclose(metric(*labels(wrong), tied), np.mean(values), rtol=1e-14)


@pytest.mark.parametrize("n", [1, 2, 7, 1000])
@pytest.mark.parametrize("share", [0, 0.3, 1])
def test_equal_scores_give_the_error(n, share):
    wrong = np.arange(n) < round(share * n)
    args = *labels(wrong), np.full(n, 0.5)
    assert_allclose(aurc_loss(*args), wrong.mean(), rtol=1e-12)
    assert_allclose(augrc_loss(*args), wrong.mean() * (1 + 1 / n) / 2, rtol=1e-12)
    coverages, risks, thresholds = risk_coverage_curve(*args)
    assert (coverages, risks, thresholds) == (1, wrong.mean(), 0.5)


@pytest.mark.parametrize("n_errors", [0, 1, 40, 99, 100])
def test_oracle_has_no_excess_and_the_reverse_the_largest(n_errors):
    wrong = np.arange(100) < n_errors
    score = np.arange(100.0)
    best = excess_aurc_loss(*labels(wrong), score)
    worst = excess_aurc_loss(*labels(wrong), -score)
    assert best == 0
    assert worst > 0 or n_errors in (0, 100)
    for seed in range(5):
        random = np.random.default_rng(seed).integers(10, size=100)
        assert 0 <= excess_aurc_loss(*labels(wrong), random) <= worst
    assert excess_aurc_loss(*labels(wrong), -score) == pytest.approx(
        aurc_loss(*labels(wrong), -score) - aurc_loss(*labels(wrong), score)
    )


def test_oracle_approaches_the_closed_form():
    n, error = 100_000, 0.2
    wrong = np.arange(n) < error * n
    aurc = aurc_loss(*labels(wrong), np.arange(n))
    assert aurc == pytest.approx(error + (1 - error) * np.log(1 - error), abs=1e-5)


def test_areas_are_within_the_stated_distance_of_the_papers_means():
    for n in (2, 10, 500):
        y_true, y_pred, score = draw(n)
        wrong = (y_true != y_pred)[np.argsort(-score)]
        ranks = np.arange(1, n + 1)
        mean_risk = np.mean(wrong.cumsum() / ranks)
        assert abs(aurc_loss(y_true, y_pred, score) - mean_risk) <= 1 / (n - 1)
        generalized = np.r_[0, wrong.cumsum() / n]
        area = np.mean((generalized[1:] + generalized[:-1]) / 2)
        assert abs(augrc_loss(y_true, y_pred, score) - area) <= 1 / n


def test_results_are_plain_floats():
    for metric in AREAS:
        assert type(metric(*draw(20))) is float


# ------------------------------------------------------------------ torch-uncertainty


@pytest.fixture(params=script.CASES)
def case(request):
    with np.load(REFERENCE) as arrays:
        prefix = f"{request.param} "
        values = {
            name.removeprefix(prefix): arrays[name]
            for name in arrays
            if name.startswith(prefix)
        }
    proba, target = values["proba"], values["target"]
    return (target, proba.argmax(axis=1), proba.max(axis=1)), values


def test_values_equal_those_of_torch_uncertainty(case):
    args, values = case
    # Its coverages are of single precision.
    close = {"rtol": 1e-6, "atol": 1e-9}
    assert_allclose(aurc_loss(*args), values["aurc"], **close)
    assert_allclose(augrc_loss(*args), values["augrc"], **close)
    risks = [risk_at_coverage(*args, coverage=c) for c in script.COVERAGES]
    assert_allclose(risks, values["risks"], **close)
    coverages = [coverage_at_risk(*args, max_risk=r) for r in script.RISKS]
    assert_allclose(coverages, np.nan_to_num(values["coverages"], nan=0), **close)


def test_reference_tells_the_metrics_apart():
    with np.load(REFERENCE) as arrays:
        values = [
            arrays[f"{case} {area}"]
            for case in script.CASES
            for area in ("aurc", "augrc")
        ]
        assert len(np.unique(np.round(values, 3))) >= 2 * len(script.CASES) - 2
        assert any(np.isnan(arrays[f"{case} coverages"]).any() for case in script.CASES)


# ------------------------------------------------------------------ bad input


@ALL
@pytest.mark.parametrize(
    ("y_true", "y_pred", "score", "message"),
    [
        ([0, 1], [0, 1], [0.5], "inconsistent numbers of samples"),
        ([0, 1], [0], [0.5, 0.6], "inconsistent numbers of samples"),
        ([], [], [], "y_true is empty: at least one sample"),
        ([0, 1], [0.2, 0.8], [1, 2], "y_pred must hold class labels, got continuous"),
        (["a", "b"], [0, 1], [1, 2], "Mix of label input types"),
        ([0, 1], [0, 1], [0.5, np.nan], "selection_score contains NaN"),
        ([0, 1], [0, 1], [0.5, -np.inf], "selection_score contains infinity"),
        ([0, 1], [0, 1], [None, 1], "selection_score must hold numbers|contains NaN"),
        ([0, 1], [0, 1], ["high", "low"], "selection_score must hold numbers, got <U4"),
        (
            [0, 1],
            [0, 1],
            [[0.5, 0.5], [0.1, 0.9]],
            r"one number for each sample, got shape \(2, 2\).*max\(axis=1\)",
        ),
    ],
)
def test_bad_input(metric, y_true, y_pred, score, message):
    with pytest.raises(ValueError, match=message):
        metric(y_true, y_pred, score)


@ALL
def test_input_is_not_changed(metric):
    arrays = draw(30)
    before = [array.copy() for array in arrays]
    metric(*arrays)
    for array, copy in zip(arrays, before, strict=True):
        assert_array_equal(array, copy)
