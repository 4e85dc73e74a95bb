"""Tests of the digits with a planted square."""

import itertools

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.datasets import load_digits

from masktune_sk.datasets import load_shortcut_digits
from masktune_sk.datasets._make.digits import _COLOURS

TRAIN_COUNTS = [124, 127, 124, 128, 127, 127, 127, 125, 122, 126]
TEST_COUNTS = [54, 55, 53, 55, 54, 55, 54, 54, 52, 54]
SQUARES = ["biased", "aligned", "conflicting", "none"]


@pytest.mark.parametrize(
    ("subset", "counts"),
    [
        ("train", TRAIN_COUNTS),
        ("test", TEST_COUNTS),
        ("all", np.add(TRAIN_COUNTS, TEST_COUNTS)),
    ],
)
@pytest.mark.parametrize("n_classes", [2, 10])
def test_shapes_dtypes_and_counts(subset, counts, n_classes):
    digits = load_shortcut_digits(subset=subset, n_classes=n_classes)
    n = sum(counts)
    assert digits.data.shape == (n, 3, 28, 28)
    assert digits.data.dtype == np.uint8
    assert digits.artifact_mask.shape == (n, 28, 28)
    assert digits.artifact_mask.dtype == digits.aligned.dtype == bool
    for field in ("target", "bias", "groups", "digit"):
        assert digits[field].shape == (n,)
        assert digits[field].dtype == np.int64
    assert_array_equal(np.bincount(digits.digit), counts)
    expected = digits.digit >= 5 if n_classes == 2 else digits.digit
    assert_array_equal(digits.target, expected)
    assert not np.shares_memory(digits.target, digits.digit)


def test_digits_are_the_bundled_ones_laid_out_like_mnist():
    digits = load_shortcut_digits(subset="all", square="none")
    images, digit = load_digits(return_X_y=True)
    assert_array_equal(digits.digit, digit)
    assert_array_equal(digits.data[:, 0], digits.data[:, 1])
    assert_array_equal(digits.data[:, 0], digits.data[:, 2])
    border = digits.data.copy()
    border[:, :, 4:24, 4:24] = 0
    assert not border.any()
    # bilinear zoom keeps the corners, and cannot leave the range of its neighbours
    corners = images.reshape(-1, 8, 8)[:, ::7, ::7]
    expected = np.rint(corners * 255 / 16).astype(np.uint8)
    assert_array_equal(digits.data[:, 0, 4:24:19, 4:24:19], expected)
    peak = images.max(axis=1) * 255 / 16
    assert (digits.data.max(axis=(1, 2, 3)) <= np.rint(peak)).all()
    assert digits.data.max() == 255


def test_test_digits_never_change_and_are_not_in_train():
    load = {"square": "none", "return_X_y": True}
    train, _ = load_shortcut_digits(subset="train", **load)
    test, y_test = load_shortcut_digits(subset="test", **load)
    again, y_again = load_shortcut_digits(subset="test", random_state=7, **load)
    assert_array_equal(test, again)
    assert_array_equal(y_test, y_again)
    in_train = {image.tobytes() for image in train}
    in_test = {image.tobytes() for image in test}
    assert not in_train & in_test
    assert len(in_train | in_test) == 1797


