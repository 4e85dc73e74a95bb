"""Thresholds for a coverage or a risk, and how sure they are."""

from dataclasses import dataclass

import numpy as np
from scipy.stats import beta, binom, hypergeom

__all__ = [
    "AcceptedSamples",
    "certified_steps",
    "coverage_bound",
    "coverage_bound_at_rank",
    "coverage_rank",
    "coverage_threshold",
    "risk_bound",
    "risk_bound_at_rank",
    "smallest_count",
    "starts_of",
]

# Tied samples have no order, so that a test of the first m samples may pass in some
# orders and fail in others. It counts as passed where it does in this share of them.
SHARE_OF_ORDERS = 0.9


def coverage_threshold(scores, coverage):
    """Find the largest threshold that accepts at least this share of the scores.

    Parameters
    ----------
    scores : ndarray of shape (n_samples,)
        Selection scores of calibration samples.
    coverage : float in (0, 1]
        Share to accept.

    Returns
    -------
    threshold : float
        Accept ``score >= threshold``. Ties at the threshold are all accepted, so that
        the coverage on these samples is never below the target. -inf for coverage 1.
    """
    if coverage >= 1:
        return -np.inf
    rank = coverage_rank(len(scores), coverage)
    return float(np.partition(scores, len(scores) - rank)[len(scores) - rank])


def coverage_rank(n_samples, coverage):
    """Return how many of the samples are to be accepted, at least one."""
    # The small term keeps 0.9 * 10 from asking for 10 of 10.
    return max(int(np.ceil(coverage * n_samples - 1e-9)), 1)


@dataclass(frozen=True)
class AcceptedSamples:
    """What each threshold accepts, one entry for each distinct score, descending.

    Neither the order of rows nor that of tied samples is left in it.

    Attributes
    ----------
    thresholds : ndarray of shape (n_distinct,)
        The distinct scores.
    counts, errors : ndarray of int, shape (n_distinct,)
        Samples with this score or more, and how many of them are errors.
    """

    thresholds: np.ndarray
    counts: np.ndarray
    errors: np.ndarray

    @classmethod
    def of(cls, scores, errors):
        """Count samples with scores (n_samples,) and errors (n_samples,), bool."""
        ascending, codes = np.unique(scores, return_inverse=True)
        sizes = np.bincount(codes)[::-1]
        wrong = np.bincount(codes[errors], minlength=len(ascending))[::-1]
        return cls(ascending[::-1], sizes.cumsum(), wrong.cumsum())

    @property
    def n_samples(self):
        """All samples."""
        return int(self.counts[-1])

    def steps(self, thresholds):
        """Return the entries that thresholds stand for; -1 where nothing is accepted.

        A threshold between two scores accepts what the next larger one does.
        """
        return np.searchsorted(-self.thresholds, -np.asarray(thresholds), "right") - 1

    def accepted(self, threshold):
        """Return how many a threshold accepts, and how many of them are errors."""
        step = self.steps(threshold)
        return (int(self.counts[step]), int(self.errors[step])) if step >= 0 else (0, 0)

    def block(self, position):
        """Return the entry of the tied samples among which the given position is."""
        return np.searchsorted(self.counts, position)

    def before(self, step):
        """Return counts and errors before an entry's tied samples."""
        counts, errors = np.r_[0, self.counts], np.r_[0, self.errors]
        return counts[step], errors[step]


# ---------------------------------------------------------------- risk


def smallest_count(max_risk, level):
    """Return how many samples without any error can certify a risk."""
    return _count_without_error(max_risk, SHARE_OF_ORDERS * level)


def _count_without_error(max_risk, test_level):
    return int(np.ceil(np.log(test_level) / np.log1p(-max_risk)))


def starts_of(n_samples, max_risk, level):
    """Choose where sequences of tests start, and at what level each makes its tests.

    Starts are numbers of accepted samples: the smallest that can pass without an error,
    and twice, four times, ... as many. Levels are in proportion to them, as more is to
    be won where more is accepted. They do not depend on scores or errors.

    Returns
    -------
    starts : ndarray of int
        Ascending; empty if `n_samples` are too few for any.
    levels : ndarray of float, of the same shape
        Their sum is 0.9 of `level`.
    """
    starts, levels = np.arange(0), np.zeros(0)
    while True:
        factors = 2 ** np.arange(len(starts) + 1)
        more = SHARE_OF_ORDERS * level * factors / factors.sum()
        # The more starts, the more samples the first of them takes.
        first = _count_without_error(max_risk, more[0])
        if first * factors[-1] > n_samples:
            return starts, levels
        starts, levels = first * factors, more


