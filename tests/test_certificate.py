"""Tests of certificates: closed forms, simulated truth, ties, groups, messages."""

import copy
import json
import pickle
import re
from dataclasses import FrozenInstanceError

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom, binomtest

from masktune_sk.rejection import Certificate, certify, coverage_threshold
from masktune_sk.rejection._thresholds import (
    AcceptedSamples,
    certified_steps,
    coverage_bound,
    smallest_count,
    starts_of,
)
from masktune_sk.rejection._uncertifiable import samples_needed


def falling(random, n):
    """Uniform scores, and errors that are the rarer the larger the score."""
    scores = random.random(n)
    return scores, random.random(n) < 0.3 * (1 - scores) ** 2


def risk_of_falling(threshold):
    return 0.1 * (1 - max(threshold, 0.0)) ** 2


def upper(n_errors, n, confidence):
    """Clopper and Pearson's upper bound, by scipy."""
    test = binomtest(int(n_errors), int(n), alternative="less")
    return test.proportion_ci(confidence, method="exact").high


def lower(n_accepted, n, confidence):
    test = binomtest(int(n_accepted), int(n), alternative="greater")
    return test.proportion_ci(confidence, method="exact").low


# ---------------------------------------------------------------- counts


def test_what_thresholds_accept_is_counted_at_distinct_scores():
    scores = np.array([0.5, 0.9, 0.5, 0.1, 0.5])
    errors = np.array([True, False, False, True, True])
    accepted = AcceptedSamples.of(scores, errors)
    np.testing.assert_array_equal(accepted.thresholds, [0.9, 0.5, 0.1])
    np.testing.assert_array_equal(accepted.counts, [1, 4, 5])
    np.testing.assert_array_equal(accepted.errors, [0, 2, 3])
    assert accepted.n_samples == 5
    for threshold, expected in [
        (1.0, (0, 0)),
        (0.9, (1, 0)),
        (0.6, (1, 0)),
        (0.5, (4, 2)),
        (0.2, (4, 2)),
        (-np.inf, (5, 3)),
    ]:
        assert accepted.accepted(threshold) == expected


def test_without_an_error_the_smallest_count_is_that_of_the_closed_form():
    assert 0.95**59 < 0.05 < 0.95**58
    # Of the level, 0.9 is left: the rest pays for the order of ties.
    assert smallest_count(0.05, 0.05 / 0.9) == 59
    assert smallest_count(0.05, 0.05) == 61
    scores, errors = np.arange(61.0), np.zeros(61)
    assert certify(scores, errors, max_risk=0.05).n_accepted == 61
    with pytest.raises(ValueError, match="it takes n = 61 accepted ones"):
        certify(scores[:60], errors[:60], max_risk=0.05)


def test_starts_are_doubled_share_the_level_and_suffice_without_an_error():
    for n in (10, 61, 100, 500, 5000, 10**6):
        for max_risk in (0.01, 0.05, 0.3):
            starts, levels = starts_of(n, max_risk, 0.05)
            if not len(starts):
                assert n < smallest_count(max_risk, 0.05)
                continue
            assert levels.sum() == pytest.approx(0.9 * 0.05)
            np.testing.assert_allclose(levels / levels[0], starts / starts[0])
            np.testing.assert_array_equal(
                starts, starts[0] * 2 ** np.arange(len(starts))
            )
            assert (1 - max_risk) ** starts[0] <= levels[0]
            assert (1 - max_risk) ** (starts[0] - 1) > levels[0]
            assert n / 4 < starts[-1] <= n


def certified_by_hand(scores, errors, max_risk, level):
    """Follow each sequence sample by sample; for scores without ties."""
    errors = errors[np.argsort(-scores)]
    certified = set()
    for start, test_level in zip(*starts_of(len(scores), max_risk, level), strict=True):
        n = start
        while (
            n <= len(scores) and binom.cdf(errors[:n].sum(), n, max_risk) <= test_level
        ):
            if n > start or n == len(scores):
                certified.add(n)
            n += 1
    return certified


