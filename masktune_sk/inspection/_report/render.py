"""From sections to one file."""

from pathlib import Path

from ..._optional import import_optional

__all__ = ["render_html", "render_markdown", "require_jinja2"]

TEMPLATES = Path(__file__).parent / "templates"
# What Markdown or the HTML in it would take for more than a character.
SPECIAL = {"&": "&amp;", "<": "&lt;", ">": "&gt;"} | {
    c: f"\\{c}" for c in "\\`*_[]|#~$"
}


def require_jinja2(caller):
    """Import jinja2, or say which extra brings it."""
    return import_optional("jinja2", caller=caller, extra="report")


def render_html(caller, **context):
    """Render the report; everything is escaped but what is HTML already."""
    return (
        _environment(caller, autoescape=True)
        .get_template("report.html.j2")
        .render(context)
    )


def render_markdown(caller, **context):
    """Render the model card."""
    environment = _environment(caller, autoescape=False)
    environment.filters["md"] = escape_markdown
    card = environment.get_template("model_card.md.j2").render(context)
    return f"{card.rstrip()}\n"


def _environment(caller, autoescape):
    jinja2 = require_jinja2(caller)
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=autoescape,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def escape_markdown(text):
    """Return a text that shows as it is, in one line of Markdown or a cell."""
    text = " ".join(str(text).split())
    return "".join(SPECIAL.get(character, character) for character in text)
