"""The picture of a layer report."""

import numpy as np

from .._optional import import_optional

__all__ = ["LayerReportDisplay"]

_PREFIX = "decodability_"


class LayerReportDisplay:
    """Effective rank and linear decodability over depth, a line a branch.

    Make it with `LayerReport.plot`; the constructor only stores.

    Parameters
    ----------
    report : LayerReport
        The numbers.

    Attributes
    ----------
    lines_ : dict of str to list of matplotlib Line2D
        The lines of each branch, one for each of the axes.
    axes_ : ndarray of matplotlib Axes, shape (1 + n_attributes,)
        Effective rank, then the decodability of each attribute.
    figure_ : matplotlib Figure
        Their figure.

    See Also
    --------
    layer_report : Makes the report.
    """

    def __init__(self, report):
        self.report = report

    def plot(self, ax=None):
        """Draw the stored numbers.

        Parameters
        ----------
        ax : array of matplotlib Axes of shape (1 + n_attributes,), default=None
            Where to draw; None: a new figure.

        Returns
        -------
        display : LayerReportDisplay
            This object, with `lines_`, `axes_` and `figure_`.

        Raises
        ------
        ValueError
            If `ax` holds another number of axes.
        ImportError
            If matplotlib is missing; the extra ``plot`` brings it.
        """
        plt = import_optional(
            "matplotlib.pyplot", caller="LayerReportDisplay.plot", extra="plot"
        )
        from matplotlib.ticker import MaxNLocator

        columns = self.report.to_dict()
        decoded = list(self.report.chance)
        n_panels = 1 + len(decoded)
        if ax is None:
            _, ax = plt.subplots(
                1, n_panels, figsize=(3.2 * n_panels, 3.0), layout="constrained"
            )
        self.axes_ = np.atleast_1d(np.asarray(ax, dtype=object))
        if self.axes_.shape != (n_panels,):
            raise ValueError(
                f"ax must be an array of {n_panels} Axes, for the effective rank and "
                f"for what is decoded ({', '.join(decoded)}); got shape "
                f"{self.axes_.shape}."
            )
        names = ["effective_rank", *(_PREFIX + name for name in decoded)]
        branch = np.array(columns["branch"], dtype=object)
        depth = np.array(columns["depth"])
        self.lines_ = {name: [] for name in dict.fromkeys(columns["branch"])}
        for axes, name in zip(self.axes_, names, strict=True):
            values = np.array(columns[name])
            for one, lines in self.lines_.items():
                own = branch == one
                lines += axes.plot(depth[own], values[own], marker=".", label=one)
            axes.set_xlabel("Layer")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        self.axes_[0].set(title="Effective rank")
        self.axes_[0].set_ylim(bottom=0, auto=None)
        self.axes_[0].legend(title="Branch")
        for axes, (name, chance) in zip(
            self.axes_[1:], self.report.chance.items(), strict=True
        ):
            axes.axhline(chance, color="gray", linestyle=":")
            axes.text(
                0.02,
                chance,
                "chance",
                transform=axes.get_yaxis_transform(),
                verticalalignment="bottom",
                color="gray",
            )
            axes.set(title=f"Linear decodability of {name}", ylim=(0, 1.02))
        self.axes_[1].set_ylabel("Balanced accuracy")
        self.figure_ = self.axes_[0].figure
        return self
