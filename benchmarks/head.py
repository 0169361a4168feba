"""What the network of the neural head costs: forward, and forward and backward.

    python benchmarks/head.py [--size 480 270] [--sizes small] [--threads 2] [--repeats 20] [--out FILE.json]

The network sees 3 colours and 8 features. A time is the least of the repeats; that of the processor is of all threads.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from train import machine

from splat.strategies.compensation import UNet
from splat.strategies.compensation.network import CHANNELS

ROOT = Path(__file__).resolve().parent.parent
SEEN = 3 + 8


def least(function: Callable[[], Any], repeats: int) -> dict[str, float]:
    """Milliseconds by the clock and of the processor, the least of `repeats` after one that does not count."""
    function()
    wall, processor = [], []
    for _ in range(repeats):
        began = time.perf_counter(), time.process_time()
        function()
        wall.append(1e3 * (time.perf_counter() - began[0]))
        processor.append(1e3 * (time.process_time() - began[1]))
    return {"wall_ms": min(wall), "processor_ms": min(processor)}


def measured(size: str, height: int, width: int, repeats: int) -> dict[str, Any]:
    """Of the network of one size, on a picture as the rasterizer gives it."""
    network = UNet(SEEN, size)  # type: ignore[arg-type]
    image = torch.rand(height, width, SEEN, requires_grad=True)

    def forward() -> None:
        with torch.no_grad():
            network(image.permute(2, 0, 1))

    def both() -> None:
        network(image.permute(2, 0, 1)).square().sum().backward()

    return {
        "size": size,
        "bytes": 4 * network.weights().numel(),
        "forward": least(forward, repeats),
        "forward_backward": least(both, repeats),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", nargs=2, type=int, default=(480, 270), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--sizes", nargs="+", choices=CHANNELS, default=list(CHANNELS))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "head.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    rows = [measured(size, *args.size, args.repeats) for size in args.sizes]
    print(f"{'size':<8} {'weights':>10} {'forward':>12} {'and backward':>14} {'processor':>12}")
    for row in rows:
        both = row["forward_backward"]
        print(
            f"{row['size']:<8} {row['bytes'] / 1e3:7.0f} kB {row['forward']['wall_ms']:9.1f} ms "
            f"{both['wall_ms']:11.1f} ms {both['processor_ms']:9.1f} ms"
        )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    results = {"machine": machine(), "picture": list(args.size), "channels": SEEN, "rows": rows}
    args.out.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
