"""Reading SOG versions 1 and 2 from a zip file or a folder."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from splat.codecs.bounded import allowance, read_member
from splat.codecs.format import UP_AXES, Decoded, Metadata
from splat.codecs.sog_quantize import (
    MODES,
    PALETTE_COLUMNS,
    Bytes,
    Floats,
    Palette,
    Quantized,
    check_palette,
)
from splat.core import DataError

_LARGEST_META = 1 << 24
_BYTES_OF_A_GAUSSIAN = 4 * (3 + 4 + 3 + 1 + 48)
_COEFFICIENTS = {3: 1, 8: 2, 15: 3}  # above degree 0: degree


class Source(Protocol):
    """Where the files of a scene come from: a zip file (bounded.Archive) or a folder."""

    def read(self, name: str) -> bytes: ...


class FolderSource:
    """Files of a folder; `path`, the file that names them, begins the messages."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._path, self._folder = path, folder

    def read(self, name: str) -> bytes:
        return read_member(self._path, self._folder, name)


class Meta:
    """A JSON object whose entries are what they should be, or the file is damaged."""

    def __init__(self, path: Path, values: Any, place: str = "") -> None:
        if not isinstance(values, dict):
            raise DataError(f"{path}: damaged: {place or 'its meta.json'} is not an object")
        self.path, self.values, self._place = path, values, place

    @staticmethod
    def parse(path: Path, data: bytes) -> Meta:
        if len(data) > _LARGEST_META:
            raise DataError(f"{path}: damaged: a meta.json of {len(data):,} bytes")
        try:
            return Meta(path, json.loads(data))
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}: damaged: its meta.json is no JSON ({error})") from None

    def __contains__(self, name: str) -> bool:
        return self.values.get(name) is not None

    def child(self, name: str) -> Meta:
        return Meta(self.path, self.values.get(name), self._name(name))

    def number(self, name: str) -> int:
        value = self.values.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            raise self._damaged(name, "a whole number")
        return value

    def floats(self, name: str, low: int, high: int) -> Floats:
        """`low` to `high` finite numbers; a single number counts as a list of one."""
        value = self.values.get(name)
        values: list[Any] = value if isinstance(value, list) else [value]
        numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
        if not numbers or not low <= len(values) <= high:
            raise self._damaged(name, f"{low} numbers" if low == high else f"{low} to {high} numbers")
        try:
            found = np.array([float(v) for v in values])
        except OverflowError:
            raise self._damaged(name, "numbers") from None
        if not np.isfinite(found).all():
            raise self._damaged(name, "finite numbers")
        return found

    def files(self, count: int) -> list[str]:
        value = self.values.get("files")
        if not isinstance(value, list) or len(value) < count or not all(isinstance(v, str) for v in value):
            raise self._damaged("files", f"{count} names")
        return value[:count]

    def _damaged(self, name: str, expected: str) -> DataError:
        return DataError(f"{self.path}: damaged: {self._name(name)} in its meta.json must be {expected}")

    def _name(self, name: str) -> str:
        return f"{self._place}.{name}" if self._place else name


def read_scene(path: Path, source: Source, meta_name: str) -> Decoded:
    """The scene whose meta.json is `meta_name` of the source."""
    quantized, meta = read_quantized(path, source, meta_name)
    metadata: Metadata = {"version": str(meta.values.get("version") or 1), "comments": []}
    if isinstance(meta.values.get("asset"), dict):
        asset = meta.child("asset")
        if isinstance(asset.values.get("generator"), str):
            metadata["generator"] = asset.values["generator"]
        if "offset" in asset:
            metadata["offset"] = asset.floats("offset", 3, 3).tolist()
        if asset.values.get("upAxis") in UP_AXES:
            metadata["up_axis"] = asset.values["upAxis"]
    return Decoded(quantized.restore(), metadata)


def read_quantized(path: Path, source: Source, meta_name: str) -> tuple[Quantized, Meta]:
    """The same as its bytes have it, and its meta.json."""
    data = source.read(meta_name)
    meta = Meta.parse(path, data)
    version = meta.number("version") if "version" in meta else 1
    if version not in (1, 2):
        raise DataError(
            f"{path}: SOG of version {version}, which is newer than this reader; versions 1 and 2 are read"
        )
    return _Reader(path, source, meta, len(data)).read(version), meta


