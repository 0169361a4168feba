"""The native backend's behaviour: degenerate inputs, validation, concurrency, the deferred step."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from hostile import camera, ordinary

from splat.core import Camera, Gaussians, UsageError
from splat.core.gaussians import PARAMETERS
from splat.raster import RenderOptions, render
from splat.raster.native import Deferred
from splat.raster.options import NEEDS

ALL = RenderOptions(needs=NEEDS, backend="cpu")


def draw_and_differentiate(scene: Gaussians, view: Camera) -> list[torch.Tensor]:
    scene = scene.clone().requires_grad_()
    output = render(scene, view, ALL)
    (output.image.sum() + output.alpha.sum() + output.depth.sum() + output.median_depth.sum()).backward()
    return [output.image.detach(), *(tensor.grad for _, tensor in scene.named_tensors())]


class TestDegenerate:
    @pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 40), (40, 1), (5, 3), (16, 16), (17, 33)])
    def test_any_size(self, width: int, height: int) -> None:
        scene, view = ordinary(100), camera(width, height)
        got = render(scene, view, ALL)
        truth = render(scene.to(torch.float64), view, replace(ALL, backend="reference"))
        assert torch.allclose(got.image.double(), truth.image, atol=2e-5)
        assert all(torch.isfinite(t).all() for t in draw_and_differentiate(scene, view))

    def test_no_gaussians(self) -> None:
        background = torch.tensor([0.1, 0.2, 0.3])
        scene = ordinary(0).requires_grad_()
        output = render(scene, camera(), replace(ALL, background=background))
        assert torch.equal(output.image, background.expand_as(output.image))
        assert not output.alpha.any()
        assert not output.depth.any()
        assert (output.ids == -1).all()
        output.image.sum().backward()
        assert scene.means.grad.shape == (0, 3)

    def test_nothing_in_view(self) -> None:
        scene = ordinary(50)
        scene.means[:, 2] -= 100
        image, *gradients = draw_and_differentiate(scene, camera())
        assert not image.any()
        assert not any(gradient.any() for gradient in gradients)

    @pytest.mark.parametrize("name", PARAMETERS)
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e38, -1e38])
    def test_absurd_values_spoil_only_their_own_gaussian(self, name: str, value: float) -> None:
        """A non-finite Gaussian is left out; one with a huge value draws nothing or something finite."""
        scene, view = ordinary(64), camera()
        without = draw_and_differentiate(scene.select(torch.arange(64) % 8 != 3), view)
        getattr(scene, name)[3::8] = value
        tensors = draw_and_differentiate(scene, view)
        kept = torch.arange(64) % 8 != 3
        assert all(torch.isfinite(t).all() for t in tensors)
        if value != value:
            assert torch.equal(tensors[0], without[0])
            for got, expected in zip(tensors[1:], without[1:], strict=True):
                assert torch.equal(got[kept], expected)
                assert not got[~kept].any()

    def test_zero_quaternion_is_no_rotation(self) -> None:
        scene = ordinary(20)
        scene.quats.zero_()
        turned = replace(scene, quats=torch.tensor([1.0, 0, 0, 0]).expand(20, 4).contiguous())
        assert torch.equal(render(scene, camera(), ALL).image, render(turned, camera(), ALL).image)

    def test_a_pile_in_one_pixel(self) -> None:
        """Many batches in one tile, none of which ends the pixel."""
        scene = ordinary(2000)
        scene.means[:] = torch.tensor([0.0, 0.0, 3.0])
        scene.log_scales[:] = -4.0
        scene.logit_opacities[:] = -5.2
        got = render(scene, camera(), ALL)
        truth = render(scene.to(torch.float64), camera(), replace(ALL, backend="reference"))
        assert torch.allclose(got.image.double(), truth.image, atol=1e-4)
        assert all(torch.isfinite(t).all() for t in draw_and_differentiate(scene, camera()))


class TestValidation:
    def test_says_what_came(self) -> None:
        scene = ordinary(4)
        with pytest.raises(TypeError, match=r"means: expected torch.float32, got torch.float64"):
            render(scene.to(torch.float64), camera(), ALL)
        with pytest.raises(TypeError, match=r"options.features: expected torch.float32"):
            render(scene, camera(), replace(ALL, features=torch.zeros(4, 2, dtype=torch.float64)))

    def test_takes_any_strides(self) -> None:
        scene = ordinary(50)
        strided = scene.map(lambda t: torch.stack([t, t], -1)[..., 0])
        assert not strided.means.is_contiguous()
        assert torch.equal(render(strided, camera(), ALL).image, render(scene, camera(), ALL).image)


class TestConcurrency:
    def test_several_threads_at_once(self) -> None:
        torch.set_num_threads(2)
        scenes = [ordinary(400 + 50 * i, seed=i) for i in range(4)]
        expected = [draw_and_differentiate(scene, camera()) for scene in scenes]
        with ThreadPoolExecutor(4) as pool:
            for _ in range(3):
                results = list(pool.map(lambda s: draw_and_differentiate(s, camera()), scenes))
                for got, want in zip(results, expected, strict=True):
                    assert all(torch.equal(a, b) for a, b in zip(got, want, strict=True))

    def test_two_renders_before_their_backwards(self) -> None:
        """Each keeps its own state until it has been differentiated."""
        scenes = [ordinary(100, seed=i).requires_grad_() for i in range(2)]
        images = [render(scene, camera(), ALL).image for scene in scenes]
        for image in images:
            image.sum().backward()
        for i, scene in enumerate(scenes):
            alone = ordinary(100, seed=i).requires_grad_()
            render(alone, camera(), ALL).image.sum().backward()
            assert torch.equal(scene.means.grad, alone.means.grad)

    def test_backward_twice(self) -> None:
        scene = ordinary(100).requires_grad_()
        image = render(scene, camera(), ALL).image
        image.sum().backward(retain_graph=True)
        once = scene.means.grad.clone()
        image.sum().backward()
        assert torch.equal(scene.means.grad, 2 * once)

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
    @pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
    def test_a_forked_child_can_render(self) -> None:
        torch.set_num_threads(2)
        scene, view = ordinary(5000), camera()
        expected = render(scene, view, ALL).image  # the workers exist now
        child = os.fork()
        if child == 0:
            os._exit(0 if torch.equal(render(scene, view, ALL).image, expected) else 1)
        assert os.waitpid(child, 0)[1] == 0


def parameters_and_moments(scene: Gaussians) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {
        name: (torch.zeros_like(tensor), torch.zeros_like(tensor)) for name, tensor in scene.named_tensors()
    }


class TestDeferred:
    RATES = {  # noqa: RUF012
        "means": 1e-3,
        "quats": 2e-3,
        "log_scales": 5e-3,
        "logit_opacities": 5e-2,
        "sh0": 2.5e-3,
        "shN": 1.25e-4,
    }

    @pytest.mark.parametrize("coefficients", [1, 4, 9, 16])
    @pytest.mark.parametrize("antialiased", [False, True], ids=["classic", "antialiased"])
    def test_equals_autograd_and_adam(self, coefficients: int, antialiased: bool) -> None:
        """Five steps. Some Gaussians are never seen: dense Adam lets their moments decay.

        The gradients are the same numbers, computed by the same kernel; the penalties and Adam differ from
        torch's by the rounding of some ten operations of 6e-8. A step is at most the rate, so values may
        differ by a thousandth of it, except where g / sqrt(v) amplifies rounding of gradients near zero.
        """
        fused = replace(ordinary(333, coefficients), antialiased=antialiased)
        fused.means[::5, 2] -= 50
        plain = fused.clone().requires_grad_()
        sh0, rest = plain.sh[:, :1].detach().clone(), plain.sh[:, 1:].detach().clone()
        sh0.requires_grad_()
        rest.requires_grad_()
        groups = {name: getattr(plain, name) for name in PARAMETERS[:4]} | {"sh0": sh0, "shN": rest}
        optimizer = torch.optim.Adam(
            [{"params": [tensor], "lr": self.RATES[name]} for name, tensor in groups.items()], eps=1e-15
        )
        moments = parameters_and_moments(fused)
        target = torch.rand(52, 70, 3, generator=torch.Generator().manual_seed(2))
        for step in range(1, 6):
            deferred = Deferred()
            output = render(fused, camera(), RenderOptions(deferred=deferred, backend="cpu"))
            ((output.image - target) ** 2).mean().backward()
            deferred.step(fused, moments, self.RATES, step=step, penalties={"opacity": 0.01, "scale": 0.02})
            optimizer.zero_grad()
            scene = replace(plain, sh=torch.cat([sh0, rest], 1))
            image = render(scene, camera(), RenderOptions(backend="cpu")).image
            loss = ((image - target) ** 2).mean()
            (loss + 0.01 * plain.opacities().mean() + 0.02 * plain.scales().mean()).backward()
            optimizer.step()
        expected = {name: getattr(plain, name).detach() for name in PARAMETERS[:4]}
        expected["sh"] = torch.cat([sh0, rest], 1).detach()
        for name, value in expected.items():
            difference = (getattr(fused, name) - value).abs()
            rate = self.RATES["shN" if name == "sh" else name]
            assert difference.median() <= 1e-3 * rate, name
            assert torch.quantile(difference.flatten(), 0.999) <= 1e-2 * rate, name

    def test_statistics_come_with_it(self) -> None:
        scene = ordinary(200)
        plain = render(scene.clone().requires_grad_(), camera(), ALL)
        plain.image.sum().backward()
        output = render(scene, camera(), replace(ALL, deferred=Deferred()))
        output.image.sum().backward()
        assert torch.equal(output.means2d_grad, plain.means2d_grad)
        assert torch.equal(output.means2d_absgrad, plain.means2d_absgrad)
        assert output.means2d_grad.any()

    def test_threads_do_not_change_a_bit(self) -> None:
        results = []
        for threads in (1, 3):
            torch.set_num_threads(threads)
            scene, deferred = ordinary(5000), Deferred()
            render(scene, camera(), RenderOptions(deferred=deferred, backend="cpu")).image.sum().backward()
            deferred.step(scene, parameters_and_moments(scene), self.RATES, step=1)
            results.append(scene)
        for name in PARAMETERS:
            assert torch.equal(getattr(results[0], name), getattr(results[1], name)), name

    def test_without_a_backward_the_gradients_are_zero(self) -> None:
        scene, deferred = ordinary(50), Deferred()
        before = scene.clone()
        render(scene, camera(), RenderOptions(deferred=deferred, backend="cpu"))
        deferred.step(scene, parameters_and_moments(scene), self.RATES, step=1)
        assert torch.equal(scene.means, before.means)
        assert torch.equal(scene.sh, before.sh)

    def test_misuse(self) -> None:
        scene, deferred = ordinary(10), Deferred()
        moments = parameters_and_moments(scene)
        with pytest.raises(UsageError, match="before a render"):
            deferred.step(scene, moments, self.RATES, step=1)
        render(scene, camera(), RenderOptions(deferred=deferred, backend="cpu"))
        with pytest.raises(UsageError, match="one render"):
            render(scene, camera(), RenderOptions(deferred=deferred, backend="cpu"))
        with pytest.raises(ValueError, match="expected the 10"):
            deferred.step(ordinary(11), moments, self.RATES, step=1)
        with pytest.raises(ValueError, match="step"):
            deferred.step(scene, moments, self.RATES, step=0)
        halves = {name: (first.half(), second) for name, (first, second) in moments.items()}
        with pytest.raises(TypeError, match="exp_avg of means"):
            deferred.step(scene, halves, self.RATES, step=1)
        with pytest.raises(ValueError, match="penalties"):
            deferred.step(scene, moments, self.RATES, step=1, penalties={"colour": 1.0})
