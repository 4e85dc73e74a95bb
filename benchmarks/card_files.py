"""Sets of RR-ClArC: photographs in files, read and planted image by image.

As arrays they would take gigabytes. Which images get an artifact is drawn for all of
them at once, and what it looks like for each by its number, so that an image is always
the same one.
"""

import os
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from torchvision.transforms import InterpolationMode, v2

from masktune_sk.datasets import BiasedImageDataset, fetch_celeba, make_artifact
from masktune_sk.datasets._fetch.local_copy import random_subset

__all__ = ["PlantedFiles", "read_collars", "read_image_folder"]

# Parameters of `make_artifact` that do not tell which images get the artifact.
LOOKS = ("alpha", "lsb_factor", "text", "time_format")
# Which removed images go to the test, as the code of RR-ClArC draws it.
COLLAR_SEED = 42


class PlantedFiles(Dataset):
    """Photographs, with an artifact planted at the size that the net sees.

    Parameters
    ----------
    images : BiasedImageDataset
        Its transform is replaced: resize, plant, float32 from 0 to 1, normalise.
    artifact : str
        What is planted, see `masktune_sk.datasets.make_artifact`.
    side : int, default=224
        Pixels a side.
    seed : int, default=0
        Draws which images get the artifact, and what it looks like.
    normalize : dict, default=None
        Arguments of `v2.Normalize`.
    **arguments : dict
        Other parameters of `make_artifact`.

    Attributes
    ----------
    targets : ndarray of shape (n_samples,), int64
        The class, after relabelling.
    concept : ndarray of shape (n_samples,), int64
        1 for an image with the artifact.
    groups : ndarray of str, shape (n_samples,)
        Class and artifact.
    aligned : ndarray of bool, shape (n_samples,)
        Whether the artifact agrees with the class.
    """

    def __init__(
        self, images, artifact, *, side=224, seed=0, normalize=None, **arguments
    ):
        self.images = images
        self.images.transform = v2.Compose(
            [v2.Resize((side, side), InterpolationMode.BICUBIC), v2.PILToTensor()]
        )
        steps = [v2.ToDtype(torch.float32, scale=True)]
        if normalize is not None:
            steps.append(v2.Normalize(**normalize))
        self.finish = v2.Compose(steps)
        self.looks = {key: arguments.pop(key) for key in LOOKS if key in arguments}
        self.looks |= {"artifact": artifact, "random_state": seed}
        # Labels alone decide who gets it. These images are not looked at.
        drawn = make_artifact(
            np.zeros((len(images), 1, 1, 1), dtype=np.uint8),
            images.targets,
            artifact="brightness",
            random_state=seed,
            **arguments,
        )
        self.targets, self.concept = drawn.target, drawn.concept
        self.aligned = drawn.aligned
        names = [
            [f"{name}, clean", f"{name}, {artifact}"] for name in images.class_names
        ]
        self.groups = np.array(names)[drawn.target, drawn.bias]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        image, _ = self.images[i]
        if self.concept[i]:
            planted = make_artifact(
                image.numpy()[None],
                [1],
                classes=None,
                proportion=1.0,
                sample_ids=[i],
                **self.looks,
            )
            image = torch.from_numpy(planted.data[0])
        return self.finish(image), int(self.targets[i])


def read_image_folder(root, *, subset):
    """Read ImageNet as it is unpacked: train/CLASS/*.JPEG and val/CLASS/*.JPEG.

    Parameters
    ----------
    root : path-like
        With both folders.
    subset : {"train", "test"}
        Nine tenths of the training images, drawn with seed 0, or the validation images.

    Returns
    -------
    dataset : BiasedImageDataset
        Classes are the folders of `train`, sorted by name.

    Raises
    ------
    FileNotFoundError
        If a folder is missing.
    """
    root = Path(root)
    names = _folders(root / "train")
    top = root / ("train" if subset == "train" else "val")
    missing = set(names) - set(_folders(top))
    if missing:
        raise FileNotFoundError(f"{top} lacks the folder {min(missing)} of train.")
    files, targets = [], []
    for label, name in enumerate(names):
        found = sorted(entry.name for entry in os.scandir(top / name))
        files += [os.path.join(top.name, name, file) for file in found]
        targets += [label] * len(found)
    dataset = BiasedImageDataset(
        files, targets, class_names=names, root=root, check="none"
    )
    if subset == "train":
        left_out = random_subset(len(files), "val", 0)
        dataset = dataset.take(np.setdiff1d(np.arange(len(files)), left_out))
    return dataset


def _folders(top):
    found = sorted(entry.name for entry in top.glob("*") if entry.is_dir())
    if not found:
        raise FileNotFoundError(
            f"There are no folders of classes in {top}. ImageNet is expected as it is "
            "unpacked: train/CLASS/*.JPEG and val/CLASS/*.JPEG."
        )
    return found


def read_collars(root, *, subset, every):
    """Read CelebA, blond hair and neckties, as RR-ClArC divides it.

    Parameters
    ----------
    root : path-like
        See `masktune_sk.datasets.fetch_celeba`.
    subset : {"train", "test"}
        Eight tenths of the images, less nine of ten blond ones with a necktie, or a
        tenth of them and half of what was removed.
    every : int
        Which images without a necktie are taken: every tenth, for 10. All with one are.

    Returns
    -------
    dataset : BiasedImageDataset
        Class: blond hair. Bias: a necktie.
    """
    parts = [
        fetch_celeba(
            root,
            subset=part,
            bias="Wearing_Necktie",
            check="none" if part != "train" else "exists",
        )
        for part in ("train", "val", "test")
    ]
    first = parts[0]
    files, targets, bias = (
        np.concatenate([getattr(part, name) for part in parts])
        for name in ("files", "targets", "bias")
    )
    order = np.argsort(files)
    chosen = order[(np.arange(len(order)) % every == 0) | (bias[order] == 1)]
    dataset = BiasedImageDataset(
        files[chosen],
        targets[chosen],
        bias[chosen],
        class_names=first.class_names,
        bias_names=first.bias_names,
        root=first.root,
        transform=first.transform,
        check="none",
        origin=first.origin,
    )
    train, test = (random_subset(len(dataset), part, 0) for part in ("train", "test"))
    rare = train[(dataset.targets[train] == 1) & (dataset.bias[train] == 1)]
    removed = np.setdiff1d(rare, rare[::10])
    if subset == "train":
        return dataset.take(np.setdiff1d(train, removed))
    shuffled = np.random.default_rng(COLLAR_SEED).permutation(removed)
    return dataset.take(np.sort(np.append(test, shuffled[: len(shuffled) // 2])))
