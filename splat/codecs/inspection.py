"""What a scene file holds, for `splat info`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splat.codecs.format import suspicions
from splat.codecs.parts import parts
from splat.codecs.registry import read
from splat.core import Gaussians
from splat.core.finite import finite

QUANTILES = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)
_BINS = 20
_ALPHA_CUT = 1 / 255  # a fainter splat is skipped by every renderer
_COARSE = 0.01  # of the median scale: what an export accepts (core.world)
_FEW = 0.01  # a smaller share of the Gaussians is not worth a line


def inspect(path: str | Path) -> dict[str, Any]:
    """Facts about the file at `path`, made of plain numbers, strings, lists and dicts.

    Unlike `decode` it also describes files with NaN or infinite values; they are counted among the
    suspicions and left out of the figures.

    Returns:
        path, format, version, bytes, count, sh_degree, antialiased, offset, up_axis, comments, notes;
        heads: name -> options and number of weights, or None;
        parts: name of a part -> its bytes; bytes_per_gaussian (None where there is no Gaussian);
        bounds: {min, max} [3] of the centres, and `core`, the same for the middle 98% along each axis;
        scale, opacity: {quantiles: {"0", "0.01", ...}, histogram: {edges, counts}} of the activated values
        (the scale's bins are equal in the logarithm), or None where there is no Gaussian;
        suspicious: lines on what is probably not meant.

    Raises:
        DataError: the file is missing, unknown or damaged.
    """
    path = Path(path)
    form, found = read(path)
    gaussians, pieces = found.gaussians, parts(form, path)
    positions = gaussians.means[torch.isfinite(gaussians.means).all(1)].double()
    low, high = _quantiles(positions, (0.01, 0.99)) if len(positions) else (None, None)
    return {
        "path": str(path),
        "format": form.name,
        "version": found.metadata["version"],
        "bytes": sum(pieces.values()),
        "bytes_per_gaussian": sum(pieces.values()) / len(gaussians) if len(gaussians) else None,
        "parts": pieces,
        "count": len(gaussians),
        "sh_degree": gaussians.sh_degree,
        "antialiased": gaussians.antialiased,
        "offset": found.metadata.get("offset"),
        "up_axis": found.metadata.get("up_axis"),
        "heads": {
            name: {**head.options, "weights": len(head.weights)}
            for name, head in found.metadata.get("heads", {}).items()
        }
        or None,
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
        "suspicious": _suspicious(gaussians),
    }


def _suspicious(gaussians: Gaussians) -> list[str]:
    good = finite(gaussians)
    if good.all():
        return [*suspicions(gaussians), *_remarks(gaussians)]
    first, scene = int((~good).int().argmax()), gaussians.select(good)
    bad = f"Gaussians with NaN or infinite values: {int((~good).sum())}; the first is Gaussian {first}"
    return [bad, *suspicions(scene), *_remarks(scene)]


def _remarks(scene: Gaussians) -> list[str]:
    """What costs bytes or precision for nothing, a line each; of finite values."""
    if len(scene) == 0:
        return []
    found = []
    unseen = int((scene.opacities() < _ALPHA_CUT).sum())
    if unseen > _FEW * len(scene):
        found.append(f"Gaussians too transparent to be drawn (opacity under 1/255): {unseen} of {len(scene)}")
    if scene.sh_degree and not scene.sh[:, 1:].any():
        found.append(
            f"the harmonics of bands 1 to {scene.sh_degree} are all zero: --sh-degree 0 leaves them out"
        )
    far = scene.means.abs().amax(1)
    step = torch.nextafter(far, far.new_tensor(torch.inf)) - far
    coarse = int((step / 2 > scene.log_scales.exp().median() * _COARSE).sum())
    if coarse > _FEW * len(scene):
        found.append(f"centres so far out that float32 rounds them by over 1% of the median scale: {coarse}")
    return found


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
