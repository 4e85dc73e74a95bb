import os
import random

# Before anything imports pyplot, here and in the processes that tests start.
os.environ["MPLBACKEND"] = "Agg"

import numpy as np
import pytest
import torch

from masktune_sk import _fit_data

# The nets of the tests are so small that a second thread only costs time.
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def seed_global_generators():
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002, some of what we call draws from the global state
    torch.manual_seed(0)


@pytest.fixture
def trained(monkeypatch):
    """Record the stages that train, besides the refit, and are not found in memory."""
    stages = []
    train = _fit_data.train_erm

    def train_erm(*args, stage, **params):
        stages.append(stage)
        return train(*args, stage=stage, **params)

    monkeypatch.setattr(_fit_data, "train_erm", train_erm)
    return stages


def pytest_runtest_setup(item):
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
