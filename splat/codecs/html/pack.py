"""How a page stores a scene: quantized, one plane of bytes after the other, compressed by gzip.

The Gaussians are ordered along a Morton curve and cut into chunks of 256. Centres, logarithms of the scales and
colours are integers between the least and the greatest value of their chunk, 16, 8 and 8 bits each; opacities
are bytes; of a unit quaternion the three smallest components are stored, 10 bits each, with the place of the
largest; a higher harmonic is m q |q| / 127^2 with a signed byte q and the largest magnitude m of its band: finer
steps where most of them are. `assets/worker.js` is the reader in the page.

Planes, N bytes each: centre x y z (low byte, high byte of each), log scale (3), colour (3), opacity, rotation
(4, from the lowest byte), then each coefficient of the harmonics from band 1 on (red, green, blue). Before the
planes stands the table of the chunks: 18 float32 each, least [9] and greatest [9] of centre, log scale, colour.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from splat.codecs.quantize.order import morton_order
from splat.core import Gaussians, sh

CHUNK = 256
_TABLE = 18  # float32 a chunk
_BASIC = 6 + 3 + 3 + 1 + 4  # bytes a Gaussian, without the higher harmonics

# Row k: the components of a quaternion other than k.
_OTHERS = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])

Bytes = NDArray[np.uint8]


def planes(degree: int) -> int:
    """Bytes a Gaussian."""
    return _BASIC + 3 * (sh.coefficients(degree) - 1)


def packed_size(count: int, degree: int) -> int:
    """Bytes of `count` Gaussians before compression."""
    return -(-count // CHUNK) * _TABLE * 4 + count * planes(degree)


def pack(gaussians: Gaussians) -> tuple[bytes, list[float]]:
    """The scene in bytes, as the module says, and the largest magnitude in each band from 1 on."""
    order = morton_order(gaussians.means)
    scene = gaussians.to("cpu", torch.float32).select(order)
    count = len(scene)
    table, ranged = _ranges(scene)
    low, span = _spread(table, count)
    share = np.divide(ranged - low, span, out=np.zeros_like(low), where=span > 0)
    centre = np.rint(share[:, :3] * 65535).astype("<u2")
    parts = [
        np.ascontiguousarray(centre).view(np.uint8).reshape(count, 6),
        np.rint(share[:, 3:] * 255).astype(np.uint8),
        torch.round(scene.opacities() * 255).byte().numpy()[:, None],
        _pack_rotations(scene.quats.numpy()),
    ]
    peaks = []
    for band in range(1, scene.sh_degree + 1):
        values = scene.sh[:, band**2 : (band + 1) ** 2].flatten(1)
        peak = float(values.abs().max()) if count else 0.0
        peaks.append(peak)
        quantized = torch.round(127 * values.sign() * (values.abs() / (peak or 1.0)).sqrt())
        parts.append(quantized.to(torch.int8).numpy().view(np.uint8))
    body = b"".join(np.ascontiguousarray(part.T).tobytes() for part in parts)
    return table.astype("<f4").tobytes() + body, peaks


def unpack(data: bytes, count: int, peaks: list[float], antialiased: bool) -> Gaussians:
    """The scene that `pack` stored; `data` has `packed_size` bytes."""
    chunks = -(-count // CHUNK)
    table = np.frombuffer(data, "<f4", chunks * _TABLE).reshape(chunks, _TABLE)
    body = np.frombuffer(data, np.uint8, offset=chunks * _TABLE * 4).reshape(planes(len(peaks)), count).T
    low, span = _spread(table, count)
    centre = np.ascontiguousarray(body[:, :6]).view("<u2").reshape(count, 3)
    share = np.concatenate([centre / 65535.0, body[:, 6:12] / 255.0], 1)
    with np.errstate(over="ignore", invalid="ignore"):  # a damaged table: found by the check of the values
        ranged = torch.from_numpy((low + share * span).astype(np.float32))
    # As for .splat: the bytes 0 and 255 stand for a half step each.
    opacity = body[:, 12].astype(np.float64).clip(0.25, 254.75) / 255
    harmonics = [sh.from_rgb(ranged[:, 6:])[:, None]]
    begin = _BASIC
    for band, peak in enumerate(peaks, 1):
        end = begin + 3 * (2 * band + 1)
        share = np.ascontiguousarray(body[:, begin:end]).view(np.int8) / 127.0
        values = (peak * share * np.abs(share)).astype(np.float32)
        harmonics.append(torch.from_numpy(values.reshape(count, 2 * band + 1, 3)))
        begin = end
    return Gaussians(
        means=ranged[:, :3].contiguous(),
        quats=torch.from_numpy(_unpack_rotations(body[:, 13:17])),
        log_scales=ranged[:, 3:6].contiguous(),
        logit_opacities=torch.from_numpy(np.log(opacity / (1 - opacity)).astype(np.float32)),
        sh=torch.cat(harmonics, 1),
        antialiased=antialiased,
    )


def max_error(gaussians: Gaussians) -> dict[str, float]:
    """The bounds that the bits imply, by the names of codecs.differences: half a step, and float32's rounding."""
    scene = gaussians.to("cpu", torch.float32).select(morton_order(gaussians.means))
    table, ranged = _ranges(scene)
    if len(scene) == 0:
        return dict.fromkeys(("means", "quats", "log_scales", "opacities", "sh0", "shN"), 0.0)
    spans = (table[:, 9:].astype(np.float64) - table[:, :9]).max(0)
    rounding = np.abs(ranged).max(0).astype(np.float64) * 2.0**-23
    half = spans / 2 / np.where(np.arange(9) < 3, 65535, 255) + rounding
    # A coefficient is m t^2 with t at most 1/254 off, hence by less than 2 m / 254.
    peak = float(scene.sh[:, 1:].abs().max()) if scene.sh_degree else 0.0
    # Each of the three is off by half a step of sqrt(2) / 1023; the largest, at least 1/2, by at most three
    # times as much (its derivative is -rest / largest), and the second order adds under 1%.
    turn = 1.01 * 3 * np.sqrt(2.0) / 1023 / 2
    return {
        "means": float(half[:3].max()),
        "quats": turn,
        "log_scales": float(half[3:6].max()),
        "opacities": 0.5 / 255 + 1e-6,
        "sh0": float(half[6:].max()) / sh.C0,
        "shN": peak / 127 * (1 + 1e-6),
    }


