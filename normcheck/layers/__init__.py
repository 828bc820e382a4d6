"""Norm layers and their inputs: readers of models, discovery of norms, live modules, sources of values."""
