"""Sources: samples that are read by index, wherever they are."""

from abc import ABC, abstractmethod
from copy import copy
from hashlib import blake2b
from math import prod

import numpy as np
import torch
from torch.utils.data import Dataset

__all__ = [
    "ArraySource",
    "Source",
    "TakenSource",
    "as_array",
    "check_finite",
    "check_samples",
]

LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
# What is read at once where nothing else sets the size of a batch. Blocks of 32 MiB and
# more are given back to the system after each use, and faulted in again.
BLOCK_BYTES = 2**24
MOST_BLOCK_ROWS = 4096


def as_array(values):
    """Bring a tensor to numpy, and leave everything else to scikit-learn.

    Parameters
    ----------
    values : object
        X or y as the user gave it.

    Returns
    -------
    values : object
        An array if it was a tensor, on whatever device.

    Raises
    ------
    TypeError
        If it is a torch dataset.
    """
    if isinstance(values, Dataset):
        raise TypeError(
            f"y must be an array of labels, got a torch Dataset "
            f"({type(values).__name__}). A Dataset of (x, y) is given as X, alone."
        )
    if not isinstance(values, torch.Tensor):
        return values
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def check_samples(X, *, values=True):
    """Refuse an array that holds neither vectors nor images.

    Parameters
    ----------
    X : ndarray
        Checked by scikit-learn already: numbers, finite, at least one row.
    values : bool, default=True
        Read the values, if need be, to see whether they fit into float32.

    Raises
    ------
    ValueError
        If it has another number of axes, an empty one, or values that are not real or
        do not fit into float32.
    """
    if X.dtype.kind not in "biuf":
        raise ValueError(f"X must hold real numbers, got dtype {X.dtype}.")
    if X.ndim not in (2, 4):
        raise ValueError(
            "X must be vectors, (n_samples, n_features), or images, (n_samples, "
            f"n_channels, height, width); got shape {X.shape}. Grey images without a "
            "channel axis: X[:, None]."
        )
    if 0 in X.shape[1:]:
        raise ValueError(f"X has an empty axis: shape {X.shape}.")
    # By the largest and the smallest value, not by abs(X), which would copy.
    if (
        values
        and X.dtype.itemsize > 4
        and max(X.max(), -float(X.min())) > LARGEST_FLOAT32
    ):
        raise ValueError(
            "Input X contains infinity or a value too large for dtype('float32')."
        )


def check_finite(source):
    """Refuse samples that are NaN or infinite, reading them once.

    Parameters
    ----------
    source : Source
        The samples.

    Raises
    ------
    ValueError
        If one is; the message tells the first.
    """
    if source.root.always_finite:
        return
    for indices, X in source.batches():
        finite = torch.isfinite(X).flatten(1).all(dim=1)
        if not finite.all():
            first = indices[int(finite.logical_not().nonzero()[0])]
            raise ValueError(f"Input X contains NaN or infinity, in sample {first}.")


