"""Rejection: how willing to predict, and from which score on.

Probabilities of the net before and after the intervention go in, scores and thresholds
come out. `RULES` are the names of the scores.
"""

import numpy as np
from scipy.special import softmax

__all__ = ["RULES", "coverage_threshold", "selection_scores"]

RULES = ("product", "product_softmax", "agreement", "refit", "erm")


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

    Returns
    -------
    scores : ndarray of shape (n_samples,), float64
        Larger = more willing.

    References
    ----------
    .. [1] Asgari Taghanaki et al., "MaskTune: Mitigating Spurious Correlations by
       Forcing to Explore", NeurIPS 2022.
    """
    before = np.asarray(proba_before, dtype=np.float64)
    after = np.asarray(proba_after, dtype=np.float64)
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


def coverage_threshold(scores, coverage):
    """Find the largest threshold that accepts at least this share of the scores.

    Parameters
    ----------
    scores : ndarray of shape (n_samples,)
        Selection scores of calibration samples.
    coverage : float in (0, 1]
        Share to accept.

    Returns
    -------
    threshold : float
        Accept ``score >= threshold``. Ties at the threshold are all accepted, so that
        the coverage on these samples is never below the target. -inf for coverage 1.
    """
    if coverage >= 1:
        return -np.inf
    # The small term keeps 0.9 * 10 from asking for 10 of 10.
    wanted = max(int(np.ceil(coverage * len(scores) - 1e-9)), 1)
    return float(np.partition(scores, len(scores) - wanted)[len(scores) - wanted])
