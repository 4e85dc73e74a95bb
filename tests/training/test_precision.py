"""Tests of the precision that nets compute in."""

import copy
import functools
import pickle
from collections import namedtuple
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from sklearn.utils._param_validation import InvalidParameterError
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, Checkpoint
from torch import nn
from torch.optim.swa_utils import AveragedModel

from masktune_sk import MaskTuneClassifier
from masktune_sk.data import ArraySource, TorchView
from masktune_sk.saliency import METHODS, compute_maps, resolve_saliency
from masktune_sk.training import (
    build_net,
    check_output,
    computing,
    predict_proba,
    refit,
    resolve_precision,
    train_erm,
)
from masktune_sk.training._precision import fused_params
from tests.nets import TinyConvNet, TinyMLP, tiny_images, tiny_net, tiny_vectors

CHECKS = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


def images(n=40, n_channels=3):
    X, y = tiny_images(n, n_channels=n_channels)
    return ArraySource(X, y.astype(np.int64))


def conv_net(**params):
    return tiny_net(module__n_channels=3, **params)


def built(module=TinyConvNet, precision="bf16", **params):
    if module is TinyConvNet:
        params |= {"module__n_channels": 3}
    return build_net(tiny_net(module, **params), precision=precision)


def batch(n=4):
    return torch.from_numpy(images(n).X)


@contextmanager
def watching(layer):
    """Note what a layer is given and returns."""
    seen = []
    hook = layer.register_forward_hook(
        lambda module, args, output: seen.append((args[0], output))
    )
    yield seen
    hook.remove()


def in_channels_last(tensor):
    return tensor.is_contiguous(memory_format=torch.channels_last)


# ---------------------------------------------------------------- what auto means


@pytest.mark.parametrize("device", ["cpu", "cuda", "cuda:1", "mps", "meta"])
@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_a_precision_that_is_named_is_taken_on_every_device(precision, device):
    assert resolve_precision(precision, device) == precision


@pytest.mark.parametrize(
    ("avx512", "amx", "precision"),
    [
        (False, False, "float32"),
        # Its vectors of bfloat16 are no faster than those of float32.
        (True, False, "float32"),
        (False, True, "bf16"),
        (True, True, "bf16"),
    ],
)
def test_auto_on_a_processor_is_bf16_if_it_multiplies_matrices(
    monkeypatch, avx512, amx, precision
):
    for name, answer in zip(CHECKS, (avx512, amx), strict=True):
        monkeypatch.setattr(
            torch.cpu, name, lambda answer=answer: answer, raising=False
        )
    assert resolve_precision("auto", "cpu") == precision
    assert resolve_precision("auto", torch.device("cpu")) == precision


def test_auto_is_float32_where_torch_cannot_tell(monkeypatch):
    for name in CHECKS:
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert resolve_precision("auto", "cpu") == "float32"


@pytest.mark.parametrize(
    ("capability", "precision"),
    [((7, 5), "float32"), ((8, 0), "bf16"), ((8, 6), "bf16"), ((12, 0), "bf16")],
)
def test_auto_on_a_gpu_is_bf16_from_ampere_on(monkeypatch, capability, precision):
    asked = []

    def tell(device=None):
        asked.append(torch.device(device))
        return capability

    monkeypatch.setattr(torch.cuda, "get_device_capability", tell)
    assert resolve_precision("auto", "cuda:1") == precision
    assert asked == [torch.device("cuda:1")]


@pytest.mark.parametrize("device", ["mps", "meta"])
def test_auto_on_any_other_device_is_float32(device):
    assert resolve_precision("auto", device) == "float32"


# ---------------------------------------------------------------- one forward pass


