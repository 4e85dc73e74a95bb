"""Tests of which layer is explained."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from torch import nn
from torch.nn import functional as F

from masktune_sk.data import ArraySource
from masktune_sk.exceptions import TargetLayerError
from masktune_sk.modules import MLP, SmallConvNet
from masktune_sk.saliency import (
    CentredGradCAM,
    GradCAM,
    Layer,
    XGradCAM,
    compute_maps,
    find_layer,
    resolve_saliency,
)

N_SAMPLES = 4
N_CLASSES = 3


def images(height=16, width=24):
    return torch.rand(N_SAMPLES, 3, height, width)


class Backwards(nn.Module):
    """Layers that are registered in another order than they run."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(6, N_CLASSES)
        self.last = nn.Conv2d(5, 6, 3, padding=1)
        self.middle = nn.Conv2d(4, 5, 3, stride=2, padding=1)
        self.unused = nn.Conv2d(6, 6, 3)
        self.first = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, X):
        return self.head(self.last(self.middle(self.first(X))).mean(dim=(2, 3)))


class Pyramid(nn.Module):
    """Convolutions with a stride of 2, one after the other."""

    def __init__(self, n_layers=4):
        super().__init__()
        widths = range(3, 3 + n_layers)
        self.layers = nn.Sequential(
            *(nn.Conv2d(n, n + 1, 3, stride=2, padding=1) for n in widths)
        )
        self.head = nn.Linear(3 + n_layers, N_CLASSES)

    def forward(self, X):
        return self.head(self.layers(X).mean(dim=(2, 3)))


class Attention(nn.Module):
    """Self-attention with two heads, projected at once as in torch.

    Its weights, of shape (n, heads, tokens, tokens), leave a module of their own.
    """

    def __init__(self, width):
        super().__init__()
        self.qkv = nn.Parameter(torch.randn(3 * width, width))
        self.weights = nn.Softmax(dim=-1)
        self.out = nn.Linear(width, width)

    def project(self, tokens):
        return F.linear(tokens, self.qkv)

    def heads(self, tokens):
        return [
            x.unflatten(2, (2, -1)).transpose(1, 2)
            for x in self.project(tokens).chunk(3, dim=2)
        ]

    def forward(self, tokens):
        q, k, v = self.heads(tokens)
        weights = self.weights(q @ k.transpose(2, 3))
        return self.out((weights @ v).transpose(1, 2).flatten(2))


class AttentionOfModules(Attention):
    """The same of more modules, as in timm; keys are (n, heads, tokens, width)."""

    def __init__(self, width):
        super().__init__(width)
        del self.qkv
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.Identity()
        self.k_norm = nn.Identity()

    def project(self, tokens):
        return self.qkv(tokens)

    def heads(self, tokens):
        q, k, v = super().heads(tokens)
        return self.q_norm(q), self.k_norm(k), v


class Block(nn.Module):
    """A transformer block, normalised first."""

    def __init__(self, width, attention=Attention):
        super().__init__()
        self.norm_1 = nn.LayerNorm(width)
        self.attention = attention(width)
        self.norm_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU())

    def forward(self, tokens):
        tokens = tokens + self.attention(self.norm_1(tokens))
        return tokens + self.mlp(self.norm_2(tokens))


class TinyViT(nn.Module):
    """A vision transformer; its head reads the first token or the mean of all."""

    def __init__(self, n_prefix=1, *, patch=3, pooled=False, attention=Attention):
        super().__init__()
        self.pooled = pooled
        self.embed = nn.Conv2d(3, 8, patch, stride=patch)
        self.prefix = nn.Parameter(torch.randn(1, n_prefix, 8))
        self.blocks = nn.Sequential(Block(8, attention), Block(8, attention))
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, N_CLASSES)

    def forward(self, X):
        patches = self.embed(X).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.prefix.expand(len(X), -1, -1), patches], dim=1)
        tokens = self.norm(self.blocks(tokens))
        return self.head(tokens.mean(dim=1) if self.pooled else tokens[:, 0])


