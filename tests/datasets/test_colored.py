"""Tests of ColoredMNIST."""

import hashlib

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from masktune_sk.datasets import load_shortcut_digits
from masktune_sk.datasets._make.colored import make_colored

TRAIN_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
SHORTCUTS = ["biased", "aligned", "conflicting", "none"]
# the published colours in 8 bits, as a picture of the set shows them
TABLE = [
    (251, 80, 43),
    (253, 233, 90),
    (172, 118, 148),
    (200, 212, 153),
    (22, 198, 250),
    (82, 245, 114),
    (6, 60, 193),
    (142, 26, 194),
    (53, 100, 5),
    (213, 52, 68),
]


def white_pixels(counts):
    """Return images of one white pixel, with so many labels of each class."""
    y = np.random.RandomState(0).permutation(np.repeat(range(len(counts)), counts))
    return np.full((len(y), 1, 1, 1), 255, dtype=np.uint8), y


def small_images(n=60):
    rng = np.random.RandomState(1)
    X = rng.randint(-256, 256, size=(n, 5, 4)).clip(0).astype(np.uint8)
    return X, rng.permutation(np.arange(n) % 10)


@pytest.mark.parametrize(
    ("ratio", "n_conflicting"), [(0.005, 300), (0.01, 598), (0.02, 1199), (0.05, 3000)]
)
def test_counts_of_the_training_set_on_the_labels_of_mnist(ratio, n_conflicting):
    X, y = white_pixels(TRAIN_COUNTS)
    made = make_colored(X, y, conflict_ratio=ratio, random_state=0)
    assert (~made.aligned).sum() == n_conflicting
    cells = np.bincount(made.groups, minlength=110).reshape(10, 11)
    assert not cells[:, 10].any()
    assert cells[:, :10].min() > 0
    assert_array_equal(cells.sum(axis=1), TRAIN_COUNTS)
    if ratio == 0.005:
        assert_array_equal(cells[0, :10], [5893, 4, 3, 3, 4, 3, 3, 3, 4, 3])


def test_test_set_is_uniform_over_the_colours():
    X, y = white_pixels(TEST_COUNTS)
    made = make_colored(X, y, conflict_ratio=0.9, random_state=0)
    cells = np.bincount(made.groups, minlength=110).reshape(10, 11)[:, :10]
    share = cells / np.array(TEST_COUNTS)[:, np.newaxis]
    assert_allclose(share, 0.1, atol=0.001)
    assert made.aligned.mean() == pytest.approx(0.1, abs=5e-4)


def test_milestones_go_by_position_and_need_no_seed():
    X, y = small_images()
    X, y = np.repeat(X, 5, axis=0), np.repeat(y, 5)
    made = make_colored(X, y, conflict_ratio=0.5, random_state=0)
    again = make_colored(X, y, conflict_ratio=0.5, random_state=1)
    for label in range(10):
        assert (np.diff(made.bias[y == label]) >= 0).all()
    assert_array_equal(made.bias, again.bias)
    assert (made.data != again.data).any()


def test_random_assignment():
    X, y = white_pixels([200] * 10)
    make = {"assignment": "random", "conflict_ratio": 0.3}
    made = make_colored(X, y, random_state=0, **make)
    assert_array_equal(np.bincount(y[~made.aligned]), [60] * 10)
    assert (np.diff(made.bias[y == 5]) < 0).any()
    assert (made.bias != make_colored(X, y, random_state=1, **make).bias).any()
    fewer = make_colored(X, y, random_state=0, assignment="random", conflict_ratio=0.1)
    assert not (~fewer.aligned & made.aligned).any()
    assert_array_equal(fewer.bias[~fewer.aligned], made.bias[~fewer.aligned])
    cells = np.bincount(made.groups, minlength=110).reshape(10, 11)[:, :10]
    assert cells.min() > 0


