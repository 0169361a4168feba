"""Training for the vq container: vector codebooks, and cells for the centres by the size of the Gaussian."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from splat.codecs.vq.basis import PARTS, Basis
from splat.codecs.vq.cells import encode_mixed
from splat.codecs.vq.quantizer import values_of
from splat.codecs.vq.scene import assemble, cells_of, centres, cube, depths_of, widths, words
from splat.codecs.vq.turns import decode_rotations, directions, encode_rotations, levels, turns
from splat.core import Gaussians
from splat.strategies.vq.codebook import Codebook
from splat.strategies.vq.config import VqConfig
from splat.strategies.vq.layout import Weights

# More words never pay: an opacity is one number.
_MOST = {"opacity": 128}
# Gaussians a word at first: with half as many, 20,000 Gaussians of fox lost 0.07 dB at equal bytes.
_MEMBERS = 10
# Share of the Gaussians that must be gone before it is counted again what their centres share.
_CHANGED = 0.01


class VqLayout:
    def __init__(self, config: VqConfig, degree: int) -> None:
        self.config = config
        self.books = {name: Codebook(optional=name in PARTS) for name in widths(degree)}
        self.names = tuple(self.books)  # the scale is the first
        self.columns = len(self.names) + 1  # the rotation is the last
        self.origin, self.size = torch.zeros(3, dtype=torch.float64), 1.0
        self.depths = torch.zeros(0, dtype=torch.int64)
        self.turns = torch.zeros(0, 3, dtype=torch.int64)
        self.basis = Basis.of(torch.zeros(0, (degree + 1) ** 2, 3))
        self._shared = 0.0  # bits, of so many Gaussians
        self._shared_of = 0
        self._turned: tuple[Tensor, int, Tensor] | None = None  # rotations of these labels, at this version
        self._values: dict[str, Tensor] = {}

    def begin(self, g: Gaussians, weights: Weights, lam: float, seed: int) -> Tensor:
        self.basis = Basis.of(g.sh, weights["color"], weights["seen"])
        found: list[Tensor] = []
        for name, book in self.books.items():
            points = values_of(g, name, self.basis)
            most = min(_MOST.get(name, self.config.words), self.config.words, max(1, len(points) // _MEMBERS))
            found.append(book.begin(points, most, _weight(weights, name), lam, seed))
        return self._placed(g, found, weights, lam)

    def assign(self, g: Gaussians, weights: Weights, lam: float, learn: bool) -> Tensor:
        found = []
        for name, book in self.books.items():
            points, weight = values_of(g, name, self.basis), _weight(weights, name)
            label = book.assign(points, weight, lam)
            found.append(book.update(points, label, weight) if learn else label)
        return self._placed(g, found, weights, lam) if learn else self._columns(g, found)

    def move(self, g: Gaussians, labels: Tensor, weights: Weights) -> None:
        for i, (name, book) in enumerate(self.books.items()):
            book.move(values_of(g, name, self.basis), labels[:, i].long(), _weight(weights, name))
        self._look_up()

    def shown(self, g: Gaussians, labels: Tensor) -> Gaussians:
        found = {name: labels[:, i].long() for i, name in enumerate(self.names)}
        depth = self.depths[found["scale"]]
        means = centres(cells_of(g.means, depth, self.origin, self.size), depth, self.origin, self.size)
        return assemble(means, self.rotations(labels), self._values, found, g.antialiased)

    def bits(self, g: Gaussians, labels: Tensor) -> Tensor:
        swing, twist, _ = self.turns[labels[:, 0].long()].unbind(1)
        total = (directions(swing) * turns(twist)).float().log2()
        total += 3 * self.depths[labels[:, 0].long()].float() - self._shared
        for i, book in enumerate(self.books.values()):
            total = total + book.bits[labels[:, i].long()]
        return total.clamp(min=1)

    def rotations(self, labels: Tensor) -> Tensor:
        kept = self._turned
        if kept is None or kept[0] is not labels or kept[1] != labels._version:
            quats = decode_rotations(labels[:, -1].long(), self.turns[labels[:, 0].long()])
            self._turned = kept = labels, labels._version, quats
        return kept[2]

    def codebooks(self, labels: Tensor) -> dict[str, Any]:
        books = {name: book.book for name, book in self.books.items()}
        place = {
            "origin": self.origin,
            "size": self.size,
            "depths": self.depths,
            "turns": self.turns,
            "basis": self.basis,
        }
        return {"vq": {**place, "books": books}}

    def state_dict(self) -> dict[str, Any]:
        return {
            "origin": self.origin,
            "size": self.size,
            "depths": self.depths,
            "turns": self.turns,
            "shared": (self._shared, self._shared_of),
            "basis": [self.basis.constant, self.basis.analysis, self.basis.synthesis],
            "books": {name: book.state_dict() for name, book in self.books.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.origin, self.size = state["origin"], state["size"]
        self.depths, self.turns, self._turned = state["depths"], state["turns"], None
        self.basis = Basis(*state["basis"])
        self._shared, self._shared_of = state["shared"]
        for name, book in self.books.items():
            book.load_state_dict(state["books"][name])
        self._look_up()

    def _placed(self, g: Gaussians, found: list[Tensor], weights: Weights, lam: float) -> Tensor:
        """Cells of centres and rotations, for each word of the scale as large as the rate allows; the labels.

        At the best rate a uniform quantizer has the error lam / (2 ln 2) a component, its step squared / 12.
        """
        # Words that are stored as the same bytes cannot be told apart.
        _, word = torch.unique(self.books["scale"].book.words, dim=0, return_inverse=True)
        label, count = word[found[0]], int(word.max()) + 1
        mass = torch.bincount(label, minlength=count).clamp(min=1)
        measured = torch.cat([weights["means"][:, None], weights["turns"]], 1).double()
        mean = torch.zeros(count, 4, dtype=torch.float64, device=g.device).index_add(0, label, measured)
        steps = (6 * lam / math.log(2) / (mean / mass[:, None]).clamp(min=1e-300)).sqrt()[word]
        self.origin, self.size = cube(g.means)
        self.depths = depths_of(steps[:, 0], self.size)
        axis = steps[:, 1:].argmax(1)  # about which turns matter least
        around = steps[:, 1:].gather(1, axis[:, None])[:, 0]
        across = ((1 / steps[:, 1:].square()).sum(1) - 1 / around.square()).div(2).rsqrt()
        self.turns = torch.stack([*levels(across, around), axis], 1)
        self._look_up()
        depth = self.depths[found[0]]
        if abs(len(g) - self._shared_of) > _CHANGED * len(g):
            # What centres share, as they crowd and come in no order: 3 bits a halving less what they take.
            cells = cells_of(g.means, depth, self.origin, self.size).cpu().numpy()
            bits, _, _ = encode_mixed(cells, depth.cpu().numpy(), int(depth.median()))
            self._shared = 3 * float(depth.double().mean()) - bits / max(1, len(g))
            self._shared_of = len(g)
        return self._columns(g, found)

    def _columns(self, g: Gaussians, found: list[Tensor]) -> Tensor:
        return torch.stack([*found, encode_rotations(g.quats, self.turns[found[0]])], 1).int()

    def _look_up(self) -> None:
        self._values = {name: words(name, book.book, self.basis) for name, book in self.books.items()}


def _weight(weights: Weights, name: str) -> Tensor:
    return weights["color" if name in PARTS else name]
