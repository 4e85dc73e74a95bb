"""DeNetDM on ColoredMNIST, epoch by epoch: what choosing an epoch is worth.

    python benchmarks/colored_mnist.py --ratios 0.01
    python benchmarks/colored_mnist.py --table

The published numbers are those of the best epoch *on the test images, by labels of the
bias*; ours are those of the last one. This script runs the card `colored-mnist`, writes
down what every network does after every epoch, and compares ways to choose one:

- "last": the last epoch, which is ours;
- "average": the mean of the weights of the last fifth of the epochs;
- "pseudo-conflicting": the epoch with the best class-balanced accuracy on the hold-out
  samples that the biased branch gets wrong, for which no label of the bias is needed;
- "oracle": the best epoch on the test images, which nobody has.

ERM trains for as long as both stages together; halfway it is "ERM", at the end "ERM
continued". With `--variants` DeNetDM alone is run in other ways: with the mean of the
last weights of its branches ("average"), from the best of five starts besides ("5
starts, average"); and with stage 1 chosen on the test images, as that of the published
numbers is ("oracle of stage 1"): it ends after the epoch whose shallow branch is the
best there, which a run without `--variants` must have found. Rows of a run are in
`benchmarks/results/colored_mnist_epochs.csv`; one that is there is not run again.
"""

import argparse
import csv
import functools
import statistics
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import numpy as np
import torch
from card import read_cards
from card_data import Source, load_sets
from depth_nets import branches_of, make_mlp
from epoch_watch import EpochLog, EpochWatch
from reproduce import DATA_HOME
from rounds import RESULTS
from skorch import NeuralNetClassifier

from masktune_sk import DeNetDMClassifier, MaskTuneClassifier
from masktune_sk._denetdm import _branches

COLUMNS = (
    "ratio",
    "seed",
    "epochs",
    "branch",
    "epoch",
    "mean of groups",
    "aligned",
    "conflicting",
    "hold-out",
    "pseudo-conflicting",
)
SCORES = COLUMNS[5:]
VALIDATION = 0.1  # of the training images; the paper trains on all
ORACLE = "oracle of stage 1"
VARIANTS = {
    "average": {"stage1_average": True},
    "5 starts, average": {"stage1_average": True, "n_init": 5},
    ORACLE: {},
}


def make_net(card, train, log, **params):
    """Make the target's net of a card, watched."""
    n_classes = int(train.y.max()) + 1
    optimizer = dict(card.training.optimizer)
    return NeuralNetClassifier(
        functools.partial(
            make_mlp, int(np.prod(train.image_shape)), card.net["hidden"], n_classes
        ),
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=getattr(torch.optim, optimizer.pop("name")),
        **{f"optimizer__{name}": value for name, value in optimizer.items()},
        lr=card.training.lr,
        batch_size=card.training.batch_size,
        iterator_train__shuffle=True,
        callbacks=[("watch", EpochWatch(log))],
        verbose=0,
        **params,
    )


def run(card, source):
    """Train ERM and DeNetDM on one draw of a card; return rows."""
    train, tests = load_sets(card, source)
    log = EpochLog(tests["unbiased"])
    epochs = card.training.epochs + card.method.parameters["stage2_epochs"]
    net = make_net(card, train, log, max_epochs=epochs)
    MaskTuneClassifier(net, masking="none", refit_epochs=0, **shared(source)).fit(
        train.X, train.y
    )
    watched = functools.partial(
        _branches.pair_net, callbacks=[("watch", EpochWatch(log))]
    )
    with patch.object(_branches, "pair_net", watched):
        fit_denetdm(card, source, train, log)
    return list(log)


def run_variants(card, source, variants, oracle_epoch):
    """Train DeNetDM in other ways; return rows."""
    train, tests = load_sets(card, source)
    rows = []
    with TemporaryDirectory() as memory:
        for variant in variants:
            log = EpochLog(tests["unbiased"])
            params = VARIANTS[variant] | {"memory": memory}
            if variant == ORACLE:
                params["stage1_epochs"] = oracle_epoch
            clf = fit_denetdm(card, source, train, log, **params)
            proba = clf.branch_predict_proba(log.images, clf.debiased_branch_)
            taught = {"branch": "teacher", "epoch": params.get("stage1_epochs", "")}
            taught |= log.test_scores(proba.argmax(axis=1))
            rows += [
                row | {"branch": f"{row['branch']}, {variant}"}
                for row in [taught, *log]
            ]
    return rows


def best_epoch(rows):
    """Return the epoch whose shallow branch is best on the test images."""
    some = [r for r in rows if r["branch"] == "shallow" and r["epoch"] != "average"]
    if not some:
        raise SystemExit(f"{ORACLE!r} needs the run without variants first.")
    return int(max(some, key=lambda row: row["mean of groups"])["epoch"])


def shared(source):
    """Return parameters of both estimators."""
    return {"random_state": source.seed, "validation_fraction": VALIDATION}


def fit_denetdm(card, source, train, log, **params):
    """Train DeNetDM, and watch its target."""
    clf = DeNetDMClassifier(
        make_net(card, train, log, max_epochs=card.training.epochs),
        **branches_of(card.net, train.image_shape),
        **(card.method.parameters | shared(source) | params),
    )
    clf.fit(train.X, train.y)
    print(f"{card.setting}, seed {source.seed}: {clf._closing_line()}", flush=True)
    return clf


