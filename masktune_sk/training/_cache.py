"""The stage cache: what a stage found once is found again, by any process."""

import os
import tempfile
import time
import warnings
from contextlib import contextmanager, nullcontext

from joblib import Memory

from ..exceptions import StageCacheWarning
from ._fingerprint import content_hash
from ._lease import Lease
from ._processes import Processes

__all__ = ["StageCache"]

FOLDER = "masktune_sk"
FIRST_WAIT, LONGEST_WAIT = 0.05, 2.0


class StageCache:
    """Results of stages on disk, under a hash of everything they depend on.

    The store is that of a `joblib.Memory`, so that its ``clear`` and ``reduce_size``
    work. Entries are pickles: whoever can write to the folder can run code here.

    Parameters
    ----------
    memory : None, str, path or joblib.Memory
        Where; None stores nothing.
    verbose : int, default=0
        1: say what is found, and what is waited for.

    Raises
    ------
    TypeError
        If `memory` is something else.
    ValueError
        If nothing can be written there.
    """

    def __init__(self, memory, verbose=0):
        self.verbose = verbose
        if not isinstance(memory, Memory | str | os.PathLike | None):
            raise TypeError(
                "memory must be a path, a joblib.Memory or None; got an object of type "
                f"{type(memory).__name__}."
            )
        try:
            if isinstance(memory, str | os.PathLike):
                memory = Memory(os.fspath(memory), verbose=0)
            self._store = None if memory is None else memory.store_backend
            if self._on_disk:
                _check_writable(self._store.location)
        except OSError as error:
            raise ValueError(
                f"Nothing can be stored in memory={memory!r}: {error}. Name a folder "
                "that can be written, or leave memory out."
            ) from error

    @property
    def stores(self):
        """Whether anything is stored at all."""
        return self._store is not None

    @property
    def _on_disk(self):
        # joblib knows stores of other kinds, which have no place for a lease.
        return os.path.isdir(getattr(self._store, "location", None) or "")

    def key(self, *parts):
        """Hash what a stage depends on.

        Parameters
        ----------
        *parts : object
            Values, arrays, nets, functions.

        Returns
        -------
        key : str or None
            None if a part can't be hashed: then the stage runs.

        Warns
        -----
        StageCacheWarning
            If a part can't be hashed.
        """
        try:
            return content_hash(*parts)
        except TypeError as error:
            warnings.warn(
                f"This stage is not stored: {error}", StageCacheWarning, stacklevel=2
            )
            return None

    def fetch(self, stage, key, compute, processes=None):
        """Return what is stored under a key, or compute and store it.

        Of several processes that ask for the same, one computes and the others wait.

        Parameters
        ----------
        stage : str
            Name of the stage.
        key : str or None
            See `key`; None computes.
        compute : callable
            Returns the result; it can be pickled.
        processes : Processes, default=None
            Those that compute together: the first looks for the entry, and stores it.

        Returns
        -------
        result : object
            Of `compute`, now or earlier.

        Warns
        -----
        StageCacheWarning
            If the entry can't be read, and is computed again.
        """
        if key is None or not self.stores:
            return compute()
        call_id = [FOLDER, stage, key]
        processes = processes or Processes()
        leads = processes.rank == 0
        with self._alone(call_id) if leads else nullcontext() as found:
            if leads and found is None:
                found = self._load(call_id)
            found = processes.agree(found)
            if found is not None:
                if self.verbose and leads:
                    print(f"{stage}: found in memory")
                return found[0]
            result = compute()
            if leads:
                self._dump(call_id, result)
            return result

    def _load(self, call_id):
        """Return a stored result in a tuple, or None."""
        if not self._store.contains_item(call_id):
            return None
        try:
            return (self._store.load_item(call_id, verbose=0),)
        except Exception as error:
            # Of a damaged pickle any error can come.
            warnings.warn(
                f"The stored result of the {call_id[1]} stage can't be read "
                f"({type(error).__name__}: {error}); it is computed again. It may be "
                "damaged, or of a module that can't be imported here.",
                StageCacheWarning,
                stacklevel=4,
            )
            self._store.clear_item(call_id)
            return None

    def _dump(self, call_id, result):
        """Store a result; one that can't be is no reason to lose it."""
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self._store.dump_item(call_id, result, verbose=0)
        for warning in caught:
            if not str(warning.message).startswith("Unable to cache to disk"):
                warnings.warn_explicit(
                    warning.message, warning.category, warning.filename, warning.lineno
                )
                continue
            # What joblib could not pickle it leaves half written.
            self._store.clear_item(call_id)
            warnings.warn(
                f"The result of the {call_id[1]} stage can't be stored: "
                f"{warning.message}",
                StageCacheWarning,
                stacklevel=4,
            )

    @contextmanager
    def _alone(self, call_id):
        """Be the one process that computes a result; or yield what another stored."""
        found = self._load(call_id)
        if found is not None or not self._on_disk:
            yield found
            return
        path = os.path.join(self._store.location, *call_id[:-1], call_id[-1] + ".lease")
        os.makedirs(os.path.dirname(path), exist_ok=True)
        lease, wait, said = Lease(path), FIRST_WAIT, not self.verbose
        while not lease.acquire():
            if not said:
                print(f"{call_id[1]}: waiting for another process that computes it")
                said = True
            time.sleep(wait)
            wait = min(2 * wait, LONGEST_WAIT)
        try:
            yield None
        finally:
            lease.release()


def _check_writable(folder):
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass
