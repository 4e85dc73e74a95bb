"""One file that tells what a classifier learned, before and after."""

from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from .blocks import PLURAL, Raw, Text, percent
from .facts import collect
from .figures import (
    draw_accuracy,
    draw_concept,
    draw_layers,
    draw_risk_coverage,
    draw_training,
    draw_where_hidden,
    require_matplotlib,
)
from .inputs import check_count, check_path, read_inputs
from .missing import find_missing
from .render import render_html, render_markdown, require_jinja2
from .sections import build_sections
from .thumbnails import choose_rows, draw_thumbnails, panel_names

__all__ = ["ShortcutReport", "model_card", "report"]

MOST_CONCEPTS = 4


@dataclass(frozen=True, eq=False, repr=False)
class ShortcutReport:
    """What `report` has made. A notebook shows it as it is.

    Parameters
    ----------
    path : Path or None
        Where it is written.
    facts : dict
        Every number in it, by section: dicts, lists, texts, numbers and None, which
        ``json.dump`` takes. Shares are in [0, 1].
    html : str
        The file.
    """

    path: Path | None
    facts: dict
    html: str

    def __repr__(self):
        by = self.facts["accuracy"]["by"]
        worst = ", ".join(
            f"{name} {numbers['worst']['share']:.3f}"
            for name, numbers in self.facts["accuracy"]["classifiers"].items()
        )
        where = "not written" if self.path is None else f"in {str(self.path)!r}"
        return f"ShortcutReport({where}; accuracy in the worst {by}: {worst})"

    def _repr_html_(self):
        return (
            f'<iframe title="{escape(self.facts["title"])}" '
            'style="width:100%;height:40rem;border:0" '
            f'srcdoc="{escape(self.html)}"></iframe>'
        )


def report(
    estimator,
    X,
    y=None,
    *,
    groups=None,
    compare=None,
    diagnosis=None,
    path="report.html",
    n_thumbnails=64,
    confidence=0.95,
    title=None,
    random_state=None,
):
    """Write one HTML file that tells what a classifier learned.

    The accuracy in each group before and after, with intervals; what was hidden,
    corrected or split off, with pictures; what abstaining buys, and the certificate;
    training curves; parameters, versions and seeds. The file needs no network and no
    script, and prints. What does not apply is left out, with a line that says why.

    Parameters
    ----------
    estimator : object
        A fitted `MaskTuneClassifier`, `DeNetDMClassifier` or `RRClArCClassifier`; also
        one inside a pipeline, a search or a `RejectOptionClassifier`. Of any other
        fitted classifier there is less to tell.
    X : array-like of shape (n_samples, ...), Dataset or DatasetView
        Samples that were not trained on; they can't be told from others.
    y : array-like of shape (n_samples,), default=None
        Their labels; None: those of the Dataset.
    groups : array-like of shape (n_samples,), default=None
        The group of each sample, class x bias, all strings or all integers; names are
        shown as they are. None: the tables are by class.
    compare : dict of str to classifier, default=None
        Other fitted classifiers of the same classes, for the tables, by name. The
        honest baseline costs a training, so it has to be given: the same estimator
        with ``masking="none"`` (or ``method="none"``) as "ERM continued".
    diagnosis : ShortcutDiagnosis, True or None, default=None
        What `diagnose_shortcut` said of the training data. True: ask it now, about X
        and y.
    path : str, path or None, default="report.html"
        Where to write; a file of this name is replaced. None: nowhere.
    n_thumbnails : int, default=64
        Images to show before and after, drawn at random, as many of each group as
        there are. At 64 the file is below 5 MB, whatever the images.
    confidence : float in (0, 1), default=0.95
        Of every interval, by itself.
    title : str, default=None
        Title of the page.
    random_state : int, RandomState or None, default=None
        Draws the images, and samples where a measure does not need all. An int gives
        the same file, up to the date in it.

    Returns
    -------
    report : ShortcutReport
        The path, the facts and the file itself.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator, or one to compare, is not fitted.
    ImportError
        If jinja2 or matplotlib is missing; the extra ``report`` brings both.
    TypeError, ValueError
        If y or the groups are not as many as the samples, y has labels that fit did
        not see, a classifier to compare has other classes or a name that is taken, the
        folder of the path does not exist, or a parameter is none of the above; before
        anything is computed.

    See Also
    --------
    model_card : The same facts in Markdown, without pictures.
    diagnose_shortcut : Whether there is a shortcut.

    Notes
    -----
    Intervals are those of `masktune_sk.metrics.proportion_interval`. X is read in
    batches, as in prediction.

    Examples
    --------
    >>> from masktune_sk import MaskTuneClassifier
    >>> from masktune_sk.inspection import report
    >>> from sklearn.datasets import load_wine
    >>> X, y = load_wine(return_X_y=True)
    >>> clf = MaskTuneClassifier(random_state=0).fit(X[::2], y[::2])
    >>> result = report(clf, X[1::2], y[1::2], path=None, random_state=0)
    >>> list(result.facts["accuracy"]["classifiers"])
    ['ERM', 'MaskTune']
    """
    path = check_path(path)
    check_count(n_thumbnails)
    require_jinja2("report")
    require_matplotlib("report")
    inputs = read_inputs(
        estimator,
        X,
        y,
        groups=groups,
        compare=compare,
        diagnosis=diagnosis,
        confidence=confidence,
        random_state=random_state,
    )
    facts, predictions, seen = collect(inputs, title)
    missing = find_missing(inputs, facts)
    pictures = _draw(inputs, facts, predictions, seen)
    pictures["pictures"], why_not = _draw_samples(inputs, predictions, n_thumbnails)
    missing["pictures"] = why_not
    html = render_html(
        "report",
        facts=facts,
        numbers=_key_numbers(facts),
        sections=build_sections(facts, pictures, missing),
    )
    if path is not None:
        path.write_text(html, encoding="utf-8", newline="\n")
    return ShortcutReport(path, facts, html)


