"""From facts to sections: what a report says, and what it says is missing."""

from .blocks import PLURAL, Bullets, Section, Table, Text, percent
from .intervention_text import describe_intervention

__all__ = ["build_sections"]

DONE = {
    "masks": "What was hidden",
    "branches": "How the branches parted",
    "concept": "What was corrected",
    None: "What was done",
}


def interval(cell):
    """Return the interval of a counted share, in percent."""
    return f"{percent(cell['low'])} to {percent(cell['high'])}"


def build_sections(facts, pictures, missing):
    """Put what was found into sections.

    Parameters
    ----------
    facts : dict
        See `collect`.
    pictures : dict of str to list of block
        By section, what was drawn.
    missing : dict of str to list of str
        By section, why something is left out.

    Returns
    -------
    sections : list of Section
        In the order of reading.
    """
    contents = {
        # Drawn, it brings the verdict.
        "diagnosis": (
            "Diagnosis",
            [] if "diagnosis" in pictures else _diagnosis(facts["diagnosis"]),
        ),
        "accuracy": (f"Accuracy by {facts['accuracy']['by']}", _accuracy(facts)),
        "intervention": (
            DONE[(facts["intervention"] or {}).get("kind")],
            describe_intervention(facts),
        ),
        "pictures": ("Before and after, in pictures", []),
        "abstention": ("Abstention", _abstention(facts)),
        "certificate": ("Certificate", _certificate(facts)),
        "training": ("Training", _training(facts["training"])),
        "data": ("Data", _data(facts)),
        "made": ("Parameters, versions and seeds", _made(facts)),
    }
    sections = []
    for key, (title, found) in contents.items():
        left_out = [Text(text, left_out=True) for text in missing.get(key, ())]
        drawn = pictures.get(key, [])
        # A text that says what this is stands before the picture of it.
        first = 1 if found and isinstance(found[0], Text) else 0
        blocks = [*found[:first], *drawn, *found[first:], *left_out]
        if blocks:
            sections.append(Section(key, title, blocks))
    return sections


def _diagnosis(diagnosis):
    if diagnosis is None:
        return []
    return [Text(f"{diagnosis['verdict']} Recommended: {diagnosis['recommendation']}")]


def _accuracy(facts):
    accuracy = facts["accuracy"]
    classifiers, by = accuracy["classifiers"], accuracy["by"]
    confidence = f"{100 * accuracy['confidence']:g} % interval"
    head = [by.capitalize(), "n"]
    for name in classifiers:
        head += [f"{name}, %", confidence]
    columns = list(classifiers.values())
    rows = []
    for part, first in columns[0]["parts"].items():
        row = [part, str(first["n"])]
        for numbers in columns:
            cell = numbers["parts"][part]
            row += [percent(cell["share"]), interval(cell)]
        rows.append(row)
    n_parts = len(rows)
    row = ["All samples", str(columns[0]["all"]["n"])]
    for numbers in columns:
        row += [percent(numbers["all"]["share"]), interval(numbers["all"])]
    rows.append(row)
    rows.append([f"Mean of the {PLURAL[by]}", ""])
    rows.append([f"Worst {by}", ""])
    for numbers in columns:
        rows[-2] += [percent(numbers["mean"]), ""]
        worst = numbers["parts"][numbers["worst"]["name"]]
        rows[-1] += [percent(worst["share"]), interval(worst)]
    blocks = [
        Table(
            f"Accuracy in %, by {by}",
            tuple(head),
            tuple(map(tuple, rows)),
            strong=(n_parts, n_parts + 1, n_parts + 2),
        ),
        Text(
            "Intervals are Clopper and Pearson's, each by itself. The worst "
            f"{by} is the one that came out worst on these samples, so its interval "
            "reads too low."
        ),
    ]
    if by == "class":
        blocks.append(
            Text(
                "No groups were given. A shortcut shows where it misleads: pass "
                "groups, class x bias, to see its worst group.",
                left_out=True,
            )
        )
    return blocks


def _abstention(facts):
    abstention = facts["abstention"]
    blocks = []
    classifiers = abstention["classifiers"]
    if classifiers:
        coverages = list(next(iter(classifiers.values()))["risk_at_coverage"])
        head = ["Classifier", "AURC"]
        head += [f"risk at {100 * float(c):g} % coverage, %" for c in coverages]
        rows = tuple(
            (
                name,
                f"{numbers['aurc']:.4f}",
                *(percent(risk) for risk in numbers["risk_at_coverage"].values()),
            )
            for name, numbers in classifiers.items()
        )
        blocks.append(Table("Risk at a coverage", tuple(head), rows))
    found = abstention["threshold"]
    if "why_not" in found:
        text = f"What the estimator's own threshold accepts: {found['why_not']}"
        return [*blocks, Text(text, left_out=True)]
    by = facts["accuracy"]["by"]
    confidence = f"{100 * facts['accuracy']['confidence']:g} % interval"
    rows = [
        (
            part,
            str(cell["n"]),
            percent(cell["share"]),
            interval(cell),
            percent(right["share"]),
            interval(right) if right["n"] else "–",
        )
        for part, cell, right in _pairs(found)
    ]
    value = found["value"]
    if isinstance(value, dict):
        threshold = "thresholds by group"
    elif value == float("-inf"):
        threshold = "threshold, -inf: everything"
    else:
        threshold = f"threshold {value:.4g}"
    head = (by.capitalize(), "n", "accepted, %", confidence, "right of these, %")
    caption = f"What {facts['estimator']['name']} accepts by its own {threshold}"
    table = Table(caption, (*head, confidence), tuple(rows), strong=(len(rows) - 1,))
    return [*blocks, table]