@pytest.mark.parametrize("seed", range(10))
def test_sequences_are_followed_as_by_hand(seed):
    random = np.random.default_rng(seed)
    n = random.integers(60, 400)
    scores, errors = falling(random, n)
    for max_risk, level in [(0.1, 0.1), (0.2, 0.05), (0.05, 0.4)]:
        accepted = AcceptedSamples.of(scores, errors)
        certified = certified_steps(accepted, max_risk, level)
        expected = certified_by_hand(scores, errors, max_risk, level)
        assert set(accepted.counts[certified]) == expected


def test_a_start_among_ties_passes_if_nine_orders_in_ten_do():
    random = np.random.default_rng(0)
    scores = np.r_[np.full(20, 0.9), np.full(225, 0.5), np.full(45, 0.1)]
    starts, levels = starts_of(290, 0.1, 0.1)
    assert len(starts) > 1
    assert starts[-1] < 245
    outcomes = set()
    for n_errors in range(25):
        errors = np.zeros(290, dtype=bool)
        errors[:n_errors] = True
        errors[20:245] = random.permutation(errors[20:245])
        errors[:245] = random.permutation(errors[:245])
        orders = [np.r_[:20, 20 + random.permutation(225)] for _ in range(2000)]
        first = np.array([errors[order].cumsum()[starts - 1] for order in orders])
        shares = (binom.cdf(first, starts, 0.1) <= levels).mean(axis=0)
        if (abs(shares - 0.9) < 0.02).any():
            continue
        at_end = binom.cdf(errors[:245].sum(), 245, 0.1) <= levels
        certified = certified_steps(AcceptedSamples.of(scores, errors), 0.1, 0.1)
        assert not certified[0]
        assert certified[1] == ((shares > 0.9) & at_end).any()
        outcomes.add((at_end.any(), certified[1]))
    # The end of the ties alone decides neither way.
    assert outcomes == {(True, True), (True, False), (False, False)}


# ---------------------------------------------------------------- truth


def check_count(violations, n_draws, level):
    """Fail if so many have a probability of 0.1 % or less where the bound holds."""
    assert violations <= binom.isf(1e-3, n_draws, level)


@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_bounds_hold_as_often_as_they_say(confidence):
    random = np.random.default_rng(0)
    n_draws = 200
    violations = dict.fromkeys(("risk", "uniform", "coverage", "at rank"), 0)
    for _ in range(n_draws):
        scores, errors = falling(random, 200)
        made = certify(scores, errors, coverage=0.7, confidence=confidence)
        violations["coverage"] += 1 - made.threshold < made.certified_coverage
        violations["at rank"] += risk_of_falling(made.threshold) > made.certified_risk
        try:
            made = certify(scores, errors, max_risk=0.06, confidence=confidence)
        except ValueError:
            continue
        violations["risk"] += risk_of_falling(made.threshold) > 0.06
        violations["uniform"] += 1 - made.threshold < made.certified_coverage
    for count in violations.values():
        check_count(count, n_draws, 1 - confidence)
    # The bound of the coverage is exact, so it is missed about as often as that.
    assert violations["coverage"] >= binom.ppf(1e-3, n_draws, 1 - confidence)


# The risk of every threshold is a little above the target, so that every certificate
# is wrong. What is tied, sorted or sure must not make one likelier.
def hopeless_continuous(random, n):
    return random.random(n), random.random(n) < 0.101


def hopeless_tied(random, n):
    scores = np.where(random.random(n) < 0.7, 1.0, random.random(n))
    return scores, random.random(n) < 0.101


def hopeless_sorted(random, n):
    scores, _ = hopeless_tied(random, n)
    classes = np.sort(random.integers(2, size=n))
    return scores, random.random(n) < np.array([0.202, 0.0])[classes]


