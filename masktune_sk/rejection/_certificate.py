"""Certificates: what a threshold guarantees, how sure, and under which assumptions."""

from dataclasses import dataclass, fields

__all__ = ["ASSUMPTIONS", "GROUPS_ASSUMPTION", "Certificate", "GroupCertificate"]

ASSUMPTIONS = (
    "The calibration samples, and those to come, are drawn independently from one "
    "distribution.",
    "The classifier and its selection score were fixed before, without the calibration "
    "samples.",
    "This is the one certificate made of these samples. Of several, or for a target "
    "that was chosen by looking at them, each is less sure than it says.",
)
GROUPS_ASSUMPTION = (
    "Groups mean in future what they mean here. The bounds of all groups hold together "
    "with the confidence; those of all samples follow from them, whatever the shares "
    "of the groups."
)


@dataclass(frozen=True, kw_only=True)
class GroupCertificate:
    """What a threshold guarantees for one group of samples.

    Parameters
    ----------
    threshold : float
        Samples with this selection score or more are accepted.
    n_samples : int
        Calibration samples.
    n_accepted : int
        How many of them are accepted.
    n_errors : int
        How many of the accepted have a wrong label.
    certified_coverage : float
        Lower confidence bound of the probability that a sample is accepted.
    certified_risk : float
        Upper confidence bound of the probability that an accepted sample has a wrong
        label.
    """

    threshold: float
    n_samples: int
    n_accepted: int
    n_errors: int
    certified_coverage: float
    certified_risk: float

    @property
    def coverage(self):
        """Share of the calibration samples that is accepted.

        Returns
        -------
        coverage : float
            In (0, 1].
        """
        return self.n_accepted / self.n_samples

    @property
    def risk(self):
        """Share of the accepted calibration samples that has a wrong label.

        Returns
        -------
        risk : float
            In [0, 1].
        """
        return self.n_errors / self.n_accepted

    def as_dict(self):
        """Return everything as a dict.

        Returns
        -------
        values : dict
            Numbers, strings, lists and, by group, dicts.
        """
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return values | {"coverage": self.coverage, "risk": self.risk}


@dataclass(frozen=True, kw_only=True)
class Certificate(GroupCertificate):
    """What a threshold guarantees, how sure, and under which assumptions.

    Made by `certify`, and kept as `certificate_` by the estimators. `print` shows it as
    a table.

    Parameters
    ----------
    threshold : float or dict of float
        Samples with this selection score or more are accepted; of a certificate for
        thresholds by group, group to threshold.
    n_samples : int
        Calibration samples.
    n_accepted : int
        How many of them are accepted.
    n_errors : int
        How many of the accepted have a wrong label.
    certified_coverage : float
        Lower confidence bound of the probability that a sample is accepted.
    certified_risk : float
        Upper confidence bound of the probability that an accepted sample has a wrong
        label.
    target : {"coverage", "max_risk"}
        What was asked for.
    value : float
        How much of it.
    confidence : float
        Probability, over calibration samples, that all bounds of risk hold; and that
        all bounds of coverage do.
    groups : dict of GroupCertificate or None
        The same for each group.
    assumptions : tuple of str
        What has to be true for that.
    """

    threshold: float | dict
    target: str
    value: float
    confidence: float
    groups: dict | None = None
    assumptions: tuple = ASSUMPTIONS

    def as_dict(self):
        """Return everything as a dict.

        Returns
        -------
        values : dict
            Numbers, strings, lists and, by group, dicts.
        """
        values = super().as_dict() | {"assumptions": list(self.assumptions)}
        if self.groups is not None:
            values["groups"] = {k: part.as_dict() for k, part in self.groups.items()}
        return values

    def __str__(self):
        parts = {"all samples": self} | {
            f"  {group}": part for group, part in (self.groups or {}).items()
        }
        width = max(map(len, parts))
        asked = {"coverage": "coverage", "max_risk": "risk at most"}[self.target]
        lines = [
            f"Target: {asked} {self.value:g}.",
            f"With confidence {self.confidence:g} the bounds of risk hold, and so do "
            "those of coverage.",
            f"{'':{width}} {'n':>8} {'threshold':>10} {'coverage':>9} {'bound':>9} "
            f"{'risk':>8} {'bound':>9}",
        ]
        for name, part in parts.items():
            by_group = isinstance(part.threshold, dict)
            threshold = "by group" if by_group else f"{part.threshold:.4g}"
            lines.append(
                f"{name:{width}} {part.n_samples:8} {threshold:>10} "
                f"{part.coverage:9.4g} >={part.certified_coverage:7.4g} "
                f"{part.risk:8.4g} <={part.certified_risk:7.4g}"
            )
        lines += ["Assumptions", *(f"- {text}" for text in self.assumptions)]
        return "\n".join(lines)
