"""Tests of the stage runner, its monitors, and seeding."""

import random
import signal

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from masktune_sk.data import ArraySource, BatchIterator
from masktune_sk.exceptions import NonFiniteError
from masktune_sk.training import StageRun, build_net, seeded
from masktune_sk.training._runner import batch_iterators


def rows(n=12, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)).astype(np.float32)
    return ArraySource(X, (X[:, 0] + X[:, 1] > 0).astype(np.int64))


def make_net(module=nn.Linear, **params):
    defaults = {
        "module": module,
        "criterion": nn.CrossEntropyLoss,
        "lr": 0.1,
        "batch_size": 4,
        "max_epochs": 3,
    }
    if module is nn.Linear:
        defaults |= {"module__in_features": 3, "module__out_features": 2}
    return build_net(NeuralNetClassifier(**(defaults | params)))


class Scripted(nn.Module):
    """A linear net that runs a function in the n-th forward of its training."""

    def __init__(self, action, at=5):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.action = action
        self.at = at
        self.n_forwards = 0

    def forward(self, X):
        if self.training:
            self.n_forwards += 1
            if self.n_forwards == self.at:
                self.action()
        return self.linear(X)


class Listening(nn.Linear):
    """A linear net that notes the samples it is trained on."""

    def __init__(self, in_features, out_features):
        super().__init__(in_features, out_features)
        self.heard = []

    def forward(self, X):
        if self.training:
            self.heard.extend(X[:, 0].tolist())
        return super().forward(X)


def raise_interrupt():
    raise KeyboardInterrupt


def press_ctrl_c():
    signal.raise_signal(signal.SIGINT)


class Recorder(Callback):
    """Note which notifications come."""

    def initialize(self):
        self.events_ = []
        return self

    def on_train_begin(self, net, **kwargs):
        self.events_.append("on_train_begin")

    def on_epoch_end(self, net, **kwargs):
        self.events_.append("on_epoch_end")

    def on_train_end(self, net, **kwargs):
        self.events_.append("on_train_end")


class Stopper(Callback):
    """Interrupt at the end of the second epoch, in one of many ways."""

    def __init__(self, how):
        self.how = how

    def on_epoch_end(self, net, **kwargs):
        if len(net.history) == 2:
            getattr(self, self.how)()

    def by_raising(self):
        raise KeyboardInterrupt

    def by_raising_with_a_message(self):
        raise KeyboardInterrupt("enough")

    def by_ctrl_c(self):
        signal.raise_signal(signal.SIGINT)

    def by_ctrl_c_and_tidying_up(self):
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            self.tidy = True
            raise

    def by_ctrl_c_in_a_function(self):
        press_ctrl_c()


def settings(net):
    return {
        name: getattr(net, name)
        for name in (
            "iterator_train",
            "iterator_valid",
            "train_split",
            "verbose",
            "callbacks_",
        )
    }


def assert_as_before(net, before):
    after = settings(net)
    assert all(after[name] is before[name] for name in before)
    assert not net.module_.training
    assert not any(m.training for m in net.module_.modules())
    assert not net.criterion_.training


# ---------------------------------------------------------------- set up, put back


@pytest.mark.parametrize("verbose", [0, 1, 2])
def test_a_run_puts_the_net_back_as_the_user_set_it_up(verbose, capsys):
    net = make_net(verbose=7, callbacks=[("recorder", Recorder())])
    before = settings(net)
    callbacks = list(net.callbacks_)
    with StageRun(net, "ERM", train=rows(), valid=rows(5), verbose=verbose) as run:
        assert net.iterator_train is BatchIterator
        assert net.iterator_valid is BatchIterator
        run.fit(2)
        assert len(net.history) == 2
    assert_as_before(net, before)
    assert net.verbose == 7
    assert net.callbacks_ == callbacks


@pytest.mark.parametrize(
    "error", [ValueError, NonFiniteError, KeyboardInterrupt, SystemExit]
)
def test_a_run_puts_the_net_back_after_an_error_too(error):
    def fail(net):
        net.module_.train()
        raise error("on purpose")

    net = make_net()
    before = settings(net)
    with (
        pytest.raises(error, match="on purpose"),
        StageRun(net, "ERM", train=rows(), valid=rows(5), verbose=1) as run,
    ):
        run.fit(2, before=fail)
    assert_as_before(net, before)


