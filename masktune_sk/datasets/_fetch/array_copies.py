"""Local copies of sets that fit into memory: IDX files, .npz files, torchvision's own.

Every kind of copy ends as the same two arrays, or as an error that says which file is
missing or damaged, where it was looked for, and where the data come from.
"""

import gzip
import os
import zipfile
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import torchvision
from sklearn.utils import Bunch

_NPZ_KEYS = (("{0}_images", "{0}_labels"), ("x_{0}", "y_{0}"))


def folder_of_copies(folder=None):
    """Return the folder that copies are in.

    Parameters
    ----------
    folder : str or path-like, default=None
        None: that of the environment variable ``MASKTUNE_SK_DATA``, else
        ``~/.cache/masktune_sk``.

    Returns
    -------
    folder : Path
        It need not exist.
    """
    if folder is None:
        folder = os.environ.get("MASKTUNE_SK_DATA") or "~/.cache/masktune_sk"
    return Path(os.path.abspath(os.path.expanduser(folder)))


@dataclass(frozen=True)
class ArrayCopy:
    """A published set of images of one size, and where its copies are.

    Parameters
    ----------
    name : str
        What the set is called, by torchvision too.
    page : str
        The official page.
    npz : str
        Name of a copy in one file.
    classes : tuple of str
        What each class is.
    shape : tuple of int
        Of an image, channel first.
    """

    name: str
    page: str
    npz: str
    classes: tuple
    shape: tuple

    def fetch(self, subset, home, download):
        """Read a subset.

        Parameters
        ----------
        subset : {"train", "test"}
            Which.
        home : Path
            The folder.
        download : bool
            Whether to download what is not there.

        Returns
        -------
        bunch : Bunch
            With `data`, `target`, `target_names` and `DESCR`.

        Raises
        ------
        FileNotFoundError
            If there is no copy, and none is to be downloaded.
        OSError
            If the download fails.
        ValueError
            If a file is damaged.
        """
        found = self.read(subset, home) or self.read_npz(subset, home)
        if found is None and download:
            try:
                self.download(subset, home)
            # URLError is an OSError.
            except (OSError, RuntimeError) as error:
                raise OSError(
                    f"{self.name} could not be downloaded into {home}: {error} Get it "
                    f"by other means from {self.page}."
                ) from error
            found = self.read(subset, home)
        if found is None:
            raise FileNotFoundError(
                f"{self.name} was not found. Looked for {self.places(subset, home)}, "
                f"and for {home / self.npz}. It is at {self.page}: pass download=True "
                "to download it, or data_home (or set MASKTUNE_SK_DATA) if it is in "
                "another folder."
            )
        images, labels = self.checked(*found)
        places = dict.fromkeys(found[2:])  # one file may hold both
        return Bunch(
            data=images,
            target=labels,
            target_names=list(self.classes),
            DESCR=(
                f"{self.name} ({subset=}): {len(images)} images of shape {self.shape}, "
                f"uint8, in {len(self.classes)} classes, from "
                f"{' and '.join(map(str, places))}. {self.page}"
            ),
        )

    def read(self, subset, home):
        """Return images, labels and the path of each, as published, or None."""
        raise NotImplementedError

    def places(self, subset, home):
        """Say where `read` looks."""
        raise NotImplementedError

    def download(self, subset, home):
        """Download the published files to where `read` looks."""
        getattr(torchvision.datasets, self.name)(
            home, train=subset == "train", download=True
        )

    def read_npz(self, subset, home):
        """Return images, labels and the path of each, from one file, or None."""
        path = home / self.npz
        if not path.exists():
            return None
        try:
            # numpy leaves a file open that is no archive.
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                for names in _NPZ_KEYS:
                    images, labels = (name.format(subset) for name in names)
                    if images in arrays and labels in arrays:
                        return arrays[images], arrays[labels], path, path
                keys = ", ".join(arrays)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise self.damaged(path, f"can't be read ({error})") from error
        expected = " or ".join(
            " and ".join(name.format(subset) for name in names) for names in _NPZ_KEYS
        )
        raise self.damaged(path, f"holds the arrays {keys}; expected {expected}")

    def checked(self, images, labels, images_path, labels_path):
        """Return uint8 images, channel first, and int64 labels."""
        images, labels = np.asarray(images), np.asarray(labels)
        *channels, height, width = self.shape
        if images.shape[1:] == (height, width, *channels):
            axes = range(images.ndim)
            images = images.transpose(0, *axes[3:], 1, 2)
        if images.shape[1:] != self.shape or len(images) == 0:
            raise self.damaged(
                images_path,
                f"has images of shape {images.shape}; expected {('n', *self.shape)}",
            )
        if images.dtype.kind not in "iu" or images.min() < 0 or images.max() > 255:
            raise self.damaged(
                images_path,
                f"has images of {images.dtype} from {images.min()} to {images.max()}; "
                "expected integers from 0 to 255",
            )
        if labels.size != len(images):
            raise self.damaged(
                labels_path,
                f"has {labels.size} labels, and {images_path} {len(images)} images",
            )
        n_classes = len(self.classes)
        if labels.dtype.kind not in "iu" or not np.isin(labels, range(n_classes)).all():
            raise self.damaged(
                labels_path,
                f"has labels other than the integers from 0 to {n_classes - 1}",
            )
        return (
            np.array(images, dtype=np.uint8, order="C"),
            labels.reshape(-1).astype(np.int64),
        )

    def damaged(self, path, problem):
        """Return the error about a file that is not as it should be."""
        return ValueError(
            f"{self.name}: {path} {problem}. Delete it, and pass download=True to get "
            f"it again, or take it from {self.page}."
        )


