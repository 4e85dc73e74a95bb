"""Tests of the networks of the papers."""

import copy
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from skorch import NeuralNetClassifier
from torch import nn
from torchvision import models

from masktune_sk import MaskTuneClassifier
from masktune_sk.modules import (
    CifarResNet,
    SmallConvNet,
    published_module,
    published_net,
)
from masktune_sk.modules._published import ARCHITECTURES, TORCHVISION
from masktune_sk.training._fingerprint import content_hash


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.random((8, 3, 16, 16), dtype=np.float32), np.arange(8) % 2


@pytest.fixture
def weights(tmp_path):
    """Weights for ten classes, in a file."""
    path = tmp_path / "weights.pth"
    torch.save(published_module("resnet20", 10).state_dict(), path)
    return path


def build_without_memory(*args, **kwargs):
    with torch.device("meta"):
        return published_module(*args, **kwargs)


def n_parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("architecture", TORCHVISION)
def test_with_1000_classes_it_is_the_model_of_torchvision(architecture):
    module = build_without_memory(architecture, 1000)
    meta = models.get_model_weights(architecture)["IMAGENET1K_V1"].meta
    assert n_parameters(module) == meta["num_params"]


def test_the_weights_are_drawn_as_torchvision_draws_them():
    torch.manual_seed(0)
    module = published_module("resnet18", 3)
    torch.manual_seed(0)
    expected = models.resnet18(num_classes=3).state_dict()
    for name, value in module.state_dict().items():
        assert torch.equal(value, expected[name])


def test_the_others_are_ours():
    assert type(published_module("small_cnn", 2)) is SmallConvNet
    for name, n in (("resnet20", 269_722), ("resnet32", 464_154)):
        module = published_module(name, 10)
        assert type(module) is CifarResNet
        assert n_parameters(module) == n


@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_it_takes_the_images_and_has_an_output_a_class(architecture, n_channels):
    module = build_without_memory(architecture, 7, image_size=64, n_channels=n_channels)
    X = torch.empty(2, n_channels, 64, 64, device="meta")
    assert module(X).shape == (2, 7)
    stems = [m for m in module.modules() if isinstance(m, nn.Conv2d)]
    heads = [m for m in module.modules() if isinstance(m, nn.Linear)]
    assert stems[0].in_channels == n_channels
    assert heads[-1].out_features == 7


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["resnet50", "vgg16", "vit_b_16"])
def test_the_large_ones_run(architecture):
    module = published_module(architecture, 3, image_size=32).eval()
    with torch.no_grad():
        logits = module(torch.rand(1, 3, 32, 32))
    assert logits.shape == (1, 3)
    assert torch.isfinite(logits).all()


@pytest.mark.parametrize("architecture", ["resnet18", "efficientnet_b0"])
def test_a_convolution_for_other_channels_is_drawn_as_the_old_one(architecture):
    def first(n_channels):
        module = published_module(architecture, 2, n_channels=n_channels)
        return next(m for m in module.modules() if isinstance(m, nn.Conv2d))

    old, new = first(3), first(8)
    for name in ("out_channels", "kernel_size", "stride", "padding"):
        assert getattr(new, name) == getattr(old, name)
    assert new.bias is None
    expected = (2 / (new.out_channels * new.kernel_size[0] ** 2)) ** 0.5
    tolerance = 5 / (2 * new.weight.numel()) ** 0.5
    assert new.weight.std().item() == pytest.approx(expected, rel=tolerance)


@pytest.mark.slow
def test_a_convolution_for_other_channels_is_drawn_as_the_old_one_in_a_transformer():
    stem = published_module("vit_b_16", 2, image_size=32, n_channels=1).conv_proj
    assert not stem.bias.any()
    assert stem.weight.std().item() == pytest.approx(1 / 16, rel=0.02)


def test_the_image_size_reaches_the_nets_that_are_built_for_it():
    for size in (48, (48, 48)):
        module = build_without_memory("vit_b_16", 2, image_size=size)
        assert module.image_size == 48
    assert build_without_memory("vit_b_16", 2).image_size == 224
    assert build_without_memory("small_cnn", 2).grid == (4, 4)
    module = build_without_memory("small_cnn", 2, image_size=(8, 40))
    assert module.grid == (2, 4)


