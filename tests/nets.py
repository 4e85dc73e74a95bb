"""Small nets and data that several test modules share; at module level, to pickle."""

import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn

from masktune_sk import RRClArCClassifier


class TinyConvNet(nn.Module):
    """Two convolutions; the last spatial output is `features`."""

    def __init__(self, n_classes=2, width=8, n_channels=1):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(n_channels, width, 3, padding=1),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
        )
        self.head = nn.Linear(width, n_classes)

    def forward(self, X):
        return self.head(self.features(X).mean(dim=(2, 3)))


class DeeperConvNet(nn.Module):
    """Four convolutions; returns 8 features, not logits."""

    def __init__(self, width=8, n_channels=1):
        super().__init__()
        layers = []
        for _ in range(4):
            layers += [
                nn.Conv2d(n_channels, width, 3, padding=1),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            n_channels = width
        self.layers = nn.Sequential(*layers)

    def forward(self, X):
        return self.layers(X).mean(dim=(2, 3))


class NormedBranch(nn.Module):
    """Convolutions with batch normalisation; 8 features."""

    def __init__(self, n_layers=1):
        super().__init__()
        layers = []
        for i in range(n_layers):
            layers += [
                nn.Conv2d(8 if i else 1, 8, 3, padding=1),
                nn.BatchNorm2d(8),
                nn.ReLU(),
            ]
        self.layers = nn.Sequential(*layers)

    def forward(self, X):
        return self.layers(X).mean(dim=(2, 3))


class TinyMLP(nn.Module):
    def __init__(self, n_features=6, n_classes=2, width=16):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(n_features, width), nn.ReLU(), nn.Linear(width, n_classes)
        )

    def forward(self, X):
        return self.layers(X)


class ConceptFromX(RRClArCClassifier):
    """Takes the samples with the larger values for those that show an artifact."""

    def _fit_stages(self, data):
        X = data.train.batch(np.arange(len(data.train)))
        order = X.flatten(1).mean(dim=1).argsort(stable=True).numpy()
        concept = np.zeros((len(order), 1))
        concept[order[len(order) // 2 :]] = 1
        data.known["concept"] = concept
        return super()._fit_stages(data)


def tiny_net(module=TinyConvNet, **params):
    """A net that trains in well under a second."""
    defaults = {
        "criterion": nn.CrossEntropyLoss,
        "optimizer": torch.optim.Adam,
        "lr": 0.01,
        "max_epochs": 3,
        "batch_size": 16,
        "iterator_train__shuffle": True,
        "train_split": None,
        "verbose": 0,
    }
    return NeuralNetClassifier(module, **(defaults | params))


def tiny_images(n=60, size=12, n_channels=1, random_state=0):
    """Noise with a bright square: class 0 at the bottom, class 1 in a corner."""
    rng = np.random.default_rng(random_state)
    y = np.arange(n) % 2
    X = rng.uniform(0, 0.3, (n, n_channels, size, size)).astype(np.float32)
    X[y == 0, :, -3:, 5:8] = 1
    X[y == 1, :, :3, :3] += 1
    return X, y


def tiny_vectors(n=80, n_features=6, random_state=0):
    rng = np.random.default_rng(random_state)
    y = np.arange(n) % 2
    X = rng.normal(size=(n, n_features)).astype(np.float32)
    X[:, 0] += 2 * y
    return X, y


def add_channel_axis(X):
    """Grey images (n, height, width) as (n, 1, height, width)."""
    return np.asarray(X)[:, None]