def test_float32_changes_nothing():
    net, X = built(precision="float32"), batch()
    module, before = net.module_, dict(vars(net.module_))
    strides = [p.stride() for p in module.parameters()]
    with torch.no_grad():
        expected = module(X)
        with computing(net, "float32") as same, watching(module.features[0]) as seen:
            assert same is net
            assert vars(module) == before
            assert torch.equal(module(X), expected)
    assert [tensor.dtype for tensor in seen[0]] == [torch.float32] * 2
    assert [p.stride() for p in module.parameters()] == strides


def test_bf16_computes_in_bfloat16_and_returns_float32():
    net, X = built(), batch()
    with computing(net, "bf16") as same, watching(net.module_.features[0]) as seen:
        output = net.module_(X)
        output.sum().backward()
    assert same is net
    assert output.dtype == torch.float32
    (given, returned), *others = seen
    assert others == []
    assert returned.dtype == torch.bfloat16
    assert not given.is_contiguous()
    assert in_channels_last(given)
    assert in_channels_last(returned)
    for name, parameter in net.module_.named_parameters():
        assert parameter.dtype == parameter.grad.dtype == torch.float32, name
    assert in_channels_last(net.module_.features[3].weight)


def test_bf16_is_near_float32():
    net, X = built(), batch()
    with torch.no_grad():
        expected = net.module_(X)
        with computing(net, "bf16"):
            output = net.module_(X)
    assert not torch.equal(output, expected)
    torch.testing.assert_close(output, expected, rtol=0.05, atol=0.02)


def test_bf16_writes_nothing_into_the_batch_it_is_given():
    net, X = built(), batch()
    kept, stride = X.clone(), X.stride()
    with computing(net, "bf16"), torch.no_grad():
        net.module_(X)
    assert torch.equal(X, kept)
    assert X.stride() == stride


def test_after_bf16_the_module_computes_in_float32_again():
    net, X = built(), batch()
    names = set(vars(net.module_))
    with torch.no_grad():
        expected = net.module_(X)
        with computing(net, "bf16"):
            net.module_(X)
        assert set(vars(net.module_)) == names
        with watching(net.module_.features[0]) as seen:
            torch.testing.assert_close(net.module_(X), expected)
    assert seen[0][1].dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")


class Failing(nn.Linear):
    def forward(self, X):
        raise RuntimeError("on purpose")


def test_the_module_is_put_back_after_an_error_in_its_forward():
    net = built(Failing, module__in_features=3, module__out_features=2)
    with pytest.raises(RuntimeError, match="on purpose"), computing(net, "bf16"):
        net.module_(torch.zeros(2, 3))
    assert "forward" not in vars(net.module_)
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("fails", [False, True])
def test_a_forward_that_was_set_on_the_module_is_wrapped_and_put_back(fails):
    net = built(TinyMLP)
    module, dtypes = net.module_, []

    def own(X):
        if fails:
            raise RuntimeError("on purpose")
        dtypes.append(module.layers(X).dtype)
        return module.layers(X)

    module.forward = own
    if fails:
        with pytest.raises(RuntimeError, match="on purpose"), computing(net, "bf16"):
            module(torch.zeros(2, 6))
    else:
        with computing(net, "bf16"):
            assert module(torch.zeros(2, 6)).dtype == torch.float32
        assert dtypes == [torch.bfloat16]
    assert vars(module)["forward"] is own


def test_contexts_can_be_nested():
    net, X = built(), batch()
    with torch.no_grad(), computing(net, "bf16"):
        outer = net.module_(X)
        with computing(net, "bf16"):
            assert torch.equal(net.module_(X), outer)
        assert torch.equal(net.module_(X), outer)
        with computing(net, "float32"):
            assert torch.equal(net.module_(X), outer)
    assert "forward" not in vars(net.module_)


class Returning(nn.Module):
    """A module that returns what a function makes of its last layer's output."""

    def __init__(self, form):
        super().__init__()
        self.linear = nn.Linear(6, 2)
        self.form = form

    def forward(self, X):
        return self.form(self.linear(X))


def forms_of(form):
    net = built(Returning, module__form=form)
    with computing(net, "bf16"), torch.no_grad():
        return net.module_(torch.randn(3, 6))


