"""Results of a card beside what was published: rows, a table, and a CSV file."""

import csv
import platform
import statistics
from importlib.metadata import version

COLUMNS = (
    "card",
    "setting",
    "scale",
    "epochs",
    "reduced",
    "method",
    "test",
    "metric",
    "mean",
    "std",
    "n_seeds",
    "values",
    "published",
    "tolerance",
    "verdict",
    "reported_by",
    "source",
    "at_least",
    "goal",
    "goal_verdict",
    "minutes",
    "versions",
)
# What one row stands for; a file holds the rows of several runs of its card.
RUN = ("setting", "epochs", "scale")
DETAILS = ("group ", "mean of groups", "coverage got")
PACKAGES = ("masktune_sk", "torch", "torchvision", "skorch", "scikit-learn", "numpy")


def compare(card, scale, results, minutes):
    """Make a row of each result.

    Parameters
    ----------
    card : Card
        What was run.
    scale : {"full", "small"}
        How.
    results : dict of (method, test, metric) to list of float
        A percentage for each seed.
    minutes : dict of str to float
        What each method took, all seeds together.

    Returns
    -------
    rows : list of dict
        With the keys `COLUMNS`; all values are strings, empty where there is none.
    """
    reported, goals = (
        {(entry.method, entry.test, entry.metric): entry for entry in entries}
        for entries in (card.figures.reported, card.figures.goals)
    )
    shared = {
        "card": card.name,
        "setting": card.setting,
        "scale": scale,
        "epochs": str(card.training.epochs),
        "reduced": card.reduced,
        "versions": ", ".join(
            [f"Python {platform.python_version()}"]
            + [f"{name} {version(name)}" for name in PACKAGES]
        ),
    }
    rows = []
    for cell, values in results.items():
        mean = statistics.fmean(values)
        row = dict.fromkeys(COLUMNS, "") | shared
        row |= dict(zip(("method", "test", "metric"), cell, strict=True))
        row |= {
            "mean": f"{mean:.2f}",
            "std": f"{statistics.stdev(values):.2f}" if len(values) > 1 else "",
            "n_seeds": str(len(values)),
            "values": " ".join(f"{value:.2f}" for value in values),
            "verdict": "none published",
            "minutes": f"{minutes[cell[0]]:.1f}",
        }
        row |= _judge(mean, reported.get(cell), card.figures.sources)
        row |= _judge_goal(mean, goals.get(cell))
        if scale == "small":
            row |= {"verdict": "small scale", "goal_verdict": ""}
        rows.append(row)
    return rows


def _judge(mean, figure, sources):
    if figure is None:
        return {}
    inside = abs(mean - figure.value) <= figure.tolerance
    return {
        "published": f"{figure.value:g}",
        "tolerance": f"{figure.tolerance:g}",
        "verdict": "inside" if inside else "outside",
        "reported_by": figure.source,
        "source": sources[figure.source],
    }


def _judge_goal(mean, goal):
    if goal is None:
        return {}
    reached = goal.aim is not None and mean >= goal.aim
    held = "held" if mean >= goal.at_least else "MISSED"
    return {
        "at_least": f"{goal.at_least:g}",
        "goal": "" if goal.aim is None else f"{goal.aim:g}",
        "goal_verdict": "reached" if reached else held,
    }


def print_table(rows):
    """Print the rows, less those of details that nobody reports."""
    lines = [("method", "test", "metric", "mean ± std", "published", "", "goal", "")]
    for row in rows:
        if row["metric"].startswith(DETAILS) and not row["published"]:
            continue
        published = f"{row['published']} ± {row['tolerance']} ({row['reported_by']})"
        goal = f"{row['goal']}, at least {row['at_least']}".removeprefix(", ")
        lines.append(
            (
                *(row[column] for column in ("method", "test", "metric")),
                f"{row['mean']} ± {row['std']}" if row["std"] else row["mean"],
                published if row["published"] else "",
                row["verdict"],
                goal if row["at_least"] else "",
                row["goal_verdict"],
            )
        )
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        print("  ".join(cells).rstrip())


def write_rows(path, rows):
    """Write rows to a CSV file, in place of those of the same runs.

    Rows of other runs of the card (other epochs, another value of its sweep) that the
    file holds already are kept.
    """
    new = {tuple(row[column] for column in RUN) for row in rows}
    kept = []
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            old = list(csv.DictReader(file))
        kept = [row for row in old if tuple(row[c] for c in RUN) not in new]
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        # The line end of text files, not csv's own, so that a diff stays readable.
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(kept + rows)
