"""A hash of what a training depends on, the same in every process.

What the user wrote counts by its bytecode, what is installed by name and version.
"""

import dis
import functools
import hashlib
import os
import pickle
import sys
import sysconfig
import types
from collections import OrderedDict
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from joblib.hashing import Hasher
from torch.nn.utils.parametrize import is_parametrized, type_before_parametrizations
from torch.utils.hooks import RemovableHandle

__all__ = ["content_hash"]

ATOMS = frozenset({type(None), bool, int, float, str, bytes})
CONTAINERS = frozenset({tuple, list, dict, set, frozenset, OrderedDict})
HOOKS = [name for name in vars(torch.nn.Module()) if "_hooks" in name]
LOADS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
FUNCTIONS = types.FunctionType | staticmethod | classmethod | property
HEAP_TYPE = 1 << 9  # made by a class statement
LIBRARIES = [
    os.path.realpath(sysconfig.get_path(key))
    for key in ("stdlib", "platstdlib", "purelib", "platlib")
]


class _CannotHashError(TypeError):
    pass


def content_hash(*values):
    """Hash values by their content.

    Equal for what `copy.deepcopy`, `pickle` and `sklearn.base.clone` make of a value.
    The order of a dict does not count, that of an `OrderedDict` does.

    Parameters
    ----------
    *values : object
        Anything that can be pickled; functions and classes need not be importable.

    Returns
    -------
    digest : str
        64 hexadecimal digits.

    Raises
    ------
    TypeError
        If a value, or something inside it, can't be hashed.
    """
    try:
        return _Walk().digest(values).hex()
    except RecursionError as error:
        raise TypeError("what is to be hashed is nested too deeply") from error


class _Walk:
    """Give each object its digest, and break cycles.

    An object that is met inside itself is written as a path: so many levels up, then
    down again by the numbers of the children. That does not depend on identity.
    """

    def __init__(self):
        self._digests = {}  # id: (digest, object); the object keeps its id taken
        self._frames = []  # of what is being hashed: [object, children, lowest target]
        self._known = {}  # id: (depth of target, path from there, object)

    def digest(self, obj):
        if type(obj) in ATOMS:
            return pickle.dumps(obj, protocol=3)
        key, depth = id(obj), len(self._frames)
        if self._frames:
            self._frames[-1][1] += 1
        if key in self._digests:
            return self._digests[key][0]
        if key in self._known:
            target, path, _ = self._known[key]
            self._frames[-1][2] = min(self._frames[-1][2], target)
            return repr((depth - target, path)).encode()
        frame = [obj, 0, depth]
        mark = len(self._known)
        self._frames.append(frame)
        self._known[key] = (depth, (), obj)
        done = False
        try:
            digest = _ItemHasher(self).digest(obj)
            done = True
        except (_CannotHashError, RecursionError):
            raise
        except Exception as error:
            raise _CannotHashError(self._complaint(error)) from error
        finally:
            self._frames.pop()
            lowest = frame[2]
            if not done or lowest == depth:
                for inner in list(self._known)[mark:]:
                    del self._known[inner]
        if lowest == depth:
            self._digests[key] = (digest, obj)
        else:
            # Its digest holds only inside the object it refers back to.
            here = tuple(children for _, children, _ in self._frames[lowest:])
            for inner in list(self._known)[mark:]:
                target, path, kept = self._known[inner]
                if target == depth:
                    self._known[inner] = (lowest, here + path, kept)
            self._frames[-1][2] = min(self._frames[-1][2], lowest)
        return digest

    def digest_global(self, obj):
        try:
            return self.digest(obj)
        except _CannotHashError:
            if isinstance(obj, type | types.FunctionType):
                raise
            # An open file or a lock; it hardly changes a result.
            return self.digest(type(obj))

    def _complaint(self, error):
        *holders, culprit = (frame[0] for frame in self._frames)
        holders = [item for item in holders if type(item) not in CONTAINERS]
        held = f" in {_describe(holders[-1])}" if holders else ""
        return f"can't hash {_describe(culprit)}{held}: {error}"


