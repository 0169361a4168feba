"""The scene: a set of 3D Gaussians in raw, unactivated form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from splat.core import sh as harmonics
from splat.core.checks import check_tensor
from splat.core.rotations import quat_to_matrix

PARAMETERS = ("means", "quats", "log_scales", "logit_opacities", "sh")


@dataclass
class Gaussians:
    """N Gaussians. Raw, unactivated values are the only truth.

    Attributes:
        means: [N, 3] centres, world units.
        quats: [N, 4] rotations, wxyz, not normalised.
        log_scales: [N, 3] logarithms of the standard deviations along the rotated axes, world units.
        logit_opacities: [N] opacities before the sigmoid.
        sh: [N, K, 3] real spherical harmonics of the colour, K = (degree + 1)^2, degree 0 to 3;
            colour = max(0, SH(direction) + 0.5) in the images' own sRGB values.
        extras: name -> [N, ...] further per-Gaussian values, declared by strategies.
        antialiased: whether the opacities are meant for the antialiased form of projection.
    """

    means: Tensor
    quats: Tensor
    log_scales: Tensor
    logit_opacities: Tensor
    sh: Tensor
    extras: dict[str, Tensor] = field(default_factory=dict)
    antialiased: bool = False

    def __len__(self) -> int:
        return self.means.shape[0]

    @property
    def sh_degree(self) -> int:
        """Degree of the stored harmonics, 0 to 3."""
        return harmonics.degree_of(self.sh.shape[1])

    @property
    def device(self) -> torch.device:
        return self.means.device

    @property
    def dtype(self) -> torch.dtype:
        return self.means.dtype

    def opacities(self) -> Tensor:
        """[N] opacities in (0, 1)."""
        return torch.sigmoid(self.logit_opacities)

    def scales(self) -> Tensor:
        """[N, 3] standard deviations, world units."""
        return torch.exp(self.log_scales)

    def covariances(self) -> Tensor:
        """[N, 3, 3] covariances in the world frame, R S S^T R^T, square world units."""
        axes = quat_to_matrix(self.quats) * self.scales()[:, None, :]
        return axes @ axes.mT

    def named_tensors(self) -> Iterator[tuple[str, Tensor]]:
        """The five parameters by name, then the extras by name."""
        for name in PARAMETERS:
            yield name, getattr(self, name)
        yield from self.extras.items()

    def map(self, function: Callable[[Tensor], Tensor]) -> Gaussians:
        """The same scene with `function` applied to every tensor."""
        changes: dict[str, Any] = {name: function(getattr(self, name)) for name in PARAMETERS}
        return replace(self, **changes, extras={name: function(value) for name, value in self.extras.items()})

    def to(self, *args: Any, **kwargs: Any) -> Gaussians:
        return self.map(lambda t: t.to(*args, **kwargs))

    def detach(self) -> Gaussians:
        return self.map(Tensor.detach)

    def clone(self) -> Gaussians:
        return self.map(Tensor.clone)

    def select(self, index: Tensor) -> Gaussians:
        """The Gaussians at `index`: [M] int64 positions or an [N] bool mask."""
        return self.map(lambda t: t[index])

    @staticmethod
    def cat(scenes: Sequence[Gaussians]) -> Gaussians:
        """All Gaussians of `scenes`, in order.

        ValueError where they differ in what one scene cannot hold: extras, SH degree or antialiasing.
        """
        if not scenes:
            raise ValueError("cat: no scenes were given")
        first = scenes[0]
        for number, scene in enumerate(scenes):
            for what, value, expected in (
                ("SH degree", scene.sh_degree, first.sh_degree),
                ("antialiased", scene.antialiased, first.antialiased),
                ("extras", sorted(scene.extras), sorted(first.extras)),
            ):
                if value != expected:
                    raise ValueError(f"cat: {what} of scene {number} is {value}, of scene 0 {expected}")
        joined: dict[str, Any] = {
            name: torch.cat([getattr(scene, name) for scene in scenes]) for name in PARAMETERS
        }
        return replace(
            first,
            **joined,
            extras={name: torch.cat([scene.extras[name] for scene in scenes]) for name in first.extras},
        )

    def validate(self) -> None:
        """Raises ValueError or TypeError unless shapes, types and devices fit. Values are not read."""
        sizes: dict[str, int] = {}
        alike: dict[str, Any] = {
            "device": self.means.device if isinstance(self.means, Tensor) else None,
            "sizes": sizes,
        }
        check_tensor("means", self.means, ("N", 3), **alike)
        alike["dtype"] = self.means.dtype
        check_tensor("quats", self.quats, ("N", 4), **alike)
        check_tensor("log_scales", self.log_scales, ("N", 3), **alike)
        check_tensor("logit_opacities", self.logit_opacities, ("N",), **alike)
        check_tensor("sh", self.sh, ("N", "K", 3), **alike)
        try:
            harmonics.degree_of(sizes["K"])
        except ValueError as error:
            raise ValueError(f"sh: {error}") from None
        for name, value in self.extras.items():
            if not isinstance(value, Tensor) or value.ndim == 0 or len(value) != sizes["N"]:
                got = list(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise ValueError(f"extras[{name!r}]: expected a tensor [N = {sizes['N']}, ...], got {got}")

    def requires_grad_(self, flag: bool = True) -> Gaussians:
        for _, tensor in self.named_tensors():
            tensor.requires_grad_(flag)
        return self
