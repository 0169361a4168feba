"""`splat export` as a user types it: filters, moves, pruning, targets, the report, and what it refuses."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import replace
from pathlib import Path

import pytest
import scenes
import torch

from splat import codecs
from splat.core import Gaussians
from splat.core.rotations import quat_to_matrix

VIEWS = 2  # held out of the run's twelve


@pytest.fixture(scope="module")
def scene() -> Gaussians:
    """300 small Gaussians of SH degree 3."""
    mixed = scenes.mixed(300).to(torch.float32)
    return replace(mixed, log_scales=mixed.log_scales - 1)


@pytest.fixture(scope="module")
def ply(scene, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("source") / "scene.ply"
    codecs.encode(scene, path, {"up_axis": "-y"})
    return path


def exported(splat, *args: object) -> dict:
    done = splat("export", *args, "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)


def test_filters(splat, scene, ply, tmp_path):
    out = tmp_path / "out.ply"
    facts = exported(splat, ply, out, "--crop", -1, -1, -1, 1, 1, 1, "--min-opacity", 0.3, "--max-scale", 0.5)
    wanted = (scene.means.abs() <= 1).all(1) & (scene.opacities() >= 0.3) & (scene.scales().amax(1) <= 0.5)
    found, _ = codecs.decode(out)
    assert found.means.equal(scene.means[wanted])
    assert found.sh.equal(scene.sh[wanted])
    assert facts["count"] == int(wanted.sum())
    assert facts["source"] == {"path": str(ply), "count": 300, "sh_degree": 3}
    assert [note.split()[0] for note in facts["notes"][:3]] == ["--crop", "--min-opacity", "--max-scale"]
    done = splat("export", ply, out, "--crop", 50, 50, 50, 51, 51, 51)
    assert done.code == 2
    assert "--crop leaves none of the 300" in done.first


def test_sh_degree(splat, scene, ply, tmp_path):
    out = tmp_path / "out.ply"
    assert exported(splat, ply, out, "--sh-degree", 1)["sh_degree"] == 1
    assert codecs.decode(out)[0].sh.equal(scene.sh[:, :4])


def test_a_move_moves_what_is_seen(splat, scene, ply, tmp_path):
    """x, then y, then z; turned, enlarged, shifted: and the colour of every direction goes along."""
    out = tmp_path / "out.ply"
    exported(splat, ply, out, "--rotate", 90, 0, 90, "--scale", 2, "--translate", 1, 2, 3)
    found, metadata = codecs.decode(out)
    x, y, z = scene.means.unbind(1)
    # About x: (x, -z, y); then about z: (z, x, y).
    torch.testing.assert_close(found.means, 2 * torch.stack([z, x, y], 1) + torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(found.scales(), 2 * scene.scales())
    turn = torch.tensor([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    torch.testing.assert_close(
        found.covariances(), 4 * turn @ scene.covariances() @ turn.T, atol=1e-4, rtol=1e-4
    )
    from splat.core import sh

    direction = torch.nn.functional.normalize(
        torch.randn(300, 3, generator=torch.Generator().manual_seed(1)), dim=1
    )
    torch.testing.assert_close(
        sh.evaluate(found.sh, direction @ turn.T), sh.evaluate(scene.sh, direction), atol=1e-5, rtol=1e-5
    )
    assert quat_to_matrix(found.quats).isfinite().all()
    assert metadata["up_axis"] == "-z"  # what was -y


def test_a_matrix_does_what_the_flags_do(splat, ply, tmp_path):
    matrix, by_file, by_flags = tmp_path / "m.json", tmp_path / "a.ply", tmp_path / "b.ply"
    matrix.write_text(json.dumps([[0, -2, 0, 1], [2, 0, 0, 2], [0, 0, 2, 3], [0, 0, 0, 1]]))
    exported(splat, ply, by_file, "--transform", matrix)
    exported(splat, ply, by_flags, "--rotate", 0, 0, 90, "--scale", 2, "--translate", 1, 2, 3)
    a, b = codecs.decode(by_file)[0], codecs.decode(by_flags)[0]
    for (name, left), (_, right) in zip(a.named_tensors(), b.named_tensors(), strict=True):
        torch.testing.assert_close(left, right, msg=name, atol=1e-5, rtol=1e-5)
    matrix.write_text("0 -2 0 1\n2 0 0 2\n0 0 2 3\n")  # three rows are as good
    again = tmp_path / "c.ply"
    exported(splat, ply, again, "--transform", matrix)
    assert again.read_bytes() == by_file.read_bytes()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 2 3", "16 numbers"),
        ("a b c d", "16 numbers"),
        ("1 0 0 0 0 1 0 0 0 0 -1 0 0 0 0 1", "mirrors"),
        ("1 0 0 0 0 2 0 0 0 0 1 0 0 0 0 1", "shears or scales unevenly"),
        ("1 0 0 0 0 1 0 0 0 0 1 0 0 0 1 1", "last row"),
    ],
)
def test_what_is_no_similarity(splat, ply, tmp_path, text, said):
    matrix = tmp_path / "m.txt"
    matrix.write_text(text)
    done = splat("export", ply, tmp_path / "out.ply", "--transform", matrix)
    assert done.code == 3
    assert str(matrix) in done.first
    assert said in done.first
    assert not (tmp_path / "out.ply").exists()


def test_a_far_away_scene_is_cropped_and_moved_in_its_own_coordinates(splat, scene, tmp_path):
    """The offset is 5e6 units: float32 there has steps of half a unit, and nothing may depend on them."""
    source, out = tmp_path / "far.ply", tmp_path / "out.ply"
    offset = [5e6, -4e6, 3e6]
    codecs.encode(scene, source, {"offset": offset})
    box = [v - 0.7 for v in offset] + [v + 0.7 for v in offset]
    facts = exported(splat, source, out, "--crop", *box, "--translate", 1000, 0, 0)
    found, metadata = codecs.decode(out)
    assert found.means.equal(scene.means[(scene.means.abs() <= 0.7).all(1)])
    assert metadata["offset"] == [5001000.0, -4e6, 3e6]
    assert any("local coordinates" in note for note in facts["notes"])
    # Shifted back to the origin there is no reason for an offset any more.
    exported(splat, source, out, "--translate", *(-v for v in offset))
    found, metadata = codecs.decode(out)
    assert "offset" not in metadata
    assert found.means.equal(scene.means)


def test_pruning(splat, scene, ply, tmp_path):
    out = tmp_path / "out.ply"
    facts = exported(splat, ply, out, "--prune", 0.4, "--method", "opacity")
    assert facts["pruned"] == {"method": "opacity", "count": 120}
    least = scene.logit_opacities.sort(descending=True).values[179]
    assert codecs.decode(out)[0].means.equal(scene.means[scene.logit_opacities >= least])
    assert codecs.decode(out)[0].sh.equal(scene.sh[scene.logit_opacities >= least])
    done = splat("export", ply, out, "--prune", 0.4, "--method", "contribution")
    assert done.code == 2
    assert "--data" in done.first


def test_a_run_is_pruned_by_contribution_and_scored(splat, run, tmp_path):
    """The report's figures are those of `splat eval` on the run and on the file."""
    data = json.loads((run / "env.json").read_text())["data"]
    files = []
    for method in ("contribution", "random"):
        out = tmp_path / f"{method}.ply"
        facts = exported(splat, run, out, "--prune", 0.5, "--report", "--method", method)
        assert facts["pruned"]["method"] == method
        assert facts["psnr"]["views"] == "held-out views"
        assert facts["psnr"]["count"] == VIEWS
        evaluated = json.loads(splat("eval", out, "--data", data, "--json").out)["psnr"]
        assert facts["psnr"]["after"] == pytest.approx(evaluated, abs=1e-4)
        files.append(out.read_bytes())
    before = json.loads(splat("eval", run, "--json").out)["psnr"]
    assert facts["psnr"]["before"] == pytest.approx(before, abs=1e-4)
    assert files[0] != files[1]


