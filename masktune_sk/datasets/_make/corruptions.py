"""The corruptions of CIFAR-10-C, on batches of images.

Each takes images of shape (n, 3, h, w), float64 from 0 to 255, a generator for each
image, and its parameters at a level. It returns new images, which may leave the range.
"""

from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image
from scipy.ndimage import correlate, gaussian_filter, map_coordinates, zoom

from .textures import frost_textures, plasma

TYPE_0 = (
    "snow",
    "frost",
    "fog",
    "brightness",
    "contrast",
    "spatter",
    "elastic",
    "jpeg",
    "pixelate",
    "saturate",
)
TYPE_1 = (
    "gaussian_noise",
    "shot_noise",
    "impulse_noise",
    "speckle_noise",
    "gaussian_blur",
    "defocus_blur",
    "glass_blur",
    "motion_blur",
    "zoom_blur",
    "original",
)

MIN_SIDE = 8  # pixels; what is smaller has no room for the shifts and the zooms
_FROST_MARGIN = 128  # pixels by which a texture is larger than the images
_LUMA = np.array([0.299, 0.587, 0.114])
_MUD = np.array([63.0, 42.0, 20.0])
# Added before values are truncated, so that 199.9999999999 does not become 199.
_ROUNDING_ERROR = 1e-6


def corrupt(images, streams, corruption, level):
    """Return corrupted images.

    Parameters
    ----------
    images : ndarray of shape (n, 3, h, w), uint8
        Clean images.
    streams : sequence of RandomState
        A generator for each image.
    corruption : str
        A key of `CORRUPTIONS`.
    level : int
        Severity, one of `levels_of(corruption)`.

    Returns
    -------
    corrupted : ndarray of shape (n, 3, h, w), uint8
        Values are clipped and then truncated, as in CIFAR-10-C.
    """
    function, levels = CORRUPTIONS[corruption]
    result = function(images.astype(np.float64), streams, *levels[level - 1])
    return _truncate(np.clip(result, 0, 255)).astype(np.uint8)


def levels_of(corruption):
    """Return the levels that a corruption has, in increasing order."""
    _, levels = CORRUPTIONS[corruption]
    return [level for level, values in enumerate(levels, 1) if values is not None]


def _truncate(values):
    return np.floor(values + _ROUNDING_ERROR)


def _draw(streams, draw):
    """Stack what `draw` gives for the generator of each image."""
    return np.stack([draw(rng) for rng in streams])


# Noise


def _gaussian_noise(images, streams, scale):
    noise = _draw(streams, lambda rng: rng.standard_normal(images.shape[1:]))
    return images + 255 * scale * noise


def _shot_noise(images, streams, photons):
    counts = [
        rng.poisson(image * (photons / 255))
        for image, rng in zip(images, streams, strict=True)
    ]
    return np.stack(counts) * (255 / photons)


def _impulse_noise(images, streams, amount):
    """Turn values, each by itself, to 0 or 255."""
    draws = _draw(streams, lambda rng: rng.random_sample((2, *images.shape[1:])))
    impulse = np.where(draws[:, 1] < 0.5, 255.0, 0.0)
    return np.where(draws[:, 0] < amount, impulse, images)


def _speckle_noise(images, streams, scale):
    noise = _draw(streams, lambda rng: rng.standard_normal(images.shape[1:]))
    return images * (1 + scale * noise)


# Blur


def _blur(images, sigma):
    return gaussian_filter(images, (0, 0, sigma, sigma), mode="nearest")


def _gaussian_blur(images, streams, sigma):
    return _blur(images, sigma)


def _defocus_blur(images, streams, radius, edge_sigma):
    """Average over a disk, whose edge is softened over one pixel."""
    offset = np.arange(-3, 4)
    disk = (offset**2 + offset[:, np.newaxis] ** 2 <= radius**2).astype(float)
    edge = np.exp(-(np.arange(-1, 2) ** 2) / (2 * edge_sigma**2))
    edge /= edge.sum()
    kernel = correlate(disk / disk.sum(), np.outer(edge, edge), mode="constant")
    return correlate(images, kernel[np.newaxis, np.newaxis], mode="mirror")


def _glass_blur(images, streams, sigma, n_passes):
    """Blur, give pixels the value of a neighbour above or to the left, blur again.

    CIFAR-10-C's code means to swap both pixels. But it swaps views of the array, which
    writes the neighbour over the pixel and leaves the neighbour as it was. Since the
    pixels are visited from the last one, that is one shift of all at once.
    """
    n_images, n_channels, height, width = images.shape
    images = _truncate(_blur(images, sigma))
    for _ in range(n_passes):
        shift = _draw(streams, lambda rng: rng.randint(-1, 1, size=(2, height, width)))
        shift[..., :2, :] = 0  # the loops end before the first two rows and columns
        shift[..., :2] = 0
        images = images[
            np.arange(n_images).reshape(-1, 1, 1, 1),
            np.arange(n_channels).reshape(-1, 1, 1),
            np.arange(height).reshape(-1, 1) + shift[:, :1],
            np.arange(width) + shift[:, 1:],
        ]
    return _blur(images, sigma)