def test_a_run_puts_the_net_back_after_an_error_in_a_forward():
    def fail():
        raise RuntimeError("cuDNN error, say")

    net = make_net(Scripted, module__action=fail)
    before = settings(net)
    with (
        pytest.raises(RuntimeError, match="cuDNN"),
        StageRun(net, "ERM", train=rows()) as run,
    ):
        run.fit(2)
    assert_as_before(net, before)


def test_a_run_is_silent_unless_told_otherwise(capsys):
    net = make_net(verbose=1)
    with StageRun(net, "ERM", train=rows(), valid=rows(5)) as run:
        run.fit(2)
    assert capsys.readouterr() == ("", "")


def test_verbose_1_is_a_bar_with_the_name_of_the_stage(capsys):
    with StageRun(make_net(), "refit 2", train=rows(), verbose=1) as run:
        run.fit(2)
    out, err = capsys.readouterr()
    assert out == ""
    assert "refit 2" in err
    assert "6/6" in err
    assert "train_loss" in err


def test_verbose_2_is_the_table_of_skorch(capsys):
    net = make_net(verbose=0)
    with StageRun(net, "ERM", train=rows(), valid=rows(5), verbose=2) as run:
        run.fit(2)
    out, err = capsys.readouterr()
    assert "valid_acc" in out
    assert "train_loss" in out
    assert err == ""


def test_the_epochs_are_those_asked_for_not_those_of_the_net():
    net = make_net(max_epochs=50)
    with StageRun(net, "ERM", train=rows()) as run:
        run.fit(2)
    assert len(net.history) == 2


def test_only_the_rows_of_the_stage_train_whatever_the_split_of_the_net():
    net = make_net(Listening, module__in_features=3, module__out_features=2)
    train = rows()
    with StageRun(net, "ERM", train=train) as run:
        run.fit(1)
    assert net.train_split is not None
    assert net.module_.heard == train.X[:, 0].tolist()


def test_samples_are_augmented_in_training_and_not_in_validation():
    calls = []

    def augment(x):
        calls.append(x)
        return x + 100

    net = make_net(lr=0)
    valid = rows(5, seed=1)
    with StageRun(net, "ERM", train=rows(), valid=valid, augment=augment) as run:
        run.fit(2)
    assert len(calls) == 2 * 12
    accuracy = (net.predict(valid.X) == valid.labels).mean()
    assert net.history[:, "valid_acc"] == [accuracy] * 2


def test_before_is_called_after_the_callbacks_preparations_and_before_a_batch():
    net = make_net(callbacks=[("recorder", Recorder())])
    recorder = dict(net.callbacks_)["recorder"]
    events = []

    def before(net):
        events.extend(recorder.events_)
        assert not net.history

    with StageRun(net, "ERM", train=rows()) as run:
        run.fit(1, before=before)
    assert events == ["on_train_begin"]


def test_the_users_callbacks_can_be_left_out_but_bookkeeping_stays():
    net = make_net(callbacks=[("recorder", Recorder())])
    recorder = dict(net.callbacks_)["recorder"]
    with StageRun(net, "refit", train=rows(), user_callbacks=False) as run:
        run.fit(2)
    assert recorder.events_ == []
    row = net.history[-1]
    assert {"epoch", "dur", "train_loss", "lr"} <= set(row)
    with StageRun(net, "ERM", train=rows()) as run:
        run.fit(1)
    assert recorder.events_ == ["on_train_begin", "on_epoch_end", "on_train_end"]


# ---------------------------------------------------------------- iterators


class CountingLoader(DataLoader):
    made = 0

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        type(self).made += 1


class NoLength:
    """An iterator that cannot tell how many batches it has."""

    def __init__(self, dataset, batch_size):
        self.dataset = dataset
        self.batch_size = batch_size

    def __iter__(self):
        yield from BatchIterator(self.dataset, self.batch_size)


