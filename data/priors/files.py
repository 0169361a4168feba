"""Priors in files beside the images.

depths/NAME.npy ([h, w] float) or .png (16 bits); normals/NAME.npy ([h, w, 3], world frame) or .png (2 v - 1);
masks/NAME.png; flow/A--B.npy ([h, w, 2], pixels of photograph A) and matches/A--B.npy ([M, 4], pixels of both
photographs), A and B without extension. Depth maps that the dataset's own format names (RGB-D, Polycam, nerfstudio)
come before depths/, and after it those of COLMAP's stereo: stereo/depth_maps/NAME.EXT.geometric.bin in the folder of
photographs that COLMAP has undistorted. All belong to the photographs as they are, distorted or not, upright, of any
size of the same shape.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from splat.core import UsageError
from splat.data.depth import read_depth
from splat.data.problems import DatasetError
from splat.data.scene import Frame

if TYPE_CHECKING:
    from splat.data.dataset import Dataset
    from splat.data.priors.registry import Kind

_FOLDERS = {"depth": "depths", "normal": "normals", "flow": "flow", "matches": "matches"}
_COLMAP = Path("stereo", "depth_maps")
_SHAPE = 0.01  # by how much width over height may differ from the photograph's


class Files:
    """Reads them; knows nothing of what computed them."""

    name: ClassVar[str] = "files"
    kinds: ClassVar[frozenset[str]] = frozenset({"depth", "normal", "flow", "matches", "masks"})

    def __init__(self, options: Mapping[str, Any]) -> None:
        if options:
            raise UsageError(f"priors from files take no options, got {', '.join(sorted(options))}")

    def at(self, kind: Kind, dataset: Dataset, view: int, other: int | None) -> Tensor | None:
        if kind == "masks":
            mask = dataset.photo(view).mask
            return None if mask is None else mask != 0
        frame, camera = dataset.scene.frames[view], dataset.camera(view)
        if kind == "depth" and frame.depth is not None:  # of the dataset's own format, in its units
            grid = photograph_pixels(frame, camera.width, camera.height)
            return nearest(torch.from_numpy(read_depth(frame)), frame, grid)
        stems = [dataset.scene.frames[v].name.rsplit(".", 1)[0] for v in (view, other) if v is not None]
        file = _found(
            dataset.scene.root / _FOLDERS[kind], "--".join(stem.replace("/", "_") for stem in stems), stems
        )
        if file is None and kind == "depth" and frame.distortion is None:
            file = dataset.scene.root / _COLMAP / f"{frame.name}.geometric.bin"
            file = file if file.is_file() else None
        if file is None:
            return None
        values = colmap_array(file) if file.suffix == ".bin" else _read(file)
        if kind == "matches":
            assert other is not None
            return _matches(values, file, dataset, view, other)
        channels = {"depth": 0, "normal": 3, "flow": 2}[kind]
        _check(values, file, frame, channels)
        grid = photograph_pixels(frame, camera.width, camera.height)
        if kind == "flow":
            assert other is not None
            return _flow(values, file, dataset, view, other)
        if file.suffix == ".png" and kind == "normal":
            values = 2 * values / np.iinfo(values.dtype).max - 1
        found = nearest(torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)), frame, grid)
        found = torch.where(found.isfinite(), found, 0)
        return functional.normalize(found, dim=-1) if kind == "normal" else found.clamp_min(0)


def photograph_pixels(frame: Frame, width: int, height: int) -> Tensor:
    """[height, width, 2] float32 pixels of the photograph at the pixel centres of its pinhole picture at this size;
    NaN where the photograph shows nothing."""
    camera = frame.camera.resized(width, height)
    if frame.distortion is not None:
        scaled = replace(
            frame.distortion,
            width=width,
            height=height,
            fx=camera.fx,
            fy=camera.fy,
            cx=camera.cx,
            cy=camera.cy,
        )
        return scaled.source_pixels(range(height))
    u = (torch.arange(width) + 0.5) * frame.camera.width / width
    v = (torch.arange(height) + 0.5) * frame.camera.height / height
    return torch.stack(torch.broadcast_tensors(u[None], v[:, None]), -1).float()


def source_size(frame: Frame) -> tuple[int, int]:
    """Width and height of the photograph."""
    source = frame.distortion.source if frame.distortion else frame.camera
    return source.width, source.height


def nearest(values: Tensor, frame: Frame, pixels: Tensor) -> Tensor:
    """[H, W, ...] of an array over the whole photograph at its `pixels` [H, W, 2]; 0 where they are NaN.

    The nearest value, not a mean: at an edge of depth nothing lies at the mean.
    """
    width, height = source_size(frame)
    column = (pixels[..., 0] * values.shape[1] / width).nan_to_num().long().clamp(0, values.shape[1] - 1)
    row = (pixels[..., 1] * values.shape[0] / height).nan_to_num().long().clamp(0, values.shape[0] - 1)
    found = values[row, column]
    shown = ~pixels[..., 0].isnan()
    return torch.where(shown if found.ndim == 2 else shown[..., None], found, 0)


def _found(folder: Path, flat: str, stems: list[str]) -> Path | None:
    """NAME.npy or NAME.png: of one view also in folders as the images lie."""
    names = [flat] if len(stems) == 2 else [stems[0], flat]
    for name in names:
        for suffix in (".npy", ".png"):
            file = folder / f"{name}{suffix}"
            if file.is_file():
                return file
    return None


def _read(file: Path) -> np.ndarray:
    try:
        if file.suffix == ".npy":
            return np.load(file, allow_pickle=False)
        from PIL import Image

        with Image.open(file) as image:
            return np.asarray(image)
    except (OSError, ValueError) as error:
        raise DatasetError(
            "prior", file, f"cannot be read ({error})", "write it again, or remove it"
        ) from error


def colmap_array(file: Path) -> np.ndarray:
    """[h, w] or [h, w, c] float32 of a depth or normal map of COLMAP: "WIDTH&HEIGHT&CHANNELS&", then float32 little
    endian, columns of a row first, then rows, then channels (https://colmap.github.io/format.html, dense).

    Raises:
        DatasetError: the file is cut off, or something else.
    """
    data = file.read_bytes()
    try:
        *sizes, values = data.split(b"&", 3)
        width, height, channels = (int(size) for size in sizes)
        array = np.frombuffer(values, "<f4").astype(np.float32).reshape(channels, height, width)
    except (ValueError, IndexError) as error:
        raise DatasetError(
            "prior", file, f"is no array of COLMAP ({error})", "run COLMAP's stereo again, or remove it"
        ) from error
    return array[0] if channels == 1 else np.moveaxis(array, 0, -1)


def _check(values: np.ndarray, file: Path, frame: Frame, channels: int) -> None:
    shape = values.shape
    width, height = source_size(frame)
    fits = len(shape) == (3 if channels else 2) and (not channels or shape[2] == channels) and min(shape) > 0
    if not fits or abs(shape[1] / shape[0] - width / height) > _SHAPE * width / height:
        wanted = f"[{height}, {width}{f', {channels}' if channels else ''}], or smaller or larger of the same shape"
        cause = f"has the shape {list(shape)}; the photograph's is {wanted}"
        raise DatasetError("prior", file, cause, "compute it from the photograph as it is")


def _flow(values: np.ndarray, file: Path, dataset: Dataset, view: int, other: int) -> Tensor:
    """Where the photograph's flow leads, in pixels of the other pinhole picture, minus where it began."""
    frame, camera = dataset.scene.frames[view], dataset.camera(view)
    start = photograph_pixels(frame, camera.width, camera.height)
    width, _ = source_size(frame)
    scale = width / values.shape[1]
    flow = nearest(torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32)), frame, start) * scale
    end = pinhole_pixels((start + flow).reshape(-1, 2).numpy(), dataset, other).view_as(flow)
    u = torch.arange(camera.width) + 0.5
    v = torch.arange(camera.height) + 0.5
    begin = torch.stack(torch.broadcast_tensors(u[None], v[:, None]), -1)
    return end - begin


