"""Our own contract, which scikit-learn's checks do not see; for every estimator."""

import copy
import functools
import gc
import io
import pickle
import random
import signal
import subprocess
import sys
import warnings
import weakref
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.ensemble import VotingClassifier
from sklearn.exceptions import DataConversionWarning, NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV, cross_val_predict, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from skorch.callbacks import Callback
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from masktune_sk import (
    DeNetDMClassifier,
    MaskTuneClassifier,
    RejectOptionClassifier,
)
from masktune_sk.exceptions import InconsistentVersionWarning, NonFiniteError
from tests.nets import (
    ConceptFromX,
    DeeperConvNet,
    TinyConvNet,
    TinyMLP,
    add_channel_axis,
    tiny_images,
    tiny_net,
    tiny_vectors,
)

ROOT = Path(__file__).parent.parent

# Toy data: there is no shortcut for the branches to part over, and no concept.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::masktune_sk.exceptions.{category}")
    for category in (
        "ConceptWarning",
        "RolesUndecidedWarning",
        "StarvedBranchWarning",
    )
]

ESTIMATORS = {
    "masktune-images": (
        MaskTuneClassifier(
            tiny_net(max_epochs=8, batch_size=8),
            threshold_rule="quantile",
            mask_threshold=0.1,
            random_state=0,
        ),
        tiny_images,
    ),
    "masktune-vectors": (
        MaskTuneClassifier(tiny_net(TinyMLP), random_state=0),
        tiny_vectors,
    ),
    "denetdm-images": (
        DeNetDMClassifier(
            tiny_net(max_epochs=8, batch_size=8),
            shallow_module=TinyConvNet,
            deep_module=DeeperConvNet,
            stage1_lr=0.01,
            random_state=0,
        ),
        tiny_images,
    ),
    "denetdm-vectors": (
        DeNetDMClassifier(tiny_net(TinyMLP), stage1_lr=0.01, random_state=0),
        tiny_vectors,
    ),
    "rrclarc-images": (
        ConceptFromX(tiny_net(max_epochs=8, batch_size=8), random_state=0),
        tiny_images,
    ),
    "rrclarc-vectors": (
        ConceptFromX(tiny_net(TinyMLP), random_state=0),
        tiny_vectors,
    ),
}


@pytest.fixture(params=ESTIMATORS)
def name(request):
    return request.param


@pytest.fixture
def case(name):
    estimator, data = ESTIMATORS[name]
    return clone(estimator), *data()


def nets_of(clf):
    return [value for value in vars(clf).values() if hasattr(value, "module_")]


def methods_of(clf):
    """What takes X alone: shared by all, or for the masks of some."""
    shared = ["predict", "predict_proba", "predict_with_reject", "selection_score"]
    return shared + [name for name in ("mask", "saliency_maps") if hasattr(clf, name)]


def encoded_of(clf, X):
    return np.searchsorted(clf.classes_, clf.predict(X))


def numpy_stream():
    return np.random.get_state()[1].copy()  # noqa: NPY002


# ---------------------------------------------------------------- what fit leaves alone


def test_fit_leaves_data_parameters_and_generators_as_they_were(case):
    clf, X, y = case
    X_before, y_before, params = X.copy(), y.copy(), clf.get_params(deep=False)
    streams = numpy_stream(), torch.get_rng_state(), random.getstate()
    assert clf.fit(X, y) is clf
    np.testing.assert_array_equal(X, X_before)
    np.testing.assert_array_equal(y, y_before)
    assert all(clf.get_params(deep=False)[k] is v for k, v in params.items())
    assert not clf.estimator.initialized_
    np.testing.assert_array_equal(numpy_stream(), streams[0])
    assert torch.equal(torch.get_rng_state(), streams[1])
    assert random.getstate() == streams[2]


def test_predicting_leaves_torch_stream_and_nets_as_they_were(case):
    clf, X, y = case
    clf.fit(X, y)
    stream = torch.get_rng_state()
    before = [copy.deepcopy(net.module_.state_dict()) for net in nets_of(clf)]
    clf.predict_with_reject(X)
    clf.score(X, y)
    assert torch.equal(torch.get_rng_state(), stream)
    for net, state in zip(nets_of(clf), before, strict=True):
        for name, value in net.module_.state_dict().items():
            assert torch.equal(value, state[name]), name


