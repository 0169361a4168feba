"""Pictures drawn on the server, on scenes whose depth, normals and errors are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from splat.core import Camera, Gaussians
from splat.core.sh import from_rgb
from splat.viewer import modes
from splat.viewer.colours import stretched, to_bytes, turbo
from splat.viewer.modes import MODES, Scene, depth_normals
from splat.viewer.photos import seen_from


def camera(width: int = 64, height: int = 48, turn: float = 0.0) -> Camera:
    """At the origin, looking along +z, turned about the vertical."""
    pose = torch.eye(4)
    c, s = math.cos(turn), math.sin(turn)
    pose[:3, :3] = torch.tensor([[c, 0, -s], [0, 1, 0], [s, 0, c]])
    focal = width * 60 / 64
    return Camera(width, height, focal, focal, width / 2, height / 2, pose)


def wall(normal: tuple[float, float, float], rgb: tuple[float, float, float] = (0.8, 0.4, 0.2)) -> Gaussians:
    """A plane of flat, opaque, overlapping Gaussians through (0, 0, 4) that fills the picture."""
    n = torch.nn.functional.normalize(torch.tensor(normal), dim=0)
    side = torch.linalg.cross(n, torch.tensor([0.0, 1.0, 0.0]))
    side = side / side.norm()
    rotation = torch.stack([side, torch.linalg.cross(n, side), n], 1)
    u, v = torch.meshgrid(torch.arange(-30, 31) * 0.2, torch.arange(-30, 31) * 0.2, indexing="ij")
    means = torch.stack([u.flatten(), v.flatten(), torch.zeros(u.numel())], 1) @ rotation.T
    means = means + torch.tensor([0.0, 0.0, 4.0])
    from splat.core.rotations import matrix_to_quat

    count = len(means)
    return Gaussians(
        means=means,
        quats=matrix_to_quat(rotation).expand(count, 4).clone(),
        log_scales=torch.tensor([0.15, 0.15, 1e-4]).log().expand(count, 3).clone(),
        logit_opacities=torch.full((count,), 3.0),
        sh=from_rgb(torch.tensor(rgb)).expand(count, 1, 3).clone(),
    )


@pytest.mark.parametrize("normal", [(0.0, 0.0, -1.0), (0.5, 0.0, -1.0), (0.0, -0.4, -1.0), (-0.3, 0.3, -1.0)])
def test_normals_of_a_plane(normal: tuple[float, float, float]) -> None:
    """Red looks right, green up, blue towards the camera; OpenCV's y and z point down and away."""
    view = camera()
    output = Scene(wall(normal), 0).render(view, "depth")
    found = depth_normals(output.depth, view)[8:-8, 8:-8].reshape(-1, 3)
    mean = torch.nn.functional.normalize(found.mean(0), dim=0)
    expected = torch.nn.functional.normalize(torch.tensor([normal[0], -normal[1], -normal[2]]), dim=0)
    # The depth of overlapping flat Gaussians is a blend of those in front: it ripples, and its mean is the plane.
    assert float(mean @ expected) > math.cos(math.radians(5))


def test_normals_of_an_exact_depth_map() -> None:
    """z = 1 / (a x + b y + c) over the picture plane is a plane: its normals are (a, b, c) everywhere."""
    view = camera()
    y, x = torch.meshgrid(torch.arange(48) + 0.5, torch.arange(64) + 0.5, indexing="ij")
    a, b, c = 0.1, -0.05, 0.25
    depth = 1 / (a * (x - 32) / 60 + b * (y - 24) / 60 + c)
    expected = torch.nn.functional.normalize(torch.tensor([-a, b, c]), dim=0)
    assert torch.allclose(depth_normals(depth, view), expected.expand(48, 64, 3), atol=2e-3)


def test_depth_is_red_near_and_blue_far() -> None:
    near, far = wall((0.0, 0.0, -1.0)), wall((0.0, 0.0, -1.0))
    near.means = near.means * torch.tensor([1.0, 1.0, 0.5])  # at 2
    near = near.select(near.means[:, 0] < 0)  # the left half of the picture
    picture = modes.depth(Scene(Gaussians.cat([near, far]), 0), camera())
    left, right = picture[24, 12], picture[24, 52]
    assert left[0] > left[2] + 0.3
    assert right.max() < 0.3  # turbo begins almost black


def test_alpha_and_the_background() -> None:
    empty = wall((0.0, 0.0, -1.0)).select(torch.zeros(0, dtype=torch.long))
    scene = Scene(empty, 0, (0.2, 0.4, 0.6))
    assert torch.equal(modes.alpha(scene, camera()), torch.zeros(48, 64, 3))
    for name in ("colour", "depth", "normals"):
        expected = torch.tensor([0.2, 0.4, 0.6]).expand(48, 64, 3)
        assert torch.allclose(MODES[name](scene, camera()), expected), name
    assert float(modes.alpha(Scene(wall((0.0, 0.0, -1.0)), 0), camera())[16:-16, 16:-16].min()) > 0.9


