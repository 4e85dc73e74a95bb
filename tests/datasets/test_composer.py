"""Tests of the cut-outs over photographs."""

import hashlib
import inspect
import itertools

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from masktune_sk.datasets._make.composer import make_composite
from masktune_sk.datasets._make.composer_variants import VARIANTS

SOFT_DISC = np.clip(14 - 2 * np.hypot(*np.mgrid[-6:6, -8:8] + 0.5), 0, 1)
MIXED = ["mixed_same", "mixed_rand", "mixed_next"]


@pytest.fixture(scope="module")
def cutouts():
    """Ten noisy discs with a soft edge, 12x16, and nothing in the corners."""
    foregrounds = np.random.RandomState(0).randint(0, 256, (10, 4, 12, 16), np.uint8)
    foregrounds[:, 3] = np.rint(255 * SOFT_DISC)
    return foregrounds


@pytest.fixture(scope="module")
def photos():
    """Forty photographs of noise, 12x16."""
    return np.random.RandomState(1).randint(0, 256, (40, 3, 12, 16), np.uint8)


@pytest.fixture
def make(cutouts, photos):
    """Compose, with the classes and places repeating along the arrays."""

    def make(n_classes=2, **parameters):
        parameters = {
            "foregrounds": cutouts,
            "y": np.arange(10) % n_classes,
            "backgrounds": photos,
            "places": np.arange(40) % n_classes,
            "random_state": 0,
        } | parameters
        return make_composite(**parameters)

    return make


def paint(alpha, colour=(255, 255, 255)):
    """Return one cut-out of one colour."""
    alpha = np.asarray(alpha, dtype=np.uint8)
    colour = np.array(colour, dtype=np.uint8)[:, np.newaxis, np.newaxis]
    planes = np.broadcast_to(colour, (3, *alpha.shape))
    return np.concatenate([planes, alpha[np.newaxis]])[np.newaxis]


