"""A scene made ready for training: cameras and photographs at one resolution, train and test views, points."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from splat.core import Camera, UsageError
from splat.data.cache import PhotoCache
from splat.data.images import Photo
from splat.data.points import median_depth, recentring, scene_extent
from splat.data.problems import Report
from splat.data.resample import load_photo
from splat.data.scene import Points, Scene
from splat.data.triangulation import triangulate
from splat.data.undistort import RemapTables
from splat.data.viewpoints import examine

_LEAST_SIDE = 4  # pixels that a downscale must leave of a photograph
_TABLE_BYTES = 128 << 20
_BORDER = 0.2  # of the border that a silhouette may cover: objects are cut off now and then


class Dataset:
    """Views of a scene, numbered in the order of ``scene.frames``.

    Attributes:
        scene: what was read, in the dataset's own coordinates.
        train, test: view numbers. Without `holdout` nothing is held out, except where the dataset itself names
            its test views.
        offset: [3] float64. Cameras and points here are the scene's minus this offset: zero, unless the scene lies
            so far from its origin that float32 would blur it.
        notes: facts worth a line in the log: which views and points were chosen.
        depth: median depth of the points over the views that see them, world units; 0 without points.
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
        views: int | None = None,
        test_every: int = 8,
    ) -> None:
        """
        Args:
            downscale: photographs are averaged down by this factor, at least 1.
            holdout: hold out every 8th view (`test_every`), or those that the dataset names.
            cache_bytes: decoded photographs kept in memory, at most.
            background: colour in [0, 1] to composite transparent photographs over; None leaves them transparent.
            workers: threads that decode ahead.
            views: train on this many of the views that are not held out, evenly spread over their order (the
                protocol of RegNeRF, Niemeyer et al. 2022). Points are then triangulated again from what these
                views observe: those of the scene were computed with the help of all the others.
            test_every: every which view is held out.

        Raises:
            UsageError: downscale is below 1 or not finite or leaves next to nothing of a photograph, or there are
                not so many views to train on.
        """
        if not (math.isfinite(downscale) and downscale >= 1):
            raise UsageError(f"downscale {downscale:g} is not possible; give a factor of 1 or more")
        self.scene = scene
        self.train, self.test = _split(scene, holdout, test_every)
        self.notes: list[str] = []
        points = scene.points
        if views is not None:
            self.train = _spread(self.train, views, scene)
            points = self._own_points()
        # Known to be of the training views alone, with `views`; else nothing is told of what those share.
        self._shared = points if views is not None and scene.observe is not None else None
        cameras = [frame.camera for frame in scene.frames]
        training = [cameras[index] for index in self.train]
        self.depth = median_depth(cameras, points)
        self.extent = scene_extent(training, self.depth)
        self.offset = recentring(scene, self.extent)
        self._cameras = [_prepared(camera, downscale, self.offset) for camera in cameras]
        for before, camera in zip(cameras, self._cameras, strict=True):
            if min(camera.width, camera.height) < _LEAST_SIDE <= min(before.width, before.height):
                left = f"{camera.width}x{camera.height} pixels of {camera.name}"
                raise UsageError(f"downscale {downscale:g} leaves {left}; give a smaller factor")
        if points is not None and bool(self.offset.any()):
            points = replace(points, xyz=points.xyz - self.offset)
        self._points, self._own = points, views is not None
        self._background = background
        self._tables = RemapTables(_TABLE_BYTES)
        self._cache = PhotoCache(self._load, cache_bytes, workers)

    def __len__(self) -> int:
        return len(self._cameras)

    @cached_property
    def points(self) -> Points | None:
        """The points minus the offset, or None: the scene's, or with `views` those that the training views see,
        in the colours that these have there."""
        if self._points is None or not len(self._points):
            return None
        if not self._own:
            return self._points
        return replace(self._points, rgb=coloured(self, self._points))

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

    def large(self, index: int, longest: int) -> tuple[Camera, Tensor]:
        """Camera and photograph [H, W, 3] uint8 of view `index` with `longest` pixels on its longer side, whatever the
        training resolution; at most as the file has them. Not kept in memory."""
        frame = self.scene.frames[index]
        factor = max(1.0, max(frame.camera.width, frame.camera.height) / longest)
        camera = _prepared(frame.camera, factor, self.offset)
        photo = load_photo(frame, camera.width, camera.height, self._tables, self._background)
        return camera, photo.image

    def silhouette(self, index: int) -> Tensor | None:
        """[H, W] bool: where view `index` shows an object that the photograph or its mask sets apart from its
        surroundings; None where neither does. A mask that keeps most of the border does not.
        """
        frame, camera = self.scene.frames[index], self._cameras[index]
        if frame.mask_path is None and frame.path.suffix.lower() in (".jpg", ".jpeg"):
            return None  # cannot be transparent: not decoded again
        photo = load_photo(frame, camera.width, camera.height, self._tables)
        shown = photo.mask if photo.alpha is None else photo.alpha
        if shown is None:
            return None
        silhouette = shown > 127
        border = [silhouette[0], silhouette[-1], silhouette[:, 0], silhouette[:, -1]]
        return silhouette if float(torch.cat(border).float().mean()) < _BORDER else None

    def warnings(self) -> list[str]:
        """What is doubtful about the training views, a line each.

        Raises:
            DatasetError: they cannot show a scene in depth.
        """
        training = [self.scene.frames[index].camera for index in self.train]
        report = Report()
        examine(self.scene.root, training, self.depth, self._shared, report)
        return report.lines("warning")

    def _own_points(self) -> Points | None:
        """The scene's points as far as the training views alone determine them; what was done is noted."""
        scene, chosen = self.scene, ", ".join(self.scene.frames[index].name for index in self.train)
        self.notes.append(f"trains on {len(self.train)} views: {chosen}")
        if scene.points is None:
            return None
        if scene.observe is None:
            self.notes.append("the points are left out: nothing tells which views they were computed from")
            return None
        cameras = [frame.camera for frame in scene.frames]
        points = triangulate(scene.observe(self.train), cameras)
        self.notes.append(
            f"{len(points):,} of {len(scene.points):,} points are seen by at least 2 of these views and "
            "triangulated again from them"
        )
        return points

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


