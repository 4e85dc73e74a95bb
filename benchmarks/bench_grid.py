"""A grid search over thresholds: what the stage cache saves, and what it costs.

    python benchmarks/bench_grid.py [--n 6000] [--epochs 5] [--threads 2]

`GridSearchCV` over 8 values of `mask_threshold`, 3 folds and a final refit: 25 fits,
but only 4 different ERM trainings (one a fold, and one for the refit on all rows). With
``memory=`` a directory:

- ERM is trained exactly 4 times, counted by a callback of the net, with `n_jobs=2` too;
- the scores of all candidates and folds are those without the cache, to the last bit;
- the whole search takes at most 1.1 of the sum of its parts, measured apart in the same
  round: 4 ERM trainings, 4 passes that make maps and masks, 25 masked epochs with a
  pass over the hold-out, 24 scorings of a fold;
- beside it, once, the same search without the cache.

Rounds take long here, so there are 3; and in place of a warm-up round of full size
there is a small search.
"""

import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import torch
from images import make_images
from rounds import Report, Timing, argument_parser, interleave, timed
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from skorch import NeuralNetClassifier
from tally import Tally

from masktune_sk import MaskTuneClassifier
from masktune_sk.data import ArraySource, TorchView, stratified_holdout
from masktune_sk.masking import MaskedSource
from masktune_sk.modules import SmallConvNet
from masktune_sk.saliency import compute_maps, resolve_saliency
from masktune_sk.training import build_net, predict_proba, refit, train_erm

THRESHOLDS = [0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5]
N_FOLDS = 3
N_ERM = N_FOLDS + 1
LIMIT = 1.1
SIZES = {"small": {"n": 360, "epochs": 1}, "full": {"n": 6000, "epochs": 5}}
WARM_UP = 300


def make_net(epochs, callbacks=None):
    return NeuralNetClassifier(
        SmallConvNet,
        module__n_channels=3,
        module__n_classes=2,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        lr=0.01,
        optimizer__momentum=0.9,
        max_epochs=epochs,
        batch_size=128,
        iterator_train__shuffle=True,
        train_split=None,
        callbacks=callbacks,
        verbose=0,
    )


class Search:
    """Searches of one data set; the last one is kept."""

    def __init__(self, X, y, epochs):
        self.X = X
        self.y = y
        self.epochs = epochs
        self.last = None
        self.n_erm = None

    def run(self, number=0, *, cached=True, n_jobs=1):
        """Search, with a new and empty cache; count the ERM trainings."""
        with tempfile.TemporaryDirectory() as directory:
            tally = str(Path(directory, "tally"))
            memory = str(Path(directory, "cache")) if cached else None
            clf = MaskTuneClassifier(
                make_net(self.epochs, [Tally(tally)]), memory=memory, random_state=0
            )
            search = GridSearchCV(
                clf,
                {"mask_threshold": THRESHOLDS},
                cv=StratifiedKFold(N_FOLDS),
                n_jobs=n_jobs,
                error_score="raise",
            )
            self.last, timing = timed(search.fit, self.X, self.y)
            self.n_erm = Tally.count(tally)
        return timing

    def scores(self):
        """Return the scores of the last search, for each candidate and fold."""
        results = self.last.cv_results_
        return np.array([results[f"split{i}_test_score"] for i in range(N_FOLDS)])

    def parts(self, number=0):
        """Run each different part of the search once; return the sum for all fits."""
        source = ArraySource(self.X, self.y)
        total = Timing(0.0, 0.0)
        folds = list(StratifiedKFold(N_FOLDS).split(self.X, self.y))
        for train, test in folds:
            once, each = self._parts_of_fit(source.take(train), source.take(test))
            total += once + len(THRESHOLDS) * each
        once, each = self._parts_of_fit(source, None)
        return total + once + each

    def _parts_of_fit(self, rows, test):
        """Time what a cache can share between fits, and what it can't."""
        random = np.random.RandomState(0)
        train, holdout = map(rows.take, stratified_holdout(rows.labels, 0.2, random))
        template = make_net(self.epochs)
        state, erm = timed(train_erm, template, train, valid=holdout, seed=0)
        net = build_net(template, state)
        probe = torch.from_numpy(self.X[:8]).float()
        method, layer = resolve_saliency("auto", None, net, probe)

        def look():
            maps = compute_maps(net, train, method, layer)
            masked = MaskedSource(
                train, maps, threshold=2.0, rule="sigma", fill=np.zeros(1, np.float32)
            )
            masked.summary()
            return masked

        masked, maps = timed(look)
        refitted, epoch = timed(
            refit, template, state, masked, epochs=1, valid=holdout, seed=0
        )
        after = build_net(template, refitted)
        # The epoch has its pass over the hold-out within; this is the scoring.
        if test is not None:
            epoch += timed(predict_proba, after, TorchView(test))[1]
        return erm + maps, epoch


