"""Certifying: from scores and errors to a threshold and what it guarantees."""

from numbers import Integral, Real

import numpy as np

from ._certificate import (
    ASSUMPTIONS,
    GROUPS_ASSUMPTION,
    Certificate,
    GroupCertificate,
)
from ._thresholds import (
    AcceptedSamples,
    certified_steps,
    coverage_bound,
    coverage_bound_at_rank,
    coverage_rank,
    risk_bound,
    risk_bound_at_rank,
)
from ._uncertifiable import explain, lowest_risk

__all__ = ["certify", "check_coverage", "check_groups", "check_target"]


def certify(
    scores,
    errors,
    *,
    coverage=None,
    max_risk=None,
    confidence=0.95,
    groups=None,
    per_group=False,
):
    """Choose a threshold of selection scores, and say what it guarantees.

    Parameters
    ----------
    scores : array-like of shape (n_samples,)
        Selection scores of calibration samples; larger = more willing. Tied scores and
        the order of samples make no difference to the guarantee.
    errors : array-like of bool, shape (n_samples,)
        Whether the label predicted for each is wrong.
    coverage : float in (0, 1], default=None
        Share of samples to accept, of every group where there are some. The threshold
        is that of `coverage_threshold`, so that the coverage of the calibration samples
        is never below it; the bounds say what that of other samples may be.
    max_risk : float in (0, 1), default=None
        Largest probability that an accepted sample has a wrong label. The threshold is
        the smallest that can be certified [1]_. Give this or `coverage`.
    confidence : float in (0, 1), default=0.95
        Probability, over calibration samples, that the bounds hold.
    groups : array-like of shape (n_samples,), default=None
        The group of each sample, all strings or all integers. Every group gets bounds
        of its own, and they hold together: the confidence is split.
    per_group : bool, default=False
        Choose a threshold for each group in place of one for all.

    Returns
    -------
    certificate : Certificate
        Threshold and bounds.

    Raises
    ------
    ValueError
        If the samples, the target or the groups are not what they should be, or if
        `max_risk` cannot be certified: the message says what could be, and about how
        many samples would do.

    Notes
    -----
    The bounds hold for what a threshold does to new samples, under the assumptions that
    the certificate names. That calibration samples were trained on cannot be detected,
    and voids it. Nothing is assumed of scores: the risk need not fall with them.

    Risk target. Geifman and El-Yaniv search thresholds by bisection, with an exact
    binomial test of each and the level shared among them [1]_. Here the tests are made
    in fixed sequences [2]_, each from a number of accepted samples that is chosen
    before, up to the first that fails, and only where the score changes; only the few
    starts share the level. All thresholds passed are certified together, which is how
    one threshold is found for all groups. The bound of the risk is `max_risk` itself,
    and that of the coverage is one for all thresholds at once (Dvoretzky, Kiefer,
    Wolfowitz). If all scores are equal, everything is accepted or nothing certified.
    Starts depend on the number of samples, `max_risk` and `confidence`: a little more
    of one of them may by chance accept a little less.

    Coverage target. The coverage at the score of a sample of given rank follows a Beta
    distribution, whose quantile is the bound, the same as that of Clopper and Pearson.
    The bound of the risk is theirs too, with the sample at the threshold left out.

    References
    ----------
    .. [1] Geifman, El-Yaniv, "Selective Classification for Deep Neural Networks",
       NeurIPS 2017.
    .. [2] Angelopoulos, Bates, Candès, Jordan, Lei, "Learn then Test: Calibrating
       Predictive Algorithms to Achieve Risk Control", 2021, arXiv:2110.01052.

    Examples
    --------
    >>> import numpy as np
    >>> from masktune_sk.rejection import certify
    >>> rng = np.random.default_rng(0)
    >>> scores = rng.random(1000)
    >>> errors = rng.random(1000) < 0.2 * (1 - scores)
    >>> certificate = certify(scores, errors, max_risk=0.1)
    >>> certificate.coverage > certificate.certified_coverage > 0.5
    True
    >>> certificate.risk < certificate.certified_risk == 0.1
    True
    """
    check_target(coverage, max_risk, confidence, groups, per_group)
    if coverage is None and max_risk is None:
        raise ValueError("Give coverage or max_risk; got neither.")
    scores, errors = _check_samples(scores, errors)
    tables = _tables(scores, errors, groups)
    level = (1 - confidence) / len(tables)
    if max_risk is None:
        target, value = "coverage", float(coverage)
        parts = _at_coverage(tables, value, level, per_group)
    else:
        target, value = "max_risk", float(max_risk)
        parts = _at_risk(tables, value, level, per_group)
        if parts is None:
            raise ValueError(_why_not(tables, value, confidence, level, per_group))
    whole = vars(parts[None]) if groups is None else _whole(parts, per_group)
    return Certificate(
        **whole,
        target=target,
        value=value,
        confidence=float(confidence),
        groups=None if groups is None else parts,
        assumptions=ASSUMPTIONS + (() if groups is None else (GROUPS_ASSUMPTION,)),
    )


