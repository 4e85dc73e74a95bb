"""The corrections of the ClArC family: train what follows a layer, or edit it."""

import copy
import functools
import math
import warnings
from dataclasses import replace

import numpy as np
import torch
from sklearn.base import clone
from skorch import NeuralNetClassifier
from torch import nn

from ..data import ArraySource, Source
from ..exceptions import StepSizeWarning
from ..modules._latent import isolate_head, parameters_after
from ..modules._latent_edit import EditedModule, LatentEdit, RefitModule
from ..objectives import InputGradientModule, WithMasks, penalty_curvature
from ..training import Processes, build_net, seeded
from ._latents import latents_of

__all__ = ["correct_net", "edit_net"]

# What of a net's parameters counts for the training of a correction.
KEPT_PARAMS = ("batch_size", "device", "iterator_train", "iterator_valid", "optimizer")
MOST_CACHED_BYTES = 2**31
# Rows that the curvature of the penalty is estimated on.
N_ROWS = 64
# Of the rate at which gradient descent on the penalty alone becomes unstable, 2 / c.
SAFE_SHARE = 0.25


def correct_net(
    data,
    state,
    net,
    layer,
    criterion,
    *,
    epochs,
    lr=None,
    optimizer=None,
    directions=None,
    edit=None,
    masks=None,
    cache=True,
):
    """Train what follows a layer.

    Parameters
    ----------
    data : FitData
        What the net was trained on.
    state : TrainedState
        Of the net.
    net : skorch.NeuralNetClassifier
        Where to start; unchanged.
    layer : LatentLayer
        Everything up to it stays as it is.
    criterion : torch.nn.Module
        Of what the module returns in this training, and y.
    epochs : int
        How many.
    lr : float, default=None
        Learning rate; None: a tenth of the one the net ended with.
    optimizer : type, default=None
        None: that of the net.
    directions : ndarray of shape (n_concepts, n_latents), default=None
        For a criterion of derivatives along these, see `RefitModule`.
    edit : LatentEdit, default=None
        Applied to the output of the layer, in this training only.
    masks : ndarray of bool, default=None
        For a criterion of input gradients, see `InputGradientModule`.
    cache : bool, default=True
        Compute the output of the layer once, where that can be.

    Returns
    -------
    state : TrainedState
        Of a net like the one given, corrected.
    lr : float
        The learning rate used.

    Warns
    -----
    StepSizeWarning
        If the rate was reduced.
    """
    device = next(net.module_.parameters()).device
    probe = data.probe()
    X = probe.batch(np.arange(len(probe))).to(device)
    module = copy.deepcopy(net.module_)
    trainable = parameters_after(module, layer.name, X)
    log_proba = isinstance(net.criterion_, nn.NLLLoss)
    train, valid, augment = data.train, data.valid, data.augment
    if masks is not None:
        refit = InputGradientModule(module, trainable, log_proba=log_proba)
        train = WithMasks(train, masks)
        valid = WithMasks(valid) if isinstance(valid, Source) else None
    else:
        head = None
        if cache and augment is None and _fits(layer, train, valid):
            head = isolate_head(module, layer.name, X)
        if head is not None:
            train, valid = (
                source and _latent_source(net, source, layer, data.precision)
                for source in (train, valid)
            )
        refit = RefitModule(
            module if head is None else head,
            trainable,
            layer,
            from_latents=head is not None,
            log_proba=log_proba,
            directions=directions,
            edit=edit,
        ).to(device)
        if directions is not None:
            refit.choose_mode(train.batch(np.arange(min(2, len(train)))).to(device))
    template = _template(data.template, refit, criterion, epochs, optimizer)
    rate = _last_rate(state, data.template) / 10 if lr is None else lr
    template.set_params(lr=rate)
    rate = _safe_rate(template, train, rate)
    template.set_params(lr=rate)
    stage = replace(
        data,
        template=template,
        fitted=None,
        train=train,
        valid=valid,
        augment=augment,
        # Each of several processes trains the few layers alone, and alike.
        processes=Processes(),
        repeatable=False,
    )
    after, _ = stage.train_erm(_accept, stage="refit")
    weights = dict(state.weights["module_"])
    for name, value in after.weights["module_"].items():
        if name.startswith("module."):
            weights[name.removeprefix("module.")] = value
    proba = after.holdout_proba
    # Of the edited net, or by another nonlinearity, it is not what will be predicted.
    if edit is not None or data.template.predict_nonlinearity != "auto":
        proba = None
    corrected = replace(
        state,
        weights={**state.weights, "module_": weights},
        best_weights=None,
        history=after.history,
        holdout_proba=proba,
    )
    return corrected, rate


