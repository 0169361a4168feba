"""Rows of files to columns of scenes and back, by native code (cuda/src/cpu/columns.h)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from splat import _native
from splat.core.gaussians import PARAMETERS, Gaussians


def all_finite(gaussians: Gaussians) -> bool:
    """Whether no parameter is NaN or infinite; float32, on the CPU."""
    tensors = (getattr(gaussians, name).contiguous() for name in PARAMETERS)
    return all(_native.all_finite(values.numpy(), torch.get_num_threads()) for values in tensors)


def empty(*shape: int) -> Tensor:
    """float32 without values: of numpy, which asks for large pages, that cost half as long to touch first."""
    return torch.from_numpy(np.empty(shape, np.float32))


# Numbers in files, by numpy's names.
_KINDS = {"<f4": 0, "<f2": 1, "<u2": 2}


def gather(rows: np.ndarray, kind: str, offsets: Sequence[int], out: Tensor) -> None:
    """out[i, c] = the number of this kind at byte `offsets[c]` of `rows[i]`.

    Args:
        rows: [N, B] uint8, contiguous.
        kind: <f4, <f2 or <u2.
        offsets: C of them.
        out: [N, C] float32 view, rows any distance apart.
    """
    count, width = rows.shape
    _check(out, (count, len(offsets)), torch.float32)
    _check_offsets(offsets, width, np.dtype(kind).itemsize)
    if count and offsets:
        _native.gather(
            rows, _KINDS[kind], np.asarray(offsets, np.int64), out.numpy(), torch.get_num_threads()
        )


Parts = Sequence[tuple[Sequence[int], Tensor]]


def read_columns(file: BinaryIO, start: int, row_bytes: int, parts: Parts) -> None:
    """Reads rows of little-endian float32 from an open file, in pieces: its whole is never in memory twice.

    Args:
        start: the byte at which the first row begins.
        parts: byte offsets within a row [C], and the [N, C] float32 view that they go to.

    Raises:
        OSError: the file cannot be read, or ends early.
    """
    _settle(
        _native.read_columns(
            file.fileno(), start, row_bytes, *_of_rows(parts, row_bytes), torch.get_num_threads()
        )
    )


def write_columns(file: BinaryIO, row_bytes: int, parts: Parts) -> None:
    """The reverse of `read_columns`, from where the file stands; other bytes of a row are 0.

    Raises:
        OSError: the disk refuses.
    """
    file.flush()
    start = file.tell()
    count, *rest = _of_rows(parts, row_bytes)
    _settle(_native.write_columns(file.fileno(), start, row_bytes, count, *rest, torch.get_num_threads()))
    file.seek(start + count * row_bytes)


def read_bytes(file: BinaryIO, start: int = 0, count: int | None = None) -> np.ndarray:
    """[count] uint8 from byte `start` on; all that follow by default. OSError where the file ends early."""
    size = max(0, os.fstat(file.fileno()).st_size - start) if count is None else count
    out = np.empty(size, np.uint8)
    if size:
        _settle(_native.read_bytes(file.fileno(), start, out, torch.get_num_threads()))
    return out


def load(path: Path) -> np.ndarray:
    """[size] uint8: the whole file."""
    with open(path, "rb") as file:
        return read_bytes(file)


def interleave(parts: Sequence[np.ndarray], signs: Sequence[float]) -> Tensor:
    """[N, K, 3] float32: out[:, k] = signs[k] parts[k].

    Args:
        parts: K of [N, 3] float32, rows any distance apart.
    """
    out = empty(len(parts[0]), len(parts), 3)
    if any(part.shape != parts[0].shape or part.dtype != np.float32 for part in parts):
        raise ValueError("interleave: the parts differ in shape, or are not float32")
    if out.numel():
        _native.interleave(list(parts), np.asarray(signs, np.float32), out.numpy(), torch.get_num_threads())
    return out


def read_interleaved(file: BinaryIO, starts: Sequence[int], signs: Sequence[float], count: int) -> Tensor:
    """[N, K, 3] float32: out[:, k] = signs[k] times the [N, 3] that lie at byte `starts[k]` of the open file.

    Raises:
        OSError: the file cannot be read, or ends early.
    """
    out = empty(count, len(starts), 3)
    if out.numel():
        _settle(
            _native.read_interleaved(
                file.fileno(),
                np.asarray(starts, np.int64),
                np.asarray(signs, np.float32),
                out.numpy(),
                torch.get_num_threads(),
            )
        )
    return out


def unpack_fields(
    packed: np.ndarray,
    shift: int,
    bits: tuple[int, int, int],
    bounds: tuple[np.ndarray, np.ndarray],
    out: Tensor,
) -> None:
    """Three fields of each number, as shares of their largest value between two bounds: low + share (high - low).

    Args:
        packed: [N] uint32, any distance apart.
        shift: the bits below the third field; the first is the highest.
        bounds: the least and the largest, [M, 3] float32, of each 256 rows, or of all where M is 1.
        out: [N, 3] float32 view.
    """
    low, high = bounds
    count, runs = len(packed), len(low)
    _check(out, (count, 3), torch.float32)
    length = count if runs == 1 else 256
    if low.shape != (runs, 3) or high.shape != (runs, 3) or runs * length < count:
        raise ValueError(f"unpack_fields: bounds {low.shape} and {high.shape} of {count} rows")
    if count:
        ends = [np.ascontiguousarray(bound, np.float32) for bound in bounds]
        widths = np.asarray(bits, np.int32)
        _native.unpack_fields(packed, shift, widths, *ends, length, out.numpy(), torch.get_num_threads())


def unpack_largest(
    packed: np.ndarray, table: np.ndarray, slots: Sequence[int], signs: Sequence[float]
) -> Tensor:
    """[N, 4] float32 unit quaternions of 2-10-10-10 bits: the place of the largest component, then the others in order.

    Args:
        packed: [N] uint32, any distance apart.
        table: [1024] float32, what ten bits stand for.
        slots, signs: component p goes to column slots[p], times signs[p].
    """
    out = empty(len(packed), 4)
    if table.shape != (1024,) or sorted(slots) != [0, 1, 2, 3] or len(signs) != 4:
        raise ValueError("unpack_largest: expected a table of 1024, four places and four signs")
    if len(packed):
        _native.unpack_largest(
            packed,
            np.ascontiguousarray(table, np.float32),
            np.asarray(slots, np.int32),
            np.asarray(signs, np.float32),
            out.numpy(),
            torch.get_num_threads(),
        )
    return out


def expand_bytes(
    rows: np.ndarray, tables: np.ndarray, out: Tensor, target: Sequence[int] | None = None
) -> None:
    """out[i, target[c]] = tables[c, rows[i, c]].

    Args:
        rows: [N, C] uint8 view, rows any distance apart.
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
        rows = rows if rows.strides[1] == 1 else np.ascontiguousarray(rows)
        _native.expand_bytes(rows, where, full, out.numpy(), torch.get_num_threads())


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


def _of_rows(parts: Parts, row_bytes: int) -> tuple[int, np.ndarray, list[np.ndarray]]:
    """The number of rows, all offsets, and the values, as native code takes them."""
    count = len(parts[0][1])
    for offsets, values in parts:
        _check(values, (count, len(offsets)), torch.float32)
        _check_offsets(offsets, row_bytes, 4)
    every = np.array([offset for offsets, _ in parts for offset in offsets], np.int64)
    return count, every, [values.numpy() for _, values in parts]


def _check_offsets(offsets: Sequence[int], width: int, size: int) -> None:
    if offsets and not 0 <= min(offsets) <= max(offsets) <= width - size:
        raise ValueError(f"offsets {min(offsets)} to {max(offsets)} in rows of {width} bytes")


def _settle(code: int) -> None:
    """Raises OSError for what native code gave of a file."""
    if code > 0:
        raise OSError(code, os.strerror(code))
    if code < 0:
        raise OSError("the file became shorter while it was read")


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
