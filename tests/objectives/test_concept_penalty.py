"""The penalty against its definitions, and its curvature."""

import numpy as np
import pytest
import torch
from torch import nn

from masktune_sk.modules._derivatives import directional_derivatives
from masktune_sk.objectives import ConceptPenalty, penalty_curvature


@pytest.fixture
def outputs():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(5, 3, generator=generator).double()
    return logits, torch.randn(5, 2, 3, generator=generator).double()


Y = torch.tensor([0, 2, 1, 1, 0])


def penalty(outputs, **params):
    return ConceptPenalty(nn.CrossEntropyLoss(), 0.5, **params).penalty(outputs, Y)


def test_loss_is_cross_entropy_and_the_weighted_penalty(outputs):
    criterion = ConceptPenalty(nn.CrossEntropyLoss(), 0.5)
    expected = nn.functional.cross_entropy(outputs[0], Y) + 0.5 * penalty(outputs)
    torch.testing.assert_close(criterion(outputs, Y), expected)
    alone = ConceptPenalty(nn.CrossEntropyLoss(), 0.0)(outputs, Y)
    assert torch.equal(alone, nn.functional.cross_entropy(outputs[0], Y))


def test_each_target_by_definition(outputs):
    logits, d = (tensor.numpy() for tensor in outputs)
    scale = np.array([2.0, 3.0])
    d = d * scale[:, None]
    rows = np.arange(5)
    expected = {
        "all": (d**2).sum(axis=(1, 2)),
        "sum": (d.sum(axis=2) ** 2).sum(axis=1),
        "target": (d[rows, :, Y.numpy()] ** 2).sum(axis=1),
        "max": (d[rows, :, logits.argmax(axis=1)] ** 2).sum(axis=1),
        1: (d[:, :, 1] ** 2).sum(axis=1),
    }
    for target, values in expected.items():
        got = penalty(outputs, scale=scale, target=target)
        np.testing.assert_allclose(got, values.mean(), rtol=1e-6)
    got = penalty(outputs, scale=scale, norm="l1")
    np.testing.assert_allclose(got, np.abs(d).sum(axis=(1, 2)).mean(), rtol=1e-6)


def test_random_signs_estimate_the_sum_over_classes(outputs):
    torch.manual_seed(0)
    draws = [penalty(outputs, target="all_random").item() for _ in range(3000)]
    error = np.std(draws) / np.sqrt(len(draws))
    assert abs(np.mean(draws) - penalty(outputs).item()) < 3 * error
    assert np.std(draws) > 0


def test_signs_are_drawn_for_each_sample_and_class():
    torch.manual_seed(0)
    d = torch.tensor([1.0, 10.0, 100.0]).expand(500, 1, 3)
    criterion = ConceptPenalty(nn.CrossEntropyLoss(), 1, target="all_random")
    chosen = criterion._choose(torch.zeros(500, 3), d, None)
    assert len(chosen.abs().unique()) == 4


def test_class_specific_penalty_leaves_other_classes(outputs):
    d = outputs[1].clone().requires_grad_()
    penalty((outputs[0], d), target=1).backward()
    assert d.grad[:, :, 1].all()
    assert not d.grad[:, :, [0, 2]].any()


def test_official_scale_is_a_factor_of_the_weight():
    """A random-sign loss on spatially averaged gradients, by its definition."""
    torch.manual_seed(0)
    head = nn.Sequential(
        nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 5)
    ).double()
    a, h = torch.randn(6, 4, 6, 6).double(), torch.randn(4).double()
    h, gap, n_positions = h / h.norm(), 7.0, 36
    signs = torch.sign(torch.randn(6, 5)).double()
    leaf = a.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((signs * head(leaf)).sum(), leaf)
    official = (gradient.mean(dim=(2, 3)) @ h).square().mean()
    _, d = directional_derivatives(lambda shift: head(shift(a)), h[None, :, None, None])
    ours = (gap * signs * d[:, 0]).sum(dim=1).square().mean()
    torch.testing.assert_close(ours / (n_positions**2 * gap**2), official)


def test_curvature_is_the_largest_eigenvalue_of_the_hessian():
    torch.manual_seed(0)
    weight = torch.randn(3, 4).double().requires_grad_()
    other = torch.randn(2).double().requires_grad_()
    x = torch.randn(20, 4).double()
    value = (x @ weight.T).square().sum(dim=1).mean()
    largest = torch.linalg.eigvalsh(2 * x.T @ x / 20)[-1].item()
    found = penalty_curvature(value, [weight, other], n_steps=50)
    assert found == pytest.approx(largest, rel=1e-6)
    assert penalty_curvature((x @ weight.T).sum(), [weight]) == 0
    flat = (x @ weight.T).abs().sum() + 0 * other.square().sum()
    assert penalty_curvature(flat, [weight, other]) == 0


def test_global_generator_is_left_alone(outputs):
    weight = torch.ones(2, requires_grad=True)
    state = torch.get_rng_state()
    penalty_curvature(weight.square().sum(), [weight])
    assert torch.equal(torch.get_rng_state(), state)
