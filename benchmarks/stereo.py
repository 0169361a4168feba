"""Depth by stereo against the truth: three views of the sample scene, and three of fox against COLMAP's points.

    python benchmarks/stereo.py [--size 160 120] [--data FOLDER]

sample-A: views A degrees apart on the built-in scene's ring, against its true depth at all pixels. fox-3: the views
0018, 0034 and 0115 at 1/8 of the capture, against the points of the COLMAP model of all photographs where these views
observe them; stereo itself is bounded by the points that the three views alone determine. Printed are the share of
pixels that other views confirm, and of those (at points, on fox) the median error and the shares off by less than 1%
and by more than 10%; processor seconds are those of this process.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path

import torch

from splat.data import Dataset, read_scene
from splat.data.sample import render_sample, sample_cameras
from splat.data.sample_scene import build_world
from splat.data.stereo import Reconstruction, StereoView, reconstruct
from splat.data.triangulation import triangulate

ROOT = Path(__file__).resolve().parent.parent
FOX = ("0018.jpg", "0034.jpg", "0115.jpg")


def line(name: str, found: Reconstruction, errors: torch.Tensor, seconds: float) -> str:
    share = sum(float((depth.depth > 0).float().mean()) for depth in found.depths) / len(found.depths)
    small, large = float((errors < 0.01).float().mean()), float((errors > 0.1).float().mean())
    return (
        f"| {name} | {share:.1%} | {float(errors.median()):.2%} | {small:.1%} | {large:.1%} | "
        f"{len(found.points):,} | {seconds:.1f} |"
    )


def sample(degrees: int, width: int, height: int) -> str:
    world = build_world(0)
    every = sample_cameras(360 // degrees, width, height)
    shown = [render_sample(world, camera) for camera in every[3:6]]
    views = [StereoView(view.camera, torch.from_numpy(view.image).float() / 255) for view in shown]
    began = time.process_time()
    found = reconstruct(views)
    seconds = time.process_time() - began
    errors = []
    for view, depth in zip(shown, found.depths, strict=True):
        truth, known = torch.from_numpy(view.depth), depth.depth > 0
        errors.append(((depth.depth - truth).abs() / truth)[known])
    return line(f"sample-{degrees}", found, torch.cat(errors), seconds)


def fox(data: Path) -> str:
    scene = read_scene(data / "fox")
    names = [frame.name for frame in scene.frames]
    chosen = [names.index(name) for name in FOX]
    assert scene.observe is not None
    assert scene.points is not None
    assert scene.points.tracks is not None
    points = triangulate(scene.observe(chosen), [frame.camera for frame in scene.frames])
    with Dataset(scene, 8.0) as dataset:
        views = [StereoView(dataset.camera(i), dataset.photo(i).image.float() / 255) for i in chosen]
    began = time.process_time()
    found = reconstruct(views, points.xyz)
    seconds = time.process_time() - began
    tracks, errors = scene.points.tracks, []
    for index, view, depth in zip(chosen, views, found.depths, strict=True):
        xyz, camera = scene.points.xyz[tracks.points()[tracks.frames == index]], view.camera
        pose = camera.world_to_camera.double()
        local = xyz @ pose[:3, :3].T + pose[:3, 3]
        pixels = local @ camera.matrix.double().T
        column = (pixels[:, 0] / pixels[:, 2]).long().clamp(0, camera.width - 1)
        row = (pixels[:, 1] / pixels[:, 2]).long().clamp(0, camera.height - 1)
        ours = depth.depth[row, column]
        errors.append(((ours - local[:, 2]).abs() / local[:, 2])[ours > 0])
    return line("fox-3", found, torch.cat(errors), seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", nargs=2, type=int, default=[160, 120], help="of the sample's views")
    parser.add_argument("--data", type=Path, default=None, help="$SPLAT_DATA, or ../shared/data")
    args = parser.parse_args()
    data = args.data or Path(os.environ.get("SPLAT_DATA") or ROOT.parent / "shared" / "data")
    print("| views | confirmed | median error | under 1% | over 10% | points | processor s |")
    print("|---|---|---|---|---|---|---|")
    for degrees in (15, 30):
        print(sample(degrees, *args.size), flush=True)
    if (data / "fox").exists():
        print(fox(data), flush=True)
    else:
        print(f"fox-3 left out: no data at {data / 'fox'}")


if __name__ == "__main__":
    main()
