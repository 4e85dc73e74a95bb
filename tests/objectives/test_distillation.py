"""The objectives of DeNetDM, by closed form."""

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from scipy.stats import entropy
from torch import nn

from masktune_sk.objectives import GuidedLoss, distillation_loss, product_of_experts


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return [3 * torch.randn(7, 4, generator=generator) for _ in range(3)]


def test_product_of_experts_is_the_normalised_product(logits):
    product = np.prod([softmax(z.numpy(), axis=1) for z in logits], axis=0)
    expected = product / product.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(product_of_experts(*logits).exp(), expected, atol=1e-6)


def test_sum_of_features_under_a_head_without_bias_is_a_product_of_experts():
    one, other = torch.randn(2, 9, 5)
    head = nn.Linear(5, 3, bias=False)
    summed = torch.softmax(head(one + other), dim=1)
    product = product_of_experts(head(one), head(other)).exp()
    torch.testing.assert_close(summed, product, atol=1e-6, rtol=0)
    # With one, the product counts the bias twice.
    head = nn.Linear(5, 3)
    summed = torch.softmax(head(one + other), dim=1)
    product = product_of_experts(head(one), head(other)).exp()
    assert not torch.allclose(summed, product, atol=1e-4)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_distillation_is_the_divergence_and_a_constant(logits, temperature):
    student, teacher, _ = logits
    p = softmax(teacher.numpy() / temperature, axis=1)
    q = softmax(student.numpy() / temperature, axis=1)
    expected = (entropy(p, q, axis=1) + entropy(p, axis=1)).mean() * temperature**2
    loss = distillation_loss(student, teacher, temperature)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_distillation_has_no_gradient_at_the_teacher_nor_to_it(logits):
    teacher = logits[0].clone().requires_grad_()
    # Up to a constant a row, which no softmax sees.
    student = (logits[0] + torch.arange(7.0)[:, None]).requires_grad_()
    distillation_loss(student, teacher, 2.0).backward()
    torch.testing.assert_close(student.grad, torch.zeros(7, 4), atol=1e-6, rtol=0)
    assert teacher.grad is None


def test_gradients_keep_their_size_when_the_temperature_rises(logits):
    norms = []
    for temperature in (50.0, 100.0):
        student = logits[0].clone().requires_grad_()
        distillation_loss(student, logits[1], temperature).backward()
        norms.append(float(student.grad.norm()))
    assert norms[1] == pytest.approx(norms[0], rel=0.05)


@pytest.mark.parametrize(("poe", "distill"), [(1, 1), (1, 0), (0, 1), (0.3, 2)])
def test_guided_loss_weighs_both_terms(logits, poe, distill):
    y = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    target, both, teacher = (z.clone().requires_grad_() for z in logits)
    criterion = GuidedLoss(poe_weight=poe, distill_weight=distill, temperature=3.0)
    loss = criterion((target, both, teacher), y)
    log_proba = log_softmax(logits[1].numpy(), axis=1)[np.arange(7), y.numpy()]
    expected = -poe * log_proba.mean()
    expected += distill * distillation_loss(logits[0], logits[2], 3.0).item()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert (both.grad is None) == (poe == 0)
    assert (target.grad is None) == (distill == 0)
    assert teacher.grad is None


def test_guided_loss_takes_a_criterion_of_the_users_own(logits):
    y = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    weight = torch.tensor([1.0, 2.0, 3.0, 4.0])
    expected = nn.CrossEntropyLoss(weight=weight)(logits[1], y)
    made = GuidedLoss(nn.CrossEntropyLoss, {"weight": weight}, distill_weight=0)
    given = GuidedLoss(nn.CrossEntropyLoss(weight=weight), distill_weight=0)
    for criterion in (made, given):
        torch.testing.assert_close(criterion(tuple(logits), y), expected)
        # Moves to a device with it.
        assert any(buffer is not None for buffer in criterion.buffers())
