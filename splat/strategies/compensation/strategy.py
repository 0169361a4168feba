"""A head on the rendered image, trained together with the Gaussians.

Yang et al., "Spectrally Pruned Gaussian Fields with Neural Compensation" (SUNDAE), 2024, section 3.3.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor

from splat.core import Camera, Gaussians, UsageError
from splat.core.heads import Head, SavedHead
from splat.raster import RenderOutput
from splat.strategies.compensation.network import CHANNELS, Size, UNet, seeded
from splat.training.context import Context
from splat.training.strategy import Strategy

FEATURES = "compensation"
Output = Literal["multiplicative", "residual"]
_SPREAD = 0.1  # standard deviation of the features at first: all alike would stay alike
_MOST_FEATURES = 64


@dataclass(frozen=True)
class CompensationConfig:
    """Options of the neural head."""

    size: Size = "small"
    """Size of the network."""
    features: int = 8
    """Learned values of each Gaussian that are blended as further channels; 0 gives the network the colours alone."""
    output: Output = "multiplicative"
    """Whether the network scales the colours or is added to them."""
    rate: float = 1e-3
    """Learning rate of the network."""
    feature_rate: float = 3e-2
    """Learning rate of the features."""
    start: float = 0.5
    """Begin of the joint training, as a share of the run."""

    def __post_init__(self) -> None:
        if not 0 <= self.features <= _MOST_FEATURES:
            raise UsageError(
                f"compensation: features must lie between 0 and {_MOST_FEATURES}, got {self.features}"
            )
        if not 0 <= self.start < 1:
            raise UsageError(f"compensation: start must lie in [0, 1), got {self.start}")


class Compensation(Strategy):
    """A U-Net over the rendered colours and blended features.

    It is part of the run: eval, render, resume and the viewer apply it, and files that can hold it do.
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
        return replace(
            output, image=compensated(self.network, self.config.output, output.image, output.features)
        )

    def after_step(self, ctx: Context) -> None:
        if self.active(ctx):
            self.optimizer.step()
        self.optimizer.zero_grad()

    def head(self, ctx: Context) -> Head | None:
        if not self.active(ctx):
            return None
        c = self.config
        return _head(copy.deepcopy(self.network), c.size, c.features, c.output)

    @classmethod
    def restored(cls, saved: SavedHead, device: torch.device) -> Head:
        size, features, output = _options(saved.options)
        if (saved.features is not None) != bool(features):
            raise ValueError(f"{features} features a Gaussian, and the name {saved.features!r} for them")
        network = seeded(3 + features, size, 0)
        network.load(saved.weights)
        return _head(network.to(device), size, features, output)

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])

    def _first(self, seed: int) -> Callable[[Gaussians], Tensor]:
        def values(gaussians: Gaussians) -> Tensor:
            generator = torch.Generator().manual_seed(seed)
            return (torch.randn(len(gaussians), self.config.features, generator=generator) * _SPREAD).to(
                gaussians.means
            )

        return values


def compensated(network: UNet, output: Output, image: Tensor, features: Tensor | None) -> Tensor:
    """[H, W, 3] what the network makes of an image [H, W, 3] and blended features [H, W, F]."""
    seen = image if features is None else torch.cat([image, features], 2)
    answer = network(seen.permute(2, 0, 1)).permute(1, 2, 0)
    return (image * (1 + answer) if output == "multiplicative" else image + answer).contiguous()


def _head(network: UNet, size: Size, features: int, output: Output) -> Head:
    network = network.requires_grad_(False).eval()
    options = {"size": size, "features": features, "output": output}

    def apply(image: Tensor, blended: Tensor | None, camera: Camera) -> Tensor:
        return compensated(network, output, image, blended)

    return Head(
        Compensation.name, apply, SavedHead(options, network.weights(), FEATURES if features else None)
    )


def _options(options: Mapping[str, Any]) -> tuple[Size, int, Output]:
    """What `_head` wrote; ValueError where it is anything else."""
    size: Any = options.get("size")
    features: Any = options.get("features")
    output: Any = options.get("output")
    if size not in CHANNELS or output not in get_args(Output):
        raise ValueError(f"size {size!r}, output {output!r}")
    if not isinstance(features, int) or not 0 <= features <= _MOST_FEATURES:
        raise ValueError(f"features {features!r}")
    return size, features, output
