"""Slanted windows: every pixel's depth as a small plane, improved by its neighbours' planes and by chance.

A sweep over planes that face the camera compares windows as if the surface faced it too, which fails on floors and on
widely spaced views. Here a hypothesis is an inverse depth and its slope across the picture: a plane in space is
exactly linear in inverse depth over the pixels. Good hypotheses spread to the neighbours and are varied at random
(PatchMatch: Bleyer, Rhemann and Rother 2011; several views: Galliani, Lasinger and Schindler 2015).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from splat.data.stereo.cost import NOISE
from splat.data.stereo.views import StereoView, pixel_rays, projection

_BLOCK = 8192  # pixels at a time: what they need stays in the processor's cache


@dataclass(frozen=True)
class RefineOptions:
    """How hypotheses are compared and varied."""

    iterations: int = 3
    """Rounds; each tries eight neighbours' planes and three random variations."""
    window: int = 5
    """Samples across the window."""
    stride: float = 1.5
    """Pixels between them."""
    colour: float = 0.06
    """Difference of brightness from the middle at which a sample counts 1/e."""


class Planes:
    """Inverse depth, and its slopes per pixel to the right and downwards: [H, W] each."""

    def __init__(self, inverse: Tensor, right: Tensor, down: Tensor) -> None:
        self.inverse, self.right, self.down = inverse, right, down

    def moved(self, x: int, y: int) -> Planes:
        """The plane of the pixel (x, y) away, as it passes here."""
        inverse, right, down = (v.roll((-y, -x), (0, 1)) for v in (self.inverse, self.right, self.down))
        return Planes(inverse - x * right - y * down, right, down)

    def where(self, better: Tensor, other: Planes) -> Planes:
        return Planes(
            torch.where(better, other.inverse, self.inverse),
            torch.where(better, other.right, self.right),
            torch.where(better, other.down, self.down),
        )


class Comparison:
    """Cost of planes in one view against others: (1 - ZNCC) / 2 over windows that follow the plane."""

    def __init__(
        self,
        view: StereoView,
        others: Sequence[StereoView],
        luma: Sequence[Tensor],
        options: RefineOptions,
        best: int,
    ) -> None:
        self.shape, self.best = luma[0].shape, best
        device = luma[0].device
        half = options.window // 2
        reach = torch.arange(-half, half + 1, device=device) * options.stride
        self.dx, self.dy = (
            reach.repeat(options.window)[:, None],
            reach.repeat_interleave(options.window)[:, None],
        )
        height, width = self.shape
        column = torch.arange(width, device=device) + 0.5
        row = torch.arange(height, device=device) + 0.5
        x = (column.repeat(height) + self.dx) * (2 / width) - 1
        y = (row.repeat_interleave(width) + self.dy) * (2 / height) - 1
        patch = functional.grid_sample(
            luma[0][None, None], torch.stack([x, y], -1)[None], padding_mode="border", align_corners=False
        )[0, 0]  # [K, P]
        weight = torch.exp(-(patch - luma[0].reshape(1, -1)).abs() / options.colour)
        weight = weight * ((x.abs() < 1) & (y.abs() < 1))
        self.weight = weight / weight.sum(0)
        mean = (self.weight * patch).sum(0)
        self.centred = patch - mean
        self.variance = (self.weight * self.centred**2).sum(0) + NOISE
        self.weighted = self.weight * self.centred
        rays = pixel_rays(view.camera, device).reshape(-1, 3)
        self.others = []
        for other, picture in zip(others, luma[1:], strict=True):
            matrix, shift = projection(other.camera, view.camera, device)
            # Straight to the coordinates of grid_sample, in which the picture spans -1 to 1.
            scale = matrix.new_tensor(
                [[2 / other.camera.width, 0, -1], [0, 2 / other.camera.height, -1], [0, 0, 1]]
            )
            matrix, shift = scale @ matrix, scale @ shift
            base = matrix @ rays.T
            step_x, step_y = matrix[:, 0] / view.camera.fx, matrix[:, 1] / view.camera.fy
            self.others.append((picture[None, None], base, step_x, step_y, shift))

    def __call__(self, planes: Planes) -> Tensor:
        """[H, W] cost in [0, 1], the mean of the best few views; 1 where fewer show the place."""
        q, right, down = (v.reshape(-1) for v in (planes.inverse, planes.right, planes.down))
        out = torch.empty_like(q)
        for start in range(0, len(q), _BLOCK):
            block = slice(start, start + _BLOCK)
            inverse = q[block] + self.dx * right[block] + self.dy * down[block]
            costs = torch.stack([self._one(other, inverse, block) for other in self.others])
            if self.best < len(costs):
                costs = costs.topk(self.best, dim=0, largest=False).values
            out[block] = costs.mean(0)
        return out.reshape(self.shape)

    def _one(self, other: tuple, inverse: Tensor, block: slice) -> Tensor:
        picture, base, step_x, step_y, shift = other
        base = base[:, block]
        z = (base[2] + (step_x[2] * self.dx + step_y[2] * self.dy)).add_(inverse * shift[2])
        middle = len(z) // 2
        ahead = (z > 1e-6).all(0)
        z.clamp_(min=1e-6)
        grid = torch.empty(*z.shape, 2, device=z.device)
        for axis in (0, 1):
            at = (base[axis] + (step_x[axis] * self.dx + step_y[axis] * self.dy)).add_(inverse * shift[axis])
            torch.div(at, z, out=grid[..., axis])
        shown = ahead & (grid[middle].abs() < 1).all(-1)
        found = functional.grid_sample(picture, grid[None], padding_mode="border", align_corners=False)[0, 0]
        weight = self.weight[:, block]
        found -= (weight * found).sum(0)
        variance = (weight * found.square()).sum(0) + NOISE
        covariance = (self.weighted[:, block] * found).sum(0)
        correlation = covariance / (variance * self.variance[block]).sqrt()
        return torch.where(shown, 0.5 - 0.5 * correlation, 1.0)


