"""Metrics of predictions that may be refused: risk against coverage.

Ties are accepted together or not at all, so nothing here depends on the order of rows.
"""

import numpy as np
from sklearn.utils import assert_all_finite, check_consistent_length

from masktune_sk.metrics._group import find_hits


def risk_coverage_curve(y_true, y_pred, selection_score):
    """Risk and coverage at every threshold of a selection score.

    A threshold accepts the samples with ``selection_score >= threshold``. Coverage is
    the share of samples accepted, risk the share of errors among the accepted [1]_.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True class labels.

    y_pred : array-like of shape (n_samples,)
        Predicted class labels, of all samples.

    selection_score : array-like of shape (n_samples,)
        How willing the classifier is to predict each sample; larger = more willing.
        Only the order matters.

    Returns
    -------
    coverages : ndarray of shape (n_thresholds,), float64
        In (0, 1], increasing; the last is 1.

    risks : ndarray of shape (n_thresholds,), float64
        In [0, 1]; the last is the error of all predictions.

    thresholds : ndarray of shape (n_thresholds,), float64
        The distinct scores, decreasing. Samples of equal score share a threshold.

    Raises
    ------
    ValueError
        If the lengths differ, there is no sample, a label is not a class label, or a
        score is not a finite number.

    See Also
    --------
    aurc_loss : The area under this curve.
    RiskCoverageDisplay : A picture of it.

    Notes
    -----
    There is no point of coverage 0: the risk of accepting nothing is undefined.

    References
    ----------
    .. [1] El-Yaniv and Wiener, "On the Foundations of Noise-free Selective
       Classification", JMLR 2010.

    Examples
    --------
    >>> from masktune_sk.metrics import risk_coverage_curve
    >>> coverages, risks, thresholds = risk_coverage_curve(
    ...     [0, 0, 1, 1], [0, 1, 1, 0], [0.9, 0.5, 0.9, 0.6]
    ... )
    >>> coverages
    array([0.5 , 0.75, 1.  ])
    >>> risks
    array([0.        , 0.33333333, 0.5       ])
    >>> thresholds
    array([0.9, 0.6, 0.5])
    """
    wrong, score = check_selective(y_true, y_pred, selection_score)
    thresholds, n_accepted, n_errors = accept_from_top(wrong, score)
    return n_accepted / len(score), n_errors / n_accepted, thresholds


def aurc_loss(y_true, y_pred, selection_score):
    """Area under the risk-coverage curve (AURC).

    The mean risk over all coverages [1]_; 0 for a classifier without errors. It is as
    small as the classifier is accurate, and its score puts errors last.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True class labels.

    y_pred : array-like of shape (n_samples,)
        Predicted class labels, of all samples.

    selection_score : array-like of shape (n_samples,)
        How willing the classifier is to predict each sample; larger = more willing.

    Returns
    -------
    loss : float
        In [0, 1]. Lower is better.

    Raises
    ------
    ValueError
        If the lengths differ, there is no sample, a label is not a class label, or a
        score is not a finite number.

    See Also
    --------
    augrc_loss : Does not give the first few samples most of the weight.
    excess_aurc_loss : What of it is due to the score.

    Notes
    -----
    With r(k) the risk of the k samples of highest score, this is the trapezoidal mean
    of r over the coverages 1/n to 1, as in torch-uncertainty; for one sample, its
    error. The plain mean of r(1), ..., r(n), as in [1]_, is within 1/(n-1) of it.

    In a tie r(k) is the expected value over random orders of the tied samples, and so
    is the loss. It does not depend on the order of rows, and equals the error if all
    scores are equal. torch-uncertainty's value depends on the order of rows then.

    References
    ----------
    .. [1] Geifman, Uziel and El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep
       Neural Classifiers", ICLR 2019.

    Examples
    --------
    >>> from masktune_sk.metrics import aurc_loss
    >>> y_true, y_pred = [0, 0, 1, 1], [0, 1, 1, 0]
    >>> round(aurc_loss(y_true, y_pred, [0.9, 0.5, 0.8, 0.6]), 4)
    0.1944
    >>> aurc_loss(y_true, y_pred, [0.5, 0.5, 0.5, 0.5])
    0.5
    """
    n_errors = _errors_by_rank(y_true, y_pred, selection_score)
    return _mean_over_coverage(n_errors / np.arange(1, len(n_errors) + 1))


