"""Rendered images as a video."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from torch import Tensor

from splat.core import DataError
from splat.core.files import beside


def write_video(path: Path, images: Iterable[Tensor], fps: float) -> None:
    """Write [H, W, 3] uint8 `images` on the CPU as a video of the kind of `path`'s extension.

    The file is there whole or not at all. Most players need an even size, so an odd row or column is left
    out. DataError where the disk refuses.
    """
    import imageio.v2 as imageio

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside(path) as temporary:
            options: dict[str, Any] = {
                "fps": fps,
                "macro_block_size": 1,
                "quality": 8,
                "ffmpeg_log_level": "error",
            }
            writer = imageio.get_writer(temporary, **options)
            # Its own context manager leaves ffmpeg running after an error.
            with closing(writer):
                for image in images:
                    height, width = image.shape[0] & ~1, image.shape[1] & ~1
                    writer.append_data(image[:height, :width].numpy())
    except OSError as error:
        raise DataError(
            f"{path}: the video cannot be written ({error.strerror or error}): "
            "check the folder and the disk's space"
        ) from error
