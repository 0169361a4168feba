"""The reference's gradients against finite differences in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import scenes
import torch
from torch import Tensor

from splat.core import Camera, Gaussians
from splat.raster import RenderOptions, RenderOutput, render
from splat.raster.constants import ALPHA_MAX, ALPHA_MIN, MEDIAN_TRANSMITTANCE, TRANSMITTANCE_MIN
from splat.raster.projection import project

OUTPUTS = ("image", "alpha", "depth", "median_depth", "features")
PARAMETERS = ("means", "quats", "log_scales", "logit_opacities", "sh", "features", "background", "pose")
# The stencil's own error: truncation STEP^4 f^(5) / 30 and rounding 2^-53 |f| / STEP, both under 1e-9 here.
STEP = 1e-5
TOLERANCE = 1e-6


class Problem:
    """Every differentiable input of a render, and the outputs' projections on fixed random directions."""

    def __init__(self, gaussians: Gaussians, camera: Camera) -> None:
        self.gaussians, self.camera = gaussians, camera
        random = torch.Generator().manual_seed(99)
        f64 = {"generator": random, "dtype": torch.float64}
        self.inputs = {name: getattr(gaussians, name).clone() for name in PARAMETERS[:5]}
        self.inputs["features"] = torch.randn(len(gaussians), 2, **f64)
        self.inputs["background"] = torch.rand(3, **f64)
        self.inputs["pose"] = camera.world_to_camera.clone()
        size = (camera.height, camera.width)
        shapes = {"image": (*size, 3), "features": (*size, 2)}
        self.directions = {name: torch.randn(shapes.get(name, size), **f64) for name in OUTPUTS}

    def scene(self) -> tuple[Gaussians, Camera]:
        parts = {name: self.inputs[name] for name in PARAMETERS[:5]}
        scene = Gaussians(**parts, antialiased=self.gaussians.antialiased)
        return scene, self.camera.with_pose(self.inputs["pose"])

    def render(self) -> RenderOutput:
        options = RenderOptions(
            background=self.inputs["background"],
            features=self.inputs["features"],
            needs=frozenset({"depth", "median_depth"}),
            backend="reference",
        )
        return render(*self.scene(), options)

    def values(self) -> Tensor:
        """[5] one number for each output."""
        output = self.render()
        return torch.stack([(getattr(output, name) * self.directions[name]).sum() for name in OUTPUTS])

    def gradients(self) -> dict[str, Tensor]:
        """Input -> [5, ...] gradients of `values` by autograd."""
        for value in self.inputs.values():
            value.requires_grad_(True)
        names = list(self.inputs)
        rows = [
            torch.autograd.grad(
                value, [self.inputs[name] for name in names], retain_graph=True, materialize_grads=True
            )
            for value in self.values()
        ]
        for value in self.inputs.values():
            value.requires_grad_(False)
        return {name: torch.stack([row[i] for row in rows]) for i, name in enumerate(names)}

    def difference(self, name: str, entry: int, step: float, watch: Callable[[], object]) -> Tensor | None:
        """[5] derivative by one entry of an input, fourth order; None where `watch` changes."""
        flat = self.inputs[name].view(-1)
        kept, state = float(flat[entry]), watch()
        total, same = torch.zeros(len(OUTPUTS), dtype=torch.float64), True
        for offset, weight in ((-2, 1 / 12), (-1, -8 / 12), (1, 8 / 12), (2, -1 / 12)):
            flat[entry] = kept + offset * step
            same = same and watch() == state
            total += weight * self.values()
        flat[entry] = kept
        return total / step if same else None