class _ItemHasher(Hasher):
    """Hash one object; of what it holds, write the digests only."""

    def __init__(self, walk):
        super().__init__("sha256")
        self._walk = walk
        self._started = False

    def digest(self, obj):
        self.dump(obj)
        self._hash.update(self.stream.getvalue())
        return self._hash.digest()

    def save(self, obj, save_persistent_id=True):
        if type(obj) in ATOMS:
            super().save(obj)
        elif self._started:
            super().save(self._walk.digest(obj))
        else:
            self._started = True
            form = _form(obj, self._walk)
            super().save(obj if form is None else form)

    def memoize(self, obj):
        pass  # A copy of an object must hash like the object again.

    def save_global(self, obj, name=None, pack=None):
        module = getattr(obj, "__module__", None)
        self.save((type(obj), module, name, getattr(obj, "__wrapped__", None)))

    def _batch_setitems(self, items, *args):
        pairs = sorted(
            ((self._walk.digest(key), value) for key, value in items),
            key=lambda pair: pair[0],
        )
        self.save(b"".join(key + self._walk.digest(value) for key, value in pairs))


def _form(obj, walk):
    """Return what to hash in place of an object; None: the object as pickle sees it."""
    if isinstance(obj, type | types.FunctionType) and _is_installed(obj):
        return ("installed", _name(obj), _library(obj.__module__))
    if isinstance(obj, type):
        return _class_form(obj, walk)
    if isinstance(obj, torch.Tensor):
        return _tensor_form(obj)
    if isinstance(obj, torch.nn.Module):
        return _module_form(obj)
    if type(obj) in (np.ndarray, np.memmap) and not obj.dtype.hasobject:
        content = np.ascontiguousarray(obj).reshape(-1).view(np.uint8)
        return ("array", obj.dtype, obj.shape, hashlib.sha256(content.data).digest())
    match obj:
        case types.FunctionType():
            return _function_form(obj, walk)
        case types.CodeType():
            return _code_form(obj)
        case types.ModuleType():
            return ("module", obj.__name__, _library(obj.__name__))
        case types.MethodType():
            return ("method", obj.__func__, obj.__self__)
        case types.BuiltinMethodType():
            return ("builtin", obj.__name__, obj.__self__)
        case staticmethod() | classmethod():
            return (type(obj), obj.__func__)
        case property():
            return ("property", obj.fget, obj.fset, obj.fdel)
        case functools.cached_property():
            return ("cached_property", obj.func)
        case types.MappingProxyType():
            return ("mappingproxy", dict(obj))
        case set() | frozenset():
            return (type(obj), *sorted(walk.digest(item) for item in obj))
        case torch.Generator():
            return ("generator", str(obj.device), obj.get_state())
        case RemovableHandle():
            return ("handle",)  # its number counts all hooks of the process
    if type(obj) is OrderedDict:
        return ("ordered", *obj.items())
    return None


def _class_form(cls, walk):
    def counts(name, value):
        # Python and pickle keep notes of their own under dunder names.
        note = name.startswith(("__", "_abc_impl")) and not isinstance(value, FUNCTIONS)
        return not note and not isinstance(value, types.GetSetDescriptorType)

    attributes = [
        (name, walk.digest(value))
        for name, value in sorted(vars(cls).items())
        if counts(name, value)
    ]
    return ("class", cls.__name__, type(cls), cls.__bases__, *attributes)


def _function_form(function, walk):
    def content(cell):
        try:
            return (walk.digest(cell.cell_contents),)
        except ValueError:  # not filled yet
            return ()

    return (
        function.__name__,
        walk.digest(function.__code__),
        walk.digest(function.__defaults__),
        walk.digest(function.__kwdefaults__),
        *(content(cell) for cell in function.__closure__ or ()),
        *(
            (name, walk.digest_global(value))
            for name, value in _references(function.__code__, function.__globals__)
        ),
    )


def _code_form(code):
    return (
        (code.co_code, code.co_consts, code.co_names, code.co_varnames),
        (code.co_freevars, code.co_cellvars, code.co_flags, code.co_exceptiontable),
        (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount),
    )


