"""Tests of `memory`: a stage that is done is found again, and no other is."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from joblib import Memory
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.metrics import log_loss
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from skorch.callbacks import Callback, EarlyStopping, LRScheduler
from skorch.helper import predefined_split
from torch import nn
from torch.utils.data import Dataset, TensorDataset

from masktune_sk import MaskTuneClassifier
from masktune_sk.data import DatasetView
from masktune_sk.exceptions import FrozenNetWarning, StageCacheWarning
from masktune_sk.saliency import XGradCAM
from tests.nets import TinyConvNet, add_channel_axis, tiny_images, tiny_net

ROOT = Path(__file__).parents[1]

# One import for several processes, of which none has computed anything before.
PROCESSES = """
import json, os, sys
from tests import test_memory
for arguments in json.loads(sys.argv[2]):
    process = os.fork()
    if process == 0:
        getattr(test_memory, sys.argv[1])(*arguments)
        sys.stdout.flush()
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), flush=True)
"""
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

USER_CODE = """
from torch import nn


class UserNet(nn.Module):
    def __init__(self, width=3):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, width, 3, padding=1), nn.ReLU())
        self.head = nn.Linear(width, 2)

    def forward(self, X):
        # The mean of each channel.
        return self.head(self.features(X).mean(dim=(2, 3)))
"""


# ---------------------------------------------------------------- counting


def note(log, what):
    """Write down what is done, and die where the test asked for it."""
    with open(log, "a") as file:
        file.write(f"{what}\n")
    order = Path(f"{log}.kill")
    times = Path(log).read_text().splitlines().count(what)
    if order.exists() and f"{what} {times}" in order.read_text().splitlines():
        os.kill(os.getpid(), signal.SIGKILL)


class CountERM(Callback):
    """Note each ERM training: the user's callbacks are called in no other."""

    def __init__(self, log):
        self.log = log

    def on_train_begin(self, net, **kwargs):
        note(self.log, "ERM")


class CountedCAM(XGradCAM):
    """Note of how many samples maps are computed; of 8 before a training."""

    def __init__(self, log):
        self.log = log

    def explain(self, net, X, target=None, layer=None):
        note(self.log, f"maps of {len(X)}")
        return super().explain(net, X, target, layer)


class SquaredCAM(CountedCAM):
    def explain(self, net, X, target=None, layer=None):
        return super().explain(net, X, target, layer) ** 2


class Score:
    """The log-likelihood, which any other weight changes."""

    def __init__(self, log):
        self.log = log

    def __call__(self, estimator, X, y):
        note(self.log, "score")
        return -log_loss(y, estimator.predict_proba(X))


class Bench:
    """Estimators of one memory that count their stages in one file."""

    def __init__(self, log, memory):
        self.log, self.memory = str(log), memory

    def net(self, module=TinyConvNet, **params):
        defaults = {
            "max_epochs": 2,
            "iterator_valid__batch_size": 64,
            "callbacks": [("count", CountERM(self.log))],
        }
        if not isinstance(module, nn.Module):
            defaults["module__width"] = 3
        return tiny_net(module, **(defaults | params))

    def estimator(self, **params):
        defaults = {
            "estimator": self.net(),
            "saliency": CountedCAM(self.log),
            "threshold_rule": "quantile",
            "mask_threshold": 0.1,
            "memory": self.memory,
            "store_maps": True,
            "random_state": 0,
        }
        return MaskTuneClassifier(**(defaults | params))

    def fit(self, X=None, y=None, **params):
        if X is None:
            X, y = images()
        return self.estimator(**params).fit(X, y)

    def search(self, **params):
        grid = {"mask_threshold": [0.05, 0.1, 0.2]}
        return GridSearchCV(
            self.estimator(store_maps=False),
            grid,
            **({"cv": 2, "scoring": Score(self.log)} | params),
        )

    def done(self):
        """Return how often ERM was trained and maps were computed since last asked."""
        path = Path(self.log)
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        maps = [line for line in lines if line[:4] == "maps" and line != "maps of 8"]
        return lines.count("ERM"), len(maps)


def images():
    return tiny_images(n=60, size=8)


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path / "log", tmp_path / "memory")


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """Don't write into it: the memory after one fit, where the log is, and the fit."""
    folder = tmp_path_factory.mktemp("stored")
    bench = Bench(folder / "log", folder / "memory")
    return bench, bench.fit()