def test_no_hook_gradient_or_mode_is_left_behind(case):
    clf, X, y = case
    clf.fit(X, y)
    for method in methods_of(clf):
        getattr(clf, method)(X)
    assert len(nets_of(clf)) >= 2
    for net in nets_of(clf):
        for module in net.module_.modules():
            assert not module._forward_hooks
            assert not module._backward_hooks
            assert not module.training
        for parameter in net.module_.parameters():
            assert parameter.grad is None
            assert parameter.requires_grad
        assert not net.optimizer_.state
    assert torch.is_grad_enabled()


def test_nets_know_their_classes(case):
    clf, X, y = case
    labels = np.array(["water", "land"])[y]
    clf.fit(X, labels)
    for net in nets_of(clf):
        np.testing.assert_array_equal(net.classes_, [0, 1])
    again = RejectOptionClassifier(FrozenEstimator(clf.net_), validation_fraction=0)
    encoded = np.unique(labels, return_inverse=True)[1]
    again.fit(X.astype(np.float32), encoded)
    np.testing.assert_array_equal(again.classes_[again.predict(X)], encoded_of(clf, X))


def test_module_instance_is_not_trained():
    X, y = tiny_images()
    module = TinyConvNet()
    before = copy.deepcopy(module.state_dict())
    clf = MaskTuneClassifier(tiny_net(module), random_state=0)
    first = clf.fit(X, y).predict_proba(X)
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    np.testing.assert_array_equal(clf.fit(X, y).predict_proba(X), first)


def test_silent_by_default_even_if_the_net_is_not(case, capsys):
    clf, X, y = case
    clf.set_params(estimator__verbose=1).fit(X, y)
    captured = capsys.readouterr()
    assert captured.out == captured.err == ""
    assert clf.net_.verbose == 1


# ---------------------------------------------------------------- reproducible


def test_same_seed_same_result_other_seed_other_result(case):
    clf, X, y = case
    first = clf.fit(X, y).predict_proba(X)
    torch.rand(3)
    np.testing.assert_array_equal(clone(clf).fit(X, y).predict_proba(X), first)
    other = clone(clf).set_params(random_state=1).fit(X, y).predict_proba(X)
    assert not np.array_equal(other, first)


def test_refit_forgets_an_earlier_fit():
    X, y = tiny_vectors()
    clf = MaskTuneClassifier(tiny_net(TinyMLP), random_state=0)
    frame = pd.DataFrame(X, columns=list("abcdef"))
    assert list(clf.fit(frame, y).feature_names_in_) == list("abcdef")
    assert not hasattr(clf.fit(X, y), "feature_names_in_")


# ---------------------------------------------------------------- labels and layouts


@pytest.mark.parametrize(
    "relabel",
    [
        lambda y: np.array(["water", "land"])[y],
        lambda y: np.array([-3, 70])[y],
        lambda y: y.astype(bool),
        lambda y: y.astype(np.uint8),
        lambda y: y.astype(float),
        lambda y: y.tolist(),
        lambda y: torch.from_numpy(y),
        lambda y: pd.Series(y, index=np.arange(len(y))[::-1]),
    ],
    ids=["strings", "gaps", "bool", "uint8", "floats", "list", "tensor", "series"],
)
def test_labels_of_any_kind(case, relabel):
    clf, X, y = case
    labels = relabel(y)
    plain = np.asarray(labels)
    clf.fit(X, labels)
    assert clf.classes_.dtype == np.unique(plain).dtype
    assert set(clf.predict(X)) <= set(plain)
    assert clf.score(X, plain) > 0.6
    if np.array_equal(np.unique(plain, return_inverse=True)[1], y):
        expected = clone(clf).fit(X, y).predict_proba(X)
        np.testing.assert_array_equal(clf.predict_proba(X), expected)