@pytest.mark.parametrize("kind", [tuple, list])
def test_every_tensor_of_a_tuple_becomes_float32(kind):
    out = forms_of(lambda z: kind([z, kind([z, z]), None]))
    assert type(out) is type(out[1]) is kind
    assert out[0].dtype == out[1][0].dtype == out[1][1].dtype == torch.float32
    assert out[2] is None


Output = namedtuple("Output", ["logits", "aux"])


def test_a_named_tuple_stays_one():
    out = forms_of(lambda z: Output(z, z))
    assert type(out) is Output
    assert out.logits.dtype == out.aux.dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.float16])
def test_tensors_of_other_types_are_returned_as_they_are(dtype):
    assert forms_of(lambda z: z.to(dtype)).dtype == dtype


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, X, other=None, *, scale=1):
        return (self.conv(X) + self.conv(other)).mean((2, 3)) * scale


def test_keywords_are_passed_on_and_images_among_them_turned():
    net = built(TwoInputs)
    X = batch()
    with (
        computing(net, "bf16"),
        torch.no_grad(),
        watching(net.module_.conv) as seen,
    ):
        once = net.module_(X, other=X)
        assert torch.equal(net.module_(X=X, other=X, scale=2), 2 * once)
    assert len(seen) == 4
    assert all(in_channels_last(given) for given, _ in seen)
    assert not any(given.is_contiguous() for given, _ in seen)


def test_vectors_are_computed_in_bf16_too():
    net = built(TinyMLP)
    X = torch.randn(5, 6)
    with computing(net, "bf16"), watching(net.module_.layers[0]) as seen:
        assert net.module_(X).dtype == torch.float32
    (given, returned), *_ = seen
    assert given is X
    assert returned.dtype == torch.bfloat16


def test_a_module_without_parameters_computes():
    net = NeuralNetClassifier(nn.Flatten, criterion=nn.CrossEntropyLoss)
    net.set_params(optimizer=lambda params, lr: None)
    net.initialize()
    X = torch.randn(3, 2)
    with computing(net, "bf16"):
        assert torch.equal(net.module_(X), X)


class WithConv3d(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv3d(1, 2, 1)
        self.head = nn.Linear(2, 2)

    def forward(self, X):
        return self.head(self.conv(X[:, None]).mean((2, 3, 4)))


def test_a_module_with_a_convolution_in_three_dimensions_computes():
    net = built(WithConv3d)
    with computing(net, "bf16"):
        assert net.module_(batch()).dtype == torch.float32


class LazyConvNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.LazyConv2d(4, 3)
        self.head = nn.LazyLinear(2)

    def forward(self, X):
        return self.head(self.conv(X).relu().mean((2, 3)))


def test_lazy_modules_train_in_bf16_as_in_float32():
    source = images()
    for precision in ("float32", "bf16"):
        net = tiny_net(LazyConvNet, max_epochs=1)
        state = train_erm(net, source, seed=0, precision=precision)
        assert state.weights["module_"]["conv.weight"].shape == (4, 3, 3, 3)


# ---------------------------------------------------------------- copies


def test_the_names_of_the_weights_stay():
    net = built()
    names = list(net.module_.state_dict())
    with computing(net, "bf16"):
        assert list(net.module_.state_dict()) == names
        kept = copy.deepcopy(net.module_.state_dict())
    assert list(net.module_.state_dict()) == names
    for name, value in built(precision="float32").module_.state_dict().items():
        assert kept[name].shape == value.shape
        assert kept[name].dtype == value.dtype


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))]
)
def test_a_net_can_be_copied_after_computing_in_bf16(duplicate):
    net, X = built(), batch()
    with computing(net, "bf16"):
        net.module_(X)
    twin = duplicate(net)
    with torch.no_grad():
        assert torch.equal(twin.module_(X), net.module_(X))
    assert set(vars(twin.module_)) == set(vars(net.module_))


