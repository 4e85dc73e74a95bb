"""Tests of the images whose corruption gives the class away."""

import colorsys
import hashlib
from io import BytesIO

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image
from scipy.ndimage import zoom
from sklearn.datasets import load_sample_images

from masktune_sk.datasets import make_corrupted
from masktune_sk.datasets._make import corrupted as _corrupted
from masktune_sk.datasets._make.corruptions import (
    CORRUPTIONS,
    TYPE_0,
    TYPE_1,
    _elastic,
    _glass_blur,
    _smear,
    _zoom_blur,
    corrupt,
    levels_of,
)
from masktune_sk.datasets._make.streams import image_stream
from masktune_sk.datasets._make.textures import frost_textures, plasma

MNIST_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
CIFAR10_COUNTS = [5000] * 10


@pytest.fixture(scope="module")
def photos():
    """Six 32x32 patches of photographs."""
    pictures = load_sample_images().images
    patches = [
        picture[top : top + 128 : 4, 200:328:4]
        for picture in pictures
        for top in (0, 128, 256)
    ]
    return np.stack(patches).transpose(0, 3, 1, 2).copy()


def streams(n_images, seed=0):
    return [image_stream(seed, number) for number in range(n_images)]


def one(photos, corruption, level=5, seed=0):
    """Corrupt all photographs in one way."""
    return corrupt(photos, streams(len(photos), seed), corruption, level)


def flat(value, n_images=3, side=32):
    return np.full((n_images, 3, side, side), value, dtype=np.uint8)


# Who gets which corruption


@pytest.mark.parametrize(
    ("class_counts", "ratio", "n_conflicting"),
    [
        (MNIST_COUNTS, 0.005, 300),
        (MNIST_COUNTS, 0.01, 598),
        (MNIST_COUNTS, 0.02, 1199),
        (MNIST_COUNTS, 0.05, 3000),
        (CIFAR10_COUNTS, 0.005, 250),
        (CIFAR10_COUNTS, 0.01, 500),
        (CIFAR10_COUNTS, 0.02, 1000),
        (CIFAR10_COUNTS, 0.05, 2500),
        ([1000] * 10, 0.9, 9000),
    ],
)
def test_counts_of_the_papers(monkeypatch, class_counts, ratio, n_conflicting):
    monkeypatch.setattr(_corrupted, "corrupt", lambda images, *_: images)
    monkeypatch.setattr(_corrupted, "image_stream", lambda *_: None)
    y = np.repeat(np.arange(10), class_counts)
    X = np.zeros((len(y), 3, 8, 8), dtype=np.uint8)
    corrupted = make_corrupted(X, y, conflict_ratio=ratio)
    assert (~corrupted.aligned).sum() == n_conflicting
    counts = np.bincount(corrupted.groups, minlength=100).reshape(10, 10)
    assert_array_equal(counts.sum(axis=1), class_counts)
    assert counts.min() > 0


def test_milestones_by_hand(photos):
    y = np.repeat([1, 0], 50)
    X = np.zeros((100, 3, 8, 8), dtype=np.uint8)
    names = ["original", "contrast", "brightness", "saturate"]
    corrupted = make_corrupted(X, y, conflict_ratio=0.3, corruptions=names)
    assert_array_equal(corrupted.bias[y == 0], np.repeat([0, 1, 2, 3], [35, 5, 5, 5]))
    assert_array_equal(corrupted.bias[y == 1], np.repeat([0, 1, 2, 3], [5, 35, 5, 5]))


def test_random_assignment(photos):
    X, y = np.tile(photos, (20, 1, 1, 1)), np.repeat([0, 1, 2], 40)
    make = {"corruptions": ["contrast", "brightness", "original"]}

    def conflicts(ratio, seed):
        corrupted = make_corrupted(
            X, y, assignment="random", conflict_ratio=ratio, random_state=seed, **make
        )
        assert_array_equal(np.bincount(y[~corrupted.aligned]), [round(40 * ratio)] * 3)
        return ~corrupted.aligned

    few, many = conflicts(0.1, 0), conflicts(0.5, 0)
    assert not (few & ~many).any()
    assert (few != conflicts(0.1, 1)).any()


def test_given_assignment(photos):
    given = [2, 0, 1, 1, 0, 2]
    names = ["contrast", "original", "brightness"]
    corrupted = make_corrupted(
        photos, [0, 0, 0, 1, 1, 1], corruptions=names, assignment=given
    )
    assert_array_equal(corrupted.bias, given)
    assert_array_equal(corrupted.aligned, [False, True, False, True, False, False])
    for number, name in enumerate(names):
        rows = corrupted.bias == number
        assert_array_equal(corrupted.data[rows], one(photos[rows], name))


