"""Inspection: is there a shortcut, what was hidden, and what a layer knows."""

from ._diagnose import ShortcutDiagnosis, ShortcutEvidence, diagnose_shortcut
from ._layer_report import LayerReport, effective_rank, layer_report
from ._layer_report_display import LayerReportDisplay
from ._mask_display import SaliencyMaskDisplay
from ._report import ShortcutReport, model_card, report
from ._sensitivity_display import SensitivityDisplay

__all__ = [
    "LayerReport",
    "LayerReportDisplay",
    "SaliencyMaskDisplay",
    "SensitivityDisplay",
    "ShortcutDiagnosis",
    "ShortcutEvidence",
    "ShortcutReport",
    "diagnose_shortcut",
    "effective_rank",
    "layer_report",
    "model_card",
    "report",
]
