"""The pixels of the composer: cut-outs resized and laid over photographs."""

import numbers

import numpy as np
from PIL import Image, ImageOps

from .._checks import check_option, is_int

VARIANTS = (
    "original",
    "only_fg",
    "no_fg",
    "only_bg_b",
    "only_bg_t",
    "mixed_same",
    "mixed_rand",
    "mixed_next",
)
_POSITIONS = ("random", "centre", "keep")

OPAQUE = 128  # the smallest alpha of what counts as foreground, half of 255

# Its weights are positive: no ringing around the edge of a cut-out, and colours
# multiplied by alpha stay below alpha. Pillow widens it where it shrinks (antialias).
_FILTER = Image.Resampling.BILINEAR


def fit_backgrounds(backgrounds, rows, size):
    """Gather backgrounds, scaled to cover the size and cropped around the centre.

    Parameters
    ----------
    backgrounds : ndarray of shape (b, 3, h, w), (b, 1, h, w) or (b, h, w), uint8
        Photographs, RGB or grey.
    rows : ndarray of shape (n,), int64
        Which of them to take, in which order.
    size : (int, int)
        Height and width of the result.

    Returns
    -------
    fitted : ndarray of shape (n, 3, *size), uint8
        A new array.
    """
    if backgrounds.ndim == 3:
        backgrounds = backgrounds[:, np.newaxis]
    if backgrounds.shape[2:] != size:
        used, rows = np.unique(rows, return_inverse=True)
        fitted = np.empty((len(used), backgrounds.shape[1], *size), dtype=np.uint8)
        for out, row in zip(fitted, used, strict=True):
            for channel, plane in zip(out, backgrounds[row], strict=True):
                image = Image.fromarray(np.ascontiguousarray(plane))
                channel[:] = np.asarray(ImageOps.fit(image, size[::-1], _FILTER))
        backgrounds = fitted
    if backgrounds.shape[1] == 1:
        backgrounds = np.broadcast_to(
            backgrounds, (len(backgrounds), 3, *backgrounds.shape[2:])
        )
    return backgrounds[rows]


def visible_boxes(foregrounds):
    """Find what of each cut-out is not fully transparent.

    Parameters
    ----------
    foregrounds : ndarray of shape (m, 4, h, w), uint8
        RGB and alpha, each with a pixel that is not transparent.

    Returns
    -------
    boxes : ndarray of shape (m, 4), int64
        First row, first column, and the row and column after the last.
    """
    visible = foregrounds[:, 3] > 0
    rows, columns = visible.any(axis=2), visible.any(axis=1)
    return np.stack(
        [
            rows.argmax(axis=1),
            columns.argmax(axis=1),
            rows.shape[1] - rows[:, ::-1].argmax(axis=1),
            columns.shape[1] - columns[:, ::-1].argmax(axis=1),
        ],
        axis=1,
    )


def check_geometry(size, scale, position, backgrounds, foregrounds, boxes):
    """Check where and how large the cut-outs shall be.

    Parameters
    ----------
    size, scale, position : object
        As passed to `make_composite`.
    backgrounds : ndarray of shape (b, 3, H, W), (b, 1, H, W) or (b, H, W)
        Checked photographs.
    foregrounds : ndarray of shape (m, 4, h, w), uint8
        Checked cut-outs.
    boxes : ndarray of shape (m, 4), int64
        Their `visible_boxes`.

    Returns
    -------
    size : (int, int)
        Height and width of the samples.
    scale : (float, float) or None
        Smallest and largest share.

    Raises
    ------
    ValueError
        If one is of another form, or the cut-outs cannot go where they shall.
    """
    pair = backgrounds.shape[-2:] if size is None else _as_pair(size, is_int)
    if pair is None or min(pair) < 1:
        raise ValueError(
            "size must be a number of pixels, a pair (height, width), or None for the "
            f"size of the photographs; got {size!r}."
        )
    size = pair

    pair = None if scale is None else _as_pair(scale, _is_real)
    # NaN fails the comparison, as it should
    if scale is not None and not (pair and 0 < pair[0] <= pair[1] <= 1):
        raise ValueError(
            "scale must be a share of the sample's shorter side in (0, 1], a range of "
            f"shares (smallest, largest), or None for no scaling; got {scale!r}."
        )

    check_option(position, _POSITIONS, name="position")
    if position == "keep":
        if scale is not None:
            raise ValueError(
                "position='keep' leaves cut-outs as they are: it needs scale=None, got "
                f"{scale!r}."
            )
        if foregrounds.shape[2:] != size:
            raise ValueError(
                "position='keep' needs foregrounds of the size of the samples, "
                f"{size}; got {foregrounds.shape[2:]}. Pass "
                f"size={foregrounds.shape[2:]} to scale the photographs to them."
            )
    elif scale is None:
        large = (boxes[:, 2:] - boxes[:, :2] > size).any(axis=1)
        if large.any():
            raise ValueError(
                f"{large.sum()} of the foregrounds are larger than the samples, "
                f"{size}, the first in row {large.argmax()}. Pass a scale to shrink "
                "them, or a larger size."
            )
    return size, pair