def _ranges(scene: Gaussians) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The table [chunks, 18], and the values [N, 9] that it is of."""
    ranged = torch.cat([scene.means, scene.log_scales, sh.to_rgb(scene.sh[:, 0])], 1).numpy()
    if len(ranged) == 0:
        return np.zeros((0, _TABLE), np.float32), ranged
    starts = np.arange(0, len(ranged), CHUNK)
    return np.concatenate(
        [np.minimum.reduceat(ranged, starts), np.maximum.reduceat(ranged, starts)], 1
    ), ranged


def _spread(table: NDArray[np.float32], count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Least values and spans [N, 9], float64, of each Gaussian's chunk."""
    exact = table.astype(np.float64)
    with np.errstate(over="ignore", invalid="ignore"):
        span = exact[:, 9:] - exact[:, :9]
    return tuple(np.repeat(part, CHUNK, 0)[:count] for part in (exact[:, :9], span))  # type: ignore[return-value]


def _pack_rotations(quats: NDArray[np.float32]) -> Bytes:
    """[N, 4] bytes: the three smaller components of the unit quaternion over 1/sqrt(2), 10 bits each from the
    lowest, in the order of wxyz, then 2 bits for the place of the largest, which is made positive."""
    norms = np.linalg.norm(quats.astype(np.float64), axis=1, keepdims=True)
    unit = np.where(norms > 0, quats / np.maximum(norms, 1e-300), [1.0, 0.0, 0.0, 0.0])
    largest = np.abs(unit).argmax(1)
    rows = np.arange(len(unit))
    unit = unit * np.where(unit[rows, largest] < 0, -1.0, 1.0)[:, None]
    rest = unit[rows[:, None], _OTHERS[largest]]
    parts = np.rint((rest * np.sqrt(0.5) + 0.5) * 1023).clip(0, 1023).astype(np.uint32)
    word = parts[:, 0] | parts[:, 1] << 10 | parts[:, 2] << 20 | largest.astype(np.uint32) << 30
    return word.astype("<u4").view(np.uint8).reshape(-1, 4)


def _unpack_rotations(packed: Bytes) -> NDArray[np.float32]:
    word = np.ascontiguousarray(packed).view("<u4").reshape(-1)
    largest = word >> 30
    rest = np.stack([word & 1023, word >> 10 & 1023, word >> 20 & 1023], 1) / 1023
    rest = (rest - 0.5) * np.sqrt(2.0)
    quats = np.empty((len(word), 4), np.float32)
    rows = np.arange(len(word))
    quats[rows[:, None], _OTHERS[largest]] = rest
    quats[rows, largest] = np.sqrt(np.maximum(0.0, 1 - (rest**2).sum(1)))
    return quats
