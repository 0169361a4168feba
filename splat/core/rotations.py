"""Rotations: quaternions wxyz, matrices and axis-angle vectors."""

from __future__ import annotations

import torch
from torch import Tensor


def quat_to_matrix(quats: Tensor) -> Tensor:
    """[..., 3, 3] rotation matrices of quaternions wxyz [..., 4] of any length above zero.

    A zero quaternion stands for no rotation: the matrix is the identity and the gradient zero.
    """
    norm = torch.linalg.vector_norm(quats, dim=-1, keepdim=True)
    w, x, y, z = (quats / norm.clamp_min(torch.finfo(quats.dtype).tiny)).unbind(-1)
    return torch.stack(
        [
            1 - 2 * (y * y + z * z),
            2 * (x * y - w * z),
            2 * (x * z + w * y),
            2 * (x * y + w * z),
            1 - 2 * (x * x + z * z),
            2 * (y * z - w * x),
            2 * (x * z - w * y),
            2 * (y * z + w * x),
            1 - 2 * (x * x + y * y),
        ],
        -1,
    ).unflatten(-1, (3, 3))


def matrix_to_quat(matrices: Tensor) -> Tensor:
    """[..., 4] unit quaternions wxyz, w >= 0, of rotation matrices [..., 3, 3].

    4 q q^T is linear in the matrix; the column with the largest diagonal entry is q times a number of
    at least 1, so that nothing cancels.
    """
    m = matrices
    xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
    wx, wy, wz = m[..., 2, 1] - m[..., 1, 2], m[..., 0, 2] - m[..., 2, 0], m[..., 1, 0] - m[..., 0, 1]
    xy, xz, yz = m[..., 1, 0] + m[..., 0, 1], m[..., 0, 2] + m[..., 2, 0], m[..., 2, 1] + m[..., 1, 2]
    outer = torch.stack(
        [
            torch.stack([1 + xx + yy + zz, wx, wy, wz], -1),
            torch.stack([wx, 1 + xx - yy - zz, xy, xz], -1),
            torch.stack([wy, xy, 1 - xx + yy - zz, yz], -1),
            torch.stack([wz, xz, yz, 1 - xx - yy + zz], -1),
        ],
        -2,
    )
    best = outer.diagonal(dim1=-2, dim2=-1).argmax(-1)
    column = torch.take_along_dim(outer, best[..., None, None], -2).squeeze(-2)
    quats = torch.nn.functional.normalize(column, dim=-1)
    return torch.where(quats[..., :1] < 0, -quats, quats)


def quat_multiply(a: Tensor, b: Tensor) -> Tensor:
    """[..., 4] product wxyz: first turn by `b`, then by `a`."""
    aw, ax, ay, az = a.unbind(-1)
    bw, bx, by, bz = b.unbind(-1)
    return torch.stack(
        [
            aw * bw - ax * bx - ay * by - az * bz,
            aw * bx + ax * bw + ay * bz - az * by,
            aw * by - ax * bz + ay * bw + az * bx,
            aw * bz + ax * by - ay * bx + az * bw,
        ],
        -1,
    )


def quat_conjugate(quats: Tensor) -> Tensor:
    """[..., 4] the opposite turns of unit quaternions wxyz."""
    return quats * torch.tensor([1, -1, -1, -1], dtype=quats.dtype, device=quats.device)


def quat_exp(vectors: Tensor) -> Tensor:
    """[..., 4] unit quaternions wxyz of rotations by |v| radians about v, of `vectors` [..., 3]."""
    half = vectors.norm(dim=-1, keepdim=True) / 2
    # torch.sinc(x) = sin(pi x) / (pi x), 1 at zero.
    return torch.cat([torch.cos(half), torch.sinc(half / torch.pi) * vectors / 2], -1)


def quat_log(quats: Tensor) -> Tensor:
    """[..., 3] rotation vectors, at most pi long, of unit quaternions wxyz; the inverse of `quat_exp`."""
    quats = torch.where(quats[..., :1] < 0, -quats, quats)
    sine = quats[..., 1:].norm(dim=-1, keepdim=True)
    angle = 2 * torch.atan2(sine, quats[..., :1])
    tiny = sine < torch.finfo(quats.dtype).tiny
    # 2 atan2(s, w) / s -> 2 as s -> 0.
    return torch.where(tiny, torch.full_like(sine, 2), angle / torch.where(tiny, 1, sine)) * quats[..., 1:]


def cross_matrix(vectors: Tensor) -> Tensor:
    """[..., 3, 3] matrices V with V u = v x u of `vectors` [..., 3]."""
    x, y, z = vectors.unbind(-1)
    zero = torch.zeros_like(x)
    return torch.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).unflatten(-1, (3, 3))


def exp_map(vectors: Tensor) -> Tensor:
    """[..., 3, 3] rotations by |v| radians about v, of `vectors` [..., 3] (Rodrigues).

    Differentiable everywhere, also at zero, where the series takes over from the quotients.
    """
    square = (vectors * vectors).sum(-1)[..., None, None]
    small = square < 1e-6
    safe = torch.where(small, torch.ones_like(square), square)
    angle = torch.sqrt(safe)
    first = torch.where(small, 1 - square / 6 + square * square / 120, torch.sin(angle) / angle)
    second = torch.where(small, 0.5 - square / 24 + square * square / 720, (1 - torch.cos(angle)) / safe)
    v = cross_matrix(vectors)
    return torch.eye(3, dtype=vectors.dtype, device=vectors.device) + first * v + second * (v @ v)
