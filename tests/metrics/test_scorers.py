"""Tests of scorers for scikit-learn's searches."""

import pickle
import warnings
from functools import partial

import numpy as np
import pytest
from sklearn import clone, config_context
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.datasets import make_classification
from sklearn.exceptions import NotFittedError, UndefinedMetricWarning
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC

from masktune_sk import MaskTuneClassifier
from masktune_sk.metrics import (
    augrc_loss,
    aurc_loss,
    coverage_at_risk,
    coverage_score,
    excess_aurc_loss,
    make_selective_scorer,
    risk_at_coverage,
    selective_accuracy_score,
    worst_group_metric,
)
from tests.nets import TinyMLP, tiny_net, tiny_vectors

OF_SCORES = [
    (aurc_loss, {}, -1),
    (augrc_loss, {}, -1),
    (excess_aurc_loss, {}, -1),
    (risk_at_coverage, {"coverage": 0.8}, -1),
    (coverage_at_risk, {"max_risk": 0.1}, 1),
]


class Abstaining(ClassifierMixin, BaseEstimator):
    """A classifier by the first feature, which is willing by the last."""

    def __init__(self, threshold=0.0, shift=0.0):
        self.threshold = threshold
        self.shift = shift

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        return self.classes_[(X[:, 0] > self.shift).astype(int)]

    def predict_proba(self, X):
        raise AssertionError("selection_score comes first")

    def selection_score(self, X):
        return np.abs(X[:, -1])

    def predict_with_reject(self, X):
        return self.predict(X), self.selection_score(X) >= self.threshold


@pytest.fixture
def sample():
    X, y = make_classification(
        300, n_features=5, flip_y=0.2, class_sep=0.7, random_state=0
    )
    return X, np.array(["no", "yes"])[y], np.random.default_rng(0).integers(3, size=300)


@pytest.mark.parametrize(("metric", "params", "sign"), OF_SCORES)
def test_any_classifier_by_its_largest_probability(sample, metric, params, sign):
    X, y, _ = sample
    clf = LogisticRegression().fit(X, y)
    score = clf.predict_proba(X).max(axis=1)
    expected = sign * metric(y, clf.predict(X), score, **params)
    assert make_selective_scorer(metric, **params)(clf, X, y) == expected
    assert expected != 0


@pytest.mark.parametrize(("metric", "params", "sign"), OF_SCORES)
def test_selection_score_comes_first(sample, metric, params, sign):
    X, y, _ = sample
    clf = Abstaining().fit(X, y)
    expected = sign * metric(y, clf.predict(X), np.abs(X[:, -1]), **params)
    assert make_selective_scorer(metric, **params)(clf, X, y) == expected


def test_what_the_estimator_accepts(sample):
    X, y, _ = sample
    clf = Abstaining(threshold=0.5).fit(X, y)
    y_pred, accepted = clf.predict_with_reject(X)
    assert make_selective_scorer(coverage_score)(clf, X, y) == accepted.mean()
    assert make_selective_scorer(selective_accuracy_score)(clf, X, y) == np.mean(
        (y == y_pred)[accepted]
    )


def test_a_metric_of_everything(sample):
    X, y, _ = sample

    def my_score(accepted, y_true, selection_score, y_pred, factor=1):
        assert accepted.dtype == bool
        return factor * np.mean((y_true == y_pred) * selection_score * accepted)

    clf = Abstaining(threshold=0.5).fit(X, y)
    score = clf.selection_score(X)
    expected = 2 * np.mean((y == clf.predict(X)) * score * (score >= 0.5))
    assert make_selective_scorer(my_score, factor=2)(clf, X, y) == expected


@pytest.mark.parametrize("metric", [aurc_loss, selective_accuracy_score])
def test_found_in_pipelines_searches_and_frozen(sample, metric):
    X, y, _ = sample
    scaled = StandardScaler().fit_transform(X)
    scorer = make_selective_scorer(metric)
    expected = scorer(Abstaining(threshold=0.5).fit(scaled, y), scaled, y)
    pipeline = make_pipeline(StandardScaler(), Abstaining(threshold=0.5)).fit(X, y)
    assert scorer(pipeline, X, y) == expected
    assert scorer(FrozenEstimator(pipeline), X, y) == expected
    grid = {"abstaining__threshold": [0.5]}
    search = GridSearchCV(pipeline, grid, cv=2).fit(X, y)
    assert scorer(search, X, y) == expected
    assert scorer(make_pipeline(search), X, y) == expected
    nested = make_pipeline(
        StandardScaler(), GridSearchCV(Abstaining(), {"threshold": [0.5]}, cv=2)
    )
    assert scorer(nested.fit(X, y), X, y) == expected


def test_masktune():
    X, y = tiny_vectors()
    clf = MaskTuneClassifier(tiny_net(TinyMLP, max_epochs=1), random_state=0).fit(X, y)
    args = y, clf.predict(X), clf.selection_score(X)
    assert make_selective_scorer(aurc_loss)(clf, X, y) == -aurc_loss(*args)
    accepted = clf.predict_with_reject(X)[1]
    assert make_selective_scorer(coverage_score)(clf, X, y) == accepted.mean()


def test_grid_search(sample):
    X, y, _ = sample
    cv = StratifiedKFold(3)
    grid = {"C": [1e-4, 1.0]}
    search = GridSearchCV(
        LogisticRegression(), grid, scoring=make_selective_scorer(aurc_loss), cv=cv
    ).fit(X, y)
    for row, C in enumerate(grid["C"]):
        for fold, (train, test) in enumerate(cv.split(X, y)):
            clf = LogisticRegression(C=C).fit(X[train], y[train])
            score = clf.predict_proba(X[test]).max(axis=1)
            assert search.cv_results_[f"split{fold}_test_score"][row] == pytest.approx(
                -aurc_loss(y[test], clf.predict(X[test]), score)
            )
    best = search.cv_results_["mean_test_score"].argmax()
    assert search.best_params_ == {"C": grid["C"][best]}