def hopeless_saturated(random, n):
    logits = random.exponential(20, n)
    scores = (1 / (1 + np.exp(-logits))).astype(np.float32)
    return scores, random.random(n) < 0.101


def hopeless_above_good_ties(random, n):
    # A fifth of the samples, above the ties, errs always; the ties alone would pass.
    sure = random.random(n) < 0.2
    ties = ~sure & (random.random(n) < 0.9)
    scores = np.where(ties, 0.5, np.where(sure, 0.9, 0.1) + 0.1 * random.random(n))
    return scores, sure | (random.random(n) < 0.01)


@pytest.mark.parametrize(
    "draw",
    [
        hopeless_continuous,
        hopeless_tied,
        hopeless_sorted,
        hopeless_saturated,
        hopeless_above_good_ties,
    ],
)
def test_a_risk_that_is_too_large_is_certified_no_more_often_than_allowed(draw):
    random = np.random.default_rng(0)
    n_draws, level, n_certified = 300, 0.2, 0
    for _ in range(n_draws):
        accepted = AcceptedSamples.of(*draw(random, 150))
        n_certified += certified_steps(accepted, 0.1, level).any()
    check_count(n_certified, n_draws, level)


def test_a_better_classifier_is_certified_for_more():
    coverages = []
    for rate in (0.4, 0.2, 0.1, 0.0):
        random = np.random.default_rng(0)
        scores = random.random(2000)
        errors = random.random(2000) < rate * (1 - scores)
        coverages.append(certify(scores, errors, max_risk=0.05).coverage)
    assert coverages == sorted(coverages)
    assert coverages[0] < 0.3
    assert coverages[-1] == 1


# ---------------------------------------------------------------- order and ties


@pytest.mark.parametrize("target", [{"max_risk": 0.2}, {"coverage": 0.8}], ids=str)
@pytest.mark.parametrize("tied", [0.0, 0.7])
def test_the_order_of_rows_changes_nothing(target, tied):
    random = np.random.default_rng(3)
    scores, errors = falling(random, 600)
    scores[random.random(600) < tied] = 1
    groups = random.integers(2, size=600)
    expected = certify(scores, errors, **target)
    by_group = certify(scores, errors, groups=groups, **target)
    for order in (
        random.permutation(600),
        np.lexsort((errors, scores)),
        np.lexsort((~errors, scores)),
        np.argsort(errors),
    ):
        assert certify(scores[order], errors[order], **target) == expected
        again = certify(scores[order], errors[order], groups=groups[order], **target)
        assert again == by_group


def test_scores_count_by_their_order_alone():
    scores, errors = falling(np.random.default_rng(0), 500)
    expected = certify(scores, errors, max_risk=0.08)
    stretched = certify(np.exp(9 * scores) - 5, errors, max_risk=0.08)
    assert stretched.n_accepted == expected.n_accepted
    assert stretched.threshold == np.exp(9 * expected.threshold) - 5
    assert stretched.certified_coverage == expected.certified_coverage


def test_equal_scores_are_all_accepted_or_nothing_is_certified():
    random = np.random.default_rng(0)
    errors = random.random(1000) < 0.02
    made = certify(np.full(1000, 0.4), errors, max_risk=0.06)
    assert (made.threshold, made.coverage, made.certified_coverage) == (-np.inf, 1, 1)
    with pytest.raises(ValueError, match="cannot be certified"):
        certify(np.full(1000, 0.4), errors, max_risk=0.02)
    made = certify(np.full(1000, 0.4), errors, coverage=0.3)
    assert (made.threshold, made.coverage) == (0.4, 1.0)
    assert made.certified_coverage == pytest.approx(lower(300, 1000, 0.95))


# ---------------------------------------------------------------- coverage target


