"""`splat view`: finished scenes in the browser; and the viewer beside a training."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from splat.cli.command import Common, Device, OptionalColour, OptionalPath, check_colour, parse

if TYPE_CHECKING:
    from splat.cli.scene import Loaded
    from splat.link import Session


@dataclass
class View(Common):
    """Show scenes in the browser: run folders, checkpoints, scene files of any format.

    With a run, or with --data, the photographs are there too: fly to them, compare, see the error. Several
    scenes are shown in turn or side by side. Ctrl-C ends it.

    Examples:
      splat view runs/garden/cpu-20260131-101500
      splat view garden.ply --data ~/photos/garden
      splat view before.ply after.splat
    """

    scenes: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="RUN_OR_FILE ...", help_behavior_hint=""),
    ]
    """Run folders, checkpoints or scene files."""
    data: OptionalPath = None
    """The dataset to go with files; for a run only where it was moved."""
    background: OptionalColour = None
    """Colour behind the scene, red green blue in 0..1; by default the run's, or black."""
    device: Device = "auto"
    """Where to render."""
    viewer_host: str = "127.0.0.1"
    """Serve the viewer here; 0.0.0.0 lets other machines in."""
    viewer_port: int = 8080
    """The viewer's port, or the next free one."""


def main(argv: list[str]) -> int:
    args = parse(View, "view", argv)
    from splat.cli.scene import load
    from splat.core import UsageError
    from splat.viewer.serving import import_viser

    check_colour(args.background)
    if not args.scenes:
        raise UsageError("nothing to show: name a run or a scene file (splat view garden.ply)")
    import_viser()  # before scenes are read, which may take a while
    sessions = [finished(load(path, args.device, args.data), args.background or None) for path in args.scenes]
    with serving(sessions, args.viewer_host, args.viewer_port):
        until_interrupted()
    return 0


def until_interrupted() -> None:
    """Returns at Ctrl-C or SIGTERM, as the user's way to end a viewer."""
    ended = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda number, frame: ended.set())
    try:
        with contextlib.suppress(KeyboardInterrupt):
            ended.wait()
    finally:
        signal.signal(signal.SIGTERM, before)


def finished(loaded: Loaded, background: tuple[float, float, float] | None = None) -> Session:
    """A scene on disk as a viewer sees it."""
    from splat.link import Session
    from splat.training import live

    behind = background or loaded.background
    more: dict = {
        "background": behind,
        "folder": loaded.run or Path.cwd(),
        "offset": loaded.offset,
        "export": live.exporter(loaded.offset),
        "metadata": loaded.metadata,
        "heads": loaded.heads,
    }
    if loaded.session is not None or loaded.data is not None:
        dataset = loaded.dataset(background=behind)

        def moved(camera):
            return loaded.local(camera, dataset.offset)

        own = loaded.session if loaded.session is not None and dataset is loaded.session.dataset else None
        more["views"] = live.views(dataset, behind, moved, live.refined(own) if own is not None else None)
        more["evaluate"] = live.evaluator(dataset, behind, moved)
        if dataset.points is not None:
            more["points"] = (dataset.points.xyz.double() + dataset.offset - loaded.offset).float()
    scene = loaded.gaussians.detach()
    if loaded.session is not None:
        from splat.training.export import metadata, with_features

        more["heads"] = loaded.session.trainer.heads()
        more["metadata"] = metadata(loaded.session)
        scene = with_features(scene, more["heads"])
    return Session.finished(
        loaded.path.name or str(loaded.path),
        scene,
        loaded.metadata.get("step", 0),
        **more,
    )


@contextmanager
def serving(sessions: Sequence[Session], host: str, port: int) -> Iterator[None]:
    """A viewer on the sessions, announced in their log."""
    from splat.viewer.app import Viewer
    from splat.viewer.serving import Address, announcement

    viewer = Viewer(sessions, Address(host, port))
    try:
        for line in announcement(viewer.address, viewer.port):
            sessions[0].log(line)
        yield
    finally:
        viewer.stop()


@contextmanager
def watching(host: str, port: int) -> Iterator[Callable[[Session], None]]:
    """Yields what starts a viewer on a run, once the run is ready; it ends with the block."""
    from contextlib import ExitStack

    from splat.viewer.serving import import_viser

    import_viser()  # before the dataset is read
    with ExitStack() as stack:
        yield lambda session: stack.enter_context(serving([session], host, port))
