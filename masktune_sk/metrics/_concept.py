"""How much a net's logits depend on a concept, from directional derivatives.

The derivative of a logit along a direction tells what the logit gains where the latents
of the layer move along that direction; computing it is the business of the net's owner.
"""

import numpy as np
from sklearn.utils import check_array

__all__ = ["concept_alignment", "concept_sensitivity", "tcav_score"]


def tcav_score(derivatives):
    """Share of samples whose logit grows along a concept.

    The TCAV score [1]_. 0.5 is what a net has for which the direction means nothing, 0
    and 1 are what one has for which it always means the same.

    Parameters
    ----------
    derivatives : array-like of shape (n_samples,) or (n_samples, ...)
        Derivatives of a logit along the direction of the concept; further axes, such
        as classes and concepts, are kept. Exact zeros, as behind a ReLU that is
        closed, have no sign and are left out.

    Returns
    -------
    score : float or ndarray of float64
        The share in [0, 1], of the shape of one sample; NaN where all derivatives are
        zero.

    Raises
    ------
    ValueError
        If there is no sample, or a derivative is not finite.

    See Also
    --------
    concept_sensitivity : How large the derivatives are, which their sign hides.

    Notes
    -----
    Once the derivatives are tiny their signs are noise, and the score may be anything:
    read it together with `concept_sensitivity`.

    References
    ----------
    .. [1] Kim et al., "Interpretability Beyond Feature Attribution: Quantitative
       Testing with Concept Activation Vectors (TCAV)", ICML 2018.

    Examples
    --------
    >>> from masktune_sk.metrics import tcav_score
    >>> tcav_score([0.5, 0.1, -0.2, 0.0, 0.3])
    0.75
    """
    derivatives = _check_derivatives(derivatives)
    n_signed = np.count_nonzero(derivatives, axis=0)
    n_positive = np.count_nonzero(derivatives > 0, axis=0)
    return _float_or_array(
        np.where(n_signed, n_positive / np.maximum(n_signed, 1), np.nan)
    )


def concept_sensitivity(derivatives, gap=None):
    """Mean size of the derivatives of a logit along a concept.

    ``mean |d|``, equation A.6 of [1]_; or ``mean |gap d|``, which tells in logits what
    a sample with the artifact gains over one without it, whatever the scale of the
    layer.

    Parameters
    ----------
    derivatives : array-like of shape (n_samples,) or (n_samples, ...)
        Derivatives of a logit along a direction of unit norm; further axes, such as
        classes and concepts, are kept.
    gap : float or array-like, default=None
        How far apart samples with and without the concept lie along the direction, as
        in ``ConceptDirections.gap``; of a shape that broadcasts to that of one sample.
        None: 1.

    Returns
    -------
    sensitivity : float or ndarray of float64
        At least 0, of the shape of one sample.

    Raises
    ------
    ValueError
        If there is no sample, a number is not finite, or the gap has another shape.

    See Also
    --------
    tcav_score : The share of derivatives that are positive.

    References
    ----------
    .. [1] Dreyer et al., "From Hope to Safety: Unlearning Biases of Deep Models via
       Gradient Penalization in Latent Space", AAAI 2024.

    Examples
    --------
    >>> from masktune_sk.metrics import concept_sensitivity
    >>> concept_sensitivity([1.0, -3.0])
    2.0
    >>> concept_sensitivity([1.0, -3.0], gap=0.5)
    1.0
    """
    derivatives = _check_derivatives(derivatives)
    sensitivity = np.abs(derivatives).mean(axis=0)
    if gap is not None:
        gap = np.asarray(gap, dtype=np.float64)
        if not np.isfinite(gap).all():
            raise ValueError(f"gap must be finite, got {gap.tolist()}.")
        try:
            scale = np.broadcast_to(np.abs(gap), sensitivity.shape)
        except ValueError as error:
            raise ValueError(
                "gap must be a number, or broadcast to the shape of the derivatives of "
                f"one sample, {sensitivity.shape}; got the shape {gap.shape}."
            ) from error
        sensitivity = sensitivity * scale
    return _float_or_array(sensitivity)


def concept_alignment(direction, shifts):
    """Measure how well a direction points where an artifact moves the latents.

    Where the artifact can be put into samples, the latents' shift is the truth that a
    direction should point to; equations 7 and 8 of [1]_.

    Parameters
    ----------
    direction : array-like of shape (n_latents,)
        The direction of the concept, of any norm.
    shifts : array-like of shape (n_samples, n_latents)
        For each sample its latents with the artifact less those without.

    Returns
    -------
    of_samples : float
        The mean over samples of the cosine with their shift, in [-1, 1]. Samples that
        do not shift have none and are left out.
    of_mean : float
        The cosine with the mean shift, in [-1, 1]. Both are NaN if nothing shifts.

    Raises
    ------
    ValueError
        If the shapes do not fit, a number is not finite, or the direction is zero.

    References
    ----------
    .. [1] Dreyer et al., "From Hope to Safety: Unlearning Biases of Deep Models via
       Gradient Penalization in Latent Space", AAAI 2024.

    Examples
    --------
    >>> from masktune_sk.metrics import concept_alignment
    >>> concept_alignment([1.0, 0.0], [[3.0, 4.0], [3.0, -4.0]])
    (0.6, 1.0)
    """
    shifts = check_array(shifts, dtype=np.float64, input_name="shifts")
    direction = np.asarray(direction, dtype=np.float64)
    if direction.shape != shifts.shape[1:]:
        raise ValueError(
            f"direction must have shape {shifts.shape[1:]}, a number for each column "
            f"of shifts; got {direction.shape}."
        )
    norm = np.linalg.norm(direction)
    if not (np.isfinite(norm) and norm > 0):
        raise ValueError("direction must be finite and not zero.")
    direction = direction / norm
    norms = np.linalg.norm(shifts, axis=1)
    moved = norms > 0
    if not moved.any():
        return np.nan, np.nan
    of_samples = np.mean(shifts[moved] @ direction / norms[moved])
    mean = shifts.mean(axis=0)
    mean_norm = np.linalg.norm(mean)
    of_mean = mean @ direction / mean_norm if mean_norm > 0 else np.nan
    return float(of_samples), float(of_mean)


def _check_derivatives(derivatives):
    return check_array(
        derivatives,
        dtype=np.float64,
        ensure_2d=False,
        allow_nd=True,
        input_name="derivatives",
    )


def _float_or_array(value):
    return float(value) if value.ndim == 0 else value