class Source(ABC):
    """Samples that are read by index.

    Attributes
    ----------
    item_shape : tuple of int
        Shape of one sample, ``(n_features,)`` or ``(n_channels, height, width)``.
    labels : ndarray of shape (n_samples,), dtype int64, or None
        Encoded labels, 0 to n_classes - 1.
    """

    item_shape: tuple
    labels: np.ndarray | None
    #: Whether no sample can be NaN or infinite, or each is checked when it is read.
    always_finite = False

    @property
    def root(self):
        """The source that holds the samples, from which others only take."""
        return self

    @property
    def targets(self):
        """Labels as they are, not encoded; None if the samples bring none."""
        return None

    @abstractmethod
    def __len__(self):
        """Return the number of samples."""

    @abstractmethod
    def batch(self, indices):
        """Read samples.

        Parameters
        ----------
        indices : ndarray of int, shape (batch_size,)
            Which samples, in which order.

        Returns
        -------
        X : torch.Tensor of shape (batch_size, ...), float32
            A copy that the caller may write to.
        """

    def raw(self, indices):
        """Read samples as they are kept, where that is smaller than float32.

        Parameters
        ----------
        indices : ndarray of int, shape (batch_size,)
            Which samples, in which order.

        Returns
        -------
        X : ndarray of shape (batch_size, ...), bool, uint8 or float32
            The same values as those of `batch`.
        """
        return self.batch(indices).numpy()

    def take(self, indices):
        """Choose some of the samples, without copying them.

        Parameters
        ----------
        indices : array-like of int
            Which samples, in which order.

        Returns
        -------
        source : Source
            These samples.
        """
        return TakenSource(self, np.asarray(indices))

    def labelled(self, labels):
        """Give the samples encoded labels, without changing this source.

        Parameters
        ----------
        labels : ndarray of shape (n_samples,), dtype int64
            Encoded labels.

        Returns
        -------
        source : Source
            The same samples, with the labels.
        """
        source = copy(self)
        source.labels = labels
        return source

    @property
    def block_size(self):
        """Samples that are read at once where nothing else sets their number."""
        return max(1, min(MOST_BLOCK_ROWS, BLOCK_BYTES // (4 * prod(self.item_shape))))

    def batches(self, batch_size=None):
        """Read all samples in order.

        Parameters
        ----------
        batch_size : int, default=None
            Samples a batch; None: `block_size`.

        Yields
        ------
        indices : ndarray of int
            Which samples.
        X : torch.Tensor of shape (batch_size, ...), float32
            A copy of them.
        """
        batch_size = batch_size or self.block_size
        for start in range(0, len(self), batch_size):
            indices = np.arange(start, min(start + batch_size, len(self)))
            yield indices, self.batch(indices)

    def fingerprint(self):
        """Hash the samples and labels, whatever their memory layout.

        Returns
        -------
        digest : str
            The same for the same float32 values and labels.
        """
        digest = blake2b(repr((len(self), self.item_shape)).encode(), digest_size=16)
        size = self.block_size
        for start in range(0, len(self), size):
            rows = self.raw(np.arange(start, min(start + size, len(self))))
            # Bytes stay bytes, whatever type holds them: a quarter of the work.
            rows = rows.view(np.uint8) if rows.dtype == bool else _as_bytes(rows)
            digest.update(rows.dtype.char.encode())
            digest.update(rows)
        if self.labels is not None:
            digest.update(np.ascontiguousarray(self.labels, dtype=np.int64))
        return digest.hexdigest()


class ArraySource(Source):
    """Samples in one array, of any real dtype and any memory layout.

    The array is neither copied nor converted: a batch is, when it is read.

    Parameters
    ----------
    X : ndarray of shape (n_samples, ...)
        The samples.
    labels : ndarray of shape (n_samples,), default=None
        Encoded labels.
    """

    def __init__(self, X, labels=None):
        self.X = X
        self.labels = labels
        self.item_shape = tuple(X.shape[1:])
        self.always_finite = X.dtype.kind in "biu"

    def __len__(self):
        return len(self.X)

    def batch(self, indices):
        """Read samples; see `Source.batch`."""
        # Indexing with an array copies, so that read-only memory, negative strides
        # and Fortran order (which torch refuses or warns about) end here.
        with np.errstate(over="ignore"):  # found by whoever checks for infinity
            rows = np.ascontiguousarray(self.X[indices], dtype=np.float32)
        # An axis of one sample may have any stride, and torch chooses kernels by it.
        return torch.from_numpy(rows).view(-1).view(rows.shape)

    def raw(self, indices):
        """Read samples as they are kept; see `Source.raw`."""
        if self.X.dtype in (bool, np.uint8):
            return np.ascontiguousarray(self.X[indices])
        return super().raw(indices)


def _as_bytes(rows):
    """Return float32 numbers as bytes if they are all whole and in 0..255."""
    if rows.dtype == np.uint8:
        return rows
    # Most often the first sample tells.
    for part in (rows[:1], rows):
        if part.min() < 0 or part.max() > 255 or (part != np.floor(part)).any():
            return rows
    return rows.astype(np.uint8)


class TakenSource(Source):
    """Some samples of another source, by index.

    Parameters
    ----------
    source : Source
        Where the samples are.
    indices : ndarray of int
        Which of them.
    """

    def __init__(self, source, indices):
        self.source = source
        self.indices = indices
        self.item_shape = source.item_shape
        self.labels = None if source.labels is None else source.labels[indices]

    @property
    def root(self):
        """The source that holds the samples."""
        return self.source.root

    @property
    def targets(self):
        """Labels as they are, of the samples chosen."""
        targets = self.source.targets
        return None if targets is None else targets[self.indices]

    def __len__(self):
        return len(self.indices)

    def batch(self, indices):
        """Read samples; see `Source.batch`."""
        return self.source.batch(self.indices[indices])

    def raw(self, indices):
        """Read samples as they are kept; see `Source.raw`."""
        return self.source.raw(self.indices[indices])
