"""BAR: actions in their usual place, and elsewhere."""

from pathlib import Path

import numpy as np
from torchvision.transforms import v2

from .._checks import check_option, check_ratio
from .folder import image_transform
from .local_copy import LocalCopy

_ORIGIN = (
    "BAR is at https://github.com/alinlab/BAR; the copies with a conflict_ratio are "
    "linked at https://github.com/kakaoenterprise/BiasEnsemble. Pass the folder with "
    "train and test as root."
)
_PLACES = {  # the usual one of each action
    "climbing": "rock wall",
    "diving": "underwater",
    "fishing": "water surface",
    "pole vaulting": "sky",
    "racing": "paved track",
    "throwing": "playing field",
}
_SUBSETS = {"train": "train", "val": "valid", "test": "test"}


def fetch_bar(
    root, *, subset="train", conflict_ratio=None, transform=None, check="exists"
):
    """Read a local copy of BAR, Biased Action Recognition.

    Photographs of six actions [1]_. The class is the action, the bias is the place:
    training images show an action where it usually is, test images elsewhere.

    Parameters
    ----------
    root : str or path-like
        The folder with ``train`` and ``test``, and ``valid`` where there is a
        `conflict_ratio`.

    subset : {"train", "val", "test"}, default="train"
        The published split: 1,941 training and 654 test images. There are validation
        images with a `conflict_ratio` alone.

    conflict_ratio : float, default=None
        None: the published data. A share such as 0.01 or 0.05: the copies of [2]_,
        where so many of the training images conflict
        (``train/align``, ``train/conflict/1pct``).

    transform : callable, default=None
        Makes a tensor of an RGB PIL image; see `BiasedImageDataset`. None: resize to
        224x224, float32 from 0 to 1.

    check : {"exists", "decode", "none"}, default="exists"
        What is looked at before training; see `BiasedImageDataset`.

    Returns
    -------
    dataset : BiasedImageDataset
        The bias of an aligned training image is the number of its class. No file tells
        the place of an image that conflicts: its bias is -1, as that of all validation
        and test images.

    Raises
    ------
    FileNotFoundError
        If a folder is missing.
    ValueError
        If it has no images, a name does not tell the action, or a parameter is none of
        the values above.

    Notes
    -----
    The published files are named ``climbing_0.jpg``; images in a folder with the name
    of their action are read too. Files of [2]_ tell the class as a number, and not what
    it stands for, so the classes are named "action 0" to "action 5" there.

    References
    ----------
    .. [1] "Learning from Failure: De-biasing Classifier from Biased Classifier",
       NeurIPS 2020, arXiv 2007.02561.
    .. [2] Lee et al., "Revisiting the Importance of Amplifying Bias for Debiasing",
       AAAI 2023.
    """
    check_option(subset, tuple(_SUBSETS), name="subset")
    copy = LocalCopy("BAR", root, _ORIGIN)
    class_names, bias_names = list(_PLACES), list(_PLACES.values())
    if conflict_ratio is None:
        if subset == "val":
            raise ValueError(
                "BAR as published has no validation images. Draw some from the "
                "training images, or give a conflict_ratio to read a copy that has."
            )
        top = copy.find(_SUBSETS[subset])
        files = copy.images(top)
        targets = np.array([_action(copy, file) for file in files])
        bias = targets if subset == "train" else np.full(len(files), -1)
    else:
        check_ratio(conflict_ratio)
        top = copy.find(_SUBSETS[subset])
        if subset == "train":
            files = copy.images(copy.find(top / "align"))
            n_aligned = len(files)
            ratio = f"{100 * conflict_ratio:g}pct"
            files += copy.images(copy.find(top / "conflict" / ratio))
        else:
            files, n_aligned = copy.images(top), 0
        targets = copy.numbers_in_names(files, len(_PLACES))[:, 0]
        bias = np.where(np.arange(len(files)) < n_aligned, targets, -1)
        class_names = [f"action {i}" for i in range(len(_PLACES))]
        bias_names = [f"place of {name}" for name in class_names]
    return copy.dataset(
        files,
        targets,
        bias,
        class_names=class_names,
        bias_names=bias_names,
        transform=transform or image_transform(v2.Resize((224, 224))),
        check=check,
        DESCR=f"BAR ({subset=}, {conflict_ratio=}), from {top}. Bias: the place.",
    )


def _action(copy, file):
    """Return the class that the name of a file or of its folder tells."""
    path = Path(file)
    for name in (path.stem.rpartition("_")[0], path.parent.name):
        if name in _PLACES:
            return list(_PLACES).index(name)
    raise copy.damaged(
        file,
        "does not tell the action; expected a name such as climbing_0.jpg. For a copy "
        "with folders align and conflict, give its conflict_ratio",
    )
