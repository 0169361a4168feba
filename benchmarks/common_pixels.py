"""Held-out photographs scored as they were taken, so that runs on different models of the lens see the same pixels.

A run is scored on undistorted photographs, and which pixels these hold follows from the lens of its own model: of the
border, which is the hardest part of a picture, one model may show more than another. Here renders are bent back to the
photograph instead, and compared where all the runs show something.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from splat.cli.scene import load
from splat.data.images import decode
from splat.data.resample import area_resize
from splat.data.scene import Frame
from splat.training.losses import psnr, ssim


@dataclass(frozen=True)
class Held:
    """A held-out view in its photograph's own pixels.

    Attributes:
        image, truth: [H, W, 3] render and photograph in [0, 1].
        shown: [H, W] bool, where the render has a pixel.
    """

    image: Tensor
    truth: Tensor
    shown: Tensor


@torch.no_grad()
def held_out(scene: Path, data: Path, downscale: float) -> dict[str, Held]:
    """{file name: view} of what a run of `data` at `downscale` held out; `scene` is what it exported."""
    loaded = load(scene, "cpu", data)
    views = {}
    with loaded.dataset(downscale) as dataset:
        for index in dataset.test:
            frame = dataset.scene.frames[index]
            image = loaded.draw(loaded.local(dataset.camera(index), dataset.offset)).clamp(0, 1)
            colour, _ = decode(frame.path, frame.orientation)
            height, width = (max(1, round(side / downscale)) for side in colour.shape[:2])
            truth = area_resize(torch.tensor(colour), width, height) / 255
            grid = _in_render(frame, width, height)
            shown = (grid.abs() <= 1).all(-1)  # false for NaN, too
            bent = grid_sample(
                image.permute(2, 0, 1)[None],
                grid.nan_to_num(nan=2.0)[None],
                padding_mode="border",
                align_corners=False,
            )
            views[frame.path.name] = Held(bent[0].permute(1, 2, 0), truth, shown)
    return views


def _in_render(frame: Frame, width: int, height: int) -> Tensor:
    """[height, width, 2] where the pixels of a photograph of that size lie in its render, whose outer edges are at -1
    and 1; NaN where the lens has no ray."""
    x, y = (torch.arange(size, dtype=torch.float64) for size in (width, height))
    y, x = torch.meshgrid((y + 0.5) / height, (x + 0.5) / width, indexing="ij")
    if frame.distortion is not None:
        source, camera = frame.distortion.source, frame.camera
        pixels = torch.stack([x * source.width, y * source.height], -1)
        rays = torch.as_tensor(source.colmap_camera().cam_from_img(pixels.reshape(-1, 2).numpy()))
        x, y = rays.reshape(height, width, -1).unbind(-1)
        x, y = (camera.fx * x + camera.cx) / camera.width, (camera.fy * y + camera.cy) / camera.height
    return torch.stack([2 * x - 1, 2 * y - 1], -1).float()


def score(runs: Sequence[dict[str, Held]]) -> list[dict[str, tuple[float, float]]]:
    """{file name: (PSNR, SSIM)} for each run, over the pixels that all of them show."""
    scores: list[dict[str, tuple[float, float]]] = [{} for _ in runs]
    for name in runs[0]:
        mask = torch.stack([run[name].shown for run in runs]).all(0)
        for held, into in zip((run[name] for run in runs), scores, strict=True):
            kept = mask.to(torch.uint8) * 255
            into[name] = (psnr(held.image, held.truth, kept), ssim(held.image, held.truth, kept))
    return scores
