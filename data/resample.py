"""From decoded photographs to training images: undistortion, area averaging, alpha, masks; in blocks of rows."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from splat.data.images import Photo, decode, decode_mask, to_bytes
from splat.data.problems import DatasetError
from splat.data.scene import Frame
from splat.data.undistort import Distortion, RemapTables

_BLOCK_PIXELS = 1 << 19  # pixels undistorted at a time: some 20 MB of intermediate values a thread


def load_photo(
    frame: Frame,
    width: int,
    height: int,
    tables: RemapTables,
    background: tuple[float, float, float] | None = None,
) -> Photo:
    """Decode a frame's photograph, undistort it, and average it down to width x height.

    Args:
        tables: where remap tables are kept between photographs of one camera.
        background: colour in [0, 1] to composite transparent photographs over; None keeps their alpha.

    Raises:
        DatasetError: the photograph or its mask is missing, damaged or of the wrong size.
    """
    colour, alpha = decode(frame.path, frame.orientation)
    source = frame.distortion.source if frame.distortion else frame.camera
    if colour.shape[:2] != (source.height, source.width):
        cause = (
            f"photograph is {colour.shape[1]}x{colour.shape[0]} but was {source.width}x{source.height} before"
        )
        raise DatasetError("image-size", frame.path, cause, "leave the dataset unchanged while it is in use")
    mask = None
    if frame.mask_path is not None:
        mask = decode_mask(frame.mask_path, source.width, source.height, frame.orientation)

    # Channels: colour (premultiplied, so that averaging does not bleed invisible colours), [alpha], [keep].
    planes = [torch.tensor(plane) for plane in (colour, alpha, mask) if plane is not None]
    has_alpha, has_keep = alpha is not None, mask is not None or frame.distortion is not None
    full_width, full_height = frame.camera.width, frame.camera.height
    columns = _Box(full_width, width)
    rows = _Box(full_height, height)
    block = max(1, int(_BLOCK_PIXELS / full_width * height / full_height))
    blocks = []
    for start in range(0, height, block):
        stop = min(start + block, height)
        needed = rows.needed(start, stop)
        if frame.distortion is None:
            values = _stack([plane[needed.start : needed.stop] for plane in planes], has_alpha)
        else:
            values = _undistorted_rows(planes, has_alpha, frame.distortion, needed, tables)
        blocks.append(columns.average(rows.average(values, 0, start, stop), 1))
    values = torch.cat(blocks)

    image, kept, transparency = values[..., :3], None, None
    if has_alpha:
        coverage = values[..., 3:4]
        if background is not None:
            backdrop = torch.tensor(background, dtype=torch.float32) * 255
            image = image + (1 - coverage / 255) * backdrop
        else:
            image = torch.where(coverage > 0, image * 255 / coverage.clamp(min=1e-6), 0)
            transparency = to_bytes(coverage[..., 0])
    if has_keep:
        # A pixel counts only where all of its area does: ignored colours never mix in.
        counts = values[..., -1] > 1 - 1e-4
        if not counts.all():
            kept = counts.to(torch.uint8) * 255
    return Photo(to_bytes(image).contiguous(), transparency, kept)


def _stack(planes: list[Tensor], has_alpha: bool) -> Tensor:
    """[rows, columns, C] float32 from colour, alpha and mask; colour premultiplied."""
    values = [plane.float() for plane in planes]
    if has_alpha:
        values[0] = values[0] * (values[1] / 255)[..., None]
    if len(values) == 1:
        return values[0]
    return torch.cat([value if value.ndim == 3 else value[..., None] for value in values], dim=2)


def _undistorted_rows(
    planes: list[Tensor], has_alpha: bool, distortion: Distortion, rows: range, tables: RemapTables
) -> Tensor:
    """[rows, width, C] float32: rows of the pinhole image, bilinear samples of the photograph; the last channel says
    where the photograph shows something that counts."""
    table = tables.block(distortion, rows)
    shown = ~table[..., 0].isnan()
    if not shown.any():
        return torch.zeros(*shown.shape, 3 + has_alpha + 1)
    height, width = planes[0].shape[:2]
    y = table[..., 1][shown]
    first = max(0, math.floor(float(y.min())) - 1)
    last = min(height, math.ceil(float(y.max())) + 1)
    source = _stack([plane[first:last] for plane in planes], has_alpha)
    # grid_sample: -1 and 1 are the outer edges of the corner pixels, so a centre at +0.5 maps linearly.
    scale = torch.tensor([2.0 / width, 2.0 / (last - first)])
    grid = (torch.nan_to_num(table, nan=0.0) - torch.tensor([0.0, first])) * scale - 1
    sampled = grid_sample(
        source.permute(2, 0, 1)[None], grid[None], mode="bilinear", padding_mode="border", align_corners=False
    )[0].permute(1, 2, 0)
    sampled = sampled * shown[..., None]
    if source.shape[2] == 3 + has_alpha:  # no mask: what is shown counts
        sampled = torch.cat([sampled, shown[..., None].float()], dim=2)
    return sampled


class _Box:
    """Area averaging along one axis: output i covers [i s, (i + 1) s) of the input, s = size_in / size_out."""

    def __init__(self, size_in: int, size_out: int) -> None:
        self._identity = size_in == size_out
        edges = torch.arange(size_out + 1, dtype=torch.float64) * size_in / size_out
        edges[-1] = size_in
        low, high = edges[:-1], edges[1:]
        self._first = low.floor().long()
        self._stop = high.ceil().long()
        taps = int((self._stop - self._first).max())
        self._index = (self._first[:, None] + torch.arange(taps)).clamp(max=size_in - 1)
        start = self._first[:, None] + torch.arange(taps, dtype=torch.float64)
        overlap = torch.minimum(start + 1, high[:, None]) - torch.maximum(start, low[:, None])
        self._weight = (overlap.clamp(min=0) / (high - low)[:, None]).float()

    def needed(self, start: int, stop: int) -> range:
        """The input positions that outputs [start, stop) cover."""
        return range(int(self._first[start]), int(self._stop[stop - 1]))

    def average(self, values: Tensor, axis: int, start: int = 0, stop: int | None = None) -> Tensor:
        """Outputs [start, stop) along `axis` from the inputs that they need, in order."""
        if self._identity:
            return values
        index = self._index[start:stop]
        origin = int(self._first[start])
        limit = values.shape[axis] - 1
        shape = [1] * values.ndim
        shape[axis] = -1
        total: Tensor | None = None
        for tap in range(index.shape[1]):
            part = values.index_select(axis, (index[:, tap] - origin).clamp(max=limit))
            part *= self._weight[start:stop, tap].view(shape)
            total = part if total is None else total.add_(part)
        assert total is not None
        return total


def area_resize(image: Tensor, width: int, height: int) -> Tensor:
    """Average [H, W, C] down to [height, width, C] float32: each output pixel is the mean over its own area.

    Args:
        image: any dtype; values are kept.
        width, height: at most the image's own.
    """
    rows, columns = _Box(image.shape[0], height), _Box(image.shape[1], width)
    return columns.average(rows.average(image.float(), 0), 1)
