"""The samples of a diagnosis: rows drawn, images made small, labels encoded."""

from dataclasses import dataclass

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from torch.nn import functional as F

from ..._samples import samples_to_fit

__all__ = ["Photometry", "Samples", "draw_rows", "read_samples", "standardized"]

#: Values of brightness and of detail in an image, as quantiles over its pixels.
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95)
#: Pixels that quantiles are taken over; a coarser grid of larger images is.
MOST_PIXELS = 4096


class DiagnoseShortcut(ClassifierMixin, BaseEstimator):
    """Stands for an estimator where samples are checked as for `fit`."""

    estimator = None


@dataclass(frozen=True)
class Photometry:
    """What a whole image is like, wherever its object is; read in full resolution.

    Attributes
    ----------
    brightness : ndarray of shape (n_samples, 7)
        Mean and quantiles of the mean over channels.
    contrast : ndarray of shape (n_samples, 2)
        Its standard deviation, and the logarithm.
    colour : ndarray of shape (n_samples, n_channels)
        Shares of the channels in the brightness; constant for grey images.
    frequency : ndarray of shape (n_samples, 10)
        Quantiles of the detail at 1 and at 2 pixels, of the standardized image.
    """

    brightness: np.ndarray
    contrast: np.ndarray
    colour: np.ndarray
    frequency: np.ndarray


@dataclass(frozen=True)
class Samples:
    """What the probes look at.

    Attributes
    ----------
    X : ndarray of shape (n_samples, n_features) or (n_samples, n_channels, h, w)
        Vectors, or images of at most `max_side` pixels a side. float32.
    y : ndarray of int, shape (n_samples,)
        Encoded labels.
    classes : ndarray of shape (n_classes,)
        Labels as they are.
    n_given : int
        Samples before rows were drawn.
    item_shape : tuple of int
        Shape of a sample before it was made small.
    names : ndarray of str or None
        Names of the columns, if X was a data frame.
    photometry : Photometry or None
        Of images.
    """

    X: np.ndarray
    y: np.ndarray
    classes: np.ndarray
    n_given: int
    item_shape: tuple
    names: np.ndarray | None
    photometry: Photometry | None


def read_samples(X, y, *, cv, max_samples, max_side, random):
    """Check X and y, and read some of the samples.

    Parameters
    ----------
    X : array-like, Dataset or DatasetView
        Samples as for `MaskTuneClassifier.fit`.
    y : array-like of shape (n_samples,) or None
        Labels; None: those of the Dataset.
    cv : int
        Folds; a class needs as many samples.
    max_samples : int
        Rows that are read; small classes are kept whole as long as there is room.
    max_side : int
        Larger images are averaged down to this side.
    random : RandomState
        Draws the rows.

    Returns
    -------
    samples : Samples
        What was read.

    Raises
    ------
    TypeError, ValueError
        If X or y is not what it should be, or a class is too small.
    """
    reader = DiagnoseShortcut()
    source, y = samples_to_fit(reader, X, y)
    check_classification_targets(y)
    classes, labels = np.unique(y, return_inverse=True)
    counts = np.bincount(labels)
    if len(classes) < 2:
        raise ValueError(
            "A shortcut tells one class from another: y must have 2 classes at least, "
            f"got one, {classes[0]!s}."
        )
    if counts.min() < cv:
        raise ValueError(
            f"{cv}-fold cross-validation needs {cv} samples of each class, but class "
            f"{classes[counts.argmin()]!s} has {counts.min()}. Leave out small "
            "classes, or lower cv."
        )
    if max_samples < cv * len(classes):
        raise ValueError(
            f"max_samples={max_samples} leaves fewer than {cv} samples for each of "
            f"{len(classes)} classes. Pass {cv * len(classes)} at least."
        )
    rows = draw_rows(labels, max_samples, random)
    taken = source.take(rows)
    images = len(source.item_shape) == 3
    parts = [
        _see(batch, max_side) if images else (batch.numpy(),)
        for _, batch in taken.batches()
    ]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Samples(
        X=columns[0],
        y=labels[rows],
        classes=classes,
        n_given=len(labels),
        item_shape=source.item_shape,
        names=getattr(reader, "feature_names_in_", None),
        photometry=_photometry(*columns[1:]) if images else None,
    )


