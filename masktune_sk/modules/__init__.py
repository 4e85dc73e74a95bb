"""Torch modules and nets for whoever brings none.

`default_net` is what stands behind ``estimator=None``: an `MLP` for vectors, a
`SmallConvNet` for images. `published_net` gives the networks of the papers by name,
the ResNets for CIFAR and those of torchvision, with weights from a local file if there
is one; `published_module` is the torch module in it. `MLPEncoder` and `ConvEncoder` are
branches for `DeNetDMClassifier`.
"""

from ._branches import ConvEncoder, MLPEncoder
from ._cifar import CifarResNet
from ._default import MLP, SmallConvNet, default_net
from ._published import published_module, published_net

__all__ = [
    "MLP",
    "CifarResNet",
    "ConvEncoder",
    "MLPEncoder",
    "SmallConvNet",
    "default_net",
    "published_module",
    "published_net",
]
