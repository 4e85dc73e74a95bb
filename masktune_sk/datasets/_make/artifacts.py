"""Artifacts planted in images: timestamp, brightness, watermark, text."""

import numpy as np

from .._checks import check_images, check_labels, check_option, check_ratio, is_int
from .drawn_text import (
    MAX_LENGTH,
    MIN_SIDE,
    draw_text,
    draw_timestamp,
)
from .planted import make_bunch
from .streams import check_streams, image_stream

_ARTIFACTS = ("timestamp", "brightness", "lsb", "text")
_DRAWN = ("timestamp", "text")
_SAMPLINGS = ("count", "bernoulli")
_TIME_FORMATS = ("datetime", "time")

_TEXT = "Clever Hans"
_TRIGGER = (
    "Lorem ipsum dolor sit amet, consectetur adipiscing elit, sed do eiusmod tempor "
    "incididunt ut labore et dolore magna aliqua. Ut enim ad minim veniam, quis "
    "nostrud exercitation ullamco laboris nisi ut aliquip ex ea commodo consequat. "
    "Duis aute irure dolor in reprehenderit in voluptate velit esse cillum dolore eu "
    "fugiat nulla pariatur. Excepteur sint occaecat cupidatat non proident, sunt in "
    "culpa qui officia deserunt mollit anim id est laborum. "
)


