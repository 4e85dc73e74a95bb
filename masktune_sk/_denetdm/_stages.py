"""The stages of DeNetDM after its branches: their roles, and the target."""

import warnings
from dataclasses import replace

import numpy as np
from sklearn.base import clone

from ..data import PackedSource, Source, TorchView
from ..exceptions import RolesUndecidedWarning, StarvedBranchWarning
from ..training import build_net, forward, predict_proba
from ._nets import can_pack, target_net, training_net
from ._roles import decide_roles, role_scores

__all__ = ["branch_logits", "find_roles", "train_target", "warn_of_starving"]

# What the test of the roles needs, see `decide_roles`.
MARGIN, MIN_HARD = 0.1, 20


def branch_logits(net, source, precision):
    """Return the logits of one branch alone.

    Parameters
    ----------
    net : skorch.NeuralNetClassifier
        Of the branch.
    source : Source
        Samples.
    precision : {"float32", "bf16"}
        See `masktune_sk.training.computing`.

    Returns
    -------
    logits : ndarray of shape (n_samples, n_classes), float32
        One row a sample.
    """
    return forward(net, TorchView(source), precision=precision)


def find_roles(data, nets, logits):
    """Find out which branch is the debiased one, by what early ERM gets wrong.

    Parameters
    ----------
    data : FitData
        Of the fit; its net is trained for one epoch.
    nets : dict of str to skorch.NeuralNetClassifier
        Of the branches.
    logits : dict of str to ndarray of shape (n_train, n_classes)
        What they return for the training rows.

    Returns
    -------
    scores : dict
        See `role_scores`; on the hold-out, which the branches have not seen, if enough
        of it is wrong.
    debiased : {"shallow", "deep"}
        The debiased branch; "shallow" if that is not decided.
    history : list of dict
        Of the training.

    Warns
    -----
    RolesUndecidedWarning
        If it is not decided.
    """
    template = clone(data.template).set_params(max_epochs=1, callbacks=None)
    early = replace(data, template=template)
    state, _ = early.train_erm(accept, stage="early ERM")
    net = build_net(template, state, precision=data.precision)

    def score(source, logits):
        proba = predict_proba(net, TorchView(source), data.precision)
        hard = proba.argmax(axis=1) != source.labels
        return role_scores(logits["shallow"], logits["deep"], source.labels, hard)

    scores = None
    if isinstance(data.valid, Source):
        held = {b: branch_logits(nets[b], data.valid, data.precision) for b in nets}
        scores = score(data.valid, held)
    if scores is None or scores["n_hard"] < MIN_HARD:
        scores = score(data.train, logits)
    debiased, decided = decide_roles(scores, margin=MARGIN, min_hard=MIN_HARD)
    if not decided:
        _warn_of_indecision(scores, data.train.item_shape)
        debiased = "shallow"
    return scores, debiased, state.history


def _warn_of_indecision(scores, item_shape):
    vectors = " X holds vectors, where it is often the deep one."
    warnings.warn(
        "It is not decided which branch took the shortcut: of the "
        f"{scores['n_hard']} samples that one epoch of ERM gets wrong, the shallow "
        f"branch gets {scores['shallow']:.2f} right and the deep one "
        f"{scores['deep']:.2f} (class-balanced; asked for are {MIN_HARD} samples and a "
        f"difference of {MARGIN}). The shallow one is taken for the debiased one, as "
        f"the paper does.{vectors if len(item_shape) == 1 else ''} Set debiased_branch "
        "if you know better; branch_predict_proba shows what each does on samples "
        "whose shortcut contradicts their class.",
        RolesUndecidedWarning,
        stacklevel=8,
    )


def warn_of_starving(starved):
    """Say if a branch learned nothing.

    Parameters
    ----------
    starved : {"shallow", "deep"} or None
        Which.

    Warns
    -----
    StarvedBranchWarning
        If there is one.
    """
    if starved is None:
        return
    warnings.warn(
        f"The {starved} branch predicts no better than by chance on the training "
        "samples, so that the other one has learned everything, shortcut included, as "
        "plain ERM would. Scale the features, train stage 1 for longer, or give "
        f"another {starved}_module: beyond five layers it needs batch normalisation or "
        "shortcuts.",
        StarvedBranchWarning,
        stacklevel=7,
    )


def train_target(
    data, plan, biased, debiased, logits, origin, *, freeze_norm=True, **loss
):
    """Run stage 2.

    Parameters
    ----------
    data : FitData
        Of the fit.
    plan : EncoderPlan
        Of the target.
    biased, debiased : skorch.NeuralNetClassifier
        Nets of the branches.
    logits : ndarray of shape (n_train, n_classes)
        What the debiased branch returns for the training rows.
    origin : str or None
        Stands for the branches in the cache.
    freeze_norm : bool, default=True
        Whether batch normalisation in the biased branch is frozen too.
    **loss : dict
        Weights and temperature of `GuidedLoss`.

    Returns
    -------
    net : skorch.NeuralNetClassifier
        The target, which predicts alone.
    history : list of dict
        Of the training.
    """
    packed = freeze_norm and can_pack(data.template, data)
    net = training_net(
        data.template,
        plan,
        biased,
        debiased,
        data.train.item_shape,
        packed=packed,
        freeze_norm=freeze_norm,
        **loss,
    )
    stage = replace(data, template=net)
    if packed:

        def pack(source, logits):
            features = forward(biased, TorchView(source), 1, data.precision)
            return PackedSource(source, np.hstack([features, logits]), origin)

        stage.train = pack(data.train, logits)
        if data.valid is not None:
            held = branch_logits(debiased, data.valid, data.precision)
            stage.valid = pack(data.valid, held)
    state, _ = stage.train_erm(accept, stage="target")
    net = target_net(data.template, net, plan, state, data.precision)
    return net, state.history


def accept(net):
    """Ask nothing of a net besides what every stage does."""
