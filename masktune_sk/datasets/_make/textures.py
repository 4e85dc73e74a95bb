"""Random textures to lay over images: frost and clouds."""

from functools import lru_cache

import numpy as np
from scipy.fft import fftfreq, irfft2, rfft2, rfftfreq

_FROST_TINT = np.array([0.84, 0.94, 1.0]).reshape(3, 1, 1)
_N_NEEDLE_DIRECTIONS = 5


@lru_cache(maxsize=4)
def frost_textures(height, width):
    """Return five textures of ice needles, always the same ones for a size.

    A needle is noise that is stretched along a direction. Lengths are in pixels, so
    that a larger texture shows more needles, not larger ones.

    Parameters
    ----------
    height, width : int
        Size in pixels.

    Returns
    -------
    textures : ndarray of shape (5, 3, height, width), float32
        Bluish white on grey, from 0 to 255. Not to be written to: it is cached.
    """
    rng = np.random.RandomState(0)
    down, right = fftfreq(height)[:, np.newaxis], rfftfreq(width)

    def stretched_noise(angle, length, breadth):
        """Filter white noise by a Gaussian with these standard deviations."""
        along = length * (down * np.sin(angle) + right * np.cos(angle))
        across = breadth * (down * np.cos(angle) - right * np.sin(angle))
        response = np.exp(-2 * np.pi**2 * (along**2 + across**2))
        spectrum = rfft2(rng.standard_normal((height, width)))
        noise = irfft2(spectrum * response, (height, width))
        return noise / noise.std()

    textures = np.empty((5, 3, height, width), dtype=np.float32)
    for texture in textures:
        start = rng.uniform(0, np.pi)
        turns = np.pi / _N_NEEDLE_DIRECTIONS * np.arange(_N_NEEDLE_DIRECTIONS)
        needles = [stretched_noise(start + turn, 7, 0.7) for turn in turns]
        needles = np.clip(np.max(needles, axis=0) - 0.4, 0, None)
        patches = stretched_noise(0, 14, 14)
        light = 70 + 35 * patches + 70 * needles * (1 + 0.4 * patches)
        texture[:] = np.clip(light, 0, 255) * _FROST_TINT
    return textures


def plasma(streams, side, decay):
    """Draw clouds by the diamond-square algorithm.

    The square wraps around. A point is the mean of the four around it plus noise from
    -a to a, where a is 100 squared at first and `decay` squared times smaller at every
    halving of the distance.

    Parameters
    ----------
    streams : sequence of RandomState
        A generator for each image.
    side : int
        Pixels that are needed; the square has the next power of two.
    decay : float
        The larger, the smoother.

    Returns
    -------
    clouds : ndarray of shape (len(streams), size, size), float64
        From 0 to 1, and both occur in each.
    """
    step = 2 ** int(np.ceil(np.log2(side)))
    noise = np.stack([rng.uniform(-1, 1, size=step**2) for rng in streams])
    heights = np.zeros((len(noise), step, step))
    amplitude, n_used = 100.0**2, 0
    while step > 1:
        half = step // 2
        corners = heights[:, ::step, ::step]
        centres = heights[:, half::step, half::step]
        tops = heights[:, ::step, half::step]
        sides = heights[:, half::step, ::step]

        n_drawn = 3 * corners[0].size
        jitter = amplitude * noise[:, n_used : n_used + n_drawn]
        jitter = jitter.reshape(-1, 3, *corners.shape[1:])
        beside = corners + np.roll(corners, -1, axis=2)
        below = corners + np.roll(corners, -1, axis=1)
        around = beside + np.roll(beside, -1, axis=1)
        centres[:] = around / 4 + jitter[:, 0]
        around = beside + centres + np.roll(centres, 1, axis=1)
        tops[:] = around / 4 + jitter[:, 1]
        around = below + centres + np.roll(centres, 1, axis=2)
        sides[:] = around / 4 + jitter[:, 2]
        step, amplitude, n_used = half, amplitude / decay**2, n_used + n_drawn
    heights -= heights.min(axis=(1, 2), keepdims=True)
    return heights / heights.max(axis=(1, 2), keepdims=True)
