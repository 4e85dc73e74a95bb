"""The pictures of a report, drawn without the state of pyplot."""

from base64 import b64encode
from contextlib import contextmanager
from io import BytesIO

import numpy as np

from ..._optional import import_optional
from ...metrics import RiskCoverageDisplay
from .._layer_report_display import LayerReportDisplay
from .._mask_display import SaliencyMaskDisplay
from .._sensitivity_display import SensitivityDisplay
from .blocks import PLURAL, Figure, percent

__all__ = [
    "draw_accuracy",
    "draw_concept",
    "draw_layers",
    "draw_risk_coverage",
    "draw_training",
    "draw_where_hidden",
    "require_matplotlib",
]

# Okabe and Ito's colours, which the colour-blind tell apart; markers and dashes tell
# the lines apart on a grey print.
COLORS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
OURS = "#0072B2"
MARKERS = "sD^vP*"
DASHES = ((0, (5, 2)), (0, (1, 1)), (0, (5, 1, 1, 1)), (0, (3, 1)), (0, (1, 3)))
DPI = 144
WIDTH = 8.0
MOST_PARTS = 30
MOST_PANELS = 12


def require_matplotlib(caller):
    """Import matplotlib, or say which extra brings it."""
    return import_optional("matplotlib.pyplot", caller=caller, extra="report")


