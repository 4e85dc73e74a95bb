"""Masks: from saliency maps to the part of an image that is hidden.

Maps are kept small; a mask is made from them when a batch is read, so that another
threshold costs no other saliency pass, and no masked copy of X exists.

Everywhere a mask is boolean and **True means kept**.
"""

import numpy as np
import torch
from torch.nn import functional as F

from .data import Source

__all__ = [
    "MaskedSource",
    "apply_masks",
    "check_threshold",
    "fill_values",
    "resize_maps",
    "roll_masks",
    "scale_maps",
    "threshold_maps",
]

# Relative differences below this are rounding, in float32.
RESOLUTION = 1e-6


def scale_maps(maps):
    """Scale each map to [0, 1] by its own minimum and maximum.

    Parameters
    ----------
    maps : ndarray of shape (n_samples, ...)
        Saliency maps.

    Returns
    -------
    scaled : ndarray of the same shape, float32
        A map that is constant, to the precision of its numbers, becomes zero. However
        small the numbers are, it is not: a saturated net has tiny gradients.
    """
    if maps.dtype == np.float16:
        maps = maps.astype(np.float32)
    flat = maps.reshape(len(maps), -1)
    low = flat.min(axis=1, keepdims=True)
    high = flat.max(axis=1, keepdims=True)
    span = high - low
    constant = (span <= RESOLUTION * np.maximum(np.abs(low), np.abs(high)))[:, 0]
    span[constant] = 1
    scaled = flat - low
    scaled /= span
    scaled[constant] = 0
    return scaled.reshape(maps.shape).astype(np.float32, copy=False)


def resize_maps(maps, item_shape):
    """Scale maps, bring them to the size of the input, scale them again.

    The order of the official code [1]_: bilinear interpolation with half-pixel centres,
    between two scalings to [0, 1].

    Parameters
    ----------
    maps : ndarray of shape (n_samples, map_height, map_width), or that of vectors
        Saliency maps at the method's own resolution.
    item_shape : tuple of int
        Shape of a sample: (n_channels, height, width) or (n_features,).

    Returns
    -------
    saliency : ndarray of shape (n_samples, height, width) or (n_samples, n_features)
        In [0, 1], float32.

    References
    ----------
    .. [1] Asgari Taghanaki et al., "MaskTune: Mitigating Spurious Correlations by
       Forcing to Explore", NeurIPS 2022.
    """
    scaled = scale_maps(maps)
    if len(item_shape) == 1 or scaled.shape[1:] == tuple(item_shape[1:]):
        return scaled
    resized = F.interpolate(
        torch.from_numpy(scaled)[:, None],
        size=tuple(item_shape[1:]),
        mode="bilinear",
        align_corners=False,
    )
    return scale_maps(resized[:, 0].numpy())


def threshold_maps(saliency, threshold, rule="sigma"):
    """Hide what is most salient.

    Parameters
    ----------
    saliency : ndarray of shape (n_samples, height, width) or (n_samples, n_features)
        Maps in [0, 1].
    threshold : float
        What it means depends on the rule.
    rule : {"sigma", "quantile", "value"}, default="sigma"
        Positions are hidden where the map is *above*

        - "sigma": mean + threshold * std of the sample's positive positions (the
          population's std). Where that hides nothing, the same over all positions; for
          vectors, where a large deviation may not exist, then the largest feature.
        - "quantile": the quantile ``1 - threshold`` of the sample's positions, so that
          about this fraction is hidden.
        - "value": the threshold itself.

    Returns
    -------
    masks : ndarray of bool, same shape as `saliency`
        True = kept. A constant map hides nothing.
    empty : ndarray of bool, shape (n_samples,)
        Where the rule itself, before it fell back, hid nothing.

    Notes
    -----
    The official code hides nothing, silently, where the first rule of "sigma" does; a
    clean map with one hot spot is such a case. By Cantelli's inequality "sigma" with 2
    hides at most a fifth of the positive positions, unless it fell back.
    """
    n = len(saliency)
    flat = saliency.reshape(n, -1)
    if rule == "sigma":
        hidden = flat > _mean_plus_std(flat, (flat > 0).sum(axis=1), threshold)
    elif rule == "quantile":
        hidden = flat > np.quantile(flat, 1 - threshold, axis=1, keepdims=True)
    else:
        hidden = flat > threshold
    empty = ~hidden.any(axis=1)
    if rule == "sigma" and empty.any():
        rows = np.flatnonzero(empty)
        over = flat[rows]
        hidden[rows] = over > _mean_plus_std(over, over.shape[1], threshold)
        if saliency.ndim == 2:
            rows = rows[~hidden[rows].any(axis=1) & (flat[rows].max(axis=1) > 0)]
            hidden[rows, flat[rows].argmax(axis=1)] = True
    return ~hidden.reshape(saliency.shape), empty


