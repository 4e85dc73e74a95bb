"""Abstention for any classifier of scikit-learn's kind."""

from dataclasses import replace
from numbers import Real

import numpy as np
from sklearn.base import (
    BaseEstimator,
    ClassifierMixin,
    MetaEstimatorMixin,
    _fit_context,
    clone,
)
from sklearn.frozen import FrozenEstimator
from sklearn.utils import (
    _safe_indexing,
    assert_all_finite,
    check_random_state,
    column_or_1d,
    get_tags,
)
from sklearn.utils._param_validation import HasMethods, Interval, StrOptions
from sklearn.utils.metadata_routing import (
    MetadataRouter,
    MethodMapping,
    _raise_for_params,
    process_routing,
)
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _check_method_params, check_is_fitted, indexable

from ._selective import SelectiveMixin
from .data import stratified_holdout
from .rejection import CONFIDENCE_RULES, confidence_scores

__all__ = ["RejectOptionClassifier"]

HOLDOUT_CAVEAT = (
    "The calibration samples are the hold-out of fit, drawn class by class."
)


class RejectOptionClassifier(
    SelectiveMixin, ClassifierMixin, MetaEstimatorMixin, BaseEstimator
):
    """Classifier that may abstain, around any other with probabilities.

    `fit` trains a clone of `estimator` on a part of the samples, and calibrates the
    threshold of `predict_with_reject` on the rest [1]_. `calibrate` does that on
    samples of your own, for a share to accept or for a risk to keep, and `certificate_`
    says what is guaranteed.

    Parameters
    ----------
    estimator : object
        A classifier with `fit` and `predict_proba`. It is cloned and never touched. A
        ``FrozenEstimator(fitted)`` is taken as it is, and every sample given to `fit`
        then calibrates; they must be samples that it has not seen.
    rejection : {"probability", "margin", "entropy"}, default="probability"
        The selection score, see `masktune_sk.rejection.confidence_scores`.
    coverage : float in (0, 1], default=0.9
        Share of samples that `predict_with_reject` accepts, by default.
    validation_fraction : float in [0, 1), default=0.2
        Share of each class that is held out to calibrate, at least one sample. With 0
        everything is trained on, and `calibrate` has to be called. Of no account for a
        frozen estimator.
    random_state : int, RandomState or None, default=None
        Draws the hold-out. The estimator has a `random_state` of its own.

    Attributes
    ----------
    estimator_ : object
        The fitted classifier.
    classes_ : ndarray of shape (n_classes,)
        Its labels.
    n_features_in_ : int
        Its number of features, if it has one.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Its names of columns, if it has them.
    calibration_scores_ : ndarray of shape (n_calibration,) or None
        Selection scores of the samples that calibrated.
    reject_threshold_ : float, dict of float, or None
        Samples with this selection score or more are accepted; after
        ``calibrate(..., per_group=True)`` one for each group.
    certificate_ : masktune_sk.rejection.Certificate or None
        What the threshold guarantees.

    See Also
    --------
    MaskTuneClassifier : Abstains where nets before and after a correction disagree.

    Notes
    -----
    X goes to the estimator as it is: data frames, sparse matrices, images or lists, as
    long as rows can be taken. What else `fit` is given, such as `sample_weight`, goes
    there by metadata routing, rows taken alike. Weights do not count in calibration.

    Labels are the most probable ones, also of an estimator whose own `predict` may give
    others, such as one with a decision threshold.

    References
    ----------
    .. [1] Geifman, El-Yaniv, "Selective Classification for Deep Neural Networks",
       NeurIPS 2017.

    Examples
    --------
    >>> from masktune_sk import RejectOptionClassifier
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.ensemble import RandomForestClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> clf = RejectOptionClassifier(RandomForestClassifier(random_state=0))
    >>> clf = clf.set_params(validation_fraction=0).fit(X[:700], y[:700])
    >>> clf = clf.calibrate(X[700:1200], y[700:1200], max_risk=0.05)
    >>> y_pred, accepted = clf.predict_with_reject(X[1200:])
    >>> bool((y_pred != y[1200:])[accepted].mean() < 0.05)
    True
    >>> print(clf.certificate_)  # doctest: +ELLIPSIS
    Target: risk at most 0.05.
    ...
    """

    _parameter_constraints = {
        "estimator": [HasMethods(["fit", "predict_proba"])],
        "rejection": [StrOptions(set(CONFIDENCE_RULES))],
        "coverage": [Interval(Real, 0, 1, closed="right")],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        estimator,
        *,
        rejection="probability",
        coverage=0.9,
        validation_fraction=0.2,
        random_state=None,
    ):
        self.estimator = estimator
        self.rejection = rejection
        self.coverage = coverage
        self.validation_fraction = validation_fraction
        self.random_state = random_state

    # The estimator inside is checked by its own fit.
    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y=None, **params):
        """Fit the estimator and calibrate.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples, as the estimator takes them.
        y : array-like of shape (n_samples,)
            Labels: integers, strings or booleans.
        **params : dict
            What the estimator's `fit` is to be given, such as `sample_weight`; with
            metadata routing enabled, and requested of the estimator.

        Returns
        -------
        self : object
            The fitted classifier.

        Raises
        ------
        ValueError
            If the parameters or labels are not what they should be, or if the estimator
            says so.
        """
        _raise_for_params(params, self, None)
        if y is None:
            raise ValueError(
                f"{type(self).__name__} requires y to be passed, but the target y is "
                "None."
            )
        X, y = indexable(X, y)
        y = column_or_1d(y, warn=True)
        if not len(y):
            raise ValueError("Found 0 sample(s) while a minimum of 1 is required.")
        if y.dtype.kind in ("f", "O"):
            assert_all_finite(y, input_name="y")
        check_classification_targets(y)
        train, held = self._split(y)
        X_train, y_train = X, y
        routed = process_routing(self, "fit", **params).estimator.fit
        if len(held):
            X_train, y_train = _safe_indexing(X, train), y[train]
            routed = _check_method_params(X, routed, indices=train)
        self.estimator_ = clone(self.estimator).fit(X_train, y_train, **routed)
        self.classes_ = np.asarray(self.estimator_.classes_)
        self._uncalibrated()
        if isinstance(self.estimator, FrozenEstimator):
            return self.calibrate(X, y)
        if len(held):
            labels, scores = self._labels_and_scores(_safe_indexing(X, held))
            self._calibrate_with(
                scores,
                labels != y[held],
                coverage=self.coverage,
                caveats=(HOLDOUT_CAVEAT,),
            )
        return self

    def _split(self, y):
        """Return rows to train on and rows to hold out; none for a frozen estimator."""
        if isinstance(self.estimator, FrozenEstimator):
            return np.arange(len(y)), np.arange(0)
        classes, labels = np.unique(y, return_inverse=True)
        if len(classes) < 2:
            raise ValueError(
                f"{type(self).__name__} needs samples of at least 2 classes; y has one "
                f"class, {classes[0]!s}."
            )
        random_state = check_random_state(self.random_state)
        return stratified_holdout(
            labels, self.validation_fraction, random_state, classes=classes
        )

    @property
    def n_features_in_(self):
        """Number of features that the estimator was fitted with.

        Returns
        -------
        n_features : int
            Of images, the number of channels.
        """
        return self.estimator_.n_features_in_

    @property
    def feature_names_in_(self):
        """Names of the columns that the estimator was fitted with.

        Returns
        -------
        names : ndarray of shape (n_features_in_,)
            Only if X was a data frame with names.
        """
        return self.estimator_.feature_names_in_

    def predict_proba(self, X):
        """Predict class probabilities.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples.

        Returns
        -------
        proba : ndarray of shape (n_samples, n_classes)
            Probabilities by the estimator, in the order of `classes_`.
        """
        check_is_fitted(self)
        return self.estimator_.predict_proba(X)

    def _labels_and_scores(self, X):
        proba = self.predict_proba(X)
        scores = confidence_scores(proba, self.rejection)
        return self.classes_[proba.argmax(axis=1)], scores

    def get_metadata_routing(self):
        """Return how metadata is routed.

        Returns
        -------
        routing : MetadataRouter
            What goes to the `fit` of the estimator.
        """
        return (
            MetadataRouter(owner=type(self).__name__)
            .add_self_request(self)
            .add(
                estimator=self.estimator,
                method_mapping=MethodMapping().add(caller="fit", callee="fit"),
            )
        )

    def __sklearn_tags__(self):
        tags, inner = super().__sklearn_tags__(), get_tags(self.estimator)
        # A kernel matrix would have to be split by columns too.
        tags.input_tags = replace(inner.input_tags, pairwise=False)
        if inner.classifier_tags is not None:
            tags.classifier_tags = replace(inner.classifier_tags, multi_label=False)
        return tags
