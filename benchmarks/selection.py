"""Which scorer chooses well without labels of the bias? Its regret, against an oracle.

    python benchmarks/selection.py [--seeds 10] [--biases "square 1 %" none]

For each planted bias and seed, `GridSearchCV` scores the same candidates: six values
of `mask_threshold`, from one that hides much to one that hides next to nothing, and
``masking="none"``. They share one ERM training, by ``memory=``. The hold-out is 30 % of
the biased training data, with the same bias. What a scorer chooses is then looked at
where nothing may look in practice: at test data of which half conflicts with the
shortcut. The *regret* is what the best candidate has there, less what the chosen one
has, in points of accuracy; of candidates that tie, the mean. Whatever is known of the
test data chooses nothing but the oracle's candidate.

The images are the 1,797 digits that come with scikit-learn, 0-4 against 5-9, split anew
by each seed; the table has their 64 pixels as columns, and the leak. Rows are added to
results/selection.csv as they are found, so that a run that was killed goes on; about 15
seconds for each bias and seed on one core.
"""

import argparse
import copy
import csv
import tempfile
import warnings
from functools import partial, wraps
from pathlib import Path
from types import SimpleNamespace

import joblib
import numpy as np
from sklearn.datasets import load_digits
from sklearn.metrics import get_scorer
from sklearn.model_selection import GridSearchCV, train_test_split

from masktune_sk import MaskTuneClassifier
from masktune_sk.datasets import (
    load_shortcut_digits,
    make_artifact,
    make_colored,
    make_leaky_column,
    make_square_shortcut,
)
from masktune_sk.exceptions import EmptyMaskWarning
from masktune_sk.metrics import (
    erm_agreement_scorer,
    group_accuracies,
    masked_accuracy_scorer,
    masked_agreement_scorer,
    masked_consistency_scorer,
    pseudo_conflict_accuracy_scorer,
    pseudo_group_accuracy_scorer,
    worst_class_accuracy_scorer,
)
from masktune_sk.modules import default_net

RESULTS = Path(__file__).parent / "results" / "selection.csv"
TEST_SHARE, HOLDOUT_SHARE = 0.3, 0.3
EPOCHS, REFIT_EPOCHS = 5, 2
THRESHOLDS = (0.0, 1.0, 1.5, 2.0, 3.0, 6.0)
RED_AND_GREEN = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0))
DEFAULT = "mask_threshold=2"
CONTINUED = "masking=none"
BASELINE = "accuracy"
LABEL_FREE = (
    BASELINE,
    "worst class",
    "masked accuracy",
    "masked consistency",
    "masked agreement",
    "pseudo-conflict, ERM",
    "pseudo-conflict, early",
    "pseudo-group, ERM",
    "pseudo-group, early",
    "agreement with ERM",
)
GROUPS_KNOWN = "worst group, known"
SCORERS = (*LABEL_FREE, GROUPS_KNOWN)
TEST = ("test worst group", "test mean")
ERM = ("ERM worst group", "ERM mean")
FIELDS = ("bias", "seed", "candidate", *SCORERS, *TEST, *ERM)


# ---------------------------------------------------------------------- biases


def square(images, digits, shortcut, seed, ratio):
    return make_square_shortcut(
        images, digits, shortcut=shortcut, conflict_ratio=ratio, random_state=seed
    )


def colour(images, digits, shortcut, seed, ratio):
    return make_colored(
        images,
        (digits > 4).astype(int),
        shortcut=shortcut,
        conflict_ratio=ratio,
        assignment="random",
        colors=RED_AND_GREEN,
        random_state=seed,
    )


def artifact(images, digits, shortcut, seed, ratio, kind):
    share = {"biased": ratio, "aligned": 0.0, "conflicting": 1.0}[shortcut]
    return make_artifact(
        images,
        (digits > 4).astype(int),
        artifact=kind,
        proportion=1 - share,
        proportion_other=share,
        random_state=seed,
    )


def leak(table, digits, shortcut, seed, ratio):
    return make_leaky_column(
        table,
        digits > 4,
        shortcut=shortcut,
        conflict_ratio=ratio,
        random_state=seed,
    )


def nothing(images, digits, shortcut, seed):
    return make_square_shortcut(images, digits, shortcut="none")


BIASES = {
    "square 0.5 %": partial(square, ratio=0.005),
    "square 1 %": partial(square, ratio=0.01),
    "square 5 %": partial(square, ratio=0.05),
    "timestamp 1 %": partial(artifact, ratio=0.01, kind="timestamp"),
    "brightness 5 %": partial(artifact, ratio=0.05, kind="brightness"),
    "colour 5 %": partial(colour, ratio=0.05),
    "leaky column 1 %": partial(leak, ratio=0.01),
    "none": nothing,
}


