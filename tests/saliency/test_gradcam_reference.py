"""Our maps equal those of the public grad-cam package, kept in a file."""

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from masktune_sk.data import ArraySource
from masktune_sk.masking import resize_maps
from masktune_sk.saliency import METHODS, compute_maps, find_layer
from tests.saliency.data import make_gradcam_reference as script

REFERENCE = Path(__file__).parent / "data" / "gradcam_reference.npz"


@pytest.fixture(scope="module")
def reference():
    with np.load(REFERENCE) as arrays:
        return dict(arrays)


@pytest.fixture
def net(as_net, reference):
    module = script.make_module()
    weights = {
        name: torch.from_numpy(reference[f"weights {name}"])
        for name in module.state_dict()
    }
    module.load_state_dict(weights)
    return as_net(module, batch_size=3)


@pytest.fixture
def X(reference):
    return reference["pixels"].astype(np.float32) / 255


def test_reference_tells_classes_and_methods_apart(reference):
    assert len(np.unique(reference["predicted"])) == 3
    assert (reference["predicted"] != reference["given"]).sum() >= 2
    maps = [value for name, value in reference.items() if name.startswith("maps")]
    for one in maps:
        assert (one.max(axis=(1, 2)) > 0.99).all()
    for one, other in combinations(maps, 2):
        assert abs(one - other).max() > 0.01


def test_every_layer_method_has_a_reference():
    with_layer = {name for name, method in METHODS.items() if method.needs_layer}
    assert set(script.METHODS) == with_layer


@pytest.mark.parametrize("name", script.METHODS)
@pytest.mark.parametrize("target", ["predicted", "given"])
def test_maps_equal_those_of_grad_cam(net, X, reference, name, target):
    layer = find_layer(net, torch.from_numpy(X), script.TARGET_LAYER)
    labels = reference["given"] if target == "given" else None
    maps = compute_maps(net, ArraySource(X), METHODS[name](), layer, labels=labels)
    assert maps.shape[1:] == (X.shape[2] // 2, X.shape[3] // 2)
    assert_allclose(
        resize_maps(maps, X.shape[1:]), reference[f"maps {name} {target}"], atol=1e-5
    )


def test_named_layer_is_the_one_found_without_a_name(net, X):
    layer = find_layer(net, torch.from_numpy(X))
    assert layer.grid == (8, 12)
    named = find_layer(net, torch.from_numpy(X), script.TARGET_LAYER)
    assert_array_equal(
        compute_maps(net, ArraySource(X), METHODS["xgradcam"](), layer),
        compute_maps(net, ArraySource(X), METHODS["xgradcam"](), named),
    )
