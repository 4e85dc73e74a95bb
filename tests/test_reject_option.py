"""Tests of RejectOptionClassifier, and of what it shares with the other estimators."""

import copy
import pickle

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_array
from sklearn import config_context
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import (
    FixedThresholdClassifier,
    GridSearchCV,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.svm import LinearSVC
from sklearn.tree import DecisionTreeClassifier

from masktune_sk import MaskTuneClassifier, RejectOptionClassifier
from masktune_sk.rejection import certify, confidence_scores, coverage_threshold
from tests.nets import TinyMLP, tiny_images, tiny_net, tiny_vectors


def blobs(n=600, n_classes=3, random_state=0):
    """Classes that overlap, so that some samples are hard."""
    random = np.random.default_rng(random_state)
    y = random.integers(n_classes, size=n)
    X = random.normal(size=(n, 4))
    X[:, 0] += 2.5 * y
    return X, y


def logistic(**params):
    return RejectOptionClassifier(LogisticRegression(), random_state=0, **params)


class Recorder(ClassifierMixin, BaseEstimator):
    """A classifier that keeps what it was given, of whatever kind."""

    def fit(self, X, y, sample_weight=None):
        self.X_, self.y_, self.sample_weight_ = X, y, sample_weight
        self.classes_ = np.unique(y)
        return self

    def predict_proba(self, X):
        self.seen_ = X
        share = np.linspace(0.1, 1, len(X))
        others = (1 - share) / (len(self.classes_) - 1)
        proba = np.repeat(others[:, None], len(self.classes_), axis=1)
        proba[:, 0] = share
        return proba


# ---------------------------------------------------------------- fit and predict


def test_it_is_the_estimator_and_a_threshold():
    X, y = blobs()
    clf = logistic().fit(X, y)
    inner = clf.estimator_
    np.testing.assert_array_equal(clf.predict_proba(X), inner.predict_proba(X))
    np.testing.assert_array_equal(clf.predict(X), inner.predict(X))
    assert clf.score(X, y) == inner.score(X, y)
    scores = clf.selection_score(X)
    np.testing.assert_array_equal(scores, inner.predict_proba(X).max(axis=1))
    y_pred, accepted = clf.predict_with_reject(X)
    np.testing.assert_array_equal(y_pred, clf.predict(X))
    np.testing.assert_array_equal(accepted, scores >= clf.reject_threshold_)
    assert 0.8 < accepted.mean() < 1
    assert (y_pred != y)[accepted].mean() < (y_pred != y).mean()


@pytest.mark.parametrize("rule", ["probability", "margin", "entropy"])
def test_every_score_is_that_of_its_name(rule):
    X, y = blobs()
    clf = logistic(rejection=rule).fit(X, y)
    expected = confidence_scores(clf.predict_proba(X), rule)
    np.testing.assert_array_equal(clf.selection_score(X), expected)


def test_the_hold_out_calibrates_and_is_not_trained_on():
    X, y = blobs()
    clf = RejectOptionClassifier(Recorder(), random_state=0, coverage=0.7).fit(X, y)
    trained, held = clf.estimator_.X_, clf.estimator_.seen_
    assert (len(trained), len(held)) == (480, 120)
    both = np.concatenate([trained, held])
    np.testing.assert_array_equal(np.unique(both, axis=0), np.unique(X, axis=0))
    assert len(clf.calibration_scores_) == 120
    assert clf.reject_threshold_ == coverage_threshold(clf.calibration_scores_, 0.7)
    assert clf.certificate_.target == "coverage"
    assert clf.certificate_.n_samples == 120
    assert clf.certificate_.coverage == 0.7
    assert clf.certificate_.threshold == clf.reject_threshold_
    assert "hold-out of fit" in str(clf.certificate_)


def test_the_estimator_is_cloned_and_left_alone():
    X, y = blobs()
    inner = LogisticRegression()
    clf = RejectOptionClassifier(inner).fit(X, y)
    assert clf.estimator is inner
    assert not hasattr(inner, "classes_")


def test_an_int_draws_the_same_hold_out_and_none_another():
    X, y = blobs()
    first, again = logistic().fit(X, y), logistic().fit(X, y)
    np.testing.assert_array_equal(first.calibration_scores_, again.calibration_scores_)
    stream = np.random.get_state()[1].copy()  # noqa: NPY002
    other = logistic().set_params(random_state=1).fit(X, y)
    assert (other.calibration_scores_ != first.calibration_scores_).any()
    np.testing.assert_array_equal(np.random.get_state()[1], stream)  # noqa: NPY002


def test_without_a_hold_out_all_is_trained_on_and_calibrate_is_asked_for():
    X, y = blobs()
    clf = logistic(validation_fraction=0).fit(X, y)
    np.testing.assert_array_equal(
        clf.predict_proba(X), LogisticRegression().fit(X, y).predict_proba(X)
    )
    assert clf.reject_threshold_ is clf.certificate_ is clf.calibration_scores_ is None
    for given in ({}, {"coverage": 0.8}):
        with pytest.raises(ValueError, match=r"call calibrate\(X, y\)"):
            clf.predict_with_reject(X, **given)
    assert clf.predict_with_reject(X, coverage=1)[1].all()
    clf.set_params(coverage=1).fit(X, y)
    assert clf.predict_with_reject(X)[1].all()


def test_labels_are_the_most_probable_ones_of_any_estimator():
    X, y = blobs(n_classes=2)
    inner = FixedThresholdClassifier(LogisticRegression(), threshold=0.1)
    clf = RejectOptionClassifier(inner, random_state=0).fit(X, y)
    y_pred, _ = clf.predict_with_reject(X)
    np.testing.assert_array_equal(y_pred, clf.predict_proba(X).argmax(axis=1))
    np.testing.assert_array_equal(y_pred, clf.predict(X))
    assert (y_pred != clf.estimator_.predict(X)).any()


@pytest.mark.parametrize(
    "relabel",
    [
        lambda y: np.array(["eel", "otter", "owl"])[y],
        lambda y: np.array(["eel", "otter", "owl"], dtype=object)[y],
        lambda y: np.array([-3, 70, 900])[y],
        lambda y: y > 0,
        lambda y: y.tolist(),
        lambda y: pd.Series(y, index=np.arange(len(y))[::-1]),
    ],
    ids=["strings", "objects", "gaps", "bool", "list", "series"],
)
def test_labels_of_any_kind(relabel):
    X, y = blobs()
    labels = relabel(y)
    plain = np.asarray(labels)
    clf = logistic().fit(X, labels).calibrate(X[:200], labels[:200], coverage=0.8)
    assert clf.classes_.tolist() == np.unique(plain).tolist()
    y_pred, accepted = clf.predict_with_reject(X)
    assert set(y_pred) <= set(plain)
    assert clf.certificate_.n_errors == (y_pred != plain)[:200][accepted[:200]].sum()
    assert clf.score(X, labels) > 0.7


# ---------------------------------------------------------------- prefit


def test_a_frozen_estimator_is_taken_and_every_row_calibrates():
    X, y = blobs()
    inner = LogisticRegression().fit(X[:300], y[:300])
    clf = RejectOptionClassifier(FrozenEstimator(inner)).fit(X[300:], y[300:])
    np.testing.assert_array_equal(clf.predict_proba(X), inner.predict_proba(X))
    np.testing.assert_array_equal(clf.calibration_scores_, clf.selection_score(X[300:]))
    assert clf.certificate_.n_samples == 300
    assert "hold-out of fit" not in str(clf.certificate_)
    assert clone(clf).estimator is clf.estimator
    some = RejectOptionClassifier(FrozenEstimator(inner)).fit(X[y == 1], y[y == 1])
    assert some.classes_.tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match=r"labels that fit did not see: \[7\]"):
        clf.fit(X[300:], np.where(y == 1, 7, y)[300:])
    with pytest.raises(NotFittedError):
        RejectOptionClassifier(FrozenEstimator(LogisticRegression())).fit(X, y)


