"""The networks of the papers, by name."""

import os
from numbers import Integral

import torch
from skorch import NeuralNetClassifier
from torch import nn

from ._cifar import CifarResNet
from ._default import SMALLEST_IMAGE, SmallConvNet
from ._weights import file_sha256, load_weights

__all__ = ["published_module", "published_net"]

CIFAR_DEPTHS = {"resnet20": 20, "resnet32": 32}
# By their names in torchvision.
TORCHVISION = (
    "efficientnet_b0",
    "resnet18",
    "resnet50",
    "vgg16",
    "vgg16_bn",
    "vit_b_16",
)
ARCHITECTURES = ("small_cnn", *CIFAR_DEPTHS, *TORCHVISION)
# VGG halves the image five times.
SMALLEST = {"small_cnn": SMALLEST_IMAGE, "vgg16": 32, "vgg16_bn": 32}
PATCHES = {"vit_b_16": 16}


def published_module(
    architecture,
    n_classes,
    *,
    image_size=None,
    n_channels=3,
    weights=None,
    weights_sha256=None,
    **options,
):
    """Make the torch module of a published network.

    Parameters
    ----------
    architecture : str
        See `published_net`.
    n_classes : int
        Number of classes.
    image_size : int, tuple of int (height, width), or None, default=None
        Size of the images in pixels; see `published_net`.
    n_channels : int, default=3
        Channels of the images.
    weights : str or path, default=None
        A local file of weights; see `published_net`.
    weights_sha256 : str, default=None
        What the content of the file must hash to. None: anything, so that ``memory=``
        knows the file by its name alone.
    **options : dict
        Passed on to torchvision's builder (such as `dropout` for VGG), `CifarResNet`
        (`normalize`) or `SmallConvNet`.

    Returns
    -------
    module : torch.nn.Module
        On the CPU, in training mode; it returns logits.

    Raises
    ------
    ValueError
        If the architecture is not known, can't have these classes, channels or images
        of this size, or if the weights can't be read, do not fit, or are others than
        `weights_sha256` says.
    FileNotFoundError
        If there is no file of weights.

    Examples
    --------
    >>> from masktune_sk.modules import published_module
    >>> module = published_module("resnet20", 10)
    >>> sum(weights.numel() for weights in module.parameters())
    269722
    """
    size = _check(architecture, n_classes, image_size, n_channels, weights)
    if architecture == "small_cnn":
        if size is not None:
            options["image_size"] = size
        module = SmallConvNet(n_channels, n_classes, **options)
    elif architecture in CIFAR_DEPTHS:
        depth = CIFAR_DEPTHS[architecture]
        module = CifarResNet(depth, n_channels, n_classes, **options)
    else:
        module = _torchvision(architecture, n_classes, size, n_channels, options)
    if weights is not None:
        load_weights(module, weights, name=architecture, sha256=weights_sha256)
    return module


