"""Tests of masks: from maps to what is hidden."""

import math
from itertools import pairwise
from statistics import fmean, pstdev

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from masktune_sk.data import ArraySource, TorchView
from masktune_sk.masking import (
    MaskedSource,
    apply_masks,
    resize_maps,
    roll_masks,
    scale_maps,
    threshold_maps,
)

RULES = [("sigma", 2.0), ("quantile", 0.1), ("value", 0.5)]


@pytest.fixture(autouse=True)
def no_silent_arithmetic():
    """Make numpy raise where it would divide by zero or compute with NaN."""
    with np.errstate(divide="raise", invalid="raise", over="raise"):
        yield


def random_maps(rng, n, shape):
    """Return rectified noise, bumps, sparse and two-level maps, in turn."""
    kinds = [
        lambda: np.maximum(rng.normal(size=shape), 0),
        lambda: rng.exponential(size=shape) ** 3,
        lambda: rng.random(shape) * (rng.random(shape) < 0.2),
        lambda: (rng.random(shape) < 0.1) + 0.3,
        lambda: 1.0 * (rng.random(shape) < 0.15),
        lambda: rng.integers(3, size=shape) * 1.0,
        lambda: rng.random(shape),
    ]
    maps = [kinds[i % len(kinds)]() for i in range(n)]
    return np.array(maps).astype(np.float32)


# ---------------------------------------------------------------- the published rule


def scaled_by_hand(rows):
    low = min(min(row) for row in rows)
    span = max(max(row) for row in rows) - low or 1
    return [[(value - low) / span for value in row] for row in rows]


def resized_by_hand(rows, height, width):
    """Interpolate between the half-pixel centres, one pixel at a time."""

    def neighbours(i, size, n):
        place = min(max((i + 0.5) * n / size - 0.5, 0), n - 1)
        first = math.floor(place)
        return first, min(first + 1, n - 1), place - first

    out = []
    for i in range(height):
        top, bottom, down = neighbours(i, height, len(rows))
        out.append([])
        for j in range(width):
            left, right, along = neighbours(j, width, len(rows[0]))
            above = rows[top][left] * (1 - along) + rows[top][right] * along
            below = rows[bottom][left] * (1 - along) + rows[bottom][right] * along
            out[-1].append(above * (1 - down) + below * down)
    return out


def published_threshold(rows):
    positive = [value for row in rows for value in row if value > 0]
    return fmean(positive) + 2 * pstdev(positive) if positive else math.inf


@pytest.mark.parametrize(("grid", "size"), [((7, 7), (20, 20)), ((8, 6), (28, 15))])
def test_masks_equal_a_plain_loop_of_the_published_rule(grid, size):
    maps = random_maps(np.random.default_rng(0), 28, grid)
    masks, empty = threshold_maps(resize_maps(maps, (3, *size)), 2.0)
    n_hiding = 0
    for one, mask, nothing in zip(maps, masks, empty, strict=True):
        rows = scaled_by_hand(resized_by_hand(scaled_by_hand(one.tolist()), *size))
        tau = published_threshold(rows)
        hidden = [[value > tau for value in row] for row in rows]
        assert nothing == (not np.any(hidden))
        if not nothing:
            np.testing.assert_array_equal(mask, ~np.array(hidden))
            n_hiding += 1
    assert 5 < n_hiding < 28


# ---------------------------------------------------------------- scale and resize


def test_each_map_is_scaled_by_its_own_range():
    maps = np.array([[[1.0, 3.0], [5.0, 2.0]], [[-2.0, 0.0], [0.0, 2.0]]])
    scaled = scale_maps(maps)
    assert scaled.dtype == np.float32
    expected = [[[0, 0.5], [1, 0.25]], [[0, 0.5], [0.5, 1]]]
    np.testing.assert_allclose(scaled, expected, atol=1e-6)
    assert maps[0, 0, 0] == 1


@pytest.mark.parametrize("shape", [(4, 8, 8), (4, 5)])
@pytest.mark.parametrize("value", [0.0, 1.0, -3.5, 1e-30, 1e30, 0.1])
def test_a_constant_map_becomes_zero(shape, value):
    maps = np.full(shape, value, dtype=np.float32)
    item_shape = (3, 28, 28) if len(shape) == 3 else (5,)
    assert not scale_maps(maps).any()
    resized = resize_maps(maps, item_shape)
    assert resized.shape == (4, *item_shape[-2:])
    assert not resized.any()


