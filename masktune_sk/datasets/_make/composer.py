"""Cut-outs over photographs whose place gives the class away."""

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.utils import check_random_state

from .._checks import check_images, check_labels, check_option, check_ratio, is_int
from .composer_variants import (
    OPAQUE,
    VARIANTS,
    check_geometry,
    compose,
    fit_backgrounds,
    visible_boxes,
)
from .planted import assign_conflicting, make_bunch

_MIXED = ("mixed_same", "mixed_rand", "mixed_next")


def make_composite(
    foregrounds,
    y,
    backgrounds,
    places,
    *,
    conflict_ratio=0.05,
    variant="original",
    place_of_class=None,
    size=None,
    scale=(0.4, 0.7),
    position="random",
    flip=False,
    n_samples=None,
    random_state=None,
    return_X_y=False,
):
    """Lay cut-outs over photographs, so that the place gives the class away.

    The construction of Waterbirds [1]_: every class has a place of its own, water or
    land, and all but a share `conflict_ratio` of its samples are shown there. A
    classifier that looks at the background seems good, and fails on the samples that
    are shown at another class's place. The same samples also come in the variants of
    ImageNet-9 [2]_, which tell how much a classifier owes to either part.

    Parameters
    ----------
    foregrounds : array-like of shape (n_foregrounds, 4, h, w), uint8
        Cut-outs: RGB and alpha, channel first; alpha is 0 where the photograph shall
        be seen and 255 where the cut-out hides it.

    y : array-like of shape (n_foregrounds,), integers
        Their classes, 0 to `n_classes - 1`; each has one cut-out at least.

    backgrounds : array-like of shape (n_backgrounds, 3, H, W), uint8
        Photographs, RGB and channel first. Grey ones, with one channel or none, become
        RGB.

    places : array-like of shape (n_backgrounds,), integers
        Where each photograph was taken: any number from 0 on.

    conflict_ratio : float, default=0.05
        Share of each class that is shown at another class's place, in [0, 1]. The
        smaller, the stronger the shortcut. At `1 - 1 / n_classes` the place says
        nothing of the class. With the same `random_state`, the samples that conflict at
        a smaller ratio also conflict at a larger one. The mixed variants do not use it.

    variant : str, default="original"
        What to show of the samples, by the names of [2]_:

        - "original": the cut-out over its photograph;
        - "only_fg": the cut-out over black;
        - "no_fg": the photograph, with a black silhouette of the cut-out;
        - "only_bg_b": the photograph, with a black box around where the cut-out was;
        - "only_bg_t": the same, with the box filled by tiles of the largest strip of
          photograph left, right, above or below (black if there is none);
        - "mixed_same": the cut-out over another photograph of its class's own place;
        - "mixed_rand": the same, of the place of a random class, its own among them;
        - "mixed_next": the same, of the place of the next class (0 after the last).

        With the same arrays, parameters and `random_state`, sample i of each variant
        has the same cut-out with the same size, position and flip.

    place_of_class : sequence or mapping of int to int, default=None
        The place that belongs to each class, no two to the same; photographs of other
        places are not used. None: as many places as classes, both in ascending order.

    size : int, (int, int) or None, default=None
        Height and width of the samples in pixels; one number for both. Photographs of
        another size are scaled to cover it and cropped around the centre. None: the
        size of the photographs.

    scale : float, (float, float) or None, default=(0.4, 0.7)
        Longer side of the cut-out as a share of the shorter side of the sample, in
        (0, 1]: one for all samples, or a range to draw from. The cut-out is what is not
        fully transparent; empty borders do not count. None: it keeps its pixels.

    position : {"random", "centre", "keep"}, default="random"
        Where the cut-out goes: anywhere inside, in the centre, or where it is in
        `foregrounds`, which then have the size of the samples, with `scale=None`: this
        is for objects that were segmented in photographs, as in Waterbirds.

    flip : bool, default=False
        Whether to mirror every second cut-out, on average, left to right.

    n_samples : int, sequence of int or None, default=None
        Number of samples. None: every cut-out once, in the order of `foregrounds`. A
        number: so many, in the shares that the classes have in `y`. A sequence: so
        many of each class. They are shuffled, and the cut-outs of a class are all used
        equally often, but for one time.

    random_state : int, RandomState instance or None, default=None
        Draws all of the above. Pass an int for reproducible output across calls.

    return_X_y : bool, default=False
        If True, return `(data, target)` instead of a Bunch.

    Returns
    -------
    composite : :class:`~sklearn.utils.Bunch`
        Dictionary-like object:

        data : ndarray of shape (n_samples, 3, H, W), dtype uint8
            RGB images, channel first.
        target : ndarray of shape (n_samples,), dtype int64
            The class of the cut-out.
        bias : ndarray of shape (n_samples,), dtype int64
            The class whose place is shown. In "only_fg", the one that "original" shows.
        groups : ndarray of shape (n_samples,), dtype int64
            Class and bias in one number: `target * n_classes + bias`.
        aligned : ndarray of shape (n_samples,), dtype bool
            True where the place is that of the class.
        artifact_mask : ndarray of shape (n_samples, H, W), dtype bool
            True on the pixels of the shortcut, the background: where alpha is below a
            half. Outside of the box in "only_bg_b", everywhere in "only_bg_t", nowhere
            in "only_fg".
        foreground_mask : ndarray of shape (n_samples, H, W), dtype bool
            True on the pixels of the cut-out, where alpha is a half or more, in every
            variant: also where it was taken out.
        foreground_index, background_index : ndarray of shape (n_samples,), dtype int64
            The rows of `foregrounds` and `backgrounds` that a sample is made of.
        group_names : list of str
            What each group is: `group_names[groups[i]]` describes sample i.
        DESCR : str
            What was made.

    (data, target) : tuple if `return_X_y` is True
        The first two fields.

    Raises
    ------
    ValueError
        If an array is of another type or shape, if a class has no cut-out or no
        photographs of its place, if a cut-out is transparent or does not fit, or if a
        parameter is none of the values above.

    Notes
    -----
    `round(n * conflict_ratio)` of the n samples of a class conflict, each at the place
    of another class that is drawn. The photographs of a place are drawn without
    replacement; when all of them are used, it starts again. Where a mixed variant would
    get the photograph of "original", it takes the next one of that place.

    A test sample must share neither its cut-out nor its photograph with a training
    sample, or memory passes for skill. Split both arrays first, and make each set from
    its own part, as in the example; `foreground_index` and `background_index` show what
    was used. The published Waterbirds has `conflict_ratio=0.05` in training, and 0.5 in
    validation and test.

    The BG-gap of [2]_ is the accuracy on "mixed_same" less that on "mixed_rand": what a
    classifier loses when the background stops agreeing with the class. The photographs
    of [2]_ held objects of their own, so its mixed variants lay cut-outs over
    "only_bg_t"; here they lie over the photographs as they are.

    Colours are multiplied by alpha before they are resized, so that the edges show no
    fringe of what the transparent pixels hide.

    References
    ----------
    .. [1] Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts: On
       the Importance of Regularization for Worst-Case Generalization", ICLR 2020.
    .. [2] Xiao et al., "Noise or Signal: The Role of Image Backgrounds in Object
       Recognition", ICLR 2021.

    Examples
    --------
    Squares and discs, on dark and on bright noise:

    >>> import numpy as np
    >>> from sklearn.model_selection import train_test_split
    >>> from masktune_sk.datasets import make_composite
    >>> rng = np.random.RandomState(0)
    >>> radius = np.hypot(*np.mgrid[-12:13, -12:13])
    >>> cutouts = np.full((40, 4, 25, 25), 255, dtype=np.uint8)
    >>> cutouts[20:, 3] = np.where(radius <= 12, 255, 0)
    >>> y = np.repeat([0, 1], 20)
    >>> photos = rng.randint(0, 128, size=(60, 3, 32, 32), dtype=np.uint8)
    >>> photos[30:] += 128
    >>> places = np.repeat([0, 1], 30)

    Split both before anything is put together:

    >>> cut_train, cut_test, y_train, y_test = train_test_split(
    ...     cutouts, y, stratify=y, random_state=0)
    >>> photo_train, photo_test, place_train, place_test = train_test_split(
    ...     photos, places, stratify=places, random_state=0)
    >>> train = make_composite(
    ...     cut_train, y_train, photo_train, place_train, n_samples=200, random_state=0)
    >>> test = make_composite(
    ...     cut_test, y_test, photo_test, place_test, n_samples=100,
    ...     conflict_ratio=0.5, random_state=0)
    >>> for name, count in zip(train.group_names, np.bincount(train.groups)):
    ...     print(f"{name}: {count}")
    class 0, place 0: 95
    class 0, place 1: 5
    class 1, place 0: 5
    class 1, place 1: 95
    """
    foregrounds, y = _check_foregrounds(foregrounds, y)
    backgrounds = check_images(backgrounds, name="backgrounds")
    n_classes = y.max() + 1
    places, own = _check_places(places, len(backgrounds), place_of_class, n_classes)
    pools = [np.flatnonzero(places == place) for place in own]
    check_ratio(conflict_ratio)
    check_option(variant, VARIANTS, name="variant")
    if variant in _MIXED:
        _check_pools(pools, own, variant)
    boxes = visible_boxes(foregrounds)
    size, scale = check_geometry(size, scale, position, backgrounds, foregrounds, boxes)
    counts = _check_n_samples(n_samples, np.bincount(y))

    # A stream for each thing that is drawn, so that none depends on how many numbers
    # the others take: that keeps the samples of all variants the same.
    seeds = check_random_state(random_state).randint(2**31 - 1, size=6)
    streams = [np.random.RandomState(seed) for seed in seeds]
    rows = np.arange(len(y)) if counts is None else _draw_rows(y, counts, streams[0])
    target = y[rows]
    bias, aligned = assign_conflicting(target, n_classes, conflict_ratio, streams[1])
    photos = _draw_photos(bias, pools, streams[2])
    geometry = streams[3].random_sample((len(rows), 4))
    if variant in _MIXED:
        bias = {
            "mixed_same": target.copy(),
            "mixed_rand": streams[4].randint(n_classes, size=len(rows), dtype=np.int64),
            "mixed_next": (target + 1) % n_classes,
        }[variant]
        aligned = bias == target
        photos = _draw_photos(bias, pools, streams[5], other_than=photos)

    data = (
        np.zeros((len(rows), 3, *size), dtype=np.uint8)
        if variant == "only_fg"
        else fit_backgrounds(backgrounds, photos, size)
    )
    foreground_mask, artifact_mask = compose(
        data, foregrounds, boxes, rows, geometry, scale, position, flip, variant
    )
    return make_bunch(
        data,
        target,
        bias,
        aligned,
        class_names=[f"class {label}" for label in range(n_classes)],
        bias_names=[f"place {place}" for place in own],
        artifact_mask=artifact_mask,
        foreground_mask=foreground_mask,
        foreground_index=rows,
        background_index=photos,
        descr=(
            f"{len(data)} samples ({variant=}): {len(y)} cut-outs of {n_classes} "
            f"classes, {sum(map(len, pools))} photographs of their places. Shortcut: "
            f"the background; {aligned.sum()} samples show the place of their class."
        ),
        return_X_y=return_X_y,
    )