def test_any_layout_and_dtype_gives_the_same_result(case, tmp_path):
    clf, X, y = case
    X = np.round(X * 100).clip(0, 255)
    expected = clf.fit(X, y).predict_proba(X)
    read_only = X.copy()
    read_only.flags.writeable = False
    np.save(tmp_path / "X.npy", X)
    backwards = np.ascontiguousarray(X[..., ::-1])[..., ::-1]
    assert min(backwards.strides) < 0
    for other in (
        read_only,
        np.asfortranarray(X),
        backwards,
        np.load(tmp_path / "X.npy", mmap_mode="r"),
        X.astype(np.uint8),
        X.astype(np.float64),
        X.astype(np.int32),
        torch.from_numpy(X),
        torch.from_numpy(X).to(torch.bfloat16),
        X.tolist(),
    ):
        again = clone(clf).fit(other, y)
        np.testing.assert_array_equal(again.predict_proba(other), expected)


def test_column_vector_labels_warn():
    X, y = tiny_vectors()
    with pytest.warns(DataConversionWarning, match="column-vector"):
        MaskTuneClassifier(tiny_net(TinyMLP)).fit(X, y[:, None])


# ---------------------------------------------------------------- torch datasets


class Rows(Dataset):
    """Samples and labels as a dataset of the user's own."""

    def __init__(self, X, y, known=False):
        self.X, self.y = X, y
        if known:
            self.targets = y

    def __len__(self):
        return len(self.X)

    def __getitem__(self, i):
        return self.X[i], self.y[i]


class ItemsAsLists(Rows):
    def __getitem__(self, i):
        return [self.X[i], self.y[i]]


class OnlyX(Rows):
    def __init__(self, X):
        super().__init__(X, None)

    def __getitem__(self, i):
        return self.X[i]


def shuffled_subset(X, y):
    """All rows again, as a subset of rows in another order, with one to leave out."""
    order = np.random.default_rng(0).permutation(len(X))
    rows = Rows(np.concatenate([X[:1], X[order]]), np.r_[y[:1], y[order]], known=True)
    return Subset(rows, (np.argsort(order) + 1).tolist())


DATASETS = {
    "own class": Rows,
    "own class with targets": functools.partial(Rows, known=True),
    "targets in a list": lambda X, y: Rows(torch.from_numpy(X), y.tolist(), known=True),
    "tensors": lambda X, y: TensorDataset(torch.from_numpy(X), torch.from_numpy(y)),
    "subset": shuffled_subset,
    "subset of tensors": lambda X, y: Subset(DATASETS["tensors"](X, y), range(len(X))),
    "concatenated": lambda X, y: ConcatDataset(
        [DATASETS["tensors"](X[:20], y[:20]), Rows(X[20:], y[20:])]
    ),
    "concatenated with targets": lambda X, y: ConcatDataset(
        [Rows(X[:20], y[:20], known=True), shuffled_subset(X[20:], y[20:])]
    ),
    "uint8": lambda X, y: Rows(torch.from_numpy(X).to(torch.uint8), y),
    "uint8 arrays": lambda X, y: Rows(X.astype(np.uint8), y),
    "float64 arrays": lambda X, y: Rows(X.astype(np.float64), y),
    "items as lists": ItemsAsLists,
}


def whole_numbers(name):
    """Return an estimator and its data, with samples that uint8 can hold."""
    estimator, data = ESTIMATORS[name]
    X, y = data()
    return clone(estimator), np.round(X * 100).clip(0, 255), y


def outcome(clf, X):
    y_pred, accepted = clf.predict_with_reject(X)
    return {
        "classes": clf.classes_,
        "calibration": clf.calibration_scores_,
        "proba": clf.predict_proba(X),
        "scores": clf.selection_score(X),
        "y_pred": y_pred,
        "accepted": accepted,
    }


@functools.cache
def outcome_of_arrays(name):
    clf, X, y = whole_numbers(name)
    clf.fit(X, y)
    return outcome(clf, X) | {"score": clf.score(X, y)}


def assert_same(got, expected):
    assert got.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(got[key], value, err_msg=key)


