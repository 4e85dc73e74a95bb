"""Scorers for scikit-learn's searches, of metrics that need more than labels."""

from inspect import signature

import numpy as np
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection._search import BaseSearchCV
from sklearn.pipeline import Pipeline
from sklearn.utils.metadata_routing import MetadataRequest

from masktune_sk.metrics._by_group import is_greater_better, worst_group_metric

# What a scorer can give to a metric, by the name of the metric's parameter.
_ARRAYS = ("y_true", "y_pred", "selection_score", "accepted")


def make_selective_scorer(
    metric, *, greater_is_better=None, worst_group=False, **params
):
    """Make a scorer of a selective metric, for `GridSearchCV` and its kin.

    Parameters
    ----------
    metric : callable
        A metric that takes a `selection_score` or what was `accepted`, such as
        `aurc_loss`, `risk_at_coverage` or `selective_accuracy_score`. It is given
        those of `y_true`, `y_pred`, `selection_score` and `accepted` that are among
        its parameters.

    greater_is_better : bool, default=None
        If False, the scorer returns the negative of the metric. If None, the name of
        the metric tells: ``_score`` is better if greater, ``_loss``, ``_error`` and
        ``_deviance`` if smaller.

    worst_group : bool, default=False
        Score by the group where the metric is worst. The groups come by metadata
        routing, see the example; `expected_groups` may be among `params`.

    **params : dict
        Passed to the metric as they are, such as `coverage=0.9`.

    Returns
    -------
    scorer : callable
        Called as ``scorer(estimator, X, y)``, and with `groups=` if `worst_group`.
        Greater is better. It can be pickled if the metric can.

    Raises
    ------
    ValueError
        If the metric takes neither `selection_score` nor `accepted`, or its name does
        not tell what is better. When called: if the estimator lacks what is needed.

    See Also
    --------
    sklearn.metrics.make_scorer : The same for metrics of labels and probabilities.

    Notes
    -----
    The selection score is the estimator's ``selection_score(X)``, or else the largest
    of ``predict_proba(X)``, as any classifier has it. What was accepted, and the
    labels with it, is its ``predict_with_reject(X)``. Both are also found at the end
    of a pipeline, in the best estimator of a search, and in a `FrozenEstimator`.

    A score that is undefined, such as the selective accuracy where nothing is
    accepted, is NaN. A search ranks it last.

    Examples
    --------
    >>> from masktune_sk.metrics import aurc_loss, make_selective_scorer
    >>> from sklearn.datasets import load_wine
    >>> from sklearn.model_selection import GridSearchCV
    >>> from sklearn.naive_bayes import GaussianNB
    >>> X, y = load_wine(return_X_y=True)
    >>> search = GridSearchCV(
    ...     GaussianNB(),
    ...     {"var_smoothing": [1e-9, 1.0]},
    ...     scoring=make_selective_scorer(aurc_loss),
    ... ).fit(X, y)
    >>> search.best_params_
    {'var_smoothing': 1e-09}

    By the group where it is worst, here the class:

    >>> from sklearn import config_context
    >>> with config_context(enable_metadata_routing=True):
    ...     scorer = make_selective_scorer(aurc_loss, worst_group=True)
    ...     search = GridSearchCV(
    ...         GaussianNB(),
    ...         {"var_smoothing": [1e-9, 1.0]},
    ...         scoring=scorer.set_score_request(groups=True),
    ...     ).fit(X, y, groups=y)
    >>> search.best_params_
    {'var_smoothing': 1e-09}
    """
    names = [name for name in signature(metric).parameters if name in _ARRAYS]
    if not {"selection_score", "accepted"} & set(names):
        raise ValueError(
            "metric must have a parameter selection_score or accepted, got "
            f"{metric!r}. For metrics of labels alone use sklearn.metrics.make_scorer."
        )
    if greater_is_better is None:
        greater_is_better = is_greater_better(metric)
    return _SelectiveScorer(metric, names, greater_is_better, worst_group, params)


class _SelectiveScorer:
    """A scorer; `make_selective_scorer` tells."""

    def __init__(self, metric, names, greater_is_better, worst_group, params):
        self._metric = metric
        self._names = names
        self._greater_is_better = greater_is_better
        self._worst_group = worst_group
        self._params = params
        self._groups_request = None

    def __call__(self, estimator, X, y, *, groups=None):
        arrays = {"y_true": y}
        if "selection_score" in self._names:
            arrays["y_pred"], arrays["selection_score"] = predict_with_score(
                estimator, X
            )
        if "accepted" in self._names:
            arrays["y_pred"], arrays["accepted"] = _predict_with_reject(estimator, X)
        arrays = [arrays[name] for name in self._names]
        if self._worst_group:
            value = worst_group_metric(
                self._metric,
                *arrays,
                groups=groups,
                greater_is_better=self._greater_is_better,
                **self._params,
            )
        else:
            value = self._metric(*arrays, **self._params)
        return value if self._greater_is_better else -value

    def set_score_request(self, *, groups):
        """Ask for `groups` by scikit-learn's metadata routing; return self."""
        self._groups_request = groups
        return self

    def get_metadata_routing(self):
        """Return what is asked for; scikit-learn's searches call this."""
        request = MetadataRequest(owner=repr(self))
        if self._worst_group:
            request.score.add_request(param="groups", alias=self._groups_request)
        return request

    def _accept_sample_weight(self):
        # scikit-learn asks each of several scorers when fit gets a sample_weight.
        return False

    def __repr__(self):
        params = "".join(f", {name}={value!r}" for name, value in self._params.items())
        if self._worst_group:
            params = f", worst_group=True{params}"
        name = getattr(self._metric, "__name__", repr(self._metric))
        return f"make_selective_scorer({name}{params})"


def predict_with_score(estimator, X):
    """Return the labels that a classifier predicts, and its selection score."""
    found = find_behind(estimator, X, "selection_score")
    if found is not None:
        estimator, X = found
        return estimator.predict(X), estimator.selection_score(X)
    if not hasattr(estimator, "predict_proba"):
        raise ValueError(
            f"{type(estimator).__name__} has neither selection_score nor predict_proba "
            "to tell how willing it is to predict. Use an estimator that has one, for "
            "example by sklearn.calibration.CalibratedClassifierCV."
        )
    return estimator.predict(X), np.max(estimator.predict_proba(X), axis=1)


def _predict_with_reject(estimator, X):
    found = find_behind(estimator, X, "predict_with_reject")
    if found is None:
        raise ValueError(
            f"{type(estimator).__name__} has no predict_with_reject to tell which "
            "samples it accepts. Score it by a metric of selection_score, such as "
            "risk_at_coverage."
        )
    estimator, X = found
    return estimator.predict_with_reject(X)


def find_behind(estimator, X, method):
    """Find who has a method behind what hides it; return it with its input."""
    transformers = []
    while not hasattr(estimator, method):
        if isinstance(estimator, Pipeline):
            transformers.append(estimator[:-1])
            estimator = estimator[-1]
        elif isinstance(estimator, BaseSearchCV):
            estimator = getattr(estimator, "best_estimator_", None)
        elif isinstance(estimator, FrozenEstimator):
            estimator = estimator.estimator
        else:
            return None
    for transformer in transformers:
        X = transformer.transform(X) if len(transformer) else X
    return estimator, X
