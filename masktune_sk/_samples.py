"""The way in: X and y as the user has them, to a source that is checked."""

import numpy as np
from sklearn.utils import assert_all_finite, check_consistent_length, column_or_1d
from sklearn.utils.validation import _num_samples, validate_data
from torch.utils.data import Dataset

from .data import (
    ArraySource,
    DatasetView,
    as_array,
    as_source,
    check_finite,
    check_repeats,
    check_samples,
    unpacked,
)

__all__ = ["known_labels", "labels_of", "samples_to_fit", "samples_to_predict"]


def samples_to_fit(estimator, X, y):
    """Check the samples of a fit.

    Parameters
    ----------
    estimator : BaseDebiasedClassifier
        Gets ``n_features_in_`` and, from a data frame, ``feature_names_in_``.
    X : array-like of shape (n_samples, ...), Dataset or DatasetView
        Samples.
    y : array-like of shape (n_samples,) or None
        Labels; None: those of the dataset.

    Returns
    -------
    source : Source
        The samples.
    y : ndarray of shape (n_samples,)
        Labels as they are.

    Raises
    ------
    TypeError, ValueError
        If they are not what they should be.
    """
    X, y = unpacked(X, y)
    if not isinstance(X, Dataset | DatasetView):
        X, y = validate_data(estimator, as_array(X), as_array(y), allow_nd=True)
        check_samples(X)
        return ArraySource(X), y
    source, y = as_source(X, y, n_workers=_n_workers(estimator))
    check_count(source)
    y = source.targets if y is None else y
    if y is None:
        raise ValueError(
            f"{type(estimator).__name__} requires y to be passed, but the target y is "
            "None, and the samples of the Dataset are no pairs (x, y)."
        )
    y = column_or_1d(as_array(y), warn=True)
    check_consistent_length(source, y)
    if y.dtype.kind in ("f", "O"):
        assert_all_finite(y, input_name="y")
    check_finite(source)
    check_repeats(source)
    estimator.n_features_in_ = source.item_shape[0]
    return source, y


def samples_to_predict(estimator, X):
    """Check samples for a fitted estimator.

    Parameters
    ----------
    estimator : BaseDebiasedClassifier
        Fitted.
    X : array-like of shape (n_samples, ...), Dataset or DatasetView
        Samples.

    Returns
    -------
    source : Source
        The samples.

    Raises
    ------
    TypeError, ValueError
        If they are not what they should be, or of another shape than those of `fit`.
    """
    X, _ = unpacked(X)
    if isinstance(X, Dataset | DatasetView):
        source, _ = as_source(X)
        check_count(source)
        check_finite(source)
    else:
        X = validate_data(estimator, as_array(X), reset=False, allow_nd=True)
        check_samples(X)
        source = ArraySource(X)
    if source.item_shape != estimator.input_shape_:
        raise ValueError(
            f"X holds samples of shape {source.item_shape}, but "
            f"{type(estimator).__name__} was fitted on {estimator.input_shape_}. "
            "Resize them."
        )
    return source


def check_count(source):
    """Refuse to go on without samples, in scikit-learn's words."""
    if not len(source):
        raise ValueError("Found 0 sample(s) while a minimum of 1 is required.")


def labels_of(X, y):
    """Return labels: y, or else those that X brings.

    Parameters
    ----------
    X : object
        Samples, as the user has them.
    y : array-like of shape (n_samples,) or None
        Labels.

    Returns
    -------
    y : ndarray of shape (n_samples,)
        Labels as they are.

    Raises
    ------
    ValueError
        If there are none.
    """
    if y is None and isinstance(X, Dataset | DatasetView):
        y = DatasetView(X).labels if isinstance(X, Dataset) else X.labels
    if y is None:
        raise ValueError("y is None, and X brings no labels. Pass y.")
    return np.asarray(as_array(y))


def known_labels(X, y, classes):
    """Return labels, one a row of X, that a fit has seen.

    Parameters
    ----------
    X : object
        Samples, as the user has them.
    y : array-like of shape (n_samples,) or None
        Labels; None: those that X brings.
    classes : ndarray of shape (n_classes,)
        The labels of the fit.

    Returns
    -------
    y : ndarray of shape (n_samples,)
        Labels as they are.

    Raises
    ------
    ValueError
        If there are none, they are more or fewer than samples, or others.
    """
    y = labels_of(X, y)
    n_samples = _num_samples(X)
    if y.shape != (n_samples,):
        raise ValueError(
            f"y must have shape ({n_samples},), one label a row of X; got {y.shape}."
        )
    unknown = np.setdiff1d(y, classes)
    if len(unknown):
        raise ValueError(
            f"y has labels that fit did not see: {unknown}. Known are {classes}."
        )
    return y


def _n_workers(estimator):
    """Return with how many processes the user's net reads its training batches."""
    net = getattr(estimator.estimator, "estimator", estimator.estimator)
    params = getattr(net, "get_params_for", lambda prefix: {})("iterator_train")
    return params.get("num_workers", 0)
