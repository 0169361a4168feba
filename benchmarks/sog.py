"""SOG with harmonics: ours against @playcanvas/splat-transform, the format's own writer, at the same palette.

    python benchmarks/sog.py scene.ply --peer NODE_MODULES/.bin/splat-transform --count 20000

Error of every parameter after a round trip through each writer's file, bytes, and seconds. Without a GPU the peer
takes minutes for 20,000 Gaussians and does not end in 500 s for 200,000; without --peer ours is measured alone.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

from splat.codecs import decode, encode
from splat.codecs.sog import FORMAT, SogOptions
from splat.core import Gaussians

ROWS = ("means", "quats", "log_scales", "opacities", "sh0", "shN")


def root_mean_squares(a: Gaussians, b: Gaussians) -> dict[str, float]:
    """Root mean squared difference of each kind of value, rows in the same order."""
    p, q = (torch.nn.functional.normalize(scene.quats.double(), dim=1) for scene in (a, b))
    q = torch.where((p * q).sum(1, keepdim=True) < 0, -q, q)
    pairs = {
        "means": (a.means, b.means),
        "quats": (p, q),
        "log_scales": (a.log_scales, b.log_scales),
        "opacities": (a.opacities(), b.opacities()),
        "sh0": (a.sh[:, 0], b.sh[:, 0]),
        "shN": (a.sh[:, 1:], b.sh[:, 1:]),
    }
    return {name: float((x - y).double().square().mean().sqrt()) for name, (x, y) in pairs.items()}


def run_peer(peer: str, *arguments: str) -> float:
    """Seconds that the command took."""
    start = time.perf_counter()
    subprocess.run(["node", peer, "-q", "-w", "-g", "cpu", *arguments], check=True)
    return time.perf_counter() - start


def measure(path: Path, peer: str | None, count: int | None) -> dict[str, object]:
    scene, _ = decode(path)
    if count is not None and count < len(scene):
        rows = torch.randperm(len(scene), generator=torch.Generator().manual_seed(0))[:count]
        scene = scene.select(rows)
    # Values in the range of the file's bytes; both writers get the same.
    scene = replace(scene, logit_opacities=scene.logit_opacities.clamp(-7, 7))
    result: dict[str, object] = {
        "scene": path.name,
        "gaussians": len(scene),
        "machine": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    with tempfile.TemporaryDirectory() as folder:
        ours = Path(folder) / "ours.sog"
        start, cpu = time.perf_counter(), time.process_time()
        encode(scene, ours)
        encoded, encoded_cpu = time.perf_counter() - start, time.process_time() - cpu
        start, cpu = time.perf_counter(), time.process_time()
        found, _ = decode(ours)
        result["ours"] = {
            "bytes": ours.stat().st_size,
            "encode_seconds": encoded,
            "encode_cpu_seconds": encoded_cpu,
            "decode_seconds": time.perf_counter() - start,
            "decode_cpu_seconds": time.process_time() - cpu,
            "rms": root_mean_squares(scene.select(FORMAT.order(scene, {}, SogOptions())), found),
        }
        if peer is not None:
            plain, sorted_ply, theirs = (str(Path(folder) / name) for name in ("a.ply", "s.ply", "t.sog"))
            encode(scene, plain)
            # Its own order, in a file that loses nothing: rows to compare with.
            run_peer(peer, plain, "-M", sorted_ply)
            seconds = run_peer(peer, plain, theirs)
            found, metadata = decode(theirs)
            ordered, _ = decode(sorted_ply)
            result["peer"] = {
                "name": metadata.get("generator"),
                "bytes": Path(theirs).stat().st_size,
                "encode_seconds": seconds,
                "rms": root_mean_squares(ordered, found),
            }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("--peer", help="splat-transform's script")
    parser.add_argument("--count", type=int, help="of Gaussians, drawn at random from the scene")
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    result = measure(arguments.scene, arguments.peer, arguments.count)
    writers = [name for name in ("ours", "peer") if name in result]
    print(f"{result['gaussians']:,} Gaussians of {result['scene']}")
    for key in ("bytes", "encode_seconds", "encode_cpu_seconds", "decode_seconds", "decode_cpu_seconds"):
        print(f"{key:20}", *(f"{result[w].get(key, float('nan')):14,.2f}" for w in writers))  # type: ignore
    for name in ROWS:
        print(f"rms {name:16}", *(f"{result[w]['rms'][name]:14.6f}" for w in writers))  # type: ignore
    if arguments.out:
        arguments.out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
