"""Maps and masks: the package against the least work possible, and other code.

    python benchmarks/bench_saliency.py [--threads 2]

Limit of the hardware: a forward pass without a graph up to the explained layer, and the
gradient of what follows, written by hand; no map is made. Everything else makes maps
and thresholds them (mean + 2 standard deviations of the positive part, at the size of
the image):

- masktune_sk: `compute_maps` and `MaskedSource.summary`, as `MaskTuneClassifier.fit`
  does, in float32 and in bfloat16;
- usual hook code: hooks on the layer, the whole graph, a backward pass to the input;
- grad-cam: `XGradCAM` of the package of that name (left out if it is not installed),
  with our threshold.

Three workloads: `SmallConvNet` on 3 x 28 x 28, and torchvision's resnet18 with random
weights on 3 x 64 x 64 and on 3 x 224 x 224, at the layer that `find_layer` chooses.

Limits, as ratios to the limit of the hardware: 1.35 (resnet18 at 224 pixels: 1.15);
in bfloat16 0.8 (0.45), where the processor has matrix units for it. And at most a third
of the time of grad-cam.
"""

from functools import partial

import numpy as np
import torch
from images import make_images, to_unit_range
from plain import halves, look
from rounds import Report, argument_parser, interleave
from skorch import NeuralNetClassifier
from torch.nn import functional as F
from torchvision.models import resnet18

from masktune_sk.data import ArraySource
from masktune_sk.masking import MaskedSource, threshold_maps
from masktune_sk.modules import SmallConvNet
from masktune_sk.saliency import XGradCAM, compute_maps, find_layer
from masktune_sk.training import build_net, resolve_precision, train_erm

try:
    from pytorch_grad_cam import XGradCAM as OtherXGradCAM
except ImportError:
    OtherXGradCAM = None

THRESHOLD = 2.0
THIRD = 1 / 3
SIZES = {
    "small": {"small net": 256, "resnet18 at 64": 32, "resnet18 at 224": 8},
    "full": {"small net": 4096, "resnet18 at 64": 256, "resnet18 at 224": 96},
}
BATCH_SIZES = {"small net": 128, "resnet18 at 64": 128, "resnet18 at 224": 32}
LIMITS = {
    "small net": {"masktune_sk": 1.35},
    "resnet18 at 64": {},
    "resnet18 at 224": {"masktune_sk": 1.15},
}
if resolve_precision("auto", "cpu") == "bf16":
    LIMITS["small net"]["masktune_sk, bf16"] = 0.8
    LIMITS["resnet18 at 224"]["masktune_sk, bf16"] = 0.45


class Workload:
    """A net in eval mode, its images, and the layer; each method looks in its way.

    They return masks (True = kept), or what there is.
    """

    def __init__(self, net, X, batch_size):
        self.net = net
        self.X = X
        self.batch_size = batch_size
        self.source = ArraySource(X)
        self.layer = find_layer(net, torch.from_numpy(X[:8]))
        self.module = net.module_
        self.halves = halves(self.module, self.layer.name)

    def limit(self, number):
        look(*self.halves, self.X, self.batch_size)

    def ours(self, number, **params):
        maps = compute_maps(self.net, self.source, XGradCAM(), self.layer, **params)
        masked = MaskedSource(
            self.source, maps, threshold=THRESHOLD, rule="sigma", fill=np.zeros(1)
        )
        masked.summary()
        return masked

    def hooks(self, number):
        """Keep activations and gradients by hooks, and run the whole backward pass."""
        kept = {}

        def keep(module, args, output):
            kept["activations"] = output.detach()
            output.register_hook(lambda gradient: kept.update(gradients=gradient))

        handle = self.module.get_submodule(self.layer.name).register_forward_hook(keep)
        self.module.requires_grad_(True)
        masks = []
        for batch in torch.from_numpy(self.X).split(self.batch_size):
            self.module.zero_grad()
            self.module(batch).amax(1).sum().backward()
            activations, gradients = kept["activations"], kept["gradients"]
            total = activations.sum((2, 3), keepdim=True) + 1e-7
            weights = (gradients * activations / total).sum((2, 3), keepdim=True)
            maps = _scaled((weights * activations).sum(1, keepdim=True).relu())
            size = batch.shape[2:]
            maps = F.interpolate(maps, size, mode="bilinear", align_corners=False)
            maps = _scaled(maps)[:, 0]
            n_positive = (maps > 0).sum((1, 2), keepdim=True).clamp(min=1)
            mean = maps.sum((1, 2), keepdim=True) / n_positive
            spread = ((maps - mean) ** 2 * (maps > 0)).sum((1, 2), keepdim=True)
            masks.append(maps <= mean + THRESHOLD * (spread / n_positive).sqrt())
        handle.remove()
        self.module.zero_grad()
        self.module.requires_grad_(False)
        return torch.cat(masks).numpy()

    def grad_cam(self, number):
        self.module.requires_grad_(True)
        layer = self.module.get_submodule(self.layer.name)
        masks = []
        with OtherXGradCAM(self.module, [layer]) as cam:
            for batch in torch.from_numpy(self.X).split(self.batch_size):
                masks.append(threshold_maps(cam(batch, targets=None), THRESHOLD)[0])
        self.module.zero_grad()
        self.module.requires_grad_(False)
        return np.concatenate(masks)


