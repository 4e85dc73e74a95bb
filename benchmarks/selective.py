"""Abstention: what MaskTune's score buys beside those a user would pick instead.

    python benchmarks/selective.py --data cifar10
    python benchmarks/selective.py --data biased-mnist
    python benchmarks/selective.py --data digits

All methods have the same net, training rows and calibration rows (a fifth), which
nothing is trained or validated on, and give their scores through the estimators:

- "softmax response": `RejectOptionClassifier` around the ERM net; "continued": around
  the net that was trained for as many further epochs as MaskTune, without masks;
- "MC dropout": the mean of 50 passes with dropout before the two linear layers;
- "2 nets, equal cost" and "2 nets, double cost": ensembles by `VotingClassifier`;
- "MaskTune" with each rule of `rejection=`, by the same two nets; and the product
  without masks, that of the ERM net and the net of "continued".

"Epochs" is what a method trains in all; MaskTune's maps cost about one more. The two
nets at equal cost have half of MaskTune's epochs each, rounded up.

Two protocols: "error" is the risk at that coverage of the test set, read from its own
risk-coverage curve, as is usual. "calibrated" takes the threshold that accepts that
share of the calibration rows, as `predict_with_reject` does, and tells what share of
the test set it accepts.

Data with a shortcut have calibration rows like the training rows, with 1 % conflicting,
and test sets where half of the images conflict: every group counts alike. One threshold
serves all groups; for each there is its error, and how much of it is accepted.

Each fit adds rows to `benchmarks/results/selective_DATA.csv`; one that is there already
is not run again. Shares are fractions there, and percentages in the tables.
"""

import argparse
import csv
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from card_data import LabelledSet, Source, load_plain, load_planted
from reproduce import DATA_HOME, positive
from rounds import RESULTS, describe_machine, timed
from selective_methods import FITS, Job
from sklearn.model_selection import train_test_split

from masktune_sk.metrics import (
    aurc_loss,
    coverage_score,
    metric_by_group,
    selective_accuracy_score,
)
from masktune_sk.rejection import coverage_threshold

COVERAGES = (100, 95, 90, 85, 80)
CALIBRATION_SHARE = 0.2
ALL = "all"
# A row of the file belongs to one fit of one run.
RUN = ("data", "scale", "epochs", "n_train", "n_test", "seed")
PROTOCOLS = ("", "calibrated ")
COLUMNS = (
    *RUN,
    "fit",
    "method",
    "trained_epochs",
    "group",
    "n",
    "aurc",
    *(
        f"{protocol}{quantity} {coverage}"
        for protocol in PROTOCOLS
        for quantity in ("error", "coverage")
        for coverage in COVERAGES
    ),
    "minutes",
)


@dataclass(frozen=True)
class Setting:
    """Data, and how nets are trained on them."""

    images: str
    epochs: int  # of ERM
    batch_size: int
    shortcut: bool = False
    n_train: int | None = None  # with calibration rows; None: all
    n_test: int | None = None


SETTINGS = {
    "cifar10": Setting("cifar10", epochs=7, batch_size=64, n_train=25_000),
    "biased-mnist": Setting(
        "mnist", epochs=5, batch_size=64, shortcut=True, n_train=15_000
    ),
    "digits": Setting("digits", epochs=9, batch_size=32, shortcut=True),
}
SMALL = {"epochs": 1, "n_train": 500, "n_test": 200}


def load(setting, source):
    """Return a dict of the rows to train on, to calibrate on, and to test on."""
    sizes = {"n_train": setting.n_train, "n_test": setting.n_test}
    if setting.shortcut:
        train, tests = load_planted(
            source,
            {"test": {"conflict_ratio": 0.5}},
            images=setting.images,
            make="make_square_shortcut",
            conflict_ratio=0.01,
            **sizes,
        )
    else:
        train, tests = load_plain(source, ["test"], images=setting.images, **sizes)
    rows = train_test_split(
        np.arange(len(train.y)),
        test_size=CALIBRATION_SHARE,
        stratify=train.y,
        random_state=source.seed,
    )
    sets = {
        name: LabelledSet(train.X[part].astype(np.float32), train.y[part])
        for name, part in zip(("train", "calibration"), rows, strict=True)
    }
    test = tests["test"]
    groups = None
    if test.groups is not None:
        kind = np.where(test.aligned, "aligned", "conflicting")
        groups = np.char.add(np.char.add(kind, ": "), test.groups)
    return sets | {"test": LabelledSet(test.X.astype(np.float32), test.y, groups)}