def test_options_reach_the_builder():
    assert published_module("resnet20", 2, normalize=True).input_norm.num_features == 3
    module = build_without_memory("vgg16", 2, dropout=0.25)
    assert module.classifier[2].p == 0.25
    net = published_net("resnet20", 2, module__normalize=True).initialize()
    assert isinstance(net.module_.input_norm, nn.BatchNorm2d)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (("resnet19", 2, {}), "one of 'small_cnn', .* got 'resnet19'. Wrap any other"),
        ((None, 2, {}), "architecture must be one of .* got None"),
        (("resnet18", 1, {}), "n_classes must be an integer of 2 or more; got 1"),
        (("resnet18", 2.0, {}), "n_classes must be an integer of 2 or more; got 2.0"),
        (("resnet18", True, {}), "n_classes must be an integer .* got True"),
        (("resnet18", 2, {"n_channels": 0}), "n_channels must be an .* 1 or more; got"),
        (("resnet18", 2, {"image_size": 0}), "number of pixels, a pair .* got 0"),
        (("resnet18", 2, {"image_size": (32,)}), r"a pair .* got \(32,\)"),
        (("resnet18", 2, {"image_size": (32, 0.5)}), r"a pair .* got \(32, 0.5\)"),
        (("vgg16", 2, {"image_size": (31, 64)}), "'vgg16' needs .* 32 .* 31 x 64"),
        (("vgg16_bn", 2, {"image_size": 28}), "more, got 28 x 28. Enlarge them, or"),
        (("small_cnn", 2, {"image_size": 7}), "images of 8 pixels a side .* 7 x 7"),
        (
            ("vit_b_16", 2, {"image_size": (64, 32)}),
            "square images .* got 64 x 32. Resize or crop them, to 32 pixels",
        ),
        (
            ("vit_b_16", 2, {"image_size": 100}),
            "multiple of its patches of 16 pixels, got 100 x 100. .* to 96 pixels",
        ),
        (("vit_b_16", 2, {"image_size": 8}), "got 8 x 8. .* to 16 pixels"),
    ],
)
@pytest.mark.parametrize("make", [published_module, published_net])
def test_bad_parameters(make, parameters, message):
    architecture, n_classes, others = parameters
    with pytest.raises(ValueError, match=message):
        make(architecture, n_classes, **others)


@pytest.mark.parametrize("make", [published_module, published_net])
def test_weights_that_are_not_there(make, tmp_path):
    path = tmp_path / "nothing.pth"
    message = f"No file of weights at {path}. Nothing is downloaded.* leave weights out"
    with pytest.raises(FileNotFoundError, match=message) as caught:
        make("resnet20", 2, weights=path)
    assert "torchvision" not in str(caught.value)
    with pytest.raises(FileNotFoundError, match="are at https://.*/resnet50-.*pth"):
        make("resnet50", 2, weights=str(path))
    with pytest.raises(FileNotFoundError, match="No file"):
        make("resnet50", 2, weights=tmp_path)
    with pytest.raises(TypeError, match="must be the path .* or None; got True"):
        make("resnet50", 2, weights=True)


def test_the_defaults_are_as_documented(weights):
    net = published_net("resnet18", 3)
    assert type(net) is NeuralNetClassifier
    assert not net.initialized_
    assert net.module is published_module
    assert net.get_params_for("module") == {
        "architecture": "resnet18",
        "n_classes": 3,
        "image_size": None,
        "n_channels": 3,
        "weights": None,
        "weights_sha256": None,
    }
    assert net.criterion is nn.CrossEntropyLoss
    assert net.optimizer is torch.optim.SGD
    assert net.get_params_for("optimizer") == {"momentum": 0.9}
    assert (net.lr, net.max_epochs, net.batch_size) == (0.01, 20, 32)
    assert net.get_params_for("iterator_train") == {"shuffle": True}
    assert net.train_split is None
    assert net.verbose == 0
    assert published_net("resnet20", 3, weights=weights).lr == 0.001


def test_every_default_can_be_replaced(data):
    net = published_net(
        "resnet20", 2, optimizer=torch.optim.Adam, lr=0.5, max_epochs=1, verbose=1
    )
    assert (net.lr, net.max_epochs, net.verbose) == (0.5, 1, 1)
    # SGD's momentum would be none of Adam's parameters.
    net.set_params(verbose=0).fit(*data)
    assert type(net.optimizer_) is torch.optim.Adam
    net = published_net("resnet20", 2, optimizer__momentum=0.5).initialize()
    assert net.optimizer_.param_groups[0]["momentum"] == 0.5


