"""A picture of what MaskTune hides."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .._optional import import_optional

__all__ = ["SaliencyMaskDisplay"]


class SaliencyMaskDisplay:
    """What a fitted `MaskTuneClassifier` looks at, and what it hides.

    For images a row a sample: the image, the saliency map of the ERM net over it, the
    mask, and the masked image. For vectors a bar for each feature: how often it is
    masked. Make it with `from_estimator`; the constructor only stores.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_channels, height, width), or vectors
        The samples.
    maps : ndarray of shape (n_samples, height, width) or (n_samples, n_features)
        Their saliency maps, in [0, 1].
    masks : ndarray of bool, same shape as `maps`
        True = kept.
    X_masked : ndarray of the same shape as X
        The masked samples.
    titles : list of str, default=None
        A line for each sample.
    feature_names : sequence of str, default=None
        Names of the features.

    Attributes
    ----------
    figure_ : matplotlib.figure.Figure
        The figure of the last `plot`.
    axes_ : ndarray of matplotlib Axes, shape (n_samples, 4) or (1, 1)
        Its axes.
    """

    def __init__(self, *, X, maps, masks, X_masked, titles=None, feature_names=None):
        self.X = X
        self.maps = maps
        self.masks = masks
        self.X_masked = X_masked
        self.titles = titles
        self.feature_names = feature_names

    @classmethod
    def from_estimator(cls, clf, X, y=None, *, ax=None, max_features=20):
        """Draw what a fitted estimator hides.

        Parameters
        ----------
        clf : MaskTuneClassifier
            A fitted estimator.
        X : array-like of shape (n_samples, ...)
            The samples to show; a row each for images, so pass a few.
        y : array-like of shape (n_samples,), default=None
            Their labels, shown beside the predictions.
        ax : matplotlib Axes or array of Axes of shape (n_samples, 4), default=None
            Where to draw; None: a new figure.
        max_features : int, default=20
            For vectors: show the features that are masked most often.

        Returns
        -------
        display : SaliencyMaskDisplay
            The numbers, and the figure.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        ImportError
            If matplotlib is missing; the extra ``plot`` brings it.

        Examples
        --------
        >>> from masktune_sk import MaskTuneClassifier
        >>> from masktune_sk.inspection import SaliencyMaskDisplay
        >>> from sklearn.datasets import load_wine
        >>> X, y = load_wine(return_X_y=True)
        >>> clf = MaskTuneClassifier(random_state=0).fit(X, y)
        >>> display = SaliencyMaskDisplay.from_estimator(clf, X, y)
        >>> display.figure_.savefig  # doctest: +ELLIPSIS
        <bound method ...>
        """
        check_is_fitted(clf)
        X_masked, masks = clf.mask(X)
        titles = [f"predicted: {label}" for label in clf.predict(X)]
        if y is not None:
            titles = [
                f"label: {label}\n{title}"
                for label, title in zip(y, titles, strict=True)
            ]
        display = cls(
            X=np.asarray(X),
            maps=clf.saliency_maps(X, net="erm"),
            masks=masks,
            X_masked=X_masked,
            titles=titles,
            feature_names=getattr(clf, "feature_names_in_", None),
        )
        return display.plot(ax=ax, max_features=max_features)

    def plot(self, ax=None, *, max_features=20):
        """Draw the stored numbers.

        Parameters
        ----------
        ax : matplotlib Axes or array of Axes of shape (n_samples, 4), default=None
            Where to draw; None: a new figure.
        max_features : int, default=20
            For vectors: show the features that are masked most often.

        Returns
        -------
        display : SaliencyMaskDisplay
            This object, with `figure_` and `axes_`.
        """
        plt = import_optional(
            "matplotlib.pyplot", caller="SaliencyMaskDisplay.plot", extra="plot"
        )
        if self.masks.ndim == 2:
            self._plot_features(plt, ax, max_features)
        else:
            self._plot_images(plt, ax)
        self.figure_ = self.axes_.flat[0].figure
        return self

    def _plot_images(self, plt, ax):
        n = len(self.X)
        if ax is None:
            _, ax = plt.subplots(
                n, 4, figsize=(6.4, 1.4 * n + 0.3), squeeze=False, layout="constrained"
            )
        self.axes_ = np.asarray(ax, dtype=object)
        if self.axes_.shape != (n, 4):
            raise ValueError(
                f"ax must be an array of Axes of shape ({n}, 4), a row a sample; "
                f"got {self.axes_.shape}."
            )
        show = _image_scale(self.X)
        for i, row in enumerate(self.axes_):
            image = show(self.X[i])
            row[0].imshow(image, cmap="gray", vmin=0, vmax=1)
            row[1].imshow(image.mean(axis=-1), cmap="gray", vmin=0, vmax=1)
            row[1].imshow(self.maps[i], cmap="magma", vmin=0, vmax=1, alpha=0.7)
            row[2].imshow(self.masks[i], cmap="gray", vmin=0, vmax=1)
            row[3].imshow(show(self.X_masked[i]), cmap="gray", vmin=0, vmax=1)
            for axes in row:
                axes.set(xticks=[], yticks=[])
            if self.titles is not None:
                row[0].set_ylabel(
                    self.titles[i], rotation=0, ha="right", va="center", fontsize=9
                )
        hidden = 100 * (1 - self.masks.mean())
        names = "image", "saliency map", f"mask, {hidden:.1f} % hidden", "masked image"
        for axes, name in zip(self.axes_[0], names, strict=True):
            axes.set_title(name, fontsize=10)

    def _plot_features(self, plt, ax, max_features):
        share = 1 - self.masks.mean(axis=0)
        order = np.argsort(-share, kind="stable")[:max_features]
        names = self.feature_names
        if names is None:
            names = [f"feature {i}" for i in range(len(share))]
        if ax is None:
            _, ax = plt.subplots(
                figsize=(6.4, 0.28 * len(order) + 1.2), layout="constrained"
            )
        self.axes_ = np.array([[ax]], dtype=object)
        ax.barh([str(names[i]) for i in order], 100 * share[order])
        ax.invert_yaxis()
        ax.set(
            xlabel="masked in % of samples",
            xlim=(0, 100),
            title=f"What is hidden, {len(self.masks)} samples",
        )


def _image_scale(X):
    """Return how to show one image of a stack: channels last, in [0, 1]."""
    low, high = float(X.min()), float(X.max())
    if 0 <= low and high <= 1:
        low, high = 0.0, 1.0
    elif 0 <= low and high <= 255:
        low, high = 0.0, 255.0
    n_channels = X.shape[1]

    def show(image):
        image = np.clip((image - low) / max(high - low, 1e-12), 0, 1)
        if n_channels not in (3, 4):
            image = image.mean(axis=0, keepdims=True).repeat(3, axis=0)
        return np.moveaxis(image, 0, -1)

    return show
