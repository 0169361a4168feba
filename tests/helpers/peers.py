"""Other people's readers and writers of splat files, in one form each.

Python packages give Gaussians. Those of Node run in one process for a whole list of jobs (tests/conformance/peers.mjs):
some convert files, which are then read as plain .ply, others tell what they would draw.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splat import codecs
from splat.core import Gaussians

CONFORMANCE = Path(__file__).resolve().parent.parent / "conformance"


def node_missing() -> str | None:
    """Why the peers of Node cannot run; None where they can."""
    if shutil.which("node") is None:
        return "node is not installed"
    if not (CONFORMANCE / "node_modules").is_dir():
        return "the Node packages are not installed: run (cd tests/conformance && npm ci)"
    return None


@dataclass(frozen=True)
class Job:
    """What a peer of Node is to do; see peers.mjs."""

    peer: str
    input: Path
    output: Path
    options: dict[str, Any] | None = None


def run_node(jobs: list[Job], folder: Path) -> list[str | None]:
    """An error or None for each job; all of them run in one process."""
    listed = [
        {"peer": job.peer, "input": str(job.input), "output": str(job.output), "options": job.options}
        for job in jobs
    ]
    file = folder / "jobs.json"
    file.write_text(json.dumps(listed))
    done = subprocess.run(
        ["node", "peers.mjs", str(file)],
        cwd=CONFORMANCE,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"peers.mjs ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


@dataclass(frozen=True)
class Drawn:
    """What a renderer is given: the order is the file's.

    Attributes:
        centers: [N, 3].
        covariances: [N, 6] xx xy xz yy yz zz.
        colors: [N, 4] bytes: band 0 as a colour, and the opacity.
        harmonics: [N, K - 1, 3], or None.
        packed: whether the harmonics are rounded to (byte - 128) / 128.
    """

    centers: Tensor
    covariances: Tensor
    colors: Tensor
    harmonics: Tensor | None
    packed: bool = False


def drawn(gaussians: Gaussians) -> Drawn:
    """What a renderer should be given of `gaussians`, colours not yet rounded."""
    scene = gaussians.to(torch.float64)
    full = scene.covariances()
    colour = (0.5 + 0.28209479177387814 * scene.sh[:, 0]).clamp(0, 1)
    return Drawn(
        scene.means,
        torch.stack([full[:, i, j] for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))], 1),
        255 * torch.cat([colour, scene.opacities()[:, None]], 1),
        scene.sh[:, 1:],
    )


def read_drawn(path: Path) -> Drawn:
    """The answer of three or gaussian-splats-3d."""
    found = json.loads(path.read_text())

    def values(name: str, width: int) -> Tensor:
        return torch.tensor(found[name], dtype=torch.float64).view(-1, width)

    if "position" in found:  # three
        scene = Drawn(
            values("position", 3), values("covariance", 6), values("color", 4), _three_bands(found), True
        )
        return _placed(scene, found.get("matrix"))
    if "splats" in found:
        return _parsed(torch.tensor(found["splats"], dtype=torch.float64))
    degree = found["degree"]
    harmonics = values("harmonics", 3 * ((degree + 1) ** 2 - 1)) if degree else torch.zeros(0)
    return Drawn(
        values("centers", 3),
        values("covariances", 6),
        values("colors", 4),
        harmonics.view(len(harmonics), -1, 3) if degree else None,
    )


def _parsed(rows: Tensor) -> Drawn:
    """Rows of centre, scale, rotation wxyz, colour and opacity, the last two as bytes."""
    scene = Gaussians(
        rows[:, :3], rows[:, 6:10], rows[:, 3:6].log(), rows[:, 13], torch.zeros(len(rows), 1, 3)
    )
    return replace(drawn(scene), colors=rows[:, 10:14], harmonics=None)


def _three_bands(found: dict[str, Any]) -> Tensor | None:
    """three packs each band as bytes (value - 128) / 128, four to a word, padded to whole words."""
    bands = []
    count = len(found["position"]) // 3
    for degree in (1, 2, 3):
        words = found.get(f"sphericalHarmonics{degree}")
        if words is None:
            break
        packed = np.array(words, np.uint32).view(np.uint8).reshape(count, -1)
        wide = 3 * (2 * degree + 1)
        bands.append((packed[:, :wide].astype(np.float64) - 128).reshape(count, -1, 3) / 128)
    return torch.from_numpy(np.concatenate(bands, 1)) if bands else None


def _placed(scene: Drawn, matrix: list[float] | None) -> Drawn:
    """The scene where three's node puts it: a column-major 4x4 matrix."""
    if matrix is None:
        return scene
    node = torch.tensor(matrix, dtype=torch.float64).view(4, 4).T
    if torch.equal(node, torch.eye(4, dtype=torch.float64)):
        return scene
    turn = node[:3, :3]
    xx, xy, xz, yy, yz, zz = scene.covariances.unbind(1)
    full = torch.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], 1).view(-1, 3, 3)
    full = turn @ full @ turn.T
    six = torch.stack([full[:, i, j] for i, j in ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))], 1)
    # The harmonics of three are the node's own: it turns the direction of sight instead.
    return Drawn(scene.centers @ turn.T + node[:3, 3], six, scene.colors, None)