def published_net(
    architecture, n_classes, *, image_size=None, n_channels=3, weights=None, **params
):
    """Make a net around a network that the papers use.

    ==================  =============================================================
    architecture        used for
    ==================  =============================================================
    "small_cnn"         MaskTune [1]_: biased MNIST
    "resnet20"          DeNetDM [2]_: CorruptedCIFAR10, the deep branch
    "resnet32"          MaskTune: CIFAR-10, SVHN, Cats vs Dogs
    "resnet18"          DeNetDM: BFFHQ, and the last net; RR-ClArC [3]_
    "resnet50"          MaskTune: CelebA, Waterbirds, ImageNet-9
    "vgg16"             RR-ClArC
    "vgg16_bn"          an earlier version of MaskTune's code
    "efficientnet_b0"   RR-ClArC
    "vit_b_16"          later work of the authors of RR-ClArC, on medical images
    ==================  =============================================================

    The first is `SmallConvNet`, the next two are `CifarResNet`, the others are
    torchvision's, with a last layer for the classes at hand. Nothing is downloaded.

    Parameters
    ----------
    architecture : str
        A name of the table.
    n_classes : int
        Number of classes, at least 2.
    image_size : int, tuple of int (height, width), or None, default=None
        Size of the images in pixels. "small_cnn" (None: 28 x 28) and "vit_b_16" (None:
        224 x 224) are built for it. The others take any size, so it is only checked:
        VGG needs 32 pixels a side or more.
    n_channels : int, default=3
        Channels of the images. With another number than 3 the first convolution of
        torchvision's networks is a new one, drawn as the old one was.
    weights : str or path, default=None
        A local file to start from: a state dict saved by ``torch.save`` (read without
        running code of the file) or, with the package safetensors, a ``.safetensors``
        file. The last layer is taken from it if its shape is the same, and stays new
        otherwise, as for ImageNet weights and two classes; everything else must match.
        None: weights are drawn.
    **params : dict
        Parameters of `skorch.NeuralNetClassifier` that replace the defaults: SGD with
        momentum 0.9 and a rate of 0.01, or 0.001 with `weights`, 20 epochs, shuffled
        batches of 32, cross-entropy. These are not the settings of the papers, which
        differ from data set to data set. ``module__...`` reaches `published_module`.

    Returns
    -------
    net : skorch.NeuralNetClassifier
        Unfitted. It can be cloned and searched over; the module and its weights are
        made when it is fitted.

    Raises
    ------
    ValueError
        If the architecture is not known, or can't have these classes, channels, or
        images of this size.
    TypeError
        If `weights` is no path.
    FileNotFoundError
        If there is no file of weights.

    Notes
    -----
    The file is read whenever a module is made: by a fit, by ``initialize``, and where
    a fitted net is trained further, as inside `FrozenEstimator`. A fitted net, or one
    that is unpickled, predicts without the file.

    The content of the file counts, not its name only: its SHA-256 becomes the
    parameter ``module__weights_sha256``, so that results stored by ``memory=`` are
    those of the same weights, and a file that has changed meanwhile is refused.

    Images come as they are. Weights from ImageNet expect channels in [0, 1], less the
    mean (0.485, 0.456, 0.406), over the standard deviation (0.229, 0.224, 0.225). Black
    is then no longer 0: for `MaskTuneClassifier`, set ``mask_fill`` to
    ``[-2.118, -2.036, -1.804]``.

    References
    ----------
    .. [1] Asgari Taghanaki et al., "MaskTune: Mitigating Spurious Correlations by
       Forcing to Explore", NeurIPS 2022.
    .. [2] Sreelatha et al., "DeNetDM: Debiasing by Network Depth
       Modulation", NeurIPS 2024.
    .. [3] Dreyer et al., "From Hope to Safety: Unlearning Biases of Deep Models via
       Gradient Penalization in Latent Space", AAAI 2024.

    Examples
    --------
    >>> from masktune_sk import MaskTuneClassifier
    >>> from masktune_sk.modules import published_net
    >>> net = published_net("resnet32", 10, lr=0.1, batch_size=128)
    >>> clf = MaskTuneClassifier(net)
    >>> clf.estimator.optimizer__momentum
    0.9
    """
    _check(architecture, n_classes, image_size, n_channels, weights)
    sha256 = None
    if weights is not None:
        # Another process may start in another folder.
        weights = os.path.abspath(weights)
        sha256 = file_sha256(weights)
    defaults = {
        "module": published_module,
        "module__architecture": architecture,
        "module__n_classes": n_classes,
        "module__image_size": image_size,
        "module__n_channels": n_channels,
        "module__weights": weights,
        "module__weights_sha256": sha256,
        "criterion": nn.CrossEntropyLoss,
        "optimizer": torch.optim.SGD,
        "lr": 0.01 if weights is None else 0.001,
        "max_epochs": 20,
        "batch_size": 32,
        "iterator_train__shuffle": True,
        "train_split": None,
        "verbose": 0,
    }
    if "optimizer" not in params:
        defaults["optimizer__momentum"] = 0.9
    return NeuralNetClassifier(**(defaults | params))


