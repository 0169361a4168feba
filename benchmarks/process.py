"""Structure from motion on real photographs: who gets a pose, how far it is from the given one, how long it takes.

    python benchmarks/process.py DATA... [--resize 1000] [--train STEPS] [--work DIR] [--out FILE.json]

DATA are COLMAP datasets or transforms.json: their photographs alone go through `splat process`, and the poses that it
finds are compared with those of the dataset after the best similarity (Umeyama 1991). With --resize the photographs
are first made that many pixels long (which the timing of 50 photographs at 1000 pixels needs). With --train the result
and the dataset are both trained with the preset cpu for so many steps, with each of the --seeds, and scored on the same
held-out photographs, pixel by pixel. Stages and runs that --work holds from an earlier call are kept; their times are
those of that call. Rows that --out holds already stay, unless they are measured again.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from common_pixels import held_out, score
from PIL import Image
from train import machine

from splat.cli.process import Console
from splat.core import Camera
from splat.data import read_scene
from splat.data.images import list_images
from splat.data.sfm import ProcessOptions, process
from splat.training.align import similarity


def photographs(data: Path, longest: int | None, work: Path) -> Path:
    """The folder of photographs to process: the dataset's own, or smaller copies."""
    images = data / "images"
    if longest is None:
        return images
    smaller = work / f"{data.name}-{longest}px"
    smaller.mkdir(parents=True, exist_ok=True)
    for path in list_images(images):
        target = smaller / path.name
        if not target.exists():
            with Image.open(path) as image:
                exif = image.getexif()
                image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
                image.save(target, quality=95, exif=exif)
    return smaller


def compare(found: Path, given: Path) -> dict[str, Any]:
    """Errors of the poses of one dataset against another's: positions in shares of the extent (1.1 times the largest
    distance from the mean), rotations in degrees."""
    ours, theirs = cameras(found), cameras(given)
    names = sorted(ours.keys() & theirs.keys())
    source = torch.stack([ours[name].position.double() for name in names])
    target = torch.stack([theirs[name].position.double() for name in names])
    scale, rotation, shift = similarity(source, target)
    off = (scale * source @ rotation.T + shift - target).norm(dim=1)
    extent = 1.1 * float((target - target.mean(0)).norm(dim=1).max())
    angles = []
    for name in names:
        turned = ours[name].world_to_camera[:3, :3].double() @ rotation.T
        trace = (theirs[name].world_to_camera[:3, :3].double().T @ turned).trace()
        angles.append(float(torch.rad2deg(torch.arccos(((trace - 1) / 2).clamp(-1, 1)))))
    return {
        "common": len(names),
        "position_mean": float(off.mean()) / extent,
        "position_max": float(off.max()) / extent,
        "rotation_mean": sum(angles) / len(angles),
        "rotation_max": max(angles),
    }


def cameras(data: Path) -> dict[str, Camera]:
    """By file name, since datasets differ in the folders before it."""
    return {Path(frame.name).name: frame.camera for frame in read_scene(data).frames}


def trained(data: Path, args: argparse.Namespace, seed: int, run: Path) -> Path:
    """The run's exported scene; a finished run is kept."""
    from splat.strategies import registry
    from splat.training.config import load_preset
    from splat.training.run import train

    scene = run / "exports" / "point_cloud.ply"
    if not scene.exists():
        config = replace(load_preset("cpu"), steps=args.train, downscale=args.downscale, eval=True, seed=seed)
        scene = train(config, data, run, strategies=registry.build(config.strategies, config.options)).scene
    return scene


