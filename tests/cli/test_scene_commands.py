"""eval, render, export, info: what is done with a trained scene."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

VIEWS = 12


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


@pytest.fixture(scope="module")
def ply(splat, run, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("export") / "deep" / "scene.ply"
    done = splat("export", run, out)
    assert done.code == 0, done.err
    return out


def test_eval_of_a_run_repeats_its_own_scores(splat, run, steps):
    saved = json.loads((run / "stats" / f"eval_{steps}.json").read_text())
    scores = json.loads(splat("eval", run, "--json").out)
    assert [i["name"] for i in scores["per_image"]] == [i["name"] for i in saved["per_image"]]
    for key in ("psnr", "ssim"):
        # The same scene, renderer and photographs: only the file's text stands between the two.
        assert scores[key] == pytest.approx(saved[key], rel=1e-6)
    assert f"PSNR {saved['psnr']:.2f} dB" in splat("eval", run).out


def test_eval_of_the_exported_file_scores_the_same(splat, run, ply, sample, steps):
    """The file holds the same float32 values, in the same frame."""
    saved = json.loads((run / "stats" / f"eval_{steps}.json").read_text())
    done = splat("eval", ply, "--data", sample, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["psnr"] == pytest.approx(saved["psnr"], abs=1e-3)


def test_eval_of_a_checkpoint_and_of_other_views(splat, run, steps):
    whole = json.loads(splat("eval", run, "--views", "all", "--json").out)
    assert len(whole["per_image"]) == VIEWS
    train = json.loads(splat("eval", run / "ckpts" / f"step_{steps}.pt", "--views", "train", "--json").out)
    assert len(train["per_image"]) == VIEWS - 2


def test_eval_at_another_resolution_and_background(splat, ply, sample):
    full = json.loads(splat("eval", ply, "--data", sample, "--json").out)
    half = json.loads(splat("eval", ply, "--data", sample, "--downscale", 2, "--json").out)
    white = json.loads(splat("eval", ply, "--data", sample, "--background", 1, 1, 1, "--json").out)
    assert half["psnr"] != full["psnr"]
    assert white["psnr"] != full["psnr"]


def test_eval_needs_a_dataset_and_held_out_views(splat, ply, sample, tmp_path):
    done = splat("eval", ply)
    assert done.code == 2
    assert "--data" in done.first
    out = tmp_path / "run"
    assert splat("train", sample, "--preset", "cpu", "--steps", 2, "--out", out).code == 0
    done = splat("eval", out)
    assert done.code == 2
    assert "held out" in done.first


@pytest.mark.parametrize("command", [("eval",), ("render",), ("export", "OUT"), ("info",)])
def test_nothing_there_is_bad_data(splat, tmp_path, command):
    name, *rest = command
    missing = tmp_path / "nothing"
    done = splat(name, missing, *(tmp_path / "out.ply" for _ in rest))
    assert done.code == 3
    assert str(missing) in done.first
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", [("eval",), ("render",), ("export", "OUT"), ("info",)])
def test_a_damaged_file_is_bad_data(splat, tmp_path, ply, command):
    name, *rest = command
    damaged = tmp_path / "damaged.ply"
    damaged.write_bytes(ply.read_bytes()[:-100])
    done = splat(name, damaged, *(tmp_path / "out.ply" for _ in rest))
    assert done.code == 3
    assert str(damaged) in done.first
    assert [p.name for p in tmp_path.iterdir()] == ["damaged.ply"]


def test_render_of_the_held_out_cameras(splat, run, tmp_path, steps):
    """PNGs named after the cameras, the very images that were scored."""
    out = tmp_path / "images"
    done = splat("render", run, "--cameras", "test", "--out", out)
    assert done.code == 0, done.err
    scores = json.loads((run / "stats" / f"eval_{steps}.json").read_text())["per_image"]
    assert names(out) == sorted(Path(i["name"]).with_suffix(".png").as_posix() for i in scores)
    data = Path(json.loads((run / "env.json").read_text())["data"]) / "images"
    for score in scores:
        image = np.asarray(Image.open((out / score["name"]).with_suffix(".png")), dtype=np.float64)
        truth = np.asarray(Image.open(data / score["name"]).convert("RGB"), dtype=np.float64)
        psnr = 10 * np.log10(255**2 / np.mean((image - truth) ** 2))
        # Rounding to 8 bits adds an error of at most half a level, far below that of 60 steps of training.
        assert psnr == pytest.approx(score["psnr"], abs=0.05)


def test_render_sizes_and_default_place(splat, run, ply, sample, tmp_path, monkeypatch):
    out = tmp_path / "a"
    assert splat("render", run, "--out", out, "--size", 33, 21).code == 0
    assert len(names(out)) == VIEWS
    assert Image.open(out / names(out)[0]).size == (33, 21)
    monkeypatch.chdir(tmp_path)
    assert splat("render", ply, "--data", sample, "--downscale", 2, "--cameras", "test").code == 0
    images = tmp_path / "renders" / "scene" / "test"
    assert len(names(images)) == 2
    assert Image.open(images / names(images)[0]).size == (32, 24)


def frames(video: Path) -> list[np.ndarray]:
    import imageio.v2 as imageio

    with imageio.get_reader(video) as reader:
        return [np.asarray(frame) for frame in reader]


def test_render_of_an_orbit_is_a_video(splat, run, ply, tmp_path):
    for source, size in ((run, (48, 64, 3)), (ply, (540, 960, 3))):
        out = tmp_path / f"{source.name}.mp4"
        done = splat("render", source, "--orbit", 5, "--out", out)
        assert done.code == 0, done.err
        seen = frames(out)
        assert len(seen) == 5
        assert seen[0].shape == size
        assert seen[0].max() > 30  # something is drawn
        assert np.abs(seen[0].astype(int) - seen[2]).mean() > 1  # and the camera moves
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".mp4", ".mp4"]


def test_render_along_a_path(splat, run, tmp_path):
    path, out = tmp_path / "path.json", tmp_path / "path.mp4"
    keys = [{"time": t, "position": [3, t, 1], "look_at": [0, 0, 0.4]} for t in (0, 1)]
    path.write_text(json.dumps({"width": 41, "height": 30, "fps": 4, "up": [0, 0, 1], "keyframes": keys}))
    assert splat("render", run, "--path", path, "--out", out).code == 0
    assert [f.shape for f in frames(out)] == [(30, 40, 3)] * 5  # an even width
    assert splat("render", run, "--path", path, "--out", tmp_path / "images").code == 0
    assert names(tmp_path / "images") == [f"{i:05d}.png" for i in range(5)]


@pytest.mark.parametrize(
    ("flags", "code", "said"),
    [
        (("--orbit", 5, "--path", "x.json"), 2, "contradict"),
        (("--orbit", 0), 2, "--orbit 0"),
        (("--size", 0, 5), 2, "--size 0 5"),
        (("--fps", 0), 2, "--fps 0"),
        (("--fps", "nan"), 2, "--fps nan"),
        (("--downscale", 0), 2, "downscale 0"),
        (("--out", "x.gif"), 2, "NAME.mp4"),
        (("--out", __file__), 2, "is a file"),
        (("--background", 1, 2, 0), 2, "--background 1 2 0: give red, green and blue between 0 and 1"),
        (("--background", 0, 0, "nan"), 2, "--background"),
        (("--path", "nowhere.json"), 3, "nowhere.json"),
    ],
)
def test_render_usage_errors(splat, run, tmp_path, monkeypatch, flags, code, said):
    monkeypatch.chdir(tmp_path)
    done = splat("render", run, *flags)
    assert done.code == code
    assert said in done.first
    assert not list(tmp_path.iterdir())


def test_a_video_that_ffmpeg_could_not_write_is_an_error(splat, run, tmp_path, monkeypatch):
    """As on a full disk, where imageio says nothing."""
    import imageio.v2 as imageio

    class Deaf:
        def append_data(self, image):
            pass

        def close(self):
            pass

    monkeypatch.setattr(imageio, "get_writer", lambda *args, **options: Deaf())
    done = splat("render", run, "--orbit", 2, "--out", tmp_path / "orbit.mp4")
    assert done.code == 3
    assert "orbit.mp4: the video cannot be written (0 of 2 frames were written)" in done.first
    assert not list(tmp_path.iterdir())


def test_an_interrupted_video_leaves_nothing(splat, run, tmp_path, monkeypatch):
    from splat.cli.scene import Loaded

    drawn = []

    def draw(self, camera, background=None):
        drawn.append(camera)
        if len(drawn) == 3:
            raise KeyboardInterrupt
        return original(self, camera, background)

    original = Loaded.draw
    monkeypatch.setattr(Loaded, "draw", draw)
    assert splat("render", run, "--orbit", 9, "--out", tmp_path / "orbit.mp4").code == 130
    assert not list(tmp_path.iterdir())


def test_export_round_trip(splat, run, ply, tmp_path):
    """A converted file holds the very same scene; the run's own export too."""
    again = tmp_path / "again.ply"
    assert splat("export", ply, again).code == 0
    first, second = (json.loads(splat("info", p, "--json").out) for p in (ply, again))
    for facts in (first, second):
        facts.pop("path")
    assert first == second
    assert first["count"] > 0
    own = json.loads(splat("info", run / "exports" / "point_cloud.ply", "--json").out)
    assert own["bounds"] == first["bounds"]


