import numpy as np
import pytest

from masktune_sk.metrics import artifact_relevance


def test_mean_share_of_samples_that_show_the_artifact():
    maps = np.array([[[1, 1], [1, 1]], [[4, 0], [0, -1]], [[9, 9], [9, 9]]], float)
    masks = np.zeros(maps.shape, dtype=bool)
    masks[0, 0] = True
    masks[1, 1, 1] = True
    assert artifact_relevance(maps, masks) == pytest.approx((0.5 + 0.2) / 2)


def test_scale_of_a_map_does_not_count():
    random = np.random.default_rng(0)
    maps, masks = random.random((5, 8)), random.random((5, 8)) < 0.3
    scaled = maps * random.uniform(1, 9, (5, 1))
    assert artifact_relevance(scaled, masks) == pytest.approx(
        artifact_relevance(maps, masks)
    )


def test_maps_that_are_zero_are_left_out():
    maps = np.array([[0.0, 0.0], [1.0, 3.0]])
    masks = np.array([[True, False], [True, False]])
    assert artifact_relevance(maps, masks) == 0.25
    assert np.isnan(artifact_relevance(maps[:1], masks[:1]))
    assert np.isnan(artifact_relevance(maps, np.zeros_like(masks)))


@pytest.mark.parametrize(
    ("maps", "masks", "message"),
    [
        (np.ones((2, 3)), np.ones((2, 4)), "the same shape"),
        (np.full((2, 3), np.nan), np.ones((2, 3)), "NaN"),
        (np.ones((0, 3)), np.ones((0, 3)), "0 sample"),
    ],
)
def test_bad_input_is_refused(maps, masks, message):
    with pytest.raises(ValueError, match=message):
        artifact_relevance(maps, masks)
