"""The .splat of antimatter15's viewer: 32 bytes a Gaussian and nothing else. Read only.

Three float32 centres, three float32 scales (linear), four bytes of colour and opacity, four of the rotation
(wxyz, 128 + 128 q). There is no header, no harmonics beyond band 0 and no antialiasing flag.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from splat.codecs.format import Decoded, Format
from splat.core import DataError, Gaussians, sh

_ROW = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("color", "u1", 4), ("quat", "u1", 4)])


def read(path: Path) -> Decoded:
    size = path.stat().st_size
    if size == 0 or size % _ROW.itemsize:
        raise DataError(
            f"{path}: not a .splat file or cut short: {size} bytes are not a multiple of {_ROW.itemsize}"
        )
    rows = np.fromfile(path, _ROW)
    wrong = ~(rows["scale"] >= 0).all(1)
    if wrong.any():
        first = int(wrong.argmax())
        raise DataError(
            f"{path}: damaged or not a .splat file: {int(wrong.sum())} of {len(rows)} Gaussians have "
            f"a negative or NaN scale; the first is Gaussian {first}: {rows['scale'][first].tolist()}"
        )
    with np.errstate(divide="ignore"):  # a scale of 0 becomes -inf, which `settle_infinities` handles
        log_scales = np.log(rows["scale"])
    # The bytes 0 and 255 stand for a half step each: a quarter step inside keeps the logits finite and the
    # drawn alpha the same (under the cut-off, over the largest alpha).
    opacity = rows["color"][:, 3].astype(np.float64).clip(0.25, 254.75) / 255
    color = torch.from_numpy(rows["color"][:, :3].astype(np.float32) / 255)
    quats = (rows["quat"].astype(np.float32) - 128) / 128
    gaussians = Gaussians(
        means=torch.from_numpy(rows["mean"].copy()),
        quats=torch.from_numpy(quats),
        log_scales=torch.from_numpy(log_scales),
        logit_opacities=torch.from_numpy(np.log(opacity / (1 - opacity)).astype(np.float32)),
        sh=sh.from_rgb(color)[:, None],
    )
    notes = ["a .splat has colours without view dependence, and no antialiasing flag: taken as classic"]
    return Decoded(gaussians, {"version": "1", "comments": []}, notes)


def sniff(path: Path, head: bytes) -> bool:
    """Only the name tells."""
    return path.name.lower().endswith(".splat") and not path.is_dir()


FORMAT = Format(".splat", (".splat",), sniff, read, sh_degree=0)
