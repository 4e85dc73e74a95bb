"""CelebA: faces with forty attributes."""

import difflib
import warnings

import numpy as np
from torchvision.transforms import v2

from .._checks import check_option
from .folder import image_transform
from .local_copy import LocalCopy

_ORIGIN = (
    "CelebA is at https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html: img_align_celeba "
    "unpacked, list_attr_celeba.txt and list_eval_partition.txt, in one folder that is "
    "passed as root."
)
_SUBSETS = ("train", "val", "test")  # in the order of their numbers in the table
_FOLDERS = ("", "celeba", "Anno", "Eval", "Img")  # as they are downloaded


def fetch_celeba(
    root,
    *,
    subset="train",
    target="Blond_Hair",
    bias="Male",
    transform=None,
    check="exists",
):
    """Read a local copy of CelebA.

    Faces of celebrities [1]_, with one of forty attributes as the class and another as
    the bias. As published for shortcut learning [2]_ the class is blond hair and the
    bias is being male: of the 162,770 training images 1,387 show blond men.

    Parameters
    ----------
    root : str or path-like
        The folder with ``img_align_celeba``, and ``list_attr_celeba`` and
        ``list_eval_partition`` as ``.txt`` (the official files) or ``.csv`` (those on
        Kaggle). It may have the official folders ``Anno``, ``Eval`` and ``Img``, or
        torchvision's ``celeba``.

    subset : {"train", "val", "test"}, default="train"
        The official partition: 162,770, 19,867 and 19,962 images.

    target : str, default="Blond_Hair"
        Attribute that is the class: 1 for images that have it.

    bias : str, default="Male"
        Attribute that is the bias: 1 for images that have it.

    transform : callable, default=None
        Makes a tensor of an RGB PIL image; see `BiasedImageDataset`. None: crop
        178x178 from the centre, resize to 224x224, float32 from 0 to 1.

    check : {"exists", "decode", "none"}, default="exists"
        What is looked at before training; see `BiasedImageDataset`. The files of all
        three subsets are looked for, and those of this one are read.

    Returns
    -------
    dataset : BiasedImageDataset
        `metadata` has all attributes by name, as bools.

    Raises
    ------
    FileNotFoundError
        If a table or images are missing.
    ValueError
        If a table is damaged, or a parameter is none of the values above.

    Notes
    -----
    Published results normalise the images with mean (0.485, 0.456, 0.406) and standard
    deviation (0.229, 0.224, 0.225), and augment them in training; this does neither.

    References
    ----------
    .. [1] Liu et al., "Deep Learning Face Attributes in the Wild", ICCV 2015.
    .. [2] Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts",
       ICLR 2020.
    """
    check_option(subset, _SUBSETS, name="subset")
    if target == bias:
        raise ValueError(f"target and bias must be two attributes; both are {bias!r}.")
    copy = LocalCopy("CelebA", root, _ORIGIN)
    path = copy.find(*_places("list_attr_celeba.txt", "list_attr_celeba.csv"))
    files, attributes = _read_attributes(copy, path)
    for parameter, name in (("target", target), ("bias", bias)):
        if name not in attributes:
            close = difflib.get_close_matches(str(name), attributes, n=3, cutoff=0.5)
            raise ValueError(
                f"{parameter} must be an attribute of {path}; got {name!r}. Close to "
                f"it: {', '.join(close) or 'none'}. All: {', '.join(attributes)}."
            )
    partition = _read_partition(copy, path, files)
    folder = copy.find(
        "img_align_celeba/img_align_celeba", *_places("img_align_celeba")
    )
    folder = folder.relative_to(copy.root)
    return copy.dataset(
        [folder / name for name in files.tolist()],
        attributes[target].astype(np.int64),
        attributes[bias].astype(np.int64),
        rows=np.flatnonzero(partition == _SUBSETS.index(subset)),
        class_names=_name(target),
        bias_names=_name(bias),
        transform=transform
        or image_transform(v2.CenterCrop(178), v2.Resize((224, 224))),
        metadata=attributes,
        check=check,
        DESCR=f"CelebA ({subset=}), from {path}. Class: {target}. Bias: {bias}.",
    )


def _places(*names):
    return [f"{folder}/{name}".lstrip("/") for folder in _FOLDERS for name in names]


def _name(attribute):
    words = attribute.replace("_", " ").lower()
    return [f"not {words}", words]


def _read_attributes(copy, path):
    """Return the file names, and for each attribute who has it."""
    is_csv = path.suffix == ".csv"
    with open(path, encoding="utf-8-sig") as file:
        stated = None if is_csv else file.readline().strip()
        header = file.readline().replace(",", " ").split()
        names = header[1:] if is_csv else header
        if not names:
            raise copy.damaged(path, "does not name its attributes")
        fields = [("file", "U32"), ("values", np.int8, (len(names),))]
        rows = _read_rows(copy, path, file, fields)
    if stated is not None and stated != str(len(rows)):
        raise copy.damaged(
            path,
            f"has {len(rows)} rows, and says {stated!r} in its first line; it may have "
            "been cut short",
        )
    values = rows["values"]
    if not np.isin(values, (-1, 1)).all():
        raise copy.damaged(path, "has attributes other than -1 and 1")
    return rows["file"], {name: values[:, i] == 1 for i, name in enumerate(names)}


def _read_partition(copy, attributes_path, files):
    """Return the number of each file's subset."""
    suffixes = sorted((".txt", ".csv"), key=lambda end: end != attributes_path.suffix)
    path = copy.find(*_places(*(f"list_eval_partition{end}" for end in suffixes)))
    with open(path, encoding="utf-8-sig") as file:
        if path.suffix == ".csv":
            file.readline()
        rows = _read_rows(copy, path, file, [("file", "U32"), ("subset", np.int8)])
    if not np.array_equal(rows["file"], files):
        raise copy.damaged(
            path,
            f"does not list the same images in the same order as {attributes_path}",
        )
    if not np.isin(rows["subset"], range(len(_SUBSETS))).all():
        raise copy.damaged(path, "has subsets other than 0, 1 and 2")
    return rows["subset"]


def _read_rows(copy, path, file, fields):
    """Read what follows in a file; numpy needs a tenth of the memory of csv."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that there are no rows
            delimiter = "," if path.suffix == ".csv" else None
            rows = np.loadtxt(file, fields, delimiter=delimiter, ndmin=1)
    except (ValueError, UnicodeDecodeError) as error:
        raise copy.damaged(path, f"is not the table expected ({error})") from error
    if len(rows) == 0:
        raise copy.damaged(path, "has no rows")
    return rows
