"""Sources: one view of the samples for every stage.

A stage never looks at X itself. It reads a *source*: something with a length, the
shape of one item, encoded labels, and batches by index. Arrays and tensors are the
first kind of source; whatever comes later (memory-mapped files, datasets) is one more
class here, and no stage changes.
"""

from abc import ABC, abstractmethod
from hashlib import blake2b
from itertools import pairwise

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

__all__ = [
    "ArraySource",
    "BatchIterator",
    "Source",
    "TorchView",
    "as_array",
    "check_samples",
    "stratified_holdout",
]

LARGEST_FLOAT32 = float(np.finfo(np.float32).max)
FINGERPRINT_ROWS = 4096


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
            f"Got a torch Dataset ({type(values).__name__}); expected an array or a "
            "tensor of shape (n_samples, n_features) or (n_samples, n_channels, "
            "height, width). Stack its samples, and pass the labels as y."
        )
    if not isinstance(values, torch.Tensor):
        return values
    values = values.detach().cpu()
    return (values.float() if values.dtype == torch.bfloat16 else values).numpy()


def check_samples(X):
    """Refuse an array that holds neither vectors nor images.

    Parameters
    ----------
    X : ndarray
        Checked by scikit-learn already: numbers, finite, at least one row.

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
    if 0 in X.shape:
        raise ValueError(f"X has an empty axis: shape {X.shape}.")
    # By the largest and the smallest value, not by abs(X), which would copy.
    if X.dtype.itemsize > 4 and max(X.max(), -float(X.min())) > LARGEST_FLOAT32:
        raise ValueError(
            "Input X contains infinity or a value too large for dtype('float32')."
        )


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

    def batches(self, batch_size):
        """Read all samples in order.

        Parameters
        ----------
        batch_size : int
            Samples a batch.

        Yields
        ------
        indices : ndarray of int
            Which samples.
        X : torch.Tensor of shape (batch_size, ...), float32
            A copy of them.
        """
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
        for _, X in self.batches(FINGERPRINT_ROWS):
            digest.update(X.numpy())
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

    def __len__(self):
        return len(self.X)

    def batch(self, indices):
        """Read samples; see `Source.batch`."""
        # Indexing with an array copies, so that read-only memory, negative strides
        # and Fortran order (which torch refuses or warns about) end here.
        rows = np.ascontiguousarray(self.X[indices], dtype=np.float32)
        return torch.from_numpy(rows)


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

    def __len__(self):
        return len(self.indices)

    def batch(self, indices):
        """Read samples; see `Source.batch`."""
        return self.source.batch(self.indices[indices])


class TorchView(Dataset):
    """A source as the torch dataset that skorch iterates over.

    Parameters
    ----------
    source : Source
        The samples. Without labels, every label is 0.
    augment : callable, default=None
        Applied to the tensor of each sample after it is read.
    """

    def __init__(self, source, augment=None):
        self.source = source
        self.augment = augment

    @property
    def shape(self):
        """Shape of all samples together, as an array has it: callbacks ask for it."""
        return (len(self.source), *self.source.item_shape)

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        if not -len(self) <= index < len(self):
            raise IndexError(
                f"Row {index} was asked for, but training has {len(self)} rows. A "
                "sampler made for all of X does not fit the rows left after the "
                "hold-out: set validation_fraction=0."
            )
        X, y = self.read(np.array([index]))
        return X[0], y[0]

    def read(self, indices):
        """Read a whole batch at once.

        Parameters
        ----------
        indices : ndarray of int, shape (batch_size,)
            Which samples.

        Returns
        -------
        X : torch.Tensor of shape (batch_size, ...), float32
            The samples, augmented.
        y : torch.Tensor of shape (batch_size,), int64
            Their labels.
        """
        X = self.source.batch(indices)
        if self.augment is not None:
            X = torch.stack([self.augment(x) for x in X])
        if self.source.labels is None:
            return X, torch.zeros(len(X), dtype=torch.int64)
        return X, torch.from_numpy(self.source.labels[indices])


class BatchIterator:
    """Whole batches of a `TorchView`, in place of a plain `DataLoader`.

    One indexed read a batch: no call per sample and nothing to collate. It draws from
    torch's global generator only to shuffle. A last batch of a single sample joins the
    one before it, because batch normalisation cannot train on one.

    Parameters
    ----------
    dataset : TorchView
        Where batches are read. For another dataset a `DataLoader` is returned.
    batch_size : int, default=1
        Samples a batch.
    shuffle : bool, default=False
        Draw a new order for each epoch.
    drop_last : bool, default=False
        Leave out an incomplete last batch.
    """

    PARAMETERS = frozenset({"batch_size", "shuffle", "drop_last"})

    def __new__(cls, dataset, batch_size=1, shuffle=False, drop_last=False):
        """Make a `DataLoader` for what is no `TorchView`."""
        # A callback may predict an array of its own while its net reads our batches.
        if not isinstance(dataset, TorchView):
            return DataLoader(dataset, batch_size, shuffle, drop_last=drop_last)
        return super().__new__(cls)

    def __init__(self, dataset, batch_size=1, shuffle=False, drop_last=False):
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last

    @classmethod
    def can_replace(cls, iterator, params):
        """Tell whether this iterator can stand for another one.

        Parameters
        ----------
        iterator : type
            An iterator class, as skorch takes it.
        params : iterable of str
            Names of the parameters it is given.

        Returns
        -------
        replaceable : bool
            True for a plain `DataLoader` of which nothing else is asked.
        """
        return iterator is DataLoader and set(params) <= cls.PARAMETERS

    def _bounds(self):
        n, size = len(self.dataset), self.batch_size
        bounds = list(range(0, n, size)) + [n]
        if n % size and self.drop_last:
            bounds.pop()
        elif n % size == 1 and len(bounds) > 2:
            del bounds[-2]
        return bounds

    def __len__(self):
        return len(self._bounds()) - 1

    def __iter__(self):
        n = len(self.dataset)
        order = torch.randperm(n).numpy() if self.shuffle else np.arange(n)
        for start, stop in pairwise(self._bounds()):
            yield self.dataset.read(order[start:stop])


def stratified_holdout(labels, fraction, random_state, *, classes=None):
    """Split rows in two, every class on both sides.

    Parameters
    ----------
    labels : ndarray of int, shape (n_samples,)
        Encoded labels.
    fraction : float in [0, 1)
        Share held out; at least one row of each class is, unless it is 0, and at least
        one of each is left.
    random_state : RandomState
        Draws the rows.
    classes : sequence, default=None
        Names of the classes, for the message.

    Returns
    -------
    train : ndarray of int
        Rows to train on, ascending.
    holdout : ndarray of int
        Rows held out, ascending; empty if `fraction` is 0.

    Raises
    ------
    ValueError
        If a class has a single sample.
    """
    n = len(labels)
    if fraction == 0:
        return np.arange(n), np.arange(0)
    counts = np.bincount(labels)
    if counts.min() < 2:
        lonely = np.argmin(counts)
        name = lonely if classes is None else classes[lonely]
        raise ValueError(
            f"A hold-out of validation_fraction={fraction} needs at least 2 samples of "
            "each class, one to train on and one to hold out, but class "
            f"{name!s} has {counts[lonely]}. Add samples, or set validation_fraction=0 "
            "(then there is no validation, and predict_with_reject needs a threshold "
            "or calibrate)."
        )
    size = max(len(counts), int(np.ceil(fraction * n - 1e-9)))
    shares = _allocate(counts, size)
    holdout = [
        random_state.permutation(np.flatnonzero(labels == label))[:share]
        for label, share in enumerate(shares)
    ]
    holdout = np.sort(np.concatenate(holdout))
    return np.setdiff1d(np.arange(n), holdout), holdout


def _allocate(counts, size):
    """Share `size` rows among classes in proportion, 1 to count - 1 rows each."""
    size = min(size, int((counts - 1).sum()))
    ideal = counts * (size / counts.sum())
    shares = np.clip(np.floor(ideal).astype(int), 1, counts - 1)
    while (gap := size - shares.sum()) != 0:
        # One row at a time to (or from) the class furthest from its ideal share.
        step = int(np.sign(gap))
        room = (shares < counts - 1) if step > 0 else (shares > 1)
        need = np.where(room, step * (ideal - shares), -np.inf)
        shares[np.argmax(need)] += step
    return shares
