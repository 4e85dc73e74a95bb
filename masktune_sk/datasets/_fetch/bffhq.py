"""BFFHQ: faces whose gender nearly gives the age away."""

from torchvision.transforms import v2

from .._checks import check_option, check_ratio
from .folder import image_transform
from .local_copy import LocalCopy

_ORIGIN = (
    "BFFHQ is linked at https://github.com/kakaoenterprise/Learning-Debiased-Disentangled"
    " and https://github.com/kakaoenterprise/BiasEnsemble: unpack it, and pass the "
    "folder with valid and test as root."
)
_FOLDERS = {"train": None, "val": "valid", "test": "test"}


def fetch_bffhq(
    root, *, subset="train", conflict_ratio=0.005, transform=None, check="exists"
):
    """Read a local copy of BFFHQ.

    Faces of FFHQ, where age goes with gender but for a share of the training images
    [1]_. The class is the age, the bias is the gender.

    Parameters
    ----------
    root : str or path-like
        The folder with ``valid``, ``test``, and either ``0.5pct`` (as published) or
        ``train``, each of these with ``align/<class>`` and ``conflict/<class>``.

    subset : {"train", "val", "test"}, default="train"
        The published split.

    conflict_ratio : float, default=0.005
        Share of training images that contradict the bias: it tells which folder is
        read, 0.005 for ``0.5pct``. Where there is no such folder, ``train`` is read.
        Used by `subset="train"` alone.

    transform : callable, default=None
        Makes a tensor of an RGB PIL image; see `BiasedImageDataset`. None: resize to
        224x224, float32 from 0 to 1.

    check : {"exists", "decode", "none"}, default="exists"
        What is looked at before training; see `BiasedImageDataset`.

    Returns
    -------
    dataset : BiasedImageDataset
        Classes "age 0" and "age 1", biases "gender 0" and "gender 1". An image is
        aligned where ``dataset.bias == dataset.targets``.

    Raises
    ------
    FileNotFoundError
        If the folder of the subset is missing.
    ValueError
        If it has no images, a name does not tell class and bias, or a parameter is none
        of the values above.

    Notes
    -----
    Class and bias are the last two numbers of a file's name, as in ``29413_0_1.png``.
    What 0 and 1 stand for is written nowhere in the published files. Some papers test
    on the conflicting images alone [1]_; here the test has all, and
    ``dataset.take(dataset.bias != dataset.targets)`` those.

    References
    ----------
    .. [1] Lee et al., "Learning Debiased Representation via Disentangled Feature
       Augmentation", NeurIPS 2021.
    """
    check_option(subset, tuple(_FOLDERS), name="subset")
    check_ratio(conflict_ratio)
    copy = LocalCopy("BFFHQ", root, _ORIGIN)
    if subset == "train":
        top = copy.find(f"{100 * conflict_ratio:g}pct", "train")
        halves = [copy.find(top / half) for half in ("align", "conflict")]
        files = [file for half in halves for file in copy.images(half)]
    else:
        top = copy.find(_FOLDERS[subset])
        files = copy.images(top)
    numbers = copy.numbers_in_names(files, 2)
    return copy.dataset(
        files,
        numbers[:, 0],
        numbers[:, 1],
        class_names=["age 0", "age 1"],
        bias_names=["gender 0", "gender 1"],
        transform=transform or image_transform(v2.Resize((224, 224))),
        check=check,
        DESCR=f"BFFHQ ({subset=}), from {top}. Class: age. Bias: gender.",
    )
