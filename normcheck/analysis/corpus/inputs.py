"""Inputs of the corpus: from a recipe to an array, the same on every machine."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from normcheck.layers.distributions import parse_distribution
from normcheck.layers.sources import Synthetic
from normcheck.norms.table import grouping, norm_named

if TYPE_CHECKING:
    from normcheck.analysis.corpus.records import Recipe

Array = np.ndarray[Any, np.dtype[Any]]


def made(recipe: Recipe, shape: tuple[int, ...]) -> Array:
    """Return the input of a recipe, float32 of that shape; infinite where the recipe says so.

    Elements of a distribution are those that `simulate` draws for the same shape and seed.
    """
    x = _elements(recipe, shape)
    if recipe.outlier_every:
        x.reshape(-1)[:: recipe.outlier_every] = recipe.outlier
    return x


def _elements(recipe: Recipe, shape: tuple[int, ...]) -> Array:
    if recipe.constant is not None:
        return np.full(shape, recipe.constant, np.float32)
    if recipe.values:
        return np.resize(np.array(recipe.values, np.float32), shape)
    if recipe.step is not None:
        along = recipe.start + recipe.step * np.arange(shape[-1], dtype=np.float64)
        return np.broadcast_to(along.astype(np.float32), shape).copy()
    source = Synthetic(parse_distribution(recipe.distribution or ""), recipe.mean, recipe.std, recipe.seed)
    whole = grouping(norm_named("layer-l2"), (1, math.prod(shape)))
    return source.draw(whole, 0, 1, 0, whole.size).reshape(shape)