class _Reader:
    def __init__(self, path: Path, source: Source, meta: Meta, size: int) -> None:
        self._path, self._source, self._meta = path, source, meta
        self._size = size  # of the files read so far

    def read(self, version: int) -> Quantized:
        meta = self._meta
        count = meta.number("count") if version == 2 else self._count_of_version_1()
        means = meta.child("means")
        low, high = means.floats("mins", 3, 3), means.floats("maxs", 3, 3)
        lower, upper = (self._rows(name, count) for name in means.files(2))
        quats = self._rows(meta.child("quats").files(1)[0], count)
        self._check_modes(quats)
        scales = self._rows(meta.child("scales").files(1)[0], count)[:, :3]
        sh0 = self._rows(meta.child("sh0").files(1)[0], count)
        palette = self._palette(version, count) if "shN" in meta else None
        # What the scene will take, against what files of this size could honestly hold.
        if count * _BYTES_OF_A_GAUSSIAN > allowance(self._size):
            raise DataError(f"{self._path}: damaged: {count:,} Gaussians in {self._size:,} bytes")
        fields: dict[str, Any] = {
            "means": lower[:, :3].astype(np.uint16) | upper[:, :3].astype(np.uint16) << np.uint16(8),
            "means_low": low,
            "means_high": high,
            "quats": quats,
            "scales": scales,
            "sh0": sh0,
            "palette": palette,
            "antialiased": meta.values.get("antialias") is True,
        }
        if version == 1:
            scale_meta, color_meta = meta.child("scales"), meta.child("sh0")
            return _Version1(
                **fields,
                scale_codebook=_ramp(scale_meta.floats("mins", 3, 3), scale_meta.floats("maxs", 3, 3)),
                sh0_codebook=_ramp(color_meta.floats("mins", 4, 4), color_meta.floats("maxs", 4, 4)),
            )
        return Quantized(
            **fields,
            scale_codebook=self._codebook("scales", scales),
            sh0_codebook=self._codebook("sh0", sh0[:, :3]),
        )

    def _count_of_version_1(self) -> int:
        shape = self._meta.child("means").values.get("shape")
        if not isinstance(shape, list) or not shape or type(shape[0]) is not int or shape[0] < 0:
            raise DataError(f"{self._path}: damaged: means.shape in its meta.json must begin with the count")
        return shape[0]

    def _palette(self, version: int, count: int) -> Palette:
        meta = self._meta.child("shN")
        entries_name, labels_name = meta.files(2)
        image = self._image(entries_name)
        columns = image.shape[1]
        coefficients = columns // PALETTE_COLUMNS
        if columns % PALETTE_COLUMNS or coefficients not in _COEFFICIENTS:
            raise DataError(
                f"{self._path}: damaged: the palette {entries_name!r} is {columns} texels wide, not 64 times 3, 8 or 15"
            )
        entries = np.ascontiguousarray(image[:, :, :3]).reshape(-1, coefficients, 3)
        if "count" in meta:
            entries = entries[: meta.number("count")]
        if "bands" in meta and meta.number("bands") != _COEFFICIENTS[coefficients]:
            raise DataError(f"{self._path}: damaged: shN.bands does not fit the palette {entries_name!r}")
        labels = self._rows(labels_name, count).astype(np.int64)
        if version == 1:
            codebook = _ramp(meta.floats("mins", 1, 1), meta.floats("maxs", 1, 1))[0]
        else:
            codebook = self._codebook("shN", entries)
        palette = Palette(codebook, entries, labels[:, 0] | labels[:, 1] << 8)
        check_palette(self._path, palette)
        return palette

    def _codebook(self, name: str, used: Bytes) -> Floats:
        codebook = self._meta.child(name).floats("codebook", 1, 256)
        if used.size and int(used.max()) >= len(codebook):
            raise DataError(
                f"{self._path}: damaged: {name} has a value beyond its codebook of {len(codebook)}"
            )
        return codebook

    def _check_modes(self, quats: Bytes) -> None:
        bad = quats[:, 3] < MODES
        if bad.any():
            raise DataError(
                f"{self._path}: damaged: {int(bad.sum()):,} rotations have no mode; "
                f"the first is Gaussian {int(bad.argmax())}"
            )

    def _rows(self, name: str, count: int) -> Bytes:
        """[count, 4] uint8: the first texels of an image."""
        image = self._image(name)
        texels = image.reshape(-1, 4)
        if len(texels) < count:
            raise DataError(
                f"{self._path}: damaged: {name!r} has {len(texels):,} texels for {count:,} Gaussians"
            )
        return texels[:count]

    def _image(self, name: str) -> Bytes:
        """[H, W, 4] uint8, no more of it than a file of its size could honestly hold."""
        from PIL import Image

        data = self._source.read(name)
        self._size += len(data)
        width, height = _webp_size(data)
        # Pillow allocates a WebP's canvas, twice, before it can be asked for the size.
        if 8 * width * height > allowance(len(data)):
            raise DataError(f"{self._path}: damaged: {name!r} promises {width} x {height} texels")
        try:
            with Image.open(io.BytesIO(data), formats=["WEBP", "PNG"]) as image:
                if 8 * image.width * image.height > allowance(len(data)):
                    raise DataError(
                        f"{self._path}: damaged: {name!r} is {image.width} x {image.height} texels"
                    )
                return np.asarray(image.convert("RGBA"))
        except DataError:
            raise
        except Exception as error:  # Pillow's plugins raise whatever damage leads to
            raise DataError(
                f"{self._path}: damaged: the image {name!r} cannot be read ({error}); copy or download it again"
            ) from None


class _Version1(Quantized):
    """Version 1: scales, colours and opacities as 8 bits between bounds of their own, opacities as logits.

    The codebooks are [3, 256] and [4, 256] here, one a channel.
    """

    def restore(self) -> Any:
        channels = np.arange(3)
        scales = self.scale_codebook[channels, self.scales]
        logits = self.sh0_codebook[3, self.sh0[:, 3]]
        colors = self.sh0_codebook[channels, self.sh0[:, :3]]
        plain = Quantized(
            **{**vars(self), "scale_codebook": np.zeros(256), "sh0_codebook": np.zeros(256)}
        ).restore()
        plain.log_scales = torch.from_numpy(scales.astype(np.float32))
        plain.logit_opacities = torch.from_numpy(logits.astype(np.float32))
        plain.sh[:, 0] = torch.from_numpy(colors.astype(np.float32))
        return plain


def _ramp(low: Floats, high: Floats) -> Floats:
    """[channels, 256]: what each byte stands for."""
    return low[:, None] + (high - low)[:, None] * (np.arange(256) / 255)


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height by the header of a WebP file; (0, 0) where it has none."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP" or len(data) < 30:
        return 0, 0
    kind = data[12:16]
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF
