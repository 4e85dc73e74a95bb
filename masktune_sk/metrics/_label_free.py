"""Scorers that choose without labels of the bias.

Accuracy on validation data with the training data's shortcut prefers the shortcut.
These look where a shortcut does not help: at the worst class, at samples whose salient
part is hidden, and at samples that a net which leans on the shortcut gets wrong.
"""

import copy

import numpy as np
from sklearn.utils.validation import check_is_fitted

from masktune_sk._samples import labels_of
from masktune_sk.masking import check_threshold
from masktune_sk.metrics._group import find_hits
from masktune_sk.metrics._scorers import find_behind


def worst_class_accuracy_scorer(estimator, X, y=None):
    """Score by the accuracy in the class where it is lowest.

    It needs no label of the bias, and any classifier has it. A shortcut that only some
    classes have costs the other classes what conflicts with it [1]_.

    Parameters
    ----------
    estimator : classifier
        Fitted.

    X : array-like of shape (n_samples, ...), Dataset or DatasetView
        Samples that it was not fitted on.

    y : array-like of shape (n_samples,), default=None
        Their labels; None: those of the Dataset.

    Returns
    -------
    score : float
        The smallest accuracy of a class that has samples in y, in [0, 1].

    Raises
    ------
    ValueError
        If there are no labels, or they do not go with X.

    See Also
    --------
    worst_group_accuracy_score : The same for groups that are known.
    masked_accuracy_scorer : Accuracy where the salient part is hidden.

    References
    ----------
    .. [1] Yang, Zhang, Katabi, Ghassemi, "Change is Hard: A Closer Look at
       Subpopulation Shift", ICML 2023.

    Examples
    --------
    >>> from masktune_sk.metrics import worst_class_accuracy_scorer
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.naive_bayes import GaussianNB
    >>> X, y = load_wine(return_X_y=True)
    >>> search = GridSearchCV(
    ...     GaussianNB(),
    ...     {"var_smoothing": [1e-9, 1.0]},
    ...     scoring=worst_class_accuracy_scorer,
    ... ).fit(X, y)
    >>> search.best_params_
    {'var_smoothing': 1e-09}
    """
    y = labels_of(X, y)
    return float(_means(find_hits(y, estimator.predict(X)), y).min())


def masked_accuracy_scorer(
    estimator, X, y=None, *, mask_threshold=2.0, threshold_rule="sigma", reference=None
):
    """Score by the accuracy on samples whose salient part is hidden.

    What the ERM net looks at most is masked, and the net after the intervention is
    asked for the labels. One that needs the shortcut cannot tell them.

    Parameters
    ----------
    estimator : MaskTuneClassifier
        Fitted; or a pipeline or a search that ends with one. With a `reference`, any
        classifier.

    X : array-like of shape (n_samples, ...), Dataset or DatasetView
        Samples that it was not fitted on.

    y : array-like of shape (n_samples,), default=None
        Their labels; None: those of the Dataset.

    mask_threshold : float, default=2.0
        How salient a position must be to be hidden. It is the same for every candidate
        of a search, whatever the candidate was trained with: by its own threshold, one
        that hides nothing would be asked nothing.

    threshold_rule : {"sigma", "quantile", "value"}, default="sigma"
        What `mask_threshold` means, see `MaskTuneClassifier`.

    reference : MaskTuneClassifier, default=None
        A fitted one whose ERM net says what is salient, for candidates that have none
        or whose ERM nets differ. None: the estimator itself.

    Returns
    -------
    score : float
        Share of right labels, in [0, 1].

    Raises
    ------
    ValueError
        If neither the estimator nor the reference can mask, the threshold is out of
        range, there are no labels, or they do not go with X.

    See Also
    --------
    masked_consistency_scorer : Right on the samples as they are, too.
    masked_agreement_scorer : Without labels.

    Notes
    -----
    It asks for what the estimator is trained to do, whether or not there is a shortcut:
    on clean data it is pleased by masking that costs accuracy. Candidates with the same
    net, seed and training rows have the same ERM net, so that all are asked the same.

    To set the parameters, as for every scorer here:
    ``scoring=functools.partial(masked_accuracy_scorer, mask_threshold=1.5)``.

    Examples
    --------
    >>> from masktune_sk import MaskTuneClassifier
    >>> from masktune_sk.datasets import load_shortcut_digits
    >>> from masktune_sk.metrics import masked_accuracy_scorer
    >>> from masktune_sk.modules import default_net
    >>> from sklearn.model_selection import GridSearchCV
    >>> X, y = load_shortcut_digits(return_X_y=True)
    >>> net = default_net(X.shape[1:], n_classes=2, max_epochs=1)
    >>> clf = MaskTuneClassifier(net, validation_fraction=0, random_state=0)
    >>> grid = {"mask_threshold": [1.5, 3.0]}
    >>> search = GridSearchCV(clf, grid, scoring=masked_accuracy_scorer, cv=2)
    >>> list(search.fit(X[:200], y[:200]).best_params_)
    ['mask_threshold']
    """
    y = labels_of(X, y)
    estimator, _, X_masked = _mask(
        estimator, X, mask_threshold, threshold_rule, reference
    )
    return float(find_hits(y, estimator.predict(X_masked)).mean())


