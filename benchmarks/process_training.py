"""Trainings on the poses that `splat process` finds, beside trainings on given ones: the second half of process.py."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from common_pixels import held_out, score

from splat.strategies import registry
from splat.training.config import load_preset
from splat.training.run import train


def train_both(
    datasets: dict[str, Path], setting: str, runs: Path, args: argparse.Namespace
) -> dict[str, Any]:
    """Runs on the `datasets` processed and given, each seed of one beside the same seed of the other.

    Args:
        setting: what the row is called.
        runs: where finished runs are kept, in a folder of their own.

    Returns:
        {setting: {steps, processed, given: [{seed, psnr, ssim, per_image, own_psnr}]}}; the first three over the pixels
        of the photographs that both show (common_pixels.py), own_psnr as each run scores itself.
    """
    row: dict[str, Any] = {"steps": args.train, "processed": [], "given": []}
    for seed in args.seeds:
        scenes = {
            name: _trained(data, args, seed, runs / f"{name}-{seed}") for name, data in datasets.items()
        }
        views = [held_out(scenes[name], data, args.downscale) for name, data in datasets.items()]
        # Which photographs are held out follows from the names of those that have poses.
        assert views[0].keys() == views[1].keys(), (
            f"different photographs are held out: {[list(v) for v in views]}"
        )
        for (name, scene), scores in zip(scenes.items(), score(views), strict=True):
            own = json.loads((scene.parents[1] / "stats" / f"eval_{args.train}.json").read_text())["psnr"]
            psnr, ssim = (mean(values) for values in zip(*scores.values(), strict=True))
            images = {image: value for image, (value, _) in scores.items()}
            row[name].append({"seed": seed, "psnr": psnr, "ssim": ssim, "per_image": images, "own_psnr": own})
            print(f"{setting}, seed {seed}, {name}: {psnr:.2f} dB, SSIM {ssim:.4f}", flush=True)
    return {setting: row}


def _trained(data: Path, args: argparse.Namespace, seed: int, run: Path) -> Path:
    """The run's exported scene; a finished run is kept."""
    scene = run / "exports" / "point_cloud.ply"
    if not scene.exists():
        config = replace(load_preset("cpu"), steps=args.train, downscale=args.downscale, eval=True, seed=seed)
        scene = train(config, data, run, strategies=registry.build(config.strategies, config.options)).scene
    return scene


def report(trained: dict[str, Any]) -> None:
    """Print what `train_both` returns."""
    for setting, row in trained.items():
        for what in ("processed", "given"):
            runs = row[what]
            each = ", ".join(f"{run['psnr']:.2f}" for run in runs)
            images = ", ".join(
                f"{name} {mean(run['per_image'][name] for run in runs):.2f}" for name in runs[0]["per_image"]
            )
            print(
                f"  {setting}, {row['steps']} steps on the {what} poses: {mean(run['psnr'] for run in runs):.2f} dB "
            )
            print(f"    seeds {each}; SSIM {mean(run['ssim'] for run in runs):.4f}; {images}")
