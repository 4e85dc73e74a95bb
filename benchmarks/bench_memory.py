"""Memory: of masks, of a fit on a file larger than memory, and of a whole fit.

    python benchmarks/bench_memory.py [--part masks file fit wall] [--threads 2]

- masks: 100,000 maps of 7 x 7 as a `MaskedSource`, with the shifts of the random
  control, hold at most 40 MB after masks were made and counted and batches were read.
  What making masks needs for a moment is shown beside it, for images of 28 and of 224
  pixels.
- file: a fit on a memory-mapped file of 10 GB (uint8 images, 3 x 224 x 224; the file is
  sparse and takes next to no disk) with ``memory=``, so that it is hashed, too.
  Anonymous memory (RssAnon), which unlike the pages of the file cannot be dropped, is
  sampled during the fit and grows by at most 300 MB, 3 % of the file.
- fit: `MaskTuneClassifier.fit` on 48,000 float32 images 3 x 28 x 28, 3 epochs, in a
  process of its own: peak memory is at most the data and both nets and 700 MB (of
  which importing torch and scikit-learn is most), and no file is opened for writing.
  The peak of a process that trains a plain loop on the same data stands beside it.
- wall: with fewer images and in rounds, the wall time of a fit is at most 1.1 of the
  sum of its stages in plain torch: 3 epochs with validation, the least work of maps,
  one more epoch with validation.

MB are 10^6 bytes. Needs /proc (Linux).
"""

import argparse
import json
import os
import pickle
import subprocess
import sys
import tempfile
import threading
import time
import tracemalloc
import warnings
from functools import partial
from pathlib import Path

import numpy as np
import torch
from images import make_images, to_unit_range
from plain import halves, look, train
from rounds import Report, argument_parser, interleave, timed
from skorch import NeuralNetClassifier
from torch import nn

from masktune_sk import MaskTuneClassifier
from masktune_sk.data import ArraySource, stratified_holdout
from masktune_sk.exceptions import EmptyMaskWarning
from masktune_sk.masking import MaskedSource
from masktune_sk.modules import SmallConvNet

MB = 1e6
BATCH_SIZE = 128
SIZES = {
    "small": {"maps": 10_000, "file": 2e8, "n_fit": 2000, "n_wall": 600},
    "full": {"maps": 100_000, "file": 1e10, "n_fit": 48_000, "n_wall": 12_000},
}
MASKS_LIMIT = 40
FILE_LIMIT = 300
FIT_LIMIT = 700
WALL_LIMIT = 1.1
EPOCHS = 3


