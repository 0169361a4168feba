"""What each format makes of one scene: bytes, and PSNR of the decoded file on held-out photographs.

    python benchmarks/formats.py RUN_OR_FILE [--data DATA] [--downscale F] [--out FILE.json]

Runs `splat export --report --json` for every format that can be written, and prints a Markdown table. A run knows its
dataset; a scene file needs --data.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import tempfile
from pathlib import Path

from splat import codecs
from splat.cli import main as splat

# Options that change the bytes, by extension.
OPTIONS: dict[str, list[list[str]]] = {
    ".ply": [[], ["--ply.no-normals"]],
    ".spz": [
        ["--spz.version", "2"],
        ["--spz.version", "3"],
        ["--spz.version", "4"],
        ["--spz.sh1-bits", "6", "--spz.sh-rest-bits", "5"],
        ["--spz.sh1-bits", "7", "--spz.sh-rest-bits", "6"],
    ],
    ".ksplat": [["--ksplat.level", "0"], ["--ksplat.level", "1"], ["--ksplat.level", "2"]],
    ".sog": [[], *(["--sog.palette", size] for size in ("16384", "4096", "256"))],
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scene")
    parser.add_argument("--data")
    parser.add_argument("--downscale")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    known = []
    for name, value in (("--data", args.data), ("--downscale", args.downscale)):
        known += [name, value] if value else []

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for extension in codecs.extensions():
            if not extension.startswith("."):
                continue  # meta.json is a .sog that is not zipped
            for options in OPTIONS.get(extension, [[]]):
                facts = export(args.scene, Path(folder) / f"scene{extension}", [*known, *options])
                rows.append({"file": " ".join([extension, *options]), **facts})
    rows.sort(key=lambda row: -row["bytes"])
    print(f"{rows[0]['source']['count']:,} Gaussians, SH degree {rows[0]['source']['sh_degree']}; ", end="")
    score = rows[0]["psnr"]
    print(f"PSNR {score['before']:.2f} dB on {score['count']} {score['views']} before\n")
    print("| file | bytes | bytes per Gaussian | PSNR | change |\n|---|---|---|---|---|")
    for row in rows:
        before, after = row["psnr"]["before"], row["psnr"]["after"]
        each = row["bytes"] / row["count"]
        print(f"| {row['file']} | {row['bytes']:,} | {each:.1f} | {after:.2f} dB | {after - before:+.3f} |")
    if args.out is not None:
        kept = ("file", "bytes", "count", "sh_degree", "options", "parts", "psnr")
        args.out.write_text(json.dumps([{key: row[key] for key in kept} for row in rows], indent=1) + "\n")


def export(scene: str, out: Path, flags: list[str]) -> dict:
    """What `splat export --report --json` says."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        code = splat(["export", scene, str(out), "--report", "--json", *flags])
    if code:
        raise SystemExit(code)
    return json.loads(said.getvalue())


if __name__ == "__main__":
    main()
