"""Medical images: skin lesions of ISIC 2019, and hands of the RSNA bone age challenge.

Both without a shortcut of their own; the paper that uses them plants one.
"""

import numpy as np
from torchvision.transforms import InterpolationMode, v2

from .._checks import check_option
from .folder import image_transform
from .local_copy import LocalCopy, random_subset

_SUBSETS = ("train", "val", "test", "all")
_ISIC_ORIGIN = (
    "ISIC 2019 is at https://challenge.isic-archive.com/data/#2019: "
    "ISIC_2019_Training_Input.zip, unpacked, and ISIC_2019_Training_GroundTruth.csv, "
    "in one folder that is passed as root."
)
_ISIC_CLASSES = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")
_BONE_ORIGIN = (
    "RSNA Bone Age is at https://www.rsna.org/rsnai/ai-image-challenge/"
    "rsna-pediatric-bone-age-challenge-2017: the training set, unpacked, and its "
    "annotations, in one folder that is passed as root."
)
_BONE_CLASSES = 5


def fetch_isic2019(
    root, *, subset="train", random_state=0, transform=None, check="exists"
):
    """Read a local copy of the training images of ISIC 2019.

    25,331 dermatoscopic photographs of skin lesions [1]_ in nine classes, of which the
    last, "UNK", has none. RR-ClArC [2]_ plants a shortcut into melanomas, "MEL".

    Parameters
    ----------
    root : str or path-like
        The folder with ``ISIC_2019_Training_GroundTruth.csv`` and the images in
        ``ISIC_2019_Training_Input``.

    subset : {"train", "val", "test", "all"}, default="train"
        80 %, 10 % or 10 % of the images, drawn at random as in [2]_, or all of them.

    random_state : int or None, default=0
        Draws the subsets, by `numpy.random.default_rng`. With 0 they are those of [2]_.

    transform : callable, default=None
        Makes a tensor of an RGB PIL image; see `BiasedImageDataset`. None: resize to
        224x224, bicubic, float32 from 0 to 1.

    check : {"exists", "decode", "none"}, default="exists"
        What is looked at before training; see `BiasedImageDataset`. The files of all
        subsets are looked for, and those of this one are read.

    Returns
    -------
    dataset : BiasedImageDataset
        The bias is -1 everywhere: `make_artifact` plants one. `metadata` has the
        ``image`` that the table names.

    Raises
    ------
    FileNotFoundError
        If the table or images are missing.
    ValueError
        If the table is damaged, an image is not of exactly one class, or a parameter is
        none of the values above.

    Notes
    -----
    [2]_ normalises the images with mean and standard deviation 0.5, and augments them
    in training; this does neither. Several images may show one lesion, and the subsets
    are drawn by image, as in [2]_.

    References
    ----------
    .. [1] Combalia et al., "BCN20000: Dermoscopic Lesions in the Wild", 2019; Tschandl
       et al., "The HAM10000 dataset", Scientific Data 2018; Codella et al., "Skin
       Lesion Analysis Toward Melanoma Detection", ISBI 2018.
    .. [2] Dreyer et al., "From Hope to Safety: Unlearning Biases of Deep Models via
       Gradient Penalization in Latent Space", AAAI 2024.
    """
    check_option(subset, _SUBSETS, name="subset")
    copy = LocalCopy("ISIC 2019", root, _ISIC_ORIGIN)
    path = copy.find("ISIC_2019_Training_GroundTruth.csv")
    table = copy.read_csv(path, ["image", *_ISIC_CLASSES])
    one_hot = np.stack([table[name] for name in _ISIC_CLASSES], axis=1)
    shown, hidden = np.isin(one_hot, ("1.0", "1")), np.isin(one_hot, ("0.0", "0"))
    wrong = np.flatnonzero((shown.sum(axis=1) != 1) | ~(shown | hidden).all(axis=1))
    if len(wrong):
        raise copy.damaged(
            path,
            f"has {', '.join(one_hot[wrong[0]])} for {table['image'][wrong[0]]}; "
            "expected a 1 for one class and 0 for the others",
        )
    folder = copy.find(
        "ISIC_2019_Training_Input/ISIC_2019_Training_Input",
        "ISIC_2019_Training_Input",
        "Train",
    ).relative_to(copy.root)
    return copy.dataset(
        [folder / f"{name}.jpg" for name in table["image"].tolist()],
        shown.argmax(axis=1),
        rows=random_subset(len(shown), subset, random_state),
        class_names=_ISIC_CLASSES,
        transform=transform or _square_transform(),
        metadata={"image": table["image"]},
        check=check,
        DESCR=f"ISIC 2019 ({subset=}), from {path}. No bias is known.",
    )


