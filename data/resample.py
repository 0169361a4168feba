"""From decoded photographs to training images: undistortion, area averaging, alpha, masks; in blocks of rows."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from splat.data.images import Photo, decode, decode_mask, to_bytes
from splat.data.problems import DatasetError
from splat.data.scene import Frame
from splat.data.undistort import Remap, RemapTables

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

    # Colour is premultiplied by alpha, so that averaging does not bleed invisible colours.
    planes = [torch.tensor(plane) for plane in (colour, alpha) if plane is not None]
    kept = None if mask is None else torch.tensor(mask)
    columns, rows = _Box(frame.camera.width, width), _Box(frame.camera.height, height)
    block = max(1, int(_BLOCK_PIXELS / frame.camera.width * height / frame.camera.height))
    blocks, coverage = [], torch.ones(height, width, 1)
    for start in range(0, height, block):
        stop = min(start + block, height)
        needed = rows.needed(start, stop)
        if frame.distortion is None:
            part = slice(needed.start, needed.stop)
            values = _stack([plane[part] for plane in planes])
            keep = None if kept is None else kept[part].float()[..., None]
        else:
            values, keep = _undistorted(planes, kept, tables.block(frame.distortion, needed))
        blocks.append(columns.average(rows.average(values, 0, start, stop), 1))
        if keep is not None:
            coverage[start:stop] = columns.average(rows.average(keep, 0, start, stop), 1)
    values = torch.cat(blocks)

    image, transparency = values[..., :3], None
    if alpha is not None:
        opacity = values[..., 3:]
        if background is not None:
            image = image + (1 - opacity / 255) * (torch.tensor(background, dtype=torch.float32) * 255)
        else:
            image = torch.where(opacity > 0, image * 255 / opacity.clamp(min=1e-6), 0)
            transparency = to_bytes(opacity[..., 0])
    # A pixel counts only where all of its area does: ignored colours never mix in.
    counts = coverage[..., 0] > 1 - 1e-4
    return Photo(
        to_bytes(image).contiguous(), transparency, None if counts.all() else counts.to(torch.uint8) * 255
    )


def _stack(planes: list[Tensor]) -> Tensor:
    """[rows, columns, 3 or 4] float32 from colour and, where there is one, alpha; colour premultiplied."""
    colour = planes[0].float()
    if len(planes) == 1:
        return colour
    alpha = planes[1].float()[..., None]
    return torch.cat([colour * (alpha / 255), alpha], dim=2)


def _undistorted(planes: list[Tensor], kept: Tensor | None, block: Remap) -> tuple[Tensor, Tensor | None]:
    """Rows of the pinhole image as bilinear samples of the photograph: [rows, width, 3 or 4] float32, 0 where it
    shows nothing, and the share that counts [rows, width, 1], None where all does."""
    if block.first == block.last:
        assert block.shown is not None
        return torch.zeros(*block.shown.shape[:2], 2 + len(planes)), block.shown
    part = slice(block.first, block.last)
    values = _sample(_stack([plane[part] for plane in planes]), block.grid)
    keep = block.shown
    if keep is not None:
        values *= keep
    if kept is not None:
        sampled = _sample(kept[part].float()[..., None], block.grid)
        keep = sampled if keep is None else sampled * keep
    return values, keep


def _sample(source: Tensor, grid: Tensor) -> Tensor:
    """[rows, width, C] bilinear samples of [H, W, C]; -1 and 1 in the grid are the outer edges of the corner
    pixels, and beyond the outermost centres the border is repeated."""
    planes = source.permute(2, 0, 1)[None]
    sampled = grid_sample(planes, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled[0].permute(1, 2, 0)


class _Box:
    """Area averaging along one axis: output i covers [i s, (i + 1) s) of the input, s = size_in / size_out."""

    def __init__(self, size_in: int, size_out: int) -> None:
        self._identity = size_in == size_out
        self._factor = size_in // size_out if size_in % size_out == 0 else 0
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
        if self._factor:  # views of every s-th row need no copy
            parts = [values[tap :: self._factor] for tap in range(self._factor)]
            if axis == 1:
                parts = [values[:, tap :: self._factor] for tap in range(self._factor)]
            total = parts[0].clone()
            for part in parts[1:]:
                total += part
            return total.mul_(1 / self._factor)
        index = self._index[start:stop]
        origin = int(self._first[start])
        limit = values.shape[axis] - 1
        shape = [1] * values.ndim
        shape[axis] = -1
        weighted = (
            values.index_select(axis, (index[:, tap] - origin).clamp(max=limit))
            * self._weight[start:stop, tap].view(shape)
            for tap in range(index.shape[1])
        )
        total = next(weighted)
        for part in weighted:
            total += part
        return total


def area_resize(image: Tensor, width: int, height: int) -> Tensor:
    """Average [H, W, C] down to [height, width, C] float32: each output pixel is the mean over its own area.

    Args:
        image: any dtype; values are kept.
        width, height: at most the image's own.
    """
    rows, columns = _Box(image.shape[0], height), _Box(image.shape[1], width)
    return columns.average(rows.average(image.float(), 0), 1)
