"""Speed of reading and writing scene files, of every format, beside other people's programs in the same run.

    python benchmarks/codecs.py [--count 200000] [--only .ply .spz] [--out FILE.json] [--splat-transform "npx ..."]

The scene is random Gaussians of SH degree 3 with the spread of trained ones; MB/s are those of its plain .ply,
248 bytes a Gaussian, whatever the format. Files lie in memory where the system has /dev/shm, else in the temporary
folder. Each time is the least of the repeats, ours and the peer's taken in turn. Peers: gsply (plain .ply), gaussforge
(in memory, from its own structure to bytes and back), and splat-transform where its command is given (a whole
process, from a .ply to the format).
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from splat.codecs import decode, encode, format_to_write
from splat.core import Gaussians

# What is written: the end of the name, the options, and what gaussforge calls the format.
ROWS: list[tuple[str, dict[str, Any], str | None]] = [
    (".ply", {}, "ply"),
    (".compressed.ply", {}, "compressed.ply"),
    (".spz", {"version": 2}, "spz"),
    (".spz", {"version": 3}, "spz"),
    (".spz", {"version": 4}, "spz"),
    (".splat", {}, "splat"),
    (".ksplat", {}, "ksplat"),
    (".glb", {}, None),
    (".sog", {}, None),
    (".vq", {}, None),
]
SLOW = 3.0  # seconds after which a case is not repeated


def trained(count: int) -> Gaussians:
    """Random Gaussians with the spread of trained ones."""
    g = torch.Generator().manual_seed(0)
    harmonics = 0.05 * torch.randn(count, 15, 3, generator=g) * torch.rand(count, 1, 1, generator=g)
    return Gaussians(
        means=2 * torch.randn(count, 3, generator=g),
        quats=torch.randn(count, 4, generator=g),
        log_scales=-4.5 + torch.randn(count, 3, generator=g),
        logit_opacities=2 * torch.randn(count, generator=g),
        sh=torch.cat([torch.randn(count, 1, 3, generator=g), harmonics], 1),
    )


@dataclass
class Timings:
    """Least times in seconds; None where nobody does it."""

    encode: float | None = None
    decode: float | None = None

    def add(self, what: str, job: Callable[[], Any]) -> float:
        start = time.perf_counter()
        job()
        took = time.perf_counter() - start
        best = getattr(self, what)
        setattr(self, what, took if best is None else min(best, took))
        return took


class Gaussforge:
    """The gaussforge package: bytes to its own structure and back."""

    def __init__(self, ply: bytes) -> None:
        import gaussforge

        self._forge = gaussforge.GaussForge()
        self._scene = self._forge.read(ply, "ply")["data"]

    def encode(self, kind: str, options: dict[str, Any]) -> bytes:
        found = self._forge.write(self._scene, kind, spz_version=options.get("version", 3))
        if "error" in found:
            raise RuntimeError(found["error"])
        return found["data"]

    def decode(self, data: bytes, kind: str) -> None:
        if "error" in (found := self._forge.read(data, kind)):
            raise RuntimeError(found["error"])


def measure(
    scene: Gaussians,
    folder: Path,
    row: tuple[str, dict[str, Any], str | None],
    forge: Gaussforge | None,
    repeats: int,
) -> dict[str, Any]:
    """One row of the table."""
    extension, options, kind = row
    path = folder / f"scene{extension}"
    ours, peer, peer_name = Timings(), Timings(), None
    for _ in range(repeats):
        took = ours.add("encode", lambda: encode(scene, path, None, options))
        ours.add("decode", lambda: decode(path))
        if extension == ".ply":
            peer_name = _gsply(scene, folder, peer)
        elif forge is not None and kind is not None:
            try:
                made: list[bytes] = []
                peer.add("encode", lambda made=made: made.append(forge.encode(kind, options)))  # type: ignore[misc]
                peer.add("decode", lambda made=made: forge.decode(made[0], kind))  # type: ignore[misc]
                peer_name = "gaussforge"
            except Exception as error:
                print(f"gaussforge does not do {extension} {options}: {error}")
        if took > SLOW:
            break
    return {
        "format": format_to_write(path).name,
        "options": options,
        "bytes": path.stat().st_size,
        "encode_seconds": ours.encode,
        "decode_seconds": ours.decode,
        "peer": peer_name,
        "peer_encode_seconds": peer.encode,
        "peer_decode_seconds": peer.decode,
    }


def _gsply(scene: Gaussians, folder: Path, timings: Timings) -> str | None:
    try:
        import gsply
    except ImportError:
        return None
    path = folder / "gsply.ply"
    data = gsply.plyread(str(folder / "scene.ply"))
    timings.add("encode", lambda: gsply.plywrite(str(path), data))
    timings.add("decode", lambda: gsply.plyread(str(path)))
    return "gsply"


def splat_transform(command: str, ply: Path, extension: str, limit: float) -> float | None:
    """Seconds that the program takes from a .ply to the format; None where it fails or takes longer than `limit`."""
    target = ply.with_name(f"transformed{extension}")
    start = time.perf_counter()
    try:
        words = [*shlex.split(command), "-w", str(ply), str(target)]
        subprocess.run(words, check=True, capture_output=True, timeout=limit)
    except (subprocess.SubprocessError, OSError) as error:
        print(f"splat-transform to {extension}: {type(error).__name__}")
        return None
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--count", type=int, default=200_000, help="Gaussians")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[], help="ends of names, such as .spz")
    parser.add_argument("--splat-transform", help="its command; left out unless given")
    parser.add_argument("--limit", type=float, default=120, help="seconds that splat-transform may take")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/codecs.json"))
    options = parser.parse_args()

    scene = trained(options.count)
    megabytes = options.count * 248 / 1e6
    memory = Path("/dev/shm")
    rows = []
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        folder = Path(name)
        ply = folder / "scene.ply"
        encode(scene, ply)
        try:
            forge = Gaussforge(ply.read_bytes())
        except ImportError:
            forge = None
        print(f"{options.count:,} Gaussians, {megabytes:.1f} MB as .ply, {torch.get_num_threads()} threads")
        titles = f"{'format':24} {'MB':>6} {'write MB/s':>10} {'read MB/s':>10} {'read/write':>10}"
        print(f"{titles}   peer: write, read (ours is faster by)", flush=True)
        for row in ROWS:
            if options.only and row[0] not in options.only:
                continue
            found = measure(scene, folder, row, forge, options.repeats)
            if options.splat_transform:
                found["splat_transform_seconds"] = splat_transform(
                    options.splat_transform, ply, row[0], options.limit
                )
            rows.append(found)
            print(_line(found, megabytes), flush=True)
    report = {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "gaussians": options.count,
        "ply_megabytes": megabytes,
        "rows": rows,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n")


def _line(found: dict[str, Any], megabytes: float) -> str:
    write, read = found["encode_seconds"], found["decode_seconds"]
    name = " ".join([found["format"], *(f"{key} {value}" for key, value in found["options"].items())])
    speeds = f"{megabytes / write:10.0f} {megabytes / read:10.0f} {write / read:10.1f}"
    text = f"{name:24} {found['bytes'] / 1e6:6.1f} {speeds}"
    if found["peer"]:
        ratios = [
            f"{megabytes / theirs:.0f} ({theirs / ours:.1f}x)"
            for theirs, ours in ((found["peer_encode_seconds"], write), (found["peer_decode_seconds"], read))
            if theirs is not None
        ]
        text += f"   {found['peer']}: {', '.join(ratios)}"
    if found.get("splat_transform_seconds"):
        text += f"   splat-transform {found['splat_transform_seconds']:.1f} s"
    return text


if __name__ == "__main__":
    main()
