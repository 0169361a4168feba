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
        count = 0
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
                    count += 1
                    height, width = image.shape[0] & ~1, image.shape[1] & ~1
                    writer.append_data(image[:height, :width].numpy())
            _require_whole(temporary, count)
    except OSError as error:
        raise DataError(
            f"{path}: the video cannot be written ({error.strerror or error}): "
            "check the folder and the disk's space"
        ) from error


def _require_whole(path: Path, count: int) -> None:
    """OSError unless the video has `count` frames: imageio does not tell that ffmpeg has failed, on a full disk say."""
    from imageio_ffmpeg import count_frames_and_secs

    try:
        found = count_frames_and_secs(str(path))[0]
    except (RuntimeError, OSError):
        found = 0
    if found < count:
        raise OSError(f"{found} of {count} frames were written")
