"""The viewer beside `splat process`: models are read as they appear on the disk, while somebody looks."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splat.core import DataError

if TYPE_CHECKING:
    from splat.cli.progress import Console
    from splat.link import Growth, SparseModel
    from splat.viewer.serving import Address

_TICK_SECONDS = 0.3


class Follower:
    """Tells the console how it goes, and a viewer what there is; a Listener of splat.data.sfm.process.

    A thread of its own reads the models: nothing that fails there reaches the stages.
    """

    def __init__(self, data: Path, console: Console) -> None:
        from splat.link import Growth

        self._data, self._console = data, console
        self.growth: Growth = Growth(data.resolve().name, console.progress_now, log=console.say)
        self._folder: Path | None = None  # of a model that is done
        self._dense: Path | None = None
        self._shown: tuple[Any, ...] = ()
        self._snapshot = ""
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="growth")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        self._thread.join(5)

    # The listener.

    def begin(self, stage: str, kept: bool) -> None:
        self._console.begin(stage, kept)
        if kept:
            self._found(stage, {})

    def progress(self, stage: str, done: int, total: int) -> None:
        self._console.progress(stage, done, total)

    def end(self, stage: str, seconds: float, result: Any) -> None:
        self._console.end(stage, seconds, result)
        self._found(stage, result)

    def _found(self, stage: str, result: dict[str, Any]) -> None:
        """What a finished stage has left to be shown."""
        if stage == "mapping" and result:
            self._folder = self._data / "process" / result["models"][0]["folder"]
        elif stage == "model":
            self._folder = self._data / "sparse" / "0"
        elif stage == "stereo":
            self._dense = self._data / "dense.ply"

    # The models.

    def _run(self) -> None:
        told = ""
        while not self._ended.wait(_TICK_SECONDS):
            if not self.growth.slot.wanted:
                continue
            try:
                self._look()
            except Exception as error:
                text = f"viewer: {error}"
                if text != told:
                    told = text
                    self.growth.log(text)

    def _look(self) -> None:
        """Publish what is newer than what was published last."""
        from splat.data.sfm import snapshots

        folder, dense = self._folder, self._dense
        if folder is None:
            found = snapshots.newest(self._data / "process" / snapshots.FOLDER, self._snapshot)
            if found is not None:
                self._snapshot = found[0]
                self.growth.slot.publish(_sparse(found[1]))
        elif (folder, dense) != self._shown:
            with contextlib.suppress(DataError):  # the stage after it has moved it meanwhile
                model = _sparse(snapshots.read(folder))
                self.growth.slot.publish(model if dense is None else _with_points(model, dense))
                self._shown = (folder, dense)


def _sparse(snapshot: Any) -> SparseModel:
    from splat.link import SparseModel

    return SparseModel(snapshot.cameras, snapshot.points, snapshot.colours)


def _with_points(model: SparseModel, path: Path) -> SparseModel:
    """The model with the points of a .ply in place of its own."""
    from splat.data.ply import read_points
    from splat.data.problems import Report

    points = read_points(path, Report())
    return model if points is None else replace(model, points=points.xyz.float(), colours=points.rgb)


@contextmanager
def growing(data: Path, console: Console, address: Address) -> Iterator[Follower]:
    """What listens to the stages, with a viewer on what they make, announced on the console."""
    from splat.viewer.growing import GrowthViewer
    from splat.viewer.serving import announcement

    follower = Follower(data, console)
    viewer = GrowthViewer(follower.growth, address)
    try:
        for line in announcement(viewer.address, viewer.port):
            console.say(line)
        follower.start()
        yield follower
    finally:
        follower.stop()
        viewer.stop()
