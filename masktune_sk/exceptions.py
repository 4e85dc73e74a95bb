"""Errors and warnings that callers may want to tell apart."""

from sklearn.exceptions import InconsistentVersionWarning as _SklearnVersionWarning

__all__ = [
    "AccuracyFallWarning",
    "ConceptWarning",
    "DepthGapWarning",
    "EmptyMaskWarning",
    "FrozenNetWarning",
    "InconsistentVersionWarning",
    "NonFiniteError",
    "RandomDatasetWarning",
    "RolesUndecidedWarning",
    "SharedCoresWarning",
    "StageCacheWarning",
    "StarvedBranchWarning",
    "StepSizeWarning",
    "TargetLayerError",
]


class NonFiniteError(ArithmeticError):
    """A loss, a probability or a saliency map became NaN or infinite."""


class TargetLayerError(ValueError):
    """The layer to explain does not exist, never runs, or has no spatial output."""


class AccuracyFallWarning(UserWarning):
    """The net after the intervention is much worse on the hold-out than before."""


class ConceptWarning(UserWarning):
    """The direction of a concept means little, or means the class as well."""


class DepthGapWarning(UserWarning):
    """The deep branch is hardly deeper than the shallow one."""


class FrozenNetWarning(UserWarning):
    """A frozen net has seen rows that are about to be used as if it had not."""


class EmptyMaskWarning(UserWarning):
    """The masks of most samples hide nothing, so the refit learns nothing new."""


class RandomDatasetWarning(UserWarning):
    """A dataset gives another sample each time the same one is read."""


class SharedCoresWarning(UserWarning):
    """Other processes use the cores, and training goes on with one thread."""


class StageCacheWarning(UserWarning):
    """An entry of the stage cache is damaged, or nothing can be stored."""


class RolesUndecidedWarning(UserWarning):
    """It is a guess which of two branches took the shortcut."""


class StarvedBranchWarning(UserWarning):
    """One of two branches learned nothing, so the other one is plain ERM."""


class StepSizeWarning(UserWarning):
    """A learning rate was reduced, because a penalty would make it unstable."""


class InconsistentVersionWarning(_SklearnVersionWarning):
    """An estimator is unpickled with other versions than it was pickled with.

    Parameters
    ----------
    estimator_name : str
        Class name of the estimator.
    changed : dict of str to (str, str)
        For each package whose version differs: the version then and now.
    """

    def __init__(self, *, estimator_name, changed):
        self.estimator_name = estimator_name
        self.changed = changed

    def __str__(self):
        packages = ", ".join(
            f"{name} {then} (now {now})" for name, (then, now) in self.changed.items()
        )
        return (
            f"This {self.estimator_name} was pickled with {packages}. Its predictions "
            "may differ or fail; fit it again, or install the versions it was made "
            "with."
        )
