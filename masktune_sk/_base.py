"""What every estimator here shares: the way in, the way out, and persistence.

validate -> encode y -> seed -> hold out -> ``_fit_stages()`` -> calibrate -> commit
"""

import warnings
from abc import ABCMeta, abstractmethod
from importlib.metadata import version
from numbers import Integral, Real

import numpy as np
import torch
from scipy.stats import binomtest
from sklearn.base import BaseEstimator, ClassifierMixin, _fit_context
from sklearn.utils import check_random_state
from sklearn.utils._param_validation import Interval, StrOptions
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from skorch import NeuralNetClassifier

from ._fit_data import PACKAGES, FitData
from ._samples import labels_of, samples_to_fit, samples_to_predict
from ._selective import SelectiveMixin
from .data import TorchView, stratified_holdout
from .exceptions import (
    AccuracyFallWarning,
    FrozenNetWarning,
    InconsistentVersionWarning,
)
from .rejection import RULES, selection_scores
from .training import (
    Processes,
    StageCache,
    finite_rows,
    fit_threads,
    has_own_split,
    predict_proba,
    resolve_net,
    resolve_precision,
    seeded,
    split_as_net,
)

__all__ = ["BaseDebiasedClassifier"]

# Share of the hold-out: what a shortcut that is hidden may well cost.
LARGE_FALL = 0.15
HOLDOUT_CAVEAT = (
    "The calibration samples are the hold-out of fit, drawn class by class. Its "
    "trainings were validated on it: if an epoch or a parameter was chosen by that, or "
    "the net had seen it before, the bounds are optimistic. calibrate(X, y) on new "
    "samples leaves no such doubt."
)


