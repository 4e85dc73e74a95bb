"""MaskTune, then RR-ClArC: a colour that no mask can hide, for `concepts.py`."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from card_data import Source, load_plain
from sklearn.frozen import FrozenEstimator

from masktune_sk import MaskTuneClassifier, RRClArCClassifier
from masktune_sk.datasets import make_colored
from masktune_sk.metrics import metric_by_group
from masktune_sk.modules import default_net

N_MARKED = 50
CONFLICT_RATIO = 0.02

# How a classifier is made and corrected. What is corrected comes first. The colour is
# wherever the digit is, so that the rows have one direction for all positions, as the
# paper; by itself RRClArCClassifier takes "none" for this net, which flattens.
ANYWHERE = {"pool": "max"}
CHAIN = {
    "ERM": None,
    "ERM, continued": None,
    "control": {"method": "none", **ANYWHERE},
    "RR-ClArC": ANYWHERE,
    "MaskTune": None,
    "MaskTune, control": {"method": "none", **ANYWHERE},
    "MaskTune, RR-ClArC": ANYWHERE,
}
FURTHER_CHAIN = {
    "RR-ClArC, full feature": {"pool": "none"},
    "MaskTune, RR-ClArC, full feature": {"pool": "none"},
    "MaskTune, control, early layer": {"method": "none", "target_layer": "features.7"},
    "MaskTune, RR-ClArC, early layer": {"target_layer": "features.7"},
}


@dataclass(frozen=True)
class Colour:
    """MNIST's digits, 0-4 in one colour and 5-9 in another but for a few."""

    source: Source
    memory: Path
    epochs: int
    n_train: int
    n_test: int
    refit_epochs: int = 10
    name: str = "colour"
    methods: tuple = (*CHAIN, *FURTHER_CHAIN)

    @cached_property
    def _digits(self):
        train, tests = load_plain(
            self.source,
            ["test"],
            images="mnist",
            n_train=self.n_train,
            n_test=self.n_test,
        )
        return [(part.X, (part.y >= 5).astype(int)) for part in (train, tests["test"])]

    @cached_property
    def train(self):
        """The training set."""
        return self._coloured(
            *self._digits[0],
            conflict_ratio=CONFLICT_RATIO,
            assignment="random",
        )

    @cached_property
    def tests(self):
        """The same digits in the colours of their class, and in the other's."""
        return {
            name: self._coloured(*self._digits[1], shortcut=name)
            for name in ("aligned", "conflicting")
        }

    def _coloured(self, X, y, **arguments):
        arrays = make_colored(X, y, random_state=self.source.seed, **arguments)
        arrays.data = arrays.data.astype(np.float32)
        return arrays

    @cached_property
    def masktune(self):
        """MaskTune, fitted."""
        return self._masktune()

    @cached_property
    def continued(self):
        """The same without masks, and in it the same ERM net."""
        return self._masktune(masking="none")

    def _masktune(self, **params):
        X, y = self.train.data, self.train.target
        net = default_net(X.shape[1:], n_classes=2, max_epochs=self.epochs)
        clf = MaskTuneClassifier(
            net, memory=self.memory, random_state=self.source.seed, **params
        )
        return clf.fit(X, y)

    def fit(self, method):
        """Fit a method; return its measures."""
        X, y = self.train.data, self.train.target
        masktune = self.masktune if method.startswith("MaskTune") else self.continued
        params = (CHAIN | FURTHER_CHAIN)[method]
        if params is None:
            return self._accuracies(masktune.erm_net_ if method == "ERM" else masktune)
        start = masktune if method.startswith("MaskTune") else masktune.erm_net_
        corrected = RRClArCClassifier(
            FrozenEstimator(start),
            refit_epochs=self.refit_epochs,
            # The net has seen all rows.
            validation_fraction=0,
            random_state=self.source.seed,
            **params,
        )
        marks = mark(y, self.train.bias, N_MARKED, self.source.seed)
        corrected.fit(X, y, concept=marks)
        return self._accuracies(corrected) | {
            "layer": corrected.layer_.name,
            "sensitivity before": float(corrected.sensitivity_before_.mean()),
            "sensitivity after": float(corrected.sensitivity_after_.mean()),
            "tcav": float(corrected.tcav_after_[1]),
            "auc": float(corrected.concept_.auc[0]),
            "lr": corrected.refit_lr_,
        }

    def _accuracies(self, predictor):
        found, groups = {}, []
        for name, test in self.tests.items():
            right = predictor.predict(test.data) == test.target
            found[f"accuracy {name}"] = float(right.mean())
            of_class = metric_by_group(np.mean, right, groups=test.target)
            groups += of_class.values()
        return found | {"worst group": float(min(groups))}


def mark(y, bias, n, seed):
    """Return what a user knows who has marked `n` samples of each kind.

    Half of them in each class, so that both kinds are compared within it; -1 for all
    others.
    """
    random = np.random.RandomState(seed)
    concept = np.full(len(y), -1)
    for kind in (0, 1):
        for label in (0, 1):
            rows = np.flatnonzero((bias == kind) & (y == label))
            chosen = random.permutation(rows)[: n // 2]
            concept[chosen] = kind
    return concept
