"""Cats vs Dogs: the photographs of the Asirra test."""

from pathlib import Path

from torchvision.transforms import InterpolationMode, v2

from .._checks import check_option
from .folder import image_transform, unreadable
from .local_copy import LocalCopy, random_subset

_ORIGIN = (
    "Cats vs Dogs is at https://www.microsoft.com/en-us/download/details.aspx?id=54765 "
    "(folder PetImages) and https://www.kaggle.com/competitions/dogs-vs-cats (folder "
    "train): unpack either, and pass the folder that it is in as root."
)
_CLASSES = ("cat", "dog")
_DAMAGED = {"Cat/666.jpg", "Dog/11702.jpg"}  # empty in the archive of Microsoft


def fetch_cats_vs_dogs(
    root, *, subset="train", skip=(), random_state=0, transform=None, check="exists"
):
    """Read a local copy of Cats vs Dogs.

    25,000 photographs of cats and dogs in all sizes [1]_, used to measure selective
    classification. No shortcut is known of them.

    Parameters
    ----------
    root : str or path-like
        The folder that the archive of Microsoft (``PetImages/Cat``,
        ``PetImages/Dog``) or that of Kaggle (``train/cat.0.jpg`` ...) was unpacked in.

    subset : {"train", "val", "test", "all"}, default="train"
        80 %, 10 % or 10 % of the images, drawn at random, or all of them.

    skip : sequence of str, default=()
        Files to leave out, relative to `root`, such as those that `check="decode"`
        found damaged. ``Cat/666.jpg`` and ``Dog/11702.jpg``, which are damaged in the
        archive of Microsoft, are left out in any case where they can't be read.

    random_state : int or None, default=0
        Draws the subsets, by `numpy.random.default_rng`. The same int gives the same
        subsets as long as the same files are there.

    transform : callable, default=None
        Makes a tensor of an RGB PIL image; see `BiasedImageDataset`. None: resize to
        64x64, bicubic, as in MaskTune [2]_, float32 from 0 to 1.

    check : {"exists", "decode", "none"}, default="exists"
        What is looked at before training; see `BiasedImageDataset`.

    Returns
    -------
    dataset : BiasedImageDataset
        Classes "cat" and "dog". The bias is -1 everywhere. `DESCR` names what was left
        out.

    Raises
    ------
    FileNotFoundError
        If neither archive is there.
    ValueError
        If a file is neither cat nor dog, a file to skip is not there, or a parameter is
        none of the values above.

    Notes
    -----
    MaskTune [2]_ tests on images that two files list which were not published, so its
    split can't be had.

    References
    ----------
    .. [1] Elson et al., "Asirra: A CAPTCHA that Exploits Interest-Aligned Manual Image
       Categorization", CCS 2007.
    .. [2] Asgari Taghanaki et al., "MaskTune: Mitigating Spurious Correlations by
       Forcing to Explore", NeurIPS 2022.
    """
    check_option(subset, ("train", "val", "test", "all"), name="subset")
    copy = LocalCopy("Cats vs Dogs", root, _ORIGIN)
    top = copy.find("PetImages/Cat", "Cat", "train")
    if top.name == "Cat":
        files = copy.images(top) + copy.images(copy.find(top.parent / "Dog"))
        classes = [Path(file).parts[-2].lower() for file in files]
    else:
        files = copy.images(top)
        classes = [Path(file).name.partition(".")[0] for file in files]
    for file, label in zip(files, classes, strict=True):
        if label not in _CLASSES:
            raise copy.damaged(
                file,
                "is neither of a cat nor of a dog; expected cat.0.jpg or dog.0.jpg",
            )
    left_out = _left_out(copy, files, skip)
    kept = [i for i, file in enumerate(files) if file not in left_out]
    return copy.dataset(
        [files[i] for i in kept],
        [_CLASSES.index(classes[i]) for i in kept],
        rows=random_subset(len(kept), subset, random_state),
        class_names=_CLASSES,
        transform=transform
        or image_transform(v2.Resize((64, 64), InterpolationMode.BICUBIC)),
        check=check,
        DESCR=(
            f"Cats vs Dogs ({subset=}), from {top}. No bias is known. Left out: "
            f"{', '.join(sorted(left_out)) or 'none'}."
        ),
    )


def _left_out(copy, files, skip):
    """Return the files to leave out."""
    skip = {str(Path(file)) for file in skip}
    unknown = sorted(skip.difference(files))
    if unknown:
        raise ValueError(
            f"skip names files that are not there: {', '.join(unknown)}. Expected "
            f"paths below {copy.root}, such as {files[0]}."
        )
    damaged = {
        file
        for file in files
        if "/".join(Path(file).parts[-2:]) in _DAMAGED and unreadable(copy.root / file)
    }
    return skip | damaged
