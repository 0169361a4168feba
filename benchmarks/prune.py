"""What pruning costs: by method and share kept, before and after fine-tuning, with and without the neural head.

    python benchmarks/prune.py RUN [--keep 0.5 0.1] [--methods ...] [--steps 1000] [--head] [--out FILE.json]

RUN is a finished run with held-out views (`splat train DATA --eval`). Without --steps every pruned scene is scored as
it is, and with its survivors grown as `splat export --prune` does. With --steps each is trained on for so many steps,
its number of Gaussians standing still, and with --head once more together with the small head.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from train import machine

from splat import codecs
from splat.cli.scene import load
from splat.codecs.search import survivors
from splat.core import Gaussians
from splat.raster import RenderOptions, render
from splat.strategies import registry
from splat.strategies.spectral import METHODS, chosen
from splat.training.session import Session, assemble

ROOT = Path(__file__).resolve().parent.parent


def contribution(session: Session, scene: Gaussians) -> torch.Tensor:
    """[N] blending weight summed over the training views."""
    total, dataset = torch.zeros(len(scene), device=scene.device), session.dataset
    options = RenderOptions(needs=frozenset({"contribution"}))
    with torch.no_grad():
        for index in dataset.train:
            drawn = render(scene, dataset.camera(index).to(scene.device), options)
            assert drawn.contribution is not None
            total += drawn.contribution
    return total


def score(session: Session, scene: Gaussians) -> float:
    """Held-out PSNR of a scene in the session's coordinates, dB."""
    trainer = session.trainer
    trainer.baked = lambda: scene  # type: ignore[method-assign]
    return session.score(0.0).psnr


def tuned(session: Session, scene: Gaussians, steps: int, head: bool) -> dict[str, Any]:
    """Trained on for `steps`, from the rates at the end of a run."""
    config = session.config
    options = {
        "mcmc": {"growth": 1.0, "noise": 0.0, "opacity_penalty": 0.0, "scale_penalty": 0.0},
        "compensation": {"start": 0.0},
    }
    strategies = registry.build(("mcmc", "compensation") if head else ("mcmc",), options)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "scene.ply"
        offset = session.dataset.offset.tolist()
        codecs.encode(scene, place, {"offset": offset} if any(offset) else {})
        config = replace(
            config,
            steps=steps,
            sh_interval=1,
            init=replace(config.init, scene=str(place)),
            rates=replace(config.rates, means=config.rates.means / 10),
            max_gaussians=len(scene),
        )
        further = assemble(config, session.dataset, strategies)
    began = time.perf_counter()
    further.trainer.run()
    seconds = time.perf_counter() - began
    baked, camera = further.trainer.baked(), session.dataset.camera(session.dataset.test[0])
    background = torch.tensor(session.background)
    with torch.no_grad():
        further.trainer.draw(baked, camera, background)
        began = time.perf_counter()
        for _ in range(5):
            further.trainer.draw(baked, camera, background)
    return {
        "psnr": further.score(0.0).psnr,
        "train_seconds": seconds,
        "render_ms": (time.perf_counter() - began) / 5 * 1e3,
        "head_bytes": strategies[1].network.bytes() if head else 0,  # type: ignore[attr-defined]
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path, help="a finished run")
    parser.add_argument("--keep", nargs="+", type=float, default=[0.5, 0.3, 0.1, 0.01])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--steps", type=int, default=0, help="fine-tuning; 0 scores as pruned")
    parser.add_argument("--head", action="store_true", help="fine-tune with the head as well")
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "prune.json")
    args = parser.parse_args()

    loaded = load(args.run, "cpu")
    if loaded.session is None or not loaded.session.dataset.test:
        raise SystemExit(f"{args.run}: a run with held-out views (--eval) is needed")
    session, scene = loaded.session, loaded.gaussians
    weights = contribution(session, scene)
    results: dict[str, Any] = {"machine": machine(), "run": args.run.name, "count": len(scene), "rows": []}
    results["psnr"] = score(session, scene)
    print(f"{len(scene):,} Gaussians: {results['psnr']:.2f} dB")
    columns = (
        ("tuned", "with head")
        if args.steps and args.head
        else ("tuned",)
        if args.steps
        else ("as it is", "grown")
    )
    print(f"{'keep':>6} {'method':<13}" + "".join(f"{column:>11}" for column in columns))
    for keep in args.keep:
        for method in args.methods:
            generator = torch.Generator().manual_seed(0)
            count = round(keep * len(scene))
            mask = chosen(scene, count, method, contribution=weights, generator=generator)
            grown = survivors(scene, mask)
            row: dict[str, Any] = {"keep": keep, "method": method, "count": count}
            if args.steps:
                row["tuned"] = tuned(session, grown, args.steps, head=False)
                if args.head:
                    row["with_head"] = tuned(session, grown, args.steps, head=True)
                shown = [row[name]["psnr"] for name in ("tuned", "with_head") if name in row]
            else:
                row["as_it_is"], row["grown"] = score(session, scene.select(mask)), score(session, grown)
                shown = [row["as_it_is"], row["grown"]]
            results["rows"].append(row)
            print(f"{keep:>6g} {method:<13}" + "".join(f"{value:>11.2f}" for value in shown), flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=2) + "\n")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