def test_the_weights_are_those_of_the_file(weights, monkeypatch):
    monkeypatch.chdir(weights.parent)
    net = published_net("resnet20", 2, weights=weights.name)
    # A worker may start in another folder.
    monkeypatch.chdir(weights.parent.parent)
    module = clone(net).initialize().module_
    expected = torch.load(weights)
    for name, value in module.state_dict().items():
        if name.startswith("fc."):
            assert value.shape[0] == 2
        else:
            assert torch.equal(value, expected[name])


def test_a_fitted_net_predicts_without_the_file(weights, data):
    X, y = data
    net = published_net("resnet20", 2, weights=weights, max_epochs=1)
    untouched = clone(net)
    expected = net.fit(X, y).predict_proba(X)
    stored, copied = pickle.dumps(net), copy.deepcopy(net)
    weights.unlink()
    for other in (pickle.loads(stored), copied, copy.deepcopy(copied), net):
        np.testing.assert_array_equal(other.predict_proba(X), expected)
    # Its parameters are still those of the recipe.
    again = pickle.loads(pickle.dumps(clone(copied)))
    assert again.get_params_for("module") == untouched.get_params_for("module")
    with pytest.raises(FileNotFoundError, match="No file of weights"):
        again.initialize()


# Of noise, many masks may be empty.
@pytest.mark.filterwarnings("ignore::masktune_sk.exceptions.EmptyMaskWarning")
@pytest.mark.parametrize(
    ("architecture", "size"),
    [("resnet20", 16), pytest.param("resnet18", 32, marks=pytest.mark.slow)],
)
def test_the_estimator_trains_it_and_predicts_without_the_file(
    architecture, size, tmp_path
):
    X = np.random.default_rng(0).random((8, 3, size, size), dtype=np.float32)
    y = np.arange(8) % 2
    path = tmp_path / "weights.pth"
    torch.save(published_module(architecture, 5).state_dict(), path)
    net = published_net(architecture, 2, weights=path, max_epochs=1)
    clf = MaskTuneClassifier(net, validation_fraction=0, random_state=0).fit(X, y)
    expected = clf.predict_proba(X)
    stored = pickle.dumps(clf)
    path.unlink()
    loaded = pickle.loads(stored)
    np.testing.assert_array_equal(loaded.predict_proba(X), expected)
    assert loaded.saliency_maps(X).shape == (8, size, size)


def test_it_can_be_searched_over(weights, data):
    net = published_net("resnet20", 2, weights=weights, max_epochs=1)
    paths = [None, str(weights)]
    search = GridSearchCV(net, {"module__weights": paths}, cv=2, error_score="raise")
    assert len(search.fit(*data).cv_results_["params"]) == 2
    nets = [published_net("resnet20", 2, weights=path, max_epochs=1) for path in paths]
    clf = MaskTuneClassifier(masking="none", validation_fraction=0, random_state=0)
    search = GridSearchCV(clf, {"estimator": nets}, cv=2, error_score="raise")
    assert len(search.fit(*data).cv_results_["params"]) == 2


def test_a_frozen_net_with_weights_is_trained_further(weights, data):
    X, y = data
    net = published_net("resnet20", 2, weights=weights, max_epochs=1).fit(X, y)
    clf = MaskTuneClassifier(
        FrozenEstimator(net), validation_fraction=0, refit_epochs=0, random_state=0
    )
    expected = net.predict_proba(X)
    np.testing.assert_allclose(clf.fit(X, y).predict_proba(X), expected, atol=1e-6)


def test_the_content_of_the_file_counts_where_results_are_stored(
    weights, data, tmp_path, capsys
):
    def fit(net):
        clf = MaskTuneClassifier(net, masking="none", random_state=0, verbose=1)
        clf.set_params(memory=tmp_path / "memory", validation_fraction=0).fit(*data)
        return "ERM: found in memory" in capsys.readouterr().out

    def make():
        return published_net("resnet20", 2, weights=weights, max_epochs=1)

    before = make()
    assert not fit(before)
    assert fit(make())
    torch.save(published_module("resnet20", 10).state_dict(), weights)
    after = make()
    assert content_hash(before.get_params()) != content_hash(after.get_params())
    with pytest.raises(ValueError, match="not those that this net was made with"):
        before.initialize()
    assert not fit(after)
