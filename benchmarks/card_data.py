"""Data of the cards: the training set and the test sets that a card's tables name.

Each loader stands for one way to get them. It takes the entries of `[data]`, and for
each test set those of `[tests]` in their place.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from card_files import PlantedFiles, read_collars, read_image_folder
from cutouts import ANIMALS, VEHICLES, draw_cutouts
from sklearn.model_selection import train_test_split
from torchvision.transforms import v2

from masktune_sk import datasets
from masktune_sk.datasets._fetch.folder import image_transform

CHARACTERS = {"animals": ANIMALS, "vehicles": VEHICLES}


@dataclass(frozen=True)
class LabelledSet:
    """Samples and what is known of them.

    Attributes
    ----------
    X : ndarray of shape (n_samples, n_channels, height, width) or Dataset
        Images.
    y : ndarray of int, shape (n_samples,)
        Classes.
    groups : ndarray of str, shape (n_samples,), or None
        Class and bias; None if the bias is not known, or there is none.
    aligned : ndarray of bool, shape (n_samples,), or None
        Whether the bias agrees with the class.
    artifact_mask : ndarray of bool, shape (n_samples, height, width), or None
        True on the pixels of the shortcut.
    concept : ndarray of int, shape (n_samples,), or None
        1 for a sample that shows the artifact, 0 for one that does not.
    """

    X: object
    y: np.ndarray
    groups: np.ndarray | None = None
    aligned: np.ndarray | None = None
    artifact_mask: np.ndarray | None = None
    concept: np.ndarray | None = None

    @property
    def image_shape(self):
        """Channels, height and width."""
        if isinstance(self.X, np.ndarray):
            return self.X.shape[1:]
        image, _ = self.X[0]
        return tuple(image.shape)


@dataclass(frozen=True)
class Source:
    """Where data are, and how they are drawn."""

    home: Path
    download: bool  # if they are not there
    seed: int


def load_sets(card, source):
    """Return the training set of a card, and a dict of its test sets.

    Raises
    ------
    FileNotFoundError
        If the data are not there.
    """
    arguments = {key: value for key, value in card.data.items() if key != "name"}
    tests = {
        name: {key: value for key, value in test.items() if key != "what"}
        for name, test in card.tests.items()
    }
    return LOADERS[card.data["name"]](source, tests, **arguments)


def load_plain(source, tests, *, images, n_train=None, n_test=None):
    """Load images as they are."""
    train, test = _read_images(source, images, n_train, n_test)
    return LabelledSet(*train), dict.fromkeys(tests, LabelledSet(*test))


def load_planted(
    source, tests, *, images, make, n_train=None, n_test=None, **arguments
):
    """Plant a shortcut in images, by a generator of the package."""
    make = getattr(datasets, make)
    train, test = _read_images(source, images, n_train, n_test)

    def plant(images, changes):
        arrays = make(*images, **(arguments | changes), random_state=source.seed)
        return _from_bunch(arrays)

    return plant(train, {}), {name: plant(test, tests[name]) for name in tests}


def load_composite(
    source,
    tests,
    *,
    cutouts,
    images,
    places,
    n_train,
    n_test,
    share_of_cutouts,
    **arguments,
):
    """Lay cut-outs over photographs of two places; see `make_composite`.

    Neither a cut-out nor a photograph of the test sets is one of the training set.
    """
    characters = [CHARACTERS[name] for name in cutouts]
    label = np.repeat(np.arange(len(cutouts)), [len(some) for some in characters])
    split = train_test_split(
        draw_cutouts("".join(characters)),
        label,
        train_size=share_of_cutouts,
        stratify=label,
        random_state=source.seed,
    )
    place_of = {number: k for k, numbers in enumerate(places) for number in numbers}

    def compose(cutouts, label, photos, n, changes):
        X, number = photos
        rows = np.isin(number, list(place_of))
        place = np.array([place_of[k] for k in number[rows].tolist()])
        arrays = datasets.make_composite(
            cutouts,
            label,
            X[rows],
            place,
            n_samples=n,
            random_state=source.seed,
            **(arguments | changes),
        )
        return _from_bunch(arrays)

    train, test = _read_images(source, images)
    return compose(split[0], split[2], train, n_train, {}), {
        name: compose(split[1], split[3], test, n_test, tests[name]) for name in tests
    }


def load_photographs(
    source,
    tests,
    *,
    fetch,
    folder,
    side=None,
    normalize=None,
    matched=False,
    **arguments,
):
    """Read a published set of photographs from its folder, batch by batch.

    `side` is the size in pixels that they are brought to, if it is another one than
    the published; `normalize` are arguments of `v2.Normalize`; `matched` says that bias
    k is that of class k.
    """
    fetch = getattr(datasets, fetch)

    if side is not None:
        arguments["transform"] = image_transform(v2.Resize((side, side)))

    def read(subset, changes):
        data = fetch(source.home / folder, subset=subset, **(arguments | changes))
        if normalize is not None:
            _normalize(data, normalize)
        known = (data.groups >= 0).all()
        return LabelledSet(
            data,
            data.targets,
            np.array(data.group_names)[data.groups] if known else None,
            data.targets == data.bias if matched else None,
        )

    return read("train", {}), {name: read("test", tests[name]) for name in tests}


def load_artifact(source, tests, *, folder, fetch=None, **arguments):
    """Read photographs and plant an artifact in some of them, see `PlantedFiles`.

    Without `fetch`, they are in folders of classes, as ImageNet is.
    """
    read = read_image_folder if fetch is None else getattr(datasets, fetch)

    def plant(subset, changes):
        images = read(source.home / folder, subset=subset)
        data = PlantedFiles(images, seed=source.seed, **(arguments | changes))
        return LabelledSet(
            data, data.targets, data.groups, data.aligned, concept=data.concept
        )

    return plant("train", {}), {name: plant("test", tests[name]) for name in tests}


def load_collar(source, tests, *, folder, every, normalize):
    """Read CelebA with neckties as the concept; a test set shows them, or does not."""

    def read(subset, collar=None):
        data = read_collars(source.home / folder, subset=subset, every=every)
        if collar is not None:
            data = data.take(data.bias == collar)
        _normalize(data, normalize)
        return LabelledSet(
            data,
            data.targets,
            np.array(data.group_names)[data.groups],
            data.targets != data.bias,
            concept=data.bias,
        )

    return read("train"), {name: read("test", **tests[name]) for name in tests}


LOADERS = {
    "artifact": load_artifact,
    "collar": load_collar,
    "plain": load_plain,
    "planted": load_planted,
    "composite": load_composite,
    "photographs": load_photographs,
}


def _normalize(data, arguments):
    """Also normalise each image that is read."""
    data.transform = v2.Compose([data.transform, v2.Normalize(**arguments)])


def _read_images(source, name, n_train=None, n_test=None):
    """Return images and labels for training, and those of the test."""
    parts = []
    for subset, n in (("train", n_train), ("test", n_test)):
        if name == "digits":
            digits = datasets.load_shortcut_digits(subset=subset, square="none")
            X, y = digits.data[:, 0], digits.digit
        else:
            X, y = getattr(datasets, f"fetch_{name}")(
                subset=subset,
                data_home=source.home,
                download=source.download,
                return_X_y=True,
            )
        if n is not None:
            rows = np.random.RandomState(0).permutation(len(X))[:n]
            X, y = X[rows], y[rows]
        parts.append((X, y))
    return parts


def _from_bunch(arrays):
    names = np.array(arrays.group_names)
    return LabelledSet(
        arrays.data,
        arrays.target,
        names[arrays.groups],
        arrays.aligned,
        arrays.get("artifact_mask"),
        arrays.get("concept"),
    )