# ---------------------------------------------------------------- X as it is


def test_images_go_to_the_estimator_untouched():
    X, y = tiny_images()
    clf = RejectOptionClassifier(Recorder(), random_state=0).fit(X, y)
    assert clf.estimator_.X_.shape == (48, 1, 12, 12)
    assert clf.estimator_.X_.dtype == X.dtype
    clf.predict(X)
    assert clf.estimator_.seen_ is X
    clf.calibrate(X, y)
    assert clf.estimator_.seen_ is X
    tensors = torch.from_numpy(X)
    clf.fit(tensors, y)
    assert torch.is_tensor(clf.estimator_.X_)
    assert clf.estimator_.X_.shape == (48, 1, 12, 12)


def test_frames_sparse_matrices_and_lists_stay_what_they_are():
    X, y = blobs()
    frame = pd.DataFrame(X, columns=list("abcd"))
    clf = RejectOptionClassifier(Recorder()).fit(frame, y)
    assert isinstance(clf.estimator_.X_, pd.DataFrame)
    clf = logistic().fit(frame, y)
    assert clf.n_features_in_ == 4
    assert clf.feature_names_in_.tolist() == list("abcd")
    with pytest.raises(ValueError, match="feature names"):
        clf.predict_with_reject(frame[list("bacd")])
    assert not hasattr(clf.fit(X, y), "feature_names_in_")
    expected = clf.predict_proba(X)
    for other in (X.tolist(), csr_array(X)):
        np.testing.assert_allclose(logistic().fit(other, y).predict_proba(X), expected)
    clf = RejectOptionClassifier(Recorder()).fit(X.tolist(), y)
    assert isinstance(clf.estimator_.X_, list)
    assert not hasattr(clf, "n_features_in_")


