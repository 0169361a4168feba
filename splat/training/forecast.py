"""How long a run will take on this machine and how much memory, from a few steps taken on the spot.

A step costs so much for each pixel and so much for each Gaussian: its time is measured at two counts, on a few of the
scene's own photographs, and a line through both is taken at the counts to come. Large photographs are averaged down
for it, to two sizes, and lines through those lead to the full one. Left out are the scores on held-out views and what
strategies do in single steps far ahead (pruning, codebooks).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from splat.core.sh import coefficients
from splat.data import Dataset, Points, Scene
from splat.data.points import camera_radius
from splat.training import memory
from splat.training.config import InitConfig, TrainConfig
from splat.training.session import assemble
from splat.training.strategy import Strategy

COUNTS = (10_000, 40_000)  # Gaussians at which a step is timed
_VIEWS = 6
_PIXELS = 300_000  # of a photograph, above which smaller ones are timed
# Bytes that a step holds for each pixel: 110 to 130 between 0.1 and 2 megapixels (fox, on a CPU).
_PIXEL_BYTES = 120
_WARM = 4  # steps: buffers grow, the harmonics reach their degree
_STEPS = (4, 24)  # timed, at least and at most
_SECONDS = 1.5  # for each count, if the least number of steps allows


@dataclass(frozen=True)
class Pace:
    """What was measured.

    Attributes:
        counts, seconds: Gaussians, and the time of a step with so many, at the resolution of the run.
        photograph: seconds to decode and undistort one, several at a time.
        resident: bytes that the process holds with the larger count.
    """

    counts: tuple[int, int]
    seconds: tuple[float, float]
    photograph: float
    resident: int

    def step(self, count: float) -> float:
        """Seconds that a step takes with `count` Gaussians; never less than with none."""
        slope = (self.seconds[1] - self.seconds[0]) / (self.counts[1] - self.counts[0])
        return max(self.seconds[0] + max(slope, 0.0) * (count - self.counts[0]), 0.2 * self.seconds[0])


@dataclass(frozen=True)
class Forecast:
    """A run to come.

    Attributes:
        start, count: Gaussians at the beginning and at the end.
        seconds, nbytes: time of its steps, peak memory.
        at_least: the number of Gaussians is the scene's to decide, and is taken as it begins.
    """

    start: int
    count: int
    seconds: float
    nbytes: int
    at_least: bool


def measure(scene: Scene, config: TrainConfig, build: Callable[[], Sequence[Strategy]]) -> Pace:
    """Time steps of `config` on the scene, with its strategies made anew for each count.

    Raises:
        DatasetError: a photograph is damaged.
        DeviceError: the configuration names a device that is not there.
    """
    stride = max(1, len(scene.frames) // _VIEWS)
    frames = scene.frames[::stride][:_VIEWS]
    full = max(frame.camera.width * frame.camera.height for frame in scene.frames)
    wanted = full / config.downscale**2
    near = max(config.downscale, math.sqrt(full / _PIXELS))
    scales = (near,) if near == config.downscale else (near, 2 * near)
    typical: list[float] = []
    timings: list[_Timing] = []
    photograph, resident = 0.0, 0
    for count in COUNTS:
        known = scene.points
        points = spread(known, count) if known is not None and len(known) else shell(scene, count)
        few = replace(scene, frames=frames, points=points, test_names=None, warnings=[], notes=[])
        short = replace(
            config,
            init=InitConfig(source="points"),
            max_gaussians=count,
            sh_interval=1,
            progressive=0,
            eval=False,
        )
        times = []
        for scale in scales:
            with Dataset(few, downscale=scale) as dataset:
                began = time.perf_counter()
                dataset.prefetch(range(len(dataset)))  # by the threads, and with the memory, of a run
                for index in range(len(dataset)):
                    dataset.photo(index)
                photograph = (time.perf_counter() - began) / len(dataset)
                timings.append(_time_steps(short, dataset, build()))
                times.append(timings[-1].typical)
                resident = max(resident, memory.resident())
        pixels = [full / scale**2 for scale in scales]
        rise = max(0.0, (times[0] - times[1]) / (pixels[0] - pixels[1])) if len(times) > 1 else 0.0
        typical.append(times[0] + rise * (wanted - pixels[0]))
    resident += int(_PIXEL_BYTES * (wanted - full / near**2))
    # What else the machine does disturbs the clock, step by step, more than the processor's time: how both relate is
    # taken from all steps together.
    busy = sum(timing.clock for timing in timings) / max(sum(timing.typical for timing in timings), 1e-9)
    return Pace(COUNTS, (busy * typical[0], busy * typical[1]), photograph, resident)


@dataclass(frozen=True)
class _Timing:
    """Seconds of a step: by the clock, on average; and in the middle, by the processor where the CPU trains."""

    clock: float
    typical: float


def _time_steps(config: TrainConfig, dataset: Dataset, strategies: Sequence[Strategy]) -> _Timing:
    session = assemble(config, dataset, strategies)
    on_cpu = session.device.type == "cpu"
    clock, typical = [], []
    for number in range(_WARM + _STEPS[1]):
        began, used = time.perf_counter(), time.process_time()
        session.trainer.step()
        if not on_cpu:
            torch.cuda.synchronize(session.device)
        if number < _WARM:
            continue
        clock.append(time.perf_counter() - began)
        typical.append(time.process_time() - used if on_cpu else clock[-1])
        if len(clock) >= _STEPS[0] and sum(clock) > _SECONDS:
            break
    return _Timing(sum(clock) / len(clock), sorted(typical)[len(typical) // 2])


def spread(points: Points, count: int) -> Points:
    """`count` points that fill the space as these do: some of them, or all with others strewn between neighbours."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(points), (max(0, count - len(points)),), generator=generator)
    kept = torch.randperm(len(points), generator=generator)[:count]
    xyz, rgb = points.xyz[kept], points.rgb[kept]
    if len(chosen):
        from splat.training.initialise import neighbour_distances

        apart = neighbour_distances(points.xyz.float(), fallback=1.0).double()[chosen, None]
        strewn = points.xyz[chosen] + 0.5 * apart * torch.randn(len(chosen), 3, generator=generator).double()
        xyz, rgb = torch.cat([xyz, strewn]), torch.cat([rgb, points.rgb[chosen]])
    return Points(xyz, rgb)


