"""Training: ERM of the package against a plain loop in torch, and against skorch.

    python benchmarks/bench_training.py [--n 48000] [--threads 2]

Two workloads, each trained for the same epochs on the same number of batches, with a
pass over a validation set of a quarter of the size after each epoch:

- "small net": `SmallConvNet` on float32 images 3 x 28 x 28, batches of 128, SGD with
  momentum. Limits: our stage takes at most 1.05 of the plain float32 loop; with
  precision="bf16" 0.62 (goal: 0.5) where the processor has matrix units for bfloat16,
  which is where "auto" takes it; elsewhere it is measured, without a limit.
- "vectors": `MLP` on 48,000 vectors of 64 numbers, batches of 128. Nothing but overhead
  is left to measure. Limit: 1.15.

What is timed is `masktune_sk.training.train_erm`, which is the whole ERM stage of
`MaskTuneClassifier.fit` (net made, trained, validated, weights copied out), and
`skorch.NeuralNetClassifier.fit` as it comes, on the same sets. The plain loop makes its
net and optimizer within its time, too. Nothing is subtracted from anything.

Accuracy on the validation set, after more epochs and for three seeds, shows whether
speed was paid for with it.
"""

import statistics
from functools import partial

import torch
from images import make_images, make_vectors, to_unit_range
from plain import sgd, train
from rounds import Report, argument_parser, interleave
from skorch import NeuralNetClassifier
from skorch.dataset import Dataset
from skorch.helper import predefined_split

from masktune_sk.data import ArraySource
from masktune_sk.modules import MLP, SmallConvNet
from masktune_sk.training import resolve_precision, train_erm

BATCH_SIZE = 128
SEEDS = (0, 1, 2)
LIMITS = {"masktune_sk": 1.05}
if resolve_precision("auto", "cpu") == "bf16":
    LIMITS["masktune_sk, bf16"] = 0.62
LIMITS_VECTORS = {"masktune_sk": 1.15}
SIZES = {
    "small": {"n": 1024, "n_vectors": 4096, "accuracy_epochs": 1},
    "full": {"n": 12_000, "n_vectors": 48_000, "accuracy_epochs": 3},
}
SGD = {
    "optimizer": torch.optim.SGD,
    "lr": 0.01,
    "optimizer__momentum": 0.9,
    "optimizer__weight_decay": 1e-4,
}
VECTOR_EPOCHS = 4


def make_net(module, epochs, **params):
    return NeuralNetClassifier(
        module,
        criterion=torch.nn.CrossEntropyLoss,
        **SGD,
        max_epochs=epochs,
        batch_size=BATCH_SIZE,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
        **params,
    )


class Workload:
    """A net and its data; each method trains it in another way.

    They take a seed and return the accuracy on the validation set.
    """

    def __init__(self, train_set, valid_set, module, epochs, **module_params):
        self.train_set = train_set
        self.valid_set = valid_set
        self.module = partial(module, **module_params)
        self.epochs = epochs
        prefixed = {f"module__{name}": v for name, v in module_params.items()}
        self.make_net = partial(make_net, module, **prefixed)

    def plain(self, seed, bf16=False):
        sets = (*self.train_set, *self.valid_set)
        _, accuracy = train(
            self.module,
            *sets,
            epochs=self.epochs,
            seed=seed,
            batch_size=BATCH_SIZE,
            make_optimizer=sgd,
            bf16=bf16,
        )
        return accuracy

    def ours(self, seed, **params):
        state = train_erm(
            self.make_net(self.epochs),
            ArraySource(*self.train_set),
            valid=ArraySource(*self.valid_set),
            seed=seed,
            **params,
        )
        return state.history[-1]["valid_acc"]

    def skorch(self, seed):
        torch.manual_seed(seed)
        net = self.make_net(self.epochs)
        net.set_params(train_split=predefined_split(Dataset(*self.valid_set)))
        net.fit(*self.train_set)
        return net.history[-1, "valid_acc"]


def small_net(n, epochs):
    X, y = make_images(n, seed=0)
    X_valid, y_valid = make_images(n // 4, seed=1, subset="test")
    return Workload(
        (to_unit_range(X), y),
        (to_unit_range(X_valid), y_valid),
        SmallConvNet,
        epochs,
        n_channels=3,
        n_classes=2,
    )


def vectors(n):
    return Workload(
        make_vectors(n, seed=0),
        make_vectors(n // 4, seed=1, subset="test"),
        MLP,
        VECTOR_EPOCHS,
        n_features=64,
        n_classes=10,
    )


def add_accuracies(report, benchmark, variants):
    for name, variant in variants.items():
        values = [variant(seed) for seed in SEEDS]
        print(f"  {name}: accuracies {[round(value, 4) for value in values]}")
        report.add(benchmark, name, "accuracy", values, unit="1")
        mean, std = statistics.mean(values), statistics.stdev(values)
        report.add(benchmark, name, "accuracy, mean of seeds", [mean], unit="1")
        report.add(benchmark, name, "accuracy, std of seeds", [std], unit="1")


def measure(report, arguments):
    sizes = SIZES[arguments.scale]
    parts = arguments.part or ("small-net", "vectors")

    if "small-net" in parts:
        n = arguments.n or sizes["n"]
        benchmark = f"small net, {n} images"
        print(f"{benchmark}, {arguments.epochs} epoch(s)")
        work = small_net(n, arguments.epochs)
        variants = {
            "plain loop": work.plain,
            "masktune_sk": work.ours,
            "masktune_sk, bf16": partial(work.ours, precision="bf16"),
            "plain loop, bf16": partial(work.plain, bf16=True),
            "skorch": work.skorch,
        }
        timings = interleave(variants, arguments.repeats)
        report.add_ratios(benchmark, timings, baseline="plain loop", limits=LIMITS)
        work.epochs = sizes["accuracy_epochs"]
        add_accuracies(report, benchmark, variants)

    if "vectors" in parts:
        benchmark = f"vectors, {sizes['n_vectors']}"
        print(f"{benchmark}, {VECTOR_EPOCHS} epochs")
        work = vectors(sizes["n_vectors"])
        variants = {
            "plain loop": work.plain,
            "masktune_sk": work.ours,
            "skorch": work.skorch,
        }
        timings = interleave(variants, arguments.repeats)
        report.add_ratios(
            benchmark, timings, baseline="plain loop", limits=LIMITS_VECTORS
        )
        add_accuracies(report, benchmark, variants)


def main():
    parser = argument_parser(__doc__)
    parser.add_argument("--n", type=int, help="training images of a timed epoch")
    parser.add_argument("--epochs", type=int, default=1, help="timed epochs a round")
    parser.add_argument(
        "--part", choices=("small-net", "vectors"), nargs="+", help="default: both"
    )
    arguments = parser.parse_args()
    with Report("training", arguments) as report:
        measure(report, arguments)


if __name__ == "__main__":
    main()
