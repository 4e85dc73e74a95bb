"""Tests of the sets that fit into memory, on small made copies."""

import gzip
import pickle
import re

import numpy as np
import pytest
import torchvision
from numpy.testing import assert_array_equal
from scipy.io import savemat

from masktune_sk.datasets import (
    fetch_cifar10,
    fetch_fashion_mnist,
    fetch_mnist,
    fetch_svhn,
)

FETCH = {
    "MNIST": fetch_mnist,
    "FashionMNIST": fetch_fashion_mnist,
    "CIFAR10": fetch_cifar10,
    "SVHN": fetch_svhn,
}
NPZ = {
    "MNIST": "mnist.npz",
    "FashionMNIST": "fashion_mnist.npz",
    "CIFAR10": "cifar10.npz",
    "SVHN": "svhn.npz",
}
PAGES = {
    "MNIST": "yann.lecun.com",
    "FashionMNIST": "github.com/zalandoresearch/fashion-mnist",
    "CIFAR10": "www.cs.toronto.edu/~kriz",
    "SVHN": "ufldl.stanford.edu/housenumbers",
}


@pytest.fixture(autouse=True)
def never_download(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("downloads")

    for module in ("mnist", "cifar"):
        path = f"torchvision.datasets.{module}.download_and_extract_archive"
        monkeypatch.setattr(path, refuse)
    monkeypatch.setattr("torchvision.datasets.svhn.download_url", refuse)


def drawn(name, n=12, seed=0):
    """Images, channel first, and labels that are all there."""
    rng = np.random.RandomState(seed)
    shape = (28, 28) if "MNIST" in name else (3, 32, 32)
    return rng.randint(0, 256, (n, *shape)).astype(np.uint8), np.arange(n) % 10


def as_idx(array):
    header = bytes([0, 0, 8, array.ndim])
    lengths = np.array(array.shape, ">u4").tobytes()
    return header + lengths + array.astype(np.uint8).tobytes()


def write_idx(folder, images, labels, stem="train", dot="-", suffix=""):
    folder.mkdir(parents=True, exist_ok=True)
    for kind, axes, array in (("images", 3, images), ("labels", 1, labels)):
        content = as_idx(array)
        path = folder / f"{stem}-{kind}{dot}idx{axes}-ubyte{suffix}"
        path.write_bytes(gzip.compress(content) if suffix else content)


def assert_is(bunch, images, labels):
    assert_array_equal(bunch.data, images)
    assert_array_equal(bunch.target, labels)
    assert bunch.data.dtype == np.uint8
    assert bunch.target.dtype == np.int64
    assert bunch.data.flags.writeable
    assert bunch.data.flags.c_contiguous
    assert len(bunch.target_names) == 10
    assert f"{len(images)} images" in bunch.DESCR


@pytest.mark.parametrize("folder", ["raw", ""])
@pytest.mark.parametrize("dot", ["-", "."])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_idx(tmp_path, name, folder, dot, suffix):
    train, test = drawn(name), drawn(name, n=10, seed=1)
    for stem, copy in (("train", train), ("t10k", test)):
        write_idx(tmp_path / name / folder, *copy, stem, dot, suffix)
    assert_is(FETCH[name](data_home=tmp_path), *train)
    assert_is(FETCH[name](data_home=tmp_path, subset="test"), *test)


def test_two_sets_in_one_folder_are_kept_apart(tmp_path):
    for name, seed in (("MNIST", 0), ("FashionMNIST", 1)):
        write_idx(tmp_path / name / "raw", *drawn(name, seed=seed))
    assert_is(fetch_mnist(data_home=tmp_path), *drawn("MNIST", seed=0))
    assert_is(fetch_fashion_mnist(data_home=tmp_path), *drawn("MNIST", seed=1))


@pytest.mark.parametrize(
    "keys", [("{}_images", "{}_labels"), ("x_{}", "y_{}")], ids=["long", "Keras"]
)
@pytest.mark.parametrize("channels", ["first", "last"])
@pytest.mark.parametrize("name", FETCH)
def test_npz(tmp_path, name, channels, keys):
    parts = {"train": drawn(name), "test": drawn(name, n=10, seed=1)}
    arrays = {}
    for subset, (images, labels) in parts.items():
        if channels == "last" and images.ndim == 4:
            images = images.transpose(0, 2, 3, 1)
        # labels as Keras has those of CIFAR-10
        labels = labels[:, np.newaxis] if channels == "last" else labels
        arrays |= dict(
            zip((k.format(subset) for k in keys), (images, labels), strict=True)
        )
    np.savez_compressed(tmp_path / NPZ[name], **arrays)
    for subset, part in parts.items():
        assert_is(FETCH[name](subset=subset, data_home=tmp_path), *part)


@pytest.fixture
def any_checksum(monkeypatch):
    for module in ("cifar", "svhn"):
        path = f"torchvision.datasets.{module}.check_integrity"
        monkeypatch.setattr(path, lambda file, md5=None: True)


def write_batches(home):
    """CIFAR-10 as it is published: five training batches and one of the test."""
    folder = home / "cifar-10-batches-py"
    folder.mkdir()
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    for i, name in enumerate(names):
        images, labels = drawn("CIFAR10", n=4, seed=i)
        batch = {"data": images.reshape(4, -1), "labels": labels.tolist()}
        (folder / name).write_bytes(pickle.dumps(batch))
    meta = {"label_names": ["airplane"] * 10}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta))


