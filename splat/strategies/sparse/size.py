"""Sizes held: no Gaussian grows across the picture.

Few photographs leave Gaussians free to grow into long thin ones that explain a little of each and hang as a haze before
what other views see. Their standard deviations are held below a share of the picture, in every view that draws them;
Kerbl et al. 2023 remove what is too large in view space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from splat.core import Camera, Gaussians, UsageError
from splat.raster.constants import NEAR
from splat.strategies.sparse.geometry import inside, projected
from splat.training.context import Context
from splat.training.strategy import Strategy


@dataclass(frozen=True)
class SizeConfig:
    """Sizes that are held."""

    on: bool = True
    """Whether to use it."""
    most: float = 0.05
    """Largest standard deviation, as a share of the longer side of the picture; but at least four times the median
    of those that the run begins with, which must fill the picture where they are few."""

    def __post_init__(self) -> None:
        if not self.most > 0:
            raise UsageError(f"sparse_view: size.most must be positive, got {self.most}")


_TIMES = 4.0


class Size(Strategy):
    """Keeps the share that the scene began with."""

    name: ClassVar[str] = "size"
    config_type: ClassVar[type] = SizeConfig
    needs = frozenset({"radii"})
    config: SizeConfig

    @torch.no_grad()
    def setup(self, ctx: Context) -> None:
        sizes = torch.cat([shares(ctx.gaussians, camera) for camera in ctx.views.cameras()])
        self._first = float(sizes.median()) if len(sizes) else 0.0

    @torch.no_grad()
    def after_step(self, ctx: Context) -> None:
        g, camera, radii = ctx.gaussians, ctx.camera, ctx.output.radii
        assert radii is not None
        if len(radii) != len(g):  # density control has just added or removed rows: not this time
            return
        _, z = projected(camera, g.means)
        pixel = z / max(camera.fx, camera.fy)
        share = max(self.config.most, _TIMES * self._first)
        most = share * max(camera.width, camera.height) * pixel
        limit = torch.where((radii > 0) & (z > NEAR), most, torch.inf).log()
        held = torch.minimum(g.log_scales, limit[:, None])
        ctx.edits.replace("log_scales", None, held, zero_moments=False)

    def state_dict(self) -> dict[str, Any]:
        return {"first": self._first}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._first = state["first"]


def shares(gaussians: Gaussians, camera: Camera) -> Tensor:
    """[M] largest standard deviation of those that the camera sees, as a share of the longer side of its picture."""
    pixels, z = projected(camera, gaussians.means)
    seen = inside(camera, pixels, z)
    largest = gaussians.log_scales[seen].amax(1).exp()
    return largest / z[seen] * max(camera.fx, camera.fy) / max(camera.width, camera.height)
