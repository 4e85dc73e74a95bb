"""Rejection: how willing to predict, from which score on, and what that guarantees.

Probabilities go in, scores come out; scores and errors of calibration samples go in,
thresholds and certificates come out. `RULES` are the names of the scores of a pair of
nets, before and after an intervention. `CONFIDENCE_RULES` are the names of the scores
of one classifier.
"""

from ._certificate import Certificate, GroupCertificate
from ._certify import certify
from ._scores import CONFIDENCE_RULES, RULES, confidence_scores, selection_scores
from ._thresholds import coverage_threshold

__all__ = [
    "CONFIDENCE_RULES",
    "RULES",
    "Certificate",
    "GroupCertificate",
    "certify",
    "confidence_scores",
    "coverage_threshold",
    "selection_scores",
]
