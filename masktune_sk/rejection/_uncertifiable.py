"""What to say where a risk cannot be certified: what could be, and what it takes."""

from bisect import bisect_left

import numpy as np
from scipy.stats import binom

from ._thresholds import smallest_count, starts_of

__all__ = ["explain", "lowest_risk", "samples_needed"]

# More distinct scores than this change an estimate of "about n" by nothing.
MOST_STEPS = 256
MOST_SAMPLES = 10**8


def lowest_risk(is_certified, max_risk):
    """Search the smallest risk above `max_risk` that is certified, to 5 %; or None."""
    steps = np.arange(1, int(np.log(0.999 / max_risk) / np.log(1.05)) + 1)
    risks = [float(f"{max_risk * 1.05**step:.3g}") for step in steps]
    # By bisection, as if all risks above one that is certified were so too, which is
    # true but for the places where tests start.
    first = bisect_left(risks, True, key=is_certified)
    return risks[first] if first < len(risks) else None


def samples_needed(accepted, max_risk, level):
    """Estimate how many samples like these would do.

    Each set of accepted samples is taken to grow as it is, with the share of errors
    that it has with one error more, as a few samples without any say little.

    Returns
    -------
    n_samples : int or None
        To two digits, upwards. None: no set has a small enough share of errors.
    """
    rates = (accepted.errors + 1) / (accepted.counts + 1)
    steps = np.flatnonzero(rates < max_risk)
    if not len(steps):
        return None
    steps = steps[np.linspace(0, len(steps) - 1, MOST_STEPS).astype(int)]
    rates, shares = rates[steps], accepted.counts[steps] / accepted.n_samples

    def would_do(n):
        starts, levels = starts_of(n, max_risk, level)
        counts = np.floor(shares * n)
        tails = binom.cdf(np.floor(rates * counts), counts, max_risk)
        # Of the sequences that come by, the last has the largest level.
        levels = np.r_[0.0, levels][np.searchsorted(starts, counts, "right")]
        return bool((tails <= levels).any())

    n, sizes = accepted.n_samples, []
    while n < MOST_SAMPLES:
        n = _two_digits(1.05 * n)
        sizes.append(n)
    first = bisect_left(sizes, True, key=would_do)
    return sizes[first] if first < len(sizes) else None


def explain(tables, hard, max_risk, confidence, level, lowest):
    """Put together the message of an error.

    Parameters
    ----------
    tables : dict of AcceptedSamples
        Calibration samples by group; None is the group of all.
    hard : list
        Groups that no threshold of their own can be certified for.
    max_risk, confidence : float
        What was asked for.
    level : float
        What is left of 1 - confidence for one group.
    lowest : float or None
        The risk that could be certified.

    Returns
    -------
    message : str
        What is wrong, what it would take, and what could be had.
    """
    n = sum(accepted.n_samples for accepted in tables.values())
    lines = [
        f"max_risk={max_risk} cannot be certified with confidence {confidence} on "
        f"these {n} samples."
    ]
    if not hard:
        lines.append(
            "Each group can be certified at a threshold of its own (per_group=True), "
            "but no threshold does for all."
        )
    for group in hard[:3]:
        lines.append(_lacking(group, tables[group], max_risk, level))
    if len(hard) > 3:
        lines.append(f"So it is with {len(hard) - 3} more groups.")
    if lowest is not None:
        lines.append(
            f"About {lowest} could be certified. Do that on other samples: a risk "
            "chosen by looking at these is less sure than its certificate says."
        )
    return " ".join(lines)


def _lacking(group, accepted, max_risk, level):
    """Say what one group lacks."""
    who = "" if group is None else f"of group {group!r} "
    n = accepted.n_samples
    least = smallest_count(max_risk, level)
    if n < least:
        return (
            f"The {n} samples {who}are too few: even without an error it takes n = "
            f"{least:,} accepted ones."
        )
    needed = samples_needed(accepted, max_risk, level)
    if needed is not None:
        return f"About n = {needed:,} samples {who}like these would do."
    best = np.argmin((accepted.errors + 1) / (accepted.counts + 1))
    return (
        f"No accepted part of the samples {who}shows so small a risk: at best "
        f"{accepted.errors[best]} of {accepted.counts[best]} are wrong. More samples "
        "like these may never do; a better classifier or another selection score may."
    )


def _two_digits(n):
    """Round up to two digits."""
    unit = 10 ** max(int(np.log10(n)) - 1, 0)
    return int(np.ceil(n / unit) * unit)
