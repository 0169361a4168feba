"""What a file layout is to the strategy."""

from __future__ import annotations

from typing import Any, Protocol

from torch import Tensor

from splat.core import Gaussians

Weights = dict[str, Tensor]


class Layout(Protocol):
    """Quantizers of a whole scene. Labels are [N, C] int32, a column for each that is cached."""

    columns: int

    def begin(self, g: Gaussians, weights: Weights, lam: float, seed: int) -> Tensor:
        """Codebooks for the scene; the labels."""

    def assign(self, g: Gaussians, weights: Weights, lam: float, learn: bool) -> Tensor:
        """The labels with the codebooks as they are; to `learn`, codebooks and probabilities then follow from them,
        which come back as they are numbered then."""

    def move(self, g: Gaussians, labels: Tensor, weights: Weights) -> None:
        """The codewords to the mean of their members; labels and probabilities stay."""

    def shown(self, g: Gaussians, labels: Tensor) -> Gaussians:
        """The scene as a reader of the file will see it."""

    def bits(self, g: Gaussians, labels: Tensor) -> Tensor:
        """[N] what each Gaussian takes in the file, about."""

    def rotations(self, labels: Tensor) -> Tensor | None:
        """[N, 4] codewords of the quaternions, or None where there are none."""

    def codebooks(self, labels: Tensor) -> dict[str, Any]:
        """For the writer of the file: metadata["codebooks"]."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
