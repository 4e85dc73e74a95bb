"""MaskTune on real handwritten digits with a planted shortcut.

Digits 0-4 against 5-9. In 99 % of the training images a red square in the corner gives
the class away: digits 0-4 have it, 5-9 do not. A network trained as usual (ERM) reads
the square. What does it do where the square is wrong, and what after MaskTune? And
which predictions does the pair of networks know better than to make?

    python examples/01_quickstart.py [picture.png]

About a minute on two cores. Nothing is downloaded, and nothing but the training images
and labels is given to the estimator.
"""

import sys

import numpy as np
import torch
from sklearn.base import clone

from masktune_sk import MaskTuneClassifier
from masktune_sk.datasets import load_shortcut_digits
from masktune_sk.inspection import SaliencyMaskDisplay
from masktune_sk.modules import default_net

# One thread is as fast for so small a network, and the numbers do not depend on how
# many cores there are.
torch.set_num_threads(1)

SEEDS = (0, 1, 2)
COVERAGES = (1.0, 0.9, 0.8)

# The same 540 test digits three times: the square as in training, the square on the
# wrong class, and no square at all.
TEST = {
    "aligned": load_shortcut_digits(subset="test", square="aligned"),
    "conflicting": load_shortcut_digits(subset="test", square="conflicting"),
    "no square": load_shortcut_digits(subset="test", square="none"),
}
for test in TEST.values():
    test.data = test.data.astype(np.float32)  # as a plain skorch net wants it


def accuracies(predict):
    return [np.mean(predict(test.data) == test.target) for test in TEST.values()]


def square_masked(clf):
    """Share of the planted square that the mask hides, and of the whole image."""
    train = load_shortcut_digits(square="aligned")
    planted = train.artifact_mask.any(axis=(1, 2))
    _, masks = clf.mask(train.data[planted])
    return 1 - masks[train.artifact_mask[planted]].mean(), clf.masked_fraction_


def print_table(title, rows, cell):
    print(f"\n{title}\n{'':24}" + "".join(f"{name:>18}" for name in TEST))
    for name, values in rows.items():
        cells = (cell(np.array(column)) for column in zip(*values, strict=True))
        print(f"{name:24}" + "".join(f"{text:>18}" for text in cells))


table = {"ERM": [], "ERM, continued": [], "MaskTune": []}
rejection = {f"target coverage {c:.0%}": [] for c in COVERAGES}
hidden = []

for seed in SEEDS:
    X, y = load_shortcut_digits(random_state=seed, return_X_y=True)
    net = default_net((3, 28, 28), n_classes=2, max_epochs=10)
    masktune = MaskTuneClassifier(net, random_state=seed).fit(X, y)
    # The control: the same ERM, then the same further epoch without masks.
    continued = clone(masktune).set_params(masking="none").fit(X, y)

    table["ERM"].append(accuracies(masktune.erm_net_.predict))
    table["ERM, continued"].append(accuracies(continued.predict))
    table["MaskTune"].append(accuracies(masktune.predict))
    hidden.append(square_masked(masktune))
    for coverage, rows in zip(COVERAGES, rejection.values(), strict=True):
        row = []
        for test in TEST.values():
            y_pred, accepted = masktune.predict_with_reject(
                test.data, coverage=coverage
            )
            row.append((accepted.mean(), np.mean((y_pred == test.target)[accepted])))
        rows.append(row)

    if seed == SEEDS[0]:
        aligned, conflicting = TEST["aligned"], TEST["conflicting"]
        first = [np.flatnonzero(aligned.digit == digit)[0] for digit in (0, 3, 7)]
        X_show = np.concatenate([aligned.data[first], conflicting.data[first[-1:]]])
        y_show = aligned.target[[*first, first[-1]]]
        path = sys.argv[1] if len(sys.argv) > 1 else "01_quickstart.png"
        SaliencyMaskDisplay.from_estimator(masktune, X_show, y_show).figure_.savefig(
            path, dpi=120
        )

print_table(
    f"Accuracy, mean +- std of {len(SEEDS)} seeds",
    table,
    lambda values: f"{values.mean():.3f} +- {values.std(ddof=1):.3f}",
)
square, image = np.mean(hidden, axis=0)
print(
    f"\nThe masks hide {square:.0%} of the planted square and {image:.1%} of an image."
)
print_table(
    "MaskTune with rejection: share accepted, and accuracy of what is accepted",
    rejection,
    lambda values: "{:.2f}, {:.3f}".format(*values.mean(axis=0)),
)
print(f"\nPicture: {path}")
