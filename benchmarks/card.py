"""Reproduction cards: the settings of a published result, read from a file and checked.

A card is a TOML file in `benchmarks/cards`. Its tables are the classes below, entry by
entry; one that is missing, unknown or of another type is refused. Numbers are
percentages, as the papers print them.

A card states what was published. Its tables `[full]` and `[small]`, one for each scale,
change single entries of it for what is run, and each such change is told.
"""

import tomllib
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import get_args, get_origin

CARDS = Path(__file__).parent / "cards"
SCALES = ("full", "small")


class CardError(ValueError):
    """There is no such card, or it is not what a card must be."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What has to be there, besides the estimator."""

    data: str  # in words
    gpu: bool = False


@dataclass(frozen=True, kw_only=True)
class Training:
    """How the net is trained first; later stages go on from there."""

    optimizer: dict  # name, a class of torch.optim; its arguments
    lr: float
    batch_size: int
    epochs: int
    schedule: dict | None = None  # name, a class of torch.optim.lr_scheduler; ...
    augmentation: list[dict] = ()  # name, a class of torchvision.transforms.v2; ...


@dataclass(frozen=True, kw_only=True)
class Method:
    """The estimator, and which variants of it are compared."""

    estimator: str  # a class of masktune_sk
    parameters: dict
    variants: list[str]
    coverages: list[float] = ()  # of selective classification, in percent


@dataclass(frozen=True, kw_only=True)
class Reported:
    """A number that somebody reports, and how far from it ours may lie.

    Tolerances are twice the spread that is reported, and 1 point at least; 2 points
    where no spread is reported.
    """

    method: str
    test: str
    metric: str
    value: float
    tolerance: float
    source: str  # one of the card's sources
    at: float | None = None  # of which value of the sweep