def check_threshold(threshold, rule):
    """Refuse a threshold that means nothing under its rule.

    Parameters
    ----------
    threshold : float
        At least 0.
    rule : {"sigma", "quantile", "value"}
        See `threshold_maps`.

    Raises
    ------
    ValueError
        If it is no fraction under "quantile", or no value of a map under "value".
    """
    if rule == "quantile" and not 0 < threshold < 1:
        raise ValueError(
            "threshold_rule='quantile' needs 0 < mask_threshold < 1, the fraction to "
            f"hide; got {threshold}."
        )
    if rule == "value" and not threshold < 1:
        raise ValueError(
            "threshold_rule='value' needs mask_threshold < 1, a value of the map "
            f"scaled to [0, 1]; got {threshold}."
        )


def _mean_plus_std(flat, counts, threshold):
    """Return mean + threshold * population std of so many, all others being 0."""
    # In double precision, where the mean of squares may stand for a second pass.
    values = flat.astype(np.float64)
    counts = np.maximum(counts, 1)
    mean = values.sum(axis=1) / counts
    variance = np.einsum("ij,ij->i", values, values) / counts - mean**2
    # Of no position at all nothing is above: the row is all zero.
    return (mean + threshold * np.sqrt(np.maximum(variance, 0)))[:, None]


def fill_values(fill, source):
    """Return what is put where masks hide.

    Parameters
    ----------
    fill : float, array-like of shape (n_channels,) or "mean"
        One value for all, one for each channel (of vectors: each feature), or the mean
        of the samples for each.
    source : Source
        The samples.

    Returns
    -------
    values : ndarray of shape (1,) or (n_channels,), float32
        In the units of the samples.

    Raises
    ------
    ValueError
        If there are more or fewer values than channels, or one is not finite.
    """
    n_channels = source.item_shape[0]
    if isinstance(fill, str):
        total = np.zeros(n_channels)
        for _, X in source.batches():
            total += X.double().reshape(len(X), n_channels, -1).sum((0, 2)).numpy()
        n_positions = len(source) * int(np.prod(source.item_shape[1:]))
        return (total / n_positions).astype(np.float32)
    values = np.atleast_1d(np.asarray(fill, dtype=np.float32))
    if values.shape not in ((1,), (n_channels,)) or not np.isfinite(values).all():
        raise ValueError(
            f"mask_fill must be a finite number, 'mean', or {n_channels} finite "
            f"numbers, one for each channel or feature; got {fill!r}."
        )
    return values


def apply_masks(X, masks, fill):
    """Fill what is hidden.

    Parameters
    ----------
    X : ndarray or torch.Tensor of shape (n_samples, ...)
        Vectors, or images with channels first.
    masks : ndarray of bool, shape (n_samples, n_features) or (n_samples, height, width)
        True = kept.
    fill : ndarray of shape (n_channels,) or (n_features,), or of shape (1,)
        The value put in, in the units of X.

    Returns
    -------
    masked : same type and shape as X
        A copy; kept positions are bit-identical.
    """
    if X.ndim == 4:
        masks, fill = masks[:, None], fill[:, None, None]
    if isinstance(X, torch.Tensor):
        fill = torch.as_tensor(fill, dtype=X.dtype)
        return torch.where(torch.from_numpy(masks), X, fill)
    return np.where(masks, X, fill)