def test_another_of_our_estimators_can_be_inside():
    X, y = tiny_images()
    net = MaskTuneClassifier(tiny_net(), random_state=0)
    clf = RejectOptionClassifier(net, random_state=0).fit(X, y)
    assert clf.predict_with_reject(X)[1].shape == (60,)
    assert clf.certificate_.n_samples == 12


# ---------------------------------------------------------------- scikit-learn's ways


def test_a_search_reaches_every_level():
    X, y = blobs(300)
    grid = {"estimator__C": [0.1, 1.0], "rejection": ["margin", "entropy"]}
    search = GridSearchCV(logistic(), grid, cv=2).fit(X, y)
    assert set(search.best_params_) == set(grid)
    assert search.best_estimator_.certificate_.n_samples == 60
    assert cross_val_score(logistic(), X, y, cv=2).shape == (2,)


def test_pipelines_inside_and_outside():
    X, y = blobs(300)
    inside = RejectOptionClassifier(
        make_pipeline(StandardScaler(), LogisticRegression()), random_state=0
    ).fit(X, y)
    assert inside.n_features_in_ == 4
    outside = make_pipeline(FunctionTransformer(), logistic()).fit(X, y)
    assert outside[-1].predict_with_reject(X)[1].any()
    np.testing.assert_array_equal(
        inside.predict(X) == outside.predict(X), np.ones(300, dtype=bool)
    )


def test_weights_are_routed_to_the_estimator_row_by_row():
    X, y = blobs()
    weights = np.arange(600.0)
    X[:, 3] = weights
    with config_context(enable_metadata_routing=True):
        inner = Recorder().set_fit_request(sample_weight=True)
        clf = RejectOptionClassifier(inner, random_state=0)
        clf.fit(X, y, sample_weight=weights)
        np.testing.assert_array_equal(
            clf.estimator_.sample_weight_, clf.estimator_.X_[:, 3]
        )
        clf.set_score_request(sample_weight=False)
        search = GridSearchCV(clf, {"rejection": ["margin"]}, cv=2)
        best = search.fit(X, y, sample_weight=weights).best_estimator_
        np.testing.assert_array_equal(
            best.estimator_.sample_weight_, best.estimator_.X_[:, 3]
        )
        with pytest.raises(TypeError, match="unexpected argument"):
            clf.fit(X, y, weights=weights)
    with pytest.raises(ValueError, match="enable_metadata_routing=True"):
        RejectOptionClassifier(Recorder()).fit(X, y, sample_weight=weights)


def test_copies_answer_the_same():
    X, y = blobs()
    groups = np.array(["low", "high"])[(X[:, 1] > 0).astype(int)]
    clf = logistic().fit(X, y)
    clf.calibrate(X, y, coverage=0.8, groups=groups, per_group=True)
    for other in (pickle.loads(pickle.dumps(clf)), copy.deepcopy(clf)):
        np.testing.assert_array_equal(
            other.predict_with_reject(X, groups=groups)[1],
            clf.predict_with_reject(X, groups=groups)[1],
        )
        assert other.certificate_ == clf.certificate_
    assert not hasattr(clone(clf), "estimator_")


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"estimator": "logistic"}, "estimator"),
        ({"estimator": LinearSVC()}, "estimator"),
        ({"rejection": "product"}, "rejection"),
        ({"coverage": 0.0}, "coverage"),
        ({"validation_fraction": 1.0}, "validation_fraction"),
        ({"random_state": "seed"}, "random_state"),
    ],
    ids=str,
)
def test_bad_parameters_are_refused(params, message):
    X, y = blobs()
    with pytest.raises(ValueError, match=f"'{message}' parameter"):
        logistic().set_params(**params).fit(X, y)


