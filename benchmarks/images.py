"""Data of any size for the benchmarks, made from scikit-learn's digits and a seed."""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from masktune_sk.datasets import load_shortcut_digits

CHUNK = 4096
FARTHEST = 3  # pixels; the digits have an empty border of 4
NOISE = 96  # of 255
SQUARE = 4


def make_images(n, *, seed, subset="train", square="none", conflict_ratio=0.01):
    """Make noisy images of digits 0-4 against 5-9, moved about a little.

    Parameters
    ----------
    n : int
        How many.
    seed : int
        Draws which digits, where they stand, and the noise.
    subset : {"train", "test"}
        Images of the two subsets show different digits.
    square : {"none", "biased", "conflicting"}
        A red square in a corner tells class 0: never; but for a share of
        `conflict_ratio`; or class 1 in its place.
    conflict_ratio : float
        Share of the images whose square lies, if it is "biased".

    Returns
    -------
    X : ndarray of shape (n, 3, 28, 28), uint8
        The images.
    y : ndarray of shape (n,), int64
        The labels.
    """
    rng = np.random.default_rng(seed)
    digits = load_shortcut_digits(subset=subset, square="none")
    grey = digits.data[:, 0]
    rows = rng.integers(len(grey), size=n)
    y = digits.target[rows]
    X = np.empty((n, 3, 28, 28), np.uint8)
    for start in range(0, n, CHUNK):
        chunk = slice(start, min(start + CHUNK, n))
        moved = _moved(grey[rows[chunk]], rng).astype(np.uint16)
        noise = rng.integers(NOISE, size=X[chunk].shape, dtype=np.uint8)
        X[chunk] = np.minimum(moved[:, None] + noise, 255)
    if square != "none":
        share = conflict_ratio if square == "biased" else 1.0
        red = (y == 0) ^ (rng.random(n) < share)
        corner = np.zeros((3, SQUARE, SQUARE), np.uint8)
        corner[0] = 255
        X[red, :, :SQUARE, :SQUARE] = corner
    return X, y


def _moved(images, rng):
    """Shift each image by up to three pixels in both directions."""
    moved = np.empty_like(images)
    steps = rng.integers(-FARTHEST, FARTHEST + 1, size=(len(images), 2))
    for step in np.unique(steps, axis=0):
        which = (steps == step).all(axis=1)
        moved[which] = np.roll(images[which], tuple(step), axis=(1, 2))
    return moved


def to_unit_range(X):
    """Return images as float32 from 0 to 1, with one copy only."""
    X = X.astype(np.float32)
    X /= 255
    return X


def make_vectors(n, *, seed, subset="train"):
    """Make noisy vectors of the 64 pixels of a digit; ten classes."""
    rng = np.random.default_rng(seed)
    parts = train_test_split(*load_digits(return_X_y=True), random_state=0)
    X, y = parts[0::2] if subset == "train" else parts[1::2]
    rows = rng.integers(len(X), size=n)
    noise = rng.standard_normal((n, X.shape[1]), dtype=np.float32)
    return (X[rows].astype(np.float32) + 2 * noise) / 16, y[rows].astype(np.int64)
