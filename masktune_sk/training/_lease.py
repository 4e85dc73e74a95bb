"""A lease on a file: of several processes one works, and the others wait for it."""

import json
import os
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

__all__ = ["Lease"]


class Lease:
    """A file that says who works, kept fresh for as long as that one lives.

    The processes may run on several machines that share a folder. It saves work and is
    no lock: where two take over the lease of a dead holder at the same moment, both may
    believe to hold it.

    Parameters
    ----------
    path : path-like
        The file. Its folder is made if there is none.
    expiry : float
        Seconds after which a lease that nobody renewed may be taken over. The holder
        renews it four times in that time.
    """

    def __init__(self, path, *, expiry=60.0):
        self.path = Path(path)
        self.expiry = expiry
        self._token = None
        self._pid = None
        self._stop = None
        self._observed = None  # ((token, mtime), since when on our own clock)

    @property
    def held(self):
        """Whether this object, in this process, has acquired the lease."""
        # A forked child has the token too, but not the thread that renews.
        return self._token is not None and self._pid == os.getpid()

    def acquire(self):
        """Take the lease if it is free, or if its holder is gone.

        Does not wait. A holder that can't be seen from here is gone once it has not
        renewed the lease for `expiry` seconds, counted from the first call of this
        method that met the lease: call it again and again.

        Returns
        -------
        held : bool
            Whether the lease is this object's now.

        Raises
        ------
        PermissionError
            If the file can't be made, read or renamed.
        """
        if self.held or self._create():
            return True
        if not self._is_abandoned():
            return False
        # Of several that find the lease abandoned, one gets to rename it.
        aside = self.path.with_name(f"{self.path.name}.{uuid4().hex}")
        with suppress(FileNotFoundError):
            os.rename(self.path, aside)
            os.unlink(aside)
        return self._create()

    def release(self):
        """Give the lease back; without effect if it is not held, or not any more."""
        if not self.held:
            return
        self._stop.set()
        token, self._token = self._token, None
        # One that can't be removed is not renewed any more, and so runs out.
        with suppress(OSError):
            if self._read()[0].get("token") == token:
                os.unlink(self.path)

    def _create(self):
        flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.path, flags, 0o666)
        except (FileExistsError, FileNotFoundError):  # the folder may go at any time
            return False
        token = uuid4().hex
        holder = {"hostname": socket.gethostname(), "pid": os.getpid(), "token": token}
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(holder, file)
        except BaseException:
            with suppress(OSError):
                os.unlink(self.path)
            raise
        self._token, self._pid, self._stop = token, os.getpid(), threading.Event()
        self._observed = None
        threading.Thread(
            target=self._renew, args=(token, self._stop), name="lease", daemon=True
        ).start()
        return True

    def _renew(self, token, stop):
        while not stop.wait(self.expiry / 4):
            try:
                if self._read()[0].get("token") != token:
                    return
                os.utime(self.path)
            except FileNotFoundError:
                return
            except OSError:
                continue  # a shared folder may be away for a moment

    def _read(self):
        """Return what the file says, nothing if that can't be read, and its mtime."""
        # A network file system brings the mtime up to date when a file is opened.
        with open(self.path, "rb") as file:
            mtime = os.fstat(file.fileno()).st_mtime_ns
            try:
                holder = json.loads(file.read())
            except ValueError:  # half written
                holder = {}
        return (holder if isinstance(holder, dict) else {}), mtime

    def _is_abandoned(self):
        try:
            holder, mtime = self._read()
        except FileNotFoundError:
            return True
        if holder.get("hostname") == socket.gethostname() and _is_dead(holder):
            return True
        # Clocks of machines differ: what counts is how long the mtime stood still here.
        seen, now = (holder.get("token"), mtime), time.monotonic()
        if self._observed is None or self._observed[0] != seen:
            self._observed = (seen, now)
        return now - self._observed[1] >= self.expiry


def _is_dead(holder):
    """Tell whether a holder on this machine is known to be gone."""
    pid = holder.get("pid")
    # Elsewhere than on POSIX signal 0 is a signal like any other.
    if os.name != "posix" or type(pid) is not int or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False
