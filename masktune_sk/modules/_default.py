"""Torch modules for whoever brings no network of their own."""

import torch
from skorch import NeuralNetClassifier
from torch import nn
from torch.nn import functional as F

__all__ = ["MLP", "SmallConvNet", "default_net"]

SMALLEST_IMAGE = 8
# Below this size the paper's unpadded convolutions would use up the image.
SMALLEST_UNPADDED = 28


class MLP(nn.Module):
    """Multi-layer perceptron on standardised vectors.

    Parameters
    ----------
    n_features : int
        Length of the vectors.
    n_classes : int
        Number of classes.
    hidden : tuple of int, default=(64, 64)
        Width of each hidden layer.
    """

    def __init__(self, n_features, n_classes, hidden=(64, 64)):
        super().__init__()
        # No parameters: the running mean and variance of the data, so that features
        # of any scale train.
        layers = [nn.BatchNorm1d(n_features, affine=False)]
        for width in hidden:
            layers += [nn.Linear(n_features, width), nn.ReLU()]
            n_features = width
        self.layers = nn.Sequential(*layers, nn.Linear(n_features, n_classes))

    def forward(self, X):
        """Return logits.

        Parameters
        ----------
        X : torch.Tensor of shape (n_samples, n_features)
            The vectors.

        Returns
        -------
        logits : torch.Tensor of shape (n_samples, n_classes)
            One logit a class.
        """
        return self.layers(X)


class SmallConvNet(nn.Module):
    """The small network of the MaskTune paper [1]_, for images from 8 pixels on.

    Four 3 x 3 convolutions (16, 16, 32, 32 channels), each with batch normalisation and
    ReLU, a max-pooling after the second and the fourth, and a hidden layer of 256. At
    28 x 28 it is the published one, 512 features before the hidden layer; smaller
    images are padded, larger ones averaged to the same 4 x 4 grid at the end. The
    input is standardised by channel first, so that 0..255 images train too.

    The last layer with a spatial output is ``features``: the rectified maps before the
    last pooling (8 x 8 for 28 x 28 images), which is the layer the paper explains.

    Parameters
    ----------
    n_channels : int
        Channels of the images.
    n_classes : int
        Number of classes.
    image_size : tuple of int (height, width), default=(28, 28)
        Size of the images in pixels, at least 8 each.

    References
    ----------
    .. [1] Asgari Taghanaki et al., "MaskTune: Mitigating Spurious Correlations by
       Forcing to Explore", NeurIPS 2022.
    """

    def __init__(self, n_channels, n_classes, image_size=(28, 28)):
        super().__init__()
        if min(image_size) < SMALLEST_IMAGE:
            raise ValueError(
                f"SmallConvNet takes images of {SMALLEST_IMAGE} pixels a side or more, "
                f"got {image_size[0]} x {image_size[1]}. Enlarge them, flatten them to "
                "vectors, or bring a network of your own. If the channels are last in "
                "X, pass X.transpose(0, 3, 1, 2)."
            )
        padding = 0 if min(image_size) >= SMALLEST_UNPADDED else 1
        layers = [nn.BatchNorm2d(n_channels, affine=False)]
        for width in (16, 16, "pool", 32, 32):
            if width == "pool":
                layers.append(nn.MaxPool2d(2))
                continue
            layers += [
                nn.Conv2d(n_channels, width, 3, padding=padding),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            n_channels = width
        self.features = nn.Sequential(*layers)
        self.grid = tuple(min(4, size // 4) for size in image_size)
        self.head = nn.Sequential(
            nn.Linear(n_channels * self.grid[0] * self.grid[1], 256),
            nn.BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, n_classes),
        )

    def forward(self, X):
        """Return logits.

        Parameters
        ----------
        X : torch.Tensor of shape (n_samples, n_channels, height, width)
            The images.

        Returns
        -------
        logits : torch.Tensor of shape (n_samples, n_classes)
            One logit a class.
        """
        pooled = F.max_pool2d(self.features(X), 2)
        return self.head(F.adaptive_avg_pool2d(pooled, self.grid).flatten(1))


def default_net(input_shape, n_classes, **params):
    """Make the net that stands behind ``estimator=None``, to be changed or searched.

    Parameters
    ----------
    input_shape : tuple of int
        Shape of one sample: ``(n_features,)`` for an `MLP`, or
        ``(n_channels, height, width)`` for a `SmallConvNet`. ``X.shape[1:]``.
    n_classes : int
        Number of classes.
    **params : dict
        Parameters of `skorch.NeuralNetClassifier` that replace the defaults (Adam with
        rate 0.001, or 0.003 for vectors, 20 epochs, shuffled batches of 32).

    Returns
    -------
    net : skorch.NeuralNetClassifier
        Unfitted.

    Examples
    --------
    >>> from masktune_sk import MaskTuneClassifier
    >>> from masktune_sk.modules import default_net
    >>> clf = MaskTuneClassifier(default_net((3, 28, 28), 2, max_epochs=5))
    >>> clf.estimator.max_epochs
    5
    """
    if len(input_shape) == 1:
        module = {
            "module": MLP,
            "module__n_features": input_shape[0],
            "module__n_classes": n_classes,
            "iterator_valid__batch_size": 256,
        }
        lr = 0.003
    else:
        module = {
            "module": SmallConvNet,
            "module__n_channels": input_shape[0],
            "module__n_classes": n_classes,
            "module__image_size": tuple(input_shape[1:]),
        }
        lr = 0.001
    defaults = {
        **module,
        "criterion": nn.CrossEntropyLoss,
        "optimizer": torch.optim.Adam,
        "lr": lr,
        "max_epochs": 20,
        "batch_size": 32,
        "iterator_train__shuffle": True,
        "train_split": None,
        "verbose": 0,
    }
    return NeuralNetClassifier(**(defaults | params))
