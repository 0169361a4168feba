"""The GPU backend against the reference in float64 and the CPU backend, under emulation and, where there is a
GPU, on it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from agreement import FLIP_SHARE, assert_gradients_agree, assert_outputs_agree
from hostile import OUTPUTS, SCENES, STATISTICS, camera, ordinary, run
from torch import Tensor

from splat import _emulated
from splat.core import Camera, DeviceError, Gaussians
from splat.core.gaussians import PARAMETERS
from splat.raster import RenderOptions, registry, render
from splat.raster.native import Deferred
from splat.raster.options import NEEDS
from splat.training import gpu
from splat.training import moments as quantized

DEVICES = {"emulated": "cpu", "cpu": "cpu", "cuda": "cuda"}


@pytest.fixture(params=["emulated", pytest.param("cuda", marks=pytest.mark.cuda)])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setitem(registry._BACKENDS, "emulated", "emulated_backend:EmulatedBackend")
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    return request.param


@pytest.fixture(autouse=True)
def _seed() -> None:
    _emulated.seed(0)


def on(backend: str, scene: Gaussians) -> Gaussians:
    return scene.to(DEVICES[backend])


@pytest.mark.parametrize("antialiased", [False, True], ids=["classic", "antialiased"])
@pytest.mark.parametrize("kind", SCENES)
def test_outputs_and_gradients(backend: str, kind: str, antialiased: bool) -> None:
    scene, view = replace(SCENES[kind](600), antialiased=antialiased), camera()
    channels = 11 if kind == "ordinary" else 5  # more than a thread holds at a time
    got, gradients = run(scene, view, backend, torch.float32, features=channels, device=DEVICES[backend])
    truth, expected = run(scene, view, "reference", torch.float64, features=channels)
    assert_outputs_agree(got, truth)
    assert_gradients_agree(gradients, expected)


@pytest.mark.parametrize("kind", ["ordinary", "needles", "crowd", "opacities", "certain", "inside"])
def test_gradients_by_splats(backend: str, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other way to differentiate the blend, from checkpoints.

    It takes what lies behind a splat as a difference of sums, so that a gradient at transmittance T errs by 2^-24 / T
    more, against which `inside` pits hundreds of faint Gaussians: there it is held to the norm alone.
    """
    by_splats = f"{backend} by splats"
    monkeypatch.setitem(registry._BACKENDS, by_splats, f"emulated_backend:{backend.title()}BySplats")
    scene, view = SCENES[kind](300), camera()
    got, gradients = run(scene, view, by_splats, torch.float32, device=DEVICES[backend])
    plain, plain_gradients = run(scene, view, backend, torch.float32, device=DEVICES[backend])
    assert torch.equal(got.image, plain.image)
    for name, value in plain_gradients.items():
        assert (gradients[name] - value).norm() <= 1e-4 * value.norm(), name
    assert not torch.equal(gradients["means"], plain_gradients["means"])  # it is another way
    for name in STATISTICS:
        value = getattr(plain, name)
        assert (getattr(got, name) - value).norm() <= 1e-4 * value.norm(), name
    if kind != "inside":
        _, expected = run(scene, view, "reference", torch.float64)
        assert_gradients_agree(gradients, expected)


@pytest.mark.parametrize(
    ("width", "height"), [(1, 1), (1, 40), (40, 1), (17, 33), (330, 40), (20, 560)], ids=str
)
def test_any_size(backend: str, width: int, height: int) -> None:
    """In the larger ones some splats touch more tiles, and more rows of them, than a warp has lanes."""
    scene, view = ordinary(120), camera(width, height)
    scene.log_scales[:4] += 4
    scene.logit_opacities[:4] = -3
    got, gradients = run(scene, view, backend, torch.float32, device=DEVICES[backend])
    expected, expected_gradients = run(scene, view, "cpu", torch.float32)
    error = (got.image.detach().cpu() - expected.image.detach()).abs().amax(-1)
    assert (error > 2e-5).double().mean() <= FLIP_SHARE
    assert torch.equal(got.radii.cpu(), expected.radii)
    for name, value in expected_gradients.items():
        difference = (gradients[name].cpu() - value).norm()
        assert difference <= 1e-3 * value.norm(), name


