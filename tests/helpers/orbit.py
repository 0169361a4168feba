"""Photographs for structure from motion: views of the sample scene along an arc, close enough to match."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from splat.core import Camera
from splat.data.sample import render_sample, sample_cameras
from splat.data.sample_scene import build_world

WIDTH, HEIGHT = 320, 240


def arc(count: int) -> list[Camera]:
    """Neighbouring cameras of a ring of 60, 6 degrees apart."""
    return sample_cameras(60, WIDTH, HEIGHT)[:count]


def turning(count: int) -> list[Camera]:
    """Cameras at one place that turn by 3 degrees each."""
    first = arc(1)[0]
    cameras = []
    for index in range(count):
        angle = math.radians(3 * (index - count / 2))
        turn = torch.eye(4, dtype=torch.float64)
        turn[0, 0] = turn[2, 2] = math.cos(angle)
        turn[0, 2], turn[2, 0] = math.sin(angle), -math.sin(angle)
        pose = turn @ first.world_to_camera
        cameras.append(replace(first, world_to_camera=pose, name=f"turn_{index}.png"))
    return cameras


def pictures(cameras: list[Camera]) -> list[np.ndarray]:
    """[H, W, 3] uint8 what each camera sees, one ray a pixel."""
    world = build_world(0)
    return [render_sample(world, camera, samples=1).image for camera in cameras]


def write(folder: Path, cameras: list[Camera]) -> Path:
    """Write what the cameras see under their names; gives the folder."""
    folder.mkdir(parents=True)
    for camera, picture in zip(cameras, pictures(cameras), strict=True):
        Image.fromarray(picture).save(folder / camera.name)
    return folder