@pytest.mark.parametrize("kind", DATASETS)
def test_a_dataset_gives_the_result_of_its_arrays(name, kind):
    clf, X, y = whole_numbers(name)
    dataset = DATASETS[kind](X, y)
    assert clf.fit(dataset) is clf
    got = outcome(clf, dataset) | {"score": clf.score(dataset)}
    assert_same(got, outcome_of_arrays(name))
    assert clf.n_features_in_ == X.shape[1]
    assert clf.input_shape_ == X.shape[1:]
    assert not hasattr(clf, "feature_names_in_")


def test_arrays_and_datasets_can_be_mixed_between_fit_and_predict(name):
    clf, X, y = whole_numbers(name)
    expected = outcome_of_arrays(name)
    clf.fit(Rows(X, y))
    assert_same(outcome(clf, X) | {"score": clf.score(X, y)}, expected)
    clf.fit(X, y)
    assert_same(outcome(clf, Rows(X, y)) | {"score": clf.score(Rows(X, y))}, expected)


def test_samples_without_labels_are_enough_to_predict(name):
    clf, X, y = whole_numbers(name)
    clf.fit(X, y)
    assert_same(
        outcome(clf, OnlyX(X)) | {"score": clf.score(OnlyX(X), y)},
        outcome_of_arrays(name),
    )
    for method in (clf.score, clf.calibrate):
        with pytest.raises(ValueError, match=r"X brings no labels\. Pass y\."):
            method(OnlyX(X))


def test_calibrate_and_score_take_the_labels_of_a_dataset(case):
    clf, X, y = case
    clf.set_params(validation_fraction=0).fit(X, y)
    expected = clone(clf).fit(X, y).calibrate(X[:30], y[:30], coverage=0.6)
    for known in (True, False):
        dataset = Rows(X[:30], y[:30], known=known)
        assert clf.calibrate(dataset, coverage=0.6) is clf
        assert clf.reject_threshold_ == expected.reject_threshold_
        np.testing.assert_array_equal(
            clf.calibration_scores_, expected.calibration_scores_
        )
        weights = np.arange(30.0)
        assert clf.score(dataset) == clf.score(X[:30], y[:30])
        assert clf.score(dataset, sample_weight=weights) == clf.score(
            X[:30], y[:30], weights
        )
        assert clf.score(dataset, 1 - y[:30]) == clf.score(X[:30], 1 - y[:30])
    with pytest.raises(ValueError, match="labels that fit did not see"):
        clf.calibrate(Rows(X, y + 5))
    with pytest.raises(ValueError, match="one label a row"):
        clf.calibrate(Rows(X, y), y[:-1])


@pytest.mark.parametrize("known", [True, False], ids=["targets", "one pass"])
def test_a_dataset_may_have_labels_of_text(case, known):
    clf, X, y = case
    names = np.array(["water", "land"])[y]
    dataset = Rows(X, names.tolist(), known=known)
    expected = clone(clf).fit(X, names)
    assert clf.fit(dataset).classes_.tolist() == ["land", "water"]
    got = outcome(clf, dataset) | {"score": clf.score(dataset)}
    assert_same(got, outcome(expected, X) | {"score": expected.score(X, names)})


@pytest.mark.parametrize("kind", ["own class with targets", "own class", "tensors"])
def test_y_beside_a_dataset_wins(name, kind):
    clf, X, y = whole_numbers(name)
    wrong = DATASETS[kind](X, np.zeros_like(y))
    clf.fit(wrong, y)
    got = outcome(clf, wrong) | {"score": clf.score(wrong, y)}
    assert_same(got, outcome_of_arrays(name))


def test_a_dataset_as_y_is_refused_with_what_to_do(case):
    clf, X, y = case
    for given in (X, Rows(X, y)):
        with pytest.raises(TypeError, match=r"got a torch Dataset \(Rows\).* as X"):
            clf.fit(given, Rows(X, y))
    clf.fit(X, y)
    for method in (clf.score, clf.calibrate):
        with pytest.raises(TypeError, match=r"got a torch Dataset \(Rows\).* as X"):
            method(X, Rows(X, y))


