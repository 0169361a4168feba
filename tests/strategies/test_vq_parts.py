"""The parts of the vq strategy: assignment at a price, what changes cost."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from splat.core import Camera, Gaussians
from splat.core.rotations import quat_multiply
from splat.raster import RenderOptions, render
from splat.strategies.vq import masks, sensitivity
from splat.strategies.vq.codebook import Codebook, cheapest


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_the_cheapest_word_is_that_of_the_definition() -> None:
    """Against float64; where another word was chosen its cost is the same to float32's rounding."""
    points, words = random(500, 3), random(40, 3, seed=1)
    bits, price = random(40, seed=2).abs() * 5 + 1, random(500, seed=3).abs() * 0.1
    labels = cheapest(points, words, bits, price)
    cost = torch.cdist(points.double(), words.double()).square() + price.double()[:, None] * bits.double()
    chosen = cost.gather(1, labels[:, None])[:, 0]
    assert float((chosen - cost.amin(1)).max()) < 1e-5 * float(cost.max())
    assert (labels == cost.argmin(1)).float().mean() > 0.99
    free = cheapest(points, words, bits, torch.zeros(500))
    assert not labels.equal(free)
    assert float(bits[labels].mean()) < float(bits[free].mean())


def test_a_higher_price_leaves_fewer_words_and_zeros_are_free() -> None:
    points, weight = 0.1 * random(2000, 9), torch.ones(2000)
    entropies = []
    for lam in (1e-5, 5e-2):
        book = Codebook(optional=True)
        labels = book.begin(points, 64, weight, lam, seed=0)
        assert not bool(book.centroids[0].any())
        assert len(book.book.words) == len(book.centroids) - 1
        share = torch.bincount(labels).double() / len(labels)
        entropies.append(float(-(share[share > 0] * share[share > 0].log2()).sum()))
    assert entropies[1] < 0.5 * entropies[0]


def test_random_signs_measure_the_squared_jacobian() -> None:
    """Against autograd's Jacobian of the reference renderer; 400 samples of squared sums of random signs, whose
    variance is at most twice their squared mean: 4 standard errors are 4 sqrt(2 / 400) = 0.28."""
    camera = Camera(10, 8, fx=12, fy=12, cx=5, cy=4, world_to_camera=torch.eye(4))
    g = Gaussians(
        means=torch.tensor([[0.1, 0.0, 2.0]]),
        quats=torch.tensor([[0.9, 0.2, -0.3, 0.1]]),
        log_scales=torch.tensor([[-1.0, -1.6, -2.0]]),
        logit_opacities=torch.tensor([0.5]),
        sh=torch.full((1, 4, 3), 0.3),
    )
    mask = torch.ones(8, 10, dtype=torch.uint8)
    mask[:2] = 0
    config = SimpleNamespace(seed=1, sh_interval=1, backend="cpu", background="white")
    samples, seen = [], []
    for step in range(400):
        ctx = SimpleNamespace(config=config, step=step, camera=camera, mask=mask)
        found, products = sensitivity.sample(g, ctx)
        samples.append(found)
        seen.append(products)
    mean = torch.stack(samples).mean(0)[0]

    def drawn(*values: torch.Tensor) -> torch.Tensor:
        scene = Gaussians(*values)
        return render(scene, camera, RenderOptions(torch.ones(3), backend="reference")).image[2:].flatten()

    values = (g.means, g.quats, g.log_scales, g.logit_opacities, g.sh)
    jacobian = torch.autograd.functional.jacobian(drawn, values)
    n = jacobian[0].shape[0]
    square = [j.square().sum(0) / n for j in jacobian]
    turned = []
    for axis in range(3):
        turn = quat_multiply(g.quats, torch.eye(4)[axis + 1 : axis + 2]) / 2
        turned.append((jacobian[1][:, 0] @ turn[0]).square().sum() / n)
    expected = [square[0].mean(), square[2].mean(), square[3][0], square[4][0, 0].mean(), *turned]
    assert mean.tolist() == pytest.approx([float(e) for e in expected], rel=0.28)
    colors = jacobian[4][:, 0].permute(0, 2, 1).flatten(0, 1)
    products = torch.stack(seen).mean(0)
    assert float((products - colors.T @ colors / n).abs().max()) < 0.28 * float(products[0, 0])


def test_masks_fall_where_the_price_is_higher_than_the_gain() -> None:
    """Three Gaussians: opacity brings the first more than its bits cost, the second less, the third nothing."""
    g = Gaussians(
        means=torch.zeros(3, 3),
        quats=torch.ones(3, 4),
        log_scales=torch.zeros(3, 3),
        logit_opacities=torch.zeros(3),
        sh=torch.zeros(3, 1, 3),
    )
    price, bits, penalty = 1e-4, 50.0, 0.03
    state: dict[str, torch.Tensor] = {}
    # By the logit, and the mean opacity's penalty beside it: the gradient by the mask is that by the logit / (1 - o).
    gain = torch.tensor([-2.0, -0.5, 0.0]) * price * bits * 0.5 + penalty / 3 * 0.25
    ctx = SimpleNamespace(
        gaussians=g,
        optimizer=SimpleNamespace(moments={"logit_opacities": (gain, gain)}),
        edits=SimpleNamespace(
            state=state, track=lambda name, init, on_copy: state.__setitem__(name, init(g))
        ),
    )
    masks.track(ctx)  # type: ignore[arg-type]
    masks.set_bits(ctx, torch.full((3,), bits))  # type: ignore[arg-type]
    before = masks.values(ctx).clone()  # type: ignore[arg-type]
    for taken in range(1, 101):
        masks.learn(ctx, price, penalty, taken, 100)  # type: ignore[arg-type]
    moved = masks.values(ctx) - before  # type: ignore[arg-type]
    assert float(moved[0]) > 0.5
    # Where the gradient has one sign a step is as long as the speed says, however large it is, but for the sigmoid.
    assert float(moved[1]) < -0.5
    assert float(moved[2]) < -0.5
    assert bool((masks.values(ctx)[1:] < 0).all())  # type: ignore[arg-type]
