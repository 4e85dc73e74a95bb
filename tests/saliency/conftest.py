import pytest
import torch
from skorch import NeuralNetClassifier


@pytest.fixture
def as_net():
    """Return a function that puts a module in an initialised net."""

    def make(module, criterion=torch.nn.CrossEntropyLoss, **params):
        defaults = {"train_split": None, "verbose": 0, "batch_size": 4}
        net = NeuralNetClassifier(module, criterion=criterion, **(defaults | params))
        return net.initialize()

    return make
