"""The nets of DeNetDM: how its encoders are made, and a net for each stage."""

import functools
import warnings
from dataclasses import replace

import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn
from torch.utils.data import DataLoader

from ..data import Source
from ..exceptions import DepthGapWarning
from ..modules._branches import count_depth, deep_branch, find_head, shallow_branch
from ..modules._pair import (
    Branch,
    DepthPair,
    EncoderPlan,
    FrozenGuide,
    GuidedTarget,
    PackedGuide,
)
from ..objectives import GuidedLoss
from ..training import TrainedState, build_net, check_output, seeded

__all__ = [
    "branch_net",
    "can_pack",
    "pair_net",
    "plan_branches",
    "plan_target",
    "target_net",
    "training_net",
]

DEFAULT_BRANCHES = {"shallow": shallow_branch, "deep": deep_branch}
# How much deeper the deep branch should be, in layers with weights.
SMALLEST_GAP = 2


def plan_target(template, probe, n_classes, head_bias, precision):
    """Find out how the user's module is cut into trunk and head.

    Parameters
    ----------
    template : skorch.NeuralNetClassifier
        The unfitted net.
    probe : Source
        A few samples.
    n_classes : int
        Number of classes.
    head_bias : bool
        Whether the shared head has a bias.
    precision : {"float32", "bf16"}
        In which it is tried.

    Returns
    -------
    plan : EncoderPlan
        Its `feature_dim` is its own width.

    Raises
    ------
    ValueError
        If the net does not take the samples, or its module can't be cut, or has no bias
        where the shared head has one.
    """
    with seeded(0):
        net = build_net(template)
        check_output(net, probe, n_classes, precision)
    X = probe.batch(np.arange(len(probe))).to(net.device)
    try:
        name = find_head(net.module_, X, n_classes)
    except ValueError as error:
        raise ValueError(
            f"The estimator's module, {type(net.module_).__name__}, can't be cut into "
            f"trunk and head: {error}. Expected a module that returns the logits of a "
            f"last torch.nn.Linear with {n_classes} outputs, which is given one vector "
            "a sample. Leave a softmax at the end out, and set "
            "criterion=torch.nn.CrossEntropyLoss."
        ) from error
    head = net.module_.get_submodule(name)
    if head_bias and head.bias is None:
        raise ValueError(
            f"The last layer of the estimator's module, {name!r}, has no bias, and the "
            "head of the branches, which takes its place, has one. Set head_bias=False."
        )
    return EncoderPlan(
        template.module,
        template.get_params_for("module"),
        head=name,
        width=head.in_features,
        feature_dim=head.in_features,
        projection_bias=head.bias is not None,
    )


def plan_branches(shallow, deep, probe, n_classes, feature_dim=None):
    """Find out what the two branches return, and how they come to one width.

    Parameters
    ----------
    shallow, deep : "auto", type, callable or torch.nn.Module
        What makes the branch, or the branch.
    probe : Source
        A few samples.
    n_classes : int
        Number of classes.
    feature_dim : int, default=None
        Features that both shall have. None: those of the shallow branch.

    Returns
    -------
    plans : dict of str to EncoderPlan
        For "shallow" and "deep".

    Raises
    ------
    ValueError
        If a branch can't take the samples, or returns no features.

    Warns
    -----
    DepthGapWarning
        If the deep branch is hardly deeper than the shallow one.
    """
    X = probe.batch(np.arange(len(probe)))
    plans, depths = {}, {}
    for name, spec in (("shallow", shallow), ("deep", deep)):
        plans[name], depths[name] = _plan_branch(name, spec, X, n_classes)
    if depths["deep"] - depths["shallow"] < SMALLEST_GAP:
        warnings.warn(
            f"The deep branch has {depths['deep']} layers with weights, the shallow "
            f"one {depths['shallow']}. It is the difference that makes them share the "
            f"work: make it {SMALLEST_GAP} at least, better twice as deep. With equal "
            "depths it is luck which one takes the shortcut.",
            DepthGapWarning,
            stacklevel=7,
        )
    width = feature_dim or plans["shallow"].width
    return {name: replace(plan, feature_dim=width) for name, plan in plans.items()}


def _plan_branch(name, spec, X, n_classes):
    """Try a branch; return its plan and its depth, the head included."""
    plan = EncoderPlan(spec)
    if isinstance(spec, str):
        shape = {"input_shape": tuple(X.shape[1:])}
        plan = EncoderPlan(DEFAULT_BRANCHES[name], shape)
    with seeded(0):
        module = plan.make()
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"{name}_module must be a torch.nn.Module, or make one when called without "
            f"arguments; got a {type(module).__name__}."
        )
    module.eval()
    try:
        with torch.no_grad():
            features = module(X)
        depth = count_depth(module, X)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise ValueError(
            f"{name}_module can't take samples of shape {tuple(X.shape[1:])} (each "
            f"without the batch axis): {error}."
        ) from error
    if getattr(features, "ndim", 0) != 2 or len(features) != len(X):
        got = getattr(features, "shape", type(features).__name__)
        raise ValueError(
            f"{name}_module must return one vector of features a sample, "
            f"({len(X)}, width) for {len(X)} samples; got {got}. Flatten or average "
            "its maps."
        )
    width = features.shape[1]
    if width != n_classes:
        return replace(plan, width=width), depth + 1
    # As wide as there are classes: a classifier, of which the trunk is wanted.
    try:
        head = find_head(module, X, n_classes)
    except ValueError as error:
        raise ValueError(
            f"{name}_module returns as many outputs as there are classes, {n_classes}, "
            f"but can't be cut into trunk and head: {error}. Give it without its last "
            "layer; features need another width than that."
        ) from error
    width = module.get_submodule(head).in_features
    return replace(plan, head=head, width=width), depth