def test_export_of_an_unknown_extension_lists_the_known_ones(splat, run, tmp_path):
    done = splat("export", run, tmp_path / "scene.obj")
    assert done.code == 2
    assert ".ply" in done.first
    assert "scene.obj" in done.first
    assert not list(tmp_path.iterdir())


def test_a_run_whose_dataset_is_gone(splat, sample, tmp_path):
    """Its exported scene still serves, and the user is told; --data names the new place."""
    import shutil

    data, out = tmp_path / "data", tmp_path / "run"
    shutil.copytree(sample, data)
    assert splat("train", data, "--preset", "cpu", "--steps", 3, "--eval", "--out", out).code == 0
    moved = data.rename(tmp_path / "moved")
    done = splat("render", out, "--orbit", 1, "--size", 20, 10, "--out", tmp_path / "images")
    assert done.code == 0, done.err
    assert str(data) in done.first
    assert splat("eval", out).code == 2
    assert splat("eval", out, "--data", moved).code == 0
    assert splat("export", out, tmp_path / "scene.ply").code == 0


def test_info(splat, run, sample, ply, steps):
    facts = json.loads(splat("info", run, "--json").out)
    assert facts["kind"] == "run"
    assert facts["steps_saved"][-1] == steps
    assert facts["scores"][f"step_{steps}"]["psnr"] > 0
    assert facts["settings"]["strategies"] == ["mcmc"]
    data = json.loads(splat("info", sample, "--json").out)
    assert (data["views"], data["points"], data["size"]) == (VIEWS, 400, "64x48")
    state = json.loads(splat("info", run / "ckpts" / f"step_{steps}.pt", "--json").out)
    assert state["step"] == steps
    scene = json.loads(splat("info", ply, "--json").out)
    assert scene["count"] == state["gaussians"]
    for path in (run, sample, ply):
        text = splat("info", path)
        assert text.code == 0
        assert str(path) in text.out
