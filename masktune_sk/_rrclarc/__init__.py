"""RR-ClArC and its family: a concept is found in a layer, and unlearned after it.

`_latents` records the layer and takes derivatives along the concept, `_correction`
edits the net or trains on what follows the layer, and `_classifier` is the estimator.
"""

from ._classifier import RRClArCClassifier

__all__ = ["RRClArCClassifier"]