@pytest.mark.parametrize("ratio", [0.0, 0.01, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("subset", ["train", "test"])
def test_number_of_squares_in_two_classes(subset, ratio):
    digits = load_shortcut_digits(subset=subset, conflict_ratio=ratio)
    n_0, n_1 = np.bincount(digits.target)
    with_square = digits.artifact_mask.any(axis=(1, 2))
    assert with_square[digits.target == 0].sum() == round(n_0 * (1 - ratio))
    assert with_square[digits.target == 1].sum() == round(n_1 * ratio)


def test_default_counts():
    digits = load_shortcut_digits()
    assert_array_equal(np.bincount(digits.groups), [6, 624, 621, 6])


@pytest.mark.parametrize("ratio", [0.0, 0.02, 0.5, 1.0])
def test_number_of_conflicts_in_ten_classes(ratio):
    digits = load_shortcut_digits(n_classes=10, conflict_ratio=ratio)
    conflicts = np.bincount(digits.target[~digits.aligned], minlength=10)
    assert_array_equal(conflicts, [round(n * ratio) for n in TRAIN_COUNTS])
    assert (digits.bias < 10).all()


@pytest.mark.parametrize("square", SQUARES)
@pytest.mark.parametrize("n_classes", [2, 10])
@pytest.mark.parametrize("square_size", [1, 3, 4])
def test_artifact_mask_is_where_the_square_changes_pixels(
    square, n_classes, square_size
):
    load = {"subset": "test", "n_classes": n_classes}
    digits = load_shortcut_digits(
        square=square, square_size=square_size, conflict_ratio=0.2, **load
    )
    clean = load_shortcut_digits(square="none", **load)
    changed = (digits.data != clean.data).any(axis=1)
    assert_array_equal(digits.artifact_mask, changed)
    area = changed.sum(axis=(1, 2))
    assert set(area) <= {0, square_size**2}
    assert not changed[:, square_size:].any()
    assert not changed[:, :, square_size:].any()
    no_square = 0 if n_classes == 2 else 10
    assert_array_equal(area > 0, digits.bias != no_square)


@pytest.mark.parametrize("square", SQUARES)
@pytest.mark.parametrize("n_classes", [2, 10])
def test_groups_bias_and_aligned_agree(square, n_classes):
    digits = load_shortcut_digits(
        square=square, n_classes=n_classes, conflict_ratio=0.2
    )
    n_bias = {2: 2, 10: 11}[n_classes]
    assert_array_equal(digits.groups // n_bias, digits.target)
    assert_array_equal(digits.groups % n_bias, digits.bias)
    assert len(digits.group_names) == len(set(digits.group_names)) == n_classes * n_bias
    own = 1 - digits.target if n_classes == 2 else digits.target
    if square == "none":
        assert not digits.aligned.any()
        assert not digits.artifact_mask.any()
        assert set(digits.bias) == {0 if n_classes == 2 else 10}
    else:
        assert_array_equal(digits.aligned, digits.bias == own)
        share = {"biased": 0.8, "aligned": 1, "conflicting": 0}[square]
        assert digits.aligned.mean() == pytest.approx(share, abs=0.005)


def test_group_names_describe_the_images():
    two = load_shortcut_digits(square="conflicting")
    names = {two.group_names[group] for group in two.groups}
    assert names == {"digits 0-4, no square", "digits 5-9, square"}

    ten = load_shortcut_digits(square="aligned", n_classes=10)
    names = [ten.group_names[group] for group in ten.groups]
    first = ten.digit.tolist().index
    assert names[first(0)] == "digit 0, red square"
    assert names[first(9)] == "digit 9, salmon square"
    plain = load_shortcut_digits(square="none", n_classes=10)
    assert plain.group_names[plain.groups[first(3)]] == "digit 3, no square"


def test_colours():
    two = load_shortcut_digits()
    planted = two.data[two.bias == 1, :, :4, :4]
    assert_array_equal(np.unique(planted.transpose(0, 2, 3, 1)), [0, 255])
    assert (planted[:, 0] == 255).all()
    assert not planted[:, 1:].any()

    table = np.array(list(_COLOURS.values()))
    assert len(table) == 10
    for one, other in itertools.combinations(table, 2):
        assert np.linalg.norm(one - other) > 170
    assert (np.ptp(table, axis=1) >= 100).all()  # none is grey
    ten = load_shortcut_digits(n_classes=10, conflict_ratio=0.3)
    assert_array_equal(ten.data[:, :, 0, 0], table[ten.bias])
    assert_array_equal(ten.data[:, :, 3, 3], table[ten.bias])


def test_conflicting_colours_cover_all_other_classes():
    digits = load_shortcut_digits(n_classes=10, square="conflicting")
    pairs = set(zip(digits.target.tolist(), digits.bias.tolist(), strict=True))
    assert pairs == set(itertools.permutations(range(10), 2))


@pytest.mark.parametrize("n_classes", [2, 10])
def test_random_state(n_classes):
    def aligned(seed, ratio=0.1):
        return load_shortcut_digits(
            n_classes=n_classes, conflict_ratio=ratio, random_state=seed
        ).aligned

    assert_array_equal(aligned(0), aligned(0))
    assert_array_equal(aligned(3), aligned(np.random.RandomState(3)))
    assert (aligned(0) != aligned(1)).any()
    # a larger ratio only adds conflicts
    assert not (aligned(0, 0.3) & ~aligned(0, 0.1)).any()


def test_seed_leaves_the_global_generator_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    load_shortcut_digits(random_state=5)
    assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


def test_conflicts_are_spread_over_the_digits():
    digits = load_shortcut_digits(conflict_ratio=0.1)
    assert set(digits.digit[~digits.aligned]) == set(range(10))


def test_return_X_y():
    digits = load_shortcut_digits(subset="test", n_classes=10, random_state=4)
    X, y = load_shortcut_digits(
        subset="test", n_classes=10, random_state=4, return_X_y=True
    )
    assert_array_equal(X, digits.data)
    assert_array_equal(y, digits.target)


def test_descr_says_what_was_loaded():
    descr = load_shortcut_digits(square="aligned").DESCR
    assert "1257 handwritten digits" in descr
    assert "square='aligned'" in descr
    assert "on 630 images; 1257 are aligned" in descr


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"subset": "validation"},
            "subset must be one of 'train', .* got 'validation'",
        ),
        ({"subset": None}, "subset must be one of .* got None"),
        ({"square": "raw"}, "square must be one of 'biased', .*'none'; got 'raw'"),
        (
            {"conflict_ratio": 1.5},
            "conflict_ratio must be a number from 0 to 1, got 1.5",
        ),
        ({"conflict_ratio": -0.1}, "from 0 to 1, got -0.1"),
        ({"conflict_ratio": float("nan")}, "from 0 to 1, got nan"),
        ({"conflict_ratio": "0.1"}, "from 0 to 1, got '0.1'"),
        ({"n_classes": 5}, "n_classes must be 2 .* or 10 .*, got 5"),
        ({"n_classes": 2.0}, "n_classes must be 2 .*, got 2.0"),
        ({"square_size": 0}, "square_size must be an integer from 1 to 4.* Got 0"),
        ({"square_size": 5}, "larger square would cover the digit. Got 5"),
        ({"square_size": 2.5}, "square_size must be an integer .* Got 2.5"),
        ({"square_size": True}, "square_size must be an integer .* Got True"),
        ({"random_state": "seed"}, "'seed' cannot be used to seed"),
    ],
)
def test_bad_parameters(parameters, message):
    with pytest.raises(ValueError, match=message):
        load_shortcut_digits(**parameters)