def test_worst_group_by_metadata_routing(sample):
    X, y, groups = sample
    cv = StratifiedKFold(3)
    scorer = make_selective_scorer(
        risk_at_coverage, worst_group=True, coverage=0.7, expected_groups=[0, 1, 2]
    )
    clf = Abstaining().fit(X, y)
    arrays = y, clf.predict(X), clf.selection_score(X)
    params = {"groups": groups, "coverage": 0.7}
    worst = worst_group_metric(risk_at_coverage, *arrays, **params)
    assert scorer(clf, X, y, groups=groups) == -worst
    with config_context(enable_metadata_routing=True):
        scoring = {
            "worst": scorer.set_score_request(groups=True),
            "mean": make_selective_scorer(risk_at_coverage, coverage=0.7),
            "accuracy": "accuracy",
        }
        search = GridSearchCV(
            Abstaining(), {"shift": [-1.0, 0.0]}, scoring=scoring, refit="worst", cv=cv
        )
        clone(search)
        search.fit(X, y, groups=groups)
        alone = GridSearchCV(
            Abstaining(), {"shift": [-1.0, 0.0]}, scoring=scorer, cv=cv
        ).fit(X, y, groups=groups)
    for row, shift in enumerate([-1.0, 0.0]):
        for fold, (_, test) in enumerate(cv.split(X, y)):
            clf = Abstaining(shift=shift).fit(X, y)
            arrays = y[test], clf.predict(X[test]), clf.selection_score(X[test])
            params = {"groups": groups[test], "coverage": 0.7}
            by_hand = worst_group_metric(risk_at_coverage, *arrays, **params)
            for results, name in (
                (search.cv_results_, "worst"),
                (alone.cv_results_, "score"),
            ):
                assert results[f"split{fold}_test_{name}"][row] == -by_hand
            mean = risk_at_coverage(*arrays, coverage=0.7)
            assert search.cv_results_[f"split{fold}_test_mean"][row] == -mean


def test_worst_group_without_groups(sample):
    X, y, _ = sample
    scorer = make_selective_scorer(aurc_loss, worst_group=True)
    clf = LogisticRegression().fit(X, y)
    with pytest.raises(
        ValueError, match=r"groups must hold.*set_score_request\(groups"
    ):
        scorer(clf, X, y)


def test_search_ranks_what_accepts_nothing_last(sample):
    X, y, _ = sample
    scorer = make_selective_scorer(selective_accuracy_score)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UndefinedMetricWarning)
        warnings.filterwarnings("ignore", "One or more of the test scores are non-fin")
        search = GridSearchCV(
            Abstaining(), {"threshold": [100.0, 0.5]}, scoring=scorer
        ).fit(X, y)
    assert search.best_params_ == {"threshold": 0.5}


@pytest.mark.parametrize("worst_group", [False, True])
def test_pickle_and_repr(sample, worst_group):
    X, y, groups = sample
    scorer = make_selective_scorer(
        risk_at_coverage, worst_group=worst_group, coverage=0.7
    )
    clf = LogisticRegression().fit(X, y)
    again = pickle.loads(pickle.dumps(scorer))
    params = {"groups": groups} if worst_group else {}
    assert again(clf, X, y, **params) == scorer(clf, X, y, **params)
    more = ", worst_group=True" if worst_group else ""
    assert (
        repr(scorer) == f"make_selective_scorer(risk_at_coverage{more}, coverage=0.7)"
    )


def test_direction_may_be_given(sample):
    X, y, _ = sample
    clf = LogisticRegression().fit(X, y)
    scorer = make_selective_scorer(partial(aurc_loss), greater_is_better=False)
    assert scorer(clf, X, y) == make_selective_scorer(aurc_loss)(clf, X, y)
    scorer = make_selective_scorer(aurc_loss, greater_is_better=True)
    assert scorer(clf, X, y) == -make_selective_scorer(aurc_loss)(clf, X, y)
    with pytest.raises(ValueError, match="does not tell what is better"):
        make_selective_scorer(partial(aurc_loss))


def test_metric_of_labels_alone_is_refused():
    with pytest.raises(ValueError, match=r"selection_score or accepted.*make_scorer"):
        make_selective_scorer(accuracy_score)


def test_estimator_that_lacks_what_is_needed(sample):
    X, y, _ = sample
    svc = LinearSVC().fit(X, y)
    for estimator, name in ((svc, "LinearSVC"), (make_pipeline(svc), "Pipeline")):
        message = f"{name} has neither selection_score nor predict_proba"
        with pytest.raises(ValueError, match=message):
            make_selective_scorer(aurc_loss)(estimator, X, y)
    clf = LogisticRegression().fit(X, y)
    with pytest.raises(ValueError, match="LogisticRegression has no predict_with_rej"):
        make_selective_scorer(coverage_score)(clf, X, y)


def test_unfitted_estimators(sample):
    X, y, _ = sample
    scorer = make_selective_scorer(aurc_loss)
    for estimator in (
        LogisticRegression(),
        MaskTuneClassifier(),
        GridSearchCV(LogisticRegression(), {"C": [1]}),
    ):
        with pytest.raises(NotFittedError):
            scorer(estimator, X, y)
