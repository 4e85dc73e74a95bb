import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.exceptions import NotFittedError

from masktune_sk import MaskTuneClassifier
from masktune_sk.inspection import SaliencyMaskDisplay
from tests.nets import TinyMLP, tiny_images, tiny_net, tiny_vectors

plt = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture(scope="module")
def images():
    X, y = tiny_images()
    clf = MaskTuneClassifier(
        tiny_net(max_epochs=8, batch_size=8),
        threshold_rule="quantile",
        mask_threshold=0.1,
        random_state=0,
    )
    return clf.fit(X, y), X, y


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def test_a_row_of_four_panels_a_sample(images):
    clf, X, y = images
    display = SaliencyMaskDisplay.from_estimator(clf, X[:3], y[:3])
    assert display.axes_.shape == (3, 4)
    assert display.figure_ is display.axes_[0, 0].figure
    X_masked, masks = clf.mask(X[:3])
    for i, row in enumerate(display.axes_):
        np.testing.assert_array_equal(row[2].get_images()[0].get_array(), masks[i])
        assert len(row[1].get_images()) == 2
        assert f"label: {y[i]}" in row[0].get_ylabel()
        assert f"predicted: {clf.predict(X[i : i + 1])[0]}" in row[0].get_ylabel()
    np.testing.assert_array_equal(display.X_masked, X_masked)
    titles = [axes.get_title() for axes in display.axes_[0]]
    assert titles[0::3] == ["image", "masked image"]


def test_drawing_into_given_axes(images):
    clf, X, _ = images
    _, axes = plt.subplots(2, 4)
    display = SaliencyMaskDisplay.from_estimator(clf, X[:2], ax=axes)
    assert display.figure_ is axes[0, 0].figure
    assert display.plot(ax=axes) is display
    with pytest.raises(ValueError, match=r"shape \(3, 4\), a row a sample"):
        SaliencyMaskDisplay.from_estimator(clf, X[:3], ax=axes)


@pytest.mark.parametrize("scale", [1, 255, -3], ids=["0..1", "0..255", "normalised"])
@pytest.mark.parametrize("n_channels", [1, 2, 3])
def test_images_of_any_range_and_channels_are_drawn_in_zero_to_one(scale, n_channels):
    X, _ = tiny_images(n=2, n_channels=n_channels)
    X = np.clip(X, 0, 1) * scale
    maps = np.zeros((2, 12, 12))
    display = SaliencyMaskDisplay(X=X, maps=maps, masks=maps == 0, X_masked=X).plot()
    shown = display.axes_[0, 0].get_images()[0].get_array()
    assert shown.shape == (12, 12, 3)
    assert 0 <= shown.min() < shown.max() <= 1


def test_vectors_get_a_bar_for_each_feature_most_masked_first():
    X, y = tiny_vectors()
    frame = pd.DataFrame(X, columns=list("abcdef"))
    clf = MaskTuneClassifier(tiny_net(TinyMLP), random_state=0).fit(frame, y)
    display = SaliencyMaskDisplay.from_estimator(clf, frame, y, max_features=4)
    axes = display.axes_[0, 0]
    shares = [bar.get_width() for bar in axes.patches]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert len(shares) == 4
    assert shares == sorted(shares, reverse=True)
    hidden = 100 * (1 - clf.mask(frame)[1].mean(axis=0))
    np.testing.assert_allclose(shares, hidden[[list("abcdef").index(n) for n in names]])


def test_unfitted_estimator_is_refused():
    with pytest.raises(NotFittedError):
        SaliencyMaskDisplay.from_estimator(MaskTuneClassifier(), tiny_images()[0])


def test_missing_matplotlib_names_the_extra(images, monkeypatch):
    clf, X, _ = images
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r"masktune_sk\[plot\]"):
        SaliencyMaskDisplay.from_estimator(clf, X[:2])