def model_card(
    estimator,
    X,
    y=None,
    *,
    groups=None,
    compare=None,
    diagnosis=None,
    path="model_card.md",
    confidence=0.95,
    title=None,
    random_state=None,
):
    """Write a model card: what `report` tells, in Markdown.

    Intended use and limits, results by group with intervals, what was hidden or
    corrected, abstention and its certificate, training, parameters, versions and
    seeds; with a head that model hubs read, which know it as ``README.md``. Add what
    only you know: who made the model, where the data come from, the licence.

    Parameters
    ----------
    estimator : object
        As `report` takes it.
    X : array-like of shape (n_samples, ...), Dataset or DatasetView
        Samples that were not trained on.
    y : array-like of shape (n_samples,), default=None
        Their labels; None: those of the Dataset.
    groups : array-like of shape (n_samples,), default=None
        The group of each sample, class x bias. None: the tables are by class.
    compare : dict of str to classifier, default=None
        Other fitted classifiers of the same classes, by name.
    diagnosis : ShortcutDiagnosis, True or None, default=None
        What `diagnose_shortcut` said of the training data. True: ask it now, about X
        and y.
    path : str, path or None, default="model_card.md"
        Where to write; a file of this name is replaced. None: nowhere.
    confidence : float in (0, 1), default=0.95
        Of every interval, by itself.
    title : str, default=None
        Its heading.
    random_state : int, RandomState or None, default=None
        As in `report`.

    Returns
    -------
    card : str
        The text.

    Raises
    ------
    sklearn.exceptions.NotFittedError
        If the estimator, or one to compare, is not fitted.
    ImportError
        If jinja2 is missing; the extra ``report`` brings it.
    TypeError, ValueError
        As `report`.

    See Also
    --------
    report : The same, with pictures.

    Examples
    --------
    >>> from masktune_sk import MaskTuneClassifier
    >>> from masktune_sk.inspection import model_card
    >>> from sklearn.datasets import load_wine
    >>> X, y = load_wine(return_X_y=True)
    >>> clf = MaskTuneClassifier(random_state=0).fit(X[::2], y[::2])
    >>> card = model_card(clf, X[1::2], y[1::2], path=None, title="Cultivars of wine")
    >>> print(card)  # doctest: +ELLIPSIS
    ---
    library_name: "masktune_sk"
    ...
    """
    path = check_path(path)
    require_jinja2("model_card")
    inputs = read_inputs(
        estimator,
        X,
        y,
        groups=groups,
        compare=compare,
        diagnosis=diagnosis,
        confidence=confidence,
        random_state=random_state,
    )
    facts, _, _ = collect(inputs, title)
    card = render_markdown(
        "model_card",
        facts=facts,
        sections=build_sections(facts, {}, find_missing(inputs, facts)),
    )
    if path is not None:
        path.write_text(card, encoding="utf-8", newline="\n")
    return card


def _draw(inputs, facts, predictions, seen):
    """Draw what belongs to each section."""
    pictures = {"accuracy": [draw_accuracy(facts["accuracy"], inputs.name)]}
    if "diagnosis" in seen:
        pictures["diagnosis"] = [Raw(seen["diagnosis"])]
    done = facts["intervention"]
    if "where" in seen:
        picture = draw_where_hidden(seen["where"], done, inputs.parts)
        pictures["intervention"] = [picture]
    elif "layers" in seen:
        pictures["intervention"] = [draw_layers(seen["layers"])]
    elif done is not None and done.get("sensitivity_before") is not None:
        n_concepts = min(len(done["sensitivity_before"]), MOST_CONCEPTS)
        pictures["intervention"] = [draw_concept(done, i) for i in range(n_concepts)]
    if facts["abstention"]["classifiers"]:
        picture = draw_risk_coverage(inputs, predictions, facts["abstention"])
        pictures["abstention"] = [picture]
    if facts["training"] is not None and facts["training"]["rows"]:
        pictures["training"] = [draw_training(facts["training"])]
    return pictures


def _draw_samples(inputs, predictions, n_thumbnails):
    """Draw samples before and after; or say why not."""
    if inputs.method is None:
        return [], ["No pictures: there are no nets to look into."]
    if inputs.view.ndim == 2:
        return [], ["No pictures: the samples are vectors."]
    if not n_thumbnails:
        return [], ["No pictures: n_thumbnails is 0."]
    random = np.random.RandomState(inputs.seed)
    rows = choose_rows(inputs.parts, n_thumbnails, random)
    names = ", ".join(panel_names(inputs.method))
    text = Text(
        f"{len(rows)} of {inputs.n_samples} samples, drawn at random, as many of each "
        f"of the {PLURAL[inputs.parts.by]} as there are. From left to right: {names}. "
        "Bright: looked at. The numbers are rows of X."
    )
    return [text, *draw_thumbnails(inputs, predictions, rows)], []


def _key_numbers(facts):
    """Return what stands on top: the worst part, by classifier."""
    accuracy = facts["accuracy"]
    return [
        (
            f"{name}, worst {accuracy['by']}",
            f"{percent(numbers['worst']['share'])} %",
            f"{accuracy['by']} {numbers['worst']['name']}; all samples: "
            f"{percent(numbers['all']['share'])} %",
        )
        for name, numbers in accuracy["classifiers"].items()
    ]
