"""Image-space heads: what the pictures of a scene still go through once its Gaussians are blended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from splat.core.camera import Camera


@dataclass(frozen=True)
class SavedHead:
    """A head in numbers, as files keep it; the strategy of its name makes it from them again.

    Attributes:
        options: plain values (numbers, strings) by name: with the weights, all that the head is made of.
        weights: [P] float32, on the CPU.
        features: the name in Gaussians.extras of the [N, F] values that it reads; None where it sees colours alone.
    """

    options: Mapping[str, Any]
    weights: Tensor
    features: str | None = None


@dataclass(frozen=True)
class Head:
    """A function of the picture that belongs to a scene.

    Attributes:
        name: of the strategy that trained it.
        apply: (image [H, W, 3], features [H, W, F] or None, camera) -> [H, W, 3], not clamped; on the device of
            the scene. Safe to call from several threads; what goes on training does not change it.
        saved: the same in numbers.
    """

    name: str
    apply: Callable[[Tensor, Tensor | None, Camera], Tensor]
    saved: SavedHead

    @property
    def features(self) -> str | None:
        """The name in Gaussians.extras of the [N, F] values to blend for it (RenderOptions.features)."""
        return self.saved.features