def _scaled(maps):
    low = maps.amin((2, 3), keepdim=True)
    high = maps.amax((2, 3), keepdim=True)
    return (maps - low) / (high - low).clamp(min=1e-12)


def small_net(n, batch_size):
    X, y = make_images(n, seed=0, square="biased")
    X = to_unit_range(X)
    net = NeuralNetClassifier(
        SmallConvNet,
        module__n_channels=3,
        module__n_classes=2,
        criterion=torch.nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=0.001,
        max_epochs=3,
        batch_size=batch_size,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )
    state = train_erm(net, ArraySource(X, y), seed=0)
    return Workload(build_net(net, state), X, batch_size)


def residual_net(n, batch_size, pixels):
    X = torch.from_numpy(to_unit_range(make_images(n, seed=0)[0]))
    X = F.interpolate(X, (pixels, pixels), mode="bilinear", align_corners=False)
    torch.manual_seed(0)
    net = NeuralNetClassifier(
        resnet18,
        module__num_classes=2,
        criterion=torch.nn.CrossEntropyLoss,
        batch_size=batch_size,
    )
    net.initialize()
    # With random signs the maps of an untrained net may be negative everywhere, hence
    # empty, and there would be nothing to threshold.
    with torch.no_grad():
        net.module_.fc.weight.abs_()
    return Workload(net, X.numpy(), batch_size)


WORKLOADS = {
    "small net": small_net,
    "resnet18 at 64": partial(residual_net, pixels=64),
    "resnet18 at 224": partial(residual_net, pixels=224),
}


def measure(report, arguments):
    if OtherXGradCAM is None:
        print("grad-cam is not installed and is left out.")

    for name in arguments.workload:
        n = SIZES[arguments.scale][name]
        work = WORKLOADS[name](n, BATCH_SIZES[name])
        print(f"{name}: {n} images, layer {work.layer.name}, grid {work.layer.grid}")
        variants = {
            "limit": work.limit,
            "masktune_sk": work.ours,
            "masktune_sk, bf16": partial(work.ours, precision="bf16"),
            "usual hook code": work.hooks,
        }
        if OtherXGradCAM is not None:
            variants["grad-cam"] = work.grad_cam
        timings = interleave(variants, arguments.repeats)
        report.add_ratios(name, timings, baseline="limit", limits=LIMITS[name])

        ours, _ = work.ours(0).masks(np.arange(n))
        hooks = work.hooks(0)
        report.add(name, "masktune_sk", "hidden", [float(1 - ours.mean())], unit="1")
        add_agreement(report, name, "usual hook code", ours, hooks)
        bf16, _ = work.ours(0, precision="bf16").masks(np.arange(n))
        add_agreement(report, name, "masktune_sk, bf16", ours, bf16)
        if OtherXGradCAM is not None:
            add_agreement(report, name, "grad-cam", ours, work.grad_cam(0))
            report.add_ratios(
                name,
                timings,
                baseline="grad-cam",
                only=["masktune_sk"],
                limits={"masktune_sk": THIRD},
            )


def add_agreement(report, benchmark, variant, ours, others):
    """Add the share of positions that both hide, of those that either hides.

    It shows that the variants do the same work. It may be below 1 because the hook code
    does not fall back for empty masks.
    """
    either = (~ours | ~others).sum()
    share = (~ours & ~others).sum() / max(either, 1)
    report.add(
        benchmark,
        variant,
        "hidden by both, of either",
        [float(share)],
        unit="1",
        baseline="masktune_sk",
    )


def main():
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--workload", choices=WORKLOADS, nargs="+", default=list(WORKLOADS)
    )
    arguments = parser.parse_args()
    with Report("saliency", arguments) as report:
        measure(report, arguments)


if __name__ == "__main__":
    main()
