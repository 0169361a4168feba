"""Training for the vq container: vector codebooks, and cells for the centres by the size of the Gaussian."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from splat.codecs.vq.quantizer import values_of
from splat.codecs.vq.scene import BANDS, assemble, attributes, cells_of, centres, cube, depths_of, words
from splat.core import Gaussians
from splat.strategies.vq import rotation
from splat.strategies.vq.codebook import Codebook
from splat.strategies.vq.config import VqConfig
from splat.strategies.vq.layout import Weights

# More words never pay: an opacity is one number, and a word of a band is long.
_GRID = 1 << 14  # some 4,096 rotations
_MOST = {"opacity": 128, "band1": 512, "band2": 512, "band3": 512}


class VqLayout:
    def __init__(self, config: VqConfig, degree: int) -> None:
        self.config = config
        self.books = {name: Codebook(optional=name in BANDS) for name in attributes(degree)}
        self.books["rotation"] = rotation.RotationBook(_GRID)
        self.names = tuple(self.books)  # the scale is the first
        self.columns = len(self.names)
        self.origin, self.size = torch.zeros(3, dtype=torch.float64), 1.0
        self.depths = torch.zeros(0, dtype=torch.int64)
        self._values: dict[str, Tensor] = {}

    def begin(self, g: Gaussians, weights: Weights, lam: float, seed: int) -> Tensor:
        columns: list[Tensor] = []
        for name, book in self.books.items():
            points = self._points(g, name, columns)
            most = min(_MOST.get(name, self.config.words), self.config.words, len(points))
            columns.append(book.begin(points, most, weights[name], lam, seed))
        labels = torch.stack(columns, 1).int()
        self._place(g, labels, weights, lam)
        return labels

    def assign(self, g: Gaussians, weights: Weights, lam: float) -> Tensor:
        found: list[Tensor] = []
        for name, book in self.books.items():
            found.append(book.assign(self._points(g, name, found), weights[name], lam))
        return torch.stack(found, 1).int()

    def learn(self, g: Gaussians, labels: Tensor, weights: Weights, lam: float) -> Tensor:
        found: list[Tensor] = []
        for i, (name, book) in enumerate(self.books.items()):
            found.append(book.update(self._points(g, name, found), labels[:, i].long(), weights[name]))
        labels = torch.stack(found, 1).int()
        self._place(g, labels, weights, lam)
        return labels

    def move(self, g: Gaussians, labels: Tensor, weights: Weights) -> None:
        for i, (name, book) in enumerate(self.books.items()):
            book.move(self._points(g, name, [labels[:, 0].long()]), labels[:, i].long(), weights[name])
        self._look_up()

    def shown(self, g: Gaussians, labels: Tensor) -> Gaussians:
        found = {name: self._values[name][labels[:, i].long()] for i, name in enumerate(self.names)}
        depth = self.depths[labels[:, 0].long()]
        means = centres(cells_of(g.means, depth, self.origin, self.size), depth, self.origin, self.size)
        return assemble(means, found, g.antialiased)

    def bits(self, labels: Tensor) -> Tensor:
        total = 3 * self.depths[labels[:, 0].long()].float() - math.log2(max(2, len(labels))) + 1.44
        for i, book in enumerate(self.books.values()):
            total = total + book.bits[labels[:, i].long()]
        return total.clamp(min=1)

    def rotations(self, labels: Tensor) -> Tensor | None:
        return self._values["rotation"][labels[:, self.names.index("rotation")].long()]

    def codebooks(self, labels: Tensor) -> dict[str, Any]:
        books = {name: book.book for name, book in self.books.items() if name != "rotation"}
        place = {"origin": self.origin, "size": self.size, "depths": self.depths}
        return {"vq": {**place, "books": books, "grid": _GRID}}

    def state_dict(self) -> dict[str, Any]:
        return {
            "origin": self.origin,
            "size": self.size,
            "depths": self.depths,
            "books": {name: book.state_dict() for name, book in self.books.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.origin, self.size, self.depths = state["origin"], state["size"], state["depths"]
        for name, book in self.books.items():
            book.load_state_dict(state["books"][name])
        self._look_up()

    def _place(self, g: Gaussians, labels: Tensor, weights: Weights, lam: float) -> None:
        """The cells of the centres: for each word of the scale as large as the rate allows.

        At the best rate a uniform quantizer has the error lam / (2 ln 2) a component, its step squared / 12.
        """
        self.origin, self.size = cube(g.means)
        label = labels[:, 0].long()
        count = len(self.books["scale"].centroids)
        mass = torch.bincount(label, minlength=count).double()
        mean = torch.bincount(label, weights["means"].double(), minlength=count) / mass.clamp(min=1)
        self.depths = depths_of((6 * lam / math.log(2) / mean.clamp(min=1e-300)).sqrt(), self.size)
        self._look_up()

    def _look_up(self) -> None:
        self._values = {
            name: book.centroids if name == "rotation" else words(name, book.book)
            for name, book in self.books.items()
        }

    def _points(self, g: Gaussians, name: str, labels: list[Tensor]) -> Tensor:
        """[N, D] what is quantized; rotations in the light of the scales that are shown, by labels[0]."""
        if name != "rotation":
            return values_of(g, name)
        scales = self.books["scale"]
        return rotation.features(g.quats, words("scale", scales.book)[labels[0]])
