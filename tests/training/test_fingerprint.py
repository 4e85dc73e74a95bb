"""Tests of the hash that a stored training is found by."""

import collections
import copy
import dataclasses
import enum
import functools
import importlib.util
import json
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from sklearn.base import clone
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping, EpochScoring, LRScheduler
from skorch.dataset import ValidSplit
from torch import nn

from masktune_sk.training._fingerprint import content_hash
from tests.nets import TinyMLP, tiny_net

HELPERS = """
SCALE = 2.0

def block(X):
    return SCALE * X

def unused(X):
    return X
"""

USER_CODE = '''
import functools

import helpers
import torch
from helpers import block as imported
from skorch import NeuralNetClassifier
from skorch.callbacks import Callback, EarlyStopping, EpochScoring, LRScheduler
from torch import nn
from torch.nn import functional as F

KINDS = {"relu", "tanh", "elu", "gelu", "selu", "silu"}
SIZES = {"hidden": 4}


class Options:
    def __init__(self, slope):
        self.slope = slope


OPTIONS = Options(slope=0.1)


def activation(X):
    return F.leaky_relu(X, OPTIONS.slope)


class Base(nn.Module):
    def shift(self, X):
        return X + 1


class Net(Base):
    def __init__(self, kind="relu", width=SIZES["hidden"]):
        super().__init__()
        assert kind in KINDS and kind not in {"none", "sine", "cosine"}
        self.layers = nn.Sequential(nn.Linear(3, width), nn.Linear(width, 2))
        self.dropout = nn.Dropout(0.1)

    @staticmethod
    def twice(X):
        return [2 * x for x in X]

    @torch.no_grad()
    def pool(self, X):
        return F.max_pool2d(X, 2)

    def forward(self, X):
        """Apply the layers."""
        X = helpers.block(imported(X))
        return self.layers(activation(self.shift(X)))


class Log(Callback):
    def __init__(self, every=1):
        self.every = every

    def on_epoch_end(self, net, **kwargs):
        net.history.record("log", self.every)


def accuracy(net, X, y):
    return 0.5


def make():
    torch.manual_seed(0)
    values = {
        "class": Net,
        "instance": Net(),
        "lambda": lambda X: activation(X) + 1,
        "partial": functools.partial(Net, width=8),
        "names": [KINDS, frozenset(KINDS), {1: "a", "b": 2, None: 3}, torch.float32],
    }
    net = NeuralNetClassifier(
        Net,
        module__kind="tanh",
        criterion=nn.CrossEntropyLoss,
        criterion__weight=torch.tensor([1.0, 2.0]),
        optimizer=torch.optim.SGD,
        optimizer__momentum=0.9,
        callbacks=[
            ("log", Log()),
            ("rate", LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=2)),
            ("stop", EarlyStopping(patience=2)),
            ("score", EpochScoring(accuracy, name="mine")),
        ],
    )
    return values | {"net": net.get_params(deep=False)}
'''

CHILD = """
import json, sys
sys.path.insert(0, sys.argv[1])
import user_code
from masktune_sk.training._fingerprint import content_hash
print(json.dumps({k: content_hash(v) for k, v in user_code.make().items()}))
"""


def load(folder, monkeypatch, *, code=USER_CODE, helpers=HELPERS):
    """Import user code from files."""
    for name, text in {"helpers": helpers, "user_code": code}.items():
        path = folder / f"{name}.py"
        path.write_text(text, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        monkeypatch.setitem(sys.modules, name, module)
        # Not by its loader, which would take an edit within a second for none.
        exec(compile(text, path, "exec"), vars(module))
    return module


def edited(text, old, new):
    assert text.count(old) == 1
    return text.replace(old, new)


def params_hash(net):
    return content_hash(net.get_params(deep=False))


class Noted(Callback):
    def __init__(self, note=()):
        self.note = note


def full_net(**params):
    defaults = {
        "module": nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.1), nn.Linear(4, 2)),
        "criterion__weight": torch.tensor([1.0, 2.0]),
        "optimizer": torch.optim.SGD,
        "optimizer__momentum": 0.9,
        "optimizer__param_groups": [("0*", {"lr": 0.1})],
        "train_split": ValidSplit(0.3, stratified=True, random_state=0),
        "callbacks": [
            ("note", Noted()),
            ("rate", LRScheduler(torch.optim.lr_scheduler.StepLR, step_size=2)),
            EarlyStopping(patience=2),
            EpochScoring("accuracy", lower_is_better=False),
        ],
        "device": "cpu",
    }
    torch.manual_seed(0)
    return tiny_net(**(defaults | params))


def copies(value):
    return [copy.deepcopy(value), pickle.loads(pickle.dumps(value))]


