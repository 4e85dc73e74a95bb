"""Inspection: pictures of what was hidden."""

from ._mask_display import SaliencyMaskDisplay

__all__ = ["SaliencyMaskDisplay"]
