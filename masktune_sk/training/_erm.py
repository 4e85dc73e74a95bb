"""The first training: empirical risk minimisation, as the user configured it."""

import numpy as np
from torch.utils.data import Subset

from ..data import TorchView
from ._net import build_net
from ._runner import StageRun
from ._seed import seeded
from ._state import TrainedState

__all__ = ["split_as_net", "train_erm"]


def train_erm(
    template,
    train,
    *,
    valid=None,
    seed,
    augment=None,
    keep_best=False,
    before=None,
    stage="ERM",
    precision="float32",
    verbose=0,
):
    """Train a net on the rows as they are.

    Parameters
    ----------
    template : skorch.NeuralNetClassifier
        The unfitted net; its epochs, optimizer, schedule and callbacks are used.
    train : Source
        Rows to train on, with labels.
    valid : Source or torch Dataset, default=None
        Rows for skorch's validation set.
    seed : int
        Seeds weights, shuffling and everything else that draws.
    augment : callable, default=None
        Applied to the tensor of each sample.
    keep_best : bool, default=False
        Keep the weights of the epoch with the best validation accuracy.
    before : callable, default=None
        Checks, called with the net before the first batch.
    stage : str, default="ERM"
        Name for messages.
    precision : {"float32", "bf16"}, default="float32"
        See `computing`.
    verbose : int, default=0
        1: a progress bar; 2: skorch's table.

    Returns
    -------
    state : TrainedState
        After the last epoch.
    """
    with seeded(seed):
        net = build_net(template, precision=precision)
        built = net.get_params_for("module")
        with StageRun(
            net,
            stage,
            train=train,
            valid=valid,
            augment=augment,
            keep_best=keep_best,
            precision=precision,
            verbose=verbose,
        ) as run:
            run.fit(net.max_epochs, before=before)
        return TrainedState.of(
            net,
            best_weights=run.monitor.best_weights_,
            module_params=_params_set_since(built, net),
            holdout_proba=run.holdout_proba(),
            best_holdout_proba=run.holdout_proba(best=True),
            n_processes=run.processes.size,
        )


def split_as_net(net, source):
    """Split rows by the user's own `train_split`.

    Parameters
    ----------
    net : skorch.NeuralNetClassifier
        A net with a `train_split`.
    source : Source
        All rows.

    Returns
    -------
    rows : ndarray of int
        Rows to train on (and later to mask and to refit on).
    valid : Source or torch Dataset
        What the split keeps for validation.

    Raises
    ------
    ValueError
        If the split trains on other rows than it was given.
    """
    dataset = TorchView(source)
    train, valid = net.train_split(dataset, y=source.labels)
    if isinstance(valid, Subset) and valid.dataset is dataset:
        valid = source.take(valid.indices)
    if isinstance(train, Subset) and train.dataset is dataset:
        return np.asarray(train.indices), valid
    if train is dataset:
        return np.arange(len(source)), valid
    raise ValueError(
        "The estimator's train_split must return the dataset it is given, or a "
        f"torch.utils.data.Subset of it, as the training part; got {train!r}. Leave it "
        "out and use validation_fraction, or use skorch's ValidSplit or "
        "predefined_split."
    )


def _params_set_since(built, net):
    """Find module parameters that a callback set, such as an inferred input size."""
    return {
        f"module__{name}": value
        for name, value in net.get_params_for("module").items()
        if name not in built or built[name] is not value
    }