def test_published_files_of_cifar10(tmp_path, any_checksum):
    write_batches(tmp_path)
    parts = [drawn("CIFAR10", n=4, seed=i) for i in range(6)]
    images, labels = map(np.concatenate, zip(*parts[:5], strict=True))
    assert_is(fetch_cifar10(data_home=tmp_path), images, labels)
    assert_is(fetch_cifar10(subset="test", data_home=tmp_path), *parts[5])


def test_files_of_cifar10_without_the_published_checksums_are_not_unpickled(tmp_path):
    write_batches(tmp_path)
    message = r"CIFAR10: .*cifar-10-batches-py lacks files, or has some without the pub"
    with pytest.raises(ValueError, match=f"{message}.*download=True.*cs.toronto.edu"):
        fetch_cifar10(data_home=tmp_path)


def write_mat(folder, subset, images, labels):
    folder.mkdir(exist_ok=True)
    # 0 is called 10, and images are (height, width, channels, n)
    labels = np.where(labels == 0, 10, labels)[:, np.newaxis].astype(np.uint8)
    arrays = {"X": images.transpose(2, 3, 1, 0), "y": labels}
    savemat(folder / f"{subset}_32x32.mat", arrays)


@pytest.mark.parametrize("folder", ["SVHN", "."])
@pytest.mark.parametrize("subset", ["train", "test"])
def test_published_files_of_svhn(tmp_path, any_checksum, folder, subset):
    part = drawn("SVHN")
    write_mat(tmp_path / folder, subset, *part)
    assert_is(fetch_svhn(subset=subset, data_home=tmp_path), *part)


def test_files_of_svhn_without_the_published_checksums_are_refused(tmp_path):
    write_mat(tmp_path / "SVHN", "train", *drawn("SVHN"))
    with pytest.raises(ValueError, match=r"32x32\.mat does not have the published"):
        fetch_svhn(data_home=tmp_path)


def test_return_X_y(tmp_path):
    write_idx(tmp_path / "MNIST", *drawn("MNIST"))
    X, y = fetch_mnist(data_home=tmp_path, return_X_y=True)
    assert_array_equal(X, drawn("MNIST")[0])
    assert_array_equal(y, drawn("MNIST")[1])


def test_classes(tmp_path):
    for name in FETCH:
        images, labels = drawn(name)
        np.savez(tmp_path / NPZ[name], x_train=images, y_train=labels)
    names = {
        name: fetch(data_home=tmp_path).target_names for name, fetch in FETCH.items()
    }
    assert names["MNIST"] == names["SVHN"] == [str(i) for i in range(10)]
    assert names["FashionMNIST"] == torchvision.datasets.FashionMNIST.classes
    assert names["CIFAR10"][3] == "cat"
    assert names["CIFAR10"][5] == "dog"


