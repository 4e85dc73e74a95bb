"""What a report is given, checked before anything is computed."""

from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path

import numpy as np
from sklearn.exceptions import NotFittedError
from sklearn.utils import check_random_state
from sklearn.utils.validation import _num_samples, check_is_fitted

from ..._samples import known_labels
from ...data import DatasetView, as_array
from ...metrics._intervals import check_interval
from ...metrics._scorers import find_behind
from ...rejection._certify import check_groups
from .._diagnose import ShortcutDiagnosis
from .methods import Method, find_method, unfrozen

__all__ = ["Inputs", "Parts", "check_count", "check_path", "read_inputs"]


@dataclass(frozen=True)
class Parts:
    """The samples by group, or by class.

    Attributes
    ----------
    by : {"group", "class"}
        What they are.
    names : list of str
        Their names, sorted by what they are names of.
    codes : ndarray of int, shape (n_samples,)
        The part of each sample.
    """

    by: str
    names: list
    codes: np.ndarray

    @classmethod
    def of(cls, by, values):
        """Take the parts from a value a sample."""
        values, codes = np.unique(values, return_inverse=True)
        return cls(by, [str(value) for value in values.tolist()], codes)

    @property
    def counts(self):
        """Samples in each part."""
        return np.bincount(self.codes, minlength=len(self.names))


@dataclass(frozen=True)
class Inputs:
    """What a report is given.

    Attributes
    ----------
    estimator : object
        As it is given.
    method : Method or None
        The estimator of this package inside it.
    selective : object or None
        What has the threshold and the certificate.
    X, y : object, ndarray of shape (n_samples,)
        The samples as they are given.
    view : DatasetView or None
        The samples as `method` takes them.
    groups : ndarray of shape (n_samples,) or None
        As they are given.
    parts : Parts
        By group, or else by class.
    classes : Parts
        By class.
    compare : dict of str to object
        Other classifiers.
    diagnosis : ShortcutDiagnosis, True or None
        As it is given.
    confidence : float
        Of every interval.
    random_state : int, RandomState or None
        As it is given.
    seed : int
        Drawn from it.
    """

    estimator: object
    method: Method | None
    selective: object
    X: object
    y: np.ndarray
    view: DatasetView | None
    groups: np.ndarray | None
    parts: Parts
    classes: Parts
    compare: dict
    diagnosis: object
    confidence: float
    random_state: object
    seed: int

    @property
    def n_samples(self):
        """Number of samples."""
        return len(self.y)

    @property
    def name(self):
        """Name of what the report is about, for a column."""
        if self.method is not None:
            return self.method.name
        inner = getattr(self.selective, "estimator_", self.estimator)
        return type(unfrozen(inner)).__name__


def read_inputs(
    estimator, X, y, *, groups, compare, diagnosis, confidence, random_state
):
    """Check what a report is given; see `report`."""
    if not hasattr(estimator, "predict"):
        raise TypeError(
            f"estimator must be a fitted classifier; got {type(estimator).__name__}, "
            "which has no predict."
        )
    check_is_fitted(estimator)
    if not hasattr(estimator, "classes_"):
        raise TypeError(
            f"estimator must be a fitted classifier; {type(estimator).__name__} has no "
            "classes_."
        )
    check_interval(confidence, "clopper-pearson")
    if not (diagnosis is None or diagnosis is True) and not isinstance(
        diagnosis, ShortcutDiagnosis
    ):
        raise TypeError(
            "diagnosis must be what diagnose_shortcut returns, True to run it on X and "
            f"y, or None; got {type(diagnosis).__name__}."
        )
    n_samples = _num_samples(X)
    y = known_labels(X, y, estimator.classes_)
    if not n_samples:
        raise ValueError("Found 0 sample(s) while a minimum of 1 is required.")
    if groups is not None:
        groups = check_groups(as_array(groups), n_samples)
    method, X_core = find_method(estimator, X)
    view = None
    if method is not None:
        view = X_core if isinstance(X_core, DatasetView) else DatasetView(X_core)
    selective = find_behind(estimator, X, "certificate_")
    classes = Parts.of("class", y)
    inputs = Inputs(
        estimator=estimator,
        method=method,
        selective=None if selective is None else selective[0],
        X=X,
        y=y,
        view=view,
        groups=groups,
        parts=classes if groups is None else Parts.of("group", groups),
        classes=classes,
        compare=dict(_checked(compare)),
        diagnosis=diagnosis,
        confidence=float(confidence),
        random_state=random_state,
        # A stream of our own: the data may have been drawn with the same seed.
        seed=check_random_state(random_state).randint(np.iinfo(np.int32).max),
    )
    _check_compare(inputs)
    return inputs


def check_path(path):
    """Refuse a file that can't be written, before it takes time to find out.

    Parameters
    ----------
    path : str, path or None
        Where to write.

    Returns
    -------
    path : Path or None
        The same.

    Raises
    ------
    ValueError
        If its folder does not exist, or it is a folder itself.
    """
    if path is None:
        return None
    path = Path(path)
    if path.is_dir():
        raise ValueError(
            f"path must be a file, and {str(path)!r} is a folder. Add a name to it."
        )
    if not path.parent.is_dir():
        raise ValueError(
            f"The folder of path={str(path)!r} does not exist. Make it first, or name "
            "another."
        )
    return path


def check_count(n_thumbnails):
    """Refuse a number of pictures that is none."""
    if (
        not isinstance(n_thumbnails, Integral)
        or isinstance(n_thumbnails, bool)
        or n_thumbnails < 0
    ):
        raise ValueError(
            "n_thumbnails must be a number of samples, 0 or more; got "
            f"{n_thumbnails!r}."
        )


def _checked(compare):
    """Return the classifiers to compare, by name."""
    if compare is None:
        return {}
    if not isinstance(compare, Mapping) or not all(map(_is_name, compare)):
        raise TypeError(
            'compare must be a dict of name to fitted classifier, such as {"ERM '
            f'continued": clf}}; got {type(compare).__name__}.'
        )
    return compare


def _is_name(name):
    return isinstance(name, str)


def _check_compare(inputs):
    """Refuse classifiers that can't stand beside the estimator."""
    own = {inputs.name}
    if inputs.method is not None:
        own |= set(inputs.method.earlier())
    classes = np.asarray(inputs.estimator.classes_)
    for name, classifier in inputs.compare.items():
        if name in own:
            raise ValueError(
                f"compare has the name {name!r}, which is that of a row of the "
                "estimator itself. Give it another one."
            )
        if not hasattr(classifier, "predict"):
            raise TypeError(
                f"compare[{name!r}] must be a fitted classifier; got "
                f"{type(classifier).__name__}, which has no predict."
            )
        try:
            check_is_fitted(classifier)
        except NotFittedError as error:
            raise NotFittedError(
                f"compare[{name!r}] is not fitted. Fit it first, on the samples that "
                "the estimator was fitted on."
            ) from error
        others = getattr(classifier, "classes_", None)
        if others is not None and set(np.asarray(others).tolist()) != set(
            classes.tolist()
        ):
            raise ValueError(
                f"compare[{name!r}] was fitted on the classes {others}, and the "
                f"estimator on {classes}. Compare classifiers of the same classes."
            )
