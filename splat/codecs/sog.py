"""SOG, PlayCanvas's format: a scene as a few lossless images and a meta.json that says what they mean.

A scene is a zip file (.sog), or a folder with the same files, or a streamed scene: a folder of such folders,
one a level of detail, with a lod-meta.json. Version 2 is read and written, version 1 is read.

Source: the format's specification, developer.playcanvas.com (user manual, Gaussian splatting, SOG).
"""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from splat.codecs import sog_quantize as layout
from splat.codecs.bounded import open_archive
from splat.codecs.format import Decoded, Format, Metadata, differences
from splat.codecs.quantize import morton_order
from splat.codecs.sog_order import arranged, arrangement
from splat.codecs.sog_read import FolderSource, read_scene
from splat.codecs.sog_stream import read_streamed
from splat.codecs.sog_write import write_scene
from splat.core import DataError, Gaussians, UsageError

_META, _STREAMED = "meta.json", "lod-meta.json"
_ZIP = b"PK\x03\x04"


@dataclass(frozen=True)
class SogOptions:
    """Write options of SOG.

    A scene that was trained for the format brings its palette and codebooks, which are then written as they are.
    """

    palette: int | None = None
    """Entries of the palette of harmonics above degree 0, at most 65,536; None: as many as fit the count."""
    iterations: int = 4
    """Of the k-means that makes the palette."""

    def __post_init__(self) -> None:
        if self.palette is not None and not 1 <= self.palette <= layout.LARGEST_PALETTE:
            raise UsageError(f"SOG: palette must be 1 to {layout.LARGEST_PALETTE}, got {self.palette}")
        if self.iterations < 1:
            raise UsageError(f"SOG: iterations must be at least 1, got {self.iterations}")


def sniff(path: Path, head: bytes) -> bool:
    if not head:
        return (path / _META).is_file() or (path / _STREAMED).is_file()
    if head.startswith(_ZIP):
        try:
            with zipfile.ZipFile(path) as archive:
                return _META in archive.namelist()
        except (zipfile.BadZipFile, ValueError, OverflowError, NotImplementedError, EOFError):
            # A zip file that cannot be listed: the reader says what is wrong, if the name claims SOG.
            return path.name.lower().endswith(".sog")
    return head.lstrip().startswith(b"{") and (b'"means"' in head or b'"lodLevels"' in head)


def read(path: Path) -> Decoded:
    if path.is_dir():
        path = path / (_META if (path / _META).is_file() else _STREAMED)
    with open(path, "rb") as file:
        head = file.read(4096)
    if head.startswith(_ZIP):
        with open_archive(path) as archive:
            return read_scene(path, archive, _META)
    if b'"lodLevels"' in head:
        return read_streamed(path)
    return read_scene(path, FolderSource(path, path.parent), path.name)


def write(gaussians: Gaussians, path: Path, metadata: Metadata, options: SogOptions) -> list[str]:
    if len(gaussians) > layout.LARGEST_COUNT:
        raise DataError(
            f"{path} was not written: {len(gaussians):,} Gaussians are more than the {layout.LARGEST_COUNT:,} "
            "texels of SOG's largest image"
        )
    write_scene(_quantized(gaussians, path, metadata, options)[0], path, metadata)
    return []


def _quantized(
    gaussians: Gaussians, path: Path, metadata: Metadata, options: SogOptions
) -> tuple[layout.Quantized, Tensor]:
    """The scene as it is written, and the rows of `gaussians` in its order."""
    gaussians = gaussians.to("cpu", torch.float32)
    rows = morton_order(gaussians.means)
    learned = metadata.get("codebooks") or {}
    learned = layout.Learned.of(path, learned.get("sog"), gaussians).select(rows)
    quantized = layout.quantize(gaussians.select(rows), options.palette, options.iterations, learned)
    within = arrangement(quantized)
    return arranged(quantized, within), rows[torch.from_numpy(within)]


def max_error(gaussians: Gaussians, options: SogOptions) -> dict[str, float]:
    """Means, rotations and opacities by their bits; scales and colours by the codebooks that `write` makes."""
    gaussians = gaussians.to("cpu", torch.float32)
    quantized, rows = _quantized(gaussians, Path(), {}, options)
    found = differences(gaussians.select(rows), quantized.restore())
    half = layout.COMPONENT_STEP / 2
    # Three components are off by half a step. The fourth, d >= 1/2 and no smaller than the others, is made up for
    # their squares: |d - d'| (d + d') <= 2 half sum|q| + 3 half^2, most at d = 1/2, where sum|q| <= 3/2.
    miss = 3 * half + 3 * half**2
    fourth = (1 - (1 - 4 * miss) ** 0.5) / 2  # solves e (1 - e) = miss
    span = quantized.means_high - quantized.means_low
    # Half a step of sign(x) ln(1 + |x|), at the largest |x|; and the rounding of float32.
    farthest = float(gaussians.means.abs().amax()) if len(gaussians) else 0.0
    step = float(span.max()) / 65535 / 2 if len(gaussians) else 0.0
    return {
        "means": (1 + farthest) * float(np.expm1(step)) + farthest * 2**-23,
        "quats": fourth + 2**-20,
        "log_scales": found["log_scales"],
        "opacities": 0.5 / 255 + 2**-20,
        "sh0": found["sh0"],
        "shN": found["shN"],
    }


def order(gaussians: Gaussians, metadata: Metadata, options: SogOptions) -> Tensor:
    """[N] int64: rows as they are written, which follows from their bytes."""
    return _quantized(gaussians, Path(), metadata, options)[1]


FORMAT = Format(
    name="SOG",
    extensions=(".sog", _META),
    sniff=sniff,
    read=read,
    write=write,
    options=SogOptions,
    max_error=max_error,
    order=order,
    holds=frozenset({"antialiased", "offset", "up_axis"}),
    ladder=tuple({"palette": 1 << bits} for bits in (16, 14, 12, 10, 8)),
)
