"""Tests of selection scores and coverage thresholds."""

import numpy as np
import pytest

from masktune_sk.rejection import (
    CONFIDENCE_RULES,
    RULES,
    confidence_scores,
    coverage_threshold,
    selection_scores,
)

BEFORE = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.3, 0.3, 0.4]])
AFTER = np.array([[0.6, 0.3, 0.1], [0.5, 0.2, 0.3], [0.1, 0.1, 0.8]])


def softmax_max(q):
    """Return the largest entry of the softmax of one vector."""
    return np.exp(max(q)) / sum(np.exp(value) for value in q)


def negative_entropy(p):
    return sum(value * np.log(value) for value in p)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        # The labels after are 0, 0 and 2; before they were 0, 1 and 2.
        ("product", [0.7 * 0.6, 0.1 * 0.5, 0.4 * 0.8]),
        (
            "product_softmax",
            [
                softmax_max([0.42, 0.06, 0.01]),
                softmax_max([0.05, 0.16, 0.03]),
                softmax_max([0.03, 0.03, 0.32]),
            ],
        ),
        ("agreement", [0.6, 0.5 - 2, 0.8]),
        ("refit", [0.6, 0.5, 0.8]),
        ("erm", [0.7, 0.1, 0.4]),
        ("margin", [0.6 - 0.3, 0.5 - 0.3, 0.8 - 0.1]),
        ("entropy", [negative_entropy(p) for p in AFTER]),
    ],
)
def test_each_rule_by_hand(rule, expected):
    scores = selection_scores(BEFORE, AFTER, rule)
    np.testing.assert_allclose(scores, expected, rtol=1e-12)


