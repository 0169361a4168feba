"""SOG's quantizers: between a scene and the bytes of its images.

Everything is rounded to the nearest value that the format has. Codebooks are made for what is seen: a Gaussian's
error counts by its opacity, and in the palette also by its size; and their words lie evenly where they can, as the
images are entropy-coded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from splat.codecs.quantize import even_codebook, kmeans, nearest_scalar
from splat.core import DataError, Gaussians, sh

Floats = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]

LARGEST_PALETTE = 65536
LARGEST_SIDE = 16383  # texels, of WebP
LARGEST_COUNT = (LARGEST_SIDE // 4 * 4) ** 2
PALETTE_COLUMNS = 64  # entries in a row of the palette's image
DIGITS = 5  # significant, of the values of codebooks in meta.json
COMPONENT_STEP = 2 / math.sqrt(2) / 255  # of the three stored components of a rotation
# Error of the palette's codebook: of the palette's own squared error, and of the coefficients' magnitude.
_ROUNDING = 0.1
_FINEST = 0.01
MODES = 252  # added to the place of the component that is not stored
# The components that are stored, by the place of the one that is not; wxyz.
KEPT = np.array([[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]])


@dataclass
class Learned:
    """What training already used, so that the file loses nothing more: metadata["codebooks"]["sog"].

    A dict of these names, each optional, but for the three of the palette and the two of the centres, which come
    together.

    Attributes:
        low, high: [3] float64 bounds of sign(x) ln(1 + |x|) of the centres; centres beyond them make new ones.
        scales: [<= 256] values of the logarithmic scales.
        sh0: [<= 256] values of the first harmonic's coefficients.
        shn_codebook: [<= 256] values of the palette's coefficients.
        shn_centroids: [K, 3 C] the palette, K <= 65,536: C coefficients of the bands above 0, each for red,
            green and blue, as `gaussians.sh[:, 1:].flatten(1)` has them.
        shn_labels: [N] each Gaussian's entry.
    """

    low: Tensor | None = None
    high: Tensor | None = None
    scales: Tensor | None = None
    sh0: Tensor | None = None
    shn_codebook: Tensor | None = None
    shn_centroids: Tensor | None = None
    shn_labels: Tensor | None = None

    @staticmethod
    def of(path: Path, given: dict[str, Any] | None, gaussians: Gaussians) -> Learned:
        """From metadata; ValueError where shapes do not fit the scene."""
        found = Learned(**{name: torch.as_tensor(value).cpu() for name, value in (given or {}).items()})
        for name in ("scales", "sh0", "shn_codebook"):
            values = getattr(found, name)
            if values is not None and (values.dim() != 1 or not 1 <= len(values) <= 256):
                raise ValueError(f"codebooks: {name}: expected [1 to 256], got {list(values.shape)}")
        if (found.low is None) != (found.high is None):
            raise ValueError("codebooks: low and high belong together")
        for name in ("low", "high"):
            values = getattr(found, name)
            if values is not None and (values.shape != (3,) or not bool(values.isfinite().all())):
                raise ValueError(f"codebooks: {name}: expected three finite numbers")
        palette = (found.shn_codebook, found.shn_centroids, found.shn_labels)
        if any(part is None for part in palette) and any(part is not None for part in palette):
            raise ValueError("codebooks: shn_codebook, shn_centroids and shn_labels belong together")
        if found.shn_centroids is not None and found.shn_labels is not None:
            wide = 3 * (gaussians.sh.shape[1] - 1)
            entries, labels = found.shn_centroids, found.shn_labels
            if entries.dim() != 2 or entries.shape[1] != wide or not 1 <= len(entries) <= LARGEST_PALETTE:
                raise ValueError(f"codebooks: shn_centroids: expected [K, {wide}], got {list(entries.shape)}")
            if labels.shape != (len(gaussians),) or (
                len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(entries)
            ):
                raise ValueError(
                    f"codebooks: shn_labels: expected [{len(gaussians)}] below {len(entries)}, got "
                    f"{list(labels.shape)}"
                )
        return found

    def select(self, rows: Tensor) -> Learned:
        """The same for the Gaussians at `rows`."""
        return self if self.shn_labels is None else replace(self, shn_labels=self.shn_labels[rows])


@dataclass
class Palette:
    """Harmonics above degree 0: entries [K, C, 3] of the codebook [<= 256], and each Gaussian's label [N]."""

    codebook: Floats
    entries: Bytes
    labels: npt.NDArray[np.int64]


