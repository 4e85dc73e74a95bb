"""What a diagnosis found, as a table."""

from dataclasses import dataclass
from html import escape
from textwrap import wrap

import numpy as np

__all__ = ["ShortcutDiagnosis", "ShortcutEvidence"]

#: What one reads from a row.
READINGS = {
    "shortcut": "shortcut: foreign to the rest of the sample",
    "graded": "like a core feature: it errs where it is unsure",
    "tied": "like a core feature: tied to the rest of the sample",
    "unclear": "can't be told from a core feature",
    "weak": "predicts something, too little for a shortcut",
    "chance": "no better than the best of all with shuffled labels",
    "fell": "accuracy fell: the net leaned on what was hidden",
    "held": "accuracy held without what was hidden",
    "same place": "the net looks at one place in all samples",
    "everywhere": "the net looks at another place in each sample",
}
GLOBAL = ("brightness", "contrast", "colour", "frequency")
ADVICE = {
    "local": (
        "MaskTune, as what gives the class away has a place of its own and can be "
        "hidden."
    ),
    "global": (
        "DeNetDM, or a concept (RR-ClArC), as what gives the class away is everywhere "
        "in the image, and no mask hides it."
    ),
    "both": (
        "MaskTune for what has a place of its own; DeNetDM, or a concept (RR-ClArC), "
        "for what is everywhere in the image."
    ),
    None: "Nothing but plain training, as far as these probes can see.",
}


@dataclass(frozen=True, kw_only=True)
class ShortcutEvidence:
    """A row of a `ShortcutDiagnosis`.

    Parameters
    ----------
    kind : str
        "patch", "border", "column"; "brightness", "contrast", "colour", "frequency" of
        the whole image; "net after masking"; "saliency maps".
    where : str
        Which one.
    measure : str
        What `value` is: "balanced accuracy" of the probe alone, "accuracy" of the net
        after masking on unseen samples, or "overlap" of the masks of two samples.
    value : float
        The number, in [0, 1].
    interval : (float, float)
        95 % interval of the value, not adjusted for the number of probes.
    baseline : float
        Of a probe what the best of all probes reaches with shuffled labels (95 %
        quantile); of the net its accuracy before masking; of maps the overlap of masks
        in random places.
    p_value : float
        Of a probe, that it predicts y no better than by chance, adjusted for all
        probes; of the net, that its accuracy did not fall; of maps, that their masks
        overlap no more than by chance.
    tie : float, default=nan
        Of a probe, the share of its variance within the classes that the rest of the
        sample explains: this or more. NaN: not looked at.
    error_confidence : float, default=nan
        Of a probe, the probability that a right prediction is surer than a wrong one.
        NaN: not looked at, or no errors.
    rest : float, default=nan
        Balanced accuracy of the rest of the sample. NaN: not looked at.
    reading : str, default="chance"
        What to read from the row, in a word or two: "shortcut", "graded", "tied",
        "unclear", "weak", "chance"; "fell", "held"; "same place", "everywhere". The
        table says it in a sentence.
    is_shortcut : bool, default=False
        Whether the row is evidence of a shortcut.
    """

    kind: str
    where: str
    measure: str
    value: float
    interval: tuple
    baseline: float
    p_value: float
    tie: float = np.nan
    error_confidence: float = np.nan
    rest: float = np.nan
    reading: str = "chance"
    is_shortcut: bool = False


