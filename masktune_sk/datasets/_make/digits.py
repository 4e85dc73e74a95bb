"""Real 8x8 digits laid out like MNIST, with a coloured square as a shortcut."""

import numpy as np
from scipy.ndimage import zoom
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state

from .._checks import check_images, check_labels, check_option, is_int
from .planted import COLOURS as _COLOURS
from .planted import (
    as_rgb,
    assign_conflicting,
    assign_nothing,
    check_shortcut,
    make_bunch,
)

_SUBSETS = ("train", "test", "all")
_BORDER = 4  # MNIST's layout: a 20x20 digit with an empty border of 4 pixels


def load_shortcut_digits(
    *,
    subset="train",
    square="biased",
    conflict_ratio=0.01,
    n_classes=2,
    square_size=4,
    random_state=0,
    return_X_y=False,
):
    """Load real digits with a coloured square that gives the class away.

    The 1,797 handwritten digits of :func:`sklearn.datasets.load_digits`, enlarged
    from 8x8 to 20x20 pixels and centred in 28x28 as MNIST is, with a square planted
    in the top-left corner of some, as in the biased MNIST of MaskTune [1]_. A
    classifier that reads the square looks perfect on biased data and fails on
    conflicting data. Nothing is downloaded.

    Parameters
    ----------
    subset : {"train", "test", "all"}, default="train"
        1,257 training digits, 540 test digits, or both. The split is stratified by
        digit and fixed: `random_state` does not change it.

    square : {"biased", "aligned", "conflicting", "none"}, default="biased"
        How the square goes with the class:

        - "biased": it agrees with the class, but for a share `conflict_ratio`;
        - "aligned": it always agrees;
        - "conflicting": it always contradicts;
        - "none": no image has one.

    conflict_ratio : float, default=0.01
        Share of each class whose square contradicts the class, in [0, 1]. The
        smaller, the stronger the shortcut. Used by `square="biased"` alone. With the
        same `random_state`, the images that conflict at a smaller ratio also
        conflict at a larger one.

    n_classes : {2, 10}, default=2
        With 2, digits 0-4 are class 0 and carry a red square, digits 5-9 are class 1
        and carry none. With 10, every digit is a class with a colour of its own, and
        a conflicting image shows the colour of another class, drawn at random.

    square_size : int, default=4
        Side of the square in pixels, from 1 to 4. A larger one would cover pixels of
        the digit.

    random_state : int, RandomState instance or None, default=0
        Draws which images conflict and the colours they show. Pass an int for
        reproducible output across calls.

    return_X_y : bool, default=False
        If True, return `(data, target)` instead of a Bunch.

    Returns
    -------
    digits : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the images in the order of `load_digits`:

        data : ndarray of shape (n_samples, 3, 28, 28), dtype uint8
            RGB images, channel first, values from 0 to 255.
        target : ndarray of shape (n_samples,), dtype int64
            The class, from 0 to `n_classes - 1`.
        bias : ndarray of shape (n_samples,), dtype int64
            What the square shows. With 2 classes, 1 for a square and 0 for none.
            With 10, the class whose colour it has, and 10 for no square.
        groups : ndarray of shape (n_samples,), dtype int64
            Class and bias in one number: `target * n_bias + bias`, where `n_bias` is
            2 or 11.
        aligned : ndarray of shape (n_samples,), dtype bool
            True where the bias agrees with the class. All False if `square="none"`.
        artifact_mask : ndarray of shape (n_samples, 28, 28), dtype bool
            True on the pixels of the square.
        digit : ndarray of shape (n_samples,), dtype int64
            The digit shown, 0 to 9.
        group_names : list of str
            What each group is: `group_names[groups[i]]` describes image `i`.
        DESCR : str
            What was loaded.

    (data, target) : tuple if `return_X_y` is True
        The first two fields.

    Raises
    ------
    ValueError
        If a parameter is none of the values above.

    Notes
    -----
    With 2 classes, `round(n_0 * (1 - conflict_ratio))` of the `n_0` images of class 0
    and `round(n_1 * conflict_ratio)` of the `n_1` images of class 1 have the square,
    as in the official code of [1]_. That code takes the first images after sorting by
    digit, so that all conflicting ones are a 4 or a 5; here they are drawn at random.

    References
    ----------
    .. [1] Asgari Taghanaki et al., "MaskTune: Mitigating Spurious Correlations by
       Forcing to Explore", NeurIPS 2022.

    Examples
    --------
    >>> import numpy as np
    >>> from masktune_sk.datasets import load_shortcut_digits
    >>> digits = load_shortcut_digits(conflict_ratio=0.05)
    >>> digits.data.shape
    (1257, 3, 28, 28)
    >>> for name, count in zip(digits.group_names, np.bincount(digits.groups)):
    ...     print(f"{name}: {count}")
    digits 0-4, no square: 32
    digits 0-4, square: 598
    digits 5-9, no square: 596
    digits 5-9, square: 31
    """
    check_option(subset, _SUBSETS, name="subset")
    ratio = check_shortcut(square, conflict_ratio, name="square")
    _check_parameters(n_classes, square_size)
    rng = check_random_state(random_state)

    images, digit = _load_subset(subset)
    target = digit // 5 if n_classes == 2 else digit.copy()
    no_square = 0 if n_classes == 2 else n_classes
    if ratio is None:
        bias, aligned = assign_nothing(target, no_square)
    else:
        # With two classes the square belongs to class 0.
        carrier = 0 if n_classes == 2 else None
        bias, aligned = assign_conflicting(
            target, n_classes, ratio, rng, carrier=carrier
        )

    data = as_rgb(images)
    artifact_mask = np.zeros(images.shape, dtype=bool)
    planted = bias != no_square
    colours = np.array(list(_COLOURS.values()), dtype=np.uint8)
    colour = colours[bias[planted] if n_classes == 10 else 0]
    data[planted, :, :square_size, :square_size] = colour[..., np.newaxis, np.newaxis]
    artifact_mask[planted, :square_size, :square_size] = True
    class_names, bias_names = _names(n_classes)
    return make_bunch(
        data,
        target,
        bias,
        aligned,
        artifact_mask=artifact_mask,
        digit=digit,
        class_names=class_names,
        bias_names=bias_names,
        descr=(
            f"{len(data)} handwritten digits ({subset=}) of scikit-learn's "
            f"load_digits, laid out like MNIST, in {n_classes} classes. Shortcut: a "
            f"{square_size}x{square_size} square in the top-left corner ({square=}), "
            f"on {planted.sum()} images; {aligned.sum()} are aligned with their class."
        ),
        return_X_y=return_X_y,
    )


