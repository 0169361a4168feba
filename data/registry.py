"""Readers: which one understands a folder, and reading it.

A reader is an object with a ``name``, ``sniff(path)`` and ``read(path, report)``. Installed packages add theirs
under the entry-point group ``splat.readers``; built-in ones are asked first.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Protocol

from splat.core import DataError
from splat.data.images import list_images
from splat.data.problems import DatasetError, Report
from splat.data.scene import Scene

ENTRY_POINT_GROUP = "splat.readers"

_REMEDY = (
    "give a folder with a COLMAP model (sparse/0 beside images/), a transforms.json or another of the formats of "
    "docs/datasets.md"
)


class Reader(Protocol):
    """What reads one kind of dataset."""

    name: str

    def sniff(self, path: Path) -> bool:
        """Whether `path` looks like this kind; cheap, and never raises for foreign content."""
        ...

    def read(self, path: Path, report: Report) -> Scene:
        """Read the cameras, points and names; photographs are decoded later. Doubts go to the report.

        Raises:
            DataError: the dataset is damaged or cannot be used.
        """
        ...


def readers() -> Iterator[Reader]:
    """The built-in readers in the order in which they are asked, then the installed ones by name."""
    from splat.data.blender import BlenderReader
    from splat.data.bundler import BundlerReader
    from splat.data.colmap import ColmapReader
    from splat.data.metashape import MetashapeReader
    from splat.data.opensfm import OpensfmReader
    from splat.data.polycam import PolycamReader
    from splat.data.realitycapture import RealityCaptureReader
    from splat.data.rgbd import RgbdReader
    from splat.data.transforms import TransformsReader

    yield ColmapReader()
    yield BlenderReader()
    yield TransformsReader()
    yield PolycamReader()
    yield OpensfmReader()
    yield MetashapeReader()
    yield RealityCaptureReader()
    yield BundlerReader()
    yield RgbdReader()
    for point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda point: point.name):
        yield _load(point)


def _load(point: EntryPoint) -> Reader:
    try:
        return point.load()()
    except Exception as error:
        distribution = point.dist.name if point.dist else "unknown"
        raise DataError(
            f"reader {point.name!r} of the installed package {distribution!r} does not load; "
            f"update or uninstall {distribution}\n{error!r}"
        ) from error


def find_reader(path: Path) -> Reader:
    """The first reader that recognises `path`.

    Raises:
        DatasetError: there is no such path, or no reader knows what is there.
    """
    if not path.exists():
        raise DatasetError("no-folder", path, "no such folder", f"check the spelling, or {_REMEDY}")
    for reader in readers():
        if reader.sniff(path):
            return reader
    photographs = [] if path.is_file() else list_images(path / "images") or list_images(path)
    if photographs:
        cause = f"{len(photographs)} photographs but no camera poses"
        raise DatasetError(
            "no-model",
            path,
            cause,
            f"run `splat process {shlex.quote(str(path))} DATA` to compute them, or {_REMEDY}",
        )
    raise DatasetError("no-dataset", path, "holds no dataset", _REMEDY)


def read_scene(path: str | Path, report: Report | None = None) -> Scene:
    """Read the dataset at `path`: a folder, or the transforms.json file to take.

    Args:
        report: collects what is noticed; a lenient one also the errors. By default the first error is raised.

    Returns:
        The scene, frames sorted by name, at least two of them.

    Raises:
        DataError: the dataset is missing, damaged or cannot be used; the first line says what to do.
    """
    path = Path(path).expanduser()
    report = report if report is not None else Report()
    scene = find_reader(path).read(path, report)
    if len(scene.frames) < 2 and not report.lines("error"):
        cause = f"a single usable view ({scene.frames[0].name})" if scene.frames else "no usable view"
        report.error(
            DatasetError("few-views", path, cause, "a scene needs at least 2 posed photographs: add some")
        )
    scene.warnings += report.lines("warning")
    scene.notes += report.lines("fact")
    return scene
