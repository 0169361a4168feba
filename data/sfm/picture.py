"""What the stages know of a photograph."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """One photograph or frame of the dataset.

    Attributes:
        name: relative to images/, forward slashes.
        camera: pictures of one camera share this.
        sequence: pictures of one video share this; "" for photographs.
        orientation: of EXIF; the pixels are kept as they are stored.
        masked: whether features are looked for under a mask.
    """

    name: str
    camera: str
    sequence: str = ""
    orientation: int = 1
    masked: bool = False
