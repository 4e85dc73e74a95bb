"""How often does diagnose_shortcut err? False alarms, and shortcuts that it misses.

    python benchmarks/diagnosis.py

Draws data sets, without a shortcut and with a planted one that agrees with y on 95 % of
each class, and counts verdicts. Nothing is trained. MNIST, Fashion-MNIST and CIFAR-10
are used where the package finds them (`MASKTUNE_SK_DATA`); the digits and tables of
scikit-learn always.

Null data are two classes of a set, drawn anew for each data set ("pairs"), so that
there are easy ones, which a few pixels or the amount of ink nearly tell apart; the
first five classes against the others ("halves"); all ten classes; tables; and images
with labels that have no relation to them. A share of 50, 80 or 95 % is of the first
class. Images of MNIST, Fashion-MNIST and CIFAR-10 are of their test sets. The limits in
the diagnosis were first set on other draws of these, of the digits and of the tables,
and the last of them (how sure errors may be, how far margins may spread) on training
sets. What is marked "new" was not drawn from for that: of the halves the task is new,
while pairs of the same images were used; of the wine everything is.
"""

import argparse
import csv
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from sklearn.datasets import load_breast_cancer, load_wine, make_classification

from masktune_sk.datasets import (
    fetch_cifar10,
    fetch_fashion_mnist,
    fetch_mnist,
    load_shortcut_digits,
    make_artifact,
    make_colored,
    make_leaky_column,
    make_square_shortcut,
)
from masktune_sk.inspection import diagnose_shortcut
from masktune_sk.metrics import proportion_interval

RESULTS = Path(__file__).parent / "results"
BALANCES = (0.5, 0.8, 0.95)
CONFLICTS = 0.05
SIDE = 4  # of the square, in pixels
CORNERS = ("top-left", "top-right", "bottom-left", "bottom-right")
EDGE = 2  # of the frame
TWO_COLOURS = ((0.9, 0.3, 0.2), (0.1, 0.8, 0.9))
FEWEST = 8  # samples of a class
ENOUGH = 20  # of the smallest class, for a shortcut to be told by where it lies


@dataclass(frozen=True)
class Base:
    """Samples without a shortcut; ``draw(random, n, balance)`` returns X and y."""

    draw: Callable
    balances: tuple = BALANCES
    shortcuts: tuple = ("square", "border", "colour", "brightness")
    is_new: bool = False


def draw_rows(random, y, n, balance):
    """Draw rows of classes 0 and 1; fewer than n where there are not enough."""
    members = [random.permutation(np.flatnonzero(y == k)) for k in (0, 1)]
    shares = np.array([balance, 1 - balance])
    n = min(n, *(int(len(m) / s) for m, s in zip(members, shares, strict=True)))
    counts = np.maximum(np.rint(n * shares).astype(int), FEWEST)
    return np.concatenate([m[:k] for m, k in zip(members, counts, strict=True)])


def pairs(X, y):
    """Two classes of many."""

    def draw(random, n, balance):
        pair = random.permutation(np.unique(y))[:2]
        rows = np.flatnonzero(np.isin(y, pair))
        labels = (y[rows] == pair[1]).astype(int)
        chosen = draw_rows(random, labels, n, balance)
        return X[rows[chosen]], labels[chosen]

    return draw


def halves(X, y):
    """The first five classes against the others."""

    def draw(random, n, balance):
        labels = (y >= 5).astype(int)
        rows = draw_rows(random, labels, n, balance)
        return X[rows], labels[rows]

    return draw


def all_classes(X, y):
    def draw(random, n, balance):
        rows = random.permutation(len(y))[:n]
        return X[rows], y[rows]

    return draw


def no_relation(X, y):
    """Labels that are drawn by themselves."""

    def draw(random, n, balance):
        rows = random.permutation(len(y))[:n]
        labels = (np.arange(n) >= round(n * balance)).astype(int)
        return X[rows], labels

    return draw


def table(X, y):
    def draw(random, n, balance):
        rows = draw_rows(random, y, n, balance)
        return X[rows], y[rows]

    return draw


