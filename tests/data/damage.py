"""Run as a script: reads a COLMAP model again and again, each time damaged another way.

    python damage.py MODEL SCRATCH CASES SUFFIX

Prints the number of each case before it starts, so that the parent knows which one ended the process, and a line
with the exception where reading fails with anything but a DataError.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import numpy as np

from splat.core import DataError
from splat.data.colmap import Model, read_model

EXTREMES = (0, 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1, 0x7FF0000000000000, 0x7FF8000000000000)


def damaged(data: bytes, generator: np.random.Generator) -> bytes:
    """The bytes of a file with one thing wrong."""
    size = len(data)
    at = int(generator.integers(0, max(size, 1)))
    # Counts and ids stand near the beginning: half of the damage is done there.
    if generator.random() < 0.5:
        at = min(at, int(generator.integers(0, 128)))
    match generator.integers(0, 6):
        case 0:
            return data[:at]
        case 1:
            flipped = bytearray(data)
            for _ in range(int(generator.integers(1, 4))):
                flipped[min(at + int(generator.integers(0, 16)), size - 1)] ^= 1 << int(
                    generator.integers(0, 8)
                )
            return bytes(flipped)
        case 2:
            width = int(generator.choice([4, 8]))
            value = EXTREMES[generator.integers(0, len(EXTREMES))] % (1 << 8 * width)
            return data[:at] + value.to_bytes(width, "little") + data[at + width :]
        case 3:
            return data[:at] + generator.bytes(int(generator.integers(1, 64))) + data[at:]
        case 4:
            return data[:at] + data[at + int(generator.integers(1, 64)) :]
        case _:
            return generator.bytes(at)


def main(source: Path, scratch: Path, cases: int, suffix: str) -> None:
    files = [source / f"{name}{suffix}" for name in ("cameras", "images", "points3D")]
    kept = {file.name: file.read_bytes() for file in files}
    for case in range(cases):
        print("case", case, flush=True)
        generator = np.random.default_rng([case, len(suffix)])
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
        victim = files[generator.integers(0, len(files))].name
        for name, data in kept.items():
            (scratch / name).write_bytes(damaged(data, generator) if name == victim else data)
        try:
            reconstruction, points = read_model(Model(scratch, suffix))
            assert np.isfinite(points.xyz).all(), "points that are not finite"
            for image in reconstruction.images.values():
                if image.has_pose:
                    assert np.isfinite(image.cam_from_world().matrix()).all(), "pose that is not finite"
        except DataError as error:
            if "; " not in str(error).splitlines()[0]:
                print("FAILED", case, victim, "no remedy in", error, flush=True)
        except BaseException as error:
            print("FAILED", case, victim, repr(error), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
