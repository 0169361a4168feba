"""Scenes far from the origin: recentred inside, put back on export where float32 allows it."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splat.core.gaussians import Gaussians

# Largest rounding of a centre that an export accepts, in median scales of the scene.
_TOLERANCE = 0.01


@dataclass(frozen=True)
class Placement:
    """A scene as it is to be written.

    Attributes:
        gaussians: in the world frame, or in local coordinates where `offset` is not None.
        offset: [3] float64 to add to the centres for the world frame; None where they are in it already.
        note: one line for the user where the coordinates stayed local, else None.
    """

    gaussians: Gaussians
    offset: Tensor | None
    note: str | None


def place(gaussians: Gaussians, offset: Tensor) -> Placement:
    """Puts local coordinates back into the world frame, world = local + `offset` [3] float64.

    Done where float32 keeps every centre within 1% of the scene's median scale; otherwise the
    coordinates stay local and the offset travels with the file. Centres so far out that even their local
    coordinates are coarser than that do not count: they lose nothing by staying.
    """
    offset = offset.detach().to("cpu", torch.float64)
    if len(gaussians) == 0 or not offset.any():
        return Placement(gaussians, None, None)
    local = gaussians.means.detach().to("cpu", torch.float32)
    world = local.double() + offset
    stored = world.float()
    tolerance = _TOLERANCE * float(gaussians.log_scales.detach().exp().median())
    spacing = torch.nextafter(local.abs(), torch.tensor(torch.inf)) - local.abs()
    error = ((stored.double() - world).abs() * (spacing / 2 <= tolerance)).amax()
    if float(error) <= tolerance:
        return Placement(replace(gaussians, means=stored.to(gaussians.means)), None, None)
    x, y, z = offset.tolist()
    note = (
        f"the scene lies at ({x:.9g}, {y:.9g}, {z:.9g}), where float32 moves centres by up to "
        f"{float(error):.2g} (median scale {tolerance / _TOLERANCE:.2g}): the file has local coordinates, "
        "and the offset in its metadata"
    )
    return Placement(gaussians, offset, note)
