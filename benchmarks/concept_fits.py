"""An artifact on Fashion-MNIST, a small VGG, and its corrections, for `concepts.py`."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from card_data import Source, load_plain
from skorch import NeuralNetClassifier
from skorch.callbacks import LRScheduler
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torchvision.transforms.v2 import functional as transforms

from masktune_sk import RRClArCClassifier
from masktune_sk.datasets import make_artifact

SIDE = 64  # of an image with an artifact, in pixels
PATCH_SIDE = 8
ATTACKED_CLASS = 0
# Of a diffuse artifact: how many directions are unlearned at once.
N_DIRECTIONS = 8
# How many attacked images the sensitivity is measured on.
N_MEASURED = 500

# The defaults of the estimator, but for the method.
CORRECTIONS = {
    "ERM": {"method": "none", "refit_epochs": 0},
    "ERM, continued": {"method": "none"},
    "RR-ClArC": {},
    "A-ClArC": {"method": "a-clarc"},
    "P-ClArC": {"method": "p-clarc"},
    "reactive P-ClArC": {"method": "rp-clarc"},
    "RRR": {"method": "rrr"},
}
# What else may be tried on a diffuse artifact.
FURTHER = {
    "control, block 3": {"method": "none", "target_layer": "block3"},
    "RR-ClArC, block 3": {"target_layer": "block3"},
    "control, block 1": {"method": "none", "target_layer": "block1"},
    "RR-ClArC, block 1": {"target_layer": "block1"},
    "RR-ClArC, full feature": {"pool": "none"},
    "RR-ClArC, block 3, full feature": {"target_layer": "block3", "pool": "none"},
    f"RR-ClArC, {N_DIRECTIONS} directions": {"cav": "pairs"},
    "A-ClArC, block 1": {"method": "a-clarc", "target_layer": "block1"},
}
ARTIFACTS = ("patch", "brightness", "lsb", "timestamp")
DIFFUSE = ("brightness",)


class SmallVGG(nn.Module):
    """Four 3 x 3 convolutions with batch normalisation, averaged, and a linear layer.

    A stride of 2 in the first, and pooling after the first and second, bring 64 pixels
    to 8.

    Parameters
    ----------
    n_channels, n_classes : int
        Of the images.
    widths : tuple of four int
        Channels of each convolution.
    """

    def __init__(self, n_channels=1, n_classes=10, widths=(16, 32, 64, 64)):
        super().__init__()
        self.scale = nn.BatchNorm2d(n_channels, affine=False)
        before = (n_channels, *widths)
        for i, (n_in, n_out) in enumerate(zip(before, widths, strict=False), start=1):
            block = nn.Sequential(
                nn.Conv2d(n_in, n_out, 3, stride=1 + (i == 1), padding=1, bias=False),
                nn.BatchNorm2d(n_out),
                nn.ReLU(),
            )
            self.add_module(f"block{i}", block)
        self.halve = nn.MaxPool2d(2)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.linear = nn.Linear(widths[-1], n_classes)

    def forward(self, X):
        """Return logits."""
        return self.linear(self.average(self.latents(X)).flatten(1))

    def latents(self, X):
        """Return the output of the last convolution's block."""
        X = self.halve(self.block1(self.scale(X)))
        return self.block4(self.block3(self.halve(self.block2(X))))


