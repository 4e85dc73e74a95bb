"""Do certificates hold as often as they say? A simulation with known risks.

    python benchmarks/certificates.py

Each kind of scores has its true risk and coverage in closed form, so that it is exact
whether a certificate is violated: of 2,000 calibration sets, by 1 - confidence at most,
within binomial error. Nothing is trained; a minute and a half on one core.

Beside it stands bisection over rows, as SGR (Geifman and El-Yaniv, 2017) is usually
coded, with tied rows in the order in which they come. It counts them one by one and
accepts them together, which the rows of an image folder, class by class, punish.
"""

import argparse
import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import bdtr
from scipy.stats import binom

from masktune_sk.rejection import certify

RESULTS = Path(__file__).parent / "results"
MAX_RISK, COVERAGE = 0.05, 0.8
CONFIDENCES = (0.9, 0.95)
SORTS = ("risk target", "its coverage", "coverage target", "its risk", "bisection")
# A violation count as large as this has a probability below 0.1 % if the bound holds.
SURE = 1e-3


@dataclass(frozen=True)
class Kind:
    """Scores and errors of samples, and the truth about thresholds.

    ``draw(random, n)`` returns scores and errors; ``coverage(t)`` and ``risk(t)`` are
    those of accepting ``score >= t``.
    """

    draw: Callable
    coverage: Callable
    risk: Callable


def uniform_kind(error_rate, errors_above, tied=0.0, tied_error_rate=0.0):
    """Scores uniform in [0, 1), and a share tied at 1.

    ``errors_above(t)`` is the integral of `error_rate` from t to 1.
    """

    def draw(random, n):
        scores = np.where(random.random(n) < tied, 1.0, random.random(n))
        rates = np.where(scores == 1, tied_error_rate, error_rate(scores))
        return scores, random.random(n) < rates

    def coverage(t):
        return tied + (1 - tied) * (1 - max(t, 0.0))

    def risk(t):
        errors = tied * tied_error_rate + (1 - tied) * errors_above(max(t, 0.0))
        return errors / coverage(t)

    return Kind(draw, coverage, risk)


def sorted_by_class(kind, tied_error_rates):
    """Two classes, equally many, that err differently where scores are tied at 1.

    The rows come class by class. The mean of the two rates is that of `kind`, so its
    risks are the risks here.
    """

    def draw(random, n):
        scores, errors = kind.draw(random, n)
        classes = np.sort(random.integers(2, size=n))
        tied = scores == 1
        rates = np.asarray(tied_error_rates)[classes]
        return scores, np.where(tied, random.random(n) < rates, errors)

    return Kind(draw, kind.coverage, kind.risk)


def saturated_kind(scale=20.0, decay=10.0, most=0.5):
    """The float32 probability of a logit z that is exponential, with errors exp(-z)."""

    def draw(random, n):
        z = random.exponential(scale, n)
        scores = (1 / (1 + np.exp(-z))).astype(np.float32)
        return scores, random.random(n) < most * np.exp(-z / decay)

    def smallest_logit(t):
        """Logit from which the probability is rounded to t or more."""
        t = np.float32(max(t, 0.5))
        below = (np.float64(t) + np.float64(np.nextafter(t, np.float32(0)))) / 2
        return max(np.log(below / (1 - below)), 0.0)

    def coverage(t):
        return np.exp(-smallest_logit(t) / scale)

    def risk(t):
        return most * np.exp(-smallest_logit(t) / decay) / (1 + scale / decay)

    return Kind(draw, coverage, risk)


def surest_are_wrong():
    """The top 3 % err most: the risk does not fall with the score."""
    edges, rates = np.array([0.0, 0.4, 0.97, 1.0]), np.array([0.3, 0.02, 0.5])

    def error_rate(scores):
        return rates[np.searchsorted(edges, scores, side="right").clip(1, 3) - 1]

    def errors_above(t):
        return float(np.diff(edges.clip(t)) @ rates)

    return uniform_kind(error_rate, errors_above)


def falling(scores):
    return 0.01 + 0.4 * (1 - scores) ** 2


def falling_above(t):
    return 0.01 * (1 - t) + 0.4 * (1 - t) ** 3 / 3


