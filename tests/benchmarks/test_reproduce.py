"""Reproduction: what a card says is what is run, and compared."""

import csv
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image


def sets_of(bench, path, home, *, scale="full", seed=0):
    (card,) = bench.card.read_cards(path, scale=scale)
    source = bench.card_data.Source(home, download=False, seed=seed)
    return card, bench.card_data.load_sets(card, source)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "name a card, or --list them"),
        (["biased-digits", "--seeds", "0"], "must be 1 or more, got 0"),
        (["biased-digits", "--epochs", "5,0"], "must be 1 or more, got 0"),
    ],
)
def test_bad_arguments_are_refused(bench, capsys, arguments, words):
    with pytest.raises(SystemExit):
        bench.reproduce.main(arguments)
    assert words in capsys.readouterr().err


def test_the_list_tells_what_each_card_needs(bench, capsys):
    assert not bench.reproduce.main(["--list"])
    shown = capsys.readouterr().out
    assert all(f"\n{name} " in f"\n{shown}" for name in bench.card.card_names())
    assert "needs CelebA, and ResNet-50 weights of ImageNet, a GPU\n" in shown


def test_what_is_lacking_is_named(bench, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

    def lacking(*arguments):
        out = tmp_path / "never.csv"
        where = ["--data-home", str(tmp_path), "--out", str(out)]
        assert bench.reproduce.main([*arguments, *where]) == 2
        assert not out.exists()
        return capsys.readouterr().err

    assert "a GPU (--device cpu runs it" in lacking("celeba")
    message = lacking("celeba", "--device", "cpu")
    assert "Needed: CelebA" in message
    assert str(tmp_path / "celeba") in message
    assert str(tmp_path) in lacking("biased-mnist-zero")
    message = lacking("isic", "--device", "cpu")
    assert "Needed: ISIC 2019, and ResNet-18 weights" in message
    assert str(tmp_path / "isic2019") in message


def test_an_unknown_loader_is_named(bench, write, capsys):
    path = write(('name = "planted"', 'name = "streamed"'))
    assert bench.reproduce.main([str(path)]) == 2
    assert "a loader of its data, d" in capsys.readouterr().err


def test_results_are_compared(bench, write, tmp_path):
    (card,) = bench.card.read_cards(write())
    results = {
        ("ERM", "raw", "accuracy"): [57.0, 61.0],
        ("ERM", "raw", "worst group"): [1.0],
        ("MaskTune", "raw", "accuracy"): [94.0, 92.0],
    }
    minutes = {"ERM": 1.25, "MaskTune": 0.5}
    rows = bench.comparison.compare(card, "full", results, minutes)
    first, second, third = rows
    assert (first["mean"], first["std"], first["values"]) == (
        "59.00",
        "2.83",
        "57.00 61.00",
    )
    assert (first["verdict"], first["published"], first["source"]) == (
        "inside",
        "60",
        "Table 1",
    )
    assert (second["verdict"], second["std"]) == ("none published", "")
    assert (third["goal_verdict"], third["at_least"], third["goal"]) == (
        "held",
        "90",
        "95",
    )
    assert (first["minutes"], third["minutes"]) == ("1.2", "0.5")

    def verdicts(erm, masktune, scale="full"):
        results = {
            ("ERM", "raw", "accuracy"): [erm],
            ("MaskTune", "raw", "accuracy"): [masktune],
        }
        rows = bench.comparison.compare(card, scale, results, minutes)
        return rows[0]["verdict"], rows[1]["goal_verdict"]

    assert verdicts(62.0, 95.0) == ("inside", "reached")
    assert verdicts(62.1, 89.9) == ("outside", "MISSED")
    assert verdicts(62.1, 89.9, "small") == ("small scale", "")


def test_a_file_keeps_the_rows_of_other_runs(bench, write, tmp_path, capsys):
    out = tmp_path / "folder" / "out.csv"
    for epochs, value in ((5, 50.0), (20, 60.0), (5, 70.0)):
        (card,) = bench.card.read_cards(write(), epochs=[epochs])
        results = {("ERM", "raw", "accuracy"): [value]}
        rows = bench.comparison.compare(card, "full", results, {"ERM": 0.0})
        bench.comparison.write_rows(out, rows)
    with open(out, newline="") as file:
        kept = [(row["epochs"], row["mean"]) for row in csv.DictReader(file)]
    assert kept == [("20", "60.00"), ("5", "70.00")]
    bench.comparison.print_table(rows)
    assert "60 ± 2 (paper)  outside" in capsys.readouterr().out


def test_a_net_is_made_as_the_card_says(bench):
    (card,) = bench.card.read_cards("cifar10-selective")
    train = bench.card_data.LabelledSet(
        np.zeros((2, 3, 32, 32), np.uint8), np.array([0, 9])
    )
    net = bench.reproduce.make_net(card, train, home=Path(), device="cpu")
    assert (net.lr, net.batch_size, net.max_epochs) == (0.1, 128, 300)
    assert net.optimizer is torch.optim.SGD
    assert net.optimizer__weight_decay == 1e-4
    assert net.module__n_classes == 10
    ((_, schedule),) = net.callbacks
    assert (schedule.policy, schedule.kwargs["gamma"]) == ("StepLR", 0.5)
    for method in card.method.variants:
        clf = bench.reproduce.make_classifier(
            card, method, net, image_shape=(3, 32, 32), seed=3, memory=None
        )
        assert clf.random_state == 3
        assert len(clf.augment.transforms) == 2


def test_photographs_are_read_as_the_card_says(bench, tmp_path, monkeypatch):
    folder = tmp_path / "waterbirds"
    folder.mkdir()
    lines = ["img_id,img_filename,y,split,place,place_filename"]
    for i in range(12):
        Image.new("RGB", (300, 260), (255, 255, 255)).save(folder / f"{i}.png")
        lines.append(f"{i},{i}.png,{i % 2},{i % 3},{i // 2 % 2},p")
    (folder / "metadata.csv").write_text("\n".join(lines))
    (card,) = bench.card.read_cards("waterbirds")
    source = bench.card_data.Source(tmp_path, download=False, seed=0)
    train, tests = bench.card_data.load_sets(card, source)
    assert train.image_shape == (3, 224, 224)
    white = torch.tensor([2.2489, 2.4286, 2.6400])  # (1 - mean) / std
    torch.testing.assert_close(train.X[0][0][:, 0, 0], white, rtol=0, atol=1e-4)
    test = tests["test"]
    assert test.y.tolist() == [0, 1, 0, 1]
    assert test.aligned.tolist() == [False, False, True, True]
    assert set(test.groups) == {
        f"{a}bird, {b}" for a in ("land", "water") for b in ("land", "water")
    }


def test_a_planted_card_has_the_same_images_in_all_test_sets(bench, write, tmp_path):
    tests = 'raw = { what = "no square", shortcut = "none" }'
    more = tests + '\nbiased = { what = "all conflict", shortcut = "conflicting" }'
    _, (train, tests) = sets_of(bench, write((tests, more)), tmp_path, scale="small")
    assert train.X.shape == (100, 3, 28, 28)
    raw, biased = tests["raw"], tests["biased"]
    np.testing.assert_array_equal(raw.X[:, :, 4:], biased.X[:, :, 4:])
    assert not raw.artifact_mask.any()
    assert biased.artifact_mask.any(axis=(1, 2)).mean() == pytest.approx(0.5, abs=0.02)


def test_composed_test_sets_share_no_cutout_with_training(bench, tmp_path, write):
    if not bench.cutouts.FONT.exists():
        pytest.skip(f"{bench.cutouts.FONT} is not there")
    text = (bench.path / "cards" / "composed-backgrounds.toml").read_text()
    path = write(('"cifar10"', '"digits"'), text=text)
    card, (train, tests) = sets_of(bench, path, tmp_path, scale="small")
    assert train.X.shape == (600, 3, 28, 28)
    assert train.aligned.mean() == pytest.approx(0.95)
    assert tests["test"].aligned.mean() == pytest.approx(0.5)
    for name in ("only_fg", "only_bg"):
        np.testing.assert_array_equal(tests[name].y, tests["test"].y)
        np.testing.assert_array_equal(tests[name].groups, tests["test"].groups)
    _, (again, _) = sets_of(bench, path, tmp_path, scale="small")
    np.testing.assert_array_equal(train.X, again.X)
    _, (other, _) = sets_of(bench, path, tmp_path, scale="small", seed=1)
    assert (train.X != other.X).any()


def test_a_font_that_is_not_there_is_named(bench, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere.ttf.*fonts-noto-color-emoji"):
        bench.cutouts.draw_cutouts("🐒", font=tmp_path / "nowhere.ttf")


def test_every_cutout_is_drawn_and_another(bench):
    if not bench.cutouts.FONT.exists():
        pytest.skip(f"{bench.cutouts.FONT} is not there")
    drawn = bench.cutouts.draw_cutouts(bench.cutouts.ANIMALS + bench.cutouts.VEHICLES)
    assert drawn.shape == (104, 4, 128, 136)
    assert (drawn[:, 3] > 0).mean(axis=(1, 2)).min() > 0.15
    assert len({cutout.tobytes() for cutout in drawn}) == 104


def test_a_run_says_what_was_reduced_and_judges_nothing_small(
    bench, write, tmp_path, capsys
):
    path = write(("n_train = 100", "n_train = 100\ndata.n_test = 60"))
    out = tmp_path / "out.csv"
    small = ["--scale", "small", "--seeds", "1", "--out", str(out)]
    assert not bench.reproduce.main([str(path), *small])
    reduced = "n_train 100, n_test 60, epochs 1, not 7"
    assert f"1 ERM epochs; reduced: {reduced}" in capsys.readouterr().out
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["reduced"] for row in rows} == {reduced}
    assert {row["verdict"] for row in rows} == {"small scale"}
    assert {row["method"] for row in rows} == {"ERM", "MaskTune"}


@pytest.mark.slow
def test_a_card_runs_from_end_to_end(bench, tmp_path, capsys):
    out = tmp_path / "out.csv"
    arguments = ["biased-digits", "--scale", "small", "--seeds", "2", "--out", str(out)]
    assert not bench.reproduce.main(arguments)
    shown = capsys.readouterr().out
    assert "1 ERM epochs; reduced: epochs 1, not 10" in shown
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == bench.comparison.COLUMNS
    cells = {(row["method"], row["test"], row["metric"]): row for row in rows}
    for method in (
        "ERM",
        "ERM continued",
        "random masks",
        "MaskTune",
        "official recipe",
    ):
        for test in ("raw", "biased", "aligned"):
            row = cells[method, test, "accuracy"]
            values = [float(value) for value in row["values"].split()]
            assert float(row["mean"]) == pytest.approx(np.mean(values), abs=0.01)
            assert row["n_seeds"] == "2"
            error = cells[method, test, "error at coverage 100"]
            assert float(error["mean"]) == pytest.approx(
                100 - np.mean(values), abs=0.02
            )
    assert float(cells["ERM", "aligned", "accuracy"]["mean"]) > 95
    assert float(cells["MaskTune", "training", "hidden of the shortcut"]["mean"]) > 50
    biased = [
        float(cells[method, "biased", "accuracy"]["mean"])
        for method in ("ERM", "ERM continued", "MaskTune")
    ]
    assert biased[2] > max(biased[:2]) + 20


def test_masks_are_measured_over_all_rows_of_sorted_data(bench):
    n = 4000
    shortcut = np.zeros((n, 4, 4), dtype=bool)
    shortcut[:, 0, 0] = True

    def mask(X):
        kept = np.ones((len(X), 4, 4), dtype=bool)
        # The first quarter, the conflicting images, is left as it is.
        kept[X[:, 0, 0, 0] >= n / 4, 0, 0] = False
        return X, kept

    X = np.broadcast_to(np.arange(n)[:, None, None, None], (n, 1, 4, 4))
    train = SimpleNamespace(X=X, y=np.zeros(n), artifact_mask=shortcut)
    clf = SimpleNamespace(masking="saliency", mask=mask)
    scores = bench.reproduce.score_masks(clf, train)
    assert scores["hidden of the shortcut"] == pytest.approx(75, abs=0.2)
    assert scores["hidden of the image"] == pytest.approx(75 / 16, abs=0.02)
