"""Callbacks that watch every training of ours."""

import numpy as np
import torch
from skorch.callbacks import Callback

from ..exceptions import NonFiniteError
from ._state import snapshot


class EpochMonitor(Callback):
    """Watch a training: stop at a non-finite loss, note rates, keep the best epoch.

    The accuracy on the hold-out is counted from the validation pass that skorch makes
    anyway. It runs before the user's callbacks, because those may end the epoch.

    Parameters
    ----------
    stage : str
        Name of the stage, for messages.
    keep_best : bool, default=False
        Keep the weights of the first epoch with the best hold-out accuracy.
    """

    def __init__(self, stage, keep_best=False):
        self.stage = stage
        self.keep_best = keep_best

    def on_train_begin(self, net, **kwargs):
        """Forget an earlier training."""
        self.best_accuracy_ = -np.inf
        self.best_weights_ = None

    def on_epoch_begin(self, net, **kwargs):
        """Note the learning rate of the epoch."""
        self.correct_ = self.seen_ = 0
        optimizer = getattr(net, "optimizer_", None)
        if isinstance(optimizer, torch.optim.Optimizer):
            rates = [float(group["lr"]) for group in optimizer.param_groups]
            net.history.record("lr", rates[0] if len(set(rates)) == 1 else rates)

    def on_batch_end(self, net, batch=None, training=False, y_pred=None, **kwargs):
        """Check the loss, count correct predictions."""
        prefix = "train" if training else "valid"
        loss = net.history[-1, "batches", -1, f"{prefix}_loss"]
        if training and not np.isfinite(loss):
            raise NonFiniteError(
                f"The training loss became {loss} in epoch {len(net.history)} of the "
                f"{self.stage} stage. Usual causes: a learning rate that is too large, "
                "inputs that are not scaled, or logits given to a criterion that "
                "expects probabilities (NeuralNetClassifier's default NLLLoss does; "
                "set criterion=torch.nn.CrossEntropyLoss)."
            )
        if not training:
            y_pred = y_pred[0] if isinstance(y_pred, tuple) else y_pred
            predicted = y_pred.argmax(dim=1).cpu()
            self.correct_ += int((predicted == batch[1].cpu()).sum())
            self.seen_ += len(predicted)

    def on_epoch_end(self, net, **kwargs):
        """Keep the best weights; the first epoch wins ties."""
        if not self.seen_:
            return
        accuracy = self.correct_ / self.seen_
        net.history.record("valid_acc", accuracy)
        if self.keep_best and accuracy > self.best_accuracy_:
            self.best_accuracy_ = accuracy
            self.best_weights_ = snapshot(net)


class ProgressBar(Callback):
    """Move a bar by one for each training batch.

    Parameters
    ----------
    bar : tqdm.tqdm
        An open bar, closed by whoever opened it.
    """

    def __init__(self, bar):
        self.bar = bar

    def on_batch_end(self, net, training=False, **kwargs):
        """Move on by one training batch."""
        if training:
            self.bar.update()

    def on_epoch_end(self, net, **kwargs):
        """Show the last loss and accuracy."""
        row = net.history[-1]
        shown = ("train_loss", "valid_acc")
        self.bar.set_postfix({k: f"{row[k]:.3f}" for k in shown if k in row})