@pytest.mark.parametrize("factor", [1e-30, 1e-9, 1e30])
@pytest.mark.parametrize("item_shape", [(3, 7, 7), (3, 20, 20)])
def test_masks_do_not_depend_on_how_large_the_maps_are(factor, item_shape):
    # A saturated net has tiny gradients.
    maps = random_maps(np.random.default_rng(0), 28, (7, 7))
    resized = resize_maps(maps, item_shape)
    np.testing.assert_allclose(
        resize_maps((maps * factor).astype(np.float32), item_shape), resized, atol=1e-5
    )
    assert set(resized.max(axis=(1, 2))) == {1}


def test_rounding_of_a_constant_map_is_no_saliency():
    maps = np.full((1, 7, 7), 0.1, dtype=np.float32)
    maps[0, 3, 3] = np.nextafter(maps[0, 3, 3], 1)
    assert not scale_maps(maps).any()
    maps[0, 3, 3] = 0.1001
    assert scale_maps(maps).sum() == pytest.approx(1)


def test_zero_stays_exactly_zero_and_the_range_is_the_unit_interval():
    maps = np.zeros((1, 8, 8), dtype=np.float32)
    maps[0, :3, :3] = 5
    resized = resize_maps(maps, (1, 32, 32))[0]
    assert not resized[16:].any()
    assert not resized[:, 16:].any()
    assert resized.min() == 0
    assert resized.max() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("size", [(28, 28), (20, 13), (5, 9), (224, 224)])
def test_resizing_equals_torch_between_two_scalings(size):
    maps = random_maps(np.random.default_rng(0), 14, (7, 7)) * 40
    maps[0] -= 13  # signed
    resized = F.interpolate(
        torch.from_numpy(scale_maps(maps))[:, None], size=size, mode="bilinear"
    )[:, 0]
    expected = scale_maps(resized.numpy())
    np.testing.assert_allclose(resize_maps(maps, (3, *size)), expected, atol=1e-6)


def test_maps_of_the_right_size_and_vectors_are_only_scaled():
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(6, 9, 5)).astype(np.float32)
    np.testing.assert_array_equal(resize_maps(maps, (2, 9, 5)), scale_maps(maps))
    vectors = rng.normal(size=(6, 9)).astype(np.float32)
    np.testing.assert_array_equal(resize_maps(vectors, (9,)), scale_maps(vectors))


def test_a_sample_does_not_depend_on_the_others():
    maps = random_maps(np.random.default_rng(0), 14, (7, 7))
    together = resize_maps(maps, (1, 20, 20))
    masks, empty = threshold_maps(together, 2.0)
    for i in range(len(maps)):
        alone = resize_maps(maps[i : i + 1], (1, 20, 20))
        np.testing.assert_array_equal(alone[0], together[i])
        mask, nothing = threshold_maps(alone, 2.0)
        np.testing.assert_array_equal(mask[0], masks[i])
        assert nothing[0] == empty[i]


# ---------------------------------------------------------------- sigma

# Its positive part has mean 0.3 and population std sqrt(0.07) = 0.2646 (sample std
# 0.2828); all nine have mean 0.2667 and population std 0.2667.
BY_HAND = np.array([[0, 0.2, 0.2], [0.2, 0.2, 0.2], [0.2, 0.2, 1]], dtype=np.float32)


@pytest.mark.parametrize(
    ("threshold", "by_the_rule", "in_the_end"),
    [
        (0.0, 1, 1),
        (2.0, 1, 1),
        (2.6, 1, 1),  # 0.988; with the sample's std it would be 1.035
        (2.7, 0, 1),  # 1.014; over all nine 0.987
        (2.8, 0, 0),  # over all nine 1.013
    ],
)
def test_sigma_by_hand(threshold, by_the_rule, in_the_end):
    masks, empty = threshold_maps(BY_HAND[None], threshold, "sigma")
    assert masks.dtype == bool
    assert bool(empty[0]) is (by_the_rule == 0)
    expected = np.ones((3, 3), dtype=bool)
    expected[2, 2] = not in_the_end
    np.testing.assert_array_equal(masks[0], expected)


def test_sigma_is_the_default_rule():
    np.testing.assert_array_equal(
        threshold_maps(BY_HAND[None], 2.0)[0],
        threshold_maps(BY_HAND[None], 2.0, "sigma")[0],
    )


