"""Tests of scorers that need no labels of the bias."""

import pickle
from functools import partial

import numpy as np
import pytest
import torch
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    make_scorer,
    recall_score,
)
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from torch.utils.data import TensorDataset

from masktune_sk import MaskTuneClassifier
from masktune_sk.data import DatasetView
from masktune_sk.metrics import (
    erm_agreement_scorer,
    masked_accuracy_scorer,
    masked_agreement_scorer,
    masked_consistency_scorer,
    pseudo_conflict_accuracy_scorer,
    pseudo_group_accuracy_scorer,
    worst_class_accuracy_scorer,
    worst_group_accuracy_score,
)
from tests.nets import TinyMLP, tiny_images, tiny_net, tiny_vectors

MASKED = (masked_accuracy_scorer, masked_agreement_scorer, masked_consistency_scorer)
OF_ERM = (
    erm_agreement_scorer,
    pseudo_conflict_accuracy_scorer,
    pseudo_group_accuracy_scorer,
)
ALL = (*MASKED, *OF_ERM, worst_class_accuracy_scorer)


class Says(ClassifierMixin, BaseEstimator):
    """Predicts what a column says, and another class where a column is hidden."""

    def __init__(self, column=0, hidden=2):
        self.column = column
        self.hidden = hidden

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def predict(self, X):
        X = np.asarray(X).astype(int)
        return np.where(X[:, -1] == 1, X[:, self.hidden], X[:, self.column])


class Hides(BaseEstimator):
    """Masks by setting the last column where the one before is above the threshold."""

    def __init__(self, mask_threshold=9.0, threshold_rule="sigma"):
        self.mask_threshold = mask_threshold
        self.threshold_rule = threshold_rule

    _parameter_constraints = MaskTuneClassifier._parameter_constraints

    def fit(self, X, y=None):
        self.fitted_ = True
        return self

    def mask(self, X):
        masks = X[:, -2] <= self.mask_threshold
        X = X.copy()
        X[~masks, -1] = 1
        return X, masks


@pytest.fixture
def said():
    """Columns: after, before, after if masked, saliency, whether masked."""
    y = np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1])
    after = [0, 0, 0, 1, 1, 1, 1, 1, 0, 0]
    before = [0, 0, 1, 1, 1, 1, 1, 1, 1, 0]
    masked = [0, 1, 0, 0, 1, 1, 0, 1, 1, 0]
    salient = [5, 5, 5, 5, 5, 5, 5, 5, 5, 1]
    return np.c_[after, before, masked, salient, np.zeros(10, int)], y


@pytest.fixture(scope="module")
def fitted():
    X, y = tiny_images()
    clf = MaskTuneClassifier(tiny_net(), validation_fraction=0, random_state=0)
    return clf.fit(X, y), X, y


# ------------------------------------------------------------------ closed form


def test_worst_class(said):
    X, y = said
    clf = Says().fit(X, y)
    assert worst_class_accuracy_scorer(clf, X, y) == pytest.approx(4 / 6)
    recalls = recall_score(y, clf.predict(X), average=None)
    assert worst_class_accuracy_scorer(clf, X, y) == recalls.min()
    names = np.array(["no", "yes"])[y]
    by_name = LogisticRegression().fit(X, names)
    recalls = recall_score(names, by_name.predict(X), average=None)
    assert worst_class_accuracy_scorer(by_name, X, names) == recalls.min()


def test_of_what_the_reference_gets_wrong(said):
    X, y = said
    clf, before = Says().fit(X, y), Says(column=1).fit(X, y)
    # Wrong before: rows 2 and 3, of which 2 is right after; row 9 of class 1.
    score = pseudo_conflict_accuracy_scorer(clf, X, y, reference=before)
    assert score == pytest.approx((1 / 2 + 0) / 2)
    # Right before: rows 0 and 1; rows 4 to 8, of which 8 is wrong after.
    score = pseudo_group_accuracy_scorer(clf, X, y, reference=before)
    assert score == pytest.approx((1 + 4 / 5 + 1 / 2 + 0) / 4)
    assert erm_agreement_scorer(clf, X, y, reference=before) == 0.8


def test_reference_that_is_always_right(said):
    X, y = said
    clf = Says().fit(X, y)
    reference = Says(column=1).fit(X, y)
    X[:, 1] = y
    expected = balanced_accuracy_score(y, clf.predict(X))
    for scorer in (pseudo_conflict_accuracy_scorer, pseudo_group_accuracy_scorer):
        assert scorer(clf, X, y, reference=reference) == pytest.approx(expected)


def test_reference_that_is_always_wrong(said):
    X, y = said
    clf = Says().fit(X, y)
    reference = Says(column=1).fit(X, y)
    X[:, 1] = 1 - y
    expected = balanced_accuracy_score(y, clf.predict(X))
    for scorer in (pseudo_conflict_accuracy_scorer, pseudo_group_accuracy_scorer):
        assert scorer(clf, X, y, reference=reference) == pytest.approx(expected)