class BaseDebiasedClassifier(
    SelectiveMixin, ClassifierMixin, BaseEstimator, metaclass=ABCMeta
):
    """Base class of the estimators.

    A method writes `_fit_stages`, which returns its fitted attributes with the net that
    predicts among them as ``net_``, and what the nets before and after predict for the
    hold-out where a stage knows it; and `_proba_before`, the probabilities of the net
    before its intervention. Everything else is here, once.
    """

    _parameter_constraints = {
        "estimator": "no_validation",
        "augment": [callable, None],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "coverage": [Interval(Real, 0, 1, closed="right")],
        "rejection": [StrOptions(set(RULES))],
        "memory": "no_validation",
        "precision": [StrOptions({"float32", "bf16", "auto"})],
        "random_state": ["random_state"],
        "verbose": ["boolean", Interval(Integral, 0, None, closed="left")],
    }

    @abstractmethod
    def _fit_stages(self, data):
        """Run the stages; return fitted attributes, and probabilities or None."""

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
                (n_samples, n_channels, height, width), Dataset or DatasetView
            Vectors or images: an array or a torch tensor of any real dtype, converted
            to float32 batch by batch and not scaled, so that a memory-mapped file is
            never read whole; or a map-style torch Dataset of (x, y).
        y : array-like of shape (n_samples,), default=None
            Labels: integers, strings or booleans. None: those of the Dataset.

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
        return self._fit_and_commit(X, y)

    def _fit_and_commit(self, X, y, **known):
        """Fit, or leave nothing fitted; `known` is what else is known of each row."""
        self._forget()
        try:
            with fit_threads():
                self._calibrate_on(*self._fit(X, y, known))
                self.n_threads_ = torch.get_num_threads()
        except BaseException:
            self._forget()
            raise
        if self.verbose:
            print(self._closing_line())
        return self

    def _fit(self, X, y, known):
        cache = StageCache(self.memory, self.verbose)
        source, y = samples_to_fit(self, X, y)
        check_classification_targets(y)
        classes, labels = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes; y has one "
                f"class, {classes[0]!s}."
            )
        template, fitted = resolve_net(self.estimator, source.item_shape, len(classes))
        if fitted is not None:
            self._check_frozen(fitted, classes)
        source = source.labelled(labels.astype(np.int64))
        # A stream of our own: the data may have been drawn with the same seed.
        seed = check_random_state(self.random_state).randint(np.iinfo(np.int32).max)
        processes = Processes.of(template)
        seed = processes.agree(seed)
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
            precision=resolve_precision(self.precision, template.device or "cpu"),
            processes=processes,
            cache=cache,
            repeatable=self.random_state is not None,
            augment=self.augment,
            verbose=self.verbose,
            known={name: value[rows] for name, value in known.items()},
            classes=classes,
        )
        if processes.size > 1:
            processes.check_same(_digest(data), "samples")
        fitted_attributes, holdout_proba = self._fit_stages(data)
        self.classes_ = classes
        self.input_shape_ = source.item_shape
        self.precision_ = data.precision
        for name, value in fitted_attributes.items():
            if isinstance(value, NeuralNetClassifier):
                # What skorch would note in a fit of its own.
                value.classes_inferred_ = np.arange(len(classes))
            setattr(self, name, value)
        return holdout, holdout_proba

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
                stacklevel=6,
            )

    def _forget(self):
        """Remove every fitted attribute."""
        for name in [n for n in vars(self) if n.endswith("_") and n[0] != "_"]:
            delattr(self, name)

    def __sklearn_is_fitted__(self):
        return hasattr(self, "net_")

    # ------------------------------------------------------------------ input

    def _dataset(self, X):
        """Check that the estimator is fitted, and make X a dataset for its nets."""
        check_is_fitted(self)
        return TorchView(samples_to_predict(self, X))

    def _proba(self, net, dataset):
        return finite_rows(predict_proba(net, dataset, self.precision_))

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

    def score(self, X, y=None, sample_weight=None):
        """Return the accuracy of `predict`.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples.
        y : array-like of shape (n_samples,), default=None
            Their labels; None: those of the Dataset.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights.

        Returns
        -------
        accuracy : float
            Share of right labels.
        """
        return super().score(X, labels_of(X, y), sample_weight)

    # ------------------------------------------------------------------ reject

    def _labels_and_scores(self, X):
        dataset = self._dataset(X)
        after = self._proba(self.net_, dataset)
        before = self._proba_before(dataset)
        scores = selection_scores(before, after, self.rejection)
        return self.classes_[after.argmax(axis=1)], scores

    def _calibrate_on(self, holdout, known):
        """Calibrate on the hold-out, and note the accuracy of both nets there."""
        before, after = known
        self.holdout_accuracy_ = None
        if holdout is None:
            self._uncalibrated()
            return
        # The validation passes of the trainings have been over these samples.
        if before is None:
            before = self._proba_before(TorchView(holdout))
        if after is None:
            after = self._proba(self.net_, TorchView(holdout))
        before, after = finite_rows(before), finite_rows(after)
        self._calibrate_with(
            selection_scores(before, after, self.rejection),
            after.argmax(axis=1) != holdout.labels,
            coverage=self.coverage,
            caveats=(HOLDOUT_CAVEAT,),
        )
        right = [proba.argmax(axis=1) == holdout.labels for proba in (before, after)]
        self.holdout_accuracy_ = {
            name: float(of_net.mean())
            for name, of_net in zip(("before", "after"), right, strict=True)
        }
        self._warn_of_a_fall(*right)

    def _warn_of_a_fall(self, before, after):
        """Warn if the intervention cost much of the accuracy, and not by chance."""
        n_lost, n_won = (before & ~after).sum(), (~before & after).sum()
        if n_lost - n_won < LARGE_FALL * len(before):
            return
        if binomtest(n_lost, n_lost + n_won, alternative="greater").pvalue > 0.01:
            return
        warnings.warn(
            f"Accuracy on the hold-out fell from {before.mean():.2f} to "
            f"{after.mean():.2f}. Where a shortcut held it up a part of that is meant. "
            "But on few samples a refit is few steps, and may end anywhere: try more "
            "refit_epochs (2 or 3), a smaller refit_lr, or hide less.",
            AccuracyFallWarning,
            stacklevel=6,
        )

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


def _digest(data):
    """Hash the labels, and a few of the samples."""
    return data.train.labels.tobytes(), data.probe().fingerprint()