def given_or_bundled(X, y, subset, *, channels=(1, 3)):
    """Return the images and labels that a user brought, or the bundled digits.

    Parameters
    ----------
    X : array-like of shape (n, h, w) or (n, c, h, w), uint8, or None
        Images. None: the digits of scikit-learn, laid out like MNIST.
    y : array-like of shape (n,) or None
        Their labels, from 0 on. None if X is.
    subset : {"train", "test", "all"}
        Which of the bundled digits. "all" if X is given.
    channels : tuple of int, default=(1, 3)
        The numbers of channels allowed.

    Returns
    -------
    images : ndarray of shape (n, h, w) or (n, c, h, w), uint8
        Images.
    labels : ndarray of shape (n,), int64
        Labels.
    source : str
        Where they come from, for DESCR.

    Raises
    ------
    ValueError
        If they are none such, or only one of X and y is given.
    """
    check_option(subset, _SUBSETS, name="subset")
    if (X is None) != (y is None):
        given, missing = ("y", "X") if X is None else ("X", "y")
        raise ValueError(
            f"{given} is given, but {missing} is None. Pass images and their labels, "
            "or neither for the bundled digits."
        )
    if X is None:
        source = f"handwritten digits ({subset=}) of scikit-learn's load_digits"
        return *_load_subset(subset), f"{source}, laid out like MNIST"
    if subset != "all":
        raise ValueError(
            f"subset={subset!r} chooses among the bundled digits, but X is given. "
            "Pass the part of X and y that you want."
        )
    images = check_images(X, channels=channels)
    return images, check_labels(y, len(images)), "images"


def _check_parameters(n_classes, square_size):
    """Refuse bad values by telling what was expected."""
    if not is_int(n_classes) or n_classes not in (2, 10):
        raise ValueError(
            "n_classes must be 2 (digits 0-4 against 5-9) or 10 (a class for every "
            f"digit), got {n_classes!r}."
        )
    if not is_int(square_size) or not 1 <= square_size <= _BORDER:
        raise ValueError(
            f"square_size must be an integer from 1 to {_BORDER}, the empty border in "
            f"pixels: a larger square would cover the digit. Got {square_size!r}."
        )


def _load_subset(subset):
    """Return images of shape (n, 28, 28), uint8, and their digits."""
    images, digit = load_digits(return_X_y=True)
    digit = digit.astype(np.int64)
    if subset != "all":
        split = train_test_split(
            np.arange(len(digit)), test_size=0.3, stratify=digit, random_state=0
        )
        rows = np.sort(split[_SUBSETS.index(subset)])
        images, digit = images[rows], digit[rows]
    images = zoom(images.reshape(-1, 8, 8) * (255 / 16), (1, 2.5, 2.5), order=1)
    images = np.clip(np.rint(images), 0, 255).astype(np.uint8)
    return np.pad(images, ((0, 0), (_BORDER, _BORDER), (_BORDER, _BORDER))), digit


def _names(n_classes):
    """Return what each class and each bias is."""
    if n_classes == 2:
        return ["digits 0-4", "digits 5-9"], ["no square", "square"]
    return (
        [f"digit {label}" for label in range(n_classes)],
        [*(f"{colour} square" for colour in _COLOURS), "no square"],
    )
