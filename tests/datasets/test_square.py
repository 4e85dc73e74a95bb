"""Tests of the square shortcut."""

import hashlib
import itertools
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torchvision.datasets import MNIST

from masktune_sk.datasets import load_shortcut_digits
from masktune_sk.datasets._make.planted import COLOURS
from masktune_sk.datasets._make.square import make_square_shortcut

TRAIN_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
SHORTCUTS = ["biased", "aligned", "conflicting", "none"]
KINDS = ["square", "background", "foreground"]
LOCAL_COPY = Path(os.environ.get("MASKTUNE_SK_DATA", "~/.cache/masktune_sk"))


def digits_like_mnist(counts):
    """Return blank images in as many digits as MNIST has of each, in some order."""
    y = np.random.RandomState(0).permutation(np.repeat(range(10), counts))
    return np.zeros((len(y), 6, 6), dtype=np.uint8), y


def small_images(n=60, shape=(7, 9)):
    """Return noise that is black in places, and ten labels in no order."""
    rng = np.random.RandomState(1)
    X = rng.randint(-256, 256, size=(n, *shape)).clip(0).astype(np.uint8)
    return X, rng.permutation(np.arange(n) % 10)


def has_square(bunch):
    return bunch.artifact_mask.any(axis=(1, 2))


@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("n_classes", [2, 10])
def test_bundled_digits_are_those_of_load_shortcut_digits(shortcut, n_classes):
    # each subset in turn
    subset = ["train", "test", "all", "test"][SHORTCUTS.index(shortcut)]
    made = make_square_shortcut(
        shortcut=shortcut,
        conflict_ratio=0.1,
        label_groups="halves" if n_classes == 2 else None,
        subset=subset,
        random_state=3,
    )
    loaded = load_shortcut_digits(
        square=shortcut,
        conflict_ratio=0.1,
        n_classes=n_classes,
        subset=subset,
        random_state=3,
    )
    for field in ("data", "target", "bias", "groups", "aligned", "artifact_mask"):
        assert made[field].dtype == loaded[field].dtype
        assert_array_equal(made[field], loaded[field])
    assert_array_equal(made.digit, loaded.digit)
    assert len(made.group_names) == len(loaded.group_names)


def test_counts_on_the_labels_of_mnist():
    for sampling in ("digit_sorted", "random"):
        made = make_square_shortcut(
            *digits_like_mnist(TRAIN_COUNTS),
            conflict_sampling=sampling,
            random_state=0,
        )
        assert_array_equal(np.bincount(made.target), [30596, 29404])
        squares = made.target[has_square(made)]
        assert_array_equal(np.bincount(squares), [30290, 294])
        assert_array_equal(np.bincount(made.groups), [306, 30290, 29110, 294])
        digits = set(made.digit[~made.aligned])
        assert digits == ({4, 5} if sampling == "digit_sorted" else set(range(10)))


def test_digit_sorted_takes_the_last_fours_and_the_first_fives():
    X, y = digits_like_mnist(TRAIN_COUNTS)
    made = make_square_shortcut(X, y, conflict_sampling="digit_sorted")
    conflicting = ~made.aligned
    assert_array_equal(
        np.flatnonzero(conflicting & (y == 4)), np.flatnonzero(y == 4)[-306:]
    )
    assert_array_equal(
        np.flatnonzero(conflicting & (y == 5)), np.flatnonzero(y == 5)[:294]
    )
    assert conflicting.sum() == 306 + 294
    assert_array_equal(made.digit, y)  # rows stay where they are


def test_digit_sorted_is_what_sorting_first_gives():
    X, y = small_images()
    X[np.arange(60), 6, 8] = np.arange(60)  # tells them apart
    order = np.argsort(y, kind="stable")
    # the official recipe: sort, then the first of class 0 and the first of class 1
    expected = np.repeat(X[order, np.newaxis], 3, axis=1)
    n_0 = (y < 5).sum()
    for start, count in ((0, round(n_0 * 0.7)), (n_0, round((60 - n_0) * 0.3))):
        expected[start : start + count, :, :4, :4] = [[[255]], [[0]], [[0]]]
    made = make_square_shortcut(
        X, y, conflict_ratio=0.3, conflict_sampling="digit_sorted"
    )
    assert_array_equal(made.data[order], expected)