@dataclass(frozen=True, kw_only=True)
class ShortcutDiagnosis:
    """What `diagnose_shortcut` found. It prints as a table.

    Parameters
    ----------
    evidence : list of ShortcutEvidence
        What was looked at: shortcuts first, then by what they predict, then the nets.
    n_samples : int
        Samples that were looked at.
    n_given : int
        Samples that there were.
    n_probes : int
        Probes that were tried.
    class_counts : dict of label to int
        Samples looked at, by class.
    """

    evidence: list
    n_samples: int
    n_given: int
    n_probes: int
    class_counts: dict

    @property
    def scope(self):
        """Tell where the shortcut is.

        Returns
        -------
        scope : {"local", "global", "both", None}
            In a place of its own, in the whole image, both, or nowhere.
        """
        whole = {row.kind in GLOBAL for row in self.evidence if row.is_shortcut}
        if not whole:
            return None
        return "both" if len(whole) == 2 else "global" if whole.pop() else "local"

    @property
    def has_shortcut(self):
        """Whether any row is evidence of a shortcut.

        Returns
        -------
        has_shortcut : bool
            False: no evidence was found, which is not to say that there is none.
        """
        return self.scope is not None

    @property
    def recommendation(self):
        """Tell what to do.

        Returns
        -------
        recommendation : str
            A sentence.
        """
        return ADVICE[self.scope]

    @property
    def verdict(self):
        """Tell what was found.

        Returns
        -------
        verdict : str
            A sentence.
        """
        found = [row for row in self.evidence if row.is_shortcut]
        if not found:
            return "No evidence of a shortcut."
        first = found[0]
        return (
            f"Evidence of a shortcut: {first.kind} ({first.where}) by itself predicts "
            f"y with a balanced accuracy of {first.value:.2f}."
        )

    def table(self):
        """Return the evidence as it prints, to show it in a table of one's own.

        `pandas.DataFrame(diagnosis.evidence)` has the numbers.

        Returns
        -------
        headings : list of str
            One for each column.
        rows : list of list of str
            The cells of a row for each piece of evidence; empty where nothing was
            looked at.
        """
        return list(HEAD), [_cells(row) for row in self.evidence]

    def __str__(self):
        headings, rows = self.table()
        rows = [headings, *rows]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(
                cell.ljust(width) if i in LEFT else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        rule = "-" * max(map(len, lines))
        return "\n".join(
            [
                self.verdict,
                f"Recommended: {self.recommendation}",
                "",
                lines[0],
                rule,
                *lines[1:],
                "",
                *wrap(self._looked_at(), max(len(rule), 80)),
            ]
        )

    def _repr_html_(self):
        headings, rows = self.table()
        head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in headings)
        body = "".join(
            f"<tr{MARK if evidence.is_shortcut else ''}>"
            + "".join(
                f'<td style="text-align:{"left" if i in LEFT else "right"}">'
                f"{escape(cell)}</td>"
                for i, cell in enumerate(row)
            )
            + "</tr>"
            for evidence, row in zip(self.evidence, rows, strict=True)
        )
        return (
            f"<div><p><strong>{escape(self.verdict)}</strong><br>"
            f"Recommended: {escape(self.recommendation)}</p>"
            f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
            f"<p>{escape(self._looked_at())}</p></div>"
        )

    def _looked_at(self):
        counts = ", ".join(f"{label}: {n}" for label, n in self.class_counts.items())
        whole = "" if self.n_given == self.n_samples else f" of {self.n_given}"
        return (
            f"{self.n_samples}{whole} samples ({counts}), {self.n_probes} probes. "
            "p: adjusted for all probes. tie: what the rest of the sample explains of "
            "the probe. errors: how much surer right answers are than wrong ones, 0.5: "
            "no surer. rest: balanced accuracy without it."
        )


HEAD = (
    "kind",
    "where",
    "value",
    "95 % interval",
    "baseline",
    "p",
    "tie",
    "errors",
    "rest",
    "reading",
)
LEFT = (0, 1, 9)
MARK = ' style="font-weight:bold"'


def _cells(row):
    low, high = row.interval
    return [
        row.kind,
        row.where,
        f"{row.value:.3f}",
        f"{low:.3f} to {high:.3f}",
        f"{row.baseline:.3f}",
        f"{row.p_value:.3f}",
        *(
            "" if np.isnan(value) else f"{value:.2f}"
            for value in (row.tie, row.error_confidence, row.rest)
        ),
        READINGS[row.reading],
    ]
