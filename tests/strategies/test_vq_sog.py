"""SOG's layout in training: steps within its bytes, codebooks by channel, the palette's own values."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from splat import codecs
from splat.codecs import sog, sog_quantize
from splat.core import Gaussians
from splat.core.rotations import quat_to_matrix
from splat.strategies.vq.scalars import Scalars
from splat.strategies.vq.sog_steps import Steps, canonical, pack, unpack


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def scene(count: int = 400) -> Gaussians:
    return Gaussians(
        means=3 * random(count, 3),
        quats=random(count, 4, seed=1),
        log_scales=random(count, 3, seed=2) - 3,
        logit_opacities=random(count, seed=3),
        sh=random(count, 4, 3, seed=4),
    )


def weights(count: int, value: float) -> dict[str, torch.Tensor]:
    plain = {name: torch.full((count,), value) for name in ("means", "scale", "opacity", "color")}
    return plain | {"turns": torch.full((count, 3), value)}


def test_a_writer_packs_what_is_drawn_to_the_same_bytes() -> None:
    """Every way to turn and round: what `unpack` gives has one encoding, and it is the one it came from."""
    quats = random(4000, 4)
    # Nearly equal components are where rounding could make a stored one the largest.
    quats[:500] = torch.tensor([1.0, 1.0, -1.0, 1.0]) + 0.02 * quats[:500]
    for snap in range(4):
        for level in range(8):
            packed = pack(quats, torch.full((4000,), snap), torch.full((4000,), level))
            again = sog_quantize.pack_quats(unpack(packed))
            assert np.array_equal(again, packed.numpy())


def test_fine_rotations_are_as_near_as_the_bytes_allow() -> None:
    """The other three components move the fourth by at most their sum over it, 3 here: within 4 half steps in all."""
    quats = torch.nn.functional.normalize(random(4000, 4), dim=1)
    zero = torch.zeros(4000, dtype=torch.int64)
    found = unpack(pack(quats, zero, zero))
    apart = torch.minimum((found - quats).abs().amax(1), (found + quats).abs().amax(1))
    assert float(apart.max()) <= 2 * sog_quantize.COMPONENT_STEP


def test_the_canonical_form_draws_the_same_shape() -> None:
    quats = torch.nn.functional.normalize(random(500, 4), dim=1).double()
    form = canonical(quats)
    assert bool((form[:, 0].abs() >= form.abs().amax(1) - 1e-12).all())
    turned = quat_to_matrix(quats).mT @ quat_to_matrix(form)
    assert torch.allclose(turned.abs(), torch.eye(3, dtype=torch.float64).expand(500, 3, 3), atol=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_turns_that_cost_nothing_are_left_out(axis: int) -> None:
    """Of a rotation whose turn about one of its axes does not matter one component is the byte of zero."""
    g = scene()
    weight = weights(400, 1.0)
    weight["turns"][:, axis] = 1e-12
    steps = Steps()
    steps.begin(g)
    levels = steps.choose(g, weight, 1e-5)
    for _ in range(4):  # with the bits of what was chosen before
        steps.count(g, levels)
        levels = steps.choose(g, weight, 1e-5)
    assert float((levels[:, 4] == axis + 1).float().mean()) > 0.9
    packed = pack(canonical(g.quats), levels[:, 4], levels[:, 5])
    stored = sog_quantize.KEPT.tolist()[0].index(axis + 1)
    plain = (levels[:, 4] == axis + 1) & (packed[:, 3] == sog_quantize.MODES)
    assert bool((packed[plain, stored] == 128).all())


def test_steps_follow_the_price() -> None:
    """Errors are within half a step of the level, which a price that is 4 times as high doubles."""
    g = scene()
    steps = Steps()
    steps.begin(g)
    last = None
    for lam in (1e-7, 4e-7, 1.6e-6):
        levels = steps.choose(g, weights(400, 1.0), lam)
        means, _, opacity = steps.shown(g, levels)
        wanted = (6 * lam / np.log(2)) ** 0.5
        # A power of two is within sqrt 2 of what is wanted, and logarithms have their steps at the nearer end wider.
        inside = (levels[:, :3] > 0) & (levels[:, :3] < 8) & (g.means.abs() < 6)
        assert float(((means - g.means).abs() / wanted)[inside].max()) < 0.5 * 2**0.5 * 1.05
        kept = (g.opacities() - opacity).abs() * 255
        assert bool((kept <= torch.exp2(levels[:, 3].float()) / 2 + 1e-3).all())
        if last is not None:
            inside = (levels[:, :3] < 8) & (last > 0)
            assert bool((levels[:, :3] - last)[inside].eq(1).all())
        last = levels[:, :3]


def test_channels_have_counts_of_their_own() -> None:
    """A channel that has one value takes no bits, whatever the others have."""
    points = random(2000, 3)
    points[:, 1] = 0.25
    book = Scalars()
    labels = book.begin(points, 64, torch.ones(2000), 1e-6)
    assert float(book.bits[1, labels[:, 1]].max()) < 0.2 < 3 < float(book.bits[0, labels[:, 0]].mean())
    assert book.centroids.equal(sog_quantize.written(book.centroids))


def test_learned_bounds_of_centres_are_kept_where_they_fit(tmp_path: Path) -> None:
    g = scene(50)
    logs = g.means.double().sign() * g.means.double().abs().log1p()
    wide = {"low": logs.amin(0) - 1, "high": logs.amax(0) + 1}
    codecs.encode(g, tmp_path / "a.sog", {"codebooks": {"sog": wide}})
    places = (logs - wide["low"]) / (wide["high"] - wide["low"]) * 65535
    rounded = wide["low"] + (wide["high"] - wide["low"]) * places.round() / 65535
    order = sog.order(g, {"codebooks": {"sog": wide}}, sog.SogOptions())
    found = codecs.decode(tmp_path / "a.sog")[0].means.double()
    expected = rounded.sign() * rounded.abs().expm1()
    assert torch.allclose(found, expected[order], rtol=1e-6, atol=1e-6)
    narrow = {"low": logs.amin(0) + 1, "high": logs.amax(0)}
    codecs.encode(g, tmp_path / "b.sog", {"codebooks": {"sog": narrow}})
    codecs.encode(g, tmp_path / "c.sog")
    assert (tmp_path / "b.sog").read_bytes() == (tmp_path / "c.sog").read_bytes()
    with pytest.raises(Exception, match="low and high belong together"):
        codecs.encode(g, tmp_path / "d.sog", {"codebooks": {"sog": {"low": wide["low"]}}})