def _as_pair(value, is_number):
    """Return a number twice, a pair of numbers as it is, and None for all else."""
    if is_number(value):
        return value, value
    if isinstance(value, list | tuple) and len(value) == 2:
        return tuple(value) if all(map(is_number, value)) else None
    return None


def _is_real(value):
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def compose(data, foregrounds, boxes, rows, geometry, scale, position, flip, variant):
    """Lay cut-outs over backgrounds, or take out what they would cover, in place.

    Parameters
    ----------
    data : ndarray of shape (n, 3, H, W), uint8
        The backgrounds, all 0 for "only_fg". Become the samples.
    foregrounds : ndarray of shape (m, 4, h, w), uint8
        RGB and alpha.
    boxes : ndarray of shape (m, 4), int64
        Their `visible_boxes`.
    rows : ndarray of shape (n,), int64
        The foreground of each sample.
    geometry : ndarray of shape (n, 4), float64
        Random numbers in [0, 1), for size, row, column and flip of each sample.
    scale : (float, float) or None
        Range of the longer side as a share of the sample's shorter side. None: the
        size of the box.
    position : {"random", "centre", "keep"}
        Where the boxes go.
    flip : bool
        Whether to mirror where the random number is below a half.
    variant : str
        One of `VARIANTS`.

    Returns
    -------
    foreground_mask : ndarray of shape (n, H, W), bool
        True where alpha is a half or more.
    artifact_mask : ndarray of shape (n, H, W), bool
        True where the sample shows background.
    """
    size = np.array(data.shape[2:])
    masks = np.empty((2, len(data), *size), dtype=bool)
    for row in np.unique(rows):  # one by one: the cut-outs may be large
        top, left, bottom, right = boxes[row]
        image = _read_box(foregrounds[row], boxes[row])
        for sample in np.flatnonzero(rows == row):
            share, *place, mirror = geometry[sample]
            mirrored = flip and mirror < 0.5
            shape = np.array([bottom - top, right - left])
            if scale is not None:
                longer = np.rint((scale[0] + share * (scale[1] - scale[0])) * min(size))
                shape = np.rint(shape * (longer / max(shape))).astype(int).clip(min=1)
            if position == "random":
                corner = (place * (size - shape + 1)).astype(int)
            elif position == "centre":
                corner = (size - shape) // 2
            else:
                corner = (top, size[1] - right if mirrored else left)
            cutout = _resize(image, shape, mirrored)
            masks[:, sample] = _lay_over(data[sample], cutout, corner, variant)
    return masks


def _read_box(foreground, box):
    """Return a part of a cut-out as a Pillow image with premultiplied colours."""
    top, left, bottom, right = box
    pixels = foreground[:, top:bottom, left:right].transpose(1, 2, 0)
    # In mode "RGBa", what a transparent pixel hides does not bleed into the edge
    return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGBa")


def _resize(image, shape, mirrored):
    """Return a cut-out of shape (4, *shape); of the same shape, it does not change."""
    image = image.resize((int(shape[1]), int(shape[0])), _FILTER)
    if mirrored:
        image = ImageOps.mirror(image)
    return np.asarray(image).transpose(2, 0, 1)


def _lay_over(image, cutout, corner, variant):
    """Turn a background into the sample; return where it shows the two parts."""
    colour, alpha = cutout[:3], cutout[3]
    (top, left), (height, width) = corner, alpha.shape
    box = np.s_[top : top + height, left : left + width]
    patch = image[:, *box]
    foreground_mask = np.zeros(image.shape[1:], dtype=bool)
    foreground_mask[box] = alpha >= OPAQUE

    if variant in ("only_bg_b", "only_bg_t"):
        tiles = _tile(image, box) if variant == "only_bg_t" else None
        patch[:] = 0 if tiles is None else tiles
        artifact_mask = np.ones_like(foreground_mask)
        artifact_mask[box] = tiles is not None
        return foreground_mask, artifact_mask

    # Rounds to nearest. No sum is above 255, as no colour is above its alpha.
    seen = (patch * (255 - alpha).astype(np.uint16) + 127) // 255
    patch[:] = seen if variant == "no_fg" else seen + colour
    return foreground_mask, ~foreground_mask & (variant != "only_fg")


def _tile(image, box):
    """Continue the largest strip beside a box over it; None if nothing is beside it."""
    rows, columns = box
    height, width = image.shape[1:]
    # The strips left and right of the box, above and below it
    strips = [
        (slice(0, height), slice(0, columns.start)),
        (slice(0, height), slice(columns.stop, width)),
        (slice(0, rows.start), slice(0, width)),
        (slice(rows.stop, height), slice(0, width)),
    ]
    areas = [(r.stop - r.start) * (c.stop - c.start) for r, c in strips]
    if not max(areas):
        return None
    r, c = strips[int(np.argmax(areas))]
    # As if copies of the strip lay side by side all over the image
    r = r.start + (np.arange(rows.start, rows.stop) - r.start) % (r.stop - r.start)
    c = c.start + (np.arange(columns.start, columns.stop) - c.start) % (
        c.stop - c.start
    )
    return image[:, r[:, np.newaxis], c]
