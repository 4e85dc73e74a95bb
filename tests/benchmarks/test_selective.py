"""Abstention: scores are compared as the tables say."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from masktune_sk import MaskTuneClassifier
from masktune_sk.datasets import load_shortcut_digits
from masktune_sk.metrics import aurc_loss, risk_at_coverage
from masktune_sk.modules import SmallConvNet, default_net
from masktune_sk.rejection import RULES


@pytest.fixture(scope="module")
def selective(bench):
    """The script, beside the others."""
    import selective
    import selective_methods

    return SimpleNamespace(**vars(selective), methods=selective_methods)


def test_mc_dropout_averages_probabilities(selective):
    torch.manual_seed(1)
    head = selective.methods.StochasticHead(SmallConvNet(3, 4).head, n_passes=3).eval()
    X = torch.randn(5, 512)
    before = torch.get_rng_state()
    with torch.no_grad():
        proba = head(X).softmax(dim=1)
        assert torch.equal(proba, head(X).softmax(dim=1))
        assert torch.equal(before, torch.get_rng_state())
        torch.manual_seed(0)
        passes = torch.stack([head.layers(X).softmax(dim=1) for _ in range(3)])
    assert not torch.allclose(passes[0], passes[1])
    torch.testing.assert_close(proba, passes.mean(dim=0))
    net = selective.methods.DropoutConvNet(3, 4, n_passes=2)
    assert net(torch.randn(6, 3, 28, 28)).shape == (6, 4)


def test_errors_are_those_of_the_metrics(selective):
    random = np.random.RandomState(0)
    y, y_pred = random.randint(2, size=(2, 50))
    scores = random.randint(20, size=50) / 20
    groups = np.where(np.arange(50) < 30, "a", "b")
    scores[groups == "b"] -= 1
    predictions = selective.methods.Predictions(y_pred, scores, scores + 0.5, 1)
    found = selective.measure(y, groups, predictions)
    assert list(found) == ["all", "a", "b"]
    for coverage in selective.COVERAGES:
        risk = risk_at_coverage(y, y_pred, scores, coverage=coverage / 100)
        assert found["all"][f"error {coverage}"] == pytest.approx(risk)
        # One threshold for all: a share of a group, and together that of all.
        shares = [found[group][f"coverage {coverage}"] for group in ("a", "b")]
        whole = found["all"][f"coverage {coverage}"]
        assert np.dot(shares, [0.6, 0.4]) == pytest.approx(whole)
        assert whole >= coverage / 100
    assert found["all"]["n"] == 50
    a = groups == "a"
    assert found["a"]["aurc"] == aurc_loss(y[a], y_pred[a], scores[a])
    # The calibration rows have higher scores: fewer are accepted, of b none.
    assert found["all"]["calibrated coverage 100"] == 1
    assert found["all"]["calibrated coverage 80"] < 0.8
    assert found["b"]["calibrated coverage 80"] == 0
    assert np.isnan(found["b"]["calibrated error 80"])


def test_other_rules_score_as_the_estimator_does(selective):
    X, y = load_shortcut_digits(return_X_y=True)
    X = X.astype(np.float32)
    net = default_net((3, 28, 28), n_classes=2, max_epochs=1)
    clf = MaskTuneClassifier(net, validation_fraction=0, random_state=0)
    clf.fit(X[:200], y[:200])
    part = selective.LabelledSet(X[200:300], y[200:300])
    sets = {"calibration": part, "test": part}
    for rule in RULES:
        found = selective.methods.by_rule(clf, sets, rule, 2)
        expected = clf.set_params(rejection=rule).selection_score(part.X)
        np.testing.assert_allclose(found.scores, expected, rtol=1e-6)
        np.testing.assert_array_equal(found.calibration_scores, found.scores)
        np.testing.assert_array_equal(found.y_pred, clf.predict(part.X))


def test_rows_are_apart_and_groups_are_balanced(selective, tmp_path):
    source = selective.Source(tmp_path, download=False, seed=0)
    sets = selective.load(selective.SETTINGS["digits"], source)
    assert [len(part.y) for part in sets.values()] == [1005, 252, 540]
    rows = np.concatenate([sets["train"].X, sets["calibration"].X])
    assert len(np.unique(rows.reshape(len(rows), -1), axis=0)) == len(rows)
    names, counts = np.unique(sets["test"].groups, return_counts=True)
    assert [name.split(":")[0] for name in names] == ["aligned"] * 2 + [
        "conflicting"
    ] * 2
    assert counts.min() >= 130


@pytest.mark.slow
def test_a_run_goes_on_where_it_stopped(selective, tmp_path, monkeypatch, capsys):
    out = tmp_path / "some.csv"
    arguments = ["--data", "digits", "--scale", "small", "--out", str(out)]
    calls = []

    def counted(name, fit):
        def call(job):
            calls.append((name, job.seed))
            return fit(job)

        return call

    for name, fit in selective.FITS.items():
        monkeypatch.setitem(selective.FITS, name, counted(name, fit))
    assert not selective.main([*arguments, "--seeds", "1"])
    assert calls == [(name, 0) for name in selective.FITS]
    shown = capsys.readouterr().out

    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    methods = {row["method"] for row in rows}
    assert len(methods) == 6 + len(RULES)
    assert len(rows) == 5 * len(methods)
    cost = {row["method"]: row["trained_epochs"] for row in rows}
    assert cost["2 nets, equal cost"] == cost["MaskTune, product"] == "2"

    kept = [row for row in rows if row["fit"] != "MC dropout"]
    out.unlink()
    selective.add_rows(out, kept)
    calls.clear()
    assert not selective.main([*arguments, "--seeds", "1"])
    assert calls == [("MC dropout", 0)]
    # The same rows, and the same table.
    table = [line for line in shown.splitlines() if line.startswith("|")]
    again = capsys.readouterr().out.splitlines()
    assert [line for line in again if line.startswith("|")] == table
    assert table[0].startswith("| score | epochs | error at 100 | error at 95 ")


def test_seeds_are_summarised(selective):
    rows = [
        {"group": "all", "method": "m", "fit": "ERM", "aurc": value}
        for value in ("0.1", "0.3")
    ]
    mean, std = selective.summarise(rows, "aurc")["all"]["m"]
    assert (mean, std) == (pytest.approx(20), pytest.approx(10 * np.sqrt(2)))
    assert np.isnan(selective.summarise(rows[:1], "aurc")["all"]["m"][1])
    # Of one seed nothing was accepted.
    rows[0]["aurc"] = "nan"
    assert np.isnan(selective.summarise(rows, "aurc")["all"]["m"]).all()


def test_what_can_not_be_run_is_told(selective, tmp_path, capsys):
    out = tmp_path / "never.csv"
    where = ["--data-home", str(tmp_path), "--out", str(out)]
    assert selective.main(["--data", "cifar10", *where]) == 2
    assert "cifar10 can't be run here" in capsys.readouterr().err
    assert not out.exists()
    with pytest.raises(SystemExit):
        selective.main(["--seeds", "0"])
    assert "must be 1 or more, got 0" in capsys.readouterr().err
