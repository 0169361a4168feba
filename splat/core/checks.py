"""Validation at the Python edge: the tensor's name, what was expected, what came."""

from __future__ import annotations

import torch
from torch import Tensor

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