@pytest.mark.parametrize("coverage", [0.01, 0.5, 0.83, 0.9])
def test_a_coverage_target_by_closed_form(coverage):
    scores, errors = falling(np.random.default_rng(1), 200)
    made = certify(scores, errors, coverage=coverage, confidence=0.9)
    assert made.threshold == coverage_threshold(scores, coverage)
    rank = int(np.ceil(coverage * 200 - 1e-9))
    assert made.n_accepted == rank
    assert made.coverage == rank / 200
    assert made.certified_coverage == pytest.approx(lower(rank, 200, 0.9))
    accepted = scores >= made.threshold
    above = scores > made.threshold
    assert made.n_errors == errors[accepted].sum()
    assert made.risk == errors[accepted].mean()
    # The sample whose score is the threshold was not drawn as those above it.
    expected = max(
        upper(errors[above].sum(), rank - 1, 0.9),
        upper(errors[accepted].sum(), rank, 0.9),
    )
    assert made.certified_risk == pytest.approx(expected)


def test_ties_at_the_threshold_count_against_the_bounds():
    scores = np.r_[np.full(50, 0.9), np.full(50, 0.5)]
    errors = np.arange(100) >= 96
    made = certify(scores, errors, coverage=0.7)
    assert (made.n_accepted, made.n_errors) == (100, 4)
    # 69 before the rank of 70, with every error among them.
    assert made.certified_risk == pytest.approx(upper(4, 69, 0.95))
    assert made.certified_coverage == pytest.approx(lower(70, 100, 0.95))


def test_coverage_one_accepts_whatever_comes_and_bounds_the_error():
    scores, errors = falling(np.random.default_rng(1), 200)
    made = certify(scores, errors, coverage=1)
    assert (made.threshold, made.coverage, made.certified_coverage) == (-np.inf, 1, 1)
    assert made.certified_risk == pytest.approx(upper(errors.sum(), 200, 0.95))


def test_one_accepted_sample_says_nothing_about_the_risk():
    made = certify([0.1, 0.2], [False, False], coverage=0.5)
    assert (made.n_accepted, made.risk, made.certified_risk) == (1, 0.0, 1.0)
    made = certify([0.1, 0.2], [True, True], coverage=1)
    assert made.certified_risk == 1.0


# ---------------------------------------------------------------- risk target


def test_a_risk_target_accepts_the_most_that_is_certified():
    scores, errors = falling(np.random.default_rng(0), 1000)
    made = certify(scores, errors, max_risk=0.06)
    certified = certified_by_hand(scores, errors, 0.06, 1 - 0.95)
    assert made.n_accepted == max(certified)
    assert made.threshold == np.sort(scores)[-made.n_accepted]
    assert made.n_errors == errors[scores >= made.threshold].sum()
    assert made.risk < 0.06 == made.certified_risk
    margin = np.sqrt(np.log(20) / 2000)
    assert made.certified_coverage == pytest.approx(made.coverage - margin)


def test_confidence_below_a_half_still_has_a_bound_of_the_coverage():
    scores, errors = falling(np.random.default_rng(0), 1000)
    made = certify(scores, errors, max_risk=0.06, confidence=0.2)
    margin = np.sqrt(np.log(2) / 2000)
    assert made.certified_coverage == pytest.approx(made.coverage - margin)


def test_a_bound_of_the_coverage_is_not_negative():
    assert coverage_bound(5, 100, 0.05) == 0
    assert coverage_bound(50, 100, 0.05) == 0.5 - np.sqrt(np.log(20) / 200)


# ---------------------------------------------------------------- not possible


def message_of(*args, **kwargs):
    with pytest.raises(ValueError, match="cannot be certified") as caught:
        certify(*args, **kwargs)
    return str(caught.value)


def test_what_could_be_certified_can_be():
    scores, errors = falling(np.random.default_rng(0), 300)
    message = message_of(scores, errors, max_risk=0.01)
    assert "with confidence 0.95 on these 300 samples" in message
    lowest = float(re.search(r"About (0\.\d+) could be certified", message)[1])
    assert lowest > 0.01
    assert certify(scores, errors, max_risk=lowest).certified_risk == lowest
    message_of(scores, errors, max_risk=lowest / 1.2)