def _at_coverage(tables, coverage, level, per_group):
    """Certify the thresholds that accept a share of each group."""
    ranks = {
        group: coverage_rank(table.n_samples, coverage)
        for group, table in tables.items()
    }
    own = {
        group: -np.inf
        if coverage == 1
        else float(table.thresholds[table.block(ranks[group])])
        for group, table in tables.items()
    }
    parts = {}
    for group, table in tables.items():
        threshold = own[group] if per_group else min(own.values())
        n_accepted, n_errors = table.accepted(threshold)
        if coverage == 1:
            covered = 1.0
        else:
            # With a smaller threshold than its own a group's coverage only grows.
            covered = coverage_bound_at_rank(ranks[group], table.n_samples, level)
        if coverage < 1 and threshold == own[group]:
            risk = risk_bound_at_rank(table, ranks[group], level)
        else:
            # Everything is accepted, or other groups chose the threshold.
            risk = risk_bound(n_errors, n_accepted, level)
        parts[group] = _part(table, threshold, covered, risk)
    return parts


def _at_risk(tables, max_risk, level, per_group):
    """Certify the smallest thresholds that can be certified; None if none can."""
    certified = {
        group: certified_steps(table, max_risk, level)
        for group, table in tables.items()
    }
    if per_group:
        candidates = {group: table.thresholds for group, table in tables.items()}
    else:
        common = np.unique(np.concatenate([t.thresholds for t in tables.values()]))
        candidates = dict.fromkeys(tables, common[::-1])
    possible = {
        group: _certified_at(tables[group], certified[group], thresholds)
        for group, thresholds in candidates.items()
    }
    if not per_group:
        possible = dict.fromkeys(tables, np.all(list(possible.values()), axis=0))
    if not all(mask.any() for mask in possible.values()):
        return None
    parts = {}
    for group, table in tables.items():
        smallest = np.flatnonzero(possible[group])[-1]
        last = smallest == len(candidates[group]) - 1
        threshold = -np.inf if last else float(candidates[group][smallest])
        n_accepted, _ = table.accepted(threshold)
        covered = 1.0 if last else coverage_bound(n_accepted, table.n_samples, level)
        parts[group] = _part(table, threshold, covered, max_risk)
    return parts


def _certified_at(table, certified, thresholds):
    """Tell for thresholds, descending, whether a group's risk is certified there."""
    steps = table.steps(thresholds)
    return certified[steps] & (steps >= 0)


def _part(table, threshold, certified_coverage, certified_risk):
    n_accepted, n_errors = table.accepted(threshold)
    return GroupCertificate(
        threshold=threshold,
        n_samples=table.n_samples,
        n_accepted=n_accepted,
        n_errors=n_errors,
        certified_coverage=certified_coverage,
        certified_risk=certified_risk,
    )


