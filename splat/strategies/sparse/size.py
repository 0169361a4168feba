"""Sizes held: no Gaussian grows across the picture.

Few photographs leave Gaussians free to grow into long thin ones that explain a little of each and hang as a haze before
what other views see. Their standard deviations are held below a share of the picture, in every view that draws them;
Kerbl et al. 2023 remove what is too large in view space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from splat.core import UsageError
from splat.raster.constants import NEAR
from splat.strategies.sparse.geometry import projected
from splat.training.context import Context
from splat.training.strategy import Strategy


@dataclass(frozen=True)
class SizeConfig:
    """Sizes that are held."""

    on: bool = True
    """Whether to use it."""
    most: float = 0.05
    """Largest standard deviation, as a share of the longer side of the picture."""

    def __post_init__(self) -> None:
        if not self.most > 0:
            raise UsageError(f"sparse_view: size.most must be positive, got {self.most}")


class Size(Strategy):
    """Keeps no state."""

    name: ClassVar[str] = "size"
    config_type: ClassVar[type] = SizeConfig
    needs = frozenset({"radii"})
    config: SizeConfig

    @torch.no_grad()
    def after_step(self, ctx: Context) -> None:
        g, camera, radii = ctx.gaussians, ctx.camera, ctx.output.radii
        assert radii is not None
        if len(radii) != len(g):  # density control has just added or removed rows: not this time
            return
        _, z = projected(camera, g.means)
        pixel = z / max(camera.fx, camera.fy)
        most = self.config.most * max(camera.width, camera.height) * pixel
        limit = torch.where((radii > 0) & (z > NEAR), most, torch.inf).log()
        held = torch.minimum(g.log_scales, limit[:, None])
        ctx.edits.replace("log_scales", None, held, zero_moments=False)
