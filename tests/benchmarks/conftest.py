"""The scripts of the benchmarks as modules, and a card to change; as fixtures."""

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
CARD = """
title = "t"
paper = "p"
code = "c"
metric = "m"
[needs]
data = "d"
[data]
name = "planted"
make = "make_square_shortcut"
images = "digits"
[tests]
raw = { what = "no square", shortcut = "none" }
[net]
name = "small_cnn"
[training]
optimizer = { name = "SGD", momentum = 0.9 }
lr = 0.1
batch_size = 64
epochs = 7
[method]
estimator = "MaskTuneClassifier"
parameters = {}
variants = ["ERM", "MaskTune"]
[figures]
absent = []
sources = { paper = "Table 1" }
[[figures.reported]]
method = "ERM"
test = "raw"
metric = "accuracy"
value = 60
tolerance = 2.0
source = "paper"
[[figures.goals]]
method = "MaskTune"
test = "raw"
metric = "accuracy"
at_least = 90.0
aim = 95.0
[small]
training.epochs = 1
data.n_train = 100
"""


@pytest.fixture(scope="module")
def bench():
    """The modules of the benchmarks, which import each other by name."""
    before = set(sys.modules)
    sys.path.insert(0, str(BENCHMARKS))
    import card
    import card_data
    import comparison
    import cutouts
    import reproduce

    yield SimpleNamespace(
        path=BENCHMARKS,
        card=card,
        card_data=card_data,
        comparison=comparison,
        cutouts=cutouts,
        reproduce=reproduce,
    )
    sys.path.remove(str(BENCHMARKS))
    for name in set(sys.modules) - before:
        if str(BENCHMARKS) in (getattr(sys.modules[name], "__file__", None) or ""):
            del sys.modules[name]


@pytest.fixture
def card_text():
    """A card that is complete, and short."""
    return CARD


@pytest.fixture
def write(tmp_path):
    """Write a card, with some of its text replaced, and return its path."""

    def write(*changes, text=CARD):
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "some.toml"
        path.write_text(text)
        return path

    return write
