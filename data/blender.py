"""NeRF-synthetic scenes as Blender exports them: transforms_train.json, _val, _test."""

from __future__ import annotations

from pathlib import Path

from splat.data.frames import View, build_frames
from splat.data.jsonfile import load_object
from splat.data.problems import Report
from splat.data.scene import Scene
from splat.data.transforms import read_views

_BOUNDS = 1.3  # the objects of NeRF-synthetic lie within this of the origin (3DGS-MCMC)


class BlenderReader:
    """transforms_train.json and transforms_test.json; the test views are held out. Validation views are not used."""

    name = "blender"

    def sniff(self, path: Path) -> bool:
        return (path / "transforms_train.json").is_file()

    def read(self, path: Path, report: Report) -> Scene:
        views: list[View] = []
        test: set[str] = set()
        for split in ("train", "test"):
            file = path / f"transforms_{split}.json"
            if not file.is_file():
                report.warn("no-test-views", f"{file}: no such file", "no view is held out by the dataset")
                continue
            found = read_views(file, load_object(file), report)
            views += found
            if split == "test":
                test = {view.name for view in found}
        frames = build_frames(path, views, report, what="transforms_train.json and transforms_test.json")
        report.note("no-points", "Blender scenes have no points: random ones are used")
        names = frozenset(test) if test else None
        return Scene(path, path.resolve().name, self.name, frames, None, names, _BOUNDS)