def test_as_many_samples_as_are_said_to_do_mostly_do():
    random = np.random.default_rng(0)
    message = message_of(*falling(random, 150), max_risk=0.03)
    needed = int(re.search(r"About n = ([\d,]+) samples", message)[1].replace(",", ""))
    assert 300 < needed < 5000
    n_certified = 0
    for _ in range(20):
        try:
            certify(*falling(random, needed), max_risk=0.03)
            n_certified += 1
        except ValueError:
            pass
    assert n_certified >= 10


def test_where_the_classifier_is_too_bad_no_number_of_samples_is_promised():
    random = np.random.default_rng(0)
    message = message_of(random.random(500), random.random(500) < 0.5, max_risk=0.05)
    assert "shows so small a risk: at best" in message
    assert "a better classifier or another selection score" in message
    assert "n =" not in message
    # Nor a risk, where everything is wrong.
    message = message_of(random.random(500), np.ones(500), max_risk=0.05)
    assert "could be certified" not in message


def test_numbers_beyond_measure_are_not_named():
    # So near to the target that it takes 10 ** 13 samples to tell.
    accepted = AcceptedSamples(
        np.array([0.5]), np.array([10**7]), np.array([10**6 - 2])
    )
    assert samples_needed(accepted, 0.1, 0.05) is None
    assert samples_needed(accepted, 0.11, 0.05) == 1.1e7


# ---------------------------------------------------------------- groups


def grouped(n=2000):
    random = np.random.default_rng(0)
    scores = random.random(n)
    groups = np.array(["land", "water"])[(random.random(n) < 0.3).astype(int)]
    rate = np.where(groups == "water", 0.25, 0.1)
    return scores, random.random(n) < rate * (1 - scores), groups


def test_one_threshold_serves_every_group():
    scores, errors, groups = grouped()
    made = certify(scores, errors, max_risk=0.1, groups=groups)
    assert list(made.groups) == ["land", "water"]
    for name, part in made.groups.items():
        rows = groups == name
        accepted = rows & (scores >= made.threshold)
        assert part.threshold == made.threshold
        assert (part.n_samples, part.n_accepted) == (rows.sum(), accepted.sum())
        assert part.n_errors == errors[accepted].sum()
        assert part.risk < part.certified_risk == 0.1
        # It is among those certified for the group alone, of half of the level.
        table = AcceptedSamples.of(scores[rows], errors[rows])
        certified = certified_steps(table, 0.1, (1 - 0.95) / 2)
        assert certified[table.steps(made.threshold)]
    assert made.n_accepted == (scores >= made.threshold).sum()
    assert made.certified_coverage == min(
        part.certified_coverage for part in made.groups.values()
    )
    # The group that errs most decides.
    alone = certify(scores, errors, max_risk=0.1)
    assert made.threshold > alone.threshold


@pytest.mark.parametrize("target", [{"max_risk": 0.1}, {"coverage": 0.8}], ids=str)
def test_a_threshold_per_group_is_that_of_the_group_alone(target):
    scores, errors, groups = grouped()
    made = certify(scores, errors, groups=groups, per_group=True, **target)
    assert made.threshold == {k: part.threshold for k, part in made.groups.items()}
    for name, part in made.groups.items():
        rows = groups == name
        alone = certify(scores[rows], errors[rows], confidence=1 - 0.05 / 2, **target)
        for field in ("threshold", "n_samples", "n_accepted", "n_errors"):
            assert getattr(part, field) == getattr(alone, field)
        for field in ("certified_coverage", "certified_risk"):
            assert getattr(part, field) == pytest.approx(getattr(alone, field))