def measure(report, arguments):
    sizes = SIZES[arguments.scale]
    n, epochs = arguments.n or sizes["n"], arguments.epochs or sizes["epochs"]
    X, y = make_images(n, seed=0, square="biased")
    benchmark = f"8 thresholds x 3 folds, {n} images, {epochs} epochs"
    print(benchmark, flush=True)

    Search(*make_images(WARM_UP, seed=1), epochs=1).run()
    search = Search(X, y, epochs)
    counts = []

    def cached(number):
        timing = search.run()
        counts.append(search.n_erm)
        return timing

    timings = interleave(
        {"sum of parts": search.parts, "masktune_sk, memory": cached},
        arguments.repeats,
        warm_up=False,
    )
    report.add_ratios(
        benchmark,
        timings,
        baseline="sum of parts",
        limits={"masktune_sk, memory": LIMIT},
    )
    add_count = partial(
        report.add, benchmark, metric="ERM trainings", limit=N_ERM, exactly=True
    )
    add_count("masktune_sk, memory", values=counts)
    scores = search.scores()
    # The last of the timed rounds, for the ratios of what is run once.
    last = timings["masktune_sk, memory"][-1]

    if not arguments.no_refitting_grid:
        timing = search.run(cached=False)
        print(f"  without the cache: {timing.wall:.2f} s", flush=True)
        report.add(
            benchmark,
            "masktune_sk, every fit trains",
            "wall ratio",
            [timing.wall / last.wall],
            unit="1",
            baseline="masktune_sk, memory",
        )
        report.add(
            benchmark,
            "masktune_sk, every fit trains",
            "ERM trainings",
            [search.n_erm],
            limit=len(THRESHOLDS) * N_FOLDS + 1,
            exactly=True,
        )
        report.add(
            benchmark,
            "masktune_sk, every fit trains",
            "largest difference of scores",
            [float(np.abs(search.scores() - scores).max())],
            baseline="masktune_sk, memory",
            limit=0,
            exactly=True,
        )

    # The worker processes start once and stay; that is not what is measured.
    Search(*make_images(WARM_UP, seed=1), epochs=1).run(n_jobs=2)
    timing = search.run(n_jobs=2)
    print(f"  with n_jobs=2: {timing.wall:.2f} s", flush=True)
    add_count("masktune_sk, memory, n_jobs=2", values=[search.n_erm])
    report.add(
        benchmark,
        "masktune_sk, memory, n_jobs=2",
        "wall ratio",
        [timing.wall / last.wall],
        unit="1",
        baseline="masktune_sk, memory",
    )
    # No limit: the workers may have another number of threads, which changes sums in
    # the last digits.
    report.add(
        benchmark,
        "masktune_sk, memory, n_jobs=2",
        "largest difference of scores",
        [float(np.abs(search.scores() - scores).max())],
        baseline="masktune_sk, memory",
    )


def main():
    parser = argument_parser(__doc__, repeats=3)
    parser.add_argument("--n", type=int, help="images")
    parser.add_argument("--epochs", type=int, help="epochs of ERM")
    parser.add_argument(
        "--no-refitting-grid",
        action="store_true",
        help="leave out the search without a cache, which takes longest",
    )
    arguments = parser.parse_args()
    with Report("grid", arguments) as report:
        measure(report, arguments)


if __name__ == "__main__":
    main()
