"""Residual networks for small images."""

from numbers import Integral

from torch import nn
from torch.nn import functional as F

__all__ = ["CifarResNet"]

WIDTHS = (16, 32, 64)


class CifarResNet(nn.Module):
    """Residual network for images of about 32 pixels, of the ResNet paper [1]_.

    A 3 x 3 convolution, then three stages of ``(depth - 2) / 6`` blocks with 16, 32 and
    64 channels, at the size of the image, half and a quarter of it, then the mean over
    the positions and a linear layer. A shortcut to a smaller, wider stage has no
    weights: it takes every other pixel and fills the new channels with zeros (option A
    of the paper). MaskTune trains the one of depth 32 on CIFAR-10, SVHN and Cats vs
    Dogs; DeNetDM has the one of depth 20 as the deep branch.

    The last layer with a spatial output is ``layer3``, rectified, 8 x 8 for images of
    32 pixels: the layer that MaskTune explains.

    Parameters
    ----------
    depth : int
        Layers with weights: 8, 14, 20, 26, 32, ... 110, that is, 6 n + 2.
    n_channels : int, default=3
        Channels of the images.
    n_classes : int, default=10
        Number of classes.
    normalize : bool, default=False
        Standardise each channel by its running mean and variance first, by a batch
        normalisation without weights. The published network does not, and the scale of
        the images does not matter without it either: the first convolution has no bias
        and is followed by a batch normalisation, so 0..255 trains as 0..1 does. It
        matters where channels differ in scale, or lie far from zero beside how much
        they vary.

    Raises
    ------
    ValueError
        If `depth` is not 6 n + 2.

    Notes
    -----
    With 3 channels and 10 classes, depth 20 has 269,722 parameters (269,072 before the
    linear layer) and depth 32 has 464,154. Weights of convolutions and of the linear
    layer are drawn as in [2]_, from a normal distribution of variance 2 / fan-in.

    References
    ----------
    .. [1] He et al., "Deep Residual Learning for Image Recognition", CVPR 2016,
       section 4.2.
    .. [2] He et al., "Delving Deep into Rectifiers: Surpassing Human-Level Performance
       on ImageNet Classification", ICCV 2015.
    """

    def __init__(self, depth, n_channels=3, n_classes=10, *, normalize=False):
        super().__init__()
        if not isinstance(depth, Integral) or depth < 8 or depth % 6 != 2:
            raise ValueError(
                "depth must be 6 n + 2 for n blocks a stage, such as 8, 20, 32, 56 or "
                f"110; got {depth!r}."
            )
        self.input_norm = (
            nn.BatchNorm2d(n_channels, affine=False) if normalize else nn.Identity()
        )
        self.conv1 = _conv3x3(n_channels, WIDTHS[0])
        self.bn1 = nn.BatchNorm2d(WIDTHS[0])
        n_blocks = depth // 6
        self.layer1 = _stage(WIDTHS[0], WIDTHS[0], n_blocks)
        self.layer2 = _stage(WIDTHS[0], WIDTHS[1], n_blocks)
        self.layer3 = _stage(WIDTHS[1], WIDTHS[2], n_blocks)
        self.fc = nn.Linear(WIDTHS[2], n_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        nn.init.zeros_(self.fc.bias)

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
        maps = F.relu(self.bn1(self.conv1(self.input_norm(X))), inplace=True)
        maps = self.layer3(self.layer2(self.layer1(maps)))
        return self.fc(maps.mean(dim=(2, 3)))


class _Block(nn.Module):
    """Two convolutions beside a shortcut without weights."""

    def __init__(self, n_inputs, width):
        super().__init__()
        self.new_channels = width - n_inputs
        self.stride = 2 if self.new_channels else 1
        self.conv1 = _conv3x3(n_inputs, width, self.stride)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = _conv3x3(width, width)
        self.bn2 = nn.BatchNorm2d(width)

    def forward(self, X):
        out = F.relu(self.bn1(self.conv1(X)), inplace=True)
        out = self.bn2(self.conv2(out))
        if self.new_channels:
            half = self.new_channels // 2
            X = F.pad(X[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, half, half))
        return F.relu(out + X, inplace=True)


def _stage(n_inputs, width, n_blocks):
    blocks = [_Block(n_inputs, width)]
    blocks += [_Block(width, width) for _ in range(n_blocks - 1)]
    return nn.Sequential(*blocks)


def _conv3x3(n_inputs, n_outputs, stride=1):
    # A batch normalisation follows, which would take a bias away again.
    return nn.Conv2d(n_inputs, n_outputs, 3, stride=stride, padding=1, bias=False)