def test_a_dataset_without_labels_needs_y_as_an_array_does(case):
    clf, X, y = case
    for given in (X, OnlyX(X)):
        with pytest.raises(ValueError, match="requires y to be passed"):
            clf.fit(given)
        with pytest.raises(NotFittedError):
            clf.predict(X)
    expected = clone(clf).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(clf.fit(OnlyX(X), y).predict_proba(X), expected)


def test_every_method_says_not_fitted_before_it_reads_a_dataset(case):
    clf, X, y = case
    for method in ("score", "calibrate", *methods_of(clf)):
        with pytest.raises(NotFittedError):
            getattr(clf, method)(Rows(X, y))


def test_nothing_keeps_a_dataset_alive(case):
    clf, X, y = case
    dataset = Rows(X, y)
    alive = weakref.ref(dataset)
    clf.fit(dataset).predict(dataset)
    del dataset
    gc.collect()
    assert alive() is None


# ---------------------------------------------------------------- bad input


def bad_inputs():
    X, y = tiny_vectors()
    images, labels = tiny_images()
    nan, inf, huge = X.copy(), X.copy(), X.astype(np.float64)
    nan[0, 0], inf[0, 0], huge[0, 0] = np.nan, np.inf, 1e39
    return {
        "nan": (nan, y, "NaN"),
        "inf": (inf, y, "infinity"),
        "beyond float32": (huge, y, "too large for dtype"),
        "empty": (X[:0], y[:0], "0 sample"),
        "1-D": (X[:, 0], y, "1D array"),
        "3-D": (images[:, 0], labels, "channel axis"),
        "5-D": (images[None], labels[:1], "got shape"),
        "empty axis": (images[:, :, :0], labels, "empty axis|0 feature"),
        "lengths": (X, y[:-1], "inconsistent numbers of samples"),
        "continuous y": (X, y + 0.5 * X[:, 0], "Unknown label type"),
        "NaN in y": (X, np.where(y == 1, np.nan, 0), "NaN"),
        "2-D y": (X, np.c_[y, y], "y should be a 1d array"),
        "one class": (X, np.zeros_like(y), "one class"),
        "complex": (X + 0j, y, "Complex data"),
        "text": (X.astype(str), y, "bytes/strings|could not convert|real numbers"),
        "ragged": ([[1, 2], [3]], [0, 1], "inhomogeneous"),
        "no y": (X, None, "requires y"),
        "single of a class": (X, np.r_[2, y[1:]], "class 2 has 1"),
    }


@pytest.mark.parametrize("name", bad_inputs())
def test_bad_input_is_refused_before_training(name):
    X, y, message = bad_inputs()[name]
    clf = MaskTuneClassifier(tiny_net(TinyMLP, callbacks=[NeverTrain()]))
    with pytest.raises(ValueError, match=message):
        clf.fit(X, y)
    with pytest.raises(NotFittedError):
        clf.predict(X)
    assert not [name for name in vars(clf) if name.endswith("_")]


class NeverTrain(Callback):
    def on_batch_begin(self, net, **kwargs):
        raise AssertionError("trained")


def test_sparse_is_refused():
    from scipy.sparse import csr_array

    X, y = tiny_vectors()
    with pytest.raises(TypeError, match="[Ss]parse"):
        MaskTuneClassifier(tiny_net(TinyMLP)).fit(csr_array(X), y)


def test_other_shapes_are_refused_at_predict():
    X, y = tiny_images()
    clf = MaskTuneClassifier(tiny_net(), random_state=0).fit(X, y)
    for other in (X[..., :-1], X[:, :, 1:], X.transpose(0, 2, 3, 1)):
        with pytest.raises(ValueError, match="was fitted on|features"):
            clf.predict(other)
    with pytest.raises(ValueError, match="fitted on|features"):
        clf.predict(X.reshape(len(X), -1))
    with pytest.raises(ValueError, match="NaN"):
        clf.predict(X * np.nan)


