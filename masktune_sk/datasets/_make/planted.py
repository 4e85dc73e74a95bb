"""What the generators of planted shortcuts share.

Which samples conflict, and the Bunch that comes out. A *bias* is what a sample's
shortcut says; it is aligned where it says the sample's own class.
"""

import numpy as np
from sklearn.utils import Bunch

from .._checks import check_option, check_ratio

SHORTCUTS = ("biased", "aligned", "conflicting", "none")

# Any two are at least 179 apart in RGB, and none has three equal channels, so that a
# planted colour is never mistaken for grey ink, nor for the colour of another class.
COLOURS = {
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "magenta": (255, 0, 255),
    "cyan": (0, 255, 255),
    "olive": (128, 128, 0),
    "teal": (0, 128, 128),
    "purple": (128, 0, 128),
    "salmon": (255, 128, 128),
}


def check_shortcut(shortcut, conflict_ratio, *, name="shortcut"):
    """Turn the copy of the data that is asked for into its share of conflicts.

    Parameters
    ----------
    shortcut : {"biased", "aligned", "conflicting", "none"}
        How the shortcut goes with the class.
    conflict_ratio : float
        Share of each class whose shortcut contradicts the class, if "biased".
    name : str, default="shortcut"
        The parameter, for the message.

    Returns
    -------
    ratio : float or None
        Share of conflicting samples. None: no sample has the shortcut.

    Raises
    ------
    ValueError
        If one of them is none of these.
    """
    check_option(shortcut, SHORTCUTS, name=name)
    check_ratio(conflict_ratio)
    ratios = {"aligned": 0.0, "conflicting": 1.0, "none": None}
    return ratios.get(shortcut, conflict_ratio)


def as_rgb(images):
    """Return a new array (n, 3, h, w), of three equal channels from grey images."""
    if images.ndim == 3:
        images = images[:, np.newaxis]
    return images.copy() if images.shape[1] == 3 else np.repeat(images, 3, axis=1)


def assign_conflicting(
    target, n_classes, ratio, rng, *, n_bias=None, carrier=None, order=None
):
    """Let the bias contradict the class in a share of each class.

    Parameters
    ----------
    target : ndarray of shape (n_samples,), int64
        Classes, from 0 to `n_classes - 1`.
    n_classes : int
        Number of classes.
    ratio : float
        Share of conflicting samples, in [0, 1].
    rng : RandomState
        Draws which samples conflict, and which other bias they get. What it has drawn
        in the end does not depend on `ratio`.
    n_bias : int or None, default=None
        Number of values of the bias, `n_classes` at least, which None stands for.
        Conflicting samples get any but their class's own.
    carrier : int or None, default=None
        None: class k goes with bias k. A class: it alone carries the shortcut, and the
        bias tells whether a sample has it, 1, or not, 0.
    order : array-like of shape (n_samples,) or None, default=None
        None: conflicting samples are drawn at random. Otherwise they are the last ones
        by these keys (ties: by row) in a class that carries a shortcut, and the first
        ones in a class that carries none.

    Returns
    -------
    bias : ndarray of shape (n_samples,), int64
        What the shortcut of each sample says.
    aligned : ndarray of shape (n_samples,), bool
        True where it says the sample's class.

    Notes
    -----
    `round(n * ratio)` of the n samples of a class conflict. In the class `carrier`,
    `round(n * (1 - ratio))` are aligned instead, so that it is the number with the
    shortcut that is rounded.

    With the same seed, the samples that conflict at a smaller ratio also do at a larger
    one, and with the same bias.
    """
    if carrier is None:
        own = target
        n_bias = n_classes if n_bias is None else n_bias
    else:
        own = (target == carrier).astype(np.int64)
        n_bias = 2
    bias = own.copy()
    for label in range(n_classes):
        members = np.flatnonzero(target == label)
        carries = carrier is None or label == carrier
        if order is None:
            members = rng.permutation(members)
        else:
            members = members[np.argsort(np.asarray(order)[members], kind="stable")]
            members = members[::-1] if carries else members
        # A shift that is never 0 gives another bias; of two, the other one. Drawn for
        # all members, so that `ratio` only sets how many of them are used.
        shift = rng.randint(1, n_bias, size=len(members))
        if label == carrier:
            n_conflicting = len(members) - round(len(members) * (1 - ratio))
        else:
            n_conflicting = round(len(members) * ratio)
        chosen = members[:n_conflicting]
        bias[chosen] = (own[chosen] + shift[:n_conflicting]) % n_bias
    return bias, bias == own


