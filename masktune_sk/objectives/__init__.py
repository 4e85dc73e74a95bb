"""Objectives: what nets are trained with besides plain cross-entropy.

Pure pieces: functions of tensors, and criteria for skorch made of them.
"""

from ._concept_penalty import ConceptPenalty, penalty_curvature
from ._distillation import GuidedLoss, distillation_loss, product_of_experts
from ._right_reasons import InputGradientModule, RightReasons, WithMasks

__all__ = [
    "ConceptPenalty",
    "GuidedLoss",
    "InputGradientModule",
    "RightReasons",
    "WithMasks",
    "distillation_loss",
    "penalty_curvature",
    "product_of_experts",
]
