"""ImageNet-9: nine classes, and test images with other backgrounds."""

import re

import numpy as np

from .._checks import check_option
from .local_copy import LocalCopy

_ORIGIN = (
    "ImageNet-9 is at https://github.com/MadryLab/backgrounds_challenge: in9l.tar.gz "
    "for training and validation, backgrounds_challenge_data.tar.gz for the tests; "
    "unpack them into one folder and pass it as root."
)
_CLASSES = (
    "dog",
    "bird",
    "wheeled vehicle",
    "reptile",
    "carnivore",
    "insect",
    "musical instrument",
    "primate",
    "fish",
)
_VARIANTS = (
    "original",
    "mixed_same",
    "mixed_rand",
    "mixed_next",
    "only_fg",
    "no_fg",
    "only_bg_b",
    "only_bg_t",
)
# Whose background is of the image's own class, or of another image of it.
_OWN_BACKGROUND = {"original", "mixed_same", "no_fg", "only_bg_b", "only_bg_t"}


def fetch_imagenet9(
    root, *, subset="train", variant="original", transform=None, check="exists"
):
    """Read a local copy of ImageNet-9 or of the backgrounds challenge.

    Photographs of nine coarse classes of ImageNet [1]_. The bias is the class that the
    background is from: in test images of the variant "mixed_rand" it is drawn at
    random, and what a classifier loses there against "mixed_same" is the BG-gap, what
    it owes to the background.

    Parameters
    ----------
    root : str or path-like
        The folder that ``in9l`` and ``bg_challenge`` were unpacked in, or one with
        ``train``, ``val`` and ``test/<variant>/val``.

    subset : {"train", "val", "test"}, default="train"
        IN-9L with 45,405 training and 4,185 validation images, or a variant of the
        4,050 test images.

    variant : str, default="original"
        Which test images, with `subset="test"`:

        - "original": as they are;
        - "mixed_same", "mixed_rand", "mixed_next": the foreground on the background of
          another image, of the same class, of any class, or of the next class;
        - "only_fg": the foreground on black;
        - "no_fg": the foreground blacked out;
        - "only_bg_b", "only_bg_t": the box around the foreground blacked out, or
          tiled with background.

    transform : callable, default=None
        Makes a tensor of an RGB PIL image; see `BiasedImageDataset`. None: resize the
        shorter side to 256 pixels, crop 224x224 from the centre, float32 from 0 to 1.

    check : {"exists", "decode", "none"}, default="exists"
        What is looked at before training; see `BiasedImageDataset`.

    Returns
    -------
    dataset : BiasedImageDataset
        The nine classes, each also a bias. Where the background is of another class
        ("mixed_rand", "mixed_next") or there is none ("only_fg"), the bias is -1: the
        files do not tell.

    Raises
    ------
    FileNotFoundError
        If the folder of the subset is missing.
    ValueError
        If a class has no images, a folder is of none of the classes, or a parameter is
        none of the values above.

    Notes
    -----
    A folder's class is the number that its name begins with, as in ``00_dog``.
    Published results normalise the images with mean (0.4717, 0.4499, 0.3837) and
    standard deviation (0.2600, 0.2516, 0.2575), and augment them in training; this does
    neither.

    References
    ----------
    .. [1] Xiao et al., "Noise or Signal: The Role of Image Backgrounds in Object
       Recognition", ICLR 2021.
    """
    check_option(subset, ("train", "val", "test"), name="subset")
    check_option(variant, _VARIANTS, name="variant")
    copy = LocalCopy("ImageNet-9", root, _ORIGIN)
    if subset == "test":
        places = [f"{place}{variant}/val" for place in ("bg_challenge/", "test/", "")]
    else:
        places = [f"in9l/{subset}", subset]
    top = copy.find(*places)
    files, targets = [], []
    for label, folder in enumerate(_class_folders(copy, top)):
        found = copy.images(folder)
        files += found
        targets += [label] * len(found)
    own = subset != "test" or variant in _OWN_BACKGROUND
    test = f", {variant=}" if subset == "test" else ""
    return copy.dataset(
        files,
        targets,
        targets if own else np.full(len(targets), -1),
        class_names=_CLASSES,
        bias_names=[f"background of {name}" for name in _CLASSES],
        transform=transform,
        check=check,
        DESCR=f"ImageNet-9 ({subset=}{test}), from {top}. Bias: the background.",
    )


def _class_folders(copy, top):
    """Return the folder of each class."""
    folders = {}
    for folder in sorted(entry for entry in top.iterdir() if entry.is_dir()):
        number = re.match(r"\d+", folder.name)
        if number is None:
            continue  # of the system, or of the user's own
        label = int(number.group())
        if label >= len(_CLASSES):
            raise copy.damaged(
                folder, f"is of class {label}; expected 0 to {len(_CLASSES) - 1}"
            )
        if label in folders:
            raise copy.damaged(folder, f"is of the same class as {folders[label].name}")
        folders[label] = folder
    missing = [f"{i:02}_{n}" for i, n in enumerate(_CLASSES) if i not in folders]
    if missing:
        raise copy.damaged(top, f"has no folder {', '.join(missing)}")
    return [folders[label] for label in range(len(_CLASSES))]
