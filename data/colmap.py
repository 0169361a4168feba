"""COLMAP models, binary or text, wherever tools put them."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from splat.data import colmap_binary
from splat.data.frames import View, build_frames
from splat.data.images import list_images
from splat.data.intrinsics import MODELS, Intrinsics
from splat.data.problems import DatasetError, Report
from splat.data.scene import Frame, Points, Scene, Tracks

_FILES = ("cameras", "images", "points3D")
_AGAIN = "copy the model again, or run COLMAP's mapper again"
_REDUCED = ("images_2", "images_4", "images_8")


@dataclass(frozen=True)
class Model:
    """A folder with a COLMAP model; `suffix` is ".bin" or ".txt" (COLMAP prefers the binary one)."""

    folder: Path
    suffix: str

    @property
    def images(self) -> int:
        """How many images it announces; cheap."""
        if self.suffix == ".bin":
            return colmap_binary.count_images(self.folder)
        lines = (self.folder / "images.txt").read_bytes().splitlines()
        return sum(not line.startswith(b"#") for line in lines) // 2


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
        reconstruction, binary = read_model(model)
        views, ids, unposed = _views(reconstruction, model, path, report)
        if unposed:
            report.note("unregistered", f"{unposed} images of the model have no pose and are left out")
        what = f"the model {_shown(model.folder, path)}"
        frames = build_frames(path, views, report, what=what)
        points = _points(binary, frames, ids)
        if points is None:
            message = f"{model.folder}: the model has no points"
            report.warn(
                "no-points",
                message,
                "random points are used; keep points3D when exporting for better results",
            )
        return Scene(path, path.resolve().name, self.name, frames, points)


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


def read_model(model: Model):
    """pycolmap's Reconstruction of a model, and its points as arrays.

    Raises:
        DatasetError: a file is missing, truncated or damaged.
    """
    import pycolmap

    folder = model.folder
    for name in _FILES:
        path = folder / f"{name}{model.suffix}"
        if not path.is_file():
            raise DatasetError("model-incomplete", path, "no such file", "copy the whole COLMAP model again")
    if model.suffix == ".bin":
        binary = colmap_binary.validate(folder)
        reconstruction = pycolmap.Reconstruction()
        try:
            reconstruction.read_binary(str(folder))
        except Exception as error:
            raise _refused(folder, error) from error
        return reconstruction, binary
    _check_camera_models(folder / "cameras.txt")
    reconstruction = pycolmap.Reconstruction()
    with tempfile.TemporaryDirectory(prefix="splat-") as scratch:
        try:
            reconstruction.read_text(str(folder))
            _check_counts(folder, reconstruction)
            reconstruction.write_binary(scratch)
        except DatasetError:
            raise
        except Exception as error:
            raise _refused(folder, error) from error
        try:
            return reconstruction, colmap_binary.validate(Path(scratch))
        except DatasetError as error:  # of the user's file, not of its copy
            path = folder / error.path.with_suffix(".txt").name
            raise DatasetError(error.code, path, error.cause, error.remedy) from error


def _check_camera_models(path: Path) -> None:
    """Name a camera model that nobody knows: pycolmap only says that there is one."""
    known = [name for name, *_ in MODELS]
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        words = line.split()
        if len(words) > 1 and not words[0].startswith("#") and words[1] not in known:
            remedy = f"use one of {', '.join(known)}"
            raise DatasetError("camera-model", path, f"unknown camera model {words[1]!r}", remedy)


def _check_counts(folder: Path, reconstruction) -> None:
    """A text file that ends early is still valid text: what it announces in its head must be there."""
    found = {
        "cameras": reconstruction.num_cameras(),
        "images": reconstruction.num_images(),
        "points3D": reconstruction.num_points3D(),
    }
    for name, count in found.items():
        path = folder / f"{name}.txt"
        announced = re.search(rb"^# Number of \w+: (\d+)", path.read_bytes()[:4096], re.MULTILINE)
        if announced and count < int(announced[1]):
            cause = f"truncated: it announces {int(announced[1])} {name} and holds {count}"
            raise DatasetError("model-damaged", path, cause, _AGAIN)


def _refused(folder: Path, error: Exception) -> DatasetError:
    return DatasetError("model-damaged", folder, "the COLMAP model is damaged", _AGAIN, detail=str(error))


def _views(
    reconstruction, model: Model, root: Path, report: Report
) -> tuple[list[View], dict[int, str], int]:
    """Posed images with their cameras, image id -> name, and the number of images without a pose."""
    posed = [image for _, image in sorted(reconstruction.images.items()) if image.has_pose]
    names = [image.name.replace("\\", "/") for image in posed]
    folder = _image_folder(root, model.folder, names, report)
    cameras = {
        identity: Intrinsics(
            camera.model.name, tuple(float(p) for p in camera.params), int(camera.width), int(camera.height)
        )
        for identity, camera in reconstruction.cameras.items()
    }
    views = []
    for image, name in zip(posed, names, strict=True):
        pose = np.eye(4)
        pose[:3] = image.cam_from_world().matrix()
        views.append(View(name, folder / name, cameras[image.camera_id], pose))
    ids = {image.image_id: name for image, name in zip(posed, names, strict=True)}
    return views, ids, reconstruction.num_images() - len(posed)


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


def _points(binary: colmap_binary.BinaryPoints, frames: list[Frame], ids: dict[int, str]) -> Points | None:
    if len(binary.ids) == 0:
        return None
    order = np.argsort(binary.ids, kind="stable")  # independent of the order in the file
    counts = np.diff(binary.offsets)
    position = {frame.name: index for index, frame in enumerate(frames)}
    largest = (
        max((*ids, *binary.images.tolist()), default=0) if len(ids) < 1 << 20 else int(binary.images.max())
    )
    lookup = np.full(largest + 1, -1, dtype=np.int64)
    for identity, name in ids.items():
        lookup[identity] = position.get(name, -1)
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    owner = rank[np.repeat(np.arange(len(order)), counts)]
    seen = lookup[binary.images]
    kept = seen >= 0
    owner, seen = owner[kept], seen[kept]
    # Sorted by point, then frame; a point observed twice in one image counts once.
    pairs = np.unique(np.stack([owner, seen], 1), axis=0) if len(seen) else np.empty((0, 2), np.int64)
    offsets = np.concatenate([[0], np.cumsum(np.bincount(pairs[:, 0], minlength=len(order)))])
    return Points(
        xyz=torch.from_numpy(binary.xyz[order].copy()),
        rgb=torch.from_numpy(binary.rgb[order].copy()),
        error=torch.from_numpy(binary.error[order].astype(np.float32)),
        tracks=Tracks(torch.from_numpy(offsets), torch.from_numpy(pairs[:, 1].copy())),
    )