def test_only_what_is_strictly_above_is_hidden():
    # The mean of the positive part is 0.5, which is one of the values.
    saliency = np.array([[[0.25, 0.5], [0.75, 0]]], dtype=np.float32)
    masks, _ = threshold_maps(saliency, 0.0, "sigma")
    np.testing.assert_array_equal(masks[0], [[True, True], [False, True]])
    masks, _ = threshold_maps(saliency, 0.5, "value")
    np.testing.assert_array_equal(masks[0], [[True, True], [False, True]])


@pytest.mark.parametrize("shape", [(7, 7), (3, 3), (28, 28)])
def test_two_sigma_hide_at_most_a_fifth_of_the_positive_part(shape):
    saliency = scale_maps(random_maps(np.random.default_rng(0), 700, shape))
    masks, empty = threshold_maps(saliency, 2.0)
    hidden, positive = ~masks[~empty], saliency[~empty] > 0
    assert len(hidden) > 50
    assert not (hidden & ~positive).any()
    assert (hidden.sum(axis=(1, 2)) <= 0.2 * positive.sum(axis=(1, 2))).all()
    # Chebyshev's inequality with one side, at any other threshold: 1 / (1 + t^2).
    for t in (0.5, 1.0, 3.0):
        masks, empty = threshold_maps(saliency, t)
        shares = (~masks).sum(axis=(1, 2)) / np.maximum((saliency > 0).sum((1, 2)), 1)
        assert (shares[~empty] <= 1 / (1 + t * t)).all()


def test_a_clean_hot_corner_is_hidden_by_the_fall_back_only():
    maps = np.zeros((1, 8, 8), dtype=np.float32)
    maps[0, 0, 0] = 1
    saliency = resize_maps(maps, (3, 28, 28))
    positive = saliency[0][saliency[0] > 0]
    assert fmean(positive) + 2 * pstdev(positive) > 1
    masks, empty = threshold_maps(saliency, 2.0)
    assert empty.tolist() == [True]
    hidden = ~masks[0]
    # One cell of the map is 3.5 pixels.
    assert hidden[:3, :3].all()
    assert not hidden[5:].any()
    assert not hidden[:, 5:].any()
    assert saliency[0][hidden].min() > saliency[0][~hidden].max()


def test_the_fall_back_is_the_same_rule_over_all_positions():
    rng = np.random.default_rng(0)
    saliency = scale_maps(random_maps(rng, 700, (7, 7)))
    masks, empty = threshold_maps(saliency, 2.0)
    assert empty.any()
    for one, mask in zip(saliency[empty], masks[empty], strict=True):
        tau = one.astype(np.float64).mean() + 2 * one.astype(np.float64).std()
        np.testing.assert_array_equal(mask, one <= tau)


@pytest.mark.parametrize("n_features", [2, 3, 4, 5])
def test_short_vectors_hide_their_largest_feature(n_features):
    # No value of so few lies more than two standard deviations above their mean.
    vectors = np.random.default_rng(0).normal(size=(50, n_features))
    vectors[0] = np.eye(n_features)[1]
    saliency = scale_maps(vectors)
    masks, empty = threshold_maps(saliency, 2.0)
    assert empty.all()
    np.testing.assert_array_equal(masks.sum(axis=1), n_features - 1)
    np.testing.assert_array_equal((~masks).argmax(axis=1), vectors.argmax(axis=1))


def test_a_long_vector_with_an_outlier_needs_no_fall_back():
    saliency = np.full((1, 20), 0.1, dtype=np.float32)
    saliency[0, 7] = 1
    masks, empty = threshold_maps(saliency, 2.0)
    assert not empty.any()
    assert np.flatnonzero(~masks[0]).tolist() == [7]


def test_an_image_without_a_spot_is_kept_and_counted_as_empty():
    # Half and half: no position stands out, whichever positions are counted.
    saliency = np.tile(np.float32([0.4, 1.0]), (1, 4, 2))
    masks, empty = threshold_maps(saliency, 2.0)
    assert masks.all()
    assert empty.tolist() == [True]


# ---------------------------------------------------------------- quantile and value


