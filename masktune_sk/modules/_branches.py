"""Branches of two depths, and how a network is cut into trunk and head."""

import copy
from contextlib import ExitStack

import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from ._cifar import CifarResNet
from ._published import published_module

__all__ = [
    "ConvEncoder",
    "MLPEncoder",
    "count_depth",
    "deep_branch",
    "find_head",
    "shallow_branch",
    "trunk_of",
]

SMALLEST_IMAGE = 8
# From here on the published unpadded convolutions leave something to average.
SMALLEST_UNPADDED = 32
# From here on the networks for photographs.
LARGE_IMAGE = 96

# Channels, size of the kernel, and whether a max-pooling follows.
SMALL_BLOCKS = ((32, 5, True), (64, 5, True), (64, 5, False))
LARGE_BLOCKS = ((64, 7, True), (128, 3, True), (512, 3, True), (512, 3, False))

# What autograd calls the layers with weights. A bias or a scale alone is none.
WEIGHTED = ("Convolution", "Addmm", "Mm", "Linear", "MkldnnLinear")


class MLPEncoder(nn.Module):
    """Multi-layer perceptron that returns features, not logits.

    Each hidden layer is followed by a ReLU, the last one too. With the defaults and a
    linear layer after it, it has the depth 3 of the shallow branch of DeNetDM [1]_ on
    ColoredMNIST; ``hidden=(100, 100, 100, 100)`` is the deep one, of depth 5.

    Parameters
    ----------
    n_features : int
        Length of a sample; images are flattened.
    hidden : tuple of int, default=(100, 100)
        Width of each hidden layer.
    normalize : bool, default=True
        Standardise each input by its running mean and variance first, by a batch
        normalisation without weights. The published network does not.

    References
    ----------
    .. [1] Sreelatha et al., "DeNetDM: Debiasing by Network Depth Modulation",
       NeurIPS 2024.
    """

    def __init__(self, n_features, hidden=(100, 100), *, normalize=True):
        super().__init__()
        layers = [nn.Flatten()]
        if normalize:
            layers.append(nn.BatchNorm1d(n_features, affine=False))
        for width in hidden:
            layers += [nn.Linear(n_features, width), nn.ReLU()]
            n_features = width
        self.layers = nn.Sequential(*layers)

    def forward(self, X):
        """Return features.

        Parameters
        ----------
        X : torch.Tensor of shape (n_samples, ...)
            Vectors or images.

        Returns
        -------
        features : torch.Tensor of shape (n_samples, hidden[-1])
            None is negative.
        """
        return self.layers(X)