def test_the_hash_is_64_hexadecimal_digits():
    digest = content_hash(1, "a")
    assert len(digest) == 64
    assert int(digest, 16)


def test_another_process_finds_the_same_hashes(tmp_path, monkeypatch):
    values = load(tmp_path, monkeypatch).make()
    ours = {name: content_hash(value) for name, value in values.items()}
    # Elsewhere, to see that the place does not count.
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    load(folder, monkeypatch)
    theirs = subprocess.run(
        [sys.executable, "-c", CHILD, str(folder)],
        env=os.environ | {"PYTHONHASHSEED": "7"},
        check=True,
        stdout=subprocess.PIPE,
    )
    assert json.loads(theirs.stdout) == ours


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("self.shift(X)", "self.shift(-X)"),
        ("nn.Dropout(0.1)", "nn.Dropout(0.2)"),
        ("return X + 1", "return X + 2"),
        ("return [2 * x for x in X]", "return [3 * x for x in X]"),
        ("F.leaky_relu(X, OPTIONS.slope)", "F.leaky_relu(X, -OPTIONS.slope)"),
        ("slope=0.1", "slope=0.2"),
        ("F.max_pool2d", "F.avg_pool2d"),
        ('"sine", "cosine"', '"sine", "cos"'),
        ('"silu"', '"sigmoid"'),
        ('"hidden": 4', '"hidden": 5'),
        ("class Net(Base)", "class Net(nn.Module)"),
        ('kind="relu"', 'kind="elu"'),
        ("    @torch.no_grad()\n", ""),
    ],
)
def test_an_edit_of_the_users_module_is_seen(old, new, tmp_path, monkeypatch):
    before = load(tmp_path, monkeypatch).Net
    after = load(tmp_path, monkeypatch, code=edited(USER_CODE, old, new)).Net
    assert content_hash(after) != content_hash(before)


def test_an_edit_of_a_class_counts_for_its_instances(tmp_path, monkeypatch):
    codes = [USER_CODE, edited(USER_CODE, "return X + 1", "return X + 2")]
    modules = [load(tmp_path, monkeypatch, code=code) for code in codes]
    one, other = (content_hash(module.make()["instance"]) for module in modules)
    assert one != other


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return SCALE * X", "return SCALE + X"),
        ("SCALE = 2.0", "SCALE = 3.0"),
    ],
)
def test_an_edit_of_a_helper_module_is_seen(old, new, tmp_path, monkeypatch):
    direct = "import helpers\nclass Net:\n    f = lambda self, X: helpers.block(X)\n"
    for code in (USER_CODE, direct):
        before = load(tmp_path, monkeypatch, code=code).Net
        helpers = edited(HELPERS, old, new)
        after = load(tmp_path, monkeypatch, code=code, helpers=helpers).Net
        assert content_hash(after) != content_hash(before)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("return X + 1", "# one more\n\n        return   X+1  # done"),
        ("    return 0.5", "    return 0.25"),
        ("self.every = every", "self.every = int(every)"),
    ],
)
def test_edits_that_do_not_reach_the_net_do_not_count(old, new, tmp_path, monkeypatch):
    helpers = edited(HELPERS, "return X\n", "return -X\n")
    before = load(tmp_path, monkeypatch).Net
    code = edited(USER_CODE, old, new)
    after = load(tmp_path, monkeypatch, code=code, helpers=helpers).Net
    assert content_hash(after) == content_hash(before)


def test_a_class_counts_by_its_code_wherever_it_is(tmp_path, monkeypatch):
    imported = load(tmp_path, monkeypatch).Net
    namespace = {"__name__": "__main__"}
    exec(USER_CODE, namespace)
    assert content_hash(namespace["Net"]) == content_hash(imported)


def test_use_leaves_the_hash_of_a_class_alone(tmp_path, monkeypatch):
    cls = load(tmp_path, monkeypatch).Log
    before = content_hash(cls)
    pickle.dumps(cls())
    copy.deepcopy(cls())
    assert content_hash(cls) == before


def test_copies_of_a_net_hash_alike():
    net = full_net()
    expected = params_hash(net)
    assert params_hash(full_net()) == expected
    assert params_hash(clone(net)) == expected
    assert params_hash(clone(clone(net))) == expected
    for params in copies(net.get_params(deep=False)):
        assert content_hash(params) == expected
    assert content_hash(dict(reversed(net.get_params(deep=False).items()))) == expected


def one_weight_changed():
    module = full_net().module
    with torch.no_grad():
        module[2].weight[1, 3] += 1e-3
    return module