@pytest.fixture
def warm(stored, tmp_path):
    """A copy of a memory that one fit has filled."""
    bench, _ = stored
    bench.done()
    shutil.copytree(bench.memory, tmp_path / "memory")
    return Bench(bench.log, tmp_path / "memory")


@pytest.fixture
def run(tmp_path):
    """Call a function of this module once for each list of arguments.

    Each call has a process of its own; the exit codes are returned.
    """

    def run(function, *calls):
        done = subprocess.run(
            [sys.executable, "-c", PROCESSES, function.__name__, json.dumps(calls)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "7"},
            check=True,
            stdout=subprocess.PIPE,
            text=True,
        )
        return [int(code) for code in done.stdout.split()]

    return run


def entries(memory, stage="*"):
    return sorted(Path(memory).rglob(f"masktune_sk/{stage}/*/output.pkl"))


def without_times(history):
    return [{k: v for k, v in row.items() if k != "dur"} for row in history]


def assert_same(one, other):
    """Compare two fits, to the last bit."""
    X, _ = images()
    for name in ("net_", "erm_net_"):
        nets = getattr(one, name), getattr(other, name)
        np.testing.assert_array_equal(*(net.predict_proba(X) for net in nets))
    for name in (
        "calibration_scores_",
        "train_indices_",
        "mask_fill_",
        "maps_",
        "classes_",
    ):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert without_times(one.history_) == without_times(other.history_)
    for name in (
        "masked_fraction_",
        "n_empty_masks_",
        "reject_threshold_",
        "holdout_accuracy_",
        "layer_",
    ):
        assert getattr(one, name) == getattr(other, name)


# ---------------------------------------------------------------- the same result


def halved(x):
    return x / 2


def schedule():
    return LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"mask_from": "best"},
        {"masking": "random"},
        {"masking": "none", "store_maps": False},
        {"n_mask_rounds": 2},
        {"n_mask_rounds": 2, "accumulate_masks": False},
        {"saliency_target": "true"},
        {"saliency": "input_gradient"},
        {"saliency": "auto", "precision": "bf16"},
        {"validation_fraction": 0, "coverage": 1},
        {"augment": halved, "refit_optimizer": "fresh"},
        {"mask_fill": "mean", "refit_lr": 0.1, "refit_epochs": 2},
    ],
    ids=lambda params: "-".join(map(str, params.values())),
)
def test_what_is_found_gives_the_same_result(params, bench):
    alone = bench.fit(memory=None, **params)
    assert bench.done()[0] == 1
    first = bench.fit(**params)
    assert bench.done()[0] == 1
    again = bench.fit(**params)
    assert bench.done()[0] == 0
    for clf in (alone, first, again):
        clf.maps_ = getattr(clf, "maps_", None)
    assert_same(first, alone)
    assert_same(again, alone)
    assert again.history_[0]["dur"] == first.history_[0]["dur"]


@pytest.mark.parametrize(
    "params",
    [
        {"callbacks": [("stop", EarlyStopping("train_loss", patience=1))], "lr": 0.5},
        {"callbacks": [("rate", schedule())]},
        {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9},
        {"criterion__weight": torch.tensor([1.0, 3.0])},
        {"train_split": None, "iterator_train__drop_last": True},
    ],
    ids=lambda params: "-".join(params),
)
def test_nets_of_many_kinds_are_found_as_they_were(params, bench):
    net = bench.net(**(params | {"max_epochs": 4}))
    net.callbacks = [*net.callbacks, ("counting", CountERM(bench.log))]
    alone = bench.fit(estimator=net, memory=None)
    bench.fit(estimator=net)
    bench.done()
    assert_same(bench.fit(estimator=net), alone)
    assert bench.done() == (0, 0)


@pytest.mark.parametrize("options", [{"compress": True}, {"mmap_mode": "r"}], ids=str)
def test_joblibs_options_change_no_result(options, bench, stored):
    _, alone = stored
    memory = Memory(bench.memory, verbose=0, **options)
    bench.fit(memory=memory)
    assert bench.done() == (1, 1)
    found = bench.fit(memory=memory)
    assert bench.done() == (0, 0)
    assert_same(found, alone)
    # A fitted estimator does not need the memory any more.
    copied = pickle.dumps(found)
    shutil.rmtree(bench.memory)
    assert_same(pickle.loads(copied), alone)


