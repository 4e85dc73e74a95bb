"""Tests of the artifacts planted in images."""

import hashlib

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import ImageFont
from sklearn.datasets import load_sample_images

from masktune_sk.datasets import make_artifact
from masktune_sk.datasets._make.artifacts import _TRIGGER
from masktune_sk.datasets._make.drawn_text import _N_SECONDS, draw_text, draw_timestamp
from masktune_sk.datasets._make.streams import image_stream

ARTIFACTS = ["timestamp", "brightness", "lsb", "text"]
EVERYWHERE = {"classes": None, "proportion": 1}


@pytest.fixture(scope="module")
def photos():
    """Eight photographs of 96x128 pixels."""
    pictures = load_sample_images().images
    patches = [
        picture[top : top + 192 : 2, left : left + 256 : 2]
        for picture in pictures
        for top in (0, 200)
        for left in (0, 300)
    ]
    return np.stack(patches).transpose(0, 3, 1, 2).copy()


def blank(n_images, shape=(224, 224), n_channels=3, value=128):
    return np.full((n_images, n_channels, *shape), value, dtype=np.uint8)


def labels(*counts):
    return np.repeat(np.arange(len(counts)), counts)


# Who gets the artifact


@pytest.mark.parametrize("proportion", [0, 0.05, 0.1, 0.125, 0.5, 1])
@pytest.mark.parametrize("classes", [0, 2, [0, 2], None])
def test_counts(classes, proportion):
    y = labels(80, 31, 55)[::-1]
    X = blank(len(y), (1, 1))
    planted = make_artifact(
        X, y, artifact="brightness", classes=classes, proportion=proportion
    )
    attacked = [0, 1, 2] if classes is None else np.atleast_1d(classes)
    expected = [
        round(n * proportion) if label in attacked else 0
        for label, n in enumerate([80, 31, 55])
    ]
    assert_array_equal(np.bincount(y, weights=planted.bias), expected)
    changed = (planted.data != X).any(axis=(1, 2, 3))
    assert_array_equal(changed, planted.bias == 1)


def test_others_are_counted_together():
    y = labels(40, 60, 60)
    planted = make_artifact(
        *(blank(160, (1, 1)), y),
        artifact="lsb",
        classes=0,
        proportion=0.25,
        proportion_other=0.1,
        random_state=0,
    )
    assert planted.bias[y == 0].sum() == 10
    assert planted.bias[y > 0].sum() == 12
    assert planted.bias[y == 1].any()
    assert planted.bias[y == 2].any()


@pytest.mark.parametrize("sampling", ["count", "bernoulli"])
def test_larger_shares_only_add(sampling):
    y = labels(100, 100)

    def rows(proportion, seed=0):
        return make_artifact(
            *(blank(200, (1, 1)), y),
            artifact="brightness",
            proportion=proportion,
            proportion_other=proportion / 2,
            sampling=sampling,
            random_state=seed,
        ).bias

    assert (rows(0.2) <= rows(0.6)).all()
    assert_array_equal(rows(0.2), rows(0.2))
    assert (rows(0.2) != rows(0.2, seed=1)).any()


def test_bernoulli_gives_the_rows_of_the_paper():
    y = np.arange(500) % 5
    planted = make_artifact(
        *(blank(500, (1, 1)), y),
        artifact="brightness",
        classes=[0, 3],
        proportion=0.1,
        sampling="bernoulli",
        random_state=0,
    )
    # the paper's code seeds the global generator with 0, and draws for each image of
    # an attacked class, in their order
    rng = np.random.RandomState(0)
    expected = [label in (0, 3) and rng.rand() < 0.1 for label in y]
    assert_array_equal(planted.bias, expected)
    assert 0 < planted.bias.sum() != 20


def test_clean_and_attacked_copies(photos):
    y = labels(4, 4)
    clean = make_artifact(photos, y, proportion=0)
    assert_array_equal(clean.data, photos)
    assert not clean.bias.any()
    assert not clean.artifact_mask.any()
    attacked = make_artifact(photos, y, **EVERYWHERE)
    assert attacked.bias.all()
    assert attacked.artifact_mask.any(axis=(1, 2)).all()


def test_backdoor():
    y = labels(50, 50, 100)
    planted = make_artifact(
        *(blank(200, (1, 1)), y),
        artifact="brightness",
        classes=1,
        proportion=0.2,
        proportion_other=0.1,
        relabel_other=True,
    )
    relabelled = planted.target != y
    assert relabelled.sum() == 15
    assert (planted.target[relabelled] == 1).all()
    assert planted.bias[relabelled].all()
    assert planted.bias.sum() == 25
    # by the new label they have their class's artifact
    assert planted.aligned[relabelled].all()
    assert planted.aligned.sum() == 25 + 135
    assert_array_equal(y, labels(50, 50, 100))


