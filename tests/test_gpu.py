"""Tests on a CUDA device: as on the CPU, to the precision of float32."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.frozen import FrozenEstimator
from torch import nn

from masktune_sk import MaskTuneClassifier
from masktune_sk.data import ArraySource, BatchIterator, TorchView
from masktune_sk.saliency import METHODS, compute_maps, resolve_saliency
from masktune_sk.training import (
    build_net,
    computing,
    predict_proba,
    refit,
    resolve_precision,
    seeded,
    train_erm,
)
from tests.nets import TinyConvNet, TinyMLP, tiny_images, tiny_net, tiny_vectors

DEVICE = "cuda"
ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.gpu


@pytest.fixture(autouse=True)
def no_tf32():
    """Multiply in float32, as the CPU does, and by the same kernels each time."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    saved = cudnn.allow_tf32, cudnn.deterministic, matmul.allow_tf32
    cudnn.allow_tf32, cudnn.deterministic, matmul.allow_tf32 = False, True, False
    yield
    cudnn.allow_tf32, cudnn.deterministic, matmul.allow_tf32 = saved


def masktune(device, net=None, **params):
    net = clone(net or tiny_net(max_epochs=4, batch_size=8))
    defaults = {
        "threshold_rule": "quantile",
        "mask_threshold": 0.1,
        "random_state": 0,
    }
    return MaskTuneClassifier(net.set_params(device=device), **(defaults | params))


@pytest.fixture(scope="module")
def images():
    return tiny_images(60)


@pytest.fixture(scope="module")
def pair(images):
    """The same fit on the CPU and on the GPU. Don't fit them again."""
    if not torch.cuda.is_available() and DEVICE == "cuda":
        pytest.skip("needs a CUDA device")
    return [
        masktune(device, store_maps=True).fit(*images) for device in ("cpu", DEVICE)
    ]


def source_of(n=40, n_channels=1):
    X, y = tiny_images(n, n_channels=n_channels)
    return ArraySource(X, y.astype(np.int64))


def places(net):
    modules = (net.module_, net.criterion_)
    return {p.device.type for module in modules for p in module.parameters()}


def correlations(first, second):
    flat = [maps.reshape(len(maps), -1).astype(np.float64) for maps in (first, second)]
    return [np.corrcoef(*rows)[0, 1] for rows in zip(*flat, strict=True)]


# ---------------------------------------------------------------- near the CPU


def test_a_fit_is_near_that_on_the_cpu(pair, images):
    X, _ = images
    cpu, gpu = pair
    for name in ("train_loss", "valid_loss"):
        ours, reference = ([row[name] for row in clf.history_] for clf in (gpu, cpu))
        assert ours == pytest.approx(reference, rel=0.05, abs=0.02)
    np.testing.assert_allclose(gpu.predict_proba(X), cpu.predict_proba(X), atol=0.05)
    np.testing.assert_array_equal(gpu.train_indices_, cpu.train_indices_)
    assert gpu.masked_fraction_ == pytest.approx(cpu.masked_fraction_, abs=0.01)
    np.testing.assert_allclose(
        np.sort(gpu.calibration_scores_), np.sort(cpu.calibration_scores_), atol=0.1
    )


def test_predictions_and_rejections_are_near_those_on_the_cpu(pair, images):
    X, _ = images
    cpu, gpu = pair
    assert (gpu.predict(X) == cpu.predict(X)).mean() > 0.95
    np.testing.assert_allclose(gpu.selection_score(X), cpu.selection_score(X), atol=0.1)
    for params in ({}, {"coverage": 0.5}, {"coverage": 1}, {"threshold": 0.2}):
        y_pred, accepted = gpu.predict_with_reject(X, **params)
        expected, accepted_cpu = cpu.predict_with_reject(X, **params)
        assert (y_pred == expected).mean() > 0.95
        assert abs(accepted.mean() - accepted_cpu.mean()) < 0.2


def test_maps_and_masks_are_near_those_on_the_cpu(pair, images):
    X, _ = images
    cpu, gpu = pair
    for net in ("erm", "refit"):
        maps, expected = (clf.saliency_maps(X, net=net) for clf in (gpu, cpu))
        assert maps.dtype == np.float32
        assert np.mean(correlations(maps, expected)) > 0.95
    (masked, masks), (_, expected) = (clf.mask(X) for clf in (gpu, cpu))
    assert (masks == expected).mean() > 0.95
    hidden = np.broadcast_to(~masks[:, None], X.shape)
    assert (masked[hidden] == 0).all()
    np.testing.assert_array_equal(masked[~hidden], X[~hidden])


