"""More than one process: data-parallel training, and a grid search on a Dask cluster.

    python benchmarks/bench_scale.py [--part accelerate dask] [--n 12000]

- accelerate: `MaskTuneClassifier` around a net with skorch's `AccelerateMixin`, on the
  CPU with gloo, in 2 processes of 1 thread each, against 1 process with 1 and with 2
  threads. Each of the two reads half a batch, so that a step sees as many images.
  Accuracy on images without the shortcut agrees within 1 point; the wall time of `fit`
  is reported as a ratio.
- dask: `GridSearchCV` over a local cluster of 2 workers, through joblib's "dask"
  backend, against `n_jobs=2` of joblib itself (loky), one thread in each worker. The
  scores in `cv_results_` are identical; the wall time is reported as a ratio.

Needs accelerate, dask and distributed; a part whose package is missing is left out.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import joblib
import numpy as np
import torch
from images import make_images
from rounds import Report, Timing, argument_parser, interleave, timed
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from skorch import NeuralNetClassifier
from skorch.hf import AccelerateMixin

from masktune_sk import MaskTuneClassifier
from masktune_sk.modules import SmallConvNet

BATCH_SIZE = 128
EPOCHS = 3
ONE_POINT = 0.01
N_FOLDS = 3
GRID = {"mask_threshold": [1.0, 1.5, 2.0, 2.5]}
SIZES = {
    "small": {"n": 512, "n_dask": 240, "dask_epochs": 1},
    "full": {"n": 12_000, "n_dask": 3000, "dask_epochs": 3},
}
NET = {
    "module": SmallConvNet,
    "module__n_channels": 3,
    "module__n_classes": 2,
    "criterion": torch.nn.CrossEntropyLoss,
    "optimizer": torch.optim.SGD,
    "lr": 0.01,
    "optimizer__momentum": 0.9,
    "iterator_train__shuffle": True,
    "train_split": None,
    "verbose": 0,
}


class AcceleratedNet(AccelerateMixin, NeuralNetClassifier):
    """A skorch net that accelerate spreads over processes."""


# ---------------------------------------------------------------------- accelerate


def fit_as_worker(directory):
    """Fit in one of several processes; the first one writes down what came of it."""
    from accelerate import Accelerator

    job = json.loads(Path(directory, "job.json").read_text())
    n, seed = job["n"], job["seed"]
    accelerator = Accelerator(cpu=True)
    net = AcceleratedNet(
        **NET, accelerator=accelerator, max_epochs=EPOCHS, batch_size=BATCH_SIZE
    )
    X, y = make_images(n, seed=0, square="biased")
    X_test, y_test = make_images(max(n // 4, 512), seed=1, subset="test")
    clf = MaskTuneClassifier(net, random_state=seed)
    _, timing = timed(clf.fit, X, y)
    accuracy = clf.score(X_test, y_test)
    if accelerator.is_main_process:
        answer = {
            "wall": timing.wall,
            "cpu": timing.cpu,
            "accuracy": accuracy,
            "processes": accelerator.num_processes,
        }
        Path(directory, "answer.json").write_text(json.dumps(answer))
    accelerator.end_training()


class Launches:
    """Fits in processes of their own, and the accuracies they came to."""

    def __init__(self, n):
        self.n = n
        self.accuracies = {}

    def run(self, number, n_processes, n_threads):
        with tempfile.TemporaryDirectory() as directory:
            command = [sys.executable]
            if n_processes > 1:
                # `accelerate launch --cpu` starts more than one process through MPI
                # only; accelerate takes part in what torch's own launcher starts.
                command += ["-m", "torch.distributed.run", "--standalone"]
                command += ["--nproc_per_node", str(n_processes)]
            command += [str(Path(__file__).resolve()), "--worker", directory]
            job = {"n": self.n, "seed": number}
            Path(directory, "job.json").write_text(json.dumps(job))
            environment = dict(os.environ, OMP_NUM_THREADS=str(n_threads))
            subprocess.run(command, env=environment, check=True)
            answer = json.loads(Path(directory, "answer.json").read_text())
        if answer["processes"] != n_processes:
            raise RuntimeError(
                f"Trained in {answer['processes']} processes, not in {n_processes}."
            )
        key = (n_processes, n_threads)
        self.accuracies.setdefault(key, []).append(answer["accuracy"])
        return Timing(answer["wall"], answer["cpu"])


def measure_accelerate(report, n, repeats):
    benchmark = f"accelerate, {n} images, {EPOCHS} epochs"
    print(benchmark, flush=True)
    launches = Launches(n)
    one, two = "1 process, 1 thread", "2 processes, 1 thread each"
    variants = {
        one: partial(launches.run, n_processes=1, n_threads=1),
        "1 process, 2 threads": partial(launches.run, n_processes=1, n_threads=2),
        two: partial(launches.run, n_processes=2, n_threads=1),
    }
    # Each launch is a new process, which no warm-up would reach.
    timings = interleave(variants, repeats, warm_up=False, alone=False)
    report.add_ratios(benchmark, timings, baseline=one, clocks=("wall",))
    for name, key in ((one, (1, 1)), (two, (2, 1))):
        report.add(benchmark, name, "accuracy", launches.accuracies[key], unit="1")
    means = [np.mean(launches.accuracies[key]) for key in ((1, 1), (2, 1))]
    report.add(
        benchmark,
        two,
        "difference of mean accuracy",
        [abs(float(means[1] - means[0]))],
        unit="1",
        baseline=one,
        limit=ONE_POINT,
    )


# ---------------------------------------------------------------------- dask


class Search:
    """Searches of one data set under several backends; their scores are kept."""

    def __init__(self, n, epochs):
        self.X, self.y = make_images(n, seed=0, square="biased")
        self.epochs = epochs
        self.scores = {}

    def run(self, number, backend):
        net = NeuralNetClassifier(
            **NET, max_epochs=self.epochs, batch_size=BATCH_SIZE, device="cpu"
        )
        search = GridSearchCV(
            MaskTuneClassifier(net, random_state=0),
            GRID,
            cv=StratifiedKFold(N_FOLDS),
            n_jobs=2,
            error_score="raise",
        )
        # Dask's workers have one thread by the cluster; loky would share the cores out.
        params = {"inner_max_num_threads": 1} if backend == "loky" else {}
        with joblib.parallel_config(backend=backend, **params):
            _, timing = timed(search.fit, self.X, self.y)
        results = search.cv_results_
        self.scores[backend] = np.array(
            [results[f"split{i}_test_score"] for i in range(N_FOLDS)]
        )
        return timing


def measure_dask(report, sizes, repeats):
    from distributed import Client, LocalCluster

    n = sizes["n_dask"]
    benchmark = f"dask, 4 thresholds x 3 folds, {n} images"
    print(benchmark, flush=True)
    search = Search(n, sizes["dask_epochs"])
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            # Workers find the modules beside this script.
            env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        ) as cluster,
        Client(cluster),
    ):
        variants = {
            "joblib, n_jobs=2": partial(search.run, backend="loky"),
            "dask, 2 workers": partial(search.run, backend="dask"),
        }
        timings = interleave(variants, repeats, alone=False)
    report.add_ratios(benchmark, timings, baseline="joblib, n_jobs=2", clocks=("wall",))
    difference = np.abs(search.scores["dask"] - search.scores["loky"]).max()
    report.add(
        benchmark,
        "dask, 2 workers",
        "largest difference of scores",
        [float(difference)],
        unit="1",
        baseline="joblib, n_jobs=2",
        limit=0,
        exactly=True,
    )


def measure(report, arguments):
    sizes = SIZES[arguments.scale]
    packages = {"accelerate": "accelerate", "dask": "distributed"}
    for part in arguments.part:
        if find_spec(packages[part]) is None:
            print(f"{packages[part]} is not installed; {part} is left out.")
        elif part == "accelerate":
            measure_accelerate(report, arguments.n or sizes["n"], arguments.repeats)
        else:
            measure_dask(report, sizes, arguments.repeats)


def main():
    parser = argument_parser(__doc__, repeats=3)
    parser.add_argument(
        "--part",
        choices=("accelerate", "dask"),
        nargs="+",
        default=("accelerate", "dask"),
    )
    parser.add_argument("--n", type=int, help="images of the data-parallel training")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        fit_as_worker(arguments.worker)
        return
    with Report("scale", arguments) as report:
        measure(report, arguments)


if __name__ == "__main__":
    main()