@dataclass
class Quantized:
    """A scene as SOG holds it: N rows.

    Attributes:
        means: [N, 3] uint16 between means_low and means_high [3], of sign(x) ln(1 + |x|).
        quats: [N, 4] uint8: three components and 252 + the place of the largest.
        scales: [N, 3] uint8 into scale_codebook [<= 256].
        sh0: [N, 4] uint8: three coefficients into sh0_codebook [<= 256], and the opacity.
        palette: the bands above 0; None where there are none.
        antialiased: see Gaussians.
    """

    means: npt.NDArray[np.uint16]
    means_low: Floats
    means_high: Floats
    quats: Bytes
    scales: Bytes
    scale_codebook: Floats
    sh0: Bytes
    sh0_codebook: Floats
    palette: Palette | None
    antialiased: bool

    def restore(self) -> Gaussians:
        """The scene that the bytes stand for; opacities of exactly 0 and 1 are infinite logits."""
        with np.errstate(divide="ignore"):
            opacity = self.sh0[:, 3] / 255.0
            logits = np.log(opacity) - np.log1p(-opacity)
        colors = self.sh0_codebook[self.sh0[:, :3]][:, None]
        if self.palette is not None:
            entries = self.palette.codebook[self.palette.entries]
            colors = np.concatenate([colors, entries[self.palette.labels]], 1)
        return Gaussians(
            means=_float32(unlog(_lerp(self.means / 65535.0, self.means_low, self.means_high))),
            quats=_float32(unpack_quats(self.quats)),
            log_scales=_float32(self.scale_codebook[self.scales]),
            logit_opacities=_float32(logits),
            sh=_float32(colors),
            antialiased=self.antialiased,
        )


def quantize(gaussians: Gaussians, palette: int | None, iterations: int, learned: Learned) -> Quantized:
    """The scene in SOG's bytes, in its own order; float32, on the CPU.

    Args:
        palette: number of entries wanted; None: `default_palette`.
        iterations: of the palette's k-means.
        learned: codebooks to take as they are.
    """
    logs = log(gaussians.means.double().numpy())
    empty = len(gaussians) == 0
    low, high = (np.zeros(3), np.zeros(3)) if empty else _bounds(logs, learned)
    # An axis without extent has the value `low` whatever is stored.
    places = (logs - low) / np.where(high > low, high - low, 1.0) * 65535
    opacity = gaussians.opacities()[:, None].expand(-1, 3)
    scales = _codebook(gaussians.log_scales, learned.scales, opacity)
    sh0 = _codebook(gaussians.sh[:, 0], learned.sh0, opacity)
    opacities = np.rint(gaussians.opacities().double().numpy() * 255)
    colors = nearest_scalar(gaussians.sh[:, 0], sh0).numpy()
    return Quantized(
        means=np.rint(places).clip(0, 65535).astype(np.uint16),
        means_low=low,
        means_high=high,
        quats=pack_quats(gaussians.quats),
        scales=nearest_scalar(gaussians.log_scales, scales).numpy().astype(np.uint8),
        scale_codebook=scales.double().numpy(),
        sh0=np.concatenate([colors, opacities[:, None]], 1).astype(np.uint8),
        sh0_codebook=sh0.double().numpy(),
        palette=_palette(gaussians, palette, iterations, learned) if gaussians.sh_degree else None,
        antialiased=gaussians.antialiased,
    )


def _bounds(logs: Floats, learned: Learned) -> tuple[Floats, Floats]:
    low, high = logs.min(0), logs.max(0)
    if learned.low is None or learned.high is None:
        return low, high
    known = learned.low.double().numpy(), learned.high.double().numpy()
    # To float32's rounding of the centres.
    slack = 1e-6
    return known if (low >= known[0] - slack).all() and (high <= known[1] + slack).all() else (low, high)


