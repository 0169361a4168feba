"""What a training run is told: presets, files and flags, in rising order of precedence."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from splat.core import UsageError
from splat.training import schema
from splat.training.optim import Rates

STEPS = 30_000
"""Training steps where neither settings nor strategies say how many."""

Background = Literal["black", "white", "random"]


@dataclass(frozen=True)
class InitConfig:
    """How the first Gaussians are made."""

    source: Literal["auto", "stereo", "points", "matches", "hull", "random"] = "auto"
    """The dataset's points, a cloud by stereo, points of features that match, the hull of silhouettes, or random
    points; by default what suits the dataset, and the log says which and why."""
    scene: str | None = None
    """A scene file to go on from, in the dataset's frame, instead; --sh-interval 1 uses all its harmonics at once."""
    complete: bool = True
    """With stereo: begin with a guess, too, where one view alone or none shows the scene."""
    count: int = 100_000
    """Number of random points; they fill the volume of the cameras, or the cube that the format promises."""
    opacity: float = 0.1
    """Opacity of every Gaussian."""
    scale: float = 1.0
    """Scale of every Gaussian, times the root mean square distance to its 3 nearest neighbours."""


@dataclass(frozen=True)
class TrainConfig:
    """A training run, without its data and its place on disk."""

    preset: str = "default"
    """The preset this configuration began with."""
    steps: int | None = STEPS
    """Number of training steps; every schedule ends with them. None for as many as the strategies want for the number
    of training views."""
    strategies: tuple[str, ...] = ("default",)
    """What decides over the Gaussians, in order; exactly one of them controls density."""
    options: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Options of the strategies, by name of the strategy."""
    downscale: float = 1.0
    """Train on photographs this many times smaller, averaged in memory."""
    eval: bool = False
    """Hold out every 8th photograph by name and score the scene on those."""
    test_every: int = 8
    """Hold out every photograph of this number instead."""
    views: int | None = None
    """Train on this many of the photographs that are not held out, evenly spread, and on nothing that was computed
    with the help of the others: points are triangulated again from these alone."""
    eval_steps: tuple[int, ...] = (7_000, 30_000)
    """Steps after which to score and to keep a checkpoint, besides the end."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes the GPU if there is one that can be used."""
    backend: str = "auto"
    """Rasterizer; auto takes the fastest of the device."""
    seed: int = 42
    """Seed of every random number of the run."""
    max_gaussians: int | None = None
    """Most Gaussians the scene may have; by default what strategies want, else what fits into the free memory."""
    sh_degree: int = 3
    """Degree of the view-dependent colour, 0 to 3."""
    sh_interval: int = 1_000
    """Steps after which the degree in use grows by one."""
    ssim_weight: float = 0.2
    """Share of 1 - SSIM in the loss; the rest is L1."""
    background: Background = "black"
    """Colour behind the scene; random changes every step and is scored on black."""
    moments: Literal["full", "quantized"] = "full"
    """Optimizer moments in 32 bits, or in 8 (harmonics) and 16, with harmonics in 16. Meant for GPUs: on the CPU
    a step takes several times as long."""
    reorder: int = 0
    """Steps after which the Gaussians are put in order along a Morton curve, so that neighbours in space are
    neighbours in memory; 0 for never."""
    antialiased: bool = False
    """Render with opacities compensated for the pixel filter (Mip-Splatting's 2D part)."""
    progressive: int = 0
    """Begin at 1 / 2^this of the resolution and double it this many times."""
    progressive_interval: int = 3_000
    """Steps between two doublings."""
    exposure: bool = False
    """Fit a colour transform to each training photograph, against changes of exposure and white balance."""
    poses: bool = False
    """Refine the camera pose of each training photograph."""
    init: InitConfig = field(default_factory=InitConfig)
    """How the first Gaussians are made."""
    rates: Rates = field(default_factory=Rates)
    """Learning rates."""

    def __post_init__(self) -> None:
        for ok, message in (
            (self.steps is None or self.steps >= 1, f"steps: {self.steps} is not a positive number"),
            (self.downscale >= 1, f"downscale: {self.downscale} would enlarge; give 1 or more"),
            (
                self.test_every >= 2,
                f"test_every: {self.test_every} would leave nothing to train on; give 2 or more",
            ),
            (self.views is None or self.views >= 2, f"views: {self.views} is too few; give 2 or more"),
            (0 <= self.sh_degree <= 3, f"sh_degree: {self.sh_degree} is not 0, 1, 2 or 3"),
            (self.sh_interval >= 1, f"sh_interval: {self.sh_interval} is not a positive number"),
            (self.reorder >= 0, f"reorder: {self.reorder} is not a number of steps, or 0"),
            (0 <= self.ssim_weight <= 1, f"ssim_weight: {self.ssim_weight} is not between 0 and 1"),
            (0 <= self.progressive <= 6, f"progressive: {self.progressive} is not between 0 and 6"),
            (0 < self.init.opacity < 1, f"init.opacity: {self.init.opacity} is not between 0 and 1"),
            (self.init.scale > 0, f"init.scale: {self.init.scale} is not positive"),
            (self.init.count >= 1, f"init.count: {self.init.count} is not a positive number"),
            (
                self.max_gaussians is None or self.max_gaussians >= 1,
                f"max_gaussians: {self.max_gaussians} is not a positive number",
            ),
            (0 <= self.seed < 1 << 62, f"seed: {self.seed} is not between 0 and 2^62"),
            (
                all(step >= 1 for step in self.eval_steps),
                f"eval_steps: {' '.join(map(str, self.eval_steps))}: steps are counted from 1",
            ),
            *(
                # Those of the centres fall exponentially, which knows no zero.
                (
                    (rate > 0 if name.startswith("means") else rate >= 0) and rate < math.inf,
                    f"rates.{name}: {rate} is not a positive number",
                )
                for name, rate in vars(self.rates).items()
            ),
            (bool(self.strategies), "strategies: none given; one that controls density is needed"),
        ):
            if not ok:
                raise UsageError(message)


def preset_names() -> list[str]:
    """Names of the presets that come with the package, sorted."""
    folder = resources.files("splat.configs")
    return sorted(f.name.removesuffix(".yaml") for f in folder.iterdir() if f.name.endswith(".yaml"))


def load_preset(name: str) -> TrainConfig:
    """A preset of the package, by name; UsageError names the nearest one."""
    if name not in preset_names():
        raise UsageError(f"unknown preset {name!r}{schema.nearest(name, preset_names())}")
    text = resources.files("splat.configs").joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return schema.apply(TrainConfig(preset=name), yaml.safe_load(text), f"preset {name}")


def load_file(path: Path, base: TrainConfig | None = None) -> TrainConfig:
    """A YAML file of settings on top of `base`, or of the preset that the file names, or of the default."""
    try:
        mapping = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{path}: cannot read the settings file: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a YAML file: {error}") from error
    if base is None:
        named = mapping.get("preset", "default") if isinstance(mapping, dict) else "default"
        base = load_preset(named) if named in preset_names() else TrainConfig(preset=str(named))
    return schema.apply(base, mapping, str(path))


def to_yaml(config: TrainConfig) -> str:
    """Every setting as YAML that `load_file` reads back to an equal configuration."""
    return yaml.safe_dump(schema.to_mapping(config), sort_keys=False, allow_unicode=True)