def test_psnr_is_that_of_the_moved_file_too(splat, run, tmp_path):
    """The cameras move with the scene. What is left is the rounding of a turned scene."""
    still = exported(splat, run, tmp_path / "a.ply", "--report")["psnr"]
    moved = exported(
        splat,
        run,
        tmp_path / "b.ply",
        "--report",
        "--rotate",
        20,
        30,
        40,
        "--scale",
        3,
        "--translate",
        5,
        6,
        7,
    )["psnr"]
    assert moved["before"] == still["before"] == pytest.approx(still["after"], abs=1e-3)
    assert moved["after"] == pytest.approx(still["after"], abs=0.02)


def test_a_target_size_is_met(splat, run, tmp_path):
    whole = exported(splat, run, tmp_path / "whole.ply")["bytes"]
    target = whole // 2
    done = splat("export", run, tmp_path / "half.ply", "--target-size", f"{target / 1000}kB", "--report")
    assert done.code == 0, done.err
    # As close as a hundredth, or as one Gaussian of 62 floats.
    size = (tmp_path / "half.ply").stat().st_size
    assert target >= size > target - max(0.01 * target, 248)
    assert "chosen: " in done.out
    assert "SH degree" in done.out
    assert f"{VIEWS} held-out views" in done.out
    assert "tried " in done.err
    facts = exported(splat, run, tmp_path / "half2.ply", "--target-size", f"{target / 1000}kB")
    assert facts["target"]["bytes"] == target
    assert (tmp_path / "half2.ply").read_bytes() == (tmp_path / "half.ply").read_bytes()
    # A scene that fits as it is stays as it is.
    facts = exported(splat, run, tmp_path / "all.ply", "--target-size", f"{whole}")
    assert facts["pruned"] is None
    assert (tmp_path / "all.ply").read_bytes() == (tmp_path / "whole.ply").read_bytes()


