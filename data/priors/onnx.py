"""Depth from a model of the user's, by onnxruntime (optional: `pip install splat[onnx]`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from splat.core import DataError, UsageError

if TYPE_CHECKING:
    from splat.data.dataset import Dataset
    from splat.data.priors.registry import Kind

# Of the pictures that most published depth models were trained on (ImageNet).
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
_FREE_SIZE = 518  # longer side given to a model that takes any size, rounded to multiples of _PATCH
_PATCH = 14


class Onnx:
    """One picture in ([1, 3, h, w], colours less the mean of ImageNet over its deviation), one channel out.

    Options:
        model: path of the .onnx file.
        inverse: whether it gives inverse depth (as MiDaS and Depth Anything do); then its inverse is returned.
    """

    name: ClassVar[str] = "onnx"
    kinds: ClassVar[frozenset[str]] = frozenset({"depth"})

    def __init__(self, options: Mapping[str, Any]) -> None:
        unknown = set(options) - {"model", "inverse"}
        if unknown or not options.get("model"):
            what = f"unknown: {', '.join(sorted(unknown))}" if unknown else "model is missing"
            raise UsageError(
                f"priors by onnx take the options model (a path) and inverse (true or false); {what}"
            )
        try:
            import onnxruntime
        except ImportError as error:
            raise UsageError("priors by onnx need onnxruntime: pip install onnxruntime") from error
        self._inverse = bool(options.get("inverse", False))
        self._file = Path(str(options["model"])).expanduser()
        if not self._file.is_file():
            raise DataError(f"{self._file}: no such model; give the path of an .onnx file")
        threads = onnxruntime.SessionOptions()
        threads.intra_op_num_threads = torch.get_num_threads()
        try:
            self._session = onnxruntime.InferenceSession(
                str(self._file), threads, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise DataError(f"{self._file}: onnxruntime cannot run this model: {error}") from error
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != 4:
            shapes = ", ".join(str(each.shape) for each in inputs)
            raise DataError(f"{self._file}: takes {shapes}; a depth model takes one picture [1, 3, h, w]")
        self._input = inputs[0]

    def at(self, kind: Kind, dataset: Dataset, view: int, other: int | None) -> Tensor:
        photo = dataset.photo(view)
        height, width = photo.image.shape[:2]
        picture = photo.image.permute(2, 0, 1)[None].float() / 255
        picture = functional.interpolate(picture, self._size(height, width), mode="bilinear", antialias=True)
        picture = (picture - torch.tensor(_MEAN).view(3, 1, 1)) / torch.tensor(_DEVIATION).view(3, 1, 1)
        try:
            (answer, *_) = self._session.run(None, {self._input.name: picture.numpy()})
        except Exception as error:
            raise DataError(f"{self._file}: the model failed on {photo.image.shape}: {error}") from error
        found = torch.from_numpy(answer).float()
        found = found.reshape(-1, *found.shape[-2:])
        if found.shape[0] != 1:
            raise DataError(f"{self._file}: gives {list(answer.shape)}; a depth model gives one channel")
        depth = functional.interpolate(found[None], (height, width), mode="bilinear")[0, 0]
        if self._inverse:
            floor = 1e-3 * depth.abs().amax().clamp_min(1e-12)
            depth = 1 / depth.clamp_min(floor)
        return torch.where(depth.isfinite(), depth, 0)

    def _size(self, height: int, width: int) -> tuple[int, int]:
        """The size that the model asks for, or one that suits most where it takes any."""
        asked = self._input.shape[2:]
        if all(isinstance(size, int) and size > 0 for size in asked):
            return asked[0], asked[1]
        scale = min(1.0, _FREE_SIZE / max(height, width))
        rows, columns = (max(1, round(size * scale / _PATCH)) * _PATCH for size in (height, width))
        return rows, columns
