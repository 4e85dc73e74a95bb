"""What every estimator here shares: the way in, the way out, and persistence.

validate -> encode y -> seed -> hold out -> ``_fit_stages()`` -> calibrate -> commit
"""

import warnings
from abc import ABCMeta, abstractmethod
from dataclasses import dataclass
from importlib.metadata import version
from numbers import Integral, Real

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from .data import (
    ArraySource,
    Source,
    TorchView,
    as_array,
    check_samples,
    stratified_holdout,
)
from .exceptions import FrozenNetWarning, InconsistentVersionWarning, NonFiniteError
from .rejection import RULES, coverage_threshold, selection_scores
from .training import (
    has_own_split,
    predict_proba,
    resolve_net,
    seeded,
    split_as_net,
)

__all__ = ["BaseDebiasedClassifier", "FitData"]

PACKAGES = ("masktune_sk", "torch", "skorch", "scikit-learn")


@dataclass
class FitData:
    """What the stages of one fit work on.

    Attributes
    ----------
    template : skorch.NeuralNetClassifier
        Unfitted; every net of the fit is a clone of it.
    fitted : skorch.NeuralNetClassifier or None
        A frozen net that stands for the first training; to be read only.
    train : Source
        Rows to train on.
    rows : ndarray of int
        Which rows of X these are.
    valid : Source, torch Dataset or None
        For skorch's validation set.
    n_classes : int
        Number of classes.
    random : RandomState
        Draws the seed of each stage.
    """

    template: object
    fitted: object
    train: Source
    rows: np.ndarray
    valid: object
    n_classes: int
    random: np.random.RandomState

    def seed(self):
        """Draw the seed of a stage."""
        return int(self.random.randint(np.iinfo(np.int32).max))

    def probe(self):
        """Return a few rows, spread over the training rows."""
        n = len(self.train)
        return self.train.take(np.unique(np.linspace(0, n - 1, 8).astype(int)))