def train_both(found: Path, given: Path, args: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Runs on the poses found and on the given ones, each seed of one beside the same seed of the other.

    `psnr`, `ssim` and `per_image` are over the pixels of the photographs that both show (common_pixels.py), `own_psnr`
    as each run scores itself.
    """
    row: dict[str, Any] = {"steps": args.train, "downscale": args.downscale, "processed": [], "given": []}
    for seed in args.seeds:
        scenes = {}
        for name, data in {"processed": found, "given": given}.items():
            run = work / "runs" / f"{found.name}-{name}-{args.downscale:g}-{args.train}-{seed}"
            scenes[name] = trained(data, args, seed, run)
        views = [
            held_out(scenes["processed"], found, args.downscale),
            held_out(scenes["given"], given, args.downscale),
        ]
        # Which photographs are held out follows from the names of those that have poses.
        assert views[0].keys() == views[1].keys(), f"different photographs are held out: {views}"
        for (name, scene), scores in zip(scenes.items(), score(views), strict=True):
            own = json.loads((scene.parents[1] / "stats" / f"eval_{args.train}.json").read_text())["psnr"]
            psnr, ssim = (mean(values) for values in zip(*scores.values(), strict=True))
            images = {image: value for image, (value, _) in scores.items()}
            row[name].append({"seed": seed, "psnr": psnr, "ssim": ssim, "own_psnr": own, "per_image": images})
            print(
                f"{given.name} /{args.downscale:g}, seed {seed}, {name}: {psnr:.2f} dB, SSIM {ssim:.4f}",
                flush=True,
            )
    return row


def measure(data: Path, args: argparse.Namespace, work: Path) -> dict[str, Any]:
    folder = work / f"{data.name}{f'-{args.resize}px' if args.resize else ''}-processed"
    options = ProcessOptions(threads=args.threads)
    console = Console(sys.stdout)
    summary = process([photographs(data, args.resize, work)], folder, options, console)
    row = {name: summary[name] for name in ("registered", "total", "error", "points", "mapper", "seconds")}
    row |= {"resize": args.resize, "threads": args.threads, "off_gps": summary["off_gps"]}
    row["total_seconds"] = round(sum(summary["seconds"].values()), 1)
    row["cameras"] = [camera["model"] for camera in summary["cameras"]]
    row["against"] = {"model": compare(folder, data)}
    if (data / "transforms.json").is_file():
        row["against"]["transforms.json"] = compare(folder, data / "transforms.json")
    if args.train:
        row["trained"] = train_both(folder, data, args, work)
    return row


def print_trained(trained: dict[str, Any]) -> None:
    for what in ("processed", "given"):
        runs = trained[what]
        each = ", ".join(f"{run['psnr']:.2f}" for run in runs)
        print(f"  {trained['steps']} steps at /{trained['downscale']:g} on the {what} poses: ", end="")
        print(
            f"{mean(run['psnr'] for run in runs):.2f} dB ({each}), SSIM {mean(run['ssim'] for run in runs):.4f}"
        )
        for image in runs[0]["per_image"]:
            print(f"    {image} {mean(run['per_image'][image] for run in runs):.2f} dB")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="+")
    parser.add_argument("--resize", type=int, help="longest side of the photographs, pixels")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--train", type=int, default=0, metavar="STEPS")
    parser.add_argument("--seeds", type=int, nargs="+", default=[42])
    parser.add_argument("--downscale", type=float, default=4.0)
    parser.add_argument("--work", type=Path, help="keep the datasets here; by default they are temporary")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        size = f" at {args.resize} px" if args.resize else ""
        rows = {f"{data.name}{size}": measure(data, args, work) for data in args.data}
    for name, row in rows.items():
        print(
            f"{name}: {row['registered']} of {row['total']} in {row['total_seconds']:.0f} s, {row['error']:.2f} px"
        )
        for other, off in row["against"].items():
            print(
                f"  against its {other}: positions {100 * off['position_mean']:.3f} % of the extent (largest "
                f"{100 * off['position_max']:.3f} %), rotations {off['rotation_mean']:.3f} degrees (largest "
                f"{off['rotation_max']:.3f})"
            )
        if "trained" in row:
            print_trained(row["trained"])
    if args.out:
        before = json.loads(args.out.read_text())["rows"] if args.out.exists() else {}
        document = {"machine": machine(), "rows": {**before, **rows}}
        args.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