class Permute(nn.Module):
    def forward(self, X):
        return X.permute(0, 2, 3, 1)


class TinySwin(nn.Module):
    """Stages with channels last, as in a Swin transformer."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Sequential(nn.Conv2d(3, 12, 2, stride=2), Permute())
        self.stage = nn.Sequential(nn.LayerNorm(12), nn.Linear(12, 12), nn.GELU())
        self.head = nn.Linear(12, N_CLASSES)

    def forward(self, X):
        return self.head(self.stage(self.embed(X)).mean(dim=(1, 2)))


# ---------------------------------------------------------------------- running order


def test_the_last_layer_to_run_is_found_whatever_the_order_of_registration(as_net):
    layer = find_layer(as_net(Backwards()), images(16, 24))
    assert layer == Layer("last", "channels_first", (8, 12), signed=True)


def test_a_block_finishes_after_the_layers_in_it(as_net):
    layer = find_layer(as_net(Pyramid(n_layers=1)), images(16, 24))
    assert layer == Layer("layers", "channels_first", (8, 12), signed=True)


def test_a_reused_layer_counts_at_its_last_call(as_net):
    class Reusing(Backwards):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU()

        def forward(self, X):
            X = self.relu(self.middle(self.relu(self.first(X))))
            return self.head(self.relu(self.last(X)).mean(dim=(2, 3)))

    layer = find_layer(as_net(Reusing()), images(16, 24))
    assert layer == Layer("relu", "channels_first", (8, 12), signed=False)


def test_layer_of_the_small_net_is_the_last_rectifier(as_net):
    net = as_net(SmallConvNet(3, N_CLASSES))
    layer = find_layer(net, images(28, 28))
    assert layer == Layer("features", "channels_first", (8, 8), signed=False)


def test_vectors_net_has_no_layer_for_an_image(as_net):
    net = as_net(nn.Sequential(nn.Flatten(), MLP(3 * 16 * 24, N_CLASSES)))
    assert find_layer(net, images(16, 24)) is None


# ---------------------------------------------------------------------- named layers


@pytest.mark.parametrize(
    ("name", "grid"), [("first", (16, 24)), ("middle", (8, 12)), ("last", (8, 12))]
)
def test_named_layer(as_net, name, grid):
    layer = find_layer(as_net(Backwards()), images(16, 24), name)
    assert layer == Layer(name, "channels_first", grid, signed=True)


def test_named_layer_may_be_coarse(as_net):
    layer = find_layer(as_net(Pyramid()), images(16, 24), "layers.3")
    assert layer.grid == (1, 2)


def test_signed_tells_whether_there_are_negative_outputs(as_net):
    module = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 14 * 22, 2)
    )
    net = as_net(module)
    assert find_layer(net, images(16, 24), "0").signed
    assert not find_layer(net, images(16, 24), "1").signed


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "middlle",
            "'middlle' is not a layer of Backwards. Near ones: 'middle'.* All are in "
            r"dict\(module.named_modules\(\)\)",
        ),
        # nothing is near: the last ones
        ("xyz", "'xyz' .* Near ones: 'head', 'last', 'middle', 'unused', 'first'"),
        ("", "'' is not a layer of Backwards. Near ones: .*'first'"),
        ("first.weight", "'first.weight' is not a layer of Backwards.*'first'"),
    ],
)
def test_layer_that_does_not_exist_is_refused_with_near_names(as_net, name, message):
    with pytest.raises(TargetLayerError, match=message):
        find_layer(as_net(Backwards()), images(), name)


def test_net_of_one_module_has_no_near_names(as_net):
    net = as_net(nn.Linear(24, N_CLASSES))
    message = "not a layer of Linear. Near ones: none"
    with pytest.raises(TargetLayerError, match=message):
        find_layer(net, images(), "features")


def test_layer_that_never_runs_is_refused_with_those_that_do(as_net):
    message = (
        "target_layer='unused' never runs in a forward pass .*"
        "that do run, the last ones: 'first', 'middle', 'last'"
    )
    with pytest.raises(TargetLayerError, match=message):
        find_layer(as_net(Backwards()), images(), "unused")


@pytest.mark.parametrize(
    ("name", "returned"),
    [
        ("head", r"\(4, 3\)"),
        ("pool", r"\(4, 6, 1, 1\)"),
        ("pair", "<class 'tuple'>"),
        ("wide", r"\(4, 6, 32, 48\)"),
    ],
)
def test_layer_without_a_spatial_output_is_refused_with_those_that_have_one(
    as_net, name, returned
):
    class Pair(nn.Module):
        def forward(self, X):
            return X, X

    class WithMore(Backwards):
        def __init__(self):
            super().__init__()
            self.pool = nn.AdaptiveAvgPool2d(1)
            self.pair = Pair()
            self.wide = nn.Upsample(scale_factor=4)

        def forward(self, X):
            X = self.last(self.middle(self.first(X)))
            X, _ = self.pair(X)
            self.wide(X)
            return self.head(self.pool(X).flatten(1))

    message = (
        f"target_layer='{name}' has no spatial output: it returns {returned}, expected "
        r"\(n, channels, height, width\).* the last ones: 'first', 'middle', 'last'"
    )
    with pytest.raises(TargetLayerError, match=message):
        find_layer(as_net(WithMore()), images(), name)


def test_net_without_any_spatial_layer_says_that_there_is_none(as_net):
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.head = nn.Linear(3 * 16 * 24, N_CLASSES)
            self.unused = nn.ReLU()

        def forward(self, X):
            return self.head(X.flatten(1))

    net = as_net(Flat())
    with pytest.raises(TargetLayerError, match="that have one, the last ones: none"):
        find_layer(net, images(), "head")
    with pytest.raises(TargetLayerError, match="do run, the last ones: none"):
        find_layer(net, images(), "unused")


# ---------------------------------------------------------------------- fine enough


@pytest.mark.parametrize(
    ("size", "name", "grid"),
    [
        # halves: 32 x 48, 16 x 24, 8 x 12, 4 x 6
        ((64, 96), "layers.2", (8, 12)),
        # 7 x 7 is fine enough
        ((56, 56), "layers.2", (7, 7)),
        # 6 x 6 is not
        ((48, 48), "layers.1", (12, 12)),
        # both sides count
        ((48, 96), "layers.1", (12, 24)),
        ((96, 48), "layers.1", (24, 12)),
        # of an image below 14 pixels a half is enough
        ((13, 13), "layers.0", (7, 7)),
        ((10, 10), "layers.0", (5, 5)),
        ((10, 64), "layers.0", (5, 32)),
    ],
)
def test_last_layer_with_seven_positions_a_side_is_found(as_net, size, name, grid):
    layer = find_layer(as_net(Pyramid()), images(*size))
    assert (layer.name, layer.grid) == (name, grid)


@pytest.mark.parametrize("size", [(10, 14), (13, 11), (12, 96)])
def test_half_the_size_of_a_small_image_is_fine_enough(as_net, size):
    # though the first layer is finer
    layer = find_layer(as_net(Backwards()), images(*size))
    grid = -(-size[0] // 2), -(-size[1] // 2)
    assert layer == Layer("last", "channels_first", grid, signed=True)


def test_finest_grid_is_found_where_none_is_fine_enough(as_net):
    class Coarse(nn.Module):
        """Patches of 12 pixels, then halved."""

        def __init__(self):
            super().__init__()
            self.patch = nn.Conv2d(3, 8, 12, stride=12)
            self.norm = nn.BatchNorm2d(8)
            self.pool = nn.MaxPool2d(2)
            self.head = nn.Linear(8, N_CLASSES)

        def forward(self, X):
            X = self.pool(self.norm(self.patch(X)))
            return self.head(X.mean(dim=(2, 3)))

    layer = find_layer(as_net(Coarse()), images(48, 60))
    assert (layer.name, layer.grid) == ("norm", (4, 5))


# ---------------------------------------------------------------------- transformers


@pytest.mark.parametrize("n_prefix", [1, 2, 6])
@pytest.mark.parametrize("size", [(27, 27), (24, 30)])
def test_under_a_class_token_the_norm_before_the_last_attention_is_found(
    as_net, n_prefix, size
):
    # after the last attention only the class token has a gradient
    layer = find_layer(as_net(TinyViT(n_prefix)), images(*size))
    grid = size[0] // 3, size[1] // 3
    assert layer == Layer("blocks.1.norm_1", "tokens", grid, signed=True)


@pytest.mark.parametrize("size", [(27, 27), (24, 30)])
def test_under_pooling_of_tokens_the_last_output_is_found(as_net, size):
    layer = find_layer(as_net(TinyViT(0, pooled=True)), images(*size))
    grid = size[0] // 3, size[1] // 3
    assert layer == Layer("norm", "tokens", grid, signed=True)


def test_maps_of_a_class_token_net_are_not_empty(as_net):
    net = as_net(TinyViT())
    X = images(24, 30)
    method, layer = resolve_saliency("auto", None, net, X)
    maps = compute_maps(net, ArraySource(X.numpy()), method, layer)
    assert maps.shape == (N_SAMPLES, 8, 10)
    assert (maps.max(axis=(1, 2)) > 0).all()
    # the last block's output has a place for each token, and no gradient there
    last = find_layer(net, X, "blocks.1")
    assert_array_equal(compute_maps(net, ArraySource(X.numpy()), GradCAM(), last), 0)


@pytest.mark.parametrize("norm_first", [True, False])
def test_torch_transformer_encoder_is_reached(as_net, norm_first):
    class Encoder(TinyViT):
        def __init__(self):
            super().__init__()
            layer = nn.TransformerEncoderLayer(
                8, 2, 16, batch_first=True, norm_first=norm_first
            )
            self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    net = as_net(Encoder())
    X = images(24, 30)
    method, layer = resolve_saliency("auto", None, net, X)
    # normalised last, the last attention reads the output of the layer before
    name = "blocks.layers.1.norm1" if norm_first else "blocks.layers.0"
    assert layer == Layer(name, "tokens", (8, 10), signed=True)
    maps = compute_maps(net, ArraySource(X.numpy()), method, layer)
    assert (maps.max(axis=(1, 2)) > 0).all()


def test_square_token_grid_is_found_without_a_layer_of_that_shape(as_net):
    class Patches(nn.Module):
        """Tokens by a linear layer on flattened patches."""

        def __init__(self):
            super().__init__()
            self.embed = nn.Linear(3 * 9, 8)
            self.prefix = nn.Parameter(torch.randn(1, 1, 8))
            self.block = nn.Sequential(Block(8), Block(8))
            self.head = nn.Linear(8, N_CLASSES)

        def forward(self, X):
            patches = self.embed(F.unfold(X, 3, stride=3).transpose(1, 2))
            prefix = self.prefix.expand(len(X), -1, -1)
            return self.head(self.block(torch.cat([prefix, patches], 1))[:, 0])

    layer = find_layer(as_net(Patches()), images(24, 24))
    assert layer == Layer("block.1.norm_1", "tokens", (8, 8), signed=True)
    # of an image that is not square, the tokens' grid is not known
    assert find_layer(as_net(Patches()), images(24, 30)) is None


@pytest.mark.parametrize("size", [(27, 27), (24, 30)])
def test_attention_weights_are_not_a_map(as_net, size):
    net = as_net(TinyViT())
    n_tokens = 1 + size[0] // 3 * (size[1] // 3)
    message = (
        "'blocks.0.attention.weights' has no spatial output: it returns "
        rf"\(4, 2, {n_tokens}, {n_tokens}\)"
    )
    with pytest.raises(TargetLayerError, match=message):
        find_layer(net, images(*size), "blocks.0.attention.weights")


@pytest.mark.parametrize("size", [(48, 48), (48, 56)])
def test_keys_and_queries_of_each_head_are_not_a_map(as_net, size):
    # (n, heads, tokens, width) is 4-d, and no larger than the image
    net = as_net(TinyViT(patch=8, attention=AttentionOfModules))
    X = images(*size)
    layer = find_layer(net, X)
    assert layer.layout == "tokens"
    assert layer.grid == (size[0] // 8, size[1] // 8)
    n_tokens = 1 + layer.grid[0] * layer.grid[1]
    for name in ("q_norm", "k_norm"):
        message = rf"has no spatial output: it returns \(4, 2, {n_tokens}, 4\)"
        with pytest.raises(TargetLayerError, match=message):
            find_layer(net, X, f"blocks.1.attention.{name}")


@pytest.mark.parametrize("size", [(16, 16), (16, 24), (24, 16)])
def test_channels_last_is_reached(as_net, size):
    layer = find_layer(as_net(TinySwin()), images(*size))
    grid = size[0] // 2, size[1] // 2
    assert layer == Layer("stage", "channels_last", grid, signed=True)
    first = find_layer(as_net(TinySwin()), images(*size), "embed.0")
    assert first == Layer("embed.0", "channels_first", grid, signed=True)


@pytest.mark.parametrize("size", [(8, 8), (8, 24), (24, 8), (28, 64), (64, 28)])
@pytest.mark.parametrize("n_channels", [1, 3, 8, 24])
def test_convolution_is_channels_first_whatever_the_sizes(as_net, size, n_channels):
    module = nn.Sequential(
        nn.Conv2d(3, n_channels, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(n_channels, 2),
    )
    layer = find_layer(as_net(module), images(*size))
    assert layer == Layer("1", "channels_first", size, signed=False)


@pytest.mark.parametrize("size", [(48, 28), (50, 30), (52, 28), (56, 28), (28, 52)])
def test_small_net_is_channels_first_for_images_that_are_not_square(as_net, size):
    # unpadded convolutions change the aspect of the grid
    net = as_net(SmallConvNet(3, N_CLASSES, size))
    grid = (size[0] - 4) // 2 - 4, (size[1] - 4) // 2 - 4
    layer = find_layer(net, images(*size))
    assert layer == Layer("features", "channels_first", grid, signed=False)


# ---------------------------------------------------------------------- gradients


@pytest.mark.parametrize("module", [Backwards, TinySwin, TinyViT])
def test_zero_initialised_head_falls_back_to_the_last_layer(as_net, module):
    module = module()
    nn.init.zeros_(module.head.weight)
    name = {Backwards: "last", TinySwin: "stage", TinyViT: "norm"}[type(module)]
    assert find_layer(as_net(module), images(24, 30)).name == name


def test_layer_after_a_part_without_gradients_is_found(as_net):
    class FrozenStem(Backwards):
        def forward(self, X):
            with torch.no_grad():
                X = self.middle(self.first(X))
            return self.head(self.last(X).mean(dim=(2, 3)))

    class FrozenBody(FrozenStem):
        def __init__(self):
            super().__init__()
            self.norm = nn.BatchNorm2d(6)

        def forward(self, X):
            with torch.no_grad():
                X = self.last(self.middle(self.first(X)))
            return self.head(self.norm(X).mean(dim=(2, 3)))

    # nothing before "norm" records a gradient, and still its own output gets one
    for module, name in ((FrozenStem(), "last"), (FrozenBody(), "norm")):
        net = as_net(module)
        layer = find_layer(net, images())
        assert layer.name == name
        X = ArraySource(images().numpy())
        maps = compute_maps(net, X, GradCAM(), layer)
        assert maps.any()


def test_branch_without_gradients_is_not_found(as_net):
    class Gated(Backwards):
        def __init__(self):
            super().__init__()
            self.gate = nn.Sequential(nn.Conv2d(6, 1, 1), nn.Sigmoid())

        def forward(self, X):
            X = self.last(self.middle(self.first(X)))
            with torch.no_grad():
                gate = self.gate(X)
            return self.head((gate * X).mean(dim=(2, 3)))

    assert find_layer(as_net(Gated()), images()).name == "last"


def test_branch_that_the_scores_do_not_depend_on_is_not_found(as_net):
    class WithBranch(Backwards):
        def __init__(self):
            super().__init__()
            self.branch = nn.Conv2d(6, 2, 1)

        def forward(self, X):
            X = self.last(self.middle(self.first(X)))
            return self.head(X.mean(dim=(2, 3))), self.branch(X)

    assert find_layer(as_net(WithBranch()), images()).name == "last"


# ---------------------------------------------------------------------- odd modules


def test_module_that_returns_a_number_is_passed_over(as_net):
    class Temperature(nn.Module):
        def __init__(self):
            super().__init__()
            self.log = nn.Parameter(torch.tensor(1.0))

        def forward(self):
            return self.log.exp()

    class Scaled(Backwards):
        def __init__(self):
            super().__init__()
            self.temperature = Temperature()

        def forward(self, X):
            return super().forward(X) * self.temperature()

    net = as_net(Scaled())
    assert find_layer(net, images()).name == "last"
    with pytest.raises(TargetLayerError, match=r"'temperature' .* it returns \(\)"):
        find_layer(net, images(), "temperature")


def test_net_that_writes_into_its_input_is_reached(as_net):
    class Scaling(Backwards):
        def forward(self, X):
            return super().forward(X.sub_(0.5).div_(0.25))

    net, X = as_net(Scaling()), images()
    before = X.clone()
    assert find_layer(net, X).name == "last"
    assert torch.equal(X, before)


def test_layer_written_over_in_place_is_as_signed_as_it_is_explained(as_net):
    # what a rectifier writes over the layer's output is not the layer's output
    class Functional(Backwards):
        def forward(self, X):
            X = F.relu(self.last(self.middle(self.first(X))), inplace=True)
            return self.head(X.mean(dim=(2, 3)))

    net = as_net(Functional())
    method, layer = resolve_saliency("auto", None, net, images())
    assert layer == Layer("last", "channels_first", (8, 12), signed=True)
    assert type(method) is CentredGradCAM

    class Module(Functional):
        def __init__(self):
            super().__init__()
            self.relu = nn.ReLU(inplace=True)

        def forward(self, X):
            X = self.relu(self.last(self.middle(self.first(X))))
            return self.head(X.mean(dim=(2, 3)))

    net = as_net(Module())
    method, layer = resolve_saliency("auto", None, net, images())
    assert layer == Layer("relu", "channels_first", (8, 12), signed=False)
    assert type(method) is XGradCAM
    assert find_layer(net, images(), "last").signed


@pytest.mark.parametrize("layout", ["channels_first", "channels_last", "tokens"])
def test_layer_brings_each_layout_to_channels_first(layout):
    grid = np.arange(2 * 5 * 3 * 4).reshape(2, 5, 3, 4)
    own = {
        "channels_first": grid,
        "channels_last": np.moveaxis(grid, 1, 3),
        "tokens": np.concatenate(
            [np.full((2, 2, 5), -1), np.moveaxis(grid, 1, 3).reshape(2, 12, 5)], axis=1
        ),
    }
    result = Layer("any", layout, (3, 4)).to_grid(torch.from_numpy(own[layout]))
    assert_array_equal(result, grid)