def extent(masks):
    """Return the first row and column of what is True in each mask, and the ends."""
    sides = [masks.any(axis=2), masks.any(axis=1)]
    ends = [side.shape[1] - side[:, ::-1].argmax(axis=1) for side in sides]
    starts = [side.argmax(axis=1) for side in sides]
    return np.stack(starts, axis=1), np.stack(ends, axis=1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_shapes_and_dtypes(make, variant):
    composite = make(variant=variant, n_samples=25)
    assert composite.data.shape == (25, 3, 12, 16)
    assert composite.data.dtype == np.uint8
    for field in ("artifact_mask", "foreground_mask"):
        assert composite[field].shape == (25, 12, 16)
        assert composite[field].dtype == bool
    for field in ("target", "bias", "groups", "foreground_index", "background_index"):
        assert composite[field].shape == (25,)
        assert composite[field].dtype == np.int64
    assert composite.aligned.dtype == bool
    assert_array_equal(composite.aligned, composite.bias == composite.target)
    assert_array_equal(composite.groups, composite.target * 2 + composite.bias)


@pytest.mark.parametrize("ratio", [0, 0.05, 0.3, 0.5, 1])
@pytest.mark.parametrize(
    ("n_samples", "n_0", "n_1"),
    [(None, 5, 5), (100, 50, 50), ((30, 50), 30, 50), (np.array([7, 61]), 7, 61)],
)
def test_counts_by_group(make, ratio, n_samples, n_0, n_1):
    composite = make(conflict_ratio=ratio, n_samples=n_samples)
    c_0, c_1 = round(n_0 * ratio), round(n_1 * ratio)
    counts = np.bincount(composite.groups, minlength=4)
    assert_array_equal(counts, [n_0 - c_0, c_0, c_1, n_1 - c_1])


def test_place_is_where_the_photograph_was_taken(make):
    composite = make(n_classes=3, n_samples=200, conflict_ratio=0.4)
    assert_array_equal(composite.background_index % 3, composite.bias)
    assert_array_equal(composite.foreground_index % 3, composite.target)
    pairs = set(zip(composite.target.tolist(), composite.bias.tolist(), strict=True))
    assert pairs == set(itertools.product(range(3), repeat=2))


def test_larger_ratio_only_adds_conflicts(make):
    few, many = (make(n_samples=200, conflict_ratio=ratio) for ratio in (0.1, 0.3))
    assert not (many.aligned & ~few.aligned).any()
    assert_array_equal(few.foreground_mask, many.foreground_mask)


def test_number_of_samples_keeps_the_shares_of_the_classes(make):
    y = np.repeat([0, 1, 2], [5, 3, 2])
    composite = make(n_classes=3, y=y, n_samples=1_001)
    assert_array_equal(np.bincount(composite.target), [500, 301, 200])
    assert (np.diff(composite.target) != 0).sum() > 100  # shuffled
    for label in range(3):
        used = composite.foreground_index[composite.target == label]
        uses = np.bincount(used)[y[: used.max() + 1] == label]
        assert set(uses) <= {len(used) // len(uses), len(used) // len(uses) + 1}


def test_every_cutout_once_in_order(make):
    composite = make()
    assert_array_equal(composite.foreground_index, range(10))
    assert_array_equal(composite.target, np.arange(10) % 2)


@pytest.mark.parametrize("n_samples", [30, 100])
def test_photographs_repeat_only_when_all_are_used(make, n_samples):
    composite = make(n_samples=n_samples, conflict_ratio=0)
    uses = np.bincount(composite.background_index, minlength=40)
    for place in range(2):
        mean = n_samples / 2 / 20
        assert set(uses[place::2]) <= {int(np.floor(mean)), int(np.ceil(mean))}


def test_pixels_are_blended_by_alpha(make, cutouts, photos):
    composite = make(position="keep", scale=None)
    front = cutouts[composite.foreground_index]
    back = photos[composite.background_index]
    colour, alpha = front[:, :3], front[:, 3:]
    assert set(np.unique(alpha)) > {0, 255}

    for where, part in ((alpha == 255, colour), (alpha == 0, back)):
        where = np.broadcast_to(where, part.shape)
        assert_array_equal(composite.data[where], part[where])
    share = alpha / 255
    # either part is rounded once
    expected = np.rint(colour * share) + np.rint(back * (1 - share))
    assert_array_equal(composite.data, expected)
    assert_array_equal(composite.foreground_mask, share[:, 0] > 0.5)
    assert_array_equal(composite.artifact_mask, share[:, 0] < 0.5)


@pytest.mark.parametrize("scale", [0.25, 0.5, 1.0, (0.25, 0.75)])
@pytest.mark.parametrize("border", [0, 5])
def test_scale_is_the_longer_side_of_what_is_visible(make, scale, border):
    # 8 rows and 20 columns, in an image of 40x60
    alpha = np.pad(np.full((8, 20), 255), border)
    composite = make(
        foregrounds=np.repeat(paint(alpha), 2, axis=0),
        y=[0, 1],
        size=(40, 60),
        scale=scale,
        n_samples=50,
    )
    starts, ends = extent(composite.foreground_mask)
    height, width = (ends - starts).T
    assert_array_equal(height, np.rint(width * 8 / 20))
    assert composite.foreground_mask.sum() == (height * width).sum()
    if isinstance(scale, float):
        assert set(width) == {int(scale * 40)}
    else:
        assert width.min() >= 10
        assert width.max() <= 30
        assert len(set(width)) > 10


def test_thin_cutouts_do_not_vanish(make):
    foregrounds = np.repeat(paint(np.full((1, 100), 255)), 2, axis=0)
    composite = make(foregrounds=foregrounds, y=[0, 1], scale=0.1)
    assert_array_equal(composite.foreground_mask.sum(axis=(1, 2)), [1, 1])


def test_random_position_reaches_every_place_inside(make):
    foregrounds = np.repeat(paint(np.full((10, 14), 255)), 2, axis=0)
    composite = make(foregrounds=foregrounds, y=[0, 1], scale=None, n_samples=300)
    starts, ends = extent(composite.foreground_mask)
    assert_array_equal(ends - starts, np.tile([10, 14], (300, 1)))
    assert {tuple(start) for start in starts.tolist()} == set(
        itertools.product(range(3), repeat=2)
    )


def test_centre(make):
    foregrounds = np.repeat(paint(np.full((4, 8), 255)), 2, axis=0)
    composite = make(foregrounds=foregrounds, y=[0, 1], scale=None, position="centre")
    assert composite.foreground_mask[:, 4:8, 4:12].all()
    assert composite.foreground_mask.sum() == 2 * 4 * 8


def test_flip_mirrors_about_half_of_the_cutouts(make, cutouts):
    foregrounds = cutouts.copy()
    foregrounds[:, 3, :, 10:] = 0
    keep = {"position": "keep", "scale": None, "n_samples": 200, "variant": "only_fg"}
    plain = make(foregrounds=foregrounds, **keep)
    flipped = make(foregrounds=foregrounds, flip=True, **keep)
    assert_array_equal(plain.background_index, flipped.background_index)
    same = (flipped.data == plain.data).all(axis=(1, 2, 3))
    mirrored = (flipped.data == plain.data[..., ::-1]).all(axis=(1, 2, 3))
    assert_array_equal(same, ~mirrored)
    assert 70 < mirrored.sum() < 130
    assert_array_equal(
        flipped.foreground_mask[mirrored], plain.foreground_mask[mirrored, :, ::-1]
    )


@pytest.mark.parametrize("scale", [0.3, 0.8])
def test_edges_show_nothing_of_what_is_transparent(make, scale):
    disc = np.hypot(*np.mgrid[-20:20, -20:20] + 0.5) < 20
    foreground = paint(255 * disc, (200, 0, 0))
    foreground[:, 1, ~disc] = 255  # green, where alpha is 0
    composite = make(
        foregrounds=np.repeat(foreground, 2, axis=0),
        y=[0, 1],
        backgrounds=np.zeros((2, 3, 32, 32), dtype=np.uint8),
        places=[0, 1],
        scale=scale,
    )
    assert not composite.data[:, 1:].any()
    assert composite.data[:, 0].max() == 200
    assert len(np.unique(composite.data[:, 0])) > 3  # antialiased


def test_variants_show_the_same_samples(make, photos):
    parameters = {"n_classes": 3, "n_samples": 60, "flip": True, "conflict_ratio": 0.3}
    made = {name: make(variant=name, **parameters) for name in VARIANTS}
    original = made["original"]
    for composite in made.values():
        for field in ("target", "foreground_index", "foreground_mask"):
            assert_array_equal(composite[field], original[field])
    for name in ("only_fg", "no_fg", "only_bg_b", "only_bg_t"):
        for field in ("bias", "groups", "aligned", "background_index"):
            assert_array_equal(made[name][field], original[field])

    # a black silhouette over white: what is seen is one less alpha
    white = np.full_like(photos, 255)
    seen = make(variant="no_fg", backgrounds=white, **parameters).data / 255
    only = made["only_fg"].data
    assert_array_equal(seen[:, 0] < 0.5, original.foreground_mask)
    assert not only[seen == 1].any()
    for name in ("original", *MIXED):
        shown = photos[made[name].background_index]
        assert_array_equal(made[name].data, only + np.rint(shown * seen))
        assert_array_equal(made[name].artifact_mask, original.artifact_mask)
    assert_array_equal(original.data, only + made["no_fg"].data)

    assert_array_equal(original.artifact_mask, ~original.foreground_mask)
    assert_array_equal(made["no_fg"].artifact_mask, ~original.foreground_mask)
    assert not made["only_fg"].artifact_mask.any()
    assert made["only_bg_t"].artifact_mask.all()


def test_mixed_backgrounds(make):
    parameters = {"n_classes": 3, "n_samples": 300, "conflict_ratio": 0.3}
    original = make(**parameters)
    same, rand, after = (make(variant=name, **parameters) for name in MIXED)
    assert same.aligned.all()
    assert_array_equal(after.bias, (after.target + 1) % 3)
    counts = np.bincount(rand.groups)
    assert len(counts) == 9
    assert counts.min() > 20
    for composite in (same, rand, after):
        assert_array_equal(composite.background_index % 3, composite.bias)
        assert_array_equal(composite.aligned, composite.bias == composite.target)
        assert (composite.background_index != original.background_index).all()
        assert not np.shares_memory(composite.bias, composite.target)


def test_box_is_black(make, photos):
    parameters = {"n_samples": 40, "position": "random", "scale": 0.5}
    boxed = make(variant="only_bg_b", **parameters)
    box = ~boxed.artifact_mask
    starts, ends = extent(box)
    assert_array_equal((ends - starts).max(axis=1), np.full(40, 6))
    assert_array_equal((ends - starts).prod(axis=1), box.sum(axis=(1, 2)))
    assert not (boxed.foreground_mask & ~box).any()
    back = photos[boxed.background_index]
    assert_array_equal(boxed.data, back * ~box[:, np.newaxis])


@pytest.mark.parametrize(
    ("box", "strip", "pad"),
    [
        (np.s_[3:9, 2:7], np.s_[:, 7:], [(0, 0), (7, 0)]),  # the right one is largest
        (np.s_[3:9, 9:15], np.s_[:, :9], [(0, 0), (0, 7)]),
        (np.s_[0:5, 1:14], np.s_[5:, :], [(5, 0), (0, 0)]),
        (np.s_[6:12, 0:16], np.s_[:6, :], [(0, 6), (0, 0)]),
        (np.s_[2:12, 0:16], np.s_[:2, :], [(0, 10), (0, 0)]),  # tiled five times
    ],
)
def test_box_is_tiled_with_the_largest_strip(make, photos, box, strip, pad):
    alpha = np.zeros((12, 16))
    alpha[box] = 255
    tiled = make(
        foregrounds=np.repeat(paint(alpha), 2, axis=0),
        y=[0, 1],
        position="keep",
        scale=None,
        variant="only_bg_t",
    )
    for sample, back in zip(tiled.data, photos[tiled.background_index], strict=True):
        plane = np.pad(back[:, *strip], [(0, 0), *pad], mode="wrap")
        expected = back.copy()
        expected[:, *box] = plane[:, *box]
        assert_array_equal(sample, expected)


def test_box_over_the_whole_image_has_nothing_to_be_tiled_with(make):
    tiled = make(
        foregrounds=np.repeat(paint(np.full((12, 16), 255)), 2, axis=0),
        y=[0, 1],
        scale=None,
        variant="only_bg_t",
    )
    assert not tiled.data.any()
    assert not tiled.artifact_mask.any()


@pytest.mark.parametrize("size", [24, (24, 24)])
def test_photographs_are_scaled_to_cover_the_size_and_cropped(make, size):
    # 12x16 becomes 24x32: four columns are cut on either side
    backgrounds = np.full((4, 3, 12, 16), 90, dtype=np.uint8)
    backgrounds[..., [0, -1]] = 255
    composite = make(
        backgrounds=backgrounds,
        places=[0, 0, 1, 1],
        size=size,
        variant="only_bg_b",
        position="centre",
        scale=0.25,
    )
    assert composite.data.shape[2:] == (24, 24)
    assert set(composite.data[composite.data > 0]) == {90}


def test_grey_photographs_become_rgb(make, photos):
    grey = photos[:, 0]
    for size in (None, 20):
        flat = make(backgrounds=grey, size=size)
        deep = make(backgrounds=grey[:, np.newaxis], size=size)
        rgb = make(backgrounds=np.repeat(grey[:, np.newaxis], 3, axis=1), size=size)
        assert_array_equal(flat.data, rgb.data)
        assert_array_equal(deep.data, rgb.data)


@pytest.mark.parametrize(
    "place_of_class", [(7, 3), [7, 3], np.array([7, 3]), {1: 3, 0: 7}]
)
def test_place_of_class(make, place_of_class):
    places = np.arange(40) % 4 * 2 + 1  # 1, 3, 5, 7
    composite = make(places=places, place_of_class=place_of_class, n_samples=100)
    shown = places[composite.background_index]
    assert_array_equal(shown, np.array([7, 3])[composite.bias])
    assert composite.aligned.sum() == 96  # round(2.5) is 2
    assert composite.group_names == [
        "class 0, place 7",
        "class 0, place 3",
        "class 1, place 7",
        "class 1, place 3",
    ]


def test_places_and_classes_go_together_in_ascending_order(make):
    composite = make(places=np.where(np.arange(40) < 9, 8, 4), conflict_ratio=0)
    assert_array_equal(composite.background_index < 9, composite.target == 1)
    assert composite.group_names[0] == "class 0, place 4"


def test_random_state(make):
    def hashes(**parameters):
        return [image.tobytes() for image in make(n_samples=30, **parameters).data]

    assert hashes() == hashes()
    assert hashes() == hashes(random_state=np.random.RandomState(0))
    assert hashes() != hashes(random_state=1)
    assert hashes(random_state=None) != hashes(random_state=None)


def test_global_generator_and_arrays_are_left_alone(make, cutouts, photos):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    arrays = cutouts.copy(), photos.copy()
    for variant in VARIANTS:
        composite = make(variant=variant, position="keep", scale=None)
        assert not np.shares_memory(composite.data, photos)
    assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert_array_equal(arrays[0], cutouts)
    assert_array_equal(arrays[1], photos)


def test_output_never_changes(make):
    digest = hashlib.sha256()
    for variant in VARIANTS:
        composite = make(
            3, variant=variant, n_samples=12, scale=None, position="keep", flip=True
        )
        digest.update(composite.data.tobytes())
        digest.update(composite.groups.astype("<i8").tobytes())
    assert (
        digest.hexdigest()
        == "6d60cfb861d412fb617e74aaf51acad85f78725b987c2b75e8cfa364c7f6047d"
    )


def test_return_X_y(make):
    composite = make()
    X, y = make(return_X_y=True)
    assert_array_equal(X, composite.data)
    assert_array_equal(y, composite.target)


def test_descr_says_what_was_made(make):
    descr = make(n_samples=100, variant="no_fg").DESCR
    assert "100 samples (variant='no_fg'): 10 cut-outs of 2 classes" in descr
    assert "40 photographs" in descr
    assert "96 samples show the place of their class" in descr


def test_variants_are_documented():
    for variant in VARIANTS:
        assert f'- "{variant}": ' in inspect.getdoc(make_composite)


def ones(*shape):
    return np.full(shape, 255, dtype=np.uint8)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"foregrounds": np.ones((10, 4, 5, 5))}, "foregrounds must be uint8 images"),
        (
            {"foregrounds": ones(10, 3, 5, 5)},
            r"must have 4 channels, RGB and alpha.*got shape \(10, 3, 5, 5\). Alpha is",
        ),
        ({"foregrounds": ones(10, 5, 5)}, r"4 channels, .* got shape \(10, 5, 5\)"),
        ({"foregrounds": ones(10, 9, 8, 4)}, "channel first, but is channel last"),
        ({"y": np.zeros(9)}, "There are 10 samples, but y has 9 labels"),
        ({"y": np.repeat([0, 2], 5)}, r"class from 0 to 2 .* y has none of \[1\]"),
        (
            {"foregrounds": ones(10, 4, 5, 5) // 255},
            r"10 of the foregrounds have no pixel of alpha 128 .* multiply it by 255",
        ),
        ({"backgrounds": np.ones((40, 3, 5, 5))}, "backgrounds must be uint8 images"),
        ({"places": np.zeros(3, int)}, "There are 40 samples, but places has 3 labels"),
        (
            {"places": np.arange(40) % 12},
            r"2 classes, but photographs of 12 places, \[0, .* 9\] and so on. Pass "
            "place_of_class",
        ),
        (
            {"place_of_class": [0, 0]},
            r"one place for each of the classes 0 to 1, no two the same; got \[0, 0\]",
        ),
        ({"place_of_class": [0]}, r"no two the same; got \[0\]"),
        ({"place_of_class": 1}, r"no two the same; got \[1\]"),
        ({"place_of_class": {0: 1}}, r"classes 0 to 1, got the classes \[0\]"),
        (
            {"place_of_class": [0, 5]},
            r"places without photographs: \[5\]. The places are \[0, 1\]",
        ),
        ({"conflict_ratio": 1.5}, "conflict_ratio must be a number from 0 to 1"),
        ({"variant": "mixed"}, "variant must be one of 'original', .* got 'mixed'"),
        (
            {"variant": "mixed_same", "places": [0] + [1] * 39},
            r"'mixed_same' takes another photograph .* there is one of \[0\]",
        ),
        ({"size": 0}, r"size must be a number of pixels, a pair .* got 0"),
        ({"size": (8, 8, 3)}, r"size must be .* got \(8, 8, 3\)"),
        ({"size": (8, 8.5)}, r"size must be .* got \(8, 8.5\)"),
        ({"size": "8"}, "size must be .* got '8'"),
        ({"scale": 0}, r"scale must be a share .* in \(0, 1\], .* got 0"),
        ({"scale": 1.1}, "scale must be .* got 1.1"),
        ({"scale": (0.6, 0.3)}, r"scale must be .* got \(0.6, 0.3\)"),
        ({"scale": (0.6, None)}, r"scale must be .* got \(0.6, None\)"),
        ({"scale": float("nan")}, "scale must be .* got nan"),
        ({"scale": True}, "scale must be .* got True"),
        (
            {"scale": None, "size": 10},
            r"10 of the foregrounds are larger than the samples, \(10, 10\), the first "
            "in row 0. Pass a scale",
        ),
        ({"position": "center"}, "position must be one of 'random', 'centre', 'keep'"),
        ({"position": "keep"}, r"it needs scale=None, got \(0.4, 0.7\)"),
        (
            {"position": "keep", "scale": None, "size": 20},
            r"of the samples, \(20, 20\); got \(12, 16\). Pass size=\(12, 16\)",
        ),
        ({"n_samples": 1}, "n_samples must be .* a sample of each class .* got 1"),
        ({"n_samples": 0}, "n_samples must be None, a number, .* got 0"),
        ({"n_samples": (5,)}, r"one number for each of the 2 classes, .* got \(5,\)"),
        ({"n_samples": (5, 0)}, r"n_samples must be .* got \(5, 0\)"),
        ({"n_samples": 5.0}, "n_samples must be .* got 5.0"),
        ({"random_state": "seed"}, "'seed' cannot be used to seed"),
    ],
)
def test_bad_input(make, parameters, message):
    with pytest.raises(ValueError, match=message):
        make(**parameters)
