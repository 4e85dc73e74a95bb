"""Images in files, read when they are needed, with the bias of each."""

import copy
import os
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import UnidentifiedImageError
from torch.utils.data import Dataset
from torchvision.datasets.folder import pil_loader
from torchvision.transforms import v2

from .._checks import check_option

_CHECKS = ("exists", "decode", "none")
_N_NAMED = 5  # files that an error names


class BiasedImageDataset(Dataset):
    """Images in files, with a label, a bias and a group each.

    An image is read when it is asked for, so a set larger than memory can be trained
    on. The files are looked for once, when the dataset is made, and not in the middle
    of an epoch. Estimators of this package take it as X without y.

    Parameters
    ----------
    files : array-like of str, shape (n_samples,)
        Paths of the images, relative to `root`.

    targets : array-like of int, shape (n_samples,)
        Class of each image, from 0 to `len(class_names) - 1`.

    bias : array-like of int, shape (n_samples,), default=None
        Value of the spurious attribute, from 0 to `len(bias_names) - 1`; -1 where it
        is not known. None: known for no image.

    class_names : sequence of str
        What each class is.

    bias_names : sequence of str, default=()
        What each value of `bias` is.

    root : str or path-like, default=""
        Folder that the files are in.

    transform : callable, default=None
        Makes a tensor of an image, which it gets as an RGB `PIL.Image.Image`. All
        tensors must have one shape, and an image must always give the same one: pass
        random augmentation as `augment` to the estimator, which applies it after the
        mask. None: resize the shorter side to 256 pixels, crop 224x224 from the
        centre, float32 from 0 to 1.

    metadata : dict of str to array-like, each of shape (n_samples,), default=None
        What else is known of each image.

    check : {"exists", "decode", "none"}, default="exists"
        What is looked at before anything trains: whether every file is there, by
        listing each folder once; also whether every image can be read, which takes
        about as long as an epoch without a network; or nothing.

    origin : str, default=""
        A sentence that says where the data come from; it ends the message of an error
        about a file.

    DESCR : str, default=""
        What the data are.

    Attributes
    ----------
    files : ndarray of str, shape (n_samples,)
        As given.
    targets : ndarray of shape (n_samples,), dtype int64
        As given.
    bias : ndarray of shape (n_samples,), dtype int64
        As given, -1 where it is not known.
    groups : ndarray of shape (n_samples,), dtype int64
        Class and bias in one number, `targets * n_bias + bias`; -1 where the bias is
        not known.
    class_names, bias_names, group_names : list of str
        What each class, bias and group is.
    metadata : dict of str to ndarray of shape (n_samples,)
        As given.

    Raises
    ------
    FileNotFoundError
        If files are missing: how many, and the first of them.
    ValueError
        If an array has another length than `files`, labels are out of range, there
        are no files, or with `check="decode"` an image can't be read.

    Examples
    --------
    >>> import os, tempfile
    >>> from PIL import Image
    >>> from masktune_sk.datasets import BiasedImageDataset
    >>> folder = tempfile.TemporaryDirectory()
    >>> for name in ("duck.png", "robin.png"):
    ...     Image.new("RGB", (300, 280)).save(os.path.join(folder.name, name))
    >>> dataset = BiasedImageDataset(
    ...     ["duck.png", "robin.png"],
    ...     targets=[1, 0],
    ...     bias=[1, 1],
    ...     class_names=["landbird", "waterbird"],
    ...     bias_names=["land", "water"],
    ...     root=folder.name,
    ... )
    >>> dataset
    BiasedImageDataset of 2 images
        landbird, water: 1
        waterbird, water: 1
    >>> image, label = dataset[0]
    >>> image.shape, label
    (torch.Size([3, 224, 224]), 1)
    >>> folder.cleanup()
    """

    def __init__(
        self,
        files,
        targets,
        bias=None,
        *,
        class_names,
        bias_names=(),
        root="",
        transform=None,
        metadata=None,
        check="exists",
        origin="",
        DESCR="",
    ):
        check_option(check, _CHECKS, name="check")
        # One array rather than a list of strings: every process that reads shares it,
        # where counting references would copy a list.
        self.files = np.asarray([os.fspath(file) for file in files], dtype=str)
        if len(self.files) == 0:
            raise ValueError(_told(f"There are no images, in {_place(root)}.", origin))
        self.class_names = [str(name) for name in class_names]
        self.bias_names = [str(name) for name in bias_names]
        if bias is None:
            bias = np.full(len(self.files), -1)
        self.targets = self._checked("targets", targets, 0, len(self.class_names))
        self.bias = self._checked("bias", bias, -1, len(self.bias_names))
        self.metadata = {
            name: self._of_all(f"metadata[{name!r}]", values)
            for name, values in (metadata or {}).items()
        }
        self.root = os.fspath(root)
        self.transform = image_transform() if transform is None else transform
        self.origin = origin
        self.DESCR = DESCR
        if check != "none":
            self._check_exist()
        if check == "decode":
            self.check_images()

    @property
    def groups(self):
        """Class and bias in one number; -1 where the bias is not known."""
        groups = self.targets * len(self.bias_names) + self.bias
        return np.where(self.bias < 0, -1, groups)

    @property
    def group_names(self):
        """What each group is, in the order of the group numbers."""
        return [
            f"{label}, {bias}" for label in self.class_names for bias in self.bias_names
        ]

    @property
    def paths(self):
        """Paths of the files, with the folder that they are in; list of str."""
        return [os.path.join(self.root, file) for file in self.files.tolist()]

    def __len__(self):
        return len(self.files)

    def __getitem__(self, i):
        path = os.path.join(self.root, str(self.files[i]))
        try:
            image = pil_loader(path)
        # Decoders raise errors of many types for a damaged file.
        except Exception as error:
            message = (
                f"Sample {i} can't be read: {path}, {_reason(error)}. Make the dataset "
                "with check='decode' to find all such files before training."
            )
            raise ValueError(_told(message, self.origin)) from error
        return self.transform(image), int(self.targets[i])

    def __repr__(self):
        lines = [f"{type(self).__name__} of {len(self)} images"]
        if (self.bias < 0).all():
            names, numbers = self.class_names, self.targets
        else:
            # What is not known is counted by the name that is no group's.
            names, numbers = [*self.group_names, "bias not known"], self.groups
        counts = np.bincount(numbers % len(names), minlength=len(names))
        lines += [f"    {n}: {c}" for n, c in zip(names, counts, strict=True) if c]
        return "\n".join(lines)

    def take(self, rows):
        """Choose some of the images, without reading them.

        Parameters
        ----------
        rows : array-like of int, bool array of shape (n_samples,), or slice
            Which images, in which order.

        Returns
        -------
        dataset : BiasedImageDataset
            These images, with all that is known of them.

        Raises
        ------
        IndexError
            If there is no such row.
        ValueError
            If none are chosen.
        """
        rows = np.arange(len(self))[rows]
        if len(rows) == 0:
            message = f"None of the {len(self)} images is chosen."
            raise ValueError(_told(message, self.origin))
        taken = copy.copy(self)
        for name in ("files", "targets", "bias"):
            setattr(taken, name, getattr(self, name)[rows])
        taken.metadata = {name: v[rows] for name, v in self.metadata.items()}
        return taken

    def check_images(self):
        """Read every image once, to find those that are damaged.

        Raises
        ------
        ValueError
            If some can't be read: how many, and the first of them with the reason.
        """
        with ThreadPoolExecutor() as pool:
            problems = list(pool.map(unreadable, self.paths))
        found = [
            f"{file} ({problem})"
            for file, problem in zip(self.files, problems, strict=True)
            if problem is not None
        ]
        if found:
            message = (
                f"{len(found)} of {len(self)} images can't be read: {_some(found)}. "
                f"They are in {_place(self.root)}. Replace them, or leave them out."
            )
            raise ValueError(_told(message, self.origin))

    def _check_exist(self):
        """Compare the files with what their folders list."""
        there = {}
        missing = []
        for file in self.files.tolist():
            folder, name = os.path.split(file)
            if folder not in there:
                there[folder] = _list_folder(os.path.join(self.root, folder))
            if name not in there[folder]:
                missing.append(file)
        if missing:
            message = (
                f"{len(missing)} of {len(self)} images are missing: {_some(missing)}. "
                f"Looked for them in {_place(self.root)}."
            )
            raise FileNotFoundError(_told(message, self.origin))

    def _of_all(self, name, values):
        """Return an array of one value an image."""
        values = np.asarray(values)
        if values.shape[:1] != self.files.shape:
            raise ValueError(
                f"{name} must have one value for each of the {len(self)} files; got "
                f"shape {values.shape}."
            )
        return values

    def _checked(self, name, values, lowest, end):
        """Return integers of one value an image, from `lowest` to `end - 1`."""
        values = self._of_all(name, values)
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise ValueError(
                f"{name} must be integers of shape (n_samples,); got dtype "
                f"{values.dtype} and shape {values.shape}."
            )
        outside = np.flatnonzero((values < lowest) | (values >= end))
        if len(outside):
            raise ValueError(
                f"{name} must be from {lowest} to {end - 1}, as there are {end} names; "
                f"got {values[outside[0]]} for {self.files[outside[0]]}."
            )
        return values.astype(np.int64)


def image_transform(*steps):
    """Make a transform from a PIL image to a float32 tensor with values from 0 to 1.

    Parameters
    ----------
    *steps : callable
        From PIL image to PIL image of a fixed size. None given: resize the shorter
        side to 256 pixels and crop 224x224 from the centre.

    Returns
    -------
    transform : torchvision.transforms.v2.Compose
        It can be pickled if the steps can.
    """
    steps = steps or (v2.Resize(256), v2.CenterCrop(224))
    return v2.Compose([*steps, v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])


def unreadable(path):
    """Return why an image can't be read, or None."""
    try:
        pil_loader(path)
    except Exception as error:  # decoders raise errors of many types
        return _reason(error)
    return None


def _reason(error):
    if isinstance(error, UnidentifiedImageError):  # whose message is a file object
        return "not an image, or empty"
    return str(error) or type(error).__name__


def _told(message, origin):
    return f"{message} {origin}".rstrip()


def _list_folder(folder):
    try:
        with os.scandir(folder) as entries:
            return {entry.name for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def _some(names):
    shown = ", ".join(names[:_N_NAMED])
    return shown + (", ..." if len(names) > _N_NAMED else "")


def _place(root):
    return os.path.abspath(root)