def test_fields(photos):
    y = np.array([0, 1, 1, 0, 1, 0], dtype=np.uint8)
    corrupted = make_corrupted(photos, y, corruptions="type1", random_state=0)
    assert corrupted.data.shape == photos.shape
    assert corrupted.data.dtype == np.uint8
    for field in ("target", "bias", "groups"):
        assert corrupted[field].shape == y.shape
        assert corrupted[field].dtype == np.int64
    assert corrupted.aligned.dtype == bool
    assert_array_equal(corrupted.target, y)
    assert_array_equal(corrupted.groups, corrupted.target * 10 + corrupted.bias)
    assert_array_equal(corrupted.aligned, corrupted.bias == y)
    assert corrupted.group_names[10] == "class 1, gaussian_noise"
    assert len(corrupted.group_names) == 20
    assert "artifact_mask" not in corrupted
    assert "6 images in 2 classes" in corrupted.DESCR
    assert "level 5; 6 are aligned" in corrupted.DESCR


def test_return_X_y(photos):
    y = [0, 1, 1, 0, 1, 0]
    corrupted = make_corrupted(photos, y, random_state=3)
    X, target = make_corrupted(photos, y, random_state=3, return_X_y=True)
    assert_array_equal(X, corrupted.data)
    assert_array_equal(target, y)


# Randomness


@pytest.mark.parametrize("corruptions", ["type0", "type1"])
def test_an_image_depends_on_its_number_alone(monkeypatch, photos, corruptions):
    X, y = np.tile(photos, (10, 1, 1, 1)), np.arange(60) % 10
    make = {"corruptions": corruptions, "random_state": 5}
    whole = make_corrupted(X, y, assignment=y, **make)
    assert_array_equal(whole.data, make_corrupted(X, y, assignment=y, **make).data)

    rows = [2, 3, 11, 12, 40, 41, 58]
    part = make_corrupted(X[rows], y[rows], assignment=y[rows], sample_ids=rows, **make)
    assert_array_equal(part.data, whole.data[rows])
    head = make_corrupted(X[:15], y[:15], assignment=y[:15], **make)
    assert_array_equal(head.data, whole.data[:15])

    monkeypatch.setattr(_corrupted, "_BATCH_SIZE", 2 * X[0].size)
    assert_array_equal(whole.data, make_corrupted(X, y, assignment=y, **make).data)


@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_same_seed_same_image(photos, corruption):
    clean = photos.copy()
    same_seed = [one(photos, corruption, seed=7) for _ in range(2)]
    assert_array_equal(*same_seed)
    assert_array_equal(photos, clean)
    random = corruption not in {
        *("original", "brightness", "contrast", "saturate", "jpeg", "pixelate"),
        *("gaussian_blur", "defocus_blur", "zoom_blur"),
    }
    assert (same_seed[0] != one(photos, corruption, seed=8)).any() == random
    assert (same_seed[0] != photos).any() == (corruption != "original")
    # the same photograph twice comes out as two images
    twice = one(photos[[0, 0]], corruption)
    assert (twice[0] != twice[1]).any() == random


def test_other_kinds_of_random_state(photos):
    y = [0, 1, 1, 0, 1, 0]

    def make(random_state):
        return make_corrupted(photos, y, random_state=random_state).data

    generators = [np.random.RandomState(4) for _ in range(2)]
    assert_array_equal(*[make(rng) for rng in generators])
    assert (make(None) != make(None)).any()
    assert (make(0) != make(1)).any()


def test_global_generator_and_input_are_left_alone(photos):
    before, clean = np.random.get_state()[1].copy(), photos.copy()  # noqa: NPY002
    make_corrupted(photos, [0, 1, 1, 0, 1, 0], random_state=5)
    assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert_array_equal(photos, clean)


def test_output_never_changes():
    X = np.arange(20 * 3 * 8 * 8).reshape(20, 3, 8, 8) * 7 % 256
    names = ["impulse_noise", "contrast", "brightness", "saturate", "original"]
    corrupted = make_corrupted(
        X.astype(np.uint8),
        np.arange(20) % 5,
        corruptions=names,
        conflict_ratio=0.5,
        assignment="random",
        random_state=0,
    )
    arrays = [corrupted.data, corrupted.target, corrupted.bias]
    digest = hashlib.sha256(b"".join(array.tobytes() for array in arrays))
    assert digest.hexdigest()[:16] == "97c609c71a2f67ed"


# Each corruption


