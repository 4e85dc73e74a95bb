"""Let stage 1 end with the mean of its last weights."""

from skorch.callbacks import Callback
from torch.optim.swa_utils import AveragedModel, update_bn

__all__ = ["WeightMean"]

#: Share of the epochs, the last ones, whose weights are averaged.
AVERAGED = 0.2


class WeightMean(Callback):
    """End a training with the mean of the weights after each of its last epochs.

    At a constant learning rate the last epoch is a draw among its neighbours, whose
    mean is better than most of them [1]_. The statistics of batch normalisation are
    taken anew, in one pass over the training data.

    References
    ----------
    .. [1] Izmailov, Podoprikhin, Garipov, Vetrov, Wilson, "Averaging Weights Leads to
       Wider Optima and Better Generalization", UAI 2018.
    """

    def on_train_begin(self, net, **kwargs):
        """Forget another training."""
        self.mean_ = None

    def on_epoch_end(self, net, **kwargs):
        """Add the weights to the mean."""
        epochs_left = net.max_epochs - len(net.history)
        if epochs_left < max(1, round(AVERAGED * net.max_epochs)):
            if self.mean_ is None:
                self.mean_ = AveragedModel(net.module_)
            self.mean_.update_parameters(net.module_)

    def on_train_end(self, net, X=None, **kwargs):
        """Put the mean into the net."""
        module = self.mean_.module
        update_bn(net.get_iterator(X, training=True), module, net.device)
        net.module_.load_state_dict(module.state_dict())