def status(field):
    """Return a field of /proc/self/status in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024 / MB
    raise OSError(f"/proc/self/status has no {field}.")


# ---------------------------------------------------------------------- masks


def measure_masks(report, sizes):
    n = sizes["maps"]
    for pixels in (28, 224):
        benchmark = f"masks, {n} maps of 7 x 7"
        variant = f"images of {pixels} pixels"
        print(f"{benchmark}, {variant}", flush=True)
        # One image stands for all: only the masks are to be seen.
        X = np.broadcast_to(np.float32(0.5), (n, 3, pixels, pixels))
        source = ArraySource(X, np.zeros(n, np.int64))
        rng = np.random.default_rng(0)

        tracemalloc.start()
        masked = MaskedSource(
            source,
            rng.random((n, 7, 7), dtype=np.float32),
            threshold=2.0,
            rule="sigma",
            fill=np.zeros(1, np.float32),
            shifts=rng.random((n, 2)),
        )
        made, _ = tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        resident = status("RssAnon")
        masked.summary()
        for start in range(0, min(n, 4096), BATCH_SIZE):
            masked.batch(np.arange(start, start + BATCH_SIZE))
        held, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        add = partial(report.add, benchmark, variant, unit="MB")
        add("held", [held / MB], limit=MASKS_LIMIT * n / SIZES["full"]["maps"])
        # numpy's part; torch resizes the maps, a chunk at a time, outside of it.
        add("more while masks are made", [(peak - made) / MB])
        add("resident memory gained", [max(status("RssAnon") - resident, 0)])


# ---------------------------------------------------------------------- file


class PatchNet(nn.Module):
    """A net that takes no time and no memory: one convolution of whole patches."""

    def __init__(self, n_classes=2):
        super().__init__()
        self.patches = nn.Sequential(nn.Conv2d(3, 8, 32, stride=32), nn.ReLU())
        self.head = nn.Linear(8, n_classes)

    def forward(self, X):
        return self.head(self.patches(X).mean((2, 3)))


class MemoryWatch:
    """Sample the anonymous memory of this process in a thread."""

    def __init__(self, seconds=0.02):
        self.seconds = seconds
        self.largest = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *error):
        self._stop.set()
        self._thread.join()

    def _watch(self):
        while not self._stop.is_set():
            self.largest = max(self.largest, status("RssAnon"))
            time.sleep(self.seconds)


def measure_file(report, sizes):
    shape = (3, 224, 224)
    n = int(sizes["file"] / np.prod(shape))
    benchmark = f"file of {sizes['file'] / 1e9:g} GB, {n} images"
    print(benchmark, flush=True)
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=n)
    net = NeuralNetClassifier(
        PatchNet,
        criterion=nn.CrossEntropyLoss,
        # The images are not scaled, to save a copy, and nothing is to be learned.
        lr=1e-6,
        max_epochs=1,
        batch_size=32,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "images.npy")
        X = np.lib.format.open_memmap(path, "w+", np.uint8, (n, *shape))
        few = rng.choice(n, size=min(n, 256), replace=False)
        for row in few:
            X[row] = rng.integers(256, size=shape, dtype=np.uint8)
        X.flush()
        disk = path.stat().st_blocks * 512
        print(f"  {disk / MB:.0f} MB of disk", flush=True)
        X = np.load(path, mmap_mode="r")
        clf = MaskTuneClassifier(
            net, memory=str(Path(directory, "cache")), random_state=0
        )
        with warnings.catch_warnings():
            # Almost all images are black.
            warnings.simplefilter("ignore", EmptyMaskWarning)
            # Whatever is loaded or allocated once is not of the file.
            clf.fit(X[few], np.arange(len(few)) % 2)
            before = status("RssAnon")
            with MemoryWatch() as watch:
                _, timing = timed(clf.fit, X, y)
    print(f"  fit {timing.wall:.0f} s", flush=True)
    add = partial(report.add, benchmark, "masktune_sk")
    add(
        "anonymous memory gained", [watch.largest - before], unit="MB", limit=FILE_LIMIT
    )
    add("wall", [timing.wall], unit="s")


# ---------------------------------------------------------------------- fit


def make_net(epochs=EPOCHS):
    return NeuralNetClassifier(
        SmallConvNet,
        module__n_channels=3,
        module__n_classes=2,
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.SGD,
        lr=0.01,
        optimizer__momentum=0.9,
        optimizer__weight_decay=1e-4,
        max_epochs=epochs,
        batch_size=BATCH_SIZE,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )


def fit_in_child(directory, variant):
    """Fit what lies in a directory, in a process of its own; print what it took."""
    X = np.load(Path(directory, "X.npy"))
    y = np.load(Path(directory, "y.npy"))
    data = (X.nbytes + y.nbytes) / MB
    make_module = partial(SmallConvNet, n_channels=3, n_classes=2)
    cut = len(X) * 4 // 5
    if variant == "plain loop":
        train(make_module, X[:cut], y[:cut], X[cut:], y[cut:], epochs=1, seed=0)
        print(json.dumps({"peak": status("VmHWM"), "data": data}))
        return

    # The first optimizer of a process makes torch load its compiler, and that makes a
    # directory for temporary files.
    train(make_module, X[:8], y[:8], X[:8], y[:8], epochs=1, seed=0)
    before = set(os.listdir())
    written = []

    def note(event, arguments):
        if event != "open":
            return
        path, mode, flags = arguments
        writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND
        if (flags or 0) & writes or set(mode or "") & set("wax+"):
            written.append(str(path))

    sys.addaudithook(note)
    clf = MaskTuneClassifier(make_net(), random_state=0)
    _, timing = timed(clf.fit, X, y)
    peak, files = status("VmHWM"), list(written)
    nets = sum(
        tensor.nbytes
        for net in (clf.erm_net_, clf.net_)
        for tensor in net.module_.state_dict().values()
    )
    answer = {
        "peak": peak,
        "data": data,
        "nets": nets / MB,
        "pickle": len(pickle.dumps(clf)) / MB,
        "wall": timing.wall,
        "files": sorted(files + list(set(os.listdir()) - before)),
    }
    print(json.dumps(answer))


def measure_fit(report, sizes, threads):
    n = sizes["n_fit"]
    benchmark = f"whole fit, {n} images, {EPOCHS} epochs"
    print(benchmark, flush=True)
    with tempfile.TemporaryDirectory() as data:
        X, y = make_images(n, seed=0, square="biased")
        np.save(Path(data, "X.npy"), to_unit_range(X))
        np.save(Path(data, "y.npy"), y)
        del X
        answers = {
            variant: run_child(variant, data, threads)
            for variant in ("plain loop", "masktune_sk")
        }
    plain, ours = answers.values()
    add = partial(report.add, benchmark, unit="MB")
    add("plain loop", "peak memory", [plain["peak"]])
    add("plain loop", "peak less data", [plain["peak"] - plain["data"]])
    add("masktune_sk", "peak memory", [ours["peak"]])
    more = ours["peak"] - ours["data"] - ours["nets"]
    add("masktune_sk", "peak less data and nets", [more], limit=FIT_LIMIT)
    add(
        "masktune_sk",
        "peak memory more",
        [ours["peak"] - plain["peak"]],
        baseline="plain loop",
    )
    add("masktune_sk", "size of the pickle", [ours["pickle"]])
    report.add(
        benchmark,
        "masktune_sk",
        "files written",
        [len(ours["files"])],
        limit=0,
        exactly=True,
    )
    report.add(benchmark, "masktune_sk", "wall", [ours["wall"]], unit="s")


def run_child(variant, data, threads):
    """Run this script for one fit in an empty directory; return what it tells."""
    command = [sys.executable, str(Path(__file__).resolve())]
    command += ["--child", variant, "--data", data]
    if threads is not None:
        command += ["--threads", str(threads)]
    with tempfile.TemporaryDirectory() as work:
        # Files of Python itself are not of the fit, and everything else that is
        # written without a name of its own lands where it is seen.
        environment = dict(os.environ, PYTHONDONTWRITEBYTECODE="1", TMPDIR=work)
        done = subprocess.run(
            command, cwd=work, env=environment, stdout=subprocess.PIPE, check=True
        )
    answer = json.loads(done.stdout.splitlines()[-1])
    print(f"  {variant}: {answer}", flush=True)
    return answer


def measure_wall(report, n, repeats):
    benchmark = f"whole fit, wall time, {n} images, {EPOCHS} epochs"
    print(benchmark, flush=True)
    X, y = make_images(n, seed=0, square="biased")
    X = to_unit_range(X)
    rows, held = stratified_holdout(y, 0.2, np.random.RandomState(0))
    sets = (X[rows], y[rows], X[held], y[held])
    make_module = partial(SmallConvNet, n_channels=3, n_classes=2)

    def stages(number):
        module, _ = train(make_module, *sets, epochs=EPOCHS, seed=number)
        look(*halves(module), sets[0], BATCH_SIZE)
        # The masked epoch: what it hides is of no matter here.
        train(make_module, *sets, epochs=1, seed=number)

    def fit(number, **params):
        MaskTuneClassifier(make_net(), random_state=number, **params).fit(X, y)

    timings = interleave(
        {
            "sum of plain stages": stages,
            "masktune_sk": fit,
            "masktune_sk, bf16": partial(fit, precision="bf16"),
        },
        repeats,
    )
    report.add_ratios(
        benchmark,
        timings,
        baseline="sum of plain stages",
        limits={"masktune_sk": WALL_LIMIT},
    )


def measure(report, arguments):
    sizes = dict(SIZES[arguments.scale])
    sizes["file"] = arguments.file_bytes or sizes["file"]
    if "masks" in arguments.part:
        measure_masks(report, sizes)
    if "file" in arguments.part:
        measure_file(report, sizes)
    if "fit" in arguments.part:
        measure_fit(report, sizes, arguments.threads)
    if "wall" in arguments.part:
        measure_wall(report, arguments.n_wall or sizes["n_wall"], arguments.repeats)


def main():
    parser = argument_parser(__doc__)
    parser.add_argument(
        "--part",
        choices=("masks", "file", "fit", "wall"),
        nargs="+",
        default=("masks", "file", "fit", "wall"),
    )
    parser.add_argument("--file-bytes", type=float, help="size of the mapped file")
    parser.add_argument("--n-wall", type=int, help="images of the rounds of part wall")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--data", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        if arguments.threads is not None:
            torch.set_num_threads(arguments.threads)
        fit_in_child(arguments.data, arguments.child)
        return
    with Report("memory", arguments) as report:
        measure(report, arguments)


if __name__ == "__main__":
    main()
