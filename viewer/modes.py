"""What a picture drawn on the server shows: colour, depth, alpha, normals, contribution, error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splat.core import Camera, Gaussians
from splat.core.heads import Head
from splat.raster import RenderOptions, RenderOutput, draw, render
from splat.viewer.colours import stretched, turbo

_SOLID = 0.5  # alpha from which a pixel has a depth worth showing


@dataclass(frozen=True)
class Scene:
    """What is drawn.

    Attributes:
        sh_degree: highest degree of the harmonics to use.
        background: colour behind the scene.
        truth: the photograph as a camera sees it, with where it is known; None where there is none.
        heads: networks that finish the image; not that of Gaussians which lack what one of them reads.
    """

    gaussians: Gaussians
    sh_degree: int
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)
    truth: Callable[[Camera], tuple[Tensor, Tensor] | None] = lambda camera: None
    heads: tuple[Head, ...] = ()

    def image(self, camera: Camera) -> Tensor:
        """[H, W, 3] what the camera sees."""
        have = {None, *self.gaussians.extras}
        heads = self.heads if all(head.features in have for head in self.heads) else ()
        with torch.no_grad():
            return draw(self.gaussians, camera.to(self.gaussians.device), self._options(), heads).image

    def render(self, camera: Camera, *needs: str, features: Tensor | None = None) -> RenderOutput:
        options = replace(self._options(), needs=frozenset(needs), features=features)
        with torch.no_grad():
            return render(self.gaussians, camera.to(self.gaussians.device), options)

    def _options(self) -> RenderOptions:
        background = torch.tensor(self.background, device=self.gaussians.device)
        return RenderOptions(background, self.sh_degree)


def colour(scene: Scene, camera: Camera) -> Tensor:
    """The image."""
    return scene.image(camera)


def depth(scene: Scene, camera: Camera) -> Tensor:
    """Expected depth, near is red: the logarithm, stretched over what the picture holds."""
    output = scene.render(camera, "depth")
    assert output.depth is not None
    solid = output.alpha > _SOLID
    near = -torch.log(output.depth.clamp_min(1e-6))
    return _over(turbo(stretched(near, solid)), solid, scene)


def alpha(scene: Scene, camera: Camera) -> Tensor:
    """Opacity of each pixel, white is solid."""
    return scene.render(camera).alpha[..., None].expand(-1, -1, 3)


def normals(scene: Scene, camera: Camera) -> Tensor:
    """Normals of the depth map: red looks right, green up, blue towards the camera."""
    output = scene.render(camera, "depth")
    assert output.depth is not None
    solid = output.alpha > _SOLID
    return _over(0.5 + 0.5 * depth_normals(output.depth, camera), solid, scene)


def depth_normals(depth: Tensor, camera: Camera) -> Tensor:
    """[H, W, 3] unit normals (x right, y up, z towards the camera) of a depth map [H, W] of camera z."""
    height, width = depth.shape
    y, x = torch.meshgrid(
        torch.arange(height, device=depth.device) + 0.5,
        torch.arange(width, device=depth.device) + 0.5,
        indexing="ij",
    )
    points = torch.stack([(x - camera.cx) / camera.fx, (y - camera.cy) / camera.fy, torch.ones_like(x)], -1)
    points = points * depth[..., None]
    across = torch.gradient(points, dim=1)[0] if width > 1 else torch.zeros_like(points)
    down = torch.gradient(points, dim=0)[0] if height > 1 else torch.zeros_like(points)
    normal = torch.linalg.cross(down, across)  # towards the camera: y points down, z away
    normal = torch.nn.functional.normalize(normal, dim=-1)
    return normal * torch.tensor([1.0, -1.0, -1.0], device=depth.device)


def contribution(scene: Scene, camera: Camera) -> Tensor:
    """How much each Gaussian gives to this picture, as its colour: the logarithm of its blending weight
    summed over the pixels, red gives most."""
    given = scene.render(camera, "contribution").contribution
    assert given is not None
    seen = given > 0
    value = stretched(torch.log(given.clamp_min(1e-6)), seen, 0.02, 0.98).clamp(0, 1)
    output = scene.render(camera, features=value[:, None].contiguous())
    assert output.features is not None
    mean = output.features[..., 0] / output.alpha.clamp_min(1e-6)
    return output.alpha[..., None] * turbo(mean)


def error(scene: Scene, camera: Camera) -> Tensor:
    """Mean absolute difference to the photograph, red from 0.25 on; the picture itself, dimmed, where no
    photograph was taken from here."""
    image = scene.image(camera).clamp(0, 1)
    known = scene.truth(camera)
    if known is None:
        return 0.4 * image
    truth, inside = known
    off = (image - truth.to(image.device)).abs().mean(-1)
    return torch.where(inside.to(image.device)[..., None], turbo(4 * off), 0.4 * image)


MODES: dict[str, Callable[[Scene, Camera], Tensor]] = {
    "colour": colour,
    "depth": depth,
    "alpha": alpha,
    "normals": normals,
    "contribution": contribution,
    "error": error,
}


def _over(image: Tensor, solid: Tensor, scene: Scene) -> Tensor:
    background = torch.tensor(scene.background, device=image.device, dtype=image.dtype)
    return torch.where(solid[..., None], image, background)
