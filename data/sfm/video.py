"""Frames of a video: the sharpest of each of as many windows as frames are wanted.

ffmpeg decodes twice: all frames small and grey, to see which are sharp, then the chosen ones as they are. It turns
frames upright as the file's rotation says.
"""

from __future__ import annotations

import itertools
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from splat.core.files import beside
from splat.data.problems import DatasetError

SUFFIXES = frozenset({".mp4", ".mov", ".m4v", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".mts"})

_SIZE = 480  # longest side at which sharpness is compared, pixels
_A_SECOND, _LEAST, _MOST = 2.0, 40, 200
_QUALITY = 95  # of the frames' JPEGs
_REMEDY = "copy it again from the camera, or convert it: ffmpeg -i VIDEO fixed.mp4"

Progress = Callable[[int, int], None]


def extract(video: Path, folder: Path, frames: int | None, progress: Progress) -> list[str]:
    """Write the chosen frames of `video` into `folder` as frame_NUMBER.jpg, NUMBER being their place in the video.

    Args:
        frames: how many; None for two a second, at least 40 and at most 200 (and never more than there are).
        progress: told (done, total) in frames looked at.

    Returns:
        Their file names, in order.

    Raises:
        DatasetError: the file is no video, or none of its frames can be decoded.
        OSError: the disk refuses.
    """
    from PIL import Image

    scores, seconds = _sharpness(video, progress)
    if not len(scores):
        raise _broken(video, "none of its frames can be decoded")
    wanted = frames or int(min(max(seconds * _A_SECOND, _LEAST), _MOST))
    chosen = sharpest(scores, wanted)
    names = [f"frame_{index:06d}.jpg" for index in chosen]
    folder.mkdir(parents=True, exist_ok=True)
    if not all((folder / name).is_file() for name in names):
        select = "+".join(f"eq(n\\,{index})" for index in chosen)
        pictures = _decode(video, f"select='{select}'", "rgb24", 3)
        written = 0
        for name, picture in zip(names, pictures, strict=False):
            with beside(folder / name) as temporary:
                Image.fromarray(picture).save(temporary, quality=_QUALITY, subsampling=0)
            written += 1
        names = names[:written]  # a damaged video may give fewer frames the second time
    return names


def sharpest(scores: np.ndarray, wanted: int) -> list[int]:
    """Positions of the largest of `scores` [F] in each of `wanted` windows of equal length (the first of equals)."""
    edges = np.linspace(0, len(scores), min(wanted, len(scores)) + 1).round().astype(int)
    return [int(low + np.argmax(scores[low:high])) for low, high in itertools.pairwise(edges)]


def _sharpness(video: Path, progress: Progress) -> tuple[np.ndarray, float]:
    """[F] the variance of the Laplacian of every frame over the variance of the frame itself, which a change of
    exposure leaves as it is; and the duration in seconds."""
    total, seconds = _announced(video)
    scale = f"scale='min({_SIZE},iw)':'min({_SIZE},ih)':force_original_aspect_ratio=decrease"
    scores = []
    for frame in _decode(video, scale, "gray", 1):
        grey = frame[..., 0].astype(np.float32)
        laplacian = grey[1:-1, :-2] + grey[1:-1, 2:] + grey[:-2, 1:-1] + grey[2:, 1:-1] - 4 * grey[1:-1, 1:-1]
        scores.append(float(laplacian.var() / (grey.var() + 1.0)))
        progress(len(scores), max(total, len(scores)))
    return np.array(scores), seconds


def _announced(video: Path) -> tuple[int, float]:
    """Number of frames and seconds that the file announces, 0 where it does not say."""
    found = subprocess.run([_ffmpeg(), "-hide_banner", "-i", str(video)], capture_output=True, check=False)
    text = found.stderr.decode(errors="replace")
    if "Video:" not in text:
        lines = [line for line in text.splitlines() if str(video) in line] or [""]
        raise _broken(video, "not a video that can be read", lines[-1].strip())
    duration = re.search(r"Duration: (\d+):(\d+):([\d.]+)", text)
    rate = re.search(r"([\d.]+) fps", text)
    hours, minutes, rest = duration.groups() if duration else ("0", "0", "0")
    seconds = int(hours) * 3600 + int(minutes) * 60 + float(rest)
    return round(seconds * float(rate.group(1))) if rate else 0, seconds


def _decode(video: Path, filters: str, pixels: str, channels: int) -> Iterator[np.ndarray]:
    """[H, W, channels] uint8 frames after ffmpeg's `filters`, each frame of the file once; ends where decoding does."""
    command = [_ffmpeg(), "-nostdin", "-hide_banner", "-loglevel", "error", "-i", str(video), "-map", "0:v:0"]
    command += ["-vf", filters, "-fps_mode", "passthrough", "-pix_fmt", pixels]
    # The header of each picture tells its size: filters and the rotation of the file change it.
    command += ["-f", "image2pipe", "-c:v", "pam", "-"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        try:
            while (size := _pam_header(process.stdout)) is not None:
                data = process.stdout.read(size[0] * size[1] * channels)
                if len(data) < size[0] * size[1] * channels:
                    break
                yield np.frombuffer(data, np.uint8).reshape(size[1], size[0], channels)
        finally:
            process.kill()


def _pam_header(stream) -> tuple[int, int] | None:
    """Width and height of the picture that begins here (Netpbm's PAM); None at the end."""
    size: dict[bytes, int] = {}
    while True:
        line = stream.readline(200)
        if not line:
            return None
        if line == b"ENDHDR\n":
            return size[b"WIDTH"], size[b"HEIGHT"]
        key, _, value = line.strip().partition(b" ")
        if key in (b"WIDTH", b"HEIGHT"):
            size[key] = int(value)


def _ffmpeg() -> str:
    import imageio_ffmpeg

    return imageio_ffmpeg.get_ffmpeg_exe()


def _broken(video: Path, cause: str, detail: str = "") -> DatasetError:
    return DatasetError("video-unreadable", video, cause, _REMEDY, detail)