@pytest.mark.parametrize(
    ("fetch", "counts"),
    [
        (fetch_mnist, [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
        (fetch_fashion_mnist, [1000] * 10),
        (fetch_cifar10, [1000] * 10),
    ],
)
def test_the_real_sets(fetch, counts):
    try:
        _, y = fetch(subset="test", return_X_y=True)
    except FileNotFoundError as error:
        pytest.skip(str(error))
    assert_array_equal(np.bincount(y), counts)


# ---------------------------------------------------------------- where it is


def test_folder_of_the_environment_variable(tmp_path, monkeypatch):
    write_idx(tmp_path / "MNIST", *drawn("MNIST"))
    monkeypatch.setenv("MASKTUNE_SK_DATA", str(tmp_path))
    assert_is(fetch_mnist(), *drawn("MNIST"))


def test_default_folder(tmp_path, monkeypatch):
    monkeypatch.delenv("MASKTUNE_SK_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match=f"{tmp_path}/.cache/masktune_sk/MNIST"):
        fetch_mnist()


@pytest.mark.parametrize(
    ("name", "places"),
    [
        (
            "MNIST",
            "t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte (also as .gz, also "
            "named t10k-images.idx3-ubyte) in {0}/MNIST/raw and {0}/MNIST, and for "
            "{0}/mnist.npz",
        ),
        (
            "FashionMNIST",
            "t10k-images.idx3-ubyte) in {0}/FashionMNIST/raw and {0}/FashionMNIST, and "
            "for {0}/fashion_mnist.npz",
        ),
        ("CIFAR10", "the folder {0}/cifar-10-batches-py, and for {0}/cifar10.npz"),
        ("SVHN", "test_32x32.mat in {0}/SVHN and {0}, and for {0}/svhn.npz"),
    ],
)
def test_a_missing_set_says_what_where_and_how(tmp_path, name, places):
    with pytest.raises(FileNotFoundError) as caught:
        FETCH[name](subset="test", data_home=tmp_path)
    message = str(caught.value)
    assert message.startswith(f"{name} was not found. Looked for ")
    assert places.format(tmp_path) in message
    assert PAGES[name] in message
    assert "pass download=True" in message
    assert "MASKTUNE_SK_DATA" in message


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_half_of_a_set(tmp_path, kind):
    folder = tmp_path / "MNIST" / "raw"
    write_idx(folder, *drawn("MNIST"))
    name = {"images": "train-images-idx3-ubyte", "labels": "train-labels-idx1-ubyte"}
    (folder / name[kind]).unlink()
    with pytest.raises(
        FileNotFoundError, match=f"is there, but {name[kind]} was not found. Looked for"
    ):
        fetch_mnist(data_home=tmp_path)


# ---------------------------------------------------------------- downloads


def test_download_only_what_is_not_there(tmp_path):
    write_idx(tmp_path / "MNIST", *drawn("MNIST"))
    assert_is(fetch_mnist(data_home=tmp_path, download=True), *drawn("MNIST"))


@pytest.mark.parametrize("name", ["MNIST", "FashionMNIST"])
def test_download_mnist(tmp_path, monkeypatch, name):
    def download(self):
        write_idx(tmp_path / name / "raw", *drawn(name))
        write_idx(tmp_path / name / "raw", *drawn(name), stem="t10k")

    monkeypatch.setattr(torchvision.datasets.MNIST, "download", download)
    assert_is(FETCH[name](data_home=tmp_path, download=True), *drawn(name))


def test_download_cifar10(tmp_path, monkeypatch, any_checksum):
    monkeypatch.setattr(
        torchvision.datasets.CIFAR10, "download", lambda self: write_batches(tmp_path)
    )
    bunch = fetch_cifar10(data_home=tmp_path, subset="test", download=True)
    assert_is(bunch, *drawn("CIFAR10", n=4, seed=5))


def test_download_svhn(tmp_path, monkeypatch, any_checksum):
    def download(url, root, filename, md5):
        write_mat(tmp_path / "SVHN", "test", *drawn("SVHN"))
        assert filename == "test_32x32.mat"

    monkeypatch.setattr("torchvision.datasets.svhn.download_url", download)
    bunch = fetch_svhn(data_home=tmp_path, subset="test", download=True)
    assert_is(bunch, *drawn("SVHN"))


@pytest.mark.parametrize("error", [OSError, RuntimeError])
@pytest.mark.parametrize("name", FETCH)
def test_a_download_that_fails(tmp_path, monkeypatch, name, error):
    def fail(*args, **kwargs):
        raise error("no network.")

    monkeypatch.setattr(getattr(torchvision.datasets, name), "download", fail)
    message = (
        f"{name} could not be downloaded into {tmp_path}: no network.*{PAGES[name]}"
    )
    with pytest.raises(OSError, match=message):
        FETCH[name](data_home=tmp_path, download=True)


# ---------------------------------------------------------------- damage


def change_images(content):
    """Write these bytes as the images of a small MNIST."""

    def damage(folder):
        write_idx(folder, *drawn("MNIST"))
        (folder / "train-images-idx3-ubyte").write_bytes(content)

    return damage


def cut_gz(folder):
    write_idx(folder, *drawn("MNIST"), suffix=".gz")
    path = folder / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:100])


def no_gz(folder):
    write_idx(folder, *drawn("MNIST"), suffix=".gz")
    (folder / "train-images-idx3-ubyte.gz").write_bytes(b"<html>not found</html>")


def other_counts(folder):
    images, labels = drawn("MNIST")
    write_idx(folder, images, labels[:7])


def other_labels(folder):
    images, labels = drawn("MNIST")
    write_idx(folder, images, labels + 1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            change_images(b""),
            r"images-idx3-ubyte begins with the bytes ; expected 00 00",
        ),
        (
            change_images(as_idx(np.zeros(3))),
            "begins with the bytes 00 00 08 01; expected 00 00 08 03, an IDX file of",
        ),
        (change_images(bytes([0, 0, 8, 3, 0])), "begins with the bytes 00 00 08 03"),
        (
            change_images(as_idx(drawn("MNIST")[0])[:-5]),
            "has 9403 bytes of data; its header says 12 x 28 x 28 = 9408",
        ),
        (
            change_images(as_idx(np.zeros((12, 8, 8)))),
            r"idx3-ubyte has images of shape \(12, 8, 8\); expected \('n', 28, 28",
        ),
        (
            change_images(as_idx(np.zeros((0, 28, 28)))),
            r"images of shape \(0, 28, 28\)",
        ),
        (cut_gz, r"images-idx3-ubyte\.gz can't be unpacked"),
        (no_gz, r"images-idx3-ubyte\.gz can't be unpacked"),
        (other_counts, "labels-idx1-ubyte has 7 labels, and .*idx3-ubyte 12 images"),
        (
            other_labels,
            "labels-idx1-ubyte has labels other than the integers from",
        ),
    ],
)
def test_damaged_idx(tmp_path, damage, message):
    damage(tmp_path / "MNIST" / "raw")
    with pytest.raises(ValueError, match=message) as caught:
        fetch_mnist(data_home=tmp_path)
    assert "Delete it, and pass download=True" in str(caught.value)
    assert PAGES["MNIST"] in str(caught.value)