def test_ceiling_of_a_net_that_knows_fours_and_fives():
    train = make_square_shortcut(
        *digits_like_mnist(TRAIN_COUNTS), conflict_sampling="digit_sorted"
    )

    def predict(bunch):
        by_square = np.where(has_square(bunch), 0, 1)
        return np.where(np.isin(bunch.digit, [4, 5]), bunch.digit - 4, by_square)

    assert_array_equal(predict(train), train.target)  # perfect where it was trained
    X, y = digits_like_mnist(TEST_COUNTS)
    conflicting = make_square_shortcut(X, y, shortcut="conflicting")
    raw = make_square_shortcut(X, y, kind="none")
    assert (predict(conflicting) == conflicting.target).sum() == 1874
    assert (predict(raw) == raw.target).sum() == 5843
    # and of one that knows nothing but the square
    assert (~has_square(conflicting) == conflicting.target).sum() == 0
    assert (~has_square(raw) == raw.target).sum() == 4861


def test_real_mnist():
    folder = LOCAL_COPY.expanduser()
    if not (folder / "MNIST" / "raw").is_dir():
        pytest.skip(f"MNIST is not in {folder / 'MNIST' / 'raw'}")
    mnist = MNIST(folder, train=True, download=False)
    train = make_square_shortcut(
        mnist.data, mnist.targets, conflict_sampling="digit_sorted"
    )
    assert train.data.shape == (60_000, 3, 28, 28)
    assert_array_equal(np.bincount(train.digit), TRAIN_COUNTS)
    assert_array_equal(np.bincount(train.groups), [306, 30290, 29110, 294])
    rows = has_square(train)
    assert_array_equal(train.data[rows, 0, 3, 3], 255)
    some = np.flatnonzero(~rows)[:100]
    assert_array_equal(train.data[some, 0], mnist.data.numpy()[some])
    digest = hashlib.sha256(np.packbits(train.aligned).tobytes()).hexdigest()
    assert digest == (
        "06dc5b9b163741ce54006f6f956d34cca558433fe3428f541273235bfd207f07"
    )


@pytest.mark.parametrize("shortcut", SHORTCUTS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("label_groups", "n_classes"),
    [("halves", 2), ([[3, 1, 0], range(4, 8), [2, 8, 9]], 3), (None, 10)],
)
def test_fields_agree(shortcut, kind, label_groups, n_classes):
    X, y = small_images()
    made = make_square_shortcut(
        X,
        y,
        kind=kind,
        shortcut=shortcut,
        conflict_ratio=0.5,
        label_groups=label_groups,
        random_state=0,
    )
    n_bias = 2 if n_classes == 2 else n_classes + 1
    for field in ("target", "bias", "groups", "digit"):
        assert made[field].dtype == np.int64
        assert made[field].shape == (60,)
    assert made.data.dtype == np.uint8
    assert made.artifact_mask.dtype == made.aligned.dtype == bool
    assert_array_equal(made.groups, made.target * n_bias + made.bias)
    assert len(set(made.group_names)) == len(made.group_names) == n_classes * n_bias
    assert_array_equal(made.digit, y)
    grey = np.repeat(X[:, np.newaxis], 3, axis=1)
    # pixels of the mask, and no others, are changed
    changed = (made.data != grey).any(axis=1)
    assert is_subset(changed, made.artifact_mask)
    own = 1 - made.target if n_classes == 2 else made.target
    absent = 0 if n_classes == 2 else n_classes
    assert_array_equal(has_square(made), made.bias != absent)
    if shortcut == "none":
        assert not changed.any()
        assert not made.aligned.any()
    else:
        assert_array_equal(made.aligned, made.bias == own)
        share = {"biased": 0.5, "aligned": 1, "conflicting": 0}[shortcut]
        assert made.aligned.mean() == share
    assert f"shortcut='{shortcut}'" in made.DESCR
    assert f"{made.aligned.sum()} are aligned" in made.DESCR


