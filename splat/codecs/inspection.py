"""What a scene file holds, for `splat info`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splat.codecs.format import suspicions
from splat.codecs.registry import read

QUANTILES = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)
_BINS = 20


def inspect(path: str | Path) -> dict[str, Any]:
    """Facts about the file at `path`, made of plain numbers, strings, lists and dicts.

    Unlike `decode` it also describes files with NaN or infinite values; they are counted among the
    suspicions and left out of the figures.

    Returns:
        path, format, version, bytes, count, sh_degree, antialiased, offset, up_axis, comments, notes;
        bounds: {min, max} [3] of the centres, and `core`, the same for the middle 98% along each axis;
        scale, opacity: {quantiles: {"0", "0.01", ...}, histogram: {edges, counts}} of the activated values
        (the scale's bins are equal in the logarithm), or None where there is no Gaussian;
        suspicious: lines on what is probably not meant.

    Raises:
        DataError: the file is missing, unknown or damaged.
    """
    path = Path(path)
    form, found = read(path)
    gaussians = found.gaussians
    positions = gaussians.means[torch.isfinite(gaussians.means).all(1)].double()
    low, high = _quantiles(positions, (0.01, 0.99)) if len(positions) else (None, None)
    return {
        "path": str(path),
        "format": form.name,
        "version": found.metadata["version"],
        "bytes": size_on_disk(path),
        "count": len(gaussians),
        "sh_degree": gaussians.sh_degree,
        "antialiased": gaussians.antialiased,
        "offset": found.metadata.get("offset"),
        "up_axis": found.metadata.get("up_axis"),
        "comments": found.metadata["comments"],
        "notes": found.notes,
        "bounds": None
        if low is None or high is None
        else {
            "min": positions.amin(0).tolist(),
            "max": positions.amax(0).tolist(),
            "core": {"min": low.tolist(), "max": high.tolist()},
        },
        "scale": _spread(gaussians.log_scales.double().flatten(), torch.exp),
        "opacity": _spread(torch.sigmoid(gaussians.logit_opacities.double()), lambda values: values),
        "suspicious": suspicions(gaussians),
    }


def size_on_disk(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    if not path.is_dir():
        return path.stat().st_size
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def _quantiles(values: Tensor, at: tuple[float, ...]) -> list[Tensor]:
    """Order statistics along the first dimension (torch.quantile refuses more than 16 million values)."""
    ordered = values.sort(0).values
    return [ordered[round(share * (len(ordered) - 1))] for share in at]


def _spread(values: Tensor, activate: Any) -> dict[str, Any] | None:
    """Quantiles and a histogram of the finite `values` [V], shown after `activate`."""
    values = values[torch.isfinite(values)]
    if len(values) == 0:
        return None
    low, high = float(values.min()), float(values.max())
    counts = torch.histc(values, _BINS, low, high) if high > low else torch.tensor([len(values)])
    edges = torch.linspace(low, high, len(counts) + 1, dtype=torch.float64)
    return {
        "quantiles": {
            f"{share:g}": float(activate(value))
            for share, value in zip(QUANTILES, _quantiles(values, QUANTILES), strict=True)
        },
        "histogram": {"edges": activate(edges).tolist(), "counts": [int(count) for count in counts]},
    }