IMAGES, LABELS = drawn("CIFAR10")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"x_train": IMAGES, "labels": LABELS},
            "holds the arrays x_train, labels; expected train_images and train_labels "
            "or x_train and y_train",
        ),
        ({"x_train": IMAGES / 255, "y_train": LABELS}, "images of float64 from 0.0 to"),
        (
            {"x_train": IMAGES.astype(int) - 1, "y_train": LABELS},
            "expected integers from 0 to 255",
        ),
        ({"x_train": IMAGES[:, :, 1:], "y_train": LABELS}, r"shape \(12, 3, 31, 32\)"),
        ({"x_train": IMAGES, "y_train": LABELS / 2}, "labels other than the integers"),
    ],
)
def test_damaged_npz(tmp_path, arrays, message):
    arrays = {k: np.asarray(v, getattr(v, "dtype", None)) for k, v in arrays.items()}
    np.savez(tmp_path / "cifar10.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        fetch_cifar10(data_home=tmp_path)


@pytest.mark.parametrize("content", [b"", b"no archive", "cut"])
def test_npz_that_is_none(tmp_path, content):
    path = tmp_path / "cifar10.npz"
    if content == "cut":
        np.savez(path, x_train=IMAGES, y_train=LABELS)
        content = path.read_bytes()[:2000]
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"CIFAR10: {path} can't be read")):
        fetch_cifar10(data_home=tmp_path)


def test_npz_with_objects_is_not_unpickled(tmp_path):
    objects = np.array([print] * 12)
    np.savez(tmp_path / "cifar10.npz", x_train=objects, y_train=LABELS)
    with pytest.raises(ValueError, match="can't be read .*allow_pickle"):
        fetch_cifar10(data_home=tmp_path)


@pytest.mark.parametrize("fetch", FETCH.values())
def test_bad_subset(fetch, tmp_path):
    with pytest.raises(
        ValueError, match="subset must be one of 'train', 'test'; got 'v"
    ):
        fetch(subset="val", data_home=tmp_path)
