"""The emulated kernels in the GPU's place, for a dry run of gpu.py."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from torch import Tensor

from splat import _emulated
from splat.raster import registry
from splat.training import gpu

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "helpers"))
from emulated_backend import EmulatedBackend

__all__ = ["EmulatedBackend", "emulated"]


def _photometric(
    image: Tensor, target: Tensor, mask: Tensor | None = None, ssim_weight: float = 0.2
) -> Tensor:
    return gpu.photometric(_emulated, image, target, mask, ssim_weight)


def _fits(*tensors: Tensor) -> Any:
    return _emulated if all(t.is_contiguous() for t in tensors) else None


def _never(*tensors: Tensor) -> bool:
    return False


@contextmanager
def emulated() -> Iterator[None]:
    """Everything that chooses kernels by the tensors' device takes the emulated ones for tensors on the CPU."""
    with (
        mock.patch.dict(registry._BACKENDS, {"emulated": "emulated_backend:EmulatedBackend"}),
        mock.patch.object(gpu, "kernels_for", _fits),
        mock.patch("splat.strategies.kernels._native_fits", _never),
        mock.patch("splat.training.trainer.photometric", _photometric),
        mock.patch("splat.training.losses.photometric", _photometric),
    ):
        yield
