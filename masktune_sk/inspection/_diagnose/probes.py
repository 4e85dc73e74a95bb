"""Probes: small, trivial parts of a sample, and the rest of it."""

from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional as F

from .samples import Samples, standardized

__all__ = ["Probe", "Rest", "make_probes", "varying"]

#: Sides of the patches, in parts of the shorter side of the image.
PATCHES = (8, 4)
#: Cells that the rest of an image is read in: brightness, and colours.
CELLS, COLOUR_CELLS = 14, 7
#: Bins of a column, beside its value and its rank.
BINS = 8
#: Quantiles that the values of a column are clipped to.
TAILS = (0.005, 0.995)


@dataclass(frozen=True)
class Probe:
    """One small thing that may predict y.

    Attributes
    ----------
    kind : str
        "patch", "border", "brightness", "contrast", "colour", "frequency", "column".
    where : str
        Which one, in words.
    features : ndarray of shape (n_samples, n_probe_features)
        What it sees.
    place : tuple of int
        Of a patch: first and last row and column (exclusive); of a column its number.
    """

    kind: str
    where: str
    features: np.ndarray = field(repr=False)
    place: tuple = ()

    def apart_from(self, others):
        """Whether a patch overlaps none of the others; anything else always does."""
        if self.kind != "patch":
            return True
        top, bottom, left, right = self.place
        return all(
            other.kind != "patch"
            or bottom <= other.place[0]
            or other.place[1] <= top
            or right <= other.place[2]
            or other.place[3] <= left
            for other in others
        )


