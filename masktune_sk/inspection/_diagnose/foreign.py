"""Whether what predicts y is a part of the object, or foreign to it."""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.kernel_ridge import KernelRidge
from sklearn.metrics import balanced_accuracy_score, r2_score, roc_auc_score

from .alone import out_of_fold
from .probes import varying
from .samples import draw_rows

__all__ = ["Standing", "examine", "margin_spread"]

#: Samples that the rest is learned from, by kernel ridge regression.
MOST_ROWS = 500
PENALTIES = (0.1, 1.0, 10.0)
#: Standard errors from an estimate to its one-sided 95 % bound.
Z = 1.645


@dataclass(frozen=True)
class Standing:
    """How a probe stands to the rest of the samples.

    Attributes
    ----------
    tie : float
        Share of the probe's variance within the classes that the rest explains, by
        cross-validation; 0 or less: nothing.
    error_confidence : float
        Probability that a right prediction of the probe is surer than a wrong one of
        the same class. About 0.5: wrong samples look just as those of the other class
        do. NaN: no errors.
    confidence_error : float
        Its standard error. Infinite without errors.
    rest : float
        Balanced accuracy of the rest, without the probe.
    spread : float
        How far margins spread within a class, from the 15th to the 85th percentile,
        by how far classes are apart: 0.5 of two normal distributions where 98 % are
        right, next to 0 of a sign that is there or not.
    """

    tie: float = np.nan
    error_confidence: float = np.nan
    confidence_error: float = np.nan
    rest: float = np.nan
    spread: float = np.nan


def examine(probe, rest, y, folds, random, *, most_confidence, most_tie):
    """Find out how a probe stands to the rest.

    Parameters
    ----------
    probe : Probe
        One that predicts y well.
    rest : Rest
        Of the same samples.
    y : ndarray of int, shape (n_samples,)
        Encoded labels.
    folds : ndarray of int, shape (n_samples,)
        The fold that each sample is tested in.
    random : RandomState
        Draws the rows that the rest is learned from.
    most_confidence : float
        If the confidence of its errors surely is above this, the probe is a part of the
        object whatever the rest says, and the rest is not looked at.
    most_tie : float
        Above this tie it is one too, and looking ends: the tie is that or more.

    Returns
    -------
    standing : Standing
        With NaN for what was not looked at.
    """
    n_classes = y.max() + 1
    closeness = out_of_fold(probe.features, y, folds)
    confidence, error = _error_confidence(closeness, y)
    spread = margin_spread(closeness, y, folds)
    seen = {
        "error_confidence": confidence,
        "confidence_error": error,
        "spread": spread,
    }
    if confidence - Z * error > most_confidence:
        return Standing(**seen)
    rows = draw_rows(y, MOST_ROWS, random)
    y, folds = y[rows], folds[rows]
    others = rest.of(probe)[rows].astype(np.float64)
    others = others[:, varying(others)]
    if not others.shape[1]:
        return Standing(**seen, tie=0.0, rest=1 / n_classes)
    # Closeness tells graded parts, and the vote those that are there or not.
    closeness = closeness[rows]
    vote = np.eye(n_classes)[closeness.argmax(axis=1)]
    targets = [_within(values, y) for values in (closeness, vote)]
    tie = -np.inf
    for explained in _predict_each(_within(others, y), np.hstack(targets), folds):
        tie = max(tie, *map(_r2, targets, np.hsplit(explained, 2)))
        if tie > most_tie:
            return Standing(**seen, tie=tie)
    votes = _predict_each(
        others, np.eye(n_classes)[y] / (np.bincount(y) / len(y)), folds
    )
    score = max(balanced_accuracy_score(y, vote.argmax(axis=1)) for vote in votes)
    return Standing(**seen, tie=tie, rest=score)


def _error_confidence(closeness, y):
    """Return how much surer right predictions are than wrong ones of the same class.

    And the standard error of that, as of Mann and Whitney's statistic where they are
    equally sure.
    """
    predicted = closeness.argmax(axis=1)
    right = predicted == y
    two = np.sort(closeness, axis=1)[:, -2:]
    margins = two[:, 1] - two[:, 0]
    total, variance, n_errors = 0.0, 0.0, 0
    for label in np.unique(predicted):
        # Apart, as classes of different sizes have different margins.
        of_class = predicted == label
        n_right = int(right[of_class].sum())
        n = int(of_class.sum()) - n_right
        if n and n_right:
            total += n * roc_auc_score(right[of_class], margins[of_class])
            variance += n * (n + n_right + 1) / (12 * n_right)
            n_errors += n
    if not n_errors:
        return np.nan, np.inf
    return total / n_errors, np.sqrt(variance) / n_errors


def margin_spread(closeness, y, folds):
    """Return how far margins spread within classes, by how far these are apart.

    Parameters
    ----------
    closeness : ndarray of shape (n_samples, n_classes)
        As `out_of_fold` returns it.
    y : ndarray of int, shape (n_samples,)
        Encoded labels.
    folds : ndarray of int, shape (n_samples,)
        The fold that each sample was tested in.

    Returns
    -------
    spread : float
        From the 15th to the 85th percentile, of the class that spreads most.
    """
    # A sample's margin is how much closer its class is than any other.
    own = np.take_along_axis(closeness, y[:, None], axis=1)[:, 0]
    others = closeness.copy()
    np.put_along_axis(others, y[:, None], -np.inf, axis=1)
    own -= others.max(axis=1)
    apart, spread = 0.0, 0.0
    for label in np.unique(y):
        apart += 2 * np.median(own[y == label]) / len(np.unique(y))
        # What differs between folds are the means that samples are compared with.
        for fold in np.unique(folds):
            part = (y == label) & (folds == fold)
            own[part] -= np.median(own[part])
        spread = max(spread, np.ptp(np.quantile(own[y == label], (0.15, 0.85))))
    return float(spread / max(apart, 1e-300))


def _within(values, y):
    """Return values without the means of their classes."""
    values = values.astype(np.float64)
    for label in np.unique(y):
        values[y == label] -= values[y == label].mean(axis=0)
    return values


def _r2(targets, explained):
    if np.square(targets).sum() <= 1e-12 * targets.size:
        return 0.0
    return float(r2_score(targets, explained, multioutput="variance_weighted"))


def _predict_each(X, targets, folds):
    """Yield what is predicted of targets out of fold, by each kernel and penalty."""
    for make_kernel in (_linear, _gaussian):
        kernel = make_kernel(X)
        for penalty in PENALTIES:
            predicted = np.empty_like(targets)
            for fold in np.unique(folds):
                test, train = folds == fold, folds != fold
                mean = targets[train].mean(axis=0)
                ridge = KernelRidge(alpha=penalty, kernel="precomputed")
                ridge.fit(kernel[np.ix_(train, train)], targets[train] - mean)
                predicted[test] = mean + ridge.predict(kernel[np.ix_(test, train)])
            yield predicted


def _linear(X):
    X = X - X.mean(axis=0)
    kernel = X @ X.T
    return kernel / max(np.trace(kernel) / len(X), 1e-300)


def _gaussian(X):
    """Return the Gaussian kernel as wide as samples are apart."""
    distances = cdist(X, X, "sqeuclidean")
    apart = distances[distances > 0]
    return np.exp(-distances / (np.median(apart) if len(apart) else 1.0))
