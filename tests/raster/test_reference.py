"""The reference rasterizer against closed forms and brute force."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import scenes
import torch

from splat.core import Camera, Gaussians, UsageError, sh
from splat.raster import RenderOptions, render
from splat.raster.constants import ALPHA_MAX, ALPHA_MIN, EPS2D, NEAR
from splat.raster.projection import project
from splat.raster.reference import count_tile_intersections
from splat.raster.tiles import intersections

F64 = torch.float64
EVERYTHING = frozenset({"depth", "median_depth", "ids", "means2d_grad", "absgrad", "radii", "contribution"})


def draw(gaussians: Gaussians, camera: Camera, **options):
    return render(gaussians, camera, RenderOptions(backend="reference", needs=EVERYTHING, **options))


def ahead(width: int = 33, height: int = 17, focal: float = 20.0) -> Camera:
    """At the origin, looking along +z, its principal point on a pixel's centre."""
    return Camera(width, height, focal, focal, width / 2, height / 2, torch.eye(4, dtype=F64))


def cards(
    depths: list[float], opacities: list[float], colors: list[list[float]], size: float = 50.0
) -> Gaussians:
    """Balls on the axis, so large that their alpha is constant over the picture."""
    count = len(depths)
    means = torch.zeros(count, 3, dtype=F64)
    means[:, 2] = torch.tensor(depths)
    return Gaussians(
        means=means,
        quats=torch.tensor([[1.0, 0, 0, 0]], dtype=F64).repeat(count, 1),
        log_scales=torch.full((count, 3), math.log(size), dtype=F64),
        logit_opacities=torch.logit(torch.tensor(opacities, dtype=F64)),
        sh=sh.from_rgb(torch.tensor(colors, dtype=F64))[:, None],
    )


def test_one_ball_is_what_the_formulas_say() -> None:
    scene = cards([2.0], [0.8], [[0.9, 0.5, 0.1]], size=0.3)
    background = torch.tensor([0.0, 0.2, 0.4], dtype=F64)
    out = draw(scene, ahead(), background=background)
    variance = (20 * 0.3 / 2) ** 2 + EPS2D
    y, x = torch.meshgrid(
        torch.arange(17.0, dtype=F64) - 8, torch.arange(33.0, dtype=F64) - 16, indexing="ij"
    )
    alpha = 0.8 * torch.exp(-(x**2 + y**2) / (2 * variance))
    alpha = torch.where(alpha < ALPHA_MIN, 0, alpha)
    torch.testing.assert_close(out.alpha, alpha, rtol=1e-12, atol=1e-14)
    color = torch.tensor([0.9, 0.5, 0.1], dtype=F64)
    torch.testing.assert_close(
        out.image, alpha[..., None] * (color - background) + background, rtol=0, atol=1e-12
    )
    torch.testing.assert_close(out.depth, (alpha > 0) * 2.0 + 0 * alpha, rtol=1e-12, atol=0)
    assert ((out.median_depth == 2) == (alpha >= 0.5)).all()
    assert ((out.ids == 0) == (alpha >= 0.5)).all()
    assert out.ids.dtype == torch.int32
    assert out.radii.tolist() == [math.ceil(math.sqrt(2 * math.log(0.8 / ALPHA_MIN) * variance))]
    torch.testing.assert_close(out.contribution, alpha.sum()[None], rtol=1e-12, atol=0)


def test_antialiasing_keeps_the_light_of_a_dot() -> None:
    """Far smaller than a pixel: opacity times area stays what it was before the filter widened it."""
    scene = replace(cards([2.0], [0.9], [[1.0, 1.0, 1.0]], size=0.06), antialiased=True)
    out = draw(scene, ahead(focal=10.0))
    variance = 0.3**2
    filtered = variance + EPS2D
    torch.testing.assert_close(
        out.alpha.max(), torch.tensor(0.9, dtype=F64) * variance / filtered, rtol=1e-6, atol=0
    )


