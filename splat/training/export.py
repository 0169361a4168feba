"""The trained scene as a file, in the coordinates of the dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

import splat
from splat.core import Gaussians
from splat.core.heads import Head
from splat.core.world import place
from splat.training.runfolder import RunFolder, require_disk
from splat.training.session import Session


def export_scene(
    session: Session, folder: RunFolder, name: str = "point_cloud.ply"
) -> tuple[Path, str | None]:
    """Write the scene as it is drawn to exports/NAME, whole or not at all; returns its path and a note."""
    from splat import codecs

    scene, known, note = exported(session)
    require_disk(folder.path, sum(v.numel() * v.element_size() for _, v in scene.named_tensors()))
    path = folder.exports / name
    codecs.encode(scene, path, known)  # whole or not at all
    return path, note


def exported(session: Session) -> tuple[Gaussians, dict[str, Any], str | None]:
    """The scene with every transform baked in, what a codec should know of it, and a note for the user.

    A scene that was recentred is put back where float32 allows; otherwise metadata["offset"] holds the
    float64 [x, y, z] to add to the means.
    """
    scene, known = baked(session)
    placement = place(scene, session.dataset.offset)
    if placement.offset is not None:
        known["offset"] = placement.offset.tolist()
    return placement.gaussians, known, placement.note


def baked(session: Session) -> tuple[Gaussians, dict[str, Any]]:
    """The scene with every transform baked in, on the CPU, less the dataset's offset; what a codec should know."""
    trainer = session.trainer
    return with_features(trainer.baked().to("cpu"), trainer.heads()), metadata(session)


def metadata(session: Session) -> dict[str, Any]:
    """What a codec should know of the baked scene, its own from now on: nothing of it changes with the run."""
    trainer = session.trainer
    found: dict[str, Any] = {"generator": f"splat {splat.__version__}", "step": trainer.ctx.step}
    for strategy in trainer.strategies:
        found.update(strategy.export(trainer.ctx))
    found["heads"] = {head.name: head.saved for head in trainer.heads()}
    return _copied(found)


def with_features(scene: Gaussians, heads: Sequence[Head]) -> Gaussians:
    """The scene with those of its extras that its heads read, and no others."""
    read = {head.features for head in heads}
    return replace(scene, extras={name: value for name, value in scene.extras.items() if name in read})


def _copied(value: Any) -> Any:
    """The same with tensors of its own, on the CPU."""
    if isinstance(value, dict):
        return {key: _copied(inner) for key, inner in value.items()}
    return value.detach().to("cpu", copy=True) if isinstance(value, Tensor) else value
