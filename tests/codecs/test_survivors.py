"""What is left of a pruned scene covers what went."""

from __future__ import annotations

from dataclasses import replace

import torch

from splat.codecs.search import survivors
from splat.core import Camera, Gaussians
from splat.raster import render


def wall(side: int = 24, opacity: float = 0.3) -> Gaussians:
    """A grid of alike splats of one colour, in front of the camera."""
    x, y = torch.meshgrid(torch.linspace(-1, 1, side), torch.linspace(-1, 1, side), indexing="ij")
    count = side * side
    return Gaussians(
        means=torch.stack([x, y, torch.full_like(x, 3.0)], -1).reshape(-1, 3),
        quats=torch.tensor([[1.0, 0, 0, 0]]).repeat(count, 1),
        log_scales=torch.tensor([[0.06, 0.06, 0.01]]).log().repeat(count, 1),
        logit_opacities=torch.logit(torch.full((count,), opacity)),
        sh=torch.ones(count, 1, 3),
    )


def mass(g: Gaussians) -> torch.Tensor:
    return g.opacities() * g.scales().sort(1).values[:, 1:].prod(1)


def test_the_mass_of_the_scene_is_kept():
    g = wall()
    kept = torch.arange(0, len(g), 2)
    left = survivors(g, kept)
    assert torch.equal(left.means, g.means[kept])
    torch.testing.assert_close(mass(left).sum(), mass(g).sum(), rtol=1e-5, atol=0)


def test_nothing_grows_beyond_its_limit():
    g = wall(opacity=0.8)
    left = survivors(g, torch.tensor([0, 1]))
    assert (mass(left) <= 4.0001 * mass(g)[:2]).all()
    assert left.opacities().max() <= 0.9901
    for logit in (9.0, 50.0):  # above the limit from the start; the other is 1 after rounding
        opaque = replace(g, logit_opacities=torch.full_like(g.logit_opacities, logit))
        assert (survivors(opaque, torch.tensor([0, 1])).logit_opacities == logit).all()


def test_without_pruning_nothing_changes_and_masks_will_do():
    g = wall(side=4)
    everything = survivors(g, torch.ones(16, dtype=torch.bool))
    assert torch.equal(everything.log_scales, g.log_scales)
    assert len(survivors(g, torch.zeros(16, dtype=torch.bool))) == 0


def test_survivors_without_a_part_stay_as_they_are():
    g = wall(side=4)
    far = replace(g, means=g.means + torch.tensor([100.0, 0, 0]))
    both = Gaussians(
        *(torch.cat([getattr(g, name), getattr(far, name)]) for name in
          ("means", "quats", "log_scales", "logit_opacities", "sh"))
    )  # fmt: skip
    left = survivors(both, torch.cat([torch.arange(16), torch.arange(16, 32, 2)]))
    assert torch.equal(left.logit_opacities[:16], g.logit_opacities)
    assert torch.equal(left.log_scales[:16], g.log_scales)


def test_a_pruned_wall_looks_more_like_itself():
    g = wall()
    camera = Camera(64, 64, fx=60, fy=60, cx=32, cy=32, world_to_camera=torch.eye(4))
    whole = render(g, camera).image
    generator = torch.Generator().manual_seed(0)
    for share in (0.7, 0.4, 0.2):
        kept = torch.randperm(len(g), generator=generator)[: int(share * len(g))].sort().values
        bare = (render(g.select(kept), camera).image - whole).square().mean()
        grown = (render(survivors(g, kept), camera).image - whole).square().mean()
        assert grown < 0.5 * bare
