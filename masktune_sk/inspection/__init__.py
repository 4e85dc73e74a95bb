"""Inspection: is there a shortcut, what was hidden, and what a layer knows."""

from ._diagnose import ShortcutDiagnosis, ShortcutEvidence, diagnose_shortcut
from ._mask_display import SaliencyMaskDisplay
from ._sensitivity_display import SensitivityDisplay

__all__ = [
    "LayerReport",
    "LayerReportDisplay",
    "SaliencyMaskDisplay",
    "SensitivityDisplay",
    "ShortcutDiagnosis",
    "ShortcutEvidence",
    "diagnose_shortcut",
    "effective_rank",
]