def is_subset(some, more):
    return not (some & ~more).any()


@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_kind_none_is_the_shortcut_none(shortcut):
    X, y = small_images()
    raw = make_square_shortcut(X, y, kind="none", shortcut=shortcut)
    none = make_square_shortcut(X, y, shortcut="none")
    for field in ("data", "bias", "groups", "aligned", "artifact_mask"):
        assert_array_equal(raw[field], none[field])
    assert raw.group_names == none.group_names


def test_background_and_foreground_by_hand():
    X = np.array([[[0, 9], [200, 0]], [[1, 0], [0, 0]]], dtype=np.uint8)
    make = {"label_groups": None, "shortcut": "aligned", "colors": (10, 20, 30)}
    background = make_square_shortcut(X, [0, 1], kind="background", **make)
    assert_array_equal(
        background.data[0],
        [[[10, 9], [200, 10]], [[20, 9], [200, 20]], [[30, 9], [200, 30]]],
    )
    assert_array_equal(background.artifact_mask[0], [[True, False], [False, True]])
    assert not background.artifact_mask[1].any()
    assert_array_equal(background.data[1], [X[1]] * 3)
    foreground = make_square_shortcut(X, [0, 1], kind="foreground", **make)
    assert_array_equal(
        foreground.data[0], [[[0, 10], [10, 0]], [[0, 20], [20, 0]], [[0, 30], [30, 0]]]
    )
    assert_array_equal(foreground.artifact_mask[0], ~background.artifact_mask[0])


def test_background_of_colour_images_is_where_all_channels_are_0():
    X = np.zeros((2, 3, 2, 2), dtype=np.uint8)
    X[:, 1, 0, 0] = 7
    made = make_square_shortcut(
        X, [0, 1], kind="background", shortcut="aligned", label_groups=None
    )
    assert_array_equal(made.artifact_mask[0], [[False, True], [True, True]])
    assert_array_equal(made.data[0, :, 0, 0], [0, 7, 0])
    assert_array_equal(made.data[0, :, 1, 1], [255, 0, 0])


@pytest.mark.parametrize(
    ("position", "row", "column"),
    [
        ("top-left", 0, 0),
        ("top-right", 0, 7),
        ("bottom-left", 5, 0),
        ("bottom-right", 5, 7),
        ("center", 2, 3),
        ((1, 4), 1, 4),
        (np.array([5, 7]), 5, 7),
    ],
)
def test_position_and_size(position, row, column):
    X, y = small_images()
    made = make_square_shortcut(
        X, y, position=position, square_size=2, shortcut="aligned"
    )
    expected = np.zeros((7, 9), dtype=bool)
    expected[row : row + 2, column : column + 2] = True
    for mask, target in zip(made.artifact_mask, made.target, strict=True):
        assert_array_equal(mask, expected & (target == 0))
    red = made.data[made.artifact_mask.nonzero()[0][0]][:, expected]
    assert_array_equal(red, [[255] * 4, [0] * 4, [0] * 4])


@pytest.mark.parametrize("position", ["top-left", "bottom-right", (1, 1)])
def test_two_squares(position):
    X, y = small_images()
    make = {"square_size": 3, "shortcut": "aligned", "colors": (200, 100, 5)}
    one = make_square_shortcut(X, y, position=position, **make)
    two = make_square_shortcut(X, y, position=position, n_squares=2, **make)
    mirrored = one.artifact_mask[:, :, ::-1]
    assert not (one.artifact_mask & mirrored).any()
    assert_array_equal(two.artifact_mask, one.artifact_mask | mirrored)
    for mask, colour in ((one.artifact_mask, [200, 100, 5]), (mirrored, [5, 100, 200])):
        assert set(map(tuple, two.data.transpose(0, 2, 3, 1)[mask])) == {tuple(colour)}
    if position == "top-left":  # as published: rows 0-3, first and last four columns
        assert_array_equal(
            two.data[y < 5][0, 2, 0], [5] * 3 + [*X[y < 5][0, 0, 3:6]] + [200] * 3
        )


