"""A small U-Net in image space."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Size = Literal["small", "medium", "large"]

# Channels from the finest to the coarsest level. All sizes work on blocks of 2 x 2 pixels, at half the resolution:
# there a convolution costs a quarter, and what a head repairs is wider than a pixel.
CHANNELS: dict[Size, tuple[int, ...]] = {
    "small": (16, 32, 64),
    "medium": (32, 64, 128, 128),
    "large": (64, 128, 256, 512),
}
_BLOCK = 2


class UNet(nn.Module):
    """[C, H, W] -> [3, H, W], of any H and W; begins as zero everywhere.

    Ronneberger et al. 2015 in outline: two convolutions a level, features of the way down are added to those of
    the way up. Additions and nearest-neighbour doubling keep it cheap on a CPU.
    """

    def __init__(self, channels: int, size: Size) -> None:
        super().__init__()
        widths = CHANNELS[size]
        self.enter = _convolution(channels * _BLOCK**2, widths[0])
        self.down = nn.ModuleList(_convolution(fine, coarse, stride=2) for fine, coarse in pairwise(widths))
        self.inner = nn.ModuleList(_convolution(width, width) for width in widths)
        self.up = nn.ModuleList(_convolution(coarse, fine) for fine, coarse in pairwise(widths))
        self.leave = _convolution(widths[0], 3 * _BLOCK**2)
        nn.init.zeros_(self.leave.weight)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        multiple = _BLOCK * 2 ** len(self.down)
        pad = (-width % multiple, -height % multiple)
        x = functional.pad(image[None], (0, pad[0], 0, pad[1]), mode="replicate")
        x = functional.relu(self.enter(functional.pixel_unshuffle(x, _BLOCK)))
        levels = [x + functional.relu(self.inner[0](x))]
        for down, inner in zip(self.down, self.inner[1:], strict=True):
            x = functional.relu(down(levels[-1]))
            levels.append(x + functional.relu(inner(x)))
        x = levels.pop()
        for up, skip in zip(reversed(self.up), reversed(levels), strict=True):
            x = skip + functional.relu(up(functional.interpolate(x, scale_factor=2.0)))
        return functional.pixel_shuffle(self.leave(x), _BLOCK)[0, :, :height, :width]

    def bytes(self) -> int:
        """What its weights take in float32."""
        return 4 * sum(parameter.numel() for parameter in self.parameters())


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1)


def seeded(channels: int, size: Size, seed: int) -> UNet:
    """A network whose weights depend on `seed` alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet(channels, size)
