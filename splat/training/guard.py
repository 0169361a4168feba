"""NaN and infinite parameters are found before they spread and never reach the disk."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from splat.core import SplatError
from splat.training.context import Field


class NotFinite(SplatError):
    """A parameter or the loss became NaN or infinite; what was saved before is sound."""


_GEOMETRY = ("means", "quats", "log_scales", "logit_opacities")


def check_geometry(fields: Iterable[Field], step: int) -> None:
    """NotFinite if a place, rotation, scale or opacity is: a fifth of the numbers, cheap at every step."""
    for field in fields:
        sums = [getattr(field.gaussians, name).detach().sum() for name in _GEOMETRY]
        if not math.isfinite(torch.stack(sums).sum()):
            report([field], step, step, None)


def doubtful(fields: Iterable[Field]) -> Tensor:
    """How many tensors of parameters may hold a value that is not finite: a scalar on their device.

    One pass over them: a sum is finite unless a term is not, but for overflow, which `report` rules out.
    """
    sums = [value.detach().sum() for field in fields for _, value in field.optimizer.trained()]
    return (~torch.isfinite(torch.stack(sums))).sum()


def check(fields: Iterable[Field], first: int, last: int) -> None:
    """NotFinite if any parameter is; it became so in one of the 1-based steps `first` to `last`."""
    if doubtful(fields):
        report(fields, first, last, None)


def report(fields: Iterable[Field], first: int, last: int, cause: str | None) -> None:
    """Raise NotFinite with the first Gaussian that is not finite; return if there is none and no `cause`."""
    when = f"step {last}" if first == last else f"one of the steps {first} to {last}"
    for field in fields:
        for name, value in field.optimizer.trained():
            bad = ~torch.isfinite(value.detach()).reshape(value.shape[0], -1).all(1)
            if bad.any():
                index = int(bad.nonzero()[0, 0])
                raise NotFinite(
                    f"{when} made {int(bad.sum())} Gaussians of field {field.name!r} NaN or infinite "
                    f"({name}); nothing of it was saved: resume from the last checkpoint with lower rates\n"
                    + _description(field, index)
                )
    if cause is not None:
        raise NotFinite(
            f"step {last}: {cause}, with every Gaussian finite; nothing of it was saved: "
            "resume from the last checkpoint with lower rates, and check that photograph"
        )


def _description(field: Field, index: int) -> str:
    """The values of one Gaussian, a line each."""
    lines = [f"Gaussian {index}:"]
    for name, value in field.gaussians.named_tensors():
        lines.append(f"  {name}: {_numbers(value[index])}")
    return "\n".join(lines)


def _numbers(value: Tensor) -> str:
    flat = [f"{v:.6g}" for v in value.detach().reshape(-1).tolist()]
    return " ".join(flat[:12]) + (f" ... ({len(flat)} values)" if len(flat) > 12 else "")
