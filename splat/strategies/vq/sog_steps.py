"""Coarser steps within SOG's bytes: where a change costs little, low bits are zero.

SOG has a fixed number of bits for centres, rotations and opacities, but its images are entropy-coded: bytes that are
multiples of 2^k where a Gaussian allows it take about k bits less. The best step of a uniform quantizer that is
entropy-coded afterwards is sqrt(6 lam / (w ln 2)), where the squared error grows by w times the squared change and a
bit is worth lam (Gish and Pierce 1968).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import normalize

from splat.codecs.sog_quantize import COMPONENT_STEP, KEPT, MODES
from splat.core import Gaussians
from splat.core.rotations import quat_conjugate, quat_multiply
from splat.strategies.vq.layout import Weights

COLUMNS = 6
_CENTRES, _OPACITY, _SNAP, _TURN = slice(0, 3), 3, 4, 5
_LAST = 65535
_MOST = {"centres": 8, "opacity": 6, "turn": 7}  # largest k
_ZERO = 128  # the byte nearest to a component of 0, from which coarse steps are counted
_CLEAR = 1e-5  # by which the component that is left out must be the largest, for float32
_PASSES = 8
_UP = 1e-3  # bytes


class Steps:
    """Levels k of a scene's Gaussians, [N, 6] int32: of the centre by axis, of the opacity, and of the rotation how it
    is turned first (0: not; 1, 2, 3: about its own axis x, y, z, until it has no part about it) and its level.

    Attributes:
        low, high: [3] float64 between which centres lie, in SOG's logarithms.
        tables: [3, 256] bits of the bytes of the stored components of rotations.
    """

    def __init__(self) -> None:
        self.low = self.high = torch.zeros(3, dtype=torch.float64)
        self.tables = torch.full((3, 256), 8.0)

    def begin(self, g: Gaussians) -> None:
        """Bounds of the centres as they are."""
        logs = _log(g.means)
        self.low, self.high = (
            (logs.amin(0), logs.amax(0)) if len(g) else (logs.new_zeros(3), logs.new_zeros(3))
        )

    def choose(self, g: Gaussians, weights: Weights, lam: float) -> Tensor:
        """The levels [N, 6] at the price `lam` of a bit."""
        best = 6 * lam / math.log(2)
        steps = (best / weights["means"].double()).sqrt()[:, None]
        spacing = (1 + g.means.double().abs()) * (self.high - self.low).clamp(min=1e-30) / _LAST
        levels = [_level(steps / spacing, "centres")]
        opacity = g.opacities().double()
        levels.append(
            _level((best / weights["opacity"]).sqrt() * opacity * (1 - opacity) * 255, "opacity")[:, None]
        )
        levels.append(self._turns(canonical(g.quats.detach()), weights["turns"], lam))
        return torch.cat(levels, 1).int()

    def count(self, g: Gaussians, levels: Tensor) -> None:
        """The bits of the bytes from those that there are."""
        packed = pack(canonical(g.quats), levels[:, _SNAP], levels[:, _TURN])[:, :3]
        counts = (
            torch.stack([torch.bincount(column, minlength=256) for column in packed.unbind(1)]).double() + 0.5
        )
        self.tables = (counts.sum(1, keepdim=True) / counts).log2().float()

    def shown(self, g: Gaussians, levels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Centres [N, 3], quaternions [N, 4] and opacities [N] as the file has them."""
        k = torch.exp2(levels[:, _CENTRES].double())
        span = (self.high - self.low).clamp(min=1e-30)
        places = ((_log(g.means) - self.low) / span * _LAST).clamp(0, _LAST)
        places = _multiple(places, k, _LAST)
        means = _unlog(self.low + (self.high - self.low) * (places / _LAST)).float()
        k = torch.exp2(levels[:, _OPACITY].float())
        opacity = _multiple(g.opacities() * 255, k, 255).clamp(min=1) / 255
        quats = unpack(pack(g.quats, levels[:, _SNAP], levels[:, _TURN]))
        # SOG has the largest component positive. Gradients fit the stored quaternion only by its own sign.
        quats = torch.where((quats * g.quats).sum(1, keepdim=True) < 0, -quats, quats)
        return means, quats, opacity

    def bits(self, g: Gaussians, levels: Tensor) -> Tensor:
        """[N] about what centres, rotations and opacities take."""
        turned = self._bytes(pack(canonical(g.quats), levels[:, _SNAP], levels[:, _TURN]))
        # Upper bytes of neighbours are alike; an opacity has less than 8 bits even at level 0.
        return _UPPER + (8 - levels[:, _CENTRES]).sum(1) + (7 - levels[:, _OPACITY]) + turned

    def _bytes(self, packed: Tensor) -> Tensor:
        return torch.stack(
            [table[column] for table, column in zip(self.tables, packed[:, :3].unbind(1), strict=True)]
        ).sum(0)

    def _turns(self, quats: Tensor, weight: Tensor, lam: float) -> Tensor:
        """[N, 2] the way to turn and round rotations that costs least, error and bits together."""
        unit = normalize(quats, dim=1)
        # A component's error turns by twice as much, about axes that differ from rotation to rotation.
        level = _level(
            (6 * lam / math.log(2) / (4 * weight.double().mean(1))).sqrt() / COMPONENT_STEP, "turn"
        )
        cost = torch.full((len(quats),), math.inf, device=quats.device)
        found = torch.stack([torch.zeros_like(level), level], 1)
        for snap in range(4):
            for more in (-1, 0, 1, 2):
                tried = (level + more).clamp(0, _MOST["turn"])
                packed = pack(quats, torch.full_like(level, snap), tried)
                turn = 2 * quat_multiply(quat_conjugate(unit), unpack(packed))[:, 1:]
                total = (weight * turn.square()).sum(1) + lam * self._bytes(packed)
                better = total < cost
                cost = torch.where(better, total, cost)
                found[better] = torch.stack([torch.full_like(level, snap), tried], 1)[better]
        return found

    def state_dict(self) -> dict[str, Tensor]:
        return {"low": self.low, "high": self.high, "tables": self.tables}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.low, self.high, self.tables = state["low"], state["high"], state["tables"]