def pair_net(template, plans, n_classes, head_bias, **params):
    """Make the net of the first stage.

    Parameters
    ----------
    template : skorch.NeuralNetClassifier
        The target's, whose device, loaders and criterion it takes.
    plans : dict of str to EncoderPlan
        Of both branches.
    n_classes : int
        Number of classes.
    head_bias : bool
        Whether the shared head has a bias.
    **params : dict
        Parameters of the net.

    Returns
    -------
    net : skorch.NeuralNetClassifier
        Unfitted.
    """
    loader = template.get_params_for("iterator_train")
    shuffle = {} if {"sampler", "batch_sampler"} & set(loader) else {"shuffle": True}
    defaults = {
        **_shared_params(template),
        "criterion": template.criterion,
        **_prefixed("criterion", template.get_params_for("criterion")),
        **_prefixed("iterator_train", loader | shuffle),
        "iterator_train": template.iterator_train,
        "optimizer": torch.optim.Adam,
        "predict_nonlinearity": functools.partial(torch.softmax, dim=-1),
        "module__shallow": plans["shallow"],
        "module__deep": plans["deep"],
        "module__n_classes": n_classes,
        "module__head_bias": head_bias,
    }
    return NeuralNetClassifier(DepthPair, **(defaults | params))


def branch_net(data, plan, weights, name, head_bias):
    """Make a net that predicts by one branch alone.

    Parameters
    ----------
    data : FitData
        Of the fit; the net of the target lends its device and loaders.
    plan : EncoderPlan
        Of the branch.
    weights : dict
        State dict of the `DepthPair`.
    name : {"shallow", "deep"}
        Which branch.
    head_bias : bool
        Whether the shared head has a bias.

    Returns
    -------
    net : skorch.NeuralNetClassifier
        Initialised, with the weights of the stage.
    """
    net = NeuralNetClassifier(
        Branch,
        **_shared_params(data.template),
        criterion=nn.CrossEntropyLoss,
        module__plan=plan,
        module__n_classes=data.n_classes,
        module__head_bias=head_bias,
    )
    parts = {name: "encoder", "head": "head"}
    own = {}
    for key, value in weights.items():
        part, _, rest = key.partition(".")
        if part in parts:
            own[f"{parts[part]}.{rest}"] = value
    state = TrainedState(weights={"module_": own, "criterion_": {}})
    return build_net(net, state, precision=data.precision)


def can_pack(template, data):
    """Tell whether what frozen branches return can be computed once for all epochs.

    Parameters
    ----------
    template : skorch.NeuralNetClassifier
        The target's.
    data : FitData
        Of the fit.

    Returns
    -------
    packable : bool
        False where a sample may be another one each time, or is read in a way of the
        user's own.
    """
    own = {"collate_fn", "batch_sampler"} & {
        *template.get_params_for("iterator_train"),
        *template.get_params_for("iterator_valid"),
    }
    return (
        data.augment is None
        and (data.valid is None or isinstance(data.valid, Source))
        and template.iterator_train is DataLoader
        and template.iterator_valid is DataLoader
        and not own
    )


def training_net(
    template, plan, biased, debiased, item_shape, *, packed, freeze_norm, **loss
):
    """Make the net of the second stage: the user's, around another module.

    Parameters
    ----------
    template : skorch.NeuralNetClassifier
        The target's.
    plan : EncoderPlan
        Of the target.
    biased, debiased : skorch.NeuralNetClassifier
        Nets of the branches.
    item_shape : tuple of int
        Shape of one sample.
    packed : bool
        Whether it is given what the branches return beside each sample.
    freeze_norm : bool
        Whether batch normalisation in the biased branch is frozen too.
    **loss : dict
        Weights and temperature of `GuidedLoss`.

    Returns
    -------
    net : skorch.NeuralNetClassifier
        Unfitted, of the type of `template`.
    """
    if packed:
        guide = PackedGuide(item_shape, plan.feature_dim)
    else:
        guide = FrozenGuide(biased.module_, debiased.module_, freeze_norm)
    params = {
        name: value
        for name, value in template.get_params(deep=False).items()
        if not name.startswith(("module__", "criterion__", "_params_to_validate"))
    }
    params |= {
        "module": GuidedTarget,
        "module__plan": plan,
        "module__head": debiased.module_.head,
        "module__guide": guide,
        "criterion": GuidedLoss,
        "criterion__base": template.criterion,
        "criterion__base_params": template.get_params_for("criterion"),
        **_prefixed("criterion", loss),
        "predict_nonlinearity": functools.partial(torch.softmax, dim=-1),
    }
    return type(template)(**params)


def target_net(template, training, plan, state, precision):
    """Make the net that predicts from what the second stage trained.

    Parameters
    ----------
    template : skorch.NeuralNetClassifier
        The target's.
    training : skorch.NeuralNetClassifier
        The net of the second stage.
    plan : EncoderPlan
        Of the target.
    state : TrainedState
        Of the second stage.
    precision : {"float32", "bf16"}
        In which it is to compute.

    Returns
    -------
    net : skorch.NeuralNetClassifier
        Of the user's type, with the user's own module.
    """
    trained = build_net(training, state)
    with seeded(0):
        net = build_net(template, precision=precision)
        net.module_.load_state_dict(trained.module_.folded(plan))
    return net


def _shared_params(template):
    """Return what every net takes over from the target's."""
    return {
        "batch_size": template.batch_size,
        "device": template.device,
        "iterator_valid": template.iterator_valid,
        **_prefixed("iterator_valid", template.get_params_for("iterator_valid")),
        "train_split": None,
        "verbose": template.verbose,
    }


def _prefixed(prefix, params):
    return {f"{prefix}__{name}": value for name, value in params.items()}
