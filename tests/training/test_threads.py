"""Tests of how many threads a fit takes."""

import os
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from joblib import Parallel, delayed, parallel_config
from skorch import NeuralNetClassifier
from torch import nn

from masktune_sk import MaskTuneClassifier
from masktune_sk.data import ArraySource
from masktune_sk.exceptions import SharedCoresWarning
from masktune_sk.training import StageRun, build_net, fit_threads
from masktune_sk.training import _threads as threads
from masktune_sk.training._threads import CoreWatch
from tests.nets import TinyMLP, tiny_net, tiny_vectors


@pytest.fixture(autouse=True)
def give_threads_back():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def two_threads(monkeypatch):
    """Two threads of torch that nobody asked for."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    torch.set_num_threads(2)


def estimator(**params):
    net = tiny_net(TinyMLP, max_epochs=1)
    return MaskTuneClassifier(net, random_state=0, **params)


# ---------------------------------------------------------------- workers


def threads_of_a_fit():
    """Return the threads before, in and after a fit that began with two."""
    torch.set_num_threads(2)
    with fit_threads() as n_threads:
        assert n_threads == torch.get_num_threads()
    return 2, n_threads, torch.get_num_threads()


def threads_of_a_fit_that_fails():
    torch.set_num_threads(2)
    try:
        with fit_threads():
            raise ValueError("on purpose")
    except ValueError:
        return torch.get_num_threads()


def test_outside_of_workers_the_threads_stay(two_threads):
    assert threads_of_a_fit() == (2, 2, 2)


def test_in_a_worker_a_fit_takes_one_thread_and_gives_it_back(two_threads):
    with parallel_config("threading"):
        results = Parallel(n_jobs=2)(delayed(threads_of_a_fit)() for _ in range(4))
    assert results == [(2, 1, 2)] * 4
    assert torch.get_num_threads() == 2


def test_in_a_worker_threads_are_given_back_after_an_error(two_threads):
    with parallel_config("threading"):
        results = Parallel(n_jobs=2)(
            delayed(threads_of_a_fit_that_fails)() for _ in range(2)
        )
    assert results == [2, 2]


def test_one_job_is_no_worker(two_threads):
    results = Parallel(n_jobs=1)(delayed(threads_of_a_fit)() for _ in range(2))
    assert results == [(2, 2, 2)] * 2


@pytest.mark.parametrize("number", ["2", "8"])
def test_a_number_in_the_environment_is_respected(two_threads, monkeypatch, number):
    monkeypatch.setenv("OMP_NUM_THREADS", number)
    with parallel_config("threading"):
        results = Parallel(n_jobs=2)(delayed(threads_of_a_fit)() for _ in range(2))
    assert results == [(2, 2, 2)] * 2


def test_what_changes_the_threads_inside_a_fit_is_undone(two_threads):
    with fit_threads():
        torch.set_num_threads(1)
    assert torch.get_num_threads() == 2


def fit_in_worker(X, y, chosen):
    """Fit with two threads, in a process that joblib said a number, or not."""
    said = os.environ.pop("OMP_NUM_THREADS", None)
    if chosen:
        os.environ["OMP_NUM_THREADS"] = "2"
    torch.set_num_threads(2)
    n_threads = estimator().fit(X, y).n_threads_
    after = torch.get_num_threads()
    os.environ.pop("OMP_NUM_THREADS", None)
    if said is not None:
        os.environ["OMP_NUM_THREADS"] = said
        torch.set_num_threads(int(said))
    return n_threads, after, estimator().fit(X, y).n_threads_, said


def test_a_fit_in_a_worker_process_takes_one_thread_or_those_it_was_given():
    X, y = tiny_vectors()
    with parallel_config("loky", inner_max_num_threads=1):
        results = Parallel(n_jobs=2)(
            delayed(fit_in_worker)(X, y, chosen) for chosen in (False, True)
        )
    # joblib tells its processes how many.
    assert results == [(1, 2, 1, "1"), (2, 2, 1, "1")]


def test_a_fit_says_how_many_threads_it_ended_with(two_threads):
    X, y = tiny_vectors()
    assert estimator().fit(X, y).n_threads_ == 2
    torch.set_num_threads(1)
    assert estimator().fit(X, y).n_threads_ == 1


# ---------------------------------------------------------------- shared cores


class Clock:
    """A time that passes when it is told to, of which threads wait a share."""

    def __init__(self, monkeypatch):
        self.now = self.waited = 100.0
        monkeypatch.setattr(threads, "time", SimpleNamespace(monotonic=self.read))
        monkeypatch.setattr(threads, "_seconds_waited", lambda: self.waited)

    def read(self):
        return self.now

    def batch(self, watch, seconds, waiting):
        self.now += seconds
        self.waited += seconds * waiting
        watch.on_batch_end(None)


@pytest.fixture
def clock(two_threads, monkeypatch):
    return Clock(monkeypatch)


def watching():
    watch = CoreWatch()
    watch.initialize()
    watch.on_train_begin(None)
    return watch


def test_threads_that_wait_for_cores_become_one(clock):
    watch = watching()
    message = "last 4 seconds .*2 threads .*60%.* one thread"
    with pytest.warns(SharedCoresWarning, match=message) as caught:
        clock.batch(watch, 4, 0.6)
    assert len(caught) == 1
    assert torch.get_num_threads() == 1


def test_it_is_decided_once(clock):
    watch = watching()
    with pytest.warns(SharedCoresWarning, match="one thread"):
        clock.batch(watch, 3, 1)
    torch.set_num_threads(2)
    for _ in range(3):
        clock.batch(watch, 3, 1)
    assert torch.get_num_threads() == 2


def test_the_next_training_does_not_look_again_with_one_thread(clock):
    watch = watching()
    with pytest.warns(SharedCoresWarning, match="one thread"):
        clock.batch(watch, 3, 1)
    watch.on_train_begin(None)
    clock.batch(watch, 3, 1)
    assert torch.get_num_threads() == 1


@pytest.mark.parametrize("waiting", [0, 0.1, threads.MOST_WAITING])
def test_threads_that_hardly_wait_stay(clock, waiting):
    watch = watching()
    for _ in range(5):
        clock.batch(watch, 3, waiting)
    assert torch.get_num_threads() == 2


def test_nothing_is_decided_before_the_time_to_watch_is_over(clock):
    watch = watching()
    for _ in range(10):
        clock.batch(watch, threads.WATCH_SECONDS / 11, 1)
    assert torch.get_num_threads() == 2
    with pytest.warns(SharedCoresWarning, match="one thread"):
        clock.batch(watch, threads.WATCH_SECONDS / 5, 1)


def test_cores_that_are_taken_later_are_noticed_in_the_next_window(clock):
    watch = watching()
    for _ in range(20):
        clock.batch(watch, 3, 0)
    with pytest.warns(SharedCoresWarning, match="last 3 seconds .*50%"):
        clock.batch(watch, 3, 0.5)


def test_a_wait_before_the_training_does_not_count(clock):
    clock.now, clock.waited = 1000.0, 900.0
    watch = watching()
    clock.batch(watch, 3, 0)
    assert torch.get_num_threads() == 2


def assert_does_not_watch(clock, n_threads):
    watch = watching()
    for _ in range(3):
        clock.batch(watch, 10, 1)
    assert torch.get_num_threads() == n_threads


def test_threads_that_the_user_chose_stay(clock, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert_does_not_watch(clock, 2)


def test_one_thread_cannot_be_fewer(clock):
    torch.set_num_threads(1)
    assert_does_not_watch(clock, 1)


def test_threads_stay_where_the_system_does_not_tell(clock, monkeypatch):
    monkeypatch.setattr(threads, "_seconds_waited", lambda: None)
    assert_does_not_watch(clock, 2)


def test_threads_stay_where_the_system_stops_telling(clock, monkeypatch):
    watch = watching()
    monkeypatch.setattr(threads, "_seconds_waited", lambda: None)
    clock.batch(watch, 3, 1)
    assert torch.get_num_threads() == 2


# ---------------------------------------------------------------- in a training


@pytest.fixture
def crowded(two_threads, monkeypatch):
    """Cores that others use: the time goes on each time it is asked for."""
    clock = Clock(monkeypatch)

    def read():
        clock.now += 10
        clock.waited += 10
        return clock.now

    monkeypatch.setattr(threads, "time", SimpleNamespace(monotonic=read))


def test_a_training_watches_the_cores(crowded):
    X, y = tiny_vectors(20, 3)
    net = NeuralNetClassifier(
        nn.Linear, module__in_features=3, module__out_features=2, verbose=0
    )
    net.set_params(criterion=nn.CrossEntropyLoss)
    source = ArraySource(X, y.astype(np.int64))
    with (
        StageRun(build_net(net), "ERM", train=source) as run,
        pytest.warns(SharedCoresWarning, match="one thread") as caught,
    ):
        run.fit(3)
    assert len(caught) == 1
    assert torch.get_num_threads() == 1


def test_a_fit_warns_once_and_gives_the_threads_back(crowded):
    X, y = tiny_vectors()
    with pytest.warns(SharedCoresWarning, match="one thread") as caught:
        clf = estimator().fit(X, y)
    assert len(caught) == 1
    assert clf.n_threads_ == 1
    assert torch.get_num_threads() == 2


def test_threads_are_given_back_where_the_warning_is_an_error(crowded):
    X, y = tiny_vectors()
    with warnings.catch_warnings():
        warnings.simplefilter("error", SharedCoresWarning)
        with pytest.raises(SharedCoresWarning, match="one thread"):
            estimator().fit(X, y)
    assert torch.get_num_threads() == 2


def test_a_fit_in_peace_keeps_its_threads(clock):
    X, y = tiny_vectors()
    assert estimator().fit(X, y).n_threads_ == 2


# ---------------------------------------------------------------- what the system tells


def test_the_time_waited_grows_or_is_not_known():
    first = threads._seconds_waited()
    again = threads._seconds_waited()
    if first is None:
        assert again is None
    else:
        assert type(first) is float
        assert 0 <= first <= again


@pytest.mark.parametrize(
    ("files", "waited"),
    [
        ({}, None),
        ({"7": "123 2000000000 9\n"}, 2.0),
        ({"7": "1 2000000000 9\n", "8": "1 500000000 9\n"}, 2.5),
        ({"7": "1 2000000000 9\n", "8": "", "9": "what\n", "10": "1 x 2"}, 2.0),
        ({"8": ""}, None),
        ({"8": "0 0 0\n"}, 0.0),
    ],
    ids=str,
)
def test_the_time_waited_is_that_of_all_threads(tmp_path, monkeypatch, files, waited):
    for task, text in files.items():
        (tmp_path / task).mkdir()
        (tmp_path / task / "schedstat").write_text(text)
    (tmp_path / "11").mkdir()
    monkeypatch.setattr(threads, "Path", lambda path: tmp_path)
    assert threads._seconds_waited() == waited
