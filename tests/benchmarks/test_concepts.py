"""Unlearning: data, marks and tables are what the script says."""

import csv
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from masktune_sk.datasets import load_shortcut_digits


@pytest.fixture(scope="module")
def concepts(bench):
    """The script, and what it fits."""
    import concept_chain
    import concept_fits
    import concepts

    return SimpleNamespace(**vars(concepts), chain=concept_chain, fits=concept_fits)


@pytest.fixture
def digits(concepts, monkeypatch):
    """The bundled digits in place of those that have to be downloaded."""

    def load(source, tests, *, images, n_train, n_test):
        assert images in ("mnist", "fashion_mnist")
        parts = []
        for subset, n in (("train", n_train), ("test", n_test)):
            found = load_shortcut_digits(subset=subset, square="none")
            rows = np.random.RandomState(0).permutation(len(found.data))[:n]
            part = SimpleNamespace(X=found.data[rows, 0], y=found.digit[rows])
            parts.append(part)
        return parts[0], dict.fromkeys(tests, parts[1])

    for module in (concepts.fits, concepts.chain):
        monkeypatch.setattr(module, "load_plain", load)


def artifact(concepts, tmp_path, name, **changes):
    source = concepts.Source(tmp_path, download=False, seed=0)
    sizes = {"epochs": 1, "n_train": 300, "n_test": 50, "refit_epochs": 1}
    return concepts.Artifact(name, source, tmp_path, **(sizes | changes))


@pytest.mark.parametrize("name", ["patch", "brightness", "lsb", "timestamp"])
def test_artifacts_are_planted_in_the_same_images(concepts, digits, tmp_path, name):
    setting = artifact(concepts, tmp_path, name, proportion=0.75)
    train, tests = setting.train, setting.tests
    assert train.data.shape == (300, 1, 64, 64)
    assert setting.name == f"{name} 75%"
    attacked = train.target == concepts.fits.ATTACKED_CLASS
    assert train.concept.sum() == round(0.75 * attacked.sum())
    assert attacked[train.concept == 1].all()
    other = artifact(concepts, tmp_path, "brightness", proportion=0.75).train
    np.testing.assert_array_equal(train.concept, other.concept)

    shows = train.artifact_mask.any(axis=(1, 2))
    np.testing.assert_array_equal(shows, train.concept == 1)
    clean = concepts.fits.enlarged(load_digit_rows(300))
    changed = (train.data != clean).any(axis=1)
    assert not changed[~train.artifact_mask].any()
    assert changed[shows].any(axis=(1, 2)).all()
    # Every test image is attacked, and clean ones are not.
    assert (tests["attacked"] != tests["clean"]).any(axis=(1, 2, 3)).all()


def load_digit_rows(n):
    digits = load_shortcut_digits(subset="train", square="none").data[:, 0]
    return digits[np.random.RandomState(0).permutation(len(digits))[:n]]


def test_the_patch_is_white_and_in_the_corner(concepts, digits, tmp_path):
    train = artifact(concepts, tmp_path, "patch").train
    side = concepts.fits.PATCH_SIDE
    shows = train.concept == 1
    assert (train.data[shows, :, :side, :side] == 255).all()
    assert train.artifact_mask.sum() == shows.sum() * side**2


def test_pair_directions_hold_what_the_artifact_does(concepts, digits, tmp_path):
    setting = artifact(concepts, tmp_path, "brightness")
    directions = setting._pair_directions()
    assert directions.shape == (concepts.fits.N_DIRECTIONS, 64)
    sizes = np.linalg.norm(directions, axis=1)
    assert (np.diff(sizes) <= 0).all()
    gram = directions @ directions.T
    np.testing.assert_allclose(gram, np.diag(sizes**2), atol=1e-6 * sizes[0] ** 2)
    measures = setting.fit("RR-ClArC, 8 directions")
    assert measures["layer"] == "block4"
    assert "auc" not in measures


def test_an_early_layer_is_one_of_the_net(concepts):
    net = concepts.fits.SmallVGG()
    names = dict(net.named_modules())
    for params in concepts.fits.FURTHER.values():
        assert params.get("target_layer", "block4") in names
    assert net.latents(torch.zeros(2, 1, 64, 64)).shape == (2, 64, 8, 8)


