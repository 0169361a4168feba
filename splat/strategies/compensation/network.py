"""A small U-Net in image space."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

Size = Literal["small", "medium", "large"]

# Channels from the finest to the coarsest level. The finest is at half the resolution: there a convolution costs a
# quarter, and what a head repairs is wider than a pixel.
CHANNELS: dict[Size, tuple[int, ...]] = {
    "small": (16, 32, 64),
    "medium": (32, 64, 128, 128),
    "large": (64, 128, 256, 512),
}


class UNet(nn.Module):
    """[C, H, W] -> [3, H, W], of any H and W; begins as zero everywhere.

    Ronneberger et al. 2015 in outline: two convolutions a level, features of the way down are added to those of
    the way up. What keeps it cheap on a CPU: channels lie next to each other in memory, as they come from the
    rasterizer; the way up convolves before it doubles, by nearest neighbour; sizes that are odd somewhere are cut on
    the way up, not padded before.
    """

    def __init__(self, channels: int, size: Size) -> None:
        super().__init__()
        widths = CHANNELS[size]
        self.enter = nn.Conv2d(channels, widths[0], 4, stride=2, padding=2)
        self.down = nn.ModuleList(_convolution(fine, coarse, stride=2) for fine, coarse in pairwise(widths))
        self.inner = nn.ModuleList(_convolution(width, width) for width in widths)
        self.up = nn.ModuleList(_convolution(coarse, fine) for fine, coarse in pairwise(widths))
        self.leave = nn.ConvTranspose2d(widths[0], 3, 4, stride=2, padding=2, output_padding=1)
        for parameter in self.leave.parameters():
            nn.init.zeros_(parameter)
        for parameter in self.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)

    def forward(self, image: Tensor) -> Tensor:
        height, width = image.shape[-2:]
        x = functional.relu(self.enter(image[None]))
        levels = [x + functional.relu(self.inner[0](x))]
        for down, inner in zip(self.down, self.inner[1:], strict=True):
            x = functional.relu(down(levels[-1]))
            levels.append(x + functional.relu(inner(x)))
        x = levels.pop()
        for up, skip in zip(reversed(self.up), reversed(levels), strict=True):
            doubled = functional.interpolate(functional.relu(up(x)), scale_factor=2.0)
            x = skip + doubled[..., : skip.shape[-2], : skip.shape[-1]]
        return self.leave(x)[0, :, :height, :width]

    def weights(self) -> Tensor:
        """[P] float32 copies of all weights, on the CPU."""
        return torch.cat([parameter.detach().reshape(-1) for parameter in self.parameters()]).cpu()

    @torch.no_grad()
    def load(self, weights: Tensor) -> None:
        """Take the [P] `weights` of a network of this size; ValueError where their number does not fit."""
        counts = [parameter.numel() for parameter in self.parameters()]
        if weights.shape != (sum(counts),):
            raise ValueError(f"{weights.numel()} weights, where {sum(counts)} are expected")
        for parameter, values in zip(self.parameters(), weights.split(counts), strict=True):
            parameter.copy_(values.view(parameter.shape))


def _convolution(inputs: int, outputs: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride, padding=1)


def seeded(channels: int, size: Size, seed: int) -> UNet:
    """A network whose weights depend on `seed` alone; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet(channels, size)
