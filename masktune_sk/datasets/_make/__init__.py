"""Generators: a shortcut planted in samples, and the digits bundled for it."""