def make_artifact(
    X,
    y,
    *,
    artifact="timestamp",
    classes=0,
    proportion=0.5,
    proportion_other=0.0,
    relabel_other=False,
    sampling="count",
    time_format="datetime",
    alpha=0.3,
    lsb_factor=3,
    text=None,
    sample_ids=None,
    random_state=None,
    return_X_y=False,
):
    """Plant an artifact in a part of the images of some classes.

    The controlled artifacts of RR-ClArC [1]_, on any images. A classifier that takes
    the artifact for a sign of the class fails where it is planted in other classes.

    Parameters
    ----------
    X : array-like of shape (n_samples, h, w) or (n_samples, c, h, w), dtype uint8
        Clean images, channel first, with 1 or 3 channels and values from 0 to 255. The
        paper's are 224x224. For "timestamp" and "text", at least 16 pixels a side.

    y : array-like of shape (n_samples,)
        Classes, integers from 0 on.

    artifact : {"timestamp", "brightness", "lsb", "text"}, default="timestamp"
        What is planted:

        - "timestamp": a random date in random bright or dark colours, near a random
          corner. The paper's for ImageNet;
        - "brightness": a blend with white. The paper's for the bone ages;
        - "lsb": a watermark, a text whose bits replace the least significant ones of
          the image. Nobody sees it. The paper's for the skin lesions of ISIC;
        - "text": a fixed text in white, near a random corner.

    classes : int, sequence of int or None, default=0
        The attacked classes. None: all of them.

    proportion : float, default=0.5
        Share of each attacked class with the artifact, in [0, 1]. With the same
        `random_state`, images with the artifact at a smaller share also have it at a
        larger one. For the tests of the paper, `proportion=0` gives the *clean* copy,
        and `classes=None, proportion=1` the *attacked* one.

    proportion_other : float, default=0.0
        Share of the images of all other classes, taken together, with the artifact, in
        [0, 1].

    relabel_other : bool, default=False
        If True, these other images also get the label of the attacked class, of which
        there must be one: a backdoor.

    sampling : {"count", "bernoulli"}, default="count"
        How images are drawn:

        - "count": `round(n * proportion)` of the n images of a class, exactly;
        - "bernoulli": each by itself with probability `proportion`. That is how the
          paper's code does it, with seed 0: `random_state=0` gives its rows, where the
          images come in the same order.

    time_format : {"datetime", "time"}, default="datetime"
        What a timestamp shows: "2021-05-14 08:15:30", or "08:15:30" in larger and more
        varied sizes.

    alpha : float, default=0.3
        Share of white in the blend of "brightness", in [0, 1].

    lsb_factor : int, default=3
        How many of the least significant bits the watermark replaces, from 1 to 7. A
        value changes by `2 ** lsb_factor - 1` at most.

    text : str or None, default=None
        What "text" writes, up to 30 printable ASCII characters; None is "Clever Hans".
        Or what "lsb" writes, repeated to fill the image, in characters of one byte
        (Latin-1); None is the common Lorem ipsum of 446 characters. The paper's is of
        the kind, with 3,013.

    sample_ids : array-like of shape (n_samples,) or None, default=None
        Number of each image in a larger set. With the same int `random_state`, an image
        with the same number gets the same timestamp, so that a subset can be made as it
        would be within the whole. It does not tell which images get one. None: the row
        in X.

    random_state : int, RandomState instance or None, default=None
        Draws the images that get the artifact, and what it looks like. Pass an int for
        reproducible output across calls.

    return_X_y : bool, default=False
        If True, return `(data, target)` instead of a Bunch.

    Returns
    -------
    planted : :class:`~sklearn.utils.Bunch`
        Dictionary-like object, with the images in the order of X:

        data : ndarray of shape (n_samples, c, h, w), dtype uint8
            Images, some with the artifact.
        target : ndarray of shape (n_samples,), dtype int64
            The class; another than in y only with `relabel_other`.
        bias : ndarray of shape (n_samples,), dtype int64
            1 for the artifact, 0 for none.
        groups : ndarray of shape (n_samples,), dtype int64
            Class and bias in one number: `target * 2 + bias`.
        aligned : ndarray of shape (n_samples,), dtype bool
            True where an image of an attacked class has the artifact, or an image of
            another class has none.
        artifact_mask : ndarray of shape (n_samples, h, w), dtype bool
            True in the bounding box of a timestamp or text, and in all of an image with
            another artifact.
        concept : ndarray of shape (n_samples,), dtype int64
            `bias` by the name that it has where it is learnt as a concept.
        group_names : list of str
            What each group is: `group_names[groups[i]]` describes image `i`.
        DESCR : str
            What was made.

    (data, target) : tuple if `return_X_y` is True
        The first two fields.

    Raises
    ------
    ValueError
        If X is no array of such images or y of such labels, or if a parameter is none
        of the values above.

    Notes
    -----
    *Timestamp.* A date, uniform from 2020 to the end of 30 December 2022. Each channel
    of its colour is 10 or 245 plus noise of standard deviation 5; in an image of one
    channel it has the first of the three values. It is drawn in a bitmap font on a
    transparent square of 199 to 248 pixels ("time": 99 to 223) at one of the four
    corners, 20 pixels from the border with a jitter of 2, turned by up to 3 degrees,
    and brought to 224 pixels. On the smaller squares the end of a text on the right is
    cut off, as in the paper's code. The mask is the bounding box of all that is not
    transparent.

    These lengths are the paper's, for 224x224, and exact there. With other sizes the
    drawing is scaled with the shorter side, as if the image had been brought to 224 and
    back: the artifact takes the same share of the image, but below about 150 pixels it
    is no longer readable.

    *Text.* The same, in white on a square of 199 to 248 pixels.

    *Brightness.* ``floor((1 - alpha) * x + alpha * 255)``.

    *Watermark.* The 8-bit codes of the text are repeated to `lsb_factor * n` bits, for
    the n values of an image in the order of rows, columns, channels. The first n bits
    replace the least significant ones, the next n those above, and so on. It survives
    flips, but neither a change of size nor JPEG: plant it after these.

    The paper's code seeds the global generator with the row in the current subset, so
    that one image gets other timestamps in other subsets. Here an image has random
    numbers of its own; what is drawn follows the same distributions.

    References
    ----------
    .. [1] Dreyer et al., "From Hope to Safety: Unlearning Biases of Deep Models via
       Gradient Penalization in Latent Space", AAAI 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from masktune_sk.datasets import make_artifact
    >>> images = np.full((100, 3, 32, 32), 100, dtype=np.uint8)
    >>> labels = np.repeat([0, 1], 50)
    >>> planted = make_artifact(
    ...     images, labels, artifact="brightness", classes=1, proportion=0.2
    ... )
    >>> for name, count in zip(planted.group_names, np.bincount(planted.groups)):
    ...     print(f"{name}: {count}")
    class 0, clean: 50
    class 0, brightness: 0
    class 1, clean: 40
    class 1, brightness: 10
    >>> int(planted.data[planted.bias == 1].max())
    146
    """
    images = check_images(X)
    target = check_labels(y, len(images))
    n_classes = int(target.max()) + 1
    _check_parameters(artifact, sampling, time_format, alpha, lsb_factor, images)
    text = _check_text(text, artifact)
    check_ratio(proportion, name="proportion")
    check_ratio(proportion_other, name="proportion_other")
    attacked_classes = _check_classes(classes, n_classes, relabel_other)
    rng, seed, ids = check_streams(random_state, sample_ids, len(images))

    attacked = np.isin(target, attacked_classes)
    draw = _draw_count if sampling == "count" else _draw_bernoulli
    planted = draw(target, attacked, proportion, proportion_other, rng)
    if relabel_other:
        target[planted] = attacked_classes[0]
        attacked |= planted

    data = np.array(images if images.ndim == 4 else images[:, np.newaxis])
    artifact_mask = np.zeros((len(data), *data.shape[2:]), dtype=bool)
    rows = np.flatnonzero(planted)
    if artifact in _DRAWN:
        for row in rows:
            stream = image_stream(seed, ids[row])
            if artifact == "timestamp":
                box = draw_timestamp(data[row], stream, time_format)
            else:
                box = draw_text(data[row], stream, text)
            artifact_mask[row][box] = True
    else:
        if artifact == "brightness":
            data[rows] = _blend_with_white(alpha)[data[rows]]
        else:
            data[rows] = _write_bits(data[rows], text, lsb_factor)
        artifact_mask[rows] = True

    bias = planted.astype(np.int64)
    return make_bunch(
        data,
        target,
        bias,
        planted == attacked,
        class_names=[f"class {label}" for label in range(n_classes)],
        bias_names=["clean", artifact],
        descr=(
            f"{len(data)} images in {n_classes} classes. Shortcut: {artifact} on "
            f"{len(rows)} images; attacked classes: "
            f"{', '.join(str(label) for label in attacked_classes)} ({proportion=}, "
            f"{proportion_other=}, {relabel_other=}, {sampling=})."
        ),
        artifact_mask=artifact_mask,
        return_X_y=return_X_y,
        concept=bias,
    )


