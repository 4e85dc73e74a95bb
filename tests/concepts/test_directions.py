import pickle
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.cluster import KMeans
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import (
    LassoCV,
    LinearRegression,
    LogisticRegression,
    SGDClassifier,
)
from sklearn.model_selection import StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from masktune_sk.concepts import ConceptDirections, concept_directions
from masktune_sk.exceptions import ConceptWarning

N_LATENTS = 6
ARTIFACT, CLASS = 1, 0


def planted(n=400, shift=3.0, seed=0, n_classes=2):
    """The artifact on one axis; the class on another, five times as large."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(n_classes, size=n)
    concept = (rng.random(n) < np.where(labels == 1, 0.8, 0.2)).astype(int)
    latents = rng.normal(size=(n, N_LATENTS))
    latents[:, CLASS] += 5 * shift * labels
    latents[:, ARTIFACT] += shift * concept
    return latents, concept, labels


CAVS = {
    "signal": "signal",
    "mean": "mean",
    "svm": "svm",
    "ridge": "ridge",
    "lasso": "lasso",
    "logistic": "logistic",
    "lda": LinearDiscriminantAnalysis(),
    "regression": LinearRegression(),
    "sgd": SGDClassifier(),
}


@pytest.mark.parametrize("cav", CAVS.values(), ids=CAVS)
def test_every_estimator_finds_the_planted_direction(cav):
    latents, concept, labels = planted()
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    found = concept_directions(latents, concept, labels, cav=cav, random_state=0)
    assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002
    assert found.directions.shape == (1, N_LATENTS)
    assert_allclose(np.linalg.norm(found.directions, axis=1), 1)
    assert found.directions[0, ARTIFACT] > 0.9
    assert abs(found.directions[0, CLASS]) < 0.15
    assert found.auc[0] > 0.95
    assert found.gap[0] == pytest.approx(3, abs=0.5)
    again = concept_directions(latents, concept, labels, cav=cav, random_state=0)
    assert_array_equal(found.directions, again.directions)


@pytest.mark.parametrize("cav", ["signal", "svm", "ridge", "logistic"])
def test_all_rows_mix_in_the_direction_of_the_class(cav):
    latents, concept, labels = planted(shift=1.0)
    pooled = concept_directions(
        latents, concept, labels, cav="signal", scope="all", random_state=0
    )
    assert pooled.directions[0, CLASS] > 0.9
    within = concept_directions(latents, concept, labels, cav=cav, random_state=0)
    assert abs(within.directions[0, CLASS]) < 0.2
    assert within.directions[0, ARTIFACT] > 0.8


def test_signal_is_the_difference_of_means():
    latents, concept, labels = planted()
    found = concept_directions(latents, concept, labels, scope="all")
    clean, artifact = (latents[concept == kind].mean(axis=0) for kind in (0, 1))
    difference = artifact - clean
    norm = np.linalg.norm(difference)
    assert_allclose(found.norms, norm, rtol=1e-12)
    assert_allclose(found.directions[0], difference / norm, rtol=1e-12)
    assert_allclose(found.z_clean, clean @ difference / norm, rtol=1e-12)
    assert_allclose(found.z_artifact, artifact @ difference / norm, rtol=1e-12)
    assert_allclose(found.gap, norm, rtol=1e-12)
    # As a covariance, equation 2 of the paper.
    covariance = np.cov(latents.T, concept)[-1, :-1] / np.var(concept, ddof=1)
    assert_allclose(covariance, difference, rtol=1e-12)


def test_signal_within_classes_is_the_weighted_mean_of_their_differences():
    latents, concept, labels = planted(n_classes=3)
    concept[labels == 2] = 0  # no artifact: nothing to compare
    found = concept_directions(latents, concept, labels)
    n_artifact, differences = [], []
    for c in (0, 1):
        kinds = [latents[(labels == c) & (concept == kind)] for kind in (0, 1)]
        differences.append(kinds[1].mean(axis=0) - kinds[0].mean(axis=0))
        n_artifact.append(len(kinds[1]))
    expected = np.average(differences, axis=0, weights=n_artifact)
    assert_allclose(found.norms[0] * found.directions[0], expected, rtol=1e-12)
    assert_allclose(found.gap, found.norms, rtol=1e-12)
    assert_array_equal(found.scope, [0, 1])
    assert found.n_concept == [concept.sum()]
    assert found.n_clean == [np.sum((labels < 2) & (concept == 0))]
    scores = found.scores(latents)[:, 0]
    assert_allclose(found.z_artifact, scores[concept == 1].mean())


def test_a_list_names_the_classes_to_compare_within():
    latents, concept, labels = planted(n_classes=3)
    found = concept_directions(latents, concept, labels, scope=[2, 1])
    assert_array_equal(found.scope, [1, 2])
    rows = labels > 0
    expected = concept_directions(latents[rows], concept[rows], labels[rows])
    assert_array_equal(found.directions, expected.directions)
    assert concept_directions(latents, concept, labels, scope="all").scope is None


@pytest.mark.parametrize("unknown", [-1, np.nan])
@pytest.mark.parametrize("cav", ["signal", "ridge"])
def test_unknown_values_are_left_out(unknown, cav):
    latents, concept, labels = planted()
    marked = concept.astype(float)
    marked[::3] = unknown
    given = marked.copy()
    found = concept_directions(latents, marked, labels, cav=cav, random_state=0)
    known = np.arange(len(labels)) % 3 > 0
    expected = concept_directions(
        latents[known], concept[known] == 1, labels[known], cav=cav, random_state=0
    )
    assert_array_equal(found.directions, expected.directions)
    assert_array_equal(found.auc, expected.auc)
    assert_array_equal(marked, given)


def test_the_first_sample_counts():
    latents, concept, labels = planted()
    order = np.r_[np.flatnonzero(concept == 1)[0], np.arange(len(concept))]
    latents, concept, labels = latents[order], concept[order], labels[order]
    latents[0, 4] = 30.0
    assert concept[0] == 1
    found = concept_directions(latents, concept, labels, scope="all")
    assert found.n_concept == [concept.sum()]
    clean, artifact = (latents[concept == kind].mean(axis=0) for kind in (0, 1))
    assert_allclose(found.norms * found.directions[0], artifact - clean, rtol=1e-12)


def test_several_concepts_have_a_direction_each():
    latents, concept, labels = planted()
    rng = np.random.default_rng(1)
    other = rng.integers(2, size=len(labels))
    other[labels == 0] = 0
    latents[:, 3] -= 4 * other
    found = concept_directions(latents, np.c_[concept, other], labels)
    assert_array_equal(np.abs(found.directions).argmax(axis=1), [ARTIFACT, 3])
    assert found.directions[1, 3] < 0
    assert found.scores(latents).shape == (len(labels), 2)
    assert [classes.tolist() for classes in found.scopes] == [[0, 1], [1]]
    assert_array_equal(found.scope, [0, 1])
    alone = concept_directions(latents, other, labels)
    assert_allclose(found.directions[1], alone.directions[0])
    assert found.gap.min() > 0


@pytest.mark.parametrize("sign", [1, -1])
def test_a_given_direction_points_to_the_artifact(sign):
    latents, concept, labels = planted()
    given = np.zeros(N_LATENTS)
    given[ARTIFACT] = 2.0 * sign
    found = concept_directions(latents, concept, labels, cav=given)
    assert_array_equal(found.directions[0], np.eye(N_LATENTS)[ARTIFACT])
    assert (found.norms[0], found.cav) == (2.0, "array")
    assert found.gap[0] == pytest.approx(3, abs=0.5)
    assert found.auc[0] > 0.95
    assert given[ARTIFACT] == 2 * sign
    alone = concept_directions(latents, None, None, cav=given)
    assert_array_equal(alone.directions[0], sign * found.directions[0])
    assert alone.gap is alone.z_clean is alone.auc is alone.scope is None


def test_several_given_directions_of_one_concept():
    latents, concept, labels = planted()
    given = np.eye(N_LATENTS)[[ARTIFACT, CLASS]]
    with pytest.warns(ConceptWarning, match="means nothing"):
        found = concept_directions(latents, concept, labels, cav=given)
    assert found.gap.shape == (2,)
    with pytest.raises(ValueError, match="3 columns and cav 2 directions"):
        concept_directions(latents, np.c_[concept, concept, concept], labels, cav=given)


def test_a_common_factor_of_the_latents_turns_no_direction():
    latents, concept, labels = planted()
    for cav in ("logistic", "lasso"):
        found, large = (
            concept_directions(X, concept, labels, cav=cav, random_state=0)
            for X in (latents, 1024 * latents)
        )
        assert_allclose(large.directions, found.directions, atol=1e-6)
        assert_allclose(large.gap, 1024 * found.gap, rtol=1e-6)


def test_auc_is_that_of_held_out_samples():
    # More latents than samples: in the sample any labelling is separable.
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(80, 200))
    concept, labels = np.arange(80) % 2, np.arange(80) // 2 % 2
    with pytest.warns(ConceptWarning, match="means nothing.*choose another layer"):
        found = concept_directions(latents, concept, labels, random_state=0)
    assert 0.25 < found.auc[0] < 0.6
    with pytest.warns(ConceptWarning, match="Only 2 samples"):
        few = concept_directions(
            latents[:6], [1, 0, 0, 1, 0, 0], None, scope="all", min_samples=1
        )
    assert not np.isnan(few.auc[0])
    with pytest.warns(ConceptWarning, match="Only 1 samples"):
        few = concept_directions(
            latents[:6], [1, 0, 0, 0, 0, 0], None, scope="all", min_samples=1
        )
    assert np.isnan(few.auc[0])


def test_warns_of_few_samples():
    latents, concept, labels = planted()
    concept[np.flatnonzero(concept)[19:]] = 0
    latents[:, ARTIFACT] += 5 * concept
    with pytest.warns(ConceptWarning, match="Only 1. samples show .* is noisy"):
        concept_directions(latents, concept, labels)


def test_warns_when_class_and_artifact_cannot_be_told_apart():
    latents, _, labels = planted()
    with pytest.warns(ConceptWarning, match="cannot be told apart.*within a class"):
        found = concept_directions(latents, labels, labels)
    assert found.scope is None
    assert found.directions[0, CLASS] > 0.9
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        concept_directions(latents, labels, labels, scope="all")
    with pytest.raises(ValueError, match=r"No class in scope .*class 1: \d+ with, 0"):
        concept_directions(latents, labels, labels, scope=[1])


def test_repr_and_pickle():
    latents, concept, labels = planted()
    found = concept_directions(latents, concept, labels, random_state=0)
    text = repr(found)
    assert text.startswith("ConceptDirections(1 of 6 latents, cav='signal', classes=[")
    assert f"{concept.sum()} samples with" in text
    assert "classes=all" in repr(
        concept_directions(latents, concept, 0 * labels + 1, scope="all")
    )
    alone = concept_directions(latents, None, None, cav=np.ones(6))
    assert repr(alone) == "ConceptDirections(1 of 6 latents, cav='array')"
    again = pickle.loads(pickle.dumps(found))
    assert isinstance(again, ConceptDirections)
    assert repr(again) == text
    with pytest.raises(ValueError, match="6 columns"):
        found.scores(latents[:, :5])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cav": "pca"}, "cav must be one of .*'signal'.*'pca'"),
        ({"cav": LogisticRegression}, "cav must be one of"),
        ({"cav": KMeans(2, n_init=1)}, "KMeans has no coef_"),
        (
            {"cav": make_pipeline(StandardScaler(), LogisticRegression())},
            "no coef_.*pass the linear estimator itself",
        ),
        ({"cav": np.ones(5)}, r"cav must be .*\(6,\).*got the shape \(5,\)"),
        ({"cav": np.ones((1, 1, 6))}, "a number for each latent"),
        ({"cav": np.zeros(6)}, "direction of zeros"),
        ({"cav": np.full(6, np.nan)}, "got NaN or infinity"),
        ({"cav": object()}, "the name of an estimator"),
        ({"concept": None}, "concept is missing"),
        ({"concept": np.ones(400)}, "no sample without it.*ConceptStratifiedKFold"),
        ({"concept": np.ones(3)}, r"shape \(400,\).*got \(3,\)"),
        ({"labels": None}, "labels are missing.*scope='all'"),
        ({"labels": [0, 1]}, "for each of the 400 samples, got 2"),
        ({"scope": "class"}, "scope must be 'auto', 'all' or a list"),
        ({"scope": [7]}, r"which are \[0, 1\]; got \[7\]"),
        ({"scope": []}, r"a list of class labels"),
        ({"latents": np.full((400, 2), np.nan)}, "latents contains NaN"),
        ({"latents": np.ones((400, 2))}, "The direction of concept is zero"),
        ({"latents": np.ones((400, 2)), "cav": "lasso"}, "zeros even at its smallest"),
    ],
)
def test_bad_input(change, message):
    latents, concept, labels = planted()
    given = {"latents": latents, "concept": concept, "labels": labels, **change}
    with pytest.raises(ValueError, match=message):
        concept_directions(**given)


def test_coefficients_of_a_wrong_shape():
    class TwoRows(LinearRegression):
        def fit(self, X, y):
            super().fit(X, np.c_[y, y])
            return self

    with pytest.raises(
        ValueError, match=r"coef_ of shape \(6,\).*TwoRows has \(2, 6\)"
    ):
        concept_directions(*planted(), cav=TwoRows())


def test_a_search_needs_two_samples_of_both_kinds():
    latents, _, labels = planted(n=20)
    concept = np.eye(20)[0]
    with pytest.raises(ValueError, match="at least 2 samples of both kinds"):
        concept_directions(
            latents, concept, None, cav="svm", scope="all", min_samples=1
        )


def test_lasso_takes_a_smaller_penalty_than_one_that_leaves_nothing():
    # So little signal that cross-validation prefers the empty model.
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(60, 4))
    latents /= np.sqrt(np.mean(latents**2))
    concept = np.arange(60) % 2
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    chosen = LassoCV(alphas=[1, 0.1, 0.01], cv=folds.split(latents, concept))
    assert not chosen.fit(latents, concept).coef_.any()
    with pytest.warns(ConceptWarning, match="means nothing"):
        found = concept_directions(
            latents, concept, None, cav="lasso", scope="all", random_state=0
        )
    assert_allclose(np.linalg.norm(found.directions), 1)