def test_a_target_size_of_a_file_without_photographs(splat, ply, tmp_path):
    facts = exported(splat, ply, tmp_path / "half.ply", "--target-size", "30kB")
    assert facts["bytes"] <= 30_000
    assert facts["psnr"]["before"] is None
    assert facts["psnr"]["views"] == "renders of the scene itself"


def test_a_target_psnr_drop_is_met(splat, run, tmp_path):
    whole = exported(splat, run, tmp_path / "whole.ply", "--report")
    facts = exported(splat, run, tmp_path / "small.ply", "--target-psnr-drop", 0.5)
    score = facts["psnr"]
    assert score["before"] == whole["psnr"]["before"]
    assert score["before"] - score["after"] <= 0.5
    assert facts["bytes"] < whole["bytes"]


def test_impossible_targets_name_the_nearest(splat, run, ply, tmp_path):
    done = splat("export", ply, tmp_path / "out.ply", "--target-size", "100")
    assert done.code == 2
    error = [line for line in done.err.splitlines() if line.startswith("splat: ")]
    assert len(error) == 1
    assert "--target-size 100 cannot be met: the smallest PLY file" in error[0]
    done = splat("export", ply, tmp_path / "out.ply", "--target-psnr-drop", 1)
    assert done.code == 2
    assert "--data" in done.first
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--prune", 1), "--prune 1"),
        (("--prune", -0.1), "--prune -0.1"),
        (("--prune", 0.5, "--target-size", "5MB"), "--prune"),
        (("--target-psnr-drop", 1, "--target-size", "5MB"), "two targets"),
        (("--target-size", "much"), "such as 5MB"),
        (("--method", "magic"), "opacity, contribution, random"),
        (("--scale", 0), "--scale 0"),
        (("--translate", 1, 2, "nan"), "finite"),
        (("--crop", 1, 1, 1, 0, 0, 0), "crop"),
        (("--min-opacity", 2), "opacity 2"),
        (("--max-scale", 0), "scale 0"),
        (("--sh-degree", 7), "degree 7"),
    ],
)
def test_usage_errors(splat, ply, tmp_path, flags, said):
    done = splat("export", ply, tmp_path / "deep" / "out.ply", *flags)
    assert done.code == 2
    assert said in done.first
    assert not list(tmp_path.iterdir())


def test_options_belong_to_their_format(splat, ply, tmp_path):
    done = splat("export", ply, tmp_path / "out.ply", "--sog.palette", 16)
    assert done.code == 2
    assert "--sog.* is given, but" in done.first
    facts = exported(splat, ply, tmp_path / "out.sog", "--sog.palette", 16)
    assert facts["options"]["palette"] == 16
    done = splat("export", ply, tmp_path / "bad.sog", "--sog.palette", 0)
    assert done.code == 2
    assert not (tmp_path / "bad.sog").exists()


def test_what_a_format_does_not_hold_is_said(splat, scene, tmp_path):
    source = tmp_path / "scene.ply"
    codecs.encode(replace(scene, antialiased=True), source, {"offset": [1e7, 0, 0], "up_axis": "z"})
    for extension in codecs.extensions():
        out = tmp_path / f"out{extension}" if extension.startswith(".") else tmp_path / "folder" / extension
        form = codecs.format_to_write(out)
        done = splat("export", source, out)
        assert done.code == 0, done.err
        for held, words in (("antialiased", "antialiasing"), ("offset", "offset"), ("up_axis", "up")):
            said = any(words in line and form.name in line for line in done.out.splitlines())
            assert said == (held not in form.holds), (form.name, held, done.out)


def test_a_full_disk_leaves_the_old_file(splat, ply, tmp_path, monkeypatch):
    out = tmp_path / "out.ply"
    out.write_bytes(b"the old file")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    done = splat("export", ply, out)
    assert done.code == 3
    assert done.err.count("\n") == 1
    assert str(out) in done.first
    assert "No space left" in done.first
    assert out.read_bytes() == b"the old file"
    assert [p.name for p in tmp_path.iterdir()] == ["out.ply"]


def test_a_folder_that_cannot_be_made(splat, ply, tmp_path):
    """A file is where a folder should be; and, where we are not root, a folder that refuses."""
    (tmp_path / "file").write_text("")
    done = splat("export", ply, tmp_path / "file" / "deep" / "out.ply")
    assert done.code == 3
    assert done.err.count("\n") == 1
    assert str(tmp_path / "file") in done.first
    if os.geteuid() != 0:
        locked = tmp_path / "locked"
        locked.mkdir()
        locked.chmod(stat.S_IRUSR | stat.S_IXUSR)
        done = splat("export", ply, locked / "out.ply")
        assert done.code == 3
        assert not list(locked.iterdir())


def test_a_refused_scene_leaves_no_folder(splat, ply, tmp_path, monkeypatch):
    from splat.core import DataError

    def refuse(*args: object) -> list[str]:
        raise DataError("too large for this format")

    monkeypatch.setattr(codecs, "encode", refuse)
    assert splat("export", ply, tmp_path / "a" / "b" / "out.ply").code == 3
    assert not list(tmp_path.iterdir())