def test_every_corruption_is_in_one_list():
    assert sorted(TYPE_0 + TYPE_1) == sorted(CORRUPTIONS)
    assert len(TYPE_0) == len(TYPE_1) == 10


@pytest.mark.parametrize("shape", [(8, 8), (48, 40), (21, 33)])
@pytest.mark.parametrize("corruption", CORRUPTIONS)
def test_other_sizes_and_levels(photos, corruption, shape):
    X = np.stack(
        [zoom(image, (1, shape[0] / 32, shape[1] / 32)) for image in photos[:2]]
    )
    assert X.shape[2:] == shape
    for level in levels_of(corruption):
        corrupted = one(X, corruption, level)
        assert corrupted.shape == X.shape
        assert corrupted.dtype == np.uint8


def test_levels():
    for name in CORRUPTIONS:
        assert levels_of(name) == ([4, 5] if name == "spatter" else [1, 2, 3, 4, 5])


@pytest.mark.parametrize(
    "corruption",
    ["pixelate", "elastic", "gaussian_blur", "defocus_blur", "glass_blur"]
    + ["motion_blur", "zoom_blur", "contrast"],
)
@pytest.mark.parametrize("value", [0, 1, 100, 199, 255])
def test_flat_images_stay(corruption, value):
    """The weights of a blur add up to one, and truncation does not lose a level."""
    for level in levels_of(corruption):
        assert_array_equal(one(flat(value), corruption, level), flat(value))


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_brightness_raises_value_alone(photos, level):
    shift = [0.05, 0.1, 0.15, 0.2, 0.3][level - 1]

    def change(hue, saturation, value):
        return hue, saturation, min(value + shift, 1)

    assert_hsv(photos, one(photos, "brightness", level), change)
    assert_array_equal(one(flat(0), "brightness", level), flat(int(255 * shift)))
    assert_array_equal(one(flat(250), "brightness", level), flat(255))


@pytest.mark.parametrize("level", [1, 2, 3, 4, 5])
def test_saturate_changes_saturation_alone(photos, level):
    factor, shift = [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)][level - 1]

    def change(hue, saturation, value):
        return hue, min(saturation * factor + shift, 1), value

    assert_hsv(photos, one(photos, "saturate", level), change)


def assert_hsv(clean, corrupted, change):
    """Compare with Python's own conversion to hue, saturation, value and back."""
    pixels = clean.transpose(0, 2, 3, 1).reshape(-1, 3)[::7]
    expected = [
        colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*p))) for p in pixels / 255
    ]
    found = corrupted.transpose(0, 2, 3, 1).reshape(-1, 3)[::7]
    assert_array_equal(found, np.floor(np.array(expected) * 255 + 1e-6))


def test_saturate_turns_grey_red():
    corrupted = one(flat(100), "saturate")
    assert_array_equal(corrupted[0, :, 0, 0], [100, 80, 80])


@pytest.mark.parametrize("level", [1, 5])
def test_contrast(photos, level):
    factor = {1: 0.75, 5: 0.15}[level]
    mean = photos.mean(axis=(2, 3), keepdims=True)
    expected = (photos - mean) * factor + mean
    assert_array_equal(one(photos, "contrast", level), np.floor(expected + 1e-6))


def test_jpeg_and_pixelate_are_pillow(photos):
    wide = np.concatenate([photos[:3], photos[3:]], axis=3)
    for image, jpeg, pixelated in zip(
        wide, one(wide, "jpeg"), one(wide, "pixelate"), strict=True
    ):
        picture = Image.fromarray(image.transpose(1, 2, 0))
        file = BytesIO()
        picture.save(file, "JPEG", quality=40)
        assert_array_equal(jpeg.transpose(1, 2, 0), np.asarray(Image.open(file)))
        small = picture.resize((41, 20), Image.Resampling.BOX)
        again = small.resize((64, 32), Image.Resampling.BOX)
        assert_array_equal(pixelated.transpose(1, 2, 0), np.asarray(again))


@pytest.mark.parametrize(
    ("corruption", "mean", "scale"),
    [
        ("gaussian_noise", 127, 0.10 * 255),
        ("speckle_noise", 127, 0.20 * 127),
        ("shot_noise", 127, np.sqrt(127 * 255 / 50)),
    ],
)
def test_noise(corruption, mean, scale):
    noisy = one(flat(127, n_images=10, side=64), corruption).astype(float)
    # values are truncated: half a level less, on average
    assert noisy.mean() == pytest.approx(mean - 0.5, abs=0.4)
    assert noisy.std() == pytest.approx(scale, rel=0.02)
    neighbours = noisy[:, :, 1:] - noisy[:, :, :-1]
    assert neighbours.std() == pytest.approx(np.sqrt(2) * scale, rel=0.02)
    channels = noisy[:, 0] - noisy[:, 1]
    assert channels.std() == pytest.approx(np.sqrt(2) * scale, rel=0.02)


