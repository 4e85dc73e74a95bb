"""What a probe predicts on its own, against shuffled labels."""

from dataclasses import dataclass

import numpy as np
from joblib import Parallel, delayed
from sklearn.model_selection import StratifiedKFold

from .probes import varying

__all__ = ["Alone", "out_of_fold", "predict_alone"]

# Directions of a probe that vary less than this, by the largest one, are rounding.
RESOLUTION = 1e-4


@dataclass(frozen=True)
class Alone:
    """Balanced accuracies of all probes.

    Attributes
    ----------
    scores : ndarray of shape (n_probes,)
        Cross-validated, with the true labels.
    p_values : ndarray of shape (n_probes,)
        That the best of all probes does as well where X tells nothing of y.
    chance : float
        What the best of all reaches with shuffled labels, 95 % quantile.
    recalls : ndarray of shape (n_probes, n_classes)
        Of which they are the means.
    folds : ndarray of int, shape (n_samples,)
        The fold that each sample is tested in.
    """

    scores: np.ndarray
    p_values: np.ndarray
    chance: float
    recalls: np.ndarray
    folds: np.ndarray


def predict_alone(probes, y, *, cv, n_permutations, random, n_jobs=None):
    """Score every probe with the true labels and with shuffled ones.

    A sample gets the class of the nearest mean of the other folds, after the probe's
    features are whitened: linear discriminant analysis with equal class priors. Labels
    are shuffled within folds, and the best probe of each shuffle counts, so that the
    p-values hold for all probes at once [1]_.

    Parameters
    ----------
    probes : list of Probe
        What to score.
    y : ndarray of int, shape (n_samples,)
        Encoded labels, 0 to n_classes - 1.
    cv : int
        Number of folds.
    n_permutations : int
        Number of shuffles.
    random : RandomState
        Draws folds and shuffles.
    n_jobs : int, default=None
        Threads for the probes, as in joblib.

    Returns
    -------
    alone : Alone
        Scores and p-values.

    References
    ----------
    .. [1] Westfall and Young, "Resampling-Based Multiple Testing", Wiley 1993.
    """
    folds = np.empty(len(y), dtype=np.int64)
    seed = random.randint(np.iinfo(np.int32).max)
    split = StratifiedKFold(cv, shuffle=True, random_state=seed).split(y[:, None], y)
    for fold, (_, test) in enumerate(split):
        folds[test] = fold
    labels = np.empty((n_permutations + 1, len(y)), dtype=np.int16)
    labels[:] = y
    for fold in range(cv):
        rows = np.flatnonzero(folds == fold)
        for shuffled in labels[1:]:
            shuffled[rows] = y[random.permutation(rows)]
    if not probes:
        n_classes = y.max() + 1
        nothing = np.empty(0), np.empty(0), 1 / n_classes, np.empty((0, n_classes))
        return Alone(*nothing, folds)
    tests = [np.flatnonzero(folds == fold) for fold in range(cv)]
    onehot = _one_hot(labels, tests)
    results = Parallel(n_jobs, prefer="threads")(
        delayed(_score)(probe.features, labels, onehot, tests) for probe in probes
    )
    scores = np.array([of_labels for of_labels, _ in results])
    best = scores[:, 1:].max(axis=0)
    observed = scores[:, 0]
    # Balanced accuracies of equal counts may differ in the last digit.
    beaten = (best[None] >= observed[:, None] - 1e-9).sum(axis=1)
    return Alone(
        observed,
        (1 + beaten) / (1 + n_permutations),
        float(np.quantile(best, 0.95)),
        np.array([recalls for _, recalls in results]),
        folds,
    )


def out_of_fold(features, y, folds):
    """Predict each sample from the other folds, as `predict_alone` does.

    Parameters
    ----------
    features : ndarray of shape (n_samples, n_features)
        What a probe sees.
    y : ndarray of int, shape (n_samples,)
        Encoded labels.
    folds : ndarray of int, shape (n_samples,)
        The fold that each sample is tested in.

    Returns
    -------
    closeness : ndarray of shape (n_samples, n_classes), float64
        How close it is to the mean of each class: the largest is what is predicted, and
        the difference of two is linear in the features.
    """
    Z = whiten(features).astype(np.float64)
    closeness = np.empty((len(y), y.max() + 1))
    for fold in np.unique(folds):
        test, train = folds == fold, folds != fold
        means = np.array(
            [Z[train & (y == k)].mean(axis=0) for k in range(closeness.shape[1])]
        )
        closeness[test] = Z[test] @ means.T - (means**2).sum(axis=1) / 2
    return closeness


def whiten(features):
    """Make features uncorrelated, with variance 1.

    Parameters
    ----------
    features : ndarray of shape (n_samples, n_features)
        One of them at least must vary.

    Returns
    -------
    Z : ndarray of shape (n_samples, n_directions), float32
        Without directions in which nothing varies but by rounding.
    """
    features = features[:, varying(features)].astype(np.float64)
    centred = features - features.mean(axis=0)
    centred /= centred.std(axis=0)
    U, s, _ = np.linalg.svd(centred, full_matrices=False)
    U = U[:, s > RESOLUTION * s[0]]
    return (U * np.sqrt(len(U))).astype(np.float32)


def _one_hot(labels, tests):
    """Return, fold by fold, which sample has which label: (n_labels * k, n_fold)."""
    classes = np.arange(labels.max() + 1)
    return [
        (labels[:, None, rows] == classes[:, None])
        .reshape(-1, len(rows))
        .astype(np.float32)
        for rows in tests
    ]


def _score(features, labels, onehot, tests):
    """Return the balanced accuracy for each row of labels, and the first's recalls."""
    Z = whiten(features)
    n_labels = len(labels)
    # Shuffled within folds, labels are as many of a class in every row.
    counts = np.bincount(labels[0])
    weights = (1 / (len(counts) * counts))[labels]
    sums = [members @ Z[rows] for members, rows in zip(onehot, tests, strict=True)]
    total = sum(sums)
    right = np.empty(labels.shape, dtype=bool)
    for rows, members, part in zip(tests, onehot, sums, strict=True):
        n_train = np.tile(counts, n_labels) - members.sum(axis=1)
        means = (total - part) / n_train[:, None]
        closeness = Z[rows] @ means.T - (means**2).sum(axis=1) / 2
        closeness = closeness.reshape(len(rows), n_labels, -1)
        if closeness.shape[2] == 2:
            predicted = closeness[..., 1] > closeness[..., 0]
        else:
            predicted = closeness.argmax(axis=2)
        right[:, rows] = predicted.T == labels[:, rows]
    recalls = np.bincount(labels[0], weights=right[0]) / counts
    return (right * weights).sum(axis=1), recalls
