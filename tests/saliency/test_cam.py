"""Tests of class activation maps: closed forms, and that nothing is left behind."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.signal import correlate2d
from scipy.special import softmax
from torch import nn

from masktune_sk.data import ArraySource
from masktune_sk.exceptions import TargetLayerError
from masktune_sk.saliency import (
    METHODS,
    CentredGradCAM,
    GradCAM,
    GradCAMPlusPlus,
    Layer,
    LayerCAM,
    XGradCAM,
    compute_maps,
    find_layer,
    resolve_saliency,
)
from masktune_sk.saliency._recorder import LayerRecorder, class_scores, looking_inside

N_SAMPLES, N_CHANNELS, N_CLASSES = 7, 3, 3
HEIGHT, WIDTH = 6, 9
CAMS = [GradCAM, XGradCAM, GradCAMPlusPlus, LayerCAM]

every_cam = pytest.mark.parametrize("cam", CAMS)
every_method = pytest.mark.parametrize("name", METHODS)


class OneConv(nn.Module):
    """One convolution, a rectifier and a linear head, over positions or pooled."""

    def __init__(self, *, pooled=False, inplace=False, softmax=False):
        super().__init__()
        self.pooled = pooled
        self.softmax = softmax
        self.conv = nn.Conv2d(2, N_CHANNELS, 3, padding=1)
        self.relu = nn.ReLU(inplace=inplace)
        self.head = nn.Linear(N_CHANNELS * (1 if pooled else HEIGHT * WIDTH), N_CLASSES)

    def forward(self, X):
        maps = self.relu(self.conv(X))
        scores = self.head(maps.mean(dim=(2, 3)) if self.pooled else maps.flatten(1))
        return scores.softmax(dim=1) if self.softmax else scores


class ByHand:
    """What `OneConv` computes, in numpy: activations, gradients and scores."""

    def __init__(self, module, X, target=None):
        kernel, bias, head, offset = (
            parameter.detach().double().numpy()
            for layer in (module.conv, module.head)
            for parameter in (layer.weight, layer.bias)
        )
        self.conv = np.stack(
            [
                [
                    sum(
                        correlate2d(plane, k, mode="same")
                        for plane, k in zip(image, channel, strict=True)
                    )
                    + b
                    for channel, b in zip(kernel, bias, strict=True)
                ]
                for image in X.astype(np.float64)
            ]
        )
        self.relu = np.maximum(self.conv, 0)
        n = len(X)
        if module.pooled:
            self.scores = self.relu.mean(axis=(2, 3)) @ head.T + offset
            head = np.repeat(head / (HEIGHT * WIDTH), HEIGHT * WIDTH, axis=1)
        else:
            self.scores = self.relu.reshape(n, -1) @ head.T + offset
        self.head = head.reshape(N_CLASSES, N_CHANNELS, HEIGHT, WIDTH)
        self.predicted = self.scores.argmax(axis=1)
        target = self.predicted if target is None else target
        self.gradients = self.head[target]
        self.conv_gradients = self.gradients * (self.conv > 0)


def expected_map(cam, A, G):
    """Return one sample's map from its activations and gradients, as published."""
    total = np.zeros(A.shape[1:])
    for a, g in zip(A, G, strict=True):
        if cam is GradCAM:
            weight = g.sum() / g.size
        elif cam is XGradCAM:
            weight = (g * a).sum() / (a.sum() + 1e-7)
        elif cam is GradCAMPlusPlus:
            alpha = np.zeros_like(a)
            for position in np.argwhere(g):
                i, j = position
                denominator = 2 * g[i, j] ** 2 + a.sum() * g[i, j] ** 3 + 1e-6
                alpha[i, j] = g[i, j] ** 2 / denominator
            weight = (alpha * np.where(g > 0, g, 0)).sum()
        else:
            weight = np.where(g > 0, g, 0)
        total += weight * a
    return np.where(total > 0, total, 0)


def maps_of(net, X, method, layer="relu", **params):
    layer = find_layer(net, torch.from_numpy(X), layer)
    return compute_maps(net, ArraySource(X), method, layer, **params)


