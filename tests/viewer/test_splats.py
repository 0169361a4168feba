"""Scenes for the browser's own splats: float16 covariances, a fair draw."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
import torch

from splat.core import Gaussians
from splat.viewer.browser import covariance_scale, sample, splats
from splat.viewer.drawing import SERVER_LIMIT, default_drawing
from splat.viewer.threads import use_threads


def scene(count: int, size: float = 1.0, spread: float = 1.0, seed: int = 0) -> Gaussians:
    g = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=size * torch.randn(count, 3, generator=g),
        quats=torch.randn(count, 4, generator=g),
        log_scales=float(np.log(size)) - 4 + spread * torch.randn(count, 3, generator=g),
        logit_opacities=2 * torch.randn(count, generator=g),
        sh=torch.randn(count, 4, 3, generator=g),
    )


@pytest.mark.parametrize("size", [1e-6, 1e-3, 1.0, 1e4])
def test_covariances_survive_float16_whatever_the_size(size: float) -> None:
    gaussians = scene(500, size)
    for_browser = splats(gaussians, 1_000)
    stored = for_browser.covariances.astype(np.float16).astype(np.float64) * for_browser.scale**2
    exact = gaussians.to(torch.float64).covariances().numpy()
    assert np.isfinite(stored).all()
    largest = np.abs(exact).max(axis=(1, 2))
    # Half a unit in the last place of float16's normal numbers, of each Gaussian's largest entry.
    assert (np.abs(stored - exact).max(axis=(1, 2)) <= 2.0**-11 * largest * 1.01).all()
    assert np.allclose(for_browser.centers * for_browser.scale, gaussians.means.numpy(), rtol=1e-6)
    assert np.log2(for_browser.scale) == round(np.log2(for_browser.scale))


def test_one_giant_leaves_the_others_visible() -> None:
    """Without the scale, Gaussians below 1.7e-4 would vanish; with it they may be 20,000 times smaller."""
    gaussians = scene(100, spread=0.0)
    gaussians.log_scales[0] = gaussians.log_scales[1] + float(np.log(1e4))
    stored = splats(gaussians, 1_000).covariances.astype(np.float16)
    assert (np.diagonal(stored, axis1=1, axis2=2) > 0).all()
    assert np.isfinite(stored).all()
    assert covariance_scale(torch.zeros(0, 3)) == 1.0


def test_the_draw_is_the_same_each_time_and_goes_by_what_is_seen() -> None:
    gaussians = scene(4_000, spread=0.0)
    gaussians.logit_opacities = torch.where(torch.arange(4_000) < 2_000, 3.0, -3.0)  # 0.95 and 0.05
    rows = sample(gaussians, 1_000)
    assert torch.equal(rows, sample(gaussians, 1_000))
    assert torch.equal(rows, rows.unique())
    opaque = int((rows < 2_000).sum())
    # With a chance of 20 to 1 for each draw, and opaque ones running short as they are drawn, some 930 are.
    assert 880 <= opaque <= 980
    assert (rows >= 2_000).any()  # the others are there as well
    later = scene(4_000, spread=0.0)
    later.logit_opacities = gaussians.logit_opacities + 0.01 * torch.randn(
        4_000, generator=torch.Generator().manual_seed(9)
    )
    kept = len(set(rows.tolist()) & set(sample(later, 1_000).tolist()))
    assert kept > 950  # a step of training does not make it flicker


def test_all_are_sent_where_there_are_few() -> None:
    assert len(splats(scene(50), 50).centers) == 50
    assert len(splats(scene(51), 50).centers) == 50
    assert len(splats(scene(0), 50).centers) == 0


def test_a_cpu_draws_what_it_can_and_leaves_the_rest_to_the_browser() -> None:
    def of(count: int) -> Gaussians:
        one = scene(1)
        return one.map(lambda t: t.expand(count, *t.shape[1:]))

    assert default_drawing(of(SERVER_LIMIT), 1) == "server"
    assert default_drawing(of(SERVER_LIMIT + 1), 1) == "browser"
    assert default_drawing(of(SERVER_LIMIT + 1), 2) == "server"


def test_a_threads_number_of_cores_is_its_own() -> None:
    def in_a_thread(do: Callable[[], object]) -> list[object]:
        found: list[object] = []
        thread = threading.Thread(target=lambda: found.append(do()))
        thread.start()
        thread.join()
        return found

    def other() -> tuple[int, list[object]]:
        use_threads(chosen)
        return torch.get_num_threads(), in_a_thread(torch.get_num_threads)

    mine = torch.get_num_threads()
    (usual,) = in_a_thread(torch.get_num_threads)
    chosen = 1 if usual != 1 else 2
    assert in_a_thread(other) == [(chosen, [usual])]
    assert torch.get_num_threads() == mine
