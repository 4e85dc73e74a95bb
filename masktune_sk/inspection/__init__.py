"""Inspection: what was hidden, and what a layer knows."""

from ._layer_report import LayerReport, effective_rank, layer_report
from ._layer_report_display import LayerReportDisplay
from ._mask_display import SaliencyMaskDisplay
from ._sensitivity_display import SensitivityDisplay

__all__ = [
    "LayerReport",
    "LayerReportDisplay",
    "SaliencyMaskDisplay",
    "SensitivityDisplay",
    "effective_rank",
    "layer_report",
]