# What comes out


@pytest.mark.parametrize("artifact", ARTIFACTS)
@pytest.mark.parametrize("n_channels", [1, 3])
def test_fields(photos, artifact, n_channels):
    X, y = photos[:, :n_channels], labels(4, 4).astype(np.uint8)
    planted = make_artifact(
        X, y, artifact=artifact, classes=1, proportion_other=0.25, random_state=0
    )
    assert planted.data.shape == X.shape
    assert planted.data.dtype == np.uint8
    assert planted.artifact_mask.shape == (8, 96, 128)
    assert planted.artifact_mask.dtype == planted.aligned.dtype == bool
    for field in ("target", "bias", "groups", "concept"):
        assert planted[field].shape == (8,)
        assert planted[field].dtype == np.int64
    assert planted.concept is planted.bias
    assert_array_equal(planted.target, y)
    assert_array_equal(planted.groups, 2 * planted.target + planted.bias)
    assert_array_equal(planted.aligned, planted.bias == y)
    assert_array_equal(np.bincount(planted.groups), [3, 1, 2, 2])
    assert planted.group_names == [
        "class 0, clean",
        f"class 0, {artifact}",
        "class 1, clean",
        f"class 1, {artifact}",
    ]
    assert f"{artifact} on 3 images; attacked classes: 1 (" in planted.DESCR


def test_images_without_channels(photos):
    grey = photos[:, 0]
    with_axis, without = [
        make_artifact(X, labels(4, 4), random_state=0) for X in (grey[:, None], grey)
    ]
    assert without.data.shape == (8, 1, 96, 128)
    assert_array_equal(without.data, with_axis.data)
    assert not np.shares_memory(without.data, grey)


def test_return_X_y(photos):
    planted = make_artifact(photos, labels(4, 4), random_state=1)
    X, y = make_artifact(photos, labels(4, 4), random_state=1, return_X_y=True)
    assert_array_equal(X, planted.data)
    assert_array_equal(y, planted.target)


@pytest.mark.parametrize("artifact", ARTIFACTS)
def test_input_and_global_generator_are_left_alone(photos, artifact):
    clean, y = photos.copy(), labels(4, 4)
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    make_artifact(photos, y, artifact=artifact, random_state=5, **EVERYWHERE)
    assert_array_equal(photos, clean)
    assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.parametrize("artifact", ["timestamp", "text"])
def test_an_image_depends_on_its_number_alone(photos, artifact):
    def make(X, **parameters):
        y = np.arange(len(X)) % 2
        return make_artifact(
            X, y, artifact=artifact, random_state=3, **EVERYWHERE, **parameters
        )

    whole, again = make(photos), make(photos)
    assert_array_equal(whole.data, again.data)
    rows = [1, 4, 6, 7]
    part = make(photos[rows], sample_ids=rows)
    assert_array_equal(part.data, whole.data[rows])
    assert_array_equal(part.artifact_mask, whole.artifact_mask[rows])
    # who else has one does not matter
    some = make_artifact(photos, labels(4, 4), artifact=artifact, random_state=3)
    planted = some.bias == 1
    assert_array_equal(some.data[planted], whole.data[planted])
    # two numbers, two looks
    same = make(photos[[0, 0]])
    assert (same.data[0] != same.data[1]).any()


def test_output_never_changes():
    X = (np.arange(20 * 3 * 8 * 8) * 7 % 256).astype(np.uint8).reshape(20, 3, 8, 8)
    digest = hashlib.sha256()
    for artifact in ("lsb", "brightness"):
        for sampling in ("count", "bernoulli"):
            planted = make_artifact(
                *(X, labels(10, 10)),
                artifact=artifact,
                proportion_other=0.2,
                sampling=sampling,
                random_state=0,
            )
            digest.update(planted.data.tobytes() + planted.bias.tobytes())
    assert digest.hexdigest()[:16] == "aa015cbff22901da"


# Each artifact


