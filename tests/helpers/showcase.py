"""A finished scene with photographs of itself, as a viewer is handed it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from splat import codecs
from splat.core import Camera, Gaussians
from splat.core.heads import Head
from splat.link import Session, View
from splat.raster import render

WIDTH, HEIGHT = 64, 48


def gaussians(count: int = 400, seed: int = 0) -> Gaussians:
    """A ball of small coloured blobs around the origin, of radius about 1, degree 1."""
    g = torch.Generator().manual_seed(seed)
    means = torch.randn(count, 3, generator=g)
    return Gaussians(
        means=means / means.norm(dim=1, keepdim=True) * torch.rand(count, 1, generator=g) ** (1 / 3),
        quats=torch.randn(count, 4, generator=g),
        log_scales=-2.5 + 0.2 * torch.randn(count, 3, generator=g),
        logit_opacities=1 + torch.randn(count, generator=g),
        sh=torch.randn(count, 4, 3, generator=g) * torch.tensor([0.8, 0.1, 0.1, 0.1])[:, None],
    )


def cameras(count: int = 5) -> list[Camera]:
    """On a circle of radius 4 around the origin, looking at it, -y up."""
    found = []
    for i in range(count):
        angle = 2 * math.pi * i / count
        place = torch.tensor([4 * math.sin(angle), -0.8, -4 * math.cos(angle)])
        up = torch.tensor([0.0, -1.0, 0.0])
        camera = Camera.look_at(place, torch.zeros(3), up, width=WIDTH, height=HEIGHT, field_of_view=0.7)
        found.append(camera)
    return found


def session(folder: Path, scene: Gaussians | None = None, **more: Any) -> Session:
    """The ball; its photographs are its own pictures, the first of them held out."""
    scene = gaussians() if scene is None else scene
    original = scene.clone()
    seen = cameras()
    photos = [render(original, camera).image.clamp(0, 1).mul(255).round().byte() for camera in seen]
    views = [
        View(f"view{i}.png", camera, lambda i=i: photos[i], held_out=i == 0)  # type: ignore[misc]
        for i, camera in enumerate(seen)
    ]

    def evaluate(shown: Gaussians, go_on: Callable[[], bool], heads: tuple[Head, ...]) -> float | None:
        if not go_on():
            return None
        truth = photos[0].float() / 255
        error = float((render(shown, seen[0]).image.clamp(0, 1) - truth).square().mean())
        return -10 * math.log10(max(error, 1e-9))

    def export(
        shown: Gaussians, path: Path, options: Mapping[str, Any], known: Mapping[str, Any]
    ) -> list[str]:
        return codecs.encode(shown, path, dict(known), options)

    given: dict[str, Any] = {"views": views, "evaluate": evaluate, "export": export, "folder": folder}
    return Session.finished("ball", scene, **{**given, "log": lambda line: None, **more})
