"""Reading streamed SOG: a tree of regions, each in several levels of detail, in one scene a level or part of it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from splat.codecs.bounded import safe_name
from splat.codecs.format import Decoded, Metadata
from splat.codecs.sog_read import FolderSource, Meta, read_scene
from splat.core import DataError, Gaussians

_LARGEST_DEPTH = 64


@dataclass
class _Run:
    """Gaussians [offset, offset + count) of a file: one region at one level."""

    file: int
    offset: int
    count: int
    level: int
    finest: int  # of the levels that the region has


def read_streamed(path: Path) -> Decoded:
    """Every region at the finest level whose file is there, and the environment if there is one.

    Args:
        path: the lod-meta.json.
    """
    meta = Meta.parse(path, path.read_bytes())
    names = _names(path, meta)
    present = [(path.parent / name).is_file() for name in names]
    runs = _choose(path, meta, present)
    if not runs:
        raise DataError(f"{path}: none of the scenes that it names is there; copy the whole folder")

    scenes: dict[int, Decoded] = {}
    parts = []
    for run in runs:
        if run.file not in scenes:
            scenes[run.file] = _scene(path, names[run.file])
        whole = scenes[run.file].gaussians
        if run.offset + run.count > len(whole):
            raise DataError(
                f"{path}: damaged: it names Gaussians up to {run.offset + run.count:,} of {names[run.file]!r}, "
                f"which has {len(whole):,}"
            )
        parts.append(whole.select(torch.arange(run.offset, run.offset + run.count)))
    notes = []
    coarser = [run for run in runs if run.level > run.finest]
    if coarser:
        notes.append(
            f"read at level of detail {min(r.level for r in coarser)}: the files of finer levels, from "
            f"{min(r.finest for r in coarser)} on, are not there ({len(coarser)} of {len(runs)} regions)"
        )
    environment = meta.values.get("environment")
    if isinstance(environment, str):
        if (path.parent / safe_name(path, environment)).is_file():
            parts.append(_scene(path, environment).gaussians)
        else:
            notes.append(f"the environment {environment!r} is not there: left out")
    first = scenes[runs[0].file]
    metadata: Metadata = {**first.metadata, "comments": []}
    try:
        return Decoded(Gaussians.cat(_same_degree(parts)), metadata, notes)
    except ValueError as error:
        raise DataError(f"{path}: its scenes do not belong together ({error})") from None


def _scene(path: Path, name: str) -> Decoded:
    """The scene whose meta.json is `name` beside the lod-meta.json."""
    inner = path.parent / safe_name(path, name)
    try:
        return read_scene(inner, FolderSource(inner, inner.parent), inner.name)
    except DataError as error:
        # The file that the user named comes first.
        raise DataError(f"{path}: {error}") from None


def _names(path: Path, meta: Meta) -> list[str]:
    names = meta.values.get("filenames")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{path}: damaged: filenames must be a list of names")
    return [safe_name(path, name) for name in names]


def _choose(path: Path, meta: Meta, present: list[bool]) -> list[_Run]:
    """The finest run of every leaf of the tree whose file is there; each Gaussian of a file once."""
    runs = []
    waiting = [(meta.child("tree"), 0)]
    while waiting:
        node, depth = waiting.pop()
        children = node.values.get("children")
        if isinstance(children, list) and children:
            if depth == _LARGEST_DEPTH:
                raise DataError(f"{path}: damaged: a tree deeper than {_LARGEST_DEPTH} levels")
            # The last first, so that the leaves come in the file's order.
            waiting += [(Meta(path, child, "tree.children"), depth + 1) for child in reversed(children)]
        elif "lods" in node:
            levels = sorted(_runs(path, node.child("lods"), len(present)), key=lambda run: run.level)
            there = [run for run in levels if present[run.file]]
            if there:
                there[0].finest = levels[0].level
                runs.append(there[0])
    taken: dict[int, list[tuple[int, int]]] = {}
    for run in runs:
        taken.setdefault(run.file, []).append((run.offset, run.offset + run.count))
    for intervals in taken.values():
        intervals.sort()
        if any(a[1] > b[0] for a, b in pairwise(intervals)):
            raise DataError(f"{path}: damaged: two regions share Gaussians")
    return runs


def _runs(path: Path, lods: Meta, files: int) -> list[_Run]:
    runs = []
    for level in lods.values:
        entry: Any = lods.child(level)
        run = _Run(entry.number("file"), entry.number("offset"), entry.number("count"), 0, 0)
        if not level.isdecimal() or len(level) > 3 or run.file >= files:
            raise DataError(
                f"{path}: damaged: level {level[:8]!r} of a region names file {run.file} of {files}"
            )
        run.level = int(level)
        runs.append(run)
    return runs


def _same_degree(parts: list[Gaussians]) -> list[Gaussians]:
    """All with the harmonics of the highest degree among them, zeros where a part has fewer."""
    most = max(part.sh.shape[1] for part in parts)
    for part in parts:
        missing = most - part.sh.shape[1]
        part.sh = torch.cat([part.sh, part.sh.new_zeros(len(part), missing, 3)], 1)
    return parts
