"""Which of two branches took the shortcut, decided without bias labels.

Two branches trained as one sum share the work: one takes what is fast to fit, the
other what is left. Which of them took the shortcut is a matter of the data, not of
their depths alone, so it is measured.
"""

import numpy as np

__all__ = ["BRANCHES", "decide_roles", "role_scores", "separation"]

BRANCHES = ("shallow", "deep")

# At chance: no further than this share of the way from guessing to perfect.
_CHANCE_SHARE = 0.1
# ... or than this many standard errors, where so few rows leave more to luck.
_CHANCE_ERRORS = 3.0


def role_scores(proba_shallow, proba_deep, labels, hard):
    """Score both branches on the samples that early ERM training gets wrong.

    After one epoch a net trained by plain ERM has the shortcut and little else: what
    it gets wrong are mostly bias-conflicting samples. The branch that is right about
    them is the one that does without the shortcut.

    Parameters
    ----------
    proba_shallow, proba_deep : ndarray of shape (n_samples, n_classes)
        The probabilities, or any scores with the same argmax, of each branch alone.
    labels : ndarray of int, shape (n_samples,)
        The labels, as columns of the probabilities.
    hard : ndarray of bool, shape (n_samples,)
        True = the sample is one that ERM got wrong.

    Returns
    -------
    scores : dict
        ``"shallow"`` and ``"deep"``: class-balanced accuracy in [0, 1], the mean of
        the recalls over the classes that occur among the hard samples; NaN if none
        is hard. ``"n_hard"``: the number of hard samples.

    Raises
    ------
    ValueError
        If shapes, labels or the dtype of `hard` do not fit.
    """
    predicted, labels = _check_branches(proba_shallow, proba_deep, labels)
    hard = np.asarray(hard)
    if hard.dtype != bool or hard.shape != labels.shape:
        raise ValueError(
            f"hard must be a boolean array of shape {labels.shape}, True for samples "
            f"that ERM got wrong; got dtype {hard.dtype}, shape {hard.shape}."
        )
    scores = {
        branch: _balanced_accuracy(labels[hard], predicted[branch][hard])
        for branch in BRANCHES
    }
    return scores | {"n_hard": int(hard.sum())}


def decide_roles(scores, *, margin=0.1, min_hard=20):
    """Decide which branch is the debiased one.

    Parameters
    ----------
    scores : dict
        What `role_scores` returned.
    margin : float, default=0.1
        The difference of the two scores from which on they decide.
    min_hard : int, default=20
        The number of hard samples from which on they decide.

    Returns
    -------
    debiased : {"shallow", "deep"}
        The branch with the higher score, be it decided or not; "shallow", as the
        paper has it, if they are equal or there is none.
    decided : bool
        False if the scores are closer than `margin`, stand on fewer than `min_hard`
        samples, or are NaN: then `debiased` is a guess.
    """
    lead = scores["deep"] - scores["shallow"]
    debiased = "deep" if lead > 0 else "shallow"
    # A comparison with NaN is False.
    decided = abs(lead) >= margin and scores["n_hard"] >= min_hard
    return debiased, bool(decided)