def _check_foregrounds(foregrounds, y):
    """Return cut-outs and their classes as arrays."""
    # Any number of channels passes here, as the cure of a wrong one is another
    foregrounds = check_images(foregrounds, name="foregrounds", channels=(1, 3, 4))
    if foregrounds.ndim == 3 or foregrounds.shape[1] != 4:
        raise ValueError(
            "foregrounds must have 4 channels, RGB and alpha, in shape (n, 4, h, w); "
            f"got shape {foregrounds.shape}. Alpha is 255 on the object and 0 around "
            "it; where a mask tells the object: np.concatenate([rgb, 255 * "
            "mask[:, np.newaxis].astype('uint8')], axis=1)."
        )
    y = check_labels(y, len(foregrounds))
    missing = np.flatnonzero(np.bincount(y) == 0)
    if len(missing):
        raise ValueError(
            f"Every class from 0 to {y.max()} must have a cut-out, but y has none of "
            f"{missing.tolist()}. Number the classes without gaps: "
            "np.unique(y, return_inverse=True)[1]."
        )
    empty = np.flatnonzero(foregrounds[:, 3].max(axis=(1, 2)) < OPAQUE)
    if len(empty):
        raise ValueError(
            f"{len(empty)} of the foregrounds have no pixel of alpha {OPAQUE} or more, "
            f"and so show nothing: rows {_shorten(empty)}. Leave them out, or, if "
            "alpha runs from 0 to 1, multiply it by 255."
        )
    return foregrounds, y


