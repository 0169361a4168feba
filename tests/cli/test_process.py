"""`splat process`: photographs and videos to a dataset that trains; stops on the way; inputs that cannot be used."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import orbit
import pytest
import torch
from page import Page
from patience import PATIENCE, wait
from PIL import Image
from scipy.ndimage import gaussian_filter

from splat.core import DataError
from splat.data import Dataset, read_scene
from splat.data import frame as placed
from splat.data.priors import priors
from splat.data.problems import DatasetError
from splat.data.sfm import ProcessOptions, child, gather, process, stages

# What this small scene needs, and one thread, for any machine.
OPTIONS = ("--threads", 1)
ALL = ("--orient", "up", "--undistort", "--mvs", "--mvs-size", 64)
COUNT = 7  # photographs
SHORT = ("--preset", "cpu", "--steps", 20, "--init.source", "points")  # a run


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """Seven photographs of the sample scene along an arc. Not to be changed."""
    return orbit.write(tmp_path_factory.mktemp("process") / "photos", orbit.arc(COUNT))


@pytest.fixture(scope="module")
def processed(splat, photos, tmp_path_factory):
    """(outcome, dataset) of these photographs with all that is made of them. The dataset is not to be changed."""
    data = tmp_path_factory.mktemp("process") / "data"
    return splat("process", photos, data, *ALL, "--json", *OPTIONS), data


class Quiet:
    """A listener that keeps what it is told, and calls `at(stage, done)` with every progress."""

    def __init__(self, at=lambda stage, done: None) -> None:
        self.kept: list[str] = []
        self.done: list[str] = []
        self._at = at

    def begin(self, stage: str, kept: bool) -> None:
        if kept:
            self.kept.append(stage)

    def progress(self, stage: str, done: int, total: int) -> None:
        self._at(stage, done)

    def end(self, stage: str, seconds: float, result: object) -> None:
        self.done.append(stage)


def model(data: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((data / "sparse" / "0").iterdir())}


def test_every_photograph_gets_a_pose(processed):
    outcome, data = processed
    assert outcome.code == 0, outcome.err
    summary = json.loads(outcome.out)
    assert (summary["registered"], summary["total"], summary["unregistered"]) == (COUNT, COUNT, [])
    assert summary["error"] < 1.0
    assert summary["parallax"] > 5  # the cameras stand 6 degrees apart
    assert json.loads((data / "process.json").read_text())["points"] == summary["points"]
    scene = read_scene(data)
    assert [frame.name for frame in scene.frames] == [camera.name for camera in orbit.arc(COUNT)]
    assert not scene.warnings


def test_up_is_up(processed):
    """The arc's cameras look down by 24 degrees; their mean up, and with it the scene's, becomes -y."""
    data = processed[1]
    cameras = [frame.camera for frame in read_scene(data).frames]
    up = torch.stack([-camera.world_to_camera[1, :3] for camera in cameras]).mean(0)
    up /= up.norm()
    assert torch.allclose(up, torch.tensor([0.0, -1.0, 0.0], dtype=up.dtype), atol=1e-6)
    assert json.loads((data / "frame.json").read_text())["kind"] == "up"


def test_undistorted_photographs_have_pinholes(processed):
    scene = read_scene(processed[1] / "undistorted")
    assert len(scene.frames) == COUNT
    assert all(frame.distortion is None for frame in scene.frames)


def test_export_undoes_the_turn(splat, processed, tmp_path):
    """What is trained in the turned frame is exported in that of structure from motion, unless told otherwise."""
    from splat import codecs

    data, run = processed[1], tmp_path / "run"
    trained = splat("train", data, *SHORT, "--out", run)
    assert trained.code == 0, trained.err
    for flags, name in ([], "back.ply"), (["--keep-frame"], "kept.ply"):
        done = splat("export", run, tmp_path / name, *flags)
        assert done.code == 0, done.err
    back, _ = codecs.decode(tmp_path / "back.ply")
    kept, _ = codecs.decode(tmp_path / "kept.ply")
    move = placed.read(data)
    assert move is not None
    assert not torch.allclose(back.means, kept.means, atol=1e-2)
    assert torch.allclose(move.points(back.means), kept.means, atol=1e-4)


def test_the_same_command_again_keeps_everything(splat, photos, processed):
    data = processed[1]
    before = model(data)
    done = splat("process", photos, data, *ALL, *OPTIONS)
    assert done.code == 0, done.err
    assert done.out.count("kept from before") == 7
    assert f"{COUNT} of {COUNT} photographs have poses" in done.out
    assert model(data) == before


def test_killed_at_each_stage_the_result_is_the_same(photos, processed, tmp_path):
    """The child dies at every stage in turn, and with another number of threads: the model has the same bits."""
    data = tmp_path / "data"
    options = ProcessOptions(orient="up", mvs=True, mvs_size=64, threads=2)
    stereo = data / "process" / "stereo"
    died: list[str] = []
    errors: list[DatasetError] = []
    maps: dict[str, int] = {}

    def kill(stage: str, done: int) -> None:
        if stage == "stereo" and stage in died and not maps:
            maps.update({path.name: path.stat().st_mtime_ns for path in stereo.glob("?.npy")})
        if stage != "photographs" and stage not in died:
            if stage == "stereo":  # until the third of its maps: most are still to come
                wait((stereo / "2.npy").exists, every=0.001)
            died.append(stage)
            (victim,) = children()
            os.kill(victim, signal.SIGKILL)

    for _ in range(10):
        listener = Quiet(kill)
        try:
            process([photos], data, options, listener)
            break
        except DatasetError as error:
            errors.append(error)
    assert died == ["features", "matches", "mapping", "model", "stereo"]
    assert [error.code for error in errors] == ["sfm-died"] * 5
    assert all(f"{data / 'process' / 'log.txt'}: structure" in str(error).splitlines()[0] for error in errors)
    assert listener.kept == ["photographs", "features", "matches", "mapping", "model"]
    assert model(data) == model(processed[1])
    assert {"0.npy", "1.npy", "2.npy"} <= maps.keys()  # which the second attempt began with
    assert not stereo.exists()
    assert (data / "dense.ply").read_bytes() == (processed[1] / "dense.ply").read_bytes()


def children() -> list[int]:
    """Process ids of the children of this process that are structure from motion's."""
    import psutil

    found = psutil.Process().children()
    return [c.pid for c in found if "splat.data.sfm.worker" in c.cmdline()]


