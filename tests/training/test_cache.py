"""Tests of the store where the result of a stage is found again."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
from joblib import Memory

from masktune_sk.exceptions import StageCacheWarning
from masktune_sk.training import StageCache
from masktune_sk.training._processes import Processes

ROOT = Path(__file__).parents[2]
CHILD = """
import sys
from tests.training import test_cache
getattr(test_cache, sys.argv[1])(*sys.argv[2:])
"""


class Stage:
    """Something to compute, that counts how often it is."""

    def __init__(self, result="result"):
        self.result = result
        self.calls = 0

    def __call__(self):
        self.calls += 1
        return self.result


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "memory"


@pytest.fixture
def start():
    """Start functions of this module in processes of their own."""
    children = []

    def run(function, *arguments, **environment):
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, function.__name__, *map(str, arguments)],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        return child

    yield run
    for child in children:
        child.kill()
        child.communicate()


def fetch(memory, stage, name="ERM", key="ab" * 32, processes=None, **params):
    return StageCache(memory, **params).fetch(name, key, stage, processes)


def entries(folder):
    """List the results that are stored."""
    return sorted(folder.rglob("output.pkl"))


def leases(folder):
    return sorted(folder.rglob("*.lease*"))


def something():
    """Parts of a key as a stage has them."""
    torch.manual_seed(0)
    return [
        torch.nn.Linear(2, 3),
        np.arange(6.0),
        {"lr": 0.1, "names": {"one", "two", "three", "four"}},
        Stage,
        lambda X: X + 1,
    ]


# ---------------------------------------------------------------- where


@pytest.mark.parametrize("memory", [None, Memory(location=None)], ids=["None", "empty"])
def test_without_a_folder_nothing_is_stored(memory):
    stage, cache = Stage(), StageCache(memory)
    assert not cache.stores
    for key in (None, cache.key("a")):
        stage.calls = 0
        assert cache.fetch("ERM", key, stage) == "result"
        assert cache.fetch("ERM", key, stage) == "result"
        assert stage.calls == 2


@pytest.mark.parametrize("kind", [str, Path, lambda folder: Memory(folder, verbose=0)])
def test_a_result_is_computed_once(kind, folder):
    stage = Stage({"weights": torch.arange(3.0), "maps": np.eye(2), "history": [1]})
    cache = StageCache(kind(folder))
    assert cache.stores
    computed = cache.fetch("ERM", cache.key("a"), stage)
    assert computed is stage.result
    other = StageCache(kind(folder))
    for found in (
        cache.fetch("ERM", cache.key("a"), stage),
        other.fetch("ERM", other.key("a"), stage),
    ):
        assert torch.equal(found["weights"], computed["weights"])
        np.testing.assert_array_equal(found["maps"], computed["maps"])
        assert found["history"] == [1]
    assert stage.calls == 1
    assert leases(folder) == []


def test_a_string_a_path_and_joblibs_memory_of_a_string_are_one_store(folder):
    stage = Stage()
    for memory in (str(folder), folder, Memory(str(folder), verbose=0)):
        fetch(memory, stage)
    assert stage.calls == 1


def test_a_relative_folder_is_found_from_elsewhere(tmp_path, monkeypatch):
    stage = Stage()
    monkeypatch.chdir(tmp_path)
    fetch("memory", stage)
    monkeypatch.chdir("/")
    fetch(tmp_path / "memory", stage)
    assert stage.calls == 1


@pytest.mark.parametrize("result", [None, (), False, float("nan")], ids=str)
def test_any_result_is_found(result, folder):
    stage = Stage(result)
    assert str(fetch(folder, stage)) == str(fetch(folder, stage)) == str(result)
    assert stage.calls == 1


@pytest.mark.parametrize(
    ("memory", "name"),
    [(3, "int"), (True, "bool"), (["memory"], "list"), (b"memory", "bytes")],
    ids=str,
)
def test_a_memory_of_another_type_is_refused(memory, name):
    with pytest.raises(TypeError, match=f"or None; got an object of type {name}"):
        StageCache(memory)


@pytest.mark.parametrize("kind", [str, Path])
def test_a_folder_below_a_file_is_refused(kind, tmp_path):
    (tmp_path / "file").touch()
    for below in ("file", "file/folder", "file/folder/below"):
        with pytest.raises(
            ValueError, match=r"Nothing can be stored in memory=.*Name a folder that"
        ):
            StageCache(kind(tmp_path / below))


def test_a_memory_whose_folder_can_not_be_written_any_more_is_refused(
    folder, monkeypatch
):
    memory = Memory(folder, verbose=0)

    def refuse(*args, **kwargs):
        raise PermissionError("no access")

    with monkeypatch.context() as patched:
        patched.setattr("builtins.open", refuse)
        patched.setattr(os, "open", refuse)
        with pytest.raises(ValueError, match="Nothing can be stored .* no access"):
            StageCache(memory)


def test_the_check_of_a_folder_leaves_nothing_there(folder):
    StageCache(folder)
    left = {path.name for path in folder.rglob("*") if path.is_file()}
    assert left <= {".gitignore"}  # joblib's


def test_a_memory_whose_folder_was_removed_makes_it_again(folder):
    memory, stage = Memory(folder, verbose=0), Stage()
    shutil.rmtree(folder)
    fetch(memory, stage)
    fetch(memory, stage)
    assert stage.calls == 1


# ---------------------------------------------------------------- keys


def test_keys_and_stages_have_results_of_their_own(folder):
    cache = StageCache(folder)
    one, other = cache.key("a", 1), cache.key("a", 2)
    assert one != other
    for name, key in [("ERM", one), ("ERM", other), ("maps", one)]:
        assert fetch(folder, Stage((name, key)), name, key) == (name, key)
    for name, key in [("ERM", one), ("ERM", other), ("maps", one)]:
        assert fetch(folder, Stage("computed"), name, key) == (name, key)


def test_what_can_not_be_hashed_is_computed_each_time(folder):
    stage, cache = Stage(), StageCache(folder)
    with pytest.warns(StageCacheWarning, match=r"not stored: can't hash a '_thread\."):
        key = cache.key("a", {"lock": threading.Lock()})
    assert key is None
    cache.fetch("ERM", key, stage)
    cache.fetch("ERM", key, stage)
    assert stage.calls == 2
    assert entries(folder) == []


def find_in_another_process(folder):
    cache = StageCache(folder)
    print(cache.key(*something()))
    print(fetch(folder, Stage("computed again")))


def test_another_process_has_the_same_keys_and_finds_results(folder, start):
    fetch(folder, Stage("here"))
    child = start(find_in_another_process, folder, PYTHONHASHSEED="7")
    output, _ = child.communicate()
    assert child.returncode == 0
    assert output.split("\n")[:2] == [StageCache(folder).key(*something()), "here"]


# ---------------------------------------------------------------- damage


def half(content):
    return content[: len(content) // 2]


def all_but_the_end(content):
    return content[:-10]


def noise(content):
    return np.random.default_rng(0).bytes(len(content))


def nothing(content):
    return b""


def of_a_class_that_is_gone(content):
    return pickle.dumps(Stage()).replace(b"Stage", b"Other")


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize(
    "damage",
    [half, all_but_the_end, noise, nothing, of_a_class_that_is_gone],
)
def test_a_damaged_entry_is_computed_again(damage, compress, folder):
    memory = Memory(folder, compress=compress, verbose=0)
    rng = np.random.default_rng(0)
    stage = Stage({"weights": torch.ones(50), "maps": rng.random(50), "loss": 0.5})
    fetch(memory, stage)
    (path,) = entries(folder)
    path.write_bytes(damage(path.read_bytes()))
    with pytest.warns(
        StageCacheWarning, match=r"result of the ERM stage can't be read \(.*\); it is"
    ):
        again = fetch(memory, stage)
    assert again is stage.result
    assert stage.calls == 2
    np.testing.assert_array_equal(fetch(memory, stage)["maps"], again["maps"])
    assert stage.calls == 2
    assert leases(folder) == []


def test_the_warning_of_a_damaged_entry_comes_once(folder):
    fetch(folder, Stage())
    entries(folder)[0].write_bytes(b"")
    with pytest.warns(StageCacheWarning, match="computed again") as caught:
        fetch(folder, Stage())
    assert len(caught) == 1


def test_leftovers_of_a_process_that_died_do_not_matter(folder):
    stage = Stage()
    fetch(folder, stage)
    (path,) = entries(folder)
    path.unlink()
    # As joblib names what it has not yet moved into place.
    unfinished = path.with_name("output.pkl.0123456789abcdef-17-4711")
    unfinished.write_bytes(b"\x80\x04")
    assert fetch(folder, stage) == fetch(folder, stage) == "result"
    assert stage.calls == 2
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    assert fetch(folder, stage) == fetch(folder, stage) == "result"
    assert stage.calls == 3


def test_a_result_that_can_not_be_pickled_is_returned_and_leaves_no_entry(folder):
    stage = Stage(lambda: "result")
    for _ in range(2):
        with pytest.warns(StageCacheWarning, match="of the ERM stage can't be stored"):
            assert fetch(folder, stage) is stage.result
    assert stage.calls == 2
    assert entries(folder) == []
    assert leases(folder) == []


def test_a_disk_that_is_full_does_not_cost_the_result(folder, monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError(28, "No space left on device")

    stage = Stage()
    with monkeypatch.context() as patched:
        patched.setattr(joblib.numpy_pickle, "dump", refuse)
        with pytest.warns(StageCacheWarning, match="can't be stored: .*No space left"):
            assert fetch(folder, stage) == "result"
    assert fetch(folder, stage) == fetch(folder, stage) == "result"
    assert stage.calls == 2


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_error_is_passed_on_and_stores_nothing(error, folder):
    def fail():
        assert len(leases(folder)) == 1
        raise error("in the stage")

    with pytest.raises(error, match="in the stage"):
        fetch(folder, fail)
    assert entries(folder) == leases(folder) == []
    stage = Stage()
    fetch(folder, stage)
    fetch(folder, stage)
    assert stage.calls == 1


def test_a_stage_may_fetch_another(folder):
    outer = Stage()

    def compute():
        outer()
        return ["maps", fetch(folder, Stage("ERM"))]

    for _ in range(2):
        assert fetch(folder, compute, name="maps") == ["maps", "ERM"]
    assert outer.calls == 1


# ---------------------------------------------------------------- joblib's store


def test_joblib_clears_the_store(folder):
    memory, stage = Memory(folder, verbose=0), Stage()
    fetch(memory, stage)
    memory.clear(warn=False)
    assert entries(folder) == []
    fetch(memory, stage)
    fetch(memory, stage)
    assert stage.calls == 2


def test_a_store_that_is_cleared_meanwhile_gets_the_result(folder):
    memory, stage = Memory(folder, verbose=0), Stage()

    def compute():
        memory.clear(warn=False)
        return stage()

    assert fetch(memory, compute) == fetch(memory, compute) == "result"
    assert stage.calls == 1
    assert leases(folder) == []


def test_joblib_drops_the_entries_that_were_not_read_for_longest(folder):
    memory = Memory(folder, verbose=0)
    keys = [letter * 64 for letter in "abc"]
    for key in keys:
        fetch(memory, Stage(np.zeros(1000)), key=key)
    for i, path in enumerate(entries(folder)):
        os.utime(path, (1e9 + i, 1e9 + i))
    memory.reduce_size(items_limit=1)
    assert [path.parent.name for path in entries(folder)] == [keys[2]]
    memory.reduce_size(bytes_limit=100)
    assert entries(folder) == []
    stage = Stage()
    fetch(memory, stage, key=keys[0])
    assert stage.calls == 1


def test_a_compressed_store_is_smaller(folder):
    sizes = []
    for compress in (False, True):
        memory = Memory(folder / str(compress), compress=compress, verbose=0)
        stage = Stage({"maps": np.zeros((100, 100)), "weights": torch.zeros(1000)})
        fetch(memory, stage)
        found = fetch(memory, stage)
        assert stage.calls == 1
        np.testing.assert_array_equal(found["maps"], stage.result["maps"])
        assert torch.equal(found["weights"], stage.result["weights"])
        sizes += [path.stat().st_size for path in entries(folder / str(compress))]
    assert sizes[1] < sizes[0] / 10


def test_arrays_are_read_from_the_file_where_joblib_maps_them(folder):
    memory = Memory(folder, mmap_mode="r", verbose=0)
    stage = Stage({"maps": np.arange(12.0).reshape(3, 4), "weights": torch.ones(3)})
    fetch(memory, stage)
    found = fetch(memory, stage)
    assert stage.calls == 1
    assert isinstance(found["maps"], np.memmap)
    np.testing.assert_array_equal(found["maps"], stage.result["maps"])
    assert torch.equal(found["weights"], stage.result["weights"])


def test_a_damaged_entry_that_joblib_maps_is_computed_again(folder):
    memory = Memory(folder, mmap_mode="r", verbose=0)
    stage = Stage(np.arange(100.0))
    fetch(memory, stage)
    (path,) = entries(folder)
    path.write_bytes(half(path.read_bytes()))
    with pytest.warns(StageCacheWarning, match="of the ERM stage can't be read"):
        fetch(memory, stage)
    np.testing.assert_array_equal(fetch(memory, stage), stage.result)
    assert stage.calls == 2


def test_what_is_found_is_said_on_demand(folder, capsys):
    for verbose in (1, 0, 0):
        fetch(folder, Stage(), verbose=verbose)
    assert capsys.readouterr().out == ""
    fetch(folder, Stage(), verbose=1)
    assert capsys.readouterr().out == "ERM: found in memory\n"


# ---------------------------------------------------------------- several at once


def in_threads(work, arguments):
    threads = [threading.Thread(target=work, args=[item]) for item in arguments]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_of_several_threads_one_computes(folder):
    barrier, results = threading.Barrier(4), []
    stage = Stage()
    computing = threading.Event()

    def compute():
        computing.wait(0.2)  # never set: long enough for the others to ask
        return stage()

    def work(cache):
        barrier.wait()
        results.append(cache.fetch("ERM", "ab" * 32, compute))

    in_threads(work, [StageCache(folder) for _ in range(4)])
    assert results == ["result"] * 4
    assert stage.calls == 1
    assert leases(folder) == []


def test_several_threads_may_check_a_folder_at_once(folder):
    barrier, errors = threading.Barrier(4), []

    def work(folder):
        barrier.wait()
        try:
            for _ in range(100):
                StageCache(folder)
        except ValueError as error:
            errors.append(error)

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        in_threads(work, [folder] * 4)
    finally:
        sys.setswitchinterval(interval)
    assert errors == []


def test_another_key_does_not_wait(folder):
    def compute():
        return fetch(folder, Stage("other"), key="cd" * 32)

    assert fetch(folder, compute) == "other"


def compute_when_told(folder, log):
    """Be ready, begin at one line of stdin, and end at the next."""

    def compute():
        with open(log, "a") as file:
            file.write("computed\n")
        print("computing", flush=True)
        sys.stdin.readline()
        return f"of {os.getpid()}"

    print("ready", flush=True)
    sys.stdin.readline()
    print(fetch(folder, compute), flush=True)


def tell(child):
    child.stdin.write("\n")
    child.stdin.flush()


def test_of_two_processes_that_ask_at_once_one_computes(folder, tmp_path, start):
    children = [start(compute_when_told, folder, tmp_path / "log") for _ in range(2)]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        tell(child)
    for child in children:
        tell(child)  # the one that waits for the other does not read it
    outputs = [child.communicate()[0].splitlines() for child in children]
    assert (tmp_path / "log").read_text() == "computed\n"
    assert sum(lines.count("computing") for lines in outputs) == 1
    worker = outputs[0] if "computing" in outputs[0] else outputs[1]
    pid = children[outputs.index(worker)].pid
    assert [lines[-1] for lines in outputs] == [f"of {pid}"] * 2
    assert len(entries(folder)) == 1
    assert leases(folder) == []


def wait_until(condition):
    pause = threading.Event()
    for _ in range(1000):
        if condition():
            return
        pause.wait(0.01)
    raise AssertionError("it did not happen in ten seconds")


@pytest.mark.parametrize("end", ["stores", "fails", "is killed"])
def test_who_waits_gets_the_result_or_takes_over(end, folder, tmp_path, start, capsys):
    if end == "is killed" and os.name != "posix":
        pytest.skip("pids are looked up on POSIX only")
    child = start(compute_when_told, folder, tmp_path / "log")
    tell(child)
    assert child.stdout.readline() == "ready\n"
    assert child.stdout.readline() == "computing\n"
    stage, results = Stage("taken over"), []
    waiting = threading.Thread(
        target=lambda: results.append(fetch(folder, stage, verbose=1))
    )
    waiting.start()
    said = []
    wait_until(lambda: said.append(capsys.readouterr().out) or "".join(said))
    assert results == []
    match end:
        case "stores":
            tell(child)
        case "fails":
            child.send_signal(signal.SIGINT)
        case "is killed":
            child.kill()
            child.wait()
    waiting.join(20)
    assert results == [f"of {child.pid}" if end == "stores" else "taken over"]
    assert stage.calls == (end != "stores")
    said = "".join(said) + capsys.readouterr().out
    assert said.startswith("ERM: waiting for another process that computes it\n")
    assert said.count("waiting") == 1
    assert ("found in memory" in said) == (end == "stores")
    assert len(entries(folder)) == 1
    assert leases(folder) == []


class Second(Processes):
    """The second of two processes that train together."""

    rank, size = 1, 2

    def __init__(self, agreed):
        self.agreed = agreed

    def agree(self, value):
        assert value is None
        return self.agreed


def test_of_processes_that_train_together_the_first_alone_uses_the_store(folder):
    stage = Stage("computed")
    assert fetch(folder, stage, processes=Second(None)) == "computed"
    assert entries(folder) == leases(folder) == []
    fetch(folder, Stage("stored"))
    assert fetch(folder, stage, processes=Second(("agreed",))) == "agreed"
    assert stage.calls == 1