def test_bad_labels_are_refused():
    X, y = blobs(60)
    for labels, message in [
        (None, "requires y to be passed, but the target y is None"),
        (np.zeros(60), "at least 2 classes; y has one class, 0.0"),
        (np.r_[9, y[1:]], "class 9 has 1"),
        (X[:, 0], "Unknown label type"),
        (np.where(y == 1, np.nan, y), "NaN"),
        (y[:-1], "inconsistent numbers of samples"),
        (np.c_[y, y], "1d array"),
    ]:
        with pytest.raises(ValueError, match=message):
            logistic().fit(X, labels)
    with pytest.raises(ValueError, match=r"Found 0 sample\(s\)"):
        logistic().fit(X[:0], y[:0])
    clf = logistic().fit(X, y).calibrate(X, y, groups=y, per_group=True)
    with pytest.raises(ValueError, match=r"Found array with 0 sample\(s\)"):
        clf.predict_with_reject(X[:0], groups=[])


# ---------------------------------------------------------------- every estimator


def fitted_rejecter():
    X, y = blobs(900, n_classes=2)
    return logistic(validation_fraction=0).fit(X[:100], y[:100]), X[100:], y[100:]


def fitted_masktune():
    X, y = tiny_vectors(900)
    net = MaskTuneClassifier(tiny_net(TinyMLP), validation_fraction=0, random_state=0)
    return net.fit(X[:100], y[:100]), X[100:], y[100:]


@pytest.fixture(scope="module", params=[fitted_rejecter, fitted_masktune])
def fitted(request):
    return request.param()


@pytest.fixture
def case(fitted):
    clf, X, y = fitted
    groups = np.array(["left", "right"])[(X[:, 1] > 0).astype(int)]
    return copy.deepcopy(clf), X, y, groups


@pytest.mark.parametrize(
    "target", [{"max_risk": 0.3}, {"coverage": 0.6}, {}], ids=["risk", "coverage", "no"]
)
def test_calibrate_keeps_what_certify_says(case, target):
    clf, X, y, groups = case
    scores, errors = clf.selection_score(X), clf.predict(X) != y
    assert clf.calibrate(X, y, confidence=0.9, **target) is clf
    expected = certify(scores, errors, confidence=0.9, **(target or {"coverage": 0.9}))
    assert clf.certificate_ == expected
    assert clf.reject_threshold_ == expected.threshold
    np.testing.assert_array_equal(clf.calibration_scores_, scores)
    accepted = clf.predict_with_reject(X)[1]
    assert accepted.sum() == expected.n_accepted
    assert errors[accepted].sum() == expected.n_errors
    clf.calibrate(X, y, confidence=0.9, groups=groups, **target)
    assert set(clf.certificate_.groups) == {"left", "right"}
    assert clf.predict_with_reject(X)[1].sum() == clf.certificate_.n_accepted


def test_a_threshold_per_group_takes_groups(case):
    clf, X, y, groups = case
    clf.calibrate(X, y, coverage=0.7, groups=groups, per_group=True)
    assert clf.reject_threshold_ == clf.certificate_.threshold
    scores = clf.selection_score(X)
    y_pred, accepted = clf.predict_with_reject(X, groups=groups)
    np.testing.assert_array_equal(y_pred, clf.predict(X))
    for name, threshold in clf.reject_threshold_.items():
        rows = groups == name
        assert threshold == coverage_threshold(scores[rows], 0.7)
        np.testing.assert_array_equal(accepted[rows], scores[rows] >= threshold)
    # In any order, with any of the groups, as anything.
    rows = np.flatnonzero(groups == "right")[::-1]
    for some in (groups[rows], groups[rows].tolist(), pd.Series(groups[rows])):
        again = clf.predict_with_reject(X[rows], groups=some)[1]
        np.testing.assert_array_equal(again, accepted[rows])
    # For all samples alike, if asked for.
    assert clf.predict_with_reject(X, threshold=-3.0)[1].all()
    accepted = clf.predict_with_reject(X, coverage=0.5)[1]
    assert accepted.sum() == np.ceil(0.5 * len(X))


def test_groups_that_do_not_fit_are_refused(case):
    clf, X, y, groups = case
    with pytest.raises(ValueError, match="per_group=True"):
        clf.calibrate(X, y).predict_with_reject(X, groups=groups)
    clf.calibrate(X, y, groups=groups, per_group=True)
    for given, message in [
        ({}, r"by group, for \['left', 'right'\]. Pass groups"),
        (
            {"groups": np.where(groups == "left", "middle", groups)},
            r"for the groups \['middle'\]; there are those of \['left', 'right'\]",
        ),
        ({"groups": np.zeros(len(X), dtype=int)}, r"for the groups \[0\]"),
        ({"groups": groups[:-1]}, "groups must have shape"),
        ({"groups": groups, "coverage": 0.5}, "Give coverage or groups, not both"),
        ({"groups": groups, "threshold": 0.5}, "Give threshold or groups, not both"),
    ]:
        with pytest.raises(ValueError, match=message):
            clf.predict_with_reject(X, **given)