def make_data(name, seed):
    """Return rows to fit on, a hold-out with the same bias, and unbiased test data."""
    if name.startswith("leaky"):
        digits = load_digits()
        samples, digit = (digits.data / 16).astype(np.float32), digits.target
    else:
        digits = load_shortcut_digits(subset="all", square="none")
        samples, digit = digits.data[:, 0], digits.digit
    train, test = train_test_split(
        np.arange(len(samples)),
        test_size=TEST_SHARE,
        stratify=digit,
        random_state=seed,
    )
    make = BIASES[name]
    biased = make(samples[train], digit[train], "biased", seed)
    copies = [
        make(samples[test], digit[test], shortcut, seed)
        for shortcut in ("aligned", "conflicting")
    ]
    rows = train_test_split(
        np.arange(len(train)),
        test_size=HOLDOUT_SHARE,
        stratify=biased.target,
        random_state=seed,
    )
    return SimpleNamespace(
        X=biased.data,
        y=biased.target,
        groups=biased.groups,
        rows=rows,
        X_test=np.concatenate([copy.data for copy in copies]),
        y_test=np.concatenate([copy.target for copy in copies]),
        groups_test=np.concatenate([copy.groups for copy in copies]),
    )


# ---------------------------------------------------------------------- one search


def remembered(function):
    """Return a function of an array that computes nothing twice."""
    values = {}

    @wraps(function)
    def remember(X):
        key = joblib.hash(X)
        if key not in values:
            values[key] = function(X)
        return values[key]

    return remember


class Scores:
    """All scores of a candidate, as one scorer: of the hold-out, and of the test."""

    def __init__(self, data, early):
        self.data = data
        self.erm = None
        self.scorers = {
            BASELINE: get_scorer(BASELINE),
            "worst class": worst_class_accuracy_scorer,
            "masked accuracy": masked_accuracy_scorer,
            "masked consistency": masked_consistency_scorer,
            "masked agreement": masked_agreement_scorer,
            "pseudo-conflict, ERM": pseudo_conflict_accuracy_scorer,
            "pseudo-conflict, early": partial(
                pseudo_conflict_accuracy_scorer, reference=early
            ),
            "pseudo-group, ERM": pseudo_group_accuracy_scorer,
            "pseudo-group, early": partial(
                pseudo_group_accuracy_scorer, reference=early
            ),
            "agreement with ERM": erm_agreement_scorer,
        }

    def __call__(self, clf, X, y):
        data = self.data
        if self.erm is None:  # the candidates share it
            y_pred = clf.erm_net_.predict(data.X_test.astype(np.float32))
            self.erm = dict(zip(ERM, self.test(y_pred), strict=True))
        clf = copy.copy(clf)
        clf.predict = remembered(clf.predict)
        scores = {name: scorer(clf, X, y) for name, scorer in self.scorers.items()}
        groups = data.groups[data.rows[1]]
        known = group_accuracies(y, clf.predict(X), groups=groups)
        scores[GROUPS_KNOWN] = min(known.values())
        scores.update(zip(TEST, self.test(clf.predict(data.X_test)), strict=True))
        return scores | self.erm

    def test(self, y_pred):
        """Return the accuracy of the worst group, and the mean over the groups."""
        data = self.data
        accuracies = group_accuracies(data.y_test, y_pred, groups=data.groups_test)
        accuracies = list(accuracies.values())
        return min(accuracies), np.mean(accuracies)


def search(name, seed, *, thresholds=THRESHOLDS, epochs=EPOCHS):
    """Score every candidate for one bias and seed; return a row for each."""
    data = make_data(name, seed)

    def masktune(n_epochs, **params):
        return MaskTuneClassifier(
            default_net(data.X.shape[1:], 2, max_epochs=n_epochs),
            validation_fraction=0,
            random_state=seed,
            **params,
        )

    # One epoch of ERM: it has the shortcut, and little else.
    fit_rows = data.rows[0]
    early = masktune(1, masking="none", refit_epochs=0)
    early.fit(data.X[fit_rows], data.y[fit_rows])
    with tempfile.TemporaryDirectory() as memory, warnings.catch_warnings():
        # The largest thresholds are here to hide next to nothing.
        warnings.simplefilter("ignore", EmptyMaskWarning)
        results = (
            GridSearchCV(
                masktune(epochs, refit_epochs=REFIT_EPOCHS, memory=memory),
                [{"mask_threshold": thresholds}, {"masking": ["none"]}],
                scoring=Scores(data, early),
                cv=[data.rows],
                refit=False,
                error_score="raise",
            )
            .fit(data.X, data.y)
            .cv_results_
        )
    rows = []
    for i, params in enumerate(results["params"]):
        ((key, value),) = params.items()
        value = value if isinstance(value, str) else f"{value:g}"
        row = {"bias": name, "seed": seed, "candidate": f"{key}={value}"}
        for field in FIELDS[3:]:
            row[field] = round(float(results[f"mean_test_{field}"][i]), 6)
        rows.append(row)
    return rows


