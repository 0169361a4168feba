"""`splat process`: photographs and videos to a dataset."""

from __future__ import annotations

import shlex
import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from splat.cli.command import Common, OptionalInt, OptionalPath, parse, print_json
from splat.cli.progress import Console
from splat.core.clock import clock

if TYPE_CHECKING:
    from splat.data.sfm import Listener

OptionalText = Annotated[str | None, tyro.conf.arg(metavar="COLOUR", help_behavior_hint="")]


@dataclass
class Process(Common):
    """Find out where photographs were taken from, and make a dataset of them.

    INPUT is a folder of photographs (with folders inside it, one a camera), a video, or several of these.
    DATA becomes the dataset: images/, masks/, a COLMAP model in sparse/0, process.json with the summary, and
    process/ with what the stages leave. `splat train DATA` goes on from there. Masks beside the photographs
    (images/ and masks/), transparency, focal lengths and GPS of EXIF are used.

    The same command goes on after a stop: what is finished is kept. Exits with 3 where the photographs
    cannot be used, and says why.

    Examples:
      splat process ~/photos/garden garden
      splat process walk.mp4 garden --frames 150
      splat process ~/photos/garden walk.mp4 garden --orient up
      splat process ~/photos/vase vase --chroma-key green
      splat process ~/photos/garden garden --viewer          watch it grow in the browser
    """

    paths: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="INPUT [INPUT ...] DATA", help_behavior_hint=""),
    ]
    """Folders of photographs and videos; the last is the dataset to make."""
    frames: OptionalInt = None
    """Frames to take from each video, the sharpest of as many stretches; by default two a second, 40 to 200."""
    masks: OptionalPath = None
    """A folder of masks NAME.png or NAME.EXT.png, 0 = ignore; by default masks/ beside images/."""
    chroma_key: OptionalText = None
    """Mask a screen of this colour: green, blue or R,G,B."""
    cameras: Literal["auto", "single", "folder", "image"] = "auto"
    """What shares a camera; auto: photographs of one folder, size and lens."""
    camera_model: Literal[
        "auto", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV", "OPENCV_FISHEYE"
    ] = "auto"
    """COLMAP's camera model; auto: SIMPLE_RADIAL, and OPENCV for cameras of 20 photographs and more."""
    max_size: int = 1600
    """Longest side at which features are looked for, pixels."""
    features: int = 8192
    """Most features of one photograph."""
    matching: Literal["auto", "exhaustive", "sequential", "retrieval"] = "auto"
    """Pairs to compare: all, neighbours in a video, or what looks alike; auto: all up to 60 photographs."""
    mapper: Literal["auto", "incremental", "global"] = "auto"
    """How poses are found; auto: incrementally, and otherwise where that leaves photographs out."""
    orient: Literal["none", "up", "gps"] = "none"
    """Turn the scene so that the cameras' up is -y, or place it in metres east, north, up by GPS.
    `splat export` undoes it."""
    undistort: bool = False
    """Also write undistorted photographs with a pinhole model, for other tools, to DATA/undistorted."""
    mvs: bool = False
    """Also compute depth maps (DATA/depths) and dense points (DATA/dense.ply) by multi-view stereo."""
    mvs_size: int = 320
    """Longest side of the depth maps, pixels; the time grows with its square."""
    seed: int = 0
    """Of everything random."""
    threads: int = 0
    """For features and matches, 0 for one a core; the result is the same."""
    json: bool = False
    """Print the summary as one JSON document."""
    viewer: bool = False
    """Show cameras and points in the browser while they are found."""
    viewer_host: str = "127.0.0.1"
    """Serve the viewer here; 0.0.0.0 lets other machines in."""
    viewer_port: int = 8080
    """The viewer's port, or the next free one."""
    keep_viewer: bool = False
    """Keep the viewer when all is done, until Ctrl-C."""


def main(argv: list[str]) -> int:
    args = parse(Process, "process", argv)
    from splat.core import UsageError
    from splat.data.sfm import ProcessOptions, process

    if len(args.paths) < 2:
        raise UsageError("give at least one INPUT and then DATA, the dataset to make")
    names = ProcessOptions.__dataclass_fields__.keys()
    options = ProcessOptions(**{name: getattr(args, name) for name in names if hasattr(args, name)})
    console = Console(sys.stderr if args.json else sys.stdout)
    watched = args.viewer or args.keep_viewer
    with _watching(args, console) if watched else nullcontext(console) as listener:
        try:
            summary = process(list(args.paths[:-1]), args.paths[-1], options, listener, snapshots=watched)
        finally:
            console.close()
        if args.json:
            print_json(summary)
        else:
            print("\n".join(told(summary)))
        if args.keep_viewer:
            from splat.cli.view import until_interrupted

            console.say("the viewer stays until Ctrl-C")
            until_interrupted()
    return 0


def _watching(args: Process, console: Console) -> AbstractContextManager[Listener]:
    """A listener with a viewer."""
    from splat.cli.growing import growing
    from splat.viewer.serving import Address

    return growing(args.paths[-1], console, Address(args.viewer_host, args.viewer_port))


def told(summary: dict[str, Any]) -> list[str]:
    """The summary for people."""
    data = summary["data"]
    seconds = clock(sum(summary["seconds"].values()))
    lines = [
        f"{data}: {summary['registered']} of {summary['total']} photographs have poses, {summary['points']:,} "
        f"points, reprojection error {summary['error']:.2f} px (in {seconds})"
    ]
    for camera in summary["cameras"]:
        focal = " x ".join(
            f"{value:.1f}" for value in camera["params"][: 2 if "CV" in camera["model"] else 1]
        )
        lines.append(
            f"  camera {camera['id']}: {camera['model']} {camera['width']}x{camera['height']}, focal length "
            f"{focal} px"
        )
    if summary["mapper"] not in ("incremental", summary["options"]["mapper"]):
        tried = ", ".join(f"{name} {count}" for name, count in summary["attempts"].items())
        lines.append(f"  poses by the mapper {summary['mapper']} (photographs with poses: {tried})")
    if summary["off_gps"] is not None:
        lines.append(f"  {summary['off_gps']:.1f} m off the GPS positions in the mean")
    for other in summary["models"][1:]:
        lines.append(
            f"  {other['folder']}: another part of the scene, {other['images']} photographs; photographs "
            "between the parts would join them"
        )
    shown = 10
    lost = [f"{f['name']}: {f['reason']} -> {f['remedy']}" for f in summary["unregistered"]]
    lost += [f"{f['name']}: left out, {f['reason']}" for f in summary["skipped"]]
    lines += [f"  without a pose: {line}" for line in lost[:shown]]
    if len(lost) > shown:
        lines.append(f"  and {len(lost) - shown} more, see {Path(data) / 'process.json'}")
    named = shlex.quote(str(data))
    lines.append(f"next: splat check {named}; splat train {named}")
    return lines
