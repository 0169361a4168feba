"""`splat check`: every problem of a dataset before the first step."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro

from splat.cli.command import Common, parse, print_json


@dataclass
class Check(Common):
    """List every problem of a dataset, and what to do about each, without training anything.

    DATA is what `splat train` takes: a folder with a COLMAP model (sparse/0 beside images/, binary or
    text), a transforms.json (nerfstudio, instant-ngp), Blender's transforms_train.json, or another of
    the formats of docs/datasets.md. Every photograph is opened. Exits with 0 if the dataset can be
    trained on, warnings or not, and with 3 if something stops it.

    Examples:
      splat check ~/photos/garden
      splat check ~/photos/garden --json
    """

    data: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DATA")]
    """The dataset."""
    json: bool = False
    """Print one JSON document."""


def main(argv: list[str]) -> int:
    args = parse(Check, "check", argv)
    from splat.data.check import check_dataset

    findings = check_dataset(args.data)
    sound = not any(f.severity == "error" for f in findings)
    if args.json:
        print_json({"path": args.data, "ok": sound, "findings": [asdict(f) for f in findings]})
        return 0 if sound else 3
    for severity, heading in (("fact", "Facts"), ("warning", "Warnings"), ("error", "Errors")):
        chosen = [f for f in findings if f.severity == severity]
        if not chosen:
            continue
        print(f"{heading}:" if severity == "fact" else f"{heading} ({len(chosen)}):")
        for finding in chosen:
            print(f"  {finding.message}")
            if finding.remedy:
                print(f"    -> {finding.remedy}")
    counts = [sum(f.severity == s for f in findings) for s in ("error", "warning")]
    verdict = "can be trained on" if sound else "cannot be trained on"
    print(f"{args.data} {verdict}: {counts[0]} errors, {counts[1]} warnings")
    return 0 if sound else 3