def test_a_fit_does_not_change_what_is_stored(warm):
    before = [path.read_bytes() for path in entries(warm.memory)]
    warm.fit(refit_lr=0.5, refit_epochs=3, masking="random", n_mask_rounds=3)
    assert [path.read_bytes() for path in entries(warm.memory)] == before


# ---------------------------------------------------------------- what is found


@pytest.mark.parametrize(
    "params",
    [
        {},
        {"mask_threshold": 0.3},
        {"threshold_rule": "sigma", "mask_threshold": 1.0},
        {"mask_fill": 0.5},
        {"mask_fill": "mean"},
        {"masking": "random"},
        {"refit_epochs": 2},
        {"refit_epochs": 0},
        {"refit_lr": 0.1},
        {"refit_optimizer": "fresh"},
        {"coverage": 0.5},
        {"rejection": "erm"},
        {"store_maps": False},
        {"accumulate_masks": False},
        {"random_state": np.random.RandomState(0)},
    ],
    ids=str,
)
def test_what_does_not_touch_erm_and_the_maps_finds_both(params, warm):
    warm.fit(**params)
    assert warm.done() == (0, 0)


def test_without_masking_no_maps_are_asked_for(bench):
    bench.fit(masking="none", store_maps=False)
    assert bench.done() == (1, 0)
    bench.fit()
    assert bench.done() == (0, 1)


def test_later_rounds_find_erm_and_the_first_maps(warm):
    warm.fit(n_mask_rounds=2)
    assert warm.done() == (0, 1)
    warm.fit(n_mask_rounds=3)
    assert warm.done() == (0, 2)


@pytest.mark.parametrize("verbose", [0, 1, 2])
def test_what_is_found_is_said_on_demand(verbose, warm, capsys):
    warm.fit(verbose=verbose)
    assert warm.done() == (0, 0)
    found = [x for x in capsys.readouterr().out.splitlines() if "in memory" in x]
    assert found == (["ERM: found in memory", "maps: found in memory"] * (verbose > 0))


def test_what_a_net_prints_does_not_count(warm):
    warm.fit(estimator=warm.net(verbose=1))
    assert warm.done() == (0, 0)


def memmapped(X, folder):
    np.save(folder / "X.npy", X)
    return np.load(folder / "X.npy", mmap_mode="r")


FORMS = {
    "Fortran order": lambda X, folder: np.asfortranarray(X),
    "strides": lambda X, folder: np.repeat(X, 2, axis=0)[::2],
    "memmap": memmapped,
    "list": lambda X, folder: X.tolist(),
    "tensor": lambda X, folder: torch.from_numpy(X),
    "float64": lambda X, folder: X.astype(np.float64),
    "view": lambda X, folder: DatasetView(X),
    "view of a part": lambda X, folder: DatasetView(np.concatenate([X, X]))[len(X) :],
    "channel axis put in": lambda X, folder: X[:, 0][:, None],
}


@pytest.mark.parametrize("form", FORMS)
def test_the_same_values_are_found_in_any_form(form, warm, tmp_path):
    X, y = images()
    warm.fit(FORMS[form](X, tmp_path), y)
    assert warm.done() == (0, 0)


@pytest.mark.parametrize("form", FORMS)
def test_the_form_of_the_samples_changes_no_result(form, bench, stored, tmp_path):
    # or what is found would not be what this fit would have trained
    X, y = images()
    assert_same(bench.fit(FORMS[form](X, tmp_path), y, memory=None), stored[1])


class Pairs(Dataset):
    def __init__(self, X, y):
        self.X, self.y = X, y

    def __len__(self):
        return len(self.y)

    def __getitem__(self, i):
        return torch.from_numpy(self.X[i]), int(self.y[i])


@pytest.mark.parametrize("view", [False, True])
@pytest.mark.parametrize("kind", ["pairs", "tensors"])
def test_the_samples_of_a_dataset_are_found(kind, view, warm, stored):
    X, y = images()
    dataset = Pairs(X, y)
    if kind == "tensors":
        dataset = TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    clf = warm.fit(DatasetView(dataset) if view else dataset)
    assert warm.done() == (0, 0)
    assert_same(clf, stored[1])