def random_proba(rng, n, n_classes, sharpness=3.0):
    logits = sharpness * rng.normal(size=(n, n_classes))
    proba = np.exp(logits - logits.max(axis=1, keepdims=True))
    return (proba / proba.sum(axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize("rule", RULES)
def test_scores_are_float64_one_a_sample_and_leave_their_input(rule):
    rng = np.random.default_rng(0)
    before, after = random_proba(rng, 20, 4), random_proba(rng, 20, 4)
    kept = before.copy(), after.copy()
    scores = selection_scores(before, after, rule)
    assert scores.shape == (20,)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(before, kept[0])
    np.testing.assert_array_equal(after, kept[1])


def test_the_product_is_the_default():
    np.testing.assert_array_equal(
        selection_scores(BEFORE, AFTER), selection_scores(BEFORE, AFTER, "product")
    )


def test_agreement_stands_before_any_disagreement():
    rng = np.random.default_rng(0)
    before, after = random_proba(rng, 500, 3, 1.0), random_proba(rng, 500, 3, 1.0)
    scores = selection_scores(before, after, "agreement")
    agree = before.argmax(axis=1) == after.argmax(axis=1)
    assert agree.any()
    assert not agree.all()
    assert scores[agree].min() > scores[~agree].max()
    np.testing.assert_array_equal(scores >= 0, agree)
    # Among the samples of each kind, by the probability after.
    for kind in (agree, ~agree):
        order = np.argsort(scores[kind])
        assert (np.diff(after.max(axis=1)[kind][order]) >= 0).all()


def test_a_certain_net_that_disagrees_is_not_accepted_as_agreement():
    # A float32 softmax is 1.0 from a margin of about 17 on.
    before = np.array([[0.0, 1.0], [1.0, 0.0]], dtype=np.float32)
    after = np.array([[1.0, 0.0], [1.0, 0.0]], dtype=np.float32)
    scores = selection_scores(before, after, "agreement")
    np.testing.assert_array_equal(scores >= 0, [False, True])


def test_the_product_of_two_identical_nets_ranks_as_their_probability():
    proba = random_proba(np.random.default_rng(0), 200, 5)
    scores = selection_scores(proba, proba, "product")
    p = proba.max(axis=1).astype(np.float64)
    np.testing.assert_allclose(scores, p**2, rtol=1e-12)
    np.testing.assert_array_equal(np.argsort(scores), np.argsort(p))


def test_confident_nets_that_disagree_come_last():
    before = np.array([[0.99, 0.01], [0.6, 0.4], [0.99, 0.01]])
    after = np.array([[0.01, 0.99], [0.6, 0.4], [0.99, 0.01]])
    for rule in ("product", "product_softmax", "agreement", "erm"):
        assert np.argmin(selection_scores(before, after, rule)) == 0
        assert np.argmax(selection_scores(before, after, rule)) == 2


def test_an_unknown_rule_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"one of \('product', .*got 'best'"):
        selection_scores(BEFORE, AFTER, "best")
    # That of one classifier goes by another name here.
    with pytest.raises(ValueError, match="got 'probability'"):
        selection_scores(BEFORE, AFTER, "probability")


# ---------------------------------------------------------------- one classifier


def test_confidence_by_hand():
    proba = [[0.5, 0.3, 0.2], [0.0, 1.0, 0.0], [1 / 3, 1 / 3, 1 / 3]]
    for rule, expected in {
        "probability": [0.5, 1, 1 / 3],
        "margin": [0.2, 1, 0],
        "entropy": [negative_entropy(proba[0]), 0, -np.log(3)],
    }.items():
        scores = confidence_scores(proba, rule)
        np.testing.assert_allclose(scores, expected, rtol=1e-12, atol=1e-15)
        assert scores.dtype == np.float64
    # Not -0, which would print as if it were something.
    assert not np.signbit(confidence_scores([[0.0, 1.0]], "entropy")).any()


def test_confidence_of_the_net_after_is_that_of_a_pair():
    rng = np.random.default_rng(0)
    before, after = random_proba(rng, 50, 4), random_proba(rng, 50, 4)
    for rule, name in {
        "probability": "refit",
        "margin": "margin",
        "entropy": "entropy",
    }.items():
        np.testing.assert_array_equal(
            confidence_scores(after, rule), selection_scores(before, after, name)
        )


def test_two_classes_rank_alike_by_every_confidence():
    proba = random_proba(np.random.default_rng(0), 200, 2, 1.0).astype(np.float64)
    proba /= proba.sum(axis=1, keepdims=True)
    orders = [np.argsort(confidence_scores(proba, rule)) for rule in CONFIDENCE_RULES]
    np.testing.assert_array_equal(orders[0], orders[1])
    np.testing.assert_array_equal(orders[0], orders[2])


def test_confidence_of_what_is_no_table_of_probabilities_is_refused():
    for proba in ([0.5, 0.5], [[1.0], [1.0]], np.zeros((2, 2, 2))):
        with pytest.raises(ValueError, match=r"shape \(n_samples, n_classes\)"):
            confidence_scores(proba)
    with pytest.raises(ValueError, match="one of .*'probability'.*got 'refit'"):
        confidence_scores(BEFORE, "refit")


# ---------------------------------------------------------------- thresholds


@pytest.mark.parametrize("seed", range(100))
def test_the_coverage_is_never_below_the_target_and_no_higher_threshold_does(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 60))
    # Few distinct values: heavy ties.
    scores = rng.integers(rng.integers(1, 8), size=n) / 7
    if seed % 2:
        scores = rng.random(n)
    kept = scores.copy()
    for coverage in [*rng.uniform(0.01, 1, 5), 0.5, 0.9, 1.0]:
        threshold = coverage_threshold(scores, coverage)
        accepted = scores >= threshold
        assert accepted.sum() >= coverage * n - 1e-6
        if coverage < 1:
            # It is one of the scores, and the next larger one accepts too few.
            assert threshold in scores
            assert (scores > threshold).sum() < coverage * n - 1e-6
    np.testing.assert_array_equal(scores, kept)


def test_without_ties_the_fewest_samples_are_accepted():
    scores = np.random.default_rng(0).permutation(10) / 10
    for coverage, count in [
        (0.9, 9),
        (0.91, 10),
        (0.89, 9),
        (0.1, 1),
        (0.3, 3),
        (0.001, 1),
        (0.7, 7),
    ]:
        threshold = coverage_threshold(scores, coverage)
        assert (scores >= threshold).sum() == count


@pytest.mark.parametrize(
    ("coverage", "n", "count"), [(0.07, 100, 7), (0.55, 100, 55), (0.28, 25, 7)]
)
def test_rounding_errors_accept_no_extra_sample(coverage, n, count):
    assert coverage * n > count
    scores = np.random.default_rng(0).permutation(n)
    assert (scores >= coverage_threshold(scores, coverage)).sum() == count


def test_ties_at_the_threshold_are_all_accepted():
    scores = np.array([0.1, 0.5, 0.5, 0.5, 0.9])
    for coverage in (0.3, 0.4, 0.6, 0.8):
        assert coverage_threshold(scores, coverage) == 0.5
    assert coverage_threshold(scores, 0.2) == 0.9


def test_coverage_one_accepts_whatever_comes():
    assert coverage_threshold(np.array([0.2, 0.4]), 1) == -np.inf
    assert coverage_threshold(np.array([0.2, 0.4]), 1.0) == -np.inf


def test_one_sample_is_enough():
    threshold = coverage_threshold(np.array([0.3]), 0.5)
    assert threshold == 0.3
    assert type(threshold) is float
