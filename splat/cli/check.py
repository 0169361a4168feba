"""`splat check`: every problem of a dataset before the first step, and what a run on it will take."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from splat.cli.command import Common, Device, counted, parse, print_json, size

if TYPE_CHECKING:
    from splat.data import Scene
    from splat.data.problems import Finding
    from splat.training.config import TrainConfig
    from splat.training.forecast import Pace


@dataclass
class Check(Common):
    """List every problem of a dataset, and what to do about each, without training anything.

    DATA is what `splat train` takes: a folder with a COLMAP model (sparse/0 beside images/, binary or
    text), a transforms.json (nerfstudio, instant-ngp), Blender's transforms_train.json, or another of
    the formats of docs/datasets.md. Every photograph is opened.

    Where nothing stops it, a few steps are timed, and the time and memory that each preset will take on
    this machine are worked out from them. Exits with 0 if the dataset can be trained on, warnings or not,
    and with 3 if something stops it.

    Examples:
      splat check ~/photos/garden
      splat check ~/photos/garden --downscale 4       what runs with that option will take
      splat check ~/photos/garden --no-forecast --json
    """

    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """The dataset."""
    downscale: float = 1.0
    """As of `splat train`: the forecast is for photographs this many times smaller."""
    device: Device = "auto"
    """Where the steps are timed; auto takes the GPU if there is one that can be used."""
    no_forecast: bool = False
    """Time no steps: only the dataset is looked at."""
    json: bool = False
    """Print one JSON document."""


def main(argv: list[str]) -> int:
    args = parse(Check, "check", argv)
    from splat.core import UsageError
    from splat.data.check import check_dataset

    if not (math.isfinite(args.downscale) and args.downscale >= 1):
        raise UsageError(f"downscale {args.downscale:g} is not possible; give a factor of 1 or more")
    findings = check_dataset(args.data)
    sound = not any(f.severity == "error" for f in findings)
    rows = _forecasts(args) if sound and not args.no_forecast else []
    if args.json:
        document = {
            "path": args.data,
            "ok": sound,
            "findings": [asdict(f) for f in findings],
            "presets": rows,
        }
        print_json(document)
        return 0 if sound else 3
    _print_findings(findings)
    _print_forecasts(rows, args)
    counts = [sum(f.severity == s for f in findings) for s in ("error", "warning")]
    verdict = "can be trained on" if sound else "cannot be trained on"
    print(f"{args.data} {verdict}: {counted(counts[0], 'error')}, {counted(counts[1], 'warning')}")
    return 0 if sound else 3


def _print_findings(findings: list[Finding]) -> None:
    for severity, heading in (("fact", "Facts"), ("warning", "Warnings"), ("error", "Errors")):
        chosen = [f for f in findings if f.severity == severity]
        if not chosen:
            continue
        print(f"{heading}:" if severity == "fact" else f"{heading} ({len(chosen)}):")
        for finding in chosen:
            print(f"  {finding.message}")
            if finding.remedy:
                print(f"    -> {finding.remedy}")


def _forecasts(args: Check) -> list[dict[str, Any]]:
    """What a run of each preset will take, by rising time: a row a preset."""
    from splat.data import read_scene
    from splat.strategies import registry
    from splat.training import config as configuration
    from splat.training import forecast, schema
    from splat.training.session import choose_device

    scene = read_scene(args.data)
    settings = {"downscale": args.downscale, "device": choose_device(args.device).type}
    presets = [
        schema.apply(configuration.load_preset(name), settings, "the command line")
        for name in configuration.preset_names()
    ]
    timed = next(preset for preset in presets if preset.preset == "cpu")
    pace = forecast.measure(scene, timed, lambda: registry.build(timed.strategies, timed.options))
    return sorted((_row(preset, scene, pace) for preset in presets), key=lambda row: row["seconds"])


def _row(config: TrainConfig, scene: Scene, pace: Pace) -> dict[str, Any]:
    import torch

    from splat.strategies import registry
    from splat.strategies.growth import expected_counts
    from splat.training import forecast, memory
    from splat.training.session import planned

    strategies = registry.build(config.strategies, config.options)
    config = planned(config, strategies, len(scene.frames))
    steps = config.steps
    assert steps is not None
    found = forecast.forecast(
        config, scene, pace, lambda start, cap: expected_counts(strategies, steps, start, cap)
    )
    at_least = found.at_least or not all(strategy.controls_density for strategy in strategies)
    free = memory.available(torch.device("cpu")) + memory.resident()
    values = asdict(replace(found, at_least=at_least))
    return {"preset": config.preset, "steps": steps, **values, "fits": found.nbytes < free}


def _print_forecasts(rows: list[dict[str, Any]], args: Check) -> None:
    if not rows:
        return
    option = f" with --downscale {args.downscale:g}" if args.downscale != 1 else ""
    print(f"Expected on this machine{option}, as busy as it is now:")
    print(f"  {'preset':10} {'steps':>7} {'Gaussians':>12}   {'time':12} memory")
    for row in rows:
        least = "from " if row["at_least"] else ""
        fits = "" if row["fits"] else ", more than is free: lower --max-gaussians"
        print(
            f"  {row['preset']:10} {row['steps']:>7,} {row['count']:>12,}   {least + _duration(row['seconds']):12} "
            f"{least}{size(row['nbytes'])}{fits}"
        )
    if any(row["at_least"] for row in rows):
        print(
            "  from: how many Gaussians there will be is for the scene to decide; with those that it begins with"
        )


def _duration(seconds: float) -> str:
    """For people: 40 s, 3 min, 2.5 h, 4 days."""
    for limit, unit, digits in ((100, 1, 0), (6000, 60, 0), (48 * 3600, 3600, 1)):
        if seconds < limit:
            return f"{seconds / unit:.{digits}f} {({1: 's', 60: 'min', 3600: 'h'})[unit]}"
    return f"{seconds / 86400:.0f} days"
