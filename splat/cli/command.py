"""What the commands share: parsing, and how a machine reads what they say."""

from __future__ import annotations

import inspect
import io
import json
import math
import re
import shutil
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO, TypeVar

import tyro

Args = TypeVar("Args")
_DESCRIPTION = "<description>"
Device = Literal["auto", "cpu", "cuda"]

Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]

# Options that are absent unless given: the help shows neither "None" nor a default.
OptionalPath = Annotated[Path | None, tyro.conf.arg(metavar="PATH", help_behavior_hint="")]
OptionalInt = Annotated[int | None, tyro.conf.arg(metavar="INT", help_behavior_hint="")]
OptionalFloat = Annotated[float | None, tyro.conf.arg(metavar="FLOAT", help_behavior_hint="")]
OptionalSize = Annotated[tuple[int, int] | None, tyro.conf.arg(metavar="W H", help_behavior_hint="")]
OptionalColour = Annotated[
    tuple[float, float, float] | None, tyro.conf.arg(metavar="R G B", help_behavior_hint="")
]


@dataclass(kw_only=True)
class Common:
    """Options of every command."""

    debug: Flag = False
    """Show the traceback of an error."""


def parse(args_type: type[Args], command: str, argv: list[str], *, pairs: bool = False) -> Args:
    """The command line as an instance of the dataclass `args_type`; its docstring opens the help.

    With `pairs` every flag has its --no- twin (settings that a preset may have switched on).
    Leaves with SystemExit(2) after saying what is wrong with the command line.
    """
    # Values that no flag can express do not clutter the help.
    marks: tuple[Any, ...] = (tyro.conf.SuppressFixed,)
    if not pairs:
        marks = (*marks, tyro.conf.FlagCreatePairsOff)

    with _described(inspect.cleandoc(args_type.__doc__ or "")):
        return tyro.cli(args_type, prog=f"splat {command}", description=_DESCRIPTION, args=argv, config=marks)


@contextmanager
def _described(text: str) -> Iterator[None]:
    """Put `text`, wrapped, in the place of _DESCRIPTION in what is printed: tyro itself joins lines and wraps none."""
    shown = _Shown(sys.stdout)
    try:
        with redirect_stdout(shown):
            yield
    finally:
        sys.stdout.write(shown.getvalue().replace(_DESCRIPTION, _wrapped(text)))


class _Shown(io.StringIO):
    """What is printed; it passes for where it goes to, so that colours and frames stay."""

    def __init__(self, terminal: TextIO) -> None:
        super().__init__()
        self._terminal = terminal

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._terminal.encoding

    def isatty(self) -> bool:
        return self._terminal.isatty()


def _wrapped(text: str) -> str:
    """Paragraphs as wide as the terminal, of which 100 columns are used at most; lists and examples as they are."""
    width = min(100, shutil.get_terminal_size().columns)
    paragraphs = re.split(r"\n{2,}", text)
    return "\n\n".join(p if "\n  " in p else textwrap.fill(p, width) for p in paragraphs)


def check_colour(colour: tuple[float, float, float] | None) -> None:
    """UsageError unless --background is a colour, or was not given."""
    from splat.core import UsageError

    if colour is not None and not all(0 <= value <= 1 for value in colour):
        shown = " ".join(f"{value:g}" for value in colour)
        raise UsageError(f"--background {shown}: give red, green and blue between 0 and 1")


def print_json(value: Any) -> None:
    """One JSON document on stdout. Paths become strings; numbers that JSON lacks become null."""
    print(json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(v) for v in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if hasattr(value, "tolist"):  # numpy and torch
        return _plain(value.tolist())
    return value


def counted(count: int, thing: str) -> str:
    """1 view, 2 views."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def size(count: float) -> str:
    """A number of bytes for people: 1.5 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"
