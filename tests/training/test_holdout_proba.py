"""Tests that what validation found out about the hold-out is used, and rightly."""

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, Checkpoint, EarlyStopping, LRScheduler
from skorch.dataset import Dataset
from torch import nn

from masktune_sk import MaskTuneClassifier
from masktune_sk.data import ArraySource, TorchView
from masktune_sk.rejection import selection_scores
from masktune_sk.training import (
    TrainedState,
    build_net,
    predict_proba,
    refit,
    train_erm,
)
from tests.nets import TinyConvNet, TinyMLP, tiny_images, tiny_net, tiny_vectors


def vectors(n=40, seed=0):
    X, y = tiny_vectors(n, random_state=seed)
    return ArraySource(X, y.astype(np.int64))


def images(n=40, seed=0):
    X, y = tiny_images(n, random_state=seed)
    return ArraySource(X, y.astype(np.int64))


def mlp(module=TinyMLP, callbacks=(), **params):
    callbacks = [(f"own_{i}", callback) for i, callback in enumerate(callbacks)]
    return tiny_net(module, callbacks=callbacks, **params)


def predicted(net, state, valid, **params):
    """What a net with the weights of a state predicts for the hold-out."""
    best = params.pop("best", False)
    built = build_net(net, state, best=best, **params)
    return predict_proba(built, TorchView(valid), *params.values())


class Softmaxed(TinyMLP):
    def forward(self, X):
        return super().forward(X).softmax(dim=1)


class WithDropout(TinyMLP):
    def forward(self, X):
        return super().forward(nn.functional.dropout(X, 0.5, self.training))


class OwnNet(NeuralNetClassifier):
    """A net that may predict otherwise than it validates."""


def half_softmax(logits):
    return torch.softmax(logits / 2, dim=-1)


NETS = {
    "logits": (mlp(), vectors),
    "probabilities": (mlp(Softmaxed, criterion=nn.NLLLoss), vectors),
    "dropout": (mlp(WithDropout), vectors),
    "convolutions": (tiny_net(), images),
    "own nonlinearity": (mlp(predict_nonlinearity=half_softmax), vectors),
    "no nonlinearity": (mlp(Softmaxed, predict_nonlinearity=None), vectors),
    "all at once": (mlp(batch_size=-1), vectors),
    "other batches": (mlp(iterator_valid__batch_size=7), vectors),
    "last batch of one": (mlp(iterator_valid__batch_size=4), vectors),
    "the user's loader": (mlp(iterator_valid__num_workers=0), vectors),
    "no callbacks": (mlp().set_params(callbacks="disable"), vectors),
}


# ---------------------------------------------------------------- the same numbers


@pytest.mark.parametrize("name", NETS)
def test_erm_knows_what_its_net_predicts_for_the_hold_out(name):
    net, make = NETS[name]
    valid = make(17, seed=1)
    state = train_erm(net, make(), valid=valid, seed=0, keep_best=True)
    assert state.holdout_proba.shape == (17, 2)
    assert state.holdout_proba.dtype == np.float32
    np.testing.assert_array_equal(state.holdout_proba, predicted(net, state, valid))
    np.testing.assert_array_equal(
        state.best_holdout_proba, predicted(net, state, valid, best=True)
    )


@pytest.mark.parametrize("name", NETS)
def test_a_refit_knows_what_its_net_predicts_for_the_hold_out(name):
    net, make = NETS[name]
    valid = make(17, seed=1)
    erm = train_erm(net, make(), valid=valid, seed=0)
    state = refit(net, erm, make(30, seed=2), epochs=2, valid=valid, seed=1)
    np.testing.assert_array_equal(state.holdout_proba, predicted(net, state, valid))
    assert (state.holdout_proba != erm.holdout_proba).any()
    assert state.best_holdout_proba is None


def test_what_is_known_is_of_the_precision_of_the_training():
    net, valid = tiny_net(), images(17, seed=1)
    state = train_erm(net, images(), valid=valid, seed=0, precision="bf16")
    expected = predicted(net, state, valid, precision="bf16")
    np.testing.assert_array_equal(state.holdout_proba, expected)
    assert (expected != predicted(net, state, valid)).any()


def test_probabilities_are_those_after_the_nonlinearity():
    for name in ("logits", "probabilities", "no nonlinearity"):
        net, make = NETS[name]
        state = train_erm(net, make(), valid=make(17, seed=1), seed=0)
        np.testing.assert_allclose(state.holdout_proba.sum(axis=1), 1, atol=1e-6)
        assert (state.holdout_proba > 0).all()


class PlaysWeights(Callback):
    """Set the weights of each epoch, before it begins."""

    def __init__(self, values):
        self.values = values

    def on_epoch_begin(self, net, **kwargs):
        value = self.values[len(net.history) - 1]
        with torch.no_grad():
            net.module_.layers[0].weight.fill_(value)


