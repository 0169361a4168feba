"""The readable rasterizer: the truth that the native backends are tested against.

Plain torch, any floating type and device, derivatives by autograd alone. It works tile by tile over the
Gaussians that touch the tile, front to back in chunks, so that tens of thousands of Gaussians at ordinary
image sizes fit in memory; with gradients each tile is computed again in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from splat.core import Camera, Gaussians, UsageError
from splat.raster.constants import (
    ALPHA_MAX,
    ALPHA_MIN,
    MEDIAN_TRANSMITTANCE,
    TILE,
    TRANSMITTANCE_MIN,
)
from splat.raster.options import RenderOptions, RenderOutput
from splat.raster.projection import project
from splat.raster.tiles import intersections, tile_grid

# Gaussians blended at a time: 256 pixels x 512 values stay in a core's cache.
_CHUNK = 512
# The lists of the tiles are a little generous, since float32 may round alpha up; the pixels decide.
_SLACK = 1e-3


def count_tile_intersections(gaussians: Gaussians, camera: Camera) -> int:
    """Exact number of (Gaussian, 16x16 tile) intersections of the ellipses alpha >= 1/255."""
    with torch.no_grad():
        return len(intersections(project(gaussians, camera), camera.width, camera.height)[0])


class ReferenceBackend:
    """`render` in plain torch."""

    name = "reference"

    def render(self, gaussians: Gaussians, camera: Camera, options: RenderOptions) -> RenderOutput:
        if options.deferred is not None:
            raise UsageError(
                "the reference backend has no deferred step: use the cpu backend or deferred=None"
            )
        return _Drawing(gaussians, camera, options).output()


class _Drawing:
    """One render: the projected scene, its channels and the statistics that were asked for."""

    def __init__(self, gaussians: Gaussians, camera: Camera, options: RenderOptions) -> None:
        self.gaussians, self.camera, self.options = gaussians, camera, options
        self.shown = shown = project(gaussians, camera, options.sh_degree)
        layers = [shown.colors, shown.depths[:, None]]
        if options.features is not None:
            layers.append(options.features[shown.index])
        self.channels = torch.cat(layers, -1)

        def statistic(name: str, *shape: int) -> Tensor | None:
            wanted = name in options.needs
            return gaussians.means.new_zeros(len(gaussians), *shape) if wanted else None

        self.contribution = statistic("contribution")
        self.means2d_grad = into = statistic("means2d_grad", 2)
        self.means2d_absgrad = statistic("absgrad", 2)
        if into is not None and shown.means2d.requires_grad:

            def keep(grad: Tensor) -> None:
                into.index_add_(0, shown.index, grad)

            shown.means2d.register_hook(keep)

    def output(self) -> RenderOutput:
        width, height = self.camera.width, self.camera.height
        gaussian, tile = intersections(self.shown, width, height, _SLACK)
        across, down = tile_grid(width, height)
        lists = torch.split(gaussian, torch.bincount(tile, minlength=across * down).tolist())

        pixels = torch.arange(width * height, device=gaussian.device).view(height, width)
        places, parts, medians = [], [], []
        for number, members in enumerate(lists):
            if len(members) == 0:
                continue
            y, x = number // across * TILE, number % across * TILE
            place = pixels[y : y + TILE, x : x + TILE].reshape(-1)
            sums, median = self._tile(place, members)
            places.append(place)
            parts.append(sums)
            medians.append(median)

        sums = self.channels.new_zeros(width * height, self.channels.shape[1] + 1)
        median = torch.full((width * height,), -1, device=gaussian.device)
        if places:
            sums = sums.index_copy(0, torch.cat(places), torch.cat(parts))
            median[torch.cat(places)] = torch.cat(medians)
        else:
            sums = sums + 0 * self.channels.sum()  # an empty picture still has gradients: zeros
        return self._finish(sums.view(height, width, -1), median.view(height, width))

    def _tile(self, place: Tensor, members: Tensor) -> tuple[Tensor, Tensor]:
        """Sums [P, C + 1] and median splats [P] of the pixels `place` [P] over `members` [M]."""
        width = self.camera.width
        centres = torch.stack([place % width, place // width], -1).to(self.channels) + 0.5

        def blend(
            means2d: Tensor, conics: Tensor, opacities: Tensor, channels: Tensor
        ) -> tuple[Tensor, Tensor, Tensor]:
            return _blend(centres, members, means2d, conics, opacities, channels, self._take_absgrad)

        shown = self.shown
        inputs = [t[members] for t in (shown.means2d, shown.conics, shown.opacities, self.channels)]
        if torch.is_grad_enabled() and any(t.requires_grad for t in inputs):
            sums, median, weights = checkpoint(blend, *inputs, use_reentrant=False)
        else:
            sums, median, weights = blend(*inputs)
        if self.contribution is not None:
            self.contribution.index_add_(0, self.shown.index[members], weights)
        return sums, median

    def _take_absgrad(self, offsets: Tensor, members: Tensor) -> None:
        """Has the backward pass add |d Loss / d offsets| [P, M, 2], pixel by pixel, to the statistic."""
        into, index = self.means2d_absgrad, self.shown.index[members]
        if into is not None and offsets.requires_grad:

            def keep(grad: Tensor) -> None:
                into.index_add_(0, index, grad.abs().sum(0))

            offsets.register_hook(keep)

    def _finish(self, sums: Tensor, median: Tensor) -> RenderOutput:
        """The outputs from the sums [H, W, C + 1] and the median splats [H, W]."""
        needs, shown = self.options.needs, self.shown
        alpha = sums[..., -1]
        image = sums[..., :3]
        if self.options.background is not None:
            image = image + (1 - alpha)[..., None] * self.options.background.to(sums)
        out = RenderOutput(image=image, alpha=alpha)
        if self.options.features is not None:
            out.features = sums[..., 4:-1]
        if "depth" in needs:
            empty = alpha.detach() == 0
            out.depth = torch.where(empty, 0, sums[..., 3] / torch.where(empty, 1, alpha))
        if "median_depth" in needs:
            depths = torch.cat([shown.depths, shown.depths.new_zeros(1)])  # -1 finds the zero
            out.median_depth = depths[median]
        if "ids" in needs:
            ids = torch.cat([shown.index, shown.index.new_full((1,), -1)])
            out.ids = ids[median].to(torch.int32)
        if "radii" in needs:
            out.radii = self._radii()
        out.contribution = self.contribution
        out.means2d_grad, out.means2d_absgrad = self.means2d_grad, self.means2d_absgrad
        return out

    @torch.no_grad()
    def _radii(self) -> Tensor:
        """[N] int32 larger half axes, in pixels, of the ellipses alpha >= ALPHA_MIN that touch the image."""
        shown = self.shown
        drawn = intersections(shown, self.camera.width, self.camera.height)[0]
        xx, xy, yy = shown.covs2d.unbind(-1)
        largest = (xx + yy) / 2 + torch.sqrt(((xx - yy) / 2) ** 2 + xy**2)
        extent = torch.ceil(torch.sqrt(2 * shown.limits * largest)).clamp_max(2**31 - 128).to(torch.int32)
        radii = torch.zeros(len(self.gaussians), dtype=torch.int32, device=extent.device)
        radii[shown.index[drawn]] = extent[drawn]
        return radii


def _blend(
    centres: Tensor,
    members: Tensor,
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    channels: Tensor,
    on_offsets: Callable[[Tensor, Tensor], None],
) -> tuple[Tensor, Tensor, Tensor]:
    """Blends M Gaussians, sorted front to back, at P pixels.

    Args:
        centres: [P, 2] pixel centres.
        members: [M] the Gaussians' positions in the projected scene.
        means2d, conics, opacities, channels: [M, 2], [M, 3], [M], [M, C] of the members.
        on_offsets: is shown the offsets [P, m, 2] and the members [m] of each chunk.

    Returns:
        [P, C + 1] sums of w times the channels and of w; [P] member at which the transmittance first falls
        to one half, or -1; [M] sums of w over the pixels. Only the first has gradients.
    """
    # The product of all 1 - alpha so far, also of those beyond a pixel's end: once under
    # TRANSMITTANCE_MIN it stays there, which leaves out the splat that brought it there and all behind.
    transmittance = torch.ones_like(centres[:, 0])
    sums = channels.new_zeros(len(centres), channels.shape[1] + 1)
    median = torch.full_like(centres[:, 0], -1, dtype=torch.int64)
    weights = channels.new_zeros(len(members))
    for begin in range(0, len(members), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        offsets = centres[:, None] - means2d[part]
        on_offsets(offsets, members[part])
        dx, dy = offsets.unbind(-1)
        xx, xy, yy = conics[part].unbind(-1)
        sigma = 0.5 * (xx * dx * dx + yy * dy * dy) + xy * dx * dy
        alpha = torch.clamp_max(opacities[part] * torch.exp(-sigma), ALPHA_MAX)
        alpha = torch.where(alpha >= ALPHA_MIN, alpha, 0)

        after = transmittance[:, None] * torch.cumprod(1 - alpha, 1)
        before = torch.cat([transmittance[:, None], after[:, :-1]], 1)
        weight = torch.where(after >= TRANSMITTANCE_MIN, alpha * before, 0)
        sums = sums + torch.cat([weight @ channels[part], weight.sum(1, keepdim=True)], 1)
        weights[part] = weight.detach().sum(0)

        crosses = (before > MEDIAN_TRANSMITTANCE) & (after <= MEDIAN_TRANSMITTANCE)
        median = torch.where(crosses.any(1), members[part][crosses.int().argmax(1)], median)
        transmittance = after[:, -1]
        if bool((transmittance < TRANSMITTANCE_MIN).all()):
            break
    return sums, median, weights