@pytest.mark.parametrize("shape", [(10, 10), (100,), (28, 28), (7,), (224, 224)])
@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.25, 1 / 3, 0.5, 0.9])
def test_a_quantile_hides_that_fraction_of_distinct_values(shape, fraction):
    rng = np.random.default_rng(0)
    n = math.prod(shape)
    saliency = np.stack([rng.permutation(n).reshape(shape) for _ in range(3)])
    saliency = (saliency / n).astype(np.float32)
    masks, empty = threshold_maps(saliency, fraction, "quantile")
    for one, mask in zip(saliency, masks, strict=True):
        n_hidden = (~mask).sum()
        assert abs(n_hidden - fraction * n) < 1
        assert one[~mask].min(initial=2) > one[mask].max()
    assert not empty.any() or fraction * n < 1


@pytest.mark.parametrize("fraction", [0.05, 0.1, 0.2, 0.5])
def test_a_quantile_hides_exactly_that_many_of_a_hundred(fraction):
    values = np.random.default_rng(0).permutation(100).reshape(1, 10, 10)
    masks, _ = threshold_maps((values / 100).astype(np.float32), fraction, "quantile")
    np.testing.assert_array_equal(~masks, values >= 100 - round(100 * fraction))


def test_ties_are_kept_or_hidden_together():
    saliency = np.repeat(np.float32([0, 0.5, 1]), [80, 15, 5])[None]
    for fraction, hidden in [(0.04, 0), (0.1, 5), (0.19, 5), (0.3, 20), (0.9, 20)]:
        masks, empty = threshold_maps(saliency, fraction, "quantile")
        assert (~masks).sum() == hidden
        assert empty[0] == (hidden == 0)


def test_a_value_hides_what_is_above_it_and_never_falls_back():
    saliency = np.array([[[0, 0.3], [0.6, 1]], [[0.1, 0.2], [0.3, 0.4]]], np.float32)
    masks, empty = threshold_maps(saliency, 0.45, "value")
    np.testing.assert_array_equal(masks[0], [[True, True], [False, False]])
    assert masks[1].all()
    assert empty.tolist() == [False, True]
    vectors = np.float32([[0.1, 0.2, 0.3]])
    assert threshold_maps(vectors, 0.9, "value")[0].all()


@pytest.mark.parametrize("threshold", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("rule", ["sigma", "quantile", "value"])
@pytest.mark.parametrize("shape", [(4, 7, 7), (4, 5)])
def test_a_flat_map_hides_nothing_in_any_rule(rule, threshold, shape):
    for value in (0.0, 0.7):
        flat = scale_maps(np.full(shape, value, dtype=np.float32))
        masks, empty = threshold_maps(flat, threshold, rule)
        assert masks.shape == shape
        assert masks.all()
        assert empty.all()


def test_a_flat_map_that_is_not_zero_has_no_deviation():
    flat = np.full((2, 5, 5), 0.3, dtype=np.float32)
    for rule, threshold in [("sigma", 0.0), ("sigma", 2.0), ("quantile", 0.1)]:
        masks, empty = threshold_maps(flat, threshold, rule)
        assert masks.all()
        assert empty.all()


@pytest.mark.parametrize(("rule", "threshold"), RULES)
def test_maps_are_not_written_to(rule, threshold):
    saliency = scale_maps(random_maps(np.random.default_rng(0), 14, (7, 7)))
    kept = saliency.copy()
    saliency.flags.writeable = False
    threshold_maps(saliency, threshold, rule)
    resize_maps(saliency, (1, 14, 14))
    np.testing.assert_array_equal(saliency, kept)


@pytest.mark.parametrize("rule", ["sigma", "value"])
def test_a_higher_threshold_hides_less(rule):
    saliency = scale_maps(random_maps(np.random.default_rng(0), 70, (7, 7)))
    thresholds = (0.0, 0.25, 0.5, 0.75)
    masks, empty = zip(
        *(threshold_maps(saliency, t, rule) for t in thresholds), strict=True
    )
    # Where the highest threshold needs no fall-back, none does.
    rows = ~empty[-1]
    assert rows.sum() > 30
    for lower, higher in pairwise(masks):
        assert (higher[rows] | ~lower[rows]).all()
    assert masks[-1].sum() > masks[0].sum()


# ---------------------------------------------------------------- apply


def test_kept_positions_are_bit_identical_and_hidden_ones_filled():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(5, 3, 4, 6)).astype(np.float32)
    X[0, 0, 0, 0] = -0.0
    masks = rng.random((5, 4, 6)) < 0.7
    fill = np.array([0.1, -7.0, 200.0], dtype=np.float32)
    kept = X.copy()
    for given in (X, torch.from_numpy(X)):
        masked = apply_masks(given, masks, fill)
        assert type(masked) is type(given)
        assert masked.dtype == given.dtype
        masked = np.asarray(masked)
        assert not np.shares_memory(masked, X)
        over_channels = np.broadcast_to(masks[:, None], X.shape)
        same_bits = masked.view(np.uint32) == X.view(np.uint32)
        assert same_bits[over_channels].all()
        for channel, value in enumerate(fill):
            assert (masked[:, channel][~masks] == value).all()
    np.testing.assert_array_equal(X.view(np.uint32), kept.view(np.uint32))


