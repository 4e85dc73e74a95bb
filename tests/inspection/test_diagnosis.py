import pickle
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import mannwhitneyu
from sklearn.datasets import load_breast_cancer
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics import balanced_accuracy_score
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.neighbors import NearestCentroid
from torch.utils.data import TensorDataset

from masktune_sk import MaskTuneClassifier
from masktune_sk.datasets import (
    load_shortcut_digits,
    make_artifact,
    make_colored,
    make_leaky_column,
    make_square_shortcut,
)
from masktune_sk.inspection import diagnose_shortcut
from masktune_sk.inspection._diagnose.alone import (
    out_of_fold,
    predict_alone,
    whiten,
)
from masktune_sk.inspection._diagnose.foreign import (
    Standing,
    _error_confidence,
    examine,
)
from masktune_sk.inspection._diagnose.probes import Probe, Rest, make_probes
from masktune_sk.inspection._diagnose.samples import draw_rows, read_samples
from masktune_sk.inspection._diagnose.verdict import _read, balanced_interval
from masktune_sk.metrics import proportion_interval
from tests.nets import TinyMLP, tiny_images, tiny_net, tiny_vectors

CONFLICTS = 0.05
N = 360


@pytest.fixture(scope="module")
def digits():
    bunch = load_shortcut_digits(subset="all", square="none")
    rows = np.random.RandomState(0).permutation(len(bunch.target))[:N]
    return bunch.data[rows, 0], bunch.target[rows]


@pytest.fixture(scope="module")
def table():
    X, y = load_breast_cancer(return_X_y=True, as_frame=True)
    return X, y.to_numpy()


def diagnose(X, y=None, estimator=None, **params):
    defaults = {"n_permutations": 19, "random_state": 0}
    return diagnose_shortcut(X, y, estimator, **(defaults | params))


def read(X, y, **params):
    defaults = {"cv": 5, "max_samples": 1000, "max_side": 32}
    random = np.random.RandomState(0)
    return read_samples(X, y, **(defaults | params), random=random)


def flagged(diagnosis):
    return {row.kind for row in diagnosis.evidence if row.is_shortcut}


# ---------------------------------------------------------------- what a probe predicts


def column(values):
    values = np.asarray(values, dtype=np.float64)
    return Probe("column", "x", values.reshape(len(values), -1), (0,))


def test_a_probe_predicts_the_nearest_mean_of_whitened_features():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [90, 30])
    features = rng.normal(size=(120, 3)) @ rng.normal(size=(3, 3)) + y[:, None]
    alone = predict_alone(
        [column(features)],
        y,
        cv=5,
        n_permutations=1,
        random=np.random.RandomState(0),
    )
    nearest, lda = (
        balanced_accuracy_score(
            y,
            cross_val_predict(
                classifier, whiten(features), y, cv=PredefinedSplit(alone.folds)
            ),
        )
        for classifier in (
            NearestCentroid(),
            LinearDiscriminantAnalysis(priors=[0.5, 0.5]),
        )
    )
    assert alone.scores[0] == pytest.approx(nearest)
    closeness = out_of_fold(features, y, alone.folds)
    own = balanced_accuracy_score(y, closeness.argmax(axis=1))
    assert alone.scores[0] == pytest.approx(own)
    # The same but for the covariance, which is that of all folds.
    assert alone.scores[0] == pytest.approx(lda, abs=0.03)
    assert alone.recalls[0].mean() == pytest.approx(alone.scores[0])


def test_folds_hold_every_class_as_often():
    y = np.repeat([0, 1, 2], [50, 25, 10])
    alone = predict_alone(
        [column(y)], y, cv=5, n_permutations=1, random=np.random.RandomState(0)
    )
    for fold in range(5):
        np.testing.assert_array_equal(np.bincount(y[alone.folds == fold]), [10, 5, 2])


