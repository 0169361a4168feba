"""Write options: from what a caller gives to a format's own dataclass."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any

from splat.codecs.format import Format
from splat.core import UsageError


def settle_options(form: Format, given: Any) -> Any:
    """The options dataclass of `form` with the values of `given`.

    Args:
        given: None, an instance of `form.options`, or a mapping name -> value; strings, as a command line has
            them, are converted.

    Raises:
        UsageError: an unknown name, or a value that does not fit.
    """
    if isinstance(given, form.options):
        return given
    if given is not None and not isinstance(given, Mapping):
        raise UsageError(f"options of {form.name}: expected a mapping of names, got {type(given).__name__}")
    hints = typing.get_type_hints(form.options)
    values = {}
    for name, value in (given or {}).items():
        if name not in hints:
            raise UsageError(f"{form.name} has no option {name!r}{_known(name, list(hints))}")
        values[name] = _convert(f"{form.name}: option {name}", hints[name], value)
    return form.options(**values)


def _known(name: str, names: list[str]) -> str:
    if not names:
        return ": it has none"
    close = difflib.get_close_matches(name, names, 1)
    return f": did you mean {close[0]!r}?" if close else f"; it has {', '.join(names)}"


def _convert(what: str, hint: Any, value: Any) -> Any:
    """`value` as one of the types of `hint` (bool, int, float, str, None, or a union of them)."""
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = typing.get_args(hint) if union else (hint,)
    for kind in kinds:
        if kind is bool and isinstance(value, str) and value.lower() in ("true", "false"):
            return value.lower() == "true"
        if kind is type(None) and value in (None, "none"):
            return None
        if kind in (int, float) and isinstance(value, str):
            try:
                return kind(value)
            except ValueError:
                continue
        if kind is float and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool):
            return value
    names = " or ".join("none" if kind is type(None) else kind.__name__ for kind in kinds)
    raise UsageError(f"{what}: expected {names}, got {value!r}")
