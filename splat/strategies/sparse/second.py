"""A co-regularised second field: two scenes trained apart agree where the photographs determine them.

Zhang et al., "CoR-GS: Sparse-view 3D Gaussian Splatting via Co-Regularization", ECCV 2024: Gaussians without a
match in the other field are removed, and views between the photographs are trained on the other field's picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from splat.core import UsageError
from splat.strategies.sparse.geometry import baseline, between, neighbours
from splat.strategies.sparse.nearest import nearest
from splat.training.context import MAIN, Context, Field
from splat.training.edits import Edit
from splat.training.losses import photometric
from splat.training.strategy import Further, Strategy

NAME = "second"


@dataclass(frozen=True)
class SecondConfig:
    """A second scene beside the first."""

    on: bool = False
    """Whether to use it."""
    weight: float = 1.0
    """Weight in the loss of a view between the photographs, against the other scene's picture of it."""
    start: float = 0.1
    """When these views begin, as a share of the run."""
    every: int = 3
    """Steps from one such view to the next."""
    tolerance: float = 0.2
    """Gaussians are removed that are farther from all of the other scene than this, times the baseline: the median
    distance of a training camera to its nearest one; 0: none."""
    prune_every: float = 0.1
    """Between two such removals, as a share of the run."""

    def __post_init__(self) -> None:
        for ok, message in (
            (self.weight >= 0, f"weight must not be negative, got {self.weight}"),
            (0 <= self.start <= 1, f"start must lie in [0, 1], got {self.start}"),
            (self.every >= 1, f"every must be at least 1, got {self.every}"),
            (self.tolerance >= 0, f"tolerance must not be negative, got {self.tolerance}"),
            (0 < self.prune_every <= 1, f"prune_every must lie in (0, 1], got {self.prune_every}"),
        ):
            if not ok:
                raise UsageError(f"sparse_view: second.{message}")


class Second(Strategy):
    """The second field, with a copy of the run's density control; only the first one is scored and exported.

    The two begin alike; what chance density control leaves to itself drives them apart.
    """

    name: ClassVar[str] = NAME
    config_type: ClassVar[type] = SecondConfig
    config: SecondConfig

    def setup(self, ctx: Context) -> None:
        assert ctx.density is not None
        self.field: Field = ctx.add_field(NAME)
        self.density = type(ctx.density)(ctx.density.config)
        self.density.setup(ctx.of(self.field))
        self._reach = self.config.tolerance * baseline(ctx.views.cameras())
        self._neighbours = neighbours(ctx.views.cameras())
        self._photograph: Further | None = None
        self._between: list[Further] = []

    def renders(self, ctx: Context) -> list[Further]:
        c = self.config
        needs = [name for name in self.density.needed(ctx) if name != "param_grads"]
        self._photograph = Further(NAME, ctx.camera, ctx.options(*needs), ctx.target, ctx.mask)
        self._between = []
        if c.weight > 0 and ctx.step >= c.start * ctx.steps and ctx.step % c.every == 0:
            first, second = torch.rand(2, generator=ctx.generator, device=ctx.generator.device).tolist()
            near = self._neighbours[ctx.position][:2]
            other = ctx.views.cameras()[near[int(first * len(near))]]
            camera = between(ctx.camera, other, second)
            self._between = [Further(field, camera, ctx.options()) for field in (MAIN, NAME)]
        return [self._photograph, *self._between]

    def losses(self, ctx: Context) -> dict[str, Tensor]:
        if not self._between:
            return {}
        weight, share = self.config.weight, ctx.config.ssim_weight
        one, other = (further.drawn.image for further in self._between)
        return {
            MAIN: weight * photometric(one, _photograph(other), None, share),
            NAME: weight * photometric(other, _photograph(one), None, share),
        }

    def _step(self, ctx: Context) -> Context:
        assert self._photograph is not None
        step = ctx.of(self.field, self._photograph.output)
        step.set_numbers(self.density.numbers(step))
        return step

    def after_backward(self, ctx: Context) -> None:
        step = self._step(ctx)
        self.density.after_backward(step)
        self.field.penalties = self.density.penalties(step)

    @torch.no_grad()
    def after_step(self, ctx: Context) -> None:
        self.density.after_step(self._step(ctx))
        every = max(1, round(self.config.prune_every * ctx.steps))
        taken = ctx.step + 1
        if self._reach > 0 and taken % every == 0 and taken < ctx.steps:
            unmatched = [
                nearest(a.gaussians.means, 1, b.gaussians.means)[0][:, 0] > self._reach
                for a, b in ((ctx.main, self.field), (self.field, ctx.main))
            ]
            for field, alone in zip((ctx.main, self.field), unmatched, strict=True):
                if 0 < int(alone.sum()) < len(alone):
                    field.edits.remove(alone)
            ctx.log("unmatched", int(unmatched[0].sum()))

    def edited(self, edit: Edit, ctx: Context) -> None:
        if edit.field == NAME:
            self.density.edited(edit, ctx.of(self.field))

    def state_dict(self) -> dict[str, Any]:
        return {"density": self.density.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.density.load_state_dict(state["density"])


def _photograph(image: Tensor) -> Tensor:
    """[H, W, 3] uint8 of a picture, without its gradient."""
    return (image.detach().clamp(0, 1) * 255).round().to(torch.uint8)