def _accept(net):
    """Accept the net of this stage; that of the user has been checked."""


def _fits(layer, train, valid):
    """Tell whether the outputs of a layer can be kept in memory."""
    if not isinstance(valid, Source | None):
        return False
    n = len(train) + (0 if valid is None else len(valid))
    return 4 * n * math.prod(layer.shape) <= MOST_CACHED_BYTES


def _latent_source(net, source, layer, precision):
    latents = latents_of(net, source, layer, pooled=False, precision=precision)
    return ArraySource(latents, source.labels)


def _template(template, module, criterion, epochs, optimizer):
    """Make the net of this stage, which reads batches as that of the user does."""
    params = {
        name: value
        for name, value in template.get_params(deep=False).items()
        if name.partition("__")[0] in KEPT_PARAMS
    }
    # Both are about the whole net.
    params.pop("optimizer__param_groups", None)
    params.pop("optimizer__lr", None)
    if optimizer is not None:
        params = {k: v for k, v in params.items() if not k.startswith("optimizer")}
        params["optimizer"] = optimizer
    return NeuralNetClassifier(
        module,
        criterion=criterion,
        max_epochs=epochs,
        train_split=None,
        predict_nonlinearity=functools.partial(torch.softmax, dim=-1),
        **params,
    )


def _last_rate(state, template):
    """Return the learning rate that a training ended with."""
    for optimizer in state.optimizer.values():
        return float(optimizer["param_groups"][0]["lr"])
    return template.lr


def _safe_rate(template, source, rate):
    """Reduce the rate of SGD where the penalty would make it unstable."""
    with seeded(0):
        net = build_net(template)
        penalty = getattr(net.criterion_, "penalty", None)
        weight = getattr(net.criterion_, "weight", 0)
        if penalty is None or not weight or type(net.optimizer_) is not torch.optim.SGD:
            return rate
        rows = np.unique(np.linspace(0, len(source) - 1, N_ROWS).astype(int))
        device = next(net.module_.parameters()).device
        y = torch.as_tensor(source.labels[rows], device=device)
        outputs = net.module_(source.batch(rows).to(device))
        parameters = [p for p in net.module_.parameters() if p.requires_grad]
        curvature = weight * penalty_curvature(penalty(outputs, y), parameters)
    if not rate * curvature > 2 * SAFE_SHARE:
        return rate
    safe = 2 * SAFE_SHARE / curvature
    warnings.warn(
        f"The penalty has a curvature of {curvature:.3g} in the weights, with which a "
        f"learning rate of {rate:.3g} may be unstable; it is reduced to {safe:.3g}. "
        "Lower penalty_weight, or set a smaller refit_lr and more refit_epochs.",
        StepSizeWarning,
        stacklevel=9,
    )
    return safe


def edit_net(template, state, layer, directions, reactive):
    """Make the concept's removal a part of a net (P-ClArC); nothing is trained.

    Parameters
    ----------
    template : skorch.NeuralNetClassifier
        The unfitted net; unchanged.
    state : TrainedState
        Of the net.
    layer : LatentLayer
        The layer.
    directions : ConceptDirections
        With scores of clean and artifact samples.
    reactive : bool
        Move only samples that score nearer to artifact samples.

    Returns
    -------
    template : skorch.NeuralNetClassifier
        A net of the same kind around an `EditedModule`.
    state : TrainedState
        For that.
    """
    edit = {
        "layer": layer,
        "directions": directions.directions,
        "scores": directions.z_clean,
        "thresholds": None,
    }
    if reactive:
        edit["thresholds"] = (directions.z_clean + directions.z_artifact) / 2
    weights = {f"edit.{n}": v for n, v in LatentEdit(**edit).state_dict().items()}
    weights |= {f"module.{n}": v for n, v in state.weights["module_"].items()}
    edited = replace(
        state,
        weights={**state.weights, "module_": weights},
        best_weights=None,
        # Its parameters have other names and places.
        optimizer={},
        frozen=frozenset(
            (top, f"module.{name}" if top == "module_" else name)
            for top, name in state.frozen
        ),
        holdout_proba=None,
    )
    module = functools.partial(EditedModule, template.module, **edit)
    return clone(template).set_params(module=module), edited
