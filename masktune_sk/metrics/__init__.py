"""Metrics that show what an average over all samples hides."""

from masktune_sk.metrics._group import group_accuracies, worst_group_accuracy_score

__all__ = ["group_accuracies", "worst_group_accuracy_score"]