def test_names_of_classes_do_not_count(warm, stored):
    X, y = images()
    clf = warm.fit(X, np.where(y == 1, "yes", "no"))
    assert warm.done() == (0, 0)
    assert clf.classes_.tolist() == ["no", "yes"]
    clf.classes_ = stored[1].classes_
    assert_same(clf, stored[1])


# ---------------------------------------------------------------- what is not


def negated(x):
    return -x


@pytest.mark.parametrize(
    "params",
    [
        {"random_state": 1},
        {"validation_fraction": 0.25},
        {"validation_fraction": 0},
        {"augment": halved},
        {"precision": "bf16"},
        {"mask_from": "best"},
    ],
    ids=str,
)
def test_another_parameter_of_erm_trains_anew(params, warm):
    if params.get("validation_fraction") == 0:
        params = params | {"coverage": 1}
    for done in [(1, 1), (0, 0)]:
        warm.fit(**params)
        assert warm.done() == done
    # and does not hide the first one
    warm.fit()
    assert warm.done() == (0, 0)


@pytest.mark.parametrize(
    "params",
    [
        {"lr": 0.02},
        {"max_epochs": 3},
        {"batch_size": 12},
        {"module__width": 4},
        {"criterion__weight": torch.tensor([1.0, 2.0])},
        {"criterion__label_smoothing": 0.1},
        {"optimizer": torch.optim.SGD},
        {"optimizer__weight_decay": 0.1},
        {"optimizer__param_groups": [("head.*", {"lr": 0.1})]},
        {"iterator_train__shuffle": False},
        {"iterator_train__drop_last": True},
        {"callbacks__count": None},
    ],
    ids=lambda params: "-".join(params),
)
def test_another_net_trains_anew(params, warm):
    with_another = [("another", CountERM(warm.log))]
    if "callbacks__count" in params:
        params = {"callbacks": with_another}
    for done in [(1, 1), (0, 0)]:
        warm.fit(estimator=warm.net(**params))
        assert warm.done() == done


def test_weights_of_a_criterion_count_by_their_values(bench):
    for weight, trained in [([1.0, 2.0], 1), ([1.0, 2.0], 0), ([1.0, 2.5], 1)]:
        net = bench.net(criterion__weight=torch.tensor(weight))
        bench.fit(estimator=net)
        assert bench.done() == (trained, trained)


def another_value(X, y, held):
    X[40, 0, 3, 3] += 1e-3


def another_value_held_out(X, y, held):
    X[held, 0, 3, 3] += 1e-3


def another_label(X, y, held):
    y[40] = 1 - y[40]


def another_label_held_out(X, y, held):
    y[held] = 1 - y[held]


def another_order(X, y, held):
    X[[4, 6]], y[[4, 6]] = X[[6, 4]], y[[6, 4]]


@pytest.mark.parametrize(
    "change",
    [
        another_value,
        another_value_held_out,
        another_label,
        another_label_held_out,
        another_order,
    ],
)
def test_other_data_train_anew(change, warm, stored):
    X, y = (array.copy() for array in images())
    held = np.setdiff1d(np.arange(len(X)), stored[1].train_indices_)
    change(X, y, held[:1])
    clf = warm.fit(X, y)
    assert warm.done() == (1, 1)
    assert_same(clf, warm.fit(X, y, memory=None))


def test_another_augmentation_trains_anew(bench):
    for augment, trained in [(halved, 1), (halved, 0), (negated, 1), (None, 1)]:
        bench.fit(augment=augment)
        assert bench.done() == (trained, trained)


def test_other_samples_of_a_validation_set_of_ones_own_train_anew(bench):
    X, y = images()
    held = torch.from_numpy(X[:10])
    for shift, trained in [(0, 1), (0, 0), (1, 1)]:
        dataset = TensorDataset(held + shift, torch.from_numpy(y[:10]))
        net = bench.net(train_split=predefined_split(dataset))
        bench.fit(X, y, estimator=net, validation_fraction=0, coverage=1)
        assert bench.done() == (trained, trained)


@pytest.mark.parametrize(
    "params",
    [{"saliency_target": "true"}, {"target_layer": "features.2"}],
    ids=str,
)
def test_another_way_to_look_finds_erm_alone(params, warm):
    for done in [(0, 1), (0, 0)]:
        warm.fit(**params)
        assert warm.done() == done


