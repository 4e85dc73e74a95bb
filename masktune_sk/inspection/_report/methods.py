"""What each estimator keeps of the way from the net before to the net after."""

from abc import ABC, abstractmethod

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.utils.validation import check_is_fitted

from ...metrics._scorers import find_behind
from ...saliency import compute_maps, resolve_saliency

__all__ = ["Method", "find_method", "unfrozen"]


class Method(ABC):
    """A fitted estimator of this package, as a report looks at it.

    Attributes
    ----------
    core : BaseDebiasedClassifier
        The estimator itself.
    use, limits : str
        What it is for, and where it does not help.
    """

    use = limits = ""

    def __init__(self, core):
        self.core = core

    @property
    def name(self):
        """Name of the method, for a column."""
        return type(self.core).__name__.removesuffix("Classifier")

    #: Parameter, and its value, that make the control of the method.
    control = None

    @property
    def is_control(self):
        """Whether this is the same training without the intervention."""
        if self.control is None:
            return False
        name, value = self.control
        return getattr(self.core, name) == value

    @abstractmethod
    def earlier(self):
        """Return the nets before the intervention, by name."""

    def looks(self):
        """Return the nets whose saliency maps tell what changed, by name."""
        return self.earlier() | {self.name: self.core.net_}

    def proba(self, net, view):
        """Predict class probabilities by one of the nets."""
        return self.core._proba(net, self.core._dataset(view))

    def maps(self, net, view):
        """Compute the saliency maps of one of the nets, in its own resolution."""
        source = self.core._dataset(view).source
        X = source.batch(np.arange(min(len(source), 8)))
        saliency, layer = resolve_saliency("auto", None, net, X)
        return compute_maps(
            net, source, saliency, layer, precision=self.core.precision_
        )

    def _first_name(self):
        """Name the net of the first training."""
        frozen = isinstance(self.core.estimator, FrozenEstimator)
        return "Net as given" if frozen else "ERM"


class MaskTuneMethod(Method):
    """MaskTune: the nets before and after masking, and the masks."""

    use = (
        "Made for a shortcut that is local and can be covered: a watermark, a marker, "
        "a corner of the background, a leaking column."
    )
    limits = (
        "It does not help against a shortcut in the colour, texture or tone of the "
        "whole image, and on data without a shortcut it loses a little accuracy."
    )
    control = ("masking", "none")

    @property
    def name(self):
        """Name of the method, for a column."""
        if self.is_control:
            return "ERM continued"
        random = self.core.masking == "random"
        return "MaskTune, random masks" if random else super().name

    def earlier(self):
        """Return the net before masking."""
        return {self._first_name(): self.core.erm_net_}

    def maps(self, net, view):
        """Compute the maps by the method and the layer of the fit."""
        return self.core._maps_of(net, self.core._dataset(view).source)


class RRClArCMethod(Method):
    """RR-ClArC and its family: the nets before and after correction, the concept."""

    NAMES = {
        "rr-clarc": "RR-ClArC",
        "a-clarc": "A-ClArC",
        "p-clarc": "P-ClArC",
        "rp-clarc": "Reactive P-ClArC",
        "rrr": "RRR",
        "none": "ERM continued",
    }
    use = (
        "Made for an artifact that can be pointed at: some tens of training samples "
        "are known to show it, in a class that has samples without it too."
    )
    limits = (
        "It does not help where the artifact is all that tells a class, or where a net "
        "encodes it in many directions or before the corrected layer. A small "
        "sensitivity to the concept proves nothing by itself: the accuracy on samples "
        "that the artifact misleads does."
    )
    control = ("method", "none")

    @property
    def name(self):
        """Name of the method, for a column."""
        return self.NAMES.get(self.core.method, self.core.method)

    def earlier(self):
        """Return the uncorrected net."""
        return {self._first_name(): self.core.uncorrected_net_}


class DeNetDMMethod(Method):
    """DeNetDM: two branches, and the target that learned from one of them."""

    use = (
        "Made for a shortcut that is global and easier than the class: colour, "
        "texture, tone, the background."
    )
    limits = (
        "It works against the user where the feature that is wanted is the easier one. "
        "Which branch is the debiased one is then to be told by samples whose shortcut "
        "contradicts their class."
    )

    def earlier(self):
        """Return the branches, the one that teaches last."""
        debiased = self.core.debiased_branch_
        roles = {"deep": "biased", "shallow": "biased", debiased: "debiased"}
        names = sorted(roles, key=lambda branch: roles[branch])
        nets = {
            f"{branch.capitalize()} branch ({roles[branch]})": getattr(
                self.core, f"{branch}_net_"
            )
            for branch in names
        }
        return {name: net for name, net in nets.items() if net is not self.core.net_}


#: By what only its fitted estimators have.
METHODS = {
    "erm_net_": MaskTuneMethod,
    "uncorrected_net_": RRClArCMethod,
    "debiased_branch_": DeNetDMMethod,
}


def unfrozen(estimator):
    """Return what a frozen estimator, which looks like it, is around."""
    while isinstance(estimator, FrozenEstimator):
        estimator = estimator.estimator
    return estimator


def find_method(estimator, X):
    """Find the estimator of this package inside another one.

    Parameters
    ----------
    estimator : object
        Fitted: one of ours, or a pipeline, a search, a frozen estimator or a
        `RejectOptionClassifier` around one.
    X : object
        Samples for it.

    Returns
    -------
    method : Method or None
        None if there is no estimator of this package inside.
    X : object
        The samples as that one takes them.
    """
    while True:
        found = find_behind(estimator, X, "_proba_before")
        if found is not None:
            core, X = unfrozen(found[0]), found[1]
            check_is_fitted(core)
            kinds = [kind for name, kind in METHODS.items() if hasattr(core, name)]
            return (kinds[0](core) if kinds else None), X
        found = find_behind(estimator, X, "_labels_and_scores")
        if found is None:
            return None, X
        selective, X = found
        estimator = selective.estimator_
