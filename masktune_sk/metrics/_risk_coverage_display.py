"""The picture of risk against coverage."""

import numpy as np

from masktune_sk._optional import import_optional
from masktune_sk.metrics._by_group import evaluate_groups
from masktune_sk.metrics._intervals import check_interval, proportion_interval
from masktune_sk.metrics._scorers import predict_with_score
from masktune_sk.metrics._selective import (
    accept_from_top,
    aurc_loss,
    check_selective,
    count_accepted,
)

_COVERAGES = {
    "all": "Coverage of all samples",
    "group": "Coverage of the group",
}
_FEW_POINTS = 20


class RiskCoverageDisplay:
    """Risk against coverage: what abstaining buys.

    A line for a classifier, or one for each group of samples. Make it with
    `from_estimator` or `from_predictions`; the constructor only stores. Several
    classifiers on one plot: pass the `ax_` of the first to the others.

    Parameters
    ----------
    coverages : list of ndarray of shape (n_thresholds,)
        For each line the shares on the x-axis, increasing, in [0, 1].
    risks : list of ndarray of shape (n_thresholds,)
        The share of errors among the accepted, in [0, 1]; NaN where nothing is
        accepted.
    n_accepted : list of ndarray of shape (n_thresholds,)
        How many samples that is the share of.
    intervals : list of (low, high), default=None
        The ends of the bands, arrays like the risks. None: no bands.
    confidence : float, default=None
        The confidence of the bands, for the legend.
    groups : list of str or int, default=None
        The group of each line. None: one line, of all samples.
    coverage_of : {"all", "group"}, default="all"
        What the x-axis is the coverage of.
    aurc : float, default=None
        The area under the one line, for the legend.
    name : str, default=None
        Name of the classifier, for the legend.

    Attributes
    ----------
    line_ : matplotlib Line2D or list of Line2D
        The line; a list of them if there are groups.
    band_ : matplotlib PolyCollection, list of PolyCollection or None
        The band, likewise; None if there are none.
    ax_ : matplotlib Axes
        Where the last `plot` has drawn.
    figure_ : matplotlib Figure
        Its figure.

    See Also
    --------
    risk_coverage_curve : The numbers of one line.
    aurc_loss : The area under it.

    Examples
    --------
    >>> import matplotlib.pyplot as plt
    >>> from masktune_sk.metrics import RiskCoverageDisplay
    >>> from sklearn.datasets import load_digits
    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.naive_bayes import GaussianNB
    >>> X, y = load_digits(return_X_y=True)
    >>> train, test = slice(None, 400), slice(400, None)
    >>> linear = LogisticRegression(max_iter=1000).fit(X[train], y[train])
    >>> bayes = GaussianNB().fit(X[train], y[train])
    >>> display = RiskCoverageDisplay.from_estimator(
    ...     linear, X[test], y[test], confidence=0.95
    ... )
    >>> _ = RiskCoverageDisplay.from_estimator(bayes, X[test], y[test], ax=display.ax_)
    >>> plt.close(display.figure_)
    """

    def __init__(
        self,
        *,
        coverages,
        risks,
        n_accepted,
        intervals=None,
        confidence=None,
        groups=None,
        coverage_of="all",
        aurc=None,
        name=None,
    ):
        self.coverages = coverages
        self.risks = risks
        self.n_accepted = n_accepted
        self.intervals = intervals
        self.confidence = confidence
        self.groups = groups
        self.coverage_of = coverage_of
        self.aurc = aurc
        self.name = name

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y,
        *,
        groups=None,
        coverage_of="all",
        confidence=None,
        method="clopper-pearson",
        min_accepted=30,
        name=None,
        ax=None,
        **kwargs,
    ):
        """Draw the risk of a fitted classifier against its coverage.

        Parameters
        ----------
        estimator : object
            A fitted classifier with ``selection_score``, or else with
            ``predict_proba``: then the score is the largest probability. A pipeline or
            a search that ends in one will do.
        X : array-like of shape (n_samples, ...)
            Samples that it was not trained on.
        y : array-like of shape (n_samples,)
            Their labels.
        groups : array-like of shape (n_samples,), default=None
            The group of each sample: a line for each. None: one line.
        coverage_of : {"all", "group"}, default="all"
            See `from_predictions`.
        confidence : float in (0, 1), default=None
            See `from_predictions`.
        method : {"clopper-pearson", "wilson"}, default="clopper-pearson"
            See `from_predictions`.
        min_accepted : int, default=30
            See `from_predictions`.
        name : str, default=None
            Name for the legend. None: the class of the estimator, or nothing if there
            are groups.
        ax : matplotlib Axes, default=None
            Where to draw; None: a new figure. With groups the legend stands to the
            right of it: make the figure with ``layout="constrained"``.
        **kwargs : dict
            Passed to matplotlib's `plot`, for every line.

        Returns
        -------
        display : RiskCoverageDisplay
            The numbers, and the figure.

        Raises
        ------
        ValueError
            If the estimator has neither ``selection_score`` nor ``predict_proba``; and
            as `from_predictions`.
        ImportError
            If matplotlib is missing; the extra ``plot`` brings it.
        """
        y_pred, selection_score = predict_with_score(estimator, X)
        if name is None and groups is None:
            name = type(estimator).__name__
        return cls.from_predictions(
            y,
            y_pred,
            selection_score,
            groups=groups,
            coverage_of=coverage_of,
            confidence=confidence,
            method=method,
            min_accepted=min_accepted,
            name=name,
            ax=ax,
            **kwargs,
        )

    @classmethod
    def from_predictions(
        cls,
        y_true,
        y_pred,
        selection_score,
        *,
        groups=None,
        coverage_of="all",
        confidence=None,
        method="clopper-pearson",
        min_accepted=30,
        name=None,
        ax=None,
        **kwargs,
    ):
        """Draw risk against coverage from labels and scores.

        Parameters
        ----------
        y_true : array-like of shape (n_samples,)
            True class labels.
        y_pred : array-like of shape (n_samples,)
            Predicted class labels, of all samples.
        selection_score : array-like of shape (n_samples,)
            How willing the classifier is to predict each sample; larger = more
            willing.
        groups : array-like of shape (n_samples,), default=None
            The group of each sample, all strings or all integers: a line for each, in
            a colour of its own. None: one line.
        coverage_of : {"all", "group"}, default="all"
            With groups, "all" puts points of one threshold for all groups, as
            ``predict_with_reject`` has it, above each other: x is the coverage of all
            samples. "group" shows each group as if it were alone, at its own coverage.
        confidence : float in (0, 1), default=None
            Draw bands: for each threshold the interval of the risk, which holds the
            true risk with this probability. It does so pointwise, for a threshold that
            was fixed before; not for all of the line at once. None: no bands.
        method : {"clopper-pearson", "wilson"}, default="clopper-pearson"
            How these are computed, see `proportion_interval`.
        min_accepted : int, default=30
            Leave out what fewer samples than these are the risk of: there the line
            jumps with every error. A group that has fewer is drawn whole. The area
            under the line is that of all of it.
        name : str, default=None
            Name of the classifier, for the legend.
        ax : matplotlib Axes, default=None
            Where to draw; None: a new figure. With groups the legend stands to the
            right of it: make the figure with ``layout="constrained"``.
        **kwargs : dict
            Passed to matplotlib's `plot`, for every line.

        Returns
        -------
        display : RiskCoverageDisplay
            The numbers, and the figure.

        Raises
        ------
        ValueError
            If the lengths differ, there is no sample, a label is not a class label, a
            score is not a finite number, a group is missing, neither a string nor an
            integer, or a parameter is none of the above.
        ImportError
            If matplotlib is missing; the extra ``plot`` brings it.
        """
        if coverage_of not in _COVERAGES:
            raise ValueError(
                f"coverage_of must be one of {tuple(_COVERAGES)}, got {coverage_of!r}."
            )
        if confidence is not None:
            check_interval(confidence, method)
        wrong, score = check_selective(y_true, y_pred, selection_score)
        lines = _count_lines(wrong, score, groups, coverage_of)
        coverages, n_accepted, n_errors = zip(*lines.values(), strict=True)
        intervals = None
        if confidence is not None:
            intervals = [
                proportion_interval(*counts, confidence=confidence, method=method)
                for counts in zip(n_errors, n_accepted, strict=True)
            ]
        display = cls(
            coverages=list(coverages),
            risks=[
                # No risk, NaN, where nothing is accepted.
                np.where(n, errors / np.maximum(n, 1), np.nan)
                for errors, n in zip(n_errors, n_accepted, strict=True)
            ],
            n_accepted=list(n_accepted),
            intervals=intervals,
            confidence=confidence,
            groups=None if groups is None else list(lines),
            coverage_of=coverage_of,
            aurc=aurc_loss(y_true, y_pred, score) if groups is None else None,
            name=name,
        )
        return display.plot(ax=ax, min_accepted=min_accepted, **kwargs)

    def plot(self, ax=None, *, min_accepted=30, **kwargs):
        """Draw the stored numbers.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None: a new figure. With groups the legend stands to the
            right of it: make the figure with ``layout="constrained"``.
        min_accepted : int, default=30
            See `from_predictions`.
        **kwargs : dict
            Passed to matplotlib's `plot`, for every line.

        Returns
        -------
        display : RiskCoverageDisplay
            This object, with `line_`, `band_`, `ax_` and `figure_`.
        """
        plt = import_optional(
            "matplotlib.pyplot", caller="RiskCoverageDisplay.plot", extra="plot"
        )
        from matplotlib.cbook import normalize_kwargs

        single = self.groups is None
        if ax is None:
            width = 6.4 if single else 8.4
            _, ax = plt.subplots(figsize=(width, 4.8), layout="constrained")
        kwargs = normalize_kwargs(kwargs, plt.Line2D)
        lines, bands = [], []
        for i, label in enumerate(self._labels()):
            shown = self.n_accepted[i] >= min_accepted
            if not shown.any():
                shown = self.n_accepted[i] > 0
            style = {"label": label}
            if not single:
                # The same colour for a group of every classifier on these axes.
                style["color"] = f"C{i}"
            if shown.sum() <= _FEW_POINTS:
                style["marker"] = "."
            x = self.coverages[i][shown]
            lines += ax.plot(x, self.risks[i][shown], **{**style, **kwargs})
            if self.intervals is not None:
                low, high = (end[shown] for end in self.intervals[i])
                color = lines[-1].get_color()
                bands.append(
                    ax.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)
                )
        ax.set(
            xlabel=_COVERAGES[self.coverage_of],
            ylabel="Risk (error among the accepted)",
            xlim=(0, 1.01),
        )
        ax.set_ylim(bottom=0, auto=None)  # leaves the top to what else is drawn
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_formatter(_percent)
        title = None
        if self.confidence is not None:
            title = f"{100 * self.confidence:g} % intervals, pointwise"
        elif ax.get_legend() is not None:  # of an earlier display on these axes
            title = ax.get_legend().get_title().get_text() or None
        # Lines of groups leave no room within.
        place = {} if single else {"bbox_to_anchor": (1, 1)}
        if ax.get_legend_handles_labels()[0]:
            ax.legend(loc="best" if single else "upper left", title=title, **place)
        self.line_ = lines[0] if single else lines
        self.band_ = None if not bands else bands[0] if single else bands
        self.ax_, self.figure_ = ax, ax.figure
        return self

    def _labels(self):
        """Return the legend's text for each line."""
        if self.groups is None:
            area = None if self.aurc is None else f"AURC = {self.aurc:.3g}"
            if self.name is None:
                return [area]
            return [self.name if area is None else f"{self.name} ({area})"]
        prefix = "" if self.name is None else f"{self.name}, "
        return [
            f"{prefix}{group} (n = {n[-1]})"
            for group, n in zip(self.groups, self.n_accepted, strict=True)
        ]


def _percent(share, _):
    return f"{100 * share:g} %"


def _count_lines(wrong, score, groups, coverage_of):
    """Return for each group coverages, and counts of accepted and of errors."""
    thresholds, n_all, n_errors = accept_from_top(wrong, score)
    coverages = n_all / len(score)
    if groups is None:
        return {None: (coverages, n_all, n_errors)}
    if coverage_of == "all":
        ranks = np.searchsorted(-thresholds, -score)

        def line(wrong, ranks):
            return coverages, *count_accepted(wrong, ranks, len(thresholds))

        return evaluate_groups(line, (wrong, ranks), groups, None, {})

    def own_line(wrong, score):
        _, n_accepted, n_errors = accept_from_top(wrong, score)
        return n_accepted / len(score), n_accepted, n_errors

    return evaluate_groups(own_line, (wrong, score), groups, None, {})
