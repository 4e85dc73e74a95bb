"""Images whose class a coloured square, background or foreground gives away."""

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.utils import check_random_state

from .._checks import check_option, is_int
from .digits import given_or_bundled
from .planted import (
    COLOURS,
    as_rgb,
    assign_conflicting,
    assign_nothing,
    check_shortcut,
    make_bunch,
)

_KINDS = ("square", "background", "foreground", "none")
_SAMPLINGS = ("random", "digit_sorted")
_HALVES = (range(5), range(5, 10))


def make_square_shortcut(
    X=None,
    y=None,
    *,
    kind="square",
    shortcut="biased",
    conflict_ratio=0.01,
    conflict_sampling="random",
    label_groups="halves",
    square_size=4,
    n_squares=1,
    position="top-left",
    colors=None,
    subset="all",
    random_state=None,
    return_X_y=False,
):
    """Plant a square in images that gives their class away: biased MNIST.

    With MNIST as X and the defaults it is the biased MNIST of MaskTune [1]_: digits 0-4
    against 5-9, a red square in the top-left corner of the first class. All sets of a
    study come from this one function, see `shortcut`.

    Parameters
    ----------
    X : array-like of shape (n, h, w) or (n, c, h, w), uint8, default=None
        Images of 1 or 3 channels, channel first. None: the 1,797 digits of
        :func:`sklearn.datasets.load_digits`, laid out like MNIST.

    y : array-like of shape (n,), default=None
        The digit of each image, or another integer label from 0 on. None if X is.

    kind : {"square", "background", "foreground", "none"}, default="square"
        What is coloured:

        - "square": a square, or two;
        - "background": all pixels that are 0 in every channel;
        - "foreground": all others, so that ink loses its shades;
        - "none": nothing, as with `shortcut="none"`.

    shortcut : {"biased", "aligned", "conflicting", "none"}, default="biased"
        How the colour goes with the class:

        - "biased": it agrees with the class, but for a share `conflict_ratio`;
        - "aligned": it always agrees;
        - "conflicting": it always contradicts: the *biased test set* of [1]_;
        - "none": no image has it: the *raw* test set of [1]_.

    conflict_ratio : float, default=0.01
        Share of each class whose colour contradicts the class, in [0, 1]. The smaller,
        the stronger the shortcut. Used by `shortcut="biased"` alone.

    conflict_sampling : {"random", "digit_sorted"}, default="random"
        Which images of a class conflict:

        - "random": any. With the same `random_state`, those that conflict at a smaller
          ratio also do at a larger one.
        - "digit_sorted": as if the images were sorted by `y` first, the last ones of a
          class with a colour and the first ones of a class without. This is what the
          official code of [1]_ comes to: all conflicting images are a 4 or a 5, and a
          net can learn these digits and be right on them alone. The rows that are
          returned stay in the order of X.

    label_groups : {"halves"}, dict, list of lists of int or None, default="halves"
        Which labels make a class:

        - "halves": 0-4 and 5-9;
        - a dictionary from label to class, such as ``{3: 0, 5: 0, 8: 1}``;
        - the labels of each class, such as ``[[3, 5], [8]]``;
        - None: each label is a class, from 0 to the largest in `y`. If a test set may
          lack the last ones, list them: ``[[0], [1], [2]]``.

    square_size : int, default=4
        Side of the square in pixels. MNIST's digits leave a border of 4: only 9 of the
        60,000 training images have ink in that corner.

    n_squares : {1, 2}, default=1
        With 2, another square in the mirrored place of the same rows, whose colour has
        red and blue exchanged, as in the official code of [1]_.

    position : str or (int, int), default="top-left"
        Where the square is: "top-left", "top-right", "bottom-left", "bottom-right",
        "center", or the row and column of its top-left pixel.

    colors : array-like of int of shape (3,) or (n_classes, 3), default=None
        Red, green and blue from 0 to 255. One colour is planted in class 0 alone, and
        the other classes have none. Several: each class has its own, and a conflicting
        image shows that of another class, drawn at random. None: red in class 0 of two
        classes; up to ten classes have each their own.

    subset : {"train", "test", "all"}, default="all"
        With `X=None`, which of the bundled digits: 1,257, 540 or both. The split is
        fixed, that of :func:`load_shortcut_digits`.

    random_state : int, RandomState instance or None, default=None
        Draws which images conflict and which other colour they show. Pass an int for
        reproducible output across calls.

    return_X_y : bool, default=False
        If True, return `(data, target)` instead of a Bunch.

    Returns
    -------
    squares : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the images in the order of X:

        data : ndarray of shape (n, 3, h, w), dtype uint8
            RGB images, channel first, values from 0 to 255.
        target : ndarray of shape (n,), dtype int64
            The class, from 0 to `n_classes - 1`.
        bias : ndarray of shape (n,), dtype int64
            What the colour says. With one colour, 1 where it is and 0 where not. With
            several, the class whose colour it is, and `n_classes` for none.
        groups : ndarray of shape (n,), dtype int64
            Class and bias in one number: `target * n_bias + bias`, where `n_bias` is
            2 with one colour and `n_classes + 1` with several.
        aligned : ndarray of shape (n,), dtype bool
            True where the bias agrees with the class. All False without a shortcut.
        artifact_mask : ndarray of shape (n, h, w), dtype bool
            True on the pixels that were coloured.
        digit : ndarray of shape (n,), dtype int64
            The labels in `y`.
        group_names : list of str
            What each group is: `group_names[groups[i]]` describes image `i`.
        DESCR : str
            What was made.

    (data, target) : tuple if `return_X_y` is True
        The first two fields.

    Raises
    ------
    ValueError
        If X or y is not as above, a parameter is none of the values above, a square
        leaves the image, or a label is in no class.

    See Also
    --------
    load_shortcut_digits : The bundled digits with a square, and few parameters.
    make_colored : Digits in the colour of their class.

    Notes
    -----
    With one colour, `round(n_0 * (1 - conflict_ratio))` of the `n_0` images of class 0
    and `round(n * conflict_ratio)` of the `n` images of another class have it, as in
    the official code of [1]_: 30,290 and 294 of MNIST's training images at 0.01. With
    several colours, `round(n * conflict_ratio)` images of each class conflict; there
    the official code draws the colours at random, and leaves conflicting images
    without.

    With "digit_sorted" at 0.01, the conflicting images of MNIST are the last 306 fours
    and the first 294 fives. A net that learns "a square is class 0, but for 4 and 5"
    has an accuracy of 18.74 % on conflicting test images and 58.43 % on those without
    squares. Report both test sets, and results with "random" too.

    A validation set that is split off biased data is as biased, and hides the shortcut.

    References
    ----------
    .. [1] Asgari Taghanaki et al., "MaskTune: Mitigating Spurious Correlations by
       Forcing to Explore", NeurIPS 2022.

    Examples
    --------
    The training set and three copies of the same test set:

    >>> from masktune_sk.datasets import make_square_shortcut
    >>> train = make_square_shortcut(subset="train", random_state=0)
    >>> train.data.shape
    (1257, 3, 28, 28)
    >>> for shortcut in ["aligned", "conflicting", "none"]:
    ...     test = make_square_shortcut(subset="test", shortcut=shortcut)
    ...     squares = test.artifact_mask.any(axis=(1, 2))
    ...     print(f"{shortcut}: {squares.sum()} squares, {test.aligned.sum()} aligned")
    aligned: 271 squares, 540 aligned
    conflicting: 269 squares, 0 aligned
    none: 0 squares, 0 aligned
    """
    check_option(kind, _KINDS, name="kind")
    check_option(conflict_sampling, _SAMPLINGS, name="conflict_sampling")
    ratio = check_shortcut(shortcut, conflict_ratio)
    rng = check_random_state(random_state)
    images, digit, source = given_or_bundled(X, y, subset)
    target, class_names = _group_labels(digit, label_groups)
    n_classes = len(class_names)
    table, colour_names = _check_colors(colors, n_classes)
    corners = []
    if kind == "square":
        corners = _place_squares(images.shape[-2:], square_size, n_squares, position)

    bias_names = _name_biases(kind, colour_names)
    one_colour = len(table) == 1
    absent = 0 if one_colour else n_classes
    if ratio is None or kind == "none":
        bias, aligned = assign_nothing(target, absent)
    else:
        bias, aligned = assign_conflicting(
            target,
            n_classes,
            ratio,
            rng,
            carrier=0 if one_colour else None,
            order=digit if conflict_sampling == "digit_sorted" else None,
        )

    data = as_rgb(images)
    planted = bias != absent
    # What is not planted gets a colour here, and no pixel below.
    colour = table[np.where(planted & (not one_colour), bias, 0)]
    artifact_mask = np.zeros(target.shape + data.shape[2:], dtype=bool)
    for row, column in corners:
        place = np.s_[row : row + square_size, column : column + square_size]
        data[planted, :, *place] = colour[planted, :, np.newaxis, np.newaxis]
        artifact_mask[planted, *place] = True
        colour = colour[:, ::-1]
    if kind in ("background", "foreground"):
        ink = data.any(axis=1)
        artifact_mask = planted[:, np.newaxis, np.newaxis] & (
            ink if kind == "foreground" else ~ink
        )
        for channel in range(3):
            value = colour[:, channel, np.newaxis, np.newaxis]
            np.copyto(data[:, channel], value, where=artifact_mask)

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
            f"{len(data)} {source}, in {n_classes} classes. Shortcut: {kind=} "
            f"({shortcut=}, {conflict_ratio=}, {conflict_sampling=}), on "
            f"{planted.sum()} images; {aligned.sum()} are aligned with their class."
        ),
        return_X_y=return_X_y,
    )