@pytest.mark.parametrize(
    ("params", "train", "valid"),
    [
        ({}, BatchIterator, BatchIterator),
        (
            {
                "iterator_train__shuffle": True,
                "iterator_train__drop_last": True,
                "iterator_train__batch_size": 3,
                "iterator_valid__batch_size": 100,
            },
            BatchIterator,
            BatchIterator,
        ),
        ({"iterator_train__num_workers": 0}, DataLoader, BatchIterator),
        ({"iterator_valid__num_workers": 0}, BatchIterator, DataLoader),
        ({"iterator_train": CountingLoader}, CountingLoader, BatchIterator),
        ({"iterator_valid": CountingLoader}, BatchIterator, CountingLoader),
    ],
)
def test_only_plain_loaders_are_replaced(params, train, valid):
    net = make_net(**params)
    before = settings(net)
    with StageRun(net, "ERM", train=rows(), valid=rows(5)) as run:
        assert net.iterator_train is train
        assert net.iterator_valid is valid
        run.fit(2)
    assert_as_before(net, before)
    size = params.get("iterator_train__batch_size", 4)
    batches = net.history[-1, "batches"]
    sizes = [b["train_batch_size"] for b in batches if "train_batch_size" in b]
    assert sizes == [size] * (12 // size)


def test_batch_iterators_are_put_back_after_an_error():
    net = make_net()
    seen = []

    def fail():
        seen.append(net.iterator_valid)
        raise ValueError("on purpose")

    with pytest.raises(ValueError, match="on purpose"), batch_iterators(net):
        fail()
    assert seen == [BatchIterator]
    assert net.iterator_train is DataLoader
    assert net.iterator_valid is DataLoader


def test_a_loader_of_the_users_own_reads_the_batches():
    CountingLoader.made = 0
    net = make_net(iterator_train=CountingLoader)
    with StageRun(net, "ERM", train=rows()) as run:
        run.fit(2)
    assert CountingLoader.made > 0
    assert len(net.history[-1, "batches"]) == 3


@pytest.mark.parametrize("verbose", [0, 1])
def test_an_iterator_without_a_length_trains(verbose, capsys):
    net = make_net(iterator_train=NoLength)
    with StageRun(net, "ERM", train=rows(), verbose=verbose) as run:
        run.fit(2)
    assert len(net.history) == 2


def test_both_ways_of_reading_train_to_the_same_weights():
    weights = []
    for params in ({}, {"iterator_train__num_workers": 0}):
        torch.manual_seed(0)
        net = make_net(**params)
        with StageRun(net, "ERM", train=rows(12), valid=rows(5)) as run:
            run.fit(3)
        weights.append(net.module_.weight.detach())
    assert torch.equal(*weights)


def test_a_batch_size_of_minus_one_is_one_batch():
    net = make_net(batch_size=-1)
    with StageRun(net, "ERM", train=rows()) as run:
        run.fit(1)
    assert len(net.history[-1, "batches"]) == 1


@pytest.mark.parametrize(
    "params", [{}, {"iterator_train__num_workers": 0}], ids=["ours", "the user's"]
)
def test_an_epoch_without_a_batch_is_refused_before_training(params):
    net = make_net(
        iterator_train__drop_last=True, callbacks=[("recorder", Recorder())], **params
    )
    before = settings(net)
    message = r"ERM stage would train on no batch at all: 3 rows, .*'batch_size': 4"
    with (
        pytest.raises(ValueError, match=message) as caught,
        StageRun(net, "ERM", train=rows(3)) as run,
    ):
        run.fit(2)
    assert "leave drop_last out" in str(caught.value)
    assert dict(net.callbacks_)["recorder"].events_ == []
    assert_as_before(net, before)


class Predictor(Callback):
    """Predict samples of its own after each epoch, as an array."""

    def __init__(self, X):
        self.X = X

    def on_epoch_end(self, net, **kwargs):
        net.history.record("first", int(net.predict(self.X)[0]))


@pytest.mark.parametrize(
    "params", [{}, {"iterator_valid__num_workers": 0}], ids=["ours", "the user's"]
)
def test_a_callback_may_predict_an_array_of_its_own(params):
    X = rows(5, seed=2).X
    net = make_net(callbacks=[("predictor", Predictor(X))], **params)
    with StageRun(net, "ERM", train=rows(), valid=rows(5, seed=1)) as run:
        run.fit(2)
    assert net.history[-1, "first"] == net.predict(X)[0]


# ---------------------------------------------------------------- Ctrl-C


@pytest.mark.parametrize("action", [raise_interrupt, press_ctrl_c])
def test_ctrl_c_in_a_forward_propagates(action):
    net = make_net(Scripted, module__action=action)
    before = settings(net)
    with (
        pytest.raises(KeyboardInterrupt),
        StageRun(net, "ERM", train=rows(), valid=rows(5)) as run,
    ):
        run.fit(3)
    # In the second of three epochs.
    assert len(net.history) == 2
    assert_as_before(net, before)


@pytest.mark.parametrize(
    "how", ["by_ctrl_c", "by_ctrl_c_and_tidying_up", "by_ctrl_c_in_a_function"]
)
def test_ctrl_c_inside_a_callback_propagates(how):
    net = make_net(callbacks=[("stopper", Stopper(how))])
    before = settings(net)
    with (
        pytest.raises(KeyboardInterrupt),
        StageRun(net, "ERM", train=rows(), valid=rows(5)) as run,
    ):
        run.fit(5)
    assert len(net.history) == 2
    assert_as_before(net, before)


def test_ctrl_c_while_samples_are_read_propagates():
    def augment(x):
        press_ctrl_c()
        return x

    net = make_net()
    with (
        pytest.raises(KeyboardInterrupt),
        StageRun(net, "ERM", train=rows(), augment=augment) as run,
    ):
        run.fit(5)


@pytest.mark.parametrize("how", ["by_raising", "by_raising_with_a_message"])
def test_a_callback_of_the_users_own_may_stop_a_training(how):
    net = make_net(
        callbacks=[("stopper", Stopper(how)), ("recorder", Recorder())],
    )
    before = settings(net)
    with StageRun(net, "ERM", train=rows(), valid=rows(5)) as run:
        run.fit(5)
    assert len(net.history) == 2
    recorder = dict(net.callbacks_)["recorder"]
    assert recorder.events_[-1] == "on_train_end"
    assert_as_before(net, before)


@pytest.mark.parametrize("load_best", [False, True])
def test_early_stopping_ends_a_training_normally(load_best):
    stopping = EarlyStopping(patience=3, load_best=load_best, sink=str)
    net = make_net(lr=0, callbacks=[("stopping", stopping)])
    before = settings(net)
    with StageRun(net, "ERM", train=rows(), valid=rows(5)) as run:
        run.fit(20)
    assert 3 <= len(net.history) <= 4
    assert_as_before(net, before)


# ---------------------------------------------------------------- monitors


def poison(net):
    """Make the weights of a net of `Scripted` NaN at its next scripted forward."""

    def action():
        with torch.no_grad():
            net.module_.linear.weight.fill_(float("nan"))

    net.module_.action = action


@pytest.mark.parametrize(
    ("at", "epoch", "stage"), [(1, 1, "ERM"), (5, 2, "refit 2"), (9, 3, "refit")]
)
def test_a_loss_that_is_not_finite_names_epoch_and_stage(at, epoch, stage):
    net = make_net(Scripted, module__action=None, module__at=at)
    poison(net)
    message = f"training loss became nan in epoch {epoch} of the {stage} stage"
    with (
        pytest.raises(NonFiniteError, match=message),
        StageRun(net, stage, train=rows()) as run,
    ):
        run.fit(5)
    # At the first such batch.
    assert net.module_.n_forwards == at


def test_logits_under_skorchs_default_criterion_are_named_as_a_cause():
    net = make_net(criterion=nn.NLLLoss)
    with (
        pytest.raises(NonFiniteError, match="criterion=torch.nn.CrossEntropyLoss"),
        StageRun(net, "ERM", train=rows()) as run,
    ):
        run.fit(5)


class InfiniteLoss(nn.CrossEntropyLoss):
    def forward(self, y_pred, y_true):
        return super().forward(y_pred, y_true) * float("inf")


def test_an_infinite_loss_is_refused_too():
    net = make_net(criterion=InfiniteLoss)
    with (
        pytest.raises(NonFiniteError, match="became inf in epoch 1.*learning rate"),
        StageRun(net, "ERM", train=rows()) as run,
    ):
        run.fit(5)


class Judge(Callback):
    """Compute the accuracy after each epoch from the weights."""

    def __init__(self, source):
        self.source = source

    def initialize(self):
        self.accuracies_ = []
        return self

    def on_epoch_end(self, net, **kwargs):
        with torch.no_grad():
            logits = net.module_(torch.from_numpy(self.source.X))
        hits = logits.argmax(dim=1).numpy() == self.source.labels
        self.accuracies_.append(hits.mean())


def true_accuracies(net, valid, run, epochs):
    """Fit, and return the accuracy after each epoch."""
    judge = Judge(valid).initialize()
    net.callbacks_.append(("judge", judge))
    run.fit(epochs)
    return judge.accuracies_


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"callbacks": "disable"},
        {"callbacks__valid_acc": None},
        {"iterator_valid__num_workers": 0},
        {"iterator_valid__batch_size": 3},
    ],
    ids=str,
)
def test_the_accuracy_of_each_epoch_is_counted_whatever_the_callbacks(params):
    net = make_net(lr=0.5, **params)
    valid = rows(17, seed=1)  # batches of 4, the last one of another size
    with StageRun(net, "ERM", train=rows(), valid=valid) as run:
        accuracies = true_accuracies(net, valid, run, 5)
    assert net.history[:, "valid_acc"] == pytest.approx(accuracies)
    assert len(set(accuracies)) > 1