def default_palette(count: int) -> int:
    """Entries for so many Gaussians: between one and two in three of them, as splat-transform has it."""
    return min(LARGEST_PALETTE, 1 << max(10, (count // 1024).bit_length() + 9))


def log(x: Floats) -> Floats:
    return np.sign(x) * np.log1p(np.abs(x))


def unlog(x: Floats) -> Floats:
    # What is too large becomes an infinity, which the check of the values reports.
    with np.errstate(over="ignore"):
        return np.sign(x) * np.expm1(np.abs(x))


def pack_quats(quats: Tensor) -> Bytes:
    """[N, 4] uint8 of rotations [N, 4] wxyz."""
    unit = torch.nn.functional.normalize(quats.double(), dim=1).numpy()
    # A zero quaternion is drawn unrotated.
    unit[~unit.any(1)] = (1, 0, 0, 0)
    largest = np.abs(unit).argmax(1)
    rows = np.arange(len(unit))
    unit = np.where(unit[rows, largest][:, None] < 0, -unit, unit)
    kept = unit[rows[:, None], KEPT[largest]]
    # The middle 127.5 lies between two bytes: there is no exact 0.
    packed = np.rint(np.clip(kept / COMPONENT_STEP + 127.5, 0, 255))
    return np.concatenate([packed, largest[:, None] + MODES], 1).astype(np.uint8)


def unpack_quats(packed: Bytes) -> Floats:
    """[N, 4] unit quaternions wxyz; the fourth bytes must be 252 to 255."""
    kept = (packed[:, :3] - 127.5) * COMPONENT_STEP
    largest = packed[:, 3].astype(np.int64) - MODES
    rows = np.arange(len(packed))
    quats = np.empty((len(packed), 4))
    quats[rows[:, None], KEPT[largest]] = kept
    quats[rows, largest] = np.sqrt(np.maximum(0, 1 - np.square(kept).sum(1)))
    return quats


def importance(gaussians: Gaussians) -> Tensor:
    """[N] float32 of mean 1: how much an error of colour counts, (opacity x size)^0.75.

    The size is the geometric mean of the two largest standard deviations. Measured on fox: with an exponent of 1,
    with areas, with opacities alone or without weights held-out views lose more, and with an exponent of 1 the
    error without weights becomes larger than that of other writers.
    """
    widest = gaussians.log_scales.double().sort(dim=1, descending=True).values[:, :2].mean(1)
    weights = (gaussians.opacities().double() * (widest - widest.amax()).exp()).pow(0.75)
    return (weights / weights.mean().clamp(min=1e-300)).float()


def _codebook(values: Tensor, learned: Tensor | None, weights: Tensor, step: float = 0.0) -> Tensor:
    """[<= 256] float32 ascending: the learned one, or the values themselves where they are few, or an even one."""
    if learned is not None:
        return learned.float().sort().values
    if values.numel() == 0:
        return torch.zeros(1)
    distinct = torch.unique(values)
    if len(distinct) <= 256:
        return distinct
    return written(even_codebook(values, 256, weights=weights, step=step)).unique()


def written(values: Tensor) -> Tensor:
    """float32: the values to as many digits as codebooks that are made here have."""
    values = values.double()
    unit = torch.pow(10.0, DIGITS - 1 - values.abs().clamp(min=1e-30).log10().floor())
    return ((values * unit).round() / unit).float()


def _palette(gaussians: Gaussians, size: int | None, iterations: int, learned: Learned) -> Palette:
    bands = gaussians.sh[:, 1:].flatten(1)
    step = 0.0
    uses = torch.ones(1)
    if learned.shn_centroids is not None and learned.shn_labels is not None:
        entries, labels = learned.shn_centroids.float(), learned.shn_labels
    elif len(bands) == 0:
        entries, labels = torch.zeros(1, bands.shape[1]), torch.empty(0, dtype=torch.int64)
    else:
        wanted = default_palette(len(bands)) if size is None else size
        weights = importance(gaussians)
        entries, labels = kmeans(bands, min(wanted, len(bands)), iterations=iterations, weights=weights)
        uses = torch.bincount(labels, weights.double(), minlength=len(entries)).float()
        step = _coefficient_step(bands, entries[labels], weights)
    codebook = _codebook(entries, learned.shn_codebook, uses[:, None].expand_as(entries), step)
    entries, labels = by_first_use(entries, labels)
    coefficients = sh.coefficients(gaussians.sh_degree) - 1
    packed = nearest_scalar(entries, codebook).numpy().astype(np.uint8)
    return Palette(codebook.double().numpy(), packed.reshape(-1, coefficients, 3), labels.numpy())


def _coefficient_step(bands: Tensor, coded: Tensor, weights: Tensor) -> float:
    """The step to which the palette's coefficients need be known.

    Rounding to steps d adds d^2 / 12 to the square error: no more than a tenth of what the palette's size costs
    already, or, where the palette is as large as the scene, a hundredth of the coefficients' own size.
    """
    share = weights.double() / weights.double().sum().clamp(min=1e-300)
    error = float(((bands - coded).double().square().mean(1) * share).sum())
    power = float((bands.double().square().mean(1) * share).sum())
    return math.sqrt(12 * max(_ROUNDING * error, _FINEST**2 * power))


def by_first_use(entries: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The same palette in the order in which the Gaussians first use it: labels then mostly grow, and neighbours,
    alike in space, have entries that are near; the labels' image takes a fifth less."""
    count = len(labels)
    first = torch.full((len(entries),), count).scatter_reduce_(0, labels, torch.arange(count), "amin")
    order = first.sort(stable=True).indices
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    return entries[order], place[labels]


def check_palette(path: Path, palette: Palette) -> None:
    """DataError where a label has no entry."""
    if len(palette.labels) and int(palette.labels.max()) >= len(palette.entries):
        raise DataError(
            f"{path}: damaged: a label {int(palette.labels.max())} of a palette of {len(palette.entries)}"
        )


def _lerp(share: Floats, low: Floats, high: Floats) -> Floats:
    return low + (high - low) * share


def _float32(values: Floats) -> Tensor:
    with np.errstate(over="ignore"):
        return torch.from_numpy(np.ascontiguousarray(values, np.float32))
