"""Concepts: the direction in a layer's output along which an artifact shows.

A concept is given by the samples that show it. Its concept activation vector (CAV) is a
direction in the latents, what a layer of a net puts out for each sample; the methods of
the ClArC family remove that direction from a net.
"""

from masktune_sk.concepts._check import check_concept
from masktune_sk.concepts._directions import concept_directions
from masktune_sk.concepts._result import ConceptDirections
from masktune_sk.concepts._split import ConceptStratifiedKFold

__all__ = [
    "ConceptDirections",
    "ConceptStratifiedKFold",
    "check_concept",
    "concept_directions",
]
