"""What gpu.py compares: scenes with their targets, our training step and gsplat's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from splat.core import Camera, Gaussians
from splat.core.gaussians import PARAMETERS
from splat.core.sh import from_rgb
from splat.data import Photo
from splat.raster import RenderOptions, registry
from splat.raster.reference import count_tile_intersections
from splat.raster.registry import Backend
from splat.raster.tiles import tile_grid
from splat.strategies.kernels import add_noise_
from splat.strategies.registry import build
from splat.training import losses
from splat.training.config import load_preset
from splat.training.context import MAIN, Context, Field
from splat.training.moments import Kind
from splat.training.optim import BETAS, EPS, Rates
from splat.training.perview import Poses
from splat.training.trainer import Trainer
from splat.training.views import Views

HORIZON = 30_000
NOISE = 5e5
PENALTIES = {"opacity": 0.01, "scale": 0.01}


@dataclass(frozen=True)
class Problem:
    """A scene to start from and the photographs to reach: all on one device.

    Attributes:
        start: what training begins with.
        cameras, photos: the views and their [H, W, 3] uint8 photographs.
        instances: pairs of a splat and a 16x16 tile that it touches exactly, mean over the views, counted by
            the reference.
        wanted: the number that the sizes were tuned for, to half a percent where it can be reached.
        extent: scale of the learning rate of the means.
    """

    start: Gaussians
    cameras: list[Camera]
    photos: list[Tensor]
    instances: float
    wanted: float
    extent: float


def garden_cameras(path: Path, width: int, height: int) -> list[Camera]:
    with np.load(path) as stored:
        size = int(stored["width"]), int(stored["height"])
        return [
            Camera(*size, k[0, 0], k[1, 1], k[0, 2], k[1, 2], torch.from_numpy(pose).float()).resized(
                width, height
            )
            for pose, k in zip(stored["viewmats"], stored["Ks"], strict=True)
        ]


def garden(
    path: Path, count: int, per_tile: float, *, width: int, height: int, device: torch.device, seed: int = 0
) -> Problem:
    """Garden's points, drawn with replacement and jittered by their spacing to `count` Gaussians, of such
    sizes that a tile has `per_tile` exact instances in the mean. The photographs show them; training starts
    from the same with centres, sizes and colours disturbed."""
    from scipy.spatial import cKDTree

    with np.load(path) as stored:
        points, colors = stored["means3d"].astype(np.float64), stored["colors"].astype(np.float64)
    distances = cKDTree(points).query(points, 4)[0][:, 1:]
    spacing = np.sqrt((distances**2).mean(1)).clip(1e-6)
    g = np.random.default_rng(seed)
    pick = g.integers(len(points), size=count)
    size = spacing[pick] * (len(points) / count) ** (1 / 3)

    def tensor(array: np.ndarray) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).to(device)

    sh = g.normal(scale=0.05, size=(count, 16, 3))
    sh[:, 0] = from_rgb(torch.from_numpy(colors[pick] / 255.0)).numpy()
    scene = Gaussians(
        means=tensor(points[pick] + g.normal(size=(count, 3)) * spacing[pick, None]),
        quats=tensor(g.normal(size=(count, 4))),
        log_scales=tensor(np.log(size)[:, None] + 0.4 * g.normal(size=(count, 3))),
        logit_opacities=tensor(g.normal(size=count)),
        sh=tensor(sh),
    )
    cameras = [camera.to(device) for camera in garden_cameras(path, width, height)]
    across, down = tile_grid(width, height)
    wanted = per_tile * across * down
    scene, instances = sized(scene, cameras, wanted)
    drawer = registry.backend("auto", device)
    photos = []
    with torch.no_grad():
        for camera in cameras:
            image = drawer.render(scene, camera, RenderOptions()).image
            photos.append((image.clamp(0, 1) * 255).round().to(torch.uint8))
    start = scene.clone()
    start.means += tensor(g.normal(size=(count, 3)) * 0.3 * size[:, None])
    start.log_scales += tensor(g.normal(scale=0.1, size=(count, 3)))
    start.sh[:, 0] += tensor(g.normal(scale=0.2, size=(count, 3)))
    positions = torch.stack([camera.position for camera in cameras])
    extent = 1.1 * float((positions - positions.mean(0)).norm(dim=1).max())
    return Problem(start, cameras, photos, instances, wanted, extent)


def sized(scene: Gaussians, cameras: list[Camera], wanted: float) -> tuple[Gaussians, float]:
    """The scene with all sizes multiplied by one factor, so that a view has `wanted` exact instances."""

    def trial(shift: float) -> tuple[Gaussians, float]:
        changed = replace(scene, log_scales=scene.log_scales + shift)
        return changed, sum(count_tile_intersections(changed, camera) for camera in cameras) / len(cameras)

    low, high = -6.0, 4.0
    for _ in range(14):
        middle = (low + high) / 2
        changed, found = trial(middle)
        if abs(found - wanted) <= 0.005 * wanted:
            break
        low, high = (middle, high) if found < wanted else (low, middle)
    return changed, found


class Photographs:
    """What the trainer uses of splat.data.Dataset, over a problem's views."""

    def __init__(self, problem: Problem) -> None:
        # Where the trainer keeps poses: reading one from the device would wait for it.
        self._cameras = [camera.to("cpu") for camera in problem.cameras]
        self._photos = [Photo(photo.cpu()) for photo in problem.photos]
        self.train = list(range(len(self._cameras)))

    def camera(self, index: int) -> Camera:
        return self._cameras[index]

    def photo(self, index: int) -> Photo:
        return self._photos[index]

    def prefetch(self, indices: Iterable[int]) -> None:
        """They are in memory."""