@contextmanager
def _figure(height, width=WIDTH):
    """Make a figure on Agg, with matplotlib's own style whatever the user's is."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(
            {
                "font.size": 9,
                "axes.titlesize": 9,
                "axes.spines.top": False,
                "axes.spines.right": False,
                "legend.frameon": False,
                "axes.prop_cycle": mpl.cycler(color=[OURS, *COLORS]),
                # Class names and groups may hold a "$".
                "text.parse_math": False,
            }
        )
        figure = Canvas(figsize=(width, height), layout="constrained")
        FigureCanvasAgg(figure)
        yield figure


def _as_block(figure, alt, caption):
    """Draw a figure; return it with the words for it."""
    file = BytesIO()
    figure.savefig(file, format="png", dpi=DPI)
    width = round(96 * figure.get_size_inches()[0])
    return Figure(b64encode(file.getvalue()).decode(), alt, caption, width)


def _styles(names, ours):
    """Return colour, marker and dashes for each classifier."""
    styles = {ours: {"color": OURS, "marker": "o", "linestyle": "-"}}
    for i, name in enumerate(name for name in names if name != ours):
        styles[name] = {
            "color": COLORS[i % len(COLORS)],
            "marker": MARKERS[i % len(MARKERS)],
            "linestyle": DASHES[i % len(DASHES)],
        }
    return styles


def draw_accuracy(accuracy, ours):
    """Draw the accuracy of each classifier in each group, with intervals."""
    classifiers, by = accuracy["classifiers"], accuracy["by"]
    names = list(classifiers[ours]["parts"])
    lowest = sorted(names, key=lambda n: classifiers[ours]["parts"][n]["share"])
    shown = [name for name in names if name in set(lowest[:MOST_PARTS])]
    rows = [*shown, "all samples"]
    styles = _styles(classifiers, ours)
    height = 1.0 + len(rows) * (0.16 + 0.09 * len(classifiers))
    with _figure(height) as figure:
        axes = figure.add_subplot()
        axes.axhspan(len(shown) - 0.5, len(shown) + 0.5, color="0.94", linewidth=0)
        offsets = np.linspace(-0.3, 0.3, len(classifiers) + 2)[1:-1]
        for (name, numbers), offset in zip(classifiers.items(), offsets, strict=True):
            cells = [numbers["parts"][part] for part in shown] + [numbers["all"]]
            share, low, high = (
                100 * np.array([cell[key] for cell in cells])
                for key in ("share", "low", "high")
            )
            axes.errorbar(
                share,
                np.arange(len(rows)) + offset,
                # Of a count that is all or none an end may be off by rounding.
                xerr=np.maximum([share - low, high - share], 0),
                label=name,
                markersize=5,
                elinewidth=1,
                **(styles[name] | {"linestyle": "none"}),
            )
        axes.set_yticks(np.arange(len(rows)), [_short(name) for name in rows])
        axes.set(xlabel="Accuracy in %", xlim=(-2, 102), ylim=(len(rows) - 0.5, -0.5))
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper left", ncols=min(3, len(classifiers)))
        worst = "; ".join(
            f"{name}: {_percent(numbers['all']['share'])} of all samples right, "
            f"{_percent(numbers['worst']['share'])} in its worst {by}, "
            f"{numbers['worst']['name']}"
            for name, numbers in classifiers.items()
        )
        few = ""
        if len(shown) < len(names):
            few = f" The {len(shown)} of {len(names)} {PLURAL[by]}"
            few += f" where {ours} does worst."
        return _as_block(
            figure,
            f"Accuracy by {by}. {worst}.",
            f"Accuracy with {100 * accuracy['confidence']:g} % intervals.{few}",
        )


def draw_where_hidden(where, facts, parts):
    """Draw how often each position is hidden, for each group; of vectors, for all."""
    if where.ndim == 2:
        return _draw_features(where, facts, parts)
    shown = min(len(where), MOST_PANELS)
    hidden = facts["hidden"]["parts"]
    shares = ", ".join(
        f"{name} {_percent(hidden[name])}" for name in parts.names[:shown]
    )
    columns = min(shown, 4)
    rows = -(-shown // columns)
    with _figure(0.6 + 1.75 * rows) as figure:
        axes = figure.subplots(rows, columns, squeeze=False)
        top = max(100 * where.max(), 1e-9)
        for panel in axes.flat[shown:]:
            panel.set_axis_off()
        for i, panel in enumerate(axes.flat[:shown]):
            image = panel.imshow(100 * where[i], cmap="magma", vmin=0, vmax=top)
            panel.set(xticks=[], yticks=[], title=_short(parts.names[i], 24))
            panel.spines[:].set_visible(False)
        figure.colorbar(image, ax=axes, label="hidden in % of samples", shrink=0.9)
        few = "" if shown == len(where) else f" The first {shown} of {len(where)}."
        return _as_block(
            figure,
            f"Where pixels are hidden, a picture for each {parts.by}. Mean share of "
            f"the image hidden: {shares}.",
            f"How often each pixel is hidden, by {parts.by}.{few}",
        )


def _draw_features(where, facts, parts):
    share = np.average(where, axis=0, weights=parts.counts)
    # The display averages masks of samples: one for each feature's share.
    display = SaliencyMaskDisplay(
        X=None,
        maps=None,
        masks=1 - share[None],
        X_masked=None,
        feature_names=facts.get("feature_names"),
    )
    n_shown = min(20, len(share))
    with _figure(0.28 * n_shown + 1.2) as figure:
        axes = figure.add_subplot()
        display.plot(ax=axes)
        axes.set_title("")
        order = np.argsort(-share, kind="stable")[:3]
        names = facts.get("feature_names") or [
            f"feature {i}" for i in range(len(share))
        ]
        most = ", ".join(f"{names[i]} in {_percent(share[i])}" for i in order)
        return _as_block(
            figure,
            f"How often each feature is hidden; most often {most} of the samples.",
            f"The {n_shown} features that are hidden most often.",
        )


def draw_risk_coverage(inputs, predictions, facts):
    """Draw the risk of each classifier against what it accepts."""
    scored = [one for one in predictions if one.scores is not None]
    styles = _styles([one.name for one in scored], inputs.name)
    with _figure(3.6) as figure:
        axes = figure.add_subplot()
        for one in scored:
            style = styles[one.name] | {"marker": "none"}
            ours = one.name == inputs.name
            RiskCoverageDisplay.from_predictions(
                inputs.y,
                one.labels,
                one.scores,
                confidence=inputs.confidence if ours else None,
                name=one.name,
                ax=axes,
                **style,
            )
        alt = "; ".join(
            f"{name}: risk {_percent(numbers['risk_at_coverage']['1'])} at full "
            f"coverage, {_percent(numbers['risk_at_coverage']['0.8'])} at 80 %, area "
            f"under the curve {numbers['aurc']:.3f}"
            for name, numbers in facts["classifiers"].items()
        )
        return _as_block(
            figure,
            f"Risk against coverage. {alt}.",
            "Error among the accepted samples, when the least sure ones are refused. "
            "The threshold is chosen on these samples.",
        )


def draw_training(training):
    """Draw loss and accuracy, epoch by epoch, a line for each stage."""
    rows = training["rows"]
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    has_accuracy = any("valid_acc" in row for row in rows)
    with _figure(2.8) as figure:
        panels = figure.subplots(1, 1 + has_accuracy, squeeze=False)[0]
        series = [("train_loss", "-", "."), ("valid_loss", DASHES[0], "x")]
        for i, stage in enumerate(stages):
            epochs = [k for k, row in enumerate(rows) if row["stage"] == stage]
            style = {"color": (OURS, *COLORS)[i % (1 + len(COLORS))], "markersize": 4}
            for name, dashes, marker in series:
                points = [k for k in epochs if name in rows[k]]
                if points:
                    panels[0].plot(
                        [k + 1 for k in points],
                        [rows[k][name] for k in points],
                        linestyle=dashes,
                        marker=marker,
                        label=f"{stage}, {name.removesuffix('_loss')}",
                        **style,
                    )
            points = [k for k in epochs if "valid_acc" in rows[k]]
            if points:
                panels[-1].plot(
                    [k + 1 for k in points],
                    [100 * rows[k]["valid_acc"] for k in points],
                    linestyle=DASHES[0],
                    marker="x",
                    **style,
                )
        panels[0].set(title="Loss", xlabel="epoch")
        panels[0].set_ylim(bottom=0, auto=None)
        if has_accuracy:
            panels[-1].set(title="Validation accuracy in %", xlabel="epoch")
        for panel in panels:
            panel.xaxis.get_major_locator().set_params(integer=True)
            panel.grid(axis="y", color="0.9")
        figure.legend(loc="outside lower center", ncols=min(4, 2 * len(stages)))
        alt = "; ".join(
            f"{stage}: {_ends([row for row in rows if row['stage'] == stage])}"
            for stage in stages
        )
        return _as_block(
            figure,
            f"Training curves. {alt}.",
            "Loss and validation accuracy of each stage. Losses of stages that "
            "minimise something else are on another scale.",
        )


def _ends(rows):
    """Say in words how the training loss went."""
    losses = [row["train_loss"] for row in rows if "train_loss" in row]
    if not losses:
        return f"{len(rows)} epochs"
    return f"{len(rows)} epochs, training loss {losses[0]:.3g} to {losses[-1]:.3g}"


def draw_concept(facts, i):
    """Draw what one concept is worth to the logits, before and after."""
    before, after = (facts[f"sensitivity_{x}"][i] for x in ("before", "after"))
    height = 0.34 * min(len(before), 20) + 1.3
    with _figure(height) as figure:
        axes = figure.add_subplot()
        SensitivityDisplay(
            before=before, after=after, class_names=facts["classes"]
        ).plot(ax=axes)
        return _as_block(
            figure,
            "Sensitivity of each logit to the concept. Mean over classes: "
            f"{np.mean(before):.3g} before, {np.mean(after):.3g} after.",
            "How many logits the artifact is worth, before and after the correction.",
        )


def draw_layers(report):
    """Draw what the layers of each branch know."""
    with _figure(2.8) as figure:
        panels = figure.subplots(1, 1 + len(report.chance))
        LayerReportDisplay(report).plot(ax=panels)
        last = {row["branch"]: row for row in report.rows}
        alt = "; ".join(
            f"{branch}: "
            + ", ".join(
                f"{name} {_percent(row[f'decodability_{name}'])}"
                for name in report.chance
            )
            for branch, row in last.items()
        )
        return _as_block(
            figure,
            "Effective rank and linear decodability over depth. Balanced accuracy of "
            f"decoding from the last layer: {alt}.",
            f"What each layer knows, measured on {report.n_samples} samples.",
        )


def _percent(share):
    return f"{percent(share)} %"


def _short(name, most=40):
    """Shorten a long name for an axis; the end of a group tells the bias."""
    half = most // 2
    return name if len(name) <= most else f"{name[: half - 1]}…{name[-half:]}"
