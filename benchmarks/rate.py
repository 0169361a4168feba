"""Rate and distortion: bytes and held-out PSNR of every format, of post-training SOG and of the vq strategy.

    python benchmarks/rate.py [--sets fox chair] [--rates 0.0005 0.001 0.002 0.004] [--out FILE.json] [--plot FILE.png]

By the preset cpu (mcmc) each set is trained once and written in every format; with the preset compact it is
trained for .vq at each of the rates, and for .sog at the first two. All runs have the same seed, steps and cap, so
that they share their unquantized beginning, which is trained once. Files are decoded and scored on the held-out views.
Results are written as they come.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from splat import codecs
from splat.core import Gaussians, SplatError
from splat.data import Dataset
from splat.raster import RenderOptions, render
from splat.strategies import registry
from splat.training.config import TrainConfig, load_preset
from splat.training.evaluate import evaluate
from splat.training.export import baked
from splat.training.session import Session, assemble, open_dataset
from splat.training.views import fixed_background

ROOT = Path(__file__).resolve().parent.parent
SETS: dict[str, dict[str, Any]] = {
    "fox": {"downscale": 4.0},
    "chair": {"downscale": 2.0, "background": "white"},
}
PALETTES = (None, 4096, 1024)  # of post-training SOG


def session(config: TrainConfig, dataset: Dataset, state: dict[str, Any] | None = None) -> Session:
    return assemble(config, dataset, registry.build(config.strategies, config.options), state=state)


def run(chosen: Session, until: int) -> Session:
    while chosen.trainer.ctx.step < until:
        chosen.trainer.step()
    return chosen


def with_vq(config: TrainConfig, **options: Any) -> TrainConfig:
    compact = load_preset("compact")
    every = {**compact.options, "vq": {**compact.options.get("vq", {}), **options}}
    return replace(config, strategies=compact.strategies, options=every)


class Bench:
    """The files of one data set."""

    def __init__(
        self, name: str, config: TrainConfig, dataset: Dataset, folder: Path, keep: Callable[[], None]
    ) -> None:
        self.name, self.config, self.dataset, self.folder, self.keep = name, config, dataset, folder, keep
        self.rows: list[dict[str, Any]] = []

    def file(self, what: str, chosen: Session, extension: str, options: dict[str, Any] | None = None) -> None:
        """Write, decode, score and print one file."""
        scene, metadata = baked(chosen)
        path = self.folder / f"scene{extension}"
        try:
            codecs.encode(scene, path, metadata, options)
        except SplatError as error:
            print(f"{self.name:<6} {what:<24} not written: {str(error).splitlines()[0]}", flush=True)
            return
        size = path.stat().st_size
        decoded, _ = codecs.decode(path)
        row = {"set": self.name, "file": what, "bytes": size, "gaussians": len(decoded)}
        row |= self.score(decoded)
        self.rows.append(row)
        self.keep()
        first = self.rows[0]["bytes"]
        print(
            f"{self.name:<6} {what:<24} {size:>10,} {first / size:>7.1f}x {row['psnr']:>7.2f} {row['ssim']:>7.4f} "
            f"{row['gaussians']:>8,}",
            flush=True,
        )

    def score(self, scene: Gaussians) -> dict[str, float]:
        background = fixed_background(self.config.background)
        behind = torch.tensor(background)
        found = evaluate(
            lambda camera: render(scene, camera, RenderOptions(background=behind)).image,
            self.dataset,
            self.dataset.test,
            background,
            step=0,
            num_gaussians=len(scene),
            train_seconds=0.0,
        )
        return {"psnr": found.psnr, "ssim": found.ssim}

    def measure(self, rates: list[float]) -> None:
        config, steps = self.config, self.config.steps
        # Until quantization begins the strategy vq changes nothing: one beginning serves all runs.
        begun = session(with_vq(config), self.dataset)
        run(begun, round(begun.trainer.strategies[1].config.start * steps) - 1)
        state = begun.state_dict()

        plain = run(session(config, self.dataset, without_vq(state)), steps)
        self.file("mcmc .ply", plain, ".ply")
        for form in codecs.formats():
            if form.write is not None and form.extensions[0] not in (".ply", ".sog", ".vq", ".html"):
                self.file(f"mcmc {form.extensions[0]}", plain, form.extensions[0])
        for palette in PALETTES:
            label = "mcmc .sog" if palette is None else f"mcmc .sog palette {palette}"
            self.file(label, plain, ".sog", {"palette": palette})
        self.file("mcmc .vq", plain, ".vq")

        for layout, chosen in (("vq", rates), ("sog", rates[:2])):
            for rate in chosen:
                tried = with_vq(config, layout=layout, rate=rate)
                done = run(session(tried, self.dataset, copy.deepcopy(state)), steps)
                self.file(f"compact .{layout} rate {rate:g}", done, f".{layout}")


def without_vq(state: dict[str, Any]) -> dict[str, Any]:
    """The state of a run whose only strategy is mcmc."""
    plain = copy.deepcopy(state)
    followed = plain["trainer"]["main"]["state"]
    for name in [name for name in followed if name.startswith("vq_")]:
        del followed[name]
    return plain


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Kilobytes (logarithmic) against PSNR, a panel a data set."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["set"] for row in rows))
    figure = Figure(figsize=(6 * len(names), 4.5), layout="constrained")
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(1, len(names), place)
        here = [row for row in rows if row["set"] == name]
        for group, mark in (("mcmc", "o"), ("compact .sog", "s"), ("compact .vq", "^")):
            points = [row for row in here if row["file"].startswith(group)]
            points.sort(key=lambda row: row["bytes"])
            sizes, scores = [row["bytes"] / 1e3 for row in points], [row["psnr"] for row in points]
            axes.plot(sizes, scores, marker=mark, linestyle="-" if mark == "^" else "none", label=group)
            if group == "mcmc":
                for row, x, y in zip(points, sizes, scores, strict=True):
                    axes.annotate(row["file"].removeprefix("mcmc "), (x, y), fontsize=7, rotation=20)
        axes.set(xscale="log", xlabel="kB", ylabel="held-out PSNR, dB", title=name)
        axes.legend()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--sets", nargs="+", choices=sorted(SETS), default=sorted(SETS))
    parser.add_argument("--rates", nargs="+", type=float, default=[0.0005, 0.001, 0.002, 0.004])
    parser.add_argument("--steps", type=int, default=7000)
    parser.add_argument("--cap", type=int, default=40_000)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--downscale", type=float, help="instead of each set's own")
    parser.add_argument("--sh-interval", type=int, default=500)
    parser.add_argument("--data", type=Path, default=None, help="$SPLAT_DATA, or ../shared/data")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "rate.json")
    parser.add_argument("--plot", type=Path, help="a PNG; needs matplotlib")
    args = parser.parse_args()
    root = args.data or Path(os.environ.get("SPLAT_DATA") or ROOT.parent / "shared" / "data")
    about = {"steps": args.steps, "cap": args.cap, "seed": args.seed, "downscale": args.downscale}
    benches: list[Bench] = []

    def keep() -> None:
        rows = [row for bench in benches for row in bench.rows]
        args.out.write_text(json.dumps({**about, "files": rows}, indent=2) + "\n")
        if args.plot is not None:
            plot(rows, args.plot)

    print(f"{'set':<6} {'file':<24} {'bytes':>10} {'smaller':>8} {'dB':>7} {'SSIM':>7} {'count':>8}")
    for name in args.sets:
        config = replace(
            load_preset("cpu"), eval=True, seed=args.seed, steps=args.steps, device="cpu", **SETS[name]
        )
        config = replace(config, max_gaussians=args.cap, sh_interval=args.sh_interval)
        if args.downscale is not None:
            config = replace(config, downscale=args.downscale)
        with open_dataset(root / name, config) as dataset, tempfile.TemporaryDirectory() as folder:
            benches.append(Bench(name, config, dataset, Path(folder), keep))
            benches[-1].measure(args.rates)
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
