"""Views of one another, against the ray-traced sample scene with its true depth."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from splat.core import Camera
from splat.data import Dataset, read_scene
from splat.data.sample import write_sample
from splat.strategies.sparse import geometry
from splat.strategies.sparse.nearest import nearest
from splat.strategies.sparse.smoothness import variation


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory):
    folder = write_sample(
        tmp_path_factory.mktemp("views") / "sample", views=24, width=96, height=72, points=100, samples=1
    )
    with Dataset(read_scene(folder)) as data:
        yield data, folder


def depth_of(folder: Path, view: int) -> torch.Tensor:
    return torch.from_numpy(np.load(folder / "depths" / f"view_{view:03d}.npy"))


def test_unprojecting_is_undone_by_projecting(sample):
    data, folder = sample
    camera, depth = data.camera(0), depth_of(folder, 0)
    pixels, z = geometry.projected(camera, geometry.unprojected(camera, depth))
    u, v = geometry.pixel_centres(depth)
    # float32 over coordinates of some 100 pixels and depths of some 10 units: 2^-23 of them, a few operations deep.
    torch.testing.assert_close(pixels[..., 0], u.expand_as(z), rtol=0, atol=100 * 2**-20)
    torch.testing.assert_close(pixels[..., 1], v.expand_as(z), rtol=0, atol=100 * 2**-20)
    torch.testing.assert_close(z, depth, rtol=2**-20, atol=0)


def test_true_depths_of_neighbouring_views_agree_and_wrong_ones_do_not(sample):
    data, folder = sample
    here, there = data.camera(0), data.camera(1)
    depths = depth_of(folder, 0), depth_of(folder, 1)

    def difference(depth: torch.Tensor) -> float:
        pixels, z = geometry.projected(there, geometry.unprojected(here, depth))
        kept = geometry.inside(there, pixels, z)
        assert 0.2 < float(kept.float().mean()) < 1
        found = geometry.sampled(depths[1][..., None], pixels)[..., 0]
        return float(((found - z).abs() / z)[kept].median())

    assert difference(depths[0]) < 0.01 < 0.05 < difference(1.2 * depths[0])


def test_sampling_at_pixel_centres_gives_the_pixels():
    image = torch.rand(5, 7, 2)
    u, v = geometry.pixel_centres(image)
    pixels = torch.stack(torch.broadcast_tensors(u, v), -1)
    torch.testing.assert_close(geometry.sampled(image, pixels), image, rtol=0, atol=1e-5)


def test_neighbours_and_baseline():
    def at(x: float) -> Camera:
        pose = torch.eye(4)
        pose[0, 3] = -x
        return Camera(8, 6, 5, 5, 4, 3, pose)

    cameras = [at(0), at(1), at(4), at(4)]
    assert geometry.neighbours(cameras)[0] == [1, 2, 3]
    assert geometry.neighbours(cameras)[2] == [3, 1, 0]
    # Nearest at another place: 1, 1, 3, 3. The median of an even number is the lower one.
    assert geometry.baseline(cameras) == pytest.approx(1)
    assert geometry.baseline([at(2), at(2)]) == 0


def test_between_meets_both_ends_and_stays_rigid(sample):
    data, _ = sample
    a, b = data.camera(0), data.camera(2)
    for share, end in ((0.0, a), (1.0, b)):
        torch.testing.assert_close(
            geometry.between(a, b, share).world_to_camera, end.world_to_camera, rtol=0, atol=1e-5
        )
    middle = geometry.between(a, b, 0.5)
    middle.validate()
    torch.testing.assert_close(middle.position, (a.position + b.position) / 2, rtol=0, atol=1e-5)
    turns = [float((middle.forward @ end.forward).clamp(-1, 1).acos()) for end in (a, b)]
    assert turns[0] == pytest.approx(turns[1], abs=1e-3)


def test_nearest_neighbours_leave_out_the_point_itself():
    points = torch.tensor([[0.0, 0, 0], [1, 0, 0], [1, 0, 0], [5, 0, 0]])
    distance, index = nearest(points, 2)
    assert index[0].tolist() in ([1, 2], [2, 1])
    assert index[1, 0] == 2
    assert index[2, 0] == 1
    torch.testing.assert_close(distance, torch.tensor([[1.0, 1], [0, 1], [0, 1], [4, 4]]))
    assert nearest(points, 9)[0].shape == (4, 3)
    assert nearest(points[:1], 3)[0].shape == (1, 0)
    torch.testing.assert_close(nearest(points, 1, points[3:])[0][:, 0], torch.tensor([5.0, 4, 4, 0]))


def test_variation_is_that_of_disparity_over_its_mean_and_heeds_edges():
    depth = torch.ones(4, 6)
    depth[:, 3:] = 0.5  # disparities 1 and 2: mean 1.5, one step of 1 in five differences of each row
    opaque, flat = torch.ones(4, 6), torch.zeros(4, 6, 3)
    assert float(variation(depth, opaque, flat, 10)) == pytest.approx(1 / 1.5 / 5)
    edge = flat.clone()
    edge[:, 3:] = 1
    assert float(variation(depth, opaque, edge, 10)) == pytest.approx(np.exp(-10) / 1.5 / 5)
    assert float(variation(depth, 0 * opaque, flat, 10)) == 0
    assert float(variation(0 * depth, opaque, flat, 10)) == 0
