"""A scene and its cameras moved together give the same picture."""

from __future__ import annotations

import pytest
import scenes
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splat.core import rotations
from splat.core.transforms import Similarity, transform_camera, transform_gaussians
from splat.raster import RenderOptions, render

F64 = torch.float64
vector = st.tuples(*[st.floats(-3, 3)] * 3)
similarity = st.builds(
    lambda turn, move, scale: Similarity(
        rotations.exp_map(torch.tensor(turn, dtype=F64)), torch.tensor(move, dtype=F64), scale
    ),
    vector,
    vector,
    st.floats(0.1, 10),
)


@settings(max_examples=15)
@given(transform=similarity, antialiased=st.booleans())
def test_the_picture_stays(transform: Similarity, antialiased: bool) -> None:
    """Exact but for rounding: float64, a smooth scene, and no centre near the near plane. Depths scale."""
    scene, camera = scenes.soft(antialiased=antialiased), scenes.camera()
    options = RenderOptions(backend="reference", needs=frozenset({"depth"}))
    before = render(scene, camera, options)
    after = render(transform_gaussians(scene, transform), transform_camera(camera, transform), options)
    torch.testing.assert_close(after.image, before.image, rtol=0, atol=1e-10)
    torch.testing.assert_close(after.alpha, before.alpha, rtol=0, atol=1e-10)
    torch.testing.assert_close(after.depth, transform.scale * before.depth, rtol=1e-10, atol=0)


@settings(max_examples=50)
@given(a=similarity, b=similarity)
def test_transforms_compose_and_invert(a: Similarity, b: Similarity) -> None:
    points = torch.randn(5, 3, dtype=F64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(a.after(b).points(points), a.points(b.points(points)))
    torch.testing.assert_close(a.inverse().points(a.points(points)), points, rtol=0, atol=1e-10)
    torch.testing.assert_close(Similarity.identity().points(points), points)


@settings(max_examples=25)
@given(transform=similarity)
def test_covariances_turn_and_scale(transform: Similarity) -> None:
    scene = scenes.soft()
    rotation = transform.rotation
    expected = transform.scale**2 * rotation @ scene.covariances() @ rotation.T
    torch.testing.assert_close(transform_gaussians(scene, transform).covariances(), expected)


def test_float32_scenes_keep_their_type_and_the_rest() -> None:
    scene = scenes.soft(antialiased=True).to(torch.float32)
    scene.extras["label"] = torch.arange(7)
    moved = transform_gaussians(scene, Similarity(torch.eye(3, dtype=F64), torch.ones(3, dtype=F64), 2.0))
    moved.validate()
    assert moved.dtype == torch.float32
    assert moved.antialiased
    assert torch.equal(moved.extras["label"], scene.extras["label"])
    assert torch.equal(moved.logit_opacities, scene.logit_opacities)


def test_what_is_no_similarity() -> None:
    zero = torch.zeros(3, dtype=F64)
    with pytest.raises(ValueError, match="proper rotation"):
        Similarity(-torch.eye(3, dtype=F64), zero)
    with pytest.raises(ValueError, match="proper rotation"):
        Similarity(2 * torch.eye(3, dtype=F64), zero)
    with pytest.raises(ValueError, match="scale must be positive"):
        Similarity(torch.eye(3, dtype=F64), zero, 0.0)