def test_one_value_fills_every_channel():
    X = np.ones((2, 3, 4, 4), dtype=np.float32)
    masks = np.ones((2, 4, 4), dtype=bool)
    masks[1, 2:, :2] = False
    for given in (X, torch.from_numpy(X)):
        masked = np.asarray(apply_masks(given, masks, np.array([9.0], np.float32)))
        assert (masked == 9).sum() == 3 * 4
        assert (masked[1, :, 2:, :2] == 9).all()


def test_vectors_are_filled_feature_by_feature():
    X = np.arange(6, dtype=np.float32).reshape(2, 3)
    masks = np.array([[True, False, True], [False, True, False]])
    for given in (X, torch.from_numpy(X)):
        masked = apply_masks(given, masks, np.array([-1, -2, -3], np.float32))
        np.testing.assert_array_equal(masked, [[0, -2, 2], [-1, 4, -3]])
        masked = apply_masks(given, masks, np.array([7], np.float32))
        np.testing.assert_array_equal(masked, [[0, 7, 2], [7, 4, 7]])


def test_an_array_of_small_integers_stays_one():
    X = np.full((1, 1, 2, 2), 200, dtype=np.uint8)
    masks = np.array([[[True, False], [True, True]]])
    masked = apply_masks(X, masks, np.zeros(1, dtype=np.uint8))
    assert masked.dtype == np.uint8
    np.testing.assert_array_equal(masked[0, 0], [[200, 0], [200, 200]])


# ---------------------------------------------------------------- roll


def test_a_roll_by_hand():
    masks = np.ones((2, 3, 4), dtype=bool)
    masks[:, 0, 1] = masks[:, 2, 3] = False
    rolled = roll_masks(masks, np.array([[0.34, 0.5], [0.0, 0.99]]))
    # One row and two columns; no row and three columns.
    assert set(zip(*np.nonzero(~rolled[0]), strict=True)) == {(1, 3), (0, 1)}
    assert set(zip(*np.nonzero(~rolled[1]), strict=True)) == {(0, 0), (2, 2)}


@pytest.mark.parametrize("shape", [(5, 7), (28, 28), (11,), (1, 1)])
def test_a_roll_keeps_each_area_and_equals_numpys(shape):
    rng = np.random.default_rng(0)
    masks = rng.random((40, *shape)) < 0.8
    shifts = rng.random((40, 2))
    rolled = roll_masks(masks, shifts)
    assert rolled.dtype == bool
    assert rolled.shape == masks.shape
    axes = tuple(range(1, masks.ndim))
    np.testing.assert_array_equal(rolled.sum(axis=axes), masks.sum(axis=axes))
    for mask, shift, result in zip(masks, shifts, rolled, strict=True):
        steps = [int(s * size) for s, size in zip(shift, shape, strict=False)]
        expected = np.roll(mask, steps, axis=range(mask.ndim))
        np.testing.assert_array_equal(result, expected)


def test_a_roll_by_nothing_changes_nothing():
    masks = np.random.default_rng(0).random((3, 4, 5)) < 0.5
    np.testing.assert_array_equal(roll_masks(masks, np.zeros((3, 2))), masks)


def test_rolls_reach_every_place():
    masks = np.ones((400, 3, 3), dtype=bool)
    masks[:, 0, 0] = False
    rolled = roll_masks(masks, np.random.default_rng(0).random((400, 2)))
    assert (~rolled).any(axis=0).all()


# ---------------------------------------------------------------- masked source


def masked(n=10, shape=(2, 6, 6), grid=(3, 3), seed=0, source=None, **params):
    rng = np.random.default_rng(seed)
    if source is None:
        X = rng.normal(size=(n, *shape)).astype(np.float32)
        source = ArraySource(X, np.arange(n) % 2)
    maps = random_maps(rng, n, grid)
    defaults = {"threshold": 1.0, "rule": "sigma", "fill": np.float32([50])}
    return MaskedSource(source, maps, **(defaults | params))


