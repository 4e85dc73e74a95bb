"""Data: one view of the samples for every stage.

A stage never looks at X itself. It reads a *source*: something with a length, the
shape of one item, encoded labels, and batches by index. Arrays, memory-mapped files and
torch datasets are kinds of sources; a batch is read, and only then converted.
"""

from ._batches import BatchIterator, TorchView, worker_errors
from ._dataset import (
    DatasetSource,
    DatasetView,
    as_source,
    check_repeats,
    unpacked,
)
from ._holdout import stratified_holdout
from ._packed import PackedSource
from ._source import (
    ArraySource,
    Source,
    TakenSource,
    as_array,
    check_finite,
    check_samples,
)

__all__ = [
    "ArraySource",
    "BatchIterator",
    "DatasetSource",
    "DatasetView",
    "PackedSource",
    "Source",
    "TakenSource",
    "TorchView",
    "as_array",
    "as_source",
    "check_finite",
    "check_repeats",
    "check_samples",
    "stratified_holdout",
    "unpacked",
    "worker_errors",
]
