"""What a scene holds, in numbers and curves."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from splat.core import Gaussians

BINS = 60
_SAMPLE = 500_000  # Gaussians that a histogram looks at


@dataclass(frozen=True)
class Histogram:
    """Counts over equal bins; `centres` [BINS] and `counts` [BINS], float64."""

    centres: np.ndarray
    counts: np.ndarray


def histogram(values: Tensor, low: float, high: float) -> Histogram:
    """Of `values` [V] that are finite; those beyond the ends count into the outer bins."""
    values = values.detach().flatten()
    values = values[torch.isfinite(values)].float()
    high = high if high > low else low + 1
    counts = torch.histc(values.clamp(low, high).cpu(), BINS, low, high)
    edges = np.linspace(low, high, BINS + 1)
    return Histogram((edges[:-1] + edges[1:]) / 2, counts.double().numpy())


def scale_histogram(gaussians: Gaussians) -> Histogram:
    """Of log10 of each Gaussian's largest standard deviation, world units, over their middle 99.8%."""
    largest = _some(gaussians.log_scales).amax(1) / torch.log(torch.tensor(10.0))
    if not len(largest):
        return histogram(largest, -3, 0)
    ordered = largest.sort().values
    cut = len(ordered) // 1000
    return histogram(largest, float(ordered[cut]), float(ordered[len(ordered) - 1 - cut]))


def opacity_histogram(gaussians: Gaussians) -> Histogram:
    """Of the opacities, 0 to 1."""
    return histogram(torch.sigmoid(_some(gaussians.logit_opacities)), 0, 1)


def memory(gaussians: Gaussians) -> int:
    """Bytes of the scene's tensors."""
    return sum(tensor.numel() * tensor.element_size() for _, tensor in gaussians.named_tensors())


def size(count: float) -> str:
    """Bytes for people: 1.5 MB."""
    for unit in ("B", "kB", "MB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.2f} GB"


def _some(values: Tensor) -> Tensor:
    return values.detach()[:: max(1, len(values) // _SAMPLE)].float().cpu()
