"""Histograms and sizes."""

from __future__ import annotations

import math

import numpy as np
import torch
from scenes import mixed

from splat.viewer import statistics


def test_histograms_count_everything():
    scene = mixed(300).to(torch.float32)
    for found in (statistics.scale_histogram(scene), statistics.opacity_histogram(scene)):
        assert found.counts.sum() == 300
        assert (np.diff(found.centres) > 0).all()


def test_scale_histogram_is_of_powers_of_ten():
    scene = mixed(200).to(torch.float32)
    scene.log_scales = torch.full((200, 3), math.log(1e-5))
    scene.log_scales[:100, 2] = math.log(1e-2)
    found = statistics.scale_histogram(scene)
    full = found.centres[found.counts == 100]
    width = found.centres[1] - found.centres[0]
    assert np.allclose(full, [-5, -2], atol=width)


def test_opacity_histogram_is_of_activated_values():
    scene = mixed(100).to(torch.float32)
    scene.logit_opacities = torch.full((100,), math.log(0.75 / 0.25))
    found = statistics.opacity_histogram(scene)
    at = int(found.counts.argmax())
    assert found.counts[at] == 100
    assert abs(found.centres[at] - 0.75) <= 1 / statistics.BINS


def test_values_that_are_not_finite_are_left_out():
    values = torch.tensor([0.5, float("nan"), float("inf")])
    assert statistics.histogram(values, 0, 1).counts.sum() == 1


def test_an_empty_scene():
    scene = mixed(10).to(torch.float32).select(torch.zeros(10, dtype=torch.bool))
    assert statistics.scale_histogram(scene).counts.sum() == 0
    assert statistics.memory(scene) == 0


def test_memory_and_sizes():
    scene = mixed(10).to(torch.float32)
    assert statistics.memory(scene) == 10 * 4 * (3 + 4 + 3 + 1 + 48)
    assert [statistics.size(n) for n in (12, 1_500, 2_360_000, 4.5e9)] == [
        "12 B",
        "1.5 kB",
        "2.4 MB",
        "4.50 GB",
    ]
