"""Steps as replays of a captured graph, emulated: a replay is a step, to the bit."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from emulated_backend import EmulatedBackend, EmulatedGraph
from torch import Tensor

from splat import _emulated
from splat.raster import registry
from splat.raster.cuda import CudaBackend
from splat.raster.guard import CudaGraph
from splat.strategies.registry import build
from splat.training import gpu
from splat.training.context import Context
from splat.training.fastest import BLOCK, ROUNDS, Fastest
from splat.training.replays import WARM
from splat.training.session import Session
from splat.training.strategy import Strategy

STEPS = 22


class EmulatedCaptured(EmulatedBackend):
    name = "emulated captured"

    def __init__(self) -> None:
        super().__init__(captured=True)


class Refining(Strategy):
    """Doubles the Gaussians after the ninth step, which they lack room for, and says that it is otherwise still."""

    name = "refining"
    config_type = type(None)

    def __init__(self) -> None:
        super().__init__(None)

    def runs_ahead(self, ctx: Context) -> bool:
        return ctx.step != 8

    def repeats(self, ctx: Context) -> int:
        return 0

    def after_step(self, ctx: Context) -> None:
        if ctx.step == 8:
            ctx.edits.copy(torch.arange(len(ctx.gaussians)))


@pytest.fixture
def on_kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tensors on the CPU are trained by the GPU's kernels, whose sums have one order."""
    for name, maker in (
        ("emulated", "emulated_backend:EmulatedBackend"),
        ("captured", f"{__name__}:EmulatedCaptured"),
    ):
        monkeypatch.setitem(registry._BACKENDS, name, maker)
    registry._load.cache_clear()
    monkeypatch.setattr(gpu, "kernels_for", lambda *tensors: _emulated)
    monkeypatch.setattr("splat.strategies.kernels._native_fits", lambda *tensors: False)
    monkeypatch.setattr(
        "splat.training.trainer.photometric",
        lambda image, target, mask, weight: gpu.photometric(_emulated, image, target, mask, weight),
    )
    _emulated.seed(1, every_launch=True)
    yield
    _emulated.seed(0)


