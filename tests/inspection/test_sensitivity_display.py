import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator
from sklearn.exceptions import NotFittedError

from masktune_sk.inspection._sensitivity_display import SensitivityDisplay

plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


class Corrected(BaseEstimator):
    """Has measured what it is told."""

    def fit(self, before, after):
        self.classes_ = np.array(["cat", "dog"])
        self.sensitivity_before_, self.sensitivity_after_ = before, after
        return self


def widths(bars):
    return [bar.get_width() for bar in bars]


def names(ax):
    return [label.get_text() for label in ax.get_yticklabels()]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_a_pair_of_bars_for_each_class():
    clf = Corrected().fit([2.0, 1.0], [0.5, 0.25])
    display = SensitivityDisplay.from_estimator(clf)
    assert widths(display.bars_[0]) == [2.0, 1.0]
    assert widths(display.bars_[1]) == [0.5, 0.25]
    assert names(display.ax_) == ["cat", "dog"]
    assert legend(display.ax_) == ["before", "after"]
    assert display.figure_ is display.ax_.figure
    bottom, top = display.ax_.get_ylim()
    assert bottom > top  # the first class stands on top


def test_one_of_several_concepts_and_names():
    clf = Corrected().fit(np.array([[2.0, 1.0], [4.0, 3.0]]), np.zeros((2, 2)))
    _, ax = plt.subplots()
    display = SensitivityDisplay.from_estimator(
        clf, concept=1, class_names="ab", accuracies=(0.4, 0.875), ax=ax
    )
    assert display.ax_ is ax
    assert widths(display.bars_[0]) == [4.0, 3.0]
    assert names(ax) == ["a", "b"]
    assert legend(ax) == [
        "before: 40.0 % right with the artifact",
        "after: 87.5 % right with the artifact",
    ]
    with pytest.raises(ValueError, match="concept must be one of 0..1, got 2"):
        SensitivityDisplay.from_estimator(clf, concept=2)


def test_of_many_classes_the_most_sensitive_are_shown():
    before = np.arange(30.0)
    display = SensitivityDisplay(before=before, after=before / 10).plot(max_classes=3)
    assert_array_equal(widths(display.bars_[0]), [29, 28, 27])
    assert_array_equal(widths(display.bars_[1]), [2.9, 2.8, 2.7])
    assert names(display.ax_) == ["29", "28", "27"]
    assert "the 3 most sensitive of 30" in display.ax_.get_ylabel()


@pytest.mark.parametrize(
    "stored",
    [
        {"before": [1, 2], "after": [1]},
        {"before": [[1, 2]], "after": [[1, 2]]},
        {"before": [1, 2], "after": [1, 2], "class_names": "a"},
    ],
)
def test_lengths_must_fit(stored):
    with pytest.raises(ValueError, match="a value for each class"):
        SensitivityDisplay(**stored).plot()


def test_an_estimator_that_has_measured_nothing():
    with pytest.raises(NotFittedError):
        SensitivityDisplay.from_estimator(Corrected())
    with pytest.raises(ValueError, match="has measured no sensitivities"):
        SensitivityDisplay.from_estimator(Corrected().fit(None, None))


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match="plot"):
        SensitivityDisplay(before=[1], after=[1]).plot()
