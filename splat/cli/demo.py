"""`splat demo`: the whole path on the built-in sample scene."""

from __future__ import annotations

import dataclasses
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from splat.cli.command import Common, Device, counted, parse, size

if TYPE_CHECKING:
    from splat.training.config import TrainConfig
    from splat.training.run import RunResult

PICTURES = 2
LEAST_VIEWS = 3  # one is held out, and two to train on


@dataclass
class Demo(Common):
    """Make the built-in sample scene, train it, score it on views that training never saw, export it.

    Everything goes to one folder: the photographs with their COLMAP model, the run, the exported scene, a
    picture of rendered views beside the real ones, and a short video.

    Examples:
      splat demo
      splat demo --steps 10000 --out ~/splat-demo
    """

    out: Annotated[Path, tyro.conf.arg(metavar="PATH")] = Path("runs/demo")
    """The folder; photographs that are there from an earlier demo are used again."""
    preset: str = "cpu"
    """The preset to train with."""
    steps: int = 4000
    """Number of training steps."""
    views: int = 48
    """Number of photographs."""
    device: Device = "auto"
    """Where to train."""


def main(argv: list[str]) -> int:
    args = parse(Demo, "demo", argv)
    config = _config(args)
    data = make_photographs(args.out / "photographs", args.views)
    result = _train(config, args.out, data)
    scene = args.out / "scene.ply"
    picture, video = args.out / "comparison.png", args.out / "orbit.mp4"
    print("rendering a picture and a video ...")
    _show(result, picture, video)
    shutil.copyfile(result.scene, scene)
    assert result.evaluation is not None
    command = "splat" if shutil.which("splat") else sys.argv[0]  # an environment that is not activated
    print(
        f"""
Trained in {result.train_seconds:.0f} s: {result.num_gaussians:,} Gaussians, {result.evaluation.line()}
on {counted(len(result.evaluation.per_image), "view")} that training never saw.

  {data}   the photographs and their COLMAP model
  {result.folder}   the run: settings, log, metrics, checkpoints, scores
  {scene}   the scene ({size(scene.stat().st_size)}): any viewer of 3D Gaussians opens it
  {picture}   left as rendered, right as photographed
  {video}   a turn around the scene

What to do next:
  {command} train --resume {shlex.quote(str(result.folder))} --steps {2 * args.steps}
  {command} info {shlex.quote(str(scene))}
  {command} check ~/photos/my-scene               a folder with a COLMAP model of your own
  {command} train ~/photos/my-scene --preset cpu --eval"""
    )
    return 0


def make_photographs(folder: Path, views: int) -> Path:
    """The sample dataset in `folder`; one that is there already is kept."""
    from splat.data import read_scene
    from splat.data.sample import write_sample

    if folder.exists():
        found = len(read_scene(folder).frames)
        print(f"the {found} photographs of an earlier demo are used: {folder}")
        return folder
    print(f"making {views} photographs of the sample scene ...")
    # Made beside and renamed: an interrupted demo leaves no half dataset that the next one would use.
    unfinished = folder.with_name(f".{folder.name}.unfinished")
    folder.parent.mkdir(parents=True, exist_ok=True)
    write_sample(unfinished, views=views, truth=False).replace(folder)
    return folder


def _config(args: Demo) -> TrainConfig:
    """The run's settings; UsageError for what is wrong with the options, before anything is made."""
    from splat.core import UsageError
    from splat.training.config import load_preset

    if args.views < LEAST_VIEWS:
        raise UsageError(f"--views {args.views}: give {LEAST_VIEWS} or more")
    return dataclasses.replace(load_preset(args.preset), steps=args.steps, eval=True, device=args.device)


def _train(config: TrainConfig, folder: Path, data: Path) -> RunResult:
    from splat.strategies import registry
    from splat.training.run import train

    out = next(p for n in range(1, 10_000) if not (p := folder / f"run-{n}").exists())
    return train(config, data, out, strategies=registry.build(config.strategies, config.options))


def _show(result: RunResult, picture: Path, video: Path) -> None:
    """Write a picture of held-out views, rendered | photographed, and a video of an orbit."""
    import torch
    from PIL import Image

    from splat.cli.render import draw
    from splat.cli.scene import load
    from splat.core import orbits
    from splat.raster.video import write_video

    loaded = load(result.folder)
    dataset = loaded.dataset()
    rows = []
    for view in dataset.test[:: max(1, len(dataset.test) // PICTURES)][:PICTURES]:
        (rendered,) = draw(loaded, [dataset.camera(view)], None)
        rows.append(torch.cat([rendered, dataset.photo(view).image], 1))
    Image.fromarray(torch.cat(rows).numpy()).save(picture)
    write_video(video, draw(loaded, orbits.orbit(loaded.cameras("all"), 90), None), 30.0)