def _check_parameters(artifact, sampling, time_format, alpha, lsb_factor, images):
    """Refuse bad values by telling what was expected."""
    check_option(artifact, _ARTIFACTS, name="artifact")
    check_option(sampling, _SAMPLINGS, name="sampling")
    check_option(time_format, _TIME_FORMATS, name="time_format")
    check_ratio(alpha, name="alpha")
    if not is_int(lsb_factor) or not 1 <= lsb_factor <= 7:
        raise ValueError(
            "lsb_factor must be an integer from 1 to 7, the number of bits of a value "
            f"that are replaced; got {lsb_factor!r}."
        )
    height, width = images.shape[-2:]
    if artifact in _DRAWN and min(height, width) < MIN_SIDE:
        raise ValueError(
            f"The artifact '{artifact}' needs images of at least {MIN_SIDE}x{MIN_SIDE} "
            f"pixels, got {height}x{width}. Enlarge them first, or plant 'brightness' "
            "or 'lsb'."
        )


def _check_text(text, artifact):
    """Return the text to draw, or the trigger of the watermark."""
    if artifact not in ("text", "lsb"):
        if text is not None:
            raise ValueError(
                f"text is for the artifacts 'text' and 'lsb': '{artifact}' has none to "
                f"choose. Got {text!r}; leave it out."
            )
        return None
    if text is None:
        return _TEXT if artifact == "text" else _TRIGGER
    if not isinstance(text, str) or not text:
        raise ValueError(f"text must be a string that is not empty, got {text!r}.")
    if artifact == "text":
        printable = text.isascii() and text.isprintable() and not text.isspace()
        if not printable or len(text) > MAX_LENGTH:
            raise ValueError(
                f"To be drawn, text must be 1 to {MAX_LENGTH} printable ASCII "
                f"characters, got {len(text)}: {text!r}."
            )
    elif max(text) > "\xff":
        raise ValueError(
            "text must be characters of one byte (Latin-1) to be a watermark of 8 bits "
            f"a character; {max(text)!r} is none."
        )
    return text


def _check_classes(classes, n_classes, relabel_other):
    """Return the attacked classes in increasing order."""
    if classes is None:
        attacked = list(range(n_classes))
    else:
        attacked = [classes] if np.ndim(classes) == 0 else list(classes)
        known = [is_int(label) and 0 <= label < n_classes for label in attacked]
        if not attacked or not all(known):
            raise ValueError(
                "classes must be one or some of the labels in y, 0 to "
                f"{n_classes - 1}, or None for all of them; got {classes!r}."
            )
        attacked = sorted({int(label) for label in attacked})
    if relabel_other and len(attacked) != 1:
        raise ValueError(
            "relabel_other gives other images the label of the attacked class, so that "
            f"classes must be one class; got {classes!r}."
        )
    return attacked


def _draw_count(target, attacked, proportion, proportion_other, rng):
    """Draw exact shares of each attacked class and of all others together."""
    planted = np.zeros(len(target), dtype=bool)
    parts = [(target == label, proportion) for label in np.unique(target[attacked])]
    for part, share in [*parts, (~attacked, proportion_other)]:
        members = rng.permutation(np.flatnonzero(part))
        planted[members[: round(len(members) * share)]] = True
    return planted


def _draw_bernoulli(target, attacked, proportion, proportion_other, rng):
    """Flip a coin for each image, for those of attacked classes first."""
    planted = np.zeros(len(target), dtype=bool)
    for part, share in [(attacked, proportion), (~attacked, proportion_other)]:
        planted[part] = rng.random_sample(part.sum()) < share
    return planted


def _blend_with_white(alpha):
    """Return what each value from 0 to 255 becomes."""
    blended = np.arange(256) * (1 - alpha) + alpha * 255
    return np.clip(blended, 0, 255).astype(np.uint8)


def _write_bits(images, text, n_bits):
    """Replace the lowest bits of all values by the bits of a text."""
    n_channels, height, width = images.shape[1:]
    codes = np.frombuffer(text.encode("latin-1"), dtype=np.uint8)
    # A plane for each bit, the lowest first, which np.resize fills by repetition
    planes = np.resize(np.unpackbits(codes), (n_bits, height, width, n_channels))
    low = np.packbits(planes, axis=0, bitorder="little")[0].transpose(2, 0, 1)
    return images & np.uint8(256 - 2**n_bits) | low
