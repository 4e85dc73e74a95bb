"""Methods: what they cost beside ordinary training of the same net.

    python benchmarks/bench_methods.py [--part depth concept]

- "depth": `DeNetDMClassifier` against ERM on the target net, as many epochs in each
  stage, on images with the perceptrons of ColoredMNIST (depths 3 and 5) and with the
  default nets. "branches" ends after stage 1 (with the epoch of ERM that decides the
  roles); "both stages" is the whole fit.
- "concept": `RRClArCClassifier` on a net that is trained, against fine-tuning the same
  layers for the same epochs without a penalty: with the whole net run in each epoch,
  and with the latents computed once. What finds the direction, and what measures it
  before and after, is in the time. Published: 1.00 to 1.10. Limits: 1.1 with the whole
  net, 0.3 with the latents kept.

What is timed is `fit`.
"""

from functools import partial

import torch
from depth_nets import make_mlp
from images import make_images
from rounds import Report, argument_parser, interleave
from sklearn.frozen import FrozenEstimator
from skorch import NeuralNetClassifier
from torchvision.models import resnet18

from masktune_sk import DeNetDMClassifier, MaskTuneClassifier, RRClArCClassifier
from masktune_sk.modules import SmallConvNet

SIZES = {
    "small": {"n": 256, "n_photos": 64, "epochs": 1, "refit_epochs": 2},
    "full": {"n": 3000, "n_photos": 512, "epochs": 3, "refit_epochs": 10},
}
LIMITS = {"RR-ClArC, whole net": 1.1, "RR-ClArC, latents kept": 0.3}


def make_net(module, epochs, **params):
    return NeuralNetClassifier(
        module,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        max_epochs=epochs,
        batch_size=64,
        iterator_train__shuffle=True,
        verbose=0,
        **params,
    )


def measure_depth(report, sizes, repeats):
    X, y = make_images(sizes["n"], seed=0, square="biased")
    hidden = {"shallow": (100, 100), "deep": (100,) * 4}
    mlp = partial(make_mlp, X[0].size)
    nets = {
        "perceptrons": (
            make_net(partial(mlp, hidden["deep"], 2), sizes["epochs"]),
            {f"{name}_module": partial(mlp, hidden[name]) for name in hidden},
        ),
        "default nets": (
            make_net(
                SmallConvNet, sizes["epochs"], module__n_channels=3, module__n_classes=2
            ),
            {},
        ),
    }
    for name, (net, branches) in nets.items():
        benchmark = f"DeNetDM, {name}, {sizes['n']} images"
        print(benchmark)
        depth = partial(DeNetDMClassifier, net, **branches)
        variants = {
            "ERM": partial(MaskTuneClassifier, net, masking="none", refit_epochs=0),
            "branches": partial(depth, predict_branch="shallow"),
            "both stages": depth,
        }
        timings = interleave(
            {
                variant: lambda seed, make=make: make(random_state=seed).fit(X, y)
                for variant, make in variants.items()
            },
            repeats,
        )
        report.add_ratios(benchmark, timings, baseline="ERM")


def measure_concept(report, sizes, repeats):
    X, y = make_images(sizes["n_photos"], seed=0, square="biased", conflict_ratio=0.2)
    X = X.repeat(3, axis=2).repeat(3, axis=3)[:, :, :64, :64].astype("float32")
    shows = X[:, 0, 0, 0] == X[:, 0, 1, 1]
    shows &= (X[:, 0, 0, 0] == 255) & (X[:, 1, 0, 0] == 0)
    net = make_net(resnet18, 1, module__num_classes=2, train_split=None)
    trained = FrozenEstimator(net.fit(X / 255, y))
    benchmark = f"RR-ClArC, resnet18 at 64 pixels, {len(X)} images"
    print(f"{benchmark}, {sizes['refit_epochs']} epochs")
    correct = partial(
        RRClArCClassifier,
        trained,
        refit_epochs=sizes["refit_epochs"],
        validation_fraction=0,
    )
    whole = partial(correct, cache_latents=False)
    variants = {
        "fine-tuning": partial(whole, method="none"),
        "RR-ClArC, whole net": whole,
        "RR-ClArC, latents kept": correct,
        "A-ClArC, whole net": partial(whole, method="a-clarc"),
    }
    timings = interleave(
        {
            variant: lambda seed, make=make: make(random_state=seed).fit(
                X / 255, y, concept=shows
            )
            for variant, make in variants.items()
        },
        repeats,
    )
    report.add_ratios(benchmark, timings, baseline="fine-tuning", limits=LIMITS)


def main():
    parser = argument_parser(__doc__, repeats=3)
    parser.add_argument(
        "--part", choices=("depth", "concept"), nargs="+", help="default: both"
    )
    arguments = parser.parse_args()
    sizes = SIZES[arguments.scale]
    parts = arguments.part or ("depth", "concept")
    with Report("methods", arguments) as report:
        if "depth" in parts:
            measure_depth(report, sizes, arguments.repeats)
        if "concept" in parts:
            measure_concept(report, sizes, arguments.repeats)


if __name__ == "__main__":
    main()
