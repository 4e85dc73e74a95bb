"""How much of what a net looks at is the artifact."""

import numpy as np
from sklearn.utils import check_array

__all__ = ["artifact_relevance"]


def artifact_relevance(saliency, artifact_mask):
    """Share of a net's saliency that lies on the artifact.

    For each sample with an artifact the share of the map's total size inside the mask,
    then the mean over these samples. An artifact that covers 4 % of the image and of
    which the net takes no special notice has about 0.04.

    Parameters
    ----------
    saliency : array-like of shape (n_samples, height, width) or (n_samples, n_features)
        Maps at the resolution of the masks. Of signed ones, such as relevances, the
        absolute values count.
    artifact_mask : array-like of bool, of the same shape
        True where the artifact is; samples without it have no True and are left out.

    Returns
    -------
    relevance : float
        In [0, 1]; NaN if no sample has both an artifact and a map that is not zero.

    Raises
    ------
    ValueError
        If the shapes differ, there is no sample, or a map is not finite.

    See Also
    --------
    concept_sensitivity : What the artifact is worth in logits, without a mask.

    Notes
    -----
    The share of relevance in a region of interest is how [1]_ measures what a
    correction of a net has changed.

    References
    ----------
    .. [1] Pahde, Dreyer, Samek, Lapuschkin, "Reveal to Revise: An Explainable AI Life
       Cycle for Iterative Bias Correction of Deep Models", MICCAI 2023.

    Examples
    --------
    >>> from masktune_sk.metrics import artifact_relevance
    >>> artifact_relevance([[3.0, 1.0], [5.0, 5.0]], [[True, False], [False, False]])
    0.75
    """
    saliency = check_array(
        saliency,
        dtype=np.float64,
        ensure_2d=False,
        allow_nd=True,
        input_name="saliency",
    )
    mask = np.asarray(artifact_mask, dtype=bool)
    if mask.shape != saliency.shape:
        raise ValueError(
            f"saliency and artifact_mask must have the same shape; got "
            f"{saliency.shape} and {mask.shape}."
        )
    axes = tuple(range(1, saliency.ndim))
    size = np.abs(saliency)
    total, inside = size.sum(axis=axes), (size * mask).sum(axis=axes)
    counted = mask.any(axis=axes) & (total > 0)
    if not counted.any():
        return np.nan
    return float(np.mean(inside[counted] / total[counted]))
