"""One fit in several processes: every stage is shared out among them.

    torchrun --nproc_per_node 2 examples/12_train_in_parallel.py
    accelerate launch --multi_gpu examples/12_train_in_parallel.py     (several GPUs)
    python examples/12_train_in_parallel.py                            (one process)

Each process runs this script. A batch of 32 stays a batch of 32: each process takes its
share, and the gradients are summed. Only what prints is for the first one alone.
"""

import argparse

import torch
from accelerate import Accelerator
from skorch import NeuralNetClassifier
from skorch.hf import AccelerateMixin

from masktune_sk import MaskTuneClassifier
from masktune_sk.datasets import load_shortcut_digits
from masktune_sk.modules import default_net


class AcceleratedNet(AccelerateMixin, NeuralNetClassifier):
    """A skorch net that knows of the processes it trains in."""


def main(n_samples, epochs):
    """Fit in all processes together, and return the estimator and its accelerator."""
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    X, y = load_shortcut_digits(return_X_y=True)
    X, y = X[:n_samples], y[:n_samples]
    params = default_net((3, 28, 28), n_classes=2, max_epochs=epochs).get_params()
    names = ("module", "criterion", "optimizer", "lr", "max_epochs", "batch_size")
    chosen = {
        name: value
        for name, value in params.items()
        if name in names or name.startswith(("module__", "iterator_train__"))
    }
    net = AcceleratedNet(accelerator=accelerator, train_split=None, **chosen)
    clf = MaskTuneClassifier(net, store_maps=True, random_state=0).fit(X, y)
    test = load_shortcut_digits(subset="test", square="conflicting")
    accuracy = clf.score(test.data, test.target)
    accelerator.print(
        f"{accelerator.num_processes} process(es): accuracy on conflicting digits "
        f"{accuracy:.3f}, {clf.masked_fraction_:.1%} of an image masked"
    )
    return clf, accelerator


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=1200)
    parser.add_argument("--epochs", type=int, default=10)
    arguments = parser.parse_args()
    main(arguments.samples, arguments.epochs)
