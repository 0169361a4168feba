"""What `splat process` may be told."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Cameras = Literal["auto", "single", "folder", "image"]
Matching = Literal["auto", "exhaustive", "sequential", "retrieval"]
Mapper = Literal["auto", "incremental", "global"]
Orient = Literal["none", "up", "gps"]
CameraModel = Literal["auto", "PINHOLE", "SIMPLE_RADIAL", "RADIAL", "OPENCV", "FULL_OPENCV", "OPENCV_FISHEYE"]


@dataclass(frozen=True, kw_only=True)
class ProcessOptions:
    """Settings of the stages from photographs to a dataset.

    Attributes:
        frames: number of frames to take from each video; None for two a second, at least 40 and at most 200.
        masks: a folder with NAME.png or NAME.EXT.png for the photographs, 0 = ignore.
        chroma_key: "green", "blue" or "R,G,B" (0..255): the colour of a screen to be masked; None for none.
        cameras: which photographs share one camera. "auto": those of one folder, size and lens as EXIF tells.
        camera_model: COLMAP's name; "auto" begins with SIMPLE_RADIAL and ends with OPENCV where there is enough to
            fit it to.
        max_size: longest side at which features are looked for, pixels.
        features: most features of one photograph.
        matching: which pairs are compared; "auto" goes by number and origin (see pairs.py).
        mapper: how poses are found; "auto" tries another way where the first leaves photographs out.
        orient: turns the scene upright by the cameras, or puts it into metres east, north, up by GPS.
        undistort: also writes undistorted photographs and their pinhole model.
        mvs: also computes depth maps and dense points.
        mvs_size: longest side of a depth map, pixels; the time grows with its square.
        seed: of everything random.
        threads: of feature extraction and matching, 0 for one a core; the outcome does not depend on it.
    """

    frames: int | None = None
    masks: Path | None = None
    chroma_key: str | None = None
    cameras: Cameras = "auto"
    camera_model: CameraModel = "auto"
    max_size: int = 1600
    features: int = 8192
    matching: Matching = "auto"
    mapper: Mapper = "auto"
    orient: Orient = "none"
    undistort: bool = False
    mvs: bool = False
    mvs_size: int = 320
    seed: int = 0
    threads: int = 0

    def part(self, *names: str) -> dict[str, Any]:
        """Some of the settings, as JSON holds them: what a stage depends on."""
        values = asdict(self)
        return {name: str(v) if isinstance(v := values[name], Path) else v for name in names}