def pixels(scene: Gaussians, camera: Camera) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Per pixel and Gaussian: alpha before the cut-offs and the transmittance behind; colours; order."""
    shown = project(scene, camera)
    y, x = torch.meshgrid(torch.arange(camera.height), torch.arange(camera.width), indexing="ij")
    offset = torch.stack([x, y], -1).reshape(-1, 1, 2) + 0.5 - shown.means2d
    matrix = shown.conics[:, [0, 1, 1, 2]].view(-1, 2, 2)
    sigma = 0.5 * torch.einsum("pni,nij,pnj->pn", offset, matrix, offset)
    alpha = shown.opacities * torch.exp(-sigma)
    cut = torch.where(alpha >= ALPHA_MIN, alpha.clamp_max(ALPHA_MAX), 0)
    return alpha, torch.cumprod(1 - cut, 1), shown.colors, shown.index


def check(problem: Problem, differences: Tensor, exact: Tensor, step: float, what: str) -> None:
    """Within TOLERANCE of the largest entry of each output's gradient ([5, ...] both).

    Gradients that are exactly zero get what the stencil's rounding makes of them: some 2^-52 |f| / step.
    """
    size = exact.abs().flatten(1).amax(1)
    rounding = 4 * torch.finfo(torch.float64).eps * problem.values().abs().clamp_min(1) / step
    error = (differences - exact).abs().flatten(1).amax(1)
    bad = error > TOLERANCE * size + rounding
    assert not bad.any(), (
        f"{what}: errors by output {dict(zip(OUTPUTS, (error / size).tolist(), strict=True))}"
    )


@pytest.mark.parametrize("antialiased", [False, True])
def test_every_derivative_on_a_smooth_scene(antialiased: bool) -> None:
    """Every entry of every input.

    Smooth because no threshold is near: each alpha at each pixel is 0.003 or more from both cut-offs, the
    transmittance stays above 100 times the pixel's end and 2e-4 or more from the median's 0.5, no colour
    is near zero, depths differ by more than the steps, and all centres are well within the frustum.
    """
    problem = Problem(scenes.soft(seed=50, antialiased=antialiased), scenes.camera())
    alpha, behind, colors, _ = pixels(*problem.scene())
    assert (alpha - ALPHA_MIN).min() > 3e-3
    assert (ALPHA_MAX - alpha).min() > 3e-3
    assert behind.min() > 100 * TRANSMITTANCE_MIN
    assert (behind - MEDIAN_TRANSMITTANCE).abs().min() > 2e-4
    assert colors.min() > 0.05

    exact = problem.gradients()
    for name in PARAMETERS:
        entries = 12 if name == "pose" else problem.inputs[name].numel()  # the last row is constant
        rows = [problem.difference(name, entry, STEP, lambda: None) for entry in range(entries)]
        check(problem, torch.stack(rows, 1), exact[name].flatten(1)[:, :entries], STEP, name)


@pytest.mark.parametrize("antialiased", [False, True])
def test_derivatives_where_every_cutoff_is_at_work(antialiased: bool) -> None:
    """Sampled entries on a scene with skipped, clamped and ended pixels, clamped colours and Jacobians.

    Smooth as long as the same pixels are skipped, clamped and ended and the order stays: compared are the
    entries whose whole stencil leaves that state unchanged, which must be most of them.
    """
    problem = Problem(scenes.mixed(seed=5, antialiased=antialiased), scenes.camera())

    def state() -> tuple[bytes, ...]:
        alpha, behind, colors, order = pixels(*problem.scene())
        points = problem.inputs["means"] @ problem.inputs["pose"][:3, :3].T + problem.inputs["pose"][:3, 3]
        u, v = points[:, 0] / points[:, 2], points[:, 1] / points[:, 2]
        camera = problem.camera
        pieces = [alpha >= ALPHA_MIN, alpha >= ALPHA_MAX, behind >= TRANSMITTANCE_MIN]
        pieces += [behind > MEDIAN_TRANSMITTANCE, colors > 0, order]
        for slope, size, focal, centre in (
            (u, camera.width, camera.fx, camera.cx),
            (v, camera.height, camera.fy, camera.cy),
        ):
            pieces += [slope < -(centre + 0.15 * size) / focal, slope > (1.15 * size - centre) / focal]
        return tuple(piece.numpy().tobytes() for piece in pieces)

    alpha, behind, colors, _ = pixels(*problem.scene())
    assert (alpha < ALPHA_MIN).any()
    assert (alpha > ALPHA_MAX).any() or antialiased  # the compensation lowers the few that reach it
    assert (behind < TRANSMITTANCE_MIN).any()
    assert (colors == 0).any()

    exact = problem.gradients()
    random = torch.Generator().manual_seed(3)
    for name in PARAMETERS:
        count = 12 if name == "pose" else problem.inputs[name].numel()
        entries = torch.randperm(count, generator=random)[:24].tolist()
        rows = {entry: problem.difference(name, entry, STEP / 10, state) for entry in entries}
        kept = [entry for entry, row in rows.items() if row is not None]
        assert len(kept) >= len(entries) // 2, f"{name}: {len(kept)} of {len(entries)} entries are smooth"
        differences = torch.stack([rows[entry] for entry in kept], 1)
        check(problem, differences, exact[name].flatten(1)[:, kept], STEP / 10, name)


def test_means2d_gradients_are_those_of_a_shift_of_the_picture() -> None:
    """The centre's gradient, and the sum of its magnitudes over the pixels, against the closed form.

    One ball straight ahead: moving its mean by dx moves the centre by fx dx / z and, at x = y = 0, changes
    the covariance only at second order, so that the mean's gradient is the centre's times fx / z.
    """
    gaussians = scenes.soft(1)
    gaussians.means = torch.zeros(1, 3, dtype=torch.float64)
    gaussians.sh = gaussians.sh[:, :1]
    view = Camera(9, 7, 10.0, 11.0, 4.2, 3.1, torch.eye(4, dtype=torch.float64))
    view.world_to_camera[2, 3] = 3.0
    gaussians.quats = torch.tensor([[1.0, 0, 0, 0]], dtype=torch.float64)
    gaussians.requires_grad_()
    needs = frozenset({"means2d_grad", "absgrad"})
    output = render(gaussians, view, RenderOptions(backend="reference", needs=needs))
    weight = torch.randn(7, 9, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    (output.alpha * weight).sum().backward()

    scale = torch.tensor([view.fx, view.fy], dtype=torch.float64) / 3.0
    torch.testing.assert_close(output.means2d_grad * scale, gaussians.means.grad[:, :2], rtol=1e-12, atol=0)

    shown = project(gaussians.detach(), view)
    alpha = pixels(gaussians.detach(), view)[0][:, 0].view(7, 9)
    y, x = torch.meshgrid(torch.arange(7) + 0.5, torch.arange(9) + 0.5, indexing="ij")
    offset = torch.stack([x, y], -1) - shown.means2d[0]
    conic = shown.conics[0, [0, 1, 1, 2]].view(2, 2)
    by_pixel = (weight * alpha)[..., None] * (offset @ conic)
    torch.testing.assert_close(output.means2d_grad[0], by_pixel.sum((0, 1)), rtol=1e-12, atol=0)
    torch.testing.assert_close(output.means2d_absgrad[0], by_pixel.abs().sum((0, 1)), rtol=1e-12, atol=0)
