"""Which Gaussians have values that are NaN or infinite, and how messages name them."""

from __future__ import annotations

import torch
from torch import Tensor

from splat.core.errors import DataError
from splat.core.gaussians import Gaussians


def check_finite(gaussians: Gaussians, where: str) -> None:
    """Raises DataError, naming the first bad Gaussian and its values, if any value is NaN or infinite.

    Args:
        where: what the values are about, to begin the message: a path or a step.
    """
    bad = {name: ~torch.isfinite(rows).all(1) for name, rows in _rows(gaussians).items()}
    counts = {name: int(mask.sum()) for name, mask in bad.items() if mask.any()}
    if not counts:
        return
    any_bad = torch.stack(list(bad.values())).any(0)
    first = int(any_bad.int().argmax())
    total = int(any_bad.sum())
    culprits = ", ".join(f"{name} ({count})" for name, count in counts.items())
    raise DataError(
        f"{where}: {total} of {len(gaussians)} Gaussians have values that are NaN or infinite, "
        f"in {culprits}; the first is Gaussian {first}\n{describe(gaussians, first)}"
    )


def finite(gaussians: Gaussians) -> Tensor:
    """[N] bool: which Gaussians have no NaN or infinite value."""
    return torch.stack([torch.isfinite(rows).all(1) for rows in _rows(gaussians).values()]).all(0)


def describe(gaussians: Gaussians, index: int) -> str:
    """The raw values of one Gaussian, a line for each tensor, at most 24 numbers of each."""
    lines = []
    for name, rows in _rows(gaussians).items():
        values = rows[index].flatten()[:24].tolist()
        more = " ..." if rows[index].numel() > 24 else ""
        lines.append(f"  {name}: {' '.join(f'{value:.6g}' for value in values)}{more}")
    return "\n".join(lines)


def _rows(gaussians: Gaussians) -> dict[str, Tensor]:
    """Every tensor as [N, values]."""
    return {
        name: t.detach().flatten(1) if t.ndim > 1 else t.detach()[:, None]
        for name, t in gaussians.named_tensors()
    }
