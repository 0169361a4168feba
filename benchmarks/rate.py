"""Rate and distortion: bytes and held-out PSNR of every format, of post-training SOG and of the vq strategy.

    python benchmarks/rate.py [--sets fox chair] [--rates 0.0005 0.001 0.002 0.004] [--sog-rates 0.0003 0.001]
        [--out FILE.json] [--plot FILE.png]

By the preset cpu (mcmc) each set is trained once and written in every format; with the preset compact it is
trained for .vq and for .sog at each of their rates. All runs have the same seed, steps and cap, so
that they share their unquantized beginning bit for bit (tests/strategies/test_vq.py), which is trained once: what
`splat train` makes of the same settings are the same bytes. Files are decoded and scored on the held-out views.

Results are written as they come, and the states of the runs beside them (FILE.states, to be deleted when no more
rates are wanted). The same command, or one with further rates, goes on from both where it was stopped; they belong to
the code that made them.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from splat import codecs
from splat.core import Gaussians, SplatError
from splat.core.files import replacing
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
PALETTES = (None, 4096, 1024, 256, 64)  # of post-training SOG
SAVE_EVERY = 500  # steps
State = dict[str, Any]


def with_vq(config: TrainConfig, **options: Any) -> TrainConfig:
    compact = load_preset("compact")
    every = {**compact.options, "vq": {**compact.options.get("vq", {}), **options}}
    return replace(config, strategies=compact.strategies, options=every)


class Bench:
    """The runs and files of one data set."""

    def __init__(
        self,
        name: str,
        config: TrainConfig,
        dataset: Dataset,
        states: Path,
        rows: list[dict[str, Any]],
        keep: Callable[[], None],
    ) -> None:
        self.name, self.config, self.dataset, self.states, self.keep = name, config, dataset, states, keep
        self.rows = rows

    def run(self, name: str, config: TrainConfig, until: int, begun: State | None = None) -> Session:
        """The run `name`, `until` steps of it: from where it was stopped, or from the state `begun`, or anew."""
        path = self.states / f"{self.name}-{name}.pt"
        # A state is taken over as it is, and trained on.
        state = torch.load(path, weights_only=True) if path.exists() else copy.deepcopy(begun)
        strategies = registry.build(config.strategies, config.options)
        chosen = assemble(config, self.dataset, strategies, state=state)
        while chosen.trainer.ctx.step < until:
            chosen.trainer.step()
            if chosen.trainer.ctx.step in (until, *range(0, until, SAVE_EVERY)):
                with replacing(path) as file:
                    torch.save(chosen.state_dict(), file)
        return chosen

    def has(self, what: str) -> bool:
        return any(row["file"] == what for row in self.own)

    @property
    def own(self) -> list[dict[str, Any]]:
        """The rows of this data set."""
        return [row for row in self.rows if row["set"] == self.name]

    def file(self, what: str, chosen: Session, extension: str, options: dict[str, Any] | None = None) -> None:
        """Write, decode, score and print one file, unless that is done."""
        if self.has(what):
            return
        scene, metadata = baked(chosen)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"scene{extension}"
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
        first = self.own[0]["bytes"]
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

    def measure(self, rates: dict[str, list[float]]) -> None:
        config, steps = self.config, self.config.steps
        # Until quantization begins the strategy vq changes nothing: one beginning serves all runs.
        shared = with_vq(config)
        start: float = registry.build(shared.strategies, shared.options)[1].config.start
        state = self.run("shared", shared, round(start * steps) - 1).state_dict()

        plain = self.run("mcmc", config, steps, without_vq(state))
        self.file("mcmc .ply", plain, ".ply")
        for form in codecs.formats():
            if form.write is not None and form.extensions[0] not in (".ply", ".sog", ".vq", ".html"):
                self.file(f"mcmc {form.extensions[0]}", plain, form.extensions[0])
        for palette in PALETTES:
            label = "mcmc .sog" if palette is None else f"mcmc .sog palette {palette}"
            self.file(label, plain, ".sog", {"palette": palette})
        self.file("mcmc .vq", plain, ".vq")

        for layout, chosen in rates.items():
            for rate in chosen:
                what = f"compact .{layout} rate {rate:g}"
                if not self.has(what):
                    tried = with_vq(config, layout=layout, rate=rate)
                    self.file(what, self.run(f"{layout}-{rate:g}", tried, steps, state), f".{layout}")


def without_vq(state: State) -> State:
    """The state of a run whose only strategy is mcmc."""
    main = state["trainer"]["main"]
    followed = {name: value for name, value in main["state"].items() if not name.startswith("vq_")}
    return {**state, "trainer": {**state["trainer"], "main": {**main, "state": followed}}}


def gains(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each file of compact: dB above post-training SOG of as many bytes, on straight lines over log bytes.

    Files smaller than every such SOG are compared with the smallest, which is larger: the gain is at least that.
    """
    sogs = sorted((row["bytes"], row["psnr"]) for row in rows if row["file"].startswith("mcmc .sog"))
    found = []
    for row in rows:
        if sogs and row["file"].startswith("compact"):
            at = np.interp(
                math.log(row["bytes"]), [math.log(size) for size, _ in sogs], [db for _, db in sogs]
            )
            least = row["bytes"] < sogs[0][0]
            found.append({"file": row["file"], "gain": row["psnr"] - float(at), "at_least": least})
    return found


def _group(row: dict[str, Any]) -> str:
    """mcmc, or what stands before the rate: compact .vq, say."""
    name: str = row["file"]
    return "mcmc" if name.startswith("mcmc") else name.split(" rate ")[0]


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    """Kilobytes (logarithmic) against PSNR, a panel a data set."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(row["set"] for row in rows))
    figure = Figure(figsize=(6 * len(names), 4.5), layout="constrained")
    for place, name in enumerate(names, 1):
        axes = figure.add_subplot(1, len(names), place)
        here = [row for row in rows if row["set"] == name]
        for group in sorted({_group(row) for row in here}, reverse=True):
            points = sorted((row for row in here if _group(row) == group), key=lambda row: row["bytes"])
            sizes, scores = [row["bytes"] / 1e3 for row in points], [row["psnr"] for row in points]
            mark = "o" if group == "mcmc" else "^" if group.endswith(".vq") else "s"
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
    parser.add_argument("--rates", nargs="*", type=float, default=[0.0005, 0.001, 0.002, 0.004])
    parser.add_argument("--sog-rates", nargs="*", type=float, default=[0.0003, 0.001])
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
    about = {key: getattr(args, key) for key in ("steps", "cap", "seed", "downscale", "sh_interval")}
    states = args.out.with_name(args.out.name + ".states")
    states.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, Any]] = []
    if args.out.exists():
        found = json.loads(args.out.read_text())
        if {key: found.get(key) for key in about} != about:
            parser.error(f"{args.out} is of other settings: remove it, or name another file with --out")
        rows = found["files"]

    def keep() -> None:
        by_set = {name: [row for row in rows if row["set"] == name] for name in SETS}
        gained = {name: gains(these) for name, these in by_set.items() if these}
        with replacing(args.out) as file:
            file.write((json.dumps({**about, "files": rows, "above_sog": gained}, indent=2) + "\n").encode())
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
        with open_dataset(root / name, config) as dataset:
            Bench(name, config, dataset, states, rows, keep).measure(
                {"vq": args.rates, "sog": args.sog_rates}
            )
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