def test_p_values_pay_for_the_number_of_probes():
    # Of 60 probes of noise the best one is no discovery, whatever it reaches.
    p_values = []
    for seed in range(20):
        rng = np.random.default_rng(seed)
        probes = [column(rng.normal(size=40)) for _ in range(60)]
        alone = predict_alone(
            probes,
            np.arange(40) % 2,
            cv=5,
            n_permutations=19,
            random=np.random.RandomState(seed),
        )
        assert alone.scores.max() > 0.6
        p_values.append(alone.p_values.min())
    assert np.mean(np.array(p_values) <= 0.05) <= 0.2
    assert np.mean(p_values) > 0.3


def test_the_smallest_p_value_is_that_of_a_probe_that_is_always_right():
    y = np.arange(100) % 4
    alone = predict_alone(
        [column(np.eye(4)[y])],
        y,
        cv=5,
        n_permutations=49,
        random=np.random.RandomState(0),
    )
    assert alone.scores[0] == pytest.approx(1)
    assert alone.p_values[0] == pytest.approx(1 / 50)
    assert 0.25 < alone.chance < 0.6


def test_whitened_features_are_uncorrelated():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(200, 4)) @ rng.normal(size=(4, 4)) * [1, 1e3, 1e-3, 1]
    features = np.column_stack([X, X[:, 0], np.full(200, 7.0)])
    Z = whiten(features)
    assert Z.shape == (200, 4)
    np.testing.assert_allclose(Z.T @ Z / 200, np.eye(4), atol=1e-4)


def test_the_interval_of_one_recall_is_wilsons():
    low, high = balanced_interval(np.array([0.9]), np.array([50]))
    assert (low, high) == pytest.approx(proportion_interval(45, 50, method="wilson"))


def test_the_interval_is_as_wide_as_that_of_the_smallest_class_makes_it():
    narrow = balanced_interval(np.array([0.9, 0.9]), np.array([500, 500]))
    wide = balanced_interval(np.array([0.9, 0.9]), np.array([980, 20]))
    assert wide[0] < narrow[0] < 0.9 < narrow[1] < wide[1] <= 1


# ---------------------------------------------------------------- the rest of a sample


@pytest.fixture(scope="module")
def noise_images():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 3, 28, 28)).astype(np.float32)
    return X, np.arange(60) % 2


def test_the_rest_of_a_patch_does_not_see_it_nor_what_is_beside_it(noise_images):
    X, y = noise_images
    changed = X.copy()
    changed[:, :, 6:14, 10:18] += 5
    probe = Probe("patch", "", None, (8, 12, 12, 16))
    before, after = (Rest(read(images, y)).of(probe) for images in (X, changed))
    np.testing.assert_array_equal(before, after)
    changed[:, :, 20, 20] += 5
    assert (Rest(read(changed, y)).of(probe) != before).any()


def test_the_rest_of_the_border_is_inside(noise_images):
    X, y = noise_images
    changed = X.copy()
    changed[:, :, [0, 1, -2, -1]] += 5
    changed[:, :, :, [0, 1, -2, -1]] += 5
    probe = Probe("border", "", None)
    before, after = (Rest(read(images, y)).of(probe) for images in (X, changed))
    assert before.shape[1] > 0
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("kind", ["brightness", "contrast", "colour"])
def test_the_content_keeps_when_brightness_contrast_and_colour_change(
    noise_images, kind
):
    X, y = noise_images
    changed = X * np.float32([2, 0.5, 1])[:, None, None] + np.float32(3)
    probe = Probe(kind, "whole image", None)
    before, after = (Rest(read(images, y)).of(probe) for images in (X, changed))
    np.testing.assert_allclose(before, after, atol=1e-4)


def test_the_rest_of_a_column_are_the_others():
    X, y = tiny_vectors()
    rest = Rest(read(X, y))
    assert rest.of(Probe("column", "", None, (2,))).shape == (len(X), X.shape[1] - 1)