@contextmanager
def counted(kind: type, method: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    calls: list[Any] = []
    plain = getattr(kind, method)

    def call(self: Any, *args: Any) -> Any:
        calls.append(method)
        return plain(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(kind, method, call)
        yield calls


def trained(session: Session, steps: int = STEPS) -> dict[str, Tensor]:
    trainer = session.trainer
    for _ in range(steps):
        trainer.step()
    trainer.settle()
    assert trainer.ctx.step == steps
    assert trainer.ctx.optimizer.count == steps
    state = dict(trainer.ctx.gaussians.named_tensors()) | trainer.ctx.edits.state
    for name, moments in trainer.ctx.optimizer.moments.items():
        state |= {f"{name} {i}": moment for i, moment in enumerate(moments)}
    if trainer.poses is not None:
        state |= {"poses": trainer.poses.rows, "counts": torch.tensor(trainer.poses.counts)}
    return state | {"loss": torch.tensor(trainer.loss), "generator": trainer.ctx.generator.get_state()}


@pytest.mark.parametrize(
    ("density", "settings"),
    [
        ("mcmc", {"background": "random"}),
        ("default", {}),
        ("mcmc", {"poses": True, "moments": "quantized"}),
    ],
    ids=["mcmc", "default", "poses quantized"],
)
def test_emulated_replays_are_steps(
    density: str,
    settings: dict[str, Any],
    start: Callable[..., Session],
    on_kernels: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Through changes of view, background, rates and the degree in use, a refinement, and refusals at the start and
    after it: all that the run holds afterwards, the generator too."""

    def run(backend: str) -> dict[str, Tensor]:
        options = {"steps": STEPS, "sh_interval": 15, **settings}  # the degree grows during replays
        return trained(start([*build([density]), Refining()], backend=backend, **options))

    expected = run("emulated")
    with (
        counted(EmulatedGraph, "capture", monkeypatch) as captures,
        counted(EmulatedGraph, "replay", monkeypatch) as replays,
    ):
        got = run("captured")
    assert len(captures) >= 3  # anew after the refinement and with the degree
    assert len(replays) >= STEPS // 3
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert torch.equal(
            got[name],
            value,
        ) or (name == "loss" and value.isnan()), name


class Baked(Refining):
    """Moves the centres by a number that changes, and does not say so."""

    def after_step(self, ctx: Context) -> None:
        ctx.gaussians.means.add_(1e-3 * ctx.step)


class Shy(Baked):
    """Says that no step of its is like another."""

    def repeats(self, ctx: Context) -> None:
        return None


def test_emulated_replay_shows_what_was_baked_in(start: Callable[..., Session], on_kernels: None) -> None:
    plain = trained(start([*build(["default"]), Baked()], backend="emulated"), 8)
    replayed = trained(start([*build(["default"]), Baked()], backend="captured"), 8)
    assert not torch.equal(plain["means"], replayed["means"])


def test_emulated_steps_that_are_like_no_other_are_not_captured(
    start: Callable[..., Session], on_kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = trained(start([*build(["default"]), Shy()], backend="emulated"), 8)
    with counted(EmulatedGraph, "capture", monkeypatch) as captures:
        replayed = trained(start([*build(["default"]), Shy()], backend="captured"), 8)
    assert not captures
    assert torch.equal(plain["means"], replayed["means"])


class Reading(Refining):
    """Reads a number of the device."""

    def after_step(self, ctx: Context) -> None:
        assert float(ctx.gaussians.means.sum()) < 1e9


def test_emulated_what_cannot_be_captured_is_taken_step_by_step(
    start: Callable[..., Session], on_kernels: None
) -> None:
    plain = trained(start([*build(["mcmc"]), Reading()], backend="emulated"), 8)
    with pytest.warns(UserWarning, match="cannot be captured as a graph here: a number is read"):
        replayed = trained(start([*build(["mcmc"]), Reading()], backend="captured"), 8)
    for name, value in plain.items():
        assert torch.equal(replayed[name], value), name


def test_emulated_the_fastest_way_is_found_and_kept(
    start: Callable[..., Session], on_kernels: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four ways whose steps take what the clock below says; graphs are made for those that need one."""
    taken: list[Any] = []

    class Clock:
        now = 0.0

        def mark(self) -> float:
            way = session.trainer._replays._fastest.way
            taken.append(way)
            self.now += {"pixels": 3.0, "splats": 2.0}[way.backward] - 0.5 * way.captured
            return self.now

        def milliseconds(self, begin: float, end: float) -> float:
            return end - begin

    monkeypatch.setattr("splat.training.replays.FIRST", 2)
    session = start([*build(["mcmc"])], backend="emulated", steps=200)
    backend = EmulatedBackend(backward=None, captured=None)
    monkeypatch.setattr(backend, "clock", lambda device: Clock(), raising=False)
    monkeypatch.setattr(session.trainer._replays, "_backend", backend)
    monkeypatch.setattr(session.trainer._replays, "_ways", list(backend.ways))
    monkeypatch.setattr(session.trainer._replays, "_fastest", None)
    with counted(EmulatedGraph, "replay", monkeypatch) as replays:
        trained(session, 2 + WARM + 4 * BLOCK * ROUNDS + 5)
    assert len(backend.ways) == 4
    assert [taken.count(way) for way in backend.ways] == [BLOCK * ROUNDS] * 4
    chosen = session.trainer._replays._fastest.chosen
    assert (chosen.backward, chosen.captured) == ("splats", True)
    assert len(replays) > 2 * ROUNDS * (BLOCK - 1)


class TestFastest:
    class Late:
        """A clock that knows a time when it has been asked twice."""

        def __init__(self, durations: dict[str, list[float]]) -> None:
            self.durations, self.now, self.asked = durations, 0.0, 0
            self.choice: Fastest[str]

        def mark(self) -> float:
            self.now += self.durations[self.choice.way].pop(0)
            return self.now

        def milliseconds(self, begin: float, end: float) -> float | None:
            self.asked += 1
            return end - begin if self.asked % 2 == 0 else None

    def choice(self, durations: dict[str, list[float]]) -> Fastest[str]:
        clock = self.Late(durations)
        clock.choice = Fastest(list(durations), clock)
        return clock.choice

    def test_one_way_needs_no_clock(self) -> None:
        choice = Fastest(["only"], None)
        choice.took()
        assert choice.way == choice.chosen == "only"

    def test_the_median_decides(self) -> None:
        """Steps of a take 2, with a hindrance of 100 now and then and slow first steps; steps of b take 3."""
        a = [50.0, 2.0, 2.0, 100.0, 2.0, 2.0] * 20
        choice = self.choice({"a": a, "b": [3.0] * 200})
        for _ in range(2 * ROUNDS * BLOCK + 30):
            choice.took()
        assert choice.chosen == "a"
        assert dict(choice.times) == {"a": 2.0, "b": 3.0}

    def test_an_interrupted_block_begins_anew(self) -> None:
        choice = self.choice({"a": [1.0] * 100, "b": [1.0] * 100})
        for _ in range(BLOCK - 1):
            choice.took()
        choice.interrupted()
        for _ in range(BLOCK):
            assert choice.way == "a"
            choice.took()
        assert choice.way == "b"


class CudaCaptured(CudaBackend):
    name = "cuda captured"

    def __init__(self) -> None:
        super().__init__(backward="pixels", captured=True)


class CudaPlain(CudaBackend):
    name = "cuda plain"

    def __init__(self) -> None:
        super().__init__(backward="pixels", captured=False)


@pytest.mark.cuda
@pytest.mark.parametrize(
    "settings", [{}, {"poses": True, "moments": "quantized"}], ids=["plain", "poses quantized"]
)
def test_replays_are_steps_on_the_device(
    settings: dict[str, Any], start: Callable[..., Session], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To rounding, as sums have any order there: each step adds that of a gradient over 24 x 20 pixels, four times as
    terms of both signs cancel."""
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    for name in ("CudaCaptured", "CudaPlain"):
        monkeypatch.setitem(registry._BACKENDS, name, f"{__name__}:{name}")
    steps, states = 10, []
    for backend in ("CudaPlain", "CudaCaptured"):
        session = start(build(["mcmc"]), backend=backend, device="cuda", **settings)
        before = session.trainer.ctx.gaussians.means.clone()
        with counted(CudaGraph, "replay", monkeypatch) as replays, warnings.catch_warnings():
            warnings.filterwarnings("error", message="a training step cannot be captured")
            states.append(trained(session, steps)["means"] - before)
        assert bool(replays) == (backend == "CudaCaptured")
    plain, replayed = states
    assert (replayed - plain).norm() <= steps * 4 * 480 * 2**-24 * plain.norm()
