"""Which saliency method? Six of them look at the same network.

Digits 0-4 against 5-9, and a red square gives the class away in 99 % of the training
images, so that it is known what a map should find. How much of each method's map lies
in the square, how much of the square do the masks hide, and what is the network worth
after it, where the square is wrong? Maps of a layer are coarse and smooth; gradients
with respect to the input are as fine as the image, and noisy.

    python examples/06_saliency_methods.py [picture.png]

Under a minute on one core. Nothing is downloaded.
"""

import sys
import tempfile

import matplotlib.pyplot as plt
import numpy as np
import torch
from sklearn.base import clone

from masktune_sk import MaskTuneClassifier
from masktune_sk.datasets import load_shortcut_digits
from masktune_sk.metrics import artifact_relevance
from masktune_sk.modules import default_net
from masktune_sk.saliency import METHODS

# One thread is as fast for so small a network, and the numbers do not depend on how
# many cores there are.
torch.set_num_threads(1)

SEEDS = (0, 1, 2)

aligned, conflicting = (
    load_shortcut_digits(subset="test", square=square)
    for square in ("aligned", "conflicting")
)
planted = aligned.artifact_mask.any(axis=(1, 2))
X_square, in_square = aligned.data[planted], aligned.artifact_mask[planted]
area = in_square.mean()
shown = [np.flatnonzero(aligned.digit == digit)[0] for digit in (0, 2, 3, 7)]
X_show = aligned.data[shown]


def measure(clf):
    """Return what of its maps and masks is in the square, and two accuracies."""
    maps = clf.saliency_maps(X_square, net="erm")
    _, masks = clf.mask(X_square)
    return (
        artifact_relevance(maps, in_square),
        1 - masks[in_square].mean(),
        1 - masks.mean(),
        clf.score(aligned.data, aligned.target),
        clf.score(conflicting.data, conflicting.target),
    )


table = {"ERM": [], "ERM, continued": []} | {name: [] for name in METHODS}
pictures = {}
with tempfile.TemporaryDirectory() as memory:
    for seed in SEEDS:
        X, y = load_shortcut_digits(random_state=seed, return_X_y=True)
        net = default_net((3, 28, 28), n_classes=2, max_epochs=8)
        # All fits of a seed find the same ERM net in `memory`.
        base = MaskTuneClassifier(net, memory=memory, random_state=seed)
        settings = {
            "ERM": {"refit_epochs": 0, "masking": "none"},
            "ERM, continued": {"masking": "none"},
        } | {name: {"saliency": name} for name in METHODS}
        for name, params in settings.items():
            clf = clone(base).set_params(**params).fit(X, y)
            table[name].append(measure(clf))
            if seed == SEEDS[0] and name in METHODS:
                maps = clf.saliency_maps(X_show, net="erm")
                pictures[name] = maps, clf.mask(X_show)[1]

figure, axes = plt.subplots(
    len(shown), 1 + len(METHODS), figsize=(11, 6.4), layout="constrained"
)
for ax, image in zip(axes[:, 0], X_show, strict=True):
    ax.imshow(np.moveaxis(image, 0, -1))
axes[0, 0].set_title("image", fontsize=10)
for column, (name, (maps, masks)) in zip(axes[:, 1:].T, pictures.items(), strict=True):
    share = np.mean([row[0] for row in table[name]])
    column[0].set_title(f"{name}\n{share:.0%} in the square", fontsize=10)
    for ax, saliency, mask in zip(column, maps, masks, strict=True):
        ax.imshow(saliency, cmap="magma", vmin=0, vmax=1)
        ax.contour(~mask, levels=[0.5], colors="cyan", linewidths=0.8)
for ax in axes.flat:
    ax.set(xticks=[], yticks=[])
figure.supxlabel("What the ERM net looks at; cyan: what is hidden", fontsize=11)
path = sys.argv[1] if len(sys.argv) > 1 else "06_saliency_methods.png"
figure.savefig(path, dpi=120)

print(f"Mean (accuracy: +- std) of {len(SEEDS)} seeds; the square is {area:.1%} of an")
print("image. Of the images that have it: share of the map in the square, share of")
print("the square and of the image that is hidden.\n")
print(
    f"{'':18}{'of map':>8}{'of square':>11}{'of image':>10}"
    f"{'aligned':>18}{'conflicting':>18}"
)
for name, rows in table.items():
    means, stds = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1)
    line = f"{name:18}"
    if name in METHODS:
        line += f"{means[0]:>8.0%}{means[1]:>11.0%}{means[2]:>10.1%}"
    else:
        line += " " * 29
    cells = (f"{m:.3f} +- {s:.3f}" for m, s in zip(means[3:], stds[3:], strict=True))
    print(line + "".join(f"{cell:>18}" for cell in cells))
print(f"\nPicture: {path}")
