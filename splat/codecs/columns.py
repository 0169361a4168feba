"""Rows of files to columns of scenes and back, by native code (cuda/src/cpu/columns.h)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from splat import _native
from splat.core.gaussians import PARAMETERS, Gaussians


def all_finite(gaussians: Gaussians) -> bool:
    """Whether no parameter is NaN or infinite; float32, on the CPU."""
    tensors = (getattr(gaussians, name).contiguous() for name in PARAMETERS)
    return all(_native.all_finite(values.numpy(), torch.get_num_threads()) for values in tensors)


def gather_floats(rows: np.ndarray, offsets: Sequence[int], out: Tensor) -> None:
    """out[i, c] = the little-endian float32 at byte `offsets[c]` of `rows[i]`.

    Args:
        rows: [N, B] uint8, contiguous.
        offsets: C of them, each at most B - 4.
        out: [N, C] float32 view, rows any distance apart.
    """
    count, width = rows.shape
    _check(out, (count, len(offsets)), torch.float32)
    if offsets and not 0 <= min(offsets) <= max(offsets) <= width - 4:
        raise ValueError(f"gather_floats: offsets {min(offsets)} to {max(offsets)} in rows of {width} bytes")
    if count and offsets:
        _native.gather_floats(rows, np.asarray(offsets, np.int64), out.numpy(), torch.get_num_threads())


def scatter_floats(values: Tensor, offsets: Sequence[int], rows: np.ndarray) -> None:
    """The reverse of `gather_floats`: `values` [N, C] float32 to `rows` [N, B] uint8."""
    count, width = rows.shape
    _check(values, (count, len(offsets)), torch.float32)
    if offsets and not 0 <= min(offsets) <= max(offsets) <= width - 4:
        raise ValueError(f"scatter_floats: offsets {min(offsets)} to {max(offsets)} in rows of {width} bytes")
    if count and offsets:
        _native.scatter_floats(values.numpy(), np.asarray(offsets, np.int64), rows, torch.get_num_threads())


def expand_bytes(
    rows: np.ndarray, tables: np.ndarray, out: Tensor, target: Sequence[int] | None = None
) -> None:
    """out[i, target[c]] = tables[c, rows[i, c]].

    Args:
        rows: [N, C] uint8, contiguous.
        tables: [C, 256] float32, or [256] for all columns.
        out: [N, D] float32 view.
        target: C columns of `out`; by default c goes to c.
    """
    count, columns = rows.shape
    where = np.arange(columns, dtype=np.int32) if target is None else np.asarray(target, np.int32)
    _check(out, (count, out.shape[1]), torch.float32)
    if len(where) != columns or (columns and not 0 <= where.min() <= where.max() < out.shape[1]):
        raise ValueError(f"expand_bytes: {len(where)} targets for {columns} of {out.shape[1]} columns")
    full = np.ascontiguousarray(tables, np.float32).reshape(-1, 256)
    if len(full) not in (1, columns):
        raise ValueError(f"expand_bytes: one table or {columns} are needed, got {len(full)}")
    if count and columns:
        _native.expand_bytes(np.ascontiguousarray(rows), where, full, out.numpy(), torch.get_num_threads())


def pack_bytes(
    values: Tensor,
    gain: float | np.ndarray,
    bias: float | np.ndarray,
    *,
    step: int | np.ndarray = 1,
    source: Sequence[int] | None = None,
    order: np.ndarray | None = None,
) -> np.ndarray:
    """[N, C] uint8: min(255, step round(gain values[order[i], source[c]] + bias)), not below 0.

    Args:
        values: [M, D] float32 view.
        gain, bias, step: for all columns, or [C].
        source: C columns of `values`; by default all.
        order: [N] int64 rows of `values`; by default all.
    """
    where = np.arange(values.shape[1], dtype=np.int32) if source is None else np.asarray(source, np.int32)
    _check(values, (values.shape[0], values.shape[1]), torch.float32)
    if len(where) and not 0 <= where.min() <= where.max() < values.shape[1]:
        raise ValueError(f"pack_bytes: columns {where.min()} to {where.max()} of {values.shape[1]}")
    if order is not None and len(order) and not 0 <= order.min() <= order.max() < len(values):
        raise ValueError(f"pack_bytes: rows {order.min()} to {order.max()} of {len(values)}")
    out = np.empty((len(values) if order is None else len(order), len(where)), np.uint8)
    full = [
        np.ascontiguousarray(np.broadcast_to(np.asarray(value, kind), len(where)))
        for value, kind in ((gain, np.float32), (bias, np.float32), (step, np.int32))
    ]
    if out.size:
        rows = None if order is None else np.ascontiguousarray(order, np.int64)
        _native.pack_bytes(values.numpy(), rows, where, *full, out, torch.get_num_threads())
    return out


def _check(values: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    """ValueError unless `values` is a CPU tensor of this kind whose rows are contiguous."""
    if (
        values.dtype != dtype
        or values.device.type != "cpu"
        or tuple(values.shape) != shape
        or (values.numel() and values.shape[1] > 1 and values.stride(1) != 1)
    ):
        raise ValueError(
            f"expected {list(shape)} {dtype} on the CPU with contiguous rows, got {list(values.shape)} "
            f"{values.dtype} on {values.device} with strides {values.stride()}"
        )
