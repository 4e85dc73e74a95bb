"""Stage 1 of DeNetDM: the branches, and which of them took the shortcut."""

import warnings
from dataclasses import dataclass, replace

import numpy as np
from sklearn.base import clone

from ..data import Source, TorchView
from ..exceptions import RolesUndecidedWarning, StarvedBranchWarning
from ..training import build_net, finite_rows, forward, predict_proba
from ._nets import branch_net, pair_net
from ._roles import BRANCHES, decide_roles, role_scores, separation
from ._weight_mean import WeightMean

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
    history: list
    key: str | None


def train_branches(
    data, plans, *, head_bias, n_init=1, average=False, debiased="auto", **params
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
    average : bool, default=False
        Whether the mean of the last weights is taken, see `WeightMean`.
    debiased : {"auto", "shallow", "deep"}, default="auto"
        The debiased branch; "auto" finds it out.
    **params : dict
        Parameters of the net of both.

    Returns
    -------
    branches : Branches
        What was trained, and found.

    Warns
    -----
    RolesUndecidedWarning
        If the roles are not decided.
    StarvedBranchWarning
        If a branch learned nothing.
    """
    # Drawn in any case, so that what follows is the same.
    seed, early_seed = data.seed(), data.seed()
    template = pair_net(data.template, plans, data.n_classes, head_bias, **params)

    def nets_of(weights):
        return {
            name: branch_net(data, plans[name], weights, name, head_bias)
            for name in BRANCHES
        }

    seed, start_scores, history = _try_starts(data, template, nets_of, seed, n_init)
    if average:
        template.set_params(callbacks=[("mean", WeightMean())])
    pair, key = replace(data, template=template).train_erm(
        accept, stage="branches", seed=seed
    )
    history += [{"stage": "branches", **row} for row in pair.history]
    nets = nets_of(pair.weights["module_"])
    logits = _logits_of(nets, data.train, data.precision)
    scores = None
    if debiased == "auto":
        scores, debiased, rows = _find_roles(data, early_seed, nets, logits)
        history += [{"stage": "early ERM", **row} for row in rows]
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
        history=history,
        key=key and f"{key} {debiased}",
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


def _find_roles(data, seed, nets, logits):
    """Find out which branch is the debiased one, by what early ERM gets wrong.

    Parameters
    ----------
    data : FitData
        Of the fit; its net is trained by plain ERM for one epoch.
    seed : int
        Of that training.
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
    state, _ = early.train_erm(accept, stage="early ERM", seed=seed)
    net = build_net(template, state, precision=data.precision)

    def score(source, logits):
        proba = predict_proba(net, TorchView(source), data.precision)
        hard = proba.argmax(axis=1) != source.labels
        return role_scores(logits["shallow"], logits["deep"], source.labels, hard)

    scores = None
    if isinstance(data.valid, Source):
        scores = score(data.valid, _logits_of(nets, data.valid, data.precision))
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
