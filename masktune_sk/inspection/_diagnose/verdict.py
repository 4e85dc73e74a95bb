"""From what a probe predicts to a verdict."""

from itertools import groupby

import numpy as np

from ...metrics import proportion_interval
from .alone import out_of_fold
from .foreign import Standing, Z, examine, margin_spread
from .result import ShortcutEvidence

__all__ = ["judge_probes"]

#: Of the way from chance to perfect balanced accuracy, what a shortcut has gone.
LEAST_SKILL = 0.75
#: Share of a shortcut's variance within the classes that the rest may explain.
MOST_TIE = 0.1
#: Confidence of the errors of a sign that lies, and spread of its margins.
MOST_CONFIDENCE, MOST_SPREAD = 0.8, 0.5
#: Where there are too few errors, the spread of a sign that is there or not.
CRISP = 0.05
#: Balanced accuracy by which the rest may predict better than a shortcut.
MOST_LAG = 0.08
#: Probes of one kind and size that are looked at more closely, and that are shown.
MOST_EXAMINED, MOST_SHOWN = 12, 2
#: Patches that overlap the best, this much worse at most, and how many of them.
NEAR, MOST_NEAR = 0.02, 9

UNSEEN = Standing()


def judge_probes(probes, alone, rest, *, alpha, random):
    """Judge every probe, and choose what to show.

    Parameters
    ----------
    probes : list of Probe
        What was scored.
    alone : Alone
        How they scored.
    rest : Rest
        Of the same samples.
    alpha : float
        Level of the test against shuffled labels.
    random : RandomState
        Draws the rows that the rest is learned from.

    Returns
    -------
    evidence : list of ShortcutEvidence
        Shortcuts first, then by what they predict.
    """
    order = sorted(
        range(len(probes)), key=lambda i: (_family(probes[i]), -alone.scores[i])
    )
    rows = []
    for _, members in groupby(order, key=lambda i: _family(probes[i])):
        family, chosen, n_shown = list(members), [], 0
        for i in family:
            if not probes[i].apart_from(chosen):
                continue
            if (
                probes[i].kind == "patch"
                and _skill(alone.scores[i], rest) >= LEAST_SKILL
            ):
                i = _crispest(i, family, chosen, probes, alone, rest.y)
            chosen.append(probes[i])
            row = _judge(probes[i], i, alone, rest, alpha, random)
            if row.is_shortcut or n_shown < MOST_SHOWN:
                n_shown += 1
                rows.append(row)
            if len(chosen) == MOST_EXAMINED:
                break
    return sorted(rows, key=_rank)


def _rank(row):
    """Put shortcuts first; a patch tells more than the border that it lies on."""
    return not row.is_shortcut, row.is_shortcut and row.kind == "border", -row.value


def _family(probe):
    """Tell probes apart of which the best few are looked at."""
    if probe.kind != "patch":
        return probe.kind, 0
    return probe.kind, probe.place[1] - probe.place[0]


def _skill(score, rest):
    """Return how far a score is on the way from chance to perfection."""
    chance = 1 / (rest.y.max() + 1)
    return (score - chance) / (1 - chance)


def _crispest(i, family, chosen, probes, alone, y):
    """Return the patch about as good as patch i, and over it, that fits its place best.

    A patch half beside a square sees a part of the object too.
    """
    near = [
        j
        for j in family
        if alone.scores[j] >= alone.scores[i] - NEAR
        and not probes[j].apart_from([probes[i]])
        and probes[j].apart_from(chosen)
    ]

    def fit(j):
        features = probes[j].features
        closeness = out_of_fold(features, y, alone.folds)
        spread = margin_spread(closeness, y, alone.folds)
        means = [features[y == label].mean(axis=0) for label in np.unique(y)]
        # Of those that fit, the one that is covered most.
        return round(spread, 1), -np.ptp(means, axis=0).sum()

    return min(near[:MOST_NEAR], key=fit)


def _judge(probe, i, alone, rest, alpha, random):
    """Examine a probe as closely as its score deserves."""
    score, p_value = float(alone.scores[i]), float(alone.p_values[i])
    standing = UNSEEN
    if p_value > alpha:
        reading = "chance"
    elif _skill(score, rest) < LEAST_SKILL:
        reading = "weak"
    else:
        standing = examine(
            probe,
            rest,
            rest.y,
            alone.folds,
            random,
            most_confidence=MOST_CONFIDENCE,
            most_tie=MOST_TIE,
        )
        reading = _read(score, standing)
    return ShortcutEvidence(
        kind=probe.kind,
        where=probe.where,
        measure="balanced accuracy",
        value=score,
        interval=balanced_interval(alone.recalls[i], np.bincount(rest.y)),
        baseline=alone.chance,
        p_value=p_value,
        tie=standing.tie,
        error_confidence=standing.error_confidence,
        rest=standing.rest,
        reading=reading,
        is_shortcut=reading == "shortcut",
    )


def _read(score, standing):
    """Tell what to read from a probe that predicts y well and was examined."""
    if np.isnan(standing.tie):
        return "graded"
    if standing.tie > MOST_TIE:
        return "tied"
    # Few errors may happen to be less sure than right predictions, by their number.
    confidence = np.fmax(standing.error_confidence, 0.5)
    lies = (
        confidence + Z * standing.confidence_error <= MOST_CONFIDENCE
        and standing.spread <= MOST_SPREAD
    )
    lags = score < standing.rest - MOST_LAG
    return "shortcut" if (lies or standing.spread <= CRISP) and not lags else "unclear"


def balanced_interval(recalls, counts):
    """Return a 95 % interval of a balanced accuracy, from those of its recalls.

    Wilson's intervals of the recalls, combined by the squares of their arms [1]_.

    Parameters
    ----------
    recalls : ndarray of shape (n_classes,)
        Share of right predictions of each class.
    counts : ndarray of int, shape (n_classes,)
        Samples of each class.

    Returns
    -------
    low, high : float
        The ends.

    References
    ----------
    .. [1] Zou and Donner, "Construction of confidence limits about effect measures: A
       general approach", Statistics in Medicine 2008.
    """
    hits = np.rint(recalls * counts).astype(np.int64)
    low, high = proportion_interval(hits, counts, method="wilson")
    arms = [np.sqrt(np.square(recalls - end).sum()) for end in (low, high)]
    mean = recalls.mean()
    return (
        float(max(0.0, mean - arms[0] / len(counts))),
        float(min(1.0, mean + arms[1] / len(counts))),
    )
