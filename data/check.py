"""Every problem of a dataset before the first step, each with its remedy.

A check is a function of a Context that adds findings to its report; CHECKS lists them in the order of the report.
"""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import torch

from splat.core import DataError
from splat.data.check_context import Context
from splat.data.check_coverage import coverage
from splat.data.check_masks import masks
from splat.data.check_photographs import photographs
from splat.data.images import list_images
from splat.data.points import camera_radius, recentring
from splat.data.problems import DatasetError, Finding, Report, some
from splat.data.registry import read_scene
from splat.data.viewpoints import examine

__all__ = ["CHECKS", "Context", "Finding", "check_dataset"]

_FEW_VIEWS = 20
_FEW_POINTS = 500
_LARGE_ERROR = 2.0  # pixels; good models stay near 1
_FREE_BYTES = 2 << 30
# What phones, cameras and video leave among photographs and Pillow does not read.
_FOREIGN = frozenset(
    {".heic", ".heif", ".avif", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".rw2", ".mov", ".mp4"}
)


def check_dataset(path: str | Path) -> list[Finding]:
    """Read a dataset, decode every photograph and mask, and look at poses, points and disk.

    Returns:
        Findings; the dataset can be trained on where none is an error. Never raises for what is wrong with the
        dataset.
    """
    report = Report(strict=False)
    try:
        scene = read_scene(path, report)
    except DatasetError as error:
        report.error(error)
        return report.findings
    except DataError as error:  # of an installed reader
        cause, _, remedy = str(error).splitlines()[0].rpartition("; ")
        return [*report.findings, Finding("error", "data", cause or remedy, remedy if cause else "")]
    if scene.frames:
        context = Context(scene, report)
        for check in CHECKS:
            check(context)
    return report.findings


def _overview(context: Context) -> None:
    scene, report = context.scene, context.report
    sizes = Counter((frame.camera.width, frame.camera.height) for frame in scene.frames)
    shown = some([f"{width}x{height} ({count})" for (width, height), count in sizes.most_common()])
    report.note("views", f"{scene.name}: {len(scene.frames)} views read by {scene.reader}, pixels: {shown}")
    models = Counter(frame.lens for frame in scene.frames)
    report.note(
        "cameras", "camera models: " + some([f"{name} ({count})" for name, count in models.most_common()])
    )
    if scene.points is not None:
        report.note("points", f"{len(scene.points)} points, median depth {context.depth:.3g}")
    decoded = sum(3 * frame.camera.width * frame.camera.height for frame in scene.frames)
    report.note("memory", f"photographs decoded at full resolution take {decoded / 2**30:.2g} GiB")


def _surplus(context: Context) -> None:
    """Photographs beside the used ones that have no pose, and files that are none."""
    used = {frame.path for frame in context.scene.frames}
    folders = {frame.path.parent for frame in context.scene.frames}
    surplus = [path for folder in sorted(folders) for path in list_images(folder) if path not in used]
    if surplus and context.scene.test_names is None:
        names = [path.name for path in surplus]
        message = f"{context.scene.root}: {len(surplus)} photographs have no pose ({some(names)})"
        context.report.warn(
            "unregistered", message, "they are not used; photographs that overlap more get poses"
        )
    foreign = [file.name for folder in sorted(folders) for file in _foreign(folder)]
    if foreign:
        message = f"{len(foreign)} files among the photographs cannot be read ({some(foreign)})"
        context.warn("foreign-file", message, "convert them to JPEG or PNG, videos to frames, to use them")


def _foreign(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in _FOREIGN)


def _views(context: Context) -> None:
    count = len(context.scene.frames)
    if count < _FEW_VIEWS:
        message = f"{context.scene.root}: only {count} views"
        context.report.warn(
            "few-views", message, f"take more photographs: {_FEW_VIEWS} and more give a full scene"
        )


def _poses(context: Context) -> None:
    """What a run would refuse or warn of, and cameras that share one pose."""
    frames = context.scene.frames
    cameras = [frame.camera for frame in frames]
    if len(frames) > 1:
        examine(context.scene.root, cameras, context.depth, None, context.report)
    centre, radius = camera_radius(cameras)
    if radius <= 1e-6 * max(1.0, float(centre.norm()), context.depth):
        return
    poses: dict[tuple[float, ...], list[str]] = defaultdict(list)
    for frame in frames:
        pose = frame.camera.camera_to_world
        key = torch.cat([(pose[:3, 3] - centre) / radius, pose[:3, 2], pose[:3, 1]])
        poses[tuple((key * 1e6).round().tolist())].append(frame.name)
    same = [names for names in poses.values() if len(names) > 1]
    if same:
        message = f"{context.scene.root}: {some(same[0])} have the same pose"
        if len(same) > 1:
            message += f", and {len(same) - 1} more groups"
        context.report.warn("same-pose", message, "check the model: only one of them can be right")


def _points(context: Context) -> None:
    points = context.scene.points
    if points is None:
        return
    root = context.scene.root
    if len(points) < _FEW_POINTS:
        message = f"{root}: only {len(points)} points"
        context.report.warn("few-points", message, "match more photographs, or start from random points")
    if points.error is not None and float(points.error.mean()) > _LARGE_ERROR:
        message = f"{root}: mean reprojection error is {float(points.error.mean()):.2f} pixels"
        context.report.warn(
            "reprojection-error",
            message,
            "refine the model with COLMAP's bundle_adjuster",
        )
    if context.depth == 0:
        message = f"{root}: no point lies in front of a camera"
        context.report.error(
            DatasetError("points-behind", root, "no point lies in front of a camera", "check the poses")
        )


def _placement(context: Context) -> None:
    """Distance from the origin."""
    scene, extent, report = context.scene, context.extent, context.report
    if bool(recentring(scene, extent).any()):
        far, _ = camera_radius([frame.camera for frame in scene.frames])
        message = (
            f"{scene.root}: the scene lies {float(far.norm()):.3g} units from its origin, {extent:.3g} wide"
        )
        remedy = (
            "it is trained around its own centre, and exported there with the offset in the file where float32 does "
            "not do; subtract a round offset from the model for files that need none"
        )
        report.warn("far-origin", message, remedy)


def _disk(context: Context) -> None:
    free = shutil.disk_usage(Path.cwd()).free
    if free < _FREE_BYTES:
        message = f"{Path.cwd()}: {free / 2**30:.1f} GiB of disk are free"
        context.report.warn("disk", message, "a run may need 2 GiB: make room, or write elsewhere with --out")


CHECKS: tuple[Callable[[Context], None], ...] = (
    _overview,
    photographs,
    masks,
    _surplus,
    _views,
    _poses,
    _points,
    coverage,
    _placement,
    _disk,
)
