"""Nested dataclasses from and to plain mappings, with errors that name the nearest valid key.

YAML files are data, never code: a key that no field has or a value of the wrong type is a UsageError.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from splat.core import UsageError

T = TypeVar("T")


def apply(base: T, mapping: Any, where: str) -> T:
    """`base` (a dataclass instance) with the values of `mapping` in place of its own.

    `where` names the source in messages, e.g. "configs/cpu.yaml".
    """
    if mapping is None:
        return base
    if not isinstance(mapping, Mapping):
        raise UsageError(f"{where}: expected keys and values, got {_shown(mapping)}")
    hints = typing.get_type_hints(type(base))
    fields = {f.name for f in dataclasses.fields(base)}  # type: ignore[arg-type]
    changes = {}
    for key, value in mapping.items():
        if key not in fields:
            raise UsageError(f"{where}: unknown key {key!r}{nearest(str(key), fields)}")
        changes[key] = _convert(hints[key], value, getattr(base, key), f"{where}: {key}")
    return dataclasses.replace(base, **changes)  # type: ignore[type-var]


def to_mapping(value: Any) -> Any:
    """Dataclasses as dictionaries, tuples as lists: what YAML and JSON can hold."""
    if dataclasses.is_dataclass(value):
        return {f.name: to_mapping(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_mapping(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_mapping(item) for item in value]
    return value


def nearest(word: str, known: typing.Iterable[str]) -> str:
    """A clause for messages: the known word most like `word`, or all of them."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def _convert(hint: Any, value: Any, current: Any, where: str) -> Any:
    """`value` as the type `hint`, or UsageError."""
    if dataclasses.is_dataclass(hint):
        return apply(current, value, where)
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        (inner,) = (a for a in arguments if a is not type(None))
        return _convert(inner, value, current, where)
    if origin is Literal:
        if value not in arguments:
            words = [str(a) for a in arguments]
            raise UsageError(f"{where}: {_shown(value)} is not one of {', '.join(words)}")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise UsageError(f"{where}: expected a list, got {_shown(value)}")
        return tuple(_convert(arguments[0], item, None, where) for item in value)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise UsageError(f"{where}: expected keys and values, got {_shown(value)}")
        return _merge(current, value)
    if hint is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if hint is float and isinstance(value, str):
        # YAML 1.1 reads 1e-4 (no dot) as a word.
        try:
            return float(value)
        except ValueError:
            pass
    if hint in (int, bool, str) and type(value) is hint:
        return value
    raise UsageError(f"{where}: expected {getattr(hint, '__name__', hint)}, got {_shown(value)}")


def _merge(base: Mapping, update: Mapping) -> dict:
    """Mappings merged key by key, at every level; lists and scalars of `update` win."""
    merged = dict(base)
    for key, value in update.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _shown(value: Any) -> str:
    return f"{value!r} ({type(value).__name__})"
