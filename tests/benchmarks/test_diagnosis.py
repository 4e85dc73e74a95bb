"""Tests of the benchmark of the diagnosis of a data set."""

import csv
import importlib.util
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "diagnosis.py"


@pytest.fixture(scope="module")
def diagnosis():
    spec = importlib.util.spec_from_file_location("diagnosis", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("balance", [0.5, 0.8, 0.95])
def test_pairs_have_the_balance_that_is_asked_for(diagnosis, balance):
    X = np.arange(1200.0)[:, None]
    draw = diagnosis.pairs(X, np.arange(1200) % 3)
    drawn, labels = draw(np.random.default_rng(0), 200, balance)
    assert labels.mean() == pytest.approx(1 - balance)
    assert len(np.unique(drawn)) == len(labels) == 200
    # A label stands for one class.
    assert len(np.unique(drawn[labels == 0] % 3)) == 1


def test_there_are_fewer_samples_where_a_class_is_small(diagnosis):
    y = np.repeat([0, 1], [60, 500])
    rows = diagnosis.draw_rows(np.random.default_rng(0), y, 400, 0.8)
    np.testing.assert_array_equal(np.bincount(y[rows]), [60, 15])


@pytest.mark.parametrize(
    "shortcut", ["square", "border", "colour", "brightness", "leaky column"]
)
def test_a_planted_shortcut_agrees_with_19_of_20(diagnosis, shortcut):
    random = np.random.default_rng(0)
    y = np.arange(400) % 2
    X = random.random((400, 5)) if "column" in shortcut else np.zeros((400, 28, 28))
    if X.ndim == 3:
        X[:, 12:16, 12:16] = 128
        X = X.astype(np.uint8)
    planted = diagnosis.plant(shortcut, X, y, random)
    assert len(planted) == 400
    changed = planted.reshape(400, -1).astype(float)
    # Every sample looks like one of its own class, or like one of the other.
    of_zero = np.abs(changed[:, None] - changed[y == 0].mean(axis=0)).sum(axis=(1, 2))
    of_one = np.abs(changed[:, None] - changed[y == 1].mean(axis=0)).sum(axis=(1, 2))
    assert ((of_one < of_zero) == y).mean() == pytest.approx(0.95, abs=0.02)


def test_pooled_counts_and_a_csv_of_cells(diagnosis, capsys, tmp_path):
    rows = [
        {"shortcut": "none", "base": "a", "draws": 20, "found": 1},
        {"shortcut": "none", "base": "a", "draws": 20, "found": 0},
        {"shortcut": "none", "base": "b", "draws": 10, "found": 0},
    ]
    diagnosis.pool("False alarms", rows, lambda row: row["base"])
    first, second = capsys.readouterr().out.splitlines()
    assert "1 of   40  0.025 (0.001 to 0.132)" in first
    assert "0 of   10  0.000 (0.000 to 0.308)" in second

    out = tmp_path / "d.csv"
    diagnosis.main(
        ["--draws", "1", "--planted-draws", "1", "--samples", "60"]
        + ["--only", "digits as vectors", "--out", str(out)]
    )
    assert "False alarms: all" in capsys.readouterr().out
    with open(out, newline="") as file:
        cells = list(csv.DictReader(file))
    assert len(cells) == 6
    assert {cell["shortcut"] for cell in cells} == {"none", "leaky column"}
    assert {cell["draws"] for cell in cells} == {"1"}
