"""Input gradients against their definition, and masks that travel with samples."""

import numpy as np
import pytest
import torch
from torch import nn

from masktune_sk.data import ArraySource
from masktune_sk.objectives import InputGradientModule, RightReasons, WithMasks
from tests.nets import TinyConvNet, TinyMLP


def loss(norm="l2"):
    return RightReasons(nn.CrossEntropyLoss(), 2.0, norm=norm)


def test_gradient_of_a_linear_net_by_hand():
    torch.manual_seed(0)
    net = nn.Linear(4, 3)
    X, masks = torch.randn(5, 4), (torch.rand(5, 4) > 0.5).float()
    module = InputGradientModule(net, ["weight", "bias"], log_proba=False)
    logits, gradients, same = module(torch.cat([X, masks], dim=1))
    assert torch.equal(same, masks)
    torch.testing.assert_close(logits, net(X))
    p = torch.softmax(logits, dim=1)
    expected = net.weight.sum(dim=0) - 3 * p @ net.weight
    torch.testing.assert_close(gradients, expected)
    squared = (masks * expected).square().sum(dim=1).mean()
    outputs, y = (logits, gradients, masks), torch.tensor([0, 1, 2, 0, 1])
    torch.testing.assert_close(loss().penalty(outputs), squared)
    total = nn.functional.cross_entropy(logits, y) + 2 * squared
    torch.testing.assert_close(loss()(outputs, y), total)
    (got,) = torch.autograd.grad(loss().penalty(outputs), net.weight, retain_graph=True)
    (wanted,) = torch.autograd.grad(squared, net.weight)
    torch.testing.assert_close(got, wanted)


def test_cosine_by_hand_and_zero_without_a_mask():
    gradients = torch.zeros(2, 3, 2, 2)
    gradients[0, 0, 0, 0], gradients[0, 1, 0, 0] = 5.0, -2.0
    gradients[0, 2, 1, 1] = -4.0
    gradients[1] = 1
    masks = torch.zeros(2, 2, 2)
    masks[0, 0, 0] = 1
    found = loss("cosine").penalty((None, gradients, masks))
    # |5 - 2| = 3 in the mask and |-4| = 4 outside: 3 / 5, and 0 for the other.
    assert found.item() == pytest.approx((0.6 + 0) / 2)


@pytest.mark.parametrize("norm", ["l2", "cosine"])
def test_only_what_trains_gets_a_gradient(norm):
    torch.manual_seed(0)
    module = InputGradientModule(TinyConvNet(), ["head.weight"], log_proba=False)
    X = torch.rand(4, 2, 6, 6)
    X[:, -1] = 0
    X[:, -1, :2, :2] = 1
    loss(norm)(module.train()(X), torch.tensor([0, 1, 0, 1])).backward()
    with_gradient = [n for n, p in module.named_parameters() if p.grad is not None]
    assert with_gradient == ["module.head.weight"]
    assert not module.module.training


def test_without_gradients_there_is_no_graph():
    module = InputGradientModule(TinyConvNet(), ["head.weight"], log_proba=False)
    with torch.no_grad():
        logits, gradients, _ = module(torch.rand(4, 2, 6, 6))
    assert not logits.requires_grad
    assert not gradients.requires_grad
    assert gradients.shape == (4, 1, 6, 6)


def test_probabilities_are_taken_as_such():
    torch.manual_seed(0)
    net = TinyMLP()
    X = torch.rand(4, 12)
    plain = InputGradientModule(net, [], log_proba=False)(X)
    soft = nn.Sequential(net, nn.Softmax(dim=1))
    torch.testing.assert_close(
        InputGradientModule(soft, [], log_proba=True)(X)[1], plain[1], atol=1e-4, rtol=0
    )


def test_masks_travel_with_their_samples():
    rng = np.random.default_rng(0)
    X, masks = rng.random((6, 2, 3, 3), dtype=np.float32), rng.random((6, 3, 3)) > 0.5
    source = WithMasks(ArraySource(X, np.arange(6)), masks)
    assert len(source) == 6
    assert source.item_shape == (3, 3, 3)
    batch = source.take([4, 1]).batch(np.array([1, 0])).numpy()
    np.testing.assert_array_equal(batch[:, :2], X[[1, 4]])
    np.testing.assert_array_equal(batch[:, 2], masks[[1, 4]])
    assert source.take([4, 1]).labels.tolist() == [4, 1]
    vectors = WithMasks(ArraySource(X[:, 0, 0]))
    assert vectors.item_shape == (6,)
    np.testing.assert_array_equal(vectors.batch(np.arange(6))[:, 3:], np.zeros((6, 3)))
