import importlib.metadata
import inspect
import pkgutil
import subprocess
import sys

import pytest

import masktune_sk

PUBLIC_MODULES = [
    "masktune_sk",
    *(
        module.name
        for module in pkgutil.walk_packages(masktune_sk.__path__, "masktune_sk.")
        # The stages of training are for the estimators alone.
        if "._" not in module.name and module.name != "masktune_sk.training"
    ),
]


def run(*lines):
    subprocess.run([sys.executable, "-c", "\n".join(lines)], check=True)


@pytest.mark.parametrize("name", PUBLIC_MODULES)
def test_public_names_exist_and_are_documented(name):
    module = importlib.import_module(name)
    assert len(set(module.__all__)) == len(module.__all__)
    for public_name in module.__all__:
        assert not public_name.startswith("_") or public_name == "__version__"
        value = getattr(module, public_name)
        if callable(value) or inspect.ismodule(value):
            assert value.__doc__, f"{public_name} has no docstring"
        else:
            assert public_name in module.__doc__ or public_name == "__version__", (
                f"{public_name} holds a value: the docstring of {name} must tell of it"
            )


def test_version_is_that_of_the_distribution():
    assert masktune_sk.__version__ == importlib.metadata.version("masktune_sk")


def test_import_needs_no_optional_dependency():
    run(
        "import sys",
        # None makes an import fail as if the package were not installed.
        "sys.modules.update(jinja2=None, matplotlib=None, pandas=None)",
        *(f"import {name}" for name in PUBLIC_MODULES),
    )


def test_import_leaves_matplotlib_alone():
    # pandas is not ours to leave alone: scikit-learn imports it where it is installed.
    run(
        "import sys",
        *(f"import {name}" for name in PUBLIC_MODULES),
        "assert 'matplotlib' not in sys.modules",
    )
