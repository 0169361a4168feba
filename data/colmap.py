"""COLMAP models, binary or text, wherever tools put them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch

from splat.data import colmap_binary, colmap_text
from splat.data.colmap_model import AGAIN, ModelPoints
from splat.data.frames import View, build_frames
from splat.data.images import list_images
from splat.data.intrinsics import Intrinsics
from splat.data.problems import DatasetError, Report
from splat.data.scene import Frame, Observations, Points, Scene, Tracks

_FILES = ("cameras", "images", "points3D")
_REDUCED = ("images_2", "images_4", "images_8")


@dataclass(frozen=True)
class Model:
    """A folder with a COLMAP model; `suffix` is ".bin" or ".txt" (COLMAP prefers the binary one)."""

    folder: Path
    suffix: str

    @property
    def format(self) -> ModuleType:
        """The module that walks its files."""
        return colmap_binary if self.suffix == ".bin" else colmap_text

    @property
    def images(self) -> int:
        """How many images it announces; cheap."""
        return self.format.count_images(self.folder)


def find_models(root: Path) -> list[Model]:
    """Every model in the places where COLMAP and the tools around it leave them, in a fixed order."""
    found = []
    for folder in _places(root):
        for suffix in (".bin", ".txt"):
            if all((folder / f"{name}{suffix}").is_file() for name in ("cameras", "images")):
                found.append(Model(folder, suffix))
                break
    return found


def _places(root: Path) -> Iterator[Path]:
    for parent in (root / "sparse", root / "colmap" / "sparse", root / "colmap", root):
        if parent.is_dir():
            yield parent
            if parent != root:
                yield from sorted(
                    child for child in parent.iterdir() if child.is_dir() and child.name != "sparse"
                )


class ColmapReader:
    """COLMAP datasets: a model, and the photographs from which it was made."""

    name = "colmap"

    def sniff(self, path: Path) -> bool:
        return path.is_dir() and bool(find_models(path) or _incomplete(path))

    def read(self, path: Path, report: Report) -> Scene:
        models = find_models(path)
        if not models and (incomplete := _incomplete(path)) is not None:
            raise incomplete
        model = max(models, key=lambda model: model.images)  # the first of equals
        if len(models) > 1:
            others = ", ".join(f"{_shown(m.folder, path)} has {m.images}" for m in models if m != model)
            chosen = f"{_shown(model.folder, path)} with {model.images} images is taken as the largest model"
            report.note("model-chosen", f"{chosen} ({others})")
        reconstruction, points = read_model(model)
        views, ids = _views(reconstruction, model, path, report)
        what = f"the model {_shown(model.folder, path)}"
        frames = build_frames(path, views, report, what=what)
        sparse = _points(points, frames, ids)
        if sparse is None:
            message = f"{model.folder}: the model has no points"
            report.warn(
                "no-points",
                message,
                "random points are used; keep points3D when exporting for better results",
            )
        place = {frame.name: position for position, frame in enumerate(frames)}
        seen_by = {
            place[view.name]: (identity, view.intrinsics)
            for view, identity in zip(views, ids, strict=True)
            if view.name in place and view.intrinsics is not None
        }
        observe = None if sparse is None else partial(_observations, model, seen_by, np.sort(points.ids))
        return Scene(path, path.resolve().name, self.name, frames, sparse, observe=observe)


def _shown(folder: Path, root: Path) -> str:
    return folder.relative_to(root).as_posix()


def _incomplete(root: Path) -> DatasetError | None:
    """What to say of a model that lacks one of its files; None where nothing hints at a model."""
    for folder in _places(root):
        for suffix in (".bin", ".txt"):
            present = [name for name in _FILES if (folder / f"{name}{suffix}").is_file()]
            if present:
                lacking = next(name for name in _FILES if name not in present)
                path = folder / f"{lacking}{suffix}"
                return DatasetError(
                    "model-incomplete", path, "no such file", "copy the whole COLMAP model again"
                )
    return None


def read_model(model: Model) -> tuple[Any, ModelPoints]:
    """pycolmap's Reconstruction with the cameras and poses of a model, and its points as arrays.

    Raises:
        DatasetError: a file is missing, truncated or damaged.
    """
    import pycolmap

    for name in _FILES:
        path = model.folder / f"{name}{model.suffix}"
        if not path.is_file():
            raise DatasetError("model-incomplete", path, "no such file", "copy the whole COLMAP model again")
    images, points = model.format.walk(model.folder)
    reconstruction = pycolmap.Reconstruction()
    with tempfile.TemporaryDirectory(prefix="splat-") as scratch:
        shutil.copyfile(model.folder / f"cameras{model.suffix}", Path(scratch) / f"cameras{model.suffix}")
        model.format.write_poses(Path(scratch), images)
        try:
            (reconstruction.read_binary if model.suffix == ".bin" else reconstruction.read_text)(scratch)
        except Exception as error:
            cause = "the COLMAP model is damaged"
            raise DatasetError("model-damaged", model.folder, cause, AGAIN, detail=str(error)) from error
    return reconstruction, points


def _views(
    reconstruction: Any, model: Model, root: Path, report: Report
) -> tuple[list[View], dict[int, str]]:
    """Posed images with their cameras, and image id -> name."""
    images = [image for _, image in sorted(reconstruction.images.items())]
    ids = {image.image_id: image.name.replace("\\", "/") for image in images}
    folder = _image_folder(root, model.folder, list(ids.values()), report)
    cameras = {
        identity: Intrinsics(
            camera.model.name, tuple(float(p) for p in camera.params), int(camera.width), int(camera.height)
        )
        for identity, camera in reconstruction.cameras.items()
    }
    views = []
    for image in images:
        pose = np.eye(4)
        pose[:3] = image.cam_from_world().matrix()
        name = ids[image.image_id]
        views.append(View(name, folder / name, cameras[image.camera_id], pose))
    return views, ids


def _image_folder(root: Path, model: Path, names: list[str], report: Report) -> Path:
    """The folder that holds most of the photographs; reduced copies only where the originals are not there."""
    parents = [model.parent, model.parent.parent] if model == root else []
    folders = [root / "images", root, root / "colmap" / "images", *(parent / "images" for parent in parents)]
    best = max(folders, key=lambda folder: sum((folder / name).is_file() for name in names))
    if any((best / name).is_file() for name in names):
        return best
    for reduced in _REDUCED:
        folder = root / reduced
        if list_images(folder) and any((folder / name).is_file() for name in names):
            message = f"{root}: images/ is not there; the reduced copies in {reduced}/ are used"
            report.warn("images-reduced", message, "add images/ to train from the full resolution")
            return folder
    return root / "images"


def _points(found: ModelPoints, frames: list[Frame], ids: dict[int, str]) -> Points | None:
    """Points by rising id, so that their order in the file does not matter; observations by frame number."""
    count = len(found.ids)
    if count == 0:
        return None
    order = np.argsort(found.ids, kind="stable")
    rank = np.empty(count, dtype=np.int64)
    rank[order] = np.arange(count)
    owner = rank[np.repeat(np.arange(count), np.diff(found.offsets))]
    number = {frame.name: index for index, frame in enumerate(frames)}
    known = np.array(sorted(ids), dtype=np.int64)
    frame_of = np.array([number.get(ids[identity], -1) for identity in known.tolist()], dtype=np.int64)
    place = np.searchsorted(known, found.images).clip(max=len(known) - 1)
    seen = np.where(known[place] == found.images, frame_of[place], -1) if len(known) else found.images * 0 - 1
    # A point observed twice in one image counts once.
    width = max(len(frames), 1)
    pairs = np.sort((owner * width + seen)[seen >= 0])
    owner, seen = np.divmod(pairs[np.diff(pairs, prepend=-1) > 0], width)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=count))])
    return Points(
        xyz=torch.from_numpy(found.xyz[order].copy()),
        rgb=torch.from_numpy(found.rgb[order].copy()),
        error=torch.from_numpy(found.error[order].astype(np.float32)),
        tracks=Tracks(torch.from_numpy(offsets), torch.from_numpy(seen)),
    )


def _observations(
    model: Model,
    images: dict[int, tuple[int, Intrinsics]],
    known: np.ndarray,
    frames: Sequence[int],
) -> Observations:
    """What these frames see of the model's points.

    Args:
        images: for each frame COLMAP's id of its image, and the camera in whose pixels the model speaks.
        known: [P] ids of the points, sorted; observations of others are left out.
    """
    wanted = {images[frame][0]: (frame, images[frame][1]) for frame in frames if frame in images}
    rows: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for identity, pixels, points in model.format.observations(model.folder):
        if identity not in wanted:
            continue
        frame, intrinsics = wanted[identity]
        place = np.searchsorted(known, points).clip(max=len(known) - 1)
        seen = np.flatnonzero(known[place] == points)
        _, first = np.unique(
            place[seen], return_index=True
        )  # a point observed twice in one image counts once
        seen = seen[first]
        rays = np.asarray(intrinsics.colmap_camera().cam_from_img(pixels[seen]), np.float64).reshape(-1, 2)
        valid = np.isfinite(rays).all(1)
        rows.append((np.full(int(valid.sum()), frame, np.int64), place[seen][valid], rays[valid]))
    if not rows:
        rows = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty((0, 2)))]
    columns = (torch.from_numpy(np.concatenate(column)) for column in zip(*rows, strict=True))
    return Observations(*columns)
