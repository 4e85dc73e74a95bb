"""A random stream for each image, so that an image does not depend on the others."""

import numbers

import numpy as np
from sklearn.utils import check_random_state


def check_streams(random_state, sample_ids, n_samples):
    """Check what the streams of the images start from.

    Parameters
    ----------
    random_state : int, RandomState instance or None
        The user's. An int seeds the streams itself; the others draw a seed.
    sample_ids : array-like of shape (n_samples,), integers, or None
        Number of each image in the whole set. None: its row.
    n_samples : int
        How many images there are.

    Returns
    -------
    rng : RandomState
        For what is drawn for all images together.
    seed : int
        Of the streams.
    ids : ndarray of shape (n_samples,), int64
        The numbers of the images.

    Raises
    ------
    ValueError
        If they are none such.
    """
    rng = check_random_state(random_state)
    if isinstance(random_state, numbers.Integral):
        seed = int(random_state)
    else:
        seed = int(rng.randint(2**31 - 1))
    if sample_ids is None:
        return rng, seed, np.arange(n_samples)
    ids = np.asarray(sample_ids)
    if ids.shape != (n_samples,) or ids.dtype.kind not in "iu" or ids.min() < 0:
        raise ValueError(
            "sample_ids must hold one integer from 0 on for each image, its number in "
            f"the whole set: shape ({n_samples},). Got shape {ids.shape} of "
            f"{ids.dtype}{_lowest(ids)}."
        )
    return rng, seed, ids.astype(np.int64)


def _lowest(ids):
    return f", with lowest {ids.min()}" if ids.dtype.kind in "iu" and ids.size else ""


def image_stream(seed, number):
    """Return the generator of one image.

    Its draws are the same on every platform and in every version of numpy: numpy has
    frozen this class, unlike `numpy.random.Generator`.
    """
    sequence = np.random.SeedSequence([seed, int(number)])
    return np.random.RandomState(np.random.MT19937(sequence))
