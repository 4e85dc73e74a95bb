"""Which layer of your own network should MaskTune look at?

A network of your own is a torch module in a skorch net. MaskTune asks nothing else of
it: it finds by itself the last layer whose output has a place for each part of the
image. Any other is taken by name. Here that are three, of 28 x 28, 14 x 14 and 7 x 7
positions, of one network trained once. What does each see, how much do its masks hide
of a red square that gives the class away, and what is the network worth afterwards?

Each finds the square, the coarse one covers it best, and each wins back a part of what
the square costs. None wins back all: the network of `01_quickstart.py` does better.

    python examples/02_own_network.py [picture.png]

Half a minute on one core. Nothing is downloaded.
"""

import sys
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.base import clone
from skorch import NeuralNetClassifier
from torch import nn

from masktune_sk import MaskTuneClassifier
from masktune_sk.datasets import load_shortcut_digits

# One thread is as fast for so small a network, and the numbers do not depend on how
# many cores there are.
torch.set_num_threads(1)

SEEDS = (0, 1, 2)
LAYERS = ("fine", "middle", "coarse")


def block(n_in, n_out, stride):
    """Return a convolution as it is mostly used."""
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, stride=stride, padding=1),
        nn.BatchNorm2d(n_out),
        nn.ReLU(),
    )


class OwnNetwork(nn.Module):
    """Three blocks, each at half the resolution of the one before."""

    def __init__(self, n_classes):
        super().__init__()
        self.fine = block(3, 8, stride=1)
        self.middle = block(8, 24, stride=2)
        self.coarse = block(24, 48, stride=2)
        self.head = nn.Linear(48 * 7 * 7, n_classes)

    def forward(self, X):
        X = self.coarse(self.middle(self.fine(X / 255)))
        return self.head(X.flatten(1))


net = NeuralNetClassifier(
    OwnNetwork,
    module__n_classes=2,
    criterion=nn.CrossEntropyLoss,  # of the logits that the module returns
    optimizer=torch.optim.Adam,
    lr=0.001,
    max_epochs=10,
    batch_size=32,
    iterator_train__shuffle=True,
    train_split=None,
    verbose=0,
)

aligned, conflicting = (
    load_shortcut_digits(subset="test", square=square)
    for square in ("aligned", "conflicting")
)
with_square = aligned.artifact_mask.any(axis=(1, 2))


def accuracies(clf):
    return [clf.score(test.data, test.target) for test in (aligned, conflicting)]


def hidden(clf):
    """Share of the square that masks hide, and of the image."""
    _, masks = clf.mask(aligned.data[with_square])
    return 1 - masks[aligned.artifact_mask[with_square]].mean(), 1 - masks.mean()


table = {"ERM": [], "ERM, continued": []} | {layer: [] for layer in LAYERS}
shares = {layer: [] for layer in LAYERS}
with tempfile.TemporaryDirectory() as memory:
    for seed in SEEDS:
        X, y = load_shortcut_digits(random_state=seed, return_X_y=True)
        # All fits of a seed find the same ERM net in `memory`. A thousand images make
        # few steps, hence three epochs of masked images, each at a smaller rate.
        # Nothing is rejected here, so that no rows are held out.
        masktune = MaskTuneClassifier(
            net,
            refit_epochs=3,
            refit_lr=0.0003,
            validation_fraction=0,
            memory=memory,
            random_state=seed,
        )
        controls = {
            "ERM": clone(masktune).set_params(refit_epochs=0, masking="none"),
            "ERM, continued": clone(masktune).set_params(masking="none"),
        }
        fitted = {
            layer: clone(masktune).set_params(target_layer=layer) for layer in LAYERS
        }
        for name, clf in (controls | fitted).items():
            table[name].append(accuracies(clf.fit(X, y)))
        for layer, clf in fitted.items():
            shares[layer].append(hidden(clf))
        if seed == SEEDS[0]:
            first, found = fitted, masktune.fit(X, y).layer_

shown = [np.flatnonzero(aligned.digit == digit)[0] for digit in (0, 2, 3)]
figure, axes = plt.subplots(
    len(shown), 1 + len(LAYERS), figsize=(7, 5.4), layout="constrained"
)
for row, index in zip(axes, shown, strict=True):
    image = aligned.data[index]
    row[0].imshow(np.moveaxis(image, 0, -1))
    for ax, layer in zip(row[1:], LAYERS, strict=True):
        saliency = first[layer].saliency_maps(image[None], net="erm")[0]
        _, masks = first[layer].mask(image[None])
        ax.imshow(saliency, cmap="magma", vmin=0, vmax=1)
        if not masks.all():
            ax.contour(~masks[0], levels=[0.5], colors="cyan", linewidths=1)
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
axes[0, 0].set_title("image")
for ax, layer in zip(axes[0, 1:], LAYERS, strict=True):
    square, image = np.mean(shares[layer], axis=0)
    ax.set_title(f'"{layer}" hides\n{square:.0%} of the square', fontsize=11)
figure.supxlabel("What the ERM net looks at, layer by layer; cyan: what is hidden")
path = sys.argv[1] if len(sys.argv) > 1 else "02_own_network.png"
figure.savefig(path, dpi=120)

print(f'Found without a name: "{found.name}", maps of {found.grid}\n')
print(f"Mean +- std of {len(SEEDS)} seeds")
print(f"{'':16}{'aligned':>18}{'conflicting':>18}{'of square':>11}{'of image':>10}")
for name, rows in table.items():
    means, stds = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1)
    cells = (f"{m:.3f} +- {s:.3f}" for m, s in zip(means, stds, strict=True))
    line = f"{name:16}" + "".join(f"{cell:>18}" for cell in cells)
    if name in shares:
        square, image = np.mean(shares[name], axis=0)
        line += f"{square:>11.0%}{image:>10.1%}"
    print(line)
print(f"\nPicture: {path}")
