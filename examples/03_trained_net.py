"""The network is trained already. Is it mended without training it again?

It was trained by a loop of your own, plain torch, and leans on a red square that gives
the class away in 99 % of the images. Wrapped in a skorch net and frozen, it is taken as
it is: MaskTune looks at it, masks, and trains a copy for a few epochs. What do the old
network and the new one do where the square is wrong, beside as many epochs without
masks? Your network itself is not changed.

    python examples/03_trained_net.py [picture.png]

Half a minute on one core. Nothing is downloaded.
"""

import sys
import time

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torch.nn.functional import cross_entropy

from masktune_sk import MaskTuneClassifier
from masktune_sk.datasets import load_shortcut_digits
from masktune_sk.modules import SmallConvNet

# One thread is as fast for so small a network, and the numbers do not depend on how
# many cores there are.
torch.set_num_threads(1)

SEEDS = (0, 1, 2)
TEST = {
    square: load_shortcut_digits(subset="test", square=square)
    for square in ("aligned", "conflicting", "none")
}


def your_training(X, y, seed, epochs=10):
    """Train as one does without any package, and return the module."""
    torch.manual_seed(seed)
    X, y = torch.from_numpy(X).float(), torch.from_numpy(y)
    module = SmallConvNet(n_channels=3, n_classes=2)
    optimizer = torch.optim.Adam(module.parameters(), lr=0.001)
    for _ in range(epochs):
        for rows in torch.randperm(len(X)).split(32):
            optimizer.zero_grad()
            cross_entropy(module(X[rows]), y[rows]).backward()
            optimizer.step()
    return module.eval()


def as_net(module):
    """Wrap a trained module; the rest says how the copy is trained on."""
    net = NeuralNetClassifier(
        module,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.001,
        batch_size=32,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )
    return net.initialize()


def accuracies(predict):
    return [np.mean(predict(test.data) == test.target) for test in TEST.values()]


table = {"your network": [], "continued": [], "MaskTune": []}
seconds = {"your training": [], "MaskTune": []}
for seed in SEEDS:
    X, y = load_shortcut_digits(random_state=seed, return_X_y=True)
    start = time.perf_counter()
    module = your_training(X, y, seed)
    seconds["your training"].append(time.perf_counter() - start)

    net = as_net(module)
    before = [tensor.clone() for tensor in module.state_dict().values()]
    # It has seen all rows: none are left to hold out.
    masktune = MaskTuneClassifier(
        FrozenEstimator(net), refit_epochs=2, validation_fraction=0, random_state=seed
    )
    start = time.perf_counter()
    masktune.fit(X, y)
    seconds["MaskTune"].append(time.perf_counter() - start)
    continued = clone(masktune).set_params(masking="none").fit(X, y)
    after = module.state_dict().values()
    unchanged = all(map(torch.equal, before, after))

    table["your network"].append(
        accuracies(lambda X, net=net: net.predict(X.astype(np.float32)))
    )
    table["continued"].append(accuracies(continued.predict))
    table["MaskTune"].append(accuracies(masktune.predict))
    if seed == SEEDS[0]:
        first = masktune

# Test images that the old network gets wrong and the new one right.
test = TEST["conflicting"]
wrong = first.erm_net_.predict(test.data.astype(np.float32)) != test.target
mended = np.flatnonzero(wrong & (first.predict(test.data) == test.target))
shown = np.concatenate([mended[test.target[mended] == label][:2] for label in (0, 1)])
figure, axes = plt.subplots(len(shown), 3, figsize=(5.4, 6.6), layout="constrained")
X_show = test.data[shown]
for i, row in enumerate(axes):
    row[0].imshow(np.moveaxis(X_show[i], 0, -1))
    row[0].set_ylabel(f"digit {test.digit[shown[i]]}")
for column, which in ((1, "erm"), (2, "refit")):
    maps = first.saliency_maps(X_show, net=which)
    for ax, image, saliency in zip(axes[:, column], X_show, maps, strict=True):
        ax.imshow(image.mean(axis=0), cmap="gray", vmin=0, vmax=255)
        ax.imshow(saliency, cmap="magma", vmin=0, vmax=1, alpha=0.7)
for ax, title in zip(
    axes[0],
    ("test image", "your network\nlooks at", "the new one\nlooks at"),
    strict=True,
):
    ax.set_title(title)
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
path = sys.argv[1] if len(sys.argv) > 1 else "03_trained_net.png"
figure.savefig(path, dpi=120)

print(f"Accuracy, mean +- std of {len(SEEDS)} seeds")
print(f"{'square on test images:':24}" + "".join(f"{name:>18}" for name in TEST))
for name, rows in table.items():
    means, stds = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1)
    cells = (f"{m:.3f} +- {s:.3f}" for m, s in zip(means, stds, strict=True))
    print(f"{name:24}" + "".join(f"{cell:>18}" for cell in cells))
print("\nYour weights are " + ("as they were." if unchanged else "CHANGED."))
print(
    "Seconds: {:.1f} for your training, {:.1f} for MaskTune after it.".format(
        *(np.mean(times) for times in seconds.values())
    )
)
print(f"\nPicture: {path}")