def test_nets_are_on_the_device_and_results_are_arrays(pair, images):
    X, y = images
    _, gpu = pair
    assert places(gpu.net_) == places(gpu.erm_net_) == {DEVICE}
    assert not gpu.net_.module_.training
    for values in (
        gpu.predict_proba(X),
        gpu.saliency_maps(X),
        gpu.maps_,
        gpu.calibration_scores_,
        *gpu.mask(X),
    ):
        assert type(values) is np.ndarray
    assert gpu.score(X, y) > 0.6


def test_a_fit_is_repeatable(pair, images):
    X, _ = images
    again = masktune(DEVICE, store_maps=True).fit(*images)
    np.testing.assert_allclose(
        again.predict_proba(X), pair[1].predict_proba(X), atol=1e-3
    )


def test_vectors_are_fitted():
    X, y = tiny_vectors()
    net = tiny_net(TinyMLP, max_epochs=5)
    proba, expected = (
        masktune(device, net).fit(X, y).predict_proba(X) for device in (DEVICE, "cpu")
    )
    np.testing.assert_allclose(proba, expected, atol=0.01)


def test_samples_that_are_on_the_device_already_are_taken(pair, images):
    X, y = (torch.from_numpy(values).to(DEVICE) for values in images)
    clf = masktune(DEVICE).fit(X, y)
    np.testing.assert_allclose(
        clf.predict_proba(X), pair[1].predict_proba(images[0]), atol=1e-3
    )


def test_a_frozen_net_on_the_device_is_refitted_and_not_touched(images):
    X, y = images
    net = tiny_net(device=DEVICE).fit(X, y)
    before = net.predict_proba(X)
    clf = masktune(DEVICE, validation_fraction=0)
    clf.set_params(estimator=FrozenEstimator(net)).fit(X, y)
    np.testing.assert_allclose(
        clf._proba_before(TorchView(ArraySource(X))), before, atol=1e-5
    )
    np.testing.assert_array_equal(net.predict_proba(X), before)
    assert (clf.predict_proba(X) != before).any()


@pytest.mark.parametrize("optimizer", ["continue", "fresh"])
def test_a_refit_is_near_that_on_the_cpu(optimizer):
    source, valid = source_of(), source_of(20)
    states = {}
    for device in ("cpu", DEVICE):
        net = tiny_net(device=device)
        erm = train_erm(net, source, valid=valid, seed=0)
        states[device] = refit(
            net, erm, source, epochs=1, valid=valid, optimizer=optimizer, seed=1
        )
        # A state is kept on the CPU, moments too.
        tensors = list(states[device].weights["module_"].values())
        for moments in states[device].optimizer["optimizer_"]["state"].values():
            tensors += moments.values()
        assert {tensor.device.type for tensor in tensors} == {"cpu"}
    ours, reference = states[DEVICE], states["cpu"]
    losses = [[row["train_loss"] for row in s.history] for s in (ours, reference)]
    assert losses[0] == pytest.approx(losses[1], rel=0.05, abs=0.02)


def test_what_validation_found_is_what_the_net_predicts():
    source, valid = source_of(), source_of(17)
    net = tiny_net(device=DEVICE)
    state = train_erm(net, source, valid=valid, seed=0, keep_best=True)
    for proba, best in ((state.holdout_proba, False), (state.best_holdout_proba, True)):
        built = build_net(net, state, best=best)
        expected = predict_proba(built, TorchView(valid))
        np.testing.assert_allclose(proba, expected, atol=1e-5)


# ---------------------------------------------------------------- maps


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("pack", [False, True])
def test_maps_of_the_same_weights_are_those_of_the_cpu(name, pack):
    source = source_of(n_channels=3)
    net = tiny_net(module__n_channels=3)
    state = train_erm(net, source, seed=0)
    maps = {}
    for device in ("cpu", DEVICE):
        built = build_net(clone(net).set_params(device=device), state)
        X = source.batch(np.arange(4))
        method, layer = resolve_saliency(name, None, built, X)
        maps[device] = compute_maps(
            built, source, method, layer, labels=source.labels, pack=pack
        )
        assert type(maps[device]) is np.ndarray
        assert places(built) == {device}
    ours, reference = maps[DEVICE], maps["cpu"]
    assert ours.dtype == reference.dtype
    scale = reference.astype(np.float32).max()
    np.testing.assert_allclose(ours / scale, reference / scale, atol=2e-3)


@pytest.mark.parametrize("name", ["input_gradient", "input_x_gradient"])
def test_maps_of_vectors_are_those_of_the_cpu(name):
    X, y = tiny_vectors()
    source = ArraySource(X, y.astype(np.int64))
    net = tiny_net(TinyMLP)
    state = train_erm(net, source, seed=0)
    maps = []
    for device in (DEVICE, "cpu"):
        built = build_net(clone(net).set_params(device=device), state)
        maps.append(compute_maps(built, source, METHODS[name](), labels=source.labels))
    np.testing.assert_allclose(*maps, rtol=1e-3, atol=1e-5)


