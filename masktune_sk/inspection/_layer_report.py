"""What each layer of each branch still knows of the labels and of the shortcut."""

from warnings import catch_warnings, simplefilter

import numpy as np
import torch
from scipy.special import entr
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_array, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets

from ..data import Source, as_array
from ..rejection._certify import check_groups
from ._layer_features import layer_features
from ._layer_report_display import LayerReportDisplay

__all__ = ["LayerReport", "effective_rank", "layer_report"]

_N_FOLDS = 3


def effective_rank(features, *, center=True):
    """Tell over how many directions features are spread.

    Parameters
    ----------
    features : array-like of shape (n_samples, n_features)
        A row a sample.
    center : bool, default=True
        Subtract the mean of each column first. False: the rank of the matrix as it is.

    Returns
    -------
    rank : float
        Between 1 and min(n_samples, n_features): exp(-sum of p ln p), where p are the
        singular values divided by their sum [1]_. 0 if all rows are the same.

    Raises
    ------
    ValueError
        If `features` is not a matrix of finite numbers.

    Notes
    -----
    It depends on the number of samples: compare only ranks of as many. Rotation,
    translation and a common scale of the features do not change it. Huh et al. [2]_
    report its logarithm.

    References
    ----------
    .. [1] O. Roy and M. Vetterli, "The Effective Rank: A Measure of Effective
       Dimensionality", EUSIPCO 2007, definition 1.
    .. [2] M. Huh et al., "The Low-Rank Simplicity Bias in Deep Networks", TMLR 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from masktune_sk.inspection import effective_rank
    >>> circle = np.linspace(0, 2 * np.pi, 100, endpoint=False)
    >>> x, y = np.cos(circle), np.sin(circle)
    >>> round(effective_rank(np.column_stack([x, y])), 6)
    2.0
    >>> round(effective_rank(np.column_stack([x, x])), 6)
    1.0
    """
    features = check_array(features, dtype=np.float64, input_name="features")
    largest = np.abs(features).max()
    if center:
        features = features - features.mean(axis=0)
    values = np.linalg.svd(features, compute_uv=False)
    # What rounding leaves of a column without variance.
    if values[0] <= largest * np.finfo(float).eps * features.size:
        return 0.0
    return float(np.exp(entr(values / values.sum()).sum()))


class LayerReport:
    """The numbers of `layer_report`; printed, a table.

    Parameters
    ----------
    rows : list of dict
        A row for each layer of each branch, in the order of running, with the keys
        ``"branch"``, ``"layer"`` (dotted name), ``"depth"`` (1 = the first layer),
        ``"width"`` (number of features), ``"effective_rank"``, ``"decodability_y"``
        and, with groups, ``"decodability_bias"`` or ``"decodability_groups"``.
    n_samples : int
        Number of samples they stand on.
    chance : dict of str to float
        For each decoded attribute the decodability of guessing.

    See Also
    --------
    layer_report : Makes it.
    """

    def __init__(self, rows, *, n_samples, chance):
        self.rows = rows
        self.n_samples = n_samples
        self.chance = chance

    def to_dict(self):
        """Return the table by columns.

        Returns
        -------
        columns : dict of str to list
            A list for each column; ``pandas.DataFrame(report.to_dict())`` is the table.
        """
        return {name: [row[name] for row in self.rows] for name in self.rows[0]}

    def plot(self, ax=None):
        """Draw the numbers over depth, a line a branch.

        Parameters
        ----------
        ax : array of matplotlib Axes, default=None
            One for the effective rank, and one for each decoded attribute; None: a new
            figure.

        Returns
        -------
        display : LayerReportDisplay
            The picture.
        """
        return LayerReportDisplay(self).plot(ax=ax)

    def __repr__(self):
        cells = [[name.replace("_", " ") for name in self.rows[0]]]
        for row in self.rows:
            cells.append(
                [
                    f"{value:.2f}" if isinstance(value, float) else str(value)
                    for value in row.values()
                ]
            )
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = []
        for line in cells:
            left = [c.ljust(w) for c, w in zip(line[:2], widths[:2], strict=True)]
            right = [c.rjust(w) for c, w in zip(line[2:], widths[2:], strict=True)]
            lines.append("  ".join(left + right))
        guessing = ", ".join(f"{name} {p:.2f}" for name, p in self.chance.items())
        lines.append(f"{self.n_samples} samples; decodability of guessing: {guessing}")
        return "\n".join(lines)


