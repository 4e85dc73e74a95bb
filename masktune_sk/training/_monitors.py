"""Callbacks that watch every training of ours."""

import math
import time

import numpy as np
import torch
from skorch.callbacks import Callback

from ..exceptions import NonFiniteError
from ._fingerprint import content_hash
from ._state import snapshot


class EpochMonitor(Callback):
    """Watch a training: stop at a non-finite loss, note rates, keep the best epoch.

    Losses and the accuracy on the hold-out come from the passes that skorch makes
    anyway; alone, it writes the history that skorch's own callbacks would. It runs
    before the user's callbacks, because those may end the epoch.

    Parameters
    ----------
    stage : str
        Name of the stage, for messages.
    keep_best : bool, default=False
        Keep the weights of the first epoch with the best hold-out accuracy.
    keep_outputs : bool, default=False
        Keep what the validation pass of the last epoch (and of the best) returned.

    Attributes
    ----------
    others_follow : bool
        Set by the run: callbacks after this one may change the weights.
    """

    others_follow = False

    def __init__(self, stage, keep_best=False, keep_outputs=False):
        self.stage = stage
        self.keep_best = keep_best
        self.keep_outputs = keep_outputs

    def on_train_begin(self, net, **kwargs):
        """Forget an earlier training."""
        self.best_accuracy_ = -np.inf
        self.best_weights_ = None
        self.outputs_ = self.best_outputs_ = self.digest_ = None

    def on_epoch_begin(self, net, **kwargs):
        """Note the learning rate of the epoch."""
        self.correct_ = self.seen_ = 0
        self.outputs_ = []
        self.begun_ = time.perf_counter()
        optimizer = getattr(net, "optimizer_", None)
        if isinstance(optimizer, torch.optim.Optimizer):
            rates = [float(group["lr"]) for group in optimizer.param_groups]
            net.history.record("lr", rates[0] if len(set(rates)) == 1 else rates)

    def on_batch_end(self, net, batch=None, training=False, y_pred=None, **kwargs):
        """Check the loss, count correct predictions."""
        # As a list: skorch's own indexing takes longer than a small net's layer.
        row = list.__getitem__(net.history, -1)["batches"][-1]
        if training and not math.isfinite(loss := row["train_loss"]):
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
            if self.keep_outputs:
                self.outputs_.append(y_pred.cpu())

    def on_epoch_end(self, net, **kwargs):
        """Sum the epoch up, keep the best weights; the first epoch wins ties."""
        if not self.others_follow:
            self._record(net)
        if not self.seen_:
            return
        if self.keep_outputs and self.others_follow:
            self.digest_ = content_hash(snapshot(net))
        accuracy = self.correct_ / self.seen_
        net.history.record("valid_acc", accuracy)
        if self.keep_best and accuracy > self.best_accuracy_:
            self.best_accuracy_ = accuracy
            self.best_weights_ = snapshot(net)
            self.best_outputs_ = self.outputs_

    def _record(self, net):
        """Write into the history what skorch's callbacks would."""
        batches = net.history[-1]["batches"]
        for prefix in ("train", "valid"):
            rows = [row for row in batches if f"{prefix}_loss" in row]
            if rows:
                losses = [row[f"{prefix}_loss"] for row in rows]
                sizes = [row[f"{prefix}_batch_size"] for row in rows]
                loss = float(np.average(losses, weights=sizes))
                net.history.record(f"{prefix}_loss", loss)
        net.history.record("dur", time.perf_counter() - self.begun_)


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