def test_a_coverage_target_holds_in_every_group():
    scores, errors, groups = grouped()
    scores = np.where(groups == "water", scores - 0.3, scores)
    made = certify(scores, errors, coverage=0.8, groups=groups)
    assert made.threshold == coverage_threshold(scores[groups == "water"], 0.8)
    for name, part in made.groups.items():
        n = (groups == name).sum()
        rank = int(np.ceil(0.8 * n - 1e-9))
        assert part.coverage >= 0.8
        assert part.certified_coverage == pytest.approx(lower(rank, n, 1 - 0.05 / 2))
    # For the other group the threshold came from elsewhere.
    land = made.groups["land"]
    assert land.certified_risk == pytest.approx(
        upper(land.n_errors, land.n_accepted, 1 - 0.05 / 2)
    )
    assert made.certified_risk == max(p.certified_risk for p in made.groups.values())
    everything = certify(scores, errors, coverage=1, groups=groups)
    assert everything.threshold == -np.inf
    assert everything.certified_coverage == 1


def test_bounds_of_groups_hold_together():
    random = np.random.default_rng(0)
    n_draws, wrong = 150, 0
    for _ in range(n_draws):
        scores, errors = falling(random, 400)
        groups = random.integers(3, size=400)
        made = certify(scores, errors, coverage=0.7, groups=groups, confidence=0.8)
        risk = risk_of_falling(made.threshold)
        wrong += any(risk > part.certified_risk for part in made.groups.values())
    check_count(wrong, n_draws, 0.2)


@pytest.mark.parametrize(
    "relabel",
    [
        lambda g: np.array(["no", "yes"])[g],
        lambda g: np.array(["no", "yes"], dtype=object)[g],
        lambda g: g.astype(bool),
        lambda g: g.astype(np.uint8),
        lambda g: g.tolist(),
        lambda g: pd.Series(g),
        lambda g: pd.Series(np.array(["no", "yes"])[g], dtype="category"),
    ],
)
def test_groups_of_any_kind(relabel):
    scores, errors, groups = grouped()
    groups = (groups == "water").astype(int)
    expected = certify(scores, errors, coverage=0.9, groups=groups)
    made = certify(scores, errors, coverage=0.9, groups=relabel(groups))
    assert list(made.groups.values()) == list(expected.groups.values())
    assert {type(name) for name in made.groups} <= {str, int, bool}


def test_groups_that_lack_samples_are_named():
    scores, errors, groups = grouped()
    message = message_of(scores, errors, max_risk=0.02, groups=groups)
    assert re.search(r"About n = [\d,]+ samples of group 'water'", message)
    groups = np.where(np.arange(2000) < 30, "shore", groups)
    message = message_of(scores, errors, max_risk=0.1, groups=groups)
    assert "The 30 samples of group 'shore' are too few" in message
    assert "'land'" not in message
    tiny = np.arange(2000) % 200
    assert "So it is with 197 more groups." in message_of(
        scores, errors, max_risk=0.1, groups=tiny
    )


