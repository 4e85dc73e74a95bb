"""A column of a table that gives the class away."""

import numbers

import numpy as np
from scipy.sparse import issparse
from sklearn.utils import check_random_state

from .._checks import is_int
from .planted import assign_conflicting, check_shortcut, make_bunch


def make_leaky_column(
    X,
    y,
    *,
    shortcut="biased",
    conflict_ratio=0.01,
    strength=1.0,
    noise=0.1,
    column=None,
    name="leak",
    classes=None,
    random_state=None,
    return_X_y=False,
):
    """Add a column to a table that gives the class away: a leak.

    As a hospital's number does where one hospital sends the severe cases, or a field
    filled in after the fact. A classifier that reads the column looks good on data
    with the same leak and fails where the column contradicts the class.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features) or DataFrame
        Table. Of an array, all columns are numbers; missing values may be NaN.

    y : array-like of shape (n_samples,)
        Labels, of two classes at least: numbers, strings or bools.

    shortcut : {"biased", "aligned", "conflicting", "none"}, default="biased"
        How the column goes with the class:

        - "biased": it tells the class, but for a share `conflict_ratio`;
        - "aligned": it always does;
        - "conflicting": it always tells another class;
        - "none": it tells the class of a row drawn at random (the classes are
          shuffled): its values are as in biased data, and say nothing of the class.

    conflict_ratio : float, default=0.01
        Share of each class whose column tells another class, in [0, 1]. The smaller,
        the stronger the shortcut. Used by `shortcut="biased"` alone.

    strength : float, default=1.0
        Scale of the column: two classes are at -strength and strength, and it is
        twice that from one class to the next. Where columns are not standardized, a
        net learns a larger one sooner.

    noise : float, default=0.1
        Standard deviation within a class, as a share of `strength`. At 0 the column
        has one value for each class; from about 0.5 on, neighbouring classes mix.

    column : int or None, default=None
        Where the column goes, from 0 to n_features. None: behind the others.

    name : str, default="leak"
        Name of the column in a DataFrame. If the other names are no strings, pass one
        of their type.

    classes : array-like of shape (n_classes,), default=None
        All labels, in the order of the column's values. Pass them if y may lack one.
        None: the sorted labels in y.

    random_state : int, RandomState instance or None, default=None
        Draws the noise, one number for each row, and then which rows conflict and the
        classes that they tell. Pass an int for reproducible output across calls.

    return_X_y : bool, default=False
        If True, return `(data, target)` instead of a Bunch.

    Returns
    -------
    leaky : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the rows in the order of X:

        data : ndarray of shape (n_samples, n_features + 1) or DataFrame
            Table with the column. From a DataFrame, a DataFrame with the same index;
            from floats, an array of the same type; from other numbers, float64.
        target : ndarray of shape (n_samples,), dtype int64
            The class, from 0 to `n_classes - 1`.
        bias : ndarray of shape (n_samples,), dtype int64
            The class that the column tells.
        groups : ndarray of shape (n_samples,), dtype int64
            Class and bias in one number: `target * n_classes + bias`.
        aligned : ndarray of shape (n_samples,), dtype bool
            True where the column tells the row's own class. With "none", this is so
            by chance.
        artifact_mask : ndarray of shape (n_samples, n_features + 1), dtype bool
            True in the column; all False with "none".
        column : int
            Index of the column in `data`.
        target_names : ndarray of shape (n_classes,)
            The label of each class.
        group_names : list of str
            What each group is: `group_names[groups[i]]` describes row `i`.
        DESCR : str
            What was made.

    (data, target) : tuple if `return_X_y` is True
        The first two fields.

    Raises
    ------
    ValueError
        If X is no table of numbers, a label is missing or not in `classes`, the
        column's name is taken, or a parameter is none of the values above.

    Notes
    -----
    The value is ``strength * (2 * bias - (n_classes - 1) + noise * e)``, with a
    standard normal e for each row. `round(n * conflict_ratio)` of the n rows of a class
    conflict, drawn at random; of several other classes they tell any, each as likely.

    With the same `random_state`, copies that differ in `shortcut` or `conflict_ratio`
    have the same noise, and the rows that conflict at a smaller ratio also do at a
    larger one: their columns differ only where the bias does.

    Examples
    --------
    >>> from sklearn.datasets import load_breast_cancer
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.model_selection import train_test_split
    >>> from sklearn.pipeline import make_pipeline
    >>> from sklearn.preprocessing import StandardScaler
    >>> from masktune_sk.datasets import make_leaky_column
    >>> X, y = load_breast_cancer(return_X_y=True)
    >>> X, X_test, y, y_test = train_test_split(X, y, stratify=y, random_state=0)
    >>> train = make_leaky_column(X, y, random_state=0)
    >>> clf = make_pipeline(StandardScaler(), LogisticRegression())
    >>> clf = clf.fit(train.data, train.target)
    >>> for shortcut in ["aligned", "none", "conflicting"]:
    ...     test = make_leaky_column(X_test, y_test, shortcut=shortcut, random_state=1)
    ...     print(f"{shortcut}: {clf.score(test.data, test.target):.1f}")
    aligned: 1.0
    none: 0.9
    conflicting: 0.7
    """
    ratio = check_shortcut(shortcut, conflict_ratio)
    _check_scale("strength", strength, zero=False)
    _check_scale("noise", noise, zero=True)
    rng = check_random_state(random_state)
    is_frame = hasattr(X, "iloc")
    X = X if is_frame else _check_table(X)
    n_samples, n_features = X.shape
    target, target_names = _encode(y, n_samples, classes)
    n_classes = len(target_names)
    column = _check_column(column, n_features)
    if is_frame and name in X.columns:
        raise ValueError(
            f"X has a column {name!r} already. Pass another name for the new one."
        )

    spread = noise * rng.standard_normal(n_samples)
    if ratio is None:
        bias = rng.permutation(target)
        aligned = bias == target
    else:
        bias, aligned = assign_conflicting(target, n_classes, ratio, rng)
    values = strength * (2 * bias - (n_classes - 1) + spread)

    if is_frame:
        data = X.copy()
        data.insert(column, name, values)
    else:
        dtype = X.dtype if X.dtype.kind == "f" else np.float64
        data = np.insert(X.astype(dtype, copy=False), column, values, axis=1)
    artifact_mask = np.zeros((n_samples, n_features + 1), dtype=bool)
    artifact_mask[:, column] = ratio is not None
    return make_bunch(
        data,
        target,
        bias,
        aligned,
        artifact_mask=artifact_mask,
        column=column,
        target_names=target_names,
        class_names=[f"class {label}" for label in target_names],
        bias_names=[f"column tells {label}" for label in target_names],
        descr=(
            f"{n_samples} rows of {n_classes} classes. Shortcut: column {column} "
            f"({shortcut=}, {conflict_ratio=}, {strength=}, {noise=}); "
            f"{aligned.sum()} rows are aligned with their class."
        ),
        return_X_y=return_X_y,
    )


