"""What a run begins from: the automatic choice, what was asked for, and what each kind gives."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from splat.core import Camera, DataError
from splat.data import Photo, Points
from splat.data.hull import visual_hull
from splat.data.matching import matched_points
from splat.data.points import focus, in_view, shared_volume
from splat.training.begin import Request, begin
from splat.training.config import InitConfig

DEPTH = 4.0


def ring(count: int, degrees: float, width: int, height: int) -> list[Camera]:
    """Cameras 4 units from the origin on an arc of so many degrees a step, looking at it."""
    cameras = []
    for index in range(count):
        angle = math.radians(degrees * (index - (count - 1) / 2))
        place = DEPTH * torch.tensor([math.sin(angle), 0.05 * index, -math.cos(angle)], dtype=torch.float64)
        up = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
        cameras.append(
            Camera.look_at(
                place, torch.zeros(3).double(), up, width=width, height=height, field_of_view=math.radians(40)
            )
        )
    return cameras


def wall(camera: Camera) -> torch.Tensor:
    """[H, W, 3] uint8 picture of the patterned plane z = 0."""
    x = (torch.arange(camera.width) + 0.5 - camera.cx) / camera.fx
    y = (torch.arange(camera.height) + 0.5 - camera.cy) / camera.fy
    rays = torch.ones(camera.height, camera.width, 3)
    rays[..., 0], rays[..., 1] = x, y[:, None]
    rays = rays @ camera.world_to_camera[:3, :3].float()
    position = camera.position.float()
    points = position - rays * (position[2] / rays[..., 2:])
    generator = torch.Generator().manual_seed(0)
    waves = torch.randn(60, 3, generator=generator)
    waves = waves / waves.norm(dim=1, keepdim=True) * (6 + 24 * torch.rand(60, 1, generator=generator))
    phase = 2 * math.pi * torch.rand(3, 60, generator=generator)
    value = torch.sin((points @ waves.T)[..., None, :] + phase).mean(-1)
    return ((0.5 + 2 * value).clamp(0, 1) * 255).round().to(torch.uint8)


@dataclass
class Views:
    """What kinds of initialisation use of splat.data.Dataset."""

    cameras: list[Camera]
    points: Points | None = None
    silhouettes: list[torch.Tensor] | None = None
    offset: torch.Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))
    extent: float = 1.0
    scene: Any = field(default_factory=lambda: SimpleNamespace(root=Path("wall"), bounds=None))

    @property
    def train(self) -> list[int]:
        return list(range(len(self.cameras)))

    def camera(self, index: int) -> Camera:
        return self.cameras[index]

    def photo(self, index: int) -> Photo:
        return Photo(wall(self.cameras[index]))

    def silhouette(self, index: int) -> torch.Tensor | None:
        return None if self.silhouettes is None else self.silhouettes[index]

    def large(self, index: int, longest: int) -> tuple[Camera, torch.Tensor]:
        return self.cameras[index], wall(self.cameras[index])


def begun(
    dataset: Views, source: str = "auto", *, complete: bool = True, most: int = 100_000
) -> tuple[Points, list[str]]:
    said: list[str] = []
    init = InitConfig(source=source, count=200, complete=complete)  # type: ignore[arg-type]
    request = Request(dataset, init, most, torch.device("cpu"), torch.Generator().manual_seed(0))  # type: ignore[arg-type]
    return begin(request, said.append), said


def known(count: int = 120) -> Points:
    xyz = torch.rand(count, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 0.5
    xyz[:, 2] = 0
    return Points(xyz, torch.full((count, 3), 7, dtype=torch.uint8))


def test_few_views_begin_with_stereo_and_the_known_points():
    points, said = begun(Views(ring(3, 10, 96, 72), known()), complete=False)
    assert said == [f"begins with stereo, as 3 views are few: {len(points):,} points"]
    assert len(points) > 1000
    assert torch.equal(points.xyz[-120:], known().xyz)
    # Nine of ten are on the wall to what a pixel is worth between the outer views.
    camera, baseline = ring(1, 0, 96, 72)[0], 2 * DEPTH * math.sin(math.radians(10))
    pixel = DEPTH**2 / (camera.fx * baseline)
    assert (points.xyz[:, 2].abs() < pixel).float().mean() > 0.9


def test_what_no_two_views_show_is_guessed():
    """Beyond the pictures, in what one of them shows alone and behind everything; of an outlined object nothing but
    its inside."""
    cameras = ring(3, 10, 96, 72)
    measured, _ = begun(Views(cameras, known()), complete=False)
    points, _ = begun(Views(cameras, known()))
    guessed = points.xyz[len(measured) : -1000]
    middle = torch.stack([camera.position for camera in cameras]).mean(0)
    away = (points.xyz - middle).norm(dim=1)
    assert float(away[-1000:].min()) > float(away[:-1000].max())
    assert torch.equal(points.xyz[: len(measured)], measured.xyz)
    width = DEPTH * 96 / cameras[0].fx  # of a picture on the wall
    assert (guessed[:, 0].abs() > 0.6 * width).sum() > 100
    assert (guessed[:, 2].abs() < 0.1 * DEPTH).float().mean() > 0.9
    few, _ = begun(Views(cameras, known()), most=1000)
    assert len(few) == 1000
    assert 50 < (few.xyz[:-100, 0].abs() > 0.6 * width).sum() <= 100  # a tenth of all at most
    away = (few.xyz - middle).norm(dim=1)
    assert float(away[-100:].min()) > float(away[:-100].max())  # another tenth
    ball = balls(cameras, 0.6)
    inside, _ = begun(Views(cameras, known(), silhouettes=ball), "stereo")
    seen = torch.stack([torch.stack(pixels(camera, inside.xyz[len(measured) :])) for camera in cameras])
    column, row = seen[:, 0].long().clamp(0, 95), seen[:, 1].long().clamp(0, 71)
    assert torch.stack([ball[n][row[n], column[n]] for n in range(3)]).any(0).all()


def test_of_views_all_around_without_a_floor_nothing_is_guessed_but_what_lies_behind(
    monkeypatch: pytest.MonkeyPatch,
):
    """With six of them a guess of one hangs before the others; three need all that there is."""
    cameras = ring(6, 20, 96, 72)
    measured, _ = begun(Views(cameras, known()), complete=False)
    assert (
        len(begun(Views(cameras, known()))[0]) > len(measured) + 2000
    )  # these see a surface that bounds the scene
    monkeypatch.setattr("splat.training.begin.floor_of", lambda points, cameras: None)
    points, _ = begun(Views(cameras, known()))
    assert len(points) == len(measured) + 1000
    assert torch.equal(points.xyz[: len(measured)], measured.xyz)
    three = Views(cameras[::2], known())
    assert len(begun(three)[0]) > len(begun(three, complete=False)[0]) + 1000
    onward = Views(ring(6, 10, 96, 72), known())
    assert len(begun(onward)[0]) > len(begun(onward, complete=False)[0]) + 1000


def pixels(camera: Camera, xyz: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """u and v of world points before the camera."""
    pose = camera.world_to_camera.double()
    x, y, z = (xyz @ pose[:3, :3].T + pose[:3, 3]).unbind(1)
    return x / z * camera.fx + camera.cx, y / z * camera.fy + camera.cy


def test_many_views_and_small_pictures_begin_with_points():
    for cameras in (ring(13, 5, 96, 72), ring(3, 10, 64, 48)):
        points, said = begun(Views(cameras, known()))
        assert said == ["begins with points, as the dataset has points: 120 points"]
        assert torch.equal(points.xyz, known().xyz)


def test_the_points_of_a_depth_sensor_need_no_stereo():
    cameras = ring(3, 10, 96, 72)
    dense = known(3 * 96 * 72 // 20)
    _, said = begun(Views(cameras, dense))
    assert said == [f"begins with points, as the dataset has points: {len(dense):,} points"]


def test_what_gives_nothing_is_said_and_the_next_kind_tried():
    apart = ring(2, 170, 96, 72)  # both sides of the wall
    points, said = begun(Views(apart))
    assert said == [
        "stereo: only 0 points, too few to begin with",
        "matches: only 0 points, too few to begin with",
        "begins with random, as nothing else gives enough: 200 points",
    ]
    assert len(points) == 200
    _, said = begun(Views(apart, known(99)))  # of these a run would hardly grow
    assert said[1] == "points: only 99 points, too few to begin with"
    assert said[-1].startswith("begins with random")
    points, said = begun(Views(apart, known()))
    assert said[-1] == "begins with points, as the dataset has points: 120 points"


def test_what_is_asked_for_is_taken_or_refused():
    views = Views(ring(3, 10, 96, 72), known())
    points, said = begun(views, "points")
    assert torch.equal(points.xyz, known().xyz)
    assert said == ["begins with points, as asked: 120 points"]
    with pytest.raises(DataError, match=r"wall: has no transparency or masks .*; use --init.source random"):
        begun(views, "hull")
    with pytest.raises(DataError, match=r"wall: has pictures of 64x48 pixels, too small for stereo"):
        begun(replace(views, cameras=ring(3, 10, 64, 48)), "stereo")
    with pytest.raises(DataError, match="wall: gives no points by stereo"):
        begun(Views(ring(2, 170, 96, 72)), "stereo")


def balls(cameras: list[Camera], radius: float) -> list[torch.Tensor]:
    """Silhouettes of a ball around the origin: rays that pass it within the radius."""
    found = []
    for camera in cameras:
        x = (torch.arange(camera.width) + 0.5 - camera.cx) / camera.fx
        y = (torch.arange(camera.height) + 0.5 - camera.cy) / camera.fy
        rays = torch.ones(camera.height, camera.width, 3, dtype=torch.float64)
        rays[..., 0], rays[..., 1] = x, y[:, None]
        rays = rays / rays.norm(dim=-1, keepdim=True)
        middle = camera.world_to_camera[:3, 3]
        along = rays @ middle
        found.append((middle @ middle - along**2).sqrt() < radius)
    return found


def test_the_hull_of_a_ball():
    cameras = ring(8, 45, 160, 120)
    radius, cell = 0.6, 2.2 * 0.6 / 64
    red = torch.tensor([200, 10, 10], dtype=torch.uint8)
    images = [red.expand(120, 160, 3) for _ in cameras]
    hull = visual_hull(cameras, images, balls(cameras, radius), resolution=64)
    distance = hull.xyz.norm(dim=1)
    pixel = DEPTH / cameras[0].fx
    # The hull holds the ball: no surface cell lies deeper than its own diagonal, and a pixel, inside.
    assert distance.min() > radius - 2 * math.sqrt(3) * cell - pixel
    # Eight outlines leave an octagon around the equator: 1 / cos(22.5 degrees) of the radius at its corners.
    equator = hull.xyz[:, 1].abs() < 0.1
    assert distance[equator].max() < radius / math.cos(math.pi / 8) + 2 * cell + 2 * pixel
    assert (hull.rgb == red).all()
    assert hull.xyz.min() < -0.9 * radius
    assert hull.xyz.max() > 0.9 * radius


def test_a_hull_forgives_one_mask_of_many_and_none_of_few():
    for count, empty in ((12, False), (6, True)):
        cameras = ring(count, 360 / count, 160, 120)
        silhouettes = balls(cameras, 0.6)
        silhouettes[0] = torch.zeros_like(silhouettes[0])
        images = [torch.zeros(120, 160, 3, dtype=torch.uint8)] * count
        assert (len(visual_hull(cameras, images, silhouettes, resolution=32)) == 0) == empty


def test_objects_without_points_begin_with_their_hull():
    cameras = ring(4, 90, 160, 120)
    points, said = begun(Views(cameras, silhouettes=balls(cameras, 0.6)))
    assert said[-1].startswith("begins with hull, as 4 views are few and show the outline of an object")
    assert len(points) > 100


def test_features_that_match_give_points_on_the_wall():
    cameras = ring(3, 10, 240, 180)
    found = matched_points(cameras, [wall(camera).numpy() for camera in cameras])
    assert len(found) > 50
    pixel = DEPTH**2 / (cameras[0].fx * DEPTH * math.sin(math.radians(10)))
    assert (found.xyz[:, 2].abs() < pixel).float().mean() > 0.9
    seen = in_view(cameras[1], found.xyz)
    assert seen.float().mean() > 0.9


def test_random_points_lie_where_two_views_look():
    cameras = ring(3, 20, 96, 72)
    torch.testing.assert_close(focus(cameras), torch.zeros(3, dtype=torch.float64), atol=1e-6, rtol=0)
    xyz = shared_volume(cameras, 500, torch.Generator().manual_seed(0))
    assert xyz.shape == (500, 3)
    seen = torch.stack([in_view(camera, xyz) for camera in cameras]).sum(0)
    assert (seen >= 2).all()
    depth = (xyz - cameras[1].position).norm(dim=1)
    assert depth.min() < 0.5 * DEPTH
    assert depth.max() > 2 * DEPTH


def test_views_that_share_nothing_fill_their_own_pictures():
    cameras = ring(2, 10, 96, 72)
    pose = torch.diag(torch.tensor([-1.0, 1, -1, 1], dtype=torch.float64)) @ cameras[1].world_to_camera
    away = [cameras[0], cameras[1].with_pose(pose)]
    xyz = shared_volume(away, 100, torch.Generator().manual_seed(0))
    assert torch.stack([in_view(camera, xyz) for camera in away]).any(0).all()
