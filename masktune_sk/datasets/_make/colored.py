"""Digits in the colour of their class: ColoredMNIST."""

import numpy as np
from sklearn.utils import check_random_state

from .._checks import check_option, is_int
from .digits import given_or_bundled
from .planted import (
    as_rgb,
    assign_by_milestones,
    assign_conflicting,
    assign_nothing,
    check_shortcut,
    make_bunch,
)

_ASSIGNMENTS = ("milestones", "random")

# Red, green, blue of the published set, by bias.
_PUBLISHED = (
    (0.983682, 0.312519, 0.168575),
    (0.990530, 0.915605, 0.351512),
    (0.672964, 0.461070, 0.579808),
    (0.783252, 0.831556, 0.601329),
    (0.088016, 0.777963, 0.981808),
    (0.321393, 0.961055, 0.446450),
    (0.024616, 0.235650, 0.758666),
    (0.555247, 0.101580, 0.761763),
    (0.207723, 0.392949, 0.018702),
    (0.833658, 0.202409, 0.266943),
)

# How far colours of one bias spread, by severity from 1 on.
_SPREADS = (0.05, 0.02, 0.01, 0.005, 0.002)

_N_PER_BLOCK = (
    1024  # images coloured at once: products in float take 8 times the memory
)


def make_colored(
    X=None,
    y=None,
    *,
    shortcut="biased",
    conflict_ratio=0.01,
    severity=4,
    assignment="milestones",
    colors=None,
    subset="all",
    random_state=None,
    return_X_y=False,
):
    """Colour grey images so that the colour gives their class away: ColoredMNIST.

    With MNIST as X and the defaults it is the ColoredMNIST of LfF [1]_ that DeNetDM
    [2]_ is measured on: ten digits, ten colours, black background, and a share of each
    class in the colour of another one.

    Parameters
    ----------
    X : array-like of shape (n, h, w) or (n, 1, h, w), uint8, default=None
        Grey images. None: the 1,797 digits of :func:`sklearn.datasets.load_digits`,
        laid out like MNIST.

    y : array-like of shape (n,), default=None
        Their classes, integers from 0 on, smaller than the number of colours. None if
        X is.

    shortcut : {"biased", "aligned", "conflicting", "none"}, default="biased"
        How the colour goes with the class:

        - "biased": it agrees with the class, but for a share `conflict_ratio`;
        - "aligned": it always agrees;
        - "conflicting": it always contradicts;
        - "none": images stay grey, in three equal channels.

    conflict_ratio : float, default=0.01
        Share of each class in a colour that is not its own, in [0, 1]. Used by
        `shortcut="biased"` alone. Published training sets have 0.005, 0.01, 0.02 and
        0.05. The published test set is `conflict_ratio=0.9`: a tenth of each class in
        each of the ten colours, so that the colour tells nothing.

    severity : {1, 2, 3, 4, 5}, default=4
        How little the colours of one bias spread: by a standard deviation of 0.05,
        0.02, 0.01, 0.005 or 0.002, of values from 0 to 1. The larger, the easier the
        colour is to learn. Published results have 4.

    assignment : {"milestones", "random"}, default="milestones"
        Which images of a class get which colour:

        - "milestones": by their position in the class, as published, without any
          randomness: the first images get colour 0, the next ones colour 1, and so on,
          as many as their shares ask for.
        - "random": `round(n * conflict_ratio)` of the n images of a class are drawn,
          and each gets one of the other colours at random. With the same
          `random_state`, the images that conflict at a smaller ratio also do at a
          larger one.

    colors : array-like of shape (n_colors, 3), default=None
        Red, green and blue from 0 to 1; row k is the colour of class k. There may be
        more colours than classes. None: the ten colours of the published set.

    subset : {"train", "test", "all"}, default="all"
        With `X=None`, which of the bundled digits: 1,257, 540 or both. The split is
        fixed, that of :func:`load_shortcut_digits`.

    random_state : int, RandomState instance or None, default=None
        Draws the spread of the colours, three numbers for each image in the order of
        X, and then, if `assignment="random"`, which images conflict and their colours.
        Pass an int for reproducible output across calls.

    return_X_y : bool, default=False
        If True, return `(data, target)` instead of a Bunch.

    Returns
    -------
    colored : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the images in the order of X:

        data : ndarray of shape (n, 3, h, w), dtype uint8
            RGB images, channel first, values from 0 to 255.
        target : ndarray of shape (n,), dtype int64
            The class.
        bias : ndarray of shape (n,), dtype int64
            The number of the colour, `n_colors` where there is none.
        groups : ndarray of shape (n,), dtype int64
            Class and bias in one number: `target * (n_colors + 1) + bias`.
        aligned : ndarray of shape (n,), dtype bool
            True where the bias is the class. All False if `shortcut="none"`.
        group_names : list of str
            What each group is: `group_names[groups[i]]` describes image `i`.
        DESCR : str
            What was made.

        There is no `artifact_mask`: the colour is where the digit is.

    (data, target) : tuple if `return_X_y` is True
        The first two fields.

    Raises
    ------
    ValueError
        If X or y is not as above, or a parameter is none of the values above.

    See Also
    --------
    make_square_shortcut : A shortcut that has a place of its own.

    Notes
    -----
    A pixel is ``floor(clip(C[k] + s * e, 0, 1) * grey)``, with the colour C of bias k,
    the spread s, and three standard normal numbers e for each image. With "milestones",
    the n images of class c with bias k or less are the first
    ``round(n * cumsum(q))[k]``, where ``q[c] = 1 - conflict_ratio`` and the other
    colours share the rest equally. On MNIST's training set 300, 598, 1,199 and 3,000
    images conflict at 0.5, 1, 2 and 5 %.

    The published generator sets no seed, so that e differs from one build of the set to
    the next; here `random_state` sets it. All else has no randomness in either, and so
    is the same image by image: the order, which images conflict, and the bias of each.

    References
    ----------
    .. [1] Nam et al., "Learning from Failure: De-biasing Classifier from Biased
       Classifier", NeurIPS 2020.
    .. [2] Sreelatha et al., "DeNetDM: Debiasing by Network Depth Modulation", NeurIPS
       2024.

    Examples
    --------
    >>> import numpy as np
    >>> from masktune_sk.datasets import make_colored
    >>> train = make_colored(subset="train", conflict_ratio=0.05, random_state=0)
    >>> train.data.shape
    (1257, 3, 28, 28)
    >>> np.bincount(train.bias[train.target == 0])
    array([118,   0,   1,   1,   1,   0,   1,   1,   0,   1])
    >>> test = make_colored(subset="test", conflict_ratio=0.9, random_state=1)
    >>> np.bincount(test.bias[test.target == 0])
    array([5, 6, 5, 6, 5, 5, 6, 5, 6, 5])
    """
    check_option(assignment, _ASSIGNMENTS, name="assignment")
    ratio = check_shortcut(shortcut, conflict_ratio)
    if not is_int(severity) or not 1 <= severity <= len(_SPREADS):
        raise ValueError(
            f"severity must be an integer from 1 to {len(_SPREADS)}, got {severity!r}."
        )
    table = _check_colors(colors)
    rng = check_random_state(random_state)
    images, target, source = given_or_bundled(X, y, subset, channels=(1,))
    n_classes = target.max() + 1
    if n_classes > len(table):
        raise ValueError(
            f"The labels are from 0 to {target.max()}, but there are {len(table)} "
            "colours. Pass colors, one for each class at least."
        )

    spread = _SPREADS[severity - 1] * rng.standard_normal((len(target), 3))
    if ratio is None:
        bias, aligned = assign_nothing(target, len(table))
    elif assignment == "milestones":
        bias, aligned = assign_by_milestones(target, ratio, len(table))
    else:
        bias, aligned = assign_conflicting(
            target, n_classes, ratio, rng, n_bias=len(table)
        )

    data = as_rgb(images)
    if ratio is not None:
        colour = np.clip(table[bias] + spread, 0, 1)
        for start in range(0, len(data), _N_PER_BLOCK):
            block = np.s_[start : start + _N_PER_BLOCK]
            data[block] = data[block] * colour[block, :, np.newaxis, np.newaxis]

    return make_bunch(
        data,
        target,
        bias,
        aligned,
        class_names=[f"label {label}" for label in range(n_classes)],
        bias_names=[*(f"colour {k}" for k in range(len(table))), "no colour"],
        descr=(
            f"{len(data)} {source}, in {len(table)} colours. Shortcut: the colour "
            f"({shortcut=}, {conflict_ratio=}, {severity=}, {assignment=}); "
            f"{aligned.sum()} images are aligned with their class."
        ),
        return_X_y=return_X_y,
    )


def _check_colors(colors):
    """Return the colours of the biases, of shape (n_colors, 3), float64."""
    if colors is None:
        return np.array(_PUBLISHED)
    expected = (
        "colors must hold two colours at least, (red, green, blue) each, in numbers "
        "from 0 to 1"
    )
    try:
        table = np.array(colors, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{expected}; got {colors!r}.") from error
    if table.ndim != 2 or table.shape[1] != 3 or len(table) < 2:
        raise ValueError(f"{expected}; got an array of shape {table.shape}.")
    # NaN fails the comparison, as it should
    if not ((table >= 0) & (table <= 1)).all():
        raise ValueError(
            f"{expected}; got values from {table.min()} to {table.max()}. Divide "
            "colours from 0 to 255 by 255."
        )
    return table
