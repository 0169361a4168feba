"""`splat info`: what a scene file, a checkpoint, a run or a dataset holds."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from splat.cli.command import Common, parse, print_json, size


@dataclass
class Info(Common):
    """Tell what a scene file, a checkpoint, a run's folder or a dataset holds.

    Of a scene: format and version, number of Gaussians, SH degree, bounds, how scales and opacities are
    spread, what the bytes are spent on, and whatever is suspicious: NaN, activated values, giants, Gaussians
    that are never drawn.

    Examples:
      splat info garden.ply
      splat info runs/garden/cpu-20260131-101500
      splat info ~/photos/garden --json
    """

    path: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """A scene (a file or a folder), a checkpoint (.pt), a run's folder or a dataset."""
    json: bool = False
    """Print one JSON document."""


def main(argv: list[str]) -> int:
    args = parse(Info, "info", argv)
    facts = describe(args.path)
    if args.json:
        print_json(facts)
    else:
        _print(facts)
    return 0


def describe(path: Path) -> dict[str, Any]:
    """Facts of what lies at `path`, nested dictionaries; DataError if it is nothing that is known."""
    from splat.core import DataError

    if not path.exists():
        raise DataError(f"{path}: no such file or folder; check the spelling")
    if path.is_dir() and (path / "config.yaml").exists() and (path / "ckpts").is_dir():
        return _run(path)
    if path.suffix == ".pt":
        return _checkpoint(path)
    from splat import codecs

    if (path.is_dir() or path.suffix == ".json") and codecs.sniff(path) is None:
        return _dataset(path)
    return {"path": path, "kind": "scene", **codecs.inspect(path)}


def _run(path: Path) -> dict[str, Any]:
    from splat.training import checkpoint, schema
    from splat.training.runfolder import RunFolder

    folder = RunFolder.open(path)
    config = folder.read_config()
    saved = checkpoint.listed(folder)
    scores = {}
    for file in sorted(folder.stats.glob("eval_*.json"), key=lambda p: int(p.stem.split("_")[1])):
        stats = json.loads(file.read_text(encoding="utf-8"))
        scores[f"step_{stats['step']}"] = {k: v for k, v in stats.items() if k not in ("step", "per_image")}
    exports = sorted(p for p in folder.exports.iterdir() if not p.name.startswith("."))
    return {
        "path": path,
        "kind": "run",
        "dataset": folder.read_data(),
        "preset": config.preset,
        "strategies": config.strategies,
        "steps_planned": config.steps,
        "steps_saved": [step for step, _ in saved],
        "scores": scores,
        "exports": {file.name: file.stat().st_size for file in exports},
        "settings": schema.to_mapping(config),
    }


def _checkpoint(path: Path) -> dict[str, Any]:
    from splat.training import checkpoint

    state = checkpoint.load(path)
    gaussians = state["trainer"]["main"]["gaussians"]
    return {
        "path": path,
        "kind": "checkpoint",
        "bytes": path.stat().st_size,
        "step": state["step"],
        "train_seconds": state["seconds"],
        "gaussians": len(gaussians["means"]),
        "values": {name: list(value.shape[1:]) for name, value in gaussians.items()},
    }


def _dataset(path: Path) -> dict[str, Any]:
    from splat.data import read_scene

    scene = read_scene(path)
    cameras = [frame.camera for frame in scene.frames]
    sizes = sorted({f"{camera.width}x{camera.height}" for camera in cameras})
    return {
        "path": path,
        "kind": f"dataset ({scene.reader})",
        "views": len(scene.frames),
        "first": scene.frames[0].name,
        "last": scene.frames[-1].name,
        "size": sizes[0] if len(sizes) == 1 else f"{len(sizes)} sizes, {sizes[0]} to {sizes[-1]}",
        "distorted": sum(frame.distortion is not None for frame in scene.frames),
        "masked": sum(frame.mask_path is not None for frame in scene.frames),
        "held_out_by_the_dataset": len(scene.test_names or ()),
        "points": 0 if scene.points is None else len(scene.points.xyz),
        "warnings": scene.warnings,
        "notes": scene.notes,
    }


def _print(facts: dict[str, Any], indent: str = "") -> None:
    width = max((len(key) for key in facts), default=0)
    for key, value in facts.items():
        label = f"{indent}{key.replace('_', ' '):<{width}}  "
        if isinstance(value, dict) and set(value) == {"quantiles", "histogram"}:
            print(f"{label}{_spread(value)}")
        elif isinstance(value, dict) and value:
            print(label.rstrip())
            _print(value, indent + "  ")
        elif isinstance(value, (list, tuple)) and any(isinstance(v, (str, dict, list)) for v in value):
            print(f"{label}{', '.join(map(str, value))}" if _short(value) else label.rstrip())
            for line in () if _short(value) else value:
                print(f"{indent}  - {line}")
        else:
            print(f"{label}{_value(key, value)}")


def _spread(spread: dict[str, Any]) -> str:
    """Least, histogram, greatest and median of the values, in a line."""
    counts, edges = spread["histogram"]["counts"], spread["histogram"]["edges"]
    bars = " ▁▂▃▄▅▆▇█"
    try:
        bars.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        bars = " .:-=+*#@"
    most = max(counts)
    # What is there shows, however little it is beside the highest bar.
    drawn = "".join(bars[-(-count * (len(bars) - 1) // most)] for count in counts)
    return f"{edges[0]:.4g} |{drawn}| {edges[-1]:.4g}, median {spread['quantiles']['0.5']:.4g}"


def _short(values: Any) -> bool:
    return len(", ".join(map(str, values))) <= 80


def _value(key: str, value: Any) -> str:
    if value is None or value in ({}, [], ()):
        return "-"
    if key == "bytes" and isinstance(value, int):
        return f"{value:,} ({size(value)})"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_value("", v) for v in value)
    return str(value)
