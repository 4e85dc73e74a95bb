"""Checks of what the user brings: images, labels, shares and options."""

import numbers

import numpy as np


def check_images(X, *, name="X", channels=(1, 3)):
    """Check images, without copying them.

    Parameters
    ----------
    X : array-like of shape (n, h, w) or (n, c, h, w), uint8
        Images, channel first.
    name : str, default="X"
        What the user calls them, for the messages.
    channels : tuple of int, default=(1, 3)
        The numbers of channels allowed. Images of shape (n, h, w) have one.

    Returns
    -------
    images : ndarray of the shape of X, uint8
        The images, which may share memory with X.

    Raises
    ------
    ValueError
        If they are of another type or shape, channel last, or none at all.
    """
    try:
        images = np.asarray(X)
    except ValueError as error:
        raise ValueError(
            f"{name} must be one array, but its images differ in shape. "
            "Bring them to one size first."
        ) from error
    if images.size == 0:
        raise ValueError(
            f"{name} must hold at least one image of at least one pixel, got shape "
            f"{images.shape}."
        )
    if images.dtype != np.uint8:
        raise ValueError(
            f"{name} must be uint8 images with values from 0 to 255, got "
            f"{images.dtype}. {_cure_of_dtype(images, name)}"
        )
    expected = f"{name} must be of shape (n, h, w) or (n, c, h, w)"
    if images.ndim not in (3, 4):
        raise ValueError(
            f"{expected}, got {images.shape}. Reshape flat images, "
            f"{name}.reshape(len({name}), height, width), and pass a single one as "
            f"{name}[np.newaxis]."
        )
    n_channels = images.shape[1] if images.ndim == 4 else 1
    if n_channels not in (1, 3, 4, *channels) and images.shape[3] in (1, 3, 4):
        raise ValueError(
            f"{expected}, channel first, but is channel last: {images.shape}. Pass "
            f"{name}.transpose(0, 3, 1, 2)."
        )
    if images.ndim == 3 and images.shape[2] in (1, 3):
        raise ValueError(
            f"{expected}, but looks like one image, channel last: {images.shape}. Pass "
            f"many, or {name}.transpose(2, 0, 1)[np.newaxis]."
        )
    if n_channels not in channels:
        cures = {
            1: f"Repeat grey: {name}.reshape(len({name}), 1, h, w).repeat(3, axis=1).",
            3: f"Average colours: {name}.mean(axis=1).round().astype('uint8').",
            4: f"Drop the alpha channel: {name}[:, :3].",
        }
        raise ValueError(
            f"{name} must have {' or '.join(map(str, channels))} channel(s), got "
            f"{n_channels}: {images.shape}. {cures.get(n_channels, '')}".rstrip()
        )
    return images


def _cure_of_dtype(images, name):
    """Say how images of another type become uint8."""
    if images.dtype.kind == "f":
        if np.isnan(images).any():
            return "It holds NaN, and no pixel can be missing: find out where they are."
        return f"From values in [0, 1]: ({name} * 255).round().astype('uint8')."
    if images.dtype.kind in "iub":
        factor = " * 255" if images.dtype.kind == "b" else ""
        return f"If every value is from 0 to 255: {name}.astype('uint8'){factor}."
    return "Read the images into one array of numbers."


def check_labels(y, n_samples, *, n_classes=None, name="y"):
    """Check labels that are class numbers.

    Parameters
    ----------
    y : array-like of shape (n_samples,), integers or bools
        Labels, from 0 on. A class may be without samples.
    n_samples : int
        How many there must be.
    n_classes : int or None, default=None
        Labels must be smaller. None: the largest label tells, and there must be two
        classes at least.
    name : str, default="y"
        What the user calls them, for the messages.

    Returns
    -------
    target : ndarray of shape (n_samples,), int64
        A copy of the labels.

    Raises
    ------
    ValueError
        If they are none such.
    """
    labels = np.asarray(y)
    if labels.ndim != 1:
        raise ValueError(
            f"{name} must be of shape (n_samples,), one label for each sample; got "
            f"shape {labels.shape}."
        )
    if len(labels) != n_samples:
        raise ValueError(
            f"There are {n_samples} samples, but {name} has {len(labels)} labels. Pass "
            "one label for each sample."
        )
    if not n_samples:
        raise ValueError(f"{name} is empty: there must be one sample at least.")
    if labels.dtype.kind not in "biu":
        raise ValueError(
            f"{name} must hold integers, the class numbers from 0 on; got "
            f"{labels.dtype}. Number other labels first: "
            f"np.unique({name}, return_inverse=True)[1]."
        )
    target = labels.astype(np.int64)
    low, high = target.min(), target.max()
    if low < 0 or (n_classes is not None and high >= n_classes):
        limit = "on" if n_classes is None else f"to {n_classes - 1}"
        raise ValueError(
            f"{name} must hold class numbers from 0 {limit}, got labels from {low} to "
            f"{high}."
        )
    if n_classes is None and high == 0:
        raise ValueError(
            f"{name} must hold two classes at least, got label 0 alone: a shortcut "
            "tells one class from another."
        )
    return target


def check_ratio(ratio, *, name="conflict_ratio"):
    """Refuse what is no share from 0 to 1."""
    # NaN fails the comparison, as it should
    if not (isinstance(ratio, numbers.Real) and 0 <= ratio <= 1):
        raise ValueError(f"{name} must be a number from 0 to 1, got {ratio!r}.")


def check_option(value, options, *, name):
    """Refuse what is none of these strings."""
    if not isinstance(value, str) or value not in options:
        expected = ", ".join(f"'{option}'" for option in options)
        raise ValueError(f"{name} must be one of {expected}; got {value!r}.")


def is_int(value):
    """Tell integers, numpy's too, from bools and all else."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)
