"""Any format and back, through the command: the same Gaussians in the same place, and the same bytes each time."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
import scenes
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from splat import codecs
from splat.core import Gaussians, sh

WRITTEN = codecs.extensions()


def made(seed: int, count: int, degree: int, spread: float, antialiased: bool) -> Gaussians:
    """Random Gaussians, float32, of a size that goes with `spread`."""
    base = scenes.mixed(count, seed, antialiased).to(torch.float32)
    return replace(
        base,
        means=base.means * spread,
        log_scales=base.log_scales - 2 + torch.tensor(spread).log(),
        logit_opacities=base.logit_opacities.clamp(-4, 4),
        sh=0.4 * base.sh[:, : sh.coefficients(degree)].clamp(-3, 3),
    )


def named(folder: Path, stem: str, extension: str) -> Path:
    return folder / stem / (f"scene{extension}" if extension.startswith(".") else extension)


@pytest.mark.parametrize("extension", WRITTEN)
@settings(max_examples=4, phases=[Phase.generate])
@given(
    seed=st.integers(0, 2**16),
    count=st.integers(1, 90),
    degree=st.integers(0, 3),
    spread=st.sampled_from([0.01, 1.0, 30.0]),
    antialiased=st.booleans(),
    up_axis=st.sampled_from([None, "-y", "z"]),
)
def test_any_format_and_back(splat, extension, seed, count, degree, spread, antialiased, up_axis):
    scene = made(seed, count, degree, spread, antialiased)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        source, back = folder / "source.ply", folder / "back.ply"
        codecs.encode(scene, source, {"up_axis": up_axis} if up_axis else {})
        first, second = (named(folder, stem, extension) for stem in ("first", "second"))
        for out in (first, second):
            done = splat("export", source, out)
            assert done.code == 0, done.err
        done = splat("export", first if extension.startswith(".") else first.parent, back)
        assert done.code == 0, done.err
        for file in first.parent.iterdir():
            assert file.read_bytes() == (second.parent / file.name).read_bytes(), file.name
        found, metadata = codecs.decode(back)

    form = codecs.format_to_write(first)
    held = replace(scene, sh=scene.sh[:, : sh.coefficients(min(degree, form.sh_degree))])
    as_written = form.order(scene, {}, form.options()) if form.order is not None else torch.arange(count)
    assert sorted(as_written.tolist()) == list(range(count))
    assert len(found) == count
    assert found.sh_degree == held.sh_degree
    assert found.antialiased == (antialiased and "antialiased" in form.holds)
    assert metadata.get("up_axis") == (up_axis if "up_axis" in form.holds else None)
    assert form.max_error is not None
    allowed = form.max_error(scene, form.options())
    for name, difference in codecs.differences(found, held.select(as_written)).items():
        assert difference <= allowed[name], (name, difference, allowed[name])