def test_a_copy_made_while_computing_has_weights_of_its_own():
    net, X = built(), batch()
    with computing(net, "bf16"), torch.no_grad():
        twin = copy.deepcopy(net.module_)
        for parameter in twin.parameters():
            parameter.zero_()
        assert not twin(X).any()
        assert net.module_(X).any()


@pytest.mark.parametrize(
    "precision",
    [
        "float32",
        "bf16",
    ],
)
def test_an_average_of_the_weights_can_be_kept_while_training(precision):
    outputs = {}

    class Averaging(Callback):
        def on_train_begin(self, net, **kwargs):
            self.average_ = AveragedModel(net.module_)
            self.begun_ = copy.deepcopy(net.module_.state_dict())

        def on_train_end(self, net, **kwargs):
            # It was never updated.
            plain = TinyConvNet(n_channels=3)
            plain.load_state_dict(self.begun_)
            for name, module in (
                ("net", net.module_),
                ("average", self.average_),
                ("before", plain),
            ):
                with torch.no_grad():
                    outputs[name] = module.eval()(batch())

    net = conv_net(max_epochs=2, callbacks=[("averaging", Averaging())])
    train_erm(net, images(), seed=0, precision=precision)
    torch.testing.assert_close(
        outputs["average"], outputs["before"], rtol=0.05, atol=0.01
    )
    assert not torch.allclose(outputs["net"], outputs["average"], rtol=0.05, atol=0.01)


def test_a_net_can_be_pickled_while_it_computes():
    net, X = built(), batch()
    with computing(net, "bf16"):
        pickled = pickle.dumps(net)
    with torch.no_grad():
        twin = pickle.loads(pickled)
        torch.testing.assert_close(
            twin.module_(X), net.module_(X), rtol=0.05, atol=0.02
        )


@pytest.mark.parametrize(
    "precision",
    [
        "float32",
        "bf16",
    ],
)
def test_a_checkpoint_may_pickle_the_whole_net(tmp_path, precision):
    checkpoint = Checkpoint(f_pickle="net.pkl", monitor=None, dirname=str(tmp_path))
    net = conv_net(max_epochs=2, callbacks=[("checkpoint", checkpoint)])
    state = train_erm(net, images(), seed=0, precision=precision)
    loaded = pickle.loads((tmp_path / "net.pkl").read_bytes())
    for name, value in loaded.module_.state_dict().items():
        assert torch.equal(value, state.weights["module_"][name])
    assert loaded.module_.train().features[0].training
    assert not loaded.module_.eval().features[0].training


# ---------------------------------------------------------------- fused steps


class OwnSGD(torch.optim.SGD):
    pass


@pytest.mark.parametrize(
    "optimizer",
    [
        torch.optim.SGD,
        torch.optim.Adam,
        torch.optim.AdamW,
        OwnSGD,
        functools.partial(torch.optim.Adam, betas=(0.8, 0.9)),
    ],
)
def test_optimizers_that_can_step_in_one_kernel(optimizer):
    net = tiny_net(optimizer=optimizer, optimizer__weight_decay=0.1)
    assert fused_params(net) == {"optimizer__fused": True}


def adam_without_options(params, lr):
    return torch.optim.Adam(params, lr)


def adam_of_keywords(params, **options):
    return torch.optim.Adam(params, **options)


@pytest.mark.parametrize(
    "optimizer",
    [
        torch.optim.Rprop,
        torch.optim.LBFGS,
        adam_without_options,
        adam_of_keywords,
        None,
        min,  # has no signature
    ],
)
def test_optimizers_that_cannot_are_left_alone(optimizer):
    assert fused_params(tiny_net(optimizer=optimizer)) == {}