def test_another_saliency_finds_erm_alone(warm):
    for done in [(0, 1), (0, 0)]:
        warm.fit(saliency=SquaredCAM(warm.log))
        assert warm.done() == done
    # These count no maps, but store them.
    n_stored = len(entries(warm.memory, "maps"))
    for saliency in ("gradcam", "input_gradient", "gradcam"):
        warm.fit(saliency=saliency)
    assert len(entries(warm.memory, "maps")) == n_stored + 2
    assert warm.done() == (0, 0)


def test_maps_of_the_best_epoch_are_not_those_of_the_last(bench):
    X, y = images()
    net = bench.net(lr=0.03, max_epochs=4)
    last = bench.fit(X, y, estimator=net)
    assert bench.done() == (1, 1)
    best = bench.fit(X, y, estimator=net, mask_from="best")
    assert bench.done() == (1, 1)
    assert not np.array_equal(best.maps_, last.maps_)
    assert_same(best, bench.fit(X, y, estimator=net, mask_from="best", memory=None))
    assert_same(last, bench.fit(X, y, estimator=net, memory=None))


def test_without_a_seed_nothing_is_stored(bench):
    for _ in range(2):
        bench.fit(random_state=None)
        assert bench.done() == (1, 1)
    assert entries(bench.memory) == []


def test_a_random_state_that_is_drawn_from_is_another(bench):
    random = np.random.RandomState(0)
    for done in [(1, 1), (1, 1)]:
        bench.fit(random_state=random)
        assert bench.done() == done
    bench.fit(random_state=np.random.RandomState(0))
    assert bench.done() == (0, 0)


# ---------------------------------------------------------------- module instances


def instance(seed=0):
    torch.manual_seed(seed)
    return TinyConvNet(width=3)


def test_a_module_instance_counts_by_its_weights(bench):
    module = instance()
    first = bench.fit(estimator=bench.net(module))
    assert bench.done() == (1, 1)
    equal = instance(seed=4)
    equal.load_state_dict(module.state_dict())
    for other in (module, instance(), equal):
        assert_same(bench.fit(estimator=bench.net(other)), first)
        assert bench.done() == (0, 0)
    with torch.no_grad():
        equal.head.weight[1, 2] += 1e-4
    for done in [(1, 1), (0, 0)]:
        bench.fit(estimator=bench.net(equal))
        assert bench.done() == done


def fit_an_instance(log, memory):
    bench = Bench(log, memory)
    bench.fit(estimator=bench.net(instance()))


@needs_fork
def test_a_module_instance_is_found_by_another_process(bench, run):
    fit_an_instance(bench.log, bench.memory)
    assert bench.done() == (1, 1)
    assert run(fit_an_instance, [bench.log, str(bench.memory)]) == [0]
    assert bench.done() == (0, 0)


def fit_a_module_of_a_file(log, memory, folder, code):
    sys.dont_write_bytecode = True
    sys.path.insert(0, folder)
    Path(folder, "user_net.py").write_text(code)
    import user_net

    bench = Bench(log, memory)
    bench.fit(estimator=bench.net(user_net.UserNet))
    note(log, "end")


def edited(old, new):
    assert USER_CODE.count(old) == 1
    return USER_CODE.replace(old, new)


@needs_fork
def test_an_edit_of_the_users_module_trains_anew_but_not_one_of_a_comment(
    bench, run, tmp_path
):
    codes = [
        USER_CODE,
        edited("# The mean of each channel.", "# One number for each channel.\n"),
        edited(".mean(dim=(2, 3))", ".amax(dim=(2, 3))"),
        USER_CODE,
    ]
    calls = [[bench.log, str(bench.memory), str(tmp_path), code] for code in codes]
    assert run(fit_a_module_of_a_file, *calls) == [0] * 4
    lines = Path(bench.log).read_text().splitlines()
    runs = "\n".join(line for line in lines if line != "maps of 8").split("end")
    assert [run.split("\n").count("ERM") for run in runs] == [1, 0, 1, 0, 0]
    assert ["maps of" in run for run in runs] == [True, False, True, False, False]


def test_a_class_that_is_no_global_name_is_found(bench):
    def make(width):
        class Local(TinyConvNet):
            def forward(self, X):
                return width * super().forward(X)

        return Local

    for width, trained in [(2, 1), (2, 0), (3, 1)]:
        bench.fit(estimator=bench.net(make(width)))
        assert bench.done() == (trained, trained)


