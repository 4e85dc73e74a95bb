"""What a report is made of: sections of texts, tables and pictures."""

from dataclasses import dataclass, field

__all__ = [
    "PLURAL",
    "Bullets",
    "Figure",
    "Gallery",
    "Raw",
    "Section",
    "Table",
    "Text",
    "percent",
]

PLURAL = {"group": "groups", "class": "classes"}


def percent(share):
    """Return a share as a number of percent, without the sign."""
    return "–" if share is None else f"{100 * share:.1f}"


@dataclass(frozen=True)
class Text:
    """A paragraph; `left_out` if it stands for something that is missing."""

    text: str
    left_out: bool = False
    kind = "text"


@dataclass(frozen=True)
class Bullets:
    """A list of sentences."""

    items: tuple
    kind = "bullets"


@dataclass(frozen=True)
class Table:
    """A table of texts; the first cell of a row is its heading.

    `n_left` columns hold words and the others numbers. Rows whose numbers are in
    `strong` sum up the others.
    """

    caption: str
    head: tuple
    rows: tuple
    n_left: int = 1
    strong: tuple = ()
    kind = "table"


@dataclass(frozen=True)
class Figure:
    """A picture in base64, `width` in CSS pixels, and in words what it shows."""

    data: str
    alt: str
    caption: str
    width: int
    format: str = "png"
    kind = "figure"


@dataclass(frozen=True)
class Gallery:
    """Small pictures side by side, with a heading of their own."""

    title: str
    figures: tuple
    kind = "gallery"


@dataclass(frozen=True)
class Raw:
    """HTML that is escaped already."""

    html: str
    kind = "raw"


@dataclass(frozen=True)
class Section:
    """A part with a heading."""

    id: str
    title: str
    blocks: list = field(default_factory=list)
