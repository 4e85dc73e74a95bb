"""DeNetDM: a shallow and a deep branch share the work, and a target learns from them.

`_nets` makes the nets of both stages out of the user's, `_stages` decides which branch
took the shortcut and trains the target, and `_classifier` is the estimator.
"""

from ._classifier import DeNetDMClassifier

__all__ = ["DeNetDMClassifier"]
