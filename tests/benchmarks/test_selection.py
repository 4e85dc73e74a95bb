"""Tests of the benchmark of scorers that choose without labels of the bias."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "selection.py"


@pytest.fixture(scope="module")
def selection():
    spec = importlib.util.spec_from_file_location("selection", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_rows(selection, bias="none", seed=0):
    """Three candidates; every scorer scores as the mean accuracy, but for two."""
    names = ("mask_threshold=1", selection.DEFAULT, selection.CONTINUED)
    values = dict.fromkeys(selection.SCORERS, (0.1, 0.2, 0.3))
    values["accuracy"] = (0.5, 0.9, 0.9)
    values["worst class"] = (0.9, 0.5, 0.5)
    values["test worst group"] = (0.75, 0.5, 0.25)
    values["test mean"] = (0.75, 0.5, 0.875)
    values["ERM worst group"] = values["ERM mean"] = (0.0, 0.0, 0.0)
    return [
        {"bias": bias, "seed": str(seed), "candidate": name}
        | {field: str(value[i]) for field, value in values.items()}
        for i, name in enumerate(names)
    ]


def test_regret_in_closed_form(selection):
    found = selection.regrets(make_rows(selection), "test worst group")
    assert found["worst class"] == 0
    # Two candidates tie: the mean of both.
    assert found["accuracy"] == 37.5
    assert found["masked accuracy"] == 50
    assert found["no selection, threshold 2"] == 25
    assert found["no selection, ERM continued"] == 50
    assert found["ERM"] == 75
    assert found["any candidate, by chance"] == 25
    found = selection.regrets(make_rows(selection), "test mean")
    assert found["masked accuracy"] == 0
    assert found["worst class"] == 12.5


def test_seeds_that_a_bias_lacks_are_left_out(selection, capsys):
    rows = make_rows(selection) + make_rows(selection, "colour 5 %", 0)
    rows += make_rows(selection, seed=1)
    names, biases, seeds, values = selection.tabulate(rows, "test mean")
    assert biases == ["colour 5 %", "none"]
    assert seeds == [0]
    assert values.shape == (len(names), 2, 1)
    selection.show(rows)
    printed = capsys.readouterr().out
    assert "| worst class | 0.0 | 0.0 | 0.0 ± 0.0 | 0.0 |" in printed
    assert "Smallest without bias labels: worst class." in printed


@pytest.mark.parametrize("name", ["square 5 %", "timestamp 1 %", "colour 5 %", "none"])
def test_test_data_are_unbiased_and_apart(selection, name):
    data = selection.make_data(name, 0)
    fit_rows, holdout = data.rows
    assert not set(fit_rows) & set(holdout)
    assert len(fit_rows) + len(holdout) == len(data.X) == len(data.y)
    assert len(data.X_test) == 2 * round(0.3 * 1797 + 0.5)
    n_groups = 2 if name == "none" else 4
    counts = np.unique(data.groups_test, return_counts=True)[1]
    assert len(counts) == n_groups
    assert counts.min() > 0.9 * counts.max()
    biased = np.unique(data.groups, return_counts=True)[1]
    assert name == "none" or biased.min() < 0.06 * biased.max()


def test_a_search(selection):
    rows = selection.search("leaky column 1 %", 0, thresholds=[2.0], epochs=1)
    assert [row["candidate"] for row in rows] == [
        selection.DEFAULT,
        selection.CONTINUED,
    ]
    for row in rows:
        assert tuple(row) == selection.FIELDS
        assert all(0 <= row[field] <= 1 for field in selection.FIELDS[3:])
    assert rows[0]["ERM mean"] == rows[1]["ERM mean"]
    assert rows[0]["test worst group"] <= rows[0]["test mean"]
