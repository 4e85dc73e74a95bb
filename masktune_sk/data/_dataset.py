"""Torch datasets as sources, and a view of them for scikit-learn."""

import warnings

import numpy as np
import torch
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    Subset,
    TensorDataset,
)

from ..exceptions import RandomDatasetWarning
from ._batches import worker_errors
from ._source import ArraySource, Source, as_array, check_samples

__all__ = [
    "DatasetSource",
    "DatasetView",
    "as_source",
    "check_repeats",
    "unpacked",
]

# Read twice before training, to see whether a dataset gives the same sample again.
N_PROBES = 4
LABEL_BATCH = 256


class DatasetSource(Source):
    """The samples of a map-style torch dataset, read when they are needed.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Of pairs (x, y): x a tensor or an array, always of the same shape and always the
        same for the same index; y a label. Of x alone, where no labels are needed.
    n_workers : int, default=0
        Processes for a pass over the labels.

    Raises
    ------
    TypeError
        If it can't be read by index, or a sample is no tensor or array of numbers.
    ValueError
        If it is empty; later, if a sample has another shape than the first, is NaN or
        infinite, or has another label than before.
    """

    always_finite = True

    def __init__(self, dataset, *, n_workers=0):
        if isinstance(dataset, IterableDataset):
            raise TypeError(
                f"{type(dataset).__name__} can't be read by index; expected a "
                "map-style torch Dataset, with __getitem__ and __len__. Masks and "
                "hold-outs need to find a sample again."
            )
        self.dataset = dataset
        self.n_workers = n_workers
        self.labels = None
        self._targets = None
        self._length = len(dataset)
        if self._length == 0:
            raise ValueError(
                "The Dataset has 0 sample(s) while a minimum of 1 is required."
            )
        item = dataset[0]
        self.has_labels = isinstance(item, tuple | list)
        if self.has_labels and len(item) != 2:
            raise TypeError(
                f"A sample of the Dataset has {len(item)} parts; expected (x, y)."
            )
        first = _as_tensor(item[0] if self.has_labels else item)
        self.item_shape = tuple(first.shape)
        check_samples(as_array(first[None]))

    @property
    def targets(self):
        """Labels as they are: the dataset's ``targets``, or found by one pass."""
        if self._targets is None and self.has_labels:
            targets = _targets_of(self.dataset)
            if targets is None:
                targets = self._read_targets()
            if len(targets) != self._length:
                raise ValueError(
                    f"The Dataset has {self._length} samples and {len(targets)} "
                    "labels in its targets; expected one label a sample."
                )
            self._targets = targets
        return self._targets

    def __len__(self):
        return self._length

    def batch(self, indices):
        """Read samples; see `Source.batch`."""
        rows = [int(i) for i in indices]
        if hasattr(self.dataset, "__getitems__"):
            items = self.dataset.__getitems__(rows)
        else:
            items = [self.dataset[i] for i in rows]
        X = [self._sample(item, i) for item, i in zip(items, rows, strict=True)]
        X = torch.stack(X).float()
        finite = torch.isfinite(X).flatten(1).all(dim=1)
        if not finite.all():
            raise ValueError(
                f"Sample {rows[int(finite.logical_not().nonzero()[0])]} of the Dataset "
                "contains NaN or infinity."
            )
        return X

    def _sample(self, item, i):
        """Return x of an item, if it is what it was before."""
        x = _as_tensor(item[0] if self.has_labels else item)
        if tuple(x.shape) != self.item_shape:
            raise ValueError(
                f"Sample {i} of the Dataset has shape {tuple(x.shape)}, and the first "
                f"one {self.item_shape}. Resize them to one shape."
            )
        if self._targets is not None and _as_label(item[1]) != self._targets[i]:
            raise ValueError(
                f"Sample {i} of the Dataset has the label {_as_label(item[1])!r}, and "
                f"had {self._targets[i]!r} before (in its targets, or in an earlier "
                "pass). Labels must stay the same: leave shuffling to "
                "iterator_train__shuffle=True of the net."
            )
        return x

    def _read_targets(self):
        loader = DataLoader(
            self.dataset,
            LABEL_BATCH,
            num_workers=self.n_workers,
            collate_fn=_labels_only,
        )
        with worker_errors("label", self.n_workers):
            return np.asarray([y for labels in loader for y in labels])


def check_repeats(source):
    """Warn if a sample of a dataset is another one when it is read again.

    Parameters
    ----------
    source : Source
        The samples; of arrays nothing is read.

    Warns
    -----
    RandomDatasetWarning
        If one of a few samples differs.
    """
    if not isinstance(source.root, DatasetSource):
        return
    rows = np.unique(np.linspace(0, len(source) - 1, N_PROBES).astype(int))
    if not torch.equal(source.batch(rows), source.batch(rows)):
        warnings.warn(
            f"The Dataset ({type(source.root.dataset).__name__}) gives another x when "
            "a sample is read again, as with a random transform. Maps and masks will "
            "not fit the image that is trained on. Take the transform out of the "
            "Dataset and pass it as augment=, which comes after the mask.",
            RandomDatasetWarning,
            stacklevel=2,
        )


