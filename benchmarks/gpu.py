"""Speed, memory and quality of the CUDA backend against gsplat, in one process on one GPU.

    python benchmarks/gpu.py [--data FOLDER] [--out FILE.json] [--scenes NAME ...] [--quality] [--dry-run | --smoke]

benchmarks/gpu.sh builds, checks and runs it. Scenes: garden's points jittered to 1M and 3M Gaussians, of such sizes
that a 16x16 tile has 225 and 500 exact instances, at 1237x822. A pair is a pixel of a tile and a splat whose
ellipse touches the tile, counted by the reference backend for both sides. Ratios within the run are what counts.
The product's step chooses its blend backward, and whether it is replayed as a CUDA graph, by the clock; beside it
stand the ways that it chooses from, and quantized state.

--quality also trains chair to 30,000 steps: default and mcmc with our kernels, mcmc with gsplat's.
--smoke takes a few small steps through every kernel and no times: for compute-sanitizer.
--dry-run runs everything, tiny, through the emulated kernels on the CPU, the cpu backend standing in for gsplat, and
writes nothing: it shows that the script works.
What was measured is added to the JSON file if that exists, so that parts of it can be run one after the other.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import torch
from gpu_contestants import Ours, Problem, Rival, garden
from gpu_meter import compare, memory, profile, tallied

from splat.codecs.quantize.order import morton_order
from splat.core import DeviceError
from splat.raster import RenderOptions, render
from splat.raster.cuda import CudaBackend
from splat.training.fastest import BLOCK, ROUNDS
from splat.training.replays import FIRST

TILE_PIXELS = 256
# Steps before anything is timed: enough for the product to have made its choice.
WARM_UP = FIRST + 4 * BLOCK * (ROUNDS + 1) + 50
# Kernel time of a stage: regular expressions of the names of our kernels and of gsplat's.
OURS = {"forward": r"\bblend_forward", "backward": r"\bblend_backward", "fused": r"\bproject_backward"}
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
TINY = {"toy": Size(400, 40, 64, 48)}
# Of gsplat's speed or memory at the same work: at least, and as an aim.
WANTED = {"step": (3.3, 4.0), "draw": (2.0, 3.0), "memory": (0.67, 0.4)}
PAIRS = {"forward": (525, 700), "backward": (120, 200)}


@dataclass(frozen=True)
class Place:
    """Where the measuring is done: on the GPU, or dry."""

    device: torch.device
    kernels: Any  # splat._cuda, or splat._emulated
    dry: bool

    def backend(self, **choices: Any) -> CudaBackend:
        make = import_module("gpu_dry").EmulatedBackend if self.dry else CudaBackend
        return make(**choices)

    def rival(self, problem: Problem) -> Rival:
        stand_in = lambda g, c: render(g, c, RenderOptions(backend="cpu")).image  # noqa: E731
        return Rival(problem, stand_in if self.dry else None)


def measure(problem: Problem, size: Size, place: Place) -> dict[str, Any]:
    """Everything that is measured on one scene."""
    device = place.device
    quick = (
        {"repeats": 1, "blocks": 1, "warm_up": 1}
        if place.dry
        else {"repeats": 20, "blocks": 7, "warm_up": WARM_UP}
    )
    plain, captured = {"captured": False}, {"captured": True}
    makers: dict[str, Callable[[], Any]] = {
        "ours": lambda: Ours(problem, place.backend()),
        "quantized": lambda: Ours(problem, place.backend(), "quantized"),
        "by pixels": lambda: Ours(problem, place.backend(backward="pixels", **plain)),
        "by splats": lambda: Ours(problem, place.backend(backward="splats", **plain)),
        "in Morton order": lambda: Ours(ordered(problem), place.backend(backward="pixels", **plain)),
        "captured by pixels": lambda: Ours(problem, place.backend(backward="pixels", **captured)),
        "captured by splats": lambda: Ours(problem, place.backend(backward="splats", **captured)),
        "gsplat": lambda: place.rival(problem),
    }
    result: dict[str, Any] = {
        "gaussians": size.count,
        "size": [size.width, size.height],
        "instances": problem.instances,
        "instances_wanted": problem.wanted,
        "memory": {
            name: memory(makers[name], device, steps=10)
            for name in ("ours", "quantized", "captured by pixels", "gsplat")
        },
    }
    contestants = {name: make() for name, make in makers.items()}
    result["agreement"] = agreement(contestants["ours"], contestants["gsplat"])
    draws = {name: contestants[name].draw for name in ("ours", "gsplat")}
    result["draw"] = compare(draws, device, **quick)
    steps, result["failed"] = usable({name: c.step for name, c in contestants.items()})
    result["step"] = compare(steps, device, **quick)
    result["chosen"] = {name: contestants[name].chosen() for name in ("ours", "quantized")}
    for name in steps:
        patterns = GSPLATS if name == "gsplat" else OURS
        traffic = (
            tallied(steps[name], place.kernels, repeats=2)
            if place.dry
            else profile(steps[name], device, patterns, repeats=6)
        )
        result.setdefault("traffic", {})[name] = traffic.to_json()
        pairs = problem.instances * TILE_PIXELS
        # Zero milliseconds: no kernel of such a name ran, and there is no figure.
        result.setdefault("gpairs", {})[name] = {
            stage: pairs / ms / 1e6 if ms else None
            for stage, ms in traffic.milliseconds.items()
            if stage in PAIRS
        }
    return result


def ordered(problem: Problem) -> Problem:
    """The same with the Gaussians along a Morton curve, as --reorder puts them."""
    return replace(problem, start=problem.start.select(morton_order(problem.start.means)))


def usable(steps: dict[str, Callable[[], None]]) -> tuple[dict[str, Callable[[], None]], dict[str, str]]:
    """The variants whose steps work here, and why the others do not; ours and gsplat's must."""
    good, bad = {}, {}
    for name, step in steps.items():
        try:
            step()
            good[name] = step
        except (RuntimeError, DeviceError) as error:
            if name in ("ours", "gsplat"):
                raise
            bad[name] = str(error)
            print(f"{name} does not work here: {error}", file=sys.stderr)
    return good, bad


def agreement(ours: Ours, rival: Rival) -> float:
    """Mean absolute difference of the two pictures of the first view, before any step."""
    camera = ours.problem.cameras[0]
    with torch.no_grad():
        drawn = ours.backend.render(ours.scene, camera, RenderOptions()).image
        return float((drawn - rival.image(0)).abs().mean())


def quality(chair: Path, steps: int, place: Place) -> dict[str, Any]:
    """PSNR, count and seconds on chair's test views, trained by the product's own loop."""
    from splat.strategies.registry import build
    from splat.training.config import load_preset
    from splat.training.run import train

    runs = [
        ("default", "default", "cuda"),
        ("mcmc", "mcmc", "cuda"),
        ("mcmc, gsplat's kernels", "mcmc", "gsplat"),
    ]
    if place.dry:
        runs = [("default", "default", "emulated"), ("mcmc", "mcmc", "emulated"), ("stand-in", "mcmc", "cpu")]
    results: dict[str, Any] = {}
    count = 300 if place.dry else None
    for name, preset, backend in runs:
        config = load_preset(preset)
        config = replace(
            config,
            steps=steps,
            eval=True,
            device=place.device.type,
            backend=backend,
            background="white",
            max_gaussians=count,
            downscale=25.0 if place.dry else 1.0,
            init=replace(config.init, count=200 if place.dry else config.init.count),
        )
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / "run"
            train(config, chair, out, strategies=build(config.strategies, config.options), quiet=True)
            score = json.loads((out / "stats" / f"eval_{steps}.json").read_text())
        count = count or score["num_gaussians"]  # mcmc grows to the number that default reached
        results[name] = {key: score[key] for key in ("psnr", "ssim", "num_gaussians", "train_seconds")}
    return results


def few(chair: Path, folder: Path) -> Path:
    """Two training and two test views of chair, for a dry run."""
    for split in ("train", "test"):
        stored = json.loads((chair / f"transforms_{split}.json").read_text())
        stored["frames"] = stored["frames"][:2]
        (folder / f"transforms_{split}.json").write_text(json.dumps(stored))
        (folder / split).symlink_to((chair / split).resolve())
    return folder


def smoke(data: Path, place: Place) -> None:
    """Small steps of ours with every kernel in them, for the sanitizers, which slow them down a hundredfold."""
    device = place.device
    size = TINY["toy"] if place.dry else Size(2000, 30, 100, 70)
    points = data / "garden/test_garden.npz"
    problem = garden(points, size.count, size.per_tile, width=size.width, height=size.height, device=device)
    contestants = [
        Ours(problem, place.backend()),
        Ours(problem, place.backend(), "quantized"),
        Ours(problem, place.backend(backward="splats")),
        Ours(problem, place.backend(backward="pixels", captured=True), poses=True),
    ]
    for contestant in contestants:
        for _ in range(8):
            contestant.step()
        contestant.trainer.settle()
    scene = problem.start.clone().requires_grad_()
    needs = frozenset({"depth", "median_depth", "ids", "means2d_grad", "absgrad", "radii", "contribution"})
    features = torch.rand(len(scene), 11, device=device, requires_grad=True)
    options = RenderOptions(needs=needs, features=features)
    output = place.backend().render(scene, problem.cameras[0], options)
    assert output.depth is not None
    assert output.features is not None
    (output.image.sum() + output.depth.sum() + output.features.sum()).backward()
    if not place.dry:
        torch.cuda.synchronize()
    finite = all(bool(torch.isfinite(t).all()) for c in contestants for _, t in c.scene.named_tensors())
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

    rival = result["step"]["gsplat"]
    line(
        "step, ms",
        result["step"]["ours"],
        rival,
        rival / result["step"]["ours"],
        "{}x / {}x; {} / {} ms".format(*WANTED["step"], *size.step_ms),
    )
    for variant, ms in result["step"].items():
        if variant not in ("ours", "gsplat"):
            line(f"step {variant}, ms", ms, rival, rival / ms)
    for variant, way in result["chosen"].items():
        print(f"{variant} chose: {way}")
    drawn = result["draw"]
    line(
        "draw, ms",
        drawn["ours"],
        drawn["gsplat"],
        drawn["gsplat"] / drawn["ours"],
        "{}x / {}x".format(*WANTED["draw"]),
    )
    for stage, (least, aim) in PAIRS.items():
        pairs = [result["gpairs"][who].get(stage) for who in ("ours", "gsplat")]
        ratio = pairs[0] / pairs[1] if all(pairs) else None
        line(f"blend {stage}, G pairs/s", *pairs, ratio, f"{least} / {aim} G/s")
    for variant in ("by pixels", "by splats"):
        line(f"  backward {variant}", result["gpairs"].get(variant, {}).get("backward"), None, None)
    held = result["memory"]
    for variant in ("ours", "quantized", "captured by pixels"):
        for kind in ("state", "held", "peak", "driver"):
            found = [held[who][kind] for who in (variant, "gsplat")]
            a, b = (None if n is None else n / result["gaussians"] for n in found)
            wanted = {"state": "708 / 310 B", "peak": "{}x / {}x".format(*WANTED["memory"])}.get(kind, "")
            label = kind if variant == "ours" else f"{kind} {variant}"
            line(f"{label}, B per Gaussian", a, b, a / b if a and b else None, wanted)
    traffic = result["traffic"]
    for kind, wanted in {"launches": "30", "copies": "", "waits": "0", "allocations": "0.1"}.items():
        line(f"{kind} per step", traffic["ours"][kind], traffic["gsplat"][kind], None, wanted)
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


def choose_place(dry: bool) -> Place:
    """The GPU; DeviceError where it, our kernels or gsplat's are missing."""
    if dry:
        return Place(torch.device("cpu"), import_module("splat._emulated"), True)
    if not torch.cuda.is_available():
        raise DeviceError("benchmarks/gpu.py needs an NVIDIA GPU and none was found: nothing was measured")
    try:
        kernels = import_module("splat._cuda")
    except ImportError as error:
        raise DeviceError(f"splat was built without its GPU kernels ({error}): see splat doctor") from error
    return Place(torch.device("cuda"), kernels, False)


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
    parser.add_argument("--scenes", nargs="*", choices=list(SIZES), default=list(SIZES))
    parser.add_argument("--quality", action="store_true")
    parser.add_argument("--steps", type=int, default=30_000, help="of --quality")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--dry-run", action="store_true")
    options = parser.parse_args(argv)

    place = choose_place(options.dry_run)
    with import_module("gpu_dry").emulated() if place.dry else nullcontext():
        if options.smoke:
            smoke(options.data, place)
            return
        run(options, place)


def run(options: argparse.Namespace, place: Place) -> None:
    report: dict[str, Any] = {"machine": machine(place.device), "scenes": {}}
    slug = re.sub(r"\W+", "-", report["machine"].get("gpu", "dry run")).strip("-").lower()
    out = options.out or Path(__file__).parent / "results" / f"gpu-{slug}.json"
    if out.exists() and not place.dry:
        report = json.loads(out.read_text()) | {"machine": report["machine"]}
    report.setdefault("checks", {}).update(check.split("=", 1) for check in options.check)

    def keep() -> None:
        if not place.dry:
            out.parent.mkdir(parents=True, exist_ok=True)
            out.write_text(json.dumps(report, indent=2) + "\n")

    keep()
    print(report["machine"].get("gpu", "dry run on the CPU: these figures mean nothing"))
    sizes = TINY if place.dry and options.scenes else {name: SIZES[name] for name in options.scenes}
    if not place.dry and (sizes or options.quality):
        from splat.raster.gsplat import load

        load()  # compiles its kernels now, or says what is missing
    for name, size in sizes.items():
        points = options.data / "garden/test_garden.npz"
        problem = garden(
            points, size.count, size.per_tile, width=size.width, height=size.height, device=place.device
        )
        report["scenes"][name] = measure(problem, size, place)
        table(name, report["scenes"][name], size)
        keep()
    if options.quality:
        with tempfile.TemporaryDirectory() as folder:
            chair = options.data / "chair"
            chair = few(chair, Path(folder)) if place.dry else chair
            report["quality"] = quality(chair, options.steps, place)
        for name, score in report["quality"].items():
            print(f"chair, {name}: " + ", ".join(f"{key} {value:.6g}" for key, value in score.items()))
        print("wanted: chair 35.8 / 36.3 dB; mcmc within 0.05 dB of gsplat's kernels")
        keep()
    if not place.dry:
        print(f"\nwritten: {out}")


if __name__ == "__main__":
    try:
        main()
    except DeviceError as error:
        print(f"gpu.py: {error}", file=sys.stderr)
        raise SystemExit(error.exit_code) from None