@pytest.mark.parametrize(
    "params",
    [
        {"optimizer__fused": False},
        {"optimizer__fused": None},
        {"optimizer__foreach": True},
        {"optimizer__foreach": False},
        {"optimizer__differentiable": True},
        {"optimizer__capturable": False},
    ],
    ids=str,
)
def test_a_choice_of_the_users_own_counts(params):
    assert fused_params(tiny_net(**params)) == {}


def test_a_choice_inside_a_partial_counts():
    optimizer = functools.partial(torch.optim.SGD, foreach=True)
    net = build_net(tiny_net(optimizer=optimizer), precision="bf16")
    assert net.optimizer_.param_groups[0]["foreach"] is True


@pytest.mark.parametrize(
    ("params", "precision", "fused"),
    [
        ({}, "bf16", True),
        ({}, "float32", None),
        ({"optimizer__fused": False}, "bf16", False),
        ({"optimizer__fused": True}, "float32", True),
        ({"optimizer__foreach": True}, "bf16", None),
        ({"optimizer__param_groups": [("head.*", {"lr": 0.1})]}, "bf16", True),
    ],
    ids=str,
)
def test_a_net_is_built_with_a_fused_optimizer_in_bf16_alone(params, precision, fused):
    net = built(precision=precision, **params)
    groups = net.optimizer_.param_groups
    assert {group["fused"] for group in groups} == {fused}


def test_a_users_net_is_not_given_a_fused_optimizer():
    net = conv_net()
    build_net(net, precision="bf16")
    assert "optimizer__fused" not in net.get_params()


# ---------------------------------------------------------------- stages


@pytest.fixture(scope="module")
def trained():
    """The same training in both precisions."""
    return {
        precision: train_erm(
            conv_net(),
            images(60),
            valid=images(20),
            seed=0,
            keep_best=True,
            precision=precision,
        )
        for precision in ("float32", "bf16")
    }


def losses(state, name="train_loss"):
    return [row[name] for row in state.history]


def assert_float32(weights):
    floating = [v for v in weights["module_"].values() if v.is_floating_point()]
    assert {value.dtype for value in floating} == {torch.float32}


def test_a_training_in_bf16_is_near_that_in_float32(trained):
    ours, reference = trained["bf16"], trained["float32"]
    for name in ("train_loss", "valid_loss"):
        assert losses(ours, name)[0] == pytest.approx(losses(reference, name)[0], 0.02)
    assert losses(ours) != losses(reference)
    assert ours.holdout_proba.dtype == np.float32
    np.testing.assert_allclose(ours.holdout_proba, reference.holdout_proba, atol=0.1)


def test_the_weights_stay_float32(trained):
    state = trained["bf16"]
    assert_float32(state.weights)
    assert_float32(state.best_weights)
    assert set(state.weights["module_"]) == set(trained["float32"].weights["module_"])
    for moments in state.optimizer["optimizer_"]["state"].values():
        assert {value.dtype for value in moments.values()} == {torch.float32}


@pytest.mark.parametrize("optimizer", ["continue", "fresh"])
def test_a_refit_in_bf16_is_near_that_in_float32(trained, optimizer):
    states = {
        precision: refit(
            conv_net(),
            trained["float32"],
            images(60),
            epochs=1,
            valid=images(20),
            optimizer=optimizer,
            seed=1,
            precision=precision,
        )
        for precision in ("float32", "bf16")
    }
    ours, reference = states["bf16"], states["float32"]
    assert losses(ours) == pytest.approx(losses(reference), 0.05)
    assert losses(ours) != losses(reference)
    assert_float32(ours.weights)


def test_a_refit_continues_the_moments_of_a_fused_optimizer(trained):
    state = trained["bf16"]
    steps = {
        optimizer: {
            int(moments["step"])
            for moments in refit(
                conv_net(),
                state,
                images(60),
                epochs=1,
                optimizer=optimizer,
                seed=1,
                precision="bf16",
            )
            .optimizer["optimizer_"]["state"]
            .values()
        }
        for optimizer in ("continue", "fresh")
    }
    assert steps == {"continue": {16}, "fresh": {4}}