_UPPER = 6.0  # bits of the three upper bytes of a centre, measured


def canonical(quats: Tensor) -> Tensor:
    """The form of quaternions [N, 4] whose real part is the largest, of the four that turn axes over: then the byte
    that names the largest component is the same for all."""
    largest = quats.abs().argmax(1)
    return quat_multiply(quats, torch.eye(4, device=quats.device, dtype=quats.dtype)[largest])


def pack(quats: Tensor, snap: Tensor, level: Tensor) -> Tensor:
    """[N, 4] int64: the bytes of SOG for quaternions [N, 4] that are turned by `snap` and rounded to `level`, both [N].

    Where rounding would raise a stored component above the one that is left out, a writer would take them for each
    other: such rotations are stored as finely as SOG can, and the stored component is lowered.
    """
    unit = normalize(quats.detach(), dim=1)
    packed = _rounded(_turned(unit, snap), level)
    odd = _ambiguous(packed)
    if bool(odd.any()):
        fine = _rounded(unit[odd], torch.zeros_like(level[odd]))
        for _ in range(_PASSES):
            still = _ambiguous(fine)
            if not bool(still.any()):
                break
            rows = still.nonzero()[:, 0]
            place = (fine[rows, :3] - 127.5).abs().argmax(1)
            fine[rows, place] += torch.where(fine[rows, place] > 127, -1, 1)
        packed[odd] = fine
    return packed


def unpack(packed: Tensor) -> Tensor:
    """[N, 4] unit quaternions wxyz of SOG's bytes [N, 4], the component that is left out positive."""
    kept = (packed[:, :3].float() - 127.5) * COMPONENT_STEP
    largest = packed[:, 3] - MODES
    places = torch.as_tensor(KEPT, device=packed.device)[largest]
    quats = kept.new_zeros(len(packed), 4).scatter(1, places, kept)
    return quats.scatter(1, largest[:, None], (1 - kept.square().sum(1, keepdim=True)).clamp(min=0).sqrt())


def _rounded(unit: Tensor, level: Tensor) -> Tensor:
    largest = unit.abs().argmax(1, keepdim=True)
    places = torch.as_tensor(KEPT, device=unit.device)[largest[:, 0]]
    kept = unit.gather(1, places) * unit.gather(1, largest).sign()
    step = torch.exp2(level.float())[:, None]
    # A component of 0 lies between two bytes: rounding errors must not choose.
    count = ((kept / COMPONENT_STEP + (127.5 - _ZERO + _UP)) / step).round() * step
    return torch.cat([(count + _ZERO).clamp(0, 255).long(), largest + MODES], 1)


def _ambiguous(packed: Tensor) -> Tensor:
    """[N] bool: whose left out component is not clearly the largest."""
    quats = unpack(packed)
    left_out = quats.gather(1, packed[:, 3:] - MODES)
    others = (packed[:, :3].float() - 127.5).abs().amax(1) * COMPONENT_STEP
    return others > left_out[:, 0] - _CLEAR


def _turned(unit: Tensor, snap: Tensor) -> Tensor:
    """The rotations without their part about their own axis `snap` - 1; 0: as they are."""
    axis = snap[:, None].long()
    along = unit.gather(1, axis)
    twist = torch.zeros_like(unit).scatter(1, axis, along)
    twist[:, :1] = unit[:, :1]
    twist = torch.where(axis == 0, unit.new_tensor([1.0, 0.0, 0.0, 0.0]), twist)
    length = twist.norm(dim=1, keepdim=True)
    free = length > 1e-6
    turned = quat_multiply(unit, quat_conjugate(twist / length.clamp(min=1e-6)))
    return torch.where(free, turned, unit)


def _level(ratio: Tensor, of: str) -> Tensor:
    """int64: log2 of the ratio of two steps, to the nearest, from 0 to the most."""
    return ratio.clamp(min=1e-30).log2().round().clamp(0, _MOST[of]).long()


def _multiple(values: Tensor, step: Tensor, most: int) -> Tensor:
    """The multiples of `step` up to `most` that are nearest."""
    return torch.minimum((values / step).round(), (most / step).floor()) * step


def _log(x: Tensor) -> Tensor:
    x = x.detach().double()
    return x.sign() * x.abs().log1p()


def _unlog(x: Tensor) -> Tensor:
    return x.sign() * x.abs().expm1()
