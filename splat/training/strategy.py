"""The interface between the trainer and what decides over the Gaussians.

The trainer calls the hooks of every strategy of the run, in order, and knows nothing else of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence

    import torch
    from torch import Tensor

    from splat.core import Camera, Gaussians
    from splat.core.heads import Head, SavedHead
    from splat.link import Entry
    from splat.raster import RenderOptions, RenderOutput
    from splat.training.context import Context, Field
    from splat.training.edits import Edit


@dataclass
class Further:
    """One more render of a step; who asks for it keeps it and finds in it what was drawn.

    Attributes:
        field: "main", for what is shown of the scene in this step, or the name of a further field.
        camera: the view.
        options: background, degree and outputs; see Context.options.
        target: [H, W, 3] uint8 photograph that the picture is trained on, or None.
        mask: [H, W] uint8 of that photograph, 0 = ignore the pixel; or None.
        output: what was drawn, from the losses on until the next step.
    """

    field: str | Field
    camera: Camera
    options: RenderOptions
    target: Tensor | None = None
    mask: Tensor | None = None
    output: RenderOutput | None = None

    @property
    def drawn(self) -> RenderOutput:
        """The output; an error before there is one."""
        assert self.output is not None, "a further render is there from the losses on"
        return self.output


@dataclass(frozen=True)
class Proposal:
    """What a strategy proposes for settings that are open; None to leave it to others."""

    steps: int | None = None
    max_gaussians: int | None = None


class Strategy:
    """Every hook is a no-op; a strategy overrides what it needs.

    Class attributes:
        name: what the user types after --strategies.
        config: a dataclass of options; an instance is given to __init__ and kept as self.config.
        needs: outputs and statistics asked for in some step, of raster.NEEDS and "param_grads".
        controls_density: exactly one strategy of a run does.
        straight_through: the gradients of what `transform` returns are those of what it was given, as
            they are (Bengio et al. 2013). It is then called without autograd, and the fused step stays.
        transforms_last: what `transform` returns is what the file holds, so that no other may follow it.
    """

    name: ClassVar[str]
    config_type: ClassVar[type]
    needs: frozenset[str] = frozenset()
    controls_density: ClassVar[bool] = False
    straight_through: bool = False
    transforms_last: ClassVar[bool] = False

    def __init__(self, config: Any) -> None:
        self.config = config

    @property
    def draws_further(self) -> bool:
        """Whether `renders` may ask for anything; no head reaches such pictures, so that none goes with it."""
        return type(self).renders is not Strategy.renders

    def forecast(self, count: int, cap: int, taken: int, steps: int) -> tuple[int, int] | None:
        """What after_step will make of the number of Gaussians, told before the run.

        Args:
            count, cap: Gaussians, and the most that there may be, as the strategies before this one leave them.
            taken: steps that are taken then, of the run's `steps`.

        Returns:
            count and cap after it, at most; None where the scene decides.
        """
        return None if self.controls_density else (count, cap)

    def setup(self, ctx: Context) -> None:
        """Before the first step, and again after a resume (before load_state_dict)."""

    def proposal(self, views: int) -> Proposal:
        """How long and how large a run on so many training views should be, where its settings do not say."""
        return Proposal()

    def needed(self, ctx: Context) -> frozenset[str]:
        """What of `needs` the next render is asked for: each costs time. When ctx.training is False, it is a picture
        to show or to score."""
        return self.needs

    def renders(self, ctx: Context) -> list[Further]:
        """Further renders of this step; keep them to read their outputs."""
        return []

    def runs_ahead(self, ctx: Context) -> bool:
        """Whether this step's after_backward and after_step change nothing but through kernels that heed
        ctx.guard. Otherwise the trainer waits, before them, until it knows that the device takes the step; the
        hooks before after_backward may be called again for a step that it does not.
        """
        return False

    def numbers(self, ctx: Context) -> dict[str, float]:
        """Numbers of this step for kernels: after_backward and after_step find them in ctx.numbers, on the device."""
        return {}

    def repeats(self, ctx: Context) -> Hashable | None:
        """A key of what this step's hooks do, or None where no other step does the same.

        Steps of equal keys launch the same kernels on the same tensors, whatever the camera and photograph, and
        differ in ctx.numbers alone: the trainer may replay one as a graph without calling transform, features,
        after_render, losses, after_backward and after_step. Asked only of steps that `runs_ahead` is true of.
        """
        return None

    def transform(self, gaussians: Gaussians, ctx: Context) -> Gaussians:
        """What is rendered, from what is stored. Obeys ctx.training; export bakes it."""
        return gaussians

    def features(self, gaussians: Gaussians, ctx: Context) -> Tensor | None:
        """[N, F] further channels to blend into `output.features` for a head, from what is drawn; one strategy may."""
        return None

    def after_render(self, output: RenderOutput, ctx: Context) -> RenderOutput:
        """Image-space heads."""
        return output

    def head(self, ctx: Context) -> Head | None:
        """What after_render does, for viewers and files: a copy that later steps leave alone; None for no head."""
        return None

    @classmethod
    def restored(cls, saved: SavedHead, device: torch.device) -> Head:
        """The head that `head` gave, from a file; ValueError where the numbers do not fit."""
        raise ValueError(f"the strategy {cls.name} has no head")

    def losses(self, ctx: Context) -> dict[str, Tensor]:
        """Name -> scalar, reaching the parameters through the outputs."""
        return {}

    def penalties(self, ctx: Context) -> dict[str, float]:
        """Weights of parameter penalties in closed form: {"opacity": .01, "scale": .01}."""
        return {}

    def after_backward(self, ctx: Context) -> None:
        """Statistics: means2d gradients; parameter gradients only if in needs."""

    def after_step(self, ctx: Context) -> None:
        """Noise, decay, densify, prune, relocate: through ctx.edits alone."""

    def edited(self, edit: Edit, ctx: Context) -> None:
        """Rows were copied, split, removed: caches follow."""

    def panel(self, ctx: Context) -> Sequence[Entry]:
        """Lines of the strategy's own part of the viewer: what to watch, slide, switch and press.

        Called, like the entries' `read`, from threads that only look on; `write` runs between two steps.
        """
        return ()

    def export(self, ctx: Context) -> dict[str, Any]:
        """What a codec must know, codebooks say; heads are those of `head`."""
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state:
            raise ValueError(f"{self.name}: no state expected, got {sorted(state)}")
