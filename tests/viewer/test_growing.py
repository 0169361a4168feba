"""The page of `splat process --viewer`: a model that grows, and models that fail."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from page import Page

from splat.core import Camera
from splat.link import Growth, SparseModel, StageProgress
from splat.viewer import frustums
from splat.viewer.growing import CAMERAS, POINTS, GrowthViewer
from splat.viewer.serving import Address


def camera(index: int, count: int, radius: float) -> Camera:
    """One of a ring of cameras around the origin that look at it."""
    angle = 2 * math.pi * index / count
    place = torch.tensor([radius * math.cos(angle), -1.0, radius * math.sin(angle)])
    up = torch.tensor([0.0, -1.0, 0.0])
    return Camera.look_at(place, torch.zeros(3), up, width=64, height=48, field_of_view=0.9)


def model(cameras: int, points: int, radius: float = 3.0) -> SparseModel:
    generator = torch.Generator().manual_seed(0)
    places = torch.randn(points, 3, generator=generator)
    colours = torch.randint(0, 256, (points, 3), generator=generator, dtype=torch.uint8)
    ring = {f"{index:03d}.png": camera(index, cameras, radius) for index in range(cameras)}
    return SparseModel(ring, places, colours)


@pytest.fixture
def shown() -> Iterator[tuple[Growth, Page, list[str], list[StageProgress]]]:
    """What grows, a page on it, the log, and what is said of the stages (the last of the list)."""
    lines: list[str] = []
    said = [StageProgress(("photographs: 9 (0:01)",), "mapping: 0/9", 0.0)]
    growth = Growth("garden", lambda: said[-1], log=lines.append)
    viewer = GrowthViewer(growth, Address(port=18480))
    try:
        with Page(viewer.port) as page:
            yield growth, page, lines, said
    finally:
        viewer.stop()


def test_cameras_and_points_grow(shown) -> None:
    growth, page, lines, said = shown
    page.wait(lambda: growth.slot.wanted)
    page.wait(lambda: "- photographs: 9 (0:01)" in page.text() and "**mapping: 0/9**" in page.text())
    assert "No photograph has a pose yet." in page.text()
    for cameras, points in ((3, 50), (6, 90)):
        growth.slot.publish(model(cameras, points))
        said.append(StageProgress((), f"mapping: {cameras}/9  ETA 0:03", cameras / 9))
        said_of_it = f"**{cameras}** photographs have a pose, **{points}** points"
        page.wait(lambda text=said_of_it: text in page.text())
        page.wait(lambda text=said[-1].now: text in page.text())
        assert page.nodes[POINTS][-1] == points
    assert [count // frustums.SEGMENTS for count in page.nodes[CAMERAS]] == [3, 6]
    # Visitors see all of it: every camera and point in front of them, within the field of view.
    position, target = np.array(page.camera["position"]), np.array(page.camera["look_at"])
    forward = (target - position) / np.linalg.norm(target - position)
    last = model(6, 90)
    places = np.stack([camera.position.numpy() for camera in last.cameras.values()]) - position
    angles = np.arccos(places @ forward / np.linalg.norm(places, axis=1))
    assert angles.max() < page.camera["fov"] / 2
    assert lines == []


def test_visitors_who_want_to_stay_do(shown) -> None:
    growth, page, _, said = shown
    growth.slot.publish(model(3, 50))
    page.wait(lambda: page.nodes.get(POINTS))
    before = page.wait(lambda: page.camera["position"] != (0.0, 0.0, -3.0) and page.camera["position"])
    page.set("Keep all of it in view", False)
    page.set("Point size", 2.0)
    page.wait(lambda: page.nodes[POINTS] == [50, 50])  # drawn again: both have been heard
    growth.slot.publish(model(6, 90, radius=30.0))
    page.wait(lambda: "**6** photographs" in page.text() and page.nodes[POINTS][-1] == 90)
    said.append(StageProgress((), "a tick later", 0.0))
    page.wait(lambda: "a tick later" in page.text())
    assert page.camera["position"] == before
    page.press("See all of it")
    page.wait(lambda: np.linalg.norm(page.camera["position"]) > 30)


def test_a_model_that_cannot_be_shown_is_a_line_of_the_log(shown) -> None:
    growth, page, lines, _ = shown
    growth.slot.publish(SparseModel(model(3, 50).cameras, torch.zeros(7, 2), torch.zeros(7, 3)))
    page.wait(lambda: lines)
    growth.slot.publish(model(3, 50))
    page.wait(lambda: page.nodes.get(POINTS, [0])[-1] == 50)
    assert len(lines) == 1
    assert lines[0].startswith("viewer: ")


def test_nobody_looks(shown) -> None:
    growth, page, _, _ = shown
    page.wait(lambda: growth.slot.wanted)
    page.close()
    page.wait(lambda: not growth.slot.wanted)