def _check_scale(name, value, *, zero):
    """Refuse what is no positive number, or 0 where that is allowed."""
    # NaN fails the comparisons, as it should
    if not (
        isinstance(value, numbers.Real)
        and (0 < value < np.inf or (zero and value == 0))
    ):
        least = "from 0 on" if zero else "above 0"
        raise ValueError(f"{name} must be a finite number {least}, got {value!r}.")


def _check_table(X):
    """Return X as an array of numbers with rows and columns."""
    if issparse(X):
        raise ValueError(
            "X is sparse, and the new column would have no zeros. Pass X.toarray()."
        )
    X = np.asarray(X)
    if X.dtype.kind not in "fiub":
        raise ValueError(
            f"X must hold numbers, got {X.dtype}. Pass columns of other types in a "
            "pandas DataFrame."
        )
    if X.ndim != 2 or not X.size:
        raise ValueError(
            "X must be of shape (n_samples, n_features), with one of each at least; "
            f"got {X.shape}."
        )
    return X


def _encode(y, n_samples, classes):
    """Return the class of each row, and the label of each class."""
    y = np.asarray(y)
    if y.ndim != 1 or len(y) != n_samples:
        raise ValueError(
            f"y must be of shape ({n_samples},), one label for each row of X; got "
            f"shape {y.shape}."
        )
    try:
        missing = any(label is None or label != label for label in y.tolist())
    except TypeError:  # pandas' NA is neither equal to itself nor not
        missing = True
    if missing:
        raise ValueError("y has missing labels. Leave out their rows, in X too.")
    names, target = np.unique(y, return_inverse=True)
    if classes is not None:
        given = np.asarray(classes)
        unknown = np.setdiff1d(names, given)
        if given.ndim != 1 or len(np.unique(given)) < len(given) or len(unknown):
            raise ValueError(
                "classes must hold each label of y once; got "
                f"{given.tolist()} for the labels {names.tolist()}."
            )
        order = np.argsort(given, kind="stable")
        target = order[np.searchsorted(given, names, sorter=order)][target]
        names = given
    if len(names) < 2:
        raise ValueError(
            f"y must hold two classes at least, got only {names.tolist()}: a shortcut "
            "tells one class from another. If others are in other data, pass classes."
        )
    return target.astype(np.int64), names


def _check_column(column, n_features):
    """Return the index of the new column."""
    if column is None:
        return n_features
    if not is_int(column) or not 0 <= column <= n_features:
        raise ValueError(
            f"column must be an integer from 0 to {n_features}, the number of columns "
            f"in X, or None to add it behind them; got {column!r}."
        )
    return int(column)
