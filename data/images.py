"""Decoding photographs and masks: any bit depth and channel layout to 8-bit colour, alpha and mask."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from splat.data.problems import DatasetError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".pgm", ".jp2"})

_EXIF_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Photo:
    """One photograph at the training resolution.

    Attributes:
        image: [H, W, 3] uint8 sRGB, straight (not premultiplied) unless composited over a background.
        alpha: [H, W] uint8 where the file has transparency and no background was given, else None.
        mask: [H, W] uint8, 255 where the pixel counts and 0 where it is to be ignored; None where all count.
    """

    image: Tensor
    alpha: Tensor | None = None
    mask: Tensor | None = None

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in (self.image, self.alpha, self.mask) if t is not None)


@dataclass(frozen=True)
class Header:
    """What the first bytes of an image file say.

    Attributes:
        width, height: of the pixels as they are stored.
        orientation: EXIF orientation, 1 to 8; 1 where there is none.
    """

    width: int
    height: int
    orientation: int = 1

    @property
    def shown_size(self) -> tuple[int, int]:
        """Width and height after the EXIF orientation is applied."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def list_images(folder: Path) -> list[Path]:
    """The image files right inside `folder`, sorted; none where there is no such folder."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith("."))


def _unreadable(path: Path, what: str, error: Exception) -> DatasetError:
    if isinstance(error, FileNotFoundError):
        return DatasetError(
            "image-missing", path, f"no such {what}", "put it back or leave it out of the dataset"
        )
    if isinstance(error, PermissionError):
        return DatasetError("image-unreadable", path, f"{what} may not be read", "change its permissions")
    reason = "not an image" if type(error).__name__ == "UnidentifiedImageError" else str(error) or repr(error)
    cause = f"{what} is damaged and cannot be decoded ({reason})"
    return DatasetError("image-unreadable", path, cause, "copy it again from the camera, or remove it")


def read_header(path: Path) -> Header:
    """Size and orientation of an image without decoding it.

    Raises:
        DatasetError: the file is missing or no image.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            # Pillow decodes a whole PNG to look for EXIF data behind its pixels, where no camera puts it.
            has_exif = image.format in ("JPEG", "MPO", "TIFF", "WEBP") or "exif" in image.info
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1) if has_exif else 1
            width, height = image.size
            return Header(width, height, orientation if orientation in range(1, 9) else 1)
    except Exception as error:  # Pillow's parsers raise nearly anything on damaged files
        raise _unreadable(path, "photograph", error) from error


def decode(path: Path, orientation: int = 1) -> tuple[np.ndarray, np.ndarray | None]:
    """Decode a photograph.

    Args:
        orientation: EXIF orientation to apply, or 1 for the pixels as they are stored.

    Returns:
        colour [H, W, 3] and alpha [H, W] or None; uint8, or float32 in [0, 255] from files of 16 bits.

    Raises:
        DatasetError: the file is missing, damaged or truncated.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            deep = _has_16_bits(image)
            image.load()
            if image.mode.startswith("I") or image.mode == "F":
                colour, alpha = _deep_grey(image), None
            elif deep:
                colour, alpha = _deep_colour(path, image.width, image.height)
            elif image.has_transparency_data:
                rgba = np.asarray(image if image.mode == "RGBA" else image.convert("RGBA"))
                colour, alpha = rgba[..., :3], rgba[..., 3]
            else:
                colour, alpha = np.asarray(image if image.mode == "RGB" else image.convert("RGB")), None
    except Exception as error:
        raise _unreadable(path, "photograph", error) from error
    if alpha is not None and alpha.min() == 255:
        alpha = None
    return oriented(colour, orientation), None if alpha is None else oriented(alpha, orientation)


def preview(path: Path, side: int) -> np.ndarray:
    """A photograph in grey, averaged down: [h, w] uint8, the longer side at most `side`; over black where it is
    transparent. The whole file is read, as `decode` does, but JPEGs are decoded at a fraction of their size.

    Raises:
        DatasetError: the file is missing, damaged or truncated.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.draft("L", (side, side))
            image.load()
            if image.mode.startswith("I") or image.mode == "F":
                grey = Image.fromarray(_deep_grey(image)[..., 0].astype(np.uint8))
            elif image.has_transparency_data:
                premultiplied = image.convert("RGBA").convert("RGBa")
                grey = Image.merge("RGB", premultiplied.split()[:3]).convert("L")
            else:
                grey = image.convert("L")
            grey.thumbnail((side, side), Image.Resampling.BOX)
            return np.asarray(grey)
    except Exception as error:
        raise _unreadable(path, "photograph", error) from error


