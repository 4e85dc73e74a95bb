"""Report and model card: facts, then sections, then one file.

`inputs` checks what is given, `facts` finds out what there is to tell (`performance`,
`intervention`), `sections` puts it into words and tables, `figures` and `thumbnails`
draw, `render` fills the templates.
"""

from .write import ShortcutReport, model_card, report

__all__ = ["ShortcutReport", "model_card", "report"]
