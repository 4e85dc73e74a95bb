"""Every public class, method and function has a complete numpydoc docstring."""

import importlib
import inspect

import pytest
from numpydoc.validate import validate

from tests.test_public_api import PUBLIC_MODULES

# What not every object needs.
OPTIONAL = {
    "ES01",  # a paragraph after the summary
    "SA01",  # See Also
    "EX01",  # Examples
    "RT02",  # a returned value without a name; scikit-learn names it
}

# What an override leaves to the docstring of the method that it overrides.
INHERITED = {"PR01", "RT01", "YD01"}


def is_ours(value):
    # What is written in C has no module.
    module = getattr(inspect.unwrap(value), "__module__", None) or ""
    return module.partition(".")[0] == "masktune_sk"


def documented_objects():
    """Map the path of each object that we document to what it may leave out."""
    objects = {}
    for module_name in PUBLIC_MODULES:
        module = importlib.import_module(module_name)
        for name in module.__all__:
            value = getattr(module, name)
            if inspect.isroutine(value) or inspect.isclass(value):
                objects[f"{module_name}.{name}"] = OPTIONAL
            if inspect.isclass(value):
                objects |= documented_methods(value)
    return objects


def documented_methods(cls):
    # By the path of the class that defines it, so that what many classes inherit is
    # checked once.
    methods = {}
    for name in [name for name in dir(cls) if not name.startswith("_")]:
        method = getattr(cls, name)
        function = getattr(method, "fget", method)
        if not (inspect.isroutine(function) and is_ours(function)):
            continue
        owners = [base for base in cls.__mro__ if is_ours(base) and name in vars(base)]
        for owner in owners:
            path = f"{owner.__module__}.{owner.__qualname__}.{name}"
            overrides = owner is not owners[-1]
            methods[path] = OPTIONAL | INHERITED if overrides else OPTIONAL
    return methods


OBJECTS = documented_objects()


@pytest.mark.parametrize("path", OBJECTS)
def test_docstring(path):
    errors = [
        f"{code}: {message}"
        for code, message in validate(path)["errors"]
        if code not in OBJECTS[path]
    ]
    assert not errors, "\n".join([path, *errors])