# ---------------------------------------------------------------- frozen nets


def test_maps_of_a_frozen_net_are_found(bench):
    X, y = images()
    net = bench.net().fit(X, y)
    bench.done()
    params = {"estimator": FrozenEstimator(net), "validation_fraction": 0}
    alone, first, again = (
        bench.fit(X, y, coverage=1, memory=memory, **params)
        for memory in (None, bench.memory, bench.memory)
    )
    assert bench.done() == (0, 2)
    assert_same(first, alone)
    assert_same(again, alone)
    copied = {"estimator": FrozenEstimator(pickle.loads(pickle.dumps(net)))}
    bench.fit(X, y, coverage=1, **(params | copied))
    assert bench.done() == (0, 0)
    with torch.no_grad():
        net.module_.head.bias[0] += 0.1
    bench.fit(X, y, coverage=1, **params)
    assert bench.done() == (0, 1)


def test_a_frozen_net_with_a_hold_out_finds_its_maps(bench):
    X, y = images()
    net = bench.net().fit(X, y)
    bench.done()
    for done in [(0, 1), (0, 0)]:
        with pytest.warns(FrozenNetWarning, match="may have been trained on the rows"):
            bench.fit(X, y, estimator=FrozenEstimator(net))
        assert bench.done() == done


# ---------------------------------------------------------------- searches


def results(search):
    """Return what a search found; numbers of time aside."""
    X, _ = images()
    columns = search.cv_results_
    scores = {k: v.tolist() for k, v in columns.items() if "test_score" in k}
    proba = search.best_estimator_.predict_proba(X)
    return {"scores": scores, "best": search.best_params_, "proba": proba.tolist()}


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """What a search without a memory finds, and how often it trains."""
    bench = Bench(tmp_path_factory.mktemp("searched") / "log", None)
    found = results(bench.search().fit(*images()))
    return found, bench.done()


def test_a_search_trains_erm_once_a_fold(bench, searched):
    expected, without = searched
    assert without == (7, 7)
    search = bench.search().fit(*images())
    assert bench.done() == (3, 3)
    assert results(search) == expected
    assert len(set(expected["scores"]["mean_test_score"])) == 3
    bench.search().fit(*images())
    assert bench.done() == (0, 0)


def test_a_search_in_parallel_trains_erm_once_a_fold(bench, searched):
    search = bench.search(n_jobs=2).fit(*images())
    assert bench.done() == (3, 3)
    assert results(search) == searched[0]


def test_of_two_workers_that_ask_for_one_fold_one_trains(bench):
    fold = [(np.arange(30), np.arange(30, 60))]
    search = bench.search(cv=fold, n_jobs=2, refit=False).fit(*images())
    assert bench.done() == (1, 1)
    alone = bench.search(cv=fold, refit=False).set_params(estimator__memory=None)
    np.testing.assert_array_equal(
        search.cv_results_["mean_test_score"],
        alone.fit(*images()).cv_results_["mean_test_score"],
    )


def test_a_search_over_a_pipeline_trains_erm_once_a_fold(bench):
    X, y = images()
    scores = []
    for memory, done in [(None, (7, 7)), (bench.memory, (3, 3))]:
        axis = FunctionTransformer(add_channel_axis)
        clf = bench.estimator(memory=memory)
        grid = {"clf__mask_threshold": [0.05, 0.1, 0.2]}
        search = GridSearchCV(
            Pipeline([("axis", axis), ("clf", clf)]),
            grid,
            cv=2,
            scoring=Score(bench.log),
        )
        search.fit(X[:, 0], y)
        assert bench.done() == done
        scores.append(search.cv_results_["mean_test_score"].tolist())
    assert scores[0] == scores[1]


def search_to_a_file(log, memory, path):
    search = Bench(log, memory).search().fit(*images())
    Path(path).write_text(json.dumps(results(search)))


