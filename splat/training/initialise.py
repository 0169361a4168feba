"""The first Gaussians, from the points that the run begins with."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from splat import codecs
from splat.core import Gaussians, UsageError
from splat.core.sh import C0, coefficients
from splat.data import Dataset
from splat.training.begin import Request, begin
from splat.training.config import TrainConfig


def initialise(
    config: TrainConfig,
    dataset: Dataset,
    cap: int,
    generator: torch.Generator,
    *,
    device: torch.device | None = None,
    say: Callable[[str], None] = lambda line: None,
) -> Gaussians:
    """At most `cap` Gaussians in float32 on the CPU, in the dataset's recentred coordinates.

    Spheres of the points' colours, as large as the root mean square distance to their three nearest
    neighbours times `init.scale` (Kerbl et al. 2023, section 5; factor: Kheradmand et al. 2024).

    Args:
        device: where stereo may be computed; by default the CPU.
        say: takes lines for the log: how the scene begins, and why so.

    Raises:
        DataError: `init.source` is not possible with this dataset, or `init.scene` cannot be read.
        UsageError: `init.scene` has more Gaussians than `cap`.
    """
    if config.init.scene is not None:
        scene = _from_scene(config, dataset, cap)
        say(f"begins with the scene {config.init.scene}: {len(scene):,} Gaussians")
        return scene
    init = config.init
    points = begin(Request(dataset, init, cap, device or torch.device("cpu"), generator), say)
    chosen = torch.arange(len(points))
    if len(points) > cap:
        chosen = torch.randperm(len(points), generator=generator)[:cap].sort().values
    xyz = points.xyz[chosen].float()
    rgb = points.rgb[chosen].float() / 255

    n = len(xyz)
    scales = neighbour_distances(xyz, fallback=0.01 * dataset.extent) * init.scale
    sh = torch.zeros(n, coefficients(config.sh_degree), 3)
    sh[:, 0] = (rgb - 0.5) / C0
    quats = torch.zeros(n, 4)
    quats[:, 0] = 1
    return Gaussians(
        means=xyz,
        quats=quats,
        log_scales=scales.clamp_max(dataset.extent).log()[:, None].repeat(1, 3),
        logit_opacities=torch.full((n,), math.log(init.opacity / (1 - init.opacity))),
        sh=sh,
        antialiased=config.antialiased,
    )


def _from_scene(config: TrainConfig, dataset: Dataset, cap: int) -> Gaussians:
    """The scene of a file, in the dataset's recentred coordinates and with the run's number of harmonics."""
    assert config.init.scene is not None
    scene, metadata = codecs.decode(config.init.scene)
    if len(scene) > cap:
        raise UsageError(
            f"{config.init.scene}: has {len(scene):,} Gaussians, more than the cap of {cap:,}; "
            f"raise --max-gaussians, or prune it first"
        )
    shift = torch.tensor(metadata.get("offset") or (0.0, 0.0, 0.0), dtype=torch.float64) - dataset.offset
    known = min(scene.sh.shape[1], coefficients(config.sh_degree))
    sh = torch.zeros(len(scene), coefficients(config.sh_degree), 3)
    sh[:, :known] = scene.sh[:, :known]
    return replace(
        scene,
        means=(scene.means.double() + shift).float(),
        sh=sh,
        extras={},
        antialiased=config.antialiased,
    )


def neighbour_distances(xyz: Tensor, *, fallback: float, neighbours: int = 3) -> Tensor:
    """[N] root mean square distance of each point to its nearest neighbours, always positive.

    Exact duplicates are not neighbours; a point without any takes `fallback`.
    """
    from scipy.spatial import cKDTree

    unique, inverse = np.unique(xyz.double().numpy(), axis=0, return_inverse=True)
    k = min(neighbours, len(unique) - 1)
    if k == 0:
        return torch.full((len(xyz),), fallback)
    distance, _ = cKDTree(unique).query(unique, k=k + 1, workers=-1)
    mean = np.sqrt((distance[:, 1:] ** 2).mean(axis=1))
    return torch.from_numpy(mean[inverse.reshape(-1)]).float().clamp_min(1e-9 * max(1.0, fallback))