def roll_masks(masks, shifts):
    """Move each mask to another place, around the border.

    Parameters
    ----------
    masks : ndarray of bool, shape (n_samples, height, width) or (n_samples, n_features)
        True = kept.
    shifts : ndarray of shape (n_samples, 2), floats in [0, 1)
        How far to move, as a share of height and width (or of the features: the first).

    Returns
    -------
    rolled : ndarray of bool, same shape
        Each with the same number of hidden positions.
    """
    sizes = masks.shape[1:]
    steps = (shifts[:, : len(sizes)] * sizes).astype(int)
    grids = np.ogrid[tuple(slice(size) for size in sizes)]
    rows = np.arange(len(masks)).reshape(-1, *[1] * len(sizes))
    index = tuple(
        (grid[None] - steps[:, axis].reshape(rows.shape)) % size
        for axis, (grid, size) in enumerate(zip(grids, sizes, strict=True))
    )
    return masks[(rows, *index)]


class MaskedSource(Source):
    """A source seen through masks that are made as a batch is read.

    Parameters
    ----------
    source : Source
        The samples; may itself be masked, then both masks hide.
    maps : ndarray of shape (n_samples, ...)
        A saliency map for each sample of the source, at the method's own resolution.
    threshold : float
        See `threshold_maps`.
    rule : {"sigma", "quantile", "value"}
        See `threshold_maps`.
    fill : ndarray of shape (n_channels,) or (n_features,), or of shape (1,)
        The value put in, in the units of X.
    shifts : ndarray of shape (n_samples, 2), default=None
        Move each mask by this share of its size: the control with the same area at a
        random place.
    """

    def __init__(self, source, maps, *, threshold, rule, fill, shifts=None):
        self.source = source
        self.maps = maps
        self.threshold = threshold
        self.rule = rule
        self.fill = fill
        self.shifts = shifts
        self.item_shape = source.item_shape
        self.labels = source.labels

    def __len__(self):
        return len(self.source)

    def batch(self, indices):
        """Read samples and hide; see `Source.batch`."""
        masks, _ = self._own_masks(indices)
        return apply_masks(self.source.batch(indices), masks, self.fill)

    def masks(self, indices):
        """Return what is hidden here or further down.

        Parameters
        ----------
        indices : ndarray of int, shape (batch_size,)
            Which samples.

        Returns
        -------
        masks : ndarray of bool, shape (batch_size, height, width), or that of vectors
            True = kept.
        empty : ndarray of bool, shape (batch_size,)
            Where the threshold rule of this source hid nothing by itself.
        """
        masks, empty = self._own_masks(indices)
        if isinstance(self.source, MaskedSource):
            masks &= self.source.masks(indices)[0]
        return masks, empty

    def _own_masks(self, indices):
        saliency = resize_maps(self.maps[indices], self.item_shape)
        masks, empty = threshold_maps(saliency, self.threshold, self.rule)
        if self.shifts is not None:
            masks = roll_masks(masks, self.shifts[indices])
        return masks, empty

    def summary(self):
        """Count what is hidden, without reading a sample.

        Returns
        -------
        masked_fraction : float
            Mean share of positions that are hidden.
        n_empty : int
            Samples where the threshold rule hid nothing by itself.
        n_unmasked : int
            Samples of which nothing is hidden in the end.
        """
        hidden, n_empty, n_unmasked = 0.0, 0, 0
        size = self.block_size
        for start in range(0, len(self), size):
            indices = np.arange(start, min(start + size, len(self)))
            masks, empty = self.masks(indices)
            shares = 1 - masks.reshape(len(masks), -1).mean(axis=1)
            hidden += shares.sum()
            n_empty += int(empty.sum())
            n_unmasked += int((shares == 0).sum())
        return float(hidden / len(self)), n_empty, n_unmasked
