"""Binocular stereo consistency: the view a small step aside, warped back by the drawn depth, is the photograph.

Han et al., "Binocular-Guided 3D Gaussian Splatting with View Consistency for Sparse View Synthesis", NeurIPS 2024.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from splat.core import UsageError
from splat.raster.constants import NEAR
from splat.strategies.sparse.geometry import OPAQUE, baseline, inside, kept_mean, pixel_centres, sampled
from splat.training.context import MAIN, Context
from splat.training.strategy import Further, Strategy


@dataclass(frozen=True)
class BinocularConfig:
    """Consistency with a camera beside."""

    on: bool = False
    """Whether to use it."""
    weight: float = 1.0
    """Weight in the loss of the mean absolute difference."""
    shift: float = 0.1
    """Most that the camera is moved along its x axis, times the baseline: the median distance of a training camera
    to its nearest one."""
    start: float = 0.2
    """When it begins, as a share of the run."""

    def __post_init__(self) -> None:
        if self.weight < 0:
            raise UsageError(f"sparse_view: binocular.weight must not be negative, got {self.weight}")
        if not self.shift > 0:
            raise UsageError(f"sparse_view: binocular.shift must be positive, got {self.shift}")
        if not 0 <= self.start <= 1:
            raise UsageError(f"sparse_view: binocular.start must lie in [0, 1], got {self.start}")


class Binocular(Strategy):
    """Keeps no state."""

    name: ClassVar[str] = "binocular"
    config_type: ClassVar[type] = BinocularConfig
    needs = frozenset({"depth"})
    config: BinocularConfig

    def setup(self, ctx: Context) -> None:
        self._reach = self.config.shift * baseline(ctx.views.cameras())
        self._beside: tuple[Further, float] | None = None

    def renders(self, ctx: Context) -> list[Further]:
        self._beside = None
        if ctx.step < self.config.start * ctx.steps or self._reach == 0:
            return []
        drawn = torch.rand((), generator=ctx.generator, device=ctx.generator.device)
        shift = self._reach * (2 * float(drawn) - 1)
        pose = ctx.camera.world_to_camera.clone()
        pose[0, 3] -= shift
        further = Further(MAIN, ctx.camera.with_pose(pose), ctx.options())
        self._beside = further, shift
        return [further]

    def losses(self, ctx: Context) -> dict[str, Tensor]:
        if self._beside is None:
            return {}
        further, shift = self._beside
        depth, camera = ctx.output.depth, ctx.camera
        assert depth is not None
        u, v = pixel_centres(depth)
        moved = u - camera.fx * shift / depth.clamp_min(NEAR)
        pixels = torch.stack(torch.broadcast_tensors(moved, v), -1)
        kept = inside(camera, pixels.detach(), depth) & (ctx.output.alpha > OPAQUE)
        if ctx.mask is not None:
            kept &= ctx.mask != 0
        warped = sampled(further.drawn.image, pixels)
        difference = (warped - ctx.target.to(depth) / 255).abs().mean(-1)
        return {self.name: self.config.weight * kept_mean(difference, kept)}
