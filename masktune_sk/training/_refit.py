"""The second training: from the ERM weights, on rows that were intervened on."""

from contextlib import contextmanager, nullcontext

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim import Optimizer

from ._net import build_net
from ._runner import StageRun
from ._seed import seeded
from ._state import TrainedState, torch_attributes

__all__ = ["refit"]


def refit(
    template,
    state,
    train,
    *,
    epochs,
    valid=None,
    lr=None,
    optimizer="continue",
    seed,
    augment=None,
    freeze_norm=False,
    stage="refit",
    precision="float32",
    verbose=0,
):
    """Continue a training on other rows.

    The user's callbacks and schedules belong to the first training and are not called.

    Parameters
    ----------
    template : skorch.NeuralNetClassifier
        The unfitted net.
    state : TrainedState
        Where to start.
    train : Source
        Rows to train on, with labels.
    epochs : int
        Exactly that many; 0 returns the weights as they are.
    valid : Source or torch Dataset, default=None
        Rows to score each epoch on.
    lr : float, default=None
        Learning rate; None: the one that the first training ended with.
    optimizer : {"continue", "fresh"}, default="continue"
        Carry the optimizer's moments over, or start them anew.
    seed : int
        Seeds shuffling and everything else that draws.
    augment : callable, default=None
        Applied to the tensor of each sample.
    freeze_norm : bool, default=False
        Normalise by the running statistics of batch normalisation, and keep them.
    stage : str, default="refit"
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
        net = build_net(template, state, precision=precision)
        state.load_optimizer(net, keep_moments=optimizer == "continue")
        if lr is not None:
            _set_learning_rate(net, lr)
        if epochs == 0:
            proba = state.holdout_proba
        else:
            run = StageRun(
                net,
                stage,
                train=train,
                valid=valid,
                augment=augment,
                user_callbacks=False,
                precision=precision,
                verbose=verbose,
            )
            with _norm_frozen(net) if freeze_norm else nullcontext(), run:
                run.fit(epochs)
                proba = run.holdout_proba()
    return TrainedState.of(net, module_params=state.module_params, holdout_proba=proba)


@contextmanager
def _norm_frozen(net):
    """Keep layers of batch normalisation in eval mode, whatever mode is asked for."""
    layers = [
        layer
        for top in torch_attributes(net, nn.Module).values()
        for layer in top.modules()
        if isinstance(layer, _BatchNorm)
    ]
    for layer in layers:
        layer.train = lambda mode=True, layer=layer: nn.Module.train(layer, False)
    try:
        yield
    finally:
        for layer in layers:
            del layer.train


def _set_learning_rate(net, lr):
    for optimizer in torch_attributes(net, Optimizer).values():
        for group in optimizer.param_groups:
            group["lr"] = lr