@pytest.mark.parametrize(
    ("severity", "spread"), [(1, 0.05), (2, 0.02), (3, 0.01), (4, 0.005), (5, 0.002)]
)
def test_colours_spread_as_published(severity, spread):
    X, y = white_pixels([2000] * 10)
    made = make_colored(
        X, y, shortcut="aligned", severity=severity, random_state=0
    ).data[:, :, 0, 0]
    for label, colour in enumerate(TABLE):
        shown = made[y == label]
        for channel, value in enumerate(colour):
            if 255 * spread * 4 < value < 255 - 255 * spread * 4:  # never clipped
                values = shown[:, channel].astype(float)
                # a pixel that is cut off loses half a step on average
                assert values.mean() == pytest.approx(value, abs=1.5)
                variance = (255 * spread) ** 2 + 1 / 12
                assert values.var() == pytest.approx(variance, rel=0.15)


def test_pixels_by_hand():
    grey = np.array([[[0, 255, 128, 1]], [[255, 7, 0, 200]]], dtype=np.uint8)
    colours = np.array([[1.0, 0.5, 0.0], [0.25, 0.999, 0.3]])
    made = make_colored(
        grey, [0, 1], shortcut="aligned", colors=colours, severity=2, random_state=9
    )
    noise = np.random.RandomState(9).standard_normal((2, 3))
    for image in range(2):
        for channel in range(3):
            value = colours[image, channel] + 0.02 * noise[image, channel]
            value = min(max(value, 0), 1)
            expected = [int(value * pixel) for pixel in grey[image, 0].tolist()]
            assert_array_equal(made.data[image, channel, 0], expected)


def test_one_colour_an_image_and_black_stays_black():
    X, y = small_images()
    made = make_colored(X, y, conflict_ratio=0.5, random_state=0)
    assert made.data.shape == (60, 3, 5, 4)
    assert made.data.dtype == np.uint8
    black = np.broadcast_to(X[:, np.newaxis] == 0, made.data.shape)
    assert not made.data[black].any()
    # no channel is brighter than the grey it comes from, and a brighter pixel no darker
    assert (made.data <= X[:, np.newaxis]).all()
    for image, grey in zip(made.data, X, strict=True):
        order = grey.ravel().argsort()
        assert (np.diff(image.reshape(3, -1)[:, order].astype(int)) >= 0).all()


def test_many_images_are_coloured_as_few_are():
    X, y = white_pixels([250] * 10)  # more than one block
    many = make_colored(X, y, shortcut="aligned", random_state=0)
    few = make_colored(X[:600], y[:600], shortcut="aligned", random_state=0)
    assert_array_equal(many.data[:600], few.data)
    assert many.data[-100:].any(axis=(1, 2, 3)).all()


@pytest.mark.parametrize("assignment", ["milestones", "random"])
@pytest.mark.parametrize("shortcut", SHORTCUTS)
def test_fields_agree(shortcut, assignment):
    X, y = small_images()
    made = make_colored(
        X,
        y,
        shortcut=shortcut,
        conflict_ratio=0.5,
        assignment=assignment,
        random_state=0,
    )
    for field in ("target", "bias", "groups"):
        assert made[field].dtype == np.int64
        assert made[field].shape == (60,)
    assert_array_equal(made.target, y)
    assert_array_equal(made.groups, made.target * 11 + made.bias)
    assert len(set(made.group_names)) == len(made.group_names) == 110
    assert "artifact_mask" not in made
    name = made.group_names[made.groups[0]]
    if shortcut == "none":
        assert_array_equal(made.data, np.repeat(X[:, np.newaxis], 3, axis=1))
        assert not made.aligned.any()
        assert name == f"label {y[0]}, no colour"
    else:
        assert_array_equal(made.aligned, made.bias == y)
        share = {"biased": 0.5, "aligned": 1, "conflicting": 0}[shortcut]
        assert made.aligned.mean() == pytest.approx(share, abs=0.03)
        assert name == f"label {y[0]}, colour {made.bias[0]}"
    assert f"shortcut='{shortcut}'" in made.DESCR
    assert f"{made.aligned.sum()} images are aligned" in made.DESCR


@pytest.mark.parametrize("assignment", ["milestones", "random"])
def test_copies_differ_where_the_bias_does(assignment):
    X, y = small_images()
    copies = [
        make_colored(X, y, shortcut=shortcut, assignment=assignment, random_state=0)
        for shortcut in SHORTCUTS[:3]
    ]
    for one in copies:
        for other in copies:
            same = one.bias == other.bias
            assert_array_equal(one.data[same], other.data[same])