@dataclass(frozen=True, kw_only=True)
class Goal:
    """A number that ours should reach."""

    method: str
    test: str
    metric: str
    at_least: float
    aim: float | None = None


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What the results are compared with; one number for a method, test and metric."""

    sources: dict  # name: where the number was read; "paper", or who ran it again
    absent: list[str]  # published numbers that are not here, and why
    reported: list[Reported] = ()
    goals: list[Goal] = ()


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """A setting that was published with several values: the card is run with each."""

    key: str  # dotted: data.conflict_ratio
    values: list


@dataclass(frozen=True, kw_only=True)
class Card:
    """One published setting."""

    name: str
    title: str
    paper: str
    code: str
    metric: str  # the convention, in words
    needs: Needs
    data: dict  # name, a key of card_data.DATA; its arguments
    tests: dict  # name of each test set that is scored: what it is, in words
    net: dict  # name; arguments
    training: Training
    method: Method
    figures: Figures
    notes: list[str] = ()
    sweep: Sweep | None = None
    setting: str = ""  # of a sweep: "conflict_ratio 0.01"
    reduced: str = ""  # how it differs from what was published

    def __post_init__(self):
        """Refuse what refers to something that the card does not have."""
        for where in ("data", "net"):
            self._check_known("entry", "name", getattr(self, where), f"[{where}]")
        for entries in (self.figures.reported, self.figures.goals):
            cells = [(entry.method, entry.test, entry.metric) for entry in entries]
            for entry, cell in zip(entries, cells, strict=True):
                self._check_known("method", entry.method, self.method.variants, cell)
                self._check_known("test", entry.test, self.tests, cell)
                if cells.count(cell) > 1:
                    raise CardError(f"card {self.name}: {cell} stands there twice.")
        for entry in self.figures.reported:
            self._check_known("source", entry.source, self.figures.sources, entry)

    def _check_known(self, what, value, known, where):
        if value not in known:
            raise CardError(
                f"card {self.name}: {where} needs the {what} {value!r}, and there is "
                f"only {', '.join(map(repr, known))}."
            )


def card_names():
    """Return the names of all cards, sorted."""
    return sorted(path.stem for path in CARDS.glob("*.toml"))


def read_cards(name, *, scale="full", epochs=(None,)):
    """Read a card as it is to be run.

    Parameters
    ----------
    name : str
        Name of a card in `benchmarks/cards`, or path of a TOML file.
    scale : {"full", "small"}, default="full"
        Whose changes to apply.
    epochs : sequence of int or None
        Epochs of the first training: one card for each. None: as the scale has it.

    Returns
    -------
    cards : list of Card
        One for each number of epochs and each value of the card's sweep.

    Raises
    ------
    CardError
        If there is no such card, or it is not what a card must be.
    """
    published = _read_table(name)
    changes = {key: published.pop(key, {}) for key in SCALES}[scale]
    cards = []
    for n in epochs:
        table = _changed(published, changes)
        if n is not None:
            table = _changed(table, {"training": {"epochs": n}})
        table["reduced"] = ", ".join(_differences(published, table))
        cards += [_build(Card, swept, table["name"]) for swept in _sweep(table)]
    return cards


def _read_table(name):
    path = Path(name) if str(name).endswith(".toml") else CARDS / f"{name}.toml"
    if not path.exists():
        raise CardError(
            f"There is no card {str(name)!r}. There is {', '.join(card_names())}."
        )
    try:
        return tomllib.loads(path.read_text(encoding="utf-8")) | {"name": path.stem}
    except tomllib.TOMLDecodeError as error:
        raise CardError(f"card {path.stem} is not TOML: {error}.") from error


def _changed(table, changes):
    """Return a nested table with the entries of another one in place of its own."""
    table = dict(table)
    for key, value in changes.items():
        nested = isinstance(value, dict) and key in table
        table[key] = _changed(table[key], value) if nested else value
    return table


def _differences(published, table):
    """Yield "epochs 5, not 100" for each entry that was changed."""
    for key, value in table.items():
        old = published.get(key)
        if key == "needs" or value == old:
            continue
        if isinstance(value, dict) and isinstance(old, dict):
            yield from _differences(old, value)
        else:
            yield f"{key} {value}" if old is None else f"{key} {value}, not {old}"


def _sweep(table):
    """Yield the table with each of the values that it sweeps over."""
    if "sweep" not in table:
        yield table
        return
    sweep = _build(Sweep, table["sweep"], table["name"])
    where, key = sweep.key.split(".")
    reported = table["figures"].get("reported", [])
    for value in sweep.values:
        changes = {
            where: {key: value},
            "figures": {
                "reported": [row for row in reported if row.get("at") == value]
            },
            "setting": f"{key} {value}",
        }
        yield _changed(table, changes)


def _build(cls, table, where):
    """Make a dataclass of a table, and refuse what does not fit."""
    kinds = {field.name: field.type for field in fields(cls)}
    needed = [field.name for field in fields(cls) if field.default is MISSING]
    unknown = [key for key in table if key not in kinds]
    missing = [key for key in needed if key not in table]
    if unknown or missing:
        raise CardError(
            f"card {where}: {cls.__name__} has {', '.join(kinds)}; "
            f"unknown: {unknown}, missing: {missing}."
        )
    return cls(
        **{
            key: _convert(value, kinds[key], f"{where}, {key}")
            for key, value in table.items()
        }
    )


def _convert(value, kind, where):
    """Return a value of the type that a field has."""
    if get_origin(kind) is list and isinstance(value, list):
        return [_convert(entry, get_args(kind)[0], where) for entry in value]
    if get_args(kind) and get_origin(kind) is not list:  # kind | None
        kind = get_args(kind)[0]
    if is_dataclass(kind) and isinstance(value, dict):
        return _build(kind, value, where)
    if kind is float and type(value) is int:
        return float(value)
    if get_origin(kind) is list or type(value) is not kind:
        raise CardError(f"card {where}: expected {kind.__name__}, got {value!r}.")
    return value