def test_the_accuracy_on_a_torch_dataset_of_the_users_own_is_counted():
    source = rows(17, seed=1)
    valid = TensorDataset(torch.from_numpy(source.X), torch.from_numpy(source.labels))
    net = make_net(lr=0.5)
    with StageRun(net, "ERM", train=rows(), valid=valid) as run:
        assert net.iterator_train is BatchIterator
        assert isinstance(net.get_iterator(valid, training=False), DataLoader)
        accuracies = true_accuracies(net, source, run, 3)
    assert net.history[:, "valid_acc"] == pytest.approx(accuracies)


def test_without_a_holdout_there_is_no_accuracy():
    net = make_net()
    with StageRun(net, "ERM", train=rows(), keep_best=True) as run:
        run.fit(2)
    assert "valid_acc" not in net.history[-1]
    assert run.monitor.best_weights_ is None


class Halve(Callback):
    """Halve the learning rate after each epoch."""

    def on_epoch_end(self, net, **kwargs):
        net.optimizer_.param_groups[0]["lr"] /= 2


def test_the_learning_rate_of_each_epoch_is_noted():
    net = make_net(callbacks=[("halve", Halve())])
    with StageRun(net, "ERM", train=rows()) as run:
        run.fit(3)
    assert net.history[:, "lr"] == pytest.approx([0.1, 0.05, 0.025])
    net = make_net(optimizer__param_groups=[("bias", {"lr": 0.5})])
    with StageRun(net, "ERM", train=rows()) as run:
        run.fit(1)
    assert sorted(net.history[-1, "lr"]) == [0.1, 0.5]


