"""What `test_processes` starts: fits that several processes make together.

    torchrun --nproc_per_node 2 tests/shared_fit.py FOLDER

Each process writes what it saw to ``FOLDER/RANK.pkl``.
"""

import pickle
import sys
import warnings
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from skorch.hf import AccelerateMixin

from masktune_sk import MaskTuneClassifier
from masktune_sk.exceptions import AccuracyFallWarning, NonFiniteError
from masktune_sk.modules import SmallConvNet


class AcceleratedNet(AccelerateMixin, NeuralNetClassifier):
    pass


class PlainConvNet(torch.nn.Module):
    """Without batch normalisation, whose statistics would be those of a share."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(1, 6, 3),
            torch.nn.ReLU(),
            torch.nn.Flatten(),
            torch.nn.Linear(6 * 36, 2),
        )

    def forward(self, X):
        return self.layers(X)


class Explode(Callback):
    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        if training:
            with torch.no_grad():
                next(net.module_.parameters()).mul_(torch.inf)


def make_data(n=150):
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    X = rng.random((n, 1, 8, 8), dtype=np.float32)
    X[y == 1, :, :3, :3] += 1
    return X, y


def make_net(cls, module=PlainConvNet, **params):
    if cls is AcceleratedNet:
        params["accelerator"] = Accelerator(cpu=True)
    defaults = {
        "criterion": torch.nn.CrossEntropyLoss,
        "optimizer": torch.optim.SGD,
        "optimizer__momentum": 0.9,
        "lr": 0.05,
        "max_epochs": 3,
        # 120 training rows: the last batch is of 9, shared out as 5 and 4.
        "batch_size": 37,
        "iterator_train__shuffle": True,
        "train_split": None,
    }
    return cls(module, **(defaults | params))


def weights(net):
    return {name: t.numpy() for name, t in net.module_.state_dict().items()}


def facts(clf, X):
    return {
        "history": clf.history_,
        "maps": clf.maps_,
        "masked_fraction": clf.masked_fraction_,
        "weights": weights(clf.net_),
        "proba": clf.predict_proba(X),
        "scores": clf.calibration_scores_,
    }


def error_of(function, *args):
    try:
        function(*args)
    except Exception as error:
        return type(error).__name__, str(error)
    return None


def main(folder):
    torch.set_num_threads(1)
    warnings.simplefilter("error")
    # Toy data, whose refits are a handful of steps.
    warnings.simplefilter("ignore", AccuracyFallWarning)
    X, y = make_data()
    seen = {}

    def fit(net, **params):
        defaults = {"mask_threshold": 1, "store_maps": True, "random_state": 0}
        params = defaults | params
        return MaskTuneClassifier(net, **params).fit(X, y)

    clf = fit(make_net(AcceleratedNet))
    seen["plain"] = facts(clf, X)
    seen["pickle"] = pickle.dumps(clf)
    net = make_net(AcceleratedNet)
    rank = net.accelerator.process_index

    # From given weights: what is left to compare are the maps.
    clf = fit(FrozenEstimator(clf.net_), validation_fraction=0, refit_epochs=0)
    seen["frozen"] = facts(clf, X) | {"erm": weights(clf.erm_net_)}

    seen["stored"] = [
        facts(fit(net, memory=folder / "memory", mask_threshold=t), X) for t in (1, 0)
    ]
    seen["files"] = sorted(p.name for p in (folder / "memory").rglob("*.pkl"))

    callbacks = [
        EarlyStopping(patience=1, load_best=True),
        LRScheduler("ReduceLROnPlateau", monitor="valid_loss", patience=0),
    ]
    clf = fit(make_net(AcceleratedNet, callbacks=callbacks, max_epochs=6))
    seen["callbacks"] = facts(clf, X)

    net = make_net(AcceleratedNet, SmallConvNet, module__n_channels=1)
    net.set_params(module__n_classes=2, module__image_size=(8, 8))
    seen["batch norm"] = facts(fit(net), X)

    seen["random"] = facts(fit(make_net(AcceleratedNet), random_state=None), X)

    other = X + rank
    clf = MaskTuneClassifier(make_net(AcceleratedNet), random_state=0)
    seen["other data"] = error_of(clf.fit, other, y)
    exploding = make_net(AcceleratedNet, callbacks=[Explode()])
    seen["exploded"] = error_of(fit, exploding)
    assert seen["exploded"][0] == NonFiniteError.__name__
    with open(folder / f"{rank}.pkl", "wb") as file:
        pickle.dump(seen, file)


if __name__ == "__main__":
    # By the name that other processes import it by: classes are stored with it.
    from tests import shared_fit

    shared_fit.main(Path(sys.argv[1]))
