"""A neural head through the commands: trained, exported, drawn and scored from the file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def headed(splat, sample, tmp_path_factory) -> Path:
    """A run with a head, of which no more is left than its folder."""
    run = tmp_path_factory.mktemp("heads") / "run"
    done = splat(
        "train", sample, "--preset", "cpu", "--steps", 40, "--eval", "--out", run, "--device", "cpu",
        "--max-gaussians", 500, "--strategies", "mcmc", "compensation", "--compensation.start", 0.2,
        "--compensation.rate", 0.01,
    )  # fmt: skip
    assert done.code == 0, done.err
    return run


def psnr(splat, *args: object) -> float:
    done = splat("eval", *args, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)["psnr"]


@pytest.mark.parametrize("extension", [".ply", ".glb"])
def test_a_file_scores_as_its_run(splat, headed, sample, tmp_path, extension: str):
    """Float32 in, float32 out: the same picture to rounding."""
    file = tmp_path / f"scene{extension}"
    done = splat("export", headed, file, "--report", "--json")
    assert done.code == 0, done.err
    outcome = json.loads(done.out)
    assert outcome["notes"] == []
    assert outcome["psnr"]["after"] == pytest.approx(outcome["psnr"]["before"], abs=1e-3)
    assert psnr(splat, file, "--data", sample) == pytest.approx(psnr(splat, headed), abs=1e-3)


def test_the_head_is_what_makes_the_difference(splat, headed, sample, tmp_path):
    with_head, without = tmp_path / "with.ply", tmp_path / "without.splat"
    said = splat("export", headed, without).out
    assert "a .splat file does not hold the head compensation" in said
    splat("export", headed, with_head)
    splat("export", without, tmp_path / "bare.ply")
    bare = psnr(splat, tmp_path / "bare.ply", "--data", sample)
    assert abs(psnr(splat, with_head, "--data", sample) - bare) > 0.1
    info = splat("info", with_head).out
    assert "heads" in info
    assert "compensation" in info
    assert json.loads(splat("info", with_head, "--json").out)["heads"]["compensation"]["size"] == "small"


def test_a_vq_file_keeps_it_nearly(splat, headed, sample, tmp_path):
    """What the container rounds of the scene, by codebooks, is far more than what it rounds of the head."""
    done = splat("export", headed, tmp_path / "scene.vq", "--report", "--json")
    outcome = json.loads(done.out)
    assert outcome["notes"] == []
    assert psnr(splat, tmp_path / "scene.vq", "--data", sample) == pytest.approx(
        outcome["psnr"]["after"], abs=1e-6
    )


def test_pruned_moved_and_converted_it_stays(splat, headed, sample, tmp_path):
    splat("export", headed, tmp_path / "a.ply", "--prune", 0.3, "--rotate", 0, 90, 0)
    done = splat("export", tmp_path / "a.ply", tmp_path / "b.glb", "--rotate", 0, -90, 0)
    assert done.code == 0, done.err
    assert "head" not in done.out
    splat("export", headed, tmp_path / "c.ply", "--prune", 0.3)
    # Turned and turned back: rounding of float32 in rotations and harmonics.
    assert psnr(splat, tmp_path / "b.glb", "--data", sample) == pytest.approx(
        psnr(splat, tmp_path / "c.ply", "--data", sample), abs=0.01
    )


def test_pictures_of_the_file_have_it(splat, headed, sample, tmp_path):
    splat("export", headed, tmp_path / "scene.ply")
    for source, out, more in ((headed, "run", ()), (tmp_path / "scene.ply", "file", ("--data", sample))):
        done = splat("render", source, "--cameras", "test", "--out", tmp_path / out, *more)
        assert done.code == 0, done.err
    pictures = sorted(p.name for p in (tmp_path / "run").iterdir())
    assert pictures
    from PIL import Image, ImageChops

    for name in pictures:
        with Image.open(tmp_path / "run" / name) as one, Image.open(tmp_path / "file" / name) as other:
            extrema = ImageChops.difference(one, other).getextrema()
        assert max(high for _, high in extrema) <= 1


def test_a_head_of_a_strategy_that_is_not_installed_is_named(splat, headed, sample, tmp_path):
    file = tmp_path / "scene.ply"
    splat("export", headed, file)
    data = file.read_bytes()
    file.write_bytes(data.replace(b"compensation", b"unheard_name"))
    done = splat("eval", file, "--data", sample, "--json")
    assert done.code == 0
    assert "the head unheard_name is left out: no strategy of that name is installed" in done.err