def test_predictions_in_bf16_are_near_those_in_float32(trained):
    net, view = build_net(conv_net(), trained["float32"]), TorchView(images(20))
    reference = predict_proba(net, view)
    proba = predict_proba(net, view, "bf16")
    assert proba.dtype == np.float32
    assert (proba != reference).any()
    np.testing.assert_allclose(proba, reference, atol=0.02)
    np.testing.assert_allclose(proba.sum(axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(predict_proba(net, view), reference, atol=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_maps_in_bf16_are_near_those_in_float32(trained, name):
    net, source = build_net(conv_net(), trained["float32"]), images(20)
    method, layer = resolve_saliency(name, None, net, batch())
    maps = {
        precision: compute_maps(net, source, method, layer, precision=precision)
        for precision in ("float32", "bf16")
    }
    assert maps["bf16"].dtype == np.float32
    assert (maps["bf16"] != maps["float32"]).any()
    flat = [maps[p].reshape(20, -1) for p in ("bf16", "float32")]
    correlations = [np.corrcoef(*pair)[0, 1] for pair in zip(*flat, strict=True)]
    assert np.mean(correlations) > 0.95
    assert not any(p.requires_grad is False for p in net.module_.parameters())
    assert "forward" not in vars(net.module_)


# ---------------------------------------------------------------- estimators


class Telling(TinyConvNet):
    """Note in which precision it runs, in training and elsewhere."""

    seen = set()

    def forward(self, X):
        # A layer to explain is looked for with a few samples, in float32.
        if len(X) > 8:
            self.seen.add((self.training, torch.is_autocast_enabled("cpu")))
        return super().forward(X)


def masktune(net=None, **params):
    defaults = {
        "estimator": net or tiny_net(max_epochs=2, batch_size=8),
        "threshold_rule": "quantile",
        "mask_threshold": 0.1,
        "random_state": 0,
    }
    return MaskTuneClassifier(**(defaults | params))


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_every_stage_and_every_prediction_computes_in_the_precision(precision):
    X, y = tiny_images(40)
    Telling.seen = set()
    net = tiny_net(Telling, max_epochs=1, batch_size=16)
    clf = masktune(net, precision=precision).fit(X, y)
    clf.predict_with_reject(X)
    clf.saliency_maps(X)
    clf.saliency_maps(X, net="erm")
    clf.mask(X)
    clf.calibrate(X, y)
    bf16 = precision == "bf16"
    assert Telling.seen == {(True, bf16), (False, bf16)}
    assert clf.precision_ == precision


def test_an_estimator_in_bf16_is_near_one_in_float32():
    X, y = tiny_images(60)
    ours, reference = (
        masktune(precision=precision).fit(X, y) for precision in ("bf16", "float32")
    )
    first, second = (clf.history_[0]["train_loss"] for clf in (ours, reference))
    assert first != second
    assert first == pytest.approx(second, rel=0.02)
    np.testing.assert_allclose(
        ours.predict_proba(X), reference.predict_proba(X), atol=0.15
    )
    for net in (ours.net_, ours.erm_net_):
        assert {p.dtype for p in net.module_.parameters()} == {torch.float32}
        assert "forward" not in vars(net.module_)


def test_a_fit_in_bf16_is_repeatable():
    X, y = tiny_images(40)
    first, second = (
        masktune(precision="bf16").fit(X, y).predict_proba(X) for _ in "12"
    )
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("fast", "precision"), [(True, "bf16"), (False, "float32")])
def test_auto_is_decided_in_fit_and_kept(monkeypatch, fast, precision):
    X, y = tiny_images(40)
    for name in CHECKS:
        monkeypatch.setattr(torch.cpu, name, lambda: fast, raising=False)
    clf = masktune(precision="auto").fit(X, y)
    assert clf.precision == "auto"
    assert clf.precision_ == precision
    expected = masktune(precision=precision).fit(X, y).predict_proba(X)
    np.testing.assert_array_equal(clf.predict_proba(X), expected)
    # Predictions do not depend on where they are made.
    for name in CHECKS:
        monkeypatch.setattr(torch.cpu, name, lambda: not fast)
    loaded = pickle.loads(pickle.dumps(clf))
    assert loaded.precision_ == precision
    np.testing.assert_array_equal(loaded.predict_proba(X), expected)
    assert not hasattr(clone(loaded), "precision_")


def test_vectors_are_fitted_in_bf16():
    X, y = tiny_vectors()
    clf = masktune(tiny_net(TinyMLP, max_epochs=5), precision="bf16").fit(X, y)
    assert clf.precision_ == "bf16"
    assert clf.score(X, y) > 0.7
    assert clf.saliency_maps(X).dtype == np.float32


class Softmaxed(TinyMLP):
    """A module for skorch's default criterion."""

    def forward(self, X):
        return super().forward(X).softmax(dim=1)


class TwoSigmoids(TinyMLP):
    """Probabilities of two classes from one sigmoid."""

    def forward(self, X):
        positive = torch.sigmoid(super().forward(X)[:, 0])
        return torch.stack([1 - positive, positive], dim=1)


@pytest.mark.parametrize("module", [Softmaxed, TwoSigmoids])
def test_a_module_that_returns_probabilities_trains_in_bf16(module):
    X, y = tiny_vectors()
    source = ArraySource(X, y.astype(np.int64))
    net = tiny_net(module, criterion=nn.NLLLoss)
    ours, reference = (
        train_erm(net, source, valid=source, seed=0, precision=precision)
        for precision in ("bf16", "float32")
    )
    assert losses(ours) == pytest.approx(losses(reference), 0.05)
    np.testing.assert_allclose(ours.holdout_proba, reference.holdout_proba, atol=0.05)


@pytest.mark.parametrize("module", [Softmaxed, TwoSigmoids])
def test_probabilities_of_a_module_pass_the_check_in_bf16_too(module):
    X, _ = tiny_vectors(200)
    net = build_net(tiny_net(module, criterion=nn.NLLLoss))
    check_output(net, ArraySource(X), 2)
    check_output(net, ArraySource(X), 2, "bf16")


def test_a_frozen_net_is_not_touched():
    X, y = tiny_images(40, n_channels=3)
    net = tiny_net(TinyConvNet(n_channels=3), max_epochs=1).fit(X, y)
    before = net.predict_proba(X)
    names, strides = (
        set(vars(net.module_)),
        [p.stride() for p in net.module_.parameters()],
    )
    clf = masktune(FrozenEstimator(net), precision="bf16", validation_fraction=0)
    clf.fit(X, y)
    assert set(vars(net.module_)) == names
    assert [p.stride() for p in net.module_.parameters()] == strides
    assert net.optimizer_.param_groups[0]["fused"] is None
    np.testing.assert_array_equal(net.predict_proba(X), before)


def test_stages_are_stored_under_the_precision_they_ran_in(
    tmp_path, monkeypatch, capsys
):
    X, y = tiny_images(40)
    for name in CHECKS:
        monkeypatch.setattr(torch.cpu, name, lambda: True, raising=False)
    found = []
    for precision in ("float32", "bf16", "auto", "float32"):
        clf = masktune(precision=precision, memory=tmp_path, verbose=1).fit(X, y)
        found.append("ERM: found in memory" in capsys.readouterr().out)
        assert clf.precision_ == ("float32" if precision == "float32" else "bf16")
    assert found == [False, False, True, True]


@pytest.mark.parametrize("precision", ["float16", "BF16", "bfloat16", None, 16])
def test_another_precision_is_refused(precision):
    X, y = tiny_images(20)
    with pytest.raises(InvalidParameterError, match="'precision' parameter of"):
        masktune(precision=precision).fit(X, y)
