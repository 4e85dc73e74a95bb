"""Metrics that show what an average over all samples hides.

By group: a classifier that leans on a shortcut fails where the shortcut misleads. By
coverage: one that abstains is wrong less often, on fewer samples. Without labels of the
bias: scorers for a search, called as ``scorer(estimator, X, y)``.
"""

from masktune_sk.metrics._by_group import metric_by_group, worst_group_metric
from masktune_sk.metrics._concept import (
    concept_alignment,
    concept_sensitivity,
    tcav_score,
)
from masktune_sk.metrics._group import group_accuracies, worst_group_accuracy_score
from masktune_sk.metrics._intervals import (
    group_accuracy_intervals,
    proportion_interval,
)
from masktune_sk.metrics._label_free import (
    erm_agreement_scorer,
    masked_accuracy_scorer,
    masked_agreement_scorer,
    masked_consistency_scorer,
    pseudo_conflict_accuracy_scorer,
    pseudo_group_accuracy_scorer,
    worst_class_accuracy_scorer,
)
from masktune_sk.metrics._operating_points import (
    coverage_at_risk,
    coverage_score,
    risk_at_coverage,
    selective_accuracy_score,
)
from masktune_sk.metrics._relevance import artifact_relevance
from masktune_sk.metrics._risk_coverage_display import RiskCoverageDisplay
from masktune_sk.metrics._scorers import make_selective_scorer
from masktune_sk.metrics._selective import (
    augrc_loss,
    aurc_loss,
    excess_aurc_loss,
    risk_coverage_curve,
)

__all__ = [
    "RiskCoverageDisplay",
    "artifact_relevance",
    "augrc_loss",
    "aurc_loss",
    "concept_alignment",
    "concept_sensitivity",
    "coverage_at_risk",
    "coverage_score",
    "erm_agreement_scorer",
    "excess_aurc_loss",
    "group_accuracies",
    "group_accuracy_intervals",
    "make_selective_scorer",
    "masked_accuracy_scorer",
    "masked_agreement_scorer",
    "masked_consistency_scorer",
    "metric_by_group",
    "proportion_interval",
    "pseudo_conflict_accuracy_scorer",
    "pseudo_group_accuracy_scorer",
    "risk_at_coverage",
    "risk_coverage_curve",
    "selective_accuracy_score",
    "tcav_score",
    "worst_class_accuracy_scorer",
    "worst_group_accuracy_score",
    "worst_group_metric",
]