@pytest.mark.parametrize(
    "params",
    [
        {"module": TinyMLP},
        {"module": one_weight_changed()},
        {"module": nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.2), nn.Linear(4, 2))},
        {"module": full_net().module.eval()},
        {"optimizer__momentum": 0.8},
        {"optimizer__nesterov": True},
        {"optimizer": torch.optim.Adam},
        {"criterion__weight": torch.tensor([1.0, 3.0])},
        {"train_split": ValidSplit(0.3, stratified=True, random_state=1)},
        {"callbacks": [("note", Noted(note=(1,)))]},
        {"device": "cuda"},
        {"iterator_train__drop_last": True},
    ],
    ids=lambda params: "-".join(params),
)
def test_a_changed_parameter_of_a_net_changes_the_hash(params):
    assert params_hash(full_net(**params)) != params_hash(full_net())


@pytest.mark.parametrize(
    ("index", "param"), [(0, "note"), (1, "step_size"), (2, "patience"), (3, "scoring")]
)
def test_a_changed_parameter_of_a_callback_changes_the_hash(index, param):
    net = full_net()
    before = params_hash(net)
    callback = net.callbacks[index]
    callback = callback[1] if isinstance(callback, tuple) else callback
    assert param in vars(callback)
    setattr(callback, param, 7)
    assert params_hash(net) != before


def test_tensors_count_by_dtype_shape_and_content():
    X = torch.arange(6.0).reshape(2, 3)
    expected = content_hash(X)
    assert content_hash(X.T.contiguous().T) == expected
    assert content_hash(torch.arange(12.0)[::2].reshape(2, 3) / 2) == expected
    others = [X.T, X.reshape(3, 2), X.double(), X.bfloat16(), X + 1, nn.Parameter(X)]
    assert len({content_hash(other) for other in [X, *others]}) == 7
    frozen = nn.Parameter(X, requires_grad=False)
    assert content_hash(frozen) != content_hash(nn.Parameter(X))


@pytest.mark.parametrize(
    "tensor",
    [
        torch.empty(0, 3),
        torch.tensor(1.5),
        torch.tensor([True, False]),
        torch.tensor([1 + 2j]).conj(),
        torch.ones(3, dtype=torch.bfloat16, requires_grad=True),
        torch.eye(3).to_sparse(),
        torch.empty(2, device="meta"),
    ],
    ids=str,
)
def test_tensors_of_any_kind_hash_like_their_copies(tensor):
    for other in copies(tensor):
        assert content_hash(other) == content_hash(tensor)


def test_arrays_count_by_dtype_shape_and_content(tmp_path):
    X = np.arange(6.0).reshape(2, 3)
    np.save(tmp_path / "X.npy", X)
    same = [np.asfortranarray(X), np.load(tmp_path / "X.npy", mmap_mode="r")]
    assert {content_hash(other) for other in same} == {content_hash(X)}
    strided = np.repeat(X, 2, axis=1)[:, ::2]
    assert {content_hash(other) for other in copies(strided)} == {content_hash(strided)}
    others = [X.T, X.astype(np.float32), X + 1, X.astype(object)]
    assert len({content_hash(other) for other in [X, *others]}) == 5


def test_generators_count_by_their_state():
    one, other = (torch.Generator().manual_seed(seed) for seed in (0, 0))
    assert content_hash(one) == content_hash(other)
    torch.rand(1, generator=one)
    assert content_hash(one) != content_hash(other)


def test_the_order_of_submodules_counts():
    layers = {"a": nn.Flatten(), "b": nn.ReLU()}
    turned = {"b": nn.ReLU(), "a": nn.Flatten()}
    one, other = (nn.Sequential(collections.OrderedDict(d)) for d in (layers, turned))
    assert content_hash(one) != content_hash(other)


def test_tied_weights_are_not_equal_weights():
    def pair(tie):
        pair = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        pair[1].load_state_dict(pair[0].state_dict())
        if tie:
            pair[1].weight = pair[0].weight
        return pair

    torch.manual_seed(0)
    tied = pair(tie=True)
    torch.manual_seed(0)
    assert content_hash(pair(tie=False)) != content_hash(tied)
    for other in copies(tied):
        assert content_hash(other) == content_hash(tied)


def double(module, args, output):
    return 2 * output


def test_hooks_count_but_not_their_numbers():
    module = nn.Linear(2, 2)
    bare = content_hash(module)
    hashes = []
    for _ in range(2):
        handle = module.register_forward_hook(double)
        hashes.append(content_hash(module))
        handle.remove()
    assert hashes[0] == hashes[1] != bare
    assert content_hash(module) == bare


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.LSTM(2, 3),
        lambda: nn.MultiheadAttention(4, 2),
        lambda: nn.LazyLinear(3),
        lambda: nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)),
    ],
)
def test_special_modules_hash_like_their_copies(make):
    module = make()
    assert content_hash(copy.deepcopy(module)) == content_hash(module)


