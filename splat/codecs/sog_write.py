"""Writing SOG version 2: images and meta.json, as a zip file or into a folder."""

from __future__ import annotations

import io
import json
import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from splat.codecs.bounded import pack_archive
from splat.codecs.format import Metadata
from splat.codecs.sog_quantize import PALETTE_COLUMNS, Bytes, Floats, Palette, Quantized
from splat.core.files import replacing


def write_scene(quantized: Quantized, path: Path, metadata: Metadata) -> None:
    """Writes a zip file, or the files of a folder where `path` is its meta.json.

    In a folder the images are replaced one after the other, meta.json last.
    """
    pictures = images(quantized)
    with ThreadPoolExecutor() as pool:  # Pillow compresses without the interpreter's lock
        packed = list(pool.map(webp, pictures.values()))
    members = list(zip(pictures, packed, strict=True))
    members.append(("meta.json", _meta(quantized, metadata)))
    if path.name.lower().endswith("meta.json"):
        for name, content in members[:-1]:
            with replacing(path.parent / name) as file:
                file.write(content)
        with replacing(path) as file:
            file.write(members[-1][1])
    else:
        with replacing(path) as file:
            file.write(pack_archive(members))


def image_size(count: int) -> tuple[int, int]:
    """Width and height of the images of so many Gaussians, which fill them row by row.

    As splat-transform has it: nearly square, both sides multiples of 4.
    """
    width = max(4, math.ceil(math.sqrt(count) / 4) * 4)
    return width, max(4, math.ceil(count / width / 4) * 4)


def images(q: Quantized) -> dict[str, Bytes]:
    """Name -> [H, W, 3 or 4] uint8."""
    count = len(q.means)
    width, height = image_size(count)

    def image(rows: Bytes) -> Bytes:
        # Texels beyond the last Gaussian repeat it, which costs next to nothing.
        fill = rows[-1:] if count else np.zeros((1, rows.shape[1]), np.uint8)
        padding = np.repeat(fill, width * height - count, 0)
        return np.concatenate([rows, padding]).reshape(height, width, rows.shape[1])

    found = {
        "means_l.webp": image((q.means & 255).astype(np.uint8)),
        "means_u.webp": image((q.means >> 8).astype(np.uint8)),
        "scales.webp": image(q.scales),
        "quats.webp": image(q.quats if count else np.full((0, 4), 255, np.uint8)),
        "sh0.webp": image(q.sh0),
    }
    if q.palette is not None:
        labels = q.palette.labels[:, None]
        rows = np.concatenate([labels & 255, labels >> 8, labels * 0], 1)
        found["shN_centroids.webp"] = _entries(q.palette)
        found["shN_labels.webp"] = image(rows.astype(np.uint8))
    return found


def _entries(palette: Palette) -> Bytes:
    """[ceil(K / 64), 64 C, 3] uint8."""
    count, coefficients, _ = palette.entries.shape
    rows = math.ceil(count / PALETTE_COLUMNS)
    whole = np.zeros((rows * PALETTE_COLUMNS, coefficients, 3), np.uint8)
    whole[:count] = palette.entries
    whole[count:] = palette.entries[-1:]
    return whole.reshape(rows, PALETTE_COLUMNS * coefficients, 3)


def webp(image: Bytes) -> bytes:
    """Lossless."""
    from PIL import Image

    buffer = io.BytesIO()
    # `exact`: colours under an alpha of 0 are values like any other. More effort takes ten times as long for
    # a thousandth of the size.
    Image.fromarray(image).save(buffer, "WEBP", lossless=True, quality=75, method=4, exact=True)
    return buffer.getvalue()


def _meta(q: Quantized, metadata: Metadata) -> bytes:
    asset: dict[str, Any] = {}
    if metadata.get("generator"):
        asset["generator"] = str(metadata["generator"])
    # Not in the specification, whose readers pass over names that they do not know.
    if metadata.get("offset") is not None:
        asset["offset"] = [float(value) for value in metadata["offset"]]
    if metadata.get("up_axis") is not None:
        asset["upAxis"] = metadata["up_axis"]
    meta: dict[str, Any] = {
        "version": 2,
        **({"asset": asset} if asset else {}),
        "count": len(q.means),
        "antialias": q.antialiased,
        "means": {
            "mins": q.means_low.tolist(),
            "maxs": q.means_high.tolist(),
            "files": ["means_l.webp", "means_u.webp"],
        },
        "scales": {"codebook": _shortest(q.scale_codebook), "files": ["scales.webp"]},
        "quats": {"files": ["quats.webp"]},
        "sh0": {"codebook": _shortest(q.sh0_codebook), "files": ["sh0.webp"]},
    }
    if q.palette is not None:
        coefficients = q.palette.entries.shape[1]
        meta["shN"] = {
            "count": len(q.palette.entries),
            "bands": round(math.sqrt(coefficients + 1)) - 1,
            "codebook": _shortest(q.palette.codebook),
            "files": ["shN_centroids.webp", "shN_labels.webp"],
        }
    return json.dumps(meta, separators=(",", ":")).encode()


def _shortest(codebook: Floats) -> list[float]:
    """256 numbers with as many digits as tell float32 values apart; 0 where there are no more."""
    values = [float(str(value)) for value in codebook.astype(np.float32)]
    return values + [0] * (256 - len(values))
