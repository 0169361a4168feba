"""Speed, memory and quality of the CUDA backend against gsplat, in one process on one GPU.

    python benchmarks/gpu.py [--data FOLDER] [--out FILE.json] [--quality] [--rehearsal | --smoke]

benchmarks/gpu.sh builds, checks and runs it. Scenes: garden's points jittered to 1M and 3M Gaussians, of such sizes
that a 16x16 tile has 225 and 500 exact instances, at 1237x822. A pair is a pixel of a tile and a splat whose
ellipse touches the tile, counted by the reference backend for both sides. Ratios within the run are what counts.

--quality also trains chair to 30,000 steps: default and mcmc with our kernels, mcmc with gsplat's.
--smoke takes one small step and no times: for compute-sanitizer.
--rehearsal runs everything on the CPU, tiny, the cpu backend standing in on both sides, and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import tempfile
from dataclasses import dataclass, replace
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import torch
from gpu_contestants import Ours, Problem, Rival, garden
from gpu_meter import compare, memory, profile

from splat.core import DeviceError
from splat.raster import RenderOptions, render

TILE_PIXELS = 256
# Kernel time of a stage: regular expressions of the names of our kernels and of gsplat's.
OURS = {"forward": r"\bblend_forward", "backward": r"\bblend_backward"}
GSPLATS = {"forward": r"rasterize_to_pixels_3dgs_fwd", "backward": r"rasterize_to_pixels_3dgs_bwd"}


@dataclass(frozen=True)
class Size:
    """One of the garden scenes, and what the project wants of it: at least, and as an aim."""

    count: int
    per_tile: float
    width: int
    height: int
    step_ms: tuple[float, float] = (0.0, 0.0)


SIZES = {
    "garden 1M": Size(1_000_000, 225, 1237, 822, (3.0, 2.0)),
    "garden 3M": Size(3_000_000, 500, 1237, 822, (6.4, 4.5)),
}
TINY = {"rehearsal": Size(400, 40, 64, 48)}
# Of gsplat's speed or memory at the same work: at least, and as an aim.
WANTED = {"step": (3.3, 4.0), "draw": (2.0, 3.0), "memory": (0.67, 0.4)}
PAIRS = {"forward": (525, 700), "backward": (120, 200)}


def measure(problem: Problem, size: Size, device: torch.device, rehearsal: bool) -> dict[str, Any]:
    """Everything that is measured on one scene."""
    backend = "cpu" if rehearsal else "cuda"
    stand_in = (lambda g, c: render(g, c, RenderOptions(backend="cpu")).image) if rehearsal else None
    quick = (
        {"repeats": 1, "blocks": 1, "warm_up": 1}
        if rehearsal
        else {"repeats": 20, "blocks": 7, "warm_up": 20}
    )
    result: dict[str, Any] = {
        "gaussians": size.count,
        "size": [size.width, size.height],
        "instances": problem.instances,
        "instances_wanted": problem.wanted,
        "memory": {
            "ours": memory(lambda: Ours(problem, backend), device, steps=10),
            "gsplat": memory(lambda: Rival(problem, stand_in), device, steps=10),
        },
    }
    ours, rival = Ours(problem, backend), Rival(problem, stand_in)
    result["agreement"] = agreement(ours, rival)
    result["draw"] = compare({"ours": ours.draw, "gsplat": rival.draw}, device, **quick)
    result["step"] = compare({"ours": ours.step, "gsplat": rival.step}, device, **quick)
    for name, contestant, patterns in (("ours", ours, OURS), ("gsplat", rival, GSPLATS)):
        traffic = profile(contestant.step, device, patterns, repeats=6)
        result.setdefault("traffic", {})[name] = traffic and traffic.to_json()
        if traffic:
            pairs = problem.instances * TILE_PIXELS
            # Zero milliseconds: no kernel of such a name ran, and there is no figure.
            result.setdefault("gpairs", {})[name] = {
                stage: pairs / ms / 1e6 if ms else None for stage, ms in traffic.milliseconds.items()
            }
    return result


def agreement(ours: Ours, rival: Rival) -> float:
    """Mean absolute difference of the two pictures of the first view, before any step."""
    camera = ours.problem.cameras[0]
    with torch.no_grad():
        drawn = ours.backend.render(ours.scene, camera, RenderOptions()).image
        return float((drawn - rival.image(0)).abs().mean())


def quality(chair: Path, steps: int) -> dict[str, Any]:
    """PSNR, count and minutes on chair's test views, trained by the product's own loop."""
    from splat.strategies.registry import build
    from splat.training.config import load_preset
    from splat.training.run import train

    results: dict[str, Any] = {}
    count = None
    for name, preset, backend in (
        ("default", "default", "cuda"),
        ("mcmc", "mcmc", "cuda"),
        ("mcmc, gsplat's kernels", "mcmc", "gsplat"),
    ):
        config = replace(
            load_preset(preset),
            steps=steps,
            eval=True,
            device="cuda",
            backend=backend,
            background="white",
            max_gaussians=count,
        )
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            train(config, chair, out, strategies=build(config.strategies, config.options), quiet=True)
            score = json.loads((out / "stats" / f"eval_{steps}.json").read_text())
        count = count or score["num_gaussians"]  # mcmc grows to the number that default reached
        results[name] = {key: score[key] for key in ("psnr", "ssim", "num_gaussians", "train_seconds")}
    return results


def smoke(data: Path) -> None:
    """One small step of ours with every kernel in it, for the sanitizers, which slow it down a hundredfold."""
    device = torch.device("cuda")
    problem = garden(data / "garden/test_garden.npz", 2000, 30, width=100, height=70, device=device)
    contestant = Ours(problem, "cuda")
    contestant.step()
    scene = problem.start.clone().requires_grad_()
    needs = frozenset({"depth", "median_depth", "ids", "means2d_grad", "absgrad", "radii", "contribution"})
    features = torch.rand(len(scene), 4, device=device, requires_grad=True)
    output = render(scene, problem.cameras[0], RenderOptions(needs=needs, features=features, backend="cuda"))
    assert output.depth is not None
    assert output.features is not None
    (output.image.sum() + output.depth.sum() + output.features.sum()).backward()
    torch.cuda.synchronize()
    finite = all(bool(torch.isfinite(t).all()) for _, t in contestant.scene.named_tensors())
    print("smoke:", "finite" if finite else "NOT FINITE")
    if not finite:
        raise SystemExit(1)


def table(name: str, result: dict[str, Any], size: Size) -> None:
    """What was measured beside what is wanted; a dash where nothing was."""
    counted = f"{result['instances']:.0f} instances (of {result['instances_wanted']:.0f})"
    print(f"\n{name}: {result['gaussians']} Gaussians, {counted}")
    print(f"{'':28}{'ours':>10}{'gsplat':>10}{'ratio':>8}   at least / aim")

    def line(label: str, a: float | None, b: float | None, ratio: float | None, wanted: str = "") -> None:
        cells = "".join(
            "-".rjust(w) if v is None else f"{v:{w}.2f}" for v, w in ((a, 10), (b, 10), (ratio, 8))
        )
        print(f"{label:28}{cells}   {wanted}")

    for stage in ("step", "draw"):
        ours, rival = result[stage]["ours"], result[stage]["gsplat"]
        least, aim = WANTED[stage]
        absolute = "; {} / {} ms".format(*size.step_ms) if stage == "step" else ""
        line(f"{stage}, ms", ours, rival, rival / ours, f"{least}x / {aim}x{absolute}")
    for stage, (least, aim) in PAIRS.items():
        pairs = [result.get("gpairs", {}).get(who, {}).get(stage) for who in ("ours", "gsplat")]
        ratio = pairs[0] / pairs[1] if all(pairs) else None
        line(f"blend {stage}, G pairs/s", *pairs, ratio, f"{least} / {aim} G/s")
    held = [result["memory"][who] for who in ("ours", "gsplat")]
    if all(held):
        for kind in ("state", "held", "peak", "driver"):
            a, b = (h[kind] / result["gaussians"] for h in held)
            wanted = {"state": "708 / 310 B", "peak": "{}x / {}x".format(*WANTED["memory"])}.get(kind, "")
            line(f"{kind}, B per Gaussian", a, b, a / b, wanted)
    traffic = [result["traffic"][who] for who in ("ours", "gsplat")]
    if all(traffic):
        wishes = {"launches": "30", "copies": "", "waits": "0", "allocations": "0.1"}
        for kind, wanted in wishes.items():
            a, b = (t[kind] for t in traffic)
            line(f"{kind} per step", a, b, None, wanted)
    print(f"mean difference of the two pictures: {result['agreement']:.2e}")


def machine(device: torch.device) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if device.type == "cuda":
        kernels = import_module("splat._cuda")
        p = torch.cuda.get_device_properties(device)
        facts |= {
            "gpu": p.name,
            "memory": p.total_memory,
            "compute": f"{p.major}.{p.minor}",
            "cuda": torch.version.cuda,
            "built_for": kernels.ARCHITECTURES,
            "gsplat": metadata.version("gsplat"),
        }
    return facts


def choose_device(rehearsal: bool) -> torch.device:
    """The GPU; DeviceError where it, our kernels or gsplat's are missing."""
    if rehearsal:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise DeviceError("benchmarks/gpu.py needs an NVIDIA GPU and none was found: nothing was measured")
    try:
        import_module("splat._cuda")
    except ImportError as error:
        raise DeviceError(f"splat was built without its GPU kernels ({error}): see splat doctor") from error
    return torch.device("cuda")


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = os.environ.get("SPLAT_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(default), help="folder with garden and chair")
    parser.add_argument("--out", type=Path, help="by default benchmarks/results/gpu-NAME.json")
    parser.add_argument(
        "--check", action="append", default=[], metavar="NAME=OUTCOME", help="kept in the JSON"
    )
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--steps", type=int, default=30_000, help="of --quality")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--smoke", action="store_true")
    mode.add_argument("--rehearsal", action="store_true")
    options = parser.parse_args(argv)

    device = choose_device(options.rehearsal)
    if options.smoke:
        smoke(options.data)
        return
    report: dict[str, Any] = {"machine": machine(device), "scenes": {}}
    if options.check:
        report["checks"] = dict(check.split("=", 1) for check in options.check)
    if not options.rehearsal:
        from splat.raster.gsplat import load

        load()  # compiles its kernels now, or says what is missing
    print(report["machine"].get("gpu", "rehearsal on the CPU: these figures mean nothing"))
    for name, size in (TINY if options.rehearsal else SIZES).items():
        points = options.data / "garden/test_garden.npz"
        problem = garden(
            points, size.count, size.per_tile, width=size.width, height=size.height, device=device
        )
        report["scenes"][name] = measure(problem, size, device, options.rehearsal)
        table(name, report["scenes"][name], size)
    if options.quality and not options.rehearsal:
        report["quality"] = quality(options.data / "chair", options.steps)
        for name, score in report["quality"].items():
            print(f"chair, {name}: " + ", ".join(f"{key} {value:.6g}" for key, value in score.items()))
    if options.rehearsal:
        return
    slug = re.sub(r"\W+", "-", report["machine"]["gpu"]).strip("-").lower()
    out = options.out or Path(__file__).parent / "results" / f"gpu-{slug}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n")
    print(f"\nwritten: {out}")


if __name__ == "__main__":
    try:
        main()
    except DeviceError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