@dataclass(frozen=True)
class Artifact:
    """An artifact in a share of the images of one class, and how nets are trained."""

    artifact: str
    source: Source
    memory: Path
    epochs: int
    n_train: int
    n_test: int
    proportion: float = 0.5
    refit_epochs: int = 10

    @property
    def name(self):
        """The artifact, and the share of the class that shows it."""
        return f"{self.artifact} {self.proportion:.0%}"

    @property
    def methods(self):
        """Names of what can be fitted."""
        return [*CORRECTIONS, *(FURTHER if self.artifact in DIFFUSE else {})]

    @cached_property
    def _images(self):
        train, tests = load_plain(
            self.source,
            ["test"],
            images="fashion_mnist",
            n_train=self.n_train,
            n_test=self.n_test,
        )
        return [(enlarged(part.X), part.y) for part in (train, tests["test"])]

    @cached_property
    def train(self):
        """The training set."""
        return self._planted(0)

    @cached_property
    def tests(self):
        """Images without any artifact, and the same with it in all classes."""
        attacked = self._planted(1, classes=None, proportion=1)
        clean = self._images[1][0].astype(np.float32)
        return {"clean": clean, "attacked": attacked.data}

    def _planted(self, part, **changes):
        share = {"classes": ATTACKED_CLASS, "proportion": self.proportion}
        share |= changes
        return plant(*self._images[part], self.artifact, self.source.seed, **share)

    def net(self):
        """Return the net, not trained."""
        return NeuralNetClassifier(
            SmallVGG,
            criterion=nn.CrossEntropyLoss,
            optimizer=torch.optim.SGD,
            optimizer__momentum=0.9,
            lr=0.05,
            batch_size=64,
            max_epochs=self.epochs,
            # Without a smaller rate at the end, what the last batch was decides the
            # accuracy.
            callbacks=[
                ("decay", LRScheduler(StepLR, step_size=max(self.epochs - 2, 1)))
            ],
        )

    def fit(self, method):
        """Fit a method; return its measures."""
        params = {"refit_epochs": self.refit_epochs} | (CORRECTIONS | FURTHER)[method]
        concept, masks = self.train.concept, None
        if params.get("cav") == "pairs":
            params["cav"], concept = self._pair_directions(), None
        if method == "RRR":
            masks = self.train.artifact_mask
        clf = self._classifier(**params)
        clf.fit(
            self.train.data, self.train.target, concept=concept, artifact_mask=masks
        )
        y = self._images[1][1]
        found = {
            f"accuracy {name}": float(np.mean(clf.predict(X) == y))
            for name, X in self.tests.items()
        }
        measured = clf.concept_sensitivity(self.tests["attacked"][:N_MEASURED])
        # Of several directions, the mean.
        found |= {
            "layer": clf.layer_.name,
            "sensitivity before": float(measured["sensitivity_before"].mean()),
            "sensitivity after": float(measured["sensitivity_after"].mean()),
            "tcav": float(measured["tcav_after"][..., ATTACKED_CLASS].mean()),
        }
        if concept is not None:
            found["auc"] = float(clf.concept_.auc[0])
        if clf.refit_lr_ is not None:
            found["lr"] = clf.refit_lr_
        return found

    def _classifier(self, **params):
        return RRClArCClassifier(
            self.net(), memory=self.memory, random_state=self.source.seed, **params
        )

    def _pair_directions(self):
        """Directions that most of the artifact's effect on the latents lies in.

        Of the training images of the attacked class without it, by what the net makes
        of them with it: the first right singular vectors, each as long as the mean
        square of the effect along it.
        """
        erm = self._classifier(method="none", refit_epochs=0)
        erm.fit(self.train.data, self.train.target)
        rows = (self.train.concept == 0) & (self.train.target == ATTACKED_CLASS)
        pairs = self._images[0][0][rows], self._planted(0, proportion=1).data[rows]
        module = erm.net_.module_.eval()
        with torch.no_grad():
            clean, attacked = (
                module.latents(torch.from_numpy(part.astype(np.float32))).amax((2, 3))
                for part in pairs
            )
        _, size, directions = torch.linalg.svd(attacked - clean, full_matrices=False)
        size = size[:N_DIRECTIONS, None] / np.sqrt(rows.sum())
        return (size * directions[:N_DIRECTIONS]).numpy().astype(np.float64)


def enlarged(X):
    """Return images of 64 pixels a side."""
    images = torch.from_numpy(X if X.ndim == 4 else X[:, None])
    return transforms.resize(images, [SIDE, SIDE], antialias=True).numpy()


def plant(X, y, artifact, seed, *, classes, proportion):
    """Plant an artifact, in the same images whichever it is; see `make_artifact`."""
    planted = make_artifact(
        X,
        y,
        artifact="brightness" if artifact == "patch" else artifact,
        classes=classes,
        proportion=proportion,
        random_state=seed,
    )
    if artifact == "patch":
        # In the images drawn.
        corner = np.s_[planted.bias == 1, ..., :PATCH_SIDE, :PATCH_SIDE]
        planted.data = np.array(X)
        planted.data[corner] = 255
        planted.artifact_mask[:] = False
        planted.artifact_mask[corner] = True
    planted.data = planted.data.astype(np.float32)
    return planted
