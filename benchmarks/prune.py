"""What pruning costs: by method and share kept, before and after fine-tuning, with and without the neural head.

    python benchmarks/prune.py RUN [--keep 0.5 0.1] [--methods ...] [--out FILE.json]
    python benchmarks/prune.py RUN --steps 1000 [--heads none small] [--views 50] [--work DIR] [--out FILE.json]

RUN is a finished run with held-out views (`splat train DATA --eval`). Without --steps every pruned scene is scored as
it is, and with its survivors grown as `splat export --prune` does. With --steps the grown scene is trained on for so
many steps, its number of Gaussians standing still: alone, and together with a head of the given size. "published" is
the spectrum of the centres, half of what stays from either end (Yang et al. 2024). Times are processor times of one
thread. Rows are written as they come, and those that FILE holds already are not made again; DIR keeps the trained
states, so that --cost can measure drawing, file sizes and what was trained on, of all of them one after the other.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from train import machine

from splat import codecs
from splat.cli.scene import load
from splat.codecs.search import Viewpoints, survivors
from splat.core import Gaussians
from splat.raster import RenderOptions, render
from splat.strategies import registry
from splat.strategies.spectral import PUBLISHED, Method, Spectrum, chosen
from splat.training.config import TrainConfig
from splat.training.export import exported
from splat.training.session import Session, assemble

ROOT = Path(__file__).resolve().parent.parent
BARE = "none"
METHODS: dict[str, tuple[Method, Spectrum | None]] = {
    "spectral": ("spectral", None),
    "published": ("spectral", PUBLISHED),
    "contribution": ("contribution", None),
    "opacity": ("opacity", None),
    "random": ("random", None),
}


def contribution(session: Session, scene: Gaussians) -> torch.Tensor:
    """[N] blending weight summed over the training views."""
    cameras = [session.dataset.camera(index) for index in session.dataset.train]
    views = Viewpoints(cameras, lambda g, camera, needs: render(g, camera, RenderOptions(needs=needs)))
    with torch.no_grad():
        total = views.contribution(scene)
    assert total is not None
    return total


def score(session: Session, scene: Gaussians) -> float:
    """Held-out PSNR of a scene in the session's coordinates, dB."""
    trainer = session.trainer
    trainer.baked = lambda: scene  # type: ignore[method-assign]
    return session.score(0.0).psnr


def tuning(base: TrainConfig, steps: int, head: str, count: int) -> TrainConfig:
    """Settings of a fine-tuning: the rates at the end of a run, a number of Gaussians that stands still."""
    options: dict[str, Any] = {
        "mcmc": {"growth": 1.0, "noise": 0.0, "opacity_penalty": 0.0, "scale_penalty": 0.0}
    }
    strategies: tuple[str, ...] = ("mcmc",)
    if head != BARE:
        strategies, options["compensation"] = ("mcmc", "compensation"), {"start": 0.0, "size": head}
    rates = replace(base.rates, means=base.rates.means / 10)
    return replace(
        base,
        steps=steps,
        sh_interval=1,
        strategies=strategies,
        options=options,
        rates=rates,
        max_gaussians=count,
    )


def tuned(session: Session, scene: Gaussians, steps: int, head: str, kept: Path | None) -> dict[str, Any]:
    """Trained on for `steps`; the state is written to `kept`."""
    config = tuning(session.config, steps, head, len(scene))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "scene.ply"
        offset = session.dataset.offset.tolist()
        codecs.encode(scene, place, {"offset": offset} if any(offset) else {})
        config = replace(config, init=replace(config.init, scene=str(place)))
        further = assemble(config, session.dataset, registry.build(config.strategies, config.options))
    began = time.process_time()
    further.trainer.run()
    seconds = time.process_time() - began
    if kept is not None:
        kept.parent.mkdir(parents=True, exist_ok=True)
        torch.save(further.state_dict(), kept)
    result = further.score(0.0)
    return {"psnr": result.psnr, "ssim": result.ssim, "train_seconds": seconds}


