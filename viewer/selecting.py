"""Which Gaussians are meant: in a rectangle of the screen, in a box, floaters."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from splat.core import Camera, Gaussians
from splat.core.rotations import quat_to_matrix
from splat.core.sh import C0

NEIGHBOURS = 16
_MARK = (1.0, 0.15, 0.55)  # the colour of what is selected


def in_rectangle(
    means: Tensor, camera: Camera, low: tuple[float, float], high: tuple[float, float]
) -> Tensor:
    """[N] bool: the centre [N, 3] is seen within a rectangle of the picture, whatever lies before it.

    Args:
        low, high: corners as shares of the picture's width and height, (0, 0) the upper left; what of the rectangle
            lies beside the picture does not count.
    """
    low = max(low[0], 0.0), max(low[1], 0.0)
    high = min(high[0], 1.0), min(high[1], 1.0)
    pose = camera.world_to_camera.to(means)
    seen = means @ pose[:3, :3].T + pose[:3, 3]
    depth = seen[:, 2]
    # Multiplied out, so that nothing is divided by a depth of zero.
    x = (camera.fx * seen[:, 0] + camera.cx * depth) / camera.width
    y = (camera.fy * seen[:, 1] + camera.cy * depth) / camera.height
    inside = (x >= low[0] * depth) & (x <= high[0] * depth) & (y >= low[1] * depth) & (y <= high[1] * depth)
    return inside & (depth > 0)


@dataclass(frozen=True)
class Box:
    """A box anywhere, turned any way.

    Attributes:
        centre: [3] world units.
        quat: [4] wxyz, box to world.
        size: [3] full edge lengths, world units.
    """

    centre: Tensor
    quat: Tensor
    size: Tensor

    def holds(self, means: Tensor) -> Tensor:
        """[N] bool: the centre [N, 3] lies in the box."""
        turn = quat_to_matrix(self.quat.double()).to(means)
        local = (means - self.centre.to(means)) @ turn
        return (local.abs() <= self.size.to(means) / 2).all(1)

    def edges(self) -> Tensor:
        """[12, 2, 3] its edges in its own frame."""
        signs = torch.tensor([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]).double()
        corner = signs * self.size.double() / 2
        pairs = [(i, i | bit) for i in range(8) for bit in (4, 2, 1) if not i & bit]
        return corner[torch.tensor(pairs)]

    @staticmethod
    def around(means: Tensor, share: float = 0.98) -> Box:
        """Along the axes, holding the middle `share` of the centres along each, and a twentieth more."""
        some = means[:: max(1, len(means) // 100_000)].detach().double().cpu()
        if not len(some):
            return Box(torch.zeros(3).double(), torch.tensor([1.0, 0, 0, 0]).double(), torch.ones(3).double())
        ordered = some.sort(0).values
        cut = int((1 - share) / 2 * (len(some) - 1))
        low, high = ordered[cut], ordered[len(some) - 1 - cut]
        size = (1.05 * (high - low)).clamp_min(1e-6)
        return Box((low + high) / 2, torch.tensor([1.0, 0, 0, 0]).double(), size)


def isolation(means: Tensor, neighbours: int = NEIGHBOURS) -> Tensor:
    """[N] how far from others each Gaussian lies: the mean distance to its nearest neighbours, in robust
    standard deviations of the scene's own (median and median absolute deviation of the logarithm).

    The statistical outlier removal of point clouds (Rusu et al., "Towards 3D Point Cloud Based Object Maps",
    2008), with medians in place of means: spacings of a captured scene span orders of magnitude. A deviation
    below 5% counts as 5%, so that nothing stands out of a regular grid. One thread: something may be training.
    """
    from scipy.spatial import cKDTree

    count = len(means)
    if count <= 2:
        return torch.zeros(count)
    points = means.detach().double().cpu().numpy()
    k = min(neighbours, count - 1)
    distances = cKDTree(points).query(points, k=k + 1, workers=1)[0][:, 1:]
    spacing = torch.from_numpy(distances).mean(1).clamp_min(1e-30).log()
    middle = spacing.median()
    deviation = 1.4826 * (spacing - middle).abs().median()  # of a normal distribution: one sigma
    return ((spacing - middle) / deviation.clamp_min(0.05)).float()


@dataclass(frozen=True)
class Criteria:
    """What makes a floater; any one that is not None suffices.

    Attributes:
        isolated: more than this many robust standard deviations from its neighbours (see `isolation`).
        faint: an opacity below this.
        large: a largest scale above this many times the median of the scene's largest scales.
    """

    isolated: float | None = 5.0
    faint: float | None = None
    large: float | None = None


def floaters(gaussians: Gaussians, criteria: Criteria, isolated: Tensor | None = None) -> Tensor:
    """[N] bool: what the criteria name, on the CPU. `isolated` is `isolation(gaussians.means)` where known."""
    found = torch.zeros(len(gaussians), dtype=torch.bool)
    if not len(gaussians):
        return found
    if criteria.isolated is not None:
        found |= (isolation(gaussians.means) if isolated is None else isolated) > criteria.isolated
    if criteria.faint is not None:
        found |= (gaussians.opacities() < criteria.faint).cpu()
    if criteria.large is not None:
        largest = gaussians.log_scales.amax(1)
        found |= (largest - largest.median() > torch.tensor(criteria.large).log()).cpu()
    return found


def marked(gaussians: Gaussians, chosen: Tensor) -> Gaussians:
    """The scene with the `chosen` ([N] bool) in the colour of a selection, a little more solid, whatever their
    own; nothing else changes."""
    where = chosen.to(gaussians.device)
    sh = gaussians.sh.clone()
    colour = torch.zeros_like(sh[:1])
    colour[0, 0] = (torch.tensor(_MARK).to(sh) - 0.5) / C0
    sh[where] = colour
    # Logit 0: opacity one half. Faint floaters could not be seen otherwise.
    logits = torch.where(where, gaussians.logit_opacities.clamp_min(0.0), gaussians.logit_opacities)
    return replace(gaussians, sh=sh, logit_opacities=logits)
