"""Speed of a training step by phase, and scores of whole trainings.

    python benchmarks/train.py [--steps 200] [--out FILE.json] [--data FOLDER]
    python benchmarks/train.py --runs fox-default fox-mcmc chair [--seeds 1 2 3] [--train-steps 7000] [--cap N]

Without --runs: fox at --downscale 4 (270x480) from its structure-from-motion points, harmonics of degree 3
from the first step, whole steps of the trainer as `splat train` takes them (median over --steps). With
--runs: trainings by the cpu preset with held-out scores; the run folders are temporary. fox-default has the preset's
density control replaced; fox-mcmc after it, with the same seed, is capped at its count, so that they compare at
equal count. Ratios within one run are what counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from splat import _native
from splat.strategies import registry
from splat.training import trainer as loop
from splat.training.config import TrainConfig, load_preset
from splat.training.run import train
from splat.training.session import assemble, open_dataset

ROOT = Path(__file__).resolve().parent.parent
PHASES = ("view", "forward", "loss", "blend backward", "fused step", "strategy", "rest")


class Clock:
    """Milliseconds spent in the functions that it wraps, step by step."""

    def __init__(self) -> None:
        self.spent = dict.fromkeys(PHASES, 0.0)
        self.steps: list[dict[str, float]] = []

    def wrap(self, phase: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                self.spent[phase] += 1e3 * (time.perf_counter() - began)

        return timed

    def step(self, function: Callable[[], None]) -> None:
        self.spent = dict.fromkeys(PHASES, 0.0)
        began = time.perf_counter()
        function()
        whole = 1e3 * (time.perf_counter() - began)
        self.spent["rest"] = whole - sum(self.spent.values())
        self.steps.append({**self.spent, "step": whole})

    def medians(self) -> dict[str, float]:
        return {name: statistics.median(s[name] for s in self.steps) for name in (*PHASES, "step")}


def time_steps(root: Path, strategy: str, steps: int) -> dict[str, Any]:
    """Medians of whole steps by phase, ms."""
    config = replace(load_preset("default"), downscale=4.0, strategies=(strategy,), sh_interval=1, eval=True)
    with open_dataset(root / "fox", config) as dataset:
        trainer = assemble(config, dataset, registry.build([strategy])).trainer
        for _ in range(len(dataset.train) + 5):  # every photograph decoded, every degree in use
            trainer.step()
        clock = Clock()
        optimizer = trainer.ctx.optimizer
        trainer.views.next = clock.wrap("view", trainer.views.next)
        trainer.backend = Timed(trainer.backend, clock)
        optimizer.step_fused = clock.wrap("fused step", optimizer.step_fused)
        for each in trainer.strategies:
            each.after_backward = clock.wrap("strategy", each.after_backward)
            each.after_step = clock.wrap("strategy", each.after_step)
        before = loop.photometric, torch.Tensor.backward
        loop.photometric = clock.wrap("loss", loop.photometric)
        torch.Tensor.backward = clock.wrap("blend backward", torch.Tensor.backward)
        try:
            for _ in range(steps):
                clock.step(trainer.step)
        finally:
            loop.photometric, torch.Tensor.backward = before
        return {"strategy": strategy, "gaussians": len(trainer.ctx.gaussians), "ms": clock.medians()}


class Timed:
    """A backend whose renders are timed."""

    def __init__(self, backend: Any, clock: Clock) -> None:
        self.name = backend.name
        self.render = clock.wrap("forward", backend.render)


def trainings(cap: int) -> dict[str, tuple[str, TrainConfig]]:
    """Name -> (data set, settings)."""
    cpu = replace(load_preset("cpu"), eval=True)
    fox = replace(cpu, downscale=4.0, max_gaussians=cap)
    return {
        "fox-default": ("fox", replace(fox, strategies=("default",))),
        "fox-mcmc": ("fox", fox),
        "chair": ("chair", replace(cpu, downscale=2.0, background="white")),
    }


def score(root: Path, name: str, seed: int, steps: int, cap: int) -> dict[str, Any]:
    """One training with its scores at 2,000 steps and at the end."""
    data, config = trainings(cap)[name]
    config = replace(config, seed=seed, steps=steps, eval_steps=(2000,))
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        result = train(
            config,
            root / data,
            Path(folder) / "run",
            strategies=registry.build(config.strategies, config.options),
            quiet=True,
        )
        wall = time.perf_counter() - began
        early = Path(folder) / "run" / "stats" / "eval_2000.json"
        psnr_2000 = json.loads(early.read_text())["psnr"] if early.exists() else None
    assert result.evaluation is not None
    return {
        "run": name,
        "seed": seed,
        "steps": steps,
        "psnr_2000": psnr_2000,
        "psnr": result.evaluation.psnr,
        "ssim": result.evaluation.ssim,
        "gaussians": result.num_gaussians,
        "train_seconds": result.train_seconds,
        "wall_seconds": wall,
    }


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        cpu = names[0] if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "kernels": _native.isa(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=200, help="steps to time")
    parser.add_argument("--runs", nargs="+", choices=sorted(trainings(1)), help="trainings to score instead")
    parser.add_argument("--seeds", nargs="+", type=int, default=[42])
    parser.add_argument("--train-steps", type=int, default=7000, help="steps of each training")
    parser.add_argument("--cap", type=int, default=40_000, help="most Gaussians of fox-default and fox-mcmc")
    parser.add_argument("--data", type=Path, default=None, help="$SPLAT_DATA, or ../shared/data")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "train.json")
    args = parser.parse_args()
    root = args.data or Path(os.environ.get("SPLAT_DATA") or ROOT.parent / "shared" / "data")

    results: dict[str, Any] = {"machine": machine()}
    print(" ".join(f"{key} {value};" for key, value in results["machine"].items()))
    if args.runs:
        results["runs"] = []
        counts: dict[int, int] = {}
        print(
            f"{'run':<12} {'seed':>5} {'steps':>6} {'2k dB':>6} {'dB':>6} {'SSIM':>6} {'count':>8} {'s':>6}"
        )
        for name in args.runs:
            for seed in args.seeds:
                cap = counts.get(seed, args.cap) if name == "fox-mcmc" else args.cap
                r = score(root, name, seed, args.train_steps, cap)
                results["runs"].append(r)
                if name == "fox-default":
                    counts[seed] = r["gaussians"]
                early = "" if r["psnr_2000"] is None else f"{r['psnr_2000']:.2f}"
                print(
                    f"{name:<12} {seed:>5} {r['steps']:>6} {early:>6} {r['psnr']:>6.2f} {r['ssim']:>6.4f} "
                    f"{r['gaussians']:>8,} {r['train_seconds']:>6.0f}",
                    flush=True,
                )
    else:
        results["steps"] = [time_steps(root, strategy, args.steps) for strategy in ("default", "mcmc")]
        print(f"{'ms per step':<16}" + "".join(f"{r['strategy']:>10}" for r in results["steps"]))
        for phase in (*PHASES, "step"):
            print(f"{phase:<16}" + "".join(f"{r['ms'][phase]:>10.2f}" for r in results["steps"]))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