def test_every_method_says_not_fitted_first(case):
    clf, X, _ = case
    for method in methods_of(clf):
        with pytest.raises(NotFittedError):
            getattr(clf, method)(X)
    with pytest.raises(NotFittedError):
        clf.calibrate(X, None)


# ---------------------------------------------------------------- interrupted


class InterruptedNet(TinyMLP):
    n_calls = 0
    stop_at = None

    def forward(self, X):
        if self.training:
            type(self).n_calls += 1
            if self.n_calls == self.stop_at:
                signal.raise_signal(signal.SIGINT)
        return super().forward(X)


@pytest.mark.parametrize("stop_at", [3, 14], ids=["ERM", "refit"])
def test_ctrl_c_in_a_stage_stops_the_fit_and_leaves_it_unfitted(stop_at):
    X, y = tiny_vectors()  # 64 rows to train on: 4 batches an epoch, 12 of ERM
    clf = MaskTuneClassifier(tiny_net(InterruptedNet), random_state=0)
    InterruptedNet.n_calls, InterruptedNet.stop_at = 0, stop_at
    try:
        with pytest.raises(KeyboardInterrupt):
            clf.fit(X, y)
        assert InterruptedNet.n_calls == stop_at
        with pytest.raises(NotFittedError):
            clf.predict(X)
        InterruptedNet.stop_at = None
        assert clf.fit(X, y).predict(X).shape == y.shape
    finally:
        InterruptedNet.stop_at = None


class Crash(Callback):
    def on_epoch_end(self, net, **kwargs):
        raise RuntimeError("crashed")


def test_crash_propagates_and_an_earlier_fit_is_gone(case):
    clf, X, y = case
    clf.fit(X, y)
    clf.set_params(estimator__callbacks=[Crash()])
    with pytest.raises(RuntimeError, match="crashed"):
        clf.fit(X, y)
    with pytest.raises(NotFittedError):
        clf.predict_proba(X)
    assert not hasattr(clf, "n_features_in_")
    clf.set_params(estimator__callbacks=None).fit(X, y).predict(X)


def test_non_finite_loss_says_where():
    X, y = tiny_vectors()
    clf = MaskTuneClassifier(tiny_net(TinyMLP, lr=1e30, optimizer=torch.optim.SGD))
    with pytest.raises(NonFiniteError, match="epoch 1 of the ERM stage"):
        clf.fit(X, y)


# ---------------------------------------------------------------- probabilities


def test_probabilities_are_float32_finite_and_sum_to_one(case):
    clf, X, y = case
    proba = clf.fit(X, y).predict_proba(X)
    assert proba.dtype == np.float32
    assert proba.shape == (len(X), 2)
    assert np.isfinite(proba).all()
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_array_equal(clf.predict(X), clf.classes_[proba.argmax(axis=1)])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        log_loss(y, proba)


def test_prediction_of_a_row_does_not_depend_on_the_others(case):
    clf, X, y = case
    clf.fit(X, y)
    alone = np.concatenate([clf.predict_proba(row[None]) for row in X])
    np.testing.assert_allclose(clf.predict_proba(X), alone, atol=1e-6)
    np.testing.assert_allclose(clf.predict_proba(X[::-1])[::-1], alone, atol=1e-6)


def test_works_under_no_grad_and_inference_mode(case):
    clf, X, y = case
    clf.fit(X, y)
    expected = {name: getattr(clf, name)(X) for name in methods_of(clf)}
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            for name, value in expected.items():
                np.testing.assert_equal(getattr(clf, name)(X), value)
            assert not torch.is_grad_enabled()


# ---------------------------------------------------------------- rejection


def test_accepted_labels_are_those_of_predict(case):
    clf, X, y = case
    y_pred, accepted = clf.fit(X, y).predict_with_reject(X)
    np.testing.assert_array_equal(y_pred, clf.predict(X))
    assert accepted.dtype == bool
    assert y_pred.dtype == clf.classes_.dtype
    again = clf.predict_with_reject(X)[1]
    np.testing.assert_array_equal(accepted, again)


