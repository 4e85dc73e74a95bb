"""Derivatives along directions: forward mode, reverse mode, and by definition."""

import pytest
import torch
from torch import nn

from masktune_sk.modules._derivatives import (
    as_logits,
    choose_mode,
    directional_derivatives,
)


class Square(torch.autograd.Function):
    """An operation without forward mode."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0] * grad


class Squared(nn.Module):
    def forward(self, X):
        return Square.apply(X)


def make_head(activation):
    torch.manual_seed(0)
    head = nn.Sequential(
        activation,
        nn.Conv2d(5, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.GELU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 4),
        nn.Tanh(),
        nn.Linear(4, 3),
    )
    return head.double().eval()


@pytest.fixture
def latents():
    return torch.randn(6, 5, 4, 4, generator=torch.Generator().manual_seed(1)).double()


@pytest.fixture
def directions():
    vectors = torch.randn(2, 5, generator=torch.Generator().manual_seed(2)).double()
    return vectors[:, :, None, None]


def runner(head, latents):
    return lambda shift: head(shift(latents))


def by_definition(head, latents, directions):
    """Gradients of each logit by the latents, times the direction, with their graph."""
    a = latents.clone().requires_grad_()
    logits = head(a.clone())
    rows = []
    for k in range(logits.shape[1]):
        (gradient,) = torch.autograd.grad(logits[:, k].sum(), a, create_graph=True)
        products = gradient[:, None] * directions
        rows.append(products.flatten(2).sum(dim=2))
    return logits, torch.stack(rows, dim=2)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
@pytest.mark.parametrize("inplace", [False, True])
def test_derivatives_and_their_gradients_equal_double_backward(
    latents, directions, mode, inplace
):
    head = make_head(nn.ReLU(inplace=inplace))
    logits, found = directional_derivatives(runner(head, latents), directions, mode)
    same, expected = by_definition(head, latents, directions)
    torch.testing.assert_close(logits, same, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    of_found, of_expected = (
        torch.autograd.grad(
            d.square().sum(), list(head.parameters()), allow_unused=True
        )
        for d in (found, expected)
    )
    for got, wanted in zip(of_found, of_expected, strict=True):
        wanted = torch.zeros(1) if wanted is None else wanted
        got = torch.zeros_like(wanted) if got is None else got
        assert (got - wanted).norm() <= 1e-6 * max(wanted.norm(), 1e-6)


class InPlaceRule(torch.autograd.Function):
    """Forward mode, but by a rule that writes into what its backward needs."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        ctx.save_for_forward(x)
        return x**2

    @staticmethod
    def jvp(ctx, tangent):
        doubled = (2 * ctx.saved_tensors[0]).exp()
        return (doubled * tangent) + doubled.mul_(0).sum()

    @staticmethod
    def backward(ctx, grad):
        return 2 * ctx.saved_tensors[0] * grad


def test_a_forward_mode_without_a_backward_falls_back():
    torch.manual_seed(0)
    first, last = nn.Linear(4, 4), nn.Linear(4, 3)
    run = runner(lambda a: last(InPlaceRule.apply(first(a))), torch.randn(5, 4))
    parameters = [*first.parameters(), *last.parameters()]
    assert choose_mode(run, torch.ones(1, 4)) == "forward"
    assert choose_mode(run, torch.ones(1, 4), parameters) == "reverse"


def test_an_operation_without_forward_mode_falls_back(latents, directions):
    head = make_head(Squared())
    run = runner(head, latents)
    assert choose_mode(run, directions) == "reverse"
    assert choose_mode(runner(make_head(nn.ReLU()), latents), directions) == "forward"
    _, found = directional_derivatives(run, directions, "reverse")
    _, expected = by_definition(head, latents, directions)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_attention_has_derivatives(mode):
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).double().eval()
    a, along = torch.randn(3, 4, 8).double(), torch.randn(1, 1, 8).double()
    run = runner(lambda x: block(x).mean(dim=1), a)
    with torch.no_grad():
        _, found = directional_derivatives(run, along, mode)
    assert not found.requires_grad
    step = 1e-6
    with torch.no_grad():
        up, down = (run(lambda x, s=s: x + s * along) for s in (step, -step))
    torch.testing.assert_close(
        found[:, 0], (up - down) / (2 * step), rtol=1e-5, atol=1e-7
    )


@pytest.mark.parametrize("mode", ["forward", "reverse"])
def test_logits_that_do_not_depend_on_the_layer_have_no_derivative(mode):
    weight = torch.ones(2, 3, requires_grad=True)

    def run(shift):
        shift(torch.ones(2, 4))
        return weight * 1

    _, found = directional_derivatives(run, torch.ones(1, 4), mode)
    assert found.shape == (2, 1, 3)
    assert not found.any()


def test_without_gradients_there_is_no_graph_and_none_is_turned_on(latents, directions):
    head = make_head(nn.ReLU())
    with torch.no_grad():
        logits, found = directional_derivatives(runner(head, latents), directions)
        assert not torch.is_grad_enabled()
    assert not logits.requires_grad
    assert not found.requires_grad


def test_logits_of_probabilities_are_their_logarithm():
    proba = torch.softmax(torch.randn(4, 3), dim=1)
    torch.testing.assert_close(
        torch.softmax(as_logits((proba, None), True), dim=1), proba
    )
    assert as_logits(proba, False) is proba
    assert torch.isfinite(as_logits(torch.zeros(1, 2), True)).all()
