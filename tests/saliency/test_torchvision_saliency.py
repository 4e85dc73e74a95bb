"""The nets of torchvision are explained without a target layer being named."""

import numpy as np
import pytest
import torch
from skorch import NeuralNetClassifier
from torchvision import models

from masktune_sk import MaskTuneClassifier
from masktune_sk.saliency import Layer

SIZE = 64


@pytest.fixture(scope="module")
def data():
    """Noise, with a bright square in one of the two classes."""
    X = np.random.default_rng(0).random((24, 3, SIZE, SIZE), dtype=np.float32)
    y = np.arange(24) % 2
    X[y == 1, :, 8:24, 8:24] = 1
    return X, y


# Nets that have hardly been trained may have flat maps, or none: in a layer with
# negative outputs all positions may speak against the class; and SqueezeNet rectifies
# its scores, so that both may end at 0, with no gradient anywhere. Hence the seeds.
NETS = [
    (models.resnet18, {}, 0, Layer("layer2", "channels_first", (8, 8))),
    (
        models.squeezenet1_1,
        {"lr": 0.001},
        1,
        Layer("features.7", "channels_first", (7, 7)),
    ),
    pytest.param(
        models.swin_t,
        {},
        0,
        Layer("features.3", "channels_last", (8, 8), signed=True),
        marks=pytest.mark.slow,
    ),
    pytest.param(
        models.vit_b_16,
        {"module__image_size": SIZE},
        0,
        Layer("encoder.layers.encoder_layer_11.ln_1", "tokens", (4, 4), signed=True),
        marks=pytest.mark.slow,
    ),
]


@pytest.mark.parametrize(("model", "params", "seed", "layer"), NETS)
def test_layer_is_found_and_most_masks_hide_something(data, model, params, seed, layer):
    X, y = data
    net = NeuralNetClassifier(
        model,
        module__num_classes=2,
        criterion=torch.nn.CrossEntropyLoss,
        max_epochs=1,
        batch_size=8,
        verbose=0,
        **params,
    )
    clf = MaskTuneClassifier(net, random_state=seed).fit(X, y)
    assert clf.layer_ == layer
    for which in ("erm", "refit"):
        maps = clf.saliency_maps(X, net=which, resize=False)
        assert maps.shape == (len(X), *layer.grid)
        assert np.isfinite(maps).all()
    X_masked, masks = clf.mask(X)
    hidden = ~masks.reshape(len(X), -1)
    assert hidden.any(axis=1).mean() >= 0.5
    # Cantelli's inequality
    assert hidden.mean(axis=1).max() <= 0.2
    assert 0 < clf.masked_fraction_ <= 0.2
    assert (X_masked[np.broadcast_to(~masks[:, None], X.shape)] == 0).all()
