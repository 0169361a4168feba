"""Adam's moments in 16 and 8 bits: 148 instead of 472 bytes for a Gaussian of degree 3; and sh itself in 16.

The formats and their sources stand in cuda/include/splat/moments.h, which this follows bit by bit: bfloat16 for
means, quats, log_scales and logit_opacities, bytes over a scale per Gaussian for sh; rounded at random by a hash of
step and place, so that a resumed run repeats itself. Any device. The values of sh are halves, rounded likewise; where
a backend does not take them as such, they are kept in float32.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from splat.core.gaussians import PARAMETERS

Kind = Literal["full", "quantized"]

_WORD = 0xFFFFFFFF
_SHIFT = 2.0**-7
_MOST = 1.9296875
_FIRST_BITS, _SECOND_BITS, _SECOND_LEAST = 4, 5, 2
_BFLOAT16, _BYTE, _SCALE, _FLOAT = 2, 1, 4, 4
_SH_VALUES = len(PARAMETERS)  # number of the array that is rounded, after those of the moments


def zeros(name: str, value: Tensor, kind: Kind) -> tuple[Tensor, ...]:
    """Moments before the first step: (first, second), and for quantized harmonics their scales [N, 2] too."""
    if kind == "full" or name not in PARAMETERS:
        return torch.zeros_like(value), torch.zeros_like(value)
    dtype = torch.uint8 if name == "sh" else torch.bfloat16
    pair = torch.zeros_like(value, dtype=dtype), torch.zeros_like(value, dtype=dtype)
    return (*pair, value.new_zeros(len(value), 2)) if name == "sh" else pair


def bytes_per_gaussian(coefficients: int, kind: Kind) -> int:
    """Bytes of the moments of one Gaussian with that many harmonic coefficients."""
    geometry, harmonics = 11, 3 * coefficients
    if kind == "full":
        return 2 * _FLOAT * (geometry + harmonics)
    return 2 * _BFLOAT16 * geometry + 2 * _BYTE * harmonics + 2 * _SCALE


def load(name: str, held: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """(first, second) moments in float32 of one parameter."""
    if name != "sh":
        return held[0].float(), held[1].float()
    first, second, scales = held
    by_gaussian = scales.view(-1, 2, *[1] * (first.dim() - 1))
    size = _decoded(first & 0x7F, _FIRST_BITS) * by_gaussian[:, 0]
    root = _decoded(second, _SECOND_BITS) * by_gaussian[:, 1]
    return torch.where(first >= 0x80, -size, size), root * root


def store(name: str, held: tuple[Tensor, ...], first: Tensor, second: Tensor, count: int) -> None:
    """Round the moments after step `count` (from 1) into `held`, in place."""
    random = _random_bits(count, PARAMETERS.index(name), first.numel(), first.device).view(first.shape)
    if name != "sh":
        held[0].copy_(_to_bfloat16(first, random))
        held[1].copy_(_to_bfloat16(second, random >> 16))
        return
    codes, roots, scales = held
    root = second.sqrt()
    for k, most in enumerate((first.abs(), root)):
        scales[:, k] = most.flatten(1).amax(1) * (1 / _MOST) if most[0:1].numel() else 0.0
    inverse = torch.where(scales > 1e-37, 1 / scales, 0).view(-1, 2, *[1] * (first.dim() - 1))
    code = _encoded(first.abs() * inverse[:, 0], _FIRST_BITS, random)
    codes.copy_(torch.where(first < 0, code | 0x80, code))
    code = _encoded(root * inverse[:, 1], _SECOND_BITS, (random * 747796405) & _WORD)
    roots.copy_(torch.where(second > 0, code.clamp(min=_SECOND_LEAST), 0))


@torch.no_grad()
def adam_step(
    name: str,
    value: Tensor,
    gradient: Tensor,
    held: tuple[Tensor, ...],
    lr: float,
    count: int,
    betas: tuple[float, float],
    eps: float,
    head_lr: float | None = None,
) -> None:
    """One step of Adam (Kingma & Ba 2015) on quantized moments, in place; with `head_lr`, value[:, 0] moves at it."""
    first, second = load(name, held)
    first.lerp_(gradient, 1 - betas[0])
    second.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    direction = first / (second.sqrt() / math.sqrt(1 - betas[1] ** count)).add_(eps)
    if head_lr is not None:
        direction[:, 0] *= head_lr / lr if lr else 0.0
    value.sub_(direction, alpha=lr / (1 - betas[0] ** count))
    if name != "sh":
        store(name, held, first, second, count)
        return
    random = _random_bits(count, _SH_VALUES, value.numel(), value.device).view(value.shape)
    value.copy_(_rounded_to_half(value, random))
    # Without a gradient a block shrinks by its scale alone.
    decayed = held[2] * held[2].new_tensor([betas[0], math.sqrt(betas[1])])
    before = held[0].clone(), held[1].clone(), decayed
    store(name, held, first, second, count)
    still = ~gradient.flatten(1).any(1)
    for moment, kept in zip(held, before, strict=True):
        moment[still] = kept[still]


def _bits(x: Tensor) -> Tensor:
    return x.contiguous().view(torch.int32).long() & _WORD


def _float(bits: Tensor) -> Tensor:
    return torch.where(bits >= 1 << 31, bits - (1 << 32), bits).int().view(torch.float32)


def _random_bits(step: int, which: int, count: int, device: torch.device) -> Tensor:
    """[count] int64 of 32 random bits each."""

    def mix(x: Tensor) -> Tensor:
        x = (x * 747796405 + 2891336453) & _WORD
        x = (((x >> ((x >> 28) + 4)) ^ x) * 277803737) & _WORD
        return (x >> 22) ^ x

    index = torch.arange(count, device=device)
    low = (index & _WORD) ^ (step * 2654435769 & _WORD)
    return mix((mix(low) + (index >> 32) + which) & _WORD)


def _to_bfloat16(x: Tensor, random: Tensor) -> Tensor:
    return _float((_bits(x) + (random & 0xFFFF)) & 0xFFFF0000).bfloat16()


def _rounded_to_half(x: Tensor, random: Tensor) -> Tensor:
    """float32 values that are halves."""
    size = ((_bits(x.float().abs() * 2.0**-112) + (random & 0x1FFF)) >> 13).clamp(max=0x7BFF)
    return torch.where(x.isnan(), x.float(), (_float(size << 13) * 2.0**112).copysign(x.float()))


def _encoded(x: Tensor, mantissa: int, random: Tensor) -> Tensor:
    below = (1 << (23 - mantissa)) - 1
    return ((_bits(x.clamp(max=_MOST) + _SHIFT) + (random & below)) >> (23 - mantissa)) - (120 << mantissa)


def _decoded(code: Tensor, mantissa: int) -> Tensor:
    return _float((code.long() + (120 << mantissa)) << (23 - mantissa)) - _SHIFT
