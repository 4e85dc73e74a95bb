"""What a classifier that may abstain has: scores, thresholds, certificates."""

from abc import abstractmethod
from dataclasses import replace

import numpy as np
from sklearn.utils.validation import _num_samples, check_is_fitted

from ._samples import known_labels
from .data import as_array
from .rejection import certify, coverage_threshold
from .rejection._certify import check_coverage, check_groups, check_target

__all__ = ["SelectiveMixin"]


class SelectiveMixin:
    """Methods of a classifier that may abstain.

    A class writes `predict_proba` and `_labels_and_scores`, has a parameter `coverage`
    and an attribute `classes_`, and calls `_calibrate_with` or `_uncalibrated` at the
    end of `fit`.
    """

    @abstractmethod
    def _labels_and_scores(self, X):
        """Return the predicted labels and the selection scores of samples."""

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
        return self._labels_and_scores(X)[1]

    def predict_with_reject(self, X, *, coverage=None, threshold=None, groups=None):
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
        groups : array-like of shape (n_samples,), default=None
            The group of each sample, after ``calibrate(..., per_group=True)``: its
            threshold decides.

        Returns
        -------
        y_pred : ndarray of shape (n_samples,)
            The labels of `predict`, for every sample.
        accepted : ndarray of bool, shape (n_samples,)
            True = rely on it.

        Raises
        ------
        ValueError
            If more than one of these is given, if nothing was calibrated, or if the
            groups are not those that thresholds were calibrated for.
        """
        check_is_fitted(self)
        threshold = self._threshold_of(X, coverage, threshold, groups)
        labels, scores = self._labels_and_scores(X)
        return labels, scores >= threshold

    def calibrate(
        self,
        X,
        y=None,
        *,
        coverage=None,
        max_risk=None,
        confidence=0.95,
        groups=None,
        per_group=False,
    ):
        """Set the reject threshold on samples that fit has not seen.

        `certificate_` says what that guarantees for other samples.

        Parameters
        ----------
        X : array-like of shape (n_samples, ...)
            Samples; they replace the hold-out for every later coverage.
        y : array-like of shape (n_samples,), default=None
            Their labels; None: those of the Dataset.
        coverage : float in (0, 1], default=None
            Share to accept, of every group where there are some; None, without a
            `max_risk`: the parameter `coverage`.
        max_risk : float in (0, 1), default=None
            Largest probability that an accepted sample gets a wrong label. The
            threshold is the smallest that is certified to keep it.
        confidence : float in (0, 1), default=0.95
            Probability, over calibration samples, that the certificate is true.
        groups : array-like of shape (n_samples,), default=None
            The group of each sample, all strings or all integers, such as class x
            bias. Each is certified, and all of them together: the confidence is split,
            so that each group needs more samples.
        per_group : bool, default=False
            Choose a threshold for each group, which `predict_with_reject` takes with
            its `groups`; False: one that serves them all.

        Returns
        -------
        self : object
            The estimator, with other `reject_threshold_`, `calibration_scores_` and
            `certificate_`.

        Raises
        ------
        ValueError
            If y has labels that fit did not see, or another length than X; if there
            are fewer than 2 samples; if a target is out of range, or both are given; if
            the groups do not go with X, or are missing; or if `max_risk` cannot be
            certified: the message says what could be, and about how many samples would
            do. The estimator is then as it was.

        Notes
        -----
        The guarantee needs samples that are drawn as those to come are, and that
        nothing has seen: no training, no early stopping, no choice of a parameter.
        Samples that were trained on cannot be detected; they void it without a word.
        So does calibrating again and again until a target is met. See
        `masktune_sk.rejection.certify` for how it is found.
        """
        check_is_fitted(self)
        y = known_labels(X, y, self.classes_)
        check_target(coverage, max_risk, confidence, groups, per_group)
        if coverage is None and max_risk is None:
            coverage = self.coverage
        if groups is not None:
            groups = check_groups(as_array(groups), len(y))
        labels, scores = self._labels_and_scores(X)
        self._calibrate_with(
            scores,
            labels != y,
            coverage=coverage,
            max_risk=max_risk,
            confidence=confidence,
            groups=groups,
            per_group=per_group,
        )
        return self

    def _calibrate_with(self, scores, errors, *, caveats=(), **target):
        """Choose a threshold; change nothing if there is none."""
        certificate = certify(scores, errors, **target)
        self.calibration_scores_ = scores
        self.reject_threshold_ = certificate.threshold
        self.certificate_ = replace(
            certificate, assumptions=certificate.assumptions + caveats
        )

    def _uncalibrated(self):
        """Note that there are no calibration samples."""
        self.calibration_scores_ = self.certificate_ = None
        self.reject_threshold_ = -np.inf if self.coverage == 1 else None

    def _threshold_of(self, X, coverage, threshold, groups):
        """Return what decides: one threshold, or one for each sample."""
        given = {"coverage": coverage, "threshold": threshold, "groups": groups}
        given = [name for name, value in given.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"Give {' or '.join(given)}, not both.")
        if coverage is not None:
            return self._threshold_for(coverage)
        if threshold is None:
            threshold = self.reject_threshold_
        if isinstance(threshold, dict):
            return _threshold_by_group(threshold, X, groups)
        if groups is not None:
            raise ValueError(
                "groups are for thresholds by group, and this one is for all samples. "
                "Leave them out, or calibrate(..., per_group=True)."
            )
        if threshold is None or np.isnan(threshold):
            raise ValueError(
                f"No reject threshold: threshold={threshold}, and nothing was held out "
                "to calibrate one (validation_fraction=0). Pass a threshold, or call "
                "calibrate(X, y) with samples that fit has not seen."
            )
        return threshold

    def _threshold_for(self, coverage):
        check_coverage(coverage)
        if coverage == 1:
            return -np.inf
        if self.calibration_scores_ is None:
            raise ValueError(
                f"coverage={coverage} needs calibration samples, and nothing was held "
                "out (validation_fraction=0). Pass a threshold, or call "
                "calibrate(X, y) with samples that fit has not seen."
            )
        return coverage_threshold(self.calibration_scores_, coverage)


def _threshold_by_group(thresholds, X, groups):
    """Look up the threshold of each sample."""
    if groups is None:
        raise ValueError(
            f"Thresholds were calibrated by group, for {list(thresholds)}. Pass "
            "groups, the group of each sample; or coverage or threshold, for all."
        )
    names, codes = np.unique(
        check_groups(as_array(groups), _num_samples(X)), return_inverse=True
    )
    unknown = [name for name in names.tolist() if name not in thresholds]
    if unknown:
        raise ValueError(
            f"No threshold was calibrated for the groups {unknown}; there are those of "
            f"{list(thresholds)}. Calibrate with samples of every group."
        )
    return np.array([thresholds[name] for name in names.tolist()])[codes]
