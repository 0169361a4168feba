"""Masks by simple means: the photographs' own transparency, a screen of one colour, a folder of the user's.

Two kinds come out. DATA/masks holds what training is to ignore: the user's masks and the screen. Transparency is not
among them, since training knows what is behind it. Features are looked for where all of them allow it.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from splat.core import UsageError
from splat.data.images import decode_mask

_COLOURS = {"green": (0, 177, 64), "blue": (0, 71, 187)}
_NEAR = 0.5  # of the key's own distance from grey, in the plane of chroma
_LEAST_CHROMA = 20.0  # a key that is closer to grey would mask every dull surface


def key_colour(text: str) -> tuple[int, int, int]:
    """The colour that --chroma-key names; UsageError for what is none, or too grey to be told from a scene."""
    if text.lower() in _COLOURS:
        return _COLOURS[text.lower()]
    try:
        red, green, blue = (int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--chroma-key {text}: give green, blue or R,G,B from 0 to 255") from None
    colour = (red, green, blue)
    if not all(0 <= part <= 255 for part in colour):
        raise UsageError(f"--chroma-key {text}: give green, blue or R,G,B from 0 to 255")
    if np.hypot(*_chroma(np.array(colour, dtype=np.float32))) < _LEAST_CHROMA:
        raise UsageError(f"--chroma-key {text}: too near to grey to tell a screen from the scene")
    return colour


def chroma_mask(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """[H, W] bool, false where a pixel of `image` [H, W, 3] uint8 shows a screen of that colour.

    Compared in the plane of chroma, which light and shadow on the screen change least, and grown by a pixel on each
    side, since edges mix both.
    """
    from scipy.ndimage import binary_closing, binary_dilation, binary_opening

    key = np.array(_chroma(np.array(colour, dtype=np.float32)))
    blue, red = _chroma(image.astype(np.float32))
    screen = np.hypot(blue - key[0], red - key[1]) < _NEAR * np.hypot(*key)
    around = np.ones((3, 3), dtype=bool)
    screen = binary_opening(binary_closing(screen, around), around)
    return ~binary_dilation(screen, around)


def _chroma(rgb: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cb and Cr of ITU-R BT.601, around 0."""
    red, green, blue = rgb[..., 0], rgb[..., 1], rgb[..., 2]
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    return 0.564 * (blue - luma), 0.713 * (red - luma)


def find(folder: Path, name: str) -> Path | None:
    """`folder`/NAME.EXT.png or NAME.png, or None."""
    candidates = (folder / f"{name}.png", (folder / name).with_suffix(".png"))
    return next((path for path in candidates if path.is_file()), None)


def user_mask(folder: Path, name: str, width: int, height: int) -> np.ndarray | None:
    """[height, width] bool from the mask of the photograph `name`, true where the pixel counts; None without one.

    Raises:
        DatasetError: the file is damaged or of another aspect.
    """
    found = find(folder, name)
    return None if found is None else decode_mask(found, width, height).astype(bool)
