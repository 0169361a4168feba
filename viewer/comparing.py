"""A photograph and what is drawn from where it was taken, in one picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from splat.core import Camera

# camera -> the photograph as that camera sees it, [H, W, 3] in [0, 1], and where ([H, W] bool); None where none
# was taken from there.
Photograph = Callable[[Camera], "tuple[Tensor, Tensor] | None"]
Compare = Callable[[Tensor, Photograph, Camera, float], Tensor]

_GAIN = 4.0  # of differences, which are small
_DIM = 0.3  # what lies outside the photograph
_LINE = 1.0  # grey level of the line between two pictures


def wipe(image: Tensor, photograph: Photograph, camera: Camera, position: float) -> Tensor:
    """The photograph on the left of `position` (a share of the width), what is drawn on the right."""
    known = photograph(camera)
    if known is None:
        return image
    truth, inside = known
    column = torch.arange(image.shape[1], device=image.device)
    edge = round(position * image.shape[1])
    left = (column < edge)[None, :] & inside.to(image.device)
    mixed = torch.where(left[..., None], truth.to(image), image)
    return torch.where((column == edge)[None, :, None], torch.full_like(mixed, _LINE), mixed)


def beside(image: Tensor, photograph: Photograph, camera: Camera, position: float) -> Tensor:
    """The middle of the photograph on the left, the middle of what is drawn on the right, at one scale."""
    width = image.shape[1]
    left, start = width // 2, width // 4
    known = photograph(replace(camera, width=left, cx=camera.cx - start))
    if known is None:
        return image
    truth, inside = known
    picture = torch.where(
        inside.to(image.device)[..., None], truth.to(image), torch.zeros((), device=image.device)
    )
    both = torch.cat([picture, image[:, start : start + width - left]], 1)
    both[:, left : left + 1] = _LINE
    return both


def difference(image: Tensor, photograph: Photograph, camera: Camera, position: float) -> Tensor:
    """Absolute difference of each channel, four times as bright; what is drawn, dimmed, around it."""
    known = photograph(camera)
    if known is None:
        return image
    truth, inside = known
    off = _GAIN * (image.clamp(0, 1) - truth.to(image)).abs()
    return torch.where(inside.to(image.device)[..., None], off, _DIM * image)


def over(image: Tensor, photograph: Photograph, camera: Camera, position: float) -> Tensor:
    """The photograph in place of what is drawn."""
    return wipe(image, photograph, camera, 2.0)


COMPARISONS: dict[str, Compare | None] = {
    "off": None,
    "wipe": wipe,
    "beside": beside,
    "over": over,
    "difference": difference,
}
