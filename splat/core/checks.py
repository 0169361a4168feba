"""Validation at the Python edge: the tensor's name, what was expected, what came."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from splat.core.errors import DataError

if TYPE_CHECKING:
    from splat.core.gaussians import Gaussians

Shape = tuple["int | str | None", ...]


def check_tensor(
    name: str,
    value: Tensor,
    shape: Shape,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | None = None,
    sizes: dict[str, int] | None = None,
) -> None:
    """Checks one tensor.

    Args:
        name: what messages call it.
        shape: each dimension an exact size, a letter that stands for one size wherever it appears in
            `sizes` (and is entered there when first met), or None for any.
        dtype: the exact type, or None for any floating type.
        device: the exact device, or None for any.
        sizes: letter -> size, shared between the checks of tensors that belong together.

    Raises:
        TypeError: not a tensor, or of another type.
        ValueError: another shape or device.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(value).__name__}")
    sizes = {} if sizes is None else sizes
    known = [sizes.get(size) if isinstance(size, str) else size for size in shape]
    fits = value.ndim == len(shape) and all(
        size is None or size == actual for size, actual in zip(known, value.shape, strict=True)
    )
    if not fits:
        raise ValueError(f"{name}: expected shape {_spell(shape, sizes)}, got {list(value.shape)}")
    for size, actual in zip(shape, value.shape, strict=True):
        if isinstance(size, str):
            sizes[size] = actual
    if dtype is None and not value.is_floating_point():
        raise TypeError(f"{name}: expected a floating type, got {value.dtype}")
    if dtype is not None and value.dtype != dtype:
        raise TypeError(f"{name}: expected {dtype}, got {value.dtype}")
    if device is not None and value.device != device:
        raise ValueError(f"{name}: expected on {device}, got on {value.device}")


def _spell(shape: Shape, sizes: dict[str, int]) -> str:
    """The shape as a message shows it, like [N = 12, 3]."""
    parts = []
    for size in shape:
        known = sizes.get(size) if isinstance(size, str) else None
        parts.append("any" if size is None else f"{size} = {known}" if known is not None else str(size))
    return f"[{', '.join(parts)}]"


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