def shell(scene: Scene, count: int) -> Points:
    """`count` points on a sphere where the object or, from inside, the surroundings may be.

    For scenes without points: the fog of random Gaussians that their runs begin with costs several times as much as
    the surfaces that it soon turns into.
    """
    centre, radius = camera_radius([frame.camera for frame in scene.frames])
    if scene.bounds is not None:
        # Half as wide as what the format promises.
        centre, radius = torch.zeros_like(centre), scene.bounds / 4
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    xyz = centre + 2 * max(radius, 1e-3) * torch.nn.functional.normalize(directions, dim=1)
    return Points(xyz, torch.randint(0, 256, (count, 3), generator=generator, dtype=torch.uint8))


def forecast(
    config: TrainConfig, scene: Scene, pace: Pace, counts: Callable[[int, int], list[int] | None]
) -> Forecast:
    """What a run of `config` on the scene takes.

    Args:
        config: with a number of steps.
        counts: from the Gaussians at the beginning and the cap to how many there are at each step; None where
            nobody can tell.
    """
    device = torch.device("cpu")
    k = coefficients(config.sh_degree)
    cap = config.max_gaussians or memory.cap_from_memory(device, k, config.moments)
    points = len(scene.points) if scene.points is not None else 0
    start = min(points or config.init.count, cap)
    assert config.steps is not None
    numbers = counts(start, cap)
    if numbers is None:
        seconds, count = config.steps * pace.step(start), start
    else:
        seconds, count = sum(map(pace.step, numbers)), max(numbers)
    seconds += len(scene.frames) * pace.photograph
    pixels = sum(frame.camera.width * frame.camera.height for frame in scene.frames)
    photographs = min(3 * pixels / config.downscale**2, 4 << 30)
    held = (
        pace.resident + photographs + (count - pace.counts[1]) * memory.bytes_per_gaussian(k, config.moments)
    )
    return Forecast(start, count, seconds, int(held), numbers is None)
