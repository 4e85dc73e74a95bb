"""Fits that several real processes make together, and searches on a cluster."""

import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from skorch.exceptions import DeviceWarning

from masktune_sk import MaskTuneClassifier
from tests import shared_fit

FOLDER = Path(__file__).parent
EXAMPLES = FOLDER.parent / "examples"

pytestmark = pytest.mark.slow


def start(script, *arguments, n_processes=2):
    """Run a script in several processes, as torchrun does."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node"]
    return subprocess.run(
        [sys.executable, *launcher, str(n_processes), script, *arguments],
        # Debug mode: tensors of different shapes are an error, and no crash.
        env=os.environ
        | {
            "OMP_NUM_THREADS": "1",
            "ACCELERATE_USE_CPU": "true",
            "ACCELERATE_DEBUG_MODE": "1",
            "PYTHONPATH": str(FOLDER.parent),
        },
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shared_fit")
    done = start(FOLDER / "shared_fit.py", folder)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def seen(folder):
    """What each of the two processes saw."""
    return [pickle.loads((folder / f"{rank}.pkl").read_bytes()) for rank in (0, 1)]


@pytest.fixture(scope="module")
def alone():
    """The same fit in one process."""
    X, y = shared_fit.make_data()
    net = shared_fit.make_net(NeuralNetClassifier)
    params = {"mask_threshold": 1, "store_maps": True, "random_state": 0}
    clf = MaskTuneClassifier(net, **params).fit(X, y)
    return shared_fit.facts(clf, X)


def assert_same(one, other, **tolerance):
    for name in one["weights"]:
        np.testing.assert_allclose(
            one["weights"][name], other["weights"][name], **tolerance
        )
    for name in ("maps", "proba", "scores", "masked_fraction"):
        np.testing.assert_allclose(one[name], other[name], **tolerance)


FITS = ["plain", "callbacks", "batch norm", "random"]


@pytest.mark.parametrize("fit", FITS)
def test_all_processes_end_with_the_same(seen, fit):
    assert_same(seen[0][fit], seen[1][fit], rtol=0, atol=0)
    for one, other in zip(
        seen[0][fit]["history"], seen[1][fit]["history"], strict=True
    ):
        assert {k: v for k, v in one.items() if k != "dur"} == {
            k: v for k, v in other.items() if k != "dur"
        }


def test_two_processes_find_what_one_finds(seen, alone):
    assert_same(seen[0]["plain"], alone, rtol=1e-3, atol=1e-5)
    losses, expected = (
        [row["train_loss"] for row in facts["history"]]
        for facts in (seen[0]["plain"], alone)
    )
    np.testing.assert_allclose(losses, expected, rtol=1e-4)


def test_from_the_same_weights_the_masks_are_those_of_one_process(seen):
    X, y = shared_fit.make_data()
    net = shared_fit.make_net(NeuralNetClassifier).initialize()
    shared = seen[0]["frozen"]
    net.module_.load_state_dict(
        {name: torch.from_numpy(value) for name, value in shared["erm"].items()}
    )
    clf = MaskTuneClassifier(
        FrozenEstimator(net),
        mask_threshold=1,
        validation_fraction=0,
        refit_epochs=0,
        store_maps=True,
    ).fit(X, y)
    np.testing.assert_allclose(shared["maps"], clf.maps_, rtol=1e-5, atol=1e-7)
    assert shared["masked_fraction"] == clf.masked_fraction_


def test_stored_stages_are_found_by_all(seen):
    first, second = seen[0]["stored"]
    np.testing.assert_array_equal(first["maps"], second["maps"])
    assert first["masked_fraction"] < second["masked_fraction"]
    assert_same(second, seen[1]["stored"][1], rtol=0, atol=0)
    # One ERM and its maps, each once.
    assert seen[0]["files"] == ["output.pkl", "output.pkl"]


def test_another_number_of_processes_does_not_go_on(folder):
    X, y = shared_fit.make_data()
    clf = MaskTuneClassifier(
        shared_fit.make_net(shared_fit.AcceleratedNet),
        memory=folder / "memory",
        random_state=0,
    )
    with pytest.raises(ValueError, match=r"trained by 2 process\(es\)"):
        clf.fit(X, y)
    assert len(list((folder / "memory").rglob("*.pkl"))) == 2


def test_processes_with_other_samples_are_refused_in_all(seen):
    for process in seen:
        name, message = process["other data"]
        assert name == "ValueError"
        assert "different samples" in message


def test_an_infinite_loss_stops_all(seen):
    for process in seen:
        assert process["exploded"][0] == "NonFiniteError"


def test_what_processes_fitted_predicts_in_one(seen):
    X, _ = shared_fit.make_data()
    # Of the user's own net, which leaves the device to Accelerate.
    with pytest.warns(DeviceWarning, match="requested device was not specified"):
        clf = pickle.loads(seen[0]["pickle"])
    np.testing.assert_array_equal(clf.predict_proba(X), seen[0]["plain"]["proba"])


def test_the_example_runs():
    done = start(
        EXAMPLES / "12_train_in_parallel.py", "--samples", "200", "--epochs", "1"
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert done.stdout.count("2 process(es): accuracy on conflicting digits") == 1


def test_a_search_on_a_cluster_finds_what_joblib_finds(tmp_path):
    # Dask starts its workers by importing the script again, so it has to be a file.
    script = tmp_path / "search.py"
    script.write_text(SEARCH)
    done = subprocess.run(
        [sys.executable, "-W", "error", script, tmp_path],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(EXAMPLES)},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = [json.loads((tmp_path / name).read_text()) for name in ("dask", "joblib")]
    assert found[0] == found[1]
    for name in ("a", "b"):
        # Three folds and the last fit on all rows.
        assert len(list((tmp_path / name).rglob("ERM/*/output.pkl"))) == 4


SEARCH = """
import json, sys
from importlib import import_module
from pathlib import Path

example = import_module("11_grid_search_dask")

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    X, y = example.load_samples(240)
    dask = example.search_on_cluster(example.make_search(folder / "a", 1), X, y)
    example.print_scores(dask)
    joblib = example.make_search(folder / "b", 1).set_params(n_jobs=2).fit(X, y)
    for name, search in (("dask", dask), ("joblib", joblib)):
        results = {
            key: [str(value) for value in values]
            for key, values in search.cv_results_.items()
            if "time" not in key
        }
        (folder / name).write_text(json.dumps(results))
"""
