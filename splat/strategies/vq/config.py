"""Options of the vq strategy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from splat.core import UsageError


@dataclass(frozen=True)
class VqConfig:
    """Options of quantization-aware training. Times are shares of the run's length."""

    layout: Literal["sog", "vq"] = "sog"
    """The file that the scene is trained for: .sog, which viewers open, or .vq, the smallest."""
    rate: float = 1e-3
    """Relative rise of the squared error that is worth a bit of every Gaussian: larger is smaller files."""
    start: float = 0.8
    """When training goes on with quantized values."""
    settle: float = 0.95
    """When the assignments to codewords are made for the last time; the codewords move on."""
    every: int = 5
    """Steps between two assignments. Values drift under gradients that go straight through until they are assigned."""
    words: int = 4096
    """Most codewords of a codebook."""
    palette: int = 2048
    """Codewords of the view-dependent colours in the layout sog."""
    final_rate: float = 0.4
    """Learning rates of what is quantized fall to this share at the end."""
    opacity_penalty: float = 0.0
    """Weight of the mean opacity in the loss, besides that of the density control, until the last pruning."""
    prune: float = 2.0
    """Price of a Gaussian's bits, of which learned masks decide which are worth it, against `rate`; 0: all stay.
    Above 1, as the others make up for a part of what one did that goes."""

    def __post_init__(self) -> None:
        for ok, message in (
            (self.rate > 0, f"rate must be positive, got {self.rate}"),
            (0 <= self.start < 1, f"start must lie between 0 and 1, got {self.start}"),
            (self.start <= self.settle <= 1, f"settle must lie between start and 1, got {self.settle}"),
            (self.every >= 1, f"every must be at least 1, got {self.every}"),
            (2 <= self.words <= 1 << 16, f"words must lie between 2 and 65536, got {self.words}"),
            (1 <= self.palette <= 1 << 16, f"palette must lie between 1 and 65536, got {self.palette}"),
            (0 < self.final_rate <= 1, f"final_rate must lie between 0 and 1, got {self.final_rate}"),
            (self.opacity_penalty >= 0, f"opacity_penalty must not be negative, got {self.opacity_penalty}"),
            (self.prune >= 0, f"prune must not be negative, got {self.prune}"),
        ):
            if not ok:
                raise UsageError(f"vq: {message}")