def test_coverage_one_accepts_everything(case):
    clf, X, y = case
    assert clf.fit(X, y).predict_with_reject(X, coverage=1)[1].all()
    clf.set_params(coverage=1.0, validation_fraction=0).fit(X, y)
    assert clf.predict_with_reject(X)[1].all()


def test_threshold_comes_from_calibration_never_from_x(case):
    clf, X, y = case
    clf.fit(X, y)
    scores = clf.calibration_scores_
    for coverage in (0.2, 0.5, 0.9):
        accepted = scores >= clf._threshold_for(coverage)
        assert accepted.mean() >= coverage
    _, accepted = clf.predict_with_reject(X, coverage=0.5)
    surest = np.argsort(clf.selection_score(X))[-5:]
    np.testing.assert_array_equal(
        clf.predict_with_reject(X[surest], coverage=0.5)[1], accepted[surest]
    )


def test_calibrate_replaces_the_threshold(case):
    clf, X, y = case
    clf.set_params(validation_fraction=0).fit(X, y)
    assert clf.reject_threshold_ is None
    with pytest.raises(ValueError, match=r"calibrate\(X, y\)"):
        clf.predict_with_reject(X)
    with pytest.raises(ValueError, match=r"calibrate\(X, y\)"):
        clf.predict_with_reject(X, coverage=0.8)
    assert clf.predict_with_reject(X, threshold=-2.0)[1].all()
    assert clf.calibrate(X, y, coverage=0.7) is clf
    share = clf.predict_with_reject(X)[1].mean()
    assert 0.7 <= share < 0.8
    assert clf.predict_with_reject(X, coverage=0.3)[1].mean() >= 0.3
    with pytest.raises(ValueError, match="labels that fit did not see"):
        clf.calibrate(X, y + 5)
    with pytest.raises(ValueError, match="one label a row"):
        clf.calibrate(X, y[:-1])
    for coverage in (0, 1.5, np.nan, "all"):
        with pytest.raises(ValueError, match=r"coverage must be in \(0, 1\]"):
            clf.calibrate(X, y, coverage=coverage)
    with pytest.raises(ValueError, match="not both"):
        clf.predict_with_reject(X, coverage=0.5, threshold=0.1)
    with pytest.raises(ValueError, match="threshold=nan"):
        clf.predict_with_reject(X, threshold=np.nan)


# ---------------------------------------------------------------- persistence


def round_trips(clf):
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        yield pickle.loads(pickle.dumps(clf, protocol))
    yield copy.deepcopy(clf)
    for compress in (0, 3):
        file = io.BytesIO()
        joblib.dump(clf, file, compress=compress)
        file.seek(0)
        yield joblib.load(file)


def test_copies_predict_the_same_and_train_on_their_own(case):
    clf, X, y = case
    proba, scores = clf.fit(X, y).predict_proba(X), clf.selection_score(X)
    for loaded in round_trips(clf):
        np.testing.assert_array_equal(loaded.predict_proba(X), proba)
        np.testing.assert_array_equal(loaded.selection_score(X), scores)
    loaded.set_params(random_state=3).fit(X, y)
    np.testing.assert_array_equal(clf.predict_proba(X), proba)


def answers(estimator, X):
    """Probabilities and rejections, of an estimator or of a searched pipeline."""
    proba = estimator.predict_proba(X)
    if isinstance(estimator, GridSearchCV):
        *_, last = estimator.best_estimator_
        estimator, X = last, estimator.best_estimator_[:-1].transform(X)
    return {"proba": proba, "accepted": estimator.predict_with_reject(X)[1]}


