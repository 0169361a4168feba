"""`splat eval`: scores of a scene on photographs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from splat.cli.command import (
    Common,
    Device,
    OptionalColour,
    OptionalFloat,
    OptionalPath,
    check_colour,
    counted,
    parse,
)

if TYPE_CHECKING:
    from splat.cli.scene import Loaded
    from splat.training.evaluate import Evaluation


@dataclass
class Eval(Common):
    """Score a scene against photographs: PSNR, SSIM, and LPIPS where its weights are at hand.

    RUN_OR_FILE is a run's folder, one of its checkpoints, or a scene file of any format; a file needs
    --data. A run is scored as it scored itself: on its own dataset, at its resolution, on the views that
    --eval held out. A file is scored on every 8th photograph by sorted name, or on those that the dataset
    itself holds out. Images are clamped to [0, 1]; the mean is taken over images.

    Examples:
      splat eval runs/garden/cpu-20260131-101500
      splat eval garden.ply --data ~/photos/garden --downscale 4 --json
      splat eval chair.splat --data ~/nerf_synthetic/chair --background 1 1 1
    """

    scene: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_FILE")]
    """A run's folder, a checkpoint or a scene file."""
    data: OptionalPath = None
    """The dataset; for a run only where it was moved."""
    views: Literal["test", "train", "all"] = "test"
    """Which photographs to score on."""
    downscale: OptionalFloat = None
    """Score on photographs this many times smaller; by default as the run was trained, or 1."""
    background: OptionalColour = None
    """Colour behind the scene and transparent photographs, red green blue in 0..1; by default the run's,
    or black."""
    device: Device = "auto"
    """Where to render."""
    json: bool = False
    """Print one JSON document, each image's scores too."""


def main(argv: list[str]) -> int:
    args = parse(Eval, "eval", argv)
    from splat.cli.scene import load

    check_colour(args.background)
    evaluation = score(load(args.scene, args.device, args.data), args)
    if args.json:
        print(evaluation.to_json(), end="")
        return 0
    width = max(len(image.name) for image in evaluation.per_image)
    for image in evaluation.per_image:
        lpips = "" if image.lpips is None else f"  LPIPS {image.lpips:.4f}"
        print(f"{image.name:<{width}}  PSNR {image.psnr:6.2f} dB  SSIM {image.ssim:.4f}{lpips}")
    print(
        f"{evaluation.num_gaussians:,} Gaussians, {counted(len(evaluation.per_image), 'view')}: {evaluation.line()}"
    )
    return 0


def score(loaded: Loaded, args: Eval) -> Evaluation:
    """The scores that the arguments ask for."""
    from splat.cli.scene import choose
    from splat.training.evaluate import evaluate

    dataset = loaded.dataset(args.downscale, args.background)
    views = choose(dataset, args.views, args.scene)
    session = loaded.session
    if session is not None and dataset is session.dataset and args.views == "test":
        return session.score(0.0)
    background = args.background or loaded.background
    return evaluate(
        lambda camera: loaded.draw(loaded.local(camera, dataset.offset), background),
        dataset,
        views,
        background,
        step=loaded.metadata.get("step", 0),
        num_gaussians=len(loaded.gaussians),
        train_seconds=0.0,
        device=loaded.gaussians.device,
    )
