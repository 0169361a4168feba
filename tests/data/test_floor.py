"""The floor under what cameras stand around: where it is, where it is seen, what may lie above it."""

from __future__ import annotations

import math

import pytest
import torch

from splat.core import Camera
from splat.data.stereo import DepthMap, StereoView, complete
from splat.data.stereo.floor import all_around, bounding_plane, floor_of, on_floor, paved
from splat.data.stereo.views import pixel_rays, projected

UP = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)
WIDTH, HEIGHT = 60, 45


def standing(degrees: float, target: tuple[float, float, float] = (0.0, 0.0, 0.4)) -> Camera:
    angle = math.radians(degrees)
    place = torch.tensor([3 * math.cos(angle), 3 * math.sin(angle), 1.5], dtype=torch.float64)
    return Camera.look_at(
        place,
        torch.tensor(target, dtype=torch.float64),
        UP,
        width=WIDTH,
        height=HEIGHT,
        field_of_view=math.radians(50),
    )


AROUND = [standing(degrees) for degrees in (0, 120, 240)]


def points() -> torch.Tensor:
    """A floor at z = 0 with a body of as many points on it, and a few wrong ones below."""
    generator = torch.Generator().manual_seed(1)
    ground, body, wrong = (torch.rand(count, 3, generator=generator).double() for count in (300, 300, 10))
    ground = (ground * 2 - 1) * torch.tensor([1.5, 1.5, 0.0]) + 0.002 * (body - 0.5)
    return torch.cat([ground, body * 0.8, wrong * torch.tensor([1, 1, -1])])


def ground_colours(camera: Camera) -> torch.Tensor:
    """[H, W, 3] a floor whose colours change slowly, seen by the camera; black where there is none."""
    rays = pixel_rays(camera).double() @ camera.camera_to_world[:3, :3].double().T
    reach = -camera.position.double()[2] / rays[..., 2]
    place = camera.position.double() + reach[..., None] * rays
    colours = 0.5 + 0.3 * torch.stack(
        [torch.sin(place[..., 0]), torch.cos(place[..., 1]), torch.sin(place[..., 1])], -1
    )
    return torch.where((reach > 0)[..., None], colours, 0.0).float()


def nothing() -> DepthMap:
    return DepthMap(torch.zeros(HEIGHT, WIDTH), torch.zeros(HEIGHT, WIDTH))


def test_a_floor_is_found_where_cameras_stand_around_something():
    floor = floor_of(points(), AROUND)
    assert floor is not None
    torch.testing.assert_close(floor.plane.normal, UP, rtol=0, atol=5e-3)
    assert floor.plane.offset == pytest.approx(0, abs=5e-3)
    torch.testing.assert_close(floor.focus, torch.tensor([0.0, 0, 0.4]).double(), rtol=0, atol=1e-6)
    assert floor.nearest == pytest.approx(math.hypot(3, 1.1))
    assert floor.farthest == pytest.approx(math.hypot(3, 1.1))


def test_without_a_ring_or_a_plane_there_is_no_floor():
    assert not all_around([AROUND[0], standing(40)])
    assert floor_of(points(), [standing(0), standing(40)]) is None  # they look one way
    outwards = [
        standing(d, (6 * math.cos(math.radians(d)), 6 * math.sin(math.radians(d)), 1.0)) for d in (0, 180)
    ]
    assert all_around(outwards)
    assert floor_of(points(), outwards) is None  # of a room: they look at no one place
    assert floor_of(points()[300:], AROUND) is None  # no plane holds enough of the points
    assert floor_of(points()[:2], AROUND) is None


def test_what_has_much_behind_it_bounds_nothing():
    """The same plane of points, with a tenth of all below it."""
    below = torch.rand(70, 3).double() * torch.tensor([1, 1, -1]) - torch.tensor([0, 0, 0.2])
    places = torch.stack([camera.position.double() for camera in AROUND])
    found = bounding_plane(torch.cat([points(), below]), places)
    assert found is None or float(found.normal @ UP) < 0.95


def test_the_floor_is_seen_where_colours_agree_and_nothing_hides_it():
    floor = floor_of(points(), AROUND)
    views = [StereoView(camera, ground_colours(camera)) for camera in AROUND]
    depth = on_floor(views[0], [(views[1], nothing())], floor)
    truth = floor.depth(AROUND[0])
    assert (depth > 0).float().mean() > 0.3
    torch.testing.assert_close(depth[depth > 0], truth[depth > 0])
    other = StereoView(AROUND[1], 1 - views[1].image)  # in other colours it is something else
    assert (on_floor(views[0], [(other, nothing())], floor) > 0).float().mean() < 0.1
    hidden = DepthMap(torch.ones(HEIGHT, WIDTH), torch.ones(HEIGHT, WIDTH))
    assert not on_floor(views[0], [(views[1], hidden)], floor).any()
    masked = StereoView(AROUND[0], views[0].image, torch.zeros(HEIGHT, WIDTH, dtype=torch.bool))
    assert not on_floor(masked, [(views[1], nothing())], floor).any()


def test_guesses_lie_neither_below_the_floor_nor_where_cameras_stand():
    floor = floor_of(points(), AROUND)
    views = [StereoView(camera, ground_colours(camera)) for camera in AROUND]
    told = torch.zeros(HEIGHT, WIDTH)
    told[20:24, 28:32] = 2.5  # something near the middle
    found = complete(views, [DepthMap(told, (told > 0).float()) for _ in views], floor=floor)
    tolerance = 1e-4 * floor.farthest
    for part in (found.inside, found.beyond, found.behind, found.below):
        assert len(part)
        assert float(floor.plane.height(part.xyz).min()) > -tolerance
    for part in (found.inside, found.beyond):
        assert not floor.free(part.xyz).any()


def test_a_floor_is_paved_where_nothing_shown_lies_on_it():
    """In the colour next to it, and not where a picture shows it closer than the stones lie."""
    floor, camera = floor_of(points(), AROUND), AROUND[0].resized(4 * WIDTH, 4 * HEIGHT)
    view = StereoView(camera, torch.full((4 * HEIGHT, 4 * WIDTH, 3), 0.25))
    xyz, colours = paved([view], [floor.depth(camera).clamp(max=20.0)], floor)
    assert len(xyz) > 100
    torch.testing.assert_close(colours, torch.full_like(colours, 0.25))
    assert float(floor.plane.height(xyz).abs().max()) < 1e-5
    pixel, z = projected(camera, xyz)
    shown = (
        (z > 0)
        & (z < 3)
        & (pixel[:, 0] > 20)
        & (pixel[:, 0] < 4 * WIDTH - 20)
        & (pixel[:, 1] < 4 * HEIGHT - 20)
    )
    assert not shown.any()
    assert not len(paved([view], [torch.full((4 * HEIGHT, 4 * WIDTH), 0.5)], floor)[0])  # nothing lies on it