def made_table(random, n, balance):
    """Twenty columns, of which five tell the class together."""
    return make_classification(
        n,
        n_features=20,
        n_informative=5,
        n_redundant=5,
        weights=[balance],
        class_sep=random.uniform(0.5, 2),
        flip_y=0,
        random_state=random.integers(2**31),
    )


def find_bases():
    """Return what there is to draw from, by name."""
    digits = load_shortcut_digits(subset="all", square="none")
    grey = digits.data[:, 0]
    column = ("leaky column",)
    bases = {
        "digits, halves": Base(halves(grey, digits.digit)),
        "digits, pairs": Base(pairs(grey, digits.digit)),
        "digits, ten classes": Base(
            all_classes(grey, digits.digit), (0.1,), ("square", "border", "colour")
        ),
        "digits, no relation": Base(no_relation(grey, digits.digit), shortcuts=()),
        "digits as vectors, pairs": Base(
            pairs(
                grey.reshape(len(grey), 28, 28)[:, 4:24:3, 4:24:3].reshape(-1, 49),
                digits.digit,
            ),
            shortcuts=column,
        ),
        "breast cancer": Base(
            table(*load_breast_cancer(return_X_y=True)), shortcuts=column
        ),
        "make_classification": Base(made_table, shortcuts=column),
        "wine, pairs": Base(
            pairs(*load_wine(return_X_y=True)), shortcuts=column, is_new=True
        ),
    }
    fetchers = {
        "MNIST": fetch_mnist,
        "Fashion-MNIST": fetch_fashion_mnist,
        "CIFAR-10": fetch_cifar10,
    }
    for name, fetch in fetchers.items():
        try:
            X, y = fetch(subset="test", return_X_y=True)
        except FileNotFoundError:
            print(f"{name} is not there, and left out.")
            continue
        shortcuts = (
            Base.shortcuts if X.ndim == 3 else ("square", "border", "brightness")
        )
        bases[f"{name}, pairs"] = Base(pairs(X, y), shortcuts=shortcuts)
        bases[f"{name}, halves"] = Base(halves(X, y), shortcuts=shortcuts, is_new=True)
    return bases


def plant(shortcut, X, y, random):
    """Plant a shortcut that agrees with y on 95 % of each class."""
    seed = int(random.integers(2**31))
    biased = {"conflict_ratio": CONFLICTS, "random_state": seed}
    if shortcut == "none":
        return X if X.ndim != 3 else X[:, None]
    if shortcut == "leaky column":
        return make_leaky_column(X, y, **biased).data
    if shortcut == "square":
        place = CORNERS[random.integers(len(CORNERS))]
        return make_square_shortcut(
            X, y, label_groups=None, square_size=SIDE, position=place, **biased
        ).data
    if shortcut == "colour":
        colors = TWO_COLOURS if y.max() == 1 else None
        return make_colored(X, y, assignment="random", colors=colors, **biased).data
    if shortcut == "brightness":
        return make_artifact(
            X,
            y,
            artifact="brightness",
            proportion=1 - CONFLICTS,
            proportion_other=CONFLICTS,
            random_state=seed,
        ).data
    # A frame in the grey of its class.
    bias = make_leaky_column(np.zeros((len(y), 1)), y, **biased).bias
    frame = np.ones(X.shape[-2:], dtype=bool)
    frame[EDGE:-EDGE, EDGE:-EDGE] = False
    framed = X.copy() if X.ndim == 4 else X[:, None].copy()
    framed[..., frame] = (255 * bias / max(y.max(), 1))[:, None, None]
    return framed


def diagnose(base, shortcut, balance, arguments, seed):
    """Draw and diagnose a data set.

    Return its size, that of the smallest class, and the kinds of evidence.
    """
    random = np.random.default_rng(seed)
    X, y = base.draw(random, arguments.samples, balance)
    diagnosis = diagnose_shortcut(
        plant(shortcut, X, y, random),
        y,
        n_permutations=arguments.permutations,
        random_state=int(random.integers(2**31)),
    )
    kinds = {row.kind for row in diagnosis.evidence if row.is_shortcut}
    return len(y), min(diagnosis.class_counts.values()), kinds