def everything(source):
    return np.arange(len(source))


def test_a_masked_source_is_its_source_with_masks_applied():
    source = masked(fill=np.float32([50, -3]))
    X = source.source.X
    indices = np.array([7, 2, 2, 9])
    saliency = resize_maps(source.maps[indices], (2, 6, 6))
    expected_masks, expected_empty = threshold_maps(saliency, 1.0)
    masks, empty = source.masks(indices)
    np.testing.assert_array_equal(masks, expected_masks)
    np.testing.assert_array_equal(empty, expected_empty)
    batch = source.batch(indices)
    assert batch.dtype == torch.float32
    np.testing.assert_array_equal(batch, apply_masks(X[indices], masks, source.fill))
    assert (batch.numpy()[:, 1][~masks] == -3).all()


def test_labels_length_and_shape_pass_through():
    source = masked()
    assert len(source) == 10
    assert source.item_shape == (2, 6, 6)
    assert source.labels is source.source.labels
    assert source.source.X.max() < 50
    X, y = TorchView(source).read(np.arange(10))
    np.testing.assert_array_equal(y, np.arange(10) % 2)
    assert (X == 50).any()


def test_a_take_of_a_masked_source_takes_its_masks_along():
    source = masked()
    rows = np.array([8, 3, 3])
    taken = source.take(rows)
    assert torch.equal(taken.batch(np.arange(3)), source.batch(rows))
    assert taken.fingerprint() != source.source.take(rows).fingerprint()


def test_the_data_are_not_written_to():
    source = masked()
    kept = source.source.X.copy()
    source.batch(everything(source)).fill_(3)
    np.testing.assert_array_equal(source.source.X, kept)


@pytest.mark.parametrize(("rule", "threshold"), RULES)
def test_masking_twice_hides_the_union(rule, threshold):
    first = masked(rule=rule, threshold=threshold)
    second = masked(source=first, seed=1, rule=rule, threshold=threshold)
    third = masked(source=second, seed=2, rule=rule, threshold=threshold)
    alone = [
        masked(source=first.source, seed=seed, rule=rule, threshold=threshold)
        for seed in (1, 2)
    ]
    rows = everything(first)
    masks = first.masks(rows)[0]
    for source, own in zip((second, third), alone, strict=True):
        own_masks, own_empty = own.masks(rows)
        both, empty = source.masks(rows)
        np.testing.assert_array_equal(both, masks & own_masks)
        np.testing.assert_array_equal(empty, own_empty)
        assert (~both).sum() > (~masks).sum()
        batch = source.batch(rows).numpy()
        hidden = np.broadcast_to(~both[:, None], batch.shape)
        assert (batch[hidden] == 50).all()
        np.testing.assert_array_equal(batch[~hidden], first.source.X[~hidden])
        masks = both
    # What was looked at before is as it was.
    np.testing.assert_array_equal(first.masks(rows)[0], first.masks(rows)[0])


def test_a_second_fill_value_does_not_show_through_the_first():
    first = masked()
    second = masked(source=first, seed=1, fill=np.float32([-9]))
    rows = everything(first)
    own = threshold_maps(resize_maps(second.maps, (2, 6, 6)), 1.0)[0]
    batch = second.batch(rows).numpy()[:, 0]
    assert (batch[~own] == -9).all()
    assert (batch[own & ~first.masks(rows)[0]] == 50).all()


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(("rule", "threshold"), RULES)
def test_the_summary_equals_a_direct_count(rule, threshold, nested):
    # More samples than are counted at once.
    source = masked(1500, (1, 4, 4), (2, 3), rule=rule, threshold=threshold)
    source.maps[::7] = 0.5
    if nested:
        source = masked(
            1500, grid=(4, 4), seed=1, source=source, rule=rule, threshold=threshold
        )
    masks, empty = source.masks(everything(source))
    fraction, n_empty, n_unmasked = source.summary()
    assert fraction == pytest.approx((~masks).mean(), rel=1e-9)
    assert n_empty == empty.sum()
    assert n_unmasked == masks.all(axis=(1, 2)).sum()
    assert (type(fraction), type(n_empty), type(n_unmasked)) == (float, int, int)
    assert n_empty > 0
    assert 0 < fraction < 1