_NEIGHBOURS = ((1, 0), (-1, 0), (0, 1), (0, -1))
_REACHES = (5, 3, 7, 2)  # pixels to the neighbours that are farther off, round by round


def refine(
    view: StereoView,
    compare: Comparison,
    inverse: Tensor,
    limits: tuple[float, float],
    spacing: float,
    options: RefineOptions,
) -> tuple[Planes, Tensor]:
    """Planes for every pixel and their cost [H, W].

    Args:
        inverse: [H, W] inverse depths to begin with.
        limits: least and largest inverse depth.
        spacing: how far the start may be off, in inverse depth.
    """
    generator = torch.Generator().manual_seed(0)
    device = inverse.device

    def noise() -> Tensor:
        return (2 * torch.rand(inverse.shape, generator=generator) - 1).to(device)

    slopes = torch.gradient(_smooth(inverse))
    steepest = 2.0 / min(view.camera.fx, view.camera.fy)  # tangent 2, of surfaces seen at 63 degrees
    bound = steepest * inverse
    planes = Planes(inverse, slopes[1].clamp(-bound, bound), slopes[0].clamp(-bound, bound))
    cost = compare(planes)

    def consider(other: Planes) -> None:
        nonlocal planes, cost
        other.inverse.clamp_(*limits)
        value = compare(other)
        better = value < cost
        planes, cost = planes.where(better, other), torch.minimum(cost, value)

    for iteration in range(options.iterations):
        for reach in (1, _REACHES[iteration % 4]):
            for x, y in _NEIGHBOURS:
                consider(planes.moved(x * reach, y * reach))
        share = 0.5**iteration
        tilt = share * steepest / 2 * planes.inverse
        consider(Planes(planes.inverse + share * spacing * noise(), planes.right, planes.down))
        consider(Planes(planes.inverse.clone(), planes.right + tilt * noise(), planes.down + tilt * noise()))
        consider(
            Planes(
                planes.inverse + 0.25 * share * spacing * noise(),
                planes.right + 0.5 * tilt * noise(),
                planes.down + 0.5 * tilt * noise(),
            )
        )
    return planes, cost


def _smooth(values: Tensor) -> Tensor:
    padded = functional.pad(values[None, None], (2, 2, 2, 2), mode="replicate")
    return functional.avg_pool2d(padded, 5, 1)[0, 0]
