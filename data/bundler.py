"""Bundler's bundle.out with the list of its images; COLMAP, VisualSFM and others write it too.

Conventions from the Bundler v0.4 user's manual: P = R X + t, p = -P / P.z, p' = f (1 + k1 |p|^2 + k2 |p|^4) p in
pixels from the image's centre, x to the right and y up; the camera looks along its negative z. A camera that was not
registered has a focal length of 0. The observed positions of points are not used.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from splat.data.frames import View, build_frames
from splat.data.intrinsics import Intrinsics
from splat.data.locate import Photographs
from splat.data.poses import OPENGL
from splat.data.problems import DatasetError, Report
from splat.data.scene import Frame, Points, Scene, Tracks

_MAGIC = b"# Bundle file"
_AGAIN = "copy the bundle file again, or export it again"
_LISTS = ("list.txt", "{stem}.list.txt", "{stem}_list.txt", "image_list.txt", "images.txt")


class BundlerReader:
    """A .out file in the folder, in its bundle/, or given itself; the list of images beside or above it."""

    name = "bundler"

    def sniff(self, path: Path) -> bool:
        return bool(_files(path))

    def read(self, path: Path, report: Report) -> Scene:
        files = _files(path)
        file = next((file for file in files if file.name == "bundle.out"), files[-1])
        root = file.parent.parent if file.parent.name == "bundle" else file.parent
        names = _names(file, root)
        numbers = _Numbers(file)
        cameras, points = numbers.integer("the number of cameras"), numbers.integer("the number of points")
        if cameras != len(names):
            cause = f"holds {cameras} cameras, but its list names {len(names)} images"
            raise DatasetError("bundler-damaged", file, cause, "put the list of the same run beside it")
        photographs = Photographs(root, ("images", "", "prepare"))
        views: dict[int, View] = {}
        for index, name in enumerate(names):
            view = _view(numbers.take(15, f"camera {index}"), name, photographs)
            if view is not None:
                views[index] = view
        if not views:
            raise DatasetError("bundler-damaged", file, "no camera in it is registered", "match more images")
        if len(views) < cameras:
            message = f"{file}: {cameras - len(views)} of {cameras} images are not registered"
            report.warn("unregistered", message, "they are not used; photographs that overlap more get poses")
        frames = build_frames(root, list(views.values()), report, what=file.name)
        sparse = _points(numbers, points, frames, {index: view.name for index, view in views.items()})
        if sparse is None:
            report.warn("no-points", f"{file}: holds no points", "random points are used")
        return Scene(path, root.resolve().name, self.name, frames, sparse)


def _files(path: Path) -> list[Path]:
    """Bundle files there, by name: bundle_NNN.out are steps on the way to the last."""
    if path.is_file():
        candidates = [path]
    else:
        candidates = sorted(path.glob("*.out")) or sorted((path / "bundle").glob("*.out"))
    return [file for file in candidates if file.suffix == ".out" and _begins(file)]


def _begins(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return stream.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def _names(file: Path, root: Path) -> list[str]:
    """Names of the images in the order of the cameras: the first word of each line of the list."""
    for folder in dict.fromkeys((file.parent, root)):
        for pattern in _LISTS:
            candidate = folder / pattern.format(stem=file.stem)
            if candidate.is_file():
                lines = candidate.read_text(encoding="utf-8", errors="replace").splitlines()
                # A focal length may follow the name: "name 0 700.5".
                return [_without_focal(line) for line in lines if line.strip()]
    cause = "the list of its images is not beside it"
    raise DatasetError("model-incomplete", file, cause, f"put it there as {root / 'list.txt'}, a name a line")


def _without_focal(line: str) -> str:
    words = line.split()
    if len(words) >= 3 and words[-2] == "0":
        words = words[:-2]
    elif len(words) == 2 and words[-1] == "0":
        words = words[:-1]
    return " ".join(words)


class _Numbers:
    """The numbers of a bundle file, one after the other."""

    def __init__(self, file: Path) -> None:
        self._file, self._at = file, 0
        try:
            _, _, body = file.read_bytes().partition(b"\n")
            self._values = np.array(body.split(), dtype=np.float64)
        except (OSError, ValueError) as error:
            raise self._damaged(f"holds what is no number ({error})") from error

    def take(self, count: int, what: str) -> np.ndarray:
        """[count] finite numbers."""
        values = self._values[self._at : self._at + count]
        if len(values) < count:
            raise self._damaged(f"is truncated at {what}")
        if not np.isfinite(values).all():
            raise self._damaged(f"{what} is not finite")
        self._at += count
        return values

    def integer(self, what: str) -> int:
        value = float(self.take(1, what)[0])
        if value != int(value) or not 0 <= value <= len(self._values):
            raise self._damaged(f"{what} is {value:g}")
        return int(value)

    def _damaged(self, cause: str) -> DatasetError:
        return DatasetError("bundler-damaged", self._file, cause, _AGAIN)


def _view(values: np.ndarray, name: str, photographs: Photographs) -> View | None:
    """A camera of 15 numbers; None where it was not registered."""
    focal, k1, k2 = (float(value) for value in values[:3])
    rotation = values[3:12].reshape(3, 3)
    if focal == 0 or not rotation.any():
        return None
    pose = np.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, values[12:]
    found, path = photographs.find(name)

    def sized(width: int, height: int) -> Intrinsics:
        return Intrinsics("RADIAL", (focal, width / 2, height / 2, k1, k2), width, height)

    return View(found, path, None, OPENGL @ pose, sized)


def _points(numbers: _Numbers, count: int, frames: list[Frame], names: dict[int, str]) -> Points | None:
    if count == 0:
        return None
    place = {frame.name: index for index, frame in enumerate(frames)}
    frame_of = {camera: place[name] for camera, name in names.items() if name in place}
    heads = np.empty((count, 6))
    seen: list[list[int]] = []
    for point in range(count):
        heads[point] = numbers.take(6, f"point {point}")
        length = numbers.integer(f"the number of views of point {point}")
        cameras = numbers.take(4 * length, f"the views of point {point}")[::4].astype(np.int64)
        seen.append(sorted({frame_of[camera] for camera in cameras.tolist() if camera in frame_of}))
    offsets = torch.tensor([0, *np.cumsum([len(frames) for frames in seen])], dtype=torch.int64)
    flat = torch.tensor([frame for frames in seen for frame in frames], dtype=torch.int64)
    colours = torch.from_numpy(heads[:, 3:].clip(0, 255).astype(np.uint8))
    return Points(torch.from_numpy(heads[:, :3].copy()), colours, tracks=Tracks(offsets, flat))
