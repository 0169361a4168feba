"""check_dataset: everything that is wrong, at once, each with a remedy."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image, ImageFilter

from splat.data import Dataset, read_scene, viewpoints
from splat.data.check import check_dataset
from splat.data.problems import DatasetError
from splat.data.sample import write_sample
from splat.raster import constants as raster_constants


def codes(findings, severity):
    return {finding.code for finding in findings if finding.severity == severity}


def message(findings, code):
    return next(finding.message for finding in findings if finding.code == code)


def test_sound_dataset(small_sample):
    findings = check_dataset(small_sample)
    assert codes(findings, "error") == set()
    assert codes(findings, "warning") == {"few-views", "few-points", "sparse-views"}  # a small one
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
        *("few-views", "few-points", "sparse-views"),
    }
    assert "view_001.png" in message(findings, "image-unreadable")
    assert "view_002.png, view_003.png are the same photograph" in message(findings, "duplicate-image")
    assert "extra.png" in message(findings, "unregistered")
    assert "nobody.png" in message(findings, "mask-surplus")
    assert all(finding.remedy for finding in findings if finding.severity != "fact")


@pytest.mark.parametrize(
    ("model", "params", "said"),
    [
        ("SIMPLE_RADIAL", [70.0, 32, 24, 0.05], "SIMPLE_RADIAL, undistorted in memory (6)"),
        ("SIMPLE_RADIAL", [70.0, 32, 24, 0.0], "SIMPLE_RADIAL without distortion (6)"),
        ("SIMPLE_PINHOLE", [70.0, 32, 24], "SIMPLE_PINHOLE (6)"),
    ],
)
def test_camera_models_are_those_of_the_dataset(sample, model, params, said):
    reconstruction = pycolmap.Reconstruction(str(sample / "sparse" / "0"))
    for camera in reconstruction.cameras.values():
        camera.model = getattr(pycolmap.CameraModelId, model)
        camera.params = params
    reconstruction.write_binary(str(sample / "sparse" / "0"))
    assert message(check_dataset(sample), "cameras") == f"camera models: {said}"


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
    assert "no-parallax" in codes(check_dataset(sample), "error")  # a run refuses it


@pytest.mark.parametrize(("scale", "severity"), [(1e-3, "error"), (1e-2, "warning"), (1.0, None)])
def test_scale(scale, severity, sample):
    model = pycolmap.Reconstruction(str(sample / "sparse" / "0"))
    model.transform(pycolmap.Sim3d(scale, pycolmap.Rotation3d(), [0.0, 0.0, 0.0]))
    model.write_binary(str(sample / "sparse" / "0"))
    findings = check_dataset(sample)
    for each in ("error", "warning"):
        assert ("tiny-scale" in codes(findings, each)) == (each == severity)
    if severity == "error":
        assert "scale the model up by 1,000" in next(f.remedy for f in findings if f.code == "tiny-scale")
        with pytest.raises(DatasetError, match="nothing nearer than"):
            Dataset(read_scene(sample)).warnings()


def test_the_near_plane_is_the_rasterizers():
    assert pytest.approx(raster_constants.NEAR) == viewpoints.NEAR


def test_far_from_the_origin(sample):
    model = pycolmap.Reconstruction(str(sample / "sparse" / "0"))
    model.transform(pycolmap.Sim3d(1.0, pycolmap.Rotation3d(), [4.0e5, 5.0e6, 0.0]))
    model.write_binary(str(sample / "sparse" / "0"))
    findings = check_dataset(sample)
    assert "far-origin" in codes(findings, "warning")
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


# Sets made bad on purpose, one thing at a time: the finding names what was done, and nothing else is found.


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    """20 views all around, 900 points: nothing to complain about."""
    folder = tmp_path_factory.mktemp("good") / "scene"
    return write_sample(
        folder, views=20, width=160, height=120, points=900, samples=1, truth=False, masks=True
    )


@pytest.fixture
def scene(good, tmp_path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "scene"))


def photograph(folder: Path, number: int) -> Path:
    return folder / "images" / f"view_{number:03d}.png"


def change(folder: Path, number: int, function) -> None:
    """Rewrite a photograph."""
    path = photograph(folder, number)
    image = Image.open(path)
    image.load()
    function(image).save(path)


def blur(folder):
    change(folder, 7, lambda image: image.filter(ImageFilter.GaussianBlur(1.0)))


def shake(folder):
    """Motion blur: the mean over a way of 5 pixels."""
    kernel = ImageFilter.Kernel((5, 5), [0] * 10 + [1] * 5 + [0] * 10)
    change(folder, 7, lambda image: image.filter(kernel))


def repeat(folder):
    """The same photograph again under another name and pose, saved at low quality."""
    image = Image.open(photograph(folder, 3))
    image.save(folder / "again.jpg", quality=60)
    Image.open(folder / "again.jpg").save(photograph(folder, 4))
    (folder / "again.jpg").unlink()


def brighten(folder):
    """One stop: sRGB is nearly a power of 2.2."""
    change(folder, 5, lambda image: image.point(lambda value: min(255, round(value * 2 ** (1 / 2.2)))))


def darken(folder):
    change(folder, 5, lambda image: image.point(lambda value: round(value * 2 ** (-1 / 2.2))))


def blacken(folder):
    change(folder, 5, lambda image: Image.new("RGB", image.size, (3, 3, 3)))


def invert_masks(folder):
    for path in (folder / "masks").iterdir():
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)


def move_away(folder):
    model = pycolmap.Reconstruction(str(folder / "sparse" / "0"))
    model.transform(pycolmap.Sim3d(1.0, pycolmap.Rotation3d(), [1e6, 0.0, 0.0]))
    model.write_binary(str(folder / "sparse" / "0"))


def shrink(folder):
    model = pycolmap.Reconstruction(str(folder / "sparse" / "0"))
    model.transform(pycolmap.Sim3d(1e-2, pycolmap.Rotation3d(), [0.0, 0.0, 0.0]))
    model.write_binary(str(folder / "sparse" / "0"))


def leave_out(*numbers):
    """Views whose poses and photographs are gone."""

    def remove(folder):
        model = pycolmap.Reconstruction(str(folder / "sparse" / "0"))
        for number in numbers:
            model.deregister_frame(number + 1)
            photograph(folder, number).unlink()
            (folder / "masks" / f"view_{number:03d}.png").unlink()
        model.write_binary(str(folder / "sparse" / "0"))

    return remove


def forget_pose(folder):
    model = pycolmap.Reconstruction(str(folder / "sparse" / "0"))
    model.deregister_frame(9)
    model.write_binary(str(folder / "sparse" / "0"))


def lose_photograph(folder):
    photograph(folder, 8).unlink()


def cut_loose(folder):
    """One image shares no point with the others."""
    model = pycolmap.Reconstruction(str(folder / "sparse" / "0"))
    for identity, point in list(model.points3D.items()):
        if any(element.image_id == 4 for element in point.track.elements):
            model.delete_point3D(identity)
    model.write_binary(str(folder / "sparse" / "0"))


def add_video(folder):
    (folder / "images" / "IMG_0001.HEIC").write_bytes(b"ftypheic")


def add_mask(folder):
    shutil.copy(folder / "masks" / "view_000.png", folder / "masks" / "nobody.png")


BAD = {
    "blurred": (blur, {"blurred"}, "view_007.png"),
    "shaken": (shake, {"blurred"}, "view_007.png"),
    "near-duplicate": (repeat, {"near-duplicate"}, "view_003.png and view_004.png"),
    "brighter": (brighten, {"exposure-jump"}, "view_005.png +"),
    "darker": (darken, {"exposure-jump"}, "view_005.png -"),
    "black": (blacken, {"flat"}, "view_005.png"),
    "masks inverted": (invert_masks, {"mask-inverted"}, "of the middle"),
    "far": (move_away, {"far-origin"}, "1e+06 units"),
    "tiny": (shrink, {"tiny-scale"}, "nearer than"),
    "gap": (leave_out(4, 5, 6, 7), {"coverage-gap", "few-views"}, "between view_003.png and view_008.png"),
    "sparse": (leave_out(*range(1, 20, 2)), {"sparse-views", "few-views"}, "degrees apart"),
    "no pose": (forget_pose, {"unregistered", "mask-surplus", "few-views"}, "view_008.png"),
    "no photograph": (lose_photograph, {"image-missing", "mask-surplus", "few-views"}, "view_008.png"),
    "unconnected": (cut_loose, {"unconnected"}, "view_003.png"),
    "foreign": (add_video, {"foreign-file"}, "IMG_0001.HEIC"),
    "mask of nothing": (add_mask, {"mask-surplus"}, "nobody.png"),
}


def test_nothing_is_found_in_a_good_set(good):
    findings = check_dataset(good)
    assert codes(findings, "warning") | codes(findings, "error") == set()
    assert "photographs go 3" in message(findings, "directions")


@pytest.mark.parametrize("what", BAD)
def test_what_was_spoiled_is_found(what, scene):
    spoil, expected, says = BAD[what]
    spoil(scene)
    findings = check_dataset(scene)
    assert codes(findings, "warning") | codes(findings, "error") == expected
    told = [finding for finding in findings if finding.severity != "fact"]
    assert any(says in finding.message for finding in told), [str(finding) for finding in told]
    assert all(finding.remedy for finding in told)


def test_masks_of_a_subject_without_points(scene):
    """Then the middle and the border of the photographs alone have to tell."""
    model = pycolmap.Reconstruction(str(scene / "sparse" / "0"))
    model.delete_all_points2D_and_points3D()
    model.write_binary(str(scene / "sparse" / "0"))
    y, x = np.mgrid[:120, :160]
    subject = ((x - 80) / 60) ** 2 + ((y - 60) / 50) ** 2 < 1
    for path in (scene / "masks").iterdir():
        Image.fromarray(subject.astype(np.uint8) * 255).save(path)
    assert codes(check_dataset(scene), "warning") == {"no-points"}
    invert_masks(scene)
    assert codes(check_dataset(scene), "warning") == {"no-points", "mask-inverted"}


def test_brightness_is_compared_without_points_too(scene):
    model = pycolmap.Reconstruction(str(scene / "sparse" / "0"))
    model.delete_all_points2D_and_points3D()
    model.write_binary(str(scene / "sparse" / "0"))
    assert codes(check_dataset(scene), "warning") == {"no-points"}
    brighten(scene)
    assert codes(check_dataset(scene), "warning") == {"no-points", "exposure-jump"}


def test_truncated_jpeg_is_found(scene):
    """Photographs are decoded at a fraction of their size, but to their end."""
    path = photograph(scene, 2)
    image = Image.open(path)
    image.load()
    big = image.resize((1600, 1200))
    big.save(scene / "big.jpg", quality=95)
    data = (scene / "big.jpg").read_bytes()
    (scene / "big.jpg").unlink()
    path.write_bytes(data[: int(0.9 * len(data))])
    assert "image-unreadable" in codes(check_dataset(scene), "error")


@pytest.mark.parametrize(
    ("name", "warnings"),
    [("fox", set()), ("lund", set()), ("slambook_rgbd5", {"few-views"}), ("chair", set())],
)
def test_real_sets_raise_no_false_alarm(name, warnings, shared_data, tmp_path):
    real = shared_data(name)
    if name == "slambook_rgbd5":
        for item in real.iterdir():
            (tmp_path / item.name).symlink_to(item)
        (tmp_path / "intrinsics.txt").write_text("518 519 325.5 253.5\n")
        real = tmp_path
    elif name == "chair":  # half of its training views
        content = json.loads((real / "transforms_train.json").read_text())
        content["frames"] = content["frames"][::2]
        (tmp_path / "transforms_train.json").write_text(json.dumps(content))
        (tmp_path / "train").symlink_to(real / "train")
        real, warnings = tmp_path, {"no-test-views", "unregistered"}
    findings = check_dataset(real)
    assert codes(findings, "error") == set()
    assert codes(findings, "warning") == warnings
