"""What the graph behind `spectral` pruning costs: time and memory by the number of Gaussians.

    python benchmarks/graph.py [--counts 100000 1000000] [--neighbours 16] [--out FILE.json]

The scene is made up as scenes are: most centres lie on patches of surfaces of all sizes, a tenth are scattered far
around them. Each count is measured in a process of its own, whose largest memory includes Python and torch. "choice" is
all that one pruning does: graph, scores and picking a tenth.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import resource
import time
from pathlib import Path
from typing import Any

import torch
from train import machine

from splat.core import Gaussians
from splat.strategies.spectral import Spectrum, chosen
from splat.strategies.spectral.graph import knn_graph
from splat.strategies.spectral.selection import spectral_scores

ROOT = Path(__file__).resolve().parent.parent
PATCHES = 300


def made_up(count: int) -> Gaussians:
    """A scene of `count` Gaussians with harmonics of degree 0."""
    r = torch.Generator().manual_seed(0)
    patch = torch.randint(PATCHES, (count,), generator=r)
    frames = torch.linalg.qr(torch.randn(PATCHES, 3, 3, generator=r)).Q
    sizes = torch.randn(PATCHES, generator=r).exp()
    spots = torch.randn(count, 3, generator=r) * torch.tensor([1.0, 1.0, 0.02])
    means = 5 * torch.randn(PATCHES, 3, generator=r)[patch]
    means += sizes[patch, None] * torch.einsum("nij,nj->ni", frames[patch], spots)
    means[: count // 10] *= 1 + torch.randn(count // 10, 1, generator=r).exp()
    return Gaussians(
        means=means,
        quats=torch.randn(count, 4, generator=r),
        log_scales=torch.randn(count, 3, generator=r) - 4,
        logit_opacities=2 * torch.randn(count, generator=r),
        sh=torch.randn(count, 1, 3, generator=r),
    )


def measured(count: int, neighbours: int) -> dict[str, Any]:
    """Seconds by the clock of each part, and the process's largest memory, bytes."""
    scene, spectrum = made_up(count), Spectrum(neighbours=neighbours)
    chosen(made_up(100), 10, "spectral")  # libraries are loaded before
    times = [time.perf_counter()]
    graph = knn_graph(scene.means.numpy(), neighbours)
    times.append(time.perf_counter())
    edges, isolated = graph.squared.nnz // 2, graph.isolated
    del graph
    spectral_scores(scene, spectrum)
    times.append(time.perf_counter())
    keep = chosen(scene, count // 10, "spectral", spectrum=spectrum)
    times.append(time.perf_counter())
    assert int(keep.sum()) == count // 10
    seconds = [after - before for before, after in itertools.pairwise(times)]
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "count": count,
        "edges": edges,
        "isolated": isolated,
        **dict(zip(("graph_s", "graph_and_scores_s", "choice_s"), seconds, strict=True)),
        "peak_bytes": peak,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--counts", nargs="+", type=int, default=[100_000, 1_000_000])
    parser.add_argument("--neighbours", type=int, default=16)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "graph.json")
    args = parser.parse_args()
    rows = []
    print(f"{'Gaussians':>10} {'edges':>12} {'graph':>8} {'and scores':>11} {'choice':>8} {'memory':>9}")
    for count in args.counts:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            row = pool.apply(measured, (count, args.neighbours))
        rows.append(row)
        print(
            f"{count:>10,} {row['edges']:>12,} {row['graph_s']:6.2f} s {row['graph_and_scores_s']:9.2f} s "
            f"{row['choice_s']:6.2f} s {row['peak_bytes'] / 1e9:6.2f} GB",
            flush=True,
        )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    results = {"machine": machine(), "neighbours": args.neighbours, "rows": rows}
    args.out.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
