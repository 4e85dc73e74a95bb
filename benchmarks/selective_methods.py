"""Classifiers that may abstain, ours and those a user would pick instead.

Each of `FITS` trains the same net on the same rows, calibrates on the same rows, and
returns the predictions of one method or more. `selective.py` tells what they are.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.ensemble import VotingClassifier
from sklearn.frozen import FrozenEstimator
from torch import nn
from torch.nn import functional as F

from masktune_sk import MaskTuneClassifier, RejectOptionClassifier
from masktune_sk.modules import SmallConvNet, default_net
from masktune_sk.rejection import RULES, selection_scores
from masktune_sk.training import seeded


class StochasticHead(nn.Module):
    """The head of a `SmallConvNet` with dropout that stays on.

    To predict, it averages the probabilities of many passes, whose masks are the same
    in every call, and returns their logarithm: logits whose softmax is the average.
    """

    def __init__(self, head, n_passes=50):
        super().__init__()
        first, norm, relu, last = head
        self.layers = nn.Sequential(
            _StayingDropout(0.25), first, norm, relu, _StayingDropout(0.5), last
        )
        self.n_passes = n_passes

    def forward(self, X):
        if self.training:
            return self.layers(X)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            logits = torch.stack([self.layers(X) for _ in range(self.n_passes)])
        return logits.log_softmax(dim=-1).logsumexp(dim=0) - math.log(self.n_passes)


class _StayingDropout(nn.Dropout):
    def forward(self, X):
        return F.dropout(X, self.p, training=True)


class DropoutConvNet(SmallConvNet):
    """A `SmallConvNet` for MC dropout."""

    def __init__(self, *args, n_passes=50, **kwargs):
        super().__init__(*args, **kwargs)
        self.head = StochasticHead(self.head, n_passes)


@dataclass(frozen=True)
class Predictions:
    """What a method says of the test set, and its scores of the calibration rows."""

    y_pred: np.ndarray
    scores: np.ndarray
    calibration_scores: np.ndarray
    trained_epochs: int

    @classmethod
    def of(cls, clf, sets, trained_epochs):
        """Ask a calibrated classifier."""
        X = sets["test"].X
        scores = clf.selection_score(X)
        return cls(clf.predict(X), scores, clf.calibration_scores_, trained_epochs)


# ---------------------------------------------------------------- methods


@dataclass(frozen=True)
class Job:
    """One data set and seed, and how nets are trained."""

    sets: dict  # of LabelledSet: "train", "calibration", "test"
    epochs: int  # of ERM
    batch_size: int
    seed: int
    memory: Path  # a folder, where ERM is found again

    @property
    def refitted(self):
        """Epochs of ERM and of the refit."""
        return self.epochs + 1

    def net(self, **params):
        train = self.sets["train"]
        n_classes = int(train.y.max()) + 1
        defaults = {
            "classes": list(range(n_classes)),
            "batch_size": self.batch_size,
            "iterator_valid__batch_size": 256,
            "max_epochs": self.epochs,
        }
        return default_net(train.X.shape[1:], n_classes, **(defaults | params))

    def masktune(self, **params):
        """Train ERM, or find it, and refit; calibrate."""
        clf = MaskTuneClassifier(
            self.net(),
            validation_fraction=0,
            memory=self.memory,
            random_state=self.seed,
            **params,
        )
        clf.fit(self.sets["train"].X, self.sets["train"].y)
        calibration = self.sets["calibration"]
        return clf.calibrate(calibration.X, calibration.y)

    def erm_net(self):
        return self.masktune(masking="none", refit_epochs=0).net_

    def train(self, estimator):
        with seeded(self.seed):
            return estimator.fit(self.sets["train"].X, self.sets["train"].y)

    def softmax_response(self, fitted, trained_epochs):
        calibration = self.sets["calibration"]
        clf = RejectOptionClassifier(FrozenEstimator(fitted))
        clf.fit(calibration.X, calibration.y)
        return Predictions.of(clf, self.sets, trained_epochs)


def fit_erm(job):
    epochs = job.epochs
    return {"softmax response": job.softmax_response(job.erm_net(), epochs)}


def fit_continued(job):
    clf = job.masktune(masking="none")
    return {
        "softmax response, continued": job.softmax_response(clf.net_, job.refitted),
        "product without masks": Predictions.of(clf, job.sets, job.refitted),
    }


def fit_mc_dropout(job):
    net = job.train(job.net(module=DropoutConvNet, max_epochs=job.refitted))
    return {"MC dropout": job.softmax_response(net, job.refitted)}


def fit_short_nets(job):
    epochs = -(-job.refitted // 2)
    nets = [(name, job.net(max_epochs=epochs)) for name in ("one", "other")]
    pair = job.train(VotingClassifier(nets, voting="soft"))
    return {"2 nets, equal cost": job.softmax_response(pair, 2 * epochs)}


def fit_full_nets(job):
    # Another seed than the ERM net's, which MaskTune draws from it.
    nets = [("one", FrozenEstimator(job.erm_net())), ("other", job.net())]
    pair = job.train(VotingClassifier(nets, voting="soft"))
    name, epochs = "2 nets, double cost", 2 * job.epochs
    return {name: job.softmax_response(pair, epochs)}


def fit_masktune(job):
    clf = job.masktune()
    found = {"MaskTune, product": Predictions.of(clf, job.sets, job.refitted)}
    for rule in RULES:
        if rule != clf.rejection:
            found[f"MaskTune, {rule}"] = by_rule(clf, job.sets, rule, job.refitted)
    return found


def by_rule(clf, sets, rule, trained_epochs):
    """Score with another rule than the classifier's, by the same two nets."""

    def score(X):
        before, after = (net.predict_proba(X) for net in (clf.erm_net_, clf.net_))
        return clf.classes_[after.argmax(axis=1)], selection_scores(before, after, rule)

    y_pred, scores = score(sets["test"].X)
    return Predictions(y_pred, scores, score(sets["calibration"].X)[1], trained_epochs)


FITS = {
    "ERM": fit_erm,
    "ERM continued": fit_continued,
    "MC dropout": fit_mc_dropout,
    "short nets": fit_short_nets,
    "full nets": fit_full_nets,
    "MaskTune": fit_masktune,
}
