"""Classifiers that do not lean on a shortcut, and that know when to abstain.

    X, y -> ERM training -> saliency maps -> masks -> one masked epoch -> predict

`training` fits a net as its user configured it, `saliency` looks at what the net found,
`masking` hides it, `training` goes on from there, and `rejection` compares the nets
before and after. `MaskTuneClassifier` is these stages as a scikit-learn estimator, and
`OFFICIAL_MASKTUNE` holds its parameters in the official code.
"""

from importlib.metadata import version

from ._masktune import MaskTuneClassifier
from ._recipes import OFFICIAL_MASKTUNE
from ._reject_option import RejectOptionClassifier

__all__ = ["OFFICIAL_MASKTUNE", "MaskTuneClassifier", "RejectOptionClassifier"]

__version__ = version("masktune_sk")
