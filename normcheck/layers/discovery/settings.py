"""What a model's config says about one layer: its model type, eps, number of groups."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from normcheck.layers.discovery import conventions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from normcheck.norms.table import Norm

_SUFFIX = "_config"
_DEEPEST = 8
"""Levels of nested mappings that are looked into: more than any config has, and no cycle is followed for ever."""


@dataclass(frozen=True, slots=True)
class _Part:
    """One mapping of a config: its numbers and texts, and the mappings in it, those of parts of the model apart."""

    numbers: Mapping[str, float]
    texts: Mapping[str, str]
    submodels: Mapping[str, _Part]
    others: tuple[_Part, ...]


class Settings:
    """A config, from which the parts that hold for a layer are taken."""

    def __init__(self, config: Mapping[str, Any]) -> None:
        """Keep what can matter of a config."""
        self._config = _part(config, 0)

    def of(self, name: str) -> Scope:
        """The settings that hold for the layer of that name."""
        return Scope(list(_scopes(self._config, name.lower().split("."))))


class Scope:
    """The parts of a config that hold for a layer, the most specific first."""

    def __init__(self, parts: list[_Part]) -> None:
        """Take the parts."""
        self._parts = parts

    @property
    def model_type(self) -> str:
        """The type of the model that the layer is part of; empty where none is stated."""
        return next(iter(self.texts("model_type")), "")

    def number(self, keys: tuple[str, ...]) -> tuple[str, float] | None:
        """The first of `keys` that some part has as a finite number that is not negative, and that number."""
        return next(((key, part.numbers[key]) for part in self._parts for key in keys if key in part.numbers), None)

    def texts(self, key: str) -> list[str]:
        """All values of `key` that are texts, the most specific first."""
        return [part.texts[key] for part in self._parts if key in part.texts]

    def eps(self, name: str, norm: Norm) -> float | None:
        """Eps of the layer of that name and kind, by model type or key; None where neither says it."""
        for model_type in self.texts("model_type"):
            for pattern, value in conventions.FIXED_EPS.get(model_type, ()):
                if fnmatchcase(name, pattern):
                    return value
        found = self.number(conventions.EPS_KEYS.get(kind_of(norm), ()))
        return found[1] if found else None


def kind_of(norm: Norm) -> str:
    """The key of a norm in the tables of conventions: where it is computed, or `rms` for layer norms not centred."""
    return "rms" if norm.where == "layer" and not norm.centred else norm.where


def _part(mapping: Mapping[Any, Any], depth: int) -> _Part:
    """What matters of a mapping; of dotted keys, as in GGUF's metadata, the last part counts."""
    last = {str(key).rpartition(".")[2]: value for key, value in mapping.items()}
    nested = {
        key: _part(value, depth + 1) for key, value in last.items() if isinstance(value, Mapping) and depth < _DEEPEST
    }
    return _Part(
        numbers={key: float(value) for key, value in last.items() if _is_number(value)},
        texts={key: value for key, value in last.items() if isinstance(value, str)},
        submodels={key: part for key, part in nested.items() if _is_submodel(key)},
        others=tuple(part for key, part in nested.items() if not _is_submodel(key)),
    )


def _is_number(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return 0 <= value <= sys.float_info.max  # an integer may be beyond


def _is_submodel(key: str) -> bool:
    return key.endswith(_SUFFIX) or key in ("encoder", "decoder")


def _scopes(part: _Part, names: list[str]) -> Iterator[_Part]:
    places = {key: _place(key, names) for key in part.submodels}
    claims = sorted((key for key in places if places[key] is not None), key=lambda key: places[key] or 0)
    for key in claims:
        yield from _scopes(part.submodels[key], names)
    yield part
    for other in part.others:
        yield from _scopes(other, names)
    for key in conventions.MAIN_SUBMODELS:
        if key in part.submodels and not claims:
            yield from _scopes(part.submodels[key], names)


def _place(key: str, names: list[str]) -> int | None:
    """Where a layer's name first tells that it is of the part of the model that a nested config describes."""
    stem = key.removesuffix(_SUFFIX)
    begins = conventions.SUBMODELS.get(stem, (stem,))
    return next((i for i, name in enumerate(names) if name.startswith(begins)), None)
