"""The panels of the page, in the order of their tabs."""

from __future__ import annotations

from splat.viewer.panel import Panel
from splat.viewer.panels.cameras import CamerasPanel
from splat.viewer.panels.compress import CompressPanel
from splat.viewer.panels.export import ExportPanel
from splat.viewer.panels.path import PathPanel
from splat.viewer.panels.scene import ScenePanel
from splat.viewer.panels.strategies import StrategiesPanel
from splat.viewer.panels.train import TrainPanel
from splat.viewer.panels.view import ViewPanel

PANELS: tuple[type[Panel], ...] = (
    TrainPanel,
    ViewPanel,
    CamerasPanel,
    ScenePanel,
    CompressPanel,
    PathPanel,
    ExportPanel,
    StrategiesPanel,
)
