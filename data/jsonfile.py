"""JSON files that others wrote: read, and numbers taken out of them, with errors that name the place."""

from __future__ import annotations

import json
import math
import reprlib
from pathlib import Path
from typing import Any

from splat.data.problems import DatasetError

AGAIN = "export the dataset again, or correct the file"


def begins_with(file: Path, first: bytes) -> bool:
    """Whether the first thing in a text file, white space aside, is `first`."""
    try:
        with file.open("rb") as stream:
            return stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(first)
    except OSError:
        return False


def load_json(file: Path) -> Any:
    """What a JSON file holds.

    Raises:
        DatasetError: it cannot be read or is no JSON.
    """
    try:
        return json.loads(file.read_bytes())
    except OSError as error:
        raise DatasetError("json-unreadable", file, "cannot be read", "change its permissions") from error
    except (ValueError, RecursionError) as error:
        raise damaged(file, f"is not valid JSON ({error})") from error


def load_object(file: Path) -> dict[str, Any]:
    """The object in a JSON file; DatasetError where there is none."""
    content = load_json(file)
    if not isinstance(content, dict):
        raise damaged(file, "holds no JSON object")
    return content


def number(file: Path, where: str, value: Any) -> float:
    """A finite number from JSON; DatasetError where it is none."""
    try:
        found = math.nan if isinstance(value, bool | str) else float(value)
    except (TypeError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise damaged(file, f"{where} is {reprlib.repr(value)}, not a number")
    return found


def vector(file: Path, where: str, value: Any, length: int = 3) -> list[float]:
    """A list of so many finite numbers from JSON; DatasetError where it is none."""
    if not isinstance(value, list) or len(value) != length:
        raise damaged(file, f"{where} is no list of {length} numbers")
    return [number(file, where, item) for item in value]


def mapping(file: Path, where: str, value: Any) -> dict[str, Any]:
    """An object from JSON; DatasetError where it is none."""
    if not isinstance(value, dict):
        raise damaged(file, f"{where} is no object")
    return value


def damaged(file: Path, cause: str) -> DatasetError:
    """A JSON file that does not hold what it should."""
    return DatasetError("json-damaged", file, cause, AGAIN)