def test_masked(said):
    X, y = said
    before = X.copy()
    clf, hides = Says().fit(X, y), Hides().fit(X)
    params = {"reference": hides, "mask_threshold": 2.0}
    # Row 9 is not masked.
    y_masked = np.r_[X[:9, 2], X[9, 0]]
    right, right_masked = clf.predict(X) == y, y_masked == y
    assert masked_accuracy_scorer(clf, X, y, **params) == right_masked.mean()
    both = (right & right_masked).mean()
    assert masked_consistency_scorer(clf, X, y, **params) == both
    agree = (clf.predict(X) == y_masked).mean()
    assert masked_agreement_scorer(clf, X, **params) == agree
    assert len({both, right.mean(), right_masked.mean(), agree}) > 2
    # By another threshold nothing is masked.
    params["mask_threshold"] = 5.0
    assert masked_accuracy_scorer(clf, X, y, **params) == right.mean()
    np.testing.assert_array_equal(X, before)
    assert hides.mask_threshold == 9.0


# ------------------------------------------------------------------ with MaskTune


def test_masktune(fitted):
    clf, X, y = fitted
    y_pred, before = clf.predict(X), clf.classes_[clf.erm_net_.predict(X)]
    assert erm_agreement_scorer(clf, X, y) == (y_pred == before).mean()
    X_masked, masks = clf.mask(X)
    assert not masks.all()
    masked = clf.predict(X_masked)
    assert masked_accuracy_scorer(clf, X, y) == accuracy_score(y, masked)
    assert masked_agreement_scorer(clf, X, y) == (masked == y_pred).mean()
    # Labels that contradict some of what ERM says.
    y = np.where(np.arange(len(y)) % 3 == 0, 1 - before, before)
    wrong = y != before
    score = pseudo_conflict_accuracy_scorer(clf, X, y)
    assert score == pytest.approx(
        balanced_accuracy_score(y[wrong], y_pred[wrong]), abs=1e-12
    )


@pytest.mark.parametrize("own", [0.0, 9.0])
def test_threshold_is_the_same_for_every_candidate(fitted, monkeypatch, own):
    clf, X, y = fitted
    seen = []

    def mask(self, X):
        seen.append((self.mask_threshold, self.threshold_rule))
        return X, None

    monkeypatch.setattr(MaskTuneClassifier, "mask", mask)
    candidate = pickle.loads(pickle.dumps(clf)).set_params(mask_threshold=own)
    for scorer in MASKED:
        scorer(candidate, X, y)
    masked_accuracy_scorer(OnlyPredicts(candidate), X, y, reference=candidate)
    assert seen == [(2.0, "sigma")] * 4
    assert candidate.mask_threshold == own


class OnlyPredicts(ClassifierMixin, BaseEstimator):
    def __init__(self, clf):
        self.clf = clf

    def predict(self, X):
        return self.clf.predict(X)


@pytest.mark.parametrize("scorer", ALL)
def test_in_searches_and_pipelines(scorer):
    X, y = tiny_vectors()
    names = np.array(["no", "yes"])[y]
    clf = MaskTuneClassifier(
        tiny_net(TinyMLP, max_epochs=1), validation_fraction=0, random_state=0
    )
    cv = StratifiedKFold(2)
    alone = cross_val_score(clf, X, names, scoring=scorer, cv=cv)
    assert ((alone >= 0) & (alone <= 1)).all()
    assert all(isinstance(score, float) for score in alone.tolist())
    negative = FunctionTransformer(np.negative)
    pipeline = make_pipeline(negative, negative, clf)
    np.testing.assert_array_equal(
        cross_val_score(pipeline, X, names, scoring=scorer, cv=cv), alone
    )
    again = pickle.loads(pickle.dumps(scorer))
    search = GridSearchCV(clf, {"masking": ["saliency", "none"]}, scoring=again, cv=cv)
    search.fit(X, names)
    results = search.cv_results_
    np.testing.assert_array_equal(
        [results[f"split{i}_test_score"][0] for i in range(2)], alone
    )
    # A search is an estimator too.
    assert scorer(search, X, names) == scorer(search.best_estimator_, X, names)


@pytest.mark.slow
def test_in_processes():
    X, y = tiny_vectors()
    clf = MaskTuneClassifier(
        tiny_net(TinyMLP, max_epochs=1), validation_fraction=0, random_state=0
    )
    scoring = {
        "masked": partial(masked_accuracy_scorer, mask_threshold=1.0),
        "wrong": pseudo_conflict_accuracy_scorer,
    }
    grid = {"mask_threshold": [1.0, 2.0]}
    found = [
        GridSearchCV(
            clf, grid, scoring=scoring, refit="masked", cv=2, n_jobs=n_jobs
        ).fit(X, y)
        for n_jobs in (None, 2)
    ]
    for name in scoring:
        one, two = (search.cv_results_[f"mean_test_{name}"] for search in found)
        np.testing.assert_allclose(one, two)


