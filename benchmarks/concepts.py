"""Unlearning: what the ClArC family wins back where samples show an artifact.

    python benchmarks/concepts.py
    python benchmarks/concepts.py --part chain

`artifacts`: Fashion-MNIST at 64 pixels, a small VGG with batch normalisation. Half of
the images of one class, or another `--proportion`, show an artifact in training: a
white patch in the corner, a blend with white, a watermark in the three lowest bits, or
a timestamp. All methods correct the same ERM net, with the defaults of
`RRClArCClassifier`; nothing was tuned. Accuracy is that on *clean* images, and on
*attacked* ones, which all show the artifact, of every class. The sensitivity, in
logits, is the mean over classes and attacked images; TCAV is that of the attacked
class; the AUC is of the direction on held-out samples. For brightness there are rows at
other layers, with a direction at each position, and with several directions that were
computed from pairs of images with and without it.

Sensitivities compare where layer and direction are the same, and prove nothing without
the accuracy beside them: an edit of the P-ClArC family has none by construction.

`chain`: MNIST's digits 0-4 against 5-9 in two colours, 2 % in the other one. A colour
is where the digit is, so MaskTune can't hide it; its net is then corrected with 50
marked samples of each colour, half of them in each class.

Each fit adds a row to `benchmarks/results/concepts.csv`; one that is there already is
not run again. Shares are fractions there, and percentages in the tables; minutes are of
one core, and of the first method that needs it include the ERM.
"""

import argparse
import csv
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from card_data import Source
from concept_chain import Colour
from concept_fits import ARTIFACTS, Artifact
from reproduce import DATA_HOME, positive
from rounds import RESULTS, describe_machine, timed
from selective import is_of, read_rows

RUN = ("part", "data", "scale", "epochs", "n_train", "n_test", "seed")
MEASURES = (
    "accuracy clean",
    "accuracy attacked",
    "accuracy aligned",
    "accuracy conflicting",
    "worst group",
    "sensitivity before",
    "sensitivity after",
    "tcav",
    "auc",
)
COLUMNS = (*RUN, "method", "layer", *MEASURES, "lr", "minutes")
PARTS = ("artifacts", "chain")
SIZES = {
    "artifacts": {"epochs": 8, "n_train": 4_000, "n_test": 1_500},
    "chain": {"epochs": 5, "n_train": 5_000, "n_test": 2_000},
}
SMALL = {"epochs": 1, "n_train": 500, "n_test": 100}
# Shown as percentages.
SHARES = {name for name in MEASURES if "accuracy" in name or name == "worst group"}
SHOWN = {
    "artifacts": (*MEASURES[:2], *MEASURES[5:]),
    "chain": MEASURES[2:],
}
# Those that correct the same layer by training, whose sensitivities compare.
TRAINED = ("ERM, continued", "RR-ClArC", "A-ClArC", "RRR")
# With the control this much below its clean accuracy, there is something to win back.
DAMAGE = 20
GAIN = 15


def add_row(path, row):
    """Add a row to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerow(row)


def summarise(rows, data):
    """Return mean and standard deviation of each measure over seeds, by method."""
    values = {}
    for row in rows:
        if row["data"] != data:
            continue
        of_method = values.setdefault(row["method"], {})
        for name in MEASURES:
            if row[name] != "":
                scale = 100 if name in SHARES else 1
                of_method.setdefault(name, []).append(scale * float(row[name]))
    return {
        method: {
            name: (np.mean(cells), np.std(cells, ddof=1) if cells[1:] else np.nan)
            for name, cells in of_method.items()
        }
        for method, of_method in values.items()
    }


def table(rows, part):
    """Return the lines of the tables of a part, in Markdown."""
    names = SHOWN[part]
    head = ["data", "method", *names]
    lines = [_line(head), _line(["---"] * 2 + ["---:"] * len(names))]
    for data in dict.fromkeys(row["data"] for row in rows):
        for i, (method, measures) in enumerate(summarise(rows, data).items()):
            cells = [_cell(name, measures.get(name)) for name in names]
            lines.append(_line([data if i == 0 else "", method, *cells]))
    return lines


def verdict(measures):
    """Say whether an artifact does harm, and whether RR-ClArC undoes it."""
    control = measures["ERM, continued"]
    harm = control["accuracy clean"][0] - control["accuracy attacked"][0]
    if harm < DAMAGE:
        return f"the control loses {harm:.1f} points, less than {DAMAGE}: little to win"
    corrected = measures["RR-ClArC"]["accuracy attacked"][0]
    gain = corrected - control["accuracy attacked"][0]
    # An edit takes its direction out by construction, which proves nothing.
    least = min(
        (name for name in TRAINED if name in measures),
        key=lambda name: measures[name]["sensitivity after"][0],
    )
    held = "wins back" if gain >= GAIN else "wins back only"
    return (
        f"the control loses {harm:.1f} points; RR-ClArC {held} {gain:.1f}; of those "
        f"that train, {least} has the lowest sensitivity"
    )


def _cell(name, values):
    if values is None:
        return ""
    mean, std = values
    digits = 1 if name in SHARES else 2
    return f"{mean:.{digits}f}" + ("" if np.isnan(std) else f" ± {std:.{digits}f}")


def _line(cells):
    return f"| {' | '.join(cells)} |"


# ---------------------------------------------------------------- the run


def settings(arguments, seed, memory):
    """Return the settings of a seed: one for each artifact, or the chain's."""
    source = Source(arguments.data_home.expanduser(), arguments.download, seed)
    small = arguments.scale == "small"
    sizes = (SMALL | {"refit_epochs": 1}) if small else SIZES[arguments.part]
    if arguments.part == "chain":
        return [Colour(source, memory, **sizes)]
    sizes = sizes | {"proportion": arguments.proportion}
    return [Artifact(name, source, memory, **sizes) for name in arguments.artifacts]