def augrc_loss(y_true, y_pred, selection_score):
    """Area under the generalized risk-coverage curve (AUGRC).

    The generalized risk is the share of all samples that are accepted and wrong, risk
    times coverage. Its mean over all coverages is the risk of an undetected error
    [1]_. AURC weighs an error the more, the higher its score stands, without bound:
    the first few samples decide. This one weighs it by its rank.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True class labels.

    y_pred : array-like of shape (n_samples,)
        Predicted class labels, of all samples.

    selection_score : array-like of shape (n_samples,)
        How willing the classifier is to predict each sample; larger = more willing.

    Returns
    -------
    loss : float
        In [0, 1], and about 1/2 if all predictions are wrong. Lower is better.

    Raises
    ------
    ValueError
        If the lengths differ, there is no sample, a label is not a class label, or a
        score is not a finite number.

    See Also
    --------
    aurc_loss : The mean risk, which also tells about ties and normalisation.

    Notes
    -----
    The trapezoidal mean over the coverages 1/n to 1, as in torch-uncertainty; the
    paper starts at coverage 0, which is within 1/n of it. A tie counts as its expected
    value over random orders.

    References
    ----------
    .. [1] Traub et al., "Overcoming Common Flaws in the Evaluation of Selective
       Classification Systems", NeurIPS 2024.

    Examples
    --------
    >>> from masktune_sk.metrics import augrc_loss
    >>> y_true, y_pred = [0, 0, 1, 1], [0, 1, 1, 0]
    >>> round(augrc_loss(y_true, y_pred, [0.9, 0.5, 0.8, 0.6]), 4)
    0.1667
    """
    n_errors = _errors_by_rank(y_true, y_pred, selection_score)
    return _mean_over_coverage(n_errors / len(n_errors))


def excess_aurc_loss(y_true, y_pred, selection_score):
    """AURC in excess of a perfect score's, for the same predictions (E-AURC).

    AURC mixes how many errors there are with how well the score finds them. This is
    the second part: the AURC less that of an oracle that puts every error last [1]_.

    Parameters
    ----------
    y_true : array-like of shape (n_samples,)
        True class labels.

    y_pred : array-like of shape (n_samples,)
        Predicted class labels, of all samples.

    selection_score : array-like of shape (n_samples,)
        How willing the classifier is to predict each sample; larger = more willing.

    Returns
    -------
    loss : float
        In [0, 1); 0 if every error scores lower than every correct prediction, or if
        there are only errors or none. Lower is better.

    Raises
    ------
    ValueError
        If the lengths differ, there is no sample, a label is not a class label, or a
        score is not a finite number.

    See Also
    --------
    aurc_loss : Both parts, and about ties and normalisation.

    Notes
    -----
    The oracle's AURC is that of these samples, not the approximation
    ``r + (1 - r) * log(1 - r)`` for error r, so that the excess is never negative.

    References
    ----------
    .. [1] Geifman, Uziel and El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep
       Neural Classifiers", ICLR 2019.

    Examples
    --------
    >>> from masktune_sk.metrics import excess_aurc_loss
    >>> y_true, y_pred = [0, 0, 1, 1], [0, 1, 1, 0]
    >>> excess_aurc_loss(y_true, y_pred, [0.9, 0.5, 0.8, 0.6])
    0.0
    >>> round(excess_aurc_loss(y_true, y_pred, [0.6, 0.9, 0.5, 0.8]), 4)
    0.6111
    """
    n_errors = _errors_by_rank(y_true, y_pred, selection_score)
    ranks = np.arange(1, len(n_errors) + 1)
    n_correct = len(n_errors) - n_errors[-1]
    excess = n_errors - np.maximum(ranks - n_correct, 0)
    return max(_mean_over_coverage(excess / ranks), 0.0)  # rounding within a tie


def check_selective(y_true, y_pred, selection_score):
    """Validate; return which predictions are wrong, and the scores as float64."""
    check_consistent_length(y_true, y_pred, selection_score)
    return ~find_hits(y_true, y_pred), _check_scores(selection_score)


def accept_from_top(wrong, score):
    """Return the distinct scores, highest first, and `count_accepted` at each."""
    thresholds, ranks = np.unique(-score, return_inverse=True)
    return -thresholds, *count_accepted(wrong, ranks, len(thresholds))


def count_accepted(wrong, ranks, n_thresholds):
    """Count the accepted, and the errors among them, at each threshold.

    `ranks` are the places of the samples' scores among the thresholds, 0 the highest.
    """
    n_accepted = np.bincount(ranks, minlength=n_thresholds).cumsum()
    n_errors = np.bincount(ranks[wrong], minlength=n_thresholds).cumsum()
    return n_accepted, n_errors


def _check_scores(selection_score):
    """Return scores as a 1d array of float64."""
    score = np.asarray(selection_score)
    if score.ndim != 1:
        raise ValueError(
            "selection_score must hold one number for each sample, got shape "
            f"{score.shape}. Of probabilities take the largest: "
            "predict_proba(X).max(axis=1)."
        )
    try:
        score = score.astype(np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"selection_score must hold numbers, got {score.dtype}: {error}."
        ) from error
    assert_all_finite(score, input_name="selection_score")
    return score


def _errors_by_rank(y_true, y_pred, selection_score):
    """Count the errors among the k samples of highest score, for k = 1 to n.

    Within a tie the expected count over random orders grows by the same step.
    """
    wrong, score = check_selective(y_true, y_pred, selection_score)
    _, n_accepted, n_errors = accept_from_top(wrong, score)
    return np.interp(
        np.arange(1, len(score) + 1), np.r_[0, n_accepted], np.r_[0, n_errors]
    )


def _mean_over_coverage(values):
    """Average over the coverages 1/n to 1 by the trapezoidal rule."""
    if len(values) == 1:
        return float(values[0])
    return float((values[1:] + values[:-1]).mean() / 2)