def test_labels_of_a_dataset(fitted):
    clf, X, y = fitted
    dataset = TensorDataset(torch.as_tensor(X), torch.as_tensor(y))
    for scorer in ALL:
        assert scorer(clf, dataset) == scorer(clf, X, y)
        assert scorer(clf, DatasetView(dataset)) == scorer(clf, X, y)


def test_worst_known_group_by_metadata_routing():
    X, y = tiny_vectors()
    groups = 2 * y + (np.arange(len(y)) // 2) % 2
    clf = MaskTuneClassifier(
        tiny_net(TinyMLP, max_epochs=1), validation_fraction=0, random_state=0
    )
    with config_context(enable_metadata_routing=True):
        scoring = {
            "known": make_scorer(worst_group_accuracy_score).set_score_request(
                groups=True
            ),
            "class": worst_class_accuracy_scorer,
            "masked": masked_accuracy_scorer,
        }
        search = GridSearchCV(
            clf, {"mask_threshold": [1.0]}, scoring=scoring, refit="known", cv=2
        ).fit(X, y, groups=groups)
    known = []
    for train, test in StratifiedKFold(2).split(X, y):
        clf.set_params(mask_threshold=1.0).fit(X[train], y[train])
        of_test = {"groups": groups[test]}
        known.append(
            worst_group_accuracy_score(y[test], clf.predict(X[test]), **of_test)
        )
    assert search.cv_results_["mean_test_known"][0] == np.mean(known)


# ------------------------------------------------------------------ planted truth


class Leans(ClassifierMixin, BaseEstimator):
    """Says what the column is, with ERM nets that lean on column 0."""

    def __init__(self, column=1):
        self.column = column

    def fit(self, X, y):
        self.classes_ = np.unique(y)
        return self

    def _dataset(self, X):
        return X

    def _proba_before(self, X):
        return np.eye(2)[X[:, 0]]

    def predict(self, X):
        return X[:, self.column]


def test_they_do_not_prefer_the_shortcut():
    random = np.random.default_rng(0)
    y = np.arange(1000) % 2
    shortcut = np.where(random.random(1000) < 0.02, 1 - y, y)
    core = np.where(random.random(1000) < 0.1, 1 - y, y)
    X = np.c_[shortcut, core]

    def choice(scoring):
        search = GridSearchCV(Leans(), {"column": [0, 1]}, scoring=scoring, cv=2)
        return search.fit(X, y).best_params_["column"]

    assert choice("accuracy") == 0
    assert choice(erm_agreement_scorer) == 0
    assert choice(pseudo_conflict_accuracy_scorer) == 1
    assert choice(pseudo_group_accuracy_scorer) == 1


# ------------------------------------------------------------------ errors


@pytest.mark.parametrize("scorer", MASKED)
def test_needs_masks(scorer, said):
    X, y = said
    clf = LogisticRegression().fit(X, y)
    with pytest.raises(ValueError, match=r"LogisticRegression has no mask.*reference"):
        scorer(clf, X, y)
    with pytest.raises(ValueError, match="reference must be a fitted MaskTuneClassif"):
        scorer(clf, X, y, reference=clf)


@pytest.mark.parametrize("scorer", OF_ERM)
def test_needs_a_net_before(scorer, said):
    X, y = said
    clf = LogisticRegression().fit(X, y)
    with pytest.raises(ValueError, match=r"no net before.*pass a fitted classifier"):
        scorer(clf, X, y)


@pytest.mark.parametrize("scorer", ALL)
def test_unfitted(scorer):
    X, y = tiny_vectors()
    for estimator in (
        LogisticRegression(),
        MaskTuneClassifier(),
        GridSearchCV(LogisticRegression(), {"C": [1]}),
    ):
        with pytest.raises(NotFittedError):
            scorer(estimator, X, y)


def test_threshold_is_checked(fitted):
    clf, X, y = fitted
    with pytest.raises(ValueError, match="'mask_threshold' parameter"):
        masked_accuracy_scorer(clf, X, y, mask_threshold=-1.0)
    with pytest.raises(ValueError, match="'threshold_rule' parameter"):
        masked_agreement_scorer(clf, X, y, threshold_rule="most")
    with pytest.raises(ValueError, match="0 < mask_threshold < 1"):
        masked_consistency_scorer(clf, X, y, threshold_rule="quantile")
    assert masked_accuracy_scorer(clf, X, y) >= 0


def test_labels_are_checked(fitted):
    clf, X, y = fitted
    with pytest.raises(ValueError, match="X brings no labels"):
        worst_class_accuracy_scorer(clf, X)
    for scorer in (worst_class_accuracy_scorer, pseudo_group_accuracy_scorer):
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            scorer(clf, X, y[:-1])