def read(path):
    """Return the rows of a file, with numbers."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [
            row
            | {name: float(row[name]) for name in SCORES if row[name]}
            | {"ratio": float(row["ratio"])}
            for row in csv.DictReader(file)
        ]


def append(path, rows):
    """Add rows to a file."""
    new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        for row in rows:
            rounded = {
                name: f"{value:.2f}" if isinstance(value, float) else value
                for name, value in row.items()
                if name != "ratio"
            }
            writer.writerow(rounded | {"ratio": row["ratio"]})


def chosen(rows, epochs):
    """Yield name, branch and row of each way to choose an epoch, for one run."""
    by_branch = {}
    for row in rows:
        by_branch.setdefault(row["branch"], []).append(row)
    numbered = {
        branch: [row for row in some if row["epoch"] != "average"]
        for branch, some in by_branch.items()
    }
    yield "ERM", numbered["ERM"][epochs - 1]
    yield "ERM continued", numbered["ERM"][-1]
    for branch, name in (
        ("deep", "deep branch"),
        ("shallow", "shallow branch"),
        ("target", "DeNetDM"),
    ):
        some = numbered[branch]
        yield f"{name}, last", some[-1]
        if branch == "deep":
            continue
        yield f"{name}, average", by_branch[branch][-1]
        for rule, key in (
            ("pseudo-conflicting", "pseudo-conflicting"),
            ("oracle", "mean of groups"),
        ):
            yield f"{name}, {rule}", max(some, key=lambda row: row[key])
    for variant in VARIANTS:
        if f"target, {variant}" in numbered:
            (taught,) = by_branch[f"teacher, {variant}"]
            yield f"debiased branch, {variant}", taught
            some = numbered[f"target, {variant}"]
            yield f"DeNetDM, {variant}, last", some[-1]
            best = max(some, key=lambda row: row["mean of groups"])
            yield f"DeNetDM, {variant}, oracle", best


def print_table(rows, card_of):
    """Print means and deviations over the seeds, beside what is published."""
    for ratio in sorted({row["ratio"] for row in rows}):
        here = [row for row in rows if row["ratio"] == ratio]
        seeds = sorted({row["seed"] for row in here if row["branch"] == "ERM"})
        epochs = int(here[0]["epochs"])
        print(f"\n{100 * ratio:g} % conflicting, {epochs} epochs, {len(seeds)} seeds")
        print(f"{'':40}{'mean of groups':>16}{'aligned':>16}{'conflicting':>16}")
        cells = {}
        for seed in seeds:
            of_seed = [row for row in here if row["seed"] == seed]
            for name, row in chosen(of_seed, epochs):
                cells.setdefault(name, []).append(row)
        for name, some in cells.items():
            shown = [spread([row[key] for row in some]) for key in SCORES[:3]]
            print(f"{name:40}" + "".join(f"{text:>16}" for text in shown))
        for entry in card_of[ratio].figures.reported:
            print(f"published: {entry.method} {entry.value:.2f}")


def spread(values):
    """Return mean and standard deviation as text."""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.fmean(values):.1f}{deviation}"


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ratios", help="as in 0.01,0.05; default: all of the card")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--scale", choices=("full", "small"), default="full")
    parser.add_argument("--epochs", type=int, help="of each stage, not the card's")
    parser.add_argument("--data-home", type=Path, default=Path(DATA_HOME))
    parser.add_argument("--threads", type=int)
    parser.add_argument(
        "--variants", nargs="+", choices=VARIANTS, default=[], help="and nothing else"
    )
    parser.add_argument("--table", action="store_true", help="of what is there; end")
    parser.add_argument(
        "--out", type=Path, default=RESULTS / "colored_mnist_epochs.csv"
    )
    arguments = parser.parse_args(argv)
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    cards = read_cards("colored-mnist", scale=arguments.scale)
    if arguments.epochs:
        cards = read_cards(
            "colored-mnist", scale=arguments.scale, epochs=[arguments.epochs]
        )
        for card in cards:
            card.method.parameters["stage2_epochs"] = arguments.epochs
    card_of = {card.data["conflict_ratio"]: card for card in cards}
    ratios = (
        [float(ratio) for ratio in arguments.ratios.split(",")]
        if arguments.ratios
        else list(card_of)
    )
    home = arguments.data_home.expanduser()
    # The state of Adam for weights of pixels that are always 0 decays to such numbers,
    # and processors take twice the time for them.
    torch.set_flush_denormal(True)
    seeds = [] if arguments.table else map(int, arguments.seeds.split(","))
    for seed in seeds:
        for ratio in ratios:
            source = Source(home, download=False, seed=seed)
            there = [
                row
                for row in read(arguments.out)
                if (row["ratio"], row["seed"]) == (ratio, str(seed))
            ]
            done = {row["branch"] for row in there}
            wanted = [v for v in arguments.variants if f"target, {v}" not in done]
            if wanted:
                oracle = best_epoch(there) if ORACLE in wanted else None
                rows = run_variants(card_of[ratio], source, wanted, oracle)
            elif "ERM" not in done and not arguments.variants:
                rows = run(card_of[ratio], source)
            else:
                continue
            run_of = {
                "ratio": ratio,
                "seed": seed,
                "epochs": card_of[ratio].training.epochs,
            }
            append(arguments.out, [run_of | row for row in rows])
    print_table(read(arguments.out), card_of)


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        main()