def test_depth_maps_lie_where_the_points_do(processed):
    """They are priors of the photographs, by whose lens they are bent: most points of structure from motion have the
    depth that stereo found in their pixel, to a tenth."""
    data = processed[1]
    scene = read_scene(data)
    assert scene.points is not None
    assert scene.frames[0].distortion is not None
    near = []
    with Dataset(scene, downscale=orbit.WIDTH / 64) as dataset:
        for index in range(len(dataset)):
            depth, camera = priors("depth").at(dataset, index), dataset.camera(index)
            xyz = dataset.points.xyz.float()
            local = xyz @ camera.world_to_camera[:3, :3].T + camera.world_to_camera[:3, 3]
            x = (local[:, 0] / local[:, 2] * camera.fx + camera.cx).floor().long()
            y = (local[:, 1] / local[:, 2] * camera.fy + camera.cy).floor().long()
            inside = (x >= 0) & (y >= 0) & (x < camera.width) & (y < camera.height)
            found = depth[y[inside], x[inside]]
            ratio = found[found > 0] / local[inside, 2][found > 0]
            near.append((ratio - 1).abs() < 0.1)
    share = torch.cat(near).double().mean()
    assert share > 0.5
    points = json.loads((data / "process" / "stages.json").read_text())["stereo"]["result"]["points"]
    assert len((data / "dense.ply").read_bytes()) > 27 * points > 0  # three float64, three bytes


def test_other_options_do_their_stages_again(photos, processed, tmp_path):
    data = Path(shutil.copytree(processed[1], tmp_path / "data"))
    listener = Quiet()
    process([photos], data, ProcessOptions(threads=1), listener)
    assert (listener.kept, listener.done) == (["photographs", "features", "matches", "mapping"], ["model"])
    assert not (data / "frame.json").exists()


