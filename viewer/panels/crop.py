"""A box in the scene: moved and turned by handles, its outside hidden while it is on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from splat.core import Gaussians
from splat.viewer.selecting import Box

if TYPE_CHECKING:
    from splat.viewer.client import Client

FILTER = "crop"
GIZMO, LINES = "/crop", "/crop/box"


class CropBox:
    """The box of one visitor, and its part of a panel."""

    def __init__(self, gui: Any, client: Client) -> None:
        self._client = client
        self._gizmo: Any = None
        self._lines: Any = None
        self._on = gui.add_checkbox("Show the box, hide the rest", False)
        self._size = gui.add_vector3("Box size", (1.0, 1.0, 1.0), min=(0.0, 0.0, 0.0), step=0.001)
        fit = gui.add_button("Fit it to the scene", color="gray")
        self._on.on_update(client.action(lambda event: self._switch()))
        self._size.on_update(client.action(lambda event: self._changed()))
        fit.on_click(client.action(lambda event: self._fit()))

    @property
    def box(self) -> Box | None:
        """The box as it stands, None while it is off."""
        return self._box() if self._gizmo is not None and self._on.value else None

    def holds(self, means: Tensor, always: bool = False) -> Tensor:
        """[N] bool on the CPU: the centre [N, 3] lies in the box; everything does while it is off, unless
        `always`, which fits one first where there is none."""
        if always and self._gizmo is None:
            self._fit()
        box = self._box() if always else self.box
        return torch.ones(len(means), dtype=torch.bool) if box is None else box.holds(means).cpu()

    def cropped(self, gaussians: Gaussians) -> Gaussians:
        """What lies in the box; everything while it is off."""
        box = self.box
        return gaussians if box is None else gaussians.select(box.holds(gaussians.means))

    def close(self) -> None:
        self._client.painter.look.filters.pop(FILTER, None)
        for node in (self._lines, self._gizmo):
            if node is not None:
                node.remove()

    def _box(self) -> Box:
        return Box(
            torch.tensor(np.asarray(self._gizmo.position)).double(),
            torch.tensor(np.asarray(self._gizmo.wxyz)).double(),
            torch.tensor(self._size.value).double().clamp_min(1e-9),
        )

    def _switch(self) -> None:
        filters = self._client.painter.look.filters
        if self._on.value:
            if self._gizmo is None:
                self._fit()
            filters[FILTER] = self.cropped
        else:
            filters.pop(FILTER, None)
        if self._gizmo is not None:
            self._gizmo.visible = self._lines.visible = self._on.value
        self._client.painter.redraw()

    def _fit(self) -> None:
        """Around the scene, along its axes."""
        snapshot = self._client.source.snapshot
        if snapshot is None:
            return
        box = Box.around(snapshot.gaussians.means)
        scene = self._client.handle.scene
        size = tuple(float(f"{value:.4g}") for value in box.size.tolist())
        if self._gizmo is None:
            self._gizmo = scene.add_transform_controls(
                GIZMO, scale=0.4 * max(size), disable_sliders=True, depth_test=False, visible=self._on.value
            )
            self._gizmo.on_update(self._client.action(lambda event: self._client.painter.redraw()))
            self._lines = scene.add_line_segments(
                LINES,
                box.edges().float().numpy(),
                (255, 255, 255),
                thickness=1.5,
                thickness_units="screen",
                visible=self._on.value,
            )
        self._gizmo.scale = 0.4 * max(size)
        self._gizmo.position = tuple(box.centre.tolist())
        self._gizmo.wxyz = (1.0, 0.0, 0.0, 0.0)
        self._size.value = size
        self._changed()

    def _changed(self) -> None:
        if self._lines is not None:
            self._lines.points = self._box().edges().float().numpy()
        self._client.painter.redraw()
