"""A scene made ready for training: cameras and photographs at one resolution, train and test views, points."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor

from splat.core import Camera, UsageError
from splat.data.cache import PhotoCache
from splat.data.images import Photo
from splat.data.points import median_depth, recentring, scene_extent
from splat.data.resample import load_photo
from splat.data.scene import Points, Scene
from splat.data.undistort import RemapTables

_HOLDOUT = 8  # every 8th view by sorted name is held out, as in the Mip-NeRF 360 protocol
_TABLE_BYTES = 128 << 20


class Dataset:
    """Views of a scene, numbered in the order of ``scene.frames``.

    Attributes:
        scene: what was read, in the dataset's own coordinates.
        train, test: view numbers. Without `holdout` nothing is held out, except where the dataset itself names
            its test views.
        offset: [3] float64. Cameras and points here are the scene's minus this offset: zero, unless the scene lies
            so far from its origin that float32 would blur it.
        points: the scene's points minus the offset, or None.
        extent: 1.1 x the largest distance of a training camera from their mean, at least 0.1 x the median depth of
            the points; world units.
    """

    def __init__(
        self,
        scene: Scene,
        downscale: float = 1.0,
        holdout: bool = False,
        cache_bytes: int = 4 << 30,
        background: tuple[float, float, float] | None = None,
        workers: int = 2,
    ) -> None:
        """
        Args:
            downscale: photographs are averaged down by this factor, at least 1.
            holdout: hold out every 8th view, or those that the dataset names.
            cache_bytes: decoded photographs kept in memory, at most.
            background: colour in [0, 1] to composite transparent photographs over; None leaves them transparent.
            workers: threads that decode ahead.

        Raises:
            UsageError: downscale is below 1 or not finite.
        """
        if not (math.isfinite(downscale) and downscale >= 1):
            raise UsageError(f"downscale {downscale:g} is not possible; give a factor of 1 or more")
        self.scene = scene
        self.train, self.test = _split(scene, holdout)
        cameras = [frame.camera for frame in scene.frames]
        training = [cameras[index] for index in self.train]
        self.extent = scene_extent(training, median_depth(cameras, scene.points))
        self.offset = recentring(scene, self.extent)
        self._cameras = [_prepared(camera, downscale, self.offset) for camera in cameras]
        self.points: Points | None = scene.points
        if scene.points is not None and bool(self.offset.any()):
            self.points = replace(scene.points, xyz=scene.points.xyz - self.offset)
        self._background = background
        self._tables = RemapTables(_TABLE_BYTES)
        self._cache = PhotoCache(self._load, cache_bytes, workers)

    def __len__(self) -> int:
        return len(self._cameras)

    def __enter__(self) -> Dataset:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def camera(self, index: int) -> Camera:
        """Camera of view `index` at the training resolution; float32 pose, recentred."""
        return self._cameras[index]

    def photo(self, index: int) -> Photo:
        """Photograph of view `index` at the training resolution.

        Raises:
            DatasetError: it, or its mask, is damaged or no longer there.
        """
        return self._cache.get(index)

    def prefetch(self, indices: Iterable[int]) -> None:
        """Start decoding the first few of these views in the background; returns at once."""
        self._cache.prefetch(indices)

    def close(self) -> None:
        """Stop the decoding threads and forget the photographs."""
        self._cache.close()

    def _load(self, index: int) -> Photo:
        camera = self._cameras[index]
        return load_photo(
            self.scene.frames[index], camera.width, camera.height, self._tables, self._background
        )


def _split(scene: Scene, holdout: bool) -> tuple[list[int], list[int]]:
    everything = range(len(scene.frames))
    if scene.test_names is not None:
        test = [index for index in everything if scene.frames[index].name in scene.test_names]
    elif holdout:
        test = list(everything[::_HOLDOUT])
    else:
        test = []
    held = set(test)
    train = [index for index in everything if index not in held]
    if not train:  # a dataset that names every view as a test view
        return list(everything), test
    return train, test


def _prepared(camera: Camera, downscale: float, offset: Tensor) -> Camera:
    """At the training resolution, around the offset, in float32."""
    width, height = (max(1, round(size / downscale)) for size in (camera.width, camera.height))
    pose = camera.world_to_camera.double().clone()
    pose[:3, 3] += pose[:3, :3] @ offset
    return camera.resized(width, height).with_pose(pose.to(torch.float32))
