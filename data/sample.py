"""A built-in dataset: a ray-traced scene with known depth, normals and points, written as COLMAP writes its own."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from splat.core import Camera
from splat.data.sample_scene import World, build_world, to_srgb

_TARGET = np.array([0.0, 0.0, 0.42])
_DISTANCE = 3.6
_VISIBLE = 8 / 255  # neighbouring pixels that differ by more are anti-aliased
_FIELD = math.radians(52)  # horizontal


@dataclass(frozen=True)
class SampleView:
    """One rendered view with its ground truth.

    Attributes:
        camera: pinhole; world_to_camera float64.
        image: [H, W, 3] uint8 sRGB, anti-aliased.
        depth: [H, W] float32 camera z at pixel centres.
        normal: [H, W, 3] float32 unit world normals at pixel centres.
        foreground: [H, W] bool, whether the pixel centre sees anything but the backdrop.
    """

    camera: Camera
    image: NDArray[np.uint8]
    depth: NDArray[np.float32]
    normal: NDArray[np.float32]
    foreground: NDArray[np.bool_]


def sample_cameras(views: int, width: int, height: int, seed: int = 0) -> list[Camera]:
    """Cameras on a wavy ring around the scene, looking at its middle, heights and distances a little irregular."""
    import torch

    generator = np.random.default_rng([seed, 1])
    focal = width / (2 * math.tan(_FIELD / 2))
    cameras = []
    for index in range(views):
        angle = 2 * math.pi * index / views
        elevation = math.radians(24 + 13 * math.sin(3 * angle) + generator.uniform(-3, 3))
        distance = _DISTANCE * (1 + generator.uniform(-0.06, 0.06))
        offset = np.array(
            [
                math.cos(elevation) * math.cos(angle),
                math.cos(elevation) * math.sin(angle),
                math.sin(elevation),
            ]
        )
        position = _TARGET + distance * offset
        forward = _TARGET + generator.uniform(-0.1, 0.1, 3) - position
        forward /= np.linalg.norm(forward)
        right = np.cross(forward, [0, 0, 1])
        right /= np.linalg.norm(right)
        rotation = np.stack([right, np.cross(forward, right), forward])
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation, -rotation @ position
        name = f"view_{index:03d}.png"
        cameras.append(
            Camera(width, height, focal, focal, width / 2, height / 2, torch.from_numpy(pose), name)
        )
    return cameras


def render_sample(world: World, camera: Camera, samples: int = 2) -> SampleView:
    """Ray-trace one view.

    Args:
        samples: samples x samples rays for each pixel that differs from a neighbour; one suffices elsewhere.
    """
    height, width = camera.height, camera.width
    origins, directions = _rays(camera, 0.5, 0.5, np.float32)
    image = to_srgb(world.shade(origins, directions)[0])
    rough = _rough(image.reshape(height, width, 3))
    fine = np.zeros((len(rough), 3))
    for i in range(samples):
        for j in range(samples):
            origins, directions = _rays(camera, (j + 0.5) / samples, (i + 0.5) / samples, np.float32, rough)
            # Averaged as displayed: what an area average of a larger photograph would give.
            fine += to_srgb(world.shade(origins, directions)[0])
    image[rough] = fine / samples**2
    photograph = (image * 255 + 0.5).astype(np.uint8).reshape(height, width, 3)
    origins, directions = _rays(camera, 0.5, 0.5, np.float64)
    distance, body = world.hit(origins, directions)
    points = origins + distance[:, None] * directions
    pose = camera.world_to_camera.numpy()
    depth = (points @ pose[2, :3] + pose[2, 3]).reshape(height, width)
    normal = world.normals(points, body).reshape(height, width, 3)
    foreground = (body != len(world.bodies) - 1).reshape(height, width)
    return SampleView(camera, photograph, depth.astype(np.float32), normal.astype(np.float32), foreground)


def write_sample(
    folder: str | Path,
    *,
    views: int = 32,
    width: int = 320,
    height: int = 240,
    seed: int = 0,
    points: int = 4000,
    samples: int = 2,
    truth: bool = True,
    masks: bool = False,
) -> Path:
    """Render the sample scene and write it as a COLMAP dataset: images/ and a binary model in sparse/0.

    Args:
        folder: where to; made if need be.
        views: number of photographs, at least 2.
        width, height: their size, pixels.
        seed: of the textures, the cameras and the choice of points.
        points: number of surface points in the model, at most; positions are exact.
        samples: samples x samples rays for each pixel that differs from a neighbour.
        truth: also write depths/NAME.npy ([H, W] float32, camera z) and normals/NAME.npy ([H, W, 3] float32,
            world) at the pixel centres; NAME is the image's without extension.
        masks: also write masks/NAME.png, 0 where a pixel sees the backdrop: training then ignores it.

    Returns:
        The folder.
    """
    from PIL import Image

    folder = Path(folder)
    world = build_world(seed)
    cameras = sample_cameras(views, width, height, seed)
    wanted = {"images": True, "sparse/0": True, "depths": truth, "normals": truth, "masks": masks}
    for name in (name for name, is_wanted in wanted.items() if is_wanted):
        (folder / name).mkdir(parents=True, exist_ok=True)

    def render(camera: Camera) -> SampleView:
        view = render_sample(world, camera, samples)
        stem = Path(camera.name).stem
        Image.fromarray(view.image).save(folder / "images" / camera.name)
        if truth:
            np.save(folder / "depths" / f"{stem}.npy", view.depth)
            np.save(folder / "normals" / f"{stem}.npy", view.normal)
        if masks:
            Image.fromarray(view.foreground.astype(np.uint8) * 255).save(folder / "masks" / f"{stem}.png")
        return view

    with ThreadPoolExecutor(2) as pool:
        rendered = list(pool.map(render, cameras))
    _write_model(folder / "sparse" / "0", world, rendered, points, seed)
    return folder


def _rough(image: NDArray) -> NDArray[np.int64]:
    """Flat positions of the pixels that differ visibly from one of their 8 neighbours."""
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
    low = high = image
    for i in range(3):
        for j in range(3):
            shifted = padded[i : i + image.shape[0], j : j + image.shape[1]]
            low, high = np.minimum(low, shifted), np.maximum(high, shifted)
    return np.flatnonzero((high - low).max(2) > _VISIBLE)


def _rays(
    camera: Camera, dx: float, dy: float, dtype: type, pixels: NDArray[np.int64] | None = None
) -> tuple[NDArray, NDArray]:
    """Origins and unit directions of one ray a pixel, row by row, at (dx, dy) inside the pixel; of all pixels, or
    of those at the given flat positions."""
    if pixels is None:
        pixels = np.arange(camera.width * camera.height)
    local = np.ones((len(pixels), 3))
    local[:, 0] = (pixels % camera.width + dx - camera.cx) / camera.fx
    local[:, 1] = (pixels // camera.width + dy - camera.cy) / camera.fy
    directions = local @ camera.world_to_camera[:3, :3].numpy()
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    origins = np.broadcast_to(camera.position.numpy(), directions.shape)
    return origins.astype(dtype), directions.astype(dtype)


def _surface_points(
    world: World, views: list[SampleView], count: int, seed: int
) -> tuple[NDArray, list[NDArray]]:
    """[P, 3] points on surfaces, and for each view [P, 2] pixel positions, NaN where it does not see the point."""
    generator = np.random.default_rng([seed, 2])
    found: list[NDArray] = []
    share = math.ceil(2 * count / len(views))  # some are seen by a single view and dropped
    for view in views:
        origins, directions = _rays(view.camera, 0.5, 0.5, np.float64)
        chosen = generator.choice(len(origins), min(share, len(origins)), replace=False)
        distance, _ = world.hit(origins[chosen], directions[chosen])
        found.append(origins[chosen] + distance[:, None] * directions[chosen])
    xyz = np.concatenate(found)
    seen = [_observed(world, view.camera, xyz) for view in views]
    times = sum(np.isfinite(pixels[:, 0]).astype(int) for pixels in seen)
    kept = generator.permutation(np.flatnonzero(times >= 2))[:count]
    return xyz[kept], [pixels[kept] for pixels in seen]


def _observed(world: World, camera: Camera, xyz: NDArray) -> NDArray:
    """[P, 2] pixel positions of the points, NaN where the camera does not see them."""
    pose = camera.world_to_camera.numpy()
    local = xyz @ pose[:3, :3].T + pose[:3, 3]
    with np.errstate(divide="ignore", invalid="ignore"):
        pixels = local[:, :2] / local[:, 2:] * (camera.fx, camera.fy) + (camera.cx, camera.cy)
    inside = (local[:, 2] > 0) & ((pixels >= 0) & (pixels < (camera.width, camera.height))).all(1)
    rays = xyz - camera.position.numpy()
    length = np.linalg.norm(rays, axis=1)
    distance, _ = world.hit(np.broadcast_to(camera.position.numpy(), rays.shape), rays / length[:, None])
    visible = inside & (np.abs(distance - length) < 1e-4)
    return np.where(visible[:, None], pixels, np.nan)


def _write_model(folder: Path, world: World, views: list[SampleView], count: int, seed: int) -> None:
    """A binary COLMAP model of the views and of points on the surfaces."""
    import pycolmap

    xyz, seen = _surface_points(world, views, count, seed)
    model = pycolmap.Reconstruction()
    first = views[0].camera
    params = [first.fx, first.fy, first.cx, first.cy]
    model.add_camera_with_trivial_rig(
        pycolmap.Camera(model="PINHOLE", width=first.width, height=first.height, params=params, camera_id=1)
    )
    rgb = np.zeros((len(xyz), 3))
    times = np.zeros((len(xyz), 1))
    tracks = [pycolmap.Track() for _ in range(len(xyz))]
    for number, (view, pixels) in enumerate(zip(views, seen, strict=True), start=1):
        points = np.flatnonzero(np.isfinite(pixels[:, 0]))
        image = pycolmap.Image(view.camera.name, pixels[points], 1, number)
        pose = pycolmap.Rigid3d(view.camera.world_to_camera.numpy()[:3])
        model.add_image_with_trivial_frame(image, pose)
        column, row = pixels[points].astype(int).T
        rgb[points] += view.image[row, column]
        times[points] += 1
        for index, point in enumerate(points):
            tracks[point].add_element(number, index)
    for position, colour, track in zip(xyz, (rgb / times + 0.5).astype(np.uint8), tracks, strict=True):
        model.add_point3D(position, track, colour)
    model.update_point_3d_errors()
    model.write_binary(str(folder))