def _motion_blur(images, streams, radius, sigma):
    angles = _draw(streams, lambda rng: rng.uniform(-45, 45))
    return np.rint(_smear(images, angles, radius, sigma))


def _smear(images, angles, radius, sigma):
    """Average along a line that starts at the pixel, as ImageMagick's motion blur does.

    The weights are half a Gaussian over `2 * radius + 1` pixels; beyond the border is
    the nearest pixel. `angles`, one an image, are in degrees, clockwise from the right.
    """
    n_images, n_channels, height, width = images.shape
    steps = np.arange(2 * radius + 1)
    weights = np.exp(-(steps**2) / (2 * sigma**2))
    weights /= weights.sum()
    angles = np.deg2rad(angles)[:, np.newaxis]
    down = np.ceil(steps * np.sin(angles) - 0.5).astype(int)
    right = np.ceil(steps * np.cos(angles) - 0.5).astype(int)
    image = np.arange(n_images).reshape(-1, 1, 1, 1)
    channel = np.arange(n_channels).reshape(-1, 1, 1)
    result = np.zeros_like(images)
    for step, weight in enumerate(weights):
        rows = np.clip(np.arange(height) + down[:, step, np.newaxis], 0, height - 1)
        columns = np.clip(np.arange(width) + right[:, step, np.newaxis], 0, width - 1)
        rows, columns = rows.reshape(-1, 1, height, 1), columns.reshape(-1, 1, 1, width)
        result += weight * images[image, channel, rows, columns]
    return result


def _zoom_blur(images, streams, end):
    """Average with the images enlarged by 0, 1, 2, ... percent."""
    # arange's rounding errors decide whether a zoom by 1.25 is rounded up to 33 pixels
    factors = np.arange(1, end, 0.01)
    total = images.copy()
    for factor in factors.tolist():
        total += _enlarge(images, factor)
    return total / (len(factors) + 1)


def _enlarge(images, factor):
    """Zoom into the centre by linear interpolation."""
    height, width = images.shape[-2:]
    return _zoom_matrix(height, factor) @ images @ _zoom_matrix(width, factor).T


@lru_cache(maxsize=128)
def _zoom_matrix(size, factor):
    """Return what takes a line of pixels to its enlarged centre, shape (size, size)."""
    n_kept = int(np.ceil(size / factor))
    first = (size - n_kept) // 2
    enlarged = zoom(np.eye(n_kept), (factor, 1), order=1)
    trimmed = (len(enlarged) - size) // 2
    matrix = np.zeros((size, size))
    matrix[:, first : first + n_kept] = enlarged[trimmed : trimmed + size]
    return matrix


# Weather


def _snow(images, streams, mean, scale, factor, threshold, radius, sigma, kept):
    size = images.shape[-2:]
    flakes = mean + scale * _draw(streams, lambda rng: rng.standard_normal((1, *size)))
    angles = _draw(streams, lambda rng: rng.uniform(-135, -45))
    flakes = _enlarge(flakes, factor)
    flakes[flakes < threshold] = 0
    flakes = _truncate(255 * np.clip(flakes, 0, 1))
    flakes = np.rint(_smear(flakes, angles, radius, sigma))
    grey = np.einsum("c,ncij->nij", _LUMA, images)[:, np.newaxis]
    pale = np.maximum(images, 1.5 * grey + 0.5 * 255)
    return kept * images + (1 - kept) * pale + flakes + flakes[..., ::-1, ::-1]


def _frost(images, streams, kept, share):
    height, width = images.shape[-2:]
    textures = frost_textures(height + _FROST_MARGIN, width + _FROST_MARGIN)

    def crop(rng):
        texture = textures[rng.randint(len(textures))]
        top, left = rng.randint(_FROST_MARGIN + 1, size=2)
        return texture[:, top : top + height, left : left + width]

    return kept * images + share * _draw(streams, crop)


def _fog(images, streams, amount, decay):
    height, width = images.shape[-2:]
    clouds = plasma(streams, max(height, width), decay)
    clouds = clouds[:, np.newaxis, :height, :width]
    brightest = images.max(axis=(1, 2, 3), keepdims=True)
    foggy = images + 255 * amount * clouds
    return foggy * (brightest / (brightest + 255 * amount))


# Colour and light


def _brightness(images, streams, shift):
    """Raise the value of HSV; hue and saturation stay."""
    value = images.max(axis=1, keepdims=True)
    raised = np.minimum(value + 255 * shift, 255)
    black = value == 0
    return np.where(black, raised, images * (raised / np.where(black, 1, value)))


def _contrast(images, streams, factor):
    mean = images.mean(axis=(2, 3), keepdims=True)
    return (images - mean) * factor + mean


def _saturate(images, streams, factor, shift):
    """Change the saturation of HSV; hue and value stay. The hue of grey is red."""
    value = images.max(axis=1, keepdims=True)
    spread = value - images.min(axis=1, keepdims=True)
    saturation = spread / np.where(value == 0, 1, value)
    saturation = np.clip(saturation * factor + shift, 0, 1)
    depth = np.where(
        spread == 0,
        np.array([0, 1, 1]).reshape(3, 1, 1),
        (value - images) / np.where(spread == 0, 1, spread),
    )
    return value * (1 - saturation * depth)


