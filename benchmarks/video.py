"""From a video to an exported scene by the commands alone, on a scene whose truth is known.

    python benchmarks/video.py [--frames 80] [--size 416 312] [--work DIR] [--out video.json]

A smooth camera path around the sample scene is rendered ray by ray and made a video of a slow walk, with two frames a
second, since each takes its time; then `splat process`, `splat train --eval` and `splat export` run on it, each as a
process of its own, with nothing but default options. The poses are compared with the path; held-out PSNR is that of the
run.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import torch
from train import machine

from splat.core import Camera
from splat.core.paths import CameraPath
from splat.core.rotations import matrix_to_quat
from splat.data import read_scene
from splat.data.sample import render_sample, sample_cameras
from splat.data.sample_scene import build_world
from splat.training.align import similarity

KEYFRAMES = 12
RATE = 2  # frames a second


def path(frames: int, width: int, height: int) -> list[Camera]:
    """Cameras of a smooth walk around the scene, through some of the sample's."""
    keys = sample_cameras(KEYFRAMES, width, height)
    to_world = [camera.camera_to_world.double() for camera in keys]
    walk = CameraPath(
        times=torch.arange(KEYFRAMES, dtype=torch.float64),
        positions=torch.stack([pose[:3, 3] for pose in to_world]),
        quats=torch.stack([matrix_to_quat(pose[:3, :3]) for pose in to_world]),
        fovs=torch.full((KEYFRAMES,), 2 * float(torch.atan(torch.tensor(height / 2 / keys[0].fy)))).double(),
        width=width,
        height=height,
        fps=frames / KEYFRAMES,
        loop=True,
    )
    return walk.frames()


def film(file: Path, cameras: list[Camera]) -> None:
    """What the cameras see, H.264."""
    world = build_world(0)
    with imageio.get_writer(file, fps=RATE, macro_block_size=1, quality=9) as writer:
        for camera in cameras:
            writer.append_data(render_sample(world, camera, samples=1).image)


def command(*args: object) -> float:
    """Run `splat ARGS`; seconds of processor time."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "splat", *map(str, args)], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def off(data: Path, cameras: list[Camera]) -> dict[str, float]:
    """How far the poses found are from those of the path, in shares of its extent."""
    frames = read_scene(data).frames
    truth = [cameras[int(Path(frame.name).stem.rsplit("_", 1)[1])] for frame in frames]
    source = torch.stack([frame.camera.position.double() for frame in frames])
    target = torch.stack([camera.position.double() for camera in truth])
    scale, rotation, shift = similarity(source, target)
    distance = (scale * source @ rotation.T + shift - target).norm(dim=1)
    distance /= 1.1 * (target - target.mean(0)).norm(dim=1).max()
    return {"position_mean": float(distance.mean()), "position_max": float(distance.max())}


def measure(args: argparse.Namespace, work: Path) -> dict[str, Any]:
    cameras = path(args.frames, *args.size)
    video, data, run, scene = work / "walk.mp4", work / "data", work / "run", work / "walk.sog"
    if not video.exists():
        film(video, cameras)
    row: dict[str, Any] = {"frames": len(cameras), "size": args.size, "steps": args.steps}
    row["seconds"] = {
        "process": command("process", video, data),
        "train": command("train", data, "--preset", "cpu", "--steps", args.steps, "--eval", "--out", run),
        "export": command("export", run, scene),
    }
    summary = json.loads((data / "process.json").read_text())
    row |= {name: summary[name] for name in ("registered", "total", "error", "points")}
    row["off"] = off(data, cameras)
    score = json.loads((run / "stats" / f"eval_{args.steps}.json").read_text())
    row |= {name: score[name] for name in ("psnr", "ssim", "num_gaussians")}
    row["bytes"] = scene.stat().st_size
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--frames", type=int, default=80)
    parser.add_argument("--size", type=int, nargs=2, default=[416, 312])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--work", type=Path, help="keep everything here; by default it is temporary")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        work = args.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        row = measure(args, work)
    print(
        f"{row['registered']} of {row['total']} frames posed, {100 * row['off']['position_mean']:.3f} % of the "
        f"extent off (largest {100 * row['off']['position_max']:.3f} %); {row['psnr']:.2f} dB; .sog of "
        f"{row['bytes'] / 1e3:.0f} kB; processor time "
        + ", ".join(f"{name} {seconds:.0f} s" for name, seconds in row["seconds"].items())
    )
    if args.out:
        args.out.write_text(json.dumps({"machine": machine(), **row}, indent=1) + "\n")


if __name__ == "__main__":
    main()
