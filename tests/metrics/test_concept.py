import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from masktune_sk.metrics._concept import (
    concept_alignment,
    concept_sensitivity,
    tcav_score,
)


def test_tcav_leaves_out_zeros():
    assert tcav_score([1, -1, 0, 2]) == pytest.approx(2 / 3)
    assert np.isnan(tcav_score([0.0, 0.0]))
    d = np.random.default_rng(0).normal(size=(50, 3, 2))
    assert_allclose(tcav_score(d), (d > 0).mean(axis=0))
    assert_array_equal(tcav_score([[1, 0], [-1, 0]]), [0.5, np.nan])


def test_sensitivity_is_the_mean_size():
    d = np.random.default_rng(0).normal(size=(50, 3, 2))
    assert_allclose(concept_sensitivity(d), np.abs(d).mean(axis=0))
    gap = np.array([2.0, 0.5])
    assert_allclose(concept_sensitivity(d, gap), np.abs(gap * d).mean(axis=0))
    assert concept_sensitivity([1, -3], gap=-2) == 4.0


def test_alignment():
    rng = np.random.default_rng(0)
    direction, shifts = rng.normal(size=5), rng.normal(size=(20, 5)) + 1
    cosines = [
        shift @ direction / np.linalg.norm(shift) / np.linalg.norm(direction)
        for shift in [*shifts, shifts.mean(axis=0)]
    ]
    expected = np.mean(cosines[:-1]), cosines[-1]
    assert_allclose(concept_alignment(direction, shifts), expected)
    still = np.r_[np.zeros((1, 5)), shifts]
    assert_allclose(concept_alignment(3 * direction, still), expected)
    assert concept_alignment([1, 0], [[1, 0], [-1, 0]])[0] == 0
    assert np.isnan(concept_alignment([1, 0], [[1, 0], [-1, 0]])[1])
    assert np.isnan(concept_alignment(direction, np.zeros((2, 5)))).all()


@pytest.mark.parametrize(
    ("function", "args", "message"),
    [
        (tcav_score, ([np.nan],), "derivatives contains NaN"),
        (tcav_score, ([],), "0 sample"),
        (concept_sensitivity, ([np.inf],), "derivatives contains inf"),
        (concept_sensitivity, ([1.0], np.nan), "gap must be finite"),
        (
            concept_sensitivity,
            (np.ones((4, 3)), [1, 2]),
            r"\(3,\); got the shape \(2,\)",
        ),
        (concept_alignment, ([1, 2], np.ones((2, 3))), r"shape \(3,\).*got \(2,\)"),
        (concept_alignment, ([0, 0], np.ones((2, 2))), "not zero"),
        (concept_alignment, ([np.nan, 0], np.ones((2, 2))), "finite"),
        (concept_alignment, ([1, 1], [[np.nan, 1]]), "shifts contains NaN"),
    ],
)
def test_bad_input(function, args, message):
    with pytest.raises(ValueError, match=message):
        function(*args)