def _pairs(found):
    """Yield the name, the coverage and the accuracy of each part, and of all."""
    coverage, accuracy = found["coverage"], found["accuracy"]
    for part, cell in coverage["parts"].items():
        yield part, cell, accuracy["parts"][part]
    yield "All samples", coverage["all"], accuracy["all"]


def _certificate(facts):
    certificate = facts["certificate"]
    if certificate is None:
        return []
    asked = {"coverage": "Coverage", "max_risk": "Risk at most"}[certificate["target"]]
    rows = [_bounds("All samples", certificate)]
    rows += [
        _bounds(name, part) for name, part in (certificate["groups"] or {}).items()
    ]
    head = (
        "Samples",
        "n",
        "threshold",
        "coverage, %",
        "at least, %",
        "risk, %",
        "at most, %",
    )
    return [
        Text(
            f"Asked for: {asked.lower()} {certificate['value']:g}. With confidence "
            f"{certificate['confidence']:g} the bounds of risk hold, and so do those "
            "of coverage, for samples like those that calibrated."
        ),
        Table("What the threshold guarantees", head, tuple(rows)),
        *_against(certificate, facts["abstention"]["threshold"]),
        Text("It assumes:"),
        Bullets(tuple(certificate["assumptions"])),
    ]


def _against(certificate, found):
    """Hold the certificate against the samples of the report."""
    if "why_not" in found:
        return []
    cell, right = found["coverage"]["all"], found["accuracy"]["all"]
    if not right["n"]:
        return [Text("Of the samples of this report nothing is accepted.")]
    text = (
        f"Of the samples of this report {percent(cell['share'])} % are accepted, with "
        f"a risk of {percent(1 - right['share'])} %."
    )
    broken = (
        cell["high"] < certificate["certified_coverage"]
        or 1 - right["high"] > certificate["certified_risk"]
    )
    if broken:
        text += (
            " That is outside the bounds, its own interval included: these samples are "
            "hardly like those that calibrated, and the certificate does not speak of "
            "them."
        )
    return [Text(text)]


def _bounds(name, part):
    by_group = isinstance(part["threshold"], dict)
    return (
        name,
        str(part["n_samples"]),
        "by group" if by_group else f"{part['threshold']:.4g}",
        percent(part["coverage"]),
        percent(part["certified_coverage"]),
        percent(part["risk"]),
        percent(part["certified_risk"]),
    )


def _training(training):
    if training is None or not training["rows"]:
        return []
    stages = {}
    for row in training["rows"]:
        stages.setdefault(row["stage"], []).append(row)
    rows = tuple(
        (
            stage,
            str(len(epochs)),
            *(
                _number(epochs[-1].get(name))
                for name in ("lr", "train_loss", "valid_loss")
            ),
            percent(epochs[-1].get("valid_acc")),
        )
        for stage, epochs in stages.items()
    )
    head = (
        "Stage",
        "epochs",
        "learning rate",
        "training loss",
        "validation loss",
        "validation accuracy, %",
    )
    return [
        Table("The last epoch of each stage", head, rows),
        Text(
            f"{training['seconds']:.1f} seconds in all, in {training['precision']}, "
            f"with {training['n_threads']} thread(s), on {training['device']}."
        ),
    ]


def _number(value):
    return "–" if value is None else f"{value:.4g}"


def _data(facts):
    data = facts["data"]
    rows = [("Samples of this report", str(data["n_samples"]))]
    if data["n_train"] is not None:
        rows.append(("Samples trained on", str(data["n_train"])))
    if data["item_shape"] is not None:
        shape = " x ".join(map(str, data["item_shape"]))
        rows.append(("Shape of a sample", shape))
    for key, word in (("classes", "class"), ("groups", "group")):
        for name, n in (data[key] or {}).items():
            rows.append((f"Samples of {word} {name}", str(n)))
    for when, share in (data["holdout_accuracy"] or {}).items():
        rows.append((f"Accuracy on the hold-out of fit, {when}, %", percent(share)))
    return [
        Table("The samples", ("What", "number"), tuple(rows)),
        Text(
            "The tables are right only if the samples of this report were not trained "
            "on; that can't be seen here."
        ),
    ]


def _made(facts):
    blocks = []
    for owner, parameters in facts["parameters"].items():
        changed = tuple(
            i for i, one in enumerate(parameters.values()) if not one["default"]
        )
        marked = owner != "The net that predicts"
        caption = f"Parameters: {owner}" + (" (set by hand: bold)" if marked else "")
        rows = tuple((name, one["value"]) for name, one in parameters.items())
        blocks.append(
            Table(caption, ("parameter", "value"), rows, 2, changed if marked else ())
        )
    versions = tuple(facts["versions"].items())
    blocks.append(
        Table("Versions, when the report was made", ("package", "version"), versions, 2)
    )
    seeds = tuple(facts["seeds"].items())
    blocks.append(Table("Seeds", ("of", "seed"), seeds, 2))
    if "None" in facts["seeds"].values():
        text = "A seed of None: the next run comes out otherwise."
        blocks.append(Text(text))
    return blocks
