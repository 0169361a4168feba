"""check_dataset: everything that is wrong, at once, each with a remedy."""

from __future__ import annotations

import shutil

import numpy as np
import pycolmap
import pytest
from PIL import Image

from splat.data.check import check_dataset


def codes(findings, severity):
    return {finding.code for finding in findings if finding.severity == severity}


def message(findings, code):
    return next(finding.message for finding in findings if finding.code == code)


def test_sound_dataset(small_sample):
    findings = check_dataset(small_sample)
    assert codes(findings, "error") == set()
    assert codes(findings, "warning") == {"few-views", "few-points"}  # the sample is a small one
    assert codes(findings, "fact") >= {"views", "cameras", "points", "memory"}
    for finding in findings:
        assert (finding.severity == "fact") == (finding.remedy == "")


def test_everything_at_once(sample):
    images = sample / "images"
    (images / "view_000.png").unlink()
    (images / "view_001.png").write_bytes((images / "view_001.png").read_bytes()[:300])
    shutil.copy(images / "view_002.png", images / "view_003.png")
    Image.new("RGB", (40, 40)).save(images / "view_004.png")
    shutil.copy(images / "view_002.png", images / "extra.png")
    (sample / "masks").mkdir()
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(sample / "masks" / "view_002.png")
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(sample / "masks" / "view_003.png")
    Image.fromarray(np.zeros((48, 64), np.uint8)).save(sample / "masks" / "nobody.png")
    findings = check_dataset(sample)
    assert codes(findings, "error") == {"image-unreadable", "image-size", "mask-size"}
    assert codes(findings, "warning") == {
        *("image-missing", "duplicate-image", "unregistered", "mask-missing", "mask-empty", "mask-surplus"),
        *("few-views", "few-points"),
    }
    assert "view_001.png" in message(findings, "image-unreadable")
    assert "view_002.png, view_003.png are the same photograph" in message(findings, "duplicate-image")
    assert "extra.png" in message(findings, "unregistered")
    assert "nobody.png" in message(findings, "mask-surplus")
    assert all(finding.remedy for finding in findings if finding.severity != "fact")


def change_poses(folder, pose_of):
    """Rewrite the model's poses; `pose_of(index, pose)` gives the new Rigid3d."""
    model = pycolmap.Reconstruction(str(folder / "sparse" / "0"))
    for index, image in sorted(model.images.items()):
        model.frames[image.frame_id].rig_from_world = pose_of(index, image.cam_from_world())
    model.write_binary(str(folder / "sparse" / "0"))


def test_poses_that_coincide(sample):
    first = {}

    def pose_of(index, pose):
        first.setdefault("pose", pose)
        return first["pose"] if index == 2 else pose

    change_poses(sample, pose_of)
    findings = check_dataset(sample)
    assert "view_000.png, view_001.png have the same pose" in message(findings, "same-pose")


def test_cameras_at_one_place(sample):
    change_poses(sample, lambda index, pose: pycolmap.Rigid3d(pose.rotation, [0.0, 0.0, 0.0]))
    assert "no-parallax" in codes(check_dataset(sample), "warning")


@pytest.mark.parametrize(("scale", "code"), [(1e-3, "tiny-scale"), (1.0, None)])
def test_scale(scale, code, sample):
    model = pycolmap.Reconstruction(str(sample / "sparse" / "0"))
    model.transform(pycolmap.Sim3d(scale, pycolmap.Rotation3d(), [0.0, 0.0, 0.0]))
    model.write_binary(str(sample / "sparse" / "0"))
    assert ("tiny-scale" in codes(check_dataset(sample), "warning")) == (code is not None)


def test_far_from_the_origin(sample):
    model = pycolmap.Reconstruction(str(sample / "sparse" / "0"))
    model.transform(pycolmap.Sim3d(1.0, pycolmap.Rotation3d(), [4.0e5, 5.0e6, 0.0]))
    model.write_binary(str(sample / "sparse" / "0"))
    findings = check_dataset(sample)
    assert "far-origin" in codes(findings, "fact")
    assert codes(findings, "error") == set()


@pytest.mark.parametrize("what", ["nothing", "empty", "truncated", "no images"])
def test_what_stops_reading_is_one_finding(what, sample):
    path = sample
    if what == "nothing":
        path = sample / "gone"
    elif what == "empty":
        path = sample / "empty"
        path.mkdir()
    elif what == "truncated":
        (sample / "sparse" / "0" / "images.bin").write_bytes(b"abc")
    else:
        shutil.rmtree(sample / "images")
    findings = check_dataset(path)
    assert [finding.severity for finding in findings if finding.severity != "fact"] == ["error"]
    assert findings[-1].remedy


def test_little_disk(small_sample, monkeypatch):
    usage = shutil.disk_usage(small_sample)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage._replace(free=1000))
    assert "disk" in codes(check_dataset(small_sample), "warning")