class DatasetView:
    """An array-like view of a dataset or an array, for splitters and searches.

    scikit-learn splits X by ``X[indices]``, which copies an array, and which a torch
    dataset does not have. Here it gives another view of the same data: a fold is its
    indices. Estimators of this package take a view as X.

    Parameters
    ----------
    data : torch.utils.data.Dataset or array-like of shape (n_samples, ...)
        A dataset of (x, y), or an array: one that is memory-mapped is read batch by
        batch, whatever fold it is in.
    y : array-like of shape (n_samples,), default=None
        Labels; None: those of the dataset.

    Attributes
    ----------
    source : Source
        Where the samples are.

    Examples
    --------
    >>> import torch
    >>> from masktune_sk.data import DatasetView
    >>> from torch.utils.data import TensorDataset
    >>> dataset = TensorDataset(torch.zeros(6, 3, 8, 8), torch.arange(6) % 2)
    >>> view = DatasetView(dataset)
    >>> view[[0, 2, 4]].shape, view[[0, 2, 4]].labels
    ((3, 3, 8, 8), array([0, 0, 0]))
    """

    def __init__(self, data, y=None):
        self.source, self._y = as_source(data, y)
        self._y = None if self._y is None else np.asarray(as_array(self._y))

    @property
    def labels(self):
        """Labels as they are, to be passed as y; None if there are none."""
        return self.source.targets if self._y is None else self._y

    @property
    def shape(self):
        """Shape of all samples together."""
        return (len(self.source), *self.source.item_shape)

    @property
    def ndim(self):
        """Number of axes."""
        return len(self.shape)

    def __len__(self):
        return len(self.source)

    def __repr__(self):
        return f"{type(self).__name__}(shape={self.shape})"

    def __getitem__(self, key):
        if isinstance(key, tuple):
            # As arrays are indexed along their first axis: X[indices, ...].
            key, *rest = key
            if rest != [Ellipsis]:
                raise IndexError(
                    f"A view is indexed by samples only, got {(key, *rest)}."
                )
        if not isinstance(key, slice):
            key = np.asarray(key)
            if key.ndim > 1:
                raise IndexError(
                    "A view is indexed by samples, along one axis; got indices of "
                    f"shape {key.shape}."
                )
            if key.ndim == 0:
                return self.source.batch(np.arange(len(self))[key[None]])[0].numpy()
            # An empty list is one of floats.
            key = key if len(key) else key.astype(int)
        taken = object.__new__(type(self))
        taken.source = self.source.take(np.arange(len(self))[key])
        taken._y = None if self._y is None else self._y[key]
        return taken


def as_source(X, y=None, *, n_workers=0):
    """Make a source of what is read in batches, or of an array as it is.

    Parameters
    ----------
    X : DatasetView, torch.utils.data.Dataset or array-like
        Samples.
    y : array-like of shape (n_samples,), default=None
        Labels.
    n_workers : int, default=0
        Processes for a pass over the labels of a dataset.

    Returns
    -------
    source : Source
        The samples.
    y : array-like of shape (n_samples,) or None
        The labels given with X; None if they are those of the source's `targets`.
    """
    if isinstance(X, DatasetView):
        return X.source, X._y if y is None else y
    X, y = unpacked(X, y)
    if isinstance(X, Dataset):
        return DatasetSource(X, n_workers=n_workers), y
    X = np.asarray(as_array(X))
    check_samples(X, values=False)
    return ArraySource(X), y


def unpacked(X, y=None):
    """Take a dataset that is tensors for its tensors.

    Parameters
    ----------
    X : object
        Samples.
    y : array-like of shape (n_samples,), default=None
        Labels.

    Returns
    -------
    X : object
        Its first tensor if it is a `TensorDataset` of one or two, else X.
    y : array-like of shape (n_samples,) or None
        The labels, or else its second tensor.
    """
    if isinstance(X, TensorDataset) and len(X.tensors) <= 2:
        if y is None and len(X.tensors) == 2:
            y = X.tensors[1]
        return X.tensors[0], y
    return X, y


def _targets_of(dataset):
    """Return the labels a dataset knows without reading a sample, or None."""
    if isinstance(dataset, Subset):
        targets = _targets_of(dataset.dataset)
        return None if targets is None else targets[np.asarray(dataset.indices)]
    if isinstance(dataset, ConcatDataset):
        parts = [_targets_of(part) for part in dataset.datasets]
        return None if any(p is None for p in parts) else np.concatenate(parts)
    if isinstance(dataset, TensorDataset):
        return as_array(dataset.tensors[1])
    targets = getattr(dataset, "targets", None)
    if targets is None:
        return None
    targets = np.asarray(as_array(targets))
    transform = getattr(dataset, "target_transform", None)
    if transform is not None:
        targets = np.asarray([_as_label(transform(y)) for y in targets.tolist()])
    return targets


def _labels_only(items):
    return [_as_label(y) for _, y in items]


def _as_label(y):
    return y.item() if isinstance(y, torch.Tensor | np.generic | np.ndarray) else y


def _as_tensor(x):
    if isinstance(x, np.ndarray) and x.dtype.kind in "biufc":
        # torch takes neither foreign byte orders nor, in silence, read-only memory.
        native = np.ascontiguousarray(x, dtype=x.dtype.newbyteorder("="))
        x = torch.from_numpy(native if native.flags.writeable else native.copy())
    if not isinstance(x, torch.Tensor):
        kind = type(x).__name__
        if isinstance(x, np.ndarray):
            kind = f"array of {x.dtype.name}"
        raise TypeError(
            f"A sample of the Dataset is of type {kind}; expected a tensor or an array "
            "of shape (n_features,) or (n_channels, height, width). For images of PIL "
            "add a transform: torchvision.transforms.v2.Compose([v2.ToImage(), "
            "v2.ToDtype(torch.float32, scale=True)])."
        )
    return x.detach()