def test_contribution_is_reddest_where_a_gaussian_gives_most() -> None:
    """A large Gaussian on the left, thirty small ones apart from each other on the right."""
    y, x = torch.meshgrid(torch.linspace(-0.8, 0.8, 6), torch.linspace(0.4, 1.4, 5), indexing="ij")
    small = torch.stack([x.flatten(), y.flatten(), torch.full((30,), 3.0)], 1)
    means = torch.cat([torch.tensor([[-0.8, 0.0, 3.0]]), small])
    scales = torch.full((31, 3), -4.5)
    scales[0] = -1.2
    quats = torch.tensor([1.0, 0, 0, 0]).expand(31, 4).clone()
    scene = Scene(Gaussians(means, quats, scales, torch.full((31,), 3.0), torch.zeros(31, 1, 3)), 0)
    view = camera()
    picture, opacity = modes.contribution(scene, view), modes.alpha(scene, view)
    assert torch.allclose(picture[24, 16], opacity[24, 16] * turbo(torch.tensor(1.0)), atol=1e-3)
    seen = opacity[:, 36:, 0] > 0.2
    assert seen.sum() > 30
    least = (picture / opacity.clamp_min(0.2))[:, 36:][seen]
    assert least[:, 0].max() < 0.3  # almost black or blue
    assert picture[0, 0].max() == 0


def test_the_error_against_itself_is_none_and_against_another_is_what_it_is() -> None:
    gaussians, view = wall((0.0, 0.0, -1.0)), camera()
    plain = Scene(gaussians, 0)
    image = modes.colour(plain, view).clamp(0, 1)

    def against(truth: Tensor) -> Tensor:
        everywhere = torch.ones(48, 64, dtype=torch.bool)
        return modes.error(Scene(gaussians, 0, truth=lambda seen: (truth, everywhere)), view)

    none = turbo(torch.zeros(()))
    assert torch.equal(against(image), none.expand(48, 64, 3))
    off = against(image - 0.1)
    assert torch.allclose(off, turbo(torch.tensor(0.4)).expand(48, 64, 3), atol=2e-2)
    assert torch.allclose(modes.error(plain, view), 0.4 * image)  # nobody took a photograph here


def test_a_photograph_seen_by_its_own_camera_is_itself() -> None:
    photo = (torch.rand(48, 64, 3, generator=torch.Generator().manual_seed(1)) * 255).to(torch.uint8)
    image, inside = seen_from(photo, camera(), camera())
    assert inside.all()
    assert torch.equal(to_bytes(image), photo)


def test_a_photograph_seen_by_a_turned_camera_of_another_size() -> None:
    """Renders of one smooth scene agree, as both cameras stand at one place."""
    g = torch.Generator().manual_seed(2)
    count = 30
    directions = torch.nn.functional.normalize(
        torch.randn(count, 3, generator=g) * torch.tensor([0.5, 0.4, 0.0]) + torch.tensor([0, 0, 1.0]), dim=1
    )
    scene = Scene(
        Gaussians(
            4 * directions,
            torch.tensor([1.0, 0, 0, 0]).expand(count, 4).clone(),
            torch.full((count, 3), -1.0),
            torch.full((count,), 1.0),
            torch.randn(count, 1, 3, generator=g),
        ),
        0,
    )
    taken, other = camera(160, 120), camera(64, 40, 0.2)
    photo = to_bytes(modes.colour(scene, taken))
    seen, inside = seen_from(photo, taken, other)
    drawn = modes.colour(scene, other).clamp(0, 1)
    assert inside.float().mean() > 0.6
    assert not inside.all()
    # Projected Gaussians are the same up to the linearisation of each, which differs off the axis.
    assert float((seen - drawn)[inside].abs().mean()) < 0.02
    assert float((seen - drawn.flip(1))[inside].abs().mean()) > 0.04


def test_turbo_has_its_ends_and_stretched_its_bounds() -> None:
    ends = turbo(torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0, math.nan]))
    assert torch.equal(ends[0], ends[1])
    assert torch.equal(ends[3], ends[4])
    assert torch.equal(ends[5], ends[1])
    blue = turbo(torch.tensor(0.1))
    assert blue[2] == blue.max()
    assert ends[2][1] == ends[2].max()  # green
    assert ends[3][0] == ends[3].max()  # red
    values = torch.linspace(3, 5, 1001)
    out = stretched(values, torch.ones(1001, dtype=torch.bool), 0.0, 1.0)
    assert torch.allclose(out, torch.linspace(0, 1, 1001), atol=1e-5)
    assert torch.equal(stretched(values, torch.zeros(1001, dtype=torch.bool)), torch.zeros(1001))
