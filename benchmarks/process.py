"""Structure from motion on real photographs: who gets a pose, how far it is from the given one, how long it takes.

    python benchmarks/process.py DATA... [--resize 1000] [--train STEPS] [--work DIR] [--out FILE.json]

DATA are COLMAP datasets or transforms.json: their photographs alone go through `splat process`, and the poses that it
finds are compared with those of the dataset after the best similarity (Umeyama 1991). With --resize the photographs
are first made that many pixels long (which the timing of 50 photographs at 1000 pixels needs). With --train the result
and the dataset are both trained with the preset cpu for so many steps, with each of the --seeds, and scored on the same
held-out photographs, pixel by pixel. Stages and runs that --work holds from an earlier call are kept; their times are
those of that call. Rows that --out holds already stay, unless they are measured again. --without leaves photographs
out of both trainings, where one of the models has them in the wrong place.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from process_training import report, train_both
from train import machine

from splat.cli.progress import Console
from splat.core import Camera
from splat.data import read_scene
from splat.data.images import list_images
from splat.data.sfm import ProcessOptions, evidence, process
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


def explained(data: Path, database: Path) -> dict[str, Any]:
    """Share of the matches found that the model of `data` explains (data/sfm/evidence.py): of all, and of those of each
    photograph."""
    import pycolmap  # after Pillow, whose PNG encoder aborts with pycolmap's zlib

    fits: Counter[str] = Counter()
    every: Counter[str] = Counter()
    for names, (fit, count) in evidence.by_pair(
        pycolmap.Reconstruction(data / "sparse" / "0"), database
    ).items():
        for name in names:
            fits[name] += fit
            every[name] += count
    share = sum(fits.values()) / sum(every.values())
    return {"all": share, "of": {name: fits[name] / every[name] for name in sorted(every)}}


def without(names: list[str], data: Path, folder: Path) -> Path:
    """A dataset, in `folder`, of the same photographs and model, in which the photographs `names` have no pose."""
    import pycolmap

    model = pycolmap.Reconstruction(data / "sparse" / "0")
    for identity in sorted(model.reg_image_ids()):
        image = model.image(identity)
        if Path(image.name).name in names:
            model.deregister_frame(image.frame_id)
    (folder / "sparse" / "0").mkdir(parents=True, exist_ok=True)
    model.write_binary(folder / "sparse" / "0")
    if not (folder / "images").exists():
        (folder / "images").symlink_to((data / "images").resolve())
    return folder


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
    if (data / "sparse" / "0").is_dir() and args.resize is None:
        models = {"processed": folder, "given": data}
        row["explained"] = {n: explained(d, folder / "process" / "database.db") for n, d in models.items()}
    datasets, part = {"processed": folder, "given": data}, ""
    runs = work / "runs" / f"{data.name}-{args.downscale:g}-{args.train}"
    if args.without:
        part, runs = f" without {', '.join(args.without)}", runs / "-".join(args.without)
        datasets = {
            name: without(args.without, each, runs / f"{name}-data") for name, each in datasets.items()
        }
        row["against"][f"model{part}"] = compare(datasets["processed"], datasets["given"])
    if args.train:
        row["trained"] = train_both(datasets, f"/{args.downscale:g}{part}", runs, args)
    return row


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
    parser.add_argument(
        "--without", nargs="+", default=[], metavar="NAME", help="photographs to train without"
    )
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
        for what, shares in row.get("explained", {}).items():
            least = ", ".join(
                f"{name} {100 * share:.0f} %"
                for name, share in sorted(shares["of"].items(), key=lambda item: item[1])[:6]
            )
            print(f"  matches that the {what} model explains: {100 * shares['all']:.1f} %; least of {least}")
        report(row.get("trained", {}))
    if args.out:
        before = json.loads(args.out.read_text())["rows"] if args.out.exists() else {}
        for name, row in rows.items():
            row["against"] = {**before.get(name, {}).get("against", {}), **row["against"]}
            if trained := {**before.get(name, {}).get("trained", {}), **row.get("trained", {})}:
                row["trained"] = trained
        document = {"machine": machine(), "rows": {**before, **rows}}
        args.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
