"""The tables and the plot of docs/pruning.md, from what benchmarks/prune.py wrote with --steps and --cost.

python benchmarks/prune_report.py FILE.json ... [--plot FILE.png]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

BARE = "none"
METHODS = ("spectral", "published", "contribution", "opacity", "random")
MARKS = {"spectral": "o", "published": "x", "contribution": "^", "opacity": "s", "random": "d"}
Rows = dict[tuple[float, str, str], dict[str, Any]]


def table(results: dict[str, Any], rows: Rows) -> list[str]:
    """Lines of Markdown: PSNR of each method alone and with the head; what spectral's pictures and files cost."""
    methods = [m for m in METHODS if any(key[1] == m for key in rows)]
    lines = [
        "| keep | " + " | ".join(methods) + " | picture, ms | .ply, MB |",
        "|---|" + "---|" * (len(methods) + 2),
    ]
    for keep in sorted({key[0] for key in rows}, reverse=True):
        best: dict[str, float | None] = {}  # of those with the same head, where there are several
        for head in (BARE, "small"):
            found = [row["psnr"] for key, row in rows.items() if key[0] == keep and key[2] == head]
            best[head] = max(found) if len(found) > 1 else None

        def psnr(method: str, head: str, keep: float = keep, best: dict[str, float | None] = best) -> str:
            row = rows.get((keep, method, head))
            if row is None:
                return "-"
            text = f"{row['psnr']:.2f}"
            return f"**{text}**" if row["psnr"] == best[head] else text

        cells = [f"{psnr(m, BARE)} / {psnr(m, 'small')}" for m in methods]
        for name, unit, digits in (("render_ms", 1, 1), ("ply_bytes", 1e6, 2)):
            both = [rows.get((keep, "spectral", head), {}).get(name) for head in (BARE, "small")]
            cells.append(" / ".join("-" if v is None else f"{v / unit:.{digits}f}" for v in both))
        lines.append(f"| {100 * keep:g}% | " + " | ".join(cells) + " |")
    return lines


def plot(found: list[tuple[dict[str, Any], Rows]], path: Path) -> None:
    """Share kept (logarithmic) against PSNR, a panel a scene; with the head filled, without it hollow."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6 * len(found), 4.5), layout="constrained")
    for place, (results, rows) in enumerate(found, 1):
        axes = figure.add_subplot(1, len(found), place)
        for number, method in enumerate(METHODS):
            for head, line in ((BARE, "--"), ("small", "-")):
                points = sorted((k[0], r["psnr"]) for k, r in rows.items() if k[1:] == (method, head))
                if points:
                    label = method if head == BARE else f"{method}, head"
                    axes.plot(
                        [100 * keep for keep, _ in points],
                        [psnr for _, psnr in points],
                        linestyle=line,
                        color=f"C{number}",
                        marker=MARKS[method],
                        fillstyle="none" if head == BARE else "full",
                        label=label,
                    )
        axes.axhline(results["psnr"], color="grey", linewidth=0.8)
        axes.set(xscale="log", xlabel="Gaussians kept, %", ylabel="held-out PSNR, dB", title=results["run"])
        axes.set_xticks([1, 10, 30, 50, 100], ["1", "10", "30", "50", "100"])
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--plot", type=Path, help="a PNG; needs matplotlib")
    args = parser.parse_args()
    found = []
    for file in args.files:
        results = json.loads(file.read_text())
        rows = {(row["keep"], row["method"], row["head"]): row for row in results["rows"]}
        print(f"{results['run']}: {results['psnr']:.2f} dB on {results['views']} views\n")
        print("\n".join(table(results, rows)) + "\n")
        found.append((results, rows))
    if args.plot:
        plot(found, args.plot)


if __name__ == "__main__":
    main()
