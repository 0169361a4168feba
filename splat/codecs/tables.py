"""What formats that store activated values share: opacities and colours in 8 bits, scales as lengths."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from splat.core import DataError, Gaussians, sh

_BYTES = np.arange(256, dtype=np.float64)

# An opacity of exactly 0 or 1 has no logit: readers agree on 1e-6 short of it, which draws the same.
_SHARE = np.clip(_BYTES / 255, 1e-6, 1 - 1e-6)
LOGITS = np.log(_SHARE / (1 - _SHARE)).astype(np.float32)

# Colours in [0, 1] to band 0 of the harmonics, and back as (gain, bias) for columns.pack_bytes.
BAND0 = ((_BYTES / 255 - 0.5) / sh.C0).astype(np.float32)
BAND0_GAIN, BAND0_BIAS = 255 * sh.C0, 127.5

# Half of a step of an opacity byte, of a colour byte as band 0.
OPACITY_ERROR = 0.5 / 255
BAND0_ERROR = 0.5 / 255 / sh.C0


def beyond(values: np.ndarray, low: float, high: float) -> float:
    """How far the farthest of `values` lies outside [low, high], which is what clamping does to it."""
    if values.size == 0:
        return 0.0
    return max(0.0, low - float(values.min()), float(values.max()) - high)


# Logarithms whose exponentials are ordinary float32 numbers.
LEAST_LOG, LARGEST_LOG = -87.0, 88.0
# What exp and log in float32 leave of a logarithm of that size.
LOG_ERROR = 3e-5


def to_lengths(log_scales: np.ndarray) -> np.ndarray:
    """Standard deviations, float32, positive and finite."""
    return np.exp(log_scales.clip(LEAST_LOG, LARGEST_LOG))


def from_lengths(path: Path, lengths: np.ndarray) -> np.ndarray:
    """Logarithms of `lengths` [N, 3]; -inf for 0, which `settle_infinities` handles.

    DataError for negative or NaN ones, which only damaged or foreign files have.
    """
    good = lengths >= 0
    if not good.all():
        wrong = ~good.all(1)
        first = int(wrong.argmax())
        raise DataError(
            f"{path}: damaged or of another format: {int(wrong.sum())} of {len(lengths)} Gaussians have "
            f"a negative or NaN scale; the first is Gaussian {first}: {lengths[first].tolist()}"
        )
    with np.errstate(divide="ignore"):
        return np.log(lengths, dtype=np.float32)


def band0_error(gaussians: Gaussians) -> float:
    """Bound of band 0 as a colour byte: half a step, and what clamping to [0, 1] does."""
    return BAND0_ERROR + beyond(gaussians.sh[:, 0].numpy(), -0.5 / sh.C0, 0.5 / sh.C0) + 1e-6


def log_error(gaussians: Gaussians) -> float:
    """Bound of a logarithm of a scale that is stored as a length in float32."""
    return LOG_ERROR + beyond(gaussians.log_scales.numpy(), LEAST_LOG, LARGEST_LOG)


def clamping(gaussians: Gaussians) -> list[str]:
    """A note where colours do not fit a byte."""
    dark = int((gaussians.sh[:, 0].abs() > 0.5 / sh.C0).any(1).sum())
    return [f"Gaussians with colours outside [0, 1], which were clamped: {dark}"] if dark else []