class ConvEncoder(nn.Module):
    """The shallow convolutional branch of DeNetDM [1]_, which returns features.

    Below 96 pixels three 5 x 5 convolutions (32, 64 and 64 channels), from there on a
    7 x 7 and three 3 x 3 convolutions (64, 128, 512 and 512 channels), each with batch
    normalisation and ReLU and, but for the last, max-pooling. Their maps are averaged
    over the positions: the published small one flattens them, which is the same at
    32 x 32, the only size it is published for. Images below 32 pixels are padded.

    Parameters
    ----------
    n_channels : int
        Channels of the images.
    image_size : tuple of int (height, width)
        Size of the images in pixels, at least 8 each.
    normalize : bool, default=True
        Standardise each channel by its running mean and variance first, by a batch
        normalisation without weights.

    Raises
    ------
    ValueError
        If the images are smaller.

    References
    ----------
    .. [1] Sreelatha et al., "DeNetDM: Debiasing by Network Depth Modulation",
       NeurIPS 2024.
    """

    def __init__(self, n_channels, image_size, *, normalize=True):
        super().__init__()
        if min(image_size) < SMALLEST_IMAGE:
            raise ValueError(
                f"ConvEncoder takes images of {SMALLEST_IMAGE} pixels a side or more, "
                f"got {image_size[0]} x {image_size[1]}. Enlarge them, flatten them to "
                "vectors, or bring branches of your own. If the channels are last in "
                "X, pass X.transpose(0, 3, 1, 2)."
            )
        blocks = LARGE_BLOCKS if min(image_size) >= LARGE_IMAGE else SMALL_BLOCKS
        padded = min(image_size) < SMALLEST_UNPADDED
        layers = [nn.BatchNorm2d(n_channels, affine=False)] if normalize else []
        for width, size, pooled in blocks:
            padding = size // 2 if padded else 0
            layers += [
                nn.Conv2d(n_channels, width, size, padding=padding),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            if pooled:
                layers.append(nn.MaxPool2d(2))
            n_channels = width
        self.layers = nn.Sequential(*layers)

    def forward(self, X):
        """Return features.

        Parameters
        ----------
        X : torch.Tensor of shape (n_samples, n_channels, height, width)
            The images.

        Returns
        -------
        features : torch.Tensor of shape (n_samples, 64) or (n_samples, 512)
            None is negative.
        """
        return self.layers(X).mean(dim=(2, 3))


def shallow_branch(input_shape):
    """Make the shallow branch that goes with samples of a shape.

    Parameters
    ----------
    input_shape : tuple of int
        Shape of one sample.

    Returns
    -------
    module : torch.nn.Module
        For vectors an `MLPEncoder` of 100 features, for images a `ConvEncoder` of 64,
        or of 512 from 96 pixels a side on.
    """
    if len(input_shape) == 1:
        return MLPEncoder(input_shape[0])
    return ConvEncoder(input_shape[0], tuple(input_shape[1:]))


def deep_branch(input_shape):
    """Make the deep branch that goes with samples of a shape.

    Parameters
    ----------
    input_shape : tuple of int
        Shape of one sample.

    Returns
    -------
    module : torch.nn.Module
        Without its last layer: for vectors an MLP of depth 5 and 100 features, for
        images a ResNet-20 for small images (64), or a ResNet-18 from 96 pixels a side
        on (512). Each standardises its input first.
    """
    if len(input_shape) == 1:
        return MLPEncoder(input_shape[0], hidden=(100,) * 4)
    n_channels = input_shape[0]
    if min(input_shape[1:]) < LARGE_IMAGE:
        module = CifarResNet(20, n_channels, normalize=True)
        module.fc = nn.Identity()
        return module
    module = published_module("resnet18", 2, n_channels=n_channels)
    module.fc = nn.Identity()
    return nn.Sequential(nn.BatchNorm2d(n_channels, affine=False), module)


def find_head(module, X, n_classes):
    """Find the linear layer that a module ends in.

    Parameters
    ----------
    module : torch.nn.Module
        Unchanged; in eval mode.
    X : torch.Tensor of shape (n_samples, ...)
        A few samples, on the device of the module.
    n_classes : int
        Number of logits.

    Returns
    -------
    name : str
        Dotted name of the layer. The module gives what this layer gives, for vectors
        that it gives itself if an identity is in the layer's place.

    Raises
    ------
    ValueError
        If the module does not end in such a layer; it says why not.
    """
    ran = []
    with ExitStack() as hooks:
        for name, layer in module.named_modules():
            if _is_head(layer, n_classes):
                handle = layer.register_forward_hook(
                    lambda layer, args, output, name=name: ran.append(name)
                )
                hooks.callback(handle.remove)
        with torch.no_grad():
            logits = module(X)
    if not ran:
        raise ValueError(f"no torch.nn.Linear with {n_classes} outputs runs in it")
    if not ran[-1]:
        raise ValueError("it is a single linear layer, which has no features")
    if not isinstance(logits, torch.Tensor):
        raise ValueError(f"it returns a {type(logits).__name__}, not a tensor")
    name, head = ran[-1], module.get_submodule(ran[-1])
    trunk = trunk_of(module, name)
    try:
        with torch.no_grad():
            features = trunk(X)
            again = head(features)
    except Exception as error:
        # Whatever a forward of the user's own may raise.
        raise ValueError(f"it does not run without its layer {name!r}: {error}") from (
            error
        )
    if features.ndim != 2 or features.shape[1] != head.in_features:
        raise ValueError(
            f"its layer {name!r} is not given one vector a sample, but "
            f"{tuple(features.shape[1:])}"
        )
    if again.shape != logits.shape or not torch.allclose(
        again, logits, rtol=1e-3, atol=1e-4
    ):
        raise ValueError(f"something comes after its layer {name!r}, a softmax say")
    return name


def trunk_of(module, head):
    """Copy a module, with an identity in the place of a layer.

    Parameters
    ----------
    module : torch.nn.Module
        Unchanged.
    head : str
        Dotted name of the layer.

    Returns
    -------
    trunk : torch.nn.Module
        Returns what the layer was given, if that was the last one.
    """
    trunk = copy.deepcopy(module)
    trunk.set_submodule(head, nn.Identity())
    return trunk


def _is_head(layer, n_classes):
    return (
        isinstance(layer, nn.Linear)
        and layer.out_features == n_classes
        and not is_parametrized(layer)
    )


def count_depth(module, X):
    """Count the layers with weights on the longest way through a module.

    Parameters
    ----------
    module : torch.nn.Module
        Unchanged; in eval mode.
    X : torch.Tensor of shape (n_samples, ...)
        A few samples, on the device of the module.

    Returns
    -------
    depth : int
        Convolutions and linear layers, one after the other; those of a shortcut count
        only where there are more of them than beside it. 0 where autograd sees none.
    """
    with torch.enable_grad():
        output = module(X.detach().requires_grad_())
    root = output.grad_fn
    depths = {None: 0}
    waiting = [root]
    while waiting:
        node = waiting[-1]
        before = [] if node is None else [n for n, _ in node.next_functions]
        missing = [n for n in before if n not in depths]
        if missing:
            waiting += missing
            continue
        waiting.pop()
        if node is not None:
            own = node.name().startswith(WEIGHTED)
            depths[node] = own + max((depths[n] for n in before), default=0)
    return depths[root]