def cost(session: Session, row: dict[str, Any], steps: int, kept: Path) -> dict[str, Any]:
    """Processor time of a picture, ms (median over held-out views), bytes of the .ply, the head included, and PSNR on
    the views that it was trained on, dB."""
    config = tuning(session.config, steps, row["head"], row["count"])
    strategies = registry.build(config.strategies, config.options)
    further = assemble(config, session.dataset, strategies, state=torch.load(kept, weights_only=True))
    baked, background = further.trainer.baked(), torch.tensor(session.background)
    times = []
    with torch.no_grad():
        for index in session.dataset.test[:7]:
            camera = session.dataset.camera(index)
            further.trainer.draw(baked, camera, background)
            began = time.process_time()
            further.trainer.draw(baked, camera, background)
            times.append(1e3 * (time.process_time() - began))
    held_out, session.dataset.test = session.dataset.test, session.dataset.train
    seen = further.score(0.0).psnr
    session.dataset.test = held_out
    scene, metadata, _ = exported(further)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "scene.ply"
        codecs.encode(scene, place, metadata)
        size = place.stat().st_size
    return {"render_ms": statistics.median(times), "ply_bytes": size, "psnr_seen": seen}


def write(results: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("--keep", nargs="+", type=float, default=[0.5, 0.3, 0.1, 0.01])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--steps", type=int, default=0, help="fine-tuning; 0 scores as pruned")
    parser.add_argument("--heads", nargs="+", default=[BARE, "small"], help="sizes to fine-tune with")
    parser.add_argument("--views", type=int, default=0, help="score so many held-out views, evenly spaced")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "prune", help="where states are kept")
    parser.add_argument("--cost", action="store_true", help="measure the states of FILE's rows")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "prune.json")
    args = parser.parse_args()
    torch.set_num_threads(1)

    loaded = load(args.run, "cpu")
    if loaded.session is None or not loaded.session.dataset.test:
        raise SystemExit(f"{args.run}: a run with held-out views (--eval) is needed")
    session, scene = loaded.session, loaded.gaussians
    test = session.dataset.test
    session.dataset.test = test[:: max(1, len(test) // args.views)] if args.views else test
    weights = contribution(session, scene)
    results: dict[str, Any] = json.loads(args.out.read_text()) if args.out.exists() else {}
    if not results:
        results = {"machine": machine(), "run": args.run.name, "count": len(scene), "steps": args.steps}
        results |= {"views": len(session.dataset.test), "psnr": score(session, scene), "rows": []}
    print(f"{len(scene):,} Gaussians: {results['psnr']:.2f} dB on {results['views']} views")

    if args.cost:
        for row in results["rows"]:
            if row["keep"] not in args.keep or row["method"] not in args.methods:
                continue
            row |= cost(session, row, args.steps, args.work / _name(args.run, row))
            shown = f"{row['render_ms']:7.1f} ms {row['ply_bytes'] / 1e6:7.2f} MB"
            print(f"{row['keep']:>6g} {row['method']:<13} {row['head']:<6} {shown}", flush=True)
        write(results, args.out)
        return
    there = {(row["keep"], row["method"], row.get("head")) for row in results["rows"]}
    for keep in args.keep:
        for method in args.methods:
            generator = torch.Generator().manual_seed(0)
            count = round(keep * len(scene))
            name, spectrum = METHODS[method]
            mask = chosen(scene, count, name, spectrum=spectrum, contribution=weights, generator=generator)
            grown = survivors(scene, mask)
            for head in args.heads if args.steps else [None]:
                if (keep, method, head) in there:
                    continue
                row: dict[str, Any] = {"keep": keep, "method": method, "count": count}
                if head is None:
                    row |= {"as_it_is": score(session, scene.select(mask)), "grown": score(session, grown)}
                    shown = f"{row['as_it_is']:7.2f} -> {row['grown']:.2f}"
                else:
                    row["head"] = head
                    row |= tuned(session, grown, args.steps, head, args.work / _name(args.run, row))
                    shown = f"{head:<6} {row['psnr']:7.2f} {row['ssim']:.4f} {row['train_seconds']:7.1f} s"
                results["rows"].append(row)
                write(results, args.out)
                print(f"{keep:>6g} {method:<13} {shown}", flush=True)
    print(f"written to {args.out}")


def _name(run: Path, row: dict[str, Any]) -> str:
    return f"{run.name}-{row['keep']:g}-{row['method']}-{row['head']}.pt"


if __name__ == "__main__":
    main()
