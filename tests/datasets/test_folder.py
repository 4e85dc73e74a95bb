"""Tests of the dataset of images in files."""

import os
import pickle
import re

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from masktune_sk import MaskTuneClassifier
from masktune_sk.data import DatasetView
from masktune_sk.datasets import BiasedImageDataset
from tests.nets import TinyConvNet, tiny_net

SHADES = [0, 51, 102, 255]
FIELDS = {
    "targets": [0, 1, 1, 0],
    "bias": [1, 0, -1, 1],
    "class_names": ["land", "water"],
    "bias_names": ["sand", "sea", "sky"],
}
TO_8x8 = v2.Compose(
    [v2.Resize((8, 8)), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]
)


@pytest.fixture
def root(tmp_path):
    """Four images of one shade each, in two folders."""
    for name, shade in zip("abcd", SHADES, strict=True):
        folder = tmp_path / ("one" if name in "ab" else "two")
        folder.mkdir(exist_ok=True)
        Image.new("RGB", (300, 280), (shade, 0, 0)).save(folder / f"{name}.png")
    return tmp_path


def make(root, **fields):
    files = ["one/a.png", "one/b.png", "two/c.png", "two/d.png"]
    return BiasedImageDataset(files, **({"root": root} | FIELDS | fields))


def test_a_sample_is_an_image_and_its_label(root):
    dataset = make(root)
    assert len(dataset) == 4
    for (image, label), shade, target in zip(
        dataset, SHADES, FIELDS["targets"], strict=True
    ):
        assert type(image) is torch.Tensor
        assert image.dtype == torch.float32
        assert image.shape == (3, 224, 224)
        expected = torch.tensor([shade / 255, 0, 0]).view(3, 1, 1).expand(3, 224, 224)
        torch.testing.assert_close(image, expected)
        assert label == target
        assert type(label) is int


def test_fields(root):
    dataset = make(root, metadata={"age": [7, 8, 9, 10]}, DESCR="Four.")
    for name in ("targets", "bias", "groups"):
        assert getattr(dataset, name).dtype == np.int64
    assert_array_equal(dataset.targets, [0, 1, 1, 0])
    assert_array_equal(dataset.bias, [1, 0, -1, 1])
    assert_array_equal(dataset.groups, [1, 3, -1, 1])
    assert dataset.group_names[3] == "water, sand"
    assert len(dataset.group_names) == 6
    assert_array_equal(dataset.metadata["age"], [7, 8, 9, 10])
    assert dataset.paths[2] == str(root / "two" / "c.png")
    assert dataset.DESCR == "Four."


def test_bias_that_is_not_known(root):
    dataset = make(root, bias=None, bias_names=())
    assert_array_equal(dataset.bias, [-1] * 4)
    assert_array_equal(dataset.groups, [-1] * 4)
    assert dataset.group_names == []


def test_repr_counts(root):
    assert repr(make(root)).splitlines() == [
        "BiasedImageDataset of 4 images",
        "    land, sea: 2",
        "    water, sand: 1",
        "    bias not known: 1",
    ]
    unknown = make(root, bias=None)
    assert repr(unknown).splitlines()[1:] == ["    land: 2", "    water: 2"]


@pytest.mark.parametrize(
    "rows",
    [[3, 1], slice(3, 0, -2), np.array([False, True, False, True])],
)
def test_take(root, rows):
    taken = make(root, metadata={"age": np.arange(4)}).take(rows)
    expected = np.arange(4)[rows]
    assert len(taken) == 2
    assert_array_equal(taken.metadata["age"], expected)
    assert_array_equal(taken.targets, np.array(FIELDS["targets"])[expected])
    assert_array_equal(taken.groups, np.array([1, 3, -1, 1])[expected])
    shades = [round(float(image.max()) * 255) for image, _ in taken]
    assert_array_equal(shades, np.array(SHADES)[expected])


def test_take_leaves_the_dataset_as_it_was(root):
    dataset = make(root)
    dataset.take([0])
    assert len(dataset) == len(dataset.targets) == len(dataset.bias) == 4


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_images_of_every_mode_become_rgb(tmp_path, mode):
    suffix = "jpg" if mode == "CMYK" else "png"
    Image.new(mode, (20, 10)).save(tmp_path / f"x.{suffix}")
    dataset = BiasedImageDataset(
        [f"x.{suffix}"], [0], class_names=["one"], root=tmp_path, transform=TO_8x8
    )
    assert dataset[0][0].shape == (3, 8, 8)


def test_files_are_looked_for_once_and_read_when_asked_for(root):
    dataset = make(root)
    os.remove(root / "one" / "b.png")
    assert dataset[0][1] == 0
    with pytest.raises(
        ValueError, match=r"Sample 1 can't be read: .*b\.png, .*check='decode'"
    ):
        dataset[1]


def test_an_index_that_does_not_exist(root):
    with pytest.raises(IndexError):
        make(root)[4]


def test_missing_files_are_named(root):
    for name in ("one/b.png", "two/c.png"):
        os.remove(root / name)
    message = (
        f"2 of 4 images are missing: one/b.png, two/c.png. Looked for them in {root}. "
        "It is at x.org."
    )
    with pytest.raises(FileNotFoundError, match=re.escape(message)):
        make(root, origin="It is at x.org.")
    assert len(make(root, check="none")) == 4


