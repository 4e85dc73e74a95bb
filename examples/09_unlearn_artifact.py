"""Unlearn an artifact that the maps of a network have shown.

Digits 0-4 against 5-9. Nine in ten training images of 0-4 have a red square in the
corner, as from one of two cameras; 5-9 never have it. The saliency maps of a network
trained as usual (ERM) lie on the square. So the user marks 50 images of 0-4, 30 with
the square and 20 without, and the network is corrected: RR-ClArC finds the direction
in which the square moves the latents of a layer, and trains what follows the layer not
to react to it. What does the network do where a square is on every image, before and
after, and after the same training without the penalty?

    python examples/09_unlearn_artifact.py [picture.png]

Well under a minute on two cores. Nothing is downloaded.
"""

import sys
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator

from masktune_sk import MaskTuneClassifier, RRClArCClassifier
from masktune_sk.datasets import load_shortcut_digits
from masktune_sk.inspection import SensitivityDisplay
from masktune_sk.modules import default_net

# One thread is as fast for so small a network, and the numbers do not depend on how
# many cores there are.
torch.set_num_threads(1)

SEEDS = (0, 1, 2)
N_WITH, N_WITHOUT = 30, 20
N_SHOWN = 3
CLASSES = ["0-4", "5-9"]


def load_digits(subset):
    """Return labels, the digits as they are, and the same with a square on each."""
    of_low, of_high, clean = (
        load_shortcut_digits(subset=subset, square=square)
        for square in ("aligned", "conflicting", "none")
    )
    is_low = (clean.target == 0)[:, None, None, None]
    attacked = np.where(is_low, of_low.data, of_high.data)
    return clean.target, clean.data.astype(np.float32), attacked.astype(np.float32)


def saliency_maps(net, X, y, X_show):
    """Return what a net looks at."""
    looker = MaskTuneClassifier(
        FrozenEstimator(net), refit_epochs=0, validation_fraction=0
    )
    return looker.fit(X, y).saliency_maps(X_show)


y_train, X_clean, X_attacked = load_digits("train")
y_test, *tests = load_digits("test")

table = {"ERM": [], "ERM, continued": [], "RR-ClArC": []}
with tempfile.TemporaryDirectory() as memory:
    for seed in SEEDS:
        random = np.random.RandomState(seed)
        low = random.permutation(np.flatnonzero(y_train == 0))
        with_square, without = np.split(low, [round(0.9 * len(low))])
        X = X_clean.copy()
        X[with_square] = X_attacked[with_square]

        # What the user knows: 50 images, both kinds within one class.
        concept = np.full(len(X), -1)
        concept[with_square[:N_WITH]] = 1
        concept[without[:N_WITHOUT]] = 0

        net = default_net((3, 28, 28), n_classes=2, max_epochs=10)
        clf = RRClArCClassifier(
            net,
            # The head of this network weighs each position of the layer by itself, and
            # the square is at one of them: a direction at each position.
            pool="none",
            # The rate of the first training: a thousand images make few steps.
            refit_lr=0.001,
            memory=memory,
            random_state=seed,
        )
        clf.fit(X, y_train, concept=concept)
        # The control: the same ERM, then as many epochs without the penalty.
        control = clone(clf).set_params(method="none")
        control.fit(X, y_train, concept=concept)

        nets = clf.uncorrected_net_, control, clf
        for rows, net in zip(table.values(), nets, strict=True):
            rows.append([np.mean(net.predict(X_test) == y_test) for X_test in tests])
        if seed == SEEDS[0]:
            first, X_first = clf, X

# Digits 5-9 that the square makes the ERM net take for 0-4: the first of some, and the
# mean of all.
X_test, before = tests[1], first.uncorrected_net_
X_misled = X_test[(y_test == 1) & (before.predict(X_test) == 0)]
nets = {"ERM": before, "RR-ClArC": first}

figure = plt.figure(figsize=(10, 5.2), layout="constrained")
left, right = figure.subfigures(1, 2, width_ratios=(1, 1.2))
axes = left.subplots(N_SHOWN + 1, 3)
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
X_show = np.concatenate([X_misled[:N_SHOWN], X_misled.mean(axis=0)[None]])
for ax, image in zip(axes[:, 0], X_show, strict=True):
    ax.imshow(np.moveaxis(image / 255, 0, -1))
for column, net in zip(axes[:, 1:].T, nets.values(), strict=True):
    maps = saliency_maps(net, X_first, y_train, X_misled)
    labels = net.predict(X_misled)
    texts = [f"says\n{CLASSES[label]}" for label in labels[:N_SHOWN]]
    texts.append(f"{np.mean(labels == 1):.0%}\nright")
    shown = [*maps[:N_SHOWN], maps.mean(axis=0)]
    for ax, image, saliency, text in zip(column, X_show, shown, texts, strict=True):
        ax.imshow(image.mean(axis=0), cmap="gray", vmin=0, vmax=255)
        ax.imshow(saliency, cmap="magma", vmin=0, vmax=1, alpha=0.7)
        ax.set_ylabel(text, rotation=0, ha="right", va="center")
for ax, title in zip(axes[0], ("test image", *nets), strict=True):
    ax.set_title(title)
axes[-1, 0].set_ylabel(f"mean of\n{len(X_misled)}", rotation=0, ha="right", va="center")
SensitivityDisplay.from_estimator(
    first,
    class_names=CLASSES,
    accuracies=[np.mean(net.predict(X_test) == y_test) for net in nets.values()],
    ax=right.subplots(),
)
path = sys.argv[1] if len(sys.argv) > 1 else "09_unlearn_artifact.png"
figure.savefig(path, dpi=120)

print(f"Accuracy, mean +- std of {len(SEEDS)} seeds")
print(f"{'':16}{'no square':>18}{'all have it':>18}")
for name, rows in table.items():
    means, stds = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1)
    cells = (f"{m:.3f} +- {s:.3f}" for m, s in zip(means, stds, strict=True))
    print(f"{name:16}" + "".join(f"{cell:>18}" for cell in cells))
sensitivities = first.sensitivity_before_.max(), first.sensitivity_after_.max()
print(
    "\nSensitivity to the square, in logits: {:.1f} before, {:.1f} after. "
    "The direction tells held-out images apart with an AUC of {:.2f}.".format(
        *sensitivities, first.concept_.auc[0]
    )
)
print(f"\nPicture: {path}")