def _matches(values: np.ndarray, file: Path, dataset: Dataset, view: int, other: int) -> Tensor:
    if values.ndim != 2 or values.shape[1] != 4:
        cause = f"has the shape {list(values.shape)}; matches are [M, 4]: u, v here and u, v there"
        raise DatasetError("prior", file, cause, "write it again, or remove it")
    halves = (pinhole_pixels(values[:, :2], dataset, view), pinhole_pixels(values[:, 2:], dataset, other))
    found = torch.cat(halves, 1)
    return found[found.isfinite().all(1)]


def pinhole_pixels(pixels: np.ndarray, dataset: Dataset, view: int) -> Tensor:
    """[M, 2] float32 pixels of the training picture at `pixels` [M, 2] of the photograph; NaN where there is none."""
    frame, camera = dataset.scene.frames[view], dataset.camera(view)
    if frame.distortion is None:
        scale = torch.tensor([camera.width / frame.camera.width, camera.height / frame.camera.height])
        return torch.from_numpy(np.ascontiguousarray(pixels, dtype=np.float32)) * scale
    model = frame.distortion.source.colmap_camera()
    rays = torch.from_numpy(
        np.asarray(model.cam_from_img(pixels.astype(np.float64)), np.float64).reshape(-1, 2)
    )
    scale = torch.tensor([camera.fx, camera.fy], dtype=torch.float64)
    return (rays * scale + torch.tensor([camera.cx, camera.cy], dtype=torch.float64)).float()