def _check_places(places, n_backgrounds, place_of_class, n_classes):
    """Return the places of the photographs, and the place of each class."""
    places = check_labels(places, n_backgrounds, name="places")
    known = np.unique(places).tolist()
    if place_of_class is None:
        if len(known) != n_classes:
            raise ValueError(
                f"There are {n_classes} classes, but photographs of {len(known)} "
                f"places, {_shorten(known)}. Pass place_of_class to tell which place "
                "belongs to which class."
            )
        return places, known
    expected = f"one place for each of the classes 0 to {n_classes - 1}"
    if isinstance(place_of_class, Mapping):
        if set(place_of_class) != set(range(n_classes)):
            raise ValueError(
                f"place_of_class must give {expected}, got the classes "
                f"{list(place_of_class)}."
            )
        place_of_class = [place_of_class[label] for label in range(n_classes)]
    own = np.ravel(place_of_class).tolist()
    if len(own) != n_classes or len(set(own)) != n_classes:
        raise ValueError(
            f"place_of_class must give {expected}, no two the same; got {own}."
        )
    unknown = [place for place in own if place not in known]
    if unknown:
        raise ValueError(
            f"place_of_class names places without photographs: {unknown}. The places "
            f"are {_shorten(known)}."
        )
    return places, own


def _check_pools(pools, own, variant):
    """Refuse a place with nothing but the photograph that is to be replaced."""
    single = [place for place, pool in zip(own, pools, strict=True) if len(pool) < 2]
    if single:
        raise ValueError(
            f"variant '{variant}' takes another photograph than 'original', so every "
            f"place needs two at least; there is one of {single}."
        )


