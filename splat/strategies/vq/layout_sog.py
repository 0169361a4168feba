"""Training for SOG version 2: its scalar codebooks, palette of harmonics, centres, rotations and opacities."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from splat.core import Gaussians
from splat.strategies.vq import sog_steps
from splat.strategies.vq.codebook import Codebook
from splat.strategies.vq.config import VqConfig
from splat.strategies.vq.layout import Weights
from splat.strategies.vq.scalars import Scalars
from splat.strategies.vq.sog_steps import Steps

_BOOK = 256  # values of a scalar codebook
_LARGEST_LOGIT = 16.0  # what readers take opacities of 0 and 1 for
_SCALAR = 6
_LEAST_OWN = 8.0  # bits of an entry of the palette


class SogLayout:
    """Labels: three of the scales, three of the base colour, the steps of sog_steps.py, one of the palette."""

    def __init__(self, config: VqConfig, degree: int) -> None:
        self.config = config
        self.scale, self.color = Scalars(), Scalars()
        self.steps = Steps()
        self.palette = Codebook(optional=False) if degree else None
        self.columns = _SCALAR + sog_steps.COLUMNS + (degree > 0)
        self.entries = Scalars()  # the values of the palette
        self._places = torch.zeros(0, 0, dtype=torch.int64)  # of the palette's entries in them

    def begin(self, g: Gaussians, weights: Weights, lam: float, seed: int) -> Tensor:
        self.steps.begin(g)
        found = [
            self.scale.begin(g.log_scales, _BOOK, weights["scale"], lam),
            self.color.begin(g.sh[:, 0], _BOOK, weights["color"], lam),
        ]
        for _ in range(2):  # the second time with the bits of the first
            steps = self.steps.choose(g, weights, lam)
            self.steps.count(g, steps)
        found.append(steps)
        if self.palette is not None:
            points = g.sh[:, 1:].flatten(1)
            most = min(self.config.palette, len(points))
            label = self.palette.begin(points, most, weights["color"], lam, seed)
            self._index(label, weights["color"], lam, anew=True)
            found.append(label[:, None])
        return torch.cat(found, 1).int()

    def assign(self, g: Gaussians, weights: Weights, lam: float, learn: bool) -> Tensor:
        found = []
        for book, points, weight in (
            (self.scale, g.log_scales, weights["scale"]),
            (self.color, g.sh[:, 0], weights["color"]),
        ):
            label = book.assign(points, weight, lam)
            found.append(book.update(points, label, weight) if learn else label)
        steps = self.steps.choose(g, weights, lam)
        if learn:
            self.steps.begin(g)
            self.steps.count(g, steps)
        found.append(steps)
        if self.palette is not None:
            points, weight = g.sh[:, 1:].flatten(1), weights["color"]
            label = self.palette.assign(points, weight, lam)
            if learn:
                label = self.palette.update(points, label, weight)
                self._index(label, weight, lam, anew=False)
            found.append(label[:, None])
        return torch.cat(found, 1).int()

    def move(self, g: Gaussians, labels: Tensor, weights: Weights) -> None:
        scale, color, _, palette = self._separate(labels)
        self.scale.move(g.log_scales, scale, weights["scale"])
        self.color.move(g.sh[:, 0], color, weights["color"])
        if self.palette is not None:
            self.palette.move(g.sh[:, 1:].flatten(1), palette, weights["color"])
            mass = torch.bincount(palette, weights["color"].double(), len(self._places)).float()
            points = self.palette.centroids.view(-1, 3)
            self.entries.move(points, self._places.view(-1, 3), _spread(mass, points))

    def shown(self, g: Gaussians, labels: Tensor) -> Gaussians:
        scale, color, steps, palette = self._separate(labels)
        means, quats, opacity = self.steps.shown(g, steps)
        bands = [self.color.centroids[color][:, None]]
        if self.palette is not None:
            bands.append(self._entries()[palette].view(len(g), -1, 3))
        return Gaussians(
            means=means,
            quats=quats,
            log_scales=self.scale.centroids[scale],
            logit_opacities=torch.logit(opacity).clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT),
            sh=torch.cat(bands, 1),
            antialiased=g.antialiased,
        )

    def bits(self, g: Gaussians, labels: Tensor) -> Tensor:
        scale, color, steps, palette = self._separate(labels)
        total = self.scale.cost(scale) + self.color.cost(color) + self.steps.bits(g, steps)
        return total if self.palette is None else total + self.palette.bits[palette]

    def rotations(self, labels: Tensor) -> Tensor | None:
        # The form whose real part is the largest: the byte that names the largest component is the same for all.
        return torch.tensor([[1.0, 0.0, 0.0, 0.0]], device=labels.device).expand(len(labels), 4)

    def codebooks(self, labels: Tensor) -> dict[str, Any]:
        learned = {
            "low": self.steps.low,
            "high": self.steps.high,
            "scales": self.scale.centroids,
            "sh0": self.color.centroids,
        }
        if self.palette is not None:
            learned |= {
                "shn_codebook": self.entries.centroids,
                "shn_centroids": self._entries(),
                "shn_labels": labels[:, -1].long(),
            }
        return {"sog": learned}

    def state_dict(self) -> dict[str, Any]:
        parts: dict[str, Scalars | Steps] = {
            "scale": self.scale,
            "color": self.color,
            "entries": self.entries,
        }
        parts["steps"] = self.steps
        state: dict[str, Any] = {name: part.state_dict() for name, part in parts.items()}
        if self.palette is not None:
            state |= {"palette": self.palette.state_dict(), "places": self._places}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scale.load_state_dict(state["scale"])
        self.color.load_state_dict(state["color"])
        self.steps.load_state_dict(state["steps"])
        self.entries.load_state_dict(state["entries"])
        if self.palette is not None:
            self.palette.load_state_dict(state["palette"])
            self._places = state["places"]

    def _index(self, labels: Tensor, weight: Tensor, lam: float, *, anew: bool) -> None:
        """The palette in 256 values, at the price of their bits; what an entry takes itself."""
        assert self.palette is not None
        centroids = self.palette.centroids
        mass = _spread(torch.bincount(labels, weight.double(), len(centroids)).float(), centroids.view(-1, 3))
        points = centroids.reshape(-1, 3)
        if anew:
            places = self.entries.begin(points, _BOOK, mass, lam)
        else:
            places = self.entries.update(points, self.entries.assign(points, mass, lam), mass)
        self._places = places.view(centroids.shape)
        self.palette.own = max(_LEAST_OWN, float(self.entries.cost(places).sum()) / len(centroids))

    def _entries(self) -> Tensor:
        """[K, 3 C] the palette as it is stored."""
        return self.entries.centroids[self._places]

    def _separate(self, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Labels of the scale [N, 3], the base colour [N, 3], the steps [N, 6], the palette [N] if any."""
        end = _SCALAR + sog_steps.COLUMNS
        return labels[:, :3].long(), labels[:, 3:6].long(), labels[:, _SCALAR:end], labels[:, -1].long()


def _spread(mass: Tensor, points: Tensor) -> Tensor:
    """The weights [K] of entries for their rows among [K C, 3] points; no weight is zero."""
    least = max(float(mass.mean()) * 1e-6, torch.finfo(torch.float32).tiny)
    return mass.clamp(min=least).repeat_interleave(len(points) // max(1, len(mass)))
