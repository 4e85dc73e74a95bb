"""What a card compares: nets as published, and methods that differ in one thing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

import masktune_sk._fit_data

CONCEPT_CARD = [
    ('make = "make_square_shortcut"', 'make = "make_artifact"\nproportion = 0.5'),
    ('shortcut = "none"', "proportion = 0.0"),
    ('estimator = "MaskTuneClassifier"', 'estimator = "RRClArCClassifier"'),
    ("parameters = {}", "parameters = { refit_epochs = 1, validation_fraction = 0.3 }"),
    (
        'variants = ["ERM", "MaskTune"]',
        'variants = ["ERM", "ERM continued", "fine-tuned", "RR-ClArC", "A-ClArC", '
        '"P-ClArC", "RRR", "MaskTune"]',
    ),
    ("data.n_train = 100", "data.n_train = 200\ndata.n_test = 60"),
]


@pytest.fixture
def methods(bench):
    import card_methods

    return card_methods


@pytest.fixture
def nets(bench):
    import depth_nets

    return depth_nets


def make_clf(bench, methods, card, method, shape=(3, 28, 28)):
    train = bench.card_data.LabelledSet(np.zeros((2, *shape), np.uint8), np.arange(2))
    net = methods.make_net(card, train, home=Path(), device="cpu")
    return methods.make_classifier(
        card, method, net, image_shape=shape, seed=3, memory=None
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (('variants = ["ERM", "M', 'variants = ["ERM", "JTT", "M'), "no variant is 'J"),
        (("MaskTuneClassifier", "SVC"), "must be one of MaskTuneC.*; got 'SVC'"),
    ],
)
def test_an_unknown_method_is_refused(bench, methods, write, change, words):
    (card,) = bench.card.read_cards(write(change))
    with pytest.raises(bench.card.CardError, match=words):
        methods.check_variants(card)


def test_parameters_are_those_of_the_cards_estimator(bench, methods, write):
    parameters = "parameters = { temperature = 3.0, validation_fraction = 0.3 }"
    (card,) = bench.card.read_cards(
        write(
            ("MaskTuneClassifier", "DeNetDMClassifier"), ("parameters = {}", parameters)
        )
    )
    denetdm = make_clf(bench, methods, card, "DeNetDM, shallow branch")
    assert (denetdm.temperature, denetdm.predict_branch) == (3.0, "shallow")
    masktune = make_clf(bench, methods, card, "MaskTune")
    assert masktune.masking == "saliency"
    # Without a branch in the card, the estimator has its own.
    assert denetdm.shallow_module == "auto"
    for clf in (denetdm, masktune):
        assert (clf.validation_fraction, clf.random_state) == (0.3, 3)


@pytest.mark.parametrize(
    ("estimator", "parameters", "epochs"),
    [
        ("MaskTuneClassifier", "{}", 1),
        ("MaskTuneClassifier", "{ refit_epochs = 2 }", 2),
        ("RRClArCClassifier", "{}", 10),
        ("DeNetDMClassifier", "{}", 7),
        ("DeNetDMClassifier", "{ stage2_epochs = 4 }", 4),
    ],
)
def test_erm_goes_on_for_as_long_as_the_cards_method(
    bench, methods, write, estimator, parameters, epochs
):
    path = write(
        ("MaskTuneClassifier", estimator),
        ("parameters = {}", f"parameters = {parameters}"),
    )
    (card,) = bench.card.read_cards(path)
    clf = make_clf(bench, methods, card, "ERM continued")
    assert (clf.masking, clf.refit_epochs) == ("none", epochs)
    assert make_clf(bench, methods, card, "ERM").refit_epochs == 0


# So few samples tell neither the class nor the concept.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::masktune_sk.exceptions.ConceptWarning")
@pytest.mark.filterwarnings("ignore::masktune_sk.exceptions.AccuracyFallWarning")
@pytest.mark.filterwarnings("ignore::masktune_sk.exceptions.EmptyMaskWarning")
def test_all_methods_of_a_card_start_from_one_erm(
    bench, write, tmp_path, monkeypatch, capsys
):
    train_erm, stages = masktune_sk._fit_data.train_erm, []

    def counted(*args, **kwargs):
        stages.append(kwargs["stage"])
        return train_erm(*args, **kwargs)

    monkeypatch.setattr(masktune_sk._fit_data, "train_erm", counted)
    out = tmp_path / "out.csv"
    arguments = ["--scale", "small", "--seeds", "1", "--out", str(out)]
    assert not bench.reproduce.main([str(write(*CONCEPT_CARD)), *arguments])
    assert stages.count("ERM") == 1
    shown = capsys.readouterr().out
    for method in ("fine-tuned", "RR-ClArC", "A-ClArC", "P-ClArC", "RRR", "MaskTune"):
        assert f"seed 0, {method}: raw" in shown


def count(module):
    return sum(weights.numel() for weights in module.parameters())


@pytest.mark.parametrize(
    ("name", "shape", "shallow", "deep"),
    [
        ("colored-mnist", (3, 28, 28), 245_400, 265_600),
        ("corrupted-cifar10", (3, 32, 32), 156_480, 269_072),
        ("bar", (3, 32, 32), 156_480, 269_072),
        ("bffhq", (3, 224, 224), 3_035_904, 11_176_512),
    ],
)
def test_branches_are_the_published_ones(bench, nets, name, shape, shallow, deep):
    card = bench.card.read_cards(name)[0]
    modules = nets.branches_of(card.net, shape)
    shallow_module = modules["shallow_module"]().eval()
    assert count(shallow_module) == shallow
    assert count(modules["deep_module"]()) == deep
    # White is a picture like any other: nothing standardises it away.
    with torch.no_grad():
        features = shallow_module(torch.full((2, *shape), 255.0))
    assert features.shape[0] == 2
    assert (features >= 0).all()


def test_an_unknown_branch_is_refused(nets):
    entry = {"shallow": {"name": "LeNet"}, "deep": {"name": "resnet20"}}
    with pytest.raises(ValueError, match="one of MLP, .*; got 'LeNet'"):
        nets.branches_of(entry, (3, 32, 32))


def test_the_perceptron_of_a_card(bench, methods):
    card = bench.card.read_cards("colored-mnist")[0]
    clf = make_clf(bench, methods, card, "DeNetDM")
    module = clf.estimator.initialize().module_
    # Two classes, not ten.
    assert count(module) == 265_600 + 2 * 101
    assert clf.shallow_module.args == (2352, [100, 100])
    images = torch.rand(2, 3, 28, 28)
    torch.testing.assert_close(module[0](255 * images), images)


def test_a_net_normalises_pixels_as_the_card_says(bench, methods):
    card = bench.card.read_cards("corrupted-cifar10", scale="small")[0]
    clf = make_clf(bench, methods, card, "ERM", shape=(3, 32, 32))
    net = clf.estimator.initialize()
    white = net.module_[0](torch.full((1, 3, 32, 32), 255.0))[0, :, 0, 0]
    expected = (1 - np.array([0.4914, 0.4822, 0.4465])) / [0.2023, 0.1994, 0.2010]
    torch.testing.assert_close(white, torch.tensor(expected).float())
    assert net.module_[1].fc.out_features == 2
    assert_array_equal(net.predict(np.zeros((2, 3, 32, 32), np.float32)).shape, 2)