class FirstFeature(nn.Module):
    """Two logits by the first feature, with a weight."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(1, 1, bias=False))

    def forward(self, X):
        z = self.layers(X[:, :1])
        return torch.cat([-z, z], dim=1)


@pytest.mark.parametrize(
    ("values", "best"), [([1, -1, -2], 1), ([-1, 2, -2], 2), ([-1, -2, 3], 3)]
)
def test_the_best_epoch_has_probabilities_of_its_own(values, best):
    net = mlp(FirstFeature, [PlaysWeights(values)], lr=0)
    valid = vectors(17, seed=1)
    valid = ArraySource(valid.X - 1, valid.labels)
    state = train_erm(net, vectors(), valid=valid, seed=0, keep_best=True)
    assert state.best_weights["module_"]["layers.0.weight"] == best
    for proba, value in (
        (state.holdout_proba, values[-1]),
        (state.best_holdout_proba, best),
    ):
        z = 2.0 * value * valid.X[:, 0]
        np.testing.assert_allclose(proba[:, 1], 1 / (1 + np.exp(-z)), rtol=1e-4)


def test_the_best_epoch_is_not_known_unasked():
    state = train_erm(mlp(), vectors(), valid=vectors(17, seed=1), seed=0)
    assert state.best_holdout_proba is None


def test_no_epoch_of_refit_knows_what_erm_knew():
    net, valid = mlp(), vectors(17, seed=1)
    erm = train_erm(net, vectors(), valid=valid, seed=0)
    state = refit(net, erm, vectors(), epochs=0, valid=valid, seed=1)
    np.testing.assert_array_equal(state.holdout_proba, erm.holdout_proba)
    np.testing.assert_array_equal(state.holdout_proba, predicted(net, state, valid))


# ---------------------------------------------------------------- not known


def test_without_a_hold_out_nothing_is_known():
    net = mlp()
    erm = train_erm(net, vectors(), seed=0, keep_best=True)
    assert erm.holdout_proba is None
    assert erm.best_holdout_proba is None
    assert refit(net, erm, vectors(), epochs=1, seed=1).holdout_proba is None


def test_of_a_net_of_another_class_nothing_is_known():
    net = OwnNet(**mlp().get_params(deep=False))
    net.set_params(module=TinyMLP)
    valid = vectors(17, seed=1)
    erm = train_erm(net, vectors(), valid=valid, seed=0, keep_best=True)
    assert erm.holdout_proba is None
    assert erm.best_holdout_proba is None
    state = refit(net, erm, vectors(), epochs=1, valid=valid, seed=1)
    assert state.holdout_proba is None


def test_of_a_validation_set_of_the_users_own_nothing_is_known():
    net, source = mlp(), vectors(17, seed=1)
    valid = Dataset(source.X, source.labels)
    erm = train_erm(net, vectors(), valid=valid, seed=0, keep_best=True)
    assert "valid_acc" in erm.history[-1]
    assert erm.holdout_proba is None
    assert erm.best_holdout_proba is None
    state = refit(net, erm, vectors(), epochs=1, valid=valid, seed=1)
    assert state.holdout_proba is None


def test_of_a_net_that_came_fitted_nothing_is_known_before_a_refit():
    source, valid = vectors(), vectors(17, seed=1)
    net = mlp().fit(source.X, source.labels)
    erm = TrainedState.of(net)
    state = refit(mlp(), erm, source, epochs=0, valid=valid, seed=1)
    assert erm.holdout_proba is state.holdout_proba is None
    state = refit(mlp(), erm, source, epochs=1, valid=valid, seed=1)
    np.testing.assert_array_equal(state.holdout_proba, predicted(mlp(), state, valid))


# ---------------------------------------------------------------- callbacks


class Averages(Callback):
    """Replace the weights by their mean with those of the last time."""

    def __init__(self, when, epochs=(1, 2, 3)):
        self.when = when
        self.epochs = epochs

    def on_train_begin(self, net, **kwargs):
        self.kept_ = None

    def on_epoch_end(self, net, **kwargs):
        if self.when == "epoch end" and len(net.history) in self.epochs:
            self.average(net)

    def on_train_end(self, net, **kwargs):
        if self.when == "train end":
            self.average(net)

    def on_batch_end(self, net, training, **kwargs):
        if self.when == "batch end" and training:
            self.average(net)

    def average(self, net):
        new = [p.detach().clone() for p in net.module_.parameters()]
        for i, p in enumerate(net.module_.parameters()):
            old = torch.zeros_like(p) if self.kept_ is None else self.kept_[i]
            p.data.copy_((old + p.data) / 2)
        self.kept_ = new


class ShiftsStatistics(Callback):
    """Change no parameter, but what batch normalisation keeps."""

    def on_train_end(self, net, **kwargs):
        net.module_.features[1].running_mean += 1


class LoadsBestFromMemory(Callback):
    """Put back the weights after the first epoch."""

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 1:
            state = net.module_.state_dict()
            self.kept_ = {name: value.clone() for name, value in state.items()}

    def on_train_end(self, net, **kwargs):
        net.module_.load_state_dict(self.kept_)


CHANGING = {
    "average each epoch": Averages("epoch end"),
    "average in the last epoch": Averages("epoch end", (3,)),
    "average at the end": Averages("train end"),
    "statistics at the end": ShiftsStatistics(),
    "earlier weights at the end": LoadsBestFromMemory(),
}


class Idle(Callback):
    pass


class StopsAfterTwo(Callback):
    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            raise KeyboardInterrupt


KEEPING = {
    "idle": Idle(),
    "schedule": LRScheduler("StepLR", step_size=1),
    "early stopping": EarlyStopping(patience=1, threshold=10, sink=str),
    "interrupt": StopsAfterTwo(),
    "average before the last epoch": Averages("epoch end", (1, 2)),
    "average each batch": Averages("batch end"),
}


@pytest.mark.parametrize("name", CHANGING)
def test_nothing_is_known_where_a_callback_changed_the_weights_since(name):
    net = mlp(TinyConvNet, [CHANGING[name]])
    valid = images(17, seed=1)
    state = train_erm(net, images(), valid=valid, seed=0, keep_best=True)
    assert state.holdout_proba is None
    # Those of the best epoch were noted before the callback's turn.
    np.testing.assert_array_equal(
        state.best_holdout_proba, predicted(net, state, valid, best=True)
    )


@pytest.mark.parametrize("name", KEEPING)
def test_callbacks_that_leave_the_weights_do_not_matter(name):
    net = mlp(TinyConvNet, [KEEPING[name]])
    valid = images(17, seed=1)
    state = train_erm(net, images(), valid=valid, seed=0, keep_best=True)
    assert len(state.history) == (2 if name in ("early stopping", "interrupt") else 3)
    np.testing.assert_array_equal(state.holdout_proba, predicted(net, state, valid))
    np.testing.assert_array_equal(
        state.best_holdout_proba, predicted(net, state, valid, best=True)
    )


@pytest.mark.parametrize("load_best", [False, True])
def test_early_stopping_may_go_back_to_its_best_epoch(load_best):
    stopping = EarlyStopping(
        "valid_loss", patience=2, load_best=load_best, lower_is_better=False, sink=str
    )
    net, valid = mlp(callbacks=[stopping], max_epochs=5), vectors(17, seed=1)
    state = train_erm(net, vectors(), valid=valid, seed=0)
    assert len(state.history) < 5
    # Losses fall, so that the largest is that of an early epoch.
    if load_best:
        assert state.holdout_proba is None
    else:
        np.testing.assert_array_equal(state.holdout_proba, predicted(net, state, valid))


def test_a_refit_does_not_call_the_callbacks_that_erm_calls():
    net, valid = mlp(callbacks=[Averages("train end")]), vectors(17, seed=1)
    erm = train_erm(net, vectors(), valid=valid, seed=0)
    assert erm.holdout_proba is None
    state = refit(net, erm, vectors(), epochs=1, valid=valid, seed=1)
    np.testing.assert_array_equal(state.holdout_proba, predicted(net, state, valid))


class StopsAtABatch(Callback):
    """Interrupt after some training or validation batches of an epoch."""

    def __init__(self, epoch, n_batches, training):
        self.epoch = epoch
        self.n_batches = n_batches
        self.training = training

    def on_epoch_begin(self, net, **kwargs):
        self.seen_ = 0

    def on_batch_end(self, net, training, **kwargs):
        self.seen_ += training == self.training
        if len(net.history) == self.epoch and self.seen_ == self.n_batches:
            raise KeyboardInterrupt


# 40 rows to train on are three batches, 17 of the hold-out are two.
@pytest.mark.parametrize(
    ("epoch", "n_batches", "training"),
    [
        (1, 1, True),
        (1, 3, True),
        (2, 1, True),
        (3, 2, True),
        (1, 1, False),
        (2, 1, False),
        (2, 2, False),
        (1, 2, False),
    ],
)
def test_nothing_wrong_is_known_of_an_epoch_that_was_interrupted(
    epoch, n_batches, training
):
    stops = StopsAtABatch(epoch, n_batches, training)
    net = mlp(callbacks=[stops], iterator_valid__batch_size=10)
    valid = vectors(17, seed=1)
    state = train_erm(net, vectors(), valid=valid, seed=0, keep_best=True)
    assert len(state.history) == epoch
    if training or n_batches < 2:
        assert state.holdout_proba is None
    elif state.holdout_proba is not None:
        np.testing.assert_array_equal(state.holdout_proba, predicted(net, state, valid))
    assert (state.best_holdout_proba is None) == (epoch == 1)
    if epoch > 1:
        np.testing.assert_array_equal(
            state.best_holdout_proba, predicted(net, state, valid, best=True)
        )


# ---------------------------------------------------------------- estimators


def masktune(net, **params):
    defaults = {"saliency": "input_gradient", "masking": "none", "random_state": 0}
    return MaskTuneClassifier(net, **(defaults | params))


def held_out(clf, X):
    return np.setdiff1d(np.arange(len(X)), clf.train_indices_)


def assert_calibrated(clf, X, y):
    """Compare with predictions that are made anew."""
    rows = held_out(clf, X)
    after = clf.predict_proba(X[rows])
    before = clf._proba_before(TorchView(ArraySource(X[rows])))
    scores = selection_scores(before, after, clf.rejection)
    np.testing.assert_allclose(
        np.sort(clf.calibration_scores_), np.sort(scores), rtol=1e-5
    )
    assert clf.holdout_accuracy_ == {
        name: pytest.approx((proba.argmax(axis=1) == y[rows]).mean())
        for name, proba in (("before", before), ("after", after))
    }


@pytest.mark.parametrize("mask_from", ["last", "best"])
@pytest.mark.parametrize("refit_epochs", [0, 2])
@pytest.mark.parametrize("name", [None, *CHANGING, *KEEPING])
def test_an_estimator_is_calibrated_on_what_its_nets_predict(
    name, refit_epochs, mask_from
):
    X, y = tiny_images(50)
    callbacks = [] if name is None else [(CHANGING | KEEPING)[name]]
    net = mlp(TinyConvNet, callbacks, max_epochs=3)
    clf = masktune(net, refit_epochs=refit_epochs, mask_from=mask_from).fit(X, y)
    assert_calibrated(clf, X, y)


@pytest.mark.parametrize("refit_epochs", [0, 1])
def test_a_checkpoint_that_loads_the_best_epoch_is_predicted_anew(
    tmp_path, refit_epochs
):
    X, y = tiny_images(50)
    # As if the first epoch had been the best.
    checkpoint = Checkpoint(
        monitor=lambda net: len(net.history) == 1,
        load_best=True,
        dirname=str(tmp_path),
    )
    net = mlp(TinyConvNet, [checkpoint])
    clf = masktune(net, refit_epochs=refit_epochs).fit(X, y)
    assert_calibrated(clf, X, y)
    plain = masktune(mlp(TinyConvNet), refit_epochs=refit_epochs).fit(X, y)
    assert (clf.calibration_scores_ != plain.calibration_scores_).any()


def test_a_net_of_another_class_is_predicted_anew():
    X, y = tiny_vectors()
    net = OwnNet(**mlp().get_params(deep=False)).set_params(module=TinyMLP)
    clf = masktune(net).fit(X, y)
    assert_calibrated(clf, X, y)
    plain = masktune(mlp()).fit(X, y)
    np.testing.assert_allclose(
        clf.calibration_scores_, plain.calibration_scores_, rtol=1e-6
    )


class Counting(TinyMLP):
    """Count how often each sample, by its last feature, is seen in eval mode."""

    seen = None

    def forward(self, X):
        if not self.training:
            np.add.at(self.seen, X[:, -1].long().numpy(), 1)
        return super().forward(X)


def passes_over_the_holdout(callbacks=(), n=80, **params):
    X, y = tiny_vectors(n, 4)
    X[:, -1] = np.arange(n)
    Counting.seen = np.zeros(n, dtype=int)
    net = mlp(Counting, callbacks, module__n_features=4, lr=1e-4, max_epochs=3)
    clf = masktune(net, **params).fit(X, y)
    (passes,) = set(Counting.seen[held_out(clf, X)])
    return passes


@pytest.mark.parametrize(
    ("params", "passes"),
    [
        ({}, 3 + 1),
        ({"refit_epochs": 2}, 3 + 2),
        ({"refit_epochs": 0}, 3),
        ({"mask_from": "best"}, 3 + 1),
        ({"mask_from": "best", "refit_epochs": 0}, 3),
        ({"masking": "saliency", "n_mask_rounds": 2}, 3 + 2),
        ({"callbacks": [Idle()]}, 3 + 1),
        # The net before is another than the one that was validated.
        ({"callbacks": [Averages("train end")]}, 3 + 1 + 1),
    ],
    ids=str,
)
def test_a_fit_passes_over_the_hold_out_only_to_validate(params, passes):
    assert passes_over_the_holdout(**params) == passes


def test_stages_that_are_found_know_the_hold_out_too(tmp_path):
    assert passes_over_the_holdout(memory=tmp_path) == 4
    # Of the refit alone.
    assert passes_over_the_holdout(memory=tmp_path) == 1
