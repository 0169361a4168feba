"""What a strategy sees of the run."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from splat.core import Camera, Gaussians
from splat.core.gaussians import PARAMETERS
from splat.raster import RenderOptions, RenderOutput
from splat.training.edits import Edit, Edits
from splat.training.moments import Kind
from splat.training.optim import GaussianAdam, OnCopy, PerGaussian, Rates

if TYPE_CHECKING:
    from splat.training.strategy import Further, Strategy
    from splat.training.views import Views

MAIN = "main"


class Field:
    """A set of Gaussians with its own optimizer and edits.

    Attributes:
        penalties: of a further field, set by who added it: weights as of Strategy.penalties.
    """

    def __init__(
        self,
        name: str,
        gaussians: Gaussians,
        rates: Rates,
        extent: float,
        horizon: int,
        moments: Kind = "full",
    ) -> None:
        self.name = name
        self.gaussians = gaussians
        self.optimizer = GaussianAdam(gaussians, rates, extent, horizon, moments)
        self.edits = Edits(gaussians, self.optimizer, name)
        self.penalties: dict[str, float] = {}

    def state_dict(self) -> dict[str, Any]:
        return {
            "gaussians": {name: value.detach() for name, value in self.gaussians.named_tensors()},
            "antialiased": self.gaussians.antialiased,
            "optimizer": self.optimizer.state_dict(),
            "state": dict(self.edits.state),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved field. Declared extras and tracked state must be among what was saved."""
        g = self.gaussians
        missing = [
            n for n in (*g.extras, *self.edits.state) if n not in {**state["gaussians"], **state["state"]}
        ]
        if missing:
            raise ValueError(f"field {self.name!r}: nothing saved for {', '.join(missing)}")
        for name, value in state["gaussians"].items():
            value = value.to(g.device)
            if name in PARAMETERS:
                setattr(g, name, value)
            else:
                g.extras[name] = value
        g.antialiased = state["antialiased"]
        self.edits.state.update({name: value.to(g.device) for name, value in state["state"].items()})
        self.optimizer.load_state_dict(state["optimizer"])


@dataclass
class Context:
    """The state of a run, handed to every hook; what belongs to a step is None before the first one.

    Attributes:
        config: the run's TrainConfig.
        main: the scene being trained.
        scene_extent: world units; see the data package.
        steps: the horizon of every schedule: the number of steps the run was planned with. A run that is
            extended goes on past it, with every rate at its final value.
        cap: most Gaussians the scene may have.
        generator: randomness of the strategies, on the Gaussians' device.
        fields: further fields by name, the main one not among them.
        views: the training views: cameras, photographs, priors.
        density: the strategy of the run that controls density; None where a trainer was made without one.
        step: 0-based number of the current step.
        training: False while evaluating and exporting.
        camera: the view of this step, at the resolution of this step.
        view: index of that view in the dataset, or -1.
        position: of that view among the training views, or -1.
        target: [H, W, 3] uint8 photograph of this step.
        mask: [H, W] uint8 or None; 0 = ignore the pixel.
        background: [3] colour behind the scene in this step.
        output: the last render of the main field, after every strategy's after_render.
        further: this step's further renders, of all strategies.
        scalars: what was logged since the metrics were last written.
        rates: learning rates of this step; see GaussianAdam.rates.
        numbers: what the strategies' `numbers` gave for this step, float32 scalars on the device.
        guard: what kernels that run ahead of the device heed (splat.training.ahead); None where there is none.
        on_edit: called with every Edit of every field.
    """

    config: Any
    main: Field
    scene_extent: float
    steps: int
    cap: int
    generator: torch.Generator
    fields: dict[str, Field] = field(default_factory=dict)
    views: Views = None  # type: ignore[assignment]
    density: Strategy | None = None
    step: int = 0
    training: bool = True
    view: int = -1
    position: int = -1
    camera: Camera = None  # type: ignore[assignment]
    target: Tensor = None  # type: ignore[assignment]
    mask: Tensor | None = None
    background: Tensor | None = None
    output: RenderOutput = None  # type: ignore[assignment]
    further: list[Further] = field(default_factory=list)
    scalars: dict[str, float] = field(default_factory=dict)
    rates: dict[str, float] = field(default_factory=dict)
    numbers: dict[str, Tensor] = field(default_factory=dict)
    guard: Any = None
    on_edit: Callable[[Edit], None] = lambda edit: None

    def __post_init__(self) -> None:
        self.main.edits.listeners.append(self._edited)

    def _edited(self, edit: Edit) -> None:
        self.on_edit(edit)

    @property
    def gaussians(self) -> Gaussians:
        """The scene being trained. Its tensors require grad only within a step that needs autograd."""
        return self.main.gaussians

    @property
    def optimizer(self) -> GaussianAdam:
        return self.main.optimizer

    @property
    def edits(self) -> Edits:
        return self.main.edits

    @property
    def sh_degree(self) -> int:
        """Degree of the harmonics in use at the current step."""
        return min(self.gaussians.sh_degree, self.step // self.config.sh_interval)

    def options(self, *needs: str) -> RenderOptions:
        """Options of a further render: background and harmonics of this step, and the outputs asked for."""
        return RenderOptions(self.background, self.sh_degree, needs=frozenset(needs))

    def of(self, field: Field, output: RenderOutput | None = None) -> Context:
        """This step as a strategy of `field` sees it: its Gaussians, optimizer, edits and rates as the main ones.

        `output` is what was drawn of it. What such a strategy logs is its own, and so are its numbers, for its caller
        to set.
        """
        other = copy(self)
        other.main, other.output, other.scalars, other.numbers = field, output, {}, {}  # type: ignore[assignment]
        other.rates = field.optimizer.rates(self.step)
        return other

    def log(self, name: str, value: float) -> None:
        """Write a number with the next line of metrics.jsonl."""
        self.scalars[name] = float(value)

    def set_numbers(self, numbers: dict[str, float]) -> None:
        """Put values into `numbers`; what is there already keeps its place."""
        for name, value in numbers.items():
            if name not in self.numbers:
                self.numbers[name] = torch.empty((), device=self.gaussians.device)
            self.numbers[name].fill_(value)

    def declare(
        self,
        name: str,
        init: float | Callable[[Gaussians], Tensor],
        lr: float | None = None,
        activation: Callable[[Tensor], Tensor] | None = None,
        on_copy: OnCopy = "copy",
    ) -> None:
        """Add a per-Gaussian value to the main field's extras; see optim.PerGaussian."""
        self.main.optimizer.declare(name, PerGaussian(init, on_copy, lr, activation))

    def value(self, name: str) -> Tensor:
        """[N, ...] the activated values of a declared extra of the main field."""
        return self.main.optimizer.value(name)

    def add_field(self, name: str, gaussians: Gaussians | None = None, rates: Rates | None = None) -> Field:
        """Add a further field, by default a copy of the scene as it is now, with rates of its own."""
        if name == MAIN or name in self.fields:
            raise ValueError(f"field {name!r} already exists")
        start = (self.gaussians if gaussians is None else gaussians).detach().clone()
        optimizer = self.main.optimizer
        rates = rates or optimizer.schedule
        added = Field(name, start, rates, self.scene_extent, optimizer.horizon, optimizer.kind)
        added.edits.listeners.append(self._edited)
        self.fields[name] = added
        return added