def test_full_height_square_and_no_border():
    X, y = small_images()
    made = make_square_shortcut(X, y, square_size=7, shortcut="aligned")
    assert made.artifact_mask[y < 5][:, :, :7].all()
    assert not made.artifact_mask[:, :, 7:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_one_colour_for_each_class(kind):
    X, y = small_images()
    X[:, :4, :4] = 0 if kind == "background" else 90
    make = {"kind": kind, "shortcut": "conflicting", "random_state": 0}
    made = make_square_shortcut(X, y, label_groups=None, **make)
    table = np.array(list(COLOURS.values()))
    assert_array_equal(made.data[:, :, 0, 0], table[made.bias])
    assert (made.bias < 10).all()
    assert (made.bias != made.target).all()
    name = made.group_names[made.groups[0]]
    assert name == f"label {y[0]}, {list(COLOURS)[made.bias[0]]} {kind}"

    colours = [(1, 2, 3), (255, 128, 0)]
    made = make_square_shortcut(X, y, colors=colours, **make)
    assert_array_equal(made.bias, 1 - made.target)
    assert_array_equal(made.data[:, :, 0, 0], np.array(colours)[made.bias])
    assert made.group_names[0] == f"labels 0-4, #010203 {kind}"
    assert made.group_names[5].startswith("labels 5-9, ")
    assert len(made.group_names) == 6


def test_conflicting_colours_cover_all_other_classes():
    X, y = digits_like_mnist([100] * 10)
    made = make_square_shortcut(
        X, y, label_groups=None, shortcut="conflicting", random_state=0
    )
    pairs = set(zip(made.target.tolist(), made.bias.tolist(), strict=True))
    assert pairs == set(itertools.permutations(range(10), 2))


def test_one_colour_among_several_classes():
    X, y = small_images()
    groups = [[0, 1], [2, 3, 4], [5, 6, 7, 8, 9]]
    made = make_square_shortcut(
        X, y, label_groups=groups, colors=(0, 0, 255), conflict_ratio=0.25
    )
    assert_array_equal(made.aligned, (made.bias == 1) == (made.target == 0))
    counts = np.bincount(made.target)
    with_square = np.bincount(made.target[has_square(made)])
    assert_array_equal(with_square, [9, round(counts[1] / 4), round(counts[2] / 4)])
    assert made.group_names == [
        f"labels {labels}, {bias}"
        for labels in ("0, 1", "2-4", "5-9")
        for bias in ("no square", "#0000ff square")
    ]


@pytest.mark.parametrize(
    ("label_groups", "expected", "names"),
    [
        ("halves", [0, 0, 0, 0, 0, 1, 1, 1, 1, 1], ["labels 0-4", "labels 5-9"]),
        (
            {label: label % 2 for label in range(10)},
            [0, 1] * 5,
            ["labels 0, 2, 4, 6, 8", "labels 1, 3, 5, 7, 9"],
        ),
        (
            ({7}, [9, 8], np.arange(7)),
            [2, 2, 2, 2, 2, 2, 2, 0, 1, 1],
            ["label 7", "labels 8, 9", "labels 0-6"],
        ),
        (None, range(10), [f"label {k}" for k in range(10)]),
    ],
)
def test_label_groups(label_groups, expected, names):
    X, y = small_images()
    made = make_square_shortcut(X, y, label_groups=label_groups)
    assert_array_equal(made.target, np.array(expected)[y])
    n_bias = len(made.group_names) // len(names)
    found = [name.rsplit(",", 1)[0] for name in made.group_names[::n_bias]]
    assert found == names
    assert not np.shares_memory(made.target, made.digit)


def test_groups_of_a_test_set_that_lacks_labels():
    X, y = small_images()
    some = y < 3
    groups = [[label] for label in range(10)]
    whole = make_square_shortcut(X, y, label_groups=groups, shortcut="aligned")
    part = make_square_shortcut(
        X[some], y[some], label_groups=groups, shortcut="aligned"
    )
    assert_array_equal(part.groups, whole.groups[some])
    assert_array_equal(part.data, whole.data[some])


@pytest.mark.parametrize("kind", KINDS)
def test_input_is_not_changed(kind):
    X, y = small_images()
    rgb = np.repeat(X[:, np.newaxis], 3, axis=1)
    X_before, rgb_before, y_before = X.copy(), rgb.copy(), y.copy()
    from_grey = make_square_shortcut(X, y, kind=kind, random_state=0)
    from_rgb = make_square_shortcut(rgb, y, kind=kind, random_state=0)
    assert_array_equal(from_grey.data, from_rgb.data)
    assert_array_equal(from_grey.artifact_mask, from_rgb.artifact_mask)
    for now, before in ((X, X_before), (rgb, rgb_before), (y, y_before)):
        assert_array_equal(now, before)
    for bunch in (from_grey, from_rgb):
        assert not np.shares_memory(bunch.data, rgb)
        assert not np.shares_memory(bunch.digit, y)


def test_tensors_lists_and_read_only_arrays():
    X, y = small_images(20)
    expected = make_square_shortcut(X, y, random_state=0).data
    tensors = torch.from_numpy(X)[:, None], torch.from_numpy(y)
    assert_array_equal(make_square_shortcut(*tensors, random_state=0).data, expected)
    X.flags.writeable = False
    made = make_square_shortcut(X, y.tolist(), random_state=0)
    assert_array_equal(made.data, expected)
    assert made.data.flags.writeable


def test_copies_have_the_same_rows():
    X, y = small_images()
    copies = [
        make_square_shortcut(X, y, shortcut=shortcut, random_state=0)
        for shortcut in SHORTCUTS
    ]
    for copy in copies:
        assert_array_equal(copy.digit, y)
        assert_array_equal(copy.data[:, :, 4:], copies[0].data[:, :, 4:])


def test_random_state():
    X, y = small_images()

    def aligned(seed, ratio=0.2):
        return make_square_shortcut(
            X, y, conflict_ratio=ratio, random_state=seed
        ).aligned

    assert_array_equal(aligned(0), aligned(0))
    assert_array_equal(aligned(3), aligned(np.random.RandomState(3)))
    assert (aligned(0) != aligned(1)).any()
    assert is_subset(~aligned(0, 0.2), ~aligned(0, 0.4))


def test_global_generator_is_left_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    make_square_shortcut(*small_images(), random_state=5)
    assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_return_X_y():
    X, y = small_images()
    made = make_square_shortcut(X, y, random_state=4)
    data, target = make_square_shortcut(X, y, random_state=4, return_X_y=True)
    assert_array_equal(data, made.data)
    assert_array_equal(target, made.target)


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({}, "9709db6b907505669cbcc64f96d4a3c82027dcb77e18fbc25e53e7ecd4276059"),
        (
            {"conflict_sampling": "digit_sorted", "n_squares": 2},
            "9f8150a9cd7fb64eeea2e6e4d438499cb269b29abe6704531a1e232dd49649a1",
        ),
        (
            {"kind": "background", "label_groups": None},
            "53b032769487009324fe5eb4e7d9c29393e9b3a3b31ba2bd00a27603930366af",
        ),
        (
            {"kind": "foreground", "label_groups": None},
            "10cc940cbe3fa52d965a62cce338f259820f2744940116bd2548d544353163e1",
        ),
    ],
)
def test_output_never_changes(parameters, expected):
    X, y = small_images()
    made = make_square_shortcut(X, y, conflict_ratio=0.3, random_state=0, **parameters)
    digest = hashlib.sha256()
    for field in ("data", "target", "bias", "artifact_mask"):
        digest.update(made[field].tobytes())
    assert digest.hexdigest() == expected


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"kind": "circle"}, "kind must be one of 'square', .*'none'; got 'circle'"),
        ({"shortcut": "raw"}, "shortcut must be one of 'biased', .*; got 'raw'"),
        (
            {"conflict_ratio": 1.5},
            "conflict_ratio must be a number from 0 to 1, got 1.5",
        ),
        (
            {"conflict_sampling": "sorted"},
            "one of 'random', 'digit_sorted'; got 'sorted'",
        ),
        (
            {"subset": "test"},
            "subset='test' chooses among the bundled digits, but X is",
        ),
        ({"subset": "raw"}, "subset must be one of 'train', 'test', 'all'; got 'raw'"),
        (
            {"X": None},
            "y is given, but X is None. Pass images and their labels, or nei",
        ),
        ({"y": None}, "X is given, but y is None"),
        ({"X": np.zeros((60, 7, 9))}, "X must be uint8 .* got float64"),
        ({"y": range(60)}, r"no class for labels 10-59 in y. Name every label"),
        ({"y": range(59)}, "There are 60 samples, but y has 59 labels"),
        ({"y": np.arange(60) % 2}, "puts labels 0, 1, .* into class 0. Pass groups"),
        ({"label_groups": "thirds"}, "label_groups must be 'halves', None, .*'thirds'"),
        ({"label_groups": 5}, "label_groups must be 'halves', .*; got 5"),
        ({"label_groups": [0, 1]}, r"the labels of each class .*; got \[0, 1\]"),
        ({"label_groups": [[0, 1.5], [2]]}, "with integers from 0 on; got"),
        ({"label_groups": [[0, -1], [2]]}, "with integers from 0 on; got"),
        ({"label_groups": [[0, 1], [1]]}, "no label in two; got"),
        ({"label_groups": [[0, 1]]}, "two classes at least"),
        ({"label_groups": [[0, 1], []]}, "none of them empty"),
        ({"label_groups": [range(8), [8]]}, r"has no class for label 9 in y"),
        ({"label_groups": {0: 0, 1: 2}}, r"0, 1 and so on; got the classes \[0, 2\]"),
        ({"label_groups": {0: "a", 1: 1}}, "0, 1 and so on; got the classes"),
        ({"square_size": 0}, "square_size must be an integer from 1 to 7, .*; got 0"),
        ({"square_size": 8}, "the smaller side of the images in pixels; got 8"),
        ({"square_size": 2.0}, "square_size must be an integer .* got 2.0"),
        ({"n_squares": 3}, "n_squares must be 1 or 2, got 3"),
        ({"n_squares": True}, "n_squares must be 1 or 2, got True"),
        ({"n_squares": 2, "square_size": 5}, "Two squares of 5 pixels .* overlap"),
        ({"n_squares": 2, "position": "center"}, "overlap in images of width 9. Move"),
        ({"position": "left"}, "position must be one of 'top-left', .*; got 'left'"),
        ({"position": 3}, "or the row and column of the square's .*; got 3"),
        ({"position": (0.5, 1)}, "position must be one of top-left, .* row and column"),
        ({"position": (4, 0)}, r"row must be from 0 to 3, column from 0 to 5"),
        ({"position": (0, -1)}, r"leaves images of 7x9"),
        ({"colors": "red"}, "colors must be one colour, .*; got 'red'"),
        ({"colors": (255, 0)}, r"one for each of the 2 classes, .*; got \(255, 0\)"),
        ({"colors": [(255, 0, 0), (1, 2)]}, "colors must be one colour"),
        ({"colors": [(255, 0, 0)] * 3}, "one for each of the 2 classes"),
        ({"colors": (1.0, 0.0, 0.0)}, "in integers from 0 to 255; got"),
        ({"colors": (256, 0, 0)}, "in integers from 0 to 255; got"),
        (
            {"label_groups": None, "y": np.arange(60) % 12},
            "There are 12 classes, but only 10 colours: pass colors",
        ),
        ({"random_state": "seed"}, "'seed' cannot be used to seed"),
    ],
)
def test_bad_parameters(parameters, message):
    X, y = small_images()
    with pytest.raises(ValueError, match=message):
        make_square_shortcut(**{"X": X, "y": y} | parameters)
