"""Tests of the picture of risk against coverage."""

import pickle
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.svm import LinearSVC

from masktune_sk.metrics import (
    RiskCoverageDisplay,
    aurc_loss,
    metric_by_group,
    proportion_interval,
    risk_coverage_curve,
    selective_accuracy_score,
)

plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture
def sample():
    rng = np.random.default_rng(0)
    score = rng.integers(200, size=500) / 200
    y_pred = (rng.random(500) > 0.6 + 0.4 * score).astype(int)
    return np.zeros(500, dtype=int), y_pred, score


@pytest.fixture
def groups():
    # 360, 120 and 20 samples.
    return np.repeat(["a", "b", "c"], [360, 120, 20])[
        np.random.default_rng(1).permutation(500)
    ]


def texts(legend):
    return [text.get_text() for text in legend.get_texts()]


def test_line_is_the_curve(sample):
    display = RiskCoverageDisplay.from_predictions(*sample, min_accepted=1)
    coverages, risks, _ = risk_coverage_curve(*sample)
    x, y = display.line_.get_data()
    assert_array_equal(x, coverages)
    assert_array_equal(y, risks)
    assert display.band_ is None
    assert display.figure_ is display.ax_.figure
    assert texts(display.ax_.get_legend()) == [f"AURC = {aurc_loss(*sample):.3g}"]
    assert display.ax_.get_ylim()[0] == 0


def test_bands_are_the_pointwise_intervals(sample):
    display = RiskCoverageDisplay.from_predictions(
        *sample, confidence=0.9, method="wilson", name="net"
    )
    y_true, y_pred, score = sample
    thresholds = np.unique(score)[::-1]
    for i in (30, 100, len(thresholds) - 1):
        accepted = score >= thresholds[i]
        expected = proportion_interval(
            np.sum((y_true != y_pred)[accepted]),
            np.sum(accepted),
            confidence=0.9,
            method="wilson",
        )
        assert [end[i] for end in display.intervals[0]] == list(expected)
    shown = display.n_accepted[0] >= 30
    vertices = display.band_.get_paths()[0].vertices
    for end in display.intervals[0]:
        assert np.isin(end[shown], vertices[:, 1]).all()
    legend = display.ax_.get_legend()
    assert legend.get_title().get_text() == "90 % intervals, pointwise"
    assert texts(legend) == [f"net (AURC = {aurc_loss(*sample):.3g})"]


def test_groups_at_the_thresholds_of_all(sample, groups):
    display = RiskCoverageDisplay.from_predictions(*sample, groups=groups)
    y_true, y_pred, score = sample
    assert display.groups == ["a", "b", "c"]
    coverages, _, thresholds = risk_coverage_curve(*sample)
    for i in (0, 50, len(thresholds) - 1):
        accepted = score >= thresholds[i]
        for line, group in enumerate(display.groups):
            rows = accepted & (groups == group)
            assert display.coverages[line][i] == coverages[i]
            assert display.n_accepted[line][i] == rows.sum()
            risk = display.risks[line][i]
            if rows.any():
                assert risk == np.mean((y_true != y_pred)[rows])
            else:
                assert np.isnan(risk)
    assert np.isnan(display.risks[2][0])
    # Coverage 1 is the risk without abstention.
    accuracies = metric_by_group(
        selective_accuracy_score, y_true, y_pred, score >= 0, groups=groups
    )
    for risks, accuracy in zip(display.risks, accuracies.values(), strict=True):
        assert risks[-1] == pytest.approx(1 - accuracy)
    assert display.ax_.get_xlabel() == "Coverage of all samples"
    assert texts(display.ax_.get_legend()) == [
        "a (n = 360)",
        "b (n = 120)",
        "c (n = 20)",
    ]
    assert len({line.get_color() for line in display.line_}) == 3


def test_groups_at_their_own_thresholds(sample, groups):
    display = RiskCoverageDisplay.from_predictions(
        *sample, groups=groups, coverage_of="group"
    )
    curves = metric_by_group(risk_coverage_curve, *sample, groups=groups)
    for line, (coverages, risks, _) in enumerate(curves.values()):
        assert_array_equal(display.coverages[line], coverages)
        assert_array_equal(display.risks[line], risks)
    assert display.ax_.get_xlabel() == "Coverage of the group"


@pytest.mark.parametrize("coverage_of", ["all", "group"])
def test_few_accepted_are_not_drawn(sample, groups, coverage_of):
    display = RiskCoverageDisplay.from_predictions(
        *sample, groups=groups, coverage_of=coverage_of, confidence=0.95
    )
    for i, line in enumerate(display.line_):
        # The group of 20 would not be seen at all.
        shown = display.n_accepted[i] >= (30 if i < 2 else 1)
        assert_array_equal(line.get_xdata(), display.coverages[i][shown])
        assert np.isfinite(line.get_ydata()).all()
        assert shown.sum() < len(shown) or (i == 2 and coverage_of == "group")
    whole = display.plot(min_accepted=1)
    assert whole is display
    assert len(display.line_[0].get_xdata()) > (display.n_accepted[0] >= 30).sum()