def measure(y, groups, predictions):
    """Return a dict of metrics for all samples, and for each group.

    A threshold is chosen on all samples. The AURC of a group is by its own ranking.
    """
    y_pred, scores = predictions.y_pred, predictions.scores
    partitions = [np.full(len(y), ALL)] + ([] if groups is None else [groups])
    found = {}
    for of_sample in partitions:

        def note(name, metric, *arrays, of_sample=of_sample):
            values = metric_by_group(metric, *arrays, groups=of_sample)
            for group, value in values.items():
                found.setdefault(group, {})[name] = value

        note("n", len, y)
        note("aurc", aurc_loss, y, y_pred, scores)
        for protocol in PROTOCOLS:
            chosen_on = predictions.calibration_scores if protocol else scores
            for coverage in COVERAGES:
                accepted = scores >= coverage_threshold(chosen_on, coverage / 100)
                note(f"{protocol}coverage {coverage}", coverage_score, accepted)
                note(
                    f"{protocol}error {coverage}",
                    _selective_error,
                    *(y, y_pred, accepted),
                )
    return found


def _selective_error(y, y_pred, accepted):
    # Undefined where nothing of a group is accepted; the table tells.
    if not accepted.any():
        return np.nan
    return 1 - selective_accuracy_score(y, y_pred, accepted)


# ---------------------------------------------------------------- results


def read_rows(path):
    """Return the rows that a file has, none if there is none."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def add_rows(path, rows):
    """Add rows to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        # The line end of text files, not csv's own, so that a diff stays readable.
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(rows)


def is_of(row, key):
    """Tell whether a row, of strings, belongs to a run or a fit."""
    return all(row[name] == str(value) for name, value in key.items())


def summarise(rows, column):
    """Return mean and standard deviation over seeds, by group and method; percent."""
    values = {}
    for row in rows:
        cell = values.setdefault(row["group"], {}).setdefault(row["method"], [])
        cell.append(100 * float(row[column]))
    return {
        group: {
            method: (np.mean(cells), np.std(cells, ddof=1) if cells[1:] else np.nan)
            for method, cells in of_group.items()
        }
        for group, of_group in values.items()
    }


def tables(rows):
    """Return the lines of the tables, in Markdown."""
    epochs = {row["method"]: row["trained_epochs"] for row in rows}
    errors = {c: summarise(rows, f"error {c}") for c in COVERAGES}
    coverages = {c: summarise(rows, f"coverage {c}") for c in COVERAGES}
    aurc = summarise(rows, "aurc")
    calibrated = [
        summarise(rows, f"calibrated {quantity} 90")
        for quantity in ("coverage", "error")
    ]

    def both(cell):
        mean, std = cell
        return f"{mean:.2f}" if np.isnan(std) else f"{mean:.2f} ± {std:.2f}"

    head = ["score", "epochs", *(f"error at {c}" for c in COVERAGES), "AURC"]
    head.append("calibrated for 90: coverage, error")
    lines = [_line(head), _line(["---"] * 2 + ["---:"] * (len(head) - 2))]
    for method, n_epochs in epochs.items():
        cells = [both(errors[c][ALL][method]) for c in COVERAGES]
        cells.append(both(aurc[ALL][method]))
        cells.append(", ".join(f"{part[ALL][method][0]:.2f}" for part in calibrated))
        lines.append(_line([method, n_epochs, *cells]))
    groups = [group for group in aurc if group != ALL]
    if not groups:
        return lines
    head = ["score", "group", *(f"error at {c} (accepted)" for c in COVERAGES)]
    lines += ["", _line(head), _line(["---"] * 2 + ["---:"] * len(COVERAGES))]
    for method in epochs:
        for i, group in enumerate(groups):
            cells = [
                f"{errors[c][group][method][0]:.1f} "
                f"({coverages[c][group][method][0]:.0f})"
                for c in COVERAGES
            ]
            lines.append(_line([method if i == 0 else "", group, *cells]))
    return lines


