"""Training for SOG version 2: its scalar codebooks, rotations, centres, opacities and palette of harmonics."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from splat.codecs import sog_quantize as sog
from splat.codecs.quantize import nearest_scalar, scalar_codebook
from splat.core import Gaussians
from splat.strategies.vq.codebook import Codebook
from splat.strategies.vq.config import VqConfig
from splat.strategies.vq.layout import Weights

_BOOK = 256  # values of a scalar codebook
_PASSES = 8
_LARGEST_LOGIT = 16.0  # what readers take opacities of 0 and 1 for
# Centres, rotation and opacity: images of bytes that hardly compress.
_FIXED_BITS = 6 * 8 + 26 + 8


class SogLayout:
    """Labels: three of the scales, three of the base colour, one of the palette."""

    def __init__(self, config: VqConfig, degree: int) -> None:
        self.config = config
        self.books = {"scale": Codebook(optional=False), "color": Codebook(optional=False)}
        if degree:
            self.books["palette"] = Codebook(optional=False)
        self.columns = 7 if degree else 6
        self._entries = torch.zeros(0, 0)  # of the palette, in values of its codebook
        self._codebook = torch.zeros(0)

    def begin(self, g: Gaussians, weights: Weights, lam: float, seed: int) -> Tensor:
        found = []
        for name, book in self.books.items():
            points, weight = _points(g, name), _weight(weights, name)
            if name == "palette":
                labels = book.begin(points, min(self.config.palette, len(points)), weight, lam, seed)
            else:
                start = scalar_codebook(points, min(_BOOK, len(points)), weights=weight[:, None])
                labels = book.begin_with(start.unique()[:, None], points, weight, lam)
            found.append(labels)
        self._index()
        return self._columns(found, g)

    def assign(self, g: Gaussians, weights: Weights, lam: float) -> Tensor:
        found = [
            book.assign(_points(g, name), _weight(weights, name), lam) for name, book in self.books.items()
        ]
        return self._columns(found, g)

    def learn(self, g: Gaussians, labels: Tensor, weights: Weights, lam: float) -> Tensor:
        found = [
            book.update(_points(g, name), label, _weight(weights, name))
            for (name, book), label in zip(self.books.items(), self._separate(labels), strict=True)
        ]
        self._index()
        return self._columns(found, g)

    def move(self, g: Gaussians, labels: Tensor, weights: Weights) -> None:
        for (name, book), label in zip(self.books.items(), self._separate(labels), strict=True):
            book.move(_points(g, name), label, _weight(weights, name))
        self._index()

    def shown(self, g: Gaussians, labels: Tensor) -> Gaussians:
        scale, color, *palette = self._separate(labels)
        bands = [self.books["color"].centroids[color].view(-1, 1, 3)]
        if palette:
            bands.append(self._entries[palette[0]].view(len(g), -1, 3))
        opacity = (g.opacities() * 255).round() / 255
        return Gaussians(
            means=_centres(g.means),
            quats=_rotations(g.quats),
            log_scales=self.books["scale"].centroids[scale].view(-1, 3),
            logit_opacities=torch.logit(opacity).clamp(-_LARGEST_LOGIT, _LARGEST_LOGIT),
            sh=torch.cat(bands, 1),
            antialiased=g.antialiased,
        )

    def bits(self, labels: Tensor) -> Tensor:
        total = torch.full((len(labels),), float(_FIXED_BITS), device=labels.device)
        for book, label in zip(self.books.values(), self._separate(labels), strict=True):
            total += book.bits[label].view(len(labels), -1).sum(1)
        return total

    def rotations(self, labels: Tensor) -> Tensor | None:
        return None

    def codebooks(self, labels: Tensor) -> dict[str, Any]:
        learned = {"scales": self.books["scale"].centroids[:, 0], "sh0": self.books["color"].centroids[:, 0]}
        if "palette" in self.books:
            learned |= {
                "shn_codebook": self._codebook,
                "shn_centroids": self._entries,
                "shn_labels": labels[:, 6].long(),
            }
        return {"sog": learned}

    def state_dict(self) -> dict[str, Any]:
        return {name: book.state_dict() for name, book in self.books.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, book in self.books.items():
            book.load_state_dict(state[name])
        self._index()

    def _index(self) -> None:
        """The palette in 256 values."""
        if "palette" in self.books:
            entries = self.books["palette"].centroids
            self._codebook = scalar_codebook(entries, _BOOK).to(entries)
            self._entries = self._codebook[nearest_scalar(entries, self._codebook)]

    def _separate(self, labels: Tensor) -> list[Tensor]:
        """The labels of each codebook, three in a row for the scalar ones."""
        parts = [labels[:, :3].flatten(), labels[:, 3:6].flatten(), labels[:, 6:].flatten()]
        return [part.long() for part in parts[: len(self.books)]]

    def _columns(self, found: list[Tensor], g: Gaussians) -> Tensor:
        return torch.cat([labels.view(len(g), -1) for labels in found], 1).int()


def _points(g: Gaussians, name: str) -> Tensor:
    if name == "palette":
        return g.sh[:, 1:].flatten(1)
    return (g.log_scales if name == "scale" else g.sh[:, 0]).reshape(-1, 1)


def _weight(weights: Weights, name: str) -> Tensor:
    return weights["color"] if name == "palette" else weights[name].repeat_interleave(3)


def _rotations(quats: Tensor) -> Tensor:
    """[N, 4] rotations of SOG's bytes that a writer will round to the same bytes again.

    Where two components are nearly the largest, rounding may raise the stored one above the one that is left
    out, and a writer would take them for each other: the stored one is lowered by a step there.
    """
    packed = sog.pack_quats(quats.detach().cpu())
    rounded = sog.unpack_quats(packed)
    for _ in range(_PASSES):
        left_out = packed[:, 3] - sog.MODES
        odd = np.flatnonzero(np.abs(rounded).argmax(1) != left_out)
        if len(odd) == 0:
            break
        place = np.abs(packed[odd, :3] - 127.5).argmax(1)
        packed[odd, place] += np.where(packed[odd, place] > 127, -1, 1).astype(np.int8).view(np.uint8)
        rounded[odd] = sog.unpack_quats(packed[odd])
    found = torch.from_numpy(rounded).to(quats)
    # SOG has the largest component positive. Gradients fit the stored quaternion only by its own sign.
    return torch.where((found * quats).sum(1, keepdim=True) < 0, -found, found)


def _centres(means: Tensor) -> Tensor:
    """[N, 3] the nearest of SOG's 65,536 places an axis."""
    logs = sog.log(means.detach().double().cpu().numpy())
    low, high = logs.min(0), logs.max(0)
    places = np.rint((logs - low) / np.where(high > low, high - low, 1.0) * 65535)
    return torch.from_numpy(sog.unlog(low + (high - low) * (places / 65535.0)).astype(np.float32)).to(means)