@pytest.mark.parametrize("artifact", ARTIFACTS)
@pytest.mark.parametrize("shape", [(16, 16), (32, 32), (64, 100), (300, 224)])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_nothing_changes_outside_the_mask(artifact, shape, n_channels):
    # neither of the two values is near a colour of a text
    X = blank(6, shape, n_channels, 100)
    X[..., ::2] = 150
    planted = make_artifact(
        X,
        labels(3, 3),
        artifact=artifact,
        random_state=0,
        classes=None,
        proportion=2 / 3,
    )
    changed = (planted.data != X).any(axis=1)
    assert not (changed & ~planted.artifact_mask).any()
    assert_array_equal(changed.any(axis=(1, 2)), planted.bias == 1)
    for mask, has_it in zip(planted.artifact_mask, planted.bias, strict=True):
        if not has_it:
            assert not mask.any()
        elif artifact in ("brightness", "lsb"):
            assert mask.all()
        else:
            assert mask.sum() < mask.size / 3
            rows, columns = mask.any(axis=1), mask.any(axis=0)
            assert_array_equal(mask, np.outer(rows, columns))
            assert np.abs(np.diff(rows.astype(int))).sum() <= 2  # one box
            assert np.abs(np.diff(columns.astype(int))).sum() <= 2


def test_mask_of_a_text_is_tight_where_it_stands_out():
    planted = make_artifact(
        blank(40), labels(20, 20), artifact="text", random_state=0, **EVERYWHERE
    )
    changed = (planted.data != 128).any(axis=1)
    for box, ink in zip(boxes(planted.artifact_mask), boxes(changed), strict=True):
        # up to two nearly transparent pixels on each side change nothing
        assert np.abs(box - ink).max() <= 2


def test_brightness():
    values = np.arange(256, dtype=np.uint8).reshape(1, 1, 16, 16)
    X, y = np.repeat(values, 2, axis=0), [0, 1]
    planted = make_artifact(X, y, artifact="brightness", **EVERYWHERE)
    # floor(0.7 x + 0.3 * 255) in integers
    expected = (7 * values.astype(int) + 3 * 255) // 10
    assert_array_equal(planted.data[0], expected[0])
    for alpha, expected in ((0, values[0]), (1, np.full((1, 16, 16), 255))):
        blend = make_artifact(X, y, artifact="brightness", alpha=alpha, **EVERYWHERE)
        assert_array_equal(blend.data[1], expected)


@pytest.mark.parametrize("n_bits", [1, 2, 3, 7])
@pytest.mark.parametrize("n_channels", [1, 3])
def test_watermark_reads_as_the_text(n_bits, n_channels):
    rng = np.random.RandomState(0)
    X = rng.randint(256, size=(4, n_channels, 20, 30)).astype(np.uint8)
    text = "Clever Hans \xe4\xff"
    planted = make_artifact(
        *(X, labels(2, 2)),
        artifact="lsb",
        lsb_factor=n_bits,
        text=text,
        **EVERYWHERE,
    )
    for image in planted.data:
        values = image.transpose(1, 2, 0).ravel()
        bits = np.concatenate([values >> bit & 1 for bit in range(n_bits)])
        n_whole = len(bits) // 8
        read = np.packbits(bits[: 8 * n_whole]).tobytes().decode("latin-1")
        assert read == (text * n_whole)[:n_whole]
    assert_array_equal(planted.data >> n_bits, X >> n_bits)
    distortion = np.abs(planted.data.astype(int) - X)
    assert distortion.max() <= 2**n_bits - 1


def test_watermark_by_hand():
    X = blank(2, (2, 4), 1, 0b11110000)
    planted = make_artifact(
        X, [0, 1], artifact="lsb", text="AZ", lsb_factor=2, **EVERYWHERE
    )
    # "A" is 0b01000001 and becomes the lowest bits, "Z" is 0b01011010 and goes above
    low = [0b00, 0b11, 0b00, 0b10, 0b10, 0b00, 0b10, 0b01]
    assert_array_equal(planted.data[0].ravel(), 0b11110000 + np.array(low))