def test_several_classifiers_on_one_plot(sample):
    y_true, y_pred, score = sample
    first = RiskCoverageDisplay.from_predictions(*sample, name="one")
    top = first.ax_.get_ylim()[1]
    second = RiskCoverageDisplay.from_predictions(
        y_true, 1 - y_pred, score, name="two", ax=first.ax_, color="k", ls=":"
    )
    assert second.ax_ is first.ax_
    assert len(first.ax_.lines) == 2
    assert second.line_.get_color() == "k"
    assert second.line_.get_linestyle() == ":"
    names = [text.partition(" ")[0] for text in texts(first.ax_.get_legend())]
    assert names == ["one", "two"]
    low, high = first.ax_.get_ylim()
    assert low == 0
    assert high > 0.7 > top


def test_groups_keep_their_colours_for_another_classifier(sample, groups):
    first = RiskCoverageDisplay.from_predictions(
        *sample, groups=groups, name="one", confidence=0.95
    )
    second = RiskCoverageDisplay.from_predictions(
        *sample, groups=groups, name="two", ax=first.ax_, linestyle="--"
    )
    for one, two in zip(first.line_, second.line_, strict=True):
        assert one.get_color() == two.get_color()
    legend = first.ax_.get_legend()
    assert texts(legend)[-1] == "two, c (n = 20)"
    assert legend.get_title().get_text() == "95 % intervals, pointwise"


def test_few_points_are_marked():
    y = [0] * 40
    display = RiskCoverageDisplay.from_predictions(y, [0] * 39 + [1], [0.5] * 40)
    assert display.line_.get_data() == ([1], [1 / 40])
    assert display.line_.get_marker() == "."


def test_stored_numbers_alone_are_drawn_without_a_legend(sample):
    coverages, risks, _ = risk_coverage_curve(*sample)
    display = RiskCoverageDisplay(
        coverages=[coverages], risks=[risks], n_accepted=[500 * coverages]
    )
    assert not hasattr(display, "ax_")
    assert display.plot().ax_.get_legend() is None


def test_pickle(sample):
    display = RiskCoverageDisplay.from_predictions(*sample)
    again = pickle.loads(pickle.dumps(display))
    assert_array_equal(again.line_.get_data(), display.line_.get_data())
    again.figure_.canvas.draw()
    labels = [label.get_text() for label in again.ax_.get_xticklabels()]
    assert {"0 %", "100 %"} <= set(labels)


def test_from_estimator(sample):
    rng = np.random.default_rng(0)
    y = np.array(["no", "yes"])[rng.integers(2, size=200)]
    X = (y == "yes")[:, None] + rng.normal(size=(200, 2))
    clf = LogisticRegression().fit(X, y)
    args = y, clf.predict(X), clf.predict_proba(X).max(axis=1)
    display = RiskCoverageDisplay.from_estimator(clf, X, y)
    same = RiskCoverageDisplay.from_predictions(*args)
    assert_array_equal(display.risks, same.risks)
    assert display.name == "LogisticRegression"
    assert display.aurc == aurc_loss(*args)
    assert RiskCoverageDisplay.from_estimator(clf, X, y, name="LR").name == "LR"
    by_group = RiskCoverageDisplay.from_estimator(
        clf, X, y, groups=y, coverage_of="group", confidence=0.8, color="k"
    )
    assert by_group.name is None
    assert by_group.coverage_of == "group"
    assert by_group.confidence == 0.8
    assert by_group.line_[1].get_color() == "k"
    with pytest.raises(NotFittedError):
        RiskCoverageDisplay.from_estimator(LogisticRegression(), X, y)
    with pytest.raises(ValueError, match="LinearSVC has neither selection_score"):
        RiskCoverageDisplay.from_estimator(LinearSVC().fit(X, y), X, y)


def test_many_samples_are_drawn_quickly():
    rng = np.random.default_rng(0)
    n = 50_000
    wrong = (rng.random(n) < 0.1).astype(int)
    display = RiskCoverageDisplay.from_predictions(
        np.zeros(n, dtype=int), wrong, rng.random(n), confidence=0.95
    )
    display.figure_.canvas.draw()
    assert len(display.risks[0]) == n


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"coverage_of": "one"}, r"coverage_of must be one of \('all', 'group'\), got"),
        ({"confidence": 95}, r"confidence must be in \(0, 1\), got 95"),
        ({"confidence": 0.9, "method": "exact"}, "method must be one of"),
        ({"groups": ["a", "b"]}, "inconsistent numbers of samples"),
        ({"groups": ["a"] * 499 + [None]}, "missing values: value 499 is None"),
    ],
)
def test_bad_parameters(sample, params, message):
    with pytest.raises(ValueError, match=message):
        RiskCoverageDisplay.from_predictions(*sample, **params)


def test_bad_input(sample):
    y_true, y_pred, score = sample
    with pytest.raises(ValueError, match="selection_score contains NaN"):
        RiskCoverageDisplay.from_predictions(y_true, y_pred, score * np.nan)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        RiskCoverageDisplay.from_predictions(y_true, y_pred, score[:-1])
    with pytest.raises(ValueError, match="y_true is empty"):
        RiskCoverageDisplay.from_predictions([], [], [])


def test_missing_matplotlib_names_the_extra(sample, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"masktune_sk\[plot\]"):
        RiskCoverageDisplay.from_predictions(*sample)