def test_only_the_first_missing_files_are_named(tmp_path):
    files = [f"{i}.png" for i in range(20)]
    with pytest.raises(
        FileNotFoundError, match=r"20 of 20 .* 0\.png, .*4\.png, \.\.\."
    ):
        BiasedImageDataset(files, [0] * 20, class_names=["one"], root=tmp_path)


def test_a_folder_or_a_dead_link_is_no_file(root):
    os.remove(root / "one" / "a.png")
    (root / "one" / "a.png").mkdir()
    os.remove(root / "one" / "b.png")
    (root / "one" / "b.png").symlink_to(root / "nowhere")
    with pytest.raises(FileNotFoundError, match="2 of 4 images are missing"):
        make(root)


def test_damaged_files_are_found_before_training(root):
    (root / "one" / "a.png").write_bytes(b"")
    whole = (root / "two" / "d.png").read_bytes()
    (root / "two" / "d.png").write_bytes(whole[: len(whole) // 2])
    dataset = make(root)
    message = (
        r"2 of 4 images can't be read: one/a\.png \(not an image, or empty\), two/d"
    )
    with pytest.raises(ValueError, match=message):
        dataset.check_images()
    with pytest.raises(
        ValueError, match=f"{message}.* leave them out. It is at x.org."
    ):
        make(root, check="decode", origin="It is at x.org.")
    make(root).take([1, 2]).check_images()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"targets": [0, 1]},
            r"targets must have one value .* 4 files; got shape \(2,",
        ),
        ({"targets": [0, 1, 2, 0]}, r"targets must be from 0 to 1, .* got 2 for two/c"),
        ({"targets": [0, 1, -1, 0]}, "targets must be from 0 to 1, .* got -1"),
        ({"targets": [0.0, 1, 1, 0]}, "targets must be integers .* dtype float64"),
        ({"bias": [[1], [0], [0], [1]]}, r"bias must be integers .* shape \(4, 1\)"),
        ({"bias": [0, 0, 3, 0]}, "bias must be from -1 to 2, as there are 3 names"),
        ({"metadata": {"age": [1]}}, r"metadata\['age'\] must have one value"),
        ({"check": "all"}, "check must be one of 'exists', 'decode', .*; got 'all'"),
    ],
)
def test_bad_parameters(root, fields, message):
    with pytest.raises(ValueError, match=message):
        make(root, **fields)


def test_no_images(root):
    with pytest.raises(ValueError, match="There are no images, in .* It is at x.org"):
        BiasedImageDataset(
            [], [], class_names=["one"], root=root, origin="It is at x.org."
        )
    with pytest.raises(ValueError, match="None of the 4 images is chosen"):
        make(root).take([])


def test_pickle(root):
    dataset = make(root, metadata={"age": np.arange(4)})
    again = pickle.loads(pickle.dumps(dataset))
    assert repr(again) == repr(dataset)
    assert_array_equal(again.files, dataset.files)
    torch.testing.assert_close(again[3], dataset[3])


def test_worker_processes_read_it(root):
    dataset = make(root, transform=TO_8x8)
    X, y = next(iter(DataLoader(dataset, 4, num_workers=1)))
    assert_array_equal(y, dataset.targets)
    torch.testing.assert_close(X, torch.stack([image for image, _ in dataset]))


@pytest.fixture
def squares(tmp_path):
    """Forty images of 8x8 with a bright square, that says the class."""
    rng = np.random.RandomState(0)
    targets = np.arange(40) % 2
    for i, target in enumerate(targets):
        image = rng.randint(0, 80, (8, 8, 3)).astype(np.uint8)
        image[: 3 + target, : 3 + target] = 255 * target
        Image.fromarray(image).save(tmp_path / f"{i:02}.png")
    return BiasedImageDataset(
        [f"{i:02}.png" for i in range(40)],
        targets,
        class_names=["dark", "bright"],
        root=tmp_path,
        transform=TO_8x8,
    )


def classifier(**params):
    net = tiny_net(TinyConvNet, module__n_channels=3, max_epochs=2)
    return MaskTuneClassifier(
        net.set_params(**params),
        random_state=0,
        mask_threshold=0.2,
        threshold_rule="quantile",
    )


@pytest.mark.parametrize("n_workers", [0, 1])
def test_an_estimator_learns_the_same_as_from_arrays(squares, n_workers):
    X = torch.stack([image for image, _ in squares]).numpy()
    workers = {
        f"iterator_{part}__num_workers": n_workers for part in ("train", "valid")
    }
    expected = classifier(**workers).fit(X, squares.targets).predict_proba(X)
    proba = classifier(**workers).fit(squares).predict_proba(squares)
    np.testing.assert_allclose(proba, expected, atol=1e-6)


def test_a_view_of_it_is_a_fold(squares):
    view = DatasetView(squares)
    rows = [5, 2, 30]
    assert view[rows].shape == (3, 3, 8, 8)
    assert_array_equal(view[rows].labels, squares.take(rows).targets)
