"""Plane-sweep stereo: on a slanted plane whose depth is known everywhere, in its parts, and on the sample scene."""

from __future__ import annotations

import dataclasses
import math
from itertools import pairwise

import pytest
import torch
from torch.nn import functional

from splat.core import Camera
from splat.data import Points
from splat.data.sample import render_sample, sample_cameras
from splat.data.sample_scene import build_world
from splat.data.stereo import DepthMap, StereoOptions, StereoView, planes, reconstruct
from splat.data.stereo.aggregate import semi_global
from splat.data.stereo.consistency import agreement
from splat.data.stereo.cost import matching_cost
from splat.data.stereo.fusion import fuse, without_outliers
from splat.data.stereo.refine import Comparison, RefineOptions, refine
from splat.data.stereo.sweep import SweepOptions, sweep
from splat.data.stereo.views import grey, pixel_rays, world_points

WIDTH, HEIGHT = 96, 72
NORMAL = torch.tensor([math.sin(0.7), 0.0, -math.cos(0.7)])  # turned by 40 degrees about the vertical axis
CENTRE = torch.tensor([0.0, 0.0, 4.0])
BASELINE = 0.5


def truth(camera: Camera) -> torch.Tensor:
    """[H, W] depth of the plane."""
    rays = pixel_rays(camera) @ camera.camera_to_world[:3, :3].float().T
    to_plane = (CENTRE - camera.position.float()) @ NORMAL
    return to_plane / (rays @ NORMAL)


def pictured(camera: Camera) -> StereoView:
    """The plane with a pattern that no picture undersamples: waves in space, of 5 to 25 pixels."""
    points = world_points(camera, truth(camera))
    generator = torch.Generator().manual_seed(0)
    waves = torch.randn(40, 3, generator=generator)
    waves = waves / waves.norm(dim=1, keepdim=True) * (6 + 24 * torch.rand(40, 1, generator=generator))
    phase = 2 * math.pi * torch.rand(3, 40, generator=generator)
    value = torch.sin((points @ waves.T)[..., None, :] + phase).mean(-1)
    return StereoView(camera, (0.5 + 1.5 * value).clamp(0, 1))


@pytest.fixture(scope="module")
def rig() -> list[StereoView]:
    """Three pictures of the plane, from left to right."""
    views = []
    for x in (-BASELINE, 0.0, BASELINE):
        place = torch.tensor([x, 0.1 * x, 0.0], dtype=torch.float64)
        up = torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64)
        camera = Camera.look_at(
            place, CENTRE.double(), up, width=WIDTH, height=HEIGHT, field_of_view=math.radians(50)
        )
        views.append(pictured(camera))
    return views


def inner(values: torch.Tensor, border: int = 12) -> torch.Tensor:
    """Without the border, whose windows and matches leave the other pictures."""
    return values[border:-border, border:-border]


def hypotheses(rig: list[StereoView]) -> torch.Tensor:
    """Planes a pixel apart, over twice the range of depths that there is."""
    depth = truth(rig[1].camera)
    others = [rig[0].camera, rig[2].camera]
    return planes.inverse_depths(
        rig[1].camera, others, float(depth.min()) / 1.4, float(depth.max()) * 1.4, step=1.0, most=256
    )


def test_planes_are_as_far_apart_as_asked(rig):
    """Between neighbours the pictures move by at most a pixel for nine rays of ten, and by half of it somewhere."""
    inverse = hypotheses(rig)
    rays = pixel_rays(rig[1].camera).reshape(-1, 3)
    to_other = (rig[2].camera.world_to_camera @ rig[1].camera.camera_to_world).float()
    matrix = rig[2].camera.matrix.float()
    moved = []
    pixels = [
        (p := (rays / q @ to_other[:3, :3].T + to_other[:3, 3]) @ matrix.T)[:, :2] / p[:, 2:] for q in inverse
    ]
    for before, after in pairwise(pixels):
        moved.append((after - before).norm(dim=1))
    moved = torch.stack(moved)
    assert torch.quantile(moved, 0.9) <= 1.0
    assert moved.max() >= 0.5
    steps = inverse.diff()
    torch.testing.assert_close(steps, steps.mean().expand_as(steps), rtol=1e-3, atol=0)


def test_the_cost_is_least_at_the_true_depth(rig):
    inverse = hypotheses(rig)
    luma = grey([rig[1], rig[0], rig[2]])
    cost = matching_cost(rig[1], [rig[0], rig[2]], luma, inverse, radius=2, best=2)
    assert cost.shape == (len(inverse), HEIGHT, WIDTH)
    assert cost.min() >= 0
    assert cost.max() <= 1
    off = inverse[cost.argmin(0)] - 1 / truth(rig[1].camera)
    # A window of 5 pixels on a surface turned by 40 degrees spans under one plane to each side.
    assert (inner(off).abs() <= 1.5 * float(inverse[1] - inverse[0])).float().mean() > 0.9