def masked_consistency_scorer(
    estimator, X, y=None, *, mask_threshold=2.0, threshold_rule="sigma", reference=None
):
    """Score by the share of samples that are right as they are *and* masked.

    As `masked_accuracy_scorer`, but what is right only where the salient part is hidden
    does not count, so that accuracy cannot be given away for it.

    Parameters
    ----------
    estimator : MaskTuneClassifier
        Fitted; or a pipeline or a search that ends with one. With a `reference`, any
        classifier.

    X : array-like of shape (n_samples, ...), Dataset or DatasetView
        Samples that it was not fitted on.

    y : array-like of shape (n_samples,), default=None
        Their labels; None: those of the Dataset.

    mask_threshold : float, default=2.0
        How salient a position must be to be hidden, the same for every candidate.

    threshold_rule : {"sigma", "quantile", "value"}, default="sigma"
        What `mask_threshold` means, see `MaskTuneClassifier`.

    reference : MaskTuneClassifier, default=None
        A fitted one whose ERM net says what is salient. None: the estimator itself.

    Returns
    -------
    score : float
        Share of samples with the right label both times, in [0, 1].

    Raises
    ------
    ValueError
        As `masked_accuracy_scorer` does.

    See Also
    --------
    masked_accuracy_scorer : Masked samples alone.
    """
    y = labels_of(X, y)
    estimator, X, X_masked = _mask(
        estimator, X, mask_threshold, threshold_rule, reference
    )
    right = find_hits(y, estimator.predict(X))
    return float((right & find_hits(y, estimator.predict(X_masked))).mean())


def masked_agreement_scorer(
    estimator, X, y=None, *, mask_threshold=2.0, threshold_rule="sigma", reference=None
):
    """Score by how many labels stay when the salient part is hidden.

    It needs no labels at all; a classifier that gives all samples the same label agrees
    with itself everywhere.

    Parameters
    ----------
    estimator : MaskTuneClassifier
        Fitted; or a pipeline or a search that ends with one. With a `reference`, any
        classifier.

    X : array-like of shape (n_samples, ...), Dataset or DatasetView
        Samples that it was not fitted on.

    y : array-like of shape (n_samples,), default=None
        Not used.

    mask_threshold : float, default=2.0
        How salient a position must be to be hidden, the same for every candidate.

    threshold_rule : {"sigma", "quantile", "value"}, default="sigma"
        What `mask_threshold` means, see `MaskTuneClassifier`.

    reference : MaskTuneClassifier, default=None
        A fitted one whose ERM net says what is salient. None: the estimator itself.

    Returns
    -------
    score : float
        Share of samples with the same label as they are and masked, in [0, 1].

    Raises
    ------
    ValueError
        If neither the estimator nor the reference can mask, or the threshold is out of
        range.

    See Also
    --------
    masked_consistency_scorer : The same label, and the right one.
    erm_agreement_scorer : Before against after.
    """
    estimator, X, X_masked = _mask(
        estimator, X, mask_threshold, threshold_rule, reference
    )
    return float(np.mean(estimator.predict(X) == estimator.predict(X_masked)))


def pseudo_conflict_accuracy_scorer(estimator, X, y=None, *, reference=None):
    """Score by the accuracy on samples that ERM gets wrong.

    Where training data have a shortcut, ERM leans on it, and the samples that it gets
    wrong are for the most part those that conflict with the shortcut [1]_. The mean
    over the classes of the accuracy on those.

    Parameters
    ----------
    estimator : estimator of this package
        Fitted; or a pipeline or a search that ends with one. With a `reference`, any
        classifier.

    X : array-like of shape (n_samples, ...), Dataset or DatasetView
        Samples that neither it nor the reference was fitted on.

    y : array-like of shape (n_samples,), default=None
        Their labels; None: those of the Dataset.

    reference : classifier, default=None
        A fitted one that says which samples conflict, given X as it is here: a net
        trained for an epoch knows the shortcut and little else. One reference for all
        also makes candidates comparable whose ERM nets differ. None: the estimator's
        net before its intervention.

    Returns
    -------
    score : float
        Mean over those classes that have such samples, in [0, 1]. If the reference gets
        everything right, nothing conflicts, and it is the mean over the classes of the
        accuracy on all samples.

    Raises
    ------
    ValueError
        If there is neither a reference nor a net before the intervention, there are no
        labels, or they do not go with X.

    See Also
    --------
    pseudo_group_accuracy_scorer : Counts what ERM gets right, too.

    Notes
    -----
    Without a shortcut, what ERM gets wrong is what is hard, and a classifier that is
    right by chance alone scores well there. A few samples decide: look at how many
    there are.

    References
    ----------
    .. [1] Liu et al., "Just Train Twice: Improving Group Robustness without Training
       Group Information", ICML 2021.
    """
    y = labels_of(X, y)
    wrong = ~find_hits(y, _before(estimator, X, reference))
    hits = find_hits(y, estimator.predict(X))
    if wrong.any():
        hits, y = hits[wrong], y[wrong]
    return float(_means(hits, y).mean())


