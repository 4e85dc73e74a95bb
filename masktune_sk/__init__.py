"""Classifiers that do not lean on a shortcut, and that know when to abstain.

    X, y -> ERM training -> saliency maps -> masks -> one masked epoch -> predict

`training` fits a net as its user configured it, `saliency` looks at what the net found,
`masking` hides it, `training` goes on from there, and `rejection` compares the nets
before and after. `MaskTuneClassifier` is these stages as a scikit-learn estimator, and
`OFFICIAL_MASKTUNE` holds its parameters in the official code.

Two other methods have the same shape. `DeNetDMClassifier` trains a shallow and a deep
branch, which share the work, and then a target (`objectives`); `RRClArCClassifier`
finds a concept that its user points at in a layer (`concepts`), and unlearns it.
`RejectOptionClassifier` lets any classifier abstain.
"""

from importlib.metadata import version

from ._denetdm import DeNetDMClassifier
from ._masktune import MaskTuneClassifier
from ._recipes import OFFICIAL_MASKTUNE
from ._reject_option import RejectOptionClassifier
from ._rrclarc import RRClArCClassifier

__all__ = [
    "OFFICIAL_MASKTUNE",
    "DeNetDMClassifier",
    "MaskTuneClassifier",
    "RRClArCClassifier",
    "RejectOptionClassifier",
]

__version__ = version("masktune_sk")
