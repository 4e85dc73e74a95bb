"""Tests of the first and the second training."""

import copy
import pickle
import random

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import (
    Callback,
    Checkpoint,
    EarlyStopping,
    Freezer,
    LRScheduler,
    Unfreezer,
)
from torch import nn
from torch.utils.data import TensorDataset

from masktune_sk.data import ArraySource
from masktune_sk.exceptions import NonFiniteError
from masktune_sk.training import (
    TrainedState,
    build_net,
    check_output,
    refit,
    resolve_net,
    train_erm,
)


def rows(n=21, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)).astype(np.float32)
    return ArraySource(X, (X[:, 0] + 0.5 * rng.normal(size=n) > 0).astype(np.int64))


class Small(nn.Module):
    """Two layers, named, with a width."""

    def __init__(self, n_features=3, width=5, n_frozen=0):
        super().__init__()
        self.body = nn.Linear(n_features, width)
        self.head = nn.Linear(width, 2)
        for parameter in list(self.parameters())[:n_frozen]:
            parameter.requires_grad_(False)

    def forward(self, X):
        return self.head(torch.tanh(self.body(X)))


class Around(nn.Module):
    """A head on a backbone that is given as a module."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(4, 2)

    def forward(self, X):
        return self.head(self.backbone(X))


class Lazy(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.LazyLinear(2)

    def forward(self, X):
        return self.linear(X)


def make_net(module=Small, **params):
    defaults = {
        "module": module,
        "criterion": nn.CrossEntropyLoss,
        "lr": 0.1,
        "optimizer__momentum": 0.9,
        "batch_size": 4,
        "max_epochs": 3,
        "verbose": 0,
    }
    return NeuralNetClassifier(**(defaults | params))


def weights(state):
    return state.weights["module_"]


def assert_same(first, second, **tolerance):
    assert set(first) == set(second)
    for name in first:
        torch.testing.assert_close(
            first[name], second[name], **(tolerance or {"rtol": 0, "atol": 0})
        )


def moved(first, second):
    """Return the names of the weights that differ."""
    return {name for name in first if not torch.equal(first[name], second[name])}


def plain_training(model, source, optimizer, epochs, *, shuffle=False, size=4):
    """Train as a torch user would write it; a last batch of one joins the others."""
    X, y = torch.from_numpy(source.X), torch.from_numpy(source.labels)
    n = len(y)
    losses = []
    for _ in range(epochs):
        order = torch.randperm(n) if shuffle else torch.arange(n)
        starts = list(range(0, n, size))
        if n % size == 1:
            starts.pop()
        total = 0.0
        for i, start in enumerate(starts):
            stop = starts[i + 1] if i + 1 < len(starts) else n
            batch = order[start:stop]
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(X[batch]), y[batch])
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
        losses.append(total / n)
    return losses


def loaded(state):
    model = Small()
    model.load_state_dict(weights(state))
    return model


# ---------------------------------------------------------------- ERM


@pytest.mark.parametrize("n", [20, 21, 23])
@pytest.mark.parametrize("shuffle", [False, True])
def test_erm_equals_a_plain_torch_loop(shuffle, n):
    source = rows(n)
    net = make_net(iterator_train__shuffle=shuffle, optimizer__weight_decay=0.01)
    state = train_erm(net, source, seed=7)
    torch.manual_seed(7)
    model = Small()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01
    )
    losses = plain_training(model, source, optimizer, 3, shuffle=shuffle)
    assert_same(weights(state), dict(model.state_dict()), rtol=0, atol=1e-6)
    assert [row["train_loss"] for row in state.history] == pytest.approx(losses, 1e-5)
    saved = state.optimizer["optimizer_"]["state"]
    for index, parameter in enumerate(model.parameters()):
        torch.testing.assert_close(
            saved[index]["momentum_buffer"],
            optimizer.state[parameter]["momentum_buffer"],
            rtol=0,
            atol=1e-6,
        )


def test_erm_is_the_same_for_the_same_seed_and_leaves_the_callers_streams():
    net, source = make_net(iterator_train__shuffle=True), rows()

    def streams():
        return (
            random.getstate(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
            torch.get_rng_state().tolist(),
        )

    before = streams()
    first = train_erm(net, source, valid=rows(9, 1), seed=3)
    assert streams() == before
    torch.rand(5)
    again = train_erm(net, source, valid=rows(9, 1), seed=3)
    other = train_erm(net, source, valid=rows(9, 1), seed=4)
    assert_same(weights(first), weights(again))
    assert moved(weights(first), weights(other)) == set(weights(first))
    assert not net.initialized_


@pytest.mark.parametrize("own", [False, True])
def test_a_validation_set_is_scored_and_does_not_change_the_training(own):
    source, valid = rows(), rows(9, 1)
    dataset = TensorDataset(torch.from_numpy(valid.X), torch.from_numpy(valid.labels))
    # A loader of torch's draws a number an epoch to seed its workers, so that the rows
    # would be shuffled in another order.
    net = make_net(iterator_train__shuffle=not own)
    alone = train_erm(net, source, seed=0)
    scored = train_erm(net, source, valid=dataset if own else valid, seed=0)
    assert_same(weights(alone), weights(scored))
    assert "valid_acc" not in alone.history[0]
    predicted = build_net(net, scored).predict(valid.X)
    accuracy = (predicted == valid.labels).mean()
    assert scored.history[-1]["valid_acc"] == pytest.approx(accuracy)


def test_the_best_epoch_is_kept_beside_the_last():
    net, source, valid = make_net(lr=0.8, max_epochs=12), rows(), rows(15, 1)
    state = train_erm(net, source, valid=valid, seed=0, keep_best=True)
    accuracies = [row["valid_acc"] for row in state.history]
    best = int(np.argmax(accuracies))
    assert max(accuracies) > accuracies[-1]
    shorter = train_erm(
        make_net(lr=0.8, max_epochs=best + 1), source, valid=valid, seed=0
    )
    assert_same(state.best_weights["module_"], weights(shorter))
    assert moved(state.best_weights["module_"], weights(state))
    predicted = build_net(net, state, best=True).predict(valid.X)
    assert (predicted == valid.labels).mean() == pytest.approx(max(accuracies))


def test_a_check_before_training_sees_the_initial_net_and_can_refuse():
    seen = []

    def look(net):
        seen.append(net.module_.body.weight.detach().clone())

    def refuse(net):
        raise ValueError("too late")

    train_erm(make_net(), rows(), seed=7, before=look)
    torch.manual_seed(7)
    assert torch.equal(seen[0], Small().body.weight)
    with pytest.raises(ValueError, match="too late"):
        train_erm(make_net(), rows(), seed=7, before=refuse)


def test_a_module_instance_is_where_training_starts_and_is_not_written_to():
    instance = Small()
    before = copy.deepcopy(instance.state_dict())
    net = make_net(instance)
    template, _ = resolve_net(net, (3,), 2)
    state = train_erm(template, rows(), seed=0)
    after = refit(template, state, rows(), epochs=2, seed=1)
    assert_same(dict(instance.state_dict()), dict(before))
    assert_same(dict(template.module.state_dict()), dict(before))
    assert all(p.grad is None for p in instance.parameters())
    assert moved(weights(state), weights(after))
    model = copy.deepcopy(instance)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    plain_training(model, rows(), optimizer, 3)
    assert_same(weights(state), dict(model.state_dict()), rtol=0, atol=1e-6)


def test_nets_of_one_state_share_no_backbone_that_was_given_as_a_module():
    net = make_net(Around, module__backbone=nn.Linear(3, 4))
    state = train_erm(net, rows(), seed=0)
    before = build_net(net, state)
    assert build_net(net, state).module_.backbone is not before.module_.backbone
    kept = copy.deepcopy(dict(before.module_.state_dict()))
    after = refit(net, state, rows(), epochs=2, seed=1)
    assert_same(dict(before.module_.state_dict()), kept)
    assert "backbone.weight" in moved(weights(state), weights(after))


def test_a_state_can_be_pickled():
    state = train_erm(make_net(), rows(), valid=rows(9, 1), seed=0, keep_best=True)
    again = pickle.loads(pickle.dumps(state))
    assert_same(weights(again), weights(state))
    assert again.history == state.history
    first = refit(make_net(), state, rows(), epochs=1, seed=0)
    second = refit(make_net(), again, rows(), epochs=1, seed=0)
    assert_same(weights(first), weights(second))


def test_a_loss_that_is_not_finite_names_the_stage():
    with pytest.raises(NonFiniteError, match="in epoch 1 of the ERM stage"):
        train_erm(make_net(criterion=nn.NLLLoss), rows(), seed=0)
    state = train_erm(make_net(), rows(), seed=0)
    weights(state)["head.bias"].fill_(float("nan"))
    with pytest.raises(NonFiniteError, match="in epoch 1 of the refit 3 stage"):
        refit(make_net(), state, rows(), epochs=1, stage="refit 3", seed=0)


# ---------------------------------------------------------------- refit: optimizer


def test_continuing_equals_one_longer_training():
    net, source = make_net(max_epochs=2), rows()
    state = train_erm(net, source, seed=7)
    after = refit(net, state, source, epochs=3, seed=99)
    longer = train_erm(make_net(max_epochs=5), source, seed=7)
    assert_same(weights(after), weights(longer))


def test_a_fresh_optimizer_forgets_the_momentum():
    net, source, other = make_net(), rows(), rows(20, 5)
    state = train_erm(net, source, seed=7)
    fresh = refit(net, state, other, epochs=2, optimizer="fresh", seed=0)
    model = loaded(state)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    plain_training(model, other, optimizer, 2)
    assert_same(weights(fresh), dict(model.state_dict()), rtol=0, atol=1e-6)
    carried = refit(net, state, other, epochs=2, seed=0)
    assert moved(weights(fresh), weights(carried)) == set(weights(fresh))


def test_the_momentum_carried_over_is_that_of_the_first_training():
    net, source, other = make_net(), rows(), rows(20, 5)
    state = train_erm(net, source, seed=7)
    carried = refit(net, state, other, epochs=2, seed=0)
    torch.manual_seed(7)
    model = Small()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    plain_training(model, source, optimizer, 3)
    plain_training(model, other, optimizer, 2)
    assert_same(weights(carried), dict(model.state_dict()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["continue", "fresh"])
def test_a_learning_rate_of_ones_own_replaces_that_of_the_first_training(optimizer):
    net, source = make_net(), rows()
    state = train_erm(net, source, seed=7)
    after = refit(net, state, source, epochs=2, lr=0.003, optimizer=optimizer, seed=0)
    assert [row["lr"] for row in after.history] == [0.003, 0.003]
    model = loaded(state)
    plain = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    if optimizer == "continue":
        plain.load_state_dict(copy.deepcopy(state.optimizer["optimizer_"]))
    plain.param_groups[0]["lr"] = 0.003
    plain_training(model, source, plain, 2)
    if optimizer == "fresh":
        assert_same(weights(after), dict(model.state_dict()), rtol=0, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["continue", "fresh"])
def test_a_decayed_learning_rate_is_carried_over_and_no_longer_decays(optimizer):
    schedule = LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    net = make_net(callbacks=[("schedule", schedule)])
    state = train_erm(net, rows(), seed=0)
    assert [row["lr"] for row in state.history] == pytest.approx([0.1, 0.05, 0.025])
    last = state.optimizer["optimizer_"]["param_groups"][0]["lr"]
    assert last == pytest.approx(0.0125)
    after = refit(net, state, rows(), epochs=2, optimizer=optimizer, seed=0)
    assert [row["lr"] for row in after.history] == [last, last]


def test_learning_rates_of_parameter_groups_are_carried_over_and_overridden():
    net = make_net(optimizer__param_groups=[("body.*", {"lr": 0.01})])
    state = train_erm(net, rows(), seed=0)
    for optimizer in ("continue", "fresh"):
        after = refit(net, state, rows(), epochs=1, optimizer=optimizer, seed=0)
        assert sorted(after.history[0]["lr"]) == [0.01, 0.1]
        assert (
            refit(net, state, rows(), epochs=1, lr=0.2, seed=0).history[0]["lr"] == 0.2
        )


@pytest.mark.parametrize("optimizer", ["continue", "fresh"])
@pytest.mark.parametrize("kind", [torch.optim.SGD, torch.optim.Adam])
def test_a_refit_leaves_the_state_it_starts_from(kind, optimizer):
    momentum = {"optimizer__momentum": 0.9} if kind is torch.optim.SGD else {}
    net = NeuralNetClassifier(
        Small, criterion=nn.CrossEntropyLoss, optimizer=kind, verbose=0, **momentum
    )
    net.set_params(max_epochs=2, train_split=None)
    state = train_erm(net, rows(), seed=0)
    kept = copy.deepcopy(state)
    first = refit(net, state, rows(20, 5), epochs=2, optimizer=optimizer, seed=1)
    assert_same(weights(state), weights(kept))
    assert state.history == kept.history
    moments = kept.optimizer["optimizer_"]["state"]
    assert moments
    for index, entry in state.optimizer["optimizer_"]["state"].items():
        assert_same(entry, moments[index])
    again = refit(net, state, rows(20, 5), epochs=2, optimizer=optimizer, seed=1)
    assert_same(weights(first), weights(again))


# ---------------------------------------------------------------- refit: the rest


def test_no_epoch_returns_the_weights_as_they_are():
    net = make_net()
    state = train_erm(net, rows(), seed=0)
    after = refit(net, state, rows(20, 5), epochs=0, seed=1)
    assert_same(weights(after), weights(state))
    assert after.history == []
    X = rows().X
    np.testing.assert_array_equal(
        build_net(net, after).predict_proba(X), build_net(net, state).predict_proba(X)
    )


@pytest.mark.parametrize("epochs", [1, 2, 4])
def test_exactly_that_many_epochs_run(epochs):
    net = make_net(max_epochs=7, callbacks=[("stop", EarlyStopping(patience=1))])
    state = train_erm(make_net(), rows(), seed=0)
    after = refit(net, state, rows(), epochs=epochs, valid=rows(9, 1), seed=1)
    assert [row["epoch"] for row in after.history] == list(range(1, epochs + 1))
    assert "valid_acc" in after.history[-1]


def test_a_refit_is_seeded():
    net = make_net(iterator_train__shuffle=True, optimizer__momentum=0)
    state = train_erm(net, rows(), seed=0)
    first, again, other = (
        refit(net, state, rows(), epochs=1, seed=seed) for seed in (1, 1, 2)
    )
    assert_same(weights(first), weights(again))
    assert moved(weights(first), weights(other))


@pytest.mark.parametrize("freeze_norm", [True, False])
def test_statistics_of_batch_normalisation_stay_if_frozen(freeze_norm):
    modes = []

    class Normed(nn.Sequential):
        def forward(self, X):
            modes.append([layer.training for layer in self])
            return super().forward(X)

    net = make_net(Normed(nn.BatchNorm1d(3), nn.Dropout(0.1), nn.Linear(3, 2)))
    state = train_erm(net, rows(), seed=0)
    modes.clear()
    refitted = refit(
        net, state, rows(30, seed=1), epochs=2, seed=1, freeze_norm=freeze_norm
    )
    assert [not freeze_norm, True, True] in modes
    assert [freeze_norm, True, True] not in modes
    trained = {"0.weight", "0.bias", "2.weight", "2.bias"}
    statistics = {"0.running_mean", "0.running_var", "0.num_batches_tracked"}
    expected = trained if freeze_norm else trained | statistics
    assert moved(weights(state), weights(refitted)) == expected


def test_samples_are_augmented_in_both_trainings():
    calls = []

    def augment(x):
        calls.append(tuple(x.shape))
        return -x

    net = make_net(max_epochs=2)
    state = train_erm(net, rows(8), valid=rows(5, 1), augment=augment, seed=0)
    assert calls == [(3,)] * 16
    refit(net, state, rows(8), valid=rows(5, 1), epochs=1, augment=augment, seed=0)
    assert calls == [(3,)] * 24
    mirrored = ArraySource(-rows(8).X, rows(8).labels)
    assert_same(weights(state), weights(train_erm(net, mirrored, seed=0)))


def test_a_checkpoint_of_the_users_cannot_undo_the_refit(tmp_path):
    checkpoint = Checkpoint(dirname=tmp_path, monitor="train_loss_best", load_best=True)
    net = make_net(callbacks=[("checkpoint", checkpoint)])
    source = rows()
    # The other way round, so that every epoch of the refit is worse than the best.
    flipped = ArraySource(source.X, 1 - source.labels)
    state = train_erm(net, source, seed=0)
    assert list(tmp_path.iterdir())
    after = refit(net, state, flipped, epochs=1, optimizer="fresh", seed=1)
    assert moved(weights(state), weights(after)) == set(weights(state))
    plain = refit(make_net(), state, flipped, epochs=1, optimizer="fresh", seed=1)
    assert_same(weights(after), weights(plain))


def test_frozen_parameters_stay_frozen():
    net = make_net(callbacks=[("freezer", Freezer("body.*"))])
    state = train_erm(net, rows(), seed=7)
    torch.manual_seed(7)
    assert torch.equal(weights(state)["body.weight"], Small().body.weight)
    assert state.frozen == {("module_", "body.weight"), ("module_", "body.bias")}
    for optimizer in ("continue", "fresh"):
        after = refit(net, state, rows(), epochs=2, optimizer=optimizer, seed=1)
        assert moved(weights(state), weights(after)) == {"head.weight", "head.bias"}
        assert after.frozen == state.frozen


def test_parameters_that_the_module_froze_stay_frozen():
    net = make_net(module__n_frozen=1)
    state = train_erm(net, rows(), seed=7)
    after = refit(net, state, rows(), epochs=2, seed=1)
    assert "body.weight" not in moved(weights(state), weights(after))
    assert after.frozen == state.frozen == {("module_", "body.weight")}


def test_parameters_that_were_unfrozen_in_time_train_in_the_refit_too():
    callbacks = [("freezer", Freezer("body.*")), ("later", Unfreezer("body.*", at=2))]
    net = make_net(callbacks=callbacks)
    state = train_erm(net, rows(), seed=7)
    assert state.frozen == frozenset()
    after = refit(net, state, rows(), epochs=1, seed=1)
    assert moved(weights(state), weights(after)) == set(weights(state))


def test_parameters_of_the_module_that_a_callback_unfroze_train_in_the_refit_too():
    net = make_net(module__n_frozen=2, callbacks=[("later", Unfreezer("body.*", at=2))])
    state = train_erm(net, rows(), seed=7)
    torch.manual_seed(7)
    assert not torch.equal(weights(state)["body.weight"], Small().body.weight)
    assert state.frozen == frozenset()
    after = refit(net, state, rows(), epochs=1, seed=1)
    assert moved(weights(state), weights(after)) == set(weights(state))


class InputSizeFromNet(Callback):
    """Set a parameter of the module when the training begins."""

    def __init__(self, width):
        self.width = width

    def on_train_begin(self, net, **kwargs):
        net.set_params(module__width=self.width)


class InputSizeFromX(Callback):
    """The recipe in skorch's documentation: look at X when the training begins."""

    def on_train_begin(self, net, X=None, y=None, **kwargs):
        net.set_params(module__n_features=X.shape[-1])


