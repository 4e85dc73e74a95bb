"""Branches, cutting, counting of layers, and what is built of them."""

import functools

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm
from torchvision.models import resnet18

from masktune_sk.modules import MLP, CifarResNet, SmallConvNet
from masktune_sk.modules._branches import (
    ConvEncoder,
    MLPEncoder,
    count_depth,
    deep_branch,
    find_head,
    shallow_branch,
    trunk_of,
)
from masktune_sk.modules._pair import (
    Branch,
    DepthPair,
    Encoder,
    EncoderPlan,
    FrozenGuide,
    GuidedTarget,
    PackedGuide,
)
from tests.nets import TinyConvNet, TinyMLP

COLORED_MNIST, CIFAR, FACES = (3, 28, 28), (3, 32, 32), (3, 224, 224)


def n_parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("module", "n"),
    [
        (MLPEncoder(2352), 245_400),
        (MLPEncoder(2352, hidden=(100,) * 4), 265_600),
        (shallow_branch(CIFAR), 156_480),
        (deep_branch(CIFAR), 269_072),
        (shallow_branch(FACES), 3_035_904),
        (deep_branch(FACES), 11_176_512),
    ],
)
def test_number_of_parameters_is_the_published_one(module, n):
    assert n_parameters(module) == n


@pytest.mark.parametrize(
    ("shape", "width"),
    [
        ((6,), 100),
        ((1, 8, 8), 64),
        ((3, 28, 20), 64),
        (CIFAR, 64),
        ((3, 95, 200), 64),
        ((1, 96, 96), 512),
    ],
)
@pytest.mark.parametrize("make", [shallow_branch, deep_branch])
def test_branches_of_a_shape_return_features_of_one_width(make, shape, width):
    module = make(shape)
    features = module(50 + 100 * torch.rand(4, *shape))
    assert features.shape == (4, width)
    assert (features >= 0).all()
    # The input is standardised first, whatever its scale.
    assert all(0 < p.numel() for p in module.parameters())
    assert any("running_mean" in name for name, _ in module.named_buffers())


def test_published_branches_do_without_standardising():
    assert not list(MLPEncoder(4, normalize=False).buffers())
    layers = ConvEncoder(3, (32, 32), normalize=False).layers
    assert isinstance(layers[0], nn.Conv2d)


def test_small_convolutional_branch_leaves_one_position_at_32_pixels():
    module = ConvEncoder(3, (32, 32)).eval()
    X = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(module(X), module.layers(X).flatten(1))


def test_images_that_are_too_small_are_refused():
    with pytest.raises(ValueError, match="8 pixels a side or more, got 7 x 28"):
        shallow_branch((3, 7, 28))


# ---------------------------------------------------------------- depth


class Residual(nn.Module):
    """Two layers beside a shortcut of one."""

    def __init__(self):
        super().__init__()
        self.long = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
        self.short = nn.Linear(4, 4, bias=False)

    def forward(self, X):
        return self.long(X) + self.short(X)


@pytest.mark.parametrize(
    ("module", "shape", "depth"),
    [
        (nn.Sequential(nn.Flatten(), nn.ReLU()), (4,), 0),
        (MLPEncoder(4), (4,), 2),
        (MLPEncoder(4, hidden=(5,) * 4), (4,), 4),
        (Residual(), (4,), 2),
        (nn.Sequential(Residual(), Residual()), (4,), 4),
        (nn.Linear(4, 4), (3, 4), 1),
        (ConvEncoder(3, (32, 32)), CIFAR, 3),
        (CifarResNet(20), CIFAR, 20),
        (deep_branch(CIFAR), CIFAR, 19),
        (resnet18(num_classes=2), CIFAR, 18),
        (SmallConvNet(1, 2), (1, 28, 28), 6),
    ],
)
def test_depth_is_that_of_the_longest_way(module, shape, depth):
    module.eval()
    with torch.no_grad():
        assert count_depth(module, torch.rand(2, *shape)) == depth
    assert all(p.grad is None for p in module.parameters())