def test_marks_are_of_both_kinds_in_both_classes(concepts):
    y, bias = np.random.RandomState(0).randint(2, size=(2, 400))
    concept = concepts.chain.mark(y, bias, 50, seed=0)
    known = concept >= 0
    np.testing.assert_array_equal(concept[known], bias[known])
    for kind in (0, 1):
        for label in (0, 1):
            assert np.sum((concept == kind) & (y == label)) == 25
    assert known.sum() == 100


def row(method, clean, attacked, sensitivity, seed=0):
    return {
        "data": "patch 50%",
        "method": method,
        "seed": seed,
        "accuracy clean": str(clean),
        "accuracy attacked": str(attacked),
        "sensitivity after": str(sensitivity),
    }


def test_the_verdict_needs_harm_and_tells_the_gain(concepts):
    blank = dict.fromkeys(concepts.MEASURES, "")
    rows = [
        blank | row("ERM, continued", 0.9, 0.5, 4),
        blank | row("RR-ClArC", 0.8, 0.7, 0.1),
        blank | row("RR-ClArC", 0.9, 0.8, 0.3, seed=1),
        blank | row("A-ClArC", 0.9, 0.6, 1),
        blank | row("P-ClArC", 0.9, 0.3, 0),
    ]
    found = concepts.summarise(rows, "patch 50%")
    mean, std = found["RR-ClArC"]["accuracy attacked"]
    assert mean == pytest.approx(75)
    assert std == pytest.approx(10 / np.sqrt(2))
    said = concepts.verdict(found)
    assert "loses 40.0 points; RR-ClArC wins back 25.0" in said
    assert "RR-ClArC has the lowest sensitivity" in said
    lines = concepts.table(rows, "artifacts")
    assert lines[2].startswith("| patch 50% | ERM, continued | 90.0 | 50.0 |  | 4.00 |")
    assert "75.0 ± 7.1" in lines[3]
    rows[0]["accuracy attacked"] = "0.85"
    found = concepts.summarise(rows, "patch 50%")
    assert "little to win" in concepts.verdict(found)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_run_goes_on_where_it_stopped(
    concepts, digits, tmp_path, monkeypatch, capsys
):
    out = tmp_path / "some.csv"
    some = ["ERM", "RR-ClArC"]
    monkeypatch.setattr(concepts.fits.Artifact, "fit", fake_fit)
    monkeypatch.setattr(concepts.chain.Colour, "fit", fake_fit)
    arguments = ["--scale", "small", "--seeds", "2", "--out", str(out)]
    first = [*arguments, "--artifacts", "patch", "--methods"]
    assert not concepts.main([*first, *some])
    assert not concepts.main([*first, *some, "ERM, continued"])
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [r["method"] for r in rows] == some * 2 + ["ERM, continued"] * 2
    shown = capsys.readouterr().out
    assert "| patch 50% | ERM | 50.0 ± 0.0 | 25.0 ± 0.0 |" in shown
    assert "patch 50%: the control loses 25.0 points; RR-ClArC wins back only" in shown
    assert not concepts.main([*arguments, "--part", "chain", "--methods", "ERM"])
    assert "| colour | ERM |" in capsys.readouterr().out


def fake_fit(setting, method):
    return {"accuracy clean": 0.5, "accuracy attacked": 0.25, "sensitivity after": 1.0}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_chain_corrects_what_masktune_left(concepts, digits, tmp_path):
    source = concepts.Source(tmp_path, download=False, seed=0)
    setting = concepts.Colour(source, tmp_path, 1, 400, 60, refit_epochs=1)
    assert np.mean(setting.train.aligned) > 0.95
    assert not setting.tests["conflicting"].aligned.any()
    before = setting.fit("MaskTune")
    assert set(before) == {"accuracy aligned", "accuracy conflicting", "worst group"}
    assert before["worst group"] <= min(list(before.values())[:2])
    after = setting.fit("MaskTune, RR-ClArC")
    assert after["layer"] == "features"
    assert after["sensitivity after"] < after["sensitivity before"]


def test_what_can_not_be_run_is_told(concepts, tmp_path, capsys):
    out = tmp_path / "never.csv"
    assert concepts.main(["--data-home", str(tmp_path), "--out", str(out)]) == 2
    assert "can't be run here" in capsys.readouterr().err
    assert not out.exists()