# The rest


def _spatter(images, streams, mean, scale, sigma, threshold, edge_sigma):
    """Throw drops of mud."""
    size = images.shape[-2:]
    liquid = mean + scale * _draw(streams, lambda rng: rng.standard_normal((1, *size)))
    drops = (_blur(liquid, sigma) > threshold).astype(float)
    drops = _blur(drops, edge_sigma)
    drops[drops < 0.8] = 0
    return images * (1 - drops) + drops * _MUD.reshape(3, 1, 1)


def _elastic(images, streams, amplitude, sigma, jitter):
    """Move three points of the image, then each pixel a little.

    All lengths are shares of the shorter side.
    """
    height, width = images.shape[-2:]
    side = min(height, width)
    here = np.mgrid[:height, :width].astype(float)
    reach = side // 3 * np.array([[1, 1], [-1, 1], [-1, -1]])
    points = np.array([height // 2, width // 2]) + reach
    result = np.empty_like(images)
    for image, corrupted, rng in zip(images, result, streams, strict=True):
        moved = points + rng.uniform(-jitter * side, jitter * side, size=(3, 2))
        # What takes moved points back to where they were, shape (3, 2)
        affine = np.linalg.solve(np.column_stack([moved, np.ones(3)]), points)
        origin = np.einsum("kij,kl->lij", here, affine[:2]) + affine[2].reshape(2, 1, 1)
        shift = rng.uniform(-1, 1, size=(2, height, width))
        shift = gaussian_filter(shift, (0, sigma * side, sigma * side), truncate=3)
        place = here + amplitude * side * shift
        for channel, output in zip(image, corrupted, strict=True):
            turned = map_coordinates(channel, origin, order=1, mode="mirror")
            map_coordinates(turned, place, output, order=1, mode="reflect")
    return result


def _by_pillow(images, change):
    """Change each image as a Pillow one."""
    pictures = images.astype(np.uint8).transpose(0, 2, 3, 1)
    changed = [np.asarray(change(Image.fromarray(picture))) for picture in pictures]
    return np.stack(changed).transpose(0, 3, 1, 2)


def _jpeg(images, streams, quality):
    def encode(picture):
        file = BytesIO()
        picture.save(file, "JPEG", quality=quality)
        return Image.open(file)

    return _by_pillow(images, encode)


def _pixelate(images, streams, share):
    height, width = images.shape[-2:]
    box = Image.Resampling.BOX

    def shrink(picture):
        small = picture.resize((int(width * share), int(height * share)), box)
        return small.resize((width, height), box)

    return _by_pillow(images, shrink)


def _original(images, streams):
    return images


# Name -> function and, for levels 1 to 5, its parameters. None: no such level.
CORRUPTIONS = {
    "gaussian_noise": (_gaussian_noise, [(0.04,), (0.06,), (0.08,), (0.09,), (0.10,)]),
    "shot_noise": (_shot_noise, [(500,), (250,), (100,), (75,), (50,)]),
    "impulse_noise": (_impulse_noise, [(0.01,), (0.02,), (0.03,), (0.05,), (0.07,)]),
    "speckle_noise": (_speckle_noise, [(0.06,), (0.1,), (0.12,), (0.16,), (0.2,)]),
    "gaussian_blur": (_gaussian_blur, [(0.4,), (0.6,), (0.7,), (0.8,), (1.0,)]),
    "defocus_blur": (
        _defocus_blur,
        [(0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)],
    ),
    "glass_blur": (_glass_blur, [(0.05, 1), (0.25, 1), (0.4, 1), (0.25, 2), (0.4, 2)]),
    "motion_blur": (_motion_blur, [(6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)]),
    "zoom_blur": (_zoom_blur, [(1.06,), (1.11,), (1.16,), (1.21,), (1.26,)]),
    "original": (_original, [()] * 5),
    "snow": (
        _snow,
        [
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ],
    ),
    "frost": (_frost, [(1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45)]),
    "fog": (_fog, [(0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)]),
    "brightness": (_brightness, [(0.05,), (0.1,), (0.15,), (0.2,), (0.3,)]),
    "contrast": (_contrast, [(0.75,), (0.5,), (0.4,), (0.3,), (0.15,)]),
    "saturate": (_saturate, [(0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)]),
    # Below level 4 it is water, drawn with the edge detector of an image library.
    "spatter": (
        _spatter,
        [None, None, None, (0.65, 0.1, 0.7, 0.69, 0.6), (0.65, 0.1, 0.5, 0.68, 0.6)],
    ),
    "elastic": (
        _elastic,
        [
            (0, 0, 0.08),
            (0.05, 0.2, 0.07),
            (0.08, 0.06, 0.06),
            (0.1, 0.04, 0.05),
            (0.1, 0.03, 0.03),
        ],
    ),
    "jpeg": (_jpeg, [(80,), (65,), (58,), (50,), (40,)]),
    "pixelate": (_pixelate, [(0.95,), (0.9,), (0.85,), (0.75,), (0.65,)]),
}