def layer_report(
    branches,
    X,
    y,
    groups=None,
    *,
    max_layers=12,
    max_samples=2000,
    random_state=None,
):
    """Measure, layer by layer, what the branches make of some samples.

    Parameters
    ----------
    branches : dict of str to torch.nn.Module
        The branches by name. They run in evaluation mode, on the device where they are.
    X : array-like, torch.Tensor or Source of shape (n_samples, ...)
        The samples, as the branches take them. Best samples that were not trained on.
        Of a Source only the samples that are drawn are read.
    y : array-like of shape (n_samples,)
        Their labels.
    groups : array-like of shape (n_samples,), default=None
        The group of each sample, decoded too. Where groups are numbered class x bias,
        ``target * n_bias + bias``, it is the bias alone that is decoded; else the
        groups as they are.
    max_layers : int, default=12
        Of a branch with more layers, as many are measured, evenly spaced, with the
        first and the last.
    max_samples : int, default=2000
        Of more samples, as many are drawn at random. Decoding takes the time.
    random_state : int, RandomState instance or None, default=None
        Draws samples and folds.

    Returns
    -------
    report : LayerReport
        The numbers: `print` it, or `LayerReport.plot` it.

    Raises
    ------
    ValueError
        If there are no branches, if X, y and groups are not as many, if something is
        missing in y or groups, if there are less than two classes or less than six
        samples, or if `max_layers` or `max_samples` is too small.
    NonFiniteError
        If a layer returns NaN or infinite features.

    Notes
    -----
    A layer is whatever has weights, together with what follows up to the next one
    (normalisation, activation, pooling); the last one is what the branch returns.
    Outputs with positions, of images or tokens, are averaged over these.

    Effective rank is that of `effective_rank`. Linear decodability [1]_ is the balanced
    accuracy, in three-fold cross-validation, of a logistic regression on the
    standardised features. Within a class all groups weigh the same, and within a group
    all classes, so that y is not decoded by way of a bias that goes with it, nor the
    bias by way of y. For that samples must be there whose bias does not go with their
    class; without groups, the one is taken for the other.

    DeNetDM [2]_ expects features of lower rank in a deeper branch. They tend to be,
    whichever branch took the shortcut: what tells the two apart is how well y and the
    bias can be decoded from their last layers.

    References
    ----------
    .. [1] K. Hermann and A. Lampinen, "What shapes feature representations? Exploring
       datasets, architectures, and training", NeurIPS 2020.
    .. [2] S. V. Sreelatha et al., "DeNetDM: Debiasing by Network Depth Modulation",
       NeurIPS 2024, section 3 and appendix.

    Examples
    --------
    >>> import torch
    >>> from masktune_sk.inspection import layer_report
    >>> from sklearn.datasets import load_iris
    >>> from torch import nn
    >>> X, y = load_iris(return_X_y=True)
    >>> _ = torch.manual_seed(0)
    >>> wide = nn.Sequential(nn.Linear(4, 20), nn.ReLU(), nn.Linear(20, 8))
    >>> narrow = nn.Sequential(nn.Linear(4, 1), nn.ReLU(), nn.Linear(1, 8))
    >>> report = layer_report({"wide": wide, "narrow": narrow}, X, y, random_state=0)
    >>> report.to_dict()["width"]
    [20, 8, 1, 8]
    >>> print(report)  # doctest: +ELLIPSIS
    branch  layer  depth  width  effective rank  decodability y
    wide    0          1     20 ...
    """
    if not branches:
        raise ValueError("branches must hold a module or more by name; got none.")
    for name, value, least in (
        ("max_layers", max_layers, 1),
        ("max_samples", max_samples, 2 * _N_FOLDS),
    ):
        if value < least:
            raise ValueError(f"{name} must be at least {least}; got {value}.")
    X = X if isinstance(X, torch.Tensor | Source) else np.asarray(X)
    attributes = _attributes(len(X), y, groups)
    rng = check_random_state(random_state)
    drawn = rng.permutation(len(X))[:max_samples]
    if isinstance(X, Source):
        X = X.batch(drawn)
    else:
        X = torch.as_tensor(X[torch.as_tensor(drawn) if torch.is_tensor(X) else drawn])
    attributes = {name: _encode(codes[drawn]) for name, codes in attributes.items()}
    cells = _encode(np.stack(list(attributes.values())))
    # The rows are in random order: every third row of a cell is a random third of it.
    folds = np.empty_like(cells)
    folds[np.argsort(cells, kind="stable")] = np.arange(len(cells)) % _N_FOLDS
    rows = []
    for branch, module in branches.items():
        for layer in layer_features(module, X, max_layers=max_layers):
            row = {
                "branch": branch,
                "layer": layer.name,
                "depth": layer.depth,
                "width": layer.values.shape[1],
                "effective_rank": effective_rank(layer.values),
            }
            for name, codes in attributes.items():
                row[f"decodability_{name}"] = _decode(layer.values, codes, cells, folds)
            rows.append(row)
    chance = {name: 1 / int(codes.max() + 1) for name, codes in attributes.items()}
    return LayerReport(rows, n_samples=len(X), chance=chance)