def _check(architecture, n_classes, image_size, n_channels, weights):
    """Refuse what can't be built; return the size as a pair, or None."""
    if architecture not in ARCHITECTURES:
        raise ValueError(
            f"architecture must be one of {', '.join(map(repr, ARCHITECTURES))}; got "
            f"{architecture!r}. Wrap any other module as skorch.NeuralNetClassifier."
        )
    counts = {"n_classes": (n_classes, 2), "n_channels": (n_channels, 1)}
    for name, (value, least) in counts.items():
        if not _is_int(value) or value < least:
            raise ValueError(
                f"{name} must be an integer of {least} or more; got {value!r}."
            )
    size = None if image_size is None else _check_size(architecture, image_size)
    if weights is not None:
        _check_file(architecture, weights)
    return size


def _check_size(architecture, image_size):
    size = (image_size, image_size) if _is_int(image_size) else image_size
    if not (
        isinstance(size, tuple | list)
        and len(size) == 2
        and all(_is_int(side) and side > 0 for side in size)
    ):
        raise ValueError(
            "image_size must be a number of pixels, a pair (height, width) or None; "
            f"got {image_size!r}."
        )
    height, width = size
    smallest = SMALLEST.get(architecture, 1)
    if min(size) < smallest:
        raise ValueError(
            f"{architecture!r} needs images of {smallest} pixels a side or more, got "
            f"{height} x {width}. Enlarge them, or take 'resnet20' or 'resnet18': they "
            "have no smallest size."
        )
    patch = PATCHES.get(architecture, 1)
    if architecture in PATCHES and (height != width or height % patch):
        raise ValueError(
            f"{architecture!r} needs square images whose side is a multiple of its "
            f"patches of {patch} pixels, got {height} x {width}. Resize or crop them, "
            f"to {max(min(size) // patch, 1) * patch} pixels a side say."
        )
    return height, width


def _check_file(architecture, weights):
    if not isinstance(weights, str | os.PathLike):
        raise TypeError(
            f"weights must be the path of a local file or None; got {weights!r}."
        )
    if os.path.isfile(weights):
        return
    source = ""
    if architecture in TORCHVISION:
        from torchvision.models import get_model_weights

        url = get_model_weights(architecture)["IMAGENET1K_V1"].url
        source = f" torchvision's weights from ImageNet are at {url}."
    raise FileNotFoundError(
        f"No file of weights at {os.path.abspath(weights)}. Nothing is downloaded: "
        f"bring a state dict, or leave weights out to train from scratch.{source}"
    )


def _is_int(value):
    return isinstance(value, Integral) and not isinstance(value, bool)


def _torchvision(architecture, n_classes, size, n_channels, options):
    # Its models take longer to import than the rest of this package.
    from torchvision.models import get_model

    if architecture in PATCHES and size is not None:
        options["image_size"] = size[0]
    module = get_model(architecture, num_classes=n_classes, **options)
    if n_channels != 3:
        _change_channels(module, n_channels)
    return module


def _change_channels(module, n_channels):
    """Put a new convolution in place of the first, for other channels."""
    name, old = next(
        item for item in module.named_modules() if isinstance(item[1], nn.Conv2d)
    )
    new = nn.Conv2d(
        n_channels,
        old.out_channels,
        old.kernel_size,
        stride=old.stride,
        padding=old.padding,
        bias=old.bias is not None,
    )
    # As torchvision draws it: by the inputs in a transformer, else by the outputs.
    if hasattr(module, "conv_proj"):
        fan_in = new.weight[0].numel()
        nn.init.trunc_normal_(new.weight, std=fan_in**-0.5)
    else:
        nn.init.kaiming_normal_(new.weight, mode="fan_out", nonlinearity="relu")
    if new.bias is not None:
        nn.init.zeros_(new.bias)
    module.set_submodule(name, new)
