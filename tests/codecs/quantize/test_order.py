"""Orders along curves."""

from __future__ import annotations

import torch

from splat.codecs.quantize import morton_codes, morton_order


def test_codes_interleave_bits() -> None:
    last = (1 << 21) - 1
    means = torch.tensor(
        [[0, 0, 0], [1, 0, 0], [0, 2, 0], [0, 0, 3], [last, last, last]], dtype=torch.float64
    )
    assert morton_codes(means).tolist() == [0, 1, 2 << 3, 4 | 4 << 3, (1 << 63) - 1]


def test_far_scenes_keep_their_neighbours() -> None:
    near = torch.rand(500, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert morton_order(near).equal(morton_order(near + 2**20))
    flat = torch.tensor([[5.0, 1.0, 2.0], [5.0, 1.0, 1.0], [5.0, 1.0, 2.0]])
    assert morton_order(flat).tolist() == [1, 0, 2]
    assert morton_order(torch.empty(0, 3)).tolist() == []