def test_vectors_are_masked_feature_by_feature():
    X = np.ones((3, 4), dtype=np.float32)
    maps = np.eye(4, dtype=np.float32)[[2, 0, 3]]
    source = MaskedSource(
        ArraySource(X), maps, threshold=2.0, rule="sigma", fill=np.zeros(4, np.float32)
    )
    np.testing.assert_array_equal(source.batch(np.arange(3)), 1 - maps)
    assert source.summary() == (0.25, 3, 0)


def test_shifts_move_each_mask_and_keep_its_area():
    plain = masked(40)
    shifts = np.random.default_rng(5).random((40, 2))
    shifted = masked(40, shifts=shifts)
    rows = np.random.default_rng(6).permutation(40)
    masks, empty = plain.masks(rows)
    moved, moved_empty = shifted.masks(rows)
    np.testing.assert_array_equal(moved, roll_masks(masks, shifts[rows]))
    np.testing.assert_array_equal(empty, moved_empty)
    np.testing.assert_array_equal(masks.sum((1, 2)), moved.sum((1, 2)))
    assert not np.array_equal(masks, moved)
    assert shifted.summary() == pytest.approx(plain.summary())
    # The same place each time it is read.
    np.testing.assert_array_equal(shifted.masks(rows)[0], moved)
    hidden = np.broadcast_to(~moved[:, None], (40, 2, 6, 6))
    assert (shifted.batch(rows).numpy()[hidden] == 50).all()


# ---------------------------------------------------------------- packed maps


def packed_maps(n=50, shape=(9, 11), seed=3):
    """Return maps in [0, 1], each with a maximum of 1 or all zero, in float16."""
    maps = random_maps(np.random.default_rng(seed), n, shape)
    largest = maps.max(axis=(1, 2), keepdims=True)
    return (maps / np.where(largest == 0, 1, largest)).astype(np.float16)


@pytest.mark.parametrize("shape", [(2, 9, 11), (2, 18, 30)])
def test_maps_in_float16_are_computed_with_in_float32(shape):
    maps = packed_maps()
    maps[3] = 0
    wide = maps.astype(np.float32)
    for function in (scale_maps, lambda maps: resize_maps(maps, shape)):
        result = function(maps)
        assert result.dtype == np.float32
        np.testing.assert_array_equal(result, function(wide))
        assert not result[3].any()
    assert maps.dtype == np.float16


@pytest.mark.parametrize(("rule", "threshold"), [("sigma", 1.0), ("value", 0.5)])
def test_maps_in_float16_can_be_thresholded(rule, threshold):
    maps = packed_maps()
    masks, empty = threshold_maps(maps, threshold, rule)
    wide_masks, wide_empty = threshold_maps(maps.astype(np.float32), threshold, rule)
    np.testing.assert_array_equal(masks, wide_masks)
    np.testing.assert_array_equal(empty, wide_empty)


@pytest.mark.parametrize(("rule", "threshold"), RULES)
@pytest.mark.parametrize("shape", [(2, 9, 11), (2, 18, 22)])
def test_a_masked_source_takes_maps_in_float16(rule, threshold, shape):
    rng = np.random.default_rng(0)
    source = ArraySource(rng.normal(size=(50, *shape)).astype(np.float32))
    ours, reference = (
        MaskedSource(
            source, maps, threshold=threshold, rule=rule, fill=np.float32([50])
        )
        for maps in (packed_maps(), packed_maps().astype(np.float32))
    )
    rows = everything(source)
    np.testing.assert_array_equal(ours.masks(rows)[0], reference.masks(rows)[0])
    assert torch.equal(ours.batch(rows), reference.batch(rows))
    assert ours.summary() == reference.summary()


@pytest.mark.parametrize("size", [1, 7, 60, 61, 1000])
@pytest.mark.parametrize("shifted", [False, True])
def test_the_summary_does_not_depend_on_how_many_are_counted_at_once(
    monkeypatch, size, shifted
):
    shifts = np.random.default_rng(5).random((61, 2)) if shifted else None
    first = masked(61, threshold=2.0)
    first.maps[::5] = 0.5
    source = masked(61, seed=1, source=first, threshold=2.0, shifts=shifts)
    source.maps[::3] = 0.5
    fraction, *counts = source.summary()
    assert source.block_size > 61
    monkeypatch.setattr(MaskedSource, "block_size", size)
    assert source.summary() == (pytest.approx(fraction, rel=1e-12), *counts)
    assert min(counts) > 0
