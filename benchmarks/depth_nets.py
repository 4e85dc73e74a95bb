"""Networks of DeNetDM's settings, as the cards describe them."""

from functools import partial
from math import prod

import torch
from torch import nn

from masktune_sk.modules import CifarResNet, ConvEncoder, MLPEncoder, published_module

__all__ = ["branches_of", "make_mlp", "make_normalized"]

ENCODERS = ("MLP", "convolutions", "resnet20", "resnet18")


class NormalizedPixels(nn.Module):
    """Bring pixels from 0..255 to 0..1, less a mean, over a standard deviation."""

    def __init__(self, mean=(0.0,), std=(1.0,)):
        super().__init__()
        for name, values in (("mean", mean), ("std", std)):
            values = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, X):
        """Return the images, normalised."""
        return (X / 255 - self.mean) / self.std


def make_mlp(n_features, hidden, n_classes=None):
    """Make the perceptron of ColoredMNIST; with a number of classes, a classifier.

    A depth counts its linear layers and the head: two hidden layers are depth 3. It
    takes pixels from 0 to 255, and brings them to 0..1 as the paper's loader does.
    """
    encoder = MLPEncoder(n_features, tuple(hidden), normalize=False)
    layers = [NormalizedPixels(), encoder]
    if n_classes is not None:
        layers.append(nn.Linear(hidden[-1], n_classes))
    return nn.Sequential(*layers)


def make_normalized(*args, normalize, **kwargs):
    """Make a published network that takes pixels from 0 to 255, and normalises them.

    `normalize` are arguments of `NormalizedPixels`, the others of `published_module`.
    """
    return nn.Sequential(
        NormalizedPixels(**normalize), published_module(*args, **kwargs)
    )


def make_encoder(name, image_shape, normalize=None):
    """Make a network for images that returns features.

    "convolutions" are those of the papers: three, or four from 96 pixels a side on.
    """
    n_channels, *image_size = image_shape
    if name == "convolutions":
        module = ConvEncoder(n_channels, tuple(image_size), normalize=False)
    else:
        if name == "resnet20":
            module = CifarResNet(20, n_channels)
        else:
            module = published_module("resnet18", 2, n_channels=n_channels)
        module.fc = nn.Identity()
    if normalize is None:
        return module
    return nn.Sequential(NormalizedPixels(**normalize), module)


def branches_of(net, image_shape):
    """Return what makes the branches that a card's net names.

    Parameters
    ----------
    net : dict
        Entries of the card's table ``[net]``, with ``shallow`` and ``deep``.
    image_shape : tuple of int
        Channels, height and width.

    Returns
    -------
    modules : dict of str to callable
        ``shallow_module`` and ``deep_module``.

    Raises
    ------
    ValueError
        If there is no such network.
    """
    return {
        f"{branch}_module": _maker(net[branch], image_shape, net.get("normalize"))
        for branch in ("shallow", "deep")
    }


def _maker(entry, image_shape, normalize):
    name = entry["name"]
    if name not in ENCODERS:
        raise ValueError(f"A branch is one of {', '.join(ENCODERS)}; got {name!r}.")
    if name == "MLP":
        return partial(make_mlp, prod(image_shape), entry["hidden"])
    return partial(make_encoder, name, tuple(image_shape), normalize)
