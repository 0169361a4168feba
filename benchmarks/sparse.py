"""Scores of few-view training over several seeds: plain 3DGS, mcmc and the preset `sparse`.

    python benchmarks/sparse.py [--methods plain mcmc sparse] [--scenes fox-3 sample-3 ...] [--seeds 1 2 3 4 5]
    python benchmarks/sparse.py --methods sparse@stereo sparse@points sparse@random [--scenes ...]
    python benchmarks/sparse.py --leave-one-out [--scenes fox-3] [--seeds 1 2 3]

fox-N: the photographs of fox that look within 30 degrees of 0022.jpg, at --downscale 8, every 8th held out, trained
on N of the others, linspaced. sample-N: the built-in scene, 32 views on a ring, at full size, likewise, with its true
depth. plain is adaptive density control as published and mcmc the preset `cpu`, both from the structure-from-motion
points that the training views alone give, 2,000 steps: more than the preset `sparse` takes.
--leave-one-out switches off each piece of `sparse_view` that the preset uses, and on each that it does not.

The error of depth is the mean over held-out views and pixels of |depth - truth| / truth, at most 1, and 1 where nothing
opaque is drawn. Deviations are those of a sample (n - 1). Runs that the file of --out already has are not run again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from train import machine

from splat.data import Dataset, Scene, read_scene
from splat.data.sample import write_sample
from splat.raster import RenderOptions, render
from splat.strategies import registry
from splat.strategies.sparse.strategy import PIECES
from splat.training.config import TrainConfig, load_preset
from splat.training.session import Session, assemble, planned

ROOT = Path(__file__).resolve().parent.parent
DEGREES = 30
OPAQUE = 0.5
STEPS = 2_000  # of plain and mcmc
SCENES = [f"{name}-{views}" for name in ("fox", "sample") for views in (3, 6, 9)]
NAMES = [piece.name for piece in PIECES if piece.name != "prior"]  # which needs files


def looking_alike(scene: Scene, name: str, degrees: float) -> Scene:
    """The frames that look within `degrees` of the direction of frame `name`."""
    (axis,) = (frame.camera.forward for frame in scene.frames if frame.name == name)
    kept = [
        number
        for number, frame in enumerate(scene.frames)
        if float(frame.camera.forward @ axis) >= math.cos(math.radians(degrees))
    ]
    place = {old: new for new, old in enumerate(kept)}
    observe = scene.observe
    assert scene.points is not None
    assert observe is not None

    def observed(frames: Any) -> Any:
        found = observe([kept[frame] for frame in frames])
        return replace(found, frames=torch.tensor([place[int(frame)] for frame in found.frames]))

    return replace(
        scene,
        frames=[scene.frames[number] for number in kept],
        points=replace(scene.points, tracks=None),
        observe=observed,
    )


def open_scene(name: str, data: Path, made: Path) -> tuple[Scene, float, Path | None]:
    """The frames, the factor of --downscale and the folder of true depths."""
    if name == "fox":
        return looking_alike(read_scene(data / "fox"), "0022.jpg", DEGREES), 8.0, None
    if not made.exists():
        write_sample(made)
    return read_scene(made), 1.0, made / "depths"


def settings(method: str) -> TrainConfig:
    """Of a method; "with-PIECE" and "no-PIECE" are the preset `sparse` with that piece switched on or off, and
    METHOD@KIND begins with that kind of `--init.source`."""
    sparse = load_preset("sparse")
    if "@" in method:
        method, _, source = method.partition("@")
        config = settings(method)
        return replace(config, init=replace(config.init, source=source))
    if method == "sparse":
        return sparse
    if method in ("plain", "mcmc"):
        chosen = load_preset("default" if method == "plain" else "cpu")
        init = replace(chosen.init, source="points")
        return replace(chosen, steps=STEPS, max_gaussians=40_000, sh_interval=500, init=init)
    options = {**sparse.options.get("sparse_view", {})}
    switch, piece = method.split("-")
    options[piece] = {**options.get(piece, {}), "on": switch == "with"}
    return replace(sparse, options={**sparse.options, "sparse_view": options})


def length(method: str, name: str) -> int | None:
    """Steps of a method on a scene."""
    config = settings(method)
    strategies = registry.build(config.strategies, config.options)
    return planned(config, strategies, int(name.split("-")[1])).steps


def contributions() -> list[str]:
    """The preset, and it with each piece switched the other way."""
    config = load_preset("sparse")
    chosen = registry.build(config.strategies, config.options)
    (view,) = (strategy for strategy in chosen if strategy.name == "sparse_view")
    on = {name: getattr(view.config, name).on for name in NAMES}
    return ["sparse", *(f"{'no' if on[name] else 'with'}-{name}" for name in NAMES)]


def depth_error(session: Session, folder: Path) -> float:
    baked, errors = session.trainer.baked(), []
    for index in session.dataset.test:
        camera = session.dataset.camera(index)
        stem = Path(session.dataset.scene.frames[index].name).stem
        truth = torch.from_numpy(np.load(folder / f"{stem}.npy"))
        with torch.no_grad():
            output = render(baked, camera, RenderOptions(needs=frozenset({"depth"})))
        assert output.depth is not None
        drawn = torch.where(output.alpha > OPAQUE, output.depth, 0)
        errors.append(float(((drawn - truth).abs() / truth).clamp(max=1).mean()))
    return statistics.mean(errors)


def run(method: str, name: str, seed: int, data: Path, made: Path, steps: int | None) -> dict[str, Any]:
    """One training, scored."""
    kind, views = name.split("-")
    scene, downscale, depths = open_scene(kind, data, made)
    config = replace(settings(method), seed=seed, downscale=downscale, eval=True, device="cpu")
    if steps is not None:
        config = replace(config, steps=steps)
    with Dataset(scene, downscale=downscale, holdout=True, views=int(views)) as dataset:
        began = time.perf_counter(), time.process_time()
        session = assemble(config, dataset, registry.build(config.strategies, config.options))
        session.trainer.run()
        spent = time.perf_counter() - began[0], time.process_time() - began[1]
        scores = session.score(spent[0])
        return {
            "method": method,
            "scene": name,
            "seed": seed,
            "steps": session.trainer.end,
            "psnr": scores.psnr,
            "ssim": scores.ssim,
            "depth_error": None if depths is None else depth_error(session, depths),
            "gaussians": scores.num_gaussians,
            "wall_seconds": spent[0],
            "processor_seconds": spent[1],
        }


def table(runs: list[dict[str, Any]]) -> str:
    """Mean and deviation of each method and number of steps on each scene, as Markdown."""
    lines = [
        "| scene | method | steps | seeds | PSNR, dB | SSIM | error of depth | Gaussians | processor s |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for kind in dict.fromkeys((r["scene"], r["method"], r["steps"]) for r in runs):
        chosen = [r for r in runs if (r["scene"], r["method"], r["steps"]) == kind]

        def shown(key: str, digits: int, chosen: list[dict[str, Any]] = chosen) -> str:
            values = [r[key] for r in chosen if r[key] is not None]
            if not values:
                return ""
            deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
            return f"{statistics.mean(values):.{digits}f}{deviation}"

        count, seconds = (statistics.mean(r[k] for r in chosen) for k in ("gaussians", "processor_seconds"))
        lines.append(
            f"| {kind[0]} | {kind[1]} | {kind[2]:,} | {len(chosen)} | {shown('psnr', 2)} | {shown('ssim', 3)} | "
            f"{shown('depth_error', 3)} | {count:,.0f} | {seconds:.0f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--methods", nargs="+", default=["plain", "mcmc", "sparse"])
    parser.add_argument("--scenes", nargs="+", choices=SCENES, default=["fox-3"])
    parser.add_argument(
        "--seeds", nargs="+", type=int, default=None, help="1 to 5; 1 to 3 with --leave-one-out"
    )
    parser.add_argument("--leave-one-out", action="store_true", help="each piece's own contribution instead")
    parser.add_argument("--steps", type=int, default=None, help="of every run, instead of the preset's")
    parser.add_argument("--data", type=Path, default=None, help="$SPLAT_DATA, or ../shared/data")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "sparse.json")
    args = parser.parse_args()
    data = args.data or Path(os.environ.get("SPLAT_DATA") or ROOT.parent / "shared" / "data")
    methods = contributions() if args.leave_one_out else args.methods
    seeds = args.seeds or list(range(1, 4 if args.leave_one_out else 6))

    results = json.loads(args.out.read_text()) if args.out.exists() else {"runs": []}
    results["machine"] = machine()
    known = {(r["method"], r["scene"], r["seed"], r["steps"]) for r in results["runs"]}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        for seed in seeds:
            for scene in args.scenes:
                for method in methods:
                    steps = args.steps or length(method, scene)
                    if (method, scene, seed, steps) in known:
                        continue
                    r = run(method, scene, seed, data, Path(folder) / "sample", args.steps)
                    results["runs"].append(r)
                    depth = "" if r["depth_error"] is None else f" depth {r['depth_error']:.3f}"
                    print(
                        f"{scene:<9} {method:<13} seed {seed}: {r['psnr']:.2f} dB {r['ssim']:.3f}{depth} "
                        f"{r['gaussians']:,} {r['wall_seconds']:.0f} s ({r['processor_seconds']:.0f})",
                        flush=True,
                    )
                    args.out.write_text(json.dumps(results, indent=2) + "\n")
    print(table(results["runs"]))
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
