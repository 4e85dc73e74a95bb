"""What `RRClArCClassifier.fit` is given besides X and y, checked before training."""

import warnings

import numpy as np

from ..concepts._scope import check_scope, select_scope
from ..exceptions import ConceptWarning
from ..objectives._concept_penalty import TARGETS

__all__ = [
    "check_masks",
    "check_masks_fit",
    "check_penalty",
    "encode_scope",
    "resolve_target",
]


def check_penalty(method, penalty, allowed):
    """Refuse a penalty that a method does not have.

    Parameters
    ----------
    method, penalty : str
        As the user gave them.
    allowed : dict of str to tuple of str
        For each method with a penalty, which ones.

    Raises
    ------
    ValueError
        If it is not among them.
    """
    if method in allowed and penalty not in allowed[method]:
        names = " or ".join(map(repr, allowed[method]))
        raise ValueError(f"method={method!r} has penalty={names}, got {penalty!r}.")


def check_masks(masks, n_samples):
    """Bring artifact masks to booleans.

    Parameters
    ----------
    masks : array-like of shape (n_samples, ...)
        Bools, or 0 and 1.
    n_samples : int
        How many samples there are.

    Returns
    -------
    masks : ndarray of bool
        The same.

    Raises
    ------
    ValueError
        If there are more or fewer, or other values.
    """
    masks = np.asarray(masks)
    if masks.ndim == 0 or len(masks) != n_samples:
        raise ValueError(
            f"artifact_mask must hold a mask for each of the {n_samples} samples; got "
            f"shape {masks.shape}."
        )
    if masks.dtype != bool and not np.isin(masks, (0, 1)).all():
        raise ValueError(
            "artifact_mask must hold True (or 1) where the artifact is and False (or "
            f"0) elsewhere; got values of dtype {masks.dtype} like {masks.flat[0]!r}."
        )
    return masks.astype(bool)


def check_masks_fit(method, masks, item_shape, augment=None):
    """Refuse masks that are missing, all empty or of another size than samples.

    Parameters
    ----------
    method : str
        Only "rrr" can't do without, and can't do with `augment`.
    masks : ndarray of bool or None
        Of the training rows.
    item_shape : tuple of int
        Shape of one sample.
    augment : callable, default=None
        Masks can't follow it.

    Raises
    ------
    ValueError
        If they don't fit.
    """
    expected = item_shape[1:] or item_shape
    if masks is None and method != "rrr":
        return
    if masks is None:
        raise ValueError(
            "method='rrr' penalises input gradients where the artifact is: pass "
            f"artifact_mask to fit, bool of shape (n_samples, "
            f"{', '.join(map(str, expected))}), True where it is."
        )
    if masks.shape[1:] != tuple(expected):
        raise ValueError(
            f"artifact_mask must have shape (n_samples, "
            f"{', '.join(map(str, expected))}), the size of the samples; got "
            f"{masks.shape}."
        )
    if not masks.any():
        raise ValueError(
            "artifact_mask is False everywhere in the training rows, so there is "
            "nothing to penalise or to measure. Mark the artifact of the samples that "
            "show it."
        )
    if augment is not None and method == "rrr":
        raise ValueError(
            "method='rrr' can't be used with augment: the masks would not follow the "
            "samples. Leave augment out."
        )


def encode_scope(scope, concept, labels, classes, min_samples):
    """Encode the labels of a scope, and refuse one without enough samples.

    Parameters
    ----------
    scope : {"auto", "all"} or array-like
        Labels as they are.
    concept : ndarray of shape (n_train, n_concepts)
        Who shows it.
    labels : ndarray of shape (n_train,)
        Encoded labels.
    classes : ndarray of shape (n_classes,)
        Labels as they are.
    min_samples : int
        How many samples of both kinds a class needs.

    Returns
    -------
    scope : str or ndarray of int
        For `concept_directions`.

    Raises
    ------
    ValueError
        If a label is unknown, or no class has enough samples of both kinds.
    """
    if not isinstance(scope, str):
        wanted = np.atleast_1d(np.asarray(scope))
        unknown = [label for label in wanted.tolist() if label not in classes]
        if unknown:
            raise ValueError(
                f"cav_scope names labels that y does not have: {unknown}. The classes "
                f"are {classes.tolist()}."
            )
        scope = np.searchsorted(classes, wanted)
    scope = check_scope(scope, labels)
    with warnings.catch_warnings():
        # Comes again, when directions are computed.
        warnings.simplefilter("ignore", ConceptWarning)
        for column in concept.T:
            select_scope(column, labels, scope, min_samples, name="concept")
    return scope


def resolve_target(target, classes):
    """Return which derivatives are penalised: a name, or a class's index.

    Parameters
    ----------
    target : str or class label
        As the user gave it.
    classes : ndarray of shape (n_classes,)
        Labels.

    Returns
    -------
    target : str or int
        For `ConceptPenalty`.

    Raises
    ------
    ValueError
        If it is neither a name nor a class.
    """
    if isinstance(target, str) and target in TARGETS:
        return target
    found = [i for i, label in enumerate(classes.tolist()) if label == target]
    if not found:
        raise ValueError(
            f"gradient_target must be one of {', '.join(map(repr, TARGETS))}, or a "
            f"class of y ({classes.tolist()}); got {target!r}."
        )
    return found[0]