class IdxCopy(ArrayCopy):
    """MNIST, and what is laid out like it."""

    def read(self, subset, home):
        """See `ArrayCopy.read`."""
        stem = {"train": "train", "test": "t10k"}[subset]
        images = self._find(f"{stem}-images-idx3-ubyte", home)
        labels = self._find(f"{stem}-labels-idx1-ubyte", home)
        if images is None and labels is None:
            return None
        for path, other, what in (
            (images, labels, f"{stem}-images-idx3-ubyte"),
            (labels, images, f"{stem}-labels-idx1-ubyte"),
        ):
            if path is None:
                raise FileNotFoundError(
                    f"{self.name}: {other} is there, but {what} was not found. Looked "
                    f"for {self.places(subset, home)}. It is at {self.page}."
                )
        return self._read_idx(images, 3), self._read_idx(labels, 1), images, labels

    def places(self, subset, home):
        """See `ArrayCopy.places`."""
        stem = {"train": "train", "test": "t10k"}[subset]
        folders = " and ".join(str(folder) for folder in self._folders(home))
        return (
            f"{stem}-images-idx3-ubyte and {stem}-labels-idx1-ubyte (also as .gz, also "
            f"named {stem}-images.idx3-ubyte) in {folders}"
        )

    def _folders(self, home):
        # Not in home itself: two sets have files of the same names.
        return home / self.name / "raw", home / self.name

    def _find(self, name, home):
        """Return the first copy of a file, or None."""
        for folder in self._folders(home):
            for stem in (name, name.replace("-idx", ".idx")):
                for path in (folder / stem, folder / f"{stem}.gz"):
                    if path.exists():
                        return path
        return None

    def _read_idx(self, path, n_axes):
        """Read an array of bytes; the header is a magic number and the lengths."""
        try:
            with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
                content = file.read()
        except (OSError, EOFError, zlib.error) as error:
            raise self.damaged(path, f"can't be unpacked ({error})") from error
        magic = bytes([0, 0, 8, n_axes])  # 8 stands for uint8
        start = 4 + 4 * n_axes
        if content[:4] != magic or len(content) < start:
            raise self.damaged(
                path,
                f"begins with the bytes {content[:4].hex(' ')}; expected "
                f"{magic.hex(' ')}, an IDX file of bytes with {n_axes} axes",
            )
        shape = np.frombuffer(content, ">u4", n_axes, 4).tolist()
        if len(content) - start != prod(shape):
            raise self.damaged(
                path,
                f"has {len(content) - start} bytes of data; its header says "
                f"{' x '.join(map(str, shape))} = {prod(shape)}",
            )
        return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


class Cifar10Copy(ArrayCopy):
    """CIFAR-10, whose pickles torchvision reads.

    If their checksums are those of the published files: others would not be safe.
    """

    folder = "cifar-10-batches-py"

    def read(self, subset, home):
        """See `ArrayCopy.read`."""
        path = home / self.folder
        if not path.exists():
            return None
        try:
            found = torchvision.datasets.CIFAR10(home, train=subset == "train")
        except RuntimeError as error:
            raise self.damaged(
                path, "lacks files, or has some without the published checksum"
            ) from error
        return found.data, found.targets, path, path

    def places(self, subset, home):
        """See `ArrayCopy.places`."""
        return f"the folder {home / self.folder}"


class SvhnCopy(ArrayCopy):
    """SVHN, whose Matlab files torchvision reads.

    If their checksums are those of the published files.
    """

    def read(self, subset, home):
        """See `ArrayCopy.read`."""
        for folder in self._folders(home):
            path = folder / f"{subset}_32x32.mat"
            if not path.exists():
                continue
            try:
                found = torchvision.datasets.SVHN(folder, split=subset)
            except RuntimeError as error:
                raise self.damaged(
                    path, "does not have the published checksum"
                ) from error
            return found.data, found.labels, path, path
        return None

    def places(self, subset, home):
        """See `ArrayCopy.places`."""
        folders = " and ".join(str(folder) for folder in self._folders(home))
        return f"{subset}_32x32.mat in {folders}"

    def download(self, subset, home):
        """See `ArrayCopy.download`."""
        folder = self._folders(home)[0]
        torchvision.datasets.SVHN(folder, split=subset, download=True)

    def _folders(self, home):
        return home / "SVHN", home
