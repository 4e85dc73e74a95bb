"""Tests of what the generators share."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_array_equal

from masktune_sk.datasets._checks import (
    check_images,
    check_labels,
    check_option,
    check_ratio,
    is_int,
)
from masktune_sk.datasets._make.planted import (
    as_rgb,
    assign_by_milestones,
    assign_conflicting,
    assign_nothing,
    check_shortcut,
    make_bunch,
)

MNIST_TRAIN = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
MNIST_TEST = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
RATIOS = [0.0, 0.01, 0.25, 0.5, 0.995, 1.0]


def shuffled(counts, seed=0):
    return np.random.RandomState(seed).permutation(
        np.repeat(range(len(counts)), counts)
    )


def assign(target, ratio, *, n_classes=None, seed=0, **options):
    n_classes = target.max() + 1 if n_classes is None else n_classes
    rng = np.random.RandomState(seed)
    return assign_conflicting(target, n_classes, ratio, rng, **options)


def is_subset(some, more):
    return not (some & ~more).any()


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("n_bias", [None, 7])
def test_conflicting_counts(ratio, n_bias):
    counts = [100, 33, 250]
    target = shuffled(counts)
    bias, aligned = assign(target, ratio, n_bias=n_bias)
    assert bias.dtype == np.int64
    assert_array_equal(aligned, bias == target)
    conflicts = np.bincount(target[~aligned], minlength=3)
    assert_array_equal(conflicts, [round(n * ratio) for n in counts])
    assert set(bias) <= set(range(n_bias or 3))


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("carrier", [0, 2])
def test_conflicting_counts_with_a_carrier(ratio, carrier):
    counts = [100, 33, 250]
    target = shuffled(counts)
    bias, aligned = assign(target, ratio, carrier=carrier)
    assert_array_equal(aligned, (bias == 1) == (target == carrier))
    expected = [round(n * ratio) for n in counts]
    expected[carrier] = round(counts[carrier] * (1 - ratio))
    assert_array_equal(np.bincount(target[bias == 1], minlength=3), expected)


@pytest.mark.parametrize("options", [{}, {"n_bias": 5}, {"carrier": 1}, {"order": 0}])
def test_larger_ratio_only_adds_conflicts(options):
    target = shuffled([40, 50, 60])
    if "order" in options:
        options = {"order": np.arange(150) % 7}
    biases, aligned = zip(
        *(assign(target, ratio, **options) for ratio in RATIOS), strict=True
    )
    for k in range(1, len(RATIOS)):
        assert is_subset(~aligned[k - 1], ~aligned[k])
        both = ~aligned[k - 1]
        assert_array_equal(biases[k - 1][both], biases[k][both])


@pytest.mark.parametrize("options", [{}, {"carrier": 0}, {"n_bias": 4}])
def test_draws_do_not_depend_on_the_ratio(options):
    target = shuffled([40, 50, 60])
    states = []
    for ratio in RATIOS:
        rng = np.random.RandomState(3)
        assign_conflicting(target, 3, ratio, rng, **options)
        states.append(rng.randint(2**31))
    assert len(set(states)) == 1


def test_other_biases_are_equally_likely():
    target = np.zeros(40_000, dtype=np.int64)
    bias, _ = assign(target, 1.0, n_classes=5)
    counts = np.bincount(bias, minlength=5)
    assert counts[0] == 0
    assert_array_equal(abs(counts[1:] - 10_000) < 400, True)


def test_order_takes_the_last_of_a_carrier_and_the_first_of_others():
    target = np.array([0, 1, 0, 1, 0, 1, 0, 1])
    order = [3, 5, 1, 5, 2, 9, 3, 7]
    bias, aligned = assign(target, 0.5, carrier=0, order=order)
    # of class 0, keys 3, 1, 2, 3 in rows 0, 2, 4, 6; of class 1, keys 5, 5, 9, 7
    assert_array_equal(np.flatnonzero(~aligned), [0, 1, 3, 6])
    assert_array_equal(bias, [0, 1, 1, 1, 1, 0, 0, 0])
    _, aligned = assign(target, 0.5, order=order)
    assert_array_equal(np.flatnonzero(~aligned), [0, 5, 6, 7])


def test_order_needs_no_randomness_with_a_carrier():
    target = shuffled([40, 50])
    first = assign(target, 0.3, carrier=0, order=target, seed=0)
    assert_array_equal(first, assign(target, 0.3, carrier=0, order=target, seed=1))


def test_assignment_never_changes():
    bias, _ = assign(shuffled([40, 50, 60]), 0.3, seed=7)
    digest = hashlib.sha256(bias.tobytes()).hexdigest()
    assert digest == "41857fcbe946802ef845eac905ebb25fb14afbeac38cf39b33378b091a7d8c6e"
    bias, _ = assign(shuffled([40, 50, 60]), 0.3, seed=7, carrier=0)
    digest = hashlib.sha256(bias.tobytes()).hexdigest()
    assert digest == "0bf043b2b8f6c71e228a3b3a2ee0b2a73f92eb1d7a8f2d9e4a98c2d1fccacdf8"


def test_milestones_by_hand():
    target = np.array([1, 0, 0, 0, 1, 0, 0, 1, 0])
    bias, aligned = assign_by_milestones(target, 0.5, 3)
    # class 0: shares 1/2, 1/4, 1/4 of 6: 3, 4.5 -> 4, 6; class 1: 0.75 -> 1, 2.25 -> 2
    assert_array_equal(bias[target == 0], [0, 0, 0, 1, 2, 2])
    assert_array_equal(bias[target == 1], [0, 1, 2])
    assert_array_equal(aligned, bias == target)
    assert bias.dtype == np.int64


@pytest.mark.parametrize(
    ("ratio", "n_conflicting"), [(0.005, 300), (0.01, 598), (0.02, 1199), (0.05, 3000)]
)
def test_milestones_on_the_labels_of_mnist(ratio, n_conflicting):
    target = shuffled(MNIST_TRAIN)
    bias, aligned = assign_by_milestones(target, ratio, 10)
    assert (~aligned).sum() == n_conflicting
    cells = np.zeros((10, 10), dtype=int)
    np.add.at(cells, (target, bias), 1)
    assert cells.min() > 0
    if ratio == 0.005:
        assert_array_equal(cells[0], [5893, 4, 3, 3, 4, 3, 3, 3, 4, 3])
    # each class is in the order of its biases
    for label in range(10):
        assert (np.diff(bias[target == label]) >= 0).all()


@pytest.mark.parametrize("counts", [MNIST_TEST, [5] * 10, [15, 25, 35, 45]])
def test_milestones_of_the_test_set_are_those_of_a_tenth(counts):
    target = shuffled(counts)
    n_bias = len(counts)
    bias, aligned = assign_by_milestones(target, 1 - 1 / n_bias, n_bias)
    for label, n in enumerate(counts):
        shares = np.full(n_bias, (1 - 1 / n_bias) / (n_bias - 1))
        shares[label] = 1 / n_bias
        milestones = np.round(n * np.cumsum(shares))
        expected = np.diff(milestones, prepend=0)
        assert_array_equal(
            np.bincount(bias[target == label], minlength=n_bias), expected
        )
    assert aligned.sum() == pytest.approx(sum(counts) / n_bias, abs=n_bias / 2)


def test_milestones_at_the_ends():
    target = shuffled([7, 8, 9])
    assert assign_by_milestones(target, 0.0, 5)[1].all()
    bias, aligned = assign_by_milestones(target, 1.0, 5)
    assert not aligned.any()
    assert set(bias) == set(range(5))


def test_assign_nothing():
    bias, aligned = assign_nothing(np.array([0, 1, 1]), 2)
    assert_array_equal(bias, [2, 2, 2])
    assert_array_equal(aligned, [False] * 3)


@pytest.mark.parametrize("shape", [(2, 5, 4), (2, 1, 5, 4), (2, 3, 5, 4), (1, 3, 5, 3)])
def test_images_are_taken_as_they_are(shape):
    images = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    assert check_images(images) is images
    assert_array_equal(check_images(torch.from_numpy(images)), images)
    assert_array_equal(check_images(list(images)), images)


def test_as_rgb_copies():
    grey = np.arange(40, dtype=np.uint8).reshape(2, 5, 4)
    for images in (grey, grey[:, np.newaxis]):
        rgb = as_rgb(images)
        assert rgb.shape == (2, 3, 5, 4)
        assert not np.shares_memory(rgb, images)
        for channel in range(3):
            assert_array_equal(rgb[:, channel], grey)
    colour = np.arange(120, dtype=np.uint8).reshape(2, 3, 5, 4)
    assert_array_equal(as_rgb(colour), colour)
    assert not np.shares_memory(as_rgb(colour), colour)


def uint8(*shape):
    return np.zeros(shape, dtype=np.uint8)


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (np.zeros((2, 5, 4)), r"uint8 .* got float64. .*\(X \* 255\).round\(\)"),
        (np.full((2, 5, 4), np.nan), "got float64. It holds NaN"),
        (np.zeros((2, 5, 4), int), r"got int64. If .* 0 to 255: X.astype\('uint8'\)\."),
        (np.zeros((2, 5, 4), bool), r"got bool. .*X.astype\('uint8'\) \* 255"),
        (None, "got object. Read the images into one array"),
        ([np.zeros((3, 4)), np.zeros((4, 4))], "differ in shape. Bring them to one"),
        (uint8(2, 784), r"got \(2, 784\). Reshape flat images, X.reshape"),
        (uint8(28, 28), r"pass a single one as X\[np.newaxis\]"),
        (uint8(2, 5, 4, 3), r"channel last: .*\. Pass X.transpose\(0, 3, 1, 2\)"),
        (uint8(2, 5, 4, 4), "channel last"),
        (uint8(5, 4, 3), r"one image, channel last: .* or X.transpose\(2, 0, 1\)"),
        (
            uint8(2, 4, 5, 6),
            r"1 or 3 channel\(s\), got 4: .* alpha channel: X\[:, :3\]",
        ),
        (uint8(2, 7, 5, 6), r"1 or 3 channel\(s\), got 7: \(2, 7, 5, 6\).$"),
        (uint8(0, 3, 5, 4), r"at least one image .* got shape \(0, 3, 5, 4\)"),
        (uint8(2, 5, 0), "of at least one pixel"),
        ([], "at least one image"),
    ],
)
def test_bad_images(X, message):
    with pytest.raises(ValueError, match=message):
        check_images(X)


def test_images_have_the_channels_and_the_name_that_are_asked_for():
    with pytest.raises(
        ValueError, match=r"photos must have 1 .* got 3: .*mean\(axis=1"
    ):
        check_images(uint8(2, 3, 5, 4), name="photos", channels=(1,))
    with pytest.raises(ValueError, match=r"must have 3 .* got 1: .* Repeat grey: X"):
        check_images(uint8(2, 5, 4), channels=(3,))
    assert check_images(uint8(2, 4, 5, 6), channels=(4,)).shape == (2, 4, 5, 6)


@pytest.mark.parametrize(
    "y",
    [
        [0, 2, 1],
        np.array([0, 2, 1], dtype=np.uint8),
        torch.tensor([0, 2, 1]),
        pd.Series([0, 2, 1], index=[7, 8, 9]),
    ],
)
def test_labels_become_a_new_array(y):
    target = check_labels(y, 3)
    assert target.dtype == np.int64
    assert_array_equal(target, [0, 2, 1])
    assert_array_equal(check_labels(target, 3, n_classes=3), target)
    assert not np.shares_memory(check_labels(target, 3), target)


def test_labels_may_be_bools_or_lack_a_class():
    assert_array_equal(check_labels([True, False], 2), [1, 0])
    assert_array_equal(check_labels([0, 3], 2), [0, 3])
    assert_array_equal(check_labels([0, 0], 2, n_classes=2), [0, 0])


@pytest.mark.parametrize(
    ("y", "n_classes", "message"),
    [
        ([0, 1], None, "There are 3 samples, but y has 2 labels"),
        ([[0], [1], [1]], None, r"shape \(n_samples,\).* got shape \(3, 1\)"),
        (None, None, r"got shape \(\)"),
        ([0.0, 1.0, 2.0], None, "must hold integers.* float64. .*return_inverse"),
        (["a", "b", "c"], None, r"got <U1. Number other labels first: np.unique\(y"),
        ([-1, 0, 1], None, "class numbers from 0 on, got labels from -1 to 1"),
        ([0, 1, 3], 3, "class numbers from 0 to 2, got labels from 0 to 3"),
        ([0, 0, 0], None, "two classes at least, got label 0 alone"),
    ],
)
def test_bad_labels(y, n_classes, message):
    with pytest.raises(ValueError, match=message):
        check_labels(y, 3, n_classes=n_classes)


def test_no_labels():
    with pytest.raises(ValueError, match="y is empty: there must be one sample"):
        check_labels([], 0)


@pytest.mark.parametrize("ratio", [0, 1, 0.3, np.float32(0.5), True])
def test_ratios(ratio):
    check_ratio(ratio)


@pytest.mark.parametrize("ratio", [-0.1, 1.5, np.nan, np.inf, "0.1", None, [0.1]])
def test_bad_ratios(ratio):
    with pytest.raises(ValueError, match="share must be a number from 0 to 1, got"):
        check_ratio(ratio, name="share")


def test_options():
    check_option("b", ("a", "b"), name="letter")
    for value in ("c", None, ["a"]):
        with pytest.raises(ValueError, match="letter must be one of 'a', 'b'; got"):
            check_option(value, ("a", "b"), name="letter")


def test_is_int():
    assert is_int(3)
    assert is_int(np.int8(3))
    assert not any(is_int(value) for value in (True, np.True_, 3.0, "3", None))


@pytest.mark.parametrize(
    ("shortcut", "ratio"),
    [("biased", 0.2), ("aligned", 0), ("conflicting", 1), ("none", None)],
)
def test_shortcut_tells_the_ratio(shortcut, ratio):
    assert check_shortcut(shortcut, 0.2) == ratio


def test_bad_shortcut():
    with pytest.raises(
        ValueError, match="square must be one of 'biased', .*; got 'raw'"
    ):
        check_shortcut("raw", 0.2, name="square")
    with pytest.raises(ValueError, match="conflict_ratio must be .* got 2"):
        check_shortcut("none", 2)


def test_bunch():
    data, target, bias = uint8(3, 1, 2, 2), np.array([0, 1, 1]), np.array([2, 0, 1])
    made = {"class_names": ["cat", "dog"], "bias_names": ["in", "out", "none"]}
    bunch = make_bunch(data, target, bias, bias == target, descr="pets", **made)
    assert bunch.data is data
    assert_array_equal(bunch.groups, [2, 3, 4])
    names = [bunch.group_names[group] for group in bunch.groups]
    assert names == ["cat, none", "dog, in", "dog, out"]
    assert bunch.DESCR == "pets"
    assert "artifact_mask" not in bunch
    bunch = make_bunch(
        data, target, bias, target == bias, descr="", artifact_mask=1, digit=2, **made
    )
    assert (bunch.artifact_mask, bunch.digit) == (1, 2)
    X, y = make_bunch(
        data, target, bias, target == bias, descr="", return_X_y=True, **made
    )
    assert X is data
    assert y is target