def test_other_brightness_and_contrast_change_nothing(rig):
    dim = dataclasses.replace(rig[2], image=0.1 + 0.5 * rig[2].image)
    inverse = hypotheses(rig)
    for other in (rig[2], dim):
        cost = matching_cost(rig[1], [other], grey([rig[1], other]), inverse, radius=2, best=1)
        if other is rig[2]:
            plain = cost.argmin(0)
    # Half the contrast brings the noise floor of the correlation four times as near: ties may fall otherwise.
    assert ((inner(plain) - inner(cost.argmin(0))).abs() <= 1).float().mean() > 0.98


def test_sweeping_finds_the_plane_to_its_spacing(rig):
    inverse = hypotheses(rig)
    found = sweep(rig[1], [rig[0], rig[2]], inverse, SweepOptions())
    off = 1 / found.depth - 1 / truth(rig[1].camera)
    assert (inner(off).abs() <= float(inverse[1] - inverse[0])).float().mean() > 0.95
    assert inner(found.confidence).mean() > 0.8


def test_slanted_windows_find_depth_and_slope(rig):
    """From a start that is off by up to two planes, to a quarter of a pixel, and the slope of the plane."""
    view, others = rig[1], [rig[0], rig[2]]
    inverse = hypotheses(rig)
    spacing = float(inverse[1] - inverse[0])
    exact = 1 / truth(view.camera)
    generator = torch.Generator().manual_seed(1)
    start = exact + 2 * spacing * (2 * torch.rand(exact.shape, generator=generator) - 1)
    options = RefineOptions(iterations=3)
    compare = Comparison(view, others, grey([view, *others]), options, best=2)
    found, cost = refine(view, compare, start, (float(inverse[0]), float(inverse[-1])), 2 * spacing, options)
    assert (inner(found.inverse - exact).abs() <= 0.25 * spacing).float().mean() > 0.95
    slope = torch.gradient(exact)[1]
    # Across the window, 3 pixels to each side, a wrong slope may move the ends by a quarter of a pixel.
    assert (inner(found.right - slope).abs() <= 0.25 * spacing / 3).float().mean() > 0.9
    assert inner(cost).median() < inner(compare_flat(compare, exact)).median()


def compare_flat(compare: Comparison, exact: torch.Tensor) -> torch.Tensor:
    from splat.data.stereo.refine import Planes

    return compare(Planes(exact, torch.zeros_like(exact), torch.zeros_like(exact)))


def brute_force(
    cost: torch.Tensor, luma: torch.Tensor, small: float, large: float, edge: float
) -> torch.Tensor:
    """The recurrence of Hirschmueller (2008), equation 13, from left to right along one row: [D, W]."""
    depth, width = cost.shape
    out = cost.clone()
    for x in range(1, width):
        jump = max(small, large / (1 + abs(float(luma[x] - luma[x - 1])) / edge))
        least = float(out[:, x - 1].min())
        for d in range(depth):
            options = [float(out[d, x - 1]), least + jump]
            options += [float(out[n, x - 1]) + small for n in (d - 1, d + 1) if 0 <= n < depth]
            out[d, x] = cost[d, x] + min(options) - least
    return out


def test_aggregation_follows_its_recurrence():
    generator = torch.Generator().manual_seed(0)
    cost, luma = torch.rand(7, 1, 12, generator=generator), torch.rand(1, 12, generator=generator)
    settings = {"small": 0.05, "large": 0.4, "edge": 0.1}
    right = brute_force(cost[:, 0], luma[0], **settings)
    left = brute_force(cost[:, 0].flip(1), luma[0].flip(0), **settings).flip(1)
    expected = (
        right + left + 2 * cost[:, 0]
    ) / 4  # along a single row the vertical paths are the cost itself
    found = semi_global(cost, luma, directions=4, **settings)
    torch.testing.assert_close(found[:, 0], expected)
    both = semi_global(cost.transpose(1, 2), luma.T, directions=4, **settings)
    torch.testing.assert_close(both[:, :, 0], expected)


def test_diagonal_paths_pass_a_depth_on():
    """One pixel knows its depth, the others nothing: after 8 paths those on its rows, columns, diagonals know it."""
    cost = torch.full((5, 9, 9), 0.5)
    cost[3, 4, 4] = 0.0
    found = semi_global(cost, torch.zeros(9, 9), small=0.1, large=0.4, edge=0.1).argmin(0)
    assert found[0, 0] == found[8, 0] == found[4, 0] == found[0, 4] == found[4, 4] == 3


def maps(rig: list[StereoView]) -> list[DepthMap]:
    return [DepthMap(truth(view.camera), torch.ones(HEIGHT, WIDTH)) for view in rig]


def test_true_depths_confirm_each_other_and_wrong_ones_do_not(rig):
    left, middle = maps(rig)[:2]
    said = agreement(rig[1], middle, rig[0], left, pixels=0.5, relative=0.01)
    assert inner(said.agrees).all()
    torch.testing.assert_close(
        inner(said.points), inner(world_points(rig[1].camera, middle.depth)), atol=1e-2, rtol=0
    )
    nearer = DepthMap(0.9 * middle.depth, middle.confidence)
    assert not agreement(rig[1], nearer, rig[0], left, pixels=0.5, relative=0.01).agrees.any()
    unknown = DepthMap(torch.zeros_like(left.depth), left.confidence)
    assert not agreement(rig[1], middle, rig[0], unknown, pixels=0.5, relative=0.01).agrees.any()


