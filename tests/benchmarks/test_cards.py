"""Reproduction cards: all are complete, and one that is none is refused."""

import pytest
import torch
from torchvision.transforms import v2

import masktune_sk

CARDS = {
    "bar",
    "bffhq",
    "biased-digits",
    "biased-fashion-random",
    "biased-fashion-sorted",
    "biased-fashion-zero",
    "biased-mnist-random",
    "biased-mnist-sorted",
    "biased-mnist-zero",
    "bone-age",
    "cats-vs-dogs-selective",
    "celeba",
    "celeba-collar",
    "cifar10-selective",
    "colored-mnist",
    "composed-backgrounds",
    "corrupted-cifar10",
    "corrupted-cifar10-reduced",
    "imagenet-9",
    "imagenet-timestamp",
    "isic",
    "shortcut-colour",
    "shortcut-colour-long",
    "shortcut-square",
    "shortcut-square-long",
    "svhn-selective",
    "waterbirds",
}


def test_there_is_a_card_for_every_published_setting(bench):
    assert set(bench.card.card_names()) == CARDS


@pytest.mark.parametrize("name", sorted(CARDS))
@pytest.mark.parametrize("scale", ["full", "small"])
def test_a_card_is_complete(bench, name, scale):
    import card_methods

    for card in bench.card.read_cards(name, scale=scale):
        training, method = card.training, card.method
        assert hasattr(torch.optim, training.optimizer["name"])
        if training.schedule:
            assert hasattr(torch.optim.lr_scheduler, training.schedule["name"])
        card_methods.named(training.augmentation, v2)
        assert all("what" in test for test in card.tests.values())
        card_methods.check_variants(card)
        clf = getattr(masktune_sk, method.estimator)(**method.parameters)
        clf._validate_params()
        assert card.data["name"] in bench.card_data.LOADERS
        for figure in card.figures.reported:
            assert 0 <= figure.value <= 100
            assert figure.tolerance >= 1
        # Either every method has a figure, or it is said why not.
        assert card.figures.absent or {f.method for f in card.figures.reported} == set(
            method.variants
        )


@pytest.mark.parametrize("name", sorted(CARDS))
def test_a_sweep_leaves_no_figure_out(bench, name):
    cards = bench.card.read_cards(name)
    text = (bench.path / "cards" / f"{name}.toml").read_text()
    figures = [figure for card in cards for figure in card.figures.reported]
    assert len(figures) == text.count("value = ")
    assert {figure.source for figure in figures} == set(cards[0].figures.sources)


def test_what_is_reduced_is_told(bench, write):
    path = write()
    (full,) = bench.card.read_cards(path)
    assert (full.reduced, full.training.epochs) == ("", 7)
    (small,) = bench.card.read_cards(path, scale="small")
    assert small.reduced == "n_train 100, epochs 1, not 7"
    cards = bench.card.read_cards(path, scale="small", epochs=(3, 7))
    assert [card.training.epochs for card in cards] == [3, 7]
    assert [card.reduced for card in cards] == [
        "n_train 100, epochs 3, not 7",
        "n_train 100",
    ]


def test_a_sweep_has_a_card_for_each_value_with_its_figures(bench):
    cards = bench.card.read_cards("colored-mnist")
    assert [card.setting for card in cards] == [
        f"conflict_ratio {ratio}" for ratio in (0.005, 0.01, 0.02, 0.05)
    ]
    assert [card.data["conflict_ratio"] for card in cards] == [0.005, 0.01, 0.02, 0.05]
    denetdm = [card.figures.reported[-1].value for card in cards]
    assert denetdm == [74.72, 85.22, 89.29, 93.54]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("epochs = 7", "epoch = 7"), r"unknown: \['epoch'\], missing: \['epochs'\]"),
        (("epochs = 7", "epochs = 7.5"), "training, epochs: expected int, got 7.5"),
        (("epochs = 7", "epochs = true"), "expected int, got True"),
        (('variants = ["ERM", "MaskTune"]', 'variants = "ERM"'), "expected list"),
        (
            ('name = "small_cnn"', 'kind = "small_cnn"'),
            r"\[net\] needs the entry 'name'",
        ),
        (
            ('method = "ERM"', 'method = "JTT"'),
            "the method 'JTT', .* only 'ERM', 'Mask",
        ),
        (('test = "raw"', 'test = "x"'), "the test 'x', .* only 'raw'"),
        (('source = "paper"', 'source = "me"'), "the source 'me', .* only 'paper'"),
        (("[figures]", "[figures"), "card some is not TOML"),
    ],
)
def test_a_card_that_is_none_is_refused(bench, write, change, words):
    with pytest.raises(bench.card.CardError, match=words):
        bench.card.read_cards(write(change))


def test_two_figures_of_one_result_are_refused(bench, card_text, write):
    _, figure = card_text.split("[[figures.reported]]")
    figure = "[[figures.reported]]" + figure.split("[[figures.goals]]")[0]
    with pytest.raises(bench.card.CardError, match="stands there twice"):
        bench.card.read_cards(write((figure, 2 * figure)))


def test_an_unknown_card_is_refused_with_those_that_exist(bench, capsys):
    with pytest.raises(bench.card.CardError, match="no card 'mnist'.*biased-digits"):
        bench.card.read_cards("mnist")
    with pytest.raises(SystemExit):
        bench.reproduce.main(["mnist"])
    assert "There is no card 'mnist'" in capsys.readouterr().err