def test_parameters_that_a_callback_set_shape_every_later_net():
    net = make_net(callbacks=[("width", InputSizeFromNet(9))])
    state = train_erm(net, rows(), valid=rows(9, 1), seed=0, keep_best=True)
    assert state.module_params == {"module__width": 9}
    assert weights(state)["body.weight"].shape == (9, 3)
    assert build_net(net, state, best=True).module_.body.out_features == 9
    after = refit(net, state, rows(), epochs=1, seed=1)
    assert weights(after)["body.weight"].shape == (9, 3)
    assert after.module_params == state.module_params
    assert build_net(net, after).module_.body.out_features == 9
    assert net.get_params_for("module") == {}


def test_a_callback_that_reads_the_input_size_from_X_works():
    net = make_net(module__n_features=8, callbacks=[("size", InputSizeFromX())])
    state = train_erm(net, rows(), seed=0)
    assert state.module_params == {"module__n_features": 3}
    assert weights(refit(net, state, rows(), epochs=1, seed=1))[
        "body.weight"
    ].shape == (5, 3)


def can_run(net):
    check_output(net, rows(), 2)


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_lazy_modules_train_and_refit():
    net = make_net(Lazy)
    state = train_erm(net, rows(), seed=0, before=can_run)
    after = refit(net, state, rows(), epochs=1, seed=1)
    assert weights(after)["linear.weight"].shape == (2, 3)
    assert moved(weights(state), weights(after)) == set(weights(state))


def test_a_net_fitted_elsewhere_is_a_state_to_refit_from():
    source = rows()
    fitted = make_net(train_split=None).fit(source.X, source.labels)
    before = copy.deepcopy(dict(fitted.module_.state_dict()))
    moments = copy.deepcopy(fitted.optimizer_.state_dict())
    state = TrainedState.of(fitted)
    after = refit(make_net(), state, rows(20, 5), epochs=2, seed=1)
    assert_same(dict(fitted.module_.state_dict()), before)
    for index, entry in moments["state"].items():
        buffer = fitted.optimizer_.state_dict()["state"][index]["momentum_buffer"]
        assert torch.equal(buffer, entry["momentum_buffer"])
    fitted.partial_fit(rows(20, 5).X, rows(20, 5).labels)
    assert moved(before, weights(after)) == set(before)
