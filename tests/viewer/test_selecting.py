"""What is selected: by the screen, by a box, as floaters; against projection and planted answers."""

from __future__ import annotations

import math

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scenes import mixed

from splat.core import Camera, Gaussians
from splat.core.rotations import quat_to_matrix
from splat.viewer import selecting
from splat.viewer.selecting import Box, Criteria


def shell(count: int = 1500, seed: int = 0) -> Gaussians:
    """An even, closed surface: a sphere of radius 1 whose Gaussians lie on Fibonacci's spiral."""
    i = torch.arange(count, dtype=torch.float64) + 0.5
    z, angle = 1 - 2 * i / count, math.pi * (1 + math.sqrt(5)) * i
    r = (1 - z * z).sqrt()
    means = torch.stack([r * angle.cos(), r * angle.sin(), z], 1).float()
    return Gaussians(
        means=means,
        quats=torch.tensor([1.0, 0, 0, 0]).repeat(count, 1),
        log_scales=torch.full((count, 3), -3.5),
        logit_opacities=torch.full((count,), 2.0),
        sh=torch.rand(count, 4, 3, generator=torch.Generator().manual_seed(seed)),
    )


def with_floaters(count: int = 12) -> tuple[Gaussians, torch.Tensor]:
    """The shell with floaters planted in its inside and around it, and which rows they are."""
    scene, g = shell(), torch.Generator().manual_seed(1)
    extra = scene.select(torch.arange(count))
    away = torch.nn.functional.normalize(torch.randn(count, 3, generator=g), dim=1)
    extra.means = away * torch.where(torch.arange(count) % 2 == 0, 0.4, 2.5)[:, None]
    planted = torch.zeros(len(scene) + count, dtype=torch.bool)
    planted[len(scene) :] = True
    return Gaussians.cat([scene, extra]), planted


def test_planted_floaters_are_found_and_no_others():
    scene, planted = with_floaters()
    assert torch.equal(selecting.floaters(scene, Criteria()), planted)


def test_a_clean_shell_has_no_floaters():
    assert not selecting.floaters(shell(), Criteria()).any()


def test_a_grid_has_no_floaters():
    """Its spacing has no spread at all; only its corners' neighbours are farther."""
    line = torch.arange(8.0)
    scene = shell(512)
    scene.means = torch.cartesian_prod(line, line, line)
    assert not selecting.floaters(scene, Criteria(isolated=12.0)).any()


def test_faint_and_large_ones():
    scene = shell()
    scene.logit_opacities[7] = -4.0
    scene.log_scales[9, 1] += math.log(20)
    only = Criteria(isolated=None, faint=0.05, large=10.0)
    assert selecting.floaters(scene, only).nonzero()[:, 0].tolist() == [7, 9]
    assert not selecting.floaters(scene, Criteria(isolated=None)).any()


def test_isolation_does_not_depend_on_units_or_place():
    scene, _ = with_floaters()
    here = selecting.isolation(scene.means)
    there = selecting.isolation(scene.means * 40 + 3)
    assert torch.allclose(here, there, atol=1e-2)  # float32 at 100 units: 1e-5 of a spacing of 3


def test_tiny_scenes():
    for count in (0, 1, 2, 3):
        scene = shell().select(torch.arange(count))
        assert len(selecting.floaters(scene, Criteria())) == count


@settings(max_examples=40)
@given(st.tuples(*[st.floats(-0.2, 1.2) for _ in range(4)]), st.integers(0, 5))
def test_rectangle_is_what_projection_says(corners, seed):
    """Against the picture's homography, point by point."""
    x0, y0, x1, y1 = corners
    low, high = (min(x0, x1), min(y0, y1)), (max(x0, x1), max(y0, y1))
    means = mixed(60, seed).means
    camera = Camera(64, 36, 50.0, 55.0, 30.0, 20.0, torch.eye(4, dtype=torch.float64))
    chosen = selecting.in_rectangle(means, camera, low, high)
    for point, found in zip(means.tolist(), chosen.tolist(), strict=True):
        x, y, z = point
        expected = False
        if z > 0:
            u, v = (50 * x / z + 30) / 64, (55 * y / z + 20) / 36
            expected = low[0] <= u <= high[0] and low[1] <= v <= high[1]
        assert found == expected


def test_what_is_behind_is_not_in_the_rectangle():
    camera = Camera(64, 36, 50.0, 50.0, 32.0, 18.0, torch.eye(4))
    means = torch.tensor([[0.0, 0, 2], [0, 0, -2], [0, 0, 0]])
    assert selecting.in_rectangle(means, camera, (0, 0), (1, 1)).tolist() == [True, False, False]


def test_box_holds_what_its_edges_enclose():
    quat = torch.nn.functional.normalize(torch.tensor([0.8, 0.3, -0.4, 0.2]).double(), dim=0)
    box = Box(torch.tensor([1.0, 2, 3]).double(), quat, torch.tensor([2.0, 1, 4]).double())
    edges = box.edges()
    assert edges.shape == (12, 2, 3)
    lengths = (edges[:, 1] - edges[:, 0]).norm(dim=1)
    assert sorted(lengths.tolist()) == [1.0] * 4 + [2.0] * 4 + [4.0] * 4
    corners = edges.reshape(-1, 3) @ quat_to_matrix(quat).T + box.centre
    assert box.holds(box.centre + 0.99 * (corners - box.centre)).all()
    assert not box.holds(box.centre + 1.01 * (corners - box.centre)).any()


def test_box_around_leaves_outliers_out():
    scene, _ = with_floaters()
    scene.means[-1] = torch.tensor([900.0, 0, 0])
    box = Box.around(scene.means)
    inside = box.holds(scene.means)
    assert not inside[-1]
    # 2% are cut along each of three axes, and the box is a twentieth larger.
    assert float(inside.float().mean()) > 0.94


def test_marked_changes_colours_alone():
    scene, planted = with_floaters()
    shown = selecting.marked(scene, planted)
    assert torch.equal(shown.means, scene.means)
    assert torch.equal(shown.sh[~planted], scene.sh[~planted])
    assert not torch.equal(shown.sh[planted], scene.sh[planted])
    assert torch.equal(scene.sh, with_floaters()[0].sh)  # the scene itself is as it was


def test_floaters_of_a_real_scene(shared_data):
    """A chair trained by others, with a faint haze around it: without it held-out photographs are met better."""
    from splat import codecs
    from splat.data import Dataset, read_scene
    from splat.raster import RenderOptions, render

    scene, _ = codecs.decode(shared_data("splats/splat/sjeongab_model.splat"))
    found = selecting.floaters(scene, Criteria())
    assert 0.01 < float(found.float().mean()) < 0.1
    with Dataset(read_scene(shared_data("chair")), 4.0, True, background=(1.0, 1.0, 1.0)) as dataset:

        def score(shown: Gaussians) -> float:
            scores = []
            for view in dataset.test[::80]:
                image = render(shown, dataset.camera(view), RenderOptions(background=torch.ones(3))).image
                error = (image.clamp(0, 1) - dataset.photo(view).image.float() / 255).square().mean()
                scores.append(-10 * math.log10(float(error)))
            return sum(scores) / len(scores)

        assert score(scene.select(~found)) > score(scene) + 0.5