def _references(code, namespace):
    """Find what code refers to through the globals of its module."""
    # A library's globals are not the user's, and may be caches.
    if _library(namespace.get("__name__", "")):
        return []
    codes = [code]
    for item in codes:  # grows meanwhile
        codes += [c for c in item.co_consts if isinstance(c, types.CodeType)]
    instructions = chain.from_iterable(map(dis.get_instructions, codes))
    loaded = {step.argval for step in instructions if step.opname in LOADS}
    mentioned = {name for item in codes for name in item.co_names}
    found, visited = [], set()

    def look_up(names, namespace, prefix):
        # Dunder names like __file__ say where a module is.
        for name in sorted(n for n in names & namespace.keys() if n[:2] != "__"):
            value = namespace[name]
            found.append((prefix + name, value))
            own = isinstance(value, types.ModuleType)
            if own and id(value) not in visited and not _library(value.__name__):
                visited.add(id(value))
                look_up(mentioned, vars(value), f"{prefix}{name}.")

    look_up(loaded, namespace, "")
    return found


def _tensor_form(tensor):
    lazy = isinstance(tensor, torch.nn.parameter.UninitializedTensorMixin)
    if lazy or tensor.layout is not torch.strided or tensor.is_quantized:
        return None
    content = b""
    if not tensor.is_meta:
        plain = tensor.detach().as_subclass(torch.Tensor).cpu()
        plain = plain.resolve_conj().resolve_neg().contiguous().reshape(-1)
        content = hashlib.sha256(plain.view(torch.uint8).numpy().data).digest()
    shape = tuple(tensor.shape)
    return (type(tensor), tensor.dtype, shape, tensor.requires_grad, content)


def _module_form(module):
    # The class of a parametrized module is made at run time and holds a module.
    cls = type_before_parametrizations(module)
    if (cls.__reduce_ex__, cls.__reduce__) != (object.__reduce_ex__, object.__reduce__):
        return None
    state = vars(module) if is_parametrized(module) else module.__getstate__()
    if not isinstance(state, dict):
        return None
    state = dict(state)
    # The keys are numbers that count all hooks of the process.
    hooks = {name: state.pop(name, {}) for name in HOOKS}
    ranks = {key: i for i, key in enumerate(sorted(set(chain(*hooks.values()))))}
    hooks = [(k, [(ranks[i], v) for i, v in h.items()]) for k, h in hooks.items()]
    kinds = ("_parameters", "_buffers", "_modules")
    ordered = [tuple((state.pop(kind, None) or {}).items()) for kind in kinds]
    numbers = {}
    tensors = chain(
        module.named_parameters(remove_duplicate=False),
        module.named_buffers(remove_duplicate=False),
    )
    # Weights that are tied train otherwise than equal ones.
    tied = tuple(numbers.setdefault(id(t), len(numbers)) for _, t in tensors)
    return ("module", cls, *ordered, hooks, tied, state)


def _name(obj):
    return f"{obj.__module__}.{obj.__qualname__}"


def _describe(obj):
    if isinstance(obj, type | types.FunctionType):
        return f"{_name(obj)!r}"
    return f"a {_name(type(obj))!r}"


def _is_installed(obj):
    """Tell whether a class or function is found by its name in a library."""
    if isinstance(obj, type) and not obj.__flags__ & HEAP_TYPE:
        return True
    if not isinstance(obj.__module__, str) or not _library(obj.__module__):
        return False
    found = sys.modules.get(obj.__module__)
    for part in obj.__qualname__.split("."):
        found = getattr(found, part, None)
    return found is obj


def _library(name):
    """Return the version of the library a module is in, "" if it is the user's own."""
    top = name.partition(".")[0]
    package = sys.modules.get(top)
    found = top in sys.stdlib_module_names
    for module in (sys.modules.get(name), package):
        file = getattr(module, "__file__", None)
        if file:
            path = Path(os.path.realpath(file))
            installed = {"site-packages", "dist-packages"}.intersection(path.parts)
            found = installed or any(map(path.is_relative_to, LIBRARIES))
            break
    if top == "__main__" or not (found or top == "masktune_sk"):
        return ""
    return str(getattr(package, "__version__", None))
