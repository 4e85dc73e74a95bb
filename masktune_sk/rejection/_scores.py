"""Selection scores: how willing to predict."""

import numpy as np
from scipy.special import entr, softmax

__all__ = ["CONFIDENCE_RULES", "RULES", "confidence_scores", "selection_scores"]

CONFIDENCE_RULES = ("probability", "margin", "entropy")
RULES = (
    "product",
    "product_softmax",
    "agreement",
    "refit",
    "erm",
    "margin",
    "entropy",
)


def confidence_scores(proba, rule="probability"):
    """Score how willing one classifier is to predict each sample.

    Parameters
    ----------
    proba : array-like of shape (n_samples, n_classes)
        Class probabilities.
    rule : str, default="probability"
        One of `CONFIDENCE_RULES`.

        - "probability": the largest probability, known as softmax response [1]_; in
          [0, 1].
        - "margin": the largest probability less the second largest; in [0, 1].
        - "entropy": the negative entropy in nats; from -log(n_classes) to 0.

    Returns
    -------
    scores : ndarray of shape (n_samples,), float64
        Larger = more willing. With two classes the three rank samples alike.

    Raises
    ------
    ValueError
        If `rule` is no such name, or `proba` not of that shape.

    References
    ----------
    .. [1] Geifman, El-Yaniv, "Selective Classification for Deep Neural Networks",
       NeurIPS 2017.

    Examples
    --------
    >>> from masktune_sk.rejection import confidence_scores
    >>> confidence_scores([[0.5, 0.3, 0.2], [0.1, 0.9, 0.0]], "margin")
    array([0.2, 0.8])
    """
    proba = np.asarray(proba, dtype=np.float64)
    if proba.ndim != 2 or proba.shape[1] < 2:
        raise ValueError(
            "proba must have shape (n_samples, n_classes), with 2 classes or more; "
            f"got {proba.shape}."
        )
    _check_rule(rule, CONFIDENCE_RULES)
    if rule == "probability":
        return proba.max(axis=1)
    if rule == "margin":
        second, first = np.partition(proba, proba.shape[1] - 2, axis=1)[:, -2:].T
        return first - second
    # Zero added so that a certain sample scores 0, and not -0.
    return 0.0 - entr(proba).sum(axis=1)


def selection_scores(proba_before, proba_after, rule="product"):
    """Score how willing the pair of nets is to predict each sample.

    The label in question is the one that is predicted: the most probable one after.

    Parameters
    ----------
    proba_before, proba_after : ndarray of shape (n_samples, n_classes)
        Probabilities of the net before and of the net after the intervention.
    rule : str, default="product"
        One of `RULES`.

        - "product": both nets' probability of the label, multiplied (the paper's rule
          [1]_). Near 0 where confident nets disagree.
        - "product_softmax": the largest entry of the softmax of the product of the two
          vectors (the official code's rule).
        - "agreement": the probability after, less 2 where the nets' labels differ, so
          that any sample they agree on stands before any they do not. Threshold 0
          accepts agreement.
        - "refit": the probability after.
        - "erm": the probability before, of the label after.
        - "margin", "entropy": those of the net after, see `confidence_scores`.

    Returns
    -------
    scores : ndarray of shape (n_samples,), float64
        Larger = more willing.

    Raises
    ------
    ValueError
        If `rule` is no such name.

    References
    ----------
    .. [1] Asgari Taghanaki et al., "MaskTune: Mitigating Spurious Correlations by
       Forcing to Explore", NeurIPS 2022.
    """
    _check_rule(rule, RULES)
    before = np.asarray(proba_before, dtype=np.float64)
    after = np.asarray(proba_after, dtype=np.float64)
    if rule in CONFIDENCE_RULES:
        return confidence_scores(after, rule)
    if rule == "product_softmax":
        return softmax(before * after, axis=1).max(axis=1)
    labels = after.argmax(axis=1)
    rows = np.arange(len(labels))
    p_before, p_after = before[rows, labels], after[rows, labels]
    if rule == "product":
        return p_before * p_after
    if rule == "agreement":
        return p_after - 2 * (before.argmax(axis=1) != labels)
    return p_after if rule == "refit" else p_before


def _check_rule(rule, known):
    if rule not in known:
        raise ValueError(f"rule must be one of {known}; got {rule!r}.")
