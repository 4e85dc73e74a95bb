"""Seeding that leaves the caller's random streams alone."""

import random
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def seeded(seed):
    """Seed Python's, numpy's and torch's global generators, and give them back.

    skorch has no random state of its own: weights, shuffling, dropout and whatever a
    callback or an augmentation draws come from the global generators. They are process
    wide, so two fits in two *threads* still share them; use processes.

    Parameters
    ----------
    seed : int
        Seed for all of them.
    """
    numpy_state = np.random.get_state()  # noqa: NPY002, code we call draws from it
    python_state = random.getstate()
    devices = range(torch.cuda.device_count())
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)
