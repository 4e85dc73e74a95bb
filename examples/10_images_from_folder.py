"""Images in a folder, one subfolder a class: from files to the files to look at.

    train/low/0001.png ...
    train/high/0002.png ...

A torchvision `ImageFolder` goes into `fit` as it is: it reads the images when they are
needed, and the labels are its own. Here the example writes the folder itself, from
handwritten digits: 0-4 ("low") have a red square in the corner, 5-9 ("high") have none,
but for 1 %. How good is MaskTune on a folder whose squares are on the wrong class? And
of a folder of new images, of which nobody knows the classes: which files should a
person look at? Those whose label the masked epochs have changed.

    python examples/10_images_from_folder.py [picture.png]

Under a minute on one core. Nothing is downloaded.
"""

import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.base import clone
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from masktune_sk import MaskTuneClassifier
from masktune_sk.datasets import load_shortcut_digits
from masktune_sk.inspection import SaliencyMaskDisplay
from masktune_sk.modules import default_net

# One thread is as fast for so small a network, and the numbers do not depend on how
# many cores there are.
torch.set_num_threads(1)

SEEDS = (0, 1, 2)
FOLDERS = ("low", "high")  # of digits 0-4 and 5-9

# What is done to each image as it is read. Nothing random: that belongs into `augment`,
# which comes after the mask.
to_tensor = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


def make_folder(root, digits):
    """Write images as PNG files, and return them as a Dataset."""
    for name in FOLDERS:
        (root / name).mkdir(parents=True)
    for i, (image, label) in enumerate(zip(digits.data, digits.target, strict=True)):
        file = root / FOLDERS[label] / f"{i:04}.png"
        Image.fromarray(np.moveaxis(image, 0, -1)).save(file)
    return ImageFolder(root, transform=to_tensor)


def short_name(dataset, index):
    file = Path(dataset.samples[index][0])
    return f"{file.parent.name}/{file.name}"


table = {"ERM": [], "ERM, continued": [], "MaskTune": []}
with tempfile.TemporaryDirectory() as root:
    root = Path(root)
    tests = {
        square: make_folder(
            root / square, load_shortcut_digits(subset="test", square=square)
        )
        for square in ("aligned", "conflicting")
    }
    for seed in SEEDS:
        train = make_folder(root / f"{seed}", load_shortcut_digits(random_state=seed))
        net = default_net((3, 28, 28), n_classes=len(train.classes), max_epochs=8)
        # The controls find the same ERM net in `memory`.
        masktune = MaskTuneClassifier(
            net, refit_epochs=2, memory=root / "memory", random_state=seed
        ).fit(train)
        continued = clone(masktune).set_params(masking="none").fit(train)
        erm = clone(continued).set_params(refit_epochs=0).fit(train)
        for name, clf in zip(table, (erm, continued, masktune), strict=True):
            table[name].append([clf.score(test) for test in tests.values()])
        if seed == SEEDS[0]:
            first = masktune

    # The new images: in half of them the square contradicts the class.
    digits = load_shortcut_digits(subset="test", conflict_ratio=0.5)
    new = make_folder(root / "new", digits)
    before, after = first.erm_net_.predict(new), first.predict(new)
    changed = np.flatnonzero(before != after)
    shown = changed[:: len(changed) // 4][:4]
    display = SaliencyMaskDisplay.from_estimator(
        first, np.stack([new[i][0].numpy() for i in shown])
    )

for axes, index in zip(display.axes_, shown, strict=True):
    labels = new.classes[before[index]], new.classes[after[index]]
    axes[0].set_ylabel(
        "{}\nERM: {}\nMaskTune: {}".format(short_name(new, index), *labels),
        rotation=0,
        ha="right",
        va="center",
        fontsize=9,
    )
path = sys.argv[1] if len(sys.argv) > 1 else "10_images_from_folder.png"
display.figure_.savefig(path, dpi=120)

print(f"Classes, by the names of the folders: {new.class_to_idx}\n")
print(f"Accuracy, mean +- std of {len(SEEDS)} seeds")
print(f"{'':16}" + "".join(f"{name:>18}" for name in tests))
for name, rows in table.items():
    means, stds = np.mean(rows, axis=0), np.std(rows, axis=0, ddof=1)
    cells = (f"{m:.3f} +- {s:.3f}" for m, s in zip(means, stds, strict=True))
    print(f"{name:16}" + "".join(f"{cell:>18}" for cell in cells))

right = after == np.array(new.targets)
# The files are named by the rows that they were written from.
conflicts = ~digits.aligned[[int(Path(file).stem) for file, _ in new.samples]]
print(
    f"\nThe masked epochs changed the label of {len(changed)} of {len(new)} new files: "
    f"in {conflicts[changed].mean():.0%}\nof these the square is on the wrong class, "
    f"and {right[changed].mean():.0%} of the new labels are right. Look at"
)
print(", ".join(short_name(new, i) for i in shown), "...")
print(f"\nPicture: {path}")