TIED_BADLY = uniform_kind(falling, falling_above, tied=0.7, tied_error_rate=0.06)
KINDS = {
    "continuous": uniform_kind(falling, falling_above),
    "70 % tied, risk 0.02": uniform_kind(falling, falling_above, 0.7, 0.02),
    "70 % tied, risk 0.06": TIED_BADLY,
    "the same, sorted by class": sorted_by_class(TIED_BADLY, (0.12, 0.0)),
    "float32-saturated": saturated_kind(),
    "surest 3 % wrong": surest_are_wrong(),
}


def bisection(scores, errors, max_risk, confidence):
    """Search a threshold among the rows, sorted but for ties; or None."""
    order = np.argsort(scores, kind="stable")
    scores, errors = scores[order], errors[order]
    n = len(scores)
    n_steps = int(np.ceil(np.log2(n)))
    low, high, threshold = 0, n - 1, None
    for _ in range(n_steps):
        row = (low + high + 1) // 2
        if bdtr(errors[row:].sum(), n - row, max_risk) <= (1 - confidence) / n_steps:
            high, threshold = row, float(scores[row])
        else:
            low = row
    return threshold


def certificate(scores, errors, **target):
    try:
        return certify(scores, errors, **target)
    except ValueError:
        return None


def simulate(kind, confidence, n_draws, n_samples, seed):
    """Count certificates of every sort, and those that are violated."""
    random = np.random.default_rng(seed)
    found, wrong, covered = dict.fromkeys(SORTS, 0), dict.fromkeys(SORTS, 0), []

    def count(sort, is_wrong):
        found[sort] += 1
        wrong[sort] += bool(is_wrong)

    for _ in range(n_draws):
        scores, errors = kind.draw(random, n_samples)
        made = certificate(scores, errors, max_risk=MAX_RISK, confidence=confidence)
        if made is not None:
            t = made.threshold
            count("risk target", kind.risk(t) > MAX_RISK)
            count("its coverage", kind.coverage(t) < made.certified_coverage)
        covered.append(0.0 if made is None else kind.coverage(made.threshold))
        made = certificate(scores, errors, coverage=COVERAGE, confidence=confidence)
        if made.coverage < COVERAGE:
            raise AssertionError("fewer calibration samples accepted than asked for")
        t = made.threshold
        count("coverage target", kind.coverage(t) < made.certified_coverage)
        count("its risk", kind.risk(t) > made.certified_risk)
        t = bisection(scores, errors, MAX_RISK, confidence)
        if t is not None:
            count("bisection", kind.risk(t) > MAX_RISK)
    return found, wrong, float(np.mean(covered))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=2000)
    parser.add_argument("--samples", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    print(
        f"{arguments.draws} draws of n = {arguments.samples}; risk target {MAX_RISK}, "
        f"coverage target {COVERAGE}.\nViolations, and in brackets certificates where "
        "not every draw has one;\n! = more than chance allows if the bound holds.\n"
    )
    print(f"{'scores':27}{'conf.':>5}{'limit':>6}{'accepted':>9}", end="")
    print("".join(f"{sort:>17}" for sort in SORTS))
    rows = []
    for name, kind in KINDS.items():
        for confidence in CONFIDENCES:
            found, wrong, covered = simulate(
                kind, confidence, arguments.draws, arguments.samples, arguments.seed
            )
            limit = int(binom.isf(SURE, arguments.draws, 1 - confidence))
            print(f"{name:27}{confidence:5}{limit:6}{covered:9.3f}", end="")
            for sort in SORTS:
                text = f"{wrong[sort]}{'!' if wrong[sort] > limit else ''}"
                if found[sort] < arguments.draws:
                    text += f" ({found[sort]})"
                print(f"{text:>17}", end="")
                rows.append(
                    {
                        "scores": name,
                        "confidence": confidence,
                        "certificate": sort,
                        "draws": arguments.draws,
                        "n_samples": arguments.samples,
                        "found": found[sort],
                        "violated": wrong[sort],
                        "limit": limit,
                    }
                )
            print(flush=True)
    if arguments.draws >= 2000:
        RESULTS.mkdir(exist_ok=True)
        with open(RESULTS / "certificates.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
