"""The panels of the page, in the order of their tabs."""

from __future__ import annotations

from splat.viewer.panel import Panel
from splat.viewer.panels.train import TrainPanel
from splat.viewer.panels.view import ViewPanel

PANELS: tuple[type[Panel], ...] = (TrainPanel, ViewPanel)