def test_depth_of_a_frozen_network_is_counted_too():
    module = MLPEncoder(4).eval().requires_grad_(False)
    assert count_depth(module, torch.rand(2, 4)) == 2


# ---------------------------------------------------------------- cutting


@pytest.mark.parametrize(
    ("module", "shape", "name"),
    [
        (TinyMLP(), (6,), "layers.2"),
        (MLP(6, 2), (6,), "layers.5"),
        # A hidden layer as wide as there are classes is not the last.
        (MLP(6, 2, hidden=(4, 2)), (6,), "layers.5"),
        (TinyConvNet(), (1, 12, 12), "head"),
        (SmallConvNet(1, 2), (1, 28, 28), "head.3"),
        (CifarResNet(8, n_classes=2), CIFAR, "fc"),
        (resnet18(num_classes=2), CIFAR, "fc"),
    ],
)
def test_the_last_linear_layer_is_found_and_can_be_cut(module, shape, name):
    module.eval()
    X = torch.rand(3, *shape)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    assert find_head(module, X, 2) == name
    features = trunk_of(module, name)(X)
    assert features.ndim == 2
    torch.testing.assert_close(module.get_submodule(name)(features), module(X))
    assert all(torch.equal(v, before[k]) for k, v in module.state_dict().items())
    assert not any(layer._forward_hooks for layer in module.modules())


class Asks(TinyMLP):
    """Looks at its last layer."""

    def forward(self, X):
        return self.layers(X.to(self.layers[2].weight.dtype))


class InATuple(TinyMLP):
    def forward(self, X):
        return (self.layers(X),)


class Tokens(TinyMLP):
    def forward(self, X):
        return self.layers(X[:, None] * torch.tensor([[-5.0], [1.0], [5.0]]))


class BestToken(Tokens):
    def forward(self, X):
        return super().forward(X).amax(dim=1)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (TinyMLP(n_classes=3), "no torch.nn.Linear with 2 outputs runs in it"),
        (nn.Linear(6, 2), "single linear layer"),
        (nn.Sequential(TinyMLP(), nn.Softmax(dim=1)), "something comes after its"),
        (
            nn.Sequential(TinyMLP(), nn.LogSigmoid()),
            r"layer '0.layers.2', a softmax say",
        ),
        (Asks(), "does not run without its layer 'layers.2': .*weight"),
        (InATuple(), "returns a tuple, not a tensor"),
        (Tokens(), r"not given one vector a sample, but \(3, 16\)"),
        (BestToken(), "something comes after its layer 'layers.2'"),
        (
            nn.Sequential(nn.Linear(6, 4), weight_norm(nn.Linear(4, 2))),
            "no torch.nn.Linear with 2 outputs",
        ),
    ],
)
def test_what_cannot_be_cut_is_told(module, message):
    with pytest.raises(ValueError, match=message):
        find_head(module.eval(), torch.rand(3, 6), 2)


# ---------------------------------------------------------------- built of them


def plan(width=16, feature_dim=16, **params):
    return EncoderPlan(
        functools.partial(TinyMLP, width=width),
        head="layers.2",
        width=width,
        feature_dim=feature_dim,
        **params,
    )


def test_a_module_that_is_given_is_copied():
    module = TinyMLP()
    encoder = Encoder(EncoderPlan(module, head="layers.2", width=16, feature_dim=16))
    assert isinstance(module.layers[2], nn.Linear)
    assert torch.equal(encoder.trunk.layers[0].weight, module.layers[0].weight)
    assert encoder.trunk.layers[0].weight is not module.layers[0].weight


def test_features_are_projected_only_where_widths_differ():
    X = torch.rand(3, 6)
    same, other = Encoder(plan()), Encoder(plan(feature_dim=5))
    assert isinstance(same.projection, nn.Identity)
    assert same(X).shape == (3, 16)
    assert other(X).shape == (3, 5)
    assert Encoder(plan(feature_dim=5, projection_bias=False)).projection.bias is None