@needs_fork
def test_a_search_that_was_killed_goes_on(bench, run, tmp_path, searched):
    # In the training of the second fold, and later after the third of all scores of
    # the run: two thresholds were scored on the first fold then.
    Path(f"{bench.log}.kill").write_text("ERM 2\nscore 4\n")
    call = [bench.log, str(bench.memory), str(tmp_path / "results")]
    assert run(search_to_a_file, call, call, call) == [-9, -9, 0]
    assert json.loads((tmp_path / "results").read_text()) == searched[0]
    lines = Path(bench.log).read_text().splitlines()
    assert lines.count("score") == 1 + 3 + 6
    # The one that was killed is trained again, and nothing that was done.
    assert bench.done() == (3 + 1, 3)
    assert list(Path(bench.memory).rglob("*.lease*")) == []


# ---------------------------------------------------------------- trouble


@pytest.mark.parametrize("stage", ["ERM", "maps"])
def test_a_damaged_entry_is_computed_again(stage, warm, stored):
    (path,) = entries(warm.memory, stage)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.warns(StageCacheWarning, match=f"result of the {stage} stage can't be"):
        clf = warm.fit()
    assert warm.done() == ((1, 0) if stage == "ERM" else (0, 1))
    assert_same(clf, stored[1])
    assert_same(warm.fit(), stored[1])
    assert warm.done() == (0, 0)


class Locked(CountERM):
    """All of its kind share a lock, which nothing can hash."""

    lock = threading.Lock()


def test_a_net_that_can_not_be_hashed_is_trained_each_time(bench, stored):
    net = bench.net(callbacks=[("locked", Locked(bench.log))])
    for _ in range(2):
        with pytest.warns(
            StageCacheWarning, match=r"not stored: can't hash a '_thread\.lock'"
        ) as caught:
            clf = bench.fit(estimator=net)
        assert len(caught) == 1
        assert bench.done() == (1, 1)
        assert_same(clf, stored[1])
    assert entries(bench.memory) == []


def test_a_saliency_that_can_not_be_hashed_finds_erm(warm, stored):
    lock = threading.Lock()

    def look(net, X, target):
        with lock:
            return X.mean(dim=1).abs()

    for _ in range(2):
        with pytest.warns(StageCacheWarning, match="not stored: can't hash a '_thread"):
            warm.fit(saliency=look)
        assert warm.done() == (0, 0)
    assert len(entries(warm.memory, "maps")) == 1


def test_an_error_in_training_stores_nothing(bench):
    def fail(x):
        raise ValueError("can't augment")

    with pytest.raises(ValueError, match="can't augment"):
        bench.fit(augment=fail)
    assert entries(bench.memory) == []
    assert list(Path(bench.memory).rglob("*.lease*")) == []


@pytest.mark.parametrize("kind", [str, Path])
def test_a_memory_that_can_not_be_written_is_refused_before_training(kind, bench):
    Path(bench.log).with_name("file").touch()
    below = Path(bench.log).with_name("file") / "memory"
    clf = bench.estimator(memory=kind(below))
    with pytest.raises(ValueError, match="Nothing can be stored in memory="):
        clf.fit(*images())
    assert not Path(bench.log).exists()
    assert not hasattr(clf, "classes_")


def test_a_memory_of_another_type_is_refused_before_training(bench):
    with pytest.raises(TypeError, match="memory must be a path, .* of type int"):
        bench.fit(memory=3)
    assert not Path(bench.log).exists()


# ---------------------------------------------------------------- the parameter


@pytest.mark.parametrize("kind", [str, Path, lambda path: Memory(path, verbose=0)])
def test_memory_is_a_parameter_like_any_other(kind, bench):
    memory = kind(bench.memory)
    clf = bench.fit(memory=memory)
    assert bench.done() == (1, 1)
    assert clf.memory is memory
    assert clf.get_params()["memory"] is memory
    for copied in (clone(clf), pickle.loads(pickle.dumps(clf)), clone(clone(clf))):
        assert type(copied.memory) is type(memory)
        copied.fit(*images())
        assert bench.done() == (0, 0)
    copied.set_params(memory=None).fit(*images())
    assert bench.done() == (1, 1)


def test_a_memory_without_a_folder_stores_nothing(bench):
    for _ in range(2):
        bench.fit(memory=Memory(location=None))
        assert bench.done() == (1, 1)


def test_a_memory_that_is_cleared_is_filled_again(warm):
    Memory(str(warm.memory), verbose=0).clear(warn=False)
    for done in [(1, 1), (0, 0)]:
        warm.fit()
        assert warm.done() == done
