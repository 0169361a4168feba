"""The stage of --mvs: depth maps and dense points by plane-sweep stereo, from the finished model."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from splat.core.files import replacing
from splat.data.dataset import Dataset
from splat.data.priors.files import pinhole_pixels, source_size
from splat.data.registry import read_scene
from splat.data.scene import Points
from splat.data.stereo import DepthMap, StereoView, reconstruct

if TYPE_CHECKING:
    from splat.data.sfm.worker import Job

_FOLDER = "stereo"  # in process/: depths before the views have confirmed each other


def dense(job: Job) -> dict[str, Any]:
    """Write depths/NAME.npy ([h, w] float32 camera z at the pixels of the photograph made smaller, NAME without
    extension, 0 where other photographs do not confirm one), and dense.ply.

    Returns:
        {points, known: share of the depth maps that is known}.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.set_num_threads(job.threads)
    scene = read_scene(job.data)
    longest = max(max(source_size(frame)) for frame in scene.frames)
    known = []
    with Dataset(scene, downscale=max(1.0, longest / job.options.mvs_size)) as dataset:
        views = []
        for index in range(len(dataset)):
            photo = dataset.photo(index)
            mask = None if photo.mask is None else (photo.mask > 0).to(device)
            views.append(StereoView(dataset.camera(index), photo.image.to(device) / 255, mask))
        points = None if dataset.points is None else dataset.points.xyz.to(device)
        found = reconstruct(views, points, keeper=_Kept(job, len(views), device))
        for index, (frame, depth) in enumerate(zip(scene.frames, found.depths, strict=True)):
            path = (job.data / "depths" / frame.name).with_suffix(".npy")
            path.parent.mkdir(parents=True, exist_ok=True)
            values = in_photograph(depth.depth.cpu(), dataset, index)
            known.append((values > 0).flatten())
            with replacing(path) as file:
                np.save(file, values.numpy())
        write_points(job.data / "dense.ply", found.points, dataset.offset)
    shutil.rmtree(job.folder / _FOLDER, ignore_errors=True)
    job.progress(len(views), len(views))
    return {"points": len(found.points), "known": float(torch.cat(known).float().mean())}


class _Kept:
    """Depths of views on the disk, and the progress: a Keeper of splat.data.stereo."""

    def __init__(self, job: Job, count: int, device: torch.device) -> None:
        self._job, self._count, self._device = job, count, device
        self._folder = job.folder / _FOLDER
        if job.fresh:
            shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)

    def load(self, number: int) -> DepthMap | None:
        self._job.progress(number, self._count)
        path = self._folder / f"{number}.npy"
        if not path.is_file():
            return None
        return DepthMap(*torch.from_numpy(np.load(path)).to(self._device).unbind())

    def save(self, number: int, depth: DepthMap) -> None:
        with replacing(self._folder / f"{number}.npy") as file:
            np.save(file, torch.stack([depth.depth, depth.confidence]).cpu().numpy())


def in_photograph(depth: torch.Tensor, dataset: Dataset, view: int) -> torch.Tensor:
    """[h, w] the depths [H, W] of the pinhole picture of a view at the pixels of its photograph, distorted or not,
    made as much smaller; 0 where the picture does not reach."""
    frame = dataset.scene.frames[view]
    if frame.distortion is None:
        return depth
    scale = depth.shape[0] / frame.camera.height
    width, height = (max(1, round(side * scale)) for side in source_size(frame))
    full_width, full_height = source_size(frame)
    u = (torch.arange(width) + 0.5) * full_width / width
    v = (torch.arange(height) + 0.5) * full_height / height
    pixels = torch.stack(torch.broadcast_tensors(u[None], v[:, None]), -1).reshape(-1, 2)
    at = pinhole_pixels(pixels.double().numpy(), dataset, view).reshape(height, width, 2)
    column, row = at.nan_to_num(-1.0).floor().long().unbind(-1)
    inside = (column >= 0) & (row >= 0) & (column < depth.shape[1]) & (row < depth.shape[0])
    return torch.where(inside, depth[row * inside, column * inside], 0.0)


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
