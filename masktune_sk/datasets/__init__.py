"""Data with a known shortcut, to measure what a classifier leans on.

The first word of a name tells where the data come from: ``make_`` generates them,
``load_`` reads what is bundled with scikit-learn or with this package, ``fetch_``
downloads them or reads a local copy.

Every function returns the same fields for the same things: `bias` is a sample's
value of the spurious attribute, `groups` is class x bias, and `artifact_mask` is True
where a pixel belongs to the shortcut.
"""

from masktune_sk.datasets._digits import load_shortcut_digits

__all__ = ["load_shortcut_digits"]
