"""Tests of averaged weights."""

import copy

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch.callbacks import Callback

from masktune_sk.data import ArraySource
from masktune_sk.training import WeightAveraging, train_erm
from tests.nets import TinyConvNet, TinyMLP, tiny_images, tiny_net, tiny_vectors


class Recorder(Callback):
    """Notes the weights after each epoch; its list is not copied with it."""

    def __init__(self, seen):
        self.seen = seen

    def __sklearn_clone__(self):
        return Recorder(self.seen)

    def on_epoch_end(self, net, **kwargs):
        self.seen.append(copy.deepcopy(net.module_.state_dict()))


def train(data, *callbacks, **params):
    net = tiny_net(**params)
    net.set_params(callbacks=[(type(one).__name__, one) for one in callbacks])
    return train_erm(net, ArraySource(*data), seed=0).weights["module_"]


@pytest.mark.parametrize(
    ("share", "n_averaged"), [(0.01, 1), (0.2, 1), (0.5, 2), (0.6, 3), (0.99, 5)]
)
def test_weights_are_the_mean_of_those_after_the_last_epochs(share, n_averaged):
    seen = []
    weights = train(
        tiny_vectors(),
        Recorder(seen),
        WeightAveraging(share),
        module=TinyMLP,
        max_epochs=5,
    )
    assert len(seen) == 5
    for name, value in weights.items():
        mean = torch.stack([one[name] for one in seen[-n_averaged:]]).mean(dim=0)
        torch.testing.assert_close(value, mean, rtol=1e-5, atol=1e-7)


def test_the_epochs_themselves_are_trained_as_without():
    plain, averaged = [], []
    train(tiny_images(), Recorder(plain))
    train(tiny_images(), Recorder(averaged), WeightAveraging(0.7))
    for one, other in zip(plain, averaged, strict=True):
        for name, value in one.items():
            assert torch.equal(value, other[name])


@pytest.mark.parametrize("share", [0.1, 0.7])
def test_statistics_of_batch_normalisation_are_those_of_the_mean(share):
    X, y = tiny_images(n=64)
    seen = []
    weights = train(
        (X, y), Recorder(seen), WeightAveraging(share), max_epochs=3, batch_size=16
    )
    module = TinyConvNet()
    module.load_state_dict(weights)
    norm = module.features[1]
    assert norm.momentum == 0.1
    if share == 0.1:
        # One epoch is its own mean, whose statistics were there.
        assert all(torch.equal(seen[-1][name], weights[name]) for name in weights)
        return
    with torch.no_grad():
        inputs = module.features[0](torch.from_numpy(X))
    mean = inputs.mean(dim=(0, 2, 3))
    torch.testing.assert_close(norm.running_mean, mean, rtol=1e-4, atol=1e-5)
    # Variances are averaged over batches.
    variance = inputs.var(dim=(0, 2, 3))
    torch.testing.assert_close(norm.running_var, variance, rtol=0.05, atol=1e-3)


def test_a_net_with_it_can_be_cloned_and_trains_alike():
    net = tiny_net(callbacks=[("averaging", WeightAveraging(0.5))])
    source = ArraySource(*tiny_images())
    one, other = (
        train_erm(some, source, seed=0).weights["module_"] for some in (net, clone(net))
    )
    assert all(np.array_equal(one[name], other[name]) for name in one)
