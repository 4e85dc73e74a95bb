"""The edit of P-ClArC, as arithmetic and as a part of a module."""

import copy
import functools
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from torch import nn

from masktune_sk.modules._latent import LatentLayer
from masktune_sk.modules._latent_edit import EditedModule, LatentEdit, RefitModule
from masktune_sk.training import TrainedState, build_net
from tests.nets import TinyConvNet, tiny_net

LAYER = LatentLayer("features", (8, 12, 12), 1, "max")
IMAGES = torch.rand(6, 1, 12, 12)


def unit_rows(n, width, seed=0):
    vectors = np.random.default_rng(seed).normal(size=(n, width))
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.mark.parametrize("n_concepts", [1, 3])
@pytest.mark.parametrize("pool", ["max", "mean", "none"])
@pytest.mark.parametrize(
    ("shape", "axis"), [((8, 4, 5), 1), ((4, 5, 8), 3), ((5, 8), 2), ((8,), 1)]
)
def test_every_sample_gets_the_score_and_twice_is_once(shape, axis, pool, n_concepts):
    layer = LatentLayer("features", shape, axis, pool)
    h = unit_rows(n_concepts, layer.n_latents)
    wanted = np.arange(n_concepts) - 0.5
    edit = LatentEdit(layer, h, wanted)
    a = torch.randn(7, *shape)
    before = a.clone()
    edited = edit(a)
    assert torch.equal(a, before)
    scores = layer.pooled(edited).double() @ torch.as_tensor(h).T
    expected = torch.as_tensor(wanted).expand(7, -1)
    torch.testing.assert_close(scores, expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(edit(edited), edited, rtol=0, atol=1e-5)


def test_reactive_edit_moves_only_samples_above_the_threshold():
    layer = LatentLayer("features", (3,), 1, "max")
    edit = LatentEdit(layer, np.eye(3)[:2], [0.0, 0.0], [1.0, 2.0])
    a = torch.tensor([[0.5, 3.0, 7.0], [1.5, 1.9, 7.0], [0.9, 1.0, 7.0]])
    expected = torch.tensor([[0.5, 0.0, 7.0], [0.0, 1.9, 7.0], [0.9, 1.0, 7.0]])
    torch.testing.assert_close(edit(a), expected)


def test_reactive_edit_leaves_the_score_of_the_other_concept():
    layer = LatentLayer("features", (4,), 1, "max")
    h = unit_rows(2, 4)
    a = torch.randn(50, 4)
    before = a.double() @ torch.as_tensor(h).T
    edited = LatentEdit(layer, h, [-3.0, -3.0], [0.0, 0.0])(a)
    after = edited.double() @ torch.as_tensor(h).T
    expected = torch.where(before > 0, -3.0, before)
    torch.testing.assert_close(after, expected, rtol=0, atol=1e-5)


def edited_module(module=TinyConvNet, **params):
    return functools.partial(
        EditedModule,
        module,
        layer=LAYER,
        directions=unit_rows(1, 8),
        scores=[0.25],
        **params,
    )


def score_of(module):
    outputs = []
    part = module.module.features
    handle = part.register_forward_hook(lambda m, args, out: outputs.append(out))
    with torch.no_grad():
        module.eval()(IMAGES)
    handle.remove()
    return LAYER.pooled(outputs[0]).numpy() @ unit_rows(1, 8)[0]


def test_edit_is_kept_by_every_copy():
    module = edited_module()()
    np.testing.assert_allclose(score_of(module), 0.25, atol=1e-5)
    for again in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        np.testing.assert_allclose(score_of(again), 0.25, atol=1e-5)
        torch.testing.assert_close(again(IMAGES), module(IMAGES))
        # Its edit is its own.
        again.edit.scores.fill_(1)
        np.testing.assert_allclose(score_of(again), 1, atol=1e-5)
    np.testing.assert_allclose(score_of(module), 0.25, atol=1e-5)
    other = edited_module()().eval()
    other.load_state_dict(module.state_dict())
    torch.testing.assert_close(other(IMAGES), module(IMAGES))


@pytest.mark.parametrize("instance", [True, False], ids=["instance", "class"])
def test_edit_is_kept_by_clone_and_build_net(instance):
    module = TinyConvNet(width=8) if instance else TinyConvNet
    params = {} if instance else {"module__width": 8}
    net = tiny_net(edited_module(module), **params)
    fitted = build_net(net)
    state = TrainedState.of(fitted)
    for template in (net, clone(fitted), pickle.loads(pickle.dumps(net))):
        again = build_net(template, state)
        torch.testing.assert_close(again.module_(IMAGES), fitted.module_(IMAGES))
        np.testing.assert_allclose(score_of(again.module_), 0.25, atol=1e-5)
    if instance:
        assert not module.features._forward_hooks


def refit_module(**params):
    defaults = {"from_latents": False, "log_proba": False}
    return RefitModule(
        TinyConvNet(), ["head.weight"], LAYER, **(defaults | params)
    ).train()


def test_only_named_parameters_train_and_everything_is_in_eval_mode():
    refit = refit_module()
    assert refit.training
    assert not any(part.training for part in refit.module.modules())
    trains = [name for name, p in refit.named_parameters() if p.requires_grad]
    assert trains == ["module.head.weight"]


def test_derivatives_of_the_whole_and_of_the_head_alone_are_the_same():
    h = unit_rows(2, 8)
    whole = refit_module(directions=h)
    whole.choose_mode(IMAGES)
    assert whole.mode == "forward"
    latents = whole.module.features(IMAGES)

    class Head(nn.Module):
        def __init__(self, head):
            super().__init__()
            self.head = head

        def forward(self, a):
            return self.head(a.mean(dim=(2, 3)))

    head = RefitModule(
        Head(whole.module.head),
        ["head.weight"],
        LAYER,
        from_latents=True,
        log_proba=False,
        directions=h,
    )
    for got, expected in zip(head(latents), whole(IMAGES), strict=True):
        torch.testing.assert_close(got, expected)
    # The mean over positions moves by the direction itself.
    weight = whole.module.head.weight
    expected = (torch.as_tensor(h, dtype=torch.float32) @ weight.T).expand(6, -1, -1)
    torch.testing.assert_close(whole(IMAGES)[1], expected)


def test_edit_during_the_refit_comes_before_the_derivative():
    h = unit_rows(1, 8)
    edit = LatentEdit(LAYER, h, [2.0])
    logits = refit_module(edit=edit)(IMAGES)
    refit = refit_module(edit=edit, directions=h)
    torch.testing.assert_close(refit(IMAGES)[0].shape, logits.shape)
    refit.module.load_state_dict(TinyConvNet().state_dict())
    latents = edit(refit.module.features(IMAGES))
    expected = refit.module.head(latents.mean(dim=(2, 3)))
    torch.testing.assert_close(refit(IMAGES)[0], expected)
