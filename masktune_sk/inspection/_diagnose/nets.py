"""What a classifier loses with its features hidden, and where it looks."""

import warnings

import numpy as np
from scipy.stats import binomtest
from sklearn.base import clone

from ..._samples import known_labels, samples_to_predict
from ...data import TorchView
from ...exceptions import AccuracyFallWarning
from ...masking import resize_maps, roll_masks, threshold_maps
from ...metrics import proportion_interval
from .result import ShortcutEvidence
from .samples import draw_rows

__all__ = ["judge_nets"]

#: Samples whose masks are compared, and placements of them at random.
MOST_MAPS, N_PLACEMENTS = 300, 99


def judge_nets(estimator, X, y, *, alpha, random):
    """Compare the nets of a classifier before and after masking.

    Parameters
    ----------
    estimator : MaskTuneClassifier
        Fitted, or not: then a clone is fitted on X and y.
    X, y : array-like or Dataset
        The samples of the diagnosis.
    alpha : float
        Level of the tests.
    random : RandomState
        Draws the samples whose masks are compared, and random places for them.

    Returns
    -------
    evidence : list of ShortcutEvidence
        A row for the accuracies, unless the classifier held out none of these samples,
        and one for the maps.

    Raises
    ------
    ValueError
        If y has labels that a fitted classifier does not know.
    """
    clf = estimator
    if not hasattr(clf, "net_"):
        with warnings.catch_warnings():
            # It is a row of the table.
            warnings.simplefilter("ignore", AccuracyFallWarning)
            clf = clone(estimator).fit(X, y)
    source = samples_to_predict(clf, X)
    y = known_labels(X, y, clf.classes_)
    labels = np.searchsorted(clf.classes_, y)
    rows = _unseen(clf, source, labels)
    evidence = [] if rows is None else [_accuracies(clf, source, labels, rows, alpha)]
    rows = draw_rows(labels, MOST_MAPS, random)
    return [*evidence, _maps(clf, source.take(rows), alpha, random)]


def _right(clf, net, source, labels):
    return clf._proba(net, TorchView(source)).argmax(axis=1) == labels


def _unseen(clf, source, labels):
    """Return the rows that the classifier did not train on, or None if it did on all.

    The hold-out of its fit, if these are the samples of its fit; else all samples.
    """
    known = clf.holdout_accuracy_
    n, trained = len(source), clf.train_indices_
    if n > trained.max():
        rows = np.setdiff1d(np.arange(n), trained)
        if known is None:
            return None
        if len(rows):
            right = _right(clf, clf.erm_net_, source.take(rows), labels[rows])
            if np.isclose(right.mean(), known["before"], rtol=0, atol=1e-6):
                return rows
    return np.arange(n)


def _accuracies(clf, source, labels, rows, alpha):
    source, labels = source.take(rows), labels[rows]
    before, after = (
        _right(clf, net, source, labels) for net in (clf.erm_net_, clf.net_)
    )
    n_lost, n_won = int((before & ~after).sum()), int((~before & after).sum())
    p_value = 1.0
    if n_lost + n_won:
        p_value = binomtest(n_lost, n_lost + n_won, alternative="greater").pvalue
    return ShortcutEvidence(
        kind="net after masking",
        where=f"{len(rows)} unseen samples",
        measure="accuracy",
        value=float(after.mean()),
        interval=proportion_interval(int(after.sum()), len(after)),
        baseline=float(before.mean()),
        p_value=float(p_value),
        reading="fell" if p_value <= alpha else "held",
    )


def _maps(clf, source, alpha, random):
    maps = resize_maps(clf._maps_of(clf.erm_net_, source), clf.input_shape_)
    masks, _ = threshold_maps(maps, clf.mask_threshold, clf.threshold_rule)
    overlaps = _overlaps(masks)
    overlap = float(overlaps.mean())
    placed = [_overlaps(_place(masks, random)).mean() for _ in range(N_PLACEMENTS)]
    p_value = (1 + (np.array(placed) >= overlap).sum()) / (1 + N_PLACEMENTS)
    # Each sample is in two of the sides of a pair: twice the error of a mean.
    error = 2 * 1.96 * overlaps.std() / np.sqrt(len(overlaps))
    peak = np.unravel_index((~masks).sum(axis=0).argmax(), masks.shape[1:])
    if masks.ndim == 3:
        where = f"most at row {peak[0]}, column {peak[1]}"
    else:
        names = getattr(clf, "feature_names_in_", None)
        where = f"most {f'column {peak[0]}' if names is None else names[peak[0]]}"
    return ShortcutEvidence(
        kind="saliency maps",
        where=where,
        measure="overlap",
        value=overlap,
        interval=(max(0.0, overlap - error), min(1.0, overlap + error)),
        baseline=float(np.mean(placed)),
        p_value=float(p_value),
        reading="same place" if p_value <= alpha else "everywhere",
    )


def _overlaps(masks):
    """Return of each sample the share of what it hides that another one hides too."""
    hidden = ~masks.reshape(len(masks), -1)
    others = (hidden.sum(axis=0) - 1) / max(len(hidden) - 1, 1)
    return (hidden @ others) / np.maximum(hidden.sum(axis=1), 1)


def _place(masks, random):
    """Put each mask in a random place."""
    if masks.ndim == 2:
        order = random.rand(*masks.shape).argsort(axis=1)
        return np.take_along_axis(masks, order, axis=1)
    return roll_masks(masks, random.rand(len(masks), 2))