class Rest:
    """What is left of the samples without a probe.

    Beside a patch the pixels from half its side on; inside a border, the pixels from
    its width on; of a column the others. For what an image is like as a whole, its
    content: the image with its channels standardized one by one, which changes of
    brightness, contrast and colour leave as it is.

    Parameters
    ----------
    samples : Samples
        Of which there is a rest.
    """

    def __init__(self, samples: Samples):
        self.X = samples.X
        self.y = samples.y
        if self.X.ndim == 4:
            images = torch.from_numpy(self.X)
            self._grids = _grids(images)
            self._content = _grids(standardized(images))
        else:
            self._columns = _clipped(self.X)

    def of(self, probe):
        """Return the rest beside a probe, (n_samples, n_rest_features)."""
        if probe.kind == "column":
            return np.delete(self._columns, probe.place[0], axis=1)
        height, width = self.X.shape[2:]
        if probe.kind == "patch":
            top, bottom, left, right = probe.place
            margin = max(1, (bottom - top) // 2)
            window = top - margin, bottom + margin, left - margin, right + margin
            return self._cut(self._grids, window, inside=False)
        if probe.kind == "border":
            margin = 2 * border_width(height, width)
            window = margin, height - margin, margin, width - margin
            return self._cut(self._grids, window, inside=True)
        return self._cut(self._content, (0, 0, 0, 0), inside=False)

    def _cut(self, grids, window, *, inside):
        """Return the cells wholly outside a window of pixels, or wholly inside."""
        top, bottom, left, right = window
        parts = []
        for grid in grids:
            rows, columns = (
                np.linspace(0, side, n + 1)
                for side, n in zip(self.X.shape[2:], grid.shape[2:], strict=True)
            )
            if inside:
                rows = (rows[:-1] >= top) & (rows[1:] <= bottom)
                columns = (columns[:-1] >= left) & (columns[1:] <= right)
            else:
                rows = (rows[:-1] < bottom) & (rows[1:] > top)
                columns = (columns[:-1] < right) & (columns[1:] > left)
            kept = (rows[:, None] & columns) == inside
            parts.append(grid[:, :, kept])
        # Of the content, every channel has the same mean.
        if len(grids) > 1 and grids is not self._content:
            parts.append(_colour_of(parts[1], sum(part[0].size for part in parts)))
        return np.concatenate([p.reshape(len(p), -1) for p in parts], axis=1)


def make_probes(samples):
    """Return every probe of the samples that is not constant.

    Parameters
    ----------
    samples : Samples
        Images or vectors.

    Returns
    -------
    probes : list of Probe
        In no special order.
    """
    probes = _of_images(samples) if samples.X.ndim == 4 else _of_vectors(samples)
    return [probe for probe in probes if varying(probe.features).any()]


def varying(features):
    """Tell which features vary by more than rounding.

    Parameters
    ----------
    features : ndarray of shape (n_samples, n_features)
        Numbers.

    Returns
    -------
    varies : ndarray of bool, shape (n_features,)
        True where they do.
    """
    return features.std(axis=0, dtype=np.float64) > 1e-6 * np.abs(features).max(axis=0)


def _of_images(samples):
    seen = samples.photometry
    yield Probe("brightness", "whole image", seen.brightness)
    # Alone too: all of them together also tell how much of an object there is.
    yield Probe("brightness", "mean of the image", seen.brightness[:, :1])
    yield Probe("brightness", "darkest pixels", seen.brightness[:, 1:3])
    yield Probe("brightness", "brightest pixels", seen.brightness[:, -1:])
    yield Probe("contrast", "whole image", seen.contrast)
    if samples.X.shape[1] > 1:
        yield Probe("colour", "whole image", seen.colour)
    yield Probe("frequency", "whole image", seen.frequency)
    height, width = samples.X.shape[2:]
    edge = border_width(height, width)
    frame = np.ones((height, width), dtype=bool)
    frame[edge : height - edge, edge : width - edge] = False
    if not frame.all():
        pixels = samples.X[:, :, frame]
        pixels = np.concatenate([pixels.mean(axis=2), pixels.std(axis=2)], axis=1)
        yield Probe("border", f"outer {_width_in_words(edge, samples)}", pixels)
    yield from _patches(samples)


def _patches(samples):
    height, width = samples.X.shape[2:]
    sides = {max(1, round(min(height, width) / part)) for part in PATCHES}
    for side in sorted(sides):
        for top in _starts(height, side):
            for left in _starts(width, side):
                place = top, top + side, left, left + side
                pixels = samples.X[:, :, top : top + side, left : left + side]
                quarters = F.adaptive_avg_pool2d(
                    torch.from_numpy(np.ascontiguousarray(pixels)), min(side, 2)
                )
                yield Probe(
                    "patch",
                    _place_in_words(place, samples),
                    quarters.flatten(1).numpy(),
                    place,
                )


def _of_vectors(samples):
    values, ranks = _clipped(samples.X), _ranks(samples.X)
    for j in range(samples.X.shape[1]):
        name = f"column {j}" if samples.names is None else str(samples.names[j])
        edges = np.unique(np.quantile(samples.X[:, j], np.linspace(0, 1, BINS + 1)))
        bins = np.searchsorted(edges[1:-1], samples.X[:, j], side="right")
        features = np.eye(len(edges), dtype=np.float32)[bins]
        features = np.hstack([values[:, [j]], ranks[:, [j]], features])
        yield Probe("column", name, features, (j,))


def border_width(height, width):
    """Return the width of the border in pixels."""
    return max(1, min(height, width) // 14)


def _starts(length, side):
    """Return where patches begin: every half side, and at the end."""
    return sorted({*range(0, length - side + 1, max(1, side // 2)), length - side})


def _grids(images):
    """Read images in cells: finer for brightness, coarser for colours."""
    height, width = images.shape[2:]
    shapes = [(1, CELLS), (images.shape[1], COLOUR_CELLS)]
    parts = [images.mean(dim=1, keepdim=True), images]
    return [
        F.adaptive_avg_pool2d(part, (min(n, height), min(n, width))).numpy()
        for part, (n_channels, n) in zip(parts, shapes, strict=True)
        if n_channels > 1 or n == CELLS
    ]


def _clipped(X):
    """Return standardized columns, without values far out."""
    X = np.clip(X, *np.quantile(X, TAILS, axis=0)).astype(np.float64)
    spread = X.std(axis=0)
    return ((X - X.mean(axis=0)) / np.where(spread > 0, spread, 1)).astype(np.float32)


def _colour_of(cells, n_others):
    """Return the shares of the channels in cells (n, c, k), as weighty as the others.

    An object of one colour tells it wherever it is.
    """
    light = cells.mean(axis=2) - cells.min(axis=(0, 2))
    total = light.sum(axis=1, keepdims=True)
    shares = light / np.maximum(total, 1e-6 * max(float(total.max()), 1e-30))
    shares -= shares.mean(axis=0)
    spread = float(shares.std(axis=0).max())
    if spread < 1e-4:  # grey, up to rounding
        return np.zeros_like(shares)
    return shares * (cells.std() * np.sqrt(n_others / shares.shape[1]) / spread)


def _ranks(X):
    """Return each column as the shares of samples below, ties in the middle."""
    below = [np.searchsorted(np.sort(x), x, side="left") for x in X.T]
    up_to = [np.searchsorted(np.sort(x), x, side="right") for x in X.T]
    return ((np.array(below) + np.array(up_to)).T / (2 * len(X))).astype(np.float32)


def _place_in_words(place, samples):
    """Tell where a patch is, in pixels of the image as it was given."""
    height, width = samples.item_shape[1:]
    rows = np.array(place[:2]) * height // samples.X.shape[2]
    columns = np.array(place[2:]) * width // samples.X.shape[3]
    return f"rows {rows[0]} to {rows[1] - 1}, columns {columns[0]} to {columns[1] - 1}"


def _width_in_words(edge, samples):
    scale = min(samples.item_shape[1:]) / min(samples.X.shape[2:])
    return f"{max(1, round(edge * scale))} pixels"
