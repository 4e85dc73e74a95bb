"""A column of the table leaks the class. Does MaskTune see it, and what does it gain?

To the 30 measurements of scikit-learn's breast cancer data a column is added that tells
the class in 99 % of the training rows, as a field does that was filled in after the
diagnosis. Which columns do the masks hide, and how good is the network where the column
still tells the class, where it tells the wrong one, and where it tells nothing?

A table has a trap: the network standardises its columns by batch normalisation. A
column that is hidden in all rows has no spread left, and the statistics of the refit
say so; when it is back, it is divided by next to nothing, and decides all. So the
statistics stay those of ERM where vectors are masked. The last line is without that.

    python examples/07_leaky_column.py [picture.png]

Half a minute on one core. Nothing is downloaded.
"""

import sys

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.base import clone
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from masktune_sk import MaskTuneClassifier
from masktune_sk.datasets import make_leaky_column

# One thread is as fast for so small a network, and the numbers do not depend on how
# many cores there are.
torch.set_num_threads(1)

SEEDS = (0, 1, 2, 3, 4)
N_SHOWN = 8

cancer = load_breast_cancer()
X_train, X_test, y_train, y_test = train_test_split(
    cancer.data, cancer.target, test_size=0.4, stratify=cancer.target, random_state=0
)
# What is hidden is set to 0: the mean of a column that is standardised.
scaler = StandardScaler().fit(X_train)
X_train, X_test = scaler.transform(X_train), scaler.transform(X_test)
TEST = {
    leak: make_leaky_column(X_test, y_test, shortcut=leak, random_state=100)
    for leak in ("aligned", "conflicting", "none")
}


def accuracies(predict):
    return [np.mean(predict(test.data) == test.target) for test in TEST.values()]


table = {"ERM": [], "ERM, continued": [], "MaskTune": [], "freeze_norm=False": []}
hidden = []
for seed in SEEDS:
    train = make_leaky_column(X_train, y_train, random_state=seed)
    masktune = MaskTuneClassifier(
        # Two hundred rows an epoch are a few steps: five epochs of masked rows.
        refit_epochs=5,
        validation_fraction=0,
        random_state=seed,
    )
    masktune.fit(train.data, train.target)
    controls = {
        "ERM, continued": clone(masktune).set_params(masking="none"),
        "freeze_norm=False": clone(masktune).set_params(freeze_norm=False),
    }
    table["ERM"].append(
        accuracies(lambda X, net=masktune.erm_net_: net.predict(X.astype(np.float32)))
    )
    table["MaskTune"].append(accuracies(masktune.predict))
    for name, clf in controls.items():
        table[name].append(accuracies(clf.fit(train.data, train.target).predict))
    _, masks = masktune.mask(train.data)
    hidden.append(1 - masks.mean(axis=0))

names = [*cancer.feature_names, "leak"]
shares = 100 * np.mean(hidden, axis=0)
order = np.argsort(-shares)[:N_SHOWN][::-1]
means, stds = (
    {name: function(rows, axis=0, **options) for name, rows in table.items()}
    for function, options in ((np.mean, {}), (np.std, {"ddof": 1}))
)

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
bars = left.barh(
    [names[i] for i in order],
    shares[order],
    color=["C3" if names[i] == "leak" else "C0" for i in order],
)
left.bar_label(bars, fmt="%.0f %%", padding=3)
left.set(
    xlabel="masked in % of training rows", xlim=(0, 115), title="What the masks hide"
)
width = 0.8 / len(table)
for i, name in enumerate(table):
    places = np.arange(len(TEST)) + (i - (len(table) - 1) / 2) * width
    right.bar(places, means[name], width, yerr=stds[name], label=name, capsize=2)
right.set(
    ylabel="accuracy",
    ylim=(0, 1.05),
    title=f"Test rows whose column tells ..., {len(SEEDS)} seeds",
)
right.set_xticks(np.arange(len(TEST)), ["the class", "the wrong class", "nothing"])
figure.legend(
    *right.get_legend_handles_labels(), loc="outside lower right", ncols=len(table)
)
path = sys.argv[1] if len(sys.argv) > 1 else "07_leaky_column.png"
figure.savefig(path, dpi=120)

print(f"Accuracy, mean +- std of {len(SEEDS)} seeds; the column is")
print(f"{'':20}" + "".join(f"{name:>18}" for name in TEST))
for name in table:
    cells = (
        f"{m:.3f} +- {s:.3f}" for m, s in zip(means[name], stds[name], strict=True)
    )
    print(f"{name:20}" + "".join(f"{cell:>18}" for cell in cells))
print(
    f"\nThe leak is masked in {shares[-1]:.0f}% of the training rows, another column "
    f"in {shares[:-1].mean():.1f}% on average."
)
print(f"\nPicture: {path}")