class Ours:
    """The product's own step: its trainer with the preset mcmc, long before the first refinement.

    `moments` of splat.training.moments and the backend's choices are compared; `poses` are fitted, too, if asked for.
    """

    def __init__(
        self, problem: Problem, backend: Backend, moments: Kind = "full", *, poses: bool = False
    ) -> None:
        device = problem.start.device
        self.problem, self.backend = problem, backend
        # Every degree of the harmonics from the third step on.
        config = replace(load_preset("mcmc"), sh_interval=1, moments=moments)
        scene = problem.start.clone()
        main = Field(MAIN, scene, config.rates, problem.extent, HORIZON, moments)
        ctx = Context(
            config=config,
            main=main,
            scene_extent=problem.extent,
            steps=HORIZON,
            cap=len(scene),
            generator=torch.Generator(device).manual_seed(1),
        )
        views = Views(Photographs(problem), 2, config.background, device=device)  # type: ignore[arg-type]
        deferred = getattr(backend, "deferred", None)
        fitted = Poses(len(problem.cameras), HORIZON, problem.extent, device) if poses else None
        strategies = build(("mcmc",), config.options)
        self.trainer = Trainer(ctx, strategies, views, backend, deferred=deferred, poses=fitted)

    @property
    def scene(self) -> Gaussians:
        return self.trainer.ctx.gaussians

    def state(self) -> list[Tensor]:
        held = [moment for pair in self.trainer.ctx.optimizer.moments.values() for moment in pair]
        return [t for _, t in self.scene.named_tensors()] + held

    def chosen(self) -> str:
        """How the steps are taken, and the times by which that was decided."""
        return self.trainer.way

    def draw(self) -> None:
        with torch.no_grad():
            self.backend.render(self.scene, self.trainer.views.dataset.camera(0), RenderOptions())

    def step(self) -> None:
        self.trainer.step()


class Rival:
    """gsplat's step: its rasterization (packed=False) under autograd, torch's fused Adam, its MCMC noise.

    In its favour the loss is our fused one, and the harmonics are one tensor with one rate, so that nothing
    is concatenated. `draw_with` stands in for gsplat in a rehearsal.
    """

    def __init__(
        self, problem: Problem, draw_with: Callable[[Gaussians, Camera], Tensor] | None = None
    ) -> None:
        self.problem, self.taken, self.draw_with = problem, 0, draw_with
        self.scene = problem.start.clone().requires_grad_()
        rates = Rates().at(0, HORIZON, problem.extent)
        rates["sh"] = rates["shN"]
        groups = [{"params": [getattr(self.scene, name)], "lr": rates[name]} for name in PARAMETERS]
        fused = self.scene.device.type == "cuda"
        self.optimizer = torch.optim.Adam(groups, betas=BETAS, eps=EPS, fused=fused)
        self.views = [
            (camera.world_to_camera[None].contiguous(), camera.matrix[None].contiguous())
            for camera in problem.cameras
        ]

    def state(self) -> list[Tensor]:
        moments = [t for state in self.optimizer.state.values() for t in state.values() if t.ndim > 0]
        return [t for _, t in self.scene.named_tensors()] + moments

    def image(self, view: int) -> Tensor:
        g, camera = self.scene, self.problem.cameras[view]
        if self.draw_with is not None:
            return self.draw_with(g, camera)
        from gsplat import rasterization

        pose, matrix = self.views[view]
        size = {"width": camera.width, "height": camera.height}
        scene = (g.means, g.quats, g.scales(), g.opacities(), g.sh)
        drawn, _, _ = rasterization(*scene, pose, matrix, **size, sh_degree=3, packed=False)
        return drawn[0]

    def draw(self) -> None:
        with torch.no_grad():
            self.image(0)

    def step(self) -> None:
        g = self.scene
        view = self.taken % len(self.problem.cameras)
        rate = Rates().at(self.taken, HORIZON, self.problem.extent)["means"]
        self.taken += 1
        self.optimizer.param_groups[0]["lr"] = rate
        loss = losses.photometric(self.image(view), self.problem.photos[view])
        loss = loss + PENALTIES["opacity"] * g.opacities().mean() + PENALTIES["scale"] * g.scales().mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        with torch.no_grad():
            self.explore(NOISE * rate)

    def explore(self, gain: float) -> None:
        g = self.scene
        if self.draw_with is not None:
            eta = torch.randn_like(g.means)
            add_noise_(g.means, g.quats, g.log_scales, g.logit_opacities, eta, gain)
            return
        from gsplat.strategy.ops import inject_noise_to_position

        parameters = {
            "means": g.means,
            "quats": g.quats,
            "scales": g.log_scales,
            "opacities": g.logit_opacities,
        }
        inject_noise_to_position(parameters, {}, {}, gain)
