"""Which photograph comes next, at which size and over which background."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from splat.core import Camera
from splat.data import Dataset, Photo
from splat.data.cache import PhotoCache
from splat.training import memory
from splat.training.config import Background

PREFETCH = 8
_PINNED = 2  # photographs in pinned memory ahead of their step
_PINNED_BYTES = 256 << 20
_DEVICE_SHARE = 0.2  # of a GPU's free memory, for photographs that stay there
_FIXED = {"black": (0.0, 0.0, 0.0), "white": (1.0, 1.0, 1.0)}


@dataclass
class View:
    """One training view.

    Attributes:
        index: of the frame in the dataset.
        position: of the frame among the training views.
        camera: at the size of the target; its pose is on the CPU, whence the kernels take their arguments.
        target: [H, W, 3] uint8.
        mask: [H, W] uint8 or None; 0 = ignore the pixel.
        background: [3] colour behind the scene.
    """

    index: int
    position: int
    camera: Camera
    target: Tensor
    mask: Tensor | None
    background: Tensor


def fixed_background(background: Background) -> tuple[float, float, float]:
    """The colour that scores and pictures are made on; black where training draws random ones."""
    return _FIXED.get(background, _FIXED["black"])


class Views:
    """Shuffled epochs over the training views, the same for the same seed."""

    def __init__(
        self,
        dataset: Dataset,
        seed: int,
        background: Background,
        progressive: int = 0,
        progressive_interval: int = 1,
        device: torch.device | str = "cpu",
        keep_bytes: int | None = None,
    ) -> None:
        """
        Args:
            device: where targets, masks and backgrounds go.
            keep_bytes: of photographs that stay on the device; by default a share of a GPU's free memory, and
                on the CPU none, as the dataset keeps its own.
        """
        self.dataset = dataset
        self.progressive = progressive
        self.progressive_interval = progressive_interval
        self.device = torch.device(device)
        self._random = background == "random"
        self._background = torch.tensor(fixed_background(background), device=self.device)
        self._generator = torch.Generator().manual_seed(seed)
        self._order: list[int] = []
        self._next = 0
        self._cameras: dict[int, Camera] = {}
        self._kept: dict[int, Photo] = {}
        if keep_bytes is None:
            keep_bytes = (
                int(_DEVICE_SHARE * memory.available(self.device)) if self.device.type == "cuda" else 0
            )
        self._room = keep_bytes
        # Photographs on their way to a GPU: a thread copies the next ones to pinned memory.
        self._pinned = (
            PhotoCache(self._pin, _PINNED_BYTES, workers=1, ahead=_PINNED) if self._stages() else None
        )

    def next(self, step: int) -> View:
        """The view of 0-based `step`; call it once a step."""
        if self._next == len(self._order):
            self._order = torch.randperm(len(self.dataset.train), generator=self._generator).tolist()
            self._next = 0
        position = self._order[self._next]
        self._next += 1
        background = (
            self._sent(torch.rand(3, generator=self._generator)) if self._random else self._background
        )
        train = self.dataset.train
        soon = [train[p] for p in self._order[self._next : self._next + PREFETCH]]
        soon = [index for index in soon if index not in self._kept]
        self.dataset.prefetch(soon)
        if self._pinned is not None:
            self._pinned.prefetch(soon[:_PINNED])
        return self.at(position, step, background)

    def at(self, position: int, step: int, background: Tensor | None = None) -> View:
        """The training view at `position`, at the size of 0-based `step`; any number of times a step.

        Args:
            background: [3] colour behind the scene; None for the run's fixed one.
        """
        background = self._background if background is None else background
        index = self.dataset.train[position]
        if index not in self._cameras:
            self._cameras[index] = self.dataset.camera(index)
        camera, photo = self._cameras[index], self._photo(index)
        target, mask = photo.image, photo.mask
        if self._random and photo.alpha is not None:
            target = composite(target, photo.alpha, background)
        level = self.progressive - step // self.progressive_interval
        if level > 0:
            height, width = (max(1, size >> level) for size in target.shape[:2])
            target, mask = reduced(target, mask, height, width)
            camera = camera.resized(width, height)
        return View(index, position, camera, target, mask, background)

    def cameras(self) -> list[Camera]:
        """Of the training views by position, at full training resolution."""
        return [self.dataset.camera(index) for index in self.dataset.train]

    def _photo(self, index: int) -> Photo:
        """The photograph on the device; it stays there while there is room."""
        if index in self._kept:
            return self._kept[index]
        if self._pinned is None:
            photo = self.dataset.photo(index)
        else:
            photo = _each(self._pinned.get(index), lambda t: t.to(self.device, non_blocking=True))
        if photo.nbytes <= self._room:
            self._kept[index] = photo
            self._room -= photo.nbytes
        return photo

    def _stages(self) -> bool:
        """Whether what goes to the device goes through pinned memory, so that nobody waits for it."""
        return self.device.type == "cuda"

    def _pin(self, index: int) -> Photo:
        return _each(self.dataset.photo(index), pinned)

    def _sent(self, tensor: Tensor) -> Tensor:
        return pinned(tensor).to(self.device, non_blocking=True) if self._stages() else tensor

    def state_dict(self) -> dict[str, Any]:
        return {"generator": self._generator.get_state(), "order": self._order, "next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._generator.set_state(state["generator"])
        self._order, self._next = list(state["order"]), state["next"]


def pinned(tensor: Tensor) -> Tensor:
    """A copy in memory that a GPU reads by itself."""
    return tensor.pin_memory()


def _each(photo: Photo, change: Callable[[Tensor], Tensor]) -> Photo:
    image, alpha, mask = (None if t is None else change(t) for t in (photo.image, photo.alpha, photo.mask))
    assert image is not None
    return Photo(image, alpha, mask)


def composite(image: Tensor, alpha: Tensor, background: Tensor) -> Tensor:
    """[H, W, 3] uint8 photograph with straight `alpha` [H, W] uint8 over `background` [3]."""
    a = alpha[..., None].float() / 255
    return (image * a + 255 * background * (1 - a)).round().to(torch.uint8)


def reduced(image: Tensor, mask: Tensor | None, height: int, width: int) -> tuple[Tensor, Tensor | None]:
    """Area averages at a smaller size; a pixel is kept by the mask only if all of it was."""
    planes = image.permute(2, 0, 1).float()
    small = functional.adaptive_avg_pool2d(planes, (height, width)).round().to(torch.uint8)
    if mask is not None:
        kept = functional.adaptive_avg_pool2d((mask != 0).float()[None], (height, width))[0]
        mask = (kept == 1).to(torch.uint8) * 255
    return small.permute(1, 2, 0).contiguous(), mask