def assign_by_milestones(target, ratio, n_bias):
    """Assign the bias by position within the class, as LfF [1]_ does; no randomness.

    The first samples of a class get bias 0, the next ones bias 1, and so on. Of the n
    samples of class c, those up to ``round(n * cumsum(q))[k]`` have bias k or less,
    where ``q[c] = 1 - ratio`` and the other biases share the rest equally.

    Parameters
    ----------
    target : ndarray of shape (n_samples,), int64
        Classes, smaller than `n_bias`. Class k goes with bias k.
    ratio : float
        Share of conflicting samples, in [0, 1]. At ``1 - 1 / n_bias`` the bias tells
        nothing of the class.
    n_bias : int
        Number of values of the bias.

    Returns
    -------
    bias : ndarray of shape (n_samples,), int64
        What the shortcut of each sample says.
    aligned : ndarray of shape (n_samples,), bool
        True where it says the sample's class.

    References
    ----------
    .. [1] Nam et al., "Learning from Failure: De-biasing Classifier from Biased
       Classifier", NeurIPS 2020.
    """
    # 1 - 0.9 is not 0.1, but shall round as 0.1 does where a milestone is at a half.
    share_aligned = round(1 - ratio, 12)
    bias = np.empty_like(target)
    for label in np.unique(target):
        members = np.flatnonzero(target == label)
        shares = np.full(n_bias, (1 - share_aligned) / (n_bias - 1))
        shares[label] = share_aligned
        milestones = np.round(len(members) * np.cumsum(shares))
        position = np.arange(len(members))
        bias[members] = np.searchsorted(milestones, position, side="right")
    return bias, bias == target


def assign_nothing(target, absent):
    """Return the bias that stands for no shortcut, and that nothing is aligned."""
    return np.full_like(target, absent), np.zeros(len(target), dtype=bool)


def make_bunch(
    data,
    target,
    bias,
    aligned,
    *,
    class_names,
    bias_names,
    descr,
    artifact_mask=None,
    return_X_y=False,
    **fields,
):
    """Gather what every generator returns.

    Parameters
    ----------
    data : ndarray or DataFrame
        Samples.
    target, bias : ndarray of shape (n_samples,), int64
        Class, and what the shortcut says.
    aligned : ndarray of shape (n_samples,), bool
        True where both agree.
    class_names, bias_names : sequence of str
        What each class and each value of the bias is. Their lengths are their numbers.
    descr : str
        What was made.
    artifact_mask : ndarray of bool or None, default=None
        True where the shortcut is; None where it has no place.
    return_X_y : bool, default=False
        Return `(data, target)` instead of a Bunch.
    **fields : object
        More fields.

    Returns
    -------
    bunch : :class:`~sklearn.utils.Bunch` or tuple
        With `groups = target * len(bias_names) + bias`, and `group_names` in the order
        of these numbers.
    """
    if return_X_y:
        return data, target
    if artifact_mask is not None:
        fields["artifact_mask"] = artifact_mask
    return Bunch(
        data=data,
        target=target,
        bias=bias,
        groups=target * len(bias_names) + bias,
        aligned=aligned,
        **fields,
        group_names=[
            f"{label}, {name}" for label in class_names for name in bias_names
        ],
        DESCR=descr,
    )
