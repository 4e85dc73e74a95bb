"""Which mask_threshold? A search, and why not by accuracy.

The threshold says how salient a place must be to be hidden. A search by accuracy looks
at validation data with the same shortcut, on which the net that keeps the shortcut is
the best. `masked_accuracy_scorer` needs no labels of the shortcut either: it asks for
the labels of images whose salient part is hidden. What does each of them choose, and
what is the choice worth where the shortcut is wrong? Beside them the oracle, which
knows such images; you would not.

A square in a corner is the best case. Over eight planted shortcuts, some of which no
mask hides, masked accuracy and consistency (right as it is *and* masked) lost 4 points
of the worst group to the oracle, and accuracy 19 (`benchmarks/selection.py`). ERM is
trained once a search: all thresholds find it in `memory`.

    python examples/04_choose_threshold.py [picture.png]

Under a minute on one core. Nothing is downloaded.
"""

import sys
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.model_selection import GridSearchCV, StratifiedShuffleSplit

from masktune_sk import MaskTuneClassifier
from masktune_sk.datasets import load_shortcut_digits
from masktune_sk.metrics import (
    masked_accuracy_scorer,
    masked_consistency_scorer,
    worst_class_accuracy_scorer,
)
from masktune_sk.modules import default_net

# One thread is as fast for so small a network, and the numbers do not depend on how
# many cores there are.
torch.set_num_threads(1)

SEEDS = (0, 1, 2)
THRESHOLDS = [0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0]

conflicting = load_shortcut_digits(subset="test", square="conflicting")


def oracle(clf, X, y):
    """Accuracy where the square is on the wrong class."""
    return clf.score(conflicting.data, conflicting.target)


SCORERS = {
    "accuracy": "accuracy",
    "worst class": worst_class_accuracy_scorer,
    "masked accuracy": masked_accuracy_scorer,
    "masked consistency": masked_consistency_scorer,
    "oracle": oracle,
}


def search(seed, memory):
    """Return the scores of all thresholds, a row a scorer."""
    X, y = load_shortcut_digits(random_state=seed, return_X_y=True)
    net = default_net((3, 28, 28), n_classes=2, max_epochs=8)
    clf = MaskTuneClassifier(
        net, validation_fraction=0, memory=memory, random_state=seed
    )
    found = GridSearchCV(
        clf,
        {"mask_threshold": THRESHOLDS},
        scoring=SCORERS,
        # Three folds in earnest; here one split a seed.
        cv=StratifiedShuffleSplit(1, test_size=0.3, random_state=seed),
        # Which of the scorers is to choose: the search takes one name.
        refit=False,
    ).fit(X, y)
    return {name: found.cv_results_[f"mean_test_{name}"] for name in SCORERS}


scores = {name: [] for name in SCORERS}
with tempfile.TemporaryDirectory() as memory:
    for seed in SEEDS:
        for name, row in search(seed, memory).items():
            scores[name].append(row)
scores = {name: np.array(rows) for name, rows in scores.items()}

print("What the scorers say, mean of", len(SEEDS), "seeds")
print(f"{'mask_threshold':20}" + "".join(f"{t:>7}" for t in THRESHOLDS))
for name, rows in scores.items():
    print(f"{name:20}" + "".join(f"{score:>7.3f}" for score in rows.mean(axis=0)))

print(f"\n{'chosen by':20}{'thresholds':>16}{'conflicting':>18}{'lost':>8}")
true = scores["oracle"]
worth = {}
for name, rows in scores.items():
    choice = rows.argmax(axis=1)
    worth[name] = true[np.arange(len(SEEDS)), choice]
    chosen = ", ".join(str(THRESHOLDS[i]) for i in choice)
    lost = np.mean(true.max(axis=1) - worth[name])
    mean, std = worth[name].mean(), worth[name].std(ddof=1)
    print(f"{name:20}{chosen:>16}{f'{mean:.3f} +- {std:.3f}':>18}{lost:>8.3f}")

figure, axes = plt.subplots(
    1, len(SEEDS), figsize=(10, 3.8), sharey=True, layout="constrained"
)
for i, ax in enumerate(axes):
    for name, style in zip(SCORERS, ("-", ":", "-", "-.", "--"), strict=True):
        color = "black" if name == "oracle" else None
        row = scores[name][i]
        (line,) = ax.plot(THRESHOLDS, row, style, color=color, label=name)
        ax.plot(THRESHOLDS[row.argmax()], row.max(), "o", color=line.get_color())
    ax.set(xlabel="mask_threshold", title=f"seed {SEEDS[i]}")
    ax.grid(alpha=0.3)
axes[0].set_ylabel("score; dots: the highest")
figure.legend(
    *axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(SCORERS)
)
path = sys.argv[1] if len(sys.argv) > 1 else "04_choose_threshold.png"
figure.savefig(path, dpi=120)
print(f"\nPicture: {path}")