def test_default_watermark():
    X = blank(2, (32, 32), 3, 0)
    planted = make_artifact(X, [0, 1], artifact="lsb", lsb_factor=1, **EVERYWHERE)
    bits = planted.data[0].transpose(1, 2, 0).ravel() & 1
    assert np.packbits(bits).tobytes().decode() == _TRIGGER[: 32 * 32 * 3 // 8]
    assert len(_TRIGGER) == 446


def test_text_is_white_and_in_the_corners():
    X = blank(80)
    planted = make_artifact(
        X, labels(40, 40), artifact="text", random_state=0, **EVERYWHERE
    )
    assert (planted.data >= 128).all()
    assert (planted.data.max(axis=(1, 2, 3)) > 200).all()
    rows, columns = boxes(planted.artifact_mask)
    # 20 or 224 - 40 from above, with a jitter of standard deviation 2, a text of 7
    # pixels in a line of 11, and a turn that moves the ends by some more
    top, left = rows.mean(axis=1) < 112, columns.mean(axis=1) < 112
    assert_array_equal(np.unique(top * 2 + left), [0, 1, 2, 3])
    assert np.median(rows[top, 0]) == pytest.approx(22, abs=3)
    assert np.median(rows[~top, 0]) == pytest.approx(186, abs=3)
    assert np.median(columns[left, 0]) == pytest.approx(20, abs=3)
    assert np.median(columns[~left, 0]) == pytest.approx(124, abs=3)
    widths = np.ptp(columns, axis=1)
    assert np.median(widths) == pytest.approx(11 * 6, abs=4)


def boxes(masks):
    """Return first and last row, and first and last column of each mask."""
    rows = [np.flatnonzero(mask.any(axis=1))[[0, -1]] for mask in masks]
    columns = [np.flatnonzero(mask.any(axis=0))[[0, -1]] for mask in masks]
    return np.array(rows), np.array(columns)


class Unmoved:
    """A generator that draws no jitter, no turn, and a square of 224 pixels."""

    def __init__(self, second=0, corner=0, end=10):
        self.second, self.corner, self.end = second, corner, end

    def randint(self, low, high=None, size=None):
        if size is not None:
            return np.full(size, self.corner)
        if high is None:
            assert low == _N_SECONDS
            return self.second
        return 0 if low < 0 else 224 if high > 224 else 223

    def choice(self, values, size):
        assert values == [10, 245]
        return np.full(size, self.end)

    def normal(self, mean, scale, size):
        return np.zeros(size)


@pytest.mark.parametrize(
    ("second", "text"),
    [
        (0, "2020-01-01 00:00:00"),
        (24 * 60 * 60 * 366 + 1, "2021-01-01 00:00:01"),
        (_N_SECONDS - 1, "2022-12-30 23:59:59"),
    ],
)
def test_timestamp_shows_the_date(second, text):
    image = blank(1)[0]
    rows, columns = draw_timestamp(image, Unmoved(second), "datetime")
    font = ImageFont.load_default_imagefont()
    glyphs = np.array(font.getmask(text, "L"), dtype=bool).reshape(
        font.getbbox(text)[3], font.getbbox(text)[2]
    )
    expected = np.full((224, 224), 128)
    height, width = glyphs.shape
    expected[20 : 20 + height, 20 : 20 + width][glyphs] = 10
    for channel in image:
        assert_array_equal(channel, expected)
    box = np.zeros((224, 224), dtype=bool)
    box[rows, columns] = True
    tight_rows, tight_columns = boxes([expected != 128])
    assert_array_equal(boxes([box])[0], tight_rows)
    assert_array_equal(boxes([box])[1], tight_columns)


@pytest.mark.parametrize(
    ("time_format", "right"), [("datetime", 104), ("time", 144), ("text", 124)]
)
def test_last_corner(time_format, right):
    image = blank(1)[0]
    if time_format == "text":
        rows, columns = draw_text(image, Unmoved(corner=1), "Clever Hans")
    else:
        rows, columns = draw_timestamp(image, Unmoved(corner=1), time_format)
    # "time" is drawn on 223 pixels, and brought to 224
    assert columns.start == pytest.approx(right, abs=2)
    assert rows.start == pytest.approx(184 + 2, abs=2)


def test_timestamp_colours_and_sizes():
    X = blank(120, (64, 64))
    y = labels(60, 60)
    widths = {}
    for time_format in ("datetime", "time"):
        planted = make_artifact(
            X, y, time_format=time_format, random_state=0, **EVERYWHERE
        )
        _, columns = boxes(planted.artifact_mask)
        # in pixels of a 224x224 image, where nothing is cut off
        widths[time_format] = np.ptp(columns[columns[:, 1] < 60], axis=1) * 224 / 64
    assert widths["datetime"].mean() == pytest.approx(19 * 6, rel=0.1)
    assert np.ptp(widths["time"]) > 1.5 * np.ptp(widths["datetime"])
    # each channel goes up or down by itself
    sums = planted.data.astype(int).sum(axis=(2, 3)) - 128 * 64 * 64
    ways = {tuple(way) for way in np.sign(sums).tolist()}
    assert len(ways) == 8


def test_size_scales_the_drawing():
    small, large = [
        make_artifact(
            *(blank(20, (side, side)), labels(10, 10)), random_state=0, **EVERYWHERE
        )
        for side in (112, 448)
    ]
    for boxes_small, boxes_large in zip(
        boxes(small.artifact_mask), boxes(large.artifact_mask), strict=True
    ):
        assert np.abs(4 * boxes_small - boxes_large).max() <= 8


def test_long_text_keeps_within_the_image():
    planted = make_artifact(
        *(blank(40, value=0), labels(20, 20)),
        artifact="text",
        text="W" * 30,
        random_state=0,
        **EVERYWHERE,
    )
    _, columns = boxes(planted.artifact_mask)
    assert columns.min() > 0
    assert np.median(np.ptp(columns, axis=1)) == pytest.approx(180, abs=8)


def test_grey_timestamp_is_bright_or_dark():
    planted = make_artifact(
        *(blank(40, n_channels=1), labels(20, 20)), random_state=0, **EVERYWHERE
    )
    lowest, highest = planted.data.min((1, 2, 3)), planted.data.max((1, 2, 3))
    dark = lowest < 60
    assert_array_equal(dark, highest < 200)
    assert 5 < dark.sum() < 35


def test_streams_differ():
    first = image_stream(0, 0).randint(2**31, size=4)
    assert_array_equal(first, image_stream(0, 0).randint(2**31, size=4))
    assert (first != image_stream(0, 1).randint(2**31, size=4)).all()
    assert (first != image_stream(1, 0).randint(2**31, size=4)).all()


# Errors


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"artifact": "date"}, "artifact must be one of 'timestamp', .* got 'date'"),
        ({"classes": 2}, "classes must be one or some .* 0 to 1, or None .* got 2"),
        ({"classes": [0, "1"]}, r"labels in y, .* got \[0, '1'\]"),
        ({"classes": []}, r"classes must be one or some .* got \[\]"),
        ({"classes": -1}, "classes must be one or some .* got -1"),
        ({"classes": 0.5}, "classes must be one or some .* got 0.5"),
        ({"proportion": 1.5}, "proportion must be a number from 0 to 1, got 1.5"),
        ({"proportion_other": -1}, "proportion_other must be a number .* got -1"),
        ({"classes": None, "relabel_other": True}, "classes must be one class; got N"),
        ({"sampling": "exact"}, "sampling must be one of 'count', .* got 'exact'"),
        ({"time_format": "date"}, "time_format must be one of 'datetime', 'time'"),
        ({"alpha": 2}, "alpha must be a number from 0 to 1, got 2"),
        ({"lsb_factor": 8}, "lsb_factor must be an integer from 1 to 7, .* got 8"),
        ({"lsb_factor": 1.0}, "lsb_factor must be an integer from 1 to 7, .* got 1.0"),
        ({"text": "x"}, "text is for the artifacts .* 'timestamp' has none .* 'x'"),
        ({"artifact": "text", "text": ""}, "text must be a string that is not empty"),
        ({"artifact": "lsb", "text": 5}, "text must be a string .* got 5"),
        ({"artifact": "text", "text": "x" * 31}, "1 to 30 printable ASCII .* got 31"),
        ({"artifact": "text", "text": "a\nb"}, "printable ASCII characters, got 3"),
        ({"artifact": "text", "text": "  "}, "printable ASCII characters, got 2"),
        ({"artifact": "lsb", "text": "a\u20ac"}, "characters of one byte .*'\u20ac'"),
        ({"sample_ids": [0, 1]}, r"sample_ids must .* \(8,\). Got shape \(2,\)"),
        ({"random_state": "seed"}, "'seed' cannot be used to seed"),
    ],
)
def test_bad_parameters(photos, parameters, message):
    with pytest.raises(ValueError, match=message):
        make_artifact(photos, labels(4, 4), **parameters)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.zeros((2, 3, 32, 32)), [0, 1], "X must be uint8 images"),
        (np.zeros((2, 2, 32, 32), np.uint8), [0, 1], r"X must have 1 or 3 channel"),
        (np.zeros((2, 32, 32), np.uint8), [0, 1, 1], "2 samples, but y has 3"),
        (np.zeros((2, 32, 32), np.uint8), [0.0, 1.0], "y must hold integers"),
        (np.zeros((2, 15, 32), np.uint8), [0, 1], "at least 16x16 pixels, got 15x32"),
    ],
)
def test_bad_data(X, y, message):
    with pytest.raises(ValueError, match=message):
        make_artifact(X, y)