def _attributes(n_samples, y, groups):
    """Return what is to be decoded, as integers by name."""
    y = column_or_1d(as_array(y))
    if len(y) != n_samples or n_samples < 2 * _N_FOLDS:
        raise ValueError(
            f"X and y must have as many samples, {2 * _N_FOLDS} or more; got "
            f"{n_samples} and {len(y)}."
        )
    check_classification_targets(y)
    attributes = {"y": _encode(y)}
    if groups is not None:
        groups = check_groups(as_array(groups), n_samples)
        bias = _find_bias(groups, y)
        if bias is None:
            attributes["groups"] = _encode(groups)
        else:
            attributes["bias"] = _encode(bias)
    for name, codes in attributes.items():
        if not codes.any():
            raise ValueError(
                f"{name} must hold two different values or more, which features could "
                "tell apart; all are alike."
            )
    return attributes


def _encode(values):
    """Return numbers, 0 and up, in place of values or of columns."""
    axis = 1 if values.ndim == 2 else None
    return np.unique(values, axis=axis, return_inverse=True)[1].reshape(-1)


def _find_bias(groups, y):
    """Return the bias if groups are numbered target * n_bias + bias, else None."""
    if groups.dtype.kind not in "iu" or groups.min() < 0:
        return None
    groups = groups.astype(np.int64)
    targets = [_encode(y)]
    if y.dtype.kind in "iu" and y.min() >= 0:
        # Encoded already, perhaps, and a class does not occur.
        targets.append(y.astype(np.int64))
    for target in targets:
        n_bias = int((groups // (target + 1)).max()) + 1
        bias = groups % n_bias
        if np.array_equal(groups // n_bias, target) and np.ptp(bias):
            return bias
    return None


def _decode(features, codes, cells, folds):
    """Return the balanced accuracy of a linear probe, each cell weighing the same."""
    weights = 1 / np.bincount(cells)[cells]
    weights /= np.bincount(codes, weights)[codes]
    weights /= weights.mean()
    predicted = np.empty_like(codes)
    for fold in range(_N_FOLDS):
        train, test = folds != fold, folds == fold
        known = np.unique(codes[train])
        if len(known) == 1:
            predicted[test] = known[0]
            continue
        probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
        with catch_warnings():
            # Separable features: the boundary no longer moves, the weights still grow.
            simplefilter("ignore", ConvergenceWarning)
            probe.fit(
                features[train],
                codes[train],
                logisticregression__sample_weight=weights[train],
            )
        predicted[test] = probe.predict(features[test])
    return float(np.average(predicted == codes, weights=weights))
