"""Tests of the way from what the user gave to a net that can train."""

import re
from functools import partial

import numpy as np
import pytest
import torch
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from skorch import NeuralNetBinaryClassifier, NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback
from skorch.dataset import ValidSplit
from skorch.helper import predefined_split
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset

from masktune_sk.data import ArraySource, BatchIterator, TorchView
from masktune_sk.modules import MLP, SmallConvNet
from masktune_sk.training import (
    TrainedState,
    build_net,
    check_output,
    check_trains,
    has_own_split,
    predict_proba,
    resolve_net,
    split_as_net,
)


def rows(n=12, n_classes=2):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, 3)).astype(np.float32)
    return ArraySource(X, np.arange(n) % n_classes)


def make_net(module=nn.Linear, **params):
    defaults = {
        "module": module,
        "criterion": nn.CrossEntropyLoss,
        "batch_size": 4,
        "max_epochs": 2,
        "verbose": 0,
    }
    if module is nn.Linear:
        defaults |= {"module__in_features": 3, "module__out_features": 2}
    return NeuralNetClassifier(**(defaults | params))


def fitted_net(**params):
    source = rows()
    return make_net(train_split=None, **params).fit(source.X, source.labels)


class BatchNormed(nn.Module):
    """A net that cannot train on one sample."""

    def __init__(self, dropout=0.0):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(dropout), nn.Linear(4, 2)
        )

    def forward(self, X):
        return self.layers(X)