def pseudo_group_accuracy_scorer(estimator, X, y=None, *, reference=None):
    """Score by the mean accuracy over classes and what ERM gets right or wrong.

    As `pseudo_conflict_accuracy_scorer`, but the samples of a class that ERM gets right
    count as much as those that it gets wrong, so that neither can be given away.

    Parameters
    ----------
    estimator : estimator of this package
        Fitted; or a pipeline or a search that ends with one. With a `reference`, any
        classifier.

    X : array-like of shape (n_samples, ...), Dataset or DatasetView
        Samples that neither it nor the reference was fitted on.

    y : array-like of shape (n_samples,), default=None
        Their labels; None: those of the Dataset.

    reference : classifier, default=None
        A fitted one that says which samples conflict. None: the estimator's net before
        its intervention.

    Returns
    -------
    score : float
        Mean of the accuracies of those groups, class x (right or wrong by the
        reference), that have samples; in [0, 1].

    Raises
    ------
    ValueError
        As `pseudo_conflict_accuracy_scorer` does.

    See Also
    --------
    worst_group_accuracy_score : For groups that are known.
    """
    y = labels_of(X, y)
    right = find_hits(y, _before(estimator, X, reference))
    hits = find_hits(y, estimator.predict(X))
    means = [_means(hits[side], y[side]) for side in (right, ~right)]
    return float(np.concatenate(means).mean())


def erm_agreement_scorer(estimator, X, y=None, *, reference=None):
    """Score by how many labels the intervention leaves as ERM has them.

    It needs no labels, and tells how much an intervention changes: not whether for the
    better. A search by it prefers what changes nothing.

    Parameters
    ----------
    estimator : estimator of this package
        Fitted; or a pipeline or a search that ends with one. With a `reference`, any
        classifier.

    X : array-like of shape (n_samples, ...), Dataset or DatasetView
        Samples that it was not fitted on.

    y : array-like of shape (n_samples,), default=None
        Not used.

    reference : classifier, default=None
        A fitted one that stands for ERM. None: the estimator's net before its
        intervention.

    Returns
    -------
    score : float
        Share of samples with the same label before and after, in [0, 1].

    Raises
    ------
    ValueError
        If there is neither a reference nor a net before the intervention.

    See Also
    --------
    masked_agreement_scorer : As they are against masked.
    """
    return float(np.mean(estimator.predict(X) == _before(estimator, X, reference)))


def _means(hits, y):
    """Return the share of hits in each class that has samples."""
    codes = np.unique(y, return_inverse=True)[1]
    return np.bincount(codes, hits) / np.bincount(codes)


def _before(estimator, X, reference):
    """Return the labels of ERM, or of what stands for it."""
    if reference is not None:
        return reference.predict(X)
    found = find_behind(estimator, X, "_proba_before")
    if found is None:
        check_is_fitted(estimator)
        raise ValueError(
            f"{type(estimator).__name__} has no net before an intervention, whose "
            "errors tell what conflicts. Score an estimator of this package, or pass a "
            "fitted classifier as reference, with functools.partial."
        )
    estimator, X = found
    proba = estimator._proba_before(estimator._dataset(X))
    return estimator.classes_[proba.argmax(axis=1)]


def _mask(estimator, X, threshold, rule, reference):
    """Return who predicts, the samples that it is given, and these masked."""
    if reference is None:
        found = find_behind(estimator, X, "mask")
        if found is None:
            check_is_fitted(estimator)
            raise ValueError(
                f"{type(estimator).__name__} has no mask(X) to hide what a net looks "
                "at. Score a MaskTuneClassifier, or pass a fitted one as reference, "
                "with functools.partial."
            )
        estimator, X = found
        reference = estimator
    elif not hasattr(reference, "mask"):
        raise ValueError(
            f"reference must be a fitted MaskTuneClassifier, got {reference!r}."
        )
    check_is_fitted(reference)
    # A copy of its own parameters, which shares the fitted nets.
    masker = copy.copy(reference)
    masker.set_params(mask_threshold=threshold, threshold_rule=rule)
    masker._validate_params()
    check_threshold(threshold, rule)
    return estimator, X, masker.mask(X)[0]
