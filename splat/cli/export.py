"""`splat export`: a trained scene in another format."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from splat.cli.command import Common, OptionalPath, parse, size


@dataclass
class Export(Common):
    """Write a scene in the format of the extension: .ply (INRIA's layout, which every viewer opens).

    RUN_OR_FILE is a run's folder (its last state), one of its checkpoints, or a scene file to convert.
    The scene keeps the dataset's frame and units; where it lies too far from the origin for float32, it
    is written in local coordinates and the offset is noted in the file.

    Examples:
      splat export runs/garden/cpu-20260131-101500 garden.ply
      splat export runs/garden/cpu-20260131-101500/ckpts/step_7000.pt garden-7000.ply
      splat export scan.splat scan.ply
    """

    scene: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_FILE")]
    """A run's folder, a checkpoint or a scene file."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT.EXT")]
    """The file to write; an existing one is replaced once the new one is whole."""
    data: OptionalPath = None
    """Where the dataset of the run lies now, if it was moved."""


def main(argv: list[str]) -> int:
    args = parse(Export, "export", argv)
    from splat import codecs
    from splat.cli.scene import load
    from splat.core import UsageError

    known = codecs.extensions()
    if not args.out.name.lower().endswith(known):
        raise UsageError(f"{args.out}: no format has this extension; known: {', '.join(known)}")
    loaded = load(args.scene, "cpu", args.data)
    notes: list[str] = []
    if loaded.session is not None:
        from splat.training.export import exported

        gaussians, metadata, note = exported(loaded.session)
        notes += [note] if note else []
    else:
        gaussians, metadata = loaded.gaussians, loaded.metadata
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for note in notes + codecs.encode(gaussians, args.out, metadata):
        print(f"note: {note}")
    print(f"{len(gaussians):,} Gaussians, {size(args.out.stat().st_size)}: {args.out}")
    return 0
