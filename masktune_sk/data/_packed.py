"""Samples with what is known of each beside them."""

from hashlib import blake2b
from math import prod

import numpy as np
import torch

from ._source import Source

__all__ = ["PackedSource"]


class PackedSource(Source):
    """Samples, flattened, and a vector for each, side by side in one vector.

    Whatever reads, shuffles and hashes samples then does so with both. The module that
    is given them takes them apart again.

    Parameters
    ----------
    source : Source
        The samples, with labels.
    extra : ndarray of shape (n_samples, n_extra), float32
        What is known of each.
    origin : str, default=None
        Stands for `extra` in the fingerprint, which may differ in its last digits
        where it is computed again. None: its values do.
    """

    def __init__(self, source, extra, origin=None):
        self.source = source
        self.extra = extra
        self.origin = origin
        self.item_shape = (prod(source.item_shape) + extra.shape[1],)
        self.labels = source.labels

    def __len__(self):
        return len(self.source)

    def batch(self, indices):
        """Read samples; see `Source.batch`."""
        rows = self.source.batch(indices).flatten(1)
        return torch.cat([rows, torch.from_numpy(self.extra[indices])], dim=1)

    def fingerprint(self):
        """Hash samples, labels and what is known; see `Source.fingerprint`."""
        digest = blake2b(self.source.fingerprint().encode(), digest_size=16)
        digest.update(
            np.ascontiguousarray(self.extra)
            if self.origin is None
            else self.origin.encode()
        )
        return digest.hexdigest()
