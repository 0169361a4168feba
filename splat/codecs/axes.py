"""Scenes in other axes: formats that fix what x, y and z point to.

Axes are three letters: right or left, up or down, front or back, in the order x, y, z. Scenes of COLMAP, and PLY
files by custom, are RDF; OpenGL, glTF's and SPZ's own are RUB.
"""

from __future__ import annotations

import torch
from torch import Tensor

from splat.core import Gaussians, sh
from splat.core.transforms import Similarity, transform_gaussians

_OPPOSITE = {"R": "L", "L": "R", "U": "D", "D": "U", "F": "B", "B": "F"}


def flips(source: str, target: str) -> tuple[float, float, float]:
    """The signs by which x, y and z change between axes that differ in signs alone."""
    signs = [1.0 if a == b else -1.0 for a, b in zip(source, target, strict=True)]
    if any(b not in (a, _OPPOSITE[a]) for a, b in zip(source, target, strict=True)):
        raise ValueError(f"axes {source} and {target} differ in more than signs")
    return signs[0], signs[1], signs[2]


def quat_signs(signs: tuple[float, float, float]) -> tuple[float, float, float, float]:
    """What a flip of axes does to quaternions wxyz: S R S of the rotation R.

    Where S mirrors, the local axes are mirrored with the world's, which no ellipsoid shows.
    """
    x, y, z = signs
    return 1.0, y * z, x * z, x * y


def sh_signs(signs: tuple[float, float, float], count: int) -> Tensor:
    """[K] what a flip of axes does to harmonics: each basis function is even or odd in x, in y and in z."""
    somewhere = torch.nn.functional.normalize(torch.tensor([[0.36, 0.51, 0.73]], dtype=torch.float64), dim=1)
    degree = sh.degree_of(count)
    flipped = somewhere * torch.tensor(signs, dtype=torch.float64)
    return (sh.basis(flipped, degree) / sh.basis(somewhere, degree))[0].sign().float()


def convert(gaussians: Gaussians, source: str, target: str) -> Gaussians:
    """The scene given in axes `source` in axes `target`, which may also exchange y and z."""
    if source[1] in "FB":
        # First to right, front, up by signs; then a quarter turn about x: front becomes z, down y.
        turned = convert_signs(gaussians, flips(source, "RFU"))
        turn = torch.tensor([[1, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64)
        return convert(
            transform_gaussians(turned, Similarity(turn, torch.zeros(3, dtype=torch.float64))), "RDF", target
        )
    return convert_signs(gaussians, flips(source, target))


def convert_signs(gaussians: Gaussians, signs: tuple[float, float, float]) -> Gaussians:
    """The scene with some axes flipped, in place where it changes."""
    if signs != (1.0, 1.0, 1.0):
        gaussians.means *= torch.tensor(signs)
        gaussians.quats *= torch.tensor(quat_signs(signs))
        gaussians.sh *= sh_signs(signs, gaussians.sh.shape[1])[:, None]
    return gaussians