def _line(cells):
    return f"| {' | '.join(cells)} |"


# ---------------------------------------------------------------- the run


def run(arguments, setting, memory):
    """Run what is not in the file; return the rows of this run, old and new."""
    path = arguments.out
    key = {
        "data": arguments.data,
        "scale": arguments.scale,
        "epochs": setting.epochs,
        "n_train": setting.n_train or "all",
        "n_test": setting.n_test or "all",
    }
    for seed in range(arguments.seeds):
        rows = read_rows(path)
        key["seed"] = seed
        to_do = [
            fit
            for fit in arguments.fits
            if not any(is_of(row, key | {"fit": fit}) for row in rows)
        ]
        if not to_do:
            continue
        source = Source(arguments.data_home.expanduser(), arguments.download, seed)
        sets = load(setting, source)
        job = Job(sets, setting.epochs, setting.batch_size, seed, memory)
        for fit in to_do:
            methods, timing = timed(FITS[fit], job)
            new = []
            for method, predictions in methods.items():
                shared = key | {
                    "fit": fit,
                    "method": method,
                    "trained_epochs": predictions.trained_epochs,
                    "minutes": f"{timing.wall / 60:.2f}",
                }
                of_groups = measure(sets["test"].y, sets["test"].groups, predictions)
                for group, metrics in of_groups.items():
                    new.append(shared | {"group": group} | _rounded(metrics))
            add_rows(path, new)
            error, aurc = new[0]["error 100"], new[0]["aurc"]
            print(
                f"  seed {seed}, {fit}: error {error}, AURC {aurc} of "
                f"{new[0]['method']}; {timing.wall / 60:.1f} min",
                flush=True,
            )
    del key["seed"]
    seeds = {str(seed) for seed in range(arguments.seeds)}
    rows = [row for row in read_rows(path) if row["seed"] in seeds]
    # In the order of the fits, whichever was run first.
    order = list(FITS)
    rows.sort(key=lambda row: order.index(row["fit"]))
    return [row for row in rows if is_of(row, key)]


def _rounded(metrics):
    return {
        name: value if isinstance(value, int) else f"{value:.5f}"
        for name, value in metrics.items()
    }


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", choices=SETTINGS, default="cifar10")
    parser.add_argument(
        "--scale",
        choices=("small", "full"),
        default="full",
        help="small: to see that it runs; its numbers mean nothing",
    )
    parser.add_argument("--seeds", type=positive, default=3, help="how many")
    parser.add_argument("--epochs", type=positive, help="of ERM, in place of the usual")
    parser.add_argument(
        "--fits",
        nargs="+",
        choices=FITS,
        default=list(FITS),
        help="which to run; the tables show all that the file has",
    )
    parser.add_argument("--data-home", type=Path, default=Path(DATA_HOME))
    parser.add_argument("--download", action="store_true", help="data that are lacking")
    parser.add_argument("--out", type=Path, help="the CSV file")
    parser.add_argument("--memory", type=Path, help="folder to keep trained ERMs in")
    parser.add_argument("--threads", type=positive, help="torch threads")
    arguments = parser.parse_args(argv)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    setting = SETTINGS[arguments.data]
    if arguments.scale == "small":
        setting = replace(setting, **SMALL)
    if arguments.epochs is not None:
        setting = replace(setting, epochs=arguments.epochs)
    if arguments.out is None:
        suffix = "_small" if arguments.scale == "small" else ""
        name = arguments.data.replace("-", "_")
        arguments.out = RESULTS / f"selective_{name}{suffix}.csv"
    print(describe_machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            rows = run(arguments, setting, arguments.memory or Path(folder))
        except FileNotFoundError as error:
            print(f"{arguments.data} can't be run here: {error}", file=sys.stderr)
            return 2
    print("\n".join(["", *tables(rows), "", f"Rows are in {arguments.out}."]))


if __name__ == "__main__":
    sys.exit(main())