def fetch_bone_age(
    root, *, subset="train", random_state=0, transform=None, check="exists"
):
    """Read a local copy of the training images of the RSNA bone age challenge.

    12,611 radiographs of hands [1]_. The class is the age of the bones, in five bins of
    equal width. RR-ClArC [2]_ plants a shortcut into the third, 92 to 137 months.

    Parameters
    ----------
    root : str or path-like
        The folder with ``boneage-training-dataset.csv`` (or ``train.csv``) and the
        images in ``boneage-training-dataset``.

    subset : {"train", "val", "test", "all"}, default="train"
        80 %, 10 % or 10 % of the images, drawn at random as in [2]_, or all of them.

    random_state : int or None, default=0
        Draws the subsets, by `numpy.random.default_rng`. With 0 they are those of [2]_.

    transform : callable, default=None
        Makes a tensor of an RGB PIL image; see `BiasedImageDataset`. None: resize to
        224x224, bicubic, float32 from 0 to 1.

    check : {"exists", "decode", "none"}, default="exists"
        What is looked at before training; see `BiasedImageDataset`. The files of all
        subsets are looked for, and those of this one are read.

    Returns
    -------
    dataset : BiasedImageDataset
        The bias is -1 everywhere: `make_artifact` plants one. `metadata` has the
        ``boneage`` in months, float64, and ``male``, bool.

    Raises
    ------
    FileNotFoundError
        If the table or images are missing.
    ValueError
        If the table is damaged, or a parameter is none of the values above.

    Notes
    -----
    The bins divide the range of all ages in the table, whichever subset is read; the
    upper edge belongs to a bin. [2]_ normalises the images with mean 46.9 / 255 and
    standard deviation 22.65 / 255, and augments them in training; this does neither.

    References
    ----------
    .. [1] Halabi et al., "The RSNA Pediatric Bone Age Machine Learning Challenge",
       Radiology 2019.
    .. [2] Dreyer et al., "From Hope to Safety: Unlearning Biases of Deep Models via
       Gradient Penalization in Latent Space", AAAI 2024.
    """
    check_option(subset, _SUBSETS, name="subset")
    copy = LocalCopy("RSNA Bone Age", root, _BONE_ORIGIN)
    path = copy.find("boneage-training-dataset.csv", "train.csv")
    table = copy.read_csv(path, ["id", "boneage", "male"])
    ages, male = _ages(copy, path, table), _male(copy, path, table)
    edges = np.linspace(ages.min(), ages.max(), _BONE_CLASSES + 1)
    folder = copy.find(
        "boneage-training-dataset/boneage-training-dataset", "boneage-training-dataset"
    ).relative_to(copy.root)
    return copy.dataset(
        [folder / f"{number}.png" for number in table["id"].tolist()],
        np.searchsorted(edges[1:-1], ages, side="left"),
        rows=random_subset(len(ages), subset, random_state),
        class_names=_bin_names(edges),
        transform=transform or _square_transform(),
        metadata={"boneage": ages, "male": male},
        check=check,
        DESCR=f"RSNA Bone Age ({subset=}), from {path}. No bias is known.",
    )


def _square_transform():
    return image_transform(v2.Resize((224, 224), InterpolationMode.BICUBIC))


def _ages(copy, path, table):
    """Return the ages in months."""
    try:
        ages = table["boneage"].astype(np.float64)
    except ValueError as error:
        raise copy.damaged(
            path, f"has a boneage that is no number ({error})"
        ) from error
    if not (ages >= 0).all() or not np.isfinite(ages).all() or ages.min() == ages.max():
        raise copy.damaged(
            path,
            "must have different ages in months, none negative or infinite; got "
            f"{ages.min():g} to {ages.max():g}",
        )
    return ages


def _male(copy, path, table):
    """Return who is male."""
    male = np.char.lower(table["male"])
    wrong = np.flatnonzero(~np.isin(male, ("true", "false")))
    if len(wrong):
        value, row = str(table["male"][wrong[0]]), wrong[0] + 1
        raise copy.damaged(
            path,
            f"has {value!r} in column male, data row {row}; expected True or False",
        )
    return male == "true"


def _bin_names(edges):
    """Name each bin by the first and last whole month in it."""
    lowest = [np.ceil(edges[0]), *(np.floor(edges[1:-1]) + 1)]
    return [
        f"{low:.0f}-{high:.0f} months"
        for low, high in zip(lowest, np.floor(edges[1:]), strict=True)
    ]