def draw_rows(labels, n_rows, random):
    """Draw rows at random, equally many of each class as far as there are any.

    Parameters
    ----------
    labels : ndarray of int, shape (n_samples,)
        Encoded labels.
    n_rows : int
        How many to draw.
    random : RandomState
        Draws them.

    Returns
    -------
    rows : ndarray of int
        Ascending; all of them if there are no more.
    """
    if len(labels) <= n_rows:
        return np.arange(len(labels))
    counts = np.bincount(labels)
    shares, left = np.zeros_like(counts), n_rows
    for i, k in enumerate(np.argsort(counts, kind="stable")):
        shares[k] = min(counts[k], left // (len(counts) - i))
        left -= shares[k]
    drawn = [
        random.permutation(np.flatnonzero(labels == k))[:share]
        for k, share in enumerate(shares)
    ]
    return np.sort(np.concatenate(drawn))


def _see(images, max_side):
    """Make a batch of images small, and describe each as a whole."""
    side = [min(max_side, length) for length in images.shape[2:]]
    small = F.adaptive_avg_pool2d(images, side)
    grey = images.mean(dim=1)
    spread = grey.flatten(1).std(dim=1, correction=0)
    brightness = torch.cat([grey.mean(dim=(1, 2))[:, None], _quantiles(grey)], dim=1)
    fine = standardized(grey[:, None])
    details = []
    for _ in range(2):
        if min(fine.shape[2:]) < 2:
            break
        coarse = F.avg_pool2d(fine, 2)
        whole = fine[:, :, : 2 * coarse.shape[2], : 2 * coarse.shape[3]]
        back = coarse.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
        # Without the smallest, which is 0 nearly always.
        details.append(_quantiles((whole - back).abs()[:, 0])[:, 1:])
        fine = coarse
    frequency = torch.cat(details, dim=1) if details else torch.zeros(len(images), 1)
    values = (
        small,
        brightness,
        spread,
        images.mean(dim=(2, 3)),
        images.amin(dim=(2, 3)),
        frequency,
    )
    return tuple(value.numpy() for value in values)


def _photometry(brightness, spread, means, darkest, frequency):
    """Bring together what was seen of all images."""
    # Images may be standardized: black is the darkest that a channel ever is.
    light = means - darkest.min(axis=0)
    total = light.sum(axis=1, keepdims=True)
    colour = light / np.maximum(total, 1e-6 * max(float(total.max()), 1e-30))
    smallest = 1e-3 * max(float(spread.mean()), 1e-30)
    return Photometry(
        brightness=brightness,
        contrast=np.stack([spread, np.log(spread + smallest)], axis=1),
        colour=colour,
        frequency=np.log(frequency + 1e-3),
    )


def _quantiles(grey):
    """Return quantiles over the pixels of images (n, h, w)."""
    pixels = grey.flatten(1)
    pixels = pixels[:, :: -(-pixels.shape[1] // MOST_PIXELS)]
    return torch.quantile(pixels, torch.tensor(QUANTILES), dim=1).T


def standardized(images):
    """Standardize each channel of each image by itself.

    Parameters
    ----------
    images : torch.Tensor of shape (n, n_channels, h, w)
        Images.

    Returns
    -------
    standardized : torch.Tensor of the same shape
        Channels of mean 0 and standard deviation 1; flat ones are nearly 0.
    """
    images = images - images.mean(dim=(2, 3), keepdim=True)
    spread = images.std(dim=(2, 3), keepdim=True, correction=0)
    return images / spread.clamp_min(1e-2 * max(float(spread.mean()), 1e-30))
