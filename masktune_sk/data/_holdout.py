"""Hold-outs: rows to train on, and rows to keep."""

import numpy as np

__all__ = ["stratified_holdout"]


def stratified_holdout(labels, fraction, random_state, *, classes=None):
    """Split rows in two, every class on both sides.

    Parameters
    ----------
    labels : ndarray of int, shape (n_samples,)
        Encoded labels.
    fraction : float in [0, 1)
        Share held out; at least one row of each class is, unless it is 0, and at least
        one of each is left.
    random_state : RandomState
        Draws the rows.
    classes : sequence, default=None
        Names of the classes, for the message.

    Returns
    -------
    train : ndarray of int
        Rows to train on, ascending.
    holdout : ndarray of int
        Rows held out, ascending; empty if `fraction` is 0.

    Raises
    ------
    ValueError
        If a class has a single sample.
    """
    n = len(labels)
    if fraction == 0:
        return np.arange(n), np.arange(0)
    counts = np.bincount(labels)
    if counts.min() < 2:
        lonely = np.argmin(counts)
        name = lonely if classes is None else classes[lonely]
        raise ValueError(
            f"A hold-out of validation_fraction={fraction} needs at least 2 samples of "
            "each class, one to train on and one to hold out, but class "
            f"{name!s} has {counts[lonely]}. Add samples, or set validation_fraction=0 "
            "(then there is no validation, and predict_with_reject needs a threshold "
            "or calibrate)."
        )
    size = max(len(counts), int(np.ceil(fraction * n - 1e-9)))
    shares = _allocate(counts, size)
    holdout = [
        random_state.permutation(np.flatnonzero(labels == label))[:share]
        for label, share in enumerate(shares)
    ]
    holdout = np.sort(np.concatenate(holdout))
    return np.setdiff1d(np.arange(n), holdout), holdout


def _allocate(counts, size):
    """Share `size` rows among classes in proportion, 1 to count - 1 rows each."""
    size = min(size, int((counts - 1).sum()))
    ideal = counts * (size / counts.sum())
    shares = np.clip(np.floor(ideal).astype(int), 1, counts - 1)
    while (gap := size - shares.sum()) != 0:
        # One row at a time to (or from) the class furthest from its ideal share.
        step = int(np.sign(gap))
        room = (shares < counts - 1) if step > 0 else (shares > 1)
        need = np.where(room, step * (ideal - shares), -np.inf)
        shares[np.argmax(need)] += step
    return shares
