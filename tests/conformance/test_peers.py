"""Our files as others read them, and theirs as we do: every format, with the tools that people use.

Both sides read the same bytes, so that what they find agrees to the rounding of float32, however coarse the format.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import peers
import pytest
import torch
from conformance import NODE, READER, THEIRS, Bench, Variant, key_of, scene, variants

from splat import codecs
from splat.core import Gaussians
from splat.core.transforms import Similarity, transform_gaussians

# Absolute, in logarithms of scale, opacities, components of unit quaternions and coefficients; centres relative to
# the scene's size.
AGREE = 1e-5
# The axes of a .ply, and so ours, are right, down, forward; those of SPZ right, up, back, of glTF left, up, front:
# half a turn about x, or about z. These peers take the file's own, both in reading and in writing.
OWN_AXES = {".spz": {"gaussforge", "gsply", "three", "gaussian-splats-3d"}, ".glb": {"three"}}
SIGNS = {".spz": (1.0, -1.0, -1.0), ".glb": (-1.0, -1.0, 1.0)}

# Where a peer departs from the format's authors: what it may be off by, and why.
DEPARTURES = {
    # A byte b of a rotation is (b - 128) / 128 to the authors; this peer takes 2 b / 255 - 1, less by up to 1/128.
    ("splat-transform", ".splat"): {"quats": 2**-7},
}
# gaussian-splats-3d does not bring rotations to length 1: half floats are off by 2^-11, their squares' sum by 2^-10,
# a rotation's entries by 2^-9, and a covariance, which has the rotation twice, by 2^-8.
HALF_FLOATS = 2**-8
# SPZ 2 leaves w = sqrt(1 - s) out, and each reader rounds s, the sum of three squares, in float32: sqrt(3 * 2^-24).
LEFT_OUT = 4.3e-4


def assert_agree(found: Gaussians, expected: Gaussians, departure: dict[str, float] | None = None) -> None:
    assert len(found) == len(expected)
    assert found.sh_degree == expected.sh_degree
    size = float(expected.means.abs().max())
    for name, difference in codecs.differences(found, expected).items():
        allowed = AGREE * (1 + size if name == "means" else 1) + (departure or {}).get(name, 0)
        assert difference <= allowed, (name, difference)


def assert_drawn(found: peers.Drawn, expected: Gaussians, rotations: float = 0) -> None:
    """A renderer rounds colours to bytes, and may round harmonics; the rest is float32."""
    wanted = peers.drawn(expected)
    assert found.centers.shape == wanted.centers.shape
    assert float((found.centers - wanted.centers).abs().max()) <= AGREE * (
        1 + float(wanted.centers.abs().max())
    )
    trace = wanted.covariances[:, [0, 3, 5]].sum(1, keepdim=True)
    # Squares of scales and of quaternions: a few roundings of float32 each.
    assert float(((found.covariances - wanted.covariances) / trace).abs().max()) <= AGREE + rotations
    # Cut or rounded to a byte, after a float32 product.
    assert float((found.colors - wanted.colors).abs().max()) <= 1 + 1e-3
    if found.harmonics is not None:
        bands = found.harmonics.shape[1]
        kept = wanted.harmonics[:, :bands]
        rounding = 0.5 / 128 if found.packed else 0.0
        assert float((found.harmonics - kept).abs().max()) <= rounding + AGREE


def seen_by(peer: str, file: Path, bench: Bench) -> Gaussians | peers.Drawn:
    """What `peer` finds in `file`; skips where it is not installed."""
    if peer in NODE:
        answer = bench.answer(file, peer)
        return codecs.decode(answer)[0] if peer == "splat-transform" else peers.read_drawn(answer)
    pytest.importorskip(peer, reason=f"{peer} is not installed")
    if peer == "gaussforge":
        return peers.forge_read(file, bench.folder)
    return peers.gsply_read(file)


def compare(found: Gaussians | peers.Drawn, file: Path, peer: str) -> None:
    expected = codecs.decode(file)[0]
    if peer in OWN_AXES.get(file.suffix, ()):
        expected = in_own_axes(expected, file.suffix)
    if isinstance(found, Gaussians):
        departure = (
            {"quats": LEFT_OUT} if file.name.startswith("spz2") else DEPARTURES.get((peer, file.suffix))
        )
        assert_agree(found, expected, departure)
    else:
        assert_drawn(found, expected, HALF_FLOATS if file.suffix == ".ksplat" else 0)


def in_own_axes(scene: Gaussians, suffix: str) -> Gaussians:
    """Between the axes of a format and ours; the Gaussians' own axes turn as well, as the formats have it."""
    signs = torch.tensor(SIGNS[suffix])
    turned = transform_gaussians(scene, Similarity(torch.diag(signs).double(), torch.zeros(3).double()))
    return replace(turned, quats=scene.quats * torch.cat([torch.ones(1), signs]))


@pytest.mark.parametrize(
    ("variant", "degree", "peer"),
    [
        pytest.param(variant, degree, peer, id=f"{variant.name}-{degree}-{peer}")
        for variant, degree in variants()
        for peer in variant.readers
    ],
)
def test_others_read_ours(bench: Bench, variant: Variant, degree: int, peer: str) -> None:
    file = bench.ours[variant.name, degree]
    compare(seen_by(peer, file, bench), file, peer)


@pytest.mark.parametrize(
    ("writer", "extension", "options", "degree"),
    [
        pytest.param(
            *case[:3], degree, id=f"{case[0]}{case[1]}-{'-'.join(map(str, case[2].values()))}-{degree}"
        )
        for case in THEIRS
        for degree in case[3]
        if any(end == case[1] for form in codecs.formats() for end in form.extensions)
    ],
)
def test_we_read_theirs(
    bench: Bench, writer: str, extension: str, options: dict[str, Any], degree: int
) -> None:
    """As the writer itself reads it; and it is the scene, as far as the format goes."""
    file = bench.theirs[key_of(writer, extension, options, degree)]
    reader = READER.get((writer, extension), writer)
    found = seen_by(reader, file, bench)
    compare(found, file, reader)
    ours = codecs.decode(file)[0]
    if writer in OWN_AXES.get(extension, ()):
        ours = in_own_axes(ours, extension)
    assert_same_scene(ours, scene(degree))


def assert_same_scene(found: Gaussians, original: Gaussians) -> None:
    """The coarsest of the formats (5 bits of a coefficient, 1/16 in the logarithm of a scale, truncated by some) keeps
    each value within a tenth; what is mixed up, turned or mirrored is off by far more in most rows."""
    rows = nearest(found.means, original.means)
    assert len(rows.unique()) >= 0.98 * len(original)
    off = codecs.differences(found.select(rows), original)
    assert off["means"] <= 0.02
    assert off["opacities"] <= 0.02
    assert off["sh0"] <= 0.1


def nearest(found: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """[M] the row of `found` that is nearest to each row of `wanted` [M, 3]."""
    return torch.cdist(wanted.double(), found.double()).argmin(1)


@pytest.mark.parametrize("form", ["_v3.spz", "_v4.spz", ".sog", ".compressed.ply"])
def test_real_files_agree(shared_data: Callable[[str], Path], tmp_path: Path, form: str) -> None:
    """One real scene in four formats, by another's hand, as gaussforge reads it."""
    pytest.importorskip("gaussforge", reason="gaussforge is not installed")
    file = shared_data("splats/converted") / f"kacytran_sh3{form}"
    compare(peers.forge_read(file, tmp_path), file, "gaussforge")
