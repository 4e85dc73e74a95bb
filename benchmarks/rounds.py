"""Interleaved rounds of variants, and the table and CSV file made of them.

A machine drifts by more than the differences measured here. So variants take turns
(A B C A B C ...), each is divided by the baseline of its own round, and the median of
these ratios is reported with the smallest and the largest.
"""

import argparse
import csv
import gc
import os
import statistics
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import torch

COLUMNS = (
    "benchmark",
    "variant",
    "baseline",
    "metric",
    "median",
    "min",
    "max",
    "n",
    "limit",
    "unit",
)
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Timing:
    """Seconds on the clock, and of CPU in this process (all its threads)."""

    wall: float
    cpu: float

    def __add__(self, other):
        return Timing(self.wall + other.wall, self.cpu + other.cpu)

    def __rmul__(self, times):
        return Timing(times * self.wall, times * self.cpu)


def timed(function, *args, **kwargs):
    """Call a function; return what it returns, and its timing."""
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    result = function(*args, **kwargs)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return result, Timing(wall, cpu)


def interleave(variants, repeats, *, warm_up=True, alone=True):
    """Run variants in turn, and return a list of timings for each.

    Variants are functions of one argument, the number of the round, which serves as a
    seed. One that returns a `Timing` has measured itself. The warm-up round is number
    0 and not counted. `alone` says that the work is done in this process, so that
    whatever else is busy is foreign, and told.
    """
    timings = {name: [] for name in variants}
    busy, own, wall = _busy_seconds(), time.process_time(), time.perf_counter()
    for number in range(0 if warm_up else 1, repeats + 1):
        for name, variant in variants.items():
            result, timing = timed(variant, number)
            if isinstance(result, Timing):
                timing = result
            if number > 0:
                timings[name].append(timing)
                print(f"  round {number}: {name} {timing.wall:.2f} s", flush=True)
    wall = time.perf_counter() - wall
    if not alone:
        return timings
    others = _busy_seconds() - busy - (time.process_time() - own)
    print(
        f"  cores kept busy by other processes meanwhile: {max(others, 0) / wall:.1f}"
    )
    return timings


def _busy_seconds():
    """CPU seconds of all processes since boot; 0 where the system does not tell."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    except OSError:
        return 0.0
    user, nice, system = map(int, fields[:3])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def argument_parser(description, repeats=5):
    """Return a parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--scale",
        choices=("small", "full"),
        default="full",
        help="small: seconds, to see that it runs; its numbers mean nothing",
    )
    parser.add_argument("--repeats", type=int, default=repeats, help="counted rounds")
    parser.add_argument("--threads", type=int, help="torch threads; default: its own")
    return parser


def describe_machine():
    """Say what the numbers depend on: processor features and versions."""
    try:
        flags = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        flags = set()
    names = {"AVX512-BF16": "avx512_bf16", "AMX-BF16": "amx_bf16"}
    features = ", ".join(
        f"{name} {'yes' if flag in flags else 'no'}" for name, flag in names.items()
    )
    packages = ("torch", "skorch", "scikit-learn", "numpy", "masktune_sk")
    versions = ", ".join(f"{name} {version(name)}" for name in packages)
    return (
        f"{len(os.sched_getaffinity(0))} cores, {torch.get_num_threads()} torch "
        f"threads, {torch.backends.cpu.get_cpu_capability()}, {features}; {versions}"
    )


class Report:
    """Rows of results; prints them as a table and writes them as CSV.

    As a context manager it does so at the end, and after an error, too. Rows of other
    benchmarks that the file holds already are kept, so that the parts of a script can
    be run one by one.
    """

    def __init__(self, name, arguments):
        if arguments.threads is not None:
            torch.set_num_threads(arguments.threads)
        suffix = "_small" if arguments.scale == "small" else ""
        self.path = RESULTS / f"{name}{suffix}.csv"
        self.rows = []
        self.verdicts = []
        print(describe_machine(), flush=True)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.write()

    def add(
        self,
        benchmark,
        variant,
        metric,
        values,
        *,
        unit="",
        baseline="",
        limit=None,
        exactly=False,
    ):
        """Add a row.

        `values` are those of all rounds. A limit holds if the median is at most that
        much, or with `exactly`, if every value is that.
        """
        median = statistics.median(values)
        verdict = ""
        if limit is not None:
            held = set(values) == {limit} if exactly else median <= limit
            verdict = "held" if held else "MISSED"
        self.verdicts.append(verdict)
        numbers = [_short(value) for value in (median, min(values), max(values))]
        shown_limit = "" if limit is None else _short(limit)
        row = (benchmark, variant, baseline, metric, *numbers, len(values))
        self.rows.append(dict(zip(COLUMNS, (*row, shown_limit, unit), strict=True)))

    def add_ratios(
        self,
        benchmark,
        timings,
        *,
        baseline,
        limits=None,
        only=None,
        clocks=("wall", "cpu"),
    ):
        """Add the ratios of timings to those of a baseline, round by round.

        Limits are for wall time; CPU time, which suffers less from other processes,
        stands beside it (leave it out where other processes do the work).
        """
        limits = limits or {}
        base = timings[baseline]
        if only is None:
            seconds = [timing.wall for timing in base]
            self.add(benchmark, baseline, "wall", seconds, unit="s")
        for name in only or [name for name in timings if name != baseline]:
            for clock in clocks:
                ratios = [
                    getattr(timing, clock) / getattr(reference, clock)
                    for timing, reference in zip(timings[name], base, strict=True)
                ]
                self.add(
                    benchmark,
                    name,
                    f"{clock} ratio",
                    ratios,
                    unit="1",
                    baseline=baseline,
                    limit=limits.get(name) if clock == "wall" else None,
                )

    def write(self):
        """Print the table and write the file."""
        self._print()
        self.path.parent.mkdir(exist_ok=True)
        measured = {row["benchmark"] for row in self.rows}
        kept = []
        if self.path.exists():
            with open(self.path, newline="") as file:
                rows = csv.DictReader(file)
                kept = [row for row in rows if row["benchmark"] not in measured]
        with open(self.path, "w", newline="") as file:
            # The line end of text files, not csv's own, so that a diff stays readable.
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            writer.writerows(kept + self.rows)
        print(f"Written to benchmarks/results/{self.path.name}.", flush=True)

    def _print(self):
        header = (
            "benchmark",
            "variant",
            "against",
            "metric",
            "median",
            "min",
            "max",
            "unit",
            "limit",
            "",
        )
        names = ("benchmark", "variant", "baseline", "metric")
        names += ("median", "min", "max", "unit", "limit")
        lines = [header] + [
            (*(str(row[name]) for name in names), verdict)
            for row, verdict in zip(self.rows, self.verdicts, strict=True)
        ]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        print()
        for line in lines:
            cells = [
                cell.rjust(width) if 4 <= i <= 6 or i == 8 else cell.ljust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            print("  ".join(cells).rstrip())
        n_held, n_missed = (self.verdicts.count(word) for word in ("held", "MISSED"))
        print(f"\n{n_held} limits held, {n_missed} missed.")


def _short(value):
    """Format a number with three decimals, and more if it is small."""
    if value == int(value):
        return str(int(value))
    return f"{value:.3f}" if abs(value) >= 0.01 else f"{value:.2g}"
