"""Stage 2 of DeNetDM: the target learns beside one branch, and from the other."""

from dataclasses import replace

import numpy as np

from ..data import PackedSource, TorchView
from ..training import forward
from ._branches import accept, branch_logits
from ._nets import can_pack, target_net, training_net

__all__ = ["train_target"]


def train_target(data, plan, branches, *, freeze_norm=True, **loss):
    """Run stage 2.

    Parameters
    ----------
    data : FitData
        Of the fit.
    plan : EncoderPlan
        Of the target.
    branches : Branches
        Of stage 1.
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
    biased = branches.nets[branches.biased]
    debiased = branches.nets[branches.debiased]
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
            return PackedSource(source, np.hstack([features, logits]), branches.key)

        stage.train = pack(data.train, branches.logits[branches.debiased])
        if data.valid is not None:
            held = branch_logits(debiased, data.valid, data.precision)
            stage.valid = pack(data.valid, held)
    state, _ = stage.train_erm(accept, stage="target")
    net = target_net(data.template, net, plan, state, data.precision)
    return net, state.history