def standing(lies, shared, noise=0.1, n=400):
    """A column that tells y but where it lies, of which the others know or not."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    told = np.where(rng.random(n) < lies, 1 - y, y)
    X = rng.normal(size=(n, 5))
    X[:, 0] = told + noise * rng.normal(size=n)
    if shared:
        X[:, 1] = told + noise * rng.normal(size=n)
    samples = read(X, y)
    probe = make_probes(samples)[0]
    return examine(
        probe,
        Rest(samples),
        y,
        np.arange(n) // 2 % 5,
        np.random.RandomState(0),
        most_confidence=1,
        most_tie=1,
    )


def test_a_sign_that_lies_is_as_sure_as_one_that_does_not():
    found = standing(lies=0.1, shared=False)
    assert 0.3 < found.error_confidence < 0.68
    assert found.tie < 0.1
    assert found.rest < 0.65


def test_a_part_of_an_object_is_tied_to_the_others():
    found = standing(lies=0.1, shared=True)
    assert found.tie > 0.4
    assert found.rest > 0.8


@pytest.mark.parametrize("ratio", [0.0, 0.01])
@pytest.mark.parametrize("place", ["top-right", "bottom-left"])
def test_a_square_that_hardly_ever_lies_is_found(digits, ratio, place):
    X, y = digits
    planted = make_square_shortcut(
        X, y, label_groups=None, position=place, conflict_ratio=ratio, random_state=0
    )
    found = diagnose(planted.data, planted.target)
    assert "patch" in flagged(found)
    assert np.isnan(found.evidence[0].error_confidence) == (ratio == 0)


def test_a_graded_feature_errs_where_it_is_unsure():
    found = standing(lies=0, shared=False, noise=0.4)
    assert found.error_confidence > 0.8


def test_no_errors_have_no_confidence():
    found = standing(lies=0, shared=False)
    assert np.isnan(found.error_confidence)
    assert found.confidence_error == np.inf


def test_the_confidence_of_errors_is_an_area_under_a_curve_with_its_error():
    rng = np.random.default_rng(0)
    y = np.repeat([0, 1], [60, 20])
    sign = np.where(y == 1, 1.0, -1.0) + rng.normal(size=80)
    confidence, error = _error_confidence(np.stack([-sign, sign], axis=1), y)
    areas, variances, counts = [], [], []
    for of_class in (sign < 0, sign > 0):
        right, margin = (sign > 0)[of_class] == y[of_class], np.abs(sign)[of_class]
        test = mannwhitneyu(margin[right], margin[~right])
        m, n = right.sum(), (~right).sum()
        areas.append(test.statistic / (m * n))
        variances.append((m + n + 1) / (12 * m * n))
        counts.append(n)
    assert confidence == pytest.approx(np.average(areas, weights=counts))
    assert error == pytest.approx(
        np.sqrt(np.square(counts) @ variances) / np.sum(counts)
    )


def sign(**changes):
    seen = {"tie": 0.0, "error_confidence": 0.5, "confidence_error": 0.1}
    return Standing(**(seen | {"rest": 0.9, "spread": 0.3} | changes))


@pytest.mark.parametrize(
    ("changes", "reading"),
    [
        ({}, "shortcut"),
        # With two errors nothing can be said, whatever they look like,
        ({"confidence_error": 0.2}, "unclear"),
        ({"error_confidence": 0.0, "confidence_error": 0.2}, "unclear"),
        ({"error_confidence": np.nan, "confidence_error": np.inf}, "unclear"),
        # unless it is there or not.
        ({"confidence_error": 0.2, "spread": 0.04}, "shortcut"),
        ({"error_confidence": np.nan, "spread": 0.04}, "shortcut"),
        ({"error_confidence": 0.7}, "unclear"),
        ({"spread": 0.6}, "unclear"),
        ({"rest": 1.0}, "unclear"),
        ({"tie": 0.2}, "tied"),
        ({"tie": np.nan}, "graded"),
    ],
)
def test_few_errors_make_a_sign_unclear(changes, reading):
    assert _read(0.9, sign(**changes)) == reading


# ---------------------------------------------------------------- planted truth


def test_a_square_is_found_where_it_is(digits):
    X, y = digits
    planted = make_square_shortcut(
        X, y, label_groups=None, position=(3, 20), conflict_ratio=CONFLICTS
    )
    found = diagnose(planted.data, planted.target)
    assert found.has_shortcut
    assert found.scope == "local"
    assert found.recommendation.startswith("MaskTune")
    row = found.evidence[0]
    assert row.kind == "patch"
    assert row.value > 0.9
    assert row.interval[0] < row.value < row.interval[1]
    assert row.p_value == pytest.approx(0.05)
    assert row.baseline < 0.65
    # "rows 2 to 5, columns 20 to 23" overlaps with the square.
    rows, columns = row.where.removeprefix("rows ").split(", columns ")
    for words, start in ((rows, 3), (columns, 20)):
        first, last = map(int, words.split(" to "))
        assert first <= start + 3
        assert last >= start


@pytest.mark.parametrize("n_classes", [2, 10])
def test_a_colour_is_found_everywhere(n_classes):
    bunch = load_shortcut_digits(subset="all", square="none")
    y = bunch.target if n_classes == 2 else bunch.digit
    planted = make_colored(
        bunch.data[:N, 0],
        y[:N],
        conflict_ratio=CONFLICTS,
        assignment="random",
        colors=[[0.9, 0.3, 0.2], [0.1, 0.8, 0.9]] if n_classes == 2 else None,
        random_state=0,
    )
    found = diagnose(planted.data, planted.target)
    assert flagged(found) == {"colour"}
    assert found.scope == "global"
    assert found.recommendation.startswith("DeNetDM, or a concept")


def test_a_brightness_is_found_everywhere(digits):
    X, y = digits
    planted = make_artifact(
        X,
        y,
        artifact="brightness",
        proportion=1 - CONFLICTS,
        proportion_other=CONFLICTS,
        random_state=0,
    )
    found = diagnose(planted.data, planted.target)
    assert flagged(found) == {"brightness"}


def test_a_border_is_found(digits):
    X, y = digits
    lies = np.random.default_rng(0).random(len(y)) < CONFLICTS
    X = X[:, None].copy()
    grey = np.where(lies, 1 - y, y) * 60
    frame = np.ones((28, 28), dtype=bool)
    frame[2:-2, 2:-2] = False
    X[..., frame] = grey[:, None, None]
    found = diagnose(X, y)
    assert "border" in flagged(found)
    assert found.scope == "local"


def test_a_leaky_column_is_found_by_name(table):
    X, y = table
    planted = make_leaky_column(X, y, conflict_ratio=CONFLICTS, random_state=0)
    found = diagnose(planted.data, planted.target)
    assert [row.where for row in found.evidence if row.is_shortcut] == ["leak"]
    assert found.recommendation.startswith("MaskTune")


def test_two_shortcuts_get_two_recommendations(found):
    patch = found.evidence[0]
    both = replace(found, evidence=[patch, replace(patch, kind="brightness")])
    assert both.scope == "both"
    assert "MaskTune" in both.recommendation
    assert "DeNetDM" in both.recommendation


# ---------------------------------------------------------------- nothing planted


def test_digits_have_none(digits):
    X, y = digits
    found = diagnose(X[:, None], y)
    assert not found.has_shortcut
    assert found.scope is None
    assert found.recommendation.startswith("Nothing")
    # Which is not to say that no probe predicts.
    assert found.evidence[0].reading == "weak"


def test_an_easy_table_has_none(table):
    found = diagnose(*table)
    assert not found.has_shortcut
    assert found.evidence[0].value > 0.875
    assert {row.reading for row in found.evidence} <= {"graded", "tied", "unclear"}


def test_labels_without_relation_are_chance(digits):
    X, y = digits
    y = np.random.RandomState(1).permutation(y)
    found = diagnose(X[:, None], y, n_permutations=39)
    assert {row.reading for row in found.evidence} == {"chance"}


def test_constant_samples_have_no_probe():
    found = diagnose(np.zeros((40, 3)), np.arange(40) % 2)
    assert not found.has_shortcut
    assert found.evidence == []
    assert found.n_probes == 0
    assert "No evidence" in str(found)


# ---------------------------------------------------------------- ways in


@pytest.fixture(scope="module")
def squares():
    X, y = load_shortcut_digits(conflict_ratio=CONFLICTS, return_X_y=True)
    return X[:240], y[:240]


def test_the_same_seed_gives_the_same_diagnosis_and_leaves_the_world_alone(squares):
    X, y = squares
    stream = np.random.get_state()[1].copy()  # noqa: NPY002
    before = X.copy(), torch.get_rng_state()
    first, second = (
        diagnose(X, y, random_state=3, n_jobs=n_jobs) for n_jobs in (None, 2)
    )
    assert str(first) == str(second)
    np.testing.assert_array_equal(X, before[0])
    np.testing.assert_array_equal(np.random.get_state()[1], stream)  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[1])


def test_labels_may_be_strings_and_samples_a_dataset(squares):
    X, y = squares
    expected = diagnose(X, y)
    named = diagnose(X, np.array(["cat", "dog"])[y])
    assert set(named.class_counts) == {"cat", "dog"}
    assert sum(named.class_counts.values()) == 240
    assert [row.value for row in named.evidence] == [
        row.value for row in expected.evidence
    ]
    dataset = TensorDataset(torch.from_numpy(X).float(), torch.from_numpy(y))
    assert str(diagnose(dataset)) == str(expected)


def test_float_images_scaled_any_way_are_judged_alike(squares):
    X, y = squares
    mean = np.float32([0.5, 0.4, 0.3])[:, None, None]
    found = diagnose((X / np.float32(255) - mean) / np.float32(0.25), y)
    assert flagged(found) == flagged(diagnose(X, y))


def test_large_images_are_made_small_and_places_told_as_given(squares):
    X, y = squares
    large = X.repeat(3, axis=2).repeat(3, axis=3)
    found = diagnose(large, y, max_side=28)
    assert found.evidence[0].where == "rows 0 to 11, columns 0 to 11"


def test_small_classes_are_kept_whole():
    labels = np.repeat([0, 1, 2], [900, 90, 10])
    rows = draw_rows(labels, 130, np.random.RandomState(0))
    np.testing.assert_array_equal(np.bincount(labels[rows]), [60, 60, 10])
    assert (np.diff(rows) > 0).all()
    everything = draw_rows(labels, 1000, np.random.RandomState(0))
    np.testing.assert_array_equal(everything, np.arange(1000))


def test_the_number_of_samples_is_told(squares):
    found = diagnose(*squares, max_samples=200)
    assert (found.n_samples, found.n_given) == (200, 240)
    assert "200 of 240 samples" in str(found)


# ---------------------------------------------------------------- what it looks like


@pytest.fixture(scope="module")
def found(squares):
    return diagnose(*squares)


def test_it_prints_as_a_table_under_its_verdict(found):
    lines = str(found).splitlines()
    assert lines[0].startswith("Evidence of a shortcut: patch (rows 0 to 3, columns")
    assert lines[1].startswith("Recommended: MaskTune")
    assert lines[3].split()[:3] == ["kind", "where", "value"]
    end = lines.index("", 4)
    assert end == len(found.evidence) + 5
    assert max(map(len, lines[end:])) <= len(lines[4])
    assert "foreign to the rest" in lines[5]


def test_it_shows_in_a_notebook_as_a_table_with_escaped_names():
    X, y = tiny_vectors()
    X = pd.DataFrame(X).rename(columns=lambda k: f"<b>{k}</b>")
    html = diagnose(X, y)._repr_html_()
    assert html.count("<tr") == html.count("</tr>") >= 3
    assert "&lt;b&gt;" in html
    assert "<b>0" not in html


def test_its_table_has_what_it_prints(found):
    headings, rows = found.table()
    assert headings[0] == "kind"
    assert len(rows) == len(found.evidence)
    for row in rows:
        assert len(row) == len(headings)
        assert all(isinstance(cell, str) for cell in row)
        assert all(cell in str(found) for cell in row)
        assert all(cell in found._repr_html_() for cell in row)


def test_it_pickles_and_its_rows_are_dicts(found):
    assert str(pickle.loads(pickle.dumps(found))) == str(found)
    frame = pd.DataFrame(found.evidence)
    assert frame["value"].tolist() == [row.value for row in found.evidence]
    assert asdict(found.evidence[0])["is_shortcut"] is True


# ---------------------------------------------------------------- with nets


@pytest.fixture(scope="module")
def fitted():
    X, y = tiny_images()
    clf = MaskTuneClassifier(
        tiny_net(max_epochs=8, batch_size=8),
        threshold_rule="quantile",
        mask_threshold=0.1,
        random_state=0,
    )
    return clf.fit(X, y), X, y


def test_a_fitted_estimator_adds_two_rows_that_do_not_count(fitted):
    clf, X, y = fitted
    bare = diagnose(X, y)
    found = diagnose(X, y, clf)
    assert found.has_shortcut == bare.has_shortcut
    net, maps = found.evidence[-2:]
    assert (net.kind, maps.kind) == ("net after masking", "saliency maps")
    assert net.where == "12 unseen samples"
    assert net.baseline == pytest.approx(clf.holdout_accuracy_["before"])
    assert net.value == pytest.approx(clf.holdout_accuracy_["after"])
    # The square of class 0 is in one place, that of class 1 in another.
    assert maps.reading == "same place"
    assert maps.interval[0] <= maps.value <= maps.interval[1]
    assert maps.value > maps.baseline


def test_other_samples_than_those_of_the_fit_are_all_unseen(fitted):
    clf, _, _ = fitted
    X, y = tiny_images(40, random_state=1)
    net = diagnose(X, y, clf).evidence[-2]
    assert net.where == "40 unseen samples"
    assert net.value == pytest.approx(clf.score(X, y))


def test_an_estimator_is_fitted_where_it_is_not_and_stays_as_it_was():
    X, y = tiny_vectors()
    clf = MaskTuneClassifier(tiny_net(TinyMLP), random_state=0)
    maps = diagnose(X, y, clf).evidence[-1]
    assert not hasattr(clf, "net_")
    assert maps.where.startswith("most column")


def test_without_a_hold_out_there_is_no_accuracy():
    X, y = tiny_vectors()
    clf = MaskTuneClassifier(
        tiny_net(TinyMLP), validation_fraction=0, random_state=0
    ).fit(X, y)
    kinds = [row.kind for row in diagnose(X, y, clf).evidence]
    assert "saliency maps" in kinds
    assert "net after masking" not in kinds


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": np.zeros(80, dtype=int)}, "2 classes at least, got one, 0"),
        (
            {"y": np.repeat([0, 1], [77, 3])},
            "5 samples of each class, but class 1 has 3",
        ),
        ({"y": None}, "requires y to be passed"),
        ({"y": np.linspace(0, 1, 80)}, "Unknown label type"),
        ({"X": np.full((80, 6), np.nan)}, "NaN"),
        ({"X": np.zeros((80, 6, 6))}, "X must be vectors, .* or images"),
        ({"max_samples": 8}, "max_samples=8 leaves fewer than 5 samples for each of 2"),
        ({"n_permutations": 9}, "none reaches alpha=0.05. Pass n_permutations=19"),
        ({"cv": 1}, "'cv' parameter"),
        ({"alpha": 1.5}, "'alpha' parameter"),
        ({"estimator": TinyMLP()}, "'estimator' parameter"),
    ],
)
def test_bad_input_says_what_to_do(change, message):
    X, y = tiny_vectors()
    arguments = {"X": X, "y": y} | change
    with pytest.raises(ValueError, match=message):
        diagnose(**arguments)


def test_labels_that_the_estimator_does_not_know_are_refused(fitted):
    clf, X, y = fitted
    with pytest.raises(ValueError, match=r"did not see: \[7\]"):
        diagnose(X, np.where(y == 1, 7, 0), clf)
