"""Classifiers that do not lean on a shortcut, and that know when to abstain.

Each is a scikit-learn estimator around a skorch net, yours or a default one:

    from masktune_sk import MaskTuneClassifier
    from masktune_sk.datasets import load_shortcut_digits

    X, y = load_shortcut_digits(return_X_y=True)
    clf = MaskTuneClassifier(refit_epochs=2, random_state=0).fit(X, y)
    y_pred, accepted = clf.predict_with_reject(X, coverage=0.9)
    X_masked, masks = clf.mask(X)  # what was hidden

Which one:

- `MaskTuneClassifier` for a shortcut that has a place: it hides what the net found, and
  lets it look again. `OFFICIAL_MASKTUNE` holds the parameters of the official code.
- `DeNetDMClassifier` for one that is everywhere, as a colour: a shallow and a deep
  branch share the work, and a target learns from one of them.
- `RRClArCClassifier` for an artifact that you can point at in some samples: it finds
  its direction in a layer, and unlearns it.
- `RejectOptionClassifier` lets any classifier with probabilities abstain.

The way of the data, and where to look for its stages:

    X, y -> ERM training -> saliency maps -> masks -> one masked epoch -> predict

`saliency` looks at what a net found, `masking` hides it, `concepts` finds directions,
`objectives` are what else is trained with, and `rejection` compares the nets before and
after. Around them: `datasets` with a known shortcut, `metrics` by group and by
coverage, `inspection` for pictures and reports, `modules` for whoever brings no
network, `data` for samples larger than memory, and `exceptions`.
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