def test_pair_adds_features_under_one_head():
    pair = DepthPair(plan(), plan(width=8, feature_dim=16), n_classes=3)
    X = torch.rand(4, 6)
    expected = pair.head(pair.shallow(X) + pair.deep(X))
    torch.testing.assert_close(pair(X), expected)
    assert DepthPair(plan(), plan(), 3, head_bias=False).head.bias is None


def branch_pair():
    def normed():
        return nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 16), nn.ReLU())

    whole = EncoderPlan(normed, width=16, feature_dim=16)
    return Branch(whole, 3), Branch(whole, 3)


@pytest.mark.parametrize("freeze_norm", [True, False])
def test_guide_has_no_gradient_and_keeps_its_statistics_if_asked(freeze_norm):
    guide = FrozenGuide(*branch_pair(), freeze_norm).train()
    before = {k: v.clone() for k, v in guide.state_dict().items()}
    X = torch.rand(8, 6)
    same, features, logits = guide(X)
    assert same is X
    assert not features.requires_grad
    assert not logits.requires_grad
    assert not any(p.requires_grad for p in guide.parameters())
    changed = {
        k for k, v in guide.state_dict().items() if not torch.equal(v, before[k])
    }
    assert all(name.startswith("biased.encoder.trunk.0.") for name in changed)
    assert bool(changed) != freeze_norm
    guide.eval()(X)
    assert not guide.biased.training


@pytest.mark.parametrize("shape", [(6,), (2, 3, 4)])
def test_packed_guide_takes_apart_what_lies_side_by_side(shape):
    X, features, logits = torch.rand(5, *shape), torch.rand(5, 7), torch.rand(5, 2)
    row = torch.cat([X.flatten(1), features, logits], dim=1)
    for got, expected in zip(
        PackedGuide(shape, 7)(row), (X, features, logits), strict=True
    ):
        assert torch.equal(got, expected)


def test_target_starts_with_a_copy_of_the_head():
    branch, other = branch_pair()
    head = other.head.requires_grad_(False)
    target = GuidedTarget(plan(), head, FrozenGuide(branch, other))
    assert torch.equal(target.head.weight, head.weight)
    assert target.head.weight.data_ptr() != head.weight.data_ptr()
    assert target.head.weight.requires_grad
    assert not any(p.requires_grad for p in target.guide.parameters())


def test_target_returns_what_predicts_first_and_the_experts_together_next():
    branch, other = branch_pair()
    target = GuidedTarget(plan(), other.head, FrozenGuide(branch, other)).eval()
    X = torch.rand(5, 6)
    alone, both, teacher = target(X)
    features = target.encoder(X)
    torch.testing.assert_close(alone, target.head(features))
    torch.testing.assert_close(both, target.head(features + branch(X)[1]))
    torch.testing.assert_close(teacher, other(X)[0])


@pytest.mark.parametrize("feature_dim", [16, 5, 40])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_folded_target_is_the_users_module_and_predicts_the_same(feature_dim, bias):
    own = plan(feature_dim=feature_dim)
    head = nn.Linear(feature_dim, 2, bias=bias)
    target = GuidedTarget(own, head, PackedGuide((6,), feature_dim)).eval()
    module = own.make()
    module.load_state_dict(target.folded(own))
    X = torch.rand(9, 6)
    row = torch.cat([X, torch.rand(9, feature_dim + 2)], dim=1)
    torch.testing.assert_close(module(X), target(row)[0], atol=1e-6, rtol=1e-5)


def test_a_last_layer_without_bias_stays_without():
    layers = functools.partial(nn.Linear, bias=False)
    own = EncoderPlan(
        lambda: nn.Sequential(nn.Linear(6, 4), nn.ReLU(), layers(4, 2)),
        head="2",
        width=4,
        feature_dim=3,
        projection_bias=False,
    )
    head = nn.Linear(3, 2, bias=False)
    target = GuidedTarget(own, head, PackedGuide((6,), 3)).eval()
    module = own.make()
    module.load_state_dict(target.folded(own))
    X = torch.rand(9, 6)
    row = torch.cat([X, torch.rand(9, 5)], dim=1)
    torch.testing.assert_close(module(X), target(row)[0], atol=1e-6, rtol=1e-5)
