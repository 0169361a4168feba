"""From posed views as a reader found them to frames: files, sizes, masks, intrinsics; every doubt is reported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from splat.core import Camera
from splat.data.images import Header, read_header, same_aspect
from splat.data.intrinsics import Intrinsics
from splat.data.problems import DatasetError, Report, some
from splat.data.scene import DepthFile, Frame
from splat.data.undistort import Distortion, undistorted


@dataclass(frozen=True)
class View:
    """A posed photograph as a reader found it.

    Attributes:
        name: path relative to the image folder, forward slashes.
        path: the file, which may be missing.
        intrinsics: width and height 0 where the format does not say them; then `sized` is called with the file's.
        world_to_camera: [4, 4] float64, OpenCV.
        sized: makes the intrinsics from the width and height of the file.
        mask_path, depth: what the format names for this photograph; masks are looked for in masks/ otherwise.
    """

    name: str
    path: Path
    intrinsics: Intrinsics | None
    world_to_camera: np.ndarray
    sized: Callable[[int, int], Intrinsics] | None = None
    mask_path: Path | None = None
    depth: DepthFile | None = None


def build_frames(root: Path, views: Sequence[View], report: Report, *, what: str) -> list[Frame]:
    """Frames sorted by name, of the views whose photographs exist and fit.

    Args:
        root: the dataset, for messages and masks/.
        what: what lists the views, for messages: "the model sparse/0".

    Raises:
        DatasetError: (strict report) every photograph is missing, a name comes twice, a file does not fit.
    """
    twice = sorted(name for name, count in Counter(view.name for view in views).items() if count > 1)
    if twice:
        cause = f"{what} lists a photograph more than once ({some(twice)})"
        report.error(DatasetError("duplicate-name", root, cause, "remove the repeated entries"))
        views = list({view.name: view for view in views}.values())
    present = [view for view in views if view.path.is_file()]
    missing = sorted(view.name for view in views if not view.path.is_file())
    if views and not present:
        cause = f"none of the {len(views)} photographs of {what} is there ({some(missing)})"
        report.error(
            DatasetError("image-missing", root, cause, f"put the photographs into {root / 'images'}")
        )
    elif missing:
        message = (
            f"{root}: {len(missing)} of the {len(views)} photographs of {what} are missing ({some(missing)})"
        )
        report.warn("image-missing", message, "they are left out; put them back to use them")
    builder = _Builder(root, report)
    frames = [builder.frame(view) for view in sorted(present, key=lambda view: view.name)]
    builder.finish()
    return [frame for frame in frames if frame is not None]


class _Builder:
    def __init__(self, root: Path, report: Report) -> None:
        self._root, self._report = root, report
        self._masks = root / "masks"
        self._has_masks = self._masks.is_dir()
        self._without_mask: list[str] = []
        self._without_depth: list[str] = []
        self._scaled: dict[str, list[str]] = {}
        self._turned: list[str] = []
        self._faulty: set[Intrinsics] = set()
        self._undistorted = lru_cache(maxsize=None)(undistorted)

    def frame(self, view: View) -> Frame | None:
        try:
            header = read_header(view.path)
            intrinsics, orientation = self._fitted(view, header)
        except DatasetError as error:
            self._report.error(error)
            return None
        pose = torch.from_numpy(np.ascontiguousarray(view.world_to_camera, dtype=np.float64))
        if not self._sane(view, intrinsics) or not self._rigid(view):
            return None
        distortion: Distortion | None = None
        width, height = intrinsics.width, intrinsics.height
        fx, fy, cx, cy = intrinsics.pinhole
        if intrinsics.distorted:
            distortion = self._undistorted(intrinsics)
            width, height = distortion.width, distortion.height
            fx, fy, cx, cy = distortion.fx, distortion.fy, distortion.cx, distortion.cy
        camera = Camera(width, height, fx, fy, cx, cy, pose, name=view.name)
        mask, depth = self._mask(view), self._depth(view)
        return Frame(view.name, view.path, camera, distortion, mask, orientation, depth, intrinsics.model)

    def _fitted(self, view: View, header: Header) -> tuple[Intrinsics, int]:
        """The intrinsics at the file's own size, and the EXIF orientation under which they fit."""
        if view.intrinsics is None:
            assert view.sized is not None
            return view.sized(header.width, header.height), 1
        wanted = view.intrinsics
        if min(wanted.width, wanted.height) <= 0:
            return wanted, 1  # the check of the intrinsics says what is wrong
        stored, shown = (header.width, header.height), header.shown_size
        if stored == (wanted.width, wanted.height):
            return wanted, 1
        for size, orientation in ((stored, 1), (shown, header.orientation)):
            if same_aspect(*size, wanted.width, wanted.height):
                if orientation != 1:
                    self._turned.append(view.name)
                if size != (wanted.width, wanted.height):
                    sizes = f"{size[0]}x{size[1]} while the camera says {wanted.width}x{wanted.height}"
                    self._scaled.setdefault(sizes, []).append(view.name)
                return wanted.resized(*size), orientation
        turned = stored == (wanted.height, wanted.width)
        hint = " (it was turned by 90 degrees after the poses were computed)" if turned else ""
        cause = (
            f"photograph is {stored[0]}x{stored[1]} but its camera is {wanted.width}x{wanted.height}{hint}"
        )
        remedy = (
            "use the photographs from which the poses were computed, uncropped, or compute the poses again"
        )
        raise DatasetError("image-size", view.path, cause, remedy)

    def _sane(self, view: View, intrinsics: Intrinsics) -> bool:
        fault = intrinsics.fault()
        if fault is not None and intrinsics not in self._faulty:
            self._faulty.add(intrinsics)
            code, cause, remedy = fault
            self._report.error(DatasetError(code, self._root, f"camera of {view.name}: {cause}", remedy))
        return fault is None

    def _rigid(self, view: View) -> bool:
        pose = view.world_to_camera
        if np.isfinite(pose).all() and abs(np.linalg.det(pose[:3, :3]) - 1) < 1e-3:
            return True
        cause = f"pose of {view.name} is not a rigid motion"
        self._report.error(
            DatasetError("pose", self._root, cause, "remove the photograph or compute its pose again")
        )
        return False

    def _mask(self, view: View) -> Path | None:
        """The mask that the format names, else masks/NAME.EXT.png as COLMAP names them, or masks/NAME.png."""
        name = view.name
        if view.mask_path is not None and view.mask_path.is_file():
            return view.mask_path
        if view.mask_path is None and not self._has_masks:
            return None
        for inner in (name, name.removeprefix("images/")):
            for candidate in (self._masks / f"{inner}.png", (self._masks / inner).with_suffix(".png")):
                if candidate.is_file():
                    return candidate
        self._without_mask.append(name)
        return None

    def _depth(self, view: View) -> DepthFile | None:
        if view.depth is None or view.depth.path.is_file():
            return view.depth
        self._without_depth.append(view.depth.path.name)
        return None

    def finish(self) -> None:
        """Say once what holds for many frames."""
        for sizes, names in self._scaled.items():
            self._report.note(
                "image-scaled", f"{len(names)} photographs are {sizes}: their intrinsics are scaled"
            )
        if self._turned:
            message = f"{len(self._turned)} photographs are turned upright by EXIF, as their cameras expect"
            self._report.note("image-turned", message)
        if self._without_mask:
            message = f"{self._masks}: {len(self._without_mask)} photographs have no mask ({some(self._without_mask)})"
            self._report.warn("mask-missing", message, "they are used whole; add masks/NAME.png to mask them")
        if self._without_depth:
            shown = some(self._without_depth)
            message = f"{self._root}: {len(self._without_depth)} depth maps are missing ({shown})"
            self._report.warn("depth-missing", message, "those photographs are used without; put them back")
