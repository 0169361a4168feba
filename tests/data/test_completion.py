"""What stereo leaves open: planes go on as planes, guesses contradict no view, and edges of pictures are passed."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from splat.core import Camera
from splat.data.scene import Points, Tracks
from splat.data.stereo import CompletionOptions, DepthMap, StereoView, complete
from splat.data.stereo.backdrop import backdrop
from splat.data.stereo.completion import anchored, completed
from splat.data.stereo.reconstruct import supported
from splat.data.stereo.views import pixel_rays

WIDTH, HEIGHT = 48, 36
NORMAL = torch.tensor([math.sin(0.5), 0.0, -math.cos(0.5)])
CENTRE = torch.tensor([0.0, 0.0, 4.0])


def looking(x: float) -> Camera:
    return Camera.look_at(
        torch.tensor([x, 0.0, 0.0], dtype=torch.float64),
        CENTRE.double(),
        torch.tensor([0.0, -1.0, 0.0], dtype=torch.float64),
        width=WIDTH,
        height=HEIGHT,
        field_of_view=math.radians(40),
    )


def grey(camera: Camera, value: float = 0.5) -> StereoView:
    return StereoView(camera, torch.full((camera.height, camera.width, 3), value))


def truth(camera: Camera) -> torch.Tensor:
    """[H, W] depth of the plane through CENTRE."""
    rays = pixel_rays(camera) @ camera.camera_to_world[:3, :3].float().T
    return (CENTRE - camera.position.float()) @ NORMAL / (rays @ NORMAL)


def seen_from(camera: Camera, xyz: torch.Tensor) -> list[torch.Tensor]:
    """u, v and camera z of world points."""
    pose = camera.world_to_camera.double()
    x, y, z = (xyz @ pose[:3, :3].T + pose[:3, 3]).unbind(1)
    return [x / z * camera.fx + camera.cx, y / z * camera.fy + camera.cy, z]


def known(depth: torch.Tensor) -> DepthMap:
    return DepthMap(depth, (depth > 0).float())


def test_a_plane_goes_on_as_a_plane():
    """Without tension to rounding; the tension of the default pulls a hole flatter by less than 1%."""
    view = grey(looking(0.0))
    depth = truth(view.camera)
    hidden = depth.clone()
    hidden[10:26, 14:34] = 0
    hidden[:, :4] = 0
    exact = completed(view, known(hidden), CompletionOptions(tension=0.0))
    inner = slice(4, None)  # the other strip lies beyond the range of the known depths, which bounds it
    torch.testing.assert_close(exact[:, inner], depth[:, inner], rtol=1e-4, atol=0)
    usual = completed(view, known(hidden), CompletionOptions())
    assert torch.equal(usual[hidden > 0], depth[hidden > 0])
    assert float((usual / depth - 1).abs()[10:26, 14:34].max()) < 0.01


def test_depth_jumps_where_the_photograph_has_an_edge():
    """Left near, right far, known in a frame only: the jump comes where the colour changes, not half-way."""
    camera = looking(0.0)
    image = torch.zeros(HEIGHT, WIDTH, 3)
    image[:, 30:] = 1
    depth = torch.full((HEIGHT, WIDTH), 2.0)
    depth[:, 30:] = 4
    hidden = depth.clone()
    hidden[6:-6, 6:-6] = 0
    found = completed(StereoView(camera, image), known(hidden), CompletionOptions())
    right = (found - depth).abs() / depth < 0.1
    assert float(right.float().mean()) > 0.9
    blind = completed(grey(camera), known(hidden), CompletionOptions())
    assert float(((blind - depth).abs() / depth < 0.1).float().mean()) < 0.9


def test_large_pictures_are_completed_on_a_coarser_grid():
    camera = looking(0.0).resized(400, 400)  # 200x200 at most: cells of 2x2
    depth = truth(camera)
    hidden = depth.clone()
    hidden[100:260, 140:340] = 0
    found = completed(grey(camera), known(hidden), CompletionOptions(tension=0.0))
    torch.testing.assert_close(found, depth, rtol=1e-3, atol=0)


def test_guesses_contradict_no_other_view():
    """The first view knows nothing of its middle and guesses the wall; the second has seen past that wall there."""
    cameras = looking(-0.4), looking(0.4)
    views = [grey(camera, 0.25 + 0.5 * n) for n, camera in enumerate(cameras)]
    depths = [truth(camera) for camera in cameras]
    depths[0][12:24, 18:30] = 0
    options = CompletionOptions(margin=0.0)
    agreed = complete(views, [known(d) for d in depths], options=options).inside
    assert len(agreed) == 12 * 12
    assert set(agreed.rgb.flatten().tolist()) == {64}
    height = (agreed.xyz.float() - CENTRE) @ NORMAL
    assert float(height.abs().max()) < 0.02
    assert len(complete(views, [known(depths[0]), known(2 * depths[1])], options=options).inside) == 0
    hidden = complete(views, [known(depths[0]), known(depths[1] / 2)], options=options).inside
    assert len(hidden) == 12 * 12  # behind what the second view shows: no contradiction


def test_a_view_without_a_partner_rests_on_the_points_that_it_sees():
    """Of two points on one pixel the nearer; those that only others see say nothing."""
    camera = looking(0.0)
    depth = truth(camera)
    to_world = camera.camera_to_world
    chosen = torch.zeros_like(depth, dtype=torch.bool)
    chosen[2::6, 2::6] = True
    xyz = (pixel_rays(camera) * depth[..., None])[chosen].double() @ to_world[:3, :3].T + to_world[:3, 3]
    behind = camera.position + 2 * (xyz - camera.position)
    wrong = camera.position + 0.5 * (xyz - camera.position)
    count = len(xyz)
    tracks = Tracks(torch.arange(3 * count + 1), torch.arange(3).repeat_interleave(count).clamp(1) - 1)
    points = Points(
        torch.cat([xyz, behind, wrong]), torch.zeros(3 * count, 3, dtype=torch.uint8), tracks=tracks
    )
    nothing = known(torch.zeros_like(depth))
    found = anchored(grey(camera), nothing, points, 0).depth
    torch.testing.assert_close(found, torch.where(chosen, depth, 0.0))
    options = CompletionOptions(margin=0.0)
    assert len(complete([grey(camera)], [nothing], options=options).inside) == 0
    inside = complete([grey(camera)], [nothing], points, options).inside
    assert len(inside) == WIDTH * HEIGHT - count
    height = (inside.xyz.float() - CENTRE) @ NORMAL
    assert float(height.abs().mean()) < 0.02


def test_what_is_behind_everything_has_the_colours_of_its_direction():
    """Left dark, right bright, on a sphere; near pixels count for less than far ones."""
    camera = looking(0.0)
    image = torch.zeros(HEIGHT, WIDTH, 3)
    image[:, WIDTH // 2 :] = 1
    found = backdrop([StereoView(camera, image)], [torch.full((HEIGHT, WIDTH), 4.0)], 1000)
    place = found.xyz - camera.position
    radius = place.norm(dim=1)
    torch.testing.assert_close(radius, radius[:1].expand(1000))
    assert 8.0 < float(radius[0]) < 10.0  # twice as far as the corners
    u, v, z = seen_from(camera, found.xyz)
    shown, quarter = (
        (z > 0) & (v > 0) & (v < HEIGHT),
        WIDTH / 4,
    )  # the colours mix across the edge in the middle
    left, right = (shown & side for side in ((u > 0) & (u < quarter), (u > 3 * quarter) & (u < WIDTH)))
    assert int(left.sum()) > 3 < int(right.sum())
    red = found.rgb[:, 0].float()
    assert float(red[left].mean()) < 64 < 192 < float(red[right].mean())
    depth = torch.full((HEIGHT, WIDTH), 4.0)
    depth[:, WIDTH // 2 :] = 1.0
    nearer = backdrop([StereoView(camera, image)], [depth], 1000).rgb[:, 0].float()
    assert float(nearer[z < 0].mean()) < 0.6 * float(red[z < 0].mean())


def test_masked_pixels_stay_empty():
    view = grey(looking(0.0))
    depth = truth(view.camera)
    depth[12:24] = 0
    mask = torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    mask[12:20] = False
    found = complete(
        [replace(view, mask=mask)], [known(depth)], options=CompletionOptions(margin=0.0, directions=0)
    )
    assert len(found.behind) == 0
    assert len(found.inside) == 4 * WIDTH
    assert len(found.beyond) == 0


def test_pictures_go_on_beyond_their_edges_where_no_view_sees():
    """Half the size on each side, in the colours of the edge, on the wall; not into what another view shows."""
    camera = looking(0.0)
    depth = torch.full((HEIGHT, WIDTH), 4.0)
    image = torch.zeros(HEIGHT, WIDTH, 3)
    image[:, WIDTH // 2 :] = 1
    options = CompletionOptions(coarse=24)  # a point for every other pixel
    found = complete([StereoView(camera, image)], [known(depth)], options=options).beyond
    assert len(found) == 4 * (18 * 24) - 18 * 24
    u, v, z = seen_from(camera, found.xyz)
    torch.testing.assert_close(z, torch.full_like(z, 4), rtol=1e-4, atol=0)
    assert not bool(((u > 0) & (u < WIDTH) & (v > 0) & (v < HEIGHT)).any())
    assert float(u.min()) == pytest.approx(-WIDTH / 2 + 1, abs=1e-3)
    assert float(v.max()) == pytest.approx(1.5 * HEIGHT - 1, abs=1e-3)
    left, right = (found.rgb[side].float().mean() for side in (u < 0, u > WIDTH))
    assert float(left) < 64
    assert float(right) > 192
    wider = camera.resized(2 * WIDTH, 2 * HEIGHT)  # the same place, a picture of twice the field
    wide = replace(wider, fx=camera.fx, fy=camera.fy)
    both = complete(
        [StereoView(camera, image), grey(wide)], [known(depth), known(depth.new_full((72, 96), 4))]
    )
    u, v, _ = seen_from(wide, both.beyond.xyz)
    assert not bool(((u > 0.01) & (u < 2 * WIDTH - 0.01) & (v > 0.01) & (v < 2 * HEIGHT - 0.01)).any())


def test_views_without_depth_say_nothing():
    view = grey(looking(0.0))
    found = complete([view], [known(torch.zeros(HEIGHT, WIDTH))])
    assert len(found.inside) == len(found.beyond) == 0


def test_depths_that_stand_alone_are_not_supported():
    depth = torch.full((9, 11), 2.0)
    depth[4, 5] = 2.1
    depth[0, 0] = 0
    share = supported(depth, 0.02)
    assert share[4, 5] == pytest.approx(1 / 25)
    assert share[4, 1] == pytest.approx(1)  # windows end at the border
    assert share[0, 0] == 0
    assert share[1, 1] == pytest.approx(15 / 16)
