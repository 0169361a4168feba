"""What an order of the Gaussians is worth: bytes of each of SOG's images by Morton order, as they are written, and in
grids that are sorted.

    python benchmarks/orders.py scene.ply [scene.sog ...] [--weights 0 0.03 0.1 0.3] [--out FILE.json]

A scene is quantized once, and its rows are written in each order; the palette of harmonics is in the order of first
use in each. `weights` are those of scales, rotations, colours and opacities against the centres, which are in units of
the scene's longest side as the others are in units of their bytes' range; in a grid of weight 0 the centres alone
count. Distances of neighbours are those of all these values, each in units of its standard deviation.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from splat.codecs import decode
from splat.codecs.bounded import open_archive
from splat.codecs.quantize import grid_order, morton_order
from splat.codecs.sog_order import arranged, arrangement
from splat.codecs.sog_quantize import Learned, Quantized, quantize
from splat.codecs.sog_read import read_quantized
from splat.codecs.sog_write import image_size, images, webp


def load(path: Path) -> Quantized:
    """In Morton order; what a SOG's bytes say stays as it is."""
    if path.suffix == ".sog":
        with open_archive(path) as archive:
            q, _ = read_quantized(path, archive, "meta.json")
        return arranged(q, morton_order(q.restore().means).numpy())
    scene, _ = decode(path)
    return quantize(scene.select(morton_order(scene.means)), None, 4, Learned())


def features(q: Quantized) -> tuple[Tensor, Tensor]:
    """Centres [N, 3] and all else [N, 11], each in units of its range."""
    spans = q.means_high - q.means_low
    centres = q.means / 65535.0 * (spans / spans.max())
    # The rotations' components, as signed as the stored one is positive; which one that is has four values.
    others = np.concatenate([q.scales, q.quats[:, :3], q.quats[:, 3:] * 85.0, q.sh0], 1) / 255.0
    return torch.from_numpy(centres), torch.from_numpy(others)


def distances(values: Tensor, order: Tensor, width: int) -> dict[str, float]:
    """Mean distances of neighbours beside and above each other."""
    count = len(order) // width * width
    grid = values[order[:count]].view(-1, width, values.shape[1])
    return {
        "beside": float((grid[:, 1:] - grid[:, :-1]).norm(dim=2).mean()),
        "above": float((grid[1:] - grid[:-1]).norm(dim=2).mean()),
    }


def measure(path: Path, weights: list[float]) -> dict[str, Any]:
    q = load(path)
    count = len(q.means)
    centres, others = features(q)
    every = torch.cat([centres, others], 1)
    every = every / every.std(0).clamp(min=1e-6)
    width, _ = image_size(count)
    result: dict[str, Any] = {"scene": path.name, "gaussians": count, "orders": []}
    for name in ["Morton", "as written", *(f"grid {weight:g}" for weight in weights)]:
        start = time.process_time()
        if name == "Morton":
            order = torch.arange(count)
        elif name == "as written":
            order = torch.from_numpy(arrangement(q))
        else:
            order = grid_order(torch.cat([centres, others * float(name.split()[1])], 1), width)
        seconds = time.process_time() - start
        sizes = {
            key.removesuffix(".webp"): len(webp(image))
            for key, image in images(arranged(q, order.numpy())).items()
        }
        row = {"order": name, "cpu_seconds": seconds, "total": sum(sizes.values()), **sizes}
        result["orders"].append(row | distances(every, order, width))
        first = result["orders"][0]["total"]
        cells = " ".join(f"{key} {size:,}" for key, size in sizes.items())
        print(
            f"{path.name} {name:10} {row['total']:>10,} {row['total'] / first - 1:+7.1%} {seconds:5.1f} s  {cells}"
        )
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("scenes", type=Path, nargs="+")
    parser.add_argument("--weights", type=float, nargs="*", default=[0, 0.03, 0.1, 0.3])
    parser.add_argument("--out", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    results = [measure(path, arguments.weights) for path in arguments.scenes]
    if arguments.out:
        arguments.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
