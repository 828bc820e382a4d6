"""Readers of models' files and directories: nothing in them is executed, nothing of their weights is read yet."""

from normcheck.layers.readers.reading import read

__all__ = ["read"]
