"""Tests of the residual networks for small images."""

import math

import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn

from masktune_sk.modules import CifarResNet
from masktune_sk.saliency import Layer, find_layer


def n_parameters(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("depth", "n"), [(20, 269_722), (32, 464_154)])
def test_the_number_of_parameters_is_the_published_one(depth, n):
    net = CifarResNet(depth)
    assert n_parameters(net) == n
    assert n_parameters(net.fc) == 64 * 10 + 10
    # Neither the classes nor the normalisation change what is before the last layer.
    other = CifarResNet(depth, n_classes=3, normalize=True)
    assert n_parameters(other) - n_parameters(other.fc) == n - 650


@pytest.mark.parametrize("depth", [8, 14, 20, 32, 110])
def test_depth_counts_the_layers_with_weights(depth):
    net = CifarResNet(depth)
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == depth
    assert len(net.layer1) == len(net.layer2) == len(net.layer3) == (depth - 2) / 6


@pytest.mark.parametrize("depth", [2, 7, 18, 34, -4, 20.0, "20", None])
def test_another_depth_is_refused(depth):
    with pytest.raises(ValueError, match=r"depth must be 6 n \+ 2 .* got"):
        CifarResNet(depth)


def test_the_stages_halve_the_image_and_double_the_channels():
    net = CifarResNet(8)
    maps = net.bn1(net.conv1(torch.rand(2, 3, 32, 32)))
    shapes = []
    for stage in (net.layer1, net.layer2, net.layer3):
        maps = stage(maps)
        shapes.append(maps.shape)
        assert (maps >= 0).all()
    assert shapes == [(2, 16, 32, 32), (2, 32, 16, 16), (2, 64, 8, 8)]


def test_a_shortcut_takes_every_other_pixel_and_adds_channels_of_zeros():
    net = CifarResNet(8)
    X = torch.rand(2, 16, 6, 6)
    for stage in (net.layer1, net.layer2):
        # Of the block nothing but the shortcut is left.
        nn.init.zeros_(stage[0].bn2.weight)
    assert torch.equal(net.layer1[0](X), X)
    out = net.layer2[0](X)
    assert torch.equal(out[:, 8:24], X[:, :, ::2, ::2])
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


def test_the_forward_pass_is_the_sum_of_its_parts():
    net = CifarResNet(8).eval()
    X = torch.rand(2, 3, 16, 16)
    block = net.layer1[0]
    maps = net.bn1(net.conv1(X)).relu()
    inner = block.bn2(block.conv2(block.bn1(block.conv1(maps)).relu()))
    maps = net.layer3(net.layer2((inner + maps).relu()))
    torch.testing.assert_close(net(X), net.fc(maps.mean((2, 3))))


def test_the_weights_are_drawn_by_the_number_of_inputs():
    net = CifarResNet(20)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weight = layer.weight
            expected = math.sqrt(2 / weight[0].numel())
            # Five standard errors of a standard deviation.
            tolerance = 5 / math.sqrt(2 * weight.numel())
            assert weight.std().item() == pytest.approx(expected, rel=tolerance)
    assert not net.fc.bias.any()


def test_the_scale_of_the_images_does_not_matter():
    net = CifarResNet(8)
    X = torch.rand(8, 3, 16, 16)
    torch.testing.assert_close(net(255 * X), net(X), rtol=1e-3, atol=1e-3)


def test_the_input_normalisation_has_no_weights_and_brings_channels_to_one_scale():
    net = CifarResNet(8, normalize=True)
    assert not list(net.input_norm.parameters())
    X = torch.rand(8, 3, 16, 16)
    shifted = X * torch.tensor([1.0, 100, 1e4])[:, None, None] + 1000
    torch.testing.assert_close(net(shifted), net(X), rtol=0.02, atol=0.02)
    plain = CifarResNet(8)
    assert not torch.allclose(plain(shifted), plain(X), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize("size", [(8, 8), (13, 13), (28, 28), (32, 32), (40, 30)])
def test_it_trains_at_any_size(size, n_channels):
    net = CifarResNet(8, n_channels, 4)
    logits = net(torch.rand(2, n_channels, *size))
    assert logits.shape == (2, 4)
    logits.logsumexp(dim=1).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in net.parameters())
    assert all(p.grad.any() for p in net.parameters())


@pytest.mark.parametrize(
    ("size", "layer"),
    [
        (32, Layer("layer3", "channels_first", (8, 8))),
        (28, Layer("layer3", "channels_first", (7, 7))),
        (64, Layer("layer3", "channels_first", (16, 16))),
        (16, Layer("layer2", "channels_first", (8, 8))),
    ],
)
def test_the_layer_to_explain_is_the_last_that_is_fine_enough(size, layer):
    net = NeuralNetClassifier(
        CifarResNet, module__depth=8, criterion=nn.CrossEntropyLoss
    ).initialize()
    assert find_layer(net, torch.rand(4, 3, size, size)) == layer