def separation(proba_shallow, proba_deep, labels, debiased):
    """Tell how far two branches have come apart.

    Parameters
    ----------
    proba_shallow, proba_deep : ndarray of shape (n_samples, n_classes)
        The probabilities, or any scores with the same argmax, of each branch alone.
    labels : ndarray of int, shape (n_samples,)
        The labels, as columns of the probabilities.
    debiased : {"shallow", "deep"}
        The debiased branch; the other one is the biased one.

    Returns
    -------
    separation : dict
        ``"disagreement"``: share of the rows where the branches predict different
        labels. ``"accuracy"`` and ``"balanced_accuracy"``: dicts with a number for
        ``"shallow"`` and one for ``"deep"``. ``"biased_wrong"``: share of the rows
        that the biased branch gets wrong, an estimate of the share of
        bias-conflicting rows that its other errors push upwards. ``"starved"``: the
        branch at chance (the lower one if both are), or None.

    Raises
    ------
    ValueError
        If shapes, labels or `debiased` do not fit.

    Notes
    -----
    A branch that learned nothing does not predict at random: as a rule it predicts
    the most frequent class, and its accuracy then is that of the class. So chance is
    taken of the balanced accuracy, which is 1 / K for every constant prediction and,
    in the mean, for every prediction that is independent of the labels, whatever the
    shares of the K classes. A branch is at chance if it is no further above 1 / K
    than a tenth of the way to 1, or, where that is more, than three standard errors.
    The tenth is needed since with many rows the least trace of the labels is
    significant, and no use.

    The standard error is exact for predictions shuffled over the rows: with n rows,
    n_c of them of class c and m_c predicted as c, the sum of the K recalls has the
    variance [sum over c of m_c (1 - m_c / n) / n_c] / (n - 1) [1]_.

    References
    ----------
    .. [1] W. Hoeffding, "A combinatorial central limit theorem", Annals of
       Mathematical Statistics 22 (1951), theorem 2.
    """
    if debiased not in BRANCHES:
        raise ValueError(
            f"debiased must name a branch, one of {BRANCHES}; got {debiased!r}."
        )
    predicted, labels = _check_branches(proba_shallow, proba_deep, labels)
    biased = BRANCHES[1 - BRANCHES.index(debiased)]
    accuracy = {b: float((predicted[b] == labels).mean()) for b in BRANCHES}
    balanced = {b: _balanced_accuracy(labels, predicted[b]) for b in BRANCHES}
    at_chance = [b for b in BRANCHES if _is_at_chance(labels, predicted[b])]
    return {
        "disagreement": float((predicted["shallow"] != predicted["deep"]).mean()),
        "accuracy": accuracy,
        "balanced_accuracy": balanced,
        "biased_wrong": 1 - accuracy[biased],
        "starved": min(at_chance, key=balanced.get, default=None),
    }


def _check_branches(proba_shallow, proba_deep, labels):
    """Return what each branch predicts, and the labels."""
    probas = {"shallow": np.asarray(proba_shallow), "deep": np.asarray(proba_deep)}
    labels = np.asarray(labels)
    shapes = {name: proba.shape for name, proba in probas.items()}
    shape = shapes["shallow"]
    if len(shape) != 2 or shape != shapes["deep"] or labels.shape != shape[:1]:
        raise ValueError(
            "The probabilities of both branches must be of one shape (n_samples, "
            f"n_classes), with a label a row; got {shapes['shallow']} of the shallow "
            f"and {shapes['deep']} of the deep branch, and labels {labels.shape}."
        )
    if not len(labels):
        raise ValueError("The branches cannot be compared on no samples.")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() >= shape[1]:
        raise ValueError(
            "labels must be columns of the probabilities, integers from 0 to "
            f"{shape[1] - 1}; got {np.unique(labels)[:10].tolist()}. Encode them first."
        )
    return {name: proba.argmax(axis=1) for name, proba in probas.items()}, labels


def _recalls(labels, predicted):
    """Return the share of right answers in each class that occurs."""
    n_rows = np.bincount(labels)
    n_right = np.bincount(labels[predicted == labels], minlength=len(n_rows))
    present = n_rows > 0
    return n_right[present] / n_rows[present]


def _balanced_accuracy(labels, predicted):
    # Not scikit-learn's, which warns of predicted classes that do not occur.
    return float(_recalls(labels, predicted).mean()) if len(labels) else np.nan


def _is_at_chance(labels, predicted):
    n_rows = np.bincount(labels, minlength=predicted.max() + 1)
    n_predicted = np.bincount(predicted, minlength=len(n_rows))
    present = n_rows > 0
    n_classes, n = present.sum(), len(labels)
    if n_classes < 2:
        return False
    n_rows, n_predicted = n_rows[present], n_predicted[present]
    variance = (n_predicted * (1 - n_predicted / n) / n_rows).sum() / (n - 1)
    above = _recalls(labels, predicted).sum() - n_predicted.sum() / n
    return bool(
        above <= max(_CHANCE_SHARE * (n_classes - 1), _CHANCE_ERRORS * variance**0.5)
    )
