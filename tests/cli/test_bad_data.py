"""Datasets that cannot be used: one clear line each, exit 3, nothing written."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path

import pytest
from PIL import Image

from splat.training.config import preset_names


@pytest.fixture(scope="module")
def text_sample(sample, tmp_path_factory) -> Path:
    """The sample with its model as text, which is easily damaged by hand. Not to be changed."""
    import pycolmap

    folder = tmp_path_factory.mktemp("text") / "sample"
    shutil.copytree(sample, folder)
    model = folder / "sparse" / "0"
    reconstruction = pycolmap.Reconstruction(str(model))
    for file in model.iterdir():
        file.unlink()
    reconstruction.write_text(str(model))
    for name in ("rigs", "frames"):  # which COLMAP writes since 3.12, and older models lack
        (model / f"{name}.txt").unlink(missing_ok=True)
    return folder


def images(data: Path) -> list[Path]:
    return sorted((data / "images").iterdir())


def edit(file: Path, change) -> None:
    """Rewrite the lines of a text file that are not comments."""
    lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
    file.write_text("\n".join(change(lines)) + "\n")


def no_model(data):
    shutil.rmtree(data / "sparse")


def no_images(data):
    shutil.rmtree(data / "images")


def truncated_image(data):
    file = images(data)[3]
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def not_an_image(data):
    images(data)[3].write_text("no picture")


def wrong_size(data):
    Image.new("RGB", (50, 50)).save(images(data)[3])


def truncated_model(data):
    file = data / "sparse" / "0" / "images.bin"
    file.write_bytes(file.read_bytes()[:-50])


def garbage_model(data):
    (data / "sparse" / "0" / "points3D.bin").write_bytes(struct.pack("<Q", 1 << 60) + b"garbage")


def half_a_model(data):
    (data / "sparse" / "0" / "cameras.bin").unlink()


def single_view(data):
    edit(data / "sparse" / "0" / "images.txt", lambda lines: [lines[0], ""])
    (data / "sparse" / "0" / "points3D.txt").write_text("")


def duplicate_names(data):
    def change(lines):
        head, _ = lines[2].rsplit(" ", 1)
        return [*lines[:2], f"{head} {lines[0].rsplit(' ', 1)[1]}", *lines[3:]]

    edit(data / "sparse" / "0" / "images.txt", change)


def unknown_camera_model(data):
    edit(
        data / "sparse" / "0" / "cameras.txt",
        lambda lines: [
            " ".join([w if i != 1 else "PERISCOPE" for i, w in enumerate(x.split())]) for x in lines
        ],
    )


def absurd_intrinsics(data):
    edit(
        data / "sparse" / "0" / "cameras.txt",
        lambda lines: [" ".join([w if i != 4 else "-5" for i, w in enumerate(x.split())]) for x in lines],
    )


BINARY = [
    no_model,
    no_images,
    truncated_image,
    not_an_image,
    wrong_size,
    truncated_model,
    garbage_model,
    half_a_model,
]
TEXT = [single_view, duplicate_names, unknown_camera_model, absurd_intrinsics]
# What the first line must name besides a path: something of the cause.
SAYS = {
    no_model: "poses",
    no_images: "photographs",
    truncated_image: "view_003.png",
    not_an_image: "view_003.png",
    wrong_size: "50x50",
    truncated_model: "images.bin",
    garbage_model: "points3D.bin",
    half_a_model: "cameras.bin",
    single_view: "single",
    duplicate_names: "view_000.png",
    unknown_camera_model: "PERISCOPE",
    absurd_intrinsics: "focal",
}


@pytest.mark.parametrize("damage", [*BINARY, *TEXT], ids=lambda d: d.__name__)
def test_each_is_named_and_nothing_is_written(splat, sample, text_sample, tmp_path, damage):
    data = tmp_path / "data"
    shutil.copytree(sample if damage in BINARY else text_sample, data)
    damage(data)
    done = splat("train", data, "--preset", "cpu", "--steps", 20, "--out", tmp_path / "run")
    assert done.code == 3, done.err
    assert str(data) in done.first
    assert SAYS[damage] in done.first
    assert ";" in done.first or ":" in done.first.split(str(data), 1)[1]  # the remedy follows
    assert "Traceback" not in done.err
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").rglob("*.ply"))

    report = splat("check", data, "--json")
    assert report.code == 3
    findings = json.loads(report.out)["findings"]
    errors = [f for f in findings if f["severity"] == "error"]
    assert any(SAYS[damage] in f["message"] for f in errors), findings
    assert all(f["remedy"] for f in errors)
    assert "cannot be trained on" in splat("check", data).out


def test_no_such_folder(splat, tmp_path):
    done = splat("train", tmp_path / "nothing", "--out", tmp_path / "run")
    assert done.code == 3
    assert f"{tmp_path / 'nothing'}: no such folder" in done.first
    assert splat("check", tmp_path / "nothing").code == 3
    assert not (tmp_path / "run").exists()


def test_some_missing_photographs_and_points_are_warnings(splat, sample, text_sample, tmp_path):
    """The rest can still be trained on, and the user is told."""
    data = tmp_path / "data"
    shutil.copytree(text_sample, data)
    images(data)[3].unlink()
    edit(data / "sparse" / "0" / "images.txt", lambda lines: [x for line in lines[::2] for x in (line, "")])
    (data / "sparse" / "0" / "points3D.txt").write_text("")
    report = splat("check", data, "--json", "--no-forecast")
    assert report.code == 0, report.out
    warnings = [f["message"] for f in json.loads(report.out)["findings"] if f["severity"] == "warning"]
    assert any("view_003.png" in w for w in warnings)
    assert any("no points" in w for w in warnings)
    done = splat(
        "train", data, "--preset", "cpu", "--init.count", 200, "--steps", 3, "--out", tmp_path / "run"
    )
    assert done.code == 0, done.err
    assert "view_003.png" in done.out
    assert "no points" in done.out


def test_a_sound_dataset(splat, sample):
    """Its only faults are that it is small."""
    done = splat("check", sample, "--no-forecast")
    assert done.code == 0
    assert "can be trained on: 0 errors, 3 warnings" in done.out
    assert "only 12 views" in done.out
    assert "only 400 points" in done.out
    assert "Expected on this machine" not in done.out


def test_forecast(splat, sample):
    """Each preset has a row, by rising time; what runs longer or larger is said to."""
    report = json.loads(splat("check", sample, "--json", "--downscale", 2, "--device", "cpu").out)
    assert report["ok"] is True
    rows = {row["preset"]: row for row in report["presets"]}
    assert set(rows) == set(preset_names())
    assert [row["seconds"] for row in report["presets"]] == sorted(row["seconds"] for row in rows.values())
    assert (rows["cpu"]["start"], rows["cpu"]["count"], rows["cpu"]["steps"]) == (400, 40_000, 7000)
    assert rows["mcmc"]["seconds"] > rows["cpu"]["seconds"] > 0
    assert rows["mcmc"]["nbytes"] > rows["cpu"]["nbytes"] > 100 << 20
    assert [rows[name]["at_least"] for name in ("default", "compact", "cpu")] == [True, True, False]
    assert splat("check", sample, "--downscale", 0).code == 2


def test_not_enough_disk(splat, sample, tmp_path, monkeypatch):
    """A disk with a megabyte left: told before the first step."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 << 20))
    done = splat("train", sample, "--preset", "cpu", "--steps", 3, "--out", tmp_path / "run")
    assert done.code == 3
    assert "not enough disk" in done.first
    assert str(tmp_path / "run") in done.first
    assert not list((tmp_path / "run").rglob("*.pt"))