def run(arguments, memory):
    """Run what is not in the file; return the rows of this run, old and new."""
    path = arguments.out
    for seed in range(arguments.seeds):
        for setting in settings(arguments, seed, memory):
            key = _key(arguments, setting) | {"seed": seed}
            for method in setting.methods:
                if arguments.methods and method not in arguments.methods:
                    continue
                known = key | {"method": method}
                if any(is_of(row, known) for row in read_rows(path)):
                    continue
                found, timing = timed(setting.fit, method)
                row = known | {"minutes": f"{timing.cpu / 60:.2f}"}
                row |= {name: _rounded(value) for name, value in found.items()}
                add_row(path, row)
                shown = ", ".join(f"{k} {row[k]}" for k in MEASURES if k in row)
                print(
                    f"  seed {seed}, {setting.name}, {method}: {shown}; "
                    f"{timing.cpu:.0f} s",
                    flush=True,
                )
    keys = [_key(arguments, s) for s in settings(arguments, 0, memory)]
    rows = [
        row
        for row in read_rows(path)
        if int(row["seed"]) < arguments.seeds and any(is_of(row, key) for key in keys)
    ]
    # In the usual order, whichever was run first.
    order = [m for s in settings(arguments, 0, memory) for m in s.methods]
    return sorted(rows, key=lambda row: order.index(row["method"]))


def _key(arguments, setting):
    return {
        "part": arguments.part,
        "data": setting.name,
        "scale": arguments.scale,
        "epochs": setting.epochs,
        "n_train": setting.n_train,
        "n_test": setting.n_test,
    }


def _rounded(value):
    return value if isinstance(value, str) else f"{value:.5g}"


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--part", choices=PARTS, default="artifacts")
    parser.add_argument(
        "--scale",
        choices=("small", "full"),
        default="full",
        help="small: to see that it runs; its numbers mean nothing",
    )
    parser.add_argument("--seeds", type=positive, default=3, help="how many")
    parser.add_argument(
        "--artifacts", nargs="+", choices=ARTIFACTS, default=list(ARTIFACTS)
    )
    parser.add_argument(
        "--proportion",
        type=float,
        default=0.5,
        help="share of the attacked class that shows the artifact in training",
    )
    parser.add_argument("--methods", nargs="+", help="which to run; default: all")
    parser.add_argument("--data-home", type=Path, default=Path(DATA_HOME))
    parser.add_argument("--download", action="store_true", help="data that are lacking")
    parser.add_argument("--out", type=Path, help="the CSV file")
    parser.add_argument("--memory", type=Path, help="folder to keep trained ERMs in")
    parser.add_argument("--threads", type=positive, help="torch threads")
    arguments = parser.parse_args(argv)
    if arguments.threads is not None:
        torch.set_num_threads(arguments.threads)
    if arguments.out is None:
        suffix = "_small" if arguments.scale == "small" else ""
        arguments.out = RESULTS / f"concepts{suffix}.csv"
    print(describe_machine(), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        try:
            rows = run(arguments, arguments.memory or Path(folder))
        except FileNotFoundError as error:
            print(f"This can't be run here: {error}", file=sys.stderr)
            return 2
    print("\n".join(["", *table(rows, arguments.part), ""]))
    if arguments.part == "artifacts":
        for data in dict.fromkeys(row["data"] for row in rows):
            measures = summarise(rows, data)
            if {"ERM, continued", "RR-ClArC"} <= set(measures):
                print(f"{data}: {verdict(measures)}.")
    print(f"Rows are in {arguments.out}.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
