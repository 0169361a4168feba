"""The .splat of antimatter15's viewer: 32 bytes a Gaussian and nothing else.

Three float32 centres, three float32 scales (linear), four bytes of colour and opacity, four of the rotation
(wxyz, 128 + 128 q). There is no header, no harmonics beyond band 0 and no antialiasing flag.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from splat.codecs import columns, tables
from splat.codecs.format import Decoded, Format, Metadata, NoOptions, by_scene
from splat.core import DataError, Gaussians
from splat.core.files import replacing

_ROW = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("color", "u1", 4), ("quat", "u1", 4)])


def read(path: Path) -> Decoded:
    size = path.stat().st_size
    if size == 0 or size % _ROW.itemsize:
        raise DataError(
            f"{path}: not a .splat file or cut short: {size} bytes are not a multiple of {_ROW.itemsize}"
        )
    rows = np.fromfile(path, _ROW)
    gaussians = Gaussians(
        means=torch.from_numpy(rows["mean"].copy()),
        quats=torch.from_numpy((rows["quat"].astype(np.float32) - 128) / 128),
        log_scales=torch.from_numpy(tables.from_lengths(path, rows["scale"])),
        logit_opacities=torch.from_numpy(tables.LOGITS[rows["color"][:, 3]]),
        sh=torch.from_numpy(tables.BAND0[rows["color"][:, None, :3]]),
    )
    notes = ["a .splat has colours without view dependence, and no antialiasing flag: taken as classic"]
    return Decoded(gaussians, {"version": "1", "comments": []}, notes)


def order(gaussians: Gaussians) -> Tensor:
    """[N] int64: large and opaque ones first, as the viewers that show a part while they load expect."""
    volumes = gaussians.log_scales.double().sum(1)
    weight = volumes + torch.nn.functional.logsigmoid(gaussians.logit_opacities.double())
    return weight.sort(descending=True, stable=True).indices


def write(gaussians: Gaussians, path: Path, metadata: Metadata, options: NoOptions) -> list[str]:
    index = order(gaussians).numpy()
    rows = np.empty(len(index), _ROW)
    rows["mean"] = gaussians.means.numpy()[index]
    rows["scale"] = tables.to_lengths(gaussians.log_scales.numpy()[index])
    band0, alpha = gaussians.sh[:, 0], torch.sigmoid(gaussians.logit_opacities)[:, None]
    rows["color"][:, :3] = columns.pack_bytes(band0, tables.BAND0_GAIN, tables.BAND0_BIAS, order=index)
    rows["color"][:, 3:] = columns.pack_bytes(alpha, 255, 0, order=index)
    # Of the two quaternions of a rotation the one whose largest component is negative: -1 has a byte, 1 has none.
    quats = torch.nn.functional.normalize(gaussians.quats.double(), dim=1)
    largest = torch.take_along_dim(quats, quats.abs().argmax(1, keepdim=True), 1)
    quats = torch.where(largest > 0, -quats, quats).float()
    rows["quat"] = columns.pack_bytes(quats, 128, 128, order=index)
    with replacing(path) as file:
        file.write(rows.tobytes())
    return tables.clamping(gaussians)


def max_error(gaussians: Gaussians, options: NoOptions) -> dict[str, float]:
    """Half a step of each byte, and what clamping does; centres are exact."""
    return {
        "means": 0.0,
        # A vector of four components, each within half a step, brought back to length 1.
        "quats": 2 * (0.5 / 128) / (1 - 2 * 0.5 / 128),
        "log_scales": tables.log_error(gaussians),
        "opacities": tables.OPACITY_ERROR + 1e-6,
        "sh0": tables.band0_error(gaussians),
        "shN": 0.0,
    }


def sniff(path: Path, head: bytes) -> bool:
    """Only the name tells."""
    return path.name.lower().endswith(".splat") and not path.is_dir()


FORMAT = Format(
    ".splat", (".splat",), sniff, read, write, max_error=max_error, order=by_scene(order), sh_degree=0
)