def _group_labels(labels, label_groups):
    """Return the class of each label, and what each class is."""
    if label_groups is None:
        return labels.copy(), [f"label {label}" for label in range(labels.max() + 1)]
    groups = _check_groups(label_groups)
    classes = {label: k for k, group in enumerate(groups) for label in group}
    missing = np.setdiff1d(labels, list(classes))
    if len(missing):
        raise ValueError(
            f"label_groups={label_groups!r} has no class for {_name(missing)} in y. "
            "Name every label, or pass None to make each one a class."
        )
    lookup = np.zeros(max(classes) + 1, dtype=np.int64)
    lookup[list(classes)] = list(classes.values())
    target = lookup[labels]
    if (target == target[0]).all():
        raise ValueError(
            f"label_groups={label_groups!r} puts {_name(np.unique(labels))}, all that "
            f"y holds, into class {target[0]}. Pass groups of your labels, or None to "
            "make each label a class."
        )
    return target, [_name(np.sort(group)) for group in groups]


def _check_groups(label_groups):
    """Return a list with the labels of each class."""
    if isinstance(label_groups, str) and label_groups == "halves":
        return [list(group) for group in _HALVES]
    expected = (
        "label_groups must be 'halves', None, the labels of each class as in "
        "[[0, 1], [2, 3]], or a mapping from label to class"
    )
    if isinstance(label_groups, Mapping):
        classes = set(label_groups.values())
        if not all(is_int(k) and 0 <= k < len(classes) for k in classes):
            raise ValueError(
                f"{expected}, 0, 1 and so on; got the classes "
                f"{list(label_groups.values())}."
            )
        groups = [[] for _ in classes]
        for label, k in label_groups.items():
            groups[k].append(label)
    elif isinstance(label_groups, Sequence) and not isinstance(label_groups, str):
        groups = [list(group) for group in label_groups if np.iterable(group)]
        if len(groups) < len(label_groups):
            raise ValueError(f"{expected}; got {label_groups!r}.")
    else:
        raise ValueError(f"{expected}; got {label_groups!r}.")
    labels = [label for group in groups for label in group]
    if not all(is_int(label) and label >= 0 for label in labels):
        raise ValueError(f"{expected}, with integers from 0 on; got {label_groups!r}.")
    if len(set(labels)) < len(labels) or len(groups) < 2 or not all(groups):
        raise ValueError(
            f"{expected}, with two classes at least, none of them empty, and no label "
            f"in two; got {label_groups!r}."
        )
    return groups


