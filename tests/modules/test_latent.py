"""Which layer is corrected, what comes after it, and whether it can be split off."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from masktune_sk.exceptions import TargetLayerError
from masktune_sk.modules import MLP, CifarResNet, SmallConvNet, published_module
from masktune_sk.modules._latent import (
    LatentLayer,
    evaluating,
    find_latent_layer,
    isolate_head,
    parameters_after,
    passed_through,
)
from tests.nets import TinyConvNet, TinyMLP

IMAGES = torch.rand(4, 1, 12, 12)


class Around(nn.Module):
    """A path leads around the layer, as in a block with a shortcut."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.branch = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 2)

    def forward(self, X):
        X = self.stem(X)
        return self.head((X + self.branch(X)).mean(dim=(2, 3)))


class LateName(nn.Module):
    """Attributes in another order than they run, and weights of its own."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.gain = nn.Parameter(torch.ones(1))
        self.shift = nn.Parameter(torch.ones(1))
        self.features = nn.Conv2d(1, 4, 3)
        self.unused = nn.Linear(3, 3)

    def forward(self, X):
        X = self.features(X * self.gain).mean(dim=(2, 3))
        return self.head(X + self.shift)


class TokenNet(nn.Module):
    """Patches as tokens, one block of attention, the mean of the tokens."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 4, stride=4)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 2)

    def forward(self, X):
        tokens = self.patches(X).flatten(2).transpose(1, 2)
        return self.head(self.norm(self.block(tokens)).mean(dim=1))


