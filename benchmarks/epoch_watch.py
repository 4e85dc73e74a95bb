"""What each network of a training does after each epoch, on test data and without."""

from collections import defaultdict

import numpy as np
import torch
from skorch.callbacks import Callback

from masktune_sk.modules._pair import DepthPair, GuidedTarget

__all__ = ["EpochLog", "EpochWatch"]

AVERAGED = 0.8  # of the epochs pass before weights are averaged


class EpochLog(list):
    """Rows of a run. It is not copied with the callback that writes to it."""

    def __init__(self, test):
        super().__init__()
        self.images = torch.from_numpy(np.ascontiguousarray(test.X)).float()
        self.test = test
        self.biased = None  # what the biased branch says of the hold-out

    def __deepcopy__(self, memo):
        return self

    def test_scores(self, y_pred):
        """Score predictions for the test images."""
        right = y_pred == self.test.y
        cells = [
            right[self.test.groups == name].mean()
            for name in np.unique(self.test.groups)
        ]
        return {
            "mean of groups": 100 * np.mean(cells),
            "aligned": 100 * right[self.test.aligned].mean(),
            "conflicting": 100 * right[~self.test.aligned].mean(),
        }


class EpochWatch(Callback):
    """Score every branch after every epoch, and the mean of the last weights.

    Parameters
    ----------
    log : EpochLog
        Where the rows go.
    """

    def __init__(self, log):
        self.log = log

    def __sklearn_clone__(self):
        return EpochWatch(self.log)

    def on_train_begin(self, net, **kwargs):
        """Start anew."""
        self.sums, self.n_summed = defaultdict(float), 0

    def on_epoch_end(self, net, dataset_train=None, dataset_valid=None, **kwargs):
        """Score the branches."""
        module, epoch = net.module_, len(net.history)
        self._score(module, epoch, dataset_valid)
        if epoch <= AVERAGED * net.max_epochs:
            return
        weights = {name: value.clone() for name, value in module.state_dict().items()}
        for name, value in weights.items():
            self.sums[name] = self.sums[name] + value.double()
        self.n_summed += 1
        if epoch == net.max_epochs:
            means = {name: total / self.n_summed for name, total in self.sums.items()}
            module.load_state_dict(means)
            self._score(module, "average", dataset_valid)
            module.load_state_dict(weights)

    def _score(self, module, epoch, dataset_valid):
        source = dataset_valid.source
        labels = source.labels
        # Of stage 2 the source has frozen features beside the samples.
        source = getattr(source, "source", source) if is_packed(source) else source
        held = source.batch(np.arange(len(source)))
        with torch.no_grad():
            held = {name: run(held) for name, run in branches(module).items()}
            shown = {
                name: run(self.log.images) for name, run in branches(module).items()
            }
        held = {name: logits.argmax(dim=1).numpy() for name, logits in held.items()}
        if "deep" in held:
            self.log.biased = held["deep"]
        for name, logits in shown.items():
            row = {"branch": name, "epoch": epoch}
            row |= self.log.test_scores(logits.argmax(dim=1).numpy())
            right = held[name] == labels
            row["hold-out"] = 100 * right.mean()
            if self.log.biased is not None:
                hard = self.log.biased != labels
                of_class = [
                    right[hard & (labels == k)].mean() for k in np.unique(labels[hard])
                ]
                row["pseudo-conflicting"] = 100 * np.mean(of_class) if of_class else 0
            self.log.append(row)


def is_packed(source):
    """Tell whether a source holds more than the samples."""
    return type(source).__name__ == "PackedSource"


def branches(module):
    """Return, by name, what predicts in a module."""
    if isinstance(module, DepthPair):
        return {
            "shallow": lambda X: module.head(module.shallow(X)),
            "deep": lambda X: module.head(module.deep(X)),
        }
    if isinstance(module, GuidedTarget):
        return {"target": lambda X: module.head(module.encoder(X))}
    return {"ERM": module}