@pytest.fixture
def X():
    rng = np.random.default_rng(0)
    return rng.normal(size=(N_SAMPLES, 2, HEIGHT, WIDTH)).astype(np.float32)


# ---------------------------------------------------------------------- closed forms


def test_forward_pass_by_hand_is_that_of_the_net(X):
    for pooled in (False, True):
        module = OneConv(pooled=pooled)
        scores = module(torch.from_numpy(X)).detach().numpy()
        assert_allclose(ByHand(module, X).scores, scores, atol=1e-6)


@every_cam
@pytest.mark.parametrize("pooled", [False, True])
def test_map_equals_the_formula(as_net, X, cam, pooled):
    module = OneConv(pooled=pooled)
    by_hand = ByHand(module, X)
    maps = maps_of(as_net(module), X, cam())
    assert maps.dtype == np.float32
    assert maps.shape == (N_SAMPLES, HEIGHT, WIDTH)
    pairs = zip(by_hand.relu, by_hand.gradients, strict=True)
    expected = np.stack([expected_map(cam, A, G) for A, G in pairs])
    assert expected.any()
    assert_allclose(maps, expected, rtol=1e-4, atol=1e-6)


@every_cam
def test_map_of_a_layer_with_negative_outputs_equals_the_formula(as_net, X, cam):
    module = OneConv()
    # XGrad-CAM divides by the sum of activations: keep it away from zero
    module.conv.bias.data = torch.tensor([-2.0, -1.0, 2.0])
    by_hand = ByHand(module, X)
    assert (by_hand.conv < 0).any()
    maps = maps_of(as_net(module), X, cam(), "conv")
    pairs = zip(by_hand.conv, by_hand.conv_gradients, strict=True)
    expected = np.stack([expected_map(cam, A, G) for A, G in pairs])
    assert expected.any()
    assert_allclose(maps, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("cam", [GradCAM, XGradCAM])
def test_map_under_global_pooling_is_the_class_activation_map(as_net, X, cam):
    # the head's weights are the channels' weights, Zhou et al. 2016
    module = OneConv(pooled=True)
    by_hand = ByHand(module, X)
    weights = module.head.weight.detach().numpy()[by_hand.predicted]
    weighted = np.einsum("nk,nkij->nij", weights, by_hand.relu)
    maps = maps_of(as_net(module), X, cam())
    assert_allclose(maps, np.maximum(weighted, 0) / (HEIGHT * WIDTH), atol=1e-6)


@every_cam
def test_labels_choose_the_class_that_is_explained(as_net, X, cam):
    module = OneConv()
    net = as_net(module)
    predicted = ByHand(module, X).predicted
    assert_array_equal(maps_of(net, X, cam(), labels=predicted), maps_of(net, X, cam()))
    labels = (predicted + 1) % N_CLASSES
    by_hand = ByHand(module, X, labels)
    pairs = zip(by_hand.relu, by_hand.gradients, strict=True)
    expected = np.stack([expected_map(cam, A, G) for A, G in pairs])
    maps = maps_of(net, X, cam(), labels=labels)
    assert_allclose(maps, expected, rtol=1e-4, atol=1e-6)


@every_cam
@pytest.mark.parametrize("labels", [None, np.arange(N_SAMPLES) % N_CLASSES])
def test_probabilities_under_nll_loss_are_explained_by_their_logarithm(
    as_net, X, cam, labels
):
    # d log softmax(z)_c / dz_k is [k = c] - softmax(z)_k
    module = OneConv(softmax=True)
    by_hand = ByHand(module, X, labels)
    proba = softmax(by_hand.scores, axis=1)
    average = np.einsum("nk,kdij->ndij", proba, by_hand.head)
    pairs = zip(by_hand.relu, by_hand.gradients - average, strict=True)
    expected = np.stack([expected_map(cam, A, G) for A, G in pairs])
    maps = maps_of(as_net(module, nn.NLLLoss), X, cam(), labels=labels)
    assert expected.any()
    assert_allclose(maps, expected, rtol=1e-3, atol=1e-5)


@every_cam
def test_first_of_several_outputs_is_explained(as_net, X, cam):
    class WithAuxiliaryHead(OneConv):
        def forward(self, X):
            return super().forward(X), X.sum()

    single, double = OneConv(), WithAuxiliaryHead()
    double.load_state_dict(single.state_dict())
    assert_array_equal(
        maps_of(as_net(double), X, cam()), maps_of(as_net(single), X, cam())
    )


class Rearranged(OneConv):
    """A `OneConv` with its activations in another layout at the layer "shown"."""

    def __init__(self, layout):
        super().__init__()
        self.layout = layout
        self.shown = nn.Identity()
        self.prefix = nn.Parameter(torch.randn(1, 2, N_CHANNELS))

    def forward(self, X):
        maps = self.relu(self.conv(X))
        if self.layout == "channels_first":
            return self.head(self.shown(maps).flatten(1))
        maps = maps.permute(0, 2, 3, 1)
        if self.layout == "channels_last":
            return self.head(self.shown(maps).permute(0, 3, 1, 2).flatten(1))
        tokens = torch.cat([self.prefix.expand(len(X), -1, -1), maps.flatten(1, 2)], 1)
        tokens = self.shown(tokens)
        # The first tokens shift all scores alike, and have a gradient of their own.
        shift = tokens[:, :2].sum(dim=(1, 2))[:, None]
        return self.head(tokens[:, 2:].transpose(1, 2).flatten(1)) + shift


@every_cam
@pytest.mark.parametrize("layout", ["channels_first", "channels_last", "tokens"])
def test_map_does_not_depend_on_the_layout(as_net, X, cam, layout):
    plain, module = OneConv(), Rearranged(layout)
    module.load_state_dict(plain.state_dict(), strict=False)
    net = as_net(module)
    layer = find_layer(net, torch.from_numpy(X), "shown")
    assert (layer.layout, layer.grid) == (layout, (HEIGHT, WIDTH))
    maps = compute_maps(net, ArraySource(X), cam(), layer)
    expected = maps_of(as_net(plain), X, cam())
    assert_allclose(maps, expected, rtol=1e-5, atol=1e-7)


@every_cam
def test_writing_in_place_after_the_layer_changes_no_map(as_net, X, cam):
    plain, inplace = OneConv(), OneConv(inplace=True)
    inplace.load_state_dict(plain.state_dict())
    assert_array_equal(
        maps_of(as_net(inplace), X, cam(), "conv"),
        maps_of(as_net(plain), X, cam(), "conv"),
    )


@every_cam
def test_reused_module_is_explained_at_its_last_call(as_net, X, cam):
    class Reusing(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(2, 2, 3, padding=1)
            self.conv = nn.Conv2d(2, N_CHANNELS, 3, padding=1)
            self.relu = nn.ReLU(inplace=True)
            self.head = nn.Linear(N_CHANNELS * HEIGHT * WIDTH, N_CLASSES)

        def forward(self, X):
            X = self.relu(self.first(X))
            return self.head(self.relu(self.conv(X)).flatten(1))

    module, last = Reusing(), OneConv()
    last.load_state_dict(module.state_dict(), strict=False)
    with torch.no_grad():
        X_last = module.first(torch.from_numpy(X)).clamp(min=0).numpy()
    assert_allclose(
        maps_of(as_net(module), X, cam()),
        maps_of(as_net(last), X_last, cam()),
        rtol=1e-5,
        atol=1e-7,
    )


def test_map_is_zero_without_a_gradient_and_without_activation(as_net, X):
    module = OneConv()
    nn.init.zeros_(module.head.weight)
    dead = OneConv()
    nn.init.constant_(dead.conv.bias, -100)
    for cam in CAMS:
        for zero in (module, dead):
            assert_array_equal(maps_of(as_net(zero), X, cam()), 0)


# ---------------------------------------------------------------------- independence


class Deep(nn.Module):
    """A net with batch normalisation, dropout and a last pooling."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(2, 5, 3, padding=1),
            nn.BatchNorm2d(5),
            nn.ReLU(),
            nn.Dropout2d(),
            nn.Conv2d(5, 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
        )
        self.dropout = nn.Dropout()
        self.head = nn.Linear(4 * HEIGHT * WIDTH, N_CLASSES)
        for norm in (self.body[1], self.body[5]):
            norm.running_mean.normal_(std=0.1)
            norm.running_var.uniform_(0.5, 2)

    def forward(self, X):
        return self.head(self.dropout(self.body(X)).flatten(1))


@every_method
def test_map_is_independent_of_batch_size_and_order(as_net, X, name):
    module = Deep()
    order = np.random.default_rng(1).permutation(N_SAMPLES)
    maps = []
    for batch_size, rows in ((1, slice(None)), (3, slice(None)), (N_SAMPLES, order)):
        net = as_net(module, batch_size=batch_size)
        method, layer = resolve_saliency(name, None, net, torch.from_numpy(X))
        result = np.empty((N_SAMPLES, HEIGHT, WIDTH), dtype=np.float32)
        result[rows] = compute_maps(net, ArraySource(X[rows]), method, layer)
        maps.append(result)
    assert maps[0].any()
    assert_allclose(maps[1], maps[0], atol=1e-6)
    assert_allclose(maps[2], maps[0], atol=1e-6)


@every_method
def test_map_is_that_of_eval_mode_whatever_the_mode(as_net, X, name):
    module = Deep()
    maps = []
    for mode in (True, False):
        net = as_net(module)
        module.train(mode)
        method, layer = resolve_saliency(name, None, net, torch.from_numpy(X))
        maps.append(compute_maps(net, ArraySource(X), method, layer))
        assert module.training is mode
    assert_array_equal(*maps)


# ---------------------------------------------------------------------- no trace


def state_of(net):
    """Return all that looking inside a net must leave as it was."""
    modules = dict(net.module_.named_modules()) | {"criterion": net.criterion_}
    hooks = {
        (name, kind): list(getattr(module, kind))
        for name, module in modules.items()
        for kind in vars(module)
        if kind.endswith("_hooks")
    }
    return {
        "hooks": hooks,
        "modes": {name: module.training for name, module in modules.items()},
        "flags": [p.requires_grad for p in net.module_.parameters()],
        "gradients": [p.grad for p in net.module_.parameters()],
        "weights": [value.tolist() for value in net.module_.state_dict().values()],
        "generator": torch.get_rng_state().tolist(),
        "gradient mode": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
    }


def mixed_net(as_net, module):
    """Return a net whose modules are in mixed modes, some weights frozen."""
    net = as_net(module)
    module.train()
    module.body[1].eval()
    module.dropout.eval()
    module.body[0].weight.requires_grad_(False)
    module.head.bias.requires_grad_(False)
    return net


@every_method
def test_nothing_is_left_on_the_net(as_net, X, name):
    net = mixed_net(as_net, Deep())
    before = state_of(net)
    assert not any(before["hooks"].values())
    method, layer = resolve_saliency(name, None, net, torch.from_numpy(X))
    assert state_of(net) == before
    compute_maps(net, ArraySource(X), method, layer)
    assert state_of(net) == before


@every_method
@pytest.mark.parametrize("grad_mode", [torch.enable_grad, torch.no_grad])
def test_nothing_is_left_on_the_net_after_a_failed_forward_pass(
    as_net, X, name, grad_mode
):
    class Failing(Deep):
        fails = False

        def forward(self, X):
            scores = super().forward(X)
            if self.fails:
                raise RuntimeError("the forward pass fails")
            return scores

    net = mixed_net(as_net, Failing())
    method, layer = resolve_saliency(name, None, net, torch.from_numpy(X))
    net.module_.fails = True
    with grad_mode():
        before = state_of(net)
        with pytest.raises(RuntimeError, match="the forward pass fails"):
            compute_maps(net, ArraySource(X), method, layer)
        assert state_of(net) == before
        with pytest.raises(RuntimeError, match="the forward pass fails"):
            find_layer(net, torch.from_numpy(X))
        assert state_of(net) == before


@every_method
@pytest.mark.parametrize("grad_mode", [torch.no_grad, torch.inference_mode])
def test_map_is_the_same_where_gradients_are_off(as_net, X, name, grad_mode):
    net = as_net(Deep())
    method, layer = resolve_saliency(name, None, net, torch.from_numpy(X))
    expected = compute_maps(net, ArraySource(X), method, layer)
    with grad_mode():
        before = state_of(net)
        assert resolve_saliency(name, None, net, torch.from_numpy(X))[1] == layer
        maps = compute_maps(net, ArraySource(X), method, layer)
        assert state_of(net) == before
    assert_array_equal(maps, expected)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()


@every_method
def test_the_images_are_left_as_they_are(as_net, X, name):
    net = as_net(Deep())
    probe, source = torch.from_numpy(X.copy()), ArraySource(X.copy())
    method, layer = resolve_saliency(name, None, net, probe)
    find_layer(net, probe)
    assert not probe.requires_grad
    assert_array_equal(probe.numpy(), X)
    compute_maps(net, source, method, layer)
    assert_array_equal(source.X, X)


def operations(tensor):
    """Return the names of the operations that a tensor is differentiated through."""
    nodes, stack = set(), [tensor.grad_fn]
    while stack:
        node = stack.pop()
        if node is not None and node not in nodes:
            nodes.add(node)
            stack += [child for child, _ in node.next_functions]
    return [node.name() for node in nodes]


def test_no_graph_is_recorded_below_the_layer(as_net, X):
    net = as_net(Deep())
    body = net.module_.body
    # the body is convolution, batch norm, ReLU, dropout, convolution, batch norm, ReLU
    for layer, n_convolutions, n_norms in ((0, 1, 2), (1, 1, 1), (4, 0, 1), (6, 0, 0)):
        with looking_inside(net), LayerRecorder(body[layer]) as recorder:
            scores = class_scores(net, net.infer(torch.from_numpy(X)))
        assert recorder.output.is_leaf
        assert recorder.output.requires_grad
        names = operations(scores)
        assert sum("Convolution" in name for name in names) == n_convolutions
        assert sum("BatchNorm" in name for name in names) == n_norms
        # the layer's output is the one leaf: no weight is among them
        assert sum("AccumulateGrad" in name for name in names) == 1


# ---------------------------------------------------------------------- errors


def test_layer_that_no_gradient_reaches_is_refused(as_net, X):
    class PartlyFrozen(OneConv):
        def forward(self, X):
            with torch.no_grad():
                maps = self.relu(self.conv(X))
                scores = self.head(maps.flatten(1))
            return scores

    net = as_net(PartlyFrozen())
    message = (
        "No gradient reaches the layer 'relu': the module runs what comes after it "
        "without gradients. Name another target_layer"
    )
    for cam in CAMS:
        with pytest.raises(TargetLayerError, match=message):
            maps_of(net, X, cam())
    assert net.module_.training


def test_layer_that_does_not_run_any_more_is_refused(as_net, X):
    net = as_net(OneConv())
    net.module_.unused = nn.ReLU()
    layer = Layer("unused", "channels_first", (HEIGHT, WIDTH))
    with pytest.raises(TargetLayerError, match="No gradient reaches .* 'unused'"):
        compute_maps(net, ArraySource(X), GradCAM(), layer)


def test_centred_gradcam_keeps_what_is_above_the_mean_of_the_map():
    maps = torch.tensor([[[-5.0, -3.0], [-4.0, 0.0]], [[1.0, 1.0], [1.0, 1.0]]])
    assert GradCAM().rectify(maps)[0].max() == 0
    expected = [[[0.0, 0.0], [0.0, 3.0]], [[0.0, 0.0], [0.0, 0.0]]]
    assert_array_equal(CentredGradCAM().rectify(maps), expected)
    activations = torch.rand(2, 3, 4, 5)
    gradients = torch.rand(2, 3, 4, 5)
    assert_array_equal(
        CentredGradCAM().weights(activations, gradients),
        GradCAM().weights(activations, gradients),
    )
