"""Batches: whole ones, read at once, for skorch to iterate over."""

from contextlib import contextmanager
from itertools import pairwise

import numpy as np
import torch
from skorch.dataset import Dataset
from torch.utils.data import DataLoader

__all__ = ["BatchIterator", "TorchView", "worker_errors"]


class TorchView(Dataset):
    """A source as the dataset that skorch iterates over.

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
    def X(self):
        """The samples: itself, for scorers of skorch that predict again."""
        return self

    @property
    def y(self):
        """The labels, for scorers of skorch that do not keep those of the batches."""
        return self.source.labels

    @property
    def shape(self):
        """Shape of all samples together, as an array has it: callbacks ask for it."""
        return (len(self.source), *self.source.item_shape)

    def __len__(self):
        return len(self.source)

    def __getitem__(self, index):
        self._check(index)
        X, y = self.read(np.array([index]))
        return X[0], y[0]

    def _check(self, index):
        if not -len(self) <= index < len(self):
            raise IndexError(
                f"Row {index} was asked for, but training has {len(self)} rows. A "
                "sampler made for all of X does not fit the rows left after the "
                "hold-out: set validation_fraction=0."
            )

    def __getitems__(self, indices):
        """Read what a `DataLoader` of the user's own collates, in one go."""
        for index in (min(indices), max(indices)):
            self._check(index)
        return list(zip(*self.read(np.asarray(indices)), strict=True))

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
    device : torch.device or str, default=None
        Where the batches go. To a CUDA device they are copied from pinned memory, one
        batch ahead of the one in use.
    share : tuple of int (rank, size), default=None
        Read this process's share of every batch, for training on several.
    generator : torch.Generator, default=None
        Draws the order; None: torch's global one.
    **workers : dict
        Parameters of `DataLoader` for reading in other processes, such as
        ``num_workers``.
    """

    PARAMETERS = frozenset({"batch_size", "shuffle", "drop_last"})

    def __new__(
        cls,
        dataset,
        batch_size=1,
        shuffle=False,
        drop_last=False,
        *,
        device=None,
        share=None,
        generator=None,
        **workers,
    ):
        """Make a `DataLoader` for what is no `TorchView`."""
        # A callback may predict an array of its own while its net reads our batches.
        if not isinstance(dataset, TorchView):
            return DataLoader(dataset, batch_size, shuffle, drop_last=drop_last)
        return super().__new__(cls)

    def __init__(
        self,
        dataset,
        batch_size=1,
        shuffle=False,
        drop_last=False,
        *,
        device=None,
        share=None,
        generator=None,
        **workers,
    ):
        self.dataset = dataset
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.drop_last = drop_last
        self.device = None if device is None else torch.device(device)
        self.share = share
        self.generator = generator
        self.workers = workers

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
        # Every process of several needs two samples of a batch for the same reason.
        smallest = 2 if self.share is None else 2 * self.share[1]
        bounds = list(range(0, n, size)) + [n]
        if n % size and self.drop_last:
            bounds.pop()
        elif 0 < n % size < min(smallest, size) and len(bounds) > 2:
            del bounds[-2]
        return bounds

    def _rows(self):
        """Return which samples each batch of an epoch holds."""
        n = len(self.dataset)
        order = np.arange(n)
        if self.shuffle:
            order = torch.randperm(n, generator=self.generator).numpy()
        rows = [order[start:stop] for start, stop in pairwise(self._bounds())]
        if self.share is not None:
            rank, size = self.share
            rows = [np.array_split(part, size)[rank] for part in rows]
        return rows

    def __len__(self):
        return len(self._bounds()) - 1

    def __iter__(self):
        rows = self._rows()
        batches = map(self.dataset.read, rows)
        if self.workers.get("num_workers"):
            batches = iter(
                DataLoader(
                    _WholeBatches(self.dataset), None, sampler=rows, **self.workers
                )
            )
        if self.device is not None and self.device.type == "cuda":
            return self._ahead(batches)
        return batches

    def _ahead(self, batches):
        """Copy to the device, one batch ahead of the one in use."""
        waiting = None
        for batch in batches:
            pinned = (t if t.is_pinned() else t.pin_memory() for t in batch)
            moved = tuple(t.to(self.device, non_blocking=True) for t in pinned)
            if waiting is not None:
                yield waiting
            waiting = moved
        if waiting is not None:
            yield waiting


@contextmanager
def worker_errors(stage, n_workers):
    """Say what to do where a process that reads batches dies.

    Parameters
    ----------
    stage : str
        Who reads, for the message.
    n_workers : int
        Processes that read; without any, nothing is said.

    Yields
    ------
    None
        While batches are read.

    Raises
    ------
    RuntimeError
        In place of the many errors that a dead worker leaves behind.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        lost = "DataLoader worker" in str(error)
        if not n_workers or (isinstance(error, RuntimeError) and not lost):
            raise
        raise RuntimeError(
            f"A worker process that reads batches for the {stage} stage died: "
            f"{type(error).__name__}: {error}. Often it ran out of memory: lower "
            "num_workers or batch_size of the net's iterators. With memory= the stages "
            "that are done are kept."
        ) from error


class _WholeBatches:
    """A dataset whose items are batches, for the workers of a `DataLoader`."""

    def __init__(self, view):
        self.view = view

    def __getitem__(self, rows):
        return self.view.read(rows)
