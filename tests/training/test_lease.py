"""Tests of the lease that lets one of several processes work."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import pytest

from masktune_sk.training import _lease
from masktune_sk.training._lease import Lease

# The module alone: the package would import torch.
HOLDER = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("lease", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
lease = module.Lease(sys.argv[2], expiry=float(sys.argv[3]))
print(lease.acquire(), flush=True)
sys.stdin.read()
lease.release()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "stage.lease"


@pytest.fixture
def hold(path):
    """Start processes that hold the lease until their stdin is closed."""
    holders = []

    def start(expiry=60.0):
        args = [sys.executable, "-c", HOLDER, _lease.__file__, path, str(expiry)]
        holder = subprocess.Popen(
            args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        holders.append(holder)
        assert holder.stdout.readline() == "True\n"
        return holder

    yield start
    for holder in holders:
        holder.kill()
        holder.communicate()


def write(path, **changes):
    holder = {"hostname": socket.gethostname(), "pid": os.getpid(), "token": "other"}
    path.write_text(json.dumps(holder | changes), encoding="utf-8")


def wait_for(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_one_holds_and_gives_back(path):
    one, other = Lease(path), Lease(path)
    assert one.acquire()
    assert one.acquire()
    assert one.held
    assert not other.acquire()
    assert not other.held
    one.release()
    assert not one.held
    assert not path.exists()
    assert other.acquire()
    other.release()


def test_the_file_says_who_holds_it(path):
    lease = Lease(path)
    lease.acquire()
    holder = json.loads(path.read_text(encoding="utf-8"))
    assert holder.keys() == {"hostname", "pid", "token"}
    assert (holder["hostname"], holder["pid"]) == (socket.gethostname(), os.getpid())
    lease.release()


def test_the_folder_is_made(tmp_path):
    lease = Lease(tmp_path / "a" / "b" / "lease")
    assert lease.acquire()
    lease.release()


def test_another_process_holds_it_until_it_is_done(path, hold):
    holder = hold()
    lease = Lease(path)
    assert not lease.acquire()
    holder.communicate("")
    assert not path.exists()
    assert lease.acquire()
    lease.release()


def test_a_holder_that_renews_keeps_it_beyond_the_expiry(path, hold):
    hold(expiry=0.4)
    lease = Lease(path, expiry=0.4)
    end = time.monotonic() + 0.9
    while time.monotonic() < end:
        assert not lease.acquire()
        time.sleep(0.05)


@pytest.mark.skipif(os.name != "posix", reason="pids are looked up on POSIX only")
def test_the_lease_of_a_killed_holder_is_taken_over_at_once(path, hold):
    holder = hold()
    lease = Lease(path)
    assert not lease.acquire()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert lease.acquire()
    assert os.listdir(path.parent) == [path.name]
    lease.release()


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"hostname": "elsewhere"},
        {"hostname": "elsewhere", "pid": 2**22 + 1},
        {"pid": 2**70},
        {"pid": -1},
        {"pid": None},
    ],
    ids=str,
)
def test_a_lease_that_nobody_renews_runs_out(path, changes):
    write(path, **changes)
    # Another machine's clock may be late or early.
    os.utime(path, (1e9, 1e9))
    lease = Lease(path, expiry=0.3)
    start = time.monotonic()
    assert not lease.acquire()
    wait_for(lease.acquire)
    assert time.monotonic() - start >= 0.3
    lease.release()


@pytest.mark.parametrize("content", ["", '{"hostname": "a', "[]", "\x00"])
def test_a_half_written_lease_runs_out(path, content):
    path.write_text(content, encoding="utf-8")
    lease = Lease(path, expiry=0.2)
    assert not lease.acquire()
    wait_for(lease.acquire)
    lease.release()


def test_each_renewal_starts_the_time_again(path):
    write(path, hostname="elsewhere")
    lease = Lease(path, expiry=0.4)
    for second in range(3):
        os.utime(path, (second, second))
        assert not lease.acquire()
        time.sleep(0.25)


def test_release_leaves_the_lease_of_another_alone(path):
    lease = Lease(path)
    lease.acquire()
    write(path)
    lease.release()
    assert json.loads(path.read_text(encoding="utf-8"))["token"] == "other"
    assert not lease.held


def test_release_of_a_lease_that_is_gone(path):
    lease = Lease(path)
    lease.release()
    lease.acquire()
    path.unlink()
    lease.release()
    assert not lease.held


def test_the_lease_of_another_is_not_renewed(path):
    lease = Lease(path, expiry=0.1)
    lease.acquire()
    thread = next(t for t in threading.enumerate() if t.name == "lease")
    write(path)
    os.utime(path, (1, 1))
    thread.join(5)
    assert not thread.is_alive()
    assert path.stat().st_mtime == 1
    lease.release()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_does_not_hold_it(path):
    lease = Lease(path)
    lease.acquire()
    child = os.fork()
    if child == 0:
        held = lease.held or lease.acquire()
        lease.release()
        os._exit(1 if held else 0)
    assert os.waitpid(child, 0)[1] == 0
    assert lease.held
    assert path.exists()
    lease.release()


def test_a_race_for_an_abandoned_lease_raises_nothing(path):
    write(path, hostname="elsewhere")
    leases = [Lease(path, expiry=0.0) for _ in range(4)]
    errors = []

    def work(lease):
        try:
            for _ in range(100):
                if lease.acquire():
                    lease.release()
        except Exception as error:
            errors.append(error)

    # With no expiry each finds the lease of any other abandoned.
    threads = [threading.Thread(target=work, args=[lease]) for lease in leases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_folder_that_can_not_be_written_to_is_told(path):
    path.parent.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match=path.name):
            Lease(path).acquire()
    finally:
        path.parent.chmod(0o700)


def test_an_error_in_making_the_file_is_told(path, monkeypatch):
    def refuse(*args):
        raise PermissionError(f"no access to {path}")

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(PermissionError, match="no access"):
        Lease(path).acquire()