def _name(labels):
    """Describe labels: "label 3", "labels 0-4", "labels 1, 3"."""
    low, high = labels[0], labels[-1]
    if len(labels) == 1:
        return f"label {low}"
    if len(labels) > 2 and high - low == len(labels) - 1:
        return f"labels {low}-{high}"
    return "labels " + ", ".join(str(label) for label in labels)


def _check_colors(colors, n_classes):
    """Return one colour or one for each class, (n, 3) uint8, and their names."""
    if colors is None:
        if n_classes > len(COLOURS):
            raise ValueError(
                f"There are {n_classes} classes, but only {len(COLOURS)} colours: pass "
                "colors, one for each class, or a single one for class 0."
            )
        n_colours = 1 if n_classes == 2 else n_classes
        names = list(COLOURS)[:n_colours]
        return np.array([COLOURS[name] for name in names], dtype=np.uint8), names
    # As objects, so that no number is rounded, and no ragged list fails.
    table = np.array(colors, dtype=object)
    if table.shape not in ((3,), (n_classes, 3)) or not all(
        is_int(value) and 0 <= value <= 255 for value in table.flat
    ):
        raise ValueError(
            "colors must be one colour, (red, green, blue), or one for each of the "
            f"{n_classes} classes, in integers from 0 to 255; got {colors!r}."
        )
    table = table.reshape(-1, 3).astype(np.uint8)
    return table, [f"#{red:02x}{green:02x}{blue:02x}" for red, green, blue in table]