def adder(n):
    return lambda X: X + n


def test_functions_count_by_code_defaults_and_closure():
    assert content_hash(adder(1)) == content_hash(adder(1))
    functions = [
        adder(1),
        adder(2),
        lambda X: X - 1,
        lambda X, n=1: X + n,
        lambda X, n=2: X + n,
        lambda X, *, n=2: X + n,
        functools.partial(pow, 2),
        functools.partial(pow, 3),
        functools.lru_cache(adder(1)),
        functools.lru_cache(adder(2)),
    ]
    assert len({content_hash(function) for function in functions}) == len(functions)


def test_methods_count_with_their_object():
    one, other = TinyMLP(), TinyMLP()
    assert content_hash(one.forward) != content_hash(other.forward)
    assert content_hash(one.forward) != content_hash(one.parameters)
    assert content_hash([1].append) != content_hash([2].append)


def even(n):
    return n == 0 or odd(n - 1)


def odd(n):
    return n != 0 and even(n - 1)


def test_functions_that_call_each_other():
    assert content_hash(even) != content_hash(odd)
    assert content_hash(even, odd) == content_hash(even, odd)


class Color(enum.Enum):
    RED = 1
    GREEN = 2


@dataclasses.dataclass
class Options:
    size: int = 3
    names: list = dataclasses.field(default_factory=list)


Pair = collections.namedtuple("Pair", "one other")


@pytest.mark.parametrize(
    "value",
    [
        Color,
        Color.RED,
        Options,
        Options(4),
        Pair,
        Pair(1, 2),
        torch.device("cpu"),
        torch.float16,
        np.float32(1),
        np.dtype("f4"),
        np.random.RandomState(0),
        ...,
        int | None,
        np.add,
        torch.relu,
        nn.functional.max_pool2d,
    ],
    ids=str,
)
def test_many_kinds_of_values_have_a_hash_of_their_own(value):
    expected = content_hash(value)
    assert content_hash(copy.deepcopy(value)) == expected
    others = [Color.GREEN, Options(5), Pair(2, 1), torch.float32, 1, None]
    assert expected not in {content_hash(other) for other in others}


def test_identity_does_not_matter():
    part = [1, (2, "three")]
    assert content_hash([part, part]) == content_hash([part, copy.deepcopy(part)])
    dtype = np.dtype("f4")
    assert content_hash((dtype, "x")) != content_hash(("x", dtype))
    assert content_hash(1, 2) != content_hash((1, 2))
    assert content_hash(True) != content_hash(1) != content_hash(1.0)


def test_objects_that_hold_themselves():
    def ring(last):
        items = [1, [2, [last]]]
        items[1][1].append(items)
        return items

    assert content_hash(ring(3)) == content_hash(ring(3))
    assert content_hash(ring(3)) != content_hash(ring(4))
    one, other = ring(3), ring(3)
    assert content_hash([one, one]) == content_hash([one, other])
    one[1].append(one[1][1])
    assert content_hash(copy.deepcopy(one)) == content_hash(one)
    assert content_hash(one) != content_hash(other)


def test_what_a_global_holds_need_not_be_picklable(tmp_path, monkeypatch):
    code = "LOCK = open(__file__)\nclass Net:\n    f = lambda self: LOCK\n"
    module = load(tmp_path, monkeypatch, code=code)
    with module.LOCK:
        assert content_hash(module.Net) != content_hash(int)


class Holder:
    def __init__(self, what):
        self.what = what


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (threading.Lock, "lock"),
        (lambda: (n for n in ()), "generator"),
        (lambda: open(os.devnull), "TextIOWrapper"),
    ],
)
def test_what_can_not_be_hashed_is_named(make, name):
    what = make()
    with pytest.raises(TypeError, match=rf"can't hash a '\S*{name}': "):
        content_hash([what])
    with pytest.raises(TypeError, match=rf"'\S*{name}' in a '\S*Holder': "):
        content_hash({"a": (Holder([what]),)})
    with pytest.raises(TypeError, match=rf"'\S*{name}' in '\S*adder\S*': "):
        content_hash(adder(what))
    if name == "TextIOWrapper":
        what.close()


def test_what_is_nested_too_deeply_is_refused():
    nested = []
    for _ in range(2000):
        nested = [nested]
    with pytest.raises(TypeError, match="nested too deeply"):
        content_hash(nested)


def test_an_unfitted_default_net_has_a_hash():
    net = NeuralNetClassifier(TinyMLP)
    assert params_hash(net) == params_hash(clone(net))