def test_fusion_takes_each_place_once(rig):
    depths = maps(rig)
    agreed = [
        {
            other: agreement(rig[i], depths[i], rig[other], depths[other], pixels=0.6, relative=0.01)
            for other in range(3)
            if other != i
        }
        for i in range(3)
    ]
    cloud = fuse(rig, depths, agreed)
    assert ((cloud.xyz.float() - CENTRE) @ NORMAL).abs().max() < 1e-2  # depth is interpolated between pixels
    assert HEIGHT * WIDTH < len(cloud) < 2 * HEIGHT * WIDTH
    first = cloud.tracks.of(WIDTH * HEIGHT // 2 + WIDTH // 2).tolist()
    assert first == [0, 1, 2]  # the middle of the first view is seen by all
    own = (rig[0].image.reshape(-1, 3) * 255).round()
    assert (cloud.rgb[: HEIGHT * WIDTH].float() - own).abs().median() < 8


def test_lonely_points_leave_the_cloud():
    grid = torch.cartesian_prod(torch.arange(12.0), torch.arange(12.0), torch.zeros(1))
    xyz = torch.cat([grid, torch.tensor([[5.0, 5, 40], [-30, 0, 0]])]).double()
    kept = without_outliers(Points(xyz, torch.zeros(len(xyz), 3, dtype=torch.uint8)), 2.0)
    assert torch.equal(kept.xyz, grid.double())


def test_partners_overlap_and_stand_apart():
    """Of cameras on a circle that look at its middle the near ones are taken; one that looks away is not."""
    cameras = sample_cameras(16, 160, 120)
    chosen = planes.sources(0, cameras, (2.0, 8.0), 4)
    assert set(chosen) == {1, 2, 14, 15}
    pose = cameras[1].world_to_camera.clone()
    pose[:3] = torch.diag(torch.tensor([-1.0, 1, -1], dtype=pose.dtype)) @ pose[:3]  # turned around
    away = [cameras[0], cameras[1].with_pose(pose)]
    assert planes.sources(0, away, (2.0, 8.0), 4) == []
    same = [cameras[0], cameras[0]]
    assert planes.sources(0, same, (2.0, 8.0), 4) == []  # no parallax


def test_views_without_overlap_give_no_points(rig):
    pose = torch.diag(torch.tensor([-1.0, 1, -1, 1], dtype=torch.float64)) @ rig[2].camera.world_to_camera
    away = dataclasses.replace(rig[2], camera=rig[2].camera.with_pose(pose))
    found = reconstruct([rig[0], away])
    assert found.partners == [[], []]
    assert len(found.points) == 0


@pytest.fixture(scope="module")
def shown():
    """Three views of the sample scene 15 degrees apart, their true depths, and where they see no mirror."""
    world = build_world(0)
    mirrors = torch.tensor([body.mirror > 0.1 for body in world.bodies])
    views, depths, plain = [], [], []
    for camera in sample_cameras(24, 160, 120)[3:6]:
        seen = render_sample(world, camera)
        views.append(StereoView(camera, torch.from_numpy(seen.image).float() / 255))
        depths.append(torch.from_numpy(seen.depth))
        directions = (pixel_rays(camera).double() @ camera.world_to_camera[:3, :3]).reshape(-1, 3)
        directions = directions / directions.norm(dim=1, keepdim=True)
        origins = camera.position.expand_as(directions)
        _, body = world.hit(origins.numpy(), directions.numpy())
        plain.append(~mirrors[torch.from_numpy(body)].reshape(120, 160))
    return views, depths, plain


@pytest.mark.parametrize("known", [True, False])
def test_the_sample_scene_is_found(shown, known):
    """Confirmed depths are right to what a pixel of disparity is worth, with and without points to bound them.

    Not counted: the mirrors, whose pictures lie elsewhere, and silhouettes, where a window of 7 pixels sees both the
    near and the far side.
    """
    views, depths, plain = shown
    points = world_points(views[1].camera, depths[1])[::7, ::7].reshape(-1, 3) if known else None
    found = reconstruct(views, points, StereoOptions())
    camera = views[1].camera
    baseline = max(float((view.camera.position - camera.position).norm()) for view in views)
    covered, right = [], []
    for depth, exact, counts in zip(found.depths, depths, plain, strict=True):
        farthest = functional.max_pool2d(exact[None], 7, 1, 3)[0]
        nearest = -functional.max_pool2d(-exact[None], 7, 1, 3)[0]
        there = (depth.depth > 0) & counts & (farthest < 1.25 * nearest)
        pixel = exact**2 / (camera.fx * baseline)
        covered.append(there.float().mean())
        right.append(((depth.depth - exact).abs() <= pixel)[there].float().mean())
    assert sum(covered) / 3 > 0.3
    assert sum(right) / 3 > 0.8
    # Views that share most of what they see give more points than one of them confirms, and fewer than all.
    confirmed = [int((depth.depth > 0).sum()) for depth in found.depths]
    assert max(confirmed) * 0.9 < len(found.points) < sum(confirmed)