def _place_squares(shape, square_size, n_squares, position):
    """Return the top-left pixel of each square."""
    height, width = shape
    if not is_int(square_size) or not 1 <= square_size <= min(shape):
        raise ValueError(
            f"square_size must be an integer from 1 to {min(shape)}, the smaller side "
            f"of the images in pixels; got {square_size!r}."
        )
    if not is_int(n_squares) or n_squares not in (1, 2):
        raise ValueError(f"n_squares must be 1 or 2, got {n_squares!r}.")
    bottom, right = height - square_size, width - square_size
    places = {
        "top-left": (0, 0),
        "top-right": (0, right),
        "bottom-left": (bottom, 0),
        "bottom-right": (bottom, right),
        "center": (bottom // 2, right // 2),
    }
    if isinstance(position, str):
        check_option(position, places, name="position")
        row, column = places[position]
    else:
        place = np.array(position, dtype=object)
        if place.shape != (2,) or not all(is_int(value) for value in place):
            raise ValueError(
                f"position must be one of {', '.join(places)}, or the row and column "
                f"of the square's top-left pixel; got {position!r}."
            )
        row, column = place.tolist()
        if not (0 <= row <= bottom and 0 <= column <= right):
            raise ValueError(
                f"A square of {square_size} pixels at {position=} leaves images of "
                f"{height}x{width}: row must be from 0 to {bottom}, column from 0 to "
                f"{right}."
            )
    if n_squares == 1:
        return [(row, column)]
    if abs(right - 2 * column) < square_size:
        raise ValueError(
            f"Two squares of {square_size} pixels at {position=} and in the mirrored "
            f"place overlap in images of width {width}. Move them apart, or make them "
            "smaller."
        )
    return [(row, column), (row, right - column)]


def _name_biases(kind, colour_names):
    """Return what each bias is, in the order of their numbers."""
    noun = "square" if kind == "none" else kind
    absent = "no square" if noun == "square" else f"plain {noun}"
    if len(colour_names) == 1:
        return [absent, f"{colour_names[0]} {noun}"]
    return [*(f"{colour} {noun}" for colour in colour_names), absent]
