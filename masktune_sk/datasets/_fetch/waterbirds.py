"""Waterbirds: birds on a land or water background."""

import numpy as np
from torchvision.transforms import v2

from .._checks import check_option
from .folder import image_transform
from .local_copy import LocalCopy

_FOLDER = "waterbird_complete95_forest2water2"
_ORIGIN = (
    f"Waterbirds is at https://nlp.stanford.edu/data/dro/{_FOLDER}.tar.gz, described "
    "at https://github.com/kohpangwei/group_DRO: unpack it, pass its folder as root."
)
_SUBSETS = ("train", "val", "test")  # in the order of their numbers in the table


def fetch_waterbirds(root, *, subset="train", transform=None, check="exists"):
    """Read a local copy of Waterbirds.

    Photographs of birds, cut out and put on other backgrounds [1]_. The class is the
    bird, the bias is the background: in training, 95 % of landbirds are on land, and
    95 % of waterbirds on water.

    Parameters
    ----------
    root : str or path-like
        The folder with ``metadata.csv``, or the one that
        ``waterbird_complete95_forest2water2`` was unpacked in.

    subset : {"train", "val", "test"}, default="train"
        The published split: 4,795, 1,199 and 5,794 images.

    transform : callable, default=None
        Makes a tensor of an RGB PIL image; see `BiasedImageDataset`. None: resize to
        256x256, crop 224x224 from the centre, float32 from 0 to 1.

    check : {"exists", "decode", "none"}, default="exists"
        What is looked at before training; see `BiasedImageDataset`. The files of all
        three subsets are looked for, and those of this one are read.

    Returns
    -------
    dataset : BiasedImageDataset
        Classes "landbird" and "waterbird", biases "land" and "water". `metadata` has
        ``img_id`` and ``place_filename``, the photograph that the background is from.

    Raises
    ------
    FileNotFoundError
        If the table or images are missing.
    ValueError
        If the table is damaged, or a parameter is none of the values above.

    Notes
    -----
    Published results normalise the images with mean (0.485, 0.456, 0.406) and standard
    deviation (0.229, 0.224, 0.225), and augment them in training; this does neither.
    Groups are numbered ``2 * bird + place``, which other code numbers the other way
    round. The authors of MaskTune [2]_ report on a corrected copy of their own, so
    their numbers are not those of this one.

    References
    ----------
    .. [1] Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts",
       ICLR 2020.
    .. [2] Asgari Taghanaki et al., "MaskTune: Mitigating Spurious Correlations by
       Forcing to Explore", NeurIPS 2022.
    """
    check_option(subset, _SUBSETS, name="subset")
    copy = LocalCopy("Waterbirds", root, _ORIGIN)
    path = copy.find("metadata.csv", f"{_FOLDER}/metadata.csv")
    table = copy.read_csv(path, ["img_filename", "y", "split", "place"])
    numbers = copy.integers(path, table, "split", len(_SUBSETS))
    folder = path.parent.relative_to(copy.root)
    return copy.dataset(
        [folder / name for name in table["img_filename"].tolist()],
        copy.integers(path, table, "y", 2),
        copy.integers(path, table, "place", 2),
        rows=np.flatnonzero(numbers == _SUBSETS.index(subset)),
        class_names=["landbird", "waterbird"],
        bias_names=["land", "water"],
        transform=transform
        or image_transform(v2.Resize((256, 256)), v2.CenterCrop(224)),
        metadata={
            name: table[name] for name in ("img_id", "place_filename") if name in table
        },
        check=check,
        DESCR=f"Waterbirds ({subset=}), from {path}. Bias: the background.",
    )
