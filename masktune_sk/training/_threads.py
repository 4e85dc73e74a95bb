"""Threads: as many as there are cores to run them."""

import os
import time
import warnings
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from joblib.parallel import get_active_backend
from skorch.callbacks import Callback

from ..exceptions import SharedCoresWarning

__all__ = ["CoreWatch", "fit_threads"]

# For how long to watch before deciding, and which share of that time a thread may wait
# for a core. With the cores to themselves threads wait for next to nothing.
WATCH_SECONDS = 2.0
MOST_WAITING = 0.25


@contextmanager
def fit_threads():
    """Choose torch's threads for one fit, and give the choice back after it.

    One in a worker of joblib that was not given a number of its own: its siblings use
    the other cores, and threads that wait for each other on shared cores are many times
    slower than one. Otherwise what torch is set to.

    Yields
    ------
    n_threads : int
        The choice.
    """
    before = torch.get_num_threads()
    if before > 1 and not _chosen_outside() and _in_worker():
        torch.set_num_threads(1)
    try:
        yield torch.get_num_threads()
    finally:
        if torch.get_num_threads() != before:
            torch.set_num_threads(before)


def _chosen_outside():
    """Tell whether a user, or joblib for its worker, said how many threads."""
    return "OMP_NUM_THREADS" in os.environ


def _in_worker():
    return (get_active_backend()[0].nesting_level or 0) > 0


class CoreWatch(Callback):
    """Go on with one thread where other processes use the cores.

    Threads of one operation wait for each other, and spin meanwhile; where the system
    runs them in turns, every operation takes as long as a turn. Only done where nobody
    chose the number of threads, and where the system tells how long they waited.
    """

    def on_train_begin(self, net, **kwargs):
        """Begin to watch, if there is something to decide."""
        self._watching = (
            torch.get_num_threads() > 1
            and not _chosen_outside()
            and _seconds_waited() is not None
        )
        self._start()

    def _start(self):
        if self._watching:
            self._begun, self._waited = time.monotonic(), _seconds_waited()

    def on_batch_end(self, net, **kwargs):
        """Look how long the threads waited for a core."""
        if not self._watching:
            return
        elapsed = time.monotonic() - self._begun
        if elapsed < WATCH_SECONDS:
            return
        share = ((_seconds_waited() or 0) - self._waited) / elapsed
        if share <= MOST_WAITING:
            self._start()
            return
        self._watching = False
        n_threads = torch.get_num_threads()
        torch.set_num_threads(1)
        warnings.warn(
            f"Other processes use the cores: in the last {elapsed:.0f} seconds torch's "
            f"{n_threads} threads waited {share:.0%} of the time for a core, and then "
            "for each other. Training goes on with one thread, which changes the last "
            "digits of its results. To choose yourself, set torch.set_num_threads(1) "
            "or OMP_NUM_THREADS.",
            SharedCoresWarning,
            stacklevel=2,
        )


def _seconds_waited():
    """Return how long this process's threads were ready to run and did not, or None."""
    nanoseconds = []
    for task in Path("/proc/self/task").glob("*/schedstat"):
        # A thread may end meanwhile; other systems keep no such file.
        with suppress(OSError, IndexError, ValueError):
            nanoseconds.append(int(task.read_text().split()[1]))
    return sum(nanoseconds) / 1e9 if nanoseconds else None
