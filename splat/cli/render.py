"""`splat render`: images and videos of a scene."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from splat.cli.command import (
    Common,
    Device,
    OptionalColour,
    OptionalFloat,
    OptionalInt,
    OptionalPath,
    OptionalSize,
    check_colour,
    counted,
    parse,
)

if TYPE_CHECKING:
    from torch import Tensor

    from splat.cli.scene import Loaded
    from splat.core import Camera

VIDEO = (".mp4", ".mov")
OTHER_FILES = (".avi", ".gif", ".jpeg", ".jpg", ".mkv", ".png", ".webm")


@dataclass
class Render(Common):
    """Render a scene to images or to a video.

    RUN_OR_FILE is a run's folder, one of its checkpoints, or a scene file of any format. What is seen is
    one of: the cameras of a dataset (that of the run, or --data), a camera path (--path), or an orbit
    around what the cameras look at (--orbit). With --out NAME.mp4 the outcome is a video, otherwise a
    folder of PNGs; by default RUN/renders/.

    Examples:
      splat render runs/garden/cpu-20260131-101500 --cameras test
      splat render runs/garden/cpu-20260131-101500 --orbit 120 --out orbit.mp4
      splat render garden.ply --path path.json --out flight.mp4
      splat render garden.ply --data ~/photos/garden --downscale 4

    A camera path is a JSON file:
      {"width": 960, "height": 540, "fps": 30, "loop": false, "constant_speed": false, "up": [0, -1, 0],
       "keyframes": [
         {"time": 0, "position": [0, -1, -4], "look_at": [0, 0, 0], "fov": 50},
         {"time": 2, "position": [3, -1, -2], "quaternion": [1, 0, 0, 0]}]}

    Times are seconds; fov is the vertical field of view in degrees, 50 unless given. A keyframe says where
    the camera looks by look_at (a point; "up" is the direction that stays up), by quaternion (camera to
    world, wxyz), or by a 4x4 camera_to_world in place of position. Cameras look along +z, and +y is down.
    With constant_speed the times between keyframes follow from their distances; the whole duration stays.
    """

    scene: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_FILE")]
    """A run's folder, a checkpoint or a scene file."""
    out: OptionalPath = None
    """A folder for PNGs, or a video NAME.mp4."""
    data: OptionalPath = None
    """The dataset whose cameras to use; for a run only where its own was moved."""
    cameras: Literal["all", "train", "test"] = "all"
    """Which of the dataset's cameras."""
    path: OptionalPath = None
    """A camera path, see above."""
    orbit: OptionalInt = None
    """Number of frames of one turn around the scene."""
    downscale: OptionalFloat = None
    """Render the dataset's cameras this many times smaller; by default as the run was trained."""
    size: OptionalSize = None
    """Width and height of what is rendered, pixels; by default those of the cameras."""
    fps: OptionalFloat = None
    """Frames a second of a video; by default the camera path's, or 30."""
    background: OptionalColour = None
    """Colour behind the scene, red green blue in 0..1; by default the run's, or black."""
    device: Device = "auto"
    """Where to render."""


def main(argv: list[str]) -> int:
    args = parse(Render, "render", argv)
    from splat.cli.scene import load
    from splat.core import UsageError
    from splat.raster.video import write_video

    check_colour(args.background)
    if args.path is not None and args.orbit is not None:
        raise UsageError("--path and --orbit contradict each other: give one of them")
    if args.orbit is not None and args.orbit < 1:
        raise UsageError(f"--orbit {args.orbit}: give a positive number of frames")
    if args.fps is not None and not 0 < args.fps < math.inf:
        raise UsageError(f"--fps {args.fps:g}: give a positive number of frames a second")
    if args.size is not None and min(args.size) < 1:
        raise UsageError(f"--size {args.size[0]} {args.size[1]}: give a positive width and height")
    if args.out is not None and args.out.suffix.lower() in OTHER_FILES:
        raise UsageError(f"{args.out}: give a folder for PNGs, or a video NAME.mp4")
    if args.out is not None and args.out.is_file() and args.out.suffix.lower() not in VIDEO:
        raise UsageError(f"{args.out}: is a file; give a folder for PNGs, or a video NAME.mp4")
    loaded = load(args.scene, args.device, args.data)
    cameras, fps = _cameras(args, loaded)
    if args.size is not None:
        cameras = [camera.resized(*args.size) for camera in cameras]
    out = args.out or loaded.place("renders") / _kind(args)
    if out.suffix.lower() in VIDEO and min(cameras[0].width, cameras[0].height) < 2:
        raise UsageError(f"{out}: a video needs at least 2x2 pixels")
    images = draw(loaded, cameras, args.background)
    if out.suffix.lower() in VIDEO:
        write_video(out, images, fps)
    else:
        write_images(out, images, [camera.name for camera in cameras])
    print(f"{counted(len(cameras), 'view')} rendered: {out}")
    return 0


def _kind(args: Render) -> str:
    return "path" if args.path else "orbit" if args.orbit else args.cameras


def _cameras(args: Render, loaded: Loaded) -> tuple[list[Camera], float]:
    """What to see, in the frame of the loaded scene, and frames a second."""
    from splat.core import UsageError, orbits, paths

    if args.path is not None:
        path = paths.read_path(args.path)
        fps = args.fps or path.fps
        return [loaded.local(camera) for camera in path.frames()], fps
    fps = args.fps or 30.0
    if args.orbit is not None:
        if loaded.session is not None or args.data is not None:
            seen = loaded.cameras("all", args.downscale)
        else:
            seen = orbits.around(loaded.gaussians.means.cpu(), *(args.size or (960, 540)))
        return orbits.orbit(seen, args.orbit), fps
    if loaded.session is None and args.data is None:
        raise UsageError(
            f"{loaded.path}: a scene file has no cameras of its own; give --orbit N, --path FILE, or its dataset with "
            "--data DATA"
        )
    return loaded.cameras(args.cameras, args.downscale), fps


def draw(
    loaded: Loaded, cameras: list[Camera], background: tuple[float, float, float] | None
) -> Iterator[Tensor]:
    """[H, W, 3] uint8 images on the CPU, one after the other."""
    import torch

    for camera in cameras:
        image = loaded.draw(camera, background)
        yield image.clamp(0, 1).mul(255).round().to(torch.uint8).cpu()


def write_images(folder: Path, images: Iterator[Tensor], names: list[str]) -> None:
    """Write PNGs named after the cameras; a file is there whole or not at all."""
    from PIL import Image

    from splat.core.files import beside

    for name, image in zip(names, images, strict=True):
        path = (folder / name).with_suffix(".png")
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as temporary:
            Image.fromarray(image.numpy()).save(temporary, format="png")
