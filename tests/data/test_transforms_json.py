"""transforms.json and Blender files: conventions, distortion, points, and what is wrong with them."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from splat.core import DataError
from splat.data import Dataset, read_scene
from splat.data.ply import read_points
from splat.data.problems import Report

# Camera to world in OpenGL's axes: at (1, 2, 3), looking along world -x, world z up in the image.
POSE = [[0.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 2.0], [0.0, 1.0, 0.0, 3.0], [0.0, 0.0, 0.0, 1.0]]


def write(folder: Path, content: dict, images: int = 2, size=(40, 30), suffix=".png") -> Path:
    """A dataset of `images` photographs and a transforms.json with one frame each."""
    (folder / "images").mkdir(exist_ok=True)
    frames = []
    for index in range(images):
        Image.new("RGB", size, (index * 40, 90, 200)).save(folder / "images" / f"{index}{suffix}")
        frames.append({"file_path": f"images/{index}{suffix}", "transform_matrix": POSE})
    content = {"frames": frames, **content}
    (folder / "transforms.json").write_text(json.dumps(content))
    return folder


def first_line(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_scene(path)
    return str(caught.value).splitlines()[0]


def test_axes(tmp_path):
    scene = read_scene(write(tmp_path, {"camera_angle_x": math.radians(90)}))
    camera = scene.frames[0].camera
    assert scene.reader == "transforms"
    assert camera.position.tolist() == [1, 2, 3]
    assert camera.forward.tolist() == [-1, 0, 0]
    up = -camera.world_to_camera[1, :3]
    assert up.tolist() == [0, 0, 1]
    assert camera.world_to_camera.dtype == torch.float64
    assert (camera.fx, camera.fy) == (pytest.approx(20), pytest.approx(20))
    assert (camera.cx, camera.cy) == (20, 15)


def test_intrinsics_of_a_frame_come_first(tmp_path):
    folder = write(tmp_path, {"fl_x": 50.0, "fl_y": 51.0, "cx": 21.0, "cy": 14.0, "w": 40, "h": 30})
    content = json.loads((folder / "transforms.json").read_text())
    content["frames"][1]["fl_x"] = 70.0
    (folder / "transforms.json").write_text(json.dumps(content))
    first, second = (frame.camera for frame in read_scene(folder).frames)
    assert (first.fx, first.fy, first.cx, first.cy) == (50, 51, 21, 14)
    assert (second.fx, second.fy) == (70, 51)


def test_sizes_of_other_resolutions_scale(tmp_path):
    folder = write(tmp_path, {"fl_x": 100.0, "cx": 40.0, "cy": 30.0, "w": 80, "h": 60})
    camera = read_scene(folder).frames[0].camera
    assert (camera.width, camera.fx, camera.cx, camera.cy) == (40, 50, 20, 15)


@pytest.mark.parametrize(
    ("values", "model", "params"),
    [
        ({"k1": 0.1, "k2": 0.2, "p1": 0.01, "p2": 0.02}, "OPENCV", (0.1, 0.2, 0.01, 0.02)),
        ({"k1": 0.1, "k3": 0.3, "camera_model": "OPENCV"}, "FULL_OPENCV", (0.1, 0, 0, 0, 0.3, 0, 0, 0)),
        ({"k1": 0.1, "k4": 0.01, "camera_model": "OPENCV_FISHEYE"}, "OPENCV_FISHEYE", (0.1, 0, 0, 0.01)),
        ({"k1": 0.1, "is_fisheye": True}, "OPENCV_FISHEYE", (0.1, 0, 0, 0)),
    ],
)
def test_distortion(values, model, params, tmp_path):
    scene = read_scene(write(tmp_path, {"fl_x": 50.0, **values}))
    distortion = scene.frames[0].distortion
    assert distortion is not None
    assert distortion.source.model == model
    assert distortion.source.params == (50, 50, 20, 15, *params)


def test_names_without_extension_and_with_backslashes(tmp_path):
    folder = write(tmp_path, {"fl_x": 50.0}, suffix=".jpg")
    text = (folder / "transforms.json").read_text().replace("images/", ".\\\\images\\\\").replace(".jpg", "")
    (folder / "transforms.json").write_text(text)
    assert [frame.name for frame in read_scene(folder).frames] == ["images/0.jpg", "images/1.jpg"]


def test_missing_frames_are_skipped_with_one_warning(tmp_path):
    folder = write(tmp_path, {"fl_x": 50.0}, images=5)
    for index in (1, 3):
        (folder / "images" / f"{index}.png").unlink()
    scene = read_scene(folder)
    assert len(scene.frames) == 3
    missing = [line for line in scene.warnings if "are missing" in line]
    assert len(missing) == 1
    assert "2 of the 5 photographs of transforms.json are missing (images/1.png, images/3.png)" in missing[0]


def test_scaled_and_rounded_rotations_become_rotations(tmp_path):
    folder = write(tmp_path, {"fl_x": 50.0})
    content = json.loads((folder / "transforms.json").read_text())
    matrix = np.array(POSE)
    matrix[:3, :3] = 0.5 * np.round(matrix[:3, :3] + 1e-4, 4)
    for frame in content["frames"]:
        frame["transform_matrix"] = matrix.tolist()
    (folder / "transforms.json").write_text(json.dumps(content))
    camera = read_scene(folder).frames[0].camera
    rotation = camera.world_to_camera[:3, :3]
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-12)
    assert camera.position.tolist() == pytest.approx([1, 2, 3])


XYZ = np.array([[0.5, 1.0, -2.0], [1.0, 2.0, 3.0]], "<f4")
RGB = np.array([[1, 2, 3], [255, 128, 0]], np.uint8)


def ply(form: str) -> bytes:
    """A point cloud of XYZ and RGB."""
    head = f"ply\nformat {form} 1.0\nelement vertex 2\n" + "".join(f"property float {a}\n" for a in "xyz")
    head += "".join(f"property uchar {c}\n" for c in ("red", "green", "blue")) + "end_header\n"
    if form == "ascii":
        return (
            head + "".join(f"{' '.join(map(str, [*p, *c]))}\n" for p, c in zip(XYZ, RGB, strict=True))
        ).encode()
    return head.encode() + b"".join(p.tobytes() + c.tobytes() for p, c in zip(XYZ, RGB, strict=True))


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian"])
def test_points_of_a_ply(form, tmp_path):
    folder = write(tmp_path, {"fl_x": 50.0, "ply_file_path": "sparse_pc.ply"})
    (folder / "sparse_pc.ply").write_bytes(ply(form))
    scene = read_scene(folder)
    assert scene.warnings == []
    assert scene.points is not None
    np.testing.assert_array_equal(scene.points.xyz.numpy(), XYZ)
    np.testing.assert_array_equal(scene.points.rgb.numpy(), RGB)
    (folder / "sparse_pc.ply").write_bytes(ply(form)[:-13])
    assert first_line(folder).startswith(
        f"{folder / 'sparse_pc.ply'}: is truncated: 2 points were announced; export"
    )
    colour = ply("ascii").replace(b"255", b"nan")
    (folder / "sparse_pc.ply").write_bytes(colour)
    assert first_line(folder).startswith(
        f"{folder / 'sparse_pc.ply'}: has colours that are not finite; export"
    )
    (folder / "sparse_pc.ply").unlink()
    assert first_line(folder).startswith(f"{folder / 'sparse_pc.ply'}: no such point cloud; put it back")


@pytest.mark.fuzz
@pytest.mark.parametrize("form", ["ascii", "binary_little_endian"])
@settings()
@given(at=st.integers(0, 230), removed=st.integers(0, 40), added=st.binary(max_size=8))
def test_damaged_ply_is_read_or_refused(form, at, removed, added, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "fuzzed.ply"
    data = ply(form)
    path.write_bytes(data[:at] + added + data[at + removed :])
    refused = ""
    try:
        points = read_points(path, Report())
    except DataError as error:
        refused = str(error)
    if refused:
        assert "; " in refused.splitlines()[0]
    elif points is not None:
        assert torch.isfinite(points.xyz).all()
        assert len(points.xyz) == len(points.rgb) > 0


def blender(folder: Path, angle: float = 0.7) -> Path:
    for split, count in (("train", 3), ("test", 2)):
        (folder / split).mkdir()
        frames = []
        for index in range(count):
            Image.new("RGBA", (20, 20), (200, 10, 10, 128)).save(folder / split / f"r_{index}.png")
            frames.append({"file_path": f"./{split}/r_{index}", "transform_matrix": POSE})
        content = {"camera_angle_x": angle, "frames": frames}
        (folder / f"transforms_{split}.json").write_text(json.dumps(content))
    return folder


def test_blender(tmp_path):
    scene = read_scene(blender(tmp_path))
    assert scene.reader == "blender"
    assert scene.test_names == {"test/r_0.png", "test/r_1.png"}
    assert scene.bounds == 1.3
    with Dataset(scene) as data:
        assert [scene.frames[index].name for index in data.train] == [f"train/r_{i}.png" for i in range(3)]
        assert data.camera(0).fx == pytest.approx(10 / math.tan(0.35))
        photo = data.photo(0)
        assert photo.image[3, 3].tolist() == [200, 10, 10]
        assert photo.alpha is not None
        assert int(photo.alpha[3, 3]) == 128


def test_blender_without_test_views(tmp_path):
    folder = blender(tmp_path)
    (folder / "transforms_test.json").unlink()
    scene = read_scene(folder)
    assert len(scene.frames) == 3
    assert scene.test_names is None
    assert len(scene.warnings) == 1


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (
            "{",
            "is not valid JSON (Expecting property name enclosed in double quotes: line 1 column 2 (char 1))",
        ),
        ("[]", "holds no JSON object"),
        ("{}", 'has no list of "frames"'),
        ('{"frames": [{"transform_matrix": []}]}', "frame 0 has no file_path"),
    ],
)
def test_damaged_json(content, cause, tmp_path):
    (tmp_path / "transforms.json").write_text(content)
    line = first_line(tmp_path)
    assert line == f"{tmp_path / 'transforms.json'}: {cause}; export the dataset again, or correct the file"


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({}, "images/0.png has neither fl_x nor camera_angle_x; export"),
        ({"fl_x": "50"}, "fl_x of frame 0 is '50', not a number; export"),
        ({"camera_angle_x": 40}, "field of view of 40 radians is absurd; give camera_angle_x in radians"),
        (
            {"fl_x": 50.0, "camera_model": "PANO"},
            "unknown camera model 'PANO'; use one of OPENCV, OPENCV_FISHEYE",
        ),
        (
            {"fl_x": 50.0, "k4": 0.1},
            "radial coefficient k4 = 0.1 with camera model OPENCV is not supported; undistort",
        ),
    ],
)
def test_absurd_values(values, line, tmp_path):
    assert line in first_line(write(tmp_path, {"w": 40, "h": 30, **values}))


@pytest.mark.parametrize(
    "matrix", [None, [[1, 2], [3, 4]], np.zeros((4, 4)).tolist(), np.diag([1, 1, -1, 1]).tolist(), "pose"]
)
def test_pose_that_is_none(matrix, tmp_path):
    folder = write(tmp_path, {"fl_x": 50.0})
    content = json.loads((folder / "transforms.json").read_text())
    content["frames"][0]["transform_matrix"] = matrix
    (folder / "transforms.json").write_text(json.dumps(content))
    assert "the transform_matrix of images/0.png is n" in first_line(folder)


def test_frame_listed_twice(tmp_path):
    folder = write(tmp_path, {"fl_x": 50.0})
    content = json.loads((folder / "transforms.json").read_text())
    content["frames"].append(content["frames"][0])
    (folder / "transforms.json").write_text(json.dumps(content))
    assert first_line(folder) == (
        f"{folder}: transforms.json lists a photograph more than once (images/0.png); remove the repeated entries"
    )


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
KEYS = [
    "frames",
    "fl_x",
    "fl_y",
    "cx",
    "cy",
    "w",
    "h",
    "k1",
    "k4",
    "camera_angle_x",
    "camera_model",
    "ply_file_path",
]


@pytest.mark.fuzz
@settings()
@given(
    st.dictionaries(st.sampled_from(KEYS), JSON, max_size=3),
    st.dictionaries(st.sampled_from([*KEYS, "file_path", "transform_matrix"]), JSON, max_size=2),
)
def test_any_value_anywhere_is_read_or_refused(tmp_path_factory, shared, frame):
    """Whatever stands in the file, the answer is a scene with finite cameras or a DataError with a remedy."""
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    if not folder.exists():
        folder.mkdir()
        write(folder, {})
    frames = [{"file_path": f"images/{i}.png", "transform_matrix": POSE} for i in range(2)]
    frames[0].update(frame)
    (folder / "transforms.json").write_text(json.dumps({"fl_x": 50.0, "frames": frames, **shared}))
    refused = ""
    try:
        scene = read_scene(folder)
    except DataError as error:
        refused = str(error)
    if refused:
        assert "; " in refused.splitlines()[0]
        return
    for item in scene.frames:
        assert torch.isfinite(item.camera.world_to_camera).all()
        assert item.camera.fx > 0
