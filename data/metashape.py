"""Agisoft Metashape's cameras.xml (File, Export, Export Cameras, Agisoft XML).

Conventions from Metashape's user manual (appendix "Camera models"): a camera's transform leads from its own axes
(right, down, forwards) to those of the chunk, that of its component or chunk on to the world; the principal point is
an offset from the image's centre; x_d = x (1 + k1 r^2 + ...) + p1 (r^2 + 2 x^2) + 2 p2 x y, so that p1 and p2 are
OpenCV's p2 and p1; u = w / 2 + cx + x_d (f + b1) + y_d b2, v = h / 2 + cy + y_d f. Fisheye cameras are the same
with r = the angle from the axis. That the transform of a georeferenced chunk leads to geocentric coordinates, in
metres, is from the makers' forum: point clouds are exported in other coordinates then, and are told and left out.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from splat.data.brown import brown
from splat.data.frames import View, build_frames
from splat.data.intrinsics import Intrinsics
from splat.data.locate import Photographs
from splat.data.ply import points_beside
from splat.data.poses import world_to_camera
from splat.data.problems import DatasetError, Report
from splat.data.scene import Scene

_AGAIN = "export it again: File, Export, Export Cameras, Agisoft XML"
_SKEW = 0.5  # pixels: half of what the structure from motion itself leaves
_FISHEYES = ("fisheye", "equidistant_fisheye")


class MetashapeReader:
    """An xml file of cameras beside the photographs, and a PLY where there is just one."""

    name = "metashape"

    def sniff(self, path: Path) -> bool:
        return bool(_files(path))

    def read(self, path: Path, report: Report) -> Scene:
        files = _files(path)
        if len(files) > 1:
            cause = f"{len(files)} exports of cameras ({', '.join(file.name for file in files)})"
            raise DatasetError("several-models", path, cause, f"name one: {files[0]}")
        file = files[0]
        root = file.parent
        chunk = _Chunk(file, report)
        photographs = Photographs(root)
        views = []
        for camera in chunk.cameras:
            try:
                views.append(chunk.view(camera, photographs))
            except DatasetError as error:
                report.error(error)
        frames = build_frames(root, views, report, what=file.name)
        points = points_beside(root, frames, report, [chunk.to_world])
        return Scene(path, root.resolve().name, self.name, frames, points)


def _files(path: Path) -> list[Path]:
    candidates = sorted(path.glob("*.xml")) if path.is_dir() else [path] if path.suffix == ".xml" else []
    found = []
    for file in candidates:
        try:
            with file.open("rb") as stream:
                head = stream.read(4096)
        except OSError:
            continue
        if b"<document" in head and b"<chunk" in head:
            found.append(file)
    return found


class _Chunk:
    """The chunk and component with most posed cameras.

    Attributes:
        cameras: its posed and enabled cameras.
        to_world: [4, 4] float64 similarity from its coordinates to the world's.
    """

    def __init__(self, file: Path, report: Report) -> None:
        self._file, self._report = file, report
        try:
            root = ElementTree.parse(file).getroot()
        except (ElementTree.ParseError, OSError, ValueError, LookupError) as error:
            raise _damaged(file, f"is not valid XML ({error})") from error
        chunks = root.findall("chunk")
        chunk = max(chunks, key=lambda chunk: len(_posed(chunk)), default=None)
        if chunk is None or not _posed(chunk):
            raise DatasetError(
                "metashape-damaged", file, "no camera in it has a pose", "align the photographs"
            )
        if len(chunks) > 1:
            report.note("model-chosen", f"{file}: {chunk.get('label')!r} is taken as the largest chunk")
        posed = _posed(chunk)
        ((component, count),) = Counter(camera.get("component_id") for camera in posed).most_common(1)
        if count < len(posed):
            message = f"{file}: {len(posed) - count} cameras belong to other components than most"
            report.warn("other-components", message, "they are left out; align all in one component")
        self.cameras = [camera for camera in posed if camera.get("component_id") == component]
        places = [chunk.find(f"components/component[@id='{component}']") if component else None, chunk]
        found = [place.find("transform") for place in places if place is not None]
        self.to_world = self._similarity(next((t for t in found if t is not None), None))
        self._sensors = {sensor.get("id"): sensor for sensor in chunk.iter("sensor")}
        self._skewed: set[str | None] = set()

    def view(self, camera: ElementTree.Element, photographs: Photographs) -> View:
        label = camera.get("label") or ""
        if not label:
            raise _damaged(self._file, f"camera {camera.get('id')} has no label")
        name, path = photographs.find(label)
        inner = self._numbers(camera.find("transform"), f"the transform of {label}", 16).reshape(4, 4)
        try:
            # The similarity scales the rotation as well; world_to_camera takes that out again.
            pose = world_to_camera(self.to_world @ inner)
        except ValueError as error:
            raise DatasetError("pose", self._file, f"the pose of {label} is {error}", _AGAIN) from error
        return View(name, path, self._intrinsics(camera.get("sensor_id"), label), pose)

    def _intrinsics(self, identity: str | None, label: str) -> Intrinsics:
        sensor = self._sensors.get(identity)
        found = [] if sensor is None else sensor.findall("calibration")
        adjusted = [item for item in found if item.get("class") == "adjusted"]
        if sensor is None or not found:
            raise _damaged(self._file, f"the camera of {label} (sensor {identity}) has no calibration")
        calibration = (adjusted or found)[-1]
        size = calibration.find("resolution")
        size = size if size is not None else sensor.find("resolution")
        if size is None:
            raise _damaged(self._file, f"the camera of {label} has no resolution")
        width, height = (
            self._number(size.get(side), f"the {side} of {label}") for side in ("width", "height")
        )

        def get(key: str) -> float:
            text = calibration.findtext(key)
            return 0.0 if text is None else self._number(text, f"{key} of sensor {identity}")

        focal = get("f")
        pinhole = (focal + get("b1"), focal, width / 2 + get("cx"), height / 2 + get("cy"))
        k1, k2, k3, k4 = (get(f"k{i}") for i in range(1, 5))
        p1, p2 = get("p2"), get("p1")  # in OpenCV's order
        kind = calibration.get("type") or sensor.get("type") or "frame"
        if get("p3") or get("p4"):
            raise self._unsupported(label, "tangential coefficients p3 and p4")
        shift = abs(get("b2")) * height / 2 / focal if focal else 0.0
        if shift > _SKEW and identity not in self._skewed:
            self._skewed.add(identity)
            message = (
                f"{self._file}: skew b2 of sensor {identity} is left out: {shift:.1f} pixels at the border"
            )
            self._report.warn(
                "skew", message, "optimise the cameras without b2, or undistort the photographs"
            )
        if kind in _FISHEYES:
            if p1 or p2:
                params = (*pinhole, k1, k2, p1, p2, k3, k4, 0.0, 0.0)
                return Intrinsics("THIN_PRISM_FISHEYE", params, int(width), int(height))
            return Intrinsics("OPENCV_FISHEYE", (*pinhole, k1, k2, k3, k4), int(width), int(height))
        if kind != "frame":
            raise self._unsupported(label, f"camera type {kind!r}")
        try:
            return brown(pinhole, (k1, k2, k3, k4), (p1, p2), int(width), int(height))
        except ValueError as error:
            raise self._unsupported(label, str(error)) from error

    def _unsupported(self, label: str, what: str) -> DatasetError:
        return DatasetError(
            "camera-model", self._file, f"{label}: {what} is not supported", "export undistorted photographs"
        )

    def _similarity(self, transform: ElementTree.Element | None) -> np.ndarray:
        matrix = np.eye(4)
        if transform is None:
            return matrix
        rotation, shift, scale = (transform.find(name) for name in ("rotation", "translation", "scale"))
        if rotation is not None:
            matrix[:3, :3] = self._numbers(rotation, "the chunk's rotation", 9).reshape(3, 3)
        if scale is not None:
            matrix[:3, :3] *= self._numbers(scale, "the chunk's scale", 1)
        if shift is not None:
            matrix[:3, 3] = self._numbers(shift, "the chunk's translation", 3)
        return matrix

    def _numbers(self, element: ElementTree.Element | None, what: str, count: int) -> np.ndarray:
        words = ((element.text if element is not None else None) or "").split()
        if len(words) != count:
            raise _damaged(self._file, f"{what} has {len(words)} numbers where {count} are needed")
        return np.array([self._number(word, what) for word in words])

    def _number(self, text: str | None, what: str) -> float:
        try:
            value = float(text or "")
        except ValueError:
            value = np.nan
        if not np.isfinite(value):
            raise _damaged(self._file, f"{what} is {text!r}, not a number")
        return value


def _posed(chunk: ElementTree.Element) -> list[ElementTree.Element]:
    """Cameras that are aligned and not switched off, those in groups included."""
    return [
        camera
        for camera in chunk.iterfind("cameras//camera")
        if camera.find("transform") is not None and camera.get("enabled") not in ("0", "false")
    ]


def _damaged(file: Path, cause: str) -> DatasetError:
    return DatasetError("metashape-damaged", file, cause, _AGAIN)