class BaseDebiasedClassifier(ClassifierMixin, BaseEstimator, metaclass=ABCMeta):
    """Base class of the estimators.

    A method writes `_fit_stages`, which returns its fitted attributes with the net that
    predicts among them as ``net_``, and `_proba_before`, the probabilities of the net
    before its intervention. Everything else is here, once.
    """

    _parameter_constraints = {
        "estimator": "no_validation",
        "augment": [callable, None],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "coverage": [Interval(Real, 0, 1, closed="right")],
        "rejection": [StrOptions(set(RULES))],
        "random_state": ["random_state"],
        "verbose": ["boolean", Interval(Integral, 0, None, closed="left")],
    }

    @abstractmethod
    def _fit_stages(self, data):
        """Run the method's stages; return its fitted attributes as a dict."""

    @abstractmethod
    def _proba_before(self, dataset):
        """Return the probabilities of the net before the intervention."""

    # ------------------------------------------------------------------ fit

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None):
        """Fit the estimator.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features) or \
                (n_samples, n_channels, height, width)
            Vectors or images, an array or a torch tensor of any real dtype; it is
            converted to float32 batch by batch and not scaled.
        y : array-like of shape (n_samples,)
            Labels: integers, strings or booleans.

        Returns
        -------
        self : object
            The fitted estimator.

        Raises
        ------
        ValueError
            If the parameters, X or y are not what they should be; before any training.
        NonFiniteError
            If a loss becomes NaN or infinite; it says where.
        """
        self._forget()
        try:
            holdout = self._fit(X, y)
            self._calibrate_on(holdout)
        except BaseException:
            self._forget()
            raise
        if self.verbose:
            print(self._closing_line())
        return self

    def _fit(self, X, y):
        X, y = self._validate_X(X, y=y, reset=True)
        check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes; y has one "
                f"class, {classes[0]!s}."
            )
        template, fitted = resolve_net(self.estimator, X.shape[1:], len(classes))
        if fitted is not None:
            self._check_frozen(fitted, classes)
        source = ArraySource(X, labels.astype(np.int64))
        # A stream of our own: the data may have been drawn with the same seed.
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        random = np.random.RandomState(seed)
        rows, valid, holdout = self._hold_out(source, template, fitted, classes, random)
        data = FitData(
            template=template,
            fitted=fitted,
            train=source.take(rows),
            rows=rows,
            valid=valid,
            n_classes=len(classes),
            random=random,
        )
        fitted_attributes = self._fit_stages(data)
        self.classes_ = classes
        self.input_shape_ = tuple(X.shape[1:])
        for name, value in fitted_attributes.items():
            setattr(self, name, value)
        return holdout

    def _hold_out(self, source, template, fitted, classes, random):
        """Choose the rows to train on, the validation set, and the hold-out."""
        own_split = fitted is None and has_own_split(template)
        if own_split and self.validation_fraction > 0:
            raise ValueError(
                "The estimator has a train_split of its own, and "
                f"validation_fraction={self.validation_fraction} asks for a hold-out "
                "too. Set validation_fraction=0 to use the train_split, or the net's "
                "train_split=None to use the hold-out."
            )
        if own_split:
            with seeded(random.randint(np.iinfo(np.int32).max)):
                rows, valid = split_as_net(template, source)
            return rows, valid, None
        rows, held = stratified_holdout(
            source.labels, self.validation_fraction, random, classes=classes
        )
        if not len(held):
            return rows, None, None
        holdout = source.take(held)
        return rows, holdout, holdout

    def _check_frozen(self, fitted, classes):
        """Refuse a frozen net of other classes; warn that it has seen the rows."""
        known = getattr(fitted, "classes_", None)
        if known is not None and len(known) != len(classes):
            raise ValueError(
                f"The frozen net was trained for {len(known)} classes ({known}), and y "
                f"has {len(classes)} ({classes}). Pass samples of the same classes."
            )
        if self.validation_fraction > 0:
            warnings.warn(
                "The frozen net may have been trained on the rows that are held out "
                "here, so the reject threshold and the hold-out accuracy are "
                "optimistic; under cross-validation its scores are too. Set "
                "validation_fraction=0 to silence this, and calibrate() on data that "
                "neither net has seen.",
                FrozenNetWarning,
                stacklevel=5,
            )

    def _forget(self):
        """Remove every fitted attribute."""
        for name in [n for n in vars(self) if n.endswith("_") and n[0] != "_"]:
            delattr(self, name)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "net_")

    # ------------------------------------------------------------------ input

    def _validate_X(self, X, *, y=None, reset=False):
        """Return X (and y, at fit) as arrays, of the right shape and finite."""
        X = as_array(X)
        if reset:
            X, y = validate_data(self, X, as_array(y), allow_nd=True)
            check_samples(X)
            return X, y
        X = validate_data(self, X, reset=False, allow_nd=True)
        check_samples(X)
        if X.shape[1:] != self.input_shape_:
            raise ValueError(
                f"X holds samples of shape {X.shape[1:]}, but "
                f"{type(self).__name__} was fitted on {self.input_shape_}. Resize them."
            )
        return X

    def _dataset(self, X):
        """Check that the estimator is fitted, and make X a dataset for its nets."""
        check_is_fitted(self)
        return TorchView(ArraySource(self._validate_X(X)))

    def _proba(self, net, dataset):
        proba = predict_proba(net, dataset)
        if not np.isfinite(proba).all():
            raise NonFiniteError(
                f"{(~np.isfinite(proba).all(axis=1)).sum()} of {len(proba)} rows of "
                "probabilities are NaN or infinite. Is X scaled as the training data?"
            )
        return proba

    # ------------------------------------------------------------------ predict

    def predict_proba(self, X):
        """Predict class probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes), float32
            Probabilities by the net after the intervention, in the order of `classes_`.
        """
        dataset = self._dataset(X)
        return self._proba(self.net_, dataset)

    def predict(self, X):
        """Predict labels.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples.

        Returns
        -------
        y_pred : ndarray of shape (n_samples,)
            The most probable label of each sample.
        """
        proba = self.predict_proba(X)
        return self.classes_[proba.argmax(axis=1)]

    # ------------------------------------------------------------------ reject

    def _scores(self, dataset):
        """Return predicted label indices and selection scores."""
        after = self._proba(self.net_, dataset)
        before = self._proba_before(dataset)
        return before, after, selection_scores(before, after, self.rejection)

    def selection_score(self, X):
        """Score how willing the estimator is to predict each sample.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples.

        Returns
        -------
        scores : ndarray of shape (n_samples,), float64
            Larger = more willing; what it is depends on `rejection`.
        """
        dataset = self._dataset(X)
        return self._scores(dataset)[2]

    def predict_with_reject(self, X, *, coverage=None, threshold=None):
        """Predict labels, and say which of them to rely on.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples.
        coverage : float in (0, 1], default=None
            Share of samples to accept. The threshold is the one that accepted this
            share of the calibration samples, so the share of X may be another; 1
            accepts everything. None: `reject_threshold_`.
        threshold : float, default=None
            Accept ``selection_score(X) >= threshold``, in place of a coverage.

        Returns
        -------
        y_pred : ndarray of shape (n_samples,)
            The labels of `predict`, for every sample.
        accepted : ndarray of bool, shape (n_samples,)
            True = rely on it.

        Raises
        ------
        ValueError
            If both are given, or neither and nothing was calibrated.
        """
        dataset = self._dataset(X)
        if coverage is not None and threshold is not None:
            raise ValueError(
                f"Give coverage or threshold, not both; got coverage={coverage} and "
                f"threshold={threshold}."
            )
        if coverage is not None:
            threshold = self._threshold_for(coverage)
        elif threshold is None:
            threshold = self.reject_threshold_
        if threshold is None or np.isnan(threshold):
            raise ValueError(
                f"No reject threshold: threshold={threshold}, and nothing was held out "
                "to calibrate one (validation_fraction=0). Pass a threshold, or call "
                "calibrate(X, y) with samples that fit has not seen."
            )
        _, after, scores = self._scores(dataset)
        return self.classes_[after.argmax(axis=1)], scores >= threshold

    def calibrate(self, X, y, *, coverage=None):
        """Set the reject threshold on samples that fit has not seen.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples; they replace the hold-out for every later coverage.
        y : array-like of shape (n_samples,)
            Their labels.
        coverage : float in (0, 1], default=None
            Share to accept; None: the parameter `coverage`.

        Returns
        -------
        self : object
            The estimator, with another `reject_threshold_`.

        Raises
        ------
        ValueError
            If y has labels that fit did not see, or another length than X.
        """
        dataset = self._dataset(X)
        y = np.asarray(as_array(y))
        if y.shape != (len(dataset),):
            raise ValueError(
                f"y must have shape ({len(dataset)},), one label a row of X; got "
                f"{y.shape}."
            )
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(
                f"y has labels that fit did not see: {unknown}. Known are "
                f"{self.classes_}."
            )
        if coverage is not None:
            _check_coverage(coverage)
        self.calibration_scores_ = self._scores(dataset)[2]
        self.reject_threshold_ = self._threshold_for(
            self.coverage if coverage is None else coverage
        )
        return self

    def _calibrate_on(self, holdout):
        """Calibrate on the hold-out, and note the accuracy of both nets there."""
        self.calibration_scores_ = self.reject_threshold_ = None
        self.holdout_accuracy_ = None
        if self.coverage == 1:
            self.reject_threshold_ = -np.inf
        if holdout is None:
            return
        before, after, self.calibration_scores_ = self._scores(TorchView(holdout))
        self.reject_threshold_ = self._threshold_for(self.coverage)
        self.holdout_accuracy_ = {
            name: float((proba.argmax(axis=1) == holdout.labels).mean())
            for name, proba in (("before", before), ("after", after))
        }

    def _threshold_for(self, coverage):
        _check_coverage(coverage)
        if coverage == 1:
            return -np.inf
        if self.calibration_scores_ is None:
            raise ValueError(
                f"coverage={coverage} needs calibration samples, and nothing was held "
                "out (validation_fraction=0). Pass a threshold, or call "
                "calibrate(X, y) with samples that fit has not seen."
            )
        return coverage_threshold(self.calibration_scores_, coverage)

    def _closing_line(self):
        """Say in one line what the fit did."""
        if self.holdout_accuracy_ is None:
            return f"{type(self).__name__}: nothing held out, no accuracy to report."
        return (
            f"{type(self).__name__}: hold-out accuracy "
            f"{self.holdout_accuracy_['before']:.3f} before, "
            f"{self.holdout_accuracy_['after']:.3f} after."
        )

    # ------------------------------------------------------------------ persistence

    def __getstate__(self):
        state = dict(super().__getstate__())
        if "net_" in state:
            state["_versions"] = {name: version(name) for name in PACKAGES}
        return state

    def __setstate__(self, state):
        state = dict(state)
        then = state.pop("_versions", {})
        changed = {
            name: (old, now)
            for name, old in then.items()
            if old != (now := version(name))
        }
        if changed:
            warnings.warn(
                InconsistentVersionWarning(
                    estimator_name=type(self).__name__, changed=changed
                ),
                stacklevel=2,
            )
        super().__setstate__(state)


def _check_coverage(coverage):
    if not (isinstance(coverage, Real) and 0 < coverage <= 1):
        raise ValueError(f"coverage must be in (0, 1], got {coverage!r}.")