def _deep_grey(image) -> np.ndarray:
    """[H, W, 3] float32 in [0, 255] from a grey image of more than 8 bits."""
    values = np.asarray(image).astype(np.float32)
    if image.mode == "F":
        values = values * 255.0  # float images hold [0, 1]
    else:
        values = values / 257.0  # 65535 / 255
    return np.repeat(values.clip(0, 255)[..., None], 3, axis=2)


def _has_16_bits(image) -> bool:
    """Whether an image that was opened, but not loaded, has 16 bits a channel of which Pillow keeps 8: in colour, or in
    grey with transparency."""
    layout = image.tile[0][3] if image.tile else ""
    name = layout[0] if isinstance(layout, tuple) and layout else layout
    return image.mode in ("RGB", "RGBA", "LA") and ";16" in str(name)


def _deep_colour(path: Path, width: int, height: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Colour [H, W, 3] float32 in [0, 255], and alpha [H, W] uint8 where the file has any, of 16 bits a channel, which
    ffmpeg keeps."""
    import imageio_ffmpeg

    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-loglevel", "error", "-noautorotate"]
    command += ["-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgba64le", "-"]
    found = subprocess.run(command, capture_output=True, check=False)
    if len(found.stdout) != width * height * 8:
        raise ValueError(found.stderr.decode(errors="replace").strip() or "ffmpeg cannot decode it")
    values = np.frombuffer(found.stdout, "<u2").reshape(height, width, 4)
    alpha = (values[..., 3] / 257.0 + 0.5).astype(np.uint8)
    return values[..., :3] / np.float32(257.0), alpha


def oriented(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation (TIFF 6.0, tag 274)."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def decode_mask(path: Path, width: int, height: int, orientation: int = 1) -> np.ndarray:
    """Decode a mask for a photograph of width x height pixels.

    A pixel counts where the mask is above half of its own largest value, so 0/1 and 0/255 masks both serve. A mask
    of another size but the same aspect is sampled at the nearest pixel.

    Returns:
        [height, width] uint8, 1 where the pixel counts.

    Raises:
        DatasetError: the file is missing, damaged, or of another aspect.
    """
    from PIL import Image

    try:
        with Image.open(path) as image:
            values = np.asarray(image if image.mode.startswith("I") else image.convert("L"))
    except Exception as error:
        raise _unreadable(path, "mask", error) from error
    kept = values > values.max() / 2
    # A mask made with the photograph's viewer is upright already; one made from its pixels is not.
    if orientation != 1 and not same_aspect(kept.shape[1], kept.shape[0], width, height):
        kept = oriented(kept, orientation)
    if not same_aspect(kept.shape[1], kept.shape[0], width, height):
        cause = f"mask is {values.shape[1]}x{values.shape[0]} but its photograph is {width}x{height}"
        raise DatasetError("mask-size", path, cause, "make the mask from the photograph, at the same size")
    if kept.shape != (height, width):
        rows = ((np.arange(height) + 0.5) * kept.shape[0] / height).astype(np.int64)
        columns = ((np.arange(width) + 0.5) * kept.shape[1] / width).astype(np.int64)
        kept = kept[rows[:, None], columns]
    return np.ascontiguousarray(kept, dtype=np.uint8)


def same_aspect(width: int, height: int, other_width: int, other_height: int) -> bool:
    """Whether two sizes differ by a common factor, but for the rounding of either to whole pixels."""
    return abs(width * other_height - height * other_width) <= max(width, height, other_width, other_height)


def to_bytes(values: Tensor) -> Tensor:
    """uint8 from values in [0, 255], rounded."""
    return (values + 0.5).clamp_(0, 255).to(torch.uint8)
