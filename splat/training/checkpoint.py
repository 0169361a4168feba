"""Whole states of a run in ckpts/step_N.pt."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from splat.core import DataError
from splat.core.files import replacing
from splat.training.runfolder import RunFolder, require_disk

FORMAT = 1


def path_of(folder: RunFolder, step: int) -> Path:
    return folder.checkpoints / f"step_{step}.pt"


def listed(folder: RunFolder) -> list[tuple[int, Path]]:
    """(step, file) of every checkpoint, in order of step."""
    found = [(re.fullmatch(r"step_(\d+)\.pt", p.name), p) for p in folder.checkpoints.glob("step_*.pt")]
    return sorted((int(m[1]), p) for m, p in found if m)


def save(folder: RunFolder, step: int, state: dict[str, Any]) -> Path:
    """Write the state after `step` steps and drop older ones: the last two and scored ones stay."""
    require_disk(folder.path, sum(t.numel() * t.element_size() for t in _tensors(state)))
    path = path_of(folder, step)
    with replacing(path) as file:
        torch.save({"format": FORMAT, "step": step, **state}, file)
    for old_step, old in listed(folder)[:-2]:
        if not (folder.stats / f"eval_{old_step}.json").exists():
            old.unlink(missing_ok=True)
    for leftover in folder.checkpoints.glob(".step_*.tmp"):
        leftover.unlink(missing_ok=True)
    return path


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint, with its own path as `path`; DataError if it is missing, damaged or of another format."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such checkpoint") from error
    except Exception as error:  # torch raises many types for a damaged file
        raise DataError(f"{path}: damaged or not a checkpoint\n{type(error).__name__}: {error}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise DataError(f"{path}: not a checkpoint of this version of splat")
    return {**state, "path": path}


def load_latest(folder: RunFolder) -> tuple[dict[str, Any] | None, list[str]]:
    """The newest checkpoint that can be read (None if there is none) and a warning for each that cannot."""
    warnings: list[str] = []
    for _, path in reversed(listed(folder)):
        try:
            return load(path), warnings
        except DataError as error:
            warnings.append(f"{str(error).splitlines()[0]}; the one before it is used")
    return None, warnings


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            yield from _tensors(item)
