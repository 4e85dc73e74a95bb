"""The API reference of README: every public name, its file and what it is in a line.

    python -m tests.api_reference README.md

writes it between the two markers. A test compares.
"""

import importlib
import inspect
import re
import sys
from pathlib import Path

from tests.test_public_api import PUBLIC_MODULES

ROOT = Path(__file__).resolve().parent.parent
BEGIN = "<!-- API reference: made by tests/api_reference.py -->"
END = "<!-- end of the API reference -->"
COMMAND = "python -m tests.api_reference README.md"


def plain(text):
    """Make a line of Markdown of a sentence of a docstring."""
    text = re.sub(r" \[\d+\]_", "", " ".join(text.split()))
    return text.replace("``", "`").removesuffix(".")


def first_line(text):
    """Return the summary of a docstring."""
    return plain(inspect.cleandoc(text).partition("\n\n")[0])


def describe(module, name):
    """Return the file that defines a public name, and what it is."""
    value = getattr(module, name)
    if inspect.isclass(value) or inspect.isroutine(value):
        return inspect.getsourcefile(inspect.unwrap(value)), first_line(value.__doc__)
    # A value has no docstring: the sentence of the module that speaks of it.
    sentences = re.split(r"(?<=\.)\s+", inspect.cleandoc(module.__doc__))
    said = [sentence for sentence in sentences if f"`{name}`" in sentence]
    if not said:
        raise ValueError(
            f"{name} is a value, and the docstring of {module.__name__} has no "
            "sentence with its name in backquotes. Write one."
        )
    return module.__file__, plain(said[0])


def reference():
    """Return the reference as Markdown, without the markers."""
    parts = []
    for module in map(importlib.import_module, PUBLIC_MODULES):
        heading = f"<code>{module.__name__}</code>: {first_line(module.__doc__)}"
        lines = [f"<details><summary>{heading}</summary>", ""]
        for name in module.__all__:
            file, text = describe(module, name)
            path = Path(file).resolve().relative_to(ROOT).as_posix()
            lines.append(f"- [`{name}`]({path}): {text}")
        parts.append("\n".join([*lines, "", "</details>"]))
    return "\n\n".join(parts)


def fill(text):
    """Return a text with the reference of now between its markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(
            f"The text has no place for the API reference: write {BEGIN!r}, and below "
            f"it {END!r}."
        )
    return f"{before}{BEGIN}\n\n{reference()}\n\n{END}{after}"


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"Usage, in the root of the repository: {COMMAND}")
    readme = Path(sys.argv[1])
    readme.write_text(fill(readme.read_text(encoding="utf-8")), encoding="utf-8")
