"""Scenes for the codecs' tests, formats with the options that they are tested with, and memory limits."""

from __future__ import annotations

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from splat.codecs import decode, differences, encode, format_to_write
from splat.codecs.options import settle_options
from splat.core import Gaussians, sh

# Every format that is written, with each of the options that change its bytes.
CASES: list[tuple[str, dict[str, Any]]] = [
    (".ply", {}),
    (".ply", {"normals": False}),
    (".compressed.ply", {}),
    (".splat", {}),
    (".ksplat", {"level": 0}),
    (".ksplat", {"level": 1}),
    (".ksplat", {"level": 2}),
    (".spz", {"version": 2}),
    (".spz", {"version": 3}),
    (".spz", {"version": 4, "sh1_bits": 8, "sh_rest_bits": 2}),
    (".glb", {}),
    (".gltf", {}),
    (".sog", {"palette": 64}),
]


def name_of(case: tuple[str, dict[str, Any]]) -> str:
    return case[0][1:] + "".join(f"-{key}{value}" for key, value in case[1].items())


def scene(count: int, degree: int, seed: int, spread: float = 1.0, antialiased: bool = False) -> Gaussians:
    """Random Gaussians, float32; with `spread` above 1 some values lie outside of what bytes hold."""
    g = torch.Generator().manual_seed(seed)
    k = sh.coefficients(degree)
    found = Gaussians(
        means=spread * 3 * torch.randn(count, 3, generator=g),
        quats=torch.randn(count, 4, generator=g) * 10 ** (2 * torch.rand(count, 1, generator=g) - 1),
        log_scales=-3 + 1.5 * spread * torch.randn(count, 3, generator=g),
        logit_opacities=2.5 * spread * torch.randn(count, generator=g),
        sh=torch.cat(
            [torch.randn(count, 1, 3, generator=g), 0.2 * torch.randn(count, k - 1, 3, generator=g)], 1
        ),
        antialiased=antialiased,
    )
    found.sh *= spread
    return found


def round_trip(path: Path, given: Gaussians, options: dict[str, Any]) -> tuple[Gaussians, dict[str, Any]]:
    """Writes and reads; asserts that every value is within the format's own bound. Returns what was read."""
    form = format_to_write(path)
    encode(given, path, None, options)
    back, metadata = decode(path)
    settled = settle_options(form, options)
    kept = given if form.order is None else given.select(form.order(given, {}, settled))
    stored = min(given.sh_degree, form.sh_degree)
    assert back.sh_degree == stored
    assert len(back) == len(given)
    kept = replace(kept, sh=kept.sh[:, : sh.coefficients(stored)])
    assert form.max_error is not None
    bound = form.max_error(given, settled)
    for what, error in differences(kept, back).items():
        assert error <= bound[what], f"{what}: {error} > {bound[what]}"
    return back, metadata


@contextmanager
def memory_limit(extra: int) -> Iterator[None]:
    """Lets the process have at most `extra` bytes of address space beyond what it has."""
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held + extra, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
