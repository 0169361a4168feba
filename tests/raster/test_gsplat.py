"""The gsplat adapter: what it asks of gsplat and what it makes of the answer, and parity where a GPU is."""

from __future__ import annotations

import inspect

import pytest
import torch
from scenes import camera, mixed

from splat.core import DeviceError, Gaussians, UsageError
from splat.raster import RenderOptions, render
from splat.raster import gsplat as adapter
from splat.raster.projection import project
from splat.raster.registry import backend


class Recorder:
    """Stands in for gsplat.rasterization: keeps the arguments, answers with values that tell where they
    came from, and differentiates as gsplat does (`absgrad` is left on means2d before its hooks run)."""

    def __call__(self, **arguments):
        self.arguments = arguments
        height, width = arguments["height"], arguments["width"]
        means = arguments["means"]
        bands = arguments["sh_degree"]
        channels = arguments["colors"].shape[-1] if bands is None else 3
        channels += arguments["render_mode"] == "RGB+ED"
        means2d = 2 * means[None, :, :2]
        count = len(means)
        factors = torch.arange(1.0, 1 + channels)
        drawn = factors.expand(1, height, width, channels) + _Mark.apply(means2d)
        meta = {"means2d": means2d, "radii": torch.arange(2 * count).view(1, count, 2).int()}
        return drawn, torch.full((1, height, width, 1), 0.5), meta


class _Mark(torch.autograd.Function):
    @staticmethod
    def forward(ctx, means2d):
        ctx.save_for_backward(means2d)
        return means2d.sum() * 0

    @staticmethod
    def backward(ctx, gradient):
        (means2d,) = ctx.saved_tensors
        means2d.absgrad = torch.full_like(means2d, 7.0)
        return torch.full_like(means2d, -3.0)


def scene(antialiased: bool = False) -> Gaussians:
    return mixed(9, antialiased=antialiased).to(torch.float32)


@pytest.mark.parametrize("antialiased", [False, True])
def test_arguments(antialiased: bool) -> None:
    recorder, g, view = Recorder(), scene(antialiased), camera(20, 14)
    background = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    options = RenderOptions(background=background, sh_degree=2, needs=frozenset({"depth", "radii"}))
    output = adapter.GsplatBackend(recorder).render(g, view, options)
    got = recorder.arguments
    expected = {
        "means": g.means,
        "quats": g.quats,
        "scales": g.log_scales.exp(),
        "opacities": g.logit_opacities.sigmoid(),
        "colors": g.sh,
        "viewmats": view.world_to_camera.float()[None],
        "Ks": torch.tensor([[[view.fx, 0, view.cx], [0, view.fy, view.cy], [0, 0, 1]]]),
        "backgrounds": background.float()[None],
    }
    for name, value in expected.items():
        assert got[name].dtype == torch.float32
        torch.testing.assert_close(got[name], value)
    assert {name: got[name] for name in sorted(set(got) - set(expected))} == {
        "absgrad": False,
        "channel_chunk": 32,
        "eps2d": pytest.approx(0.3),
        "height": 14,
        "near_plane": pytest.approx(0.01),
        "packed": False,
        "rasterize_mode": "antialiased" if antialiased else "classic",
        "render_mode": "RGB+ED",
        "sh_degree": 2,
        "width": 20,
    }
    assert torch.equal(output.image, torch.tensor([1.0, 2, 3]).expand(14, 20, 3))
    assert torch.equal(output.depth, torch.full((14, 20), 4.0))
    assert torch.equal(output.alpha, torch.full((14, 20), 0.5))
    assert torch.equal(output.radii, torch.arange(9).int() * 2 + 1)
    assert output.features is None
    assert output.means2d_grad is None


def test_arguments_are_gsplats_own() -> None:
    """Every name we pass is a parameter of the gsplat that is installed."""
    rasterization = pytest.importorskip("gsplat").rasterization
    recorder = Recorder()
    adapter.GsplatBackend(recorder).render(scene(), camera(), RenderOptions())
    assert set(recorder.arguments) <= set(inspect.signature(rasterization).parameters)


def test_features_are_drawn_beside_the_colours() -> None:
    recorder, g, view = Recorder(), scene(), camera(20, 14, dtype=torch.float32)
    features = torch.rand(9, 40)
    options = RenderOptions(background=torch.ones(3), features=features, needs=frozenset({"depth"}))
    output = adapter.GsplatBackend(recorder).render(g, view, options)
    got = recorder.arguments
    assert got["sh_degree"] is None
    assert got["channel_chunk"] == 44
    assert torch.equal(got["backgrounds"], torch.tensor([[1.0] * 3 + [0.0] * 40]))
    assert torch.equal(got["colors"][:, 3:], features)
    # The colours, against the reference's: in its own order, and of those in front of the camera.
    seen = project(g, view)
    torch.testing.assert_close(got["colors"][seen.index, :3], seen.colors, rtol=0, atol=1e-5)
    assert torch.equal(output.features[0, 0], torch.arange(4.0, 44))
    assert torch.equal(output.depth, torch.full((14, 20), 44.0))


def test_gradients_of_the_centres() -> None:
    g = scene().requires_grad_()
    options = RenderOptions(needs=frozenset({"means2d_grad", "absgrad"}))
    output = adapter.GsplatBackend(Recorder()).render(g, camera(), options)
    assert not output.means2d_grad.any()
    output.image.sum().backward()
    assert torch.equal(output.means2d_grad, torch.full((9, 2), -3.0))
    assert torch.equal(output.means2d_absgrad, torch.full((9, 2), 7.0))
    assert torch.equal(g.means.grad[:, :2], torch.full((9, 2), -6.0))


def test_refusals() -> None:
    drawer = adapter.GsplatBackend(Recorder())
    with pytest.raises(UsageError, match="does not draw ids, median_depth: it has image"):
        drawer.render(scene(), camera(), RenderOptions(needs=frozenset({"ids", "median_depth", "depth"})))
    with pytest.raises(UsageError, match="no fused step"):
        drawer.render(scene(), camera(), RenderOptions(deferred=object()))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_error_says_so() -> None:
    with pytest.raises(DeviceError, match="needs an NVIDIA GPU"):
        backend("gsplat", torch.device("cpu"))


def test_without_gsplat_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(__import__("sys").modules, "gsplat", None)
    with pytest.raises(DeviceError, match="pip install gsplat"):
        adapter.load()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("antialiased", [False, True])
def test_parity_with_the_reference(antialiased: bool) -> None:
    """Where no splat reaches an alpha of 0.99, the one constant that differs."""
    g = mixed(300, antialiased=antialiased)
    g.logit_opacities.clamp_(max=4)
    view = camera(120, 90)
    options = RenderOptions(needs=frozenset({"depth"}), backend="reference")
    truth = render(g, view, options)
    options.backend = "gsplat"
    got = render(g.to("cuda", torch.float32), view, options)
    # A splat at a threshold on one side alone moves a pixel by up to 1 / 255.
    torch.testing.assert_close(got.image.cpu().double(), truth.image, rtol=0, atol=4 / 255)
    assert (got.image.cpu().double() - truth.image).abs().mean() < 1e-4