# ---------------------------------------------------------------------- regret


def regrets(rows, metric):
    """Return the regret of every way to choose, from the candidates of one search.

    Parameters
    ----------
    rows : list of dict
        One for each candidate.
    metric : str
        What is lost, one of `TEST`.

    Returns
    -------
    regrets : dict of str to float
        In points of accuracy. Below zero for ERM if the best candidate is worse.
    """
    test = np.array([float(row[metric]) for row in rows])
    by_name = {row["candidate"]: value for row, value in zip(rows, test, strict=True)}
    chosen = {}
    for scorer in SCORERS:
        scores = np.array([float(row[scorer]) for row in rows])
        chosen[scorer] = test[scores == scores.max()].mean()
    chosen["no selection, threshold 2"] = by_name[DEFAULT]
    chosen["no selection, ERM continued"] = by_name[CONTINUED]
    chosen["ERM"] = float(rows[0][ERM[TEST.index(metric)]])
    chosen["any candidate, by chance"] = test.mean()
    return {name: 100 * (test.max() - value) for name, value in chosen.items()}


def tabulate(rows, metric):
    """Return the regrets of each bias and seed: names, biases, seeds, array of them.

    Seeds that some bias lacks are left out.
    """
    searches = {}
    for row in rows:
        searches.setdefault((row["bias"], int(row["seed"])), []).append(row)
    biases = [name for name in BIASES if any(name == bias for bias, _ in searches)]
    seeds = sorted({seed for _, seed in searches})
    seeds = [s for s in seeds if all((bias, s) in searches for bias in biases)]
    found = [[regrets(searches[b, s], metric) for s in seeds] for b in biases]
    names = list(found[0][0]) if seeds else []
    values = [[[r[name] for r in of_bias] for of_bias in found] for name in names]
    return names, biases, seeds, np.array(values)


def show(rows):
    """Print the regrets as tables in Markdown, and who wins."""
    for metric in TEST:
        names, biases, seeds, values = tabulate(rows, metric)
        if not seeds:
            print("No seed has every bias yet.")
            return
        print(f"\nRegret in {metric} accuracy, points, mean of {len(seeds)} seeds\n")
        print(f"| chosen by | {' | '.join(biases)} | mean ± s.e. | worst bias |")
        print("| --- |" + " ---: |" * (len(biases) + 2))
        for name, value in zip(names, values, strict=True):
            of_bias, of_seed = value.mean(axis=1), value.mean(axis=0)
            error = of_seed.std(ddof=1) / np.sqrt(len(seeds)) if len(seeds) > 1 else 0
            cells = " | ".join(f"{x:.1f}" for x in of_bias)
            mean = f"{of_seed.mean():.1f} ± {error:.1f}"
            print(f"| {name} | {cells} | {mean} | {of_bias.max():.1f} |")
        free = [names.index(name) for name in LABEL_FREE]
        means = values[free].mean(axis=(1, 2))
        print(f"\nSmallest without bias labels: {LABEL_FREE[means.argmin()]}.")
        if len(seeds) > 1:
            # Chosen on half of the seeds, is it still ahead on the other half?
            half = len(seeds) // 2
            first, second = values[free, :, :half], values[free, :, half:]
            best = first.mean(axis=(1, 2)).argmin()
            others = second.mean(axis=(1, 2))
            print(
                f"On the first {half} seeds: {LABEL_FREE[best]}, which on the others "
                f"has {others[best]:.1f}, rank {1 + (others < others[best]).sum()}."
            )


def read(path):
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--biases", nargs="+", choices=BIASES, default=list(BIASES))
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()

    done = {(row["bias"], int(row["seed"])) for row in read(arguments.results)}
    arguments.results.parent.mkdir(exist_ok=True)
    for seed in range(arguments.seeds):
        for name in arguments.biases:
            if (name, seed) in done:
                continue
            rows = search(name, seed)
            is_new = not arguments.results.exists()
            with open(arguments.results, "a", newline="") as file:
                writer = csv.DictWriter(file, FIELDS)
                if is_new:
                    writer.writeheader()
                writer.writerows(rows)
            print(f"{name}, seed {seed}", flush=True)
    show(read(arguments.results))


if __name__ == "__main__":
    main()