# --- Python -----------------------------------------------------------------------------------------------

# gaussforge's names of the formats.
_FORGE = {".ply": "ply", ".compressed.ply": "compressed.ply", ".splat": "splat", ".ksplat": "ksplat"}
_FORGE |= {".spz": "spz", ".sog": "sog"}


def extension(path: Path) -> str:
    """The longest extension that names a format."""
    return ".compressed.ply" if path.name.endswith(".compressed.ply") else path.suffix


def forge_read(path: Path, folder: Path) -> Gaussians:
    """What gaussforge finds in a file, by way of a plain .ply; ValueError where it finds fault."""
    return _forge(path, folder / f"{path.name}.forge.ply", {})


def forge_write(path: Path, target: Path, **options: Any) -> None:
    """gaussforge's own file of a .ply."""
    _forge_convert(path, target, options)


def _forge(path: Path, target: Path, options: dict[str, Any]) -> Gaussians:
    _forge_convert(path, target, options)
    return codecs.decode(target)[0]


def _forge_convert(path: Path, target: Path, options: dict[str, Any]) -> None:
    import gaussforge

    done = gaussforge.GaussForge().convert(
        path.read_bytes(), _FORGE[extension(path)], _FORGE[extension(target)], **options
    )
    if "error" in done:
        raise ValueError(f"gaussforge: {done['error']}")
    target.write_bytes(done["data"])


def gsply_read(path: Path) -> Gaussians:
    """What gsply finds in a .ply, .compressed.ply, .spz or .sog."""
    gsply = _gsply()
    if path.suffix == ".spz":
        found = gsply.read_spz(str(path))
    elif path.suffix == ".sog":
        from gsply.sog_reader import sogread

        found = sogread(str(path))
    else:
        found = gsply.plyread(str(path))
    count = len(found.means)
    rest = (
        torch.zeros(count, 0, 3) if found.shN is None else torch.from_numpy(np.array(found.shN, np.float32))
    )
    return Gaussians(
        means=torch.from_numpy(np.array(found.means, np.float32)),
        quats=torch.from_numpy(np.array(found.quats, np.float32)),
        log_scales=torch.from_numpy(np.array(found.scales, np.float32)),
        logit_opacities=torch.from_numpy(np.array(found.opacities, np.float32)).view(count),
        sh=torch.cat(
            [torch.from_numpy(np.array(found.sh0, np.float32))[:, None], rest.view(count, -1, 3)], 1
        ),
    )


def gsply_write(path: Path, target: Path, **options: Any) -> None:
    """gsply's own file of a .ply."""
    gsply = _gsply()
    found = gsply.plyread(str(path))
    if target.suffix == ".spz":
        gsply.write_spz(str(target), found, **options)
    else:
        gsply.plywrite(str(target), found, compressed=extension(target) == ".compressed.ply")


def _gsply() -> Any:
    # A few hundred Gaussians are read faster than numba compiles its readers.
    os.environ.setdefault("NUMBA_DISABLE_JIT", "1")
    import gsply

    return gsply
