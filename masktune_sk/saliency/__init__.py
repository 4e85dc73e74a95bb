"""Saliency: what a net looks at, one map a sample.

Each method is a small class with one method, `BaseSaliency.explain`. `METHODS` maps the
names of the methods to their classes. Maps stay at the resolution of the layer they
come from; `masktune_sk.masking` brings them to the size of the image when a mask is
made.
"""

from ._base import BaseSaliency
from ._cam import CentredGradCAM, GradCAM, GradCAMPlusPlus, LayerCAM, XGradCAM
from ._gradient import InputGradient, InputXGradient
from ._layers import Layer, find_layer
from ._maps import METHODS, compute_maps, resolve_saliency

__all__ = [
    "METHODS",
    "BaseSaliency",
    "CentredGradCAM",
    "GradCAM",
    "GradCAMPlusPlus",
    "InputGradient",
    "InputXGradient",
    "Layer",
    "LayerCAM",
    "XGradCAM",
    "compute_maps",
    "find_layer",
    "resolve_saliency",
]
