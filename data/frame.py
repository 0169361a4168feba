"""frame.json of a dataset: how it was turned or placed after structure from motion.

{"kind": "up" or "gps", "matrix": 4x4 row by row, from the frame of structure from motion to the dataset's, "up": the
direction that is up in the dataset; with GPS "origin": latitude, longitude (degrees) and altitude (metres, WGS 84) of
the dataset's origin, its axes being east, north and up in metres}.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from splat.core import DataError

if TYPE_CHECKING:
    from splat.core.transforms import Similarity

FILE = "frame.json"


def read(root: Path) -> Similarity | None:
    """From the frame of structure from motion to that of the dataset at `root`; None where they are the same.

    Raises:
        DataError: frame.json is damaged.
    """
    import torch

    from splat.core.transforms import Similarity

    path = (root if root.is_dir() else root.parent) / FILE
    if not path.is_file():
        return None
    try:
        matrix = torch.tensor(json.loads(path.read_text(encoding="utf-8"))["matrix"], dtype=torch.float64)
        scale = float(torch.linalg.det(matrix[:3, :3])) ** (1 / 3)
        return Similarity(matrix[:3, :3] / scale, matrix[:3, 3], scale)
    except (OSError, ValueError, KeyError, TypeError, IndexError, RuntimeError) as error:
        raise DataError(f"{path}: damaged ({error}); run `splat process` again, or remove it") from error
