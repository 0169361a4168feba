"""What a run fits to each training photograph beside the scene: exposure and camera pose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from splat.core import Camera
from splat.raster.native import PoseStep
from splat.training.optim import BETAS, EPS, adam_step

EXPOSURE_RATE = 1e-3
POSE_RATE = 1e-4  # radians, and shares of the scene extent
_FINAL = 0.01  # rates fall exponentially to this share of themselves


class PerView:
    """A row of parameters for each view, with an Adam that moves only the row that was seen."""

    def __init__(self, rows: Tensor, rate: float, horizon: int) -> None:
        self.rows = rows
        self.rate = rate
        self.horizon = horizon
        self.moments = (torch.zeros_like(rows), torch.zeros_like(rows))
        self.counts = [0] * rows.shape[0]  # steps of each row
        self._leaf: Tensor | None = None

    def rate_at(self, step: int) -> float:
        """Learning rate of 0-based `step`."""
        return self.rate * _FINAL ** min(1.0, step / max(1, self.horizon))

    def leaf(self, view: int) -> Tensor:
        """The view's row, to be differentiated in this step."""
        self._leaf = self.rows[view].detach().clone().requires_grad_()
        return self._leaf

    @torch.no_grad()
    def update(self, view: int, step: int) -> None:
        """One Adam step of that row from the gradient that reached it."""
        if self._leaf is None or self._leaf.grad is None:
            return
        self.counts[view] += 1
        row, first, second = self.rows[view], self.moments[0][view], self.moments[1][view]
        adam_step(row, self._leaf.grad, first, second, self.rate_at(step), self.counts[view])
        self._leaf = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "moments": list(self.moments),
            "counts": torch.tensor(self.counts),
            "horizon": self.horizon,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if state["rows"].shape != self.rows.shape:
            raise ValueError(f"saved for {state['rows'].shape[0]} views, not {self.rows.shape[0]}")
        device = self.rows.device
        self.rows = state["rows"].to(device)
        self.moments = (state["moments"][0].to(device), state["moments"][1].to(device))
        self.counts = state["counts"].tolist()
        self.horizon = state["horizon"]


class Exposure(PerView):
    """A 3x4 affine map of the rendered colours for each view, the identity at first.

    The scene's colours and the maps share a gauge (any affine map may go into either): it is fixed by
    keeping the mean of all maps at the identity.
    """

    def __init__(self, views: int, horizon: int, device: torch.device) -> None:
        self.identity = torch.eye(3, 4, device=device)
        super().__init__(self.identity.repeat(views, 1, 1), EXPOSURE_RATE, horizon)

    def apply(self, view: int, image: Tensor) -> Tensor:
        """[H, W, 3] colours as that photograph's exposure shows them; differentiable."""
        m = self.leaf(view)
        return image @ m[:, :3].T + m[:, 3]

    @torch.no_grad()
    def update(self, view: int, step: int) -> None:
        super().update(view, step)
        self.rows -= self.rows.mean(0) - self.identity


class Poses(PerView):
    """A small rigid motion for each view, in the camera's frame: exp(xi) world_to_camera.

    xi = (translation / extent, rotation). Scene and cameras can drift together; evaluation aligns them.
    """

    def __init__(self, views: int, horizon: int, extent: float, device: torch.device) -> None:
        super().__init__(torch.zeros(views, 6, device=device), POSE_RATE, horizon)
        self.extent = extent

    def camera(self, view: int, camera: Camera) -> Camera:
        """The refined camera; its pose is differentiable."""
        return moved(camera, self.leaf(view).to(camera.world_to_camera.device), self.extent)

    def fused(self, view: int, step: int) -> PoseStep:
        """The view's next step, to be taken by the backend together with that of the scene; instead of `camera`
        and `update`."""
        self.counts[view] += 1
        rate, count = self.rate_at(step), self.counts[view]
        return PoseStep(self.rows, *self.moments, view, self.extent, rate, count, BETAS, EPS)

    @torch.no_grad()
    def refined(self, cameras: Sequence[Camera]) -> list[Camera]:
        """Every training camera where it is now."""
        return [moved(camera, xi, self.extent) for camera, xi in zip(cameras, self.rows, strict=True)]


def moved(camera: Camera, xi: Tensor, extent: float) -> Camera:
    """`camera` after the rigid motion exp(xi) in its own frame; xi [6] as in Poses."""
    x, y, z = xi[3:].unbind()
    zero = torch.zeros_like(x)
    rotation = torch.stack([zero, -z, y, z, zero, -x, -y, x, zero]).view(3, 3)
    motion = torch.cat([rotation, xi[:3, None] * extent], 1)
    twist = torch.cat([motion, torch.zeros_like(motion[:1])], 0)
    return camera.with_pose(torch.matrix_exp(twist) @ camera.world_to_camera)