def test_groups_as_tensors(case):
    clf, X, y, groups = case
    groups = torch.from_numpy((groups == "left").astype(int))
    clf.calibrate(X, y, groups=groups, per_group=True)
    assert set(clf.reject_threshold_) == {0, 1}
    clf.predict_with_reject(X, groups=groups)


def test_a_calibration_that_fails_changes_nothing(case):
    clf, X, y, groups = case
    clf.calibrate(X, y, coverage=0.7)
    before = clf.reject_threshold_, clf.certificate_, clf.calibration_scores_
    for arguments, message in [
        ((X, y, {"max_risk": 1e-4}), "cannot be certified .* it takes n = "),
        ((X, y, {"max_risk": 0.1, "coverage": 0.5}), "not both"),
        ((X, y, {"max_risk": 1}), r"max_risk must be in \(0, 1\)"),
        ((X, y, {"confidence": 0}), r"confidence must be in \(0, 1\)"),
        ((X, y, {"per_group": True}), "pass groups"),
        ((X, y, {"groups": groups[1:]}), r"groups must have shape \(800,\)"),
        ((X, 1 - y[1:], {}), "one label a row"),
        ((X, y + 5, {}), "labels that fit did not see"),
        ((X[:1], y[:1], {}), "2 calibration samples or more; got 1"),
        ((X, None, {}), r"X brings no labels\. Pass y\."),
    ]:
        X_given, y_given, target = arguments
        with pytest.raises(ValueError, match=message):
            clf.calibrate(X_given, y_given, **target)
        after = clf.reject_threshold_, clf.certificate_, clf.calibration_scores_
        assert all(one is other for one, other in zip(before, after, strict=True))


def test_bad_targets_cost_no_prediction(case, monkeypatch):
    clf, X, y, groups = case
    monkeypatch.setattr(clf, "_labels_and_scores", None)
    for target in ({"max_risk": 2}, {"coverage": 0}, {"groups": groups[1:]}):
        with pytest.raises(ValueError, match="must"):
            clf.calibrate(X, y, **target)
    with pytest.raises(ValueError, match="must"):
        clf.predict_with_reject(X, coverage=2)


def test_the_order_of_calibration_samples_changes_nothing(case):
    clf, X, y, groups = case
    expected = clf.calibrate(X, y, max_risk=0.3, groups=groups).certificate_
    order = np.argsort(y, kind="stable")
    clf.calibrate(X[order], y[order], max_risk=0.3, groups=groups[order])
    # A net's probabilities differ in the last digits from batch to batch.
    assert clf.certificate_.threshold == pytest.approx(expected.threshold, abs=1e-6)
    assert clf.certificate_.n_accepted == expected.n_accepted
    assert clf.certificate_.n_errors == expected.n_errors


def test_the_hold_out_of_nets_makes_a_certificate_with_a_caveat():
    X, y = tiny_vectors(200)
    clf = MaskTuneClassifier(tiny_net(TinyMLP), coverage=0.8, random_state=0).fit(X, y)
    assert clf.certificate_.n_samples == 40
    assert clf.certificate_.coverage == 0.8
    assert clf.certificate_.threshold == clf.reject_threshold_
    assert clf.certificate_.risk <= 1 - clf.holdout_accuracy_["after"] + 0.2
    assert "trainings were validated on it" in str(clf.certificate_)
    assert pickle.loads(pickle.dumps(clf)).certificate_ == clf.certificate_
    clf.calibrate(X, y)
    assert "validated" not in str(clf.certificate_)
    clf.set_params(validation_fraction=0).fit(X, y)
    assert clf.certificate_ is None


def test_a_certificate_on_real_digits_holds_on_the_rest():
    X, y = load_digits(return_X_y=True)
    for inner, max_risk in (
        (RandomForestClassifier(30, random_state=0), 0.06),
        # Probabilities are 0 or 1: every score is tied.
        (DecisionTreeClassifier(random_state=0), 0.4),
    ):
        clf = RejectOptionClassifier(inner, validation_fraction=0).fit(X[:600], y[:600])
        clf.calibrate(X[600:1200], y[600:1200], max_risk=max_risk)
        y_pred, accepted = clf.predict_with_reject(X[1200:])
        assert accepted.mean() >= clf.certificate_.certified_coverage > 0.5
        assert (y_pred != y[1200:])[accepted].mean() < max_risk
