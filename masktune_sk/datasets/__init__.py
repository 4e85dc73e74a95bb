"""Data with a known shortcut, to measure what a classifier leans on.

The first word of a name tells where the data come from: ``make_`` generates them,
``load_`` reads what is bundled with scikit-learn or with this package, ``fetch_``
downloads them or reads a local copy.

Every function returns the same fields for the same things: `bias` is a sample's
value of the spurious attribute, `groups` is class x bias, and `artifact_mask` is True
where a pixel belongs to the shortcut. Arrays come in a Bunch; images in files come as a
`BiasedImageDataset`, a torch Dataset that reads an image when it is asked for.
"""

from masktune_sk.datasets._fetch.bar import fetch_bar
from masktune_sk.datasets._fetch.bffhq import fetch_bffhq
from masktune_sk.datasets._fetch.cats_vs_dogs import fetch_cats_vs_dogs
from masktune_sk.datasets._fetch.celeba import fetch_celeba
from masktune_sk.datasets._fetch.folder import BiasedImageDataset
from masktune_sk.datasets._fetch.imagenet9 import fetch_imagenet9
from masktune_sk.datasets._fetch.medical import fetch_bone_age, fetch_isic2019
from masktune_sk.datasets._fetch.small_images import (
    fetch_cifar10,
    fetch_fashion_mnist,
    fetch_mnist,
    fetch_svhn,
)
from masktune_sk.datasets._fetch.waterbirds import fetch_waterbirds
from masktune_sk.datasets._make.artifacts import make_artifact
from masktune_sk.datasets._make.colored import make_colored
from masktune_sk.datasets._make.composer import make_composite
from masktune_sk.datasets._make.corrupted import make_corrupted
from masktune_sk.datasets._make.digits import load_shortcut_digits
from masktune_sk.datasets._make.leaky import make_leaky_column
from masktune_sk.datasets._make.square import make_square_shortcut

__all__ = [
    "BiasedImageDataset",
    "fetch_bar",
    "fetch_bffhq",
    "fetch_bone_age",
    "fetch_cats_vs_dogs",
    "fetch_celeba",
    "fetch_cifar10",
    "fetch_fashion_mnist",
    "fetch_imagenet9",
    "fetch_isic2019",
    "fetch_mnist",
    "fetch_svhn",
    "fetch_waterbirds",
    "load_shortcut_digits",
    "make_artifact",
    "make_colored",
    "make_composite",
    "make_corrupted",
    "make_leaky_column",
    "make_square_shortcut",
]
