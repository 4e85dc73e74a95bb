"""README lists every public name, as it is now."""

import re
import types
from pathlib import Path

import pytest

from tests.api_reference import BEGIN, COMMAND, END, describe, fill, plain, reference
from tests.test_public_api import PUBLIC_MODULES

ROOT = Path(__file__).parent.parent


def test_readme_has_the_reference_of_now():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert fill(readme) == readme, f"The API reference is stale. Run: {COMMAND}"


def test_every_name_of_every_module_is_there_and_its_file_has_it():
    text = reference()
    assert re.findall(r"<code>(.*?)</code>", text) == PUBLIC_MODULES
    lines = [line for line in text.splitlines() if line.startswith("- ")]
    assert len(lines) > 100
    for line in lines:
        name, path, said = re.fullmatch(r"- \[`(\w+)`\]\((.+?)\): (.+)", line).groups()
        assert name in (ROOT / path).read_text(encoding="utf-8")
        assert not said.endswith(".")


def test_filling_keeps_what_is_around_and_is_stable():
    filled = fill(f"before\n{BEGIN}\nold\n{END}\nafter")
    assert filled == f"before\n{BEGIN}\n\n{reference()}\n\n{END}\nafter"
    assert fill(filled) == filled


@pytest.mark.parametrize("text", ["nothing", BEGIN, END + BEGIN])
def test_a_text_without_markers_is_refused(text):
    with pytest.raises(ValueError, match="no place for the API reference"):
        fill(text)


def test_a_value_needs_a_sentence_of_its_module():
    module = types.ModuleType("some", "First.\n\nThe second has `SIZE` pixels. More.")
    module.SIZE = module.OTHER = 3
    module.__file__ = "some.py"
    assert describe(module, "SIZE") == ("some.py", "The second has `SIZE` pixels")
    with pytest.raises(ValueError, match=r"docstring of some .* Write one"):
        describe(module, "OTHER")


def test_a_sentence_becomes_markdown():
    assert plain("Grad-CAM [1]_: what\n    ``f(x)`` is.") == "Grad-CAM: what `f(x)` is"
