"""Damaged COLMAP models give a DataError that says what to do; never a crash, a hang or a silent half."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pycolmap
import pytest
import torch
from hypothesis import settings

from splat.core import DataError
from splat.data import read_scene


@pytest.fixture(scope="module")
def text_model(small_sample, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("text")
    pycolmap.Reconstruction(str(small_sample / "sparse" / "0")).write_text(str(folder))
    return folder


@pytest.mark.fuzz
@pytest.mark.parametrize("suffix", [".bin", ".txt"])
def test_damaged_models_in_a_child_process(suffix, small_sample, text_model, tmp_path):
    source = small_sample / "sparse" / "0" if suffix == ".bin" else text_model
    cases = settings().max_examples
    script = Path(__file__).with_name("damage.py")
    command = [sys.executable, str(script), str(source), str(tmp_path / "scratch"), str(cases), suffix]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60 + cases)
    lines = done.stdout.splitlines()
    assert done.returncode == 0, f"the process ended in {lines[-1:]}: {done.stderr[-2000:]}"
    assert lines.count("case 0") == 1
    assert sum(line.startswith("case") for line in lines) == cases
    assert [line for line in lines if line.startswith("FAILED")] == []


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.99])
def test_truncated_file_is_named(name, share, sample):
    path = sample / "sparse" / "0" / name
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError) as caught:
        read_scene(sample)
    first = str(caught.value).splitlines()[0]
    assert first.startswith(f"{path}: truncated")
    assert first.endswith("; copy the model again, or run COLMAP's mapper again")


@pytest.mark.parametrize("name", ["cameras.bin", "images.bin", "points3D.bin"])
def test_missing_file_is_named(name, sample):
    path = sample / "sparse" / "0" / name
    path.unlink()
    with pytest.raises(DataError, match=f"^{path}: no such file; copy the whole"):
        read_scene(sample)


def test_truncated_text_is_named(text_model, sample):
    for path in (sample / "sparse" / "0").iterdir():
        path.unlink()
    for path in text_model.iterdir():
        (sample / "sparse" / "0" / path.name).write_bytes(path.read_bytes())
    assert len(read_scene(sample).frames) == 6
    points = sample / "sparse" / "0" / "points3D.txt"
    lines = points.read_text().splitlines(keepends=True)
    points.write_text("".join(lines[:-20]))
    with pytest.raises(
        DataError, match=f"^{points}: truncated: it announces 300 points and holds 280; copy the model again"
    ):
        read_scene(sample)


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 50])
def test_rigs_and_frames_are_not_needed(content, sample, small_sample):
    """COLMAP before 3.12 wrote neither; each image has its own pose besides."""
    for name in ("rigs.bin", "frames.bin"):
        path = sample / "sparse" / "0" / name
        path.unlink()
        if content is not None:
            path.write_bytes(content)
    for a, b in zip(read_scene(sample).frames, read_scene(small_sample).frames, strict=True):
        assert torch.equal(a.camera.world_to_camera, b.camera.world_to_camera)


def test_models_edited_by_hand(text_model, sample):
    """Images taken out while points, tracks and frames still speak of them: what is left is read."""
    for path in (sample / "sparse" / "0").iterdir():
        path.unlink()
    for path in text_model.iterdir():
        (sample / "sparse" / "0" / path.name).write_bytes(path.read_bytes())
    images = sample / "sparse" / "0" / "images.txt"
    lines = [line for line in images.read_text().splitlines() if not line.startswith("#")]
    images.write_text("\n".join([*lines[:2], lines[2], "", *lines[4:6]]) + "\n")
    scene = read_scene(sample)
    assert len(scene.frames) == 3
    assert scene.points is not None
    assert scene.points.tracks is not None
    assert len(scene.points) == 300
    assert set(scene.points.tracks.frames.tolist()) == {0, 1, 2}


def test_text_and_binary_read_alike(text_model, small_sample, sample):
    for path in (sample / "sparse" / "0").iterdir():
        path.unlink()
    for path in text_model.iterdir():
        (sample / "sparse" / "0" / path.name).write_bytes(path.read_bytes())
    binary, text = read_scene(small_sample), read_scene(sample)
    for a, b in zip(binary.frames, text.frames, strict=True):
        assert a.name == b.name
        # COLMAP writes 17 digits: the quaternion's own rounding remains.
        assert (a.camera.world_to_camera - b.camera.world_to_camera).abs().max() < 1e-14
    assert binary.points is not None
    assert text.points is not None
    assert (binary.points.xyz == text.points.xyz).all()
    assert (binary.points.rgb == text.points.rgb).all()
    assert (binary.points.tracks.frames == text.points.tracks.frames).all()
