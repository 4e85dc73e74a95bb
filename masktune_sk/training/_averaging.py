"""The mean of the weights of the last epochs."""

from skorch.callbacks import Callback
from torch.optim.swa_utils import AveragedModel, update_bn

__all__ = ["WeightAveraging"]


class WeightAveraging(Callback):
    """Leave a net with the mean of the weights that its last epochs ended with.

    At a constant learning rate the last epoch is a draw among its neighbours, and
    their mean is better than most of them [1]_. The statistics of batch normalisation
    are taken anew for the mean, in one pass over the training data.

    Parameters
    ----------
    share : float in (0, 1)
        Which part of the epochs; the last one at least.

    References
    ----------
    .. [1] Izmailov, Podoprikhin, Garipov, Vetrov, Wilson, "Averaging Weights Leads to
       Wider Optima and Better Generalization", UAI 2018.
    """

    def __init__(self, share):
        self.share = share

    def on_train_begin(self, net, **kwargs):
        """Forget what another training left."""
        self.average_ = None

    def on_epoch_end(self, net, **kwargs):
        """Add the weights, if this is one of the last epochs."""
        n_averaged = max(1, round(self.share * net.max_epochs))
        if len(net.history) <= net.max_epochs - n_averaged:
            return
        if self.average_ is None:
            self.average_ = AveragedModel(net.module_)
        self.average_.update_parameters(net.module_)

    def on_train_end(self, net, X=None, **kwargs):
        """Give the net their mean."""
        if self.average_ is None or self.average_.n_averaged == 1:
            return
        net.module_.load_state_dict(self.average_.module.state_dict())
        update_bn(net.get_iterator(X, training=True), net.module_, net.device)
        self.average_ = None
