"""What RUN_OR_FILE names: a trained scene, ready to be drawn, scored or exported."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from splat.core import Camera, DataError, Gaussians, UsageError

if TYPE_CHECKING:
    from splat.core.heads import Head
    from splat.data import Dataset
    from splat.training.session import Session

Views = Literal["all", "train", "test"]
Colour = tuple[float, float, float]
BLACK: Colour = (0.0, 0.0, 0.0)


@dataclass
class Loaded:
    """A trained scene.

    Attributes:
        path: what the user named.
        gaussians: as drawn: every strategy's transform is baked in.
        metadata: what the file, or the strategies of the run, say of the scene.
        offset: [3] float64, world units; the scene's own coordinates are the dataset's minus this.
        data: the dataset that the user named, or None.
        run: the run's folder, or None for a file.
        session: the run in memory, or None for a file.
        heads: of a file: what its pictures go through; those of a run are in its session.
    """

    path: Path
    gaussians: Gaussians
    metadata: dict[str, Any]
    offset: Tensor
    data: Path | None = None
    run: Path | None = None
    session: Session | None = None
    heads: tuple[Head, ...] = ()

    @property
    def background(self) -> Colour:
        """What is behind the scene unless the user says otherwise."""
        return BLACK if self.session is None else self.session.background

    def draw(self, camera: Camera, background: Colour | None = None) -> Tensor:
        """[H, W, 3] the scene as `camera`, in the scene's own coordinates, sees it; not clamped."""
        from splat import raster

        behind = torch.tensor(background or self.background, device=self.gaussians.device)
        camera = camera.to(self.gaussians.device)
        if self.session is not None:
            return self.session.trainer.draw(self.gaussians, camera, behind)
        with torch.no_grad():
            options = raster.RenderOptions(background=behind)
            return raster.draw(self.gaussians, camera, options, self.heads).image

    def local(self, camera: Camera, offset: Tensor | None = None) -> Camera:
        """`camera`, given in coordinates that are the dataset's minus `offset`, in the scene's own."""
        shift = self.offset - (torch.zeros_like(self.offset) if offset is None else offset)
        if not bool(shift.any()):
            return camera
        pose = camera.world_to_camera.double().clone()
        pose[:3, 3] += pose[:3, :3] @ shift
        return camera.with_pose(pose.to(camera.world_to_camera.dtype))

    def dataset(self, downscale: float | None = None, background: Colour | None = None) -> Dataset:
        """The run's dataset, or that of --data; as the run was trained unless given otherwise."""
        from splat.data import Dataset, read_scene

        if self.session is not None:
            config, own = self.session.config, self.session.dataset
            if downscale in (None, config.downscale) and background in (None, self.background):
                return own
            return Dataset(
                own.scene,
                config.downscale if downscale is None else downscale,
                config.eval,
                background=background or self.background,
                views=config.views,
                test_every=config.test_every,
            )
        if self.data is not None:
            scene = read_scene(self.data)
        else:
            raise UsageError(f"{self.path}: a scene file names no dataset; give one with --data DATA")
        return Dataset(
            scene, 1.0 if downscale is None else downscale, True, background=background or self.background
        )

    def cameras(self, which: Views, downscale: float | None = None) -> list[Camera]:
        """Cameras of the dataset, in the scene's own coordinates."""
        dataset = self.dataset(downscale)
        return [self.local(dataset.camera(i), dataset.offset) for i in choose(dataset, which, self.path)]

    def place(self, kind: str) -> Path:
        """The folder for what is made of the scene: inside the run, or beside nothing in particular."""
        return self.run / kind if self.run is not None else Path(kind) / self.path.stem


def choose(dataset: Dataset, which: Views, path: Path) -> list[int]:
    """Numbers of the dataset's views; UsageError where none is held out and those were asked for."""
    if which == "all":
        return sorted([*dataset.train, *dataset.test])
    if which == "test" and not dataset.test:
        raise UsageError(f"{path}: no view is held out (the run had no --eval); ask for train or all")
    return list(dataset.train if which == "train" else dataset.test)


def load(path: Path, device: str = "auto", data: Path | None = None) -> Loaded:
    """Read RUN_OR_FILE: a run's folder, one of its checkpoints, or a scene, a file or a folder.

    Args:
        data: the dataset to go with a file; for a run, where its own lies now if it was moved.

    Raises:
        DataError: there is nothing of the kind, or it is damaged.
    """
    from splat import codecs
    from splat.training import checkpoint
    from splat.training.runfolder import RunFolder

    if not path.exists():
        raise DataError(f"{path}: no such run or file; check the spelling")
    if path.is_dir() and codecs.sniff(path) is None:
        folder = RunFolder.open(path)
        state, warnings = checkpoint.load_latest(folder)
        for warning in warnings:
            print(f"splat: warning: {warning}", file=sys.stderr)
        if state is None:
            raise DataError(f"{path}: the run holds no checkpoint that can be read; train it again")
        return _run(path, folder, state, device, data)
    if path.suffix == ".pt":
        return _run(path, RunFolder.open(path.resolve().parent.parent), checkpoint.load(path), device, data)
    return _file(path, device, data)


def _file(path: Path, device: str, data: Path | None) -> Loaded:
    from splat import codecs
    from splat.training.session import choose_device

    gaussians, metadata = codecs.decode(path)
    offset = torch.tensor(metadata.get("offset") or (0.0, 0.0, 0.0), dtype=torch.float64)
    gaussians = gaussians.to(choose_device(device))
    heads: tuple[Head, ...] = ()
    if metadata.get("heads"):
        from splat.strategies import registry

        heads, notes = registry.heads(metadata["heads"], gaussians.device)
        for note in notes:
            print(f"splat: warning: {path}: {note}", file=sys.stderr)
    return Loaded(path, gaussians, metadata, offset, data, heads=heads)


def _run(path: Path, folder: Any, state: dict[str, Any], device: str, data: Path | None) -> Loaded:
    from splat.strategies import registry
    from splat.training.session import assemble, open_dataset

    config = replace(folder.read_config(), device=device, backend="auto")
    strategies = registry.build(config.strategies, config.options)
    try:
        dataset = open_dataset(data or folder.read_data(), config)
    except DataError as error:
        exported = folder.exports / "point_cloud.ply"
        if data is not None or path.suffix == ".pt" or not exported.exists():
            raise
        print(f"splat: warning: {error}; {exported} is used", file=sys.stderr)
        return replace(_file(exported, device, data), path=path, run=path)
    session = assemble(config, dataset, strategies, state=state)
    baked = session.trainer.baked()
    return Loaded(path, baked, {"step": state["step"]}, dataset.offset, data, folder.path, session)