def test_maps_of_an_image_of_one_colour_are_zero():
    source = source_of()
    source.X[[3, 20]] = 0.5
    net = build_net(tiny_net(device=DEVICE))
    for name in ("input_gradient", "xgradcam"):
        method, layer = resolve_saliency(name, None, net, source.batch(np.arange(4)))
        maps = compute_maps(net, source, method, layer, pack=True)
        assert not maps[[3, 20]].any()
        assert np.isfinite(maps).all()


def test_a_function_sees_samples_and_labels_on_the_device():
    source, seen = source_of(), []

    def brightness(net, X, target):
        seen.append((X.device.type, len(X)))
        return X.abs().sum(dim=1)

    net = build_net(tiny_net(device=DEVICE))
    method, layer = resolve_saliency(brightness, None, net, source.batch(np.arange(2)))
    maps = compute_maps(net, source, method, layer, labels=source.labels)
    np.testing.assert_allclose(maps, abs(source.X).sum(axis=1), rtol=1e-5)
    assert {place for place, _ in seen} == {DEVICE}
    assert sum(n for _, n in seen) == len(source)


# ---------------------------------------------------------------- batches


class Counting(TorchView):
    """A view that counts the batches it read."""

    n_read = 0

    def read(self, indices):
        self.n_read += 1
        return super().read(indices)