@pytest.mark.parametrize("coefficients", [1, 4, 9, 16])
@pytest.mark.parametrize("limit", [None, 1])
def test_harmonics_of_every_degree(backend: str, coefficients: int, limit: int | None) -> None:
    scene = ordinary(200, coefficients)
    results = []
    for name, device in ((backend, DEVICES[backend]), ("cpu", "cpu")):
        inputs = scene.to(device).clone().requires_grad_()
        image = render(inputs, camera(), RenderOptions(sh_degree=limit, backend=name)).image
        (image**2).sum().backward()
        results.append((image.detach().cpu(), {n: t.grad.double() for n, t in inputs.named_tensors()}))
    (got, gradients), (truth, expected) = results
    assert ((got - truth).abs().amax(-1) > 2e-5).double().mean() <= FLIP_SHARE
    assert_gradients_agree(gradients, {name: value.cpu() for name, value in expected.items()})


@pytest.mark.parametrize("needs", [(), ("absgrad",), ("depth",), ("ids",), ("contribution",)], ids=str)
def test_each_variant_of_the_kernels(backend: str, needs: tuple[str, ...]) -> None:
    """Whatever else is asked for, the picture and its gradients are the same; order changes rounding alone."""

    def differentiate(asked: frozenset[str]) -> tuple[Tensor, dict[str, Tensor]]:
        scene = on(backend, ordinary(300)).requires_grad_()
        output = render(scene, camera(), RenderOptions(needs=asked, backend=backend))
        loss = output.image.sum()
        if output.depth is not None:
            loss = loss + 0 * output.depth.sum()
        loss.backward()
        return output.image.detach(), {name: tensor.grad for name, tensor in scene.named_tensors()}

    image, gradients = differentiate(frozenset(needs))
    everything, expected = differentiate(NEEDS)
    assert torch.equal(image, everything)
    for name, value in expected.items():
        assert (gradients[name] - value).norm() <= 1e-5 * value.norm(), name