def test_all_load_in_another_process(tmp_path):
    X, y = tiny_images()
    pipeline = make_pipeline(
        FunctionTransformer(add_channel_axis), clone(ESTIMATORS["masktune-images"][0])
    )
    grid = {"masktuneclassifier__mask_threshold": [0.1, 0.2]}
    # A search pickles whole.
    fitted = [(GridSearchCV(pipeline, grid, cv=2).fit(X[:, 0], y), X[:, 0])]
    for estimator, data in ESTIMATORS.values():
        X, y = data()
        fitted.append((clone(estimator).fit(X, y), X))
    joblib.dump(fitted, tmp_path / "fitted.joblib")
    # One process for all: to start it takes longer than the rest.
    script = (
        "import sys, joblib, torch; torch.set_num_threads(1)\n"
        "fitted = joblib.load(sys.argv[1])\n"
        "from tests.test_contract import answers\n"
        "joblib.dump([answers(*pair) for pair in fitted], sys.argv[2])"
    )
    paths = str(tmp_path / "fitted.joblib"), str(tmp_path / "out.joblib")
    subprocess.run([sys.executable, "-c", script, *paths], check=True, cwd=ROOT)
    for out, pair in zip(joblib.load(paths[1]), fitted, strict=True):
        expected = answers(*pair)
        for name in ("proba", "accepted"):
            np.testing.assert_array_equal(out[name], expected[name])


def test_other_versions_warn_and_name_the_package(case):
    clf, X, y = case
    state = clf.fit(X, y).__getstate__()
    assert set(state["_versions"]) == {"masktune_sk", "torch", "skorch", "scikit-learn"}
    state["_versions"]["torch"] = "1.0"
    with pytest.warns(InconsistentVersionWarning, match=r"torch 1.0 \(now"):
        clone(clf).__setstate__(state)
    assert "_versions" not in vars(pickle.loads(pickle.dumps(clf)))


def test_clone_of_a_fitted_estimator_is_unfitted(case):
    clf, X, y = case
    with pytest.raises(NotFittedError):
        clone(clf.fit(X, y)).predict(X)


def test_nothing_keeps_the_training_data_alive(name):
    clf, (X, y) = clone(ESTIMATORS[name][0]), ESTIMATORS[name][1]()
    alive = weakref.ref(X)
    clf.fit(X, y)
    del X
    gc.collect()
    assert alive() is None


# ---------------------------------------------------------------- ecosystem


def own_grid(clf):
    if isinstance(clf, MaskTuneClassifier):
        return {"mask_threshold": [clf.mask_threshold, 2 * clf.mask_threshold]}
    if isinstance(clf, DeNetDMClassifier):
        return {"temperature": [1.0, 2.0]}
    return {"penalty_weight": [0.1, 0.2]}


def test_grid_search_over_every_level_equals_with_two_processes(case):
    clf, X, y = case
    grid = {
        **own_grid(clf),
        "estimator__lr": [0.02],
        "estimator__module__width": [4],
    }
    with joblib.parallel_config("loky", inner_max_num_threads=1):
        one, two = (
            GridSearchCV(clf, grid, cv=2, n_jobs=n_jobs).fit(X, y) for n_jobs in (1, 2)
        )
    np.testing.assert_array_equal(
        one.cv_results_["mean_test_score"], two.cv_results_["mean_test_score"]
    )
    np.testing.assert_array_equal(one.predict_proba(X), two.predict_proba(X))


def test_meta_estimators_take_it(case):
    clf, X, y = case
    assert cross_val_score(clf, X, y, cv=2).shape == (2,)
    assert cross_val_predict(clf, X, y, cv=2, method="predict_proba").shape == (
        len(X),
        2,
    )
    VotingClassifier([("a", clf), ("b", clone(clf))], voting="soft").fit(X, y).predict(
        X
    )
    CalibratedClassifierCV(clf, cv=2).fit(X, y).predict_proba(X)
    fitted = clone(clf).fit(X, y)
    frozen = FrozenEstimator(fitted)
    np.testing.assert_array_equal(frozen.predict(X), fitted.predict(X))


def test_pandas_output_upstream_is_fine():
    X, y = tiny_vectors()
    scaler = StandardScaler().set_output(transform="pandas")
    pipeline = make_pipeline(
        scaler, MaskTuneClassifier(tiny_net(TinyMLP), random_state=0)
    )
    frame = pd.DataFrame(X, columns=list("abcdef"))
    assert pipeline.fit(frame, y).score(frame, y) > 0.6
    with pytest.raises(ValueError, match="feature names"):
        pipeline[-1].predict(frame[list("bacdef")])