class ConvNormed(nn.Module):
    """A net with batch normalisation over places, which one sample has enough of."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        self.head = nn.Linear(2, 2)

    def forward(self, X):
        return self.head(self.features(X).mean(dim=(2, 3)))


class Failing(nn.Module):
    """A net whose forward raises."""

    def __init__(self, error):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.error = error

    def forward(self, X):
        raise self.error("boom")


class Softmaxed(nn.Linear):
    def forward(self, X):
        return super().forward(X).softmax(dim=1)


class Summing(nn.Linear):
    def forward(self, X):
        logits = super().forward(X)
        return logits - logits.mean(dim=1, keepdim=True) + 0.5


class Flattened(nn.Linear):
    def forward(self, X):
        return super().forward(X).flatten()


class ExtraOutput(nn.Linear):
    def forward(self, X):
        return super().forward(X), X


# ---------------------------------------------------------------- resolve


@pytest.mark.parametrize(
    ("shape", "module"), [((5,), MLP), ((3, 16, 20), SmallConvNet)]
)
def test_nothing_given_is_the_default_net_for_the_shape(shape, module):
    template, fitted = resolve_net(None, shape, 4)
    assert template.module is module
    assert fitted is None
    net = build_net(template)
    proba = predict_proba(net, TorchView(ArraySource(np.zeros((2, *shape)))))
    assert proba.shape == (2, 4)


def test_a_net_is_cloned_and_never_touched():
    net = fitted_net()
    before = {k: v.clone() for k, v in net.module_.state_dict().items()}
    template, fitted = resolve_net(net, (3,), 2)
    assert fitted is None
    assert template is not net
    assert not template.initialized_
    assert template.get_params_for("module") == net.get_params_for("module")
    build_net(template)
    for name, value in net.module_.state_dict().items():
        assert torch.equal(value, before[name])


def test_a_frozen_net_is_returned_as_it_is_beside_a_clone():
    net = fitted_net()
    template, fitted = resolve_net(FrozenEstimator(net), (3,), 2)
    assert fitted is net
    assert not template.initialized_
    assert net.initialized_
    copy = build_net(template, TrainedState.of(fitted))
    X = rows().X
    np.testing.assert_array_equal(copy.predict_proba(X), net.predict_proba(X))
    assert copy.module_ is not net.module_


@pytest.mark.parametrize(
    "estimator",
    [
        LogisticRegression(),
        nn.Linear(3, 2),
        nn.Linear,
        "mlp",
        NeuralNetRegressor(nn.Linear),
        NeuralNetBinaryClassifier(nn.Linear),
        NeuralNetClassifier,
        FrozenEstimator(LogisticRegression()),
    ],
    ids=lambda estimator: str(estimator)[:30],
)
def test_what_is_no_net_for_classes_is_refused_with_what_to_do(estimator):
    with pytest.raises(TypeError, match=r"must be a skorch\.NeuralNetClassifier") as e:
        resolve_net(estimator, (3,), 2)
    assert "criterion=torch.nn.CrossEntropyLoss" in str(e.value)
    kind = estimator.estimator if hasattr(estimator, "estimator") else estimator
    name = kind.__name__ if isinstance(kind, type) else type(kind).__name__
    assert re.search(rf"got (the class|an object of type) {name}\.", str(e.value))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_module_instance_with_module_parameters_is_refused(frozen):
    net = make_net(nn.Linear(3, 2), module__bias=False, module__in_features=3)
    estimator = FrozenEstimator(net) if frozen else net
    message = r"\['bias', 'in_features'\].*drop the instance's weights"
    with pytest.raises(ValueError, match=message):
        resolve_net(estimator, (3,), 2)


def test_a_module_instance_alone_is_taken():
    module = nn.Linear(3, 2)
    before = module.weight.detach().clone()
    template, _ = resolve_net(make_net(module), (3,), 2)
    net = build_net(template)
    assert torch.equal(net.module_.weight, before)
    net.module_.weight.data.fill_(9)
    assert torch.equal(module.weight, before)
    assert torch.equal(build_net(template).module_.weight, before)


def test_a_frozen_net_that_is_not_fitted_is_refused():
    with pytest.raises(NotFittedError, match="not fitted. Fit it first, or pass the"):
        resolve_net(FrozenEstimator(make_net()), (3,), 2)


def test_a_frozen_net_that_was_trimmed_is_refused():
    net = fitted_net()
    net.trim_for_prediction()
    message = r"trimmed for prediction.*before trim_for_prediction\(\)"
    with pytest.raises(ValueError, match=message):
        resolve_net(FrozenEstimator(net), (3,), 2)


# ---------------------------------------------------------------- build


def test_a_built_net_is_initialised_silent_and_in_eval_mode(capsys):
    template = make_net(BatchNormed, verbose=1)
    net = build_net(template)
    assert net.initialized_
    assert not template.initialized_
    assert net.verbose == 1
    assert not any(m.training for m in net.module_.modules())
    assert not net.criterion_.training
    assert capsys.readouterr() == ("", "")


def test_a_net_is_filled_with_a_copy_of_a_state():
    source = rows()
    trained = fitted_net()
    state = TrainedState.of(trained)
    net = build_net(make_net(), state)
    np.testing.assert_array_equal(
        net.predict_proba(source.X), trained.predict_proba(source.X)
    )
    net.module_.weight.data.fill_(9)
    trained.module_.weight.data.fill_(8)
    assert state.weights["module_"]["weight"].abs().max() < 5


def test_a_net_that_is_filled_costs_no_random_numbers():
    state = TrainedState.of(fitted_net())
    before = torch.get_rng_state()
    build_net(make_net(), state)
    assert torch.equal(torch.get_rng_state(), before)
    build_net(make_net())
    assert not torch.equal(torch.get_rng_state(), before)


def test_the_best_weights_are_put_in_if_asked_for():
    trained = fitted_net()
    best = {"module_": {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}}
    state = TrainedState.of(trained, best_weights={"criterion_": {}, **best})
    assert torch.equal(
        build_net(make_net(), state).module_.weight, trained.module_.weight
    )
    net = build_net(make_net(), state, best=True)
    assert torch.equal(net.module_.weight, torch.ones(2, 3))


def test_weights_of_the_criterion_are_part_of_a_state():
    weight = torch.tensor([1.0, 3.0])
    trained = fitted_net(criterion__weight=weight)
    state = TrainedState.of(trained)
    assert torch.equal(state.weights["criterion_"]["weight"], weight)
    net = build_net(make_net(criterion__weight=torch.ones(2)), state)
    assert torch.equal(net.criterion_.weight, weight)


def test_parameters_set_in_training_shape_the_net():
    wide = make_net(module__out_features=5).initialize()
    state = TrainedState.of(wide, module_params={"module__out_features": 5})
    assert build_net(make_net(), state).module_.weight.shape == (5, 3)


# ---------------------------------------------------------------- predict


@pytest.mark.parametrize("batch_size", [1, 5, 11, 128, -1])
def test_probabilities_do_not_depend_on_how_they_are_read(batch_size):
    X = rows(12).X
    net = build_net(make_net(BatchNormed, batch_size=batch_size))
    proba = predict_proba(net, TorchView(ArraySource(X)))
    assert proba.dtype == np.float32
    np.testing.assert_allclose(proba, net.predict_proba(X), rtol=1e-6)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)
    assert net.iterator_valid is DataLoader
    assert not net.module_.training


def test_predicting_draws_from_no_generator():
    net = build_net(make_net())
    before = torch.get_rng_state()
    predict_proba(net, TorchView(rows()))
    assert torch.equal(torch.get_rng_state(), before)


# ---------------------------------------------------------------- check_output


@pytest.mark.parametrize(
    "net",
    [
        make_net(),
        make_net(Softmaxed, criterion=nn.NLLLoss).set_params(
            module__in_features=3, module__out_features=2
        ),
        make_net(ExtraOutput).set_params(module__in_features=3, module__out_features=2),
        make_net(
            criterion=nn.MultiMarginLoss,
            predict_nonlinearity=partial(torch.softmax, dim=-1),
        ),
    ],
    ids=["logits", "probabilities", "extra output", "own criterion"],
)
def test_a_net_that_gives_probabilities_passes(net):
    assert check_output(build_net(net), rows(), 2) is None


@pytest.mark.parametrize("criterion", [nn.NLLLoss, nn.MultiMarginLoss])
def test_logits_that_are_taken_for_probabilities_are_refused(criterion):
    message = r"Linear gives rows like .*, which are no probabilities.*"
    with pytest.raises(ValueError, match=message) as caught:
        check_output(build_net(make_net(criterion=criterion)), rows(), 2)
    assert "criterion=torch.nn.CrossEntropyLoss" in str(caught.value)
    assert "predict_nonlinearity=functools.partial" in str(caught.value)


def test_negative_numbers_are_no_probabilities_even_if_they_sum_to_one():
    net = make_net(Summing, criterion=nn.NLLLoss, module__in_features=3)
    net.set_params(module__out_features=2)
    with pytest.raises(ValueError, match="no probabilities"):
        check_output(build_net(net), rows(), 2)


@pytest.mark.parametrize(("n_outputs", "n_classes"), [(5, 2), (1, 2), (2, 3)])
def test_another_number_of_outputs_than_classes_is_refused(n_outputs, n_classes):
    net = build_net(make_net(module__out_features=n_outputs))
    message = (
        rf"Linear returns \({n_outputs},\) outputs a sample, but y has {n_classes} "
        rf"classes; expected \({n_classes},\)\. Change the last layer"
    )
    with pytest.raises(ValueError, match=message):
        check_output(net, rows(n_classes=n_classes), n_classes)


def test_outputs_without_a_class_axis_are_refused():
    net = make_net(Flattened, module__in_features=3, module__out_features=1)
    net.set_params(predict_nonlinearity=None)
    with pytest.raises(ValueError, match=r"Flattened returns \(\) outputs a sample"):
        check_output(build_net(net), rows(), 2)


def test_samples_of_a_shape_the_module_cannot_take_are_refused():
    net = build_net(make_net(module__in_features=7))
    message = r"Linear can't take samples of shape \(3,\).*mat1 and mat2"
    with pytest.raises(ValueError, match=message) as caught:
        check_output(net, rows(), 2)
    assert isinstance(caught.value.__cause__, RuntimeError)


FAILURES = [RuntimeError, ValueError, TypeError, IndexError, AssertionError]


@pytest.mark.parametrize("error", FAILURES)
def test_a_failing_forward_is_reported_with_the_modules_own_words(error):
    net = build_net(make_net(Failing, module__error=error))
    with pytest.raises(ValueError, match="Failing can't take samples.*boom") as caught:
        check_output(net, rows(), 2)
    assert isinstance(caught.value.__cause__, error)


# ---------------------------------------------------------------- check_trains


def batch_of(source):
    return source.batch(np.arange(min(4, len(source))))


OWN_LOADER = {"iterator_train__num_workers": 0}


@pytest.mark.parametrize(
    ("n", "params"),
    [
        (9, OWN_LOADER),
        (1, OWN_LOADER),
        (1, {}),
        (8, {"batch_size": 1}),
        (8, {"iterator_train__batch_size": 1}),
        (8, {"batch_size": 1, **OWN_LOADER}),
        (1, {"batch_size": -1}),
        (13, {"iterator_train__batch_size": 6, **OWN_LOADER}),
        (9, {"iterator_train__drop_last": False, **OWN_LOADER}),
    ],
    ids=str,
)
def test_a_batch_of_one_under_batch_normalisation_is_refused(n, params):
    net = build_net(make_net(BatchNormed, **params))
    size = params.get("iterator_train__batch_size", params.get("batch_size", 4))
    message = (
        rf"one sample \({n} training rows, batch_size={size}\).*more than 1 value.*"
        "iterator_train__drop_last=True"
    )
    with pytest.raises(ValueError, match=message):
        check_trains(net, batch_of(rows(n)), n)


@pytest.mark.parametrize(
    ("n", "params"),
    [
        (9, {}),  # our own iterator joins the last two
        (9, {"iterator_train__shuffle": True}),
        (9, {"iterator_train": BatchIterator}),
        (9, {"iterator_train__drop_last": True, **OWN_LOADER}),
        (10, OWN_LOADER),
        (9, {"iterator_train__batch_size": 5, **OWN_LOADER}),
        (9, {"batch_size": -1, **OWN_LOADER}),
    ],
    ids=str,
)
def test_what_holds_no_batch_of_one_passes(n, params):
    check_trains(build_net(make_net(BatchNormed, **params)), batch_of(rows(n)), n)


@pytest.mark.parametrize("n", [1, 9])
def test_a_batch_of_one_is_fine_without_batch_normalisation(n):
    check_trains(build_net(make_net(**OWN_LOADER)), batch_of(rows(n)), n)


@pytest.mark.parametrize("refused", [False, True])
def test_the_check_leaves_the_net_unchanged(refused):
    if refused:
        net, X = build_net(make_net(BatchNormed, **OWN_LOADER)), batch_of(rows(9))
    else:
        X = torch.rand(2, 1, 5, 5)
        net = build_net(make_net(ConvNormed, **OWN_LOADER))
    before = {k: v.clone() for k, v in net.module_.state_dict().items()}
    assert any("running_mean" in name for name in before)
    if refused:
        with pytest.raises(ValueError, match="one sample"):
            check_trains(net, X, 9)
    else:
        check_trains(net, X, 9)
    for name, value in net.module_.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert not any(m.training for m in net.module_.modules())
    assert all(p.grad is None for p in net.module_.parameters())


# ---------------------------------------------------------------- splits


class OwnSplit:
    """A split that returns whatever it was made with."""

    def __init__(self, make):
        self.make = make

    def __call__(self, dataset, y=None, **kwargs):
        return self.make(dataset, y)


def other_dataset():
    return TensorDataset(torch.zeros(5, 3), torch.zeros(5, dtype=torch.int64))


@pytest.mark.parametrize(
    ("split", "own"),
    [
        (None, False),
        (ValidSplit(5, stratified=True), False),
        (ValidSplit(5), True),
        (ValidSplit(3, stratified=True), True),
        (ValidSplit(0.2, stratified=True, random_state=0), True),
        (predefined_split(other_dataset()), True),
    ],
    ids=["none", "skorch's", "unstratified", "three", "seeded", "predefined"],
)
def test_a_split_other_than_skorchs_default_is_the_users_own(split, own):
    assert has_own_split(make_net(train_split=split)) is own


def test_the_split_of_a_new_net_is_not_the_users_own():
    assert not has_own_split(NeuralNetClassifier(nn.Linear))


@pytest.mark.parametrize("cv", [3, 0.25])
def test_rows_are_split_as_the_nets_own_split_does(cv):
    source = rows(20)
    split = ValidSplit(cv, stratified=True, random_state=0 if cv < 1 else None)
    train, valid = split_as_net(make_net(train_split=split), source)
    expected, expected_valid = split(TorchView(source), y=source.labels)
    np.testing.assert_array_equal(train, expected.indices)
    valid_rows = np.asarray(expected_valid.indices)
    np.testing.assert_array_equal(valid.labels, source.labels[valid_rows])
    np.testing.assert_array_equal(
        valid.batch(np.arange(len(valid))), source.X[valid_rows]
    )
    assert sorted([*train, *valid_rows]) == list(range(20))


def test_a_predefined_split_trains_on_every_row():
    valid_dataset = other_dataset()
    source = rows(20)
    net = make_net(train_split=predefined_split(valid_dataset))
    train, valid = split_as_net(net, source)
    np.testing.assert_array_equal(train, np.arange(20))
    assert valid is valid_dataset


def test_a_split_without_validation_is_fine():
    net = make_net(train_split=OwnSplit(lambda dataset, y: (dataset, None)))
    train, valid = split_as_net(net, rows(20))
    np.testing.assert_array_equal(train, np.arange(20))
    assert valid is None


@pytest.mark.parametrize(
    "make",
    [
        lambda dataset, y: (other_dataset(), dataset),
        lambda dataset, y: (Subset(other_dataset(), [0, 1]), dataset),
        lambda dataset, y: (Subset(Subset(dataset, [0, 1, 2]), [0, 1]), None),
        lambda dataset, y: ([0, 1, 2], None),
    ],
    ids=["another data set", "subset of another", "subset of a subset", "list"],
)
def test_a_split_that_trains_on_other_rows_is_refused(make):
    net = make_net(train_split=OwnSplit(make))
    message = "must return the dataset it is given, or a torch.utils.data.Subset of it"
    with pytest.raises(ValueError, match=message) as caught:
        split_as_net(net, rows(20))
    assert "validation_fraction" in str(caught.value)


# ---------------------------------------------------------------- state


class Silent(Callback):
    pass


def test_a_state_is_plain_copies_on_the_cpu():
    net = fitted_net(optimizer=torch.optim.Adam, callbacks=[("silent", Silent())])
    state = TrainedState.of(net)
    assert set(state.weights) == {"module_", "criterion_"}
    assert set(state.optimizer) == {"optimizer_"}
    moments = state.optimizer["optimizer_"]["state"]
    assert len(moments) == 2
    kept = moments[0]["exp_avg"].clone()
    source = rows()
    net.partial_fit(source.X, source.labels)
    assert torch.equal(moments[0]["exp_avg"], kept)
    assert not torch.equal(state.weights["module_"]["weight"], net.module_.weight)
    assert state.frozen == frozenset()
    assert state.module_params == {}
    assert state.best_weights is None


def test_the_history_of_a_state_has_one_plain_row_an_epoch():
    net = fitted_net(max_epochs=3)
    history = TrainedState.of(net).history
    assert [row["epoch"] for row in history] == [1, 2, 3]
    assert set(history[0]) == {"epoch", "dur", "train_loss"}
    kinds = {type(value) for row in history for value in row.values()}
    assert kinds <= {int, float}