def test_fewer_classes_than_colours():
    X, y = white_pixels([100, 100])
    made = make_colored(X, y, shortcut="conflicting", random_state=0)
    assert set(made.bias[y == 0]) == set(range(1, 10))
    assert len(made.group_names) == 22
    made = make_colored(
        X, y, assignment="random", shortcut="conflicting", random_state=0
    )
    assert set(made.bias[y == 1]) == set(range(10)) - {1}


def test_bundled_digits():
    made = make_colored(subset="test", shortcut="none")
    digits = load_shortcut_digits(subset="test", square="none", n_classes=10)
    assert_array_equal(made.data, digits.data)
    assert_array_equal(made.target, digits.target)
    assert "handwritten digits (subset='test')" in made.DESCR
    assert len(make_colored().data) == 1797


def test_input_and_global_generator_are_left_alone():
    X, y = small_images()
    X_before, y_before = X.copy(), y.copy()
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    made = make_colored(X, y, random_state=5)
    assert_array_equal(state, np.random.get_state()[1])  # noqa: NPY002
    assert_array_equal(X, X_before)
    assert_array_equal(y, y_before)
    assert not np.shares_memory(made.target, y)
    tensors = torch.from_numpy(X)[:, None], torch.from_numpy(y)
    assert_array_equal(make_colored(*tensors, random_state=5).data, made.data)
    data, target = make_colored(X, y, random_state=5, return_X_y=True)
    assert_array_equal(data, made.data)
    assert_array_equal(target, made.target)


def test_output_never_changes():
    X, y = small_images()
    made = make_colored(X, y, conflict_ratio=0.5, random_state=0)
    digest = hashlib.sha256()
    for field in ("data", "target", "bias"):
        digest.update(made[field].tobytes())
    assert (
        digest.hexdigest()
        == "2a0c5d440a56839d8154a2e396d51d398f3a72b1a47a101b1041f904ebd0df89"
    )


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"shortcut": "raw"}, "shortcut must be one of 'biased', .*; got 'raw'"),
        ({"conflict_ratio": -1}, "conflict_ratio must be a number from 0 to 1, got -1"),
        ({"severity": 6}, "severity must be an integer from 1 to 5, got 6"),
        ({"severity": 4.0}, "severity must be an integer from 1 to 5, got 4.0"),
        (
            {"assignment": "lff"},
            "assignment must be one of 'milestones', 'random'; got",
        ),
        ({"colors": "red"}, "numbers from 0 to 1; got 'red'"),
        ({"colors": [[1, 0], [0, 1]]}, r"got an array of shape \(2, 2\)"),
        ({"colors": [[1, 0, 0], [0, 1]]}, "two colours at least, .*; got"),
        ({"colors": [[1, 0, 0]]}, "two colours at least, .*shape"),
        ({"colors": [[251, 80, 43]] * 10}, "from 43.0 to 251.0. Divide .* by 255"),
        ({"colors": [[np.nan, 0, 0]] * 10}, "numbers from 0 to 1; got values from nan"),
        (
            {"colors": np.eye(3)},
            "labels are from 0 to 9, but there are 3 colours. Pass",
        ),
        ({"y": np.arange(60) % 11}, "from 0 to 10, but there are 10 colours"),
        ({"X": np.zeros((60, 3, 5, 4), np.uint8)}, r"1 channel\(s\), got 3: .*Average"),
        ({"X": np.zeros((60, 5, 4))}, "X must be uint8 .* got float64"),
        ({"X": None}, "y is given, but X is None"),
        ({"y": ["a"] * 60}, "y must hold integers"),
        ({"subset": "train"}, "subset='train' chooses among the bundled digits"),
        ({"random_state": "seed"}, "'seed' cannot be used to seed"),
    ],
)
def test_bad_parameters(parameters, message):
    X, y = small_images()
    with pytest.raises(ValueError, match=message):
        make_colored(**{"X": X, "y": y} | parameters)