def test_blending_front_to_back_by_depth_then_by_index() -> None:
    red, green, blue = [1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0]
    # Given back to front; the last two share a depth and keep their order.
    scene = cards([3.0, 2.0, 5.0, 5.0], [0.5, 0.25, 0.5, 0.5], [red, green, blue, red])
    middle = draw(scene, ahead(), features=torch.eye(4, dtype=F64))
    weights = middle.features[8, 16]
    expected = torch.tensor([0.75 * 0.5, 0.25, 0.375 * 0.5, 0.1875 * 0.5], dtype=F64)
    torch.testing.assert_close(weights, expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(
        middle.image[8, 16], expected @ torch.tensor([red, green, blue, red], dtype=F64), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(middle.alpha[8, 16], expected.sum(), rtol=1e-5, atol=0)
    depth = (expected * torch.tensor([3.0, 2, 5, 5], dtype=F64)).sum() / expected.sum()
    torch.testing.assert_close(middle.depth[8, 16], depth, rtol=1e-5, atol=0)
    assert middle.ids[8, 16] == 0  # T: 0.75 behind the green one, 0.375 behind the red one
    assert middle.median_depth[8, 16] == 3


def test_the_splat_that_would_end_the_light_is_left_out() -> None:
    """0.99 and 0.98 leave 2e-4; a third of 0.99 would leave 2e-6: it is left out and ends the pixel."""
    white = [1.0, 1.0, 1.0]
    out = draw(cards([1.0, 2.0, 3.0, 4.0], [0.999, 0.98, 0.999, 0.5], [white] * 4), ahead())
    torch.testing.assert_close(out.alpha[8, 16], torch.tensor(1 - 0.01 * 0.02, dtype=F64), rtol=1e-5, atol=0)
    assert out.contribution[2] == 0
    assert out.contribution[3] == 0  # behind the end, though by itself it would leave enough
    assert float(out.alpha.max()) <= 1 - (1 - ALPHA_MAX) * 0.0199


def test_nothing_to_draw_is_the_background_with_zero_gradients() -> None:
    background = torch.tensor([0.1, 0.2, 0.3], dtype=F64)
    behind = cards([-1.0, NEAR * 0.999], [0.9, 0.9], [[1.0, 1, 1]] * 2)
    faint = cards([1.0], [ALPHA_MIN * 0.99], [[1.0, 1, 1]])
    for scene in (behind, faint, behind.select(torch.zeros(0, dtype=torch.int64))):
        scene.requires_grad_()
        out = draw(scene, ahead(), background=background)
        assert (out.image == background).all()
        assert (out.alpha == 0).all()
        assert (out.depth == 0).all()
        assert (out.ids == -1).all()
        assert (out.radii == 0).all()
        (out.image.sum() + out.depth.sum() + out.median_depth.sum()).backward()
        assert all((t.grad == 0).all() for _, t in scene.named_tensors() if t.grad is not None)


def test_sh_degree_limits_the_bands() -> None:
    scene, camera = scenes.soft(), scenes.camera()
    for degree in range(4):
        less = replace(scene, sh=scene.sh[:, : sh.coefficients(degree)])
        limited = draw(scene, camera, sh_degree=degree).image
        torch.testing.assert_close(limited, draw(less, camera).image, rtol=0, atol=0)


@pytest.mark.parametrize("antialiased", [False, True])
def test_chunks_and_checkpoints_change_nothing(monkeypatch: pytest.MonkeyPatch, antialiased: bool) -> None:
    """The same picture and gradients whether Gaussians are blended together or three at a time."""
    results = []
    for chunk in (512, 3):
        monkeypatch.setattr("splat.raster.reference._CHUNK", chunk)
        scene = scenes.mixed(seed=2, antialiased=antialiased).requires_grad_()
        out = draw(scene, scenes.camera(40, 30))
        (out.image.square().sum() + out.depth.sum() + out.median_depth.sum()).backward()
        grads = [t.grad for _, t in scene.named_tensors()]
        results.append([out.image.detach(), *grads, out.means2d_grad, out.means2d_absgrad, out.contribution])
    for whole, chunked in zip(*results, strict=True):
        torch.testing.assert_close(whole, chunked, rtol=1e-9, atol=1e-12)


def test_tile_intersections_against_brute_force() -> None:
    """Every tile's rectangle sampled densely: the exact test finds all that the samples find, and no tile
    whose samples stay clearly outside the ellipse."""
    camera = scenes.camera(70, 45)
    shown = project(scenes.mixed(200, seed=4), camera)
    gaussian, tile = intersections(shown, 70, 45)
    found = torch.zeros(len(shown.index), 5 * 3, dtype=torch.bool)
    found[gaussian, tile] = True
    steps = torch.linspace(0, 1, 61, dtype=F64)
    for number in range(15):
        x0, y0 = number % 5 * 16 + 0.5, number // 5 * 16 + 0.5
        x = x0 + steps * (min(x0 + 15, 69.5) - x0)
        y = y0 + steps * (min(y0 + 15, 44.5) - y0)
        points = torch.cartesian_prod(x, y)
        offset = points[:, None] - shown.means2d
        a, b, c = shown.conics.unbind(-1)
        sigma = (
            0.5 * (a * offset[..., 0] ** 2 + c * offset[..., 1] ** 2) + b * offset[..., 0] * offset[..., 1]
        )
        inside = (sigma <= shown.limits).any(0)
        # Between samples 0.25 px apart sigma's root falls by at most 0.18 px over the smallest deviation.
        least = torch.linalg.eigvalsh(shown.covs2d[:, [0, 1, 1, 2]].view(-1, 2, 2))[:, 0]
        slack = 0.18 / torch.sqrt(2 * least)
        near = (sigma.sqrt() <= shown.limits.sqrt() + slack).any(0)
        assert found[inside, number].all()
        assert near[found[:, number]].all()
    assert count_tile_intersections(scenes.mixed(200, seed=4), camera) == len(gaussian)


def test_float32_follows_float64() -> None:
    """Rounding of sigma (up to 5.5, times 2^-24, through a conic of condition 1e3) stays under 1e-3."""
    scene, camera = scenes.mixed(200, seed=6), scenes.camera(64, 48)
    exact = draw(scene, camera)
    single = draw(scene.to(torch.float32), camera)
    assert single.image.dtype == torch.float32
    error = (single.image - exact.image).abs().amax(-1)
    assert (error > 1e-3).float().mean() < 1e-3


def test_what_render_refuses() -> None:
    scene, camera = scenes.soft(), scenes.camera()
    with pytest.raises(UsageError, match="no render backend is called 'cuda9': choose auto, reference, cpu"):
        render(scene, camera, RenderOptions(backend="cuda9"))
    with pytest.raises(UsageError, match="no output called normals"):
        render(scene, camera, RenderOptions(backend="reference", needs=frozenset({"normals"})))
    with pytest.raises(ValueError, match=r"quats: expected shape \[N = 7, 4\], got \[6, 4\]"):
        render(replace(scene, quats=scene.quats[:6]), camera)
    with pytest.raises(TypeError, match=r"sh: expected torch.float64, got torch.float32"):
        render(replace(scene, sh=scene.sh.float()), camera)
    with pytest.raises(ValueError, match="sh: spherical harmonics have 1, 4, 9 or 16 coefficients, not 5"):
        render(replace(scene, sh=scene.sh[:, :5]), camera)
    with pytest.raises(ValueError, match=r"options.features: expected shape \[7, any\], got \[7\]"):
        render(scene, camera, RenderOptions(features=torch.zeros(7)))
    with pytest.raises(UsageError, match="no deferred step"):
        render(scene, camera, RenderOptions(backend="reference", deferred=object()))