class PlaysWeights(Callback):
    """Set the weights of each epoch: the sign says how good they are."""

    def __init__(self, script):
        self.script = script

    def on_epoch_begin(self, net, **kwargs):
        value = self.script[len(net.history) - 1]
        with torch.no_grad():
            net.module_.bias.zero_()
            net.module_.weight.copy_(torch.tensor([[-1.0] * 3, [1.0] * 3]) * value)


@pytest.mark.parametrize(
    ("script", "best"),
    [([-1, 2, 3, -4], 2), ([5, 4, 3], 5), ([-1, -2, 3], 3), ([-1, -2], -1)],
)
def test_the_first_of_the_best_epochs_is_kept(script, best):
    X = np.array([[1, 1, 1], [-1, -1, -1], [2, 1, 0], [0, -1, -2]], dtype=np.float32)
    valid = ArraySource(X, np.array([1, 0, 1, 0]))
    net = make_net(lr=0, callbacks=[("plays", PlaysWeights(script))])
    with StageRun(net, "ERM", train=rows(), valid=valid, keep_best=True) as run:
        run.fit(len(script))
    assert run.monitor.best_weights_["module_"]["weight"][1, 0] == best
    # The net itself goes on to the last epoch.
    assert net.module_.weight[1, 0] == script[-1]


def test_the_best_weights_are_not_kept_unasked():
    net = make_net()
    with StageRun(net, "ERM", train=rows(), valid=rows(5)) as run:
        run.fit(2)
    assert run.monitor.best_weights_ is None


# ---------------------------------------------------------------- seeding


def draw():
    return random.random(), np.random.random(), torch.rand(1).item()  # noqa: NPY002


def test_seeded_draws_the_same_from_all_three_generators():
    with seeded(3):
        first = draw()
    draw()
    with seeded(3):
        again = draw()
    with seeded(4):
        other = draw()
    assert first == again
    assert not set(first) & set(other)
    torch.manual_seed(3)
    assert first[2] == torch.rand(1).item()


def seed_all(seed):
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)


def draw_and_raise(error):
    draw()
    raise error


def test_seeded_gives_the_callers_streams_back():
    seed_all(1)
    expected = [draw(), draw()]
    seed_all(1)
    result = [draw()]
    with seeded(7):
        draw()
    assert [*result, draw()] == expected


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_seeded_gives_the_callers_streams_back_after_an_error_too(error):
    seed_all(1)
    expected = draw()
    seed_all(1)
    with pytest.raises(error), seeded(7):
        draw_and_raise(error)
    assert draw() == expected


def test_seeded_can_be_nested():
    with seeded(0):
        first = draw()
        second = draw()
    with seeded(0):
        assert draw() == first
        with seeded(5):
            draw()
        assert draw() == second