def as_row(shortcut, name, balance, is_new, sizes, smallest, kinds):
    """Sum up a cell."""
    found = sum(map(bool, kinds))
    low, high = proportion_interval(found, len(kinds))
    by_kind = Counter(kind for some in kinds for kind in sorted(some))
    return {
        "shortcut": shortcut,
        "base": name,
        "is_new": is_new,
        "balance": balance,
        "n_samples": int(np.median(sizes)),
        "smallest_class": int(np.median(smallest)),
        "draws": len(kinds),
        "found": found,
        "low": round(low, 4),
        "high": round(high, 4),
        "kinds": "; ".join(f"{kind} {n}" for kind, n in by_kind.items()),
    }


def show(rows):
    """Print cells, and what they come to for each base and each shortcut."""
    print(f"{'shortcut':14}{'base':28}{'balance':>8}{'n':>6}{'draws':>7}{'found':>7}")
    for row in rows:
        print(
            f"{row['shortcut']:14}{row['base']:28}{row['balance']:8}"
            f"{row['n_samples']:6}{row['draws']:7}{row['found']:7}  {row['kinds']}"
        )
    null = [row for row in rows if row["shortcut"] == "none"]
    planted = [row for row in rows if row["shortcut"] != "none"]
    enough = [row for row in planted if row["smallest_class"] >= ENOUGH]
    pool("False alarms", null, lambda row: row["base"])
    pool("False alarms", null, lambda row: f"balance {row['balance']}")
    pool("False alarms", [row for row in null if row["is_new"]], lambda row: "new")
    pool("False alarms", null, lambda row: "all")
    pool(f"Found, {ENOUGH} of a class or more", enough, lambda row: row["shortcut"])
    pool(f"Found, {ENOUGH} of a class or more", enough, lambda row: "all")
    pool("Found", planted, lambda row: row["base"])
    pool("Found", planted, lambda row: "all")


def pool(title, rows, key):
    """Print how many of the draws of all cells with the same key were found."""
    groups = {}
    for row in rows:
        found, draws = groups.get(key(row), (0, 0))
        groups[key(row)] = found + row["found"], draws + row["draws"]
    for group, (found, draws) in groups.items():
        low, high = proportion_interval(found, draws)
        print(
            f"{title}: {group:26}{found:5} of {draws:4}  {found / draws:.3f} "
            f"({low:.3f} to {high:.3f})"
        )


def main(argv=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=42, help="of each base without")
    parser.add_argument("--planted-draws", type=int, default=2, help="of each cell")
    parser.add_argument("--samples", type=int, default=400)
    # As few as can reach 0.05: the level is the same, and the verdict seldom its.
    parser.add_argument("--permutations", type=int, default=19)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--only", default="", help="bases with this in their names")
    parser.add_argument("--out", type=Path, default=RESULTS / "diagnosis.csv")
    arguments = parser.parse_args(argv)

    bases = {k: base for k, base in find_bases().items() if arguments.only in k}
    wanted = {  # draws, and what was seen: sizes, smallest classes, kinds of evidence
        (shortcut, name, balance): (
            -(-arguments.draws // len(base.balances))
            if shortcut == "none"
            else arguments.planted_draws,
            ([], [], []),
        )
        for name, base in bases.items()
        for shortcut in ("none", *base.shortcuts)
        for balance in base.balances
    }
    rows = []
    # A draw of every cell at a time, so that a run that is stopped has seen them all.
    for draw in range(max(n_draws for n_draws, _ in wanted.values())):
        for cell, (n_draws, seen) in wanted.items():
            if draw >= n_draws:
                continue
            seed = [arguments.seed, zlib.crc32(repr(cell).encode()), draw]
            found = diagnose(bases[cell[1]], *cell[::2], arguments, seed)
            for values, value in zip(seen, found, strict=True):
                values.append(value)
        rows = [
            as_row(*cell, bases[cell[1]].is_new, *seen)
            for cell, (n_draws, seen) in wanted.items()
            if n_draws
        ]
        rows.sort(key=lambda row: row["shortcut"] != "none")
        arguments.out.parent.mkdir(exist_ok=True)
        with open(arguments.out, "w", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    show(rows)


if __name__ == "__main__":
    main()