class ChannelsLast(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Linear(1, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, X):
        return self.head(self.features(X.permute(0, 2, 3, 1)).mean(dim=(1, 2)))


class Branching(nn.Module):
    """Control flow by data, which `torch.fx` can't follow."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4, 2)

    def forward(self, X):
        X = self.features(X).mean(dim=(2, 3))
        return self.head(X if X.sum() > 0 else -X)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)
        self.head = nn.Linear(6, 2)

    def forward(self, X):
        return self.head(self.layer(F.relu(self.layer(X))))


class InPlace(nn.Module):
    """A rectifier writes into the output of the layer."""

    def __init__(self):
        super().__init__()
        self.features = nn.Conv2d(1, 4, 3)
        self.relu = nn.ReLU(inplace=True)
        self.head = nn.Linear(400, 2)

    def forward(self, X):
        return self.head(self.relu(self.features(X)).flatten(1))


# ---------------------------------------------------------------- which layer


@pytest.mark.parametrize(
    ("module", "X", "name", "shape", "axis"),
    [
        (TinyConvNet(), IMAGES, "features", (8, 12, 12), 1),
        (SmallConvNet(1, 2), torch.rand(4, 1, 28, 28), "features", (32, 8, 8), 1),
        (CifarResNet(8), torch.rand(4, 3, 32, 32), "layer3", (64, 8, 8), 1),
        (TinyMLP(), torch.rand(4, 6), "layers.1", (16,), 1),
        (MLP(6, 2), torch.rand(4, 6), "layers.4", (64,), 1),
        (TokenNet(), IMAGES, "norm", (9, 8), 2),
        (ChannelsLast(), IMAGES, "features", (12, 12, 5), 3),
    ],
)
def test_default_layer_is_the_last_before_what_pools(module, X, name, shape, axis):
    layer = find_latent_layer(module.train(), X)
    assert layer == LatentLayer(name, shape, axis, "max")
    assert module.training
    assert not any(part._forward_hooks for part in module.modules())


@pytest.mark.parametrize(
    ("architecture", "name"), [("resnet18", "layer4"), ("vgg16", "features.29")]
)
def test_default_layer_of_published_nets(architecture, name):
    module = published_module(architecture, 2, image_size=64)
    assert find_latent_layer(module, torch.rand(2, 3, 64, 64)).name == name


def test_a_pooling_is_no_layer_to_correct():
    module = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(75, 2)
    )
    assert find_latent_layer(module, IMAGES).name == "1"


def test_a_map_of_logits_is_no_layer_to_correct():
    module = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1)
    )
    module.append(nn.Flatten())
    assert find_latent_layer(module, IMAGES).name == "1"


@pytest.mark.parametrize(
    ("module", "X", "name", "message"),
    [
        (TinyConvNet(), IMAGES, "feature", "Near ones: 'features"),
        (LateName(), IMAGES, "unused", "runs 0 times"),
        (Twice(), torch.rand(4, 6), "layer", "runs 2 times"),
        (nn.Sequential(nn.LSTM(6, 3)), torch.rand(4, 6), "0", "expected one tensor"),
        (nn.Linear(6, 2), torch.rand(4, 6), None, "no hidden layer"),
    ],
)
def test_layers_that_can_not_be_corrected(module, X, name, message):
    if isinstance(module, nn.Sequential):
        module = _FirstOf(module[0])
        name = "part"
    with pytest.raises(TargetLayerError, match=message):
        find_latent_layer(module, X, name)


class _FirstOf(nn.Module):
    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, X):
        return self.part(X)[0]


@pytest.mark.parametrize("pool", ["max", "mean", "none"])
@pytest.mark.parametrize(
    ("shape", "axis"), [((3, 4, 5), 1), ((4, 5, 3), 3), ((7, 3), 2), ((3,), 1)]
)
def test_moving_along_a_direction_moves_the_pooled_latents(shape, axis, pool):
    layer = LatentLayer("x", shape, axis, pool)
    assert layer.n_channels == 3
    assert layer.n_positions * 3 == torch.Size(shape).numel()
    a, h = torch.randn(2, *shape), torch.randn(1, layer.n_latents)
    assert layer.pooled(a).shape == (2, layer.n_latents)
    moved = layer.pooled(a + layer.spread(h))
    torch.testing.assert_close(moved, layer.pooled(a) + h)


# ---------------------------------------------------------------- what comes after


@pytest.mark.parametrize(
    ("module", "X", "layer", "after"),
    [
        (TinyConvNet(), IMAGES, "features", {"head.weight", "head.bias"}),
        (LateName(), IMAGES, "features", {"head.weight", "head.bias", "shift"}),
        (Around(), IMAGES, "branch", {"head.weight", "head.bias"}),
        (TinyMLP(), torch.rand(4, 6), "layers.0", {"layers.2.weight", "layers.2.bias"}),
    ],
)
def test_parameters_after_a_layer_by_the_order_of_running(module, X, layer, after):
    assert set(parameters_after(module, layer, X)) == after


def test_parameters_of_attention_count_where_it_runs():
    names = parameters_after(TokenNet(), "patches", IMAGES)
    assert "block.self_attn.in_proj_weight" in names
    assert "block.self_attn.out_proj.weight" in names
    assert "patches.weight" not in names


def test_parameters_the_user_froze_stay_frozen():
    module = TinyConvNet()
    module.head.bias.requires_grad_(False)
    assert parameters_after(module, "features", IMAGES) == ["head.weight"]
    module.head.weight.requires_grad_(False)
    with pytest.raises(TargetLayerError, match="No trainable parameters run after"):
        parameters_after(module, "features", IMAGES)


# ---------------------------------------------------------------- splitting


@pytest.mark.parametrize(
    ("module", "X", "name"),
    [
        (TinyConvNet(), IMAGES, "features"),
        (TinyConvNet(), IMAGES, "features.3"),
        (InPlace(), IMAGES, "features"),
        (SmallConvNet(1, 2), torch.rand(4, 1, 28, 28), "features"),
        (CifarResNet(8), torch.rand(4, 3, 32, 32), "layer2"),
        (TinyMLP(), torch.rand(4, 6), "layers.1"),
        (TokenNet(), IMAGES, "norm"),
    ],
)
def test_head_computes_what_the_module_does(module, X, name):
    module.eval()
    head = isolate_head(module, name, X)
    latents = []
    with passed_through(
        module.get_submodule(name), lambda output: latents.append(output.clone())
    ):
        expected = module(X)
    torch.testing.assert_close(head(latents[0]), expected)
    whole = dict(module.named_parameters())
    assert set(dict(head.named_parameters())) >= set(parameters_after(module, name, X))
    for parameter_name, parameter in head.named_parameters():
        assert parameter is whole[parameter_name]
    again = copy.deepcopy(head)
    torch.testing.assert_close(again(latents[0]), expected)


@pytest.mark.parametrize(
    ("module", "X", "name"),
    [
        (Around(), IMAGES, "branch"),
        (Branching(), IMAGES, "features"),
        (Twice(), torch.rand(4, 6), "layer"),
    ],
    ids=["path around", "control flow", "runs twice"],
)
def test_no_head_where_the_module_can_not_be_split(module, X, name):
    assert isolate_head(module.eval(), name, X) is None


def test_no_head_where_another_batch_would_compute_otherwise():
    class Noisy(TinyMLP):
        def forward(self, X):
            return super().forward(X) + torch.rand(1)

    assert isolate_head(Noisy().eval(), "layers.1", torch.rand(4, 6)) is None


def test_contexts_restore_modes_and_hooks():
    module = TinyConvNet()
    module.features[1].eval()
    with evaluating(module), passed_through(module.head, lambda output: output * 0):
        assert not module.training
        assert not module(IMAGES).any()
    assert module.training
    assert not module.features[1].training
    assert not module.head._forward_hooks


class Averages(nn.Module):
    def forward(self, maps):
        return maps.mean(dim=(2, 3))


def test_pooling_goes_by_what_the_net_does_with_positions():
    X = torch.randn(4, 3, 6, 6)
    body = [nn.Conv2d(3, 5, 3), nn.ReLU()]
    averaging = nn.Sequential(*body, Averages(), nn.Linear(5, 2))
    flattening = nn.Sequential(*body, nn.Flatten(), nn.Linear(5 * 16, 2))
    assert find_latent_layer(averaging, X, "1", "auto").pool == "max"
    assert find_latent_layer(flattening, X, "1", "auto").pool == "none"
    assert find_latent_layer(flattening, X, "0", "auto").pool == "none"
    # A convolution in between weighs all positions alike.
    deeper = nn.Sequential(nn.Conv2d(3, 3, 1), nn.ReLU(), *flattening)
    assert find_latent_layer(deeper, X, "1", "auto").pool == "max"
    # A vector has no positions.
    vectors = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 2))
    assert find_latent_layer(vectors, torch.randn(4, 4), "1", "auto").pool == "max"


def test_large_maps_are_pooled_whatever_the_net_does():
    X = torch.randn(2, 3, 34, 34)
    net = nn.Sequential(nn.Conv2d(3, 10, 3), nn.Flatten(), nn.Linear(10 * 1024, 2))
    assert find_latent_layer(net, X, "0", "auto").pool == "max"
