"""Tests of optional imports, and of errors and warnings."""

import json
import xml.dom

import pytest
from sklearn.exceptions import InconsistentVersionWarning as SklearnWarning

from masktune_sk import exceptions
from masktune_sk._optional import import_optional


def test_what_is_installed_is_imported():
    assert import_optional("json", caller="This test", extra="plot") is json
    assert import_optional("xml.dom", caller="This test", extra="plot") is xml.dom


@pytest.mark.parametrize("module", ["no_such_package", "no_such_package.part.piece"])
def test_what_is_not_installed_is_named_with_the_extra(module):
    message = (
        "MaskDisplay needs no_such_package, which is not installed. "
        r'Run: pip install "masktune_sk\[plot\]"'
    )
    with pytest.raises(ImportError, match=message) as caught:
        import_optional(module, caller="MaskDisplay", extra="plot")
    assert isinstance(caught.value.__cause__, ImportError)


def test_every_error_and_warning_is_caught_as_what_it_is():
    assert issubclass(exceptions.NonFiniteError, ArithmeticError)
    assert issubclass(exceptions.TargetLayerError, ValueError)
    assert issubclass(exceptions.FrozenNetWarning, UserWarning)
    assert issubclass(exceptions.EmptyMaskWarning, UserWarning)
    assert issubclass(exceptions.InconsistentVersionWarning, SklearnWarning)
    assert sorted(exceptions.__all__) == exceptions.__all__


def test_the_version_warning_names_packages_and_both_versions():
    warning = exceptions.InconsistentVersionWarning(
        estimator_name="SomeClassifier",
        changed={"torch": ("2.6.0", "2.15.0"), "skorch": ("1.3.1", "1.4.0")},
    )
    text = str(warning)
    assert text.startswith(
        "This SomeClassifier was pickled with torch 2.6.0 (now 2.15.0), "
        "skorch 1.3.1 (now 1.4.0)."
    )
    assert "fit it again" in text
    assert warning.estimator_name == "SomeClassifier"
    assert warning.changed["torch"] == ("2.6.0", "2.15.0")