def _check_n_samples(n_samples, available):
    """Return the number of samples of each class, or None for every cut-out once."""
    if n_samples is None:
        return None
    if is_int(n_samples):
        # Rounding the running total, so that the total comes out as asked
        milestones = np.rint(np.cumsum(available) * n_samples / available.sum())
        counts = np.diff(milestones, prepend=0).astype(np.int64).tolist()
    else:
        counts = n_samples
    if not (
        isinstance(counts, Sequence | np.ndarray)
        and len(counts) == len(available)
        and all(is_int(count) and count >= 1 for count in counts)
    ):
        raise ValueError(
            "n_samples must be None, a number, or one number for each of the "
            f"{len(available)} classes, with a sample of each class at least; got "
            f"{n_samples!r}."
        )
    return counts


def _shorten(values):
    """Write the first ten of a list."""
    values = np.asarray(values).tolist()
    return f"{values}" if len(values) <= 10 else f"{values[:10]} and so on"


def _draw_rows(y, counts, rng):
    """Draw as many cut-outs of each class as asked, shuffled."""
    rows = [
        _draw_cycles(np.flatnonzero(y == label), count, rng)
        for label, count in enumerate(counts)
    ]
    return rng.permutation(np.concatenate(rows))


def _draw_photos(bias, pools, rng, other_than=None):
    """Draw a photograph of the place of each sample, another one than before."""
    photos = np.empty_like(bias)
    for label, pool in enumerate(pools):
        samples = np.flatnonzero(bias == label)
        drawn = _draw_cycles(pool, len(samples), rng)
        if other_than is not None:
            after = pool[(np.searchsorted(pool, drawn) + 1) % len(pool)]
            drawn = np.where(drawn == other_than[samples], after, drawn)
        photos[samples] = drawn
    return photos


def _draw_cycles(pool, count, rng):
    """Draw without replacement, and start again whenever nothing is left."""
    n_cycles = -(-count // len(pool))
    cycles = [rng.permutation(pool) for _ in range(n_cycles)]
    return np.concatenate([pool[:0], *cycles])[:count]