def test_a_page_shows_the_model(start, photos, processed, tmp_path):
    """Poses are found again, with a visitor: they have the same bits as without him; the page stays until Ctrl-C."""
    data = Path(shutil.copytree(processed[1], tmp_path / "data"))
    flags = ("--orient", "up", "--mapper", "incremental", "--keep-viewer", "--viewer-port", 18680)
    running = start("process", photos, data, *flags, *OPTIONS, cwd=tmp_path)
    said = iter(running.stdout)
    port = next(
        int(match[1]) for line in said if (match := re.match(r"viewer: http://127.0.0.1:(\d+)$", line))
    )
    with Page(port) as page:
        assert any("the viewer stays" in line for line in said)
        points = json.loads((data / "process.json").read_text())["points"]
        page.wait(lambda: page.nodes.get("/points", [0])[-1] == points)
        page.wait(lambda: f"**{COUNT}** photographs have a pose, **{points:,}** points" in page.text())
        assert f"- mapping: {COUNT} photographs posed by the mapper incremental" in page.text()
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=PATIENCE)
    assert (running.returncode, err) == (0, "")
    assert model(data) == model(processed[1])
    assert not (data / "process" / "snapshots").exists()


def test_ctrl_c_ends_the_child_and_the_command_goes_on(start, photos, tmp_path):
    running = start("process", photos, "data", *OPTIONS, cwd=tmp_path)
    ledger = tmp_path / "data" / "process" / "stages.json"
    while not (ledger.exists() and '"features"' in ledger.read_text()):
        assert running.poll() is None, running.communicate()
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=PATIENCE)
    assert running.returncode == 130
    assert err == "splat: stopped at features; the same command goes on from there: data\n"
    with stages.locked(ledger.parent / "lock"):  # which the child held as well
        assert stages.Ledger(ledger).result("photographs")["skipped"] == []


def test_a_video_goes_through_to_an_export(splat, photos, tmp_path):
    """Each photograph comes as a blurred, a sharp and a blurred frame of a video; process, train, export."""
    film = tmp_path / "film.mp4"
    with imageio.get_writer(film, fps=10, macro_block_size=1, quality=10) as writer:
        for path in sorted(photos.iterdir()):
            picture = np.asarray(Image.open(path))
            blurred = gaussian_filter(picture, (2, 2, 0))
            for frame in (blurred, picture, blurred):
                writer.append_data(frame)
    data, run, scene = tmp_path / "data", tmp_path / "run", tmp_path / "scene.ply"
    done = splat("process", film, data, "--frames", COUNT, *OPTIONS)
    assert done.code == 0, done.err
    assert f"{COUNT} of {COUNT} photographs have poses" in done.out
    frames = sorted(path.name for path in (data / "images" / "film").iterdir())
    assert frames == [f"frame_{3 * index + 1:06d}.jpg" for index in range(COUNT)]
    assert splat("check", data, "--no-forecast").code == 0
    assert splat("train", data, *SHORT, "--out", run).code == 0
    assert splat("export", run, scene).code == 0
    assert scene.stat().st_size > 10_000


def fail(splat, *args) -> str:
    """The one line that a command leaves with exit code 3."""
    outcome = splat(*args)
    assert outcome.code == 3, outcome.err
    assert outcome.err.count("\n") == 1, outcome.err
    return outcome.err


def test_one_photograph(splat, photos, tmp_path):
    (tmp_path / "in").mkdir()
    shutil.copy(photos / "view_000.png", tmp_path / "in")
    assert "a single usable photograph; a scene needs" in fail(
        splat, "process", tmp_path / "in", tmp_path / "d"
    )


def test_identical_photographs(splat, photos, tmp_path):
    (tmp_path / "in").mkdir()
    for index in range(4):
        shutil.copy(photos / "view_000.png", tmp_path / "in" / f"{index}.png")
    assert "all 4 pictures are the same; move" in fail(splat, "process", tmp_path / "in", tmp_path / "d")


def test_no_photographs(splat, tmp_path):
    assert "no such file or folder; check" in fail(splat, "process", tmp_path / "in", tmp_path / "d")
    (tmp_path / "in").mkdir()
    assert "holds neither photographs nor videos; give" in fail(
        splat, "process", tmp_path / "in", tmp_path / "d"
    )


def test_a_corrupt_video(splat, tmp_path):
    (tmp_path / "film.mp4").write_bytes(b"no film" * 100)
    outcome = splat("process", tmp_path / "film.mp4", tmp_path / "d")
    assert outcome.code == 3
    assert "film.mp4: not a video that can be read; copy it again" in outcome.first