def test_emulated_order_of_threads_changes_sums_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures to the bit; what is added up with atomics to rounding."""
    monkeypatch.setitem(registry._BACKENDS, "emulated", "emulated_backend:EmulatedBackend")
    results = []
    for seed in range(3):
        _emulated.seed(seed)
        results.append(run(ordinary(300), camera(), "emulated", torch.float32, features=2))
    output, gradients = results[0]
    for other, other_gradients in results[1:]:
        for name in (*OUTPUTS, "ids", "radii"):
            assert torch.equal(getattr(output, name), getattr(other, name)), name
        for name in STATISTICS:
            a, b = getattr(output, name), getattr(other, name)
            assert (a - b).norm() <= 1e-5 * a.norm(), name
        for name, value in gradients.items():
            assert (other_gradients[name] - value).norm() <= 1e-5 * value.norm(), name


class TestDegenerate:
    def draw(self, backend: str, scene: Gaussians, view: Camera) -> list[Tensor]:
        scene = on(backend, scene).clone().requires_grad_()
        output = render(scene, view, RenderOptions(needs=NEEDS, backend=backend))
        (output.image.sum() + output.alpha.sum() + output.depth.sum() + output.median_depth.sum()).backward()
        return [output.image.detach(), *(tensor.grad for _, tensor in scene.named_tensors())]

    def test_no_gaussians(self, backend: str) -> None:
        background = torch.tensor([0.1, 0.2, 0.3], device=DEVICES[backend])
        scene = on(backend, ordinary(0)).requires_grad_()
        output = render(scene, camera(), RenderOptions(background=background, needs=NEEDS, backend=backend))
        assert torch.equal(output.image, background.expand_as(output.image))
        assert (output.ids == -1).all()
        output.image.sum().backward()
        assert scene.means.grad.shape == (0, 3)

    def test_nothing_in_view(self, backend: str) -> None:
        scene = ordinary(50)
        scene.means[:, 2] -= 100
        image, *gradients = self.draw(backend, scene, camera())
        assert not image.any()
        assert not any(gradient.any() for gradient in gradients)

    @pytest.mark.parametrize("name", PARAMETERS)
    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e38])
    def test_absurd_values_spoil_only_their_own_gaussian(self, backend: str, name: str, value: float) -> None:
        scene, view = ordinary(64), camera()
        kept = torch.arange(64) % 8 != 3
        without = self.draw(backend, scene.select(kept), view)
        getattr(scene, name)[3::8] = value
        tensors = self.draw(backend, scene, view)
        assert all(torch.isfinite(t).all() for t in tensors)
        if value != value:
            assert torch.equal(tensors[0], without[0])
            for got, expected in zip(tensors[1:], without[1:], strict=True):
                assert (got[kept] - expected).norm() <= 1e-5 * expected.norm()
                assert not got[~kept].any()

    def test_a_pile_in_one_pixel(self, backend: str) -> None:
        """Many batches in one tile, none of which ends the pixel."""
        scene = ordinary(1200)
        scene.means[:] = torch.tensor([0.0, 0.0, 3.0])
        scene.log_scales[:] = torch.tensor([-4.0, -4.5, -3.5])  # a ball's rotation has no gradient
        scene.logit_opacities[:] = -5.2
        image, *gradients = self.draw(backend, scene, camera())
        expected, *truth = self.draw("cpu", scene, camera())
        # The transmittance falls by 1200 factors, each rounded: 1200 x 6e-8.
        assert torch.allclose(image.cpu(), expected, atol=1e-4)
        for got, value in zip(gradients, truth, strict=True):
            assert (got.cpu() - value).norm() <= 1e-3 * value.norm()


class TestDeferred:
    RATES = {  # noqa: RUF012
        "means": 1e-3,
        "quats": 2e-3,
        "log_scales": 5e-3,
        "logit_opacities": 5e-2,
        "sh0": 2.5e-3,
        "shN": 1.25e-4,
    }

    def moments(self, scene: Gaussians) -> dict[str, tuple[Tensor, Tensor]]:
        return {name: (torch.zeros_like(t), torch.zeros_like(t)) for name, t in scene.named_tensors()}

    @pytest.mark.parametrize("coefficients", [1, 4, 9, 16])
    def test_equals_the_cpu_backend(self, backend: str, coefficients: int) -> None:
        """Three steps with penalties, of what was rendered rounded to 1/64. Some Gaussians are never seen.

        A step is at most the rate; values may differ by a thousandth of it, except where g / sqrt(v) amplifies
        rounding of gradients near zero.
        """
        start = ordinary(200, coefficients)
        start.means[::5, 2] -= 50
        target = torch.rand(52, 70, 3, generator=torch.Generator().manual_seed(2))
        scenes = {}
        for name, device in ((backend, DEVICES[backend]), ("cpu", "cpu")):
            scene = start.to(device).clone()
            moments = self.moments(scene)
            for step in range(1, 4):
                deferred = Deferred()
                shown = scene.map(lambda t: (64 * t).round() / 64)
                output = render(shown, camera(), RenderOptions(deferred=deferred, backend=name))
                ((output.image - target.to(device)) ** 2).mean().backward()
                penalties = {"opacity": 0.01, "scale": 0.02}
                deferred.step(scene, moments, self.RATES, step=step, penalties=penalties, shown=shown)
            scenes[name] = scene.to("cpu")
        for name, value in scenes["cpu"].named_tensors():
            difference = (getattr(scenes[backend], name) - value).abs()
            rate = self.RATES["shN" if name == "sh" else name]
            assert difference.median() <= 1e-3 * rate, name
            assert torch.quantile(difference.flatten(), 0.99) <= 1e-2 * rate, name
            assert not torch.equal(value, getattr(start, name))

    def test_harmonics_in_halves(self, backend: str) -> None:
        """They are drawn as what they are in float32, and stepped like those but for the rounding, at random.

        A rate of 2^-9 beside values in [0.5, 1), whose unit is 2^-11 as a half, is four units a step; the last rate
        is a quarter of one.
        """
        start = ordinary(200, 16)
        start.sh = (
            (0.5 + 0.49 * torch.rand(start.sh.shape, generator=torch.Generator().manual_seed(7)))
            .half()
            .float()
        )
        start.sh[0, 0] = torch.tensor([-6e-5, 6e-8, 0.0])  # below the normal range
        start.means[::5, 2] -= 50
        drawer: Any = registry.backend(backend, on(backend, start).device)
        for rate in (0.0, 2.0**-9, 2.0**-13):
            moved = {}
            for dtype in (torch.float16, torch.float32):
                scene = on(backend, start).clone()
                scene.sh = scene.sh.to(dtype)
                before = scene.sh.float().clone()
                moments = {
                    name: quantized.zeros(name, t.float(), "quantized") for name, t in scene.named_tensors()
                }
                rates = dict.fromkeys(self.RATES, 0.0) | {"sh0": rate, "shN": rate}
                options = RenderOptions(deferred=Deferred(), backend=backend)
                image = drawer.render(scene, camera(), options).image
                image.sum().backward()
                options.deferred.step(scene, moments, rates, step=1)
                assert scene.sh.dtype == dtype
                moved[dtype] = (image.detach(), scene.sh.float() - before)
            (image, halves), (expected, full) = moved[torch.float16], moved[torch.float32]
            assert torch.equal(image, expected)
            if rate == 0:
                assert not halves.any()
                continue
            off = (halves - full)[1:]
            assert off.abs().max() < 2.0**-11
            seen = full[1:] != 0
            assert seen.double().mean() > 0.2
            # Each is rounded up or down by itself: the mean of n is off by a unit / sqrt(n) once in 10^9 at most, as
            # half a unit is the most that one deviates.
            assert abs(float(off[seen].double().mean())) <= 3.3 * 2.0**-11 / float(seen.sum()) ** 0.5

    def test_without_a_backward_the_gradients_are_zero(self, backend: str) -> None:
        scene, deferred = on(backend, ordinary(50)), Deferred()
        before = scene.clone()
        render(scene, camera(), RenderOptions(deferred=deferred, backend=backend))
        deferred.step(scene, self.moments(scene), self.RATES, step=1)
        assert torch.equal(scene.means, before.means)
        assert torch.equal(scene.sh, before.sh)

    def test_statistics_come_with_it(self, backend: str) -> None:
        scene = on(backend, ordinary(200))
        plain = render(scene.clone().requires_grad_(), camera(), RenderOptions(needs=NEEDS, backend=backend))
        plain.image.sum().backward()
        options = RenderOptions(needs=NEEDS, backend=backend, deferred=Deferred())
        output = render(scene, camera(), options)
        output.image.sum().backward()
        assert output.means2d_grad.any()
        for name in ("means2d_grad", "means2d_absgrad"):
            expected = getattr(plain, name)
            assert (getattr(output, name) - expected).norm() <= 1e-5 * expected.norm()

    def test_a_step_that_lacks_room_is_refused_with_those_after_it_until_resumed(self, backend: str) -> None:
        small, large = on(backend, ordinary(20)), on(backend, ordinary(4000))
        before, moments = large.clone(), self.moments(large)
        registry._load.cache_clear()  # a backend that has seen no scene
        drawer: Any = registry.backend(backend, large.device)
        guard = drawer.guard(large.device)

        def step(scene: Gaussians, moments: dict[str, tuple[Tensor, Tensor]]) -> Any:
            options = RenderOptions(deferred=drawer.deferred(guard), backend=backend)
            render(scene, camera(), options).image.sum().backward()
            raster = options.deferred._lease.raster
            options.deferred.step(scene, moments, self.RATES, step=1)
            return raster

        def take(scene: Gaussians, moments: dict[str, tuple[Tensor, Tensor]]) -> Any:
            """As the trainer does, but that it waits every time; returns how often the step was refused, too."""
            for tries in range(3):
                raster = step(scene, moments)
                guard.settle()
                if not guard.refused:
                    return raster, tries
                guard.resume()
            raise AssertionError("refused with room for all that was counted")

        first, tries = take(small, self.moments(small))
        assert tries == 1  # nothing was known at first
        room, splats = first.capacity, first.splat_capacity
        for _ in range(3):
            assert step(large, moments) is first
        step(small, self.moments(small))  # there would be room for it
        guard.settle()
        assert guard.refused
        assert guard.taken == 1
        assert guard.native.instances > room
        assert guard.native.visible > splats
        for name, value in before.named_tensors():
            assert torch.equal(getattr(large, name), value), name
        assert not any(moment.any() for pair in moments.values() for moment in pair)
        guard.resume()
        raster, tries = take(large, moments)
        assert tries == 0
        assert guard.taken == 2
        assert raster.capacity >= guard.native.instances
        assert raster.splat_capacity >= guard.native.visible

        # What it took is what a render that waits for its room makes.
        exact, exact_moments = before, self.moments(before)
        options = RenderOptions(deferred=Deferred(), backend=backend)
        render(exact, camera(), options).image.sum().backward()
        options.deferred.step(exact, exact_moments, self.RATES, step=1)
        for name, value in exact.named_tensors():
            # The first step of Adam is as long as the rate; what rounding decides goes either way.
            off = (getattr(large, name) - value).abs() > 1e-3 * self.RATES["shN" if name == "sh" else name]
            assert off.double().mean() <= FLIP_SHARE, name

    def test_emulated_a_steady_guarded_step_allocates_nothing_and_never_waits(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(registry._BACKENDS, "emulated", "emulated_backend:EmulatedBackend")
        registry._load.cache_clear()
        scene = ordinary(300)
        moments = self.moments(scene)
        drawer: Any = registry.backend("emulated", scene.device)
        guard = drawer.guard(scene.device)
        asked: list[int] = []
        allocate = torch.empty

        def counted(*size: Any, **kinds: Any) -> Tensor:
            if kinds.get("dtype") == torch.uint8:
                asked.append(size[0])
            return allocate(*size, **kinds)

        monkeypatch.setattr("splat.raster.cuda.torch.empty", counted)
        tallies = []
        for count in range(8):
            asked.clear()
            before = _emulated.tally()
            deferred = drawer.deferred(guard)
            output = render(scene, camera(), RenderOptions(deferred=deferred, backend="emulated"))
            gpu.photometric(
                _emulated, output.image, torch.zeros(52, 70, 3, dtype=torch.uint8), None, 0.2
            ).backward()
            deferred.step(scene, moments, self.RATES, step=1)
            eta = torch.zeros_like(scene.means)
            g = scene
            gpu.add_noise_(_emulated, g.means, g.quats, g.log_scales, g.logit_opacities, eta, 0.0, guard)
            del output, deferred
            if count == 0:
                assert asked  # the counter counts
                guard.settle()
                guard.resume()
            tallies.append({name: value - before[name] for name, value in _emulated.tally().items()})
        assert tallies[0]["waits"] == 1
        steady = tallies[-1]
        assert not asked
        assert steady["waits"] == 0
        # Autograd's seed and the noise's samples are two launches of torch's.
        assert steady["launches"] + 2 <= 30
        assert steady["fills"] <= 4

    def test_a_picture_without_deferred_is_complete_at_once(self, backend: str) -> None:
        registry._load.cache_clear()
        for count in (20, 4000):
            scene = ordinary(count)
            image = render(on(backend, scene), camera(), RenderOptions(backend=backend)).image.cpu()
            expected = render(scene, camera(), RenderOptions(backend="cpu")).image
            assert ((image - expected).abs().amax(-1) > 2e-5).double().mean() <= FLIP_SHARE


def test_two_renders_before_their_backwards(backend: str) -> None:
    """Each keeps its own state until it has been differentiated."""
    scenes = [on(backend, ordinary(100, seed=i)).requires_grad_() for i in range(2)]
    images = [render(scene, camera(), RenderOptions(backend=backend)).image for scene in scenes]
    for image in images:
        image.sum().backward()
    for i, scene in enumerate(scenes):
        alone = on(backend, ordinary(100, seed=i)).requires_grad_()
        render(alone, camera(), RenderOptions(backend=backend)).image.sum().backward()
        assert (scene.means.grad - alone.means.grad).norm() <= 1e-5 * alone.means.grad.norm()


def test_takes_any_strides(backend: str) -> None:
    scene = on(backend, ordinary(50))
    strided = scene.map(lambda t: torch.stack([t, t], -1)[..., 0])
    options = RenderOptions(backend=backend)
    assert torch.equal(render(strided, camera(), options).image, render(scene, camera(), options).image)


def test_emulated_says_what_came(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._BACKENDS, "emulated", "emulated_backend:EmulatedBackend")
    with pytest.raises(TypeError, match=r"means: expected torch.float32, got torch.float64"):
        render(ordinary(4).to(torch.float64), camera(), RenderOptions(backend="emulated"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_backend_says_so() -> None:
    with pytest.raises(DeviceError, match=r"NVIDIA GPU|not in this installation"):
        render(ordinary(4), camera(), RenderOptions(backend="cuda"))
