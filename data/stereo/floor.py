"""The floor under what cameras stand around: a plane that bounds the scene.

Stereo by windows fails where pictures are taken from far apart, and thus on most of what a ring of few photographs
shows. A floor is found all the same: the points that are known say where it lies, and one homography takes it from view
to view (Hartley and Zisserman 2004, section 13.1), however far apart they are. Where the colours agree, it is seen; no
view sees through it; and above it, at the distance of the cameras, another could stand: nothing hangs there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from splat.core import Camera
from splat.data.points import focus
from splat.data.stereo.views import DepthMap, StereoView, pixel_rays, projected, sample, world_points

_TRIALS = 500
_SAMPLED = 4_000  # points, at most, on which planes are tried
_NEAR = 0.01  # of the median distance from the cameras: points so close to a plane lie on it
_SHARE = 0.15  # of the points, at least, lie on a floor
_BEHIND = 0.05  # of the points, at most, lie behind it
_WIDTH = 80  # pixels along the longer side of the pictures that are compared on a floor
_UNLIKE = 0.05  # mean difference of colours in [0, 1], up to which they agree
_GRAZING = 0.05  # sine of the angle between a ray and a floor, up to which nothing is compared
_HIDDEN = 0.97  # what lies nearer than this share of the depth of the floor hides it
_STAND = (0.75, 1.33)  # of the least and the largest distance from the focus: between them stand cameras
_ABOVE = 0.05  # of the least distance: what lies lower lies on the floor
_STONES = 30  # places from the middle of a floor to its rim


@dataclass(frozen=True)
class Plane:
    """The points x of normal x + offset = 0; the cameras are where it is positive.

    Attributes:
        normal: [3] float64, unit.
        offset: world units.
    """

    normal: Tensor
    offset: float

    def height(self, points: Tensor) -> Tensor:
        """[...] signed distances of points [..., 3]."""
        return points @ self.normal.to(points) + self.offset


@dataclass(frozen=True)
class Floor:
    """A plane, and the cameras that stand on one side of it around a focus.

    Attributes:
        focus: [3] float64, world: nearest to all optical axes.
        nearest, farthest: distances of the cameras from it.
    """

    plane: Plane
    focus: Tensor
    nearest: float
    farthest: float

    @property
    def radius(self) -> float:
        """How far around the focus the floor goes on, world units."""
        return _STAND[1] * self.farthest

    def free(self, points: Tensor) -> Tensor:
        """[P] bool: above the floor, and so far from the focus that another camera could stand there."""
        distance = (points - self.focus.to(points)).norm(dim=-1)
        between = (distance > _STAND[0] * self.nearest) & (distance < self.radius)
        return between & (self.plane.height(points) > _ABOVE * self.nearest)

    def depth(self, camera: Camera, device: torch.device | None = None, least: float = 0.0) -> Tensor:
        """[H, W] camera z at which the rays through the pixel centres meet it; infinite where they do not, or under
        an angle whose sine is at most `least`."""
        rays = pixel_rays(camera, device)
        return self._met(camera, rays, least)

    def background(self, camera: Camera, points: Tensor, farthest: float) -> Tensor:
        """Points [P, 3] moved along their rays from the camera, to the floor or to the depth `farthest`."""
        pose = camera.world_to_camera.to(points)
        local = points @ pose[:3, :3].T + pose[:3, 3]
        rays = local / local[:, 2:]
        z = self._met(camera, rays, 0.0).clamp(max=farthest)
        return (rays * z[:, None] - pose[:3, 3]) @ pose[:3, :3]

    def _met(self, camera: Camera, rays: Tensor, least: float) -> Tensor:
        falls = -(rays @ (camera.world_to_camera[:3, :3].double().cpu() @ self.plane.normal).to(rays))
        height = float(self.plane.height(camera.position.double().cpu()))
        return torch.where(falls > least * rays.norm(dim=-1), height / falls.clamp_min(1e-12), torch.inf)


def all_around(cameras: Sequence[Camera]) -> bool:
    """Whether two of them look more than a right angle apart."""
    ahead = torch.stack([camera.forward.double().cpu() for camera in cameras])
    return bool((ahead @ ahead.T).min() < 0)


def floor_of(points: Tensor, cameras: Sequence[Camera]) -> Floor | None:
    """The floor of cameras that stand around a place which all of them show; None where they or it do not.

    Args:
        points: [P, 3] places that are known, wrong ones among them.
    """
    if not all_around(cameras):
        return None
    places = torch.stack([camera.position.double().cpu() for camera in cameras])
    middle = focus(cameras)
    for camera in cameras:
        pixel, z = projected(camera, middle)
        size = pixel.new_tensor([camera.width, camera.height])
        if not bool((z > 0) & (pixel >= 0).all() & (pixel < size).all()):
            return None
    plane = bounding_plane(points.double().cpu(), places)
    distance = (places - middle).norm(dim=1)
    return None if plane is None else Floor(plane, middle, float(distance.min()), float(distance.max()))


def bounding_plane(points: Tensor, places: Tensor) -> Plane | None:
    """The plane with the most of the points [P, 3] on it, next to none behind it and all `places` [C, 3] before it, if
    there is one (random sample consensus, Fischler and Bolles 1981); float64 on the CPU."""
    if len(points) < 3:
        return None
    generator = torch.Generator().manual_seed(0)
    points = points[torch.randperm(len(points), generator=generator)[:_SAMPLED]]
    near = _NEAR * float(torch.cdist(points, places).amin(1).median())
    corners = points[torch.randint(len(points), (_TRIALS, 3), generator=generator)]
    normals = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    normals = functional.normalize(normals, dim=1)
    offsets = (corners[:, 0] * normals).sum(1)
    side = torch.where((places @ normals.T - offsets).mean(0) < 0, -1.0, 1.0)
    normals, offsets = normals * side[:, None], offsets * side
    heights = points @ normals.T - offsets
    bounds = (heights < -3 * near).double().mean(0) <= _BEHIND
    bounds &= (places @ normals.T - offsets).amin(0) > 3 * near
    share = torch.where(bounds, (heights.abs() < near).double().mean(0), 0.0)
    best = int(share.argmax())
    if share[best] < _SHARE:
        return None
    on = points[heights[:, best].abs() < near]
    normal = torch.linalg.svd(on - on.mean(0), full_matrices=False).Vh[2]
    normal = normal * torch.sign(normal @ normals[best])
    return Plane(normal, -float(normal @ on.mean(0)))


def on_floor(view: StereoView, others: Sequence[tuple[StereoView, DepthMap]], floor: Floor) -> Tensor:
    """[H, W] float32 depth of the floor where the colours that another view has of it agree; 0 elsewhere.

    Args:
        others: what hides the floor from them, as far as it is known, makes them say nothing.
    """
    there = floor.depth(view.camera, view.image.device, _GRAZING)
    there = torch.where(there.isfinite(), there, 0.0)
    places, mine = world_points(view.camera, there), _blurred(view)
    seen = torch.zeros_like(there, dtype=torch.bool)
    for other, known in others:
        pixels, z = projected(other.camera, places)
        size = pixels.new_tensor([other.camera.width, other.camera.height])
        inside = (there > 0) & (z > 0) & (pixels >= 0).all(-1) & (pixels < size).all(-1)
        pixels = torch.where(inside[..., None], pixels, 0.0)
        alike = (sample(_blurred(other), pixels) - mine).abs().mean(0) < _UNLIKE
        before = sample(known.depth[None], pixels, mode="nearest")[0]
        seen |= inside & alike & ~((before > 0) & (before < _HIDDEN * z))
    if view.mask is not None:
        seen &= view.mask
    return torch.where(seen, there, 0.0)


def paved(views: Sequence[StereoView], depths: Sequence[Tensor], floor: Floor) -> tuple[Tensor, Tensor]:
    """[P, 3] places on the floor around the focus, where none of what the views show at `depths` lies on it, and their
    colours [P, 3], of what lies on it closest by. On the CPU."""
    plane, spacing = floor.plane, floor.radius / _STONES
    shown = torch.cat(
        [world_points(v.camera, d)[::2, ::2].reshape(-1, 3) for v, d in zip(views, depths, strict=True)]
    )
    colours = torch.cat([view.image[::2, ::2].reshape(-1, 3) for view in views]).double().cpu()
    shown = shown.double().cpu()
    low = plane.height(shown).abs() < spacing / 2
    shown, colours = shown[low], colours[low]
    first, second = torch.linalg.svd(plane.normal[None]).Vh[1:]  # along the floor
    steps = torch.arange(-_STONES, _STONES + 1, dtype=torch.float64) * spacing
    x, y = torch.meshgrid(steps, steps, indexing="xy")
    inside = x**2 + y**2 < floor.radius**2
    centre = floor.focus - plane.height(floor.focus) * plane.normal
    places = centre + x[inside][:, None] * first + y[inside][:, None] * second
    if not len(shown):
        return torch.zeros(0, 3), torch.zeros(0, 3)
    # What lies in one cell of the grid tells as much as its mean.
    cell = torch.stack([(shown - centre) @ first, (shown - centre) @ second], 1).div(spacing).round().long()
    cell, member = torch.unique(cell, dim=0, return_inverse=True)
    mean = torch.zeros(len(cell), 6, dtype=torch.float64)
    mean.index_add_(0, member, torch.cat([shown, colours], 1))
    mean = mean / member.bincount()[:, None]
    apart = torch.cdist(places, mean[:, :3])
    bare = apart.amin(1) > 0.75 * spacing
    near = (apart[bare] + spacing) ** -4
    return places[bare].float(), (near @ mean[:, 3:] / near.sum(1, keepdim=True)).float()


def _blurred(view: StereoView) -> Tensor:
    """[3, H, W] the picture with the details that a small one has."""
    image = view.image.permute(2, 0, 1)[None]
    height, width = image.shape[-2:]
    shrink = min(1.0, _WIDTH / max(height, width))
    size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    small = functional.adaptive_avg_pool2d(image, size)
    return functional.interpolate(small, (height, width), mode="bilinear", align_corners=False)[0]
