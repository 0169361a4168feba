"""A photograph and a picture in one."""

from __future__ import annotations

import torch

from splat.core import Camera
from splat.viewer.comparing import COMPARISONS, beside, difference, over, wipe

DRAWN = torch.full((6, 12, 3), 0.25)
CAMERA = Camera(12, 6, 10.0, 10.0, 6.0, 3.0, torch.eye(4))


def photograph(camera: Camera):
    """White, where a camera of focal length 10 sees the middle eight columns and all rows."""
    column = torch.arange(camera.width) + 0.5 - camera.cx
    inside = (column.abs() < 4)[None].expand(camera.height, -1)
    return torch.ones(camera.height, camera.width, 3), inside


def test_wipe_and_over():
    mixed = wipe(DRAWN, photograph, CAMERA, 0.5)[0, :, 0].tolist()
    assert mixed == [0.25] * 2 + [1.0] * 4 + [1.0] + [0.25] * 5
    assert over(DRAWN, photograph, CAMERA, 0.0)[0, :, 0].tolist() == [0.25] * 2 + [1.0] * 8 + [0.25] * 2


def test_beside_shows_both_middles_at_one_scale():
    ramp = torch.linspace(0, 0.5, 12)[None, :, None].expand(6, 12, 3)
    both = beside(ramp, photograph, CAMERA, 0.0)
    assert both.shape == ramp.shape
    assert both[0, :6, 0].tolist() == [1.0] * 6  # the middle six columns, all of them photographed
    assert torch.equal(both[:, 7:], ramp[:, 4:9])


def test_difference_is_four_times_as_bright():
    found = difference(DRAWN + 0.7, photograph, CAMERA, 0.0)
    assert torch.allclose(found[0, 4], torch.tensor(4 * 0.05))
    assert torch.allclose(found[0, 0], torch.tensor(0.3 * 0.95))


def test_without_a_photograph_nothing_changes():
    for compare in COMPARISONS.values():
        if compare is not None:
            assert torch.equal(compare(DRAWN, lambda camera: None, CAMERA, 0.5), DRAWN)
