"""Loaders: published sets, from a local copy."""