def _split(scene: Scene, holdout: bool, test_every: int) -> tuple[list[int], list[int]]:
    everything = range(len(scene.frames))
    if scene.test_names is not None:
        test = [index for index in everything if scene.frames[index].name in scene.test_names]
    elif holdout:
        test = list(everything[::test_every])
    else:
        test = []
    held = set(test)
    train = [index for index in everything if index not in held]
    if not train:  # a dataset that names every view as a test view
        return list(everything), test
    return train, test


def _spread(train: list[int], views: int, scene: Scene) -> list[int]:
    """`views` of the training views, the first and the last among them."""
    if not 1 <= views <= len(train):
        raise UsageError(f"{scene.root}: has {len(train)} views to train on, not {views}; lower --views")
    return [train[round(place)] for place in np.linspace(0, len(train) - 1, views).tolist()]


def coloured(dataset: Dataset, points: Points) -> Tensor:
    """[P, 3] uint8: the mean colour of each point in the photographs that its track names."""
    assert points.tracks is not None
    frames, owner = points.tracks.frames, points.tracks.points()
    total = torch.zeros(len(points), 3)
    for index in torch.unique(frames).tolist():
        mine = owner[frames == index]
        camera, image = dataset.camera(index), dataset.photo(index).image
        pose = camera.world_to_camera.double()
        local = points.xyz[mine] @ pose[:3, :3].T + pose[:3, 3]
        pixels = local @ camera.matrix.double().T
        column = (pixels[:, 0] / pixels[:, 2]).long().clamp(0, camera.width - 1)
        row = (pixels[:, 1] / pixels[:, 2]).long().clamp(0, camera.height - 1)
        total.index_add_(0, mine, image[row, column].float())
    seen = torch.bincount(owner, minlength=len(points)).clamp_min(1)
    return (total / seen[:, None] + 0.5).to(torch.uint8)


def _prepared(camera: Camera, downscale: float, offset: Tensor) -> Camera:
    """At the training resolution, around the offset, in float32."""
    width, height = (max(1, round(size / downscale)) for size in (camera.width, camera.height))
    pose = camera.world_to_camera.double().clone()
    pose[:3, 3] += pose[:3, :3] @ offset
    return camera.resized(width, height).with_pose(pose.to(torch.float32))