def test_impulse_noise():
    noisy = one(flat(127, n_images=10, side=64), "impulse_noise")
    values, counts = np.unique(noisy, return_counts=True)
    assert_array_equal(values, [0, 127, 255])
    assert_allclose(counts / noisy.size, [0.035, 0.93, 0.035], atol=0.004)


def test_defocus_blur_is_the_mean_of_nine(photos):
    padded = np.pad(photos, ((0, 0), (0, 0), (1, 1), (1, 1)), mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    expected = windows.mean(axis=(-1, -2))
    assert_array_equal(one(photos, "defocus_blur"), np.floor(expected + 1e-6))


def test_zoom_blur_is_the_mean_of_zooms(photos):
    side, image = 32, photos[0].astype(float)
    total = image.copy()
    for factor in np.arange(1, 1.26, 0.01):
        kept = int(np.ceil(side / factor))
        top = (side - kept) // 2
        crop = image[:, top : top + kept, top : top + kept]
        enlarged = zoom(crop, (1, factor, factor), order=1)
        trim = (enlarged.shape[1] - side) // 2
        total += enlarged[:, trim : trim + side, trim : trim + side]
    assert_allclose(_zoom_blur(photos[:1].astype(float), [], 1.26)[0], total / 27)


def test_glass_blur_takes_the_neighbour_above_or_to_the_left():
    places = np.arange(32 * 32, dtype=float).reshape(1, 1, 32, 32)
    moved = _glass_blur(places, streams(1), 0, 1)[0, 0]
    shift = places[0, 0] - moved
    assert set(np.unique(shift)) == {0, 1, 32, 33}
    assert not shift[:2].any()
    assert not shift[:, :2].any()
    assert_allclose(np.mean(shift[2:, 2:] == 0), 0.25, atol=0.05)


def test_motion_blur_runs_along_the_angle():
    point = np.zeros((3, 1, 21, 21))
    point[:, 0, 10, 10] = 1
    weights = np.exp(-(np.arange(9) ** 2) / (2 * 2.0**2))
    weights /= weights.sum()
    right, down, diagonal = _smear(point, np.array([0, 90, 45]), 4, 2)[:, 0]
    # a pixel takes in what is ahead of it, so that the point is drawn out backwards
    assert_allclose(right[10, 2:11], weights[::-1])
    assert_allclose(down[2:11, 10], weights[::-1])
    assert right.sum() == pytest.approx(1)
    assert down.sum() == pytest.approx(1)
    rows, columns = np.nonzero(diagonal)
    assert_array_equal(rows, columns)


def test_fog_is_bright_and_keeps_the_highest_value(photos):
    foggy = one(photos, "fog")
    assert_array_equal(one(flat(0), "fog"), flat(0))  # nothing to light up
    contrast = [images.astype(float).std(axis=(1, 2, 3)) for images in (foggy, photos)]
    assert (contrast[0] < contrast[1]).all()
    # the fog is grey: a grey image stays grey
    grey = one(flat(90), "fog")
    assert_array_equal(grey[:, 0], grey[:, 1])
    assert_array_equal(grey[:, 0], grey[:, 2])


@pytest.mark.parametrize("side", [8, 20, 32])
def test_clouds(side):
    clouds = plasma(streams(4), side, 1.75)
    assert clouds.shape[1] == clouds.shape[2] == 2 ** np.ceil(np.log2(side))
    assert_array_equal(clouds.min(axis=(1, 2)), 0)
    assert_array_equal(clouds.max(axis=(1, 2)), 1)
    # the larger the decay, the smoother
    steps = [
        np.abs(np.diff(plasma(streams(4), side, d))).mean() for d in (1.2, 1.75, 3)
    ]
    assert steps[0] > steps[1] > steps[2]


def test_frost_is_a_cut_from_one_of_five_textures(photos):
    textures = frost_textures(160, 160)
    assert textures.shape == (5, 3, 160, 160)
    assert textures.min() >= 0
    assert textures.max() <= 255
    ice = one(flat(0, n_images=20), "frost").astype(float) / 0.45
    found = set()
    for cut in ice:
        for number, texture in enumerate(textures):
            windows = np.lib.stride_tricks.sliding_window_view(texture[0], (32, 32))
            # truncated from values at 0.45 of the scale
            if (
                (np.abs(windows[..., ::8, ::8] - cut[0, ::8, ::8]) < 2.3)
                .all((2, 3))
                .any()
            ):
                found.add(number)
    assert found == {0, 1, 2, 3, 4}
    frosted = one(photos, "frost").astype(float)
    assert (frosted >= np.floor(0.75 * photos)).all()


def test_snow_is_streaks_and_only_brightens(photos):
    snowy = one(photos, "snow")
    assert (snowy >= photos).mean() > 0.99
    # on black, what falls and its copy turned by 180 degrees, over an even grey
    falling = one(flat(0, n_images=50), "snow", level=3)[:, 0].astype(float)
    assert_array_equal(falling, falling[:, ::-1, ::-1])
    down = np.abs(np.diff(falling, axis=1)).mean()
    across = np.abs(np.diff(falling, axis=2)).mean()
    assert across > 1.5 * down


def test_spatter_is_mud(photos):
    muddy = one(flat(250, n_images=50), "spatter")
    # the mud of the papers' code, at full strength and nowhere darker
    pixels = muddy.transpose(0, 2, 3, 1).reshape(-1, 3)
    assert_array_equal(pixels.min(axis=0), [63, 42, 20])
    # a pixel is either clean, or mud to 80 % at least
    clean = (pixels == 250).all(axis=1)
    assert 0.9 < clean.mean() < 0.97
    assert pixels[~clean, 2].max() <= 250 - 0.8 * (250 - 20)


def test_elastic_without_forces_does_nothing(photos):
    images = photos.astype(float)
    still = _elastic(images, streams(6), 0, 0, 0)
    assert_allclose(still, images, atol=1e-6)


def test_elastic_moves_little(photos):
    ramp = np.broadcast_to(np.arange(0, 160, 5.0), (4, 3, 32, 32))
    for level in (1, 5):
        shares = CORRUPTIONS["elastic"][1][level - 1]
        moved = np.abs(_elastic(ramp, streams(4), *shares) - ramp)[..., 8:24, 8:24] / 5
        # a point moves by its jitter at most, what is between them by less
        assert 0 < moved.mean() < 0.12 * 32


# Errors


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"conflict_ratio": 1.5},
            "conflict_ratio must be a number from 0 to 1, got 1.5",
        ),
        ({"corruptions": "type2"}, "corruptions, .* must be one of 'type0', 'type1'"),
        ({"corruptions": ["rain", "fog"]}, "each of corruptions must be .* got 'rain'"),
        ({"corruptions": [1, 2]}, "each of corruptions must be one of .* got 1"),
        (
            {"corruptions": ["fog", "fog"]},
            "corruptions must differ from each other.*fog",
        ),
        (
            {"corruptions": ["fog"]},
            "a corruption for each class, but y has 2 .* are 1 ",
        ),
        ({"level": 0}, "level must be an integer from 1 to 5, got 0"),
        ({"level": 2.5}, "level must be an integer from 1 to 5, got 2.5"),
        ({"level": 3}, r"'spatter' has levels \[4, 5\] only, got level 3. Take one"),
        ({"assignment": "sorted"}, "assignment, .* one of 'milestones', 'random'"),
        ({"assignment": [0, 1]}, "6 samples, but assignment has 2"),
        ({"assignment": [0, 1, 2, 3, 4, 10]}, "assignment must hold class numbers"),
        (
            {"sample_ids": [0, 1]},
            r"sample_ids must hold one .* shape \(6,\). Got .*\(2,",
        ),
        ({"sample_ids": np.arange(6.0)}, "one integer .* of float64"),
        ({"sample_ids": np.arange(6) - 1}, "integer from 0 on .* lowest -1"),
        ({"random_state": "seed"}, "'seed' cannot be used to seed"),
        ({"random_state": -1}, "Seed must be between 0 and"),
    ],
)
def test_bad_parameters(photos, parameters, message):
    with pytest.raises(ValueError, match=message):
        make_corrupted(photos, [0, 1, 1, 0, 1, 0], **parameters)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.zeros((2, 3, 32, 32)), [0, 1], "X must be uint8 images"),
        (np.zeros((2, 1, 32, 32), np.uint8), [0, 1], "X must have 3 channel"),
        (np.zeros((2, 3, 32, 7), np.uint8), [0, 1], "at least 8x8 pixels, got 32x7"),
        (np.zeros((2, 3, 32, 32), np.uint8), [0, 1, 1], "2 samples, but y has 3"),
        (np.zeros((2, 3, 32, 32), np.uint8), [0, -1], "class numbers from 0 on"),
    ],
)
def test_bad_data(X, y, message):
    with pytest.raises(ValueError, match=message):
        make_corrupted(X, y)