def _whole(parts, per_group):
    """Put groups together; what holds for each of them holds for all samples."""
    values = list(parts.values())
    thresholds = {group: part.threshold for group, part in parts.items()}
    return {
        "threshold": thresholds if per_group else values[0].threshold,
        "n_samples": sum(part.n_samples for part in values),
        "n_accepted": sum(part.n_accepted for part in values),
        "n_errors": sum(part.n_errors for part in values),
        "certified_coverage": min(part.certified_coverage for part in values),
        "certified_risk": max(part.certified_risk for part in values),
    }


def _why_not(tables, max_risk, confidence, level, per_group):
    hard = [
        group
        for group, table in tables.items()
        if not certified_steps(table, max_risk, level).any()
    ]
    lowest = lowest_risk(
        lambda risk: _at_risk(tables, risk, level, per_group) is not None, max_risk
    )
    return explain(tables, hard, max_risk, confidence, level, lowest)


# ---------------------------------------------------------------- checks


def check_target(coverage, max_risk, confidence, groups, per_group):
    """Refuse targets that are none, before any work."""
    if coverage is not None and max_risk is not None:
        raise ValueError(
            f"Give coverage or max_risk, not both; got coverage={coverage} and "
            f"max_risk={max_risk}."
        )
    if coverage is not None:
        check_coverage(coverage)
    for name, value in (("max_risk", max_risk), ("confidence", confidence)):
        if value is not None and not (isinstance(value, Real) and 0 < value < 1):
            raise ValueError(f"{name} must be in (0, 1), got {value!r}.")
    if per_group and groups is None:
        raise ValueError(
            "per_group=True chooses a threshold for each group: pass groups, the group "
            "of each sample."
        )


def check_coverage(coverage):
    """Refuse a coverage that is none."""
    if not (isinstance(coverage, Real) and 0 < coverage <= 1):
        raise ValueError(f"coverage must be in (0, 1], got {coverage!r}.")


def check_groups(groups, n_samples):
    """Return groups as an array (n_samples,) of strings or of integers."""
    if not hasattr(groups, "dtype"):
        # numpy would turn a None among strings into one more string.
        groups = np.array(list(groups), dtype=object)
    groups = np.asarray(groups)
    if groups.shape != (n_samples,):
        raise ValueError(
            f"groups must have shape ({n_samples},), one group a row of X; got "
            f"{groups.shape}."
        )
    if groups.dtype.kind in "biuU":
        return groups
    values = groups.tolist()
    kind = str if values and isinstance(values[0], str) else Integral
    odd = [value for value in values if not isinstance(value, kind)]
    if odd:
        raise ValueError(
            "groups must be all strings or all integers, none missing; got "
            f"{values[0]!r} and {odd[0]!r}."
        )
    return np.array(values)


def _check_samples(scores, errors):
    scores, errors = np.asarray(scores, dtype=np.float64), np.asarray(errors)
    if scores.ndim != 1 or errors.shape != scores.shape:
        raise ValueError(
            "scores and errors must have one shape, (n_samples,); got "
            f"{scores.shape} and {errors.shape}."
        )
    if len(scores) < 2:
        raise ValueError(
            f"A certificate needs 2 calibration samples or more; got {len(scores)}."
        )
    if not np.isfinite(scores).all():
        raise ValueError(
            f"{(~np.isfinite(scores)).sum()} of {len(scores)} selection scores are NaN "
            "or infinite."
        )
    if not np.isin(errors, (0, 1)).all():
        raise ValueError("errors must be True where a predicted label is wrong, or 1.")
    return scores, errors.astype(bool)


def _tables(scores, errors, groups):
    """Count what thresholds accept, by group; None is the group of all."""
    if groups is None:
        return {None: AcceptedSamples.of(scores, errors)}
    groups = check_groups(groups, len(scores))
    return {
        group: AcceptedSamples.of(scores[groups == group], errors[groups == group])
        for group in np.unique(groups).tolist()
    }
