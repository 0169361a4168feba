"""The stage of --mvs: depth maps and dense points by plane-sweep stereo, from the finished model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from splat.core.files import beside, replacing
from splat.data.dataset import Dataset
from splat.data.registry import read_scene
from splat.data.scene import Points
from splat.data.stereo import StereoView, reconstruct

if TYPE_CHECKING:
    from splat.data.sfm.worker import Job

_LONGEST = 320  # pixels of a depth map's longer side: time grows with its square


def dense(job: Job) -> dict[str, Any]:
    """Write depths/NAME.npy, [h, w] float32 camera z of the undistorted photograph made smaller (0 where other
    photographs do not confirm one), and dense.ply.

    Returns:
        {points, known: share of the depth maps that is known}.
    """
    job.progress(0, 1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(job.threads)
    scene = read_scene(job.data)
    longest = max(max(frame.camera.width, frame.camera.height) for frame in scene.frames)
    with Dataset(scene, downscale=max(1.0, longest / _LONGEST)) as dataset:
        views = []
        for index in range(len(dataset)):
            photo = dataset.photo(index)
            mask = None if photo.mask is None else (photo.mask > 0).to(device)
            views.append(StereoView(dataset.camera(index), photo.image.to(device) / 255, mask))
        known = None if dataset.points is None else dataset.points.xyz.to(device)
        found = reconstruct(views, known)
        offset = dataset.offset
    for frame, depth in zip(scene.frames, found.depths, strict=True):
        path = job.data / "depths" / f"{frame.name}.npy"
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as temporary, open(temporary, "wb") as file:
            np.save(file, depth.depth.cpu().numpy())
    write_points(job.data / "dense.ply", found.points, offset)
    share = float(torch.cat([(depth.depth > 0).float().flatten() for depth in found.depths]).mean())
    return {"points": len(found.points), "known": share}


def write_points(path: Path, points: Points, offset: torch.Tensor) -> None:
    """A binary .ply of coloured points, `offset` [3] added to their coordinates (float64 in the file)."""
    rows = np.zeros(
        len(points), dtype=[(axis, "<f8") for axis in "xyz"] + [(c, "u1") for c in ("red", "green", "blue")]
    )
    xyz = points.xyz.double().cpu() + offset
    for column, axis in enumerate("xyz"):
        rows[axis] = xyz[:, column].numpy()
    for column, colour in enumerate(("red", "green", "blue")):
        rows[colour] = points.rgb.cpu()[:, column].numpy()
    properties = [f"property double {axis}" for axis in "xyz"]
    properties += [f"property uchar {colour}" for colour in ("red", "green", "blue")]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(rows)}",
        *properties,
        "end_header",
    ]
    with replacing(path) as file:
        file.write(("\n".join(header) + "\n").encode() + rows.tobytes())
