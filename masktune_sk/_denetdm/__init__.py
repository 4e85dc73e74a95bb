"""DeNetDM: a shallow and a deep branch share the work, and a target learns from them.

`_nets` makes the nets of both stages out of the user's, `_branches` is stage 1 and
decides which branch took the shortcut, `_target` is stage 2, and `_classifier` is the
estimator.
"""

from ._classifier import DeNetDMClassifier

__all__ = ["DeNetDMClassifier"]
