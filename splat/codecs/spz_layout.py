"""What a Gaussian is in Niantic's SPZ: bytes of each attribute, in all versions.

Positions in 24-bit fixed point (version 1: half floats), opacities, colours (band 0 over 0.15), log scales in
sixteenths and harmonics in 1/128 as bytes, rotations as three bytes (x y z, w >= 0) or, from version 3, as the place
of the largest component and the three others in 10 bits each. Axes are right, up, back.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from splat.codecs import axes, columns, tables
from splat.codecs.smallest_three import split_largest
from splat.core import DataError, Gaussians, sh

STORED, OURS = "RUB", "RDF"
_SIGNS = axes.flips(OURS, STORED)
MAX_BITS = 23
USUAL_BITS = 12

COLOR_GAIN = 0.15 * 255
_level = np.arange(256, dtype=np.float64)
_COLORS = ((_level / 255 - 0.5) / 0.15).astype(np.float32)
_SCALES = (_level / 16 - 10).astype(np.float32)
_HARMONICS = ((_level - 128) / 128).astype(np.float32)
# What ten bits of a component of a rotation stand for: a sign and nine bits of size.
_THREE = np.concatenate([sign * np.arange(512) * math.sqrt(0.5) / 511 for sign in (1, -1)]).astype(np.float32)
SCALE_RANGE = (-10.0, 255 / 16 - 10)
COLOR_LIMIT = 127.5 / COLOR_GAIN


@dataclass(frozen=True)
class Layout:
    """How a version lays out `count` Gaussians.

    Attributes:
        degree: of the stored harmonics, 0 to 4.
        bits: fractional bits of a position.
    """

    version: int
    count: int
    degree: int
    bits: int

    def sizes(self) -> dict[str, int]:
        """Bytes of each attribute, in the order of the file."""
        rotation = 4 if self.version >= 3 else 3
        each = {"positions": 6 if self.version == 1 else 9, "alphas": 1, "colors": 3, "scales": 3}
        each |= {"rotations": rotation, "sh": 3 * ((self.degree + 1) ** 2 - 1)}
        return {name: size * self.count for name, size in each.items()}


def unpack(
    layout: Layout, streams: Mapping[str, bytes | memoryview], stored: str, antialiased: bool
) -> Gaussians:
    """The Gaussians in our axes; harmonics above degree 3 are left out."""
    count, degree = layout.count, min(layout.degree, sh.MAX_DEGREE)

    def rows(name: str) -> np.ndarray:
        return np.frombuffer(streams[name], np.uint8).reshape(count, -1 if count else 1)

    plain = stored in (STORED, OURS)
    signs = axes.flips(stored, OURS) if plain else (1.0, 1.0, 1.0)
    coefficients = sh.coefficients(degree)
    color = columns.empty(count, coefficients, 3)
    columns.expand_bytes(rows("colors"), _COLORS, color[:, 0])
    if degree and count:
        flips = axes.sh_signs(signs, coefficients)[1:].numpy().repeat(3)
        every = rows("sh")
        wanted = every if layout.degree == degree else every[:, : 3 * (coefficients - 1)]
        columns.expand_bytes(wanted, _HARMONICS * flips[:, None], color.flatten(1)[:, 3:])
    scales = columns.empty(count, 3)
    columns.expand_bytes(rows("scales"), _SCALES, scales)
    quats = _unpack_quats(rows("rotations"), layout.version, axes.quat_signs(signs))
    gaussians = Gaussians(
        means=torch.from_numpy(_unpack_positions(rows("positions"), layout) * np.array(signs, np.float32)),
        quats=quats,
        log_scales=scales,
        logit_opacities=torch.from_numpy(tables.LOGITS[np.frombuffer(streams["alphas"], np.uint8)]),
        sh=color,
        antialiased=antialiased,
    )
    return gaussians if plain else axes.convert(gaussians, stored, OURS)


def _unpack_positions(rows: np.ndarray, layout: Layout) -> np.ndarray:
    if layout.version == 1:
        return rows.view("<f2").astype(np.float32).reshape(-1, 3)
    parts = rows.reshape(-1, 3, 3).astype(np.int32)
    fixed = parts[..., 0] | parts[..., 1] << 8 | parts[..., 2] << 16
    return ((fixed ^ 0x800000) - 0x800000).astype(np.float32) * np.float32(2.0**-layout.bits)


def _unpack_quats(rows: np.ndarray, version: int, signs: tuple[float, float, float, float]) -> torch.Tensor:
    """[N, 4] wxyz, times `signs`."""
    if version >= 3:
        packed = np.ascontiguousarray(rows).view("<u4")[:, 0] if len(rows) else np.zeros(0, np.uint32)
        return columns.unpack_largest(packed, _THREE, (1, 2, 3, 0), (*signs[1:], signs[0]))
    xyz = rows.astype(np.float32) / np.float32(127.5) - 1
    w = np.sqrt(np.maximum(0, 1 - np.einsum("ij,ij->i", xyz, xyz)))
    return torch.from_numpy(np.concatenate([w[:, None], xyz], 1) * np.array(signs, np.float32))


def pack(gaussians: Gaussians, layout: Layout, sh_bits: tuple[int, int]) -> dict[str, bytes]:
    """The bytes of each attribute; `sh_bits` of band 1 and of the others."""
    count = layout.count
    scaled = gaussians.means.numpy().astype(np.float64) * np.array(_SIGNS, np.float64) * 2.0**layout.bits
    fixed = np.rint(scaled).astype("<i4").reshape(-1, 1).view(np.uint8).reshape(count, 3, 4)
    alpha = torch.sigmoid(gaussians.logit_opacities)[:, None]
    streams = {
        "positions": np.ascontiguousarray(fixed[..., :3]),
        "alphas": columns.pack_bytes(alpha, 255, 0),
        "colors": columns.pack_bytes(gaussians.sh[:, 0], COLOR_GAIN, 127.5),
        "scales": columns.pack_bytes(gaussians.log_scales, 16, 160),
        "rotations": _pack_quats(
            gaussians.quats.numpy() * np.array(axes.quat_signs(_SIGNS), np.float32), layout.version
        ),
        "sh": np.zeros(0, np.uint8),
    }
    if layout.degree:
        stored = sh.coefficients(layout.degree)
        flips = axes.sh_signs(_SIGNS, stored)[1:].numpy().repeat(3)
        step = np.where(np.arange(3 * (stored - 1)) < 9, *(1 << (8 - bits) for bits in sh_bits))
        flat = gaussians.sh.flatten(1)[:, 3:]
        streams["sh"] = columns.pack_bytes(flat, 128 / step * flips, 128 / step, step=step)
    return {name: content.tobytes() for name, content in streams.items()}


def _pack_quats(quats: np.ndarray, version: int) -> np.ndarray:
    """Bytes of rotations wxyz [N, 4]."""
    if version < 3:
        wide = torch.nn.functional.normalize(torch.from_numpy(quats).double(), dim=1)
        xyz = torch.where(wide[:, :1] < 0, -wide[:, 1:], wide[:, 1:])
        return columns.pack_bytes(xyz.float(), 127.5, 127.5)
    turned = quats[:, (1, 2, 3, 0)]
    turned[~turned.any(1)] = (0, 0, 0, 1)
    three, place = split_largest(turned)
    part = (np.abs(three) * np.float32(511 / math.sqrt(0.5)) + np.float32(0.5)).astype(np.uint32)
    part |= (three < 0).astype(np.uint32) << np.uint32(9)
    packed = place.astype(np.uint32) << np.uint32(30)
    for column, shift in enumerate((20, 10, 0)):
        packed |= part[:, column] << np.uint32(shift)
    return packed.astype("<u4").view(np.uint8)


def choose_bits(path: Path | str, gaussians: Gaussians) -> int:
    """Fractional bits that hold every centre and are fine for the scene's scale.

    The usual 12, more where the median scale has fewer than 8 steps, fewer where the extent asks for it.

    Raises:
        DataError: bits that hold the farthest centre would move centres by more than half the median scale.
    """
    if len(gaussians) == 0:
        return USUAL_BITS
    extent = float(gaussians.means.abs().max())
    median = math.exp(min(max(float(np.median(gaussians.log_scales.numpy())), -20), 20))
    room = MAX_BITS if extent == 0 else math.floor(math.log2((2**23 - 1) / extent))
    bits = min(max(USUAL_BITS, math.ceil(math.log2(8 / median))), room, MAX_BITS)
    if bits < 1 or 2.0**-bits > median:
        raise DataError(
            f"{path} was not written: centres reach {extent:.4g} units from the origin, where SPZ's 24 bits have "
            f"steps of {2.0**-bits:.2g} units, more than the median scale of {median:.2g}: remove far-away "
            "Gaussians, move the scene to the origin, or choose another format"
        )
    return bits
