"""Tests of the default torch modules."""

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from torch import nn

from masktune_sk.modules import MLP, SmallConvNet, default_net

SIZES = [
    (8, 8),
    (9, 9),
    (13, 13),
    (16, 16),
    (27, 27),
    (28, 28),
    (32, 32),
    (40, 30),
    (8, 60),
    (64, 64),
    (224, 224),
]


def test_the_small_conv_net_is_the_published_one_at_28_pixels():
    net = SmallConvNet(3, 2)
    X = torch.rand(2, 3, 28, 28)
    features = net.features(X)
    assert features.shape == (2, 32, 8, 8)
    assert (features >= 0).all()
    hidden = net.head[0]
    assert (hidden.in_features, hidden.out_features) == (512, 256)
    convolutions = [m for m in net.modules() if isinstance(m, nn.Conv2d)]
    assert [c.out_channels for c in convolutions] == [16, 16, 32, 32]
    assert {c.kernel_size for c in convolutions} == {(3, 3)}
    # The averaging at the end changes nothing at this size.
    pooled = nn.functional.max_pool2d(features, 2)
    assert pooled.shape == (2, 32, 4, 4)
    assert torch.equal(net.eval()(X), net.head(net_pooled(net, X)))


def net_pooled(net, X):
    return nn.functional.max_pool2d(net.features(X), 2).flatten(1)


@pytest.mark.parametrize("n_channels", [1, 3, 5])
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_the_small_conv_net_trains_at_any_size(size, n_channels):
    net = SmallConvNet(n_channels, 4, image_size=size)
    logits = net(torch.rand(2, n_channels, *size))
    assert logits.shape == (2, 4)
    logits.logsumexp(dim=1).sum().backward()
    gradients = [p.grad for p in net.parameters()]
    assert all(g is not None and torch.isfinite(g).all() for g in gradients)
    assert net.features(torch.rand(1, n_channels, *size)).ndim == 4


@pytest.mark.parametrize("size", [(7, 7), (7, 28), (28, 7), (1, 1)])
def test_too_small_an_image_is_refused_with_the_size_and_the_ways_out(size):
    message = rf"8 pixels a side or more, got {size[0]} x {size[1]}\. Enlarge them"
    with pytest.raises(ValueError, match=message):
        SmallConvNet(3, 2, image_size=size)
    with pytest.raises(ValueError, match="flatten them to vectors"):
        default_net((3, *size), 2).initialize()


def test_images_from_0_to_255_train():
    rng = np.random.default_rng(0)
    y = np.arange(64) % 2
    X = rng.uniform(0, 60, size=(64, 3, 8, 8)).astype(np.float32)
    X[y == 0, :, :, :4] += 190
    X[y == 1, :, :, 4:] += 190
    net = default_net((3, 8, 8), 2, max_epochs=6).fit(X, y)
    assert net.score(X, y) == 1
    assert net.history[-1, "train_loss"] < net.history[0, "train_loss"] / 2


def test_vectors_of_any_scale_train():
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    X = rng.normal(size=(200, 3))
    X[:, 0] += 4 * y
    X = (X * [1e-4, 1e4, 1] + [3e-3, -1e5, 0]).astype(np.float32)
    net = default_net((3,), 2).fit(X, y)
    assert net.score(X, y) > 0.95


def test_the_mlp_has_the_hidden_layers_asked_for():
    def widths(mlp):
        return [m.out_features for m in mlp.modules() if isinstance(m, nn.Linear)]

    assert widths(MLP(5, 3)) == [64, 64, 3]
    assert widths(MLP(5, 3, hidden=(7,))) == [7, 3]
    assert widths(MLP(5, 3, hidden=())) == [3]
    assert MLP(5, 3, hidden=(7, 6))(torch.rand(4, 5)).shape == (4, 3)


def test_the_input_normalisation_has_no_weights():
    for net in (MLP(5, 3), SmallConvNet(3, 2)):
        first = next(
            m for m in net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)
        )
        assert list(first.parameters()) == []
        assert first.running_mean is not None


@pytest.mark.parametrize(
    ("shape", "module", "lr", "module_params"),
    [
        ((5,), MLP, 0.003, {"n_features": 5, "n_classes": 3}),
        (
            (1, 28, 30),
            SmallConvNet,
            0.001,
            {"n_channels": 1, "n_classes": 3, "image_size": (28, 30)},
        ),
    ],
)
def test_the_defaults_of_the_default_net_are_as_documented(
    shape, module, lr, module_params
):
    net = default_net(shape, 3)
    assert type(net) is NeuralNetClassifier
    assert not net.initialized_
    assert net.module is module
    assert net.get_params_for("module") == module_params
    assert net.lr == lr
    assert net.optimizer is torch.optim.Adam
    assert net.criterion is nn.CrossEntropyLoss
    assert net.max_epochs == 20
    assert net.batch_size == 32
    assert net.get_params_for("iterator_train") == {"shuffle": True}
    assert set(net.get_params_for("iterator_valid")) <= {"batch_size"}
    assert net.train_split is None
    assert net.verbose == 0


def test_every_default_can_be_replaced():
    net = default_net(
        (5,),
        3,
        max_epochs=1,
        lr=0.5,
        batch_size=8,
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        iterator_train__shuffle=False,
        module__hidden=(4,),
        verbose=1,
    )
    assert (net.max_epochs, net.lr, net.batch_size, net.verbose) == (1, 0.5, 8, 1)
    assert net.optimizer is torch.optim.SGD
    assert net.get_params_for("iterator_train") == {"shuffle": False}
    net.set_params(verbose=0).initialize()
    assert net.module_.layers[1].out_features == 4
    assert net.optimizer_.param_groups[0]["momentum"] == 0.9


def test_the_shape_of_an_array_does():
    X = np.zeros((4, 3, 8, 9), dtype=np.float32)
    net = default_net(X.shape[1:], 2).initialize()
    assert net.predict_proba(X).shape == (4, 2)
