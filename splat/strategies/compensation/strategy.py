"""A head on the rendered image, trained together with the Gaussians.

Yang et al., "Spectrally Pruned Gaussian Fields with Neural Compensation" (SUNDAE), 2024, section 3.3.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from splat.core import Gaussians, UsageError
from splat.raster import RenderOutput
from splat.strategies.compensation.network import Size, UNet, seeded
from splat.training.context import Context
from splat.training.strategy import Strategy

FEATURES = "compensation"
_SPREAD = 0.1  # standard deviation of the features at first: all alike would stay alike


@dataclass(frozen=True)
class CompensationConfig:
    """Options of the neural head."""

    size: Size = "small"
    """Size of the network."""
    features: int = 8
    """Learned values of each Gaussian that are blended as further channels; 0 gives the network the colours alone."""
    output: Literal["multiplicative", "residual"] = "multiplicative"
    """Whether the network scales the colours or is added to them."""
    rate: float = 1e-3
    """Learning rate of the network."""
    feature_rate: float = 2.5e-3
    """Learning rate of the features."""
    start: float = 0.5
    """Begin of the joint training, as a share of the run."""

    def __post_init__(self) -> None:
        if self.features < 0:
            raise UsageError(f"compensation: features must not be negative, got {self.features}")
        if not 0 <= self.start < 1:
            raise UsageError(f"compensation: start must lie in [0, 1), got {self.start}")


class Compensation(Strategy):
    """A U-Net over the rendered colours and blended features.

    It is part of the run: eval, render and resume apply it. A scene file holds the Gaussians alone.
    """

    name: ClassVar[str] = "compensation"
    config_type: ClassVar[type] = CompensationConfig
    config: CompensationConfig
    network: UNet
    optimizer: torch.optim.Adam

    def setup(self, ctx: Context) -> None:
        c, device = self.config, ctx.gaussians.device
        seed = int(torch.randint(2**62, (1,), generator=ctx.generator, device=device))
        self.network = seeded(3 + c.features, c.size, seed).to(device)
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=c.rate)
        if c.features:
            ctx.declare(FEATURES, self._first(seed + 1), lr=c.feature_rate, on_copy="copy")

    def active(self, ctx: Context) -> bool:
        """Whether the head is in use yet; a scene scored before that is scored without."""
        return ctx.step >= self.config.start * ctx.steps

    def features(self, gaussians: Gaussians, ctx: Context) -> Tensor | None:
        return gaussians.extras[FEATURES] if self.config.features and self.active(ctx) else None

    def after_render(self, output: RenderOutput, ctx: Context) -> RenderOutput:
        if not self.active(ctx):
            return output
        seen = output.image if output.features is None else torch.cat([output.image, output.features], 2)
        answer = self.network(seen.permute(2, 0, 1)).permute(1, 2, 0)
        scaled = self.config.output == "multiplicative"
        image = output.image * (1 + answer) if scaled else output.image + answer
        return replace(output, image=image.contiguous())

    def after_step(self, ctx: Context) -> None:
        if self.active(ctx):
            self.optimizer.step()
        self.optimizer.zero_grad()

    def export(self, ctx: Context) -> dict[str, Any]:
        return {"heads": {self.name: {"bytes": self.network.bytes()}}}

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _first(self, seed: int) -> Any:
        def values(gaussians: Gaussians) -> Tensor:
            generator = torch.Generator().manual_seed(seed)
            return (torch.randn(len(gaussians), self.config.features, generator=generator) * _SPREAD).to(
                gaussians.means
            )

        return values
