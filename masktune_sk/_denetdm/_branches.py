"""Stage 1 of DeNetDM: the branches, which of them took the shortcut, and since when."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
from sklearn.base import clone

from ..data import Source, TorchView
from ..exceptions import (
    CheckpointWarning,
    RolesUndecidedWarning,
    StarvedBranchWarning,
)
from ..training import build_net, finite_rows, forward, predict_proba
from ._checkpoints import BranchCheckpoints
from ._nets import branch_net, pair_net
from ._roles import BRANCHES, decide_roles, role_scores, separation

__all__ = ["Branches", "accept", "branch_logits", "train_branches"]

# What the test of the roles needs, see `decide_roles`.
MARGIN, MIN_HARD = 0.1, 20
# Share of the epochs after which starts are compared.
TRIED = 0.05


@dataclass
class Branches:
    """What stage 1 leaves behind.

    Attributes
    ----------
    nets : dict of str to skorch.NeuralNetClassifier
        A net for each branch alone.
    logits : dict of str to ndarray of shape (n_train, n_classes)
        What they return for the training rows.
    debiased, biased : {"shallow", "deep"}
        Their roles.
    role_scores : dict or None
        See `role_scores`; None if the roles were given.
    separation : dict
        See `separation`.
    start_scores : list of float
        Of each start that was tried, see `_try_starts`; empty if there was one.
    epoch : int or None
        The epoch whose weights they have; None for a mean.
    history : list of dict
        Of all trainings.
    key : str or None
        Stands for them in the cache.
    """

    nets: dict
    logits: dict
    debiased: str
    biased: str
    role_scores: dict | None
    separation: dict
    start_scores: list
    epoch: int | None
    history: list
    key: str | None


def train_branches(
    data, plans, *, head_bias, n_init=1, debiased="auto", checkpoint="last", **params
):
    """Run stage 1.

    Parameters
    ----------
    data : FitData
        Of the fit.
    plans : dict of str to EncoderPlan
        Of both branches.
    head_bias : bool
        Whether the shared head has a bias.
    n_init : int, default=1
        How many starts are tried.
    debiased : {"auto", "shallow", "deep"}, default="auto"
        The debiased branch; "auto" finds it out.
    checkpoint : {"last", "average", "best"}, default="last"
        Which weights are taken, see `BranchCheckpoints`.
    **params : dict
        Parameters of the net of both.

    Returns
    -------
    branches : Branches
        What was trained, and found.

    Warns
    -----
    CheckpointWarning
        If no epoch can be judged, and the best one was asked for.
    RolesUndecidedWarning
        If the roles are not decided.
    StarvedBranchWarning
        If a branch learned nothing.
    """
    # Drawn in any case, so that what follows is the same.
    seed, early_seed = data.seed(), data.seed()
    errors, history = None, []
    if debiased == "auto" or checkpoint == "best":
        errors = _find_early_errors(data, early_seed)
        history += [{"stage": "early ERM", **row} for row in errors.history]
    hard = None if errors is None else errors.holdout
    if checkpoint == "best" and hard is None:
        _warn_of_unjudged_epochs()
        checkpoint = "last"
    template = pair_net(data.template, plans, data.n_classes, head_bias, **params)

    def nets_of(weights):
        return {
            name: branch_net(data, plans[name], weights, name, head_bias)
            for name in BRANCHES
        }

    seed, start_scores, rows = _try_starts(data, template, nets_of, seed, n_init)
    history += rows
    if checkpoint != "last":
        template.set_params(callbacks=[("checkpoints", BranchCheckpoints(hard))])
    pair, key = replace(data, template=template).train_erm(
        accept, stage="branches", seed=seed
    )
    history += [{"stage": "branches", **row} for row in pair.history]

    def at(checkpoint):
        kept = pair.kept_weights | {"last": pair.weights["module_"]}
        nets = nets_of(kept[checkpoint])
        return nets, _logits_of(nets, data.train, data.precision)

    scores, nets = None, None
    if debiased == "auto":
        # Which epoch is the best one depends on the roles: those after the last.
        nets, logits = at("last" if checkpoint == "best" else checkpoint)
        scores, debiased = _find_roles(data, errors, nets, logits)
    epoch = {"last": len(pair.history), "average": None}.get(checkpoint)
    if checkpoint == "best":
        judged = [row[f"{debiased}_hard_acc"] for row in pair.history]
        epoch = int(np.argmax(judged)) + 1
        nets, logits = at(debiased)
    elif nets is None:
        nets, logits = at(checkpoint)
    (biased,) = set(BRANCHES) - {debiased}
    apart = separation(*logits.values(), data.train.labels, debiased)
    _warn_of_starving(apart["starved"])
    return Branches(
        nets=nets,
        logits=logits,
        debiased=debiased,
        biased=biased,
        role_scores=scores,
        separation=apart,
        start_scores=start_scores,
        epoch=epoch,
        history=history,
        key=key and f"{key} {checkpoint} {debiased}",
    )


def accept(net):
    """Ask nothing of a net besides what every stage does."""


def _try_starts(data, template, nets_of, seed, n_init):
    """Train from several starts for a few epochs, and find the best of them.

    From an unlucky start the deep branch can't tell some classes for long, and the
    shallow one has to take their shortcut too. Then one branch alone does badly: what
    counts is how well both do alone, on the hold-out if there is one.

    Returns the seed of the best, the score of each, and rows for the history.
    """
    if n_init == 1:
        return seed, [], []
    epochs = max(1, round(TRIED * template.max_epochs))
    brief = replace(data, template=clone(template).set_params(max_epochs=epochs))
    source = data.valid if isinstance(data.valid, Source) else data.train
    others = np.random.RandomState(seed).randint(
        np.iinfo(np.int32).max, size=n_init - 1
    )
    seeds, scores, history = [seed, *map(int, others)], [], []
    for i, one in enumerate(seeds, start=1):
        stage = f"start {i} of {n_init}"
        pair, _ = brief.train_erm(accept, stage=stage, seed=one)
        logits = _logits_of(nets_of(pair.weights["module_"]), source, data.precision)
        apart = separation(*logits.values(), source.labels, "shallow")
        scores.append(float(np.mean(list(apart["balanced_accuracy"].values()))))
        history += [{"stage": stage, **row} for row in pair.history]
    return seeds[int(np.argmax(scores))], scores, history


def _logits_of(nets, source, precision):
    return {
        name: finite_rows(branch_logits(net, source, precision))
        for name, net in nets.items()
    }


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


@dataclass
class EarlyErrors:
    """Which samples ERM gets wrong after one epoch: mostly bias-conflicting ones.

    Attributes
    ----------
    train : ndarray of bool, shape (n_train,)
        Of the training rows.
    holdout : ndarray of bool, shape (n_holdout,), or None
        Of the hold-out; None if too few of it are wrong, or there is none.
    history : list of dict
        Of the training.
    """

    train: np.ndarray
    holdout: np.ndarray | None
    history: list


def _find_early_errors(data, seed):
    """Train the net by plain ERM for one epoch, and look at what it gets wrong.

    Parameters
    ----------
    data : FitData
        Of the fit.
    seed : int
        Of the training.

    Returns
    -------
    errors : EarlyErrors
        On the training rows and on the hold-out.
    """
    template = clone(data.template).set_params(max_epochs=1, callbacks=None)
    early = replace(data, template=template)
    state, _ = early.train_erm(accept, stage="early ERM", seed=seed)
    net = build_net(template, state, precision=data.precision)

    def wrong(source):
        proba = predict_proba(net, TorchView(source), data.precision)
        return proba.argmax(axis=1) != source.labels

    holdout = wrong(data.valid) if isinstance(data.valid, Source) else None
    if holdout is not None and holdout.sum() < MIN_HARD:
        holdout = None
    return EarlyErrors(wrong(data.train), holdout, state.history)


def _find_roles(data, errors, nets, logits):
    """Find out which branch is the debiased one, by what early ERM gets wrong.

    Parameters
    ----------
    data : FitData
        Of the fit.
    errors : EarlyErrors
        Of early ERM.
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

    Warns
    -----
    RolesUndecidedWarning
        If it is not decided.
    """
    source, hard = data.train, errors.train
    if errors.holdout is not None:
        source, hard = data.valid, errors.holdout
        logits = _logits_of(nets, source, data.precision)
    scores = role_scores(logits["shallow"], logits["deep"], source.labels, hard)
    debiased, decided = decide_roles(scores, margin=MARGIN, min_hard=MIN_HARD)
    if not decided:
        _warn_of_indecision(scores, data.train.item_shape)
        debiased = "shallow"
    return scores, debiased


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
        stacklevel=9,
    )


def _warn_of_starving(starved):
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
        stacklevel=8,
    )


def _warn_of_unjudged_epochs():
    warnings.warn(
        f"One epoch of ERM gets fewer than {MIN_HARD} samples of the hold-out wrong: "
        "too few to judge the epochs of stage 1 by, so that the last one is taken. "
        "Raise validation_fraction, or set stage1_checkpoint='average'.",
        CheckpointWarning,
        stacklevel=8,
    )