def test_where_only_thresholds_by_group_will_do_the_message_says_so():
    n = 1000
    random = np.random.default_rng(0)
    groups = np.arange(n) % 2
    scores = random.random(n)
    # One group is right above 0.8 and wrong below; the other has no score above 0.7.
    scores[groups == 1] *= 0.7
    errors = (groups == 0) & (scores < 0.8)
    message = message_of(scores, errors, max_risk=0.1, groups=groups)
    assert "(per_group=True), but no threshold does for all" in message
    made = certify(scores, errors, max_risk=0.1, groups=groups, per_group=True)
    assert made.threshold[0] > 0.75
    assert made.threshold[1] == -np.inf


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"coverage": 0.9}, "Give coverage or max_risk, not both; got coverage=0.9"),
        ({"max_risk": None}, "Give coverage or max_risk; got neither"),
        *(
            ({"max_risk": value}, r"max_risk must be in \(0, 1\), got")
            for value in (0, 1, -0.1, 1.5, np.nan, "0.1")
        ),
        *(
            ({"max_risk": None, "coverage": value}, r"coverage must be in \(0, 1\]")
            for value in (0, 1.5, np.nan, "all")
        ),
        *(
            ({"confidence": value}, r"confidence must be in \(0, 1\), got")
            for value in (0, 1, 95, np.nan)
        ),
        ({"per_group": True}, "pass groups, the group of each sample"),
        ({"groups": [0, 1]}, r"groups must have shape \(100,\).*got \(2,\)"),
        ({"groups": np.zeros((100, 1))}, r"groups must have shape"),
        ({"groups": np.r_[np.zeros(99), np.nan]}, "all integers, none missing"),
        ({"groups": [None, *"a" * 99]}, "none missing"),
        ({"groups": [1, *"a" * 99]}, "all strings or all integers"),
    ],
    ids=str,
)
def test_bad_targets_and_groups_are_refused(change, message):
    arguments = {"max_risk": 0.1} | change
    with pytest.raises(ValueError, match=message):
        certify(np.arange(100.0), np.zeros(100), **arguments)


@pytest.mark.parametrize(
    ("scores", "errors", "message"),
    [
        ([0.1, 0.2], [0, 1, 0], r"one shape, \(n_samples,\); got \(2,\) and \(3,\)"),
        ([[0.1], [0.2]], [[0], [1]], r"one shape"),
        ([0.1], [0], "2 calibration samples or more; got 1"),
        ([], [], "2 calibration samples or more; got 0"),
        ([0.1, np.nan, np.inf], [0, 1, 0], "2 of 3 selection scores are NaN"),
        ([0.1, 0.2], [0, 2], "errors must be True where"),
    ],
    ids=str,
)
def test_bad_samples_are_refused(scores, errors, message):
    with pytest.raises(ValueError, match=message):
        certify(scores, errors, coverage=0.5)


# ---------------------------------------------------------------- the object


@pytest.mark.parametrize("per_group", [None, False, True])
def test_a_certificate_can_be_kept_copied_and_read(per_group):
    scores, errors, groups = grouped()
    if per_group is None:
        made = certify(scores, errors, max_risk=0.1)
    else:
        made = certify(scores, errors, max_risk=0.1, groups=groups, per_group=per_group)
    assert type(made) is Certificate
    assert pickle.loads(pickle.dumps(made)) == made
    assert copy.deepcopy(made) == made
    with pytest.raises(FrozenInstanceError):
        made.threshold = 0.0
    values = made.as_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["target"] == "max_risk"
    assert values["value"] == values["certified_risk"] == 0.1
    assert values["confidence"] == 0.95
    assert values["coverage"] == made.coverage
    assert values["risk"] == made.risk
    assert len(values["assumptions"]) == (3 if per_group is None else 4)
    if per_group is not None:
        assert set(values["groups"]) == {"land", "water"}
        assert values["groups"]["land"]["n_samples"] == (groups == "land").sum()


def test_it_prints_as_a_short_table():
    scores, errors, groups = grouped()
    made = certify(scores, errors, max_risk=0.1, groups=groups, per_group=True)
    lines = str(made).splitlines()
    assert lines[0] == "Target: risk at most 0.1."
    assert lines[1].startswith("With confidence 0.95 the bounds of risk hold")
    table = lines[2 : lines.index("Assumptions")]
    assert [line[:13].strip() for line in table] == ["", "all samples", "land", "water"]
    assert len({len(line) for line in table}) == 1
    assert all(len(line) <= 80 for line in table)
    assert "by group" in table[1]
    assert f"{made.threshold['land']:.4g}" in table[2]
    assert all("<=    0.1" in line for line in table[1:])
    made = certify(scores, errors, coverage=1)
    assert str(made).startswith("Target: coverage 1.")
    assert "-inf" in str(made)