def certified_steps(accepted, max_risk, level):
    """Find which thresholds have at most this risk, all at once, for sure but `level`.

    Parameters
    ----------
    accepted : AcceptedSamples
        Calibration samples.
    max_risk : float in (0, 1)
        Largest probability that an accepted sample is an error.
    level : float in (0, 1)
        Probability, over calibration samples, that any threshold is certified wrongly.

    Returns
    -------
    certified : ndarray of bool, shape (n_distinct,)
        Whether accepting this score and more is certified. Where it is, so is any
        threshold between this score and the next smaller one.

    Notes
    -----
    From each start m of `starts_of`, the exact binomial test of "risk > max_risk" is
    made of the first m samples by score, tied ones in random order, and then of every
    larger set that a threshold accepts, until one fails. Those before are certified.

    *A sequence certifies a larger risk with at most its level as probability*, whatever
    the distribution. Break ties at random. Let U be the share of the population before
    a sample, which is uniform; R(u) the risk of the share u, continuous in u; and v the
    U of sample m + 1.

    1. If R(v) >= max_risk: given v, the errors of the first m are Binomial(m, R(v)),
       and pass with that probability at most.
    2. Else v is in an interval (b, w) where R < max_risk, and R = max_risk at b (or
       b = 0) and at w. To certify a larger risk, the sequence must pass at d, the end
       of the samples tied at w. That v is in (b, w) says that at most m samples are
       before b and more than m before w, no more. Given these two numbers, and that
       before d, errors before b and from b to w are Binomial with max_risk, as R is
       that at both ends; and from w to d with more, as R rises there. So the test at d
       passes with that probability at most.

    The cases exclude each other, and the starts share the level. At last, ties lose
    their order: a start counts as passed if it passes in 9 of 10 orders, for which the
    levels are 0.9 of what they might be.
    """
    n = accepted.n_samples
    starts, levels = starts_of(n, max_risk, level)
    tails = binom.cdf(accepted.errors, accepted.counts, max_risk)
    block = accepted.block(starts)
    n_before, wrong_before = accepted.before(block)
    share_passing = hypergeom.cdf(
        # The most errors that pass, less those that come first in any order.
        binom.ppf(levels, starts, max_risk) - 1 - wrong_before,
        accepted.counts[block] - n_before,
        accepted.errors[block] - wrong_before,
        starts - n_before,
    )
    certified = np.zeros(len(tails), dtype=bool)
    passed = share_passing >= SHARE_OF_ORDERS
    for start, test_level in zip(starts[passed], levels[passed], strict=True):
        first = accepted.block(min(start + 1, n))
        failures = np.flatnonzero(tails[first:] > test_level)
        stop = first + failures[0] if len(failures) else len(tails)
        certified[first:stop] = True
    return certified


def risk_bound(n_errors, n_accepted, level):
    """Return the upper Clopper-Pearson bound of a risk, for a threshold given before.

    Parameters
    ----------
    n_errors, n_accepted : int
        Errors among accepted samples.
    level : float in (0, 1)
        Probability that the risk is larger.

    Returns
    -------
    bound : float
        1 if nothing is known.
    """
    if n_errors >= n_accepted:
        return 1.0
    return float(beta.isf(level, n_errors + 1, n_accepted - n_errors))


def risk_bound_at_rank(accepted, rank, level):
    """Return an upper bound of the risk above the score of the sample at a rank.

    Parameters
    ----------
    accepted : AcceptedSamples
        Calibration samples.
    rank : int
        The threshold is the score of this sample, from 1 for the largest.
    level : float in (0, 1)
        Probability that the risk is larger.

    Returns
    -------
    bound : float
        The larger of two bounds: that of the samples before the rank, of tied ones the
        errors first, and that of all that are accepted.

    Notes
    -----
    The threshold is a sample's own score, so that this sample is not drawn as those
    before it are, and ties at it are accepted too. With ties in random order and U and
    R as in `certified_steps`, v being the U of the sample at the rank: given v, those
    before it are independent with risk R(v), so that the first bound holds for R(v).
    Either the risk of what is accepted is no larger; or it is, and those tied at v err
    more than those before them. Then, given how many are accepted, that fewer than
    `rank` stand before the tied ones makes errors likelier, and the second bound holds.
    """
    step = accepted.block(rank)
    n_before, wrong_before = accepted.before(step)
    wrong_tied = accepted.errors[step] - wrong_before
    wrong_first = wrong_before + min(wrong_tied, rank - 1 - n_before)
    return max(
        risk_bound(wrong_first, rank - 1, level),
        risk_bound(accepted.errors[step], accepted.counts[step], level),
    )


# ---------------------------------------------------------------- coverage


def coverage_bound_at_rank(rank, n_samples, level):
    """Return a lower bound of the coverage at the score of the sample at a rank.

    Exact without ties, where that coverage is distributed as
    Beta(rank, n_samples - rank + 1); with ties it is larger. The formula is that of
    Clopper and Pearson for `rank` accepted samples.
    """
    return float(beta.ppf(level, rank, n_samples - rank + 1))


def coverage_bound(n_accepted, n_samples, level):
    """Return a lower bound of the coverage, however the threshold was chosen.

    By the inequality of Dvoretzky, Kiefer and Wolfowitz with Massart's constant, for
    all thresholds at once. It holds for levels up to 1/2.
    """
    margin = np.sqrt(np.log(1 / min(level, 0.5)) / (2 * n_samples))
    return float(max(0.0, n_accepted / n_samples - margin))
