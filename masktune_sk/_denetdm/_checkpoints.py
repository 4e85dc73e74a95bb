"""Weights of stage 1 besides those of its last epoch."""

import numpy as np
import torch
from skorch.callbacks import Callback
from torch.optim.swa_utils import AveragedModel, update_bn

from ..training import batches_in_order, snapshot
from ._roles import BRANCHES, role_scores

__all__ = ["BranchCheckpoints"]

#: Share of the epochs, the last ones, whose weights are averaged.
AVERAGED = 0.2


class BranchCheckpoints(Callback):
    """Keep the mean of the last weights of both branches, and their best epochs.

    At a constant learning rate the last epoch is a draw among its neighbours, whose
    mean is better than most of them [1]_. And a branch that had learned to do without
    the shortcut may forget it again, as soon as the other one gets both.

    The best epoch of a branch is the one in which it does best on the hold-out samples
    that early ERM got wrong, which takes no label of the shortcut. There is one for
    each branch, because it may not be known yet which is the debiased one.

    Parameters
    ----------
    hard : ndarray of bool, shape (n_holdout,), or None, default=None
        Which samples of the hold-out early ERM got wrong; None: no best epoch.

    Attributes
    ----------
    kept_weights_ : dict of str to dict
        State dicts of the pair: "average", and of the best epoch of each branch, under
        its name. The statistics of batch normalisation are taken anew for the mean, in
        one pass over the training data.

    References
    ----------
    .. [1] Izmailov, Podoprikhin, Garipov, Vetrov, Wilson, "Averaging Weights Leads to
       Wider Optima and Better Generalization", UAI 2018.
    """

    def __init__(self, hard=None):
        self.hard = hard

    def on_train_begin(self, net, **kwargs):
        """Forget another training."""
        self.average_ = None
        self.best_scores_ = dict.fromkeys(BRANCHES, -np.inf)
        self.kept_weights_ = {}

    def on_epoch_end(self, net, dataset_valid=None, **kwargs):
        """Add the weights to the mean, and keep those of a best epoch."""
        epochs_left = net.max_epochs - len(net.history)
        if epochs_left < max(1, round(AVERAGED * net.max_epochs)):
            if self.average_ is None:
                self.average_ = AveragedModel(net.module_)
            self.average_.update_parameters(net.module_)
        if self.hard is None:
            return
        source = dataset_valid.source
        logits = _branch_logits(net, source)
        scores = role_scores(*logits, source.labels, self.hard)
        for branch in BRANCHES:
            net.history.record(f"{branch}_hard_acc", scores[branch])
            if scores[branch] > self.best_scores_[branch]:
                self.best_scores_[branch] = scores[branch]
                self.kept_weights_[branch] = snapshot(net)["module_"]

    def on_train_end(self, net, X=None, **kwargs):
        """Complete the mean."""
        module = self.average_.module
        update_bn(net.get_iterator(X, training=True), module, net.device)
        self.kept_weights_["average"] = {
            name: value.cpu() for name, value in module.state_dict().items()
        }


@torch.no_grad()
def _branch_logits(net, source):
    """Return the logits of each branch alone: the shallow one's, the deep one's."""
    pair = net.module_.eval()
    found = {name: [] for name in BRANCHES}
    for X in batches_in_order(net, source):
        X = X.to(net.device)
        for name in BRANCHES:
            found[name].append(pair.head(getattr(pair, name)(X)).float().cpu())
    return [torch.cat(found[name]).numpy() for name in BRANCHES]