@pytest.mark.parametrize("augment", [None, torch.neg])
@pytest.mark.parametrize(
    ("n", "size", "n_batches"), [(10, 4, 3), (9, 4, 2), (3, 4, 1), (12, 4, 3)]
)
def test_batches_arrive_on_the_device_whole_and_in_order(n, size, n_batches, augment):
    source = source_of(n)
    iterator = BatchIterator(TorchView(source, augment), size, device=DEVICE)
    batches = list(iterator)
    assert len(batches) == len(iterator) == n_batches
    assert {t.device.type for batch in batches for t in batch} == {DEVICE}
    X, y = (torch.cat(parts).cpu().numpy() for parts in zip(*batches, strict=True))
    assert (X.dtype, y.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(X, source.X if augment is None else -source.X)
    np.testing.assert_array_equal(y, source.labels)


def test_batches_are_copied_one_ahead():
    view = Counting(source_of(10))
    for i, _ in enumerate(BatchIterator(view, 4, device=DEVICE)):
        assert view.n_read == min(i + 2, 3)
    assert view.n_read == 3


def test_no_batch_is_none():
    assert list(BatchIterator(TorchView(source_of(0)), 4, device=DEVICE)) == []


def test_a_batch_that_is_written_to_does_not_change_the_next_epoch():
    source = source_of(12)
    iterator = BatchIterator(TorchView(source), 4, device=DEVICE)
    for X, _ in iterator:
        X.fill_(-1)
    np.testing.assert_array_equal(torch.cat([X.cpu() for X, _ in iterator]), source.X)


class Placed(TinyConvNet):
    """Note where its batches are."""

    seen = set()

    def forward(self, X):
        self.seen.add((self.training, X.device.type))
        return super().forward(X)


def test_a_fit_with_augmentation_reads_every_batch_on_the_device(images):
    Placed.seen, places_of_samples = set(), set()

    def augment(x):
        places_of_samples.add(x.device.type)
        return x.flip(-1)

    masktune(DEVICE, tiny_net(Placed), augment=augment).fit(*images)
    assert Placed.seen == {(True, DEVICE), (False, DEVICE)}
    assert places_of_samples == {"cpu"}


# ---------------------------------------------------------------- precision


def test_auto_is_bf16_where_the_device_has_it(images):
    X, y = images
    expected = "bf16" if torch.cuda.get_device_capability() >= (8, 0) else "float32"
    assert resolve_precision("auto", DEVICE) == expected
    clf = masktune(DEVICE, precision="auto").fit(X, y)
    assert clf.precision_ == expected
    reference = masktune(DEVICE).fit(X, y)
    first, second = (c.history_[0]["train_loss"] for c in (clf, reference))
    assert first == pytest.approx(second, rel=0.05)
    assert {p.dtype for p in clf.net_.module_.parameters()} == {torch.float32}


def test_bf16_computes_in_bfloat16_and_steps_in_one_kernel():
    net = build_net(tiny_net(device=DEVICE, module__n_channels=3), precision="bf16")
    dtypes = []
    net.module_.features[0].register_forward_hook(
        lambda module, args, output: dtypes.append(output.dtype)
    )
    X = source_of(n_channels=3).batch(np.arange(8)).to(DEVICE)
    with computing(net, "bf16"):
        output = net.module_(X)
        output.sum().backward()
    net.optimizer_.step()
    assert dtypes == [torch.bfloat16]
    assert output.dtype == torch.float32
    assert net.optimizer_.param_groups[0]["fused"] is True
    assert {p.dtype for p in net.module_.parameters()} == {torch.float32}


@pytest.mark.parametrize("optimizer", ["continue", "fresh"])
def test_a_refit_in_bf16_continues_with_a_fused_optimizer(optimizer):
    source = source_of()
    net = tiny_net(device=DEVICE)
    erm = train_erm(net, source, seed=0, precision="bf16")
    state = refit(
        net, erm, source, epochs=1, optimizer=optimizer, seed=1, precision="bf16"
    )
    n_batches = 3  # 40 samples in batches of 16
    expected = n_batches * (3 + 1 if optimizer == "continue" else 1)
    moments = state.optimizer["optimizer_"]["state"].values()
    assert {int(moment["step"]) for moment in moments} == {expected}


# ---------------------------------------------------------------- kept and found again


def test_a_pickled_estimator_predicts_the_same(pair, images):
    X, _ = images
    _, gpu = pair
    loaded = pickle.loads(pickle.dumps(gpu))
    assert places(loaded.net_) == {DEVICE}
    np.testing.assert_allclose(loaded.predict_proba(X), gpu.predict_proba(X), atol=1e-6)
    assert loaded.predict_with_reject(X)[1].shape == (len(X),)


def test_a_pickled_estimator_predicts_where_there_is_no_device(pair, images, tmp_path):
    X, _ = images
    _, gpu = pair
    with open(tmp_path / "estimator.pkl", "wb") as file:
        pickle.dump((gpu, X), file)
    script = (
        "import pickle, sys, numpy as np, torch\n"
        "assert not torch.cuda.is_available()\n"
        "clf, X = pickle.load(open(sys.argv[1], 'rb'))\n"
        "np.save(sys.argv[2], clf.predict_proba(X))\n"
    )
    paths = str(tmp_path / "estimator.pkl"), str(tmp_path / "proba.npy")
    subprocess.run(
        [sys.executable, "-c", script, *paths],
        check=True,
        cwd=ROOT,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
    )
    np.testing.assert_allclose(np.load(paths[1]), gpu.predict_proba(X), atol=1e-3)


def test_stages_are_found_again(images, tmp_path, capsys):
    X, y = images
    first = masktune(DEVICE, memory=tmp_path).fit(X, y)
    capsys.readouterr()
    again = masktune(DEVICE, memory=tmp_path, mask_threshold=0.2, verbose=1).fit(X, y)
    out = capsys.readouterr().out
    assert "ERM: found in memory" in out
    assert "maps: found in memory" in out
    view = TorchView(ArraySource(X))
    np.testing.assert_allclose(
        again._proba_before(view), first._proba_before(view), atol=1e-6
    )


# ---------------------------------------------------------------- random states


def draw_and_raise():
    torch.rand(5, device=DEVICE)
    raise ValueError("on purpose")


def test_seeded_gives_the_devices_random_state_back():
    torch.cuda.manual_seed_all(1)
    before = torch.cuda.get_rng_state()
    draws = []
    for seed in (3, 3, 4):
        with seeded(seed):
            draws.append(torch.rand(5, device=DEVICE))
        assert torch.equal(torch.cuda.get_rng_state(), before)
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    with pytest.raises(ValueError, match="on purpose"), seeded(5):
        draw_and_raise()
    assert torch.equal(torch.cuda.get_rng_state(), before)


class WithDropout(TinyMLP):
    """A net that draws on the device."""

    def forward(self, X):
        return super().forward(nn.functional.dropout(X, 0.5, self.training))


def test_a_fit_draws_from_streams_of_its_own():
    X, y = tiny_vectors()
    net = tiny_net(WithDropout)
    torch.cuda.manual_seed_all(1)
    before = torch.cuda.get_rng_state()
    first = masktune(DEVICE, net).fit(X, y).predict_proba(X)
    assert torch.equal(torch.cuda.get_rng_state(), before)
    torch.cuda.manual_seed_all(2)
    again = masktune(DEVICE, net).fit(X, y).predict_proba(X)
    np.testing.assert_allclose(again, first, atol=1e-5)
    other = masktune(DEVICE, net, random_state=1).fit(X, y).predict_proba(X)
    assert abs(other - first).max() > 1e-3
