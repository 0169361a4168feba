"""A tiny scene with photographs of itself, and the parts of a run around it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from splat.core import Camera, Gaussians
from splat.data import Photo, Points
from splat.raster import RenderOptions
from splat.raster.reference import ReferenceBackend
from splat.training.config import InitConfig, TrainConfig
from splat.training.session import Session, assemble
from splat.training.strategy import Strategy

WIDTH, HEIGHT = 24, 20


@pytest.fixture(autouse=True)
def _one_thread() -> Iterable[None]:
    """Tiny tensors: threads only cost."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ring(count: int, width: int = WIDTH, height: int = HEIGHT) -> list[Camera]:
    """Cameras on a circle of radius 3 around the origin, all looking at it."""
    cameras = []
    for i in range(count):
        angle = 2 * math.pi * i / count
        c, s = math.cos(angle), math.sin(angle)
        pose = torch.tensor([[c, 0, s, 0], [0, 1, 0, 0], [-s, 0, c, 3], [0, 0, 0, 1]], dtype=torch.float32)
        cameras.append(Camera(width, height, 24.0, 24.0, width / 2, height / 2, pose, f"view{i:02}.png"))
    return cameras


def blobs(count: int = 30, seed: int = 3) -> Gaussians:
    """Coloured blobs around the origin, of degree 1."""
    r = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=torch.rand(count, 3, generator=r) * 1.6 - 0.8,
        quats=torch.randn(count, 4, generator=r),
        log_scales=torch.randn(count, 3, generator=r) * 0.2 - 1.8,
        logit_opacities=torch.randn(count, generator=r) + 1,
        sh=torch.randn(count, 4, 3, generator=r) * torch.tensor([0.8, 0.1, 0.1, 0.1])[:, None],
    )


@dataclass
class ToyDataset:
    """What the trainer uses of splat.data.Dataset, in memory."""

    cameras: list[Camera]
    photos: list[Photo]
    train: list[int]
    test: list[int]
    points: Points | None
    extent: float = 3.3
    offset: torch.Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))
    scene: Any = None
    notes: list[str] = field(default_factory=list)
    closed: bool = False

    def __post_init__(self) -> None:
        frames = [SimpleNamespace(name=c.name) for c in self.cameras]
        self.scene = SimpleNamespace(
            root=Path("toy"), name="toy", frames=frames, bounds=1.0, warnings=[], notes=[]
        )

    def camera(self, index: int) -> Camera:
        return self.cameras[index]

    def photo(self, index: int) -> Photo:
        return self.photos[index]

    def silhouette(self, index: int) -> None:
        return None

    def prefetch(self, indices: Iterable[int]) -> None:
        assert all(0 <= i < len(self.photos) for i in indices)

    def close(self) -> None:
        self.closed = True


@pytest.fixture(scope="session")
def truth() -> Gaussians:
    return blobs()


@pytest.fixture(scope="session")
def _photographed(truth: Gaussians) -> ToyDataset:
    cameras = ring(8)
    photos = []
    for camera in cameras:
        image = ReferenceBackend().render(truth, camera, RenderOptions()).image
        photos.append(Photo(image.clamp(0, 1).mul(255).round().to(torch.uint8)))
    colours = (0.5 + 0.282 * truth.sh[:, 0]).clamp(0, 1).mul(255).to(torch.uint8)
    return ToyDataset(cameras, photos, [1, 2, 3, 5, 6, 7], [0, 4], Points(truth.means.double(), colours))


@pytest.fixture
def dataset(_photographed: ToyDataset) -> ToyDataset:
    """Eight photographs of `truth`, two of them held out, and its centres as points."""
    return replace(_photographed)


class Still(Strategy):
    """Density control that leaves the density alone."""

    name = "still"
    config_type = type(None)
    controls_density = True

    def __init__(self) -> None:
        super().__init__(None)


@pytest.fixture
def config() -> TrainConfig:
    return TrainConfig(
        steps=40,
        strategies=("still",),
        sh_degree=1,
        sh_interval=10,
        backend="reference",
        device="cpu",
        max_gaussians=200,
        init=InitConfig("points", opacity=0.5, scale=0.5),
    )


@pytest.fixture
def start(dataset: ToyDataset, config: TrainConfig) -> Callable[..., Session]:
    """start(strategies, state=, **changes of the config) -> a Session over the toy scene."""

    def make(strategies: Any = None, state: Any = None, **changes: Any) -> Session:
        chosen = [Still()] if strategies is None else strategies
        return assemble(replace(config, **changes), dataset, chosen, state=state)  # type: ignore[arg-type]

    return make
