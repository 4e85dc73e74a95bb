"""Tests of which method is used, of gradients of the input, and of methods by users."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from torch import nn

from masktune_sk import MaskTuneClassifier
from masktune_sk.data import ArraySource
from masktune_sk.exceptions import NonFiniteError, TargetLayerError
from masktune_sk.masking import resize_maps, scale_maps, threshold_maps
from masktune_sk.modules import MLP
from masktune_sk.saliency import (
    METHODS,
    BaseSaliency,
    CentredGradCAM,
    GradCAM,
    GradCAMPlusPlus,
    InputGradient,
    InputXGradient,
    LayerCAM,
    XGradCAM,
    compute_maps,
    resolve_saliency,
)
from tests.nets import tiny_images, tiny_net

N_SAMPLES, N_FEATURES, N_CLASSES = 10, 6, 3
SHAPE = (2, 8, 12)
WITH_LAYER = ["xgradcam", "gradcam", "gradcam++", "layercam"]
OF_INPUT = ["input_gradient", "input_x_gradient"]


@pytest.fixture
def vectors():
    return torch.randn(N_SAMPLES, N_FEATURES)


@pytest.fixture
def images():
    return torch.randn(N_SAMPLES, *SHAPE)


@pytest.fixture
def linear(as_net):
    return as_net(nn.Linear(N_FEATURES, N_CLASSES))


@pytest.fixture
def flat(as_net):
    """A linear net on images: its gradient at each input is a weight."""
    return as_net(nn.Sequential(nn.Flatten(), nn.Linear(np.prod(SHAPE), N_CLASSES)))


@pytest.fixture
def conv(as_net):
    return as_net(
        nn.Sequential(
            nn.Conv2d(SHAPE[0], 4, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * 8 * 12, N_CLASSES),
        )
    )


def weights_of(net, X):
    """Return the weights of the predicted classes of a linear net."""
    head = list(net.module_.modules())[-1]
    with torch.no_grad():
        predicted = net.module_(X).argmax(dim=1)
        return head.weight[predicted].reshape(X.shape).numpy()


def maps_of(net, X, saliency, **params):
    method, layer = resolve_saliency(saliency, None, net, X)
    return compute_maps(net, ArraySource(X.numpy()), method, layer, **params)


# ---------------------------------------------------------------------- choice


def test_names_choose_their_classes():
    assert METHODS == {
        "xgradcam": XGradCAM,
        "gradcam": GradCAM,
        "gradcam++": GradCAMPlusPlus,
        "layercam": LayerCAM,
        "input_gradient": InputGradient,
        "input_x_gradient": InputXGradient,
    }
    assert {name for name in METHODS if METHODS[name].needs_layer} == set(WITH_LAYER)


@pytest.mark.parametrize("name", WITH_LAYER)
def test_name_of_a_map_comes_with_the_layer_found(conv, images, name):
    method, layer = resolve_saliency(name, None, conv, images)
    assert type(method) is METHODS[name]
    assert layer.name == "1"


@pytest.mark.parametrize("name", [*WITH_LAYER, "auto"])
def test_named_layer_is_used(conv, images, name):
    _, layer = resolve_saliency(name, "0", conv, images)
    assert layer.name == "0"


@pytest.mark.parametrize("name", OF_INPUT)
def test_gradients_of_the_input_need_no_layer(conv, linear, images, vectors, name):
    for net, X in ((conv, images), (linear, vectors)):
        method, layer = resolve_saliency(name, None, net, X)
        assert type(method) is METHODS[name]
        assert layer is None


def test_auto_is_xgradcam_after_a_rectifier_and_centred_gradcam_elsewhere(conv, images):
    method, layer = resolve_saliency("auto", None, conv, images)
    assert type(method) is XGradCAM
    assert not layer.signed
    method, layer = resolve_saliency("auto", "0", conv, images)
    assert type(method) is CentredGradCAM
    assert layer.signed


def test_auto_is_input_times_gradient_without_a_layer(linear, flat, vectors, images):
    for net, X in ((linear, vectors), (flat, images)):
        method, layer = resolve_saliency("auto", None, net, X)
        assert type(method) is InputXGradient
        assert layer is None


@pytest.mark.parametrize("name", METHODS)
def test_instances_are_used_as_they_are(conv, images, name):
    given = METHODS[name]()
    method, layer = resolve_saliency(given, None, conv, images)
    assert method is given
    assert (layer is not None) is (name in WITH_LAYER)


@pytest.mark.parametrize("saliency", [*OF_INPUT, InputGradient(), lambda *args: None])
@pytest.mark.parametrize("name", ["0", "no_such_layer"])
def test_layer_for_a_method_of_the_input_is_refused(conv, images, saliency, name):
    message = f"target_layer='{name}' is given, but .* explains the input itself"
    with pytest.raises(TargetLayerError, match=message):
        resolve_saliency(saliency, name, conv, images)


@pytest.mark.parametrize("saliency", [*WITH_LAYER, GradCAM()])
def test_method_with_a_layer_is_refused_for_vectors(as_net, vectors, saliency):
    net = as_net(MLP(N_FEATURES, N_CLASSES))
    message = (
        "needs a layer .* X holds vectors of 6 features. Use .*'?auto.*input_gradient"
    )
    with pytest.raises(TargetLayerError, match=message):
        resolve_saliency(saliency, None, net, vectors)
    with pytest.raises(TargetLayerError, match=message):
        resolve_saliency(saliency, "layers.0", net, vectors)


def test_layer_for_vectors_is_refused(as_net, vectors):
    net = as_net(MLP(N_FEATURES, N_CLASSES))
    message = 'target_layer=\'layers.0\' needs .* Use saliency="auto", "input_gradient"'
    with pytest.raises(TargetLayerError, match=message):
        resolve_saliency("auto", "layers.0", net, vectors)


@pytest.mark.parametrize("saliency", [*WITH_LAYER, GradCAM()])
def test_method_with_a_layer_is_refused_where_there_is_none(flat, images, saliency):
    message = "no layer of Sequential has one. Use .*input_gradient.*input_x_gradient"
    with pytest.raises(TargetLayerError, match=message):
        resolve_saliency(saliency, None, flat, images)


# ---------------------------------------------------------------------- closed forms


def test_gradient_of_a_linear_net_is_the_size_of_its_weights(linear, vectors):
    maps = maps_of(linear, vectors, "input_gradient")
    assert maps.shape == (N_SAMPLES, N_FEATURES)
    assert maps.dtype == np.float32
    assert_array_equal(maps, abs(weights_of(linear, vectors)))


def test_input_times_gradient_of_a_linear_net_is_what_each_feature_adds(
    linear, vectors
):
    maps = maps_of(linear, vectors, "input_x_gradient")
    product = vectors.numpy() * weights_of(linear, vectors)
    assert (product < 0).any()
    assert_allclose(maps, abs(product), rtol=1e-6)


def test_input_times_gradient_does_not_depend_on_the_units(as_net, linear, vectors):
    scale = torch.logspace(-3, 3, N_FEATURES)
    other = as_net(nn.Linear(N_FEATURES, N_CLASSES))
    other.module_.weight.data = linear.module_.weight.detach() / scale
    other.module_.bias.data = linear.module_.bias.detach().clone()
    assert_allclose(
        maps_of(other, vectors * scale, "input_x_gradient"),
        maps_of(linear, vectors, "input_x_gradient"),
        rtol=1e-4,
        atol=1e-6,
    )


def test_gradient_for_images_is_the_largest_over_channels(flat, images):
    maps = maps_of(flat, images, "input_gradient")
    assert maps.shape == (N_SAMPLES, *SHAPE[1:])
    assert_array_equal(maps, abs(weights_of(flat, images)).max(axis=1))


def test_input_times_gradient_for_images_is_summed_over_channels_first(flat, images):
    maps = maps_of(flat, images, "input_x_gradient")
    product = (images.numpy() * weights_of(flat, images)).sum(axis=1)
    assert_allclose(maps, abs(product), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.int64, np.int32])
def test_labels_choose_the_class_that_is_explained(linear, vectors, dtype):
    labels = np.arange(N_SAMPLES, dtype=dtype) % N_CLASSES
    maps = maps_of(linear, vectors, "input_gradient", labels=labels)
    weights = linear.module_.weight.detach().numpy()
    assert_array_equal(maps, abs(weights[labels]))


def test_gradient_under_nll_loss_is_that_of_the_logarithm(as_net, vectors):
    # d log softmax(Wx)_c / dx is W_c - sum_k p_k W_k
    module = nn.Sequential(nn.Linear(N_FEATURES, N_CLASSES), nn.Softmax(dim=1))
    net = as_net(module, nn.NLLLoss)
    proba = module(vectors).detach().numpy()
    weights = module[0].weight.detach().numpy()
    expected = abs(weights[proba.argmax(axis=1)] - proba @ weights)
    assert_allclose(maps_of(net, vectors, "input_gradient"), expected, rtol=1e-4)


@pytest.mark.parametrize("name", OF_INPUT)
def test_net_that_writes_into_its_input_is_explained(as_net, linear, vectors, name):
    class Scaling(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = linear.module_

        def forward(self, X):
            return self.linear(X.mul_(2))

    labels = np.arange(N_SAMPLES) % N_CLASSES
    assert_allclose(
        maps_of(as_net(Scaling()), vectors, name, labels=labels),
        2 * maps_of(linear, vectors, name, labels=labels),
        rtol=1e-6,
    )


# ---------------------------------------------------------------------- own methods


def test_function_is_a_method(conv, images):
    calls = []

    def brightness(net, X, target):
        calls.append((net, X, target))
        return X.abs().sum(dim=1)

    method, layer = resolve_saliency(brightness, None, conv, images)
    assert isinstance(method, BaseSaliency)
    assert layer is None
    labels = np.arange(N_SAMPLES) % N_CLASSES
    source = ArraySource(images.numpy())
    maps = compute_maps(conv, source, method, layer, labels=labels)
    assert_allclose(maps, abs(images.numpy()).sum(axis=1), rtol=1e-6)
    assert {net for net, _, _ in calls} == {conv}
    assert_array_equal(torch.cat([X for _, X, _ in calls]), images)
    assert_array_equal(torch.cat([target for _, _, target in calls]), labels)
    calls.clear()
    compute_maps(conv, source, method, layer)
    assert {target for _, _, target in calls} == {None}


@pytest.mark.parametrize("convert", [torch.Tensor.numpy, torch.Tensor.tolist])
def test_function_may_return_arrays_of_another_size_and_type(conv, images, convert):
    method, _ = resolve_saliency(
        lambda net, X, target: convert(X[:, 0, ::2, ::3].double()), None, conv, images
    )
    maps = compute_maps(conv, ArraySource(images.numpy()), method)
    assert maps.dtype == np.float32
    assert_array_equal(maps, images[:, 0, ::2, ::3])


def test_function_sees_a_net_that_leaves_no_trace(conv, images):
    def look(net, X, target):
        assert torch.is_grad_enabled()
        assert not net.module_.training
        assert not any(p.requires_grad for p in net.module_.parameters())
        return X[:, 0].abs()

    conv.module_.train()
    with torch.no_grad():
        maps_of(conv, images, look)
    assert conv.module_.training
    assert all(p.requires_grad for p in conv.module_.parameters())


def test_maps_that_a_function_returns_are_not_written_to(conv, images):
    # one map for all, as a torch view of stride 0 and as a read-only array
    prior = torch.rand(8, 12)
    images[3] = 0.5
    expected = np.repeat(prior.numpy()[None], N_SAMPLES, axis=0)
    expected[3] = 0
    for function in (
        lambda net, X, target: prior.expand(len(X), -1, -1),
        lambda net, X, target: np.broadcast_to(prior.numpy(), (len(X), 8, 12)),
    ):
        assert_array_equal(maps_of(conv, images, function), expected)


def test_subclass_is_a_method(conv, linear, images, vectors):
    class Constant(BaseSaliency):
        def __init__(self, value=1.0):
            self.value = value

        def explain(self, net, X, target=None, layer=None):
            assert layer is None
            return torch.full_like(X if X.ndim == 2 else X[:, 0], self.value)

    for net, X in ((conv, images), (linear, vectors)):
        method, layer = resolve_saliency(Constant(3), None, net, X)
        assert layer is None
        assert_array_equal(maps_of(net, X, method), 3)


def test_subclass_may_ask_for_a_layer(conv, images):
    class Shape(BaseSaliency):
        needs_layer = True

        def explain(self, net, X, target=None, layer=None):
            assert layer.name == "1"
            return torch.ones(len(X), *layer.grid)

    maps = maps_of(conv, images, Shape())
    assert maps.shape == (N_SAMPLES, *SHAPE[1:])


def test_method_without_explain_is_abstract():
    class Nothing(BaseSaliency):
        pass

    with pytest.raises(TypeError, match="explain"):
        Nothing()


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda net, X, target: X, r"\(4, 2, 8, 12\)"),
        (lambda net, X, target: X[:, 0, 0], r"\(4, 12\)"),
        (lambda net, X, target: X[0], r"\(2, 8, 12\)"),
        (lambda net, X, target: X[:3, 0], r"\(3, 8, 12\)"),
        (lambda net, X, target: 1.0, r"\(\)"),
    ],
)
def test_maps_of_images_with_a_wrong_shape_are_refused(conv, images, function, shape):
    message = (
        f"The saliency method <lambda> returned maps of shape {shape} for a batch of "
        r"shape \(4, 2, 8, 12\); expected \(4, height, width\)"
    )
    with pytest.raises(ValueError, match=message):
        maps_of(conv, images, function)


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda net, X, target: X[:, :2], r"\(4, 2\)"),
        (lambda net, X, target: X[:, 0], r"\(4,\)"),
        (lambda net, X, target: X[:, None], r"\(4, 1, 6\)"),
    ],
)
def test_maps_of_vectors_with_a_wrong_shape_are_refused(
    linear, vectors, function, shape
):
    message = rf"returned maps of shape {shape} .*; expected \(4, 6\)"
    with pytest.raises(ValueError, match=message):
        maps_of(linear, vectors, function)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_maps_that_are_not_finite_are_refused(conv, images, value):
    def broken(net, X, target):
        maps = X[:, 0].clone()
        maps[1, 2, 3] = value
        return maps

    message = "The saliency method broken returned maps that are NaN or infinite. Is"
    with pytest.raises(NonFiniteError, match=message):
        maps_of(conv, images, broken)


@pytest.mark.parametrize("name", METHODS)
def test_maps_of_a_net_with_weights_that_are_not_finite_are_refused(conv, images, name):
    method, layer = resolve_saliency(name, None, conv, images)
    nn.init.constant_(conv.module_[-1].weight, np.nan)
    message = f"method {METHODS[name].__name__} returned maps that are NaN .* trained"
    with pytest.raises(NonFiniteError, match=message):
        compute_maps(conv, ArraySource(images.numpy()), method, layer)


# ---------------------------------------------------------------------- all samples


@pytest.mark.parametrize("saliency", [*METHODS, lambda net, X, target: X[:, 0] * 0 + 1])
def test_map_of_an_image_of_one_colour_is_zero(conv, images, saliency):
    images[1] = 0
    images[4] = 0.3
    images[5] = torch.tensor([-1.0, 2.0])[:, None, None]
    # one channel alone of one colour is not
    images[7, 0] = 0
    maps = maps_of(conv, images, saliency)
    zero = maps.max(axis=(1, 2)) == 0
    assert_array_equal(np.flatnonzero(zero), [1, 4, 5])


def test_map_of_a_constant_vector_is_kept(linear, vectors):
    vectors[0] = 1
    maps = maps_of(linear, vectors, "input_gradient")
    assert_array_equal(maps, abs(weights_of(linear, vectors)))


@pytest.mark.parametrize(
    ("params", "sizes"),
    [
        ({"batch_size": 4}, [4, 4, 2]),
        ({"batch_size": 100}, [10]),
        ({"batch_size": -1}, [10]),
        ({"batch_size": 4, "iterator_valid__batch_size": 7}, [7, 3]),
        ({"batch_size": 4, "iterator_valid__batch_size": -1}, [10]),
        ({"batch_size": 4, "iterator_train__batch_size": 7}, [4, 4, 2]),
    ],
)
def test_batches_are_those_of_prediction(as_net, vectors, params, sizes):
    net = as_net(nn.Linear(N_FEATURES, N_CLASSES), **params)
    seen = []

    def count(net, X, target):
        seen.append(len(X))
        return X

    assert_array_equal(maps_of(net, vectors, count), vectors)
    assert seen == sizes


def test_all_samples_at_once_are_read_in_parts(as_net):
    net = as_net(nn.Linear(1, 2), batch_size=-1)
    X = torch.arange(600.0)[:, None]
    seen = []

    def count(net, X, target):
        seen.append(len(X))
        return X

    assert_array_equal(maps_of(net, X, count), X)
    assert max(seen) < 600
    assert sum(seen) == 600


def test_progress_bar_is_shown_if_asked_for(linear, vectors, capsys):
    maps_of(linear, vectors, "input_gradient", verbose=1)
    output = capsys.readouterr()
    assert "saliency maps: 100%" in output.err
    assert f"{N_SAMPLES}/{N_SAMPLES}" in output.err
    assert output.out == ""


def test_nothing_is_printed_otherwise(linear, conv, vectors, images, capsys):
    maps_of(linear, vectors, "auto")
    maps_of(conv, images, "auto", verbose=0)
    output = capsys.readouterr()
    assert output.err == output.out == ""


# ---------------------------------------------------------------------- packed maps


@pytest.fixture
def pooled(as_net):
    """A net with a layer that is smaller than the images."""
    return as_net(
        nn.Sequential(
            nn.Conv2d(SHAPE[0], 4, 3, padding=1, stride=2),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(4 * 4 * 6, N_CLASSES),
        )
    )


def hidden(maps, rule, threshold):
    return ~threshold_maps(resize_maps(maps, SHAPE), threshold, rule)[0]


@pytest.mark.parametrize("name", OF_INPUT)
def test_packed_maps_are_the_maps_scaled(conv, images, name):
    maps = maps_of(conv, images, name)
    packed = maps_of(conv, images, name, pack=True)
    assert packed.dtype == np.float16
    assert packed.shape == maps.shape
    assert_array_equal(packed.min(axis=(1, 2)), 0)
    assert_array_equal(packed.max(axis=(1, 2)), 1)
    assert_allclose(packed, scale_maps(maps), atol=5e-4)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_packed_maps_do_not_depend_on_the_size_of_the_numbers(conv, images, scale):
    labels = np.zeros(N_SAMPLES, dtype=np.int64)
    packed = maps_of(conv, images, "input_gradient", labels=labels, pack=True)
    with torch.no_grad():
        conv.module_[-1].weight.mul_(scale)
    scaled = maps_of(conv, images, "input_gradient", labels=labels, pack=True)
    assert_allclose(scaled, packed, atol=1e-3)


@pytest.mark.parametrize("name", OF_INPUT)
def test_packed_maps_of_a_net_that_looks_at_nothing_are_zero(conv, images, name):
    nn.init.zeros_(conv.module_[-1].weight)
    packed = maps_of(conv, images, name, pack=True)
    assert packed.dtype == np.float16
    assert not packed.any()


def test_packed_map_of_an_image_of_one_colour_is_zero(conv, images):
    images[[1, 4]] = 0.3
    packed = maps_of(conv, images, "input_gradient", pack=True)
    assert_array_equal(np.flatnonzero(packed.max(axis=(1, 2)) == 0), [1, 4])


@pytest.mark.parametrize("name", WITH_LAYER)
def test_maps_of_a_small_layer_are_not_packed(pooled, images, name):
    packed = maps_of(pooled, images, name, pack=True)
    assert packed.dtype == np.float32
    assert packed.shape == (N_SAMPLES, 4, 6)
    assert_array_equal(packed, maps_of(pooled, images, name))


@pytest.mark.parametrize("name", OF_INPUT)
def test_maps_of_vectors_are_not_packed(linear, vectors, name):
    packed = maps_of(linear, vectors, name, pack=True)
    assert packed.dtype == np.float32
    assert_array_equal(packed, maps_of(linear, vectors, name))


def test_maps_are_not_packed_unasked(conv, images):
    assert maps_of(conv, images, "input_gradient").dtype == np.float32


@pytest.mark.parametrize(
    ("rule", "threshold"), [("sigma", 1.0), ("quantile", 0.1), ("value", 0.3)]
)
@pytest.mark.parametrize("name", [*OF_INPUT, "xgradcam"])
def test_packed_maps_hide_the_same_pixels(conv, name, rule, threshold):
    X = torch.randn(200, *SHAPE)
    packed = maps_of(conv, X, name, pack=True)
    ours, reference = (
        hidden(maps, rule, threshold) for maps in (packed, maps_of(conv, X, name))
    )
    assert reference.mean() > 0.05
    assert (ours == reference).mean() >= 0.999


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_packed_maps_that_are_not_finite_are_refused(conv, images, value):
    def broken(net, X, target):
        maps = X[:, 0].clone()
        maps[1, 2, 3] = value
        return maps

    with pytest.raises(NonFiniteError, match="method broken returned maps that are"):
        maps_of(conv, images, broken, pack=True)


def test_packed_maps_of_a_function_may_be_negative(conv, images):
    def darkness(net, X, target):
        return -X[:, 0].abs() - 0.1

    packed = maps_of(conv, images, darkness, pack=True)
    reference = hidden(maps_of(conv, images, darkness), "quantile", 0.1)
    assert (hidden(packed, "quantile", 0.1) == reference).mean() > 0.99


def test_packed_maps_of_a_function_may_be_far_from_zero(conv, images):
    def offset(net, X, target):
        return 1000 + X[:, 0]

    packed = maps_of(conv, images, offset, pack=True)
    reference = hidden(maps_of(conv, images, offset), "quantile", 0.1)
    assert (hidden(packed, "quantile", 0.1) == reference).mean() > 0.99


@pytest.mark.parametrize("saliency", OF_INPUT)
def test_an_estimator_keeps_packed_maps_of_the_input(saliency):
    X, y = tiny_images(40)
    clf = MaskTuneClassifier(
        tiny_net(max_epochs=2),
        saliency=saliency,
        threshold_rule="quantile",
        mask_threshold=0.1,
        store_maps=True,
        random_state=0,
    ).fit(X, y)
    rows = clf.train_indices_
    assert clf.maps_.dtype == np.float16
    assert clf.maps_.shape == (len(rows), 12, 12)
    assert clf.maps_.max() == 1
    # What is shown to the user is computed anew, and float32.
    shown = clf.saliency_maps(X[rows], net="erm")
    assert shown.dtype == np.float32
    assert_allclose(shown, scale_maps(clf.maps_), atol=2e-3)
    _, masks = clf.mask(X[rows])
    assert clf.masked_fraction_ == pytest.approx((~masks).mean(), abs=1e-3)
