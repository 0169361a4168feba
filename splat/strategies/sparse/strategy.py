"""`sparse_view`: regularisers for scenes of few photographs, each with a switch of its own."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from torch import Tensor

from splat.core import Gaussians, UsageError
from splat.strategies.sparse.binocular import Binocular, BinocularConfig
from splat.strategies.sparse.consistency import Consistency, ConsistencyConfig
from splat.strategies.sparse.decay import Decay, DecayConfig
from splat.strategies.sparse.dropout import Dropout, DropoutConfig
from splat.strategies.sparse.floaters import Floaters, FloatersConfig
from splat.strategies.sparse.prior import DepthPrior, PriorConfig
from splat.strategies.sparse.second import Second, SecondConfig
from splat.strategies.sparse.sh import ShConfig, ShRestraint
from splat.strategies.sparse.size import Size, SizeConfig
from splat.strategies.sparse.smoothness import Smoothness, SmoothnessConfig
from splat.strategies.sparse.unpool import Unpool, UnpoolConfig
from splat.training.context import Context
from splat.training.edits import Edit
from splat.training.strategy import Further, Proposal, Strategy


@dataclass(frozen=True)
class SparseViewConfig:
    """Options of the regularisers for few photographs. Times are shares of the run's length."""

    steps: int = 500
    """Steps of a run on three photographs where the settings name none; they grow with the square of the number of
    photographs: three are soon learnt by heart."""
    most_steps: int = 2_000
    """Steps at most."""
    gaussians: int = 20_000
    """Most Gaussians of a run on three photographs where the settings name no number; of others in proportion,
    up to twelve."""
    sh: ShConfig = field(default_factory=ShConfig)
    dropout: DropoutConfig = field(default_factory=DropoutConfig)
    decay: DecayConfig = field(default_factory=DecayConfig)
    size: SizeConfig = field(default_factory=SizeConfig)
    smoothness: SmoothnessConfig = field(default_factory=SmoothnessConfig)
    binocular: BinocularConfig = field(default_factory=BinocularConfig)
    consistency: ConsistencyConfig = field(default_factory=ConsistencyConfig)
    prior: PriorConfig = field(default_factory=PriorConfig)
    second: SecondConfig = field(default_factory=SecondConfig)
    unpool: UnpoolConfig = field(default_factory=UnpoolConfig)
    floaters: FloatersConfig = field(default_factory=FloatersConfig)

    def __post_init__(self) -> None:
        for name in ("steps", "most_steps", "gaussians"):
            if getattr(self, name) < 1:
                raise UsageError(f"sparse_view: {name} must be at least 1, got {getattr(self, name)}")


# In the order in which they transform and edit the scene.
PIECES: tuple[type[Strategy], ...] = (
    ShRestraint,
    Dropout,
    Decay,
    Size,
    Smoothness,
    Binocular,
    Consistency,
    DepthPrior,
    Second,
    Unpool,
    Floaters,
)


_VIEWS = (3, 12)  # for fewer and for more than these, `steps` and `gaussians` grow no further


class SparseView(Strategy):
    """Hands the hooks that pieces have on to those that are switched on.

    Attributes:
        pieces: strategies of their own, in order.
    """

    name: ClassVar[str] = "sparse_view"
    config_type: ClassVar[type] = SparseViewConfig
    config: SparseViewConfig

    def __init__(self, config: SparseViewConfig) -> None:
        super().__init__(config)
        options = {piece.name: getattr(config, piece.name) for piece in PIECES}
        self.pieces = [piece(options[piece.name]) for piece in PIECES if options[piece.name].on]
        self.needs = frozenset().union(*(piece.needs for piece in self.pieces))
        # Where no piece changes what is drawn, the fused step stays.
        self.straight_through = all(type(p).transform is Strategy.transform for p in self.pieces)

    @property
    def draws_further(self) -> bool:
        return any(piece.draws_further for piece in self.pieces)

    def proposal(self, views: int) -> Proposal:
        least, most = _VIEWS
        c, more = self.config, min(max(views, least), most) / least
        return Proposal(min(c.most_steps, round(c.steps * more**2)), round(c.gaussians * more))

    def setup(self, ctx: Context) -> None:
        for flag in ("poses", "exposure"):
            if getattr(ctx.config, flag) and self.draws_further:
                names = ", ".join(piece.name for piece in self.pieces if piece.draws_further)
                raise UsageError(
                    f"sparse_view: {names} compare pictures by the poses and colours that the dataset gives, which "
                    f"--{flag} changes: leave it out, or switch them off"
                )
        for piece in self.pieces:
            piece.setup(ctx)

    def needed(self, ctx: Context) -> frozenset[str]:
        return frozenset().union(*(piece.needed(ctx) for piece in self.pieces))

    def transform(self, gaussians: Gaussians, ctx: Context) -> Gaussians:
        for piece in self.pieces:
            gaussians = piece.transform(gaussians, ctx)
        return gaussians

    def renders(self, ctx: Context) -> list[Further]:
        return [further for piece in self.pieces for further in piece.renders(ctx)]

    def losses(self, ctx: Context) -> dict[str, Tensor]:
        return {
            f"{piece.name}.{name}": value
            for piece in self.pieces
            for name, value in piece.losses(ctx).items()
        }

    def after_backward(self, ctx: Context) -> None:
        for piece in self.pieces:
            piece.after_backward(ctx)

    def after_step(self, ctx: Context) -> None:
        for piece in self.pieces:
            piece.after_step(ctx)

    def edited(self, edit: Edit, ctx: Context) -> None:
        for piece in self.pieces:
            piece.edited(edit, ctx)

    def state_dict(self) -> dict[str, Any]:
        return {piece.name: piece.state_dict() for piece in self.pieces}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for piece in self.pieces:
            piece.load_state_dict(state[piece.name])