def test_featureless_photographs(splat, tmp_path):
    (tmp_path / "in").mkdir()
    for index in range(3):
        wall = np.full((120, 160, 3), 200 + index, dtype=np.uint8)
        Image.fromarray(wall).save(tmp_path / "in" / f"{index}.png")
    outcome = splat("process", tmp_path / "in", tmp_path / "d", *OPTIONS)
    assert outcome.code == 3
    assert "featureless: 3 of 3 photographs show too little texture" in outcome.first
    assert "well lit" in outcome.first


def test_no_parallax(splat, tmp_path):
    photos = orbit.write(tmp_path / "in", orbit.turning(4))
    outcome = splat("process", photos, tmp_path / "d", *OPTIONS)
    assert outcome.code == 3
    assert "no parallax: the camera turned or stood still" in outcome.first
    assert "walk around the scene" in outcome.first
    assert "--mapper" not in outcome.first
    outcome = splat("process", photos, tmp_path / "d", *OPTIONS, "--mapper", "incremental")
    assert "leave out --mapper incremental" in outcome.first


def test_a_disk_without_room(splat, photos, tmp_path, monkeypatch):
    tiny = shutil._ntuple_diskusage(10**9, 10**9 - 10**6, 10**6)
    monkeypatch.setattr(gather.shutil, "disk_usage", lambda path: tiny)
    line = fail(splat, "process", photos, tmp_path / "d")
    assert "the disk is too full (1 MB free" in line


def test_a_disk_that_fills_up_while_copying(splat, photos, tmp_path, monkeypatch):
    def full(source, target):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(gather.shutil, "copy2", full)
    line = fail(splat, "process", photos, tmp_path / "d")
    assert "the disk is full; stopped at photographs; free some space and start the same command" in line


def test_a_folder_that_cannot_be_written(splat, photos, tmp_path):
    (tmp_path / "file").touch()
    line = fail(splat, "process", photos, tmp_path / "file" / "d")
    assert (
        "cannot be written: not a directory; stopped at photographs; name a folder that you may write to"
        in line
    )


def test_a_photograph_that_may_not_be_read(splat, photos, tmp_path, monkeypatch):
    def denied(source, target):
        raise PermissionError(13, "Permission denied", str(source))

    monkeypatch.setattr(gather.shutil, "copy2", denied)
    line = fail(splat, "process", photos, tmp_path / "d")
    assert str(photos) in line
    assert "permission denied; stopped at photographs; see that it may be read, or leave it out" in line


def test_a_disk_that_fills_up_under_colmap(tmp_path):
    """What SQLite writes to the log then, from a child that ends with it."""
    (tmp_path / "process").mkdir()
    log = tmp_path / "process" / "log.txt"
    log.write_text("SQLite error: database or disk is full\n")
    error = child._death("matches", 1, log)
    assert str(error).startswith(f"{tmp_path}: the disk is full; stopped at matches; free some space")


def test_a_model_of_somebody_else_stays(splat, photos, tmp_path):
    (tmp_path / "d" / "sparse" / "0").mkdir(parents=True)
    outcome = splat("process", photos, tmp_path / "d")
    assert outcome.code == 2
    assert "did not make; name another folder" in outcome.first


def test_two_commands_at_once(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(stages, "_PATIENCE", 0.1)
    (tmp_path / "d" / "process").mkdir(parents=True)
    with (
        stages.locked(tmp_path / "d" / "process" / "lock"),
        pytest.raises(DataError, match="another `splat process` works on it"),
    ):
        process([photos], tmp_path / "d", ProcessOptions(), Quiet())


def test_usage(splat, photos, tmp_path):
    assert splat("process", photos).code == 2
    outcome = splat("process", photos, tmp_path / "d", "--frames", 1)
    assert outcome.code == 2
    assert "--frames 1: give 2 or more" in outcome.first


def test_the_child_leaves_with_its_command(tmp_path):
    """Its input closes when the command is gone, killed or not."""
    job = tmp_path / "job.json"
    command = [sys.executable, "-m", "splat.data.sfm.worker", str(job)]
    running = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert running.stdin is not None
    running.stdin.close()
    assert running.wait(timeout=PATIENCE) == 1


def test_the_child_does_without_torch():
    """Which takes seconds to load and memory to keep; only stereo needs it."""
    code = (
        "import sys; from splat.data.sfm import features, finish, mapping, matching, worker; "
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
