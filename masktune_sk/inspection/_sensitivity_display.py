"""A picture of how much each logit depends on a concept, before and after."""

import numpy as np
from sklearn.utils.validation import check_is_fitted

from .._optional import import_optional

__all__ = ["SensitivityDisplay"]

_LABEL = "Sensitivity to the concept (logits)"


class SensitivityDisplay:
    """How much each class's logit depends on a concept, before and after correction.

    A pair of bars for each class: the mean over samples of ``|gap * derivative|``, what
    the logit gains or loses between samples with and without the artifact. Make it with
    `from_estimator`; the constructor only stores.

    A net may be insensitive to one direction and still lean on the artifact through
    others: show the accuracy on samples with the artifact beside it, see `accuracies`.

    Parameters
    ----------
    before, after : array-like of shape (n_classes,)
        Sensitivities of the uncorrected and of the corrected net, in logits.
    class_names : sequence of length n_classes, default=None
        Names of the classes. None: their numbers.
    accuracies : (float, float), default=None
        The accuracy of both nets on samples that all show the artifact, in [0, 1]; for
        the legend.

    Attributes
    ----------
    bars_ : tuple of two matplotlib BarContainer
        The bars before and after.
    ax_ : matplotlib Axes
        Where the last `plot` has drawn.
    figure_ : matplotlib Figure
        Its figure.

    See Also
    --------
    masktune_sk.metrics.concept_sensitivity : The numbers.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from masktune_sk.inspection import SensitivityDisplay
    >>> display = SensitivityDisplay(
    ...     before=[2.5, 0.4], after=[0.1, 0.1], class_names=["cat", "dog"]
    ... ).plot()
    >>> plt.close(display.figure_)
    """

    def __init__(self, *, before, after, class_names=None, accuracies=None):
        self.before = before
        self.after = after
        self.class_names = class_names
        self.accuracies = accuracies

    @classmethod
    def from_estimator(
        cls,
        clf,
        *,
        concept=0,
        class_names=None,
        accuracies=None,
        ax=None,
        max_classes=20,
    ):
        """Draw the sensitivities that a fitted estimator has measured.

        Parameters
        ----------
        clf : RRClArCClassifier
            A fitted estimator, with ``sensitivity_before_`` and
            ``sensitivity_after_`` of shape (n_classes,) or (n_concepts, n_classes).
        concept : int, default=0
            Which of several concepts.
        class_names : sequence of length n_classes, default=None
            Names of the classes. None: ``clf.classes_``.
        accuracies : (float, float), default=None
            The accuracy before and after on samples that all show the artifact, in
            [0, 1]; for the legend.
        ax : matplotlib Axes, default=None
            Where to draw; None: a new figure.
        max_classes : int, default=20
            Show the classes that were most sensitive before.

        Returns
        -------
        display : SensitivityDisplay
            The numbers, and the figure.

        Raises
        ------
        sklearn.exceptions.NotFittedError
            If the estimator is not fitted.
        ValueError
            If it has measured no sensitivities, or there is no such concept; and as
            `plot`.
        ImportError
            If matplotlib is missing; the extra ``plot`` brings it.
        """
        check_is_fitted(clf)
        stored = [getattr(clf, f"sensitivity_{x}_", None) for x in ("before", "after")]
        if stored[0] is None or stored[1] is None:
            raise ValueError(
                f"This {type(clf).__name__} has measured no sensitivities: fit it with "
                "a concept, or draw a SensitivityDisplay(before=..., after=...)."
            )
        before, after = (np.atleast_2d(np.asarray(x)) for x in stored)
        if not 0 <= concept < len(before):
            raise ValueError(
                f"concept must be one of 0..{len(before) - 1}, got {concept}."
            )
        display = cls(
            before=before[concept],
            after=after[concept],
            class_names=clf.classes_ if class_names is None else class_names,
            accuracies=accuracies,
        )
        return display.plot(ax=ax, max_classes=max_classes)

    def plot(self, ax=None, *, max_classes=20):
        """Draw the stored numbers.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None: a new figure.
        max_classes : int, default=20
            Show the classes that were most sensitive before.

        Returns
        -------
        display : SensitivityDisplay
            This object, with `bars_`, `ax_` and `figure_`.

        Raises
        ------
        ValueError
            If the lengths of what is stored differ.
        ImportError
            If matplotlib is missing; the extra ``plot`` brings it.
        """
        plt = import_optional(
            "matplotlib.pyplot", caller="SensitivityDisplay.plot", extra="plot"
        )
        before, after, names = self._check()
        # Few classes keep their order; of many the most sensitive stand first.
        shown = np.arange(len(before))
        if len(before) > max_classes:
            shown = np.argsort(-before, kind="stable")[:max_classes]
        if ax is None:
            height = 0.45 * len(shown) + 1.4
            _, ax = plt.subplots(figsize=(6.4, height), layout="constrained")
        labels = ["before", "after"]
        if self.accuracies is not None:
            labels = [
                f"{label}: {100 * accuracy:.1f} % right with the artifact"
                for label, accuracy in zip(labels, self.accuracies, strict=True)
            ]
        y = np.arange(len(shown))
        self.bars_ = tuple(
            ax.barh(y + offset, values[shown], height=0.4, color=color, label=label)
            for values, offset, color, label in zip(
                (before, after), (-0.2, 0.2), ("0.6", "C0"), labels, strict=True
            )
        )
        ax.set_yticks(y, [str(names[i]) for i in shown])
        ylabel = "Logit of class"
        if len(shown) < len(before):
            ylabel += f" (the {len(shown)} most sensitive of {len(before)})"
        ax.set(xlabel=_LABEL, ylabel=ylabel, ylim=(len(shown) - 0.4, -0.6))
        # Above the axes, where no bar is.
        ax.legend(
            loc="lower left",
            bbox_to_anchor=(0, 1),
            ncols=2 if self.accuracies is None else 1,
            frameon=False,
        )
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _check(self):
        """Return the numbers as arrays, and a name for each class."""
        before, after = (np.asarray(x, dtype=float) for x in (self.before, self.after))
        names = range(before.size) if self.class_names is None else self.class_names
        if before.ndim != 1 or after.shape != before.shape or len(names) != len(before):
            raise ValueError(
                "before, after and class_names must hold a value for each class; got "
                f"the shapes {before.shape} and {after.shape}, and {len(names)} names."
            )
        return before, after, names
