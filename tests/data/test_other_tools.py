"""What other programs leave: read as the COLMAP reader reads the same scene, to a thousandth of a pixel."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from splat.core import DataError
from splat.data import Dataset, read_scene
from splat.data.brown import brown
from splat.data.depth import read_depth, source_camera
from splat.data.priors import priors
from tests.helpers import foreign
from tests.helpers.foreign import Lens, Truth, truth_of


def lens_of(kind: str):
    """The sample's pinhole with another lens: with everything, or with what a format can hold."""
    bent = {"k": (0.11, -0.06, 0.02, 0.0), "p": (0.004, -0.003)}

    def change(lens: Lens) -> Lens:
        if kind == "pinhole":
            return replace(lens, fy=lens.fx * 1.01, cx=lens.cx + 1.3, cy=lens.cy - 0.7)
        if kind == "one focal":
            return replace(lens, cx=lens.cx + 1.3, cy=lens.cy - 0.7, **bent)
        if kind == "radial":
            return replace(lens, k=(0.11, -0.06, 0.0, 0.0))
        bent_less = {**bent, "k": (0.11, -0.06, 0.0, 0.0)} if kind == "no k3" else bent
        return replace(lens, fy=lens.fx * 1.01, cx=lens.cx + 1.3, cy=lens.cy - 0.7, **bent_less)

    return change


FORMATS = {
    "metashape": (foreign.write_metashape, "full"),
    "realitycapture": (foreign.write_realitycapture, "one focal"),
    "opensfm": (foreign.write_opensfm, "full"),
    "odm": (foreign.write_odm, "full"),
    "bundler": (foreign.write_bundler, "radial"),
    "polycam": (foreign.write_polycam, "pinhole"),
    "tum": (foreign.write_tum, "pinhole"),
    "transforms": (foreign.write_nerfstudio, "no k3"),
}
READERS = {"odm": "opensfm", "tum": "rgbd"}


def written(name: str, dataset: Path, folder: Path, points: int = 40) -> tuple[Truth, Path]:
    """The sample in a format, and the file that holds its cameras."""
    write, lens = FORMATS[name]
    truth = truth_of(dataset, lens_of(lens), points)
    # A plane at a constant distance before each camera stands in for depth.
    size = (truth.lens.height, truth.lens.width)
    truth.depth = {image: np.full(size, 2.0 + 0.25 * i) for i, image in enumerate(truth.names)}
    folder.mkdir(exist_ok=True)
    return truth, write(folder, truth)


def project(frame, xyz: np.ndarray) -> np.ndarray:
    """[P, 2] pixels in the photograph as it was taken."""
    pose = frame.camera.world_to_camera.numpy()
    local = xyz @ pose[:3, :3].T + pose[:3, 3]
    return np.asarray(source_camera(frame).colmap_camera().img_from_cam(local))


def assert_agrees(scene, truth: Truth, pixel: float = 1e-3) -> None:
    assert len(scene.frames) == len(truth.names)
    for frame, name in zip(scene.frames, truth.names, strict=True):
        np.testing.assert_allclose(frame.camera.world_to_camera.numpy(), truth.poses[name], atol=1e-6)
        visible = (truth.xyz @ truth.poses[name][2, :3] + truth.poses[name][2, 3]) > 0
        assert visible.any()
        difference = project(frame, truth.xyz[visible]) - truth.pixels(name)[visible]
        assert np.abs(difference).max() < pixel, name


@pytest.mark.parametrize("name", FORMATS)
def test_agrees_with_colmap(name, small_sample, tmp_path):
    truth, file = written(name, small_sample, tmp_path / "data")
    scene = read_scene(tmp_path / "data")
    assert scene.reader == READERS.get(name, name)
    assert_agrees(scene, truth)
    if name == "polycam":
        return  # its points come from depth
    if name not in ("odm", "tum"):
        np.testing.assert_allclose(scene.points.xyz.numpy(), truth.xyz, atol=1e-9)
        np.testing.assert_array_equal(scene.points.rgb.numpy(), truth.rgb)
        assert scene.warnings == ([] if name != "bundler" else scene.warnings[:1])
    if name in ("opensfm", "bundler"):
        for point, names in enumerate(truth.seen):
            assert [scene.frames[i].name for i in scene.points.tracks.of(point).tolist()] == names
    if name not in ("tum", "odm"):
        assert read_scene(file).reader == scene.reader  # the file itself, for its folder


@pytest.mark.parametrize("name", ["metashape", "opensfm", "transforms", "realitycapture", "bundler"])
def test_real_cameras(name, shared_data, tmp_path):
    """Fox's distorted phone camera, free principal point; lund's where a format has one focal length."""
    real = shared_data("lund" if name == "bundler" else "fox")
    truth = truth_of(real, points=400)
    if name == "realitycapture":
        truth.lens = replace(truth.lens, fy=truth.lens.fx)
    if name == "bundler":
        truth.lens = replace(truth.lens, cx=truth.lens.width / 2, cy=truth.lens.height / 2)
    FORMATS[name][0](tmp_path, truth)
    scene = read_scene(tmp_path)
    colmap = read_scene(real)
    assert_agrees(scene, truth)
    for ours, theirs in zip(scene.frames, colmap.frames, strict=True):
        pose = theirs.camera.world_to_camera
        torch.testing.assert_close(ours.camera.world_to_camera, pose, rtol=0, atol=1e-6)
    np.testing.assert_allclose(scene.points.xyz.numpy(), truth.xyz, atol=1e-9)


# The writers themselves: the equations of the documentation, from the numbers in the files.


def test_metashape_by_its_manual(small_sample, tmp_path):
    truth, file = written("metashape", small_sample, tmp_path)
    root = ElementTree.parse(file).getroot()
    values = {
        item.tag: float(item.text) for item in root.find(".//calibration[@class='adjusted']") if item.text
    }
    camera = root.find(".//cameras/camera")
    matrix = np.array(camera.find("transform").text.split(), dtype=float).reshape(4, 4)
    placed = root.find(".//component/transform")
    turn = np.array(placed.find("rotation").text.split(), dtype=float).reshape(3, 3)
    shift = np.array(placed.find("translation").text.split(), dtype=float)
    inner = (truth.xyz - shift) @ turn / float(placed.find("scale").text)
    x, y, z = (np.linalg.inv(matrix) @ np.vstack([inner.T, np.ones(len(inner))]))[:3]
    x, y = x / z, y / z
    r = np.hypot(x, y)
    k1, k2, k3, p1, p2 = (values[key] for key in ("k1", "k2", "k3", "p1", "p2"))
    radial = 1 + k1 * r**2 + k2 * r**4 + k3 * r**6
    xd = x * radial + p1 * (r**2 + 2 * x**2) + 2 * p2 * x * y
    yd = y * radial + p2 * (r**2 + 2 * y**2) + 2 * p1 * x * y
    u = truth.lens.width * 0.5 + values["cx"] + xd * values["f"] + xd * values["b1"]
    v = truth.lens.height * 0.5 + values["cy"] + yd * values["f"]
    front = z > 0
    np.testing.assert_allclose(np.stack([u, v], 1)[front], truth.pixels(truth.names[0])[front], atol=1e-6)


def test_realitycapture_by_its_reference(small_sample, tmp_path):
    truth, file = written("realitycapture", small_sample, tmp_path)
    row = next(csv.DictReader(file.read_text().splitlines()))
    g = {key: float(value) for key, value in row.items() if not key.startswith("#")}
    # North, east, down in the aircraft's axes; nose, right wing and down are the camera's up, right and forwards.
    turn = (
        foreign.rotation("z", g["heading"])
        @ foreign.rotation("y", g["pitch"])
        @ foreign.rotation("x", g["roll"])
    )
    offset = truth.xyz - (g["x"], g["y"], g["alt"])
    nose, wing, down = (np.stack([offset[:, 1], offset[:, 0], -offset[:, 2]], 1) @ turn).T
    x, y = wing / down, -nose / down
    r = np.hypot(x, y)
    radial = 1 + g["k1"] * r**2 + g["k2"] * r**4 + g["k3"] * r**6 + g["k4"] * r**8
    xd = x * radial + g["t2"] * 2 * x * y + g["t1"] * (r**2 + 2 * x**2)
    yd = y * radial + g["t1"] * 2 * x * y + g["t2"] * (r**2 + 2 * y**2)
    scale = max(truth.lens.width, truth.lens.height)
    u = scale * (g["f"] / 36 * xd + g["px"]) + truth.lens.width / 2
    v = scale * (g["f"] / 36 * yd + g["py"]) + truth.lens.height / 2
    front = down > 0
    np.testing.assert_allclose(np.stack([u, v], 1)[front], truth.pixels(truth.names[0])[front], atol=1e-6)


def test_bundler_by_its_manual(small_sample, tmp_path):
    truth, file = written("bundler", small_sample, tmp_path)
    numbers = np.array(file.read_text().split("\n", 2)[2].split()[:15], dtype=float)
    f, k1, k2 = numbers[:3]
    big = truth.xyz @ numbers[3:12].reshape(3, 3).T + numbers[12:]
    p = -big[:, :2] / big[:, 2:]
    norm = np.linalg.norm(p, axis=1, keepdims=True)
    pixel = f * (1 + k1 * norm**2 + k2 * norm**4) * p  # from the centre, y up
    u, v = truth.lens.width / 2 + pixel[:, 0], truth.lens.height / 2 - pixel[:, 1]
    front = big[:, 2] < 0
    np.testing.assert_allclose(np.stack([u, v], 1)[front], truth.pixels(truth.names[0])[front], atol=1e-6)


@pytest.mark.parametrize(
    "radial", [(-0.28, 0.11, -0.03, 0.004), (0.05, 0.4, -1.1, 0.9), (0.0, 0.0, 0.0, 0.02)]
)
def test_fourth_radial_coefficient(radial):
    """No model of COLMAP's has r^8; the stand-in is within 0.1 pixels all over a photograph of 12 megapixels."""
    lens = Lens(4000, 3000, 3200.0, 3210.0, 2010.0, 1490.0, radial, (0.001, -0.002))
    camera = brown((3200.0, 3210.0, 2010.0, 1490.0), radial, lens.p, 4000, 3000).colmap_camera()
    grid = np.stack(np.meshgrid(np.linspace(-0.7, 0.7, 41), np.linspace(-0.5, 0.5, 31), [1.0]), -1).reshape(
        -1, 3
    )
    pixels = lens.project(grid)
    inside = ((pixels >= 0) & (pixels <= (4000, 3000))).all(1)
    assert inside.sum() > 600
    assert np.abs(np.asarray(camera.img_from_cam(grid)) - pixels)[inside].max() < 0.1


def test_metashape_fisheye(small_sample, tmp_path):
    """By the manual the fisheye's r is the angle from the axis, and all else alike."""
    truth = truth_of(small_sample, lens_of("full"))
    foreign.write_metashape(tmp_path, truth, kind="fisheye")
    frame = read_scene(tmp_path).frames[0]
    local = np.array([[0.3, -0.2, 1.0], [-0.5, 0.4, 1.0]])
    angle = np.arctan(np.hypot(local[:, 0], local[:, 1]))
    bent = local.copy()
    bent[:, :2] *= (angle / np.tan(angle))[:, None]
    pixels = np.asarray(source_camera(frame).colmap_camera().img_from_cam(local))
    np.testing.assert_allclose(pixels, truth.lens.project(bent), atol=1e-6)


# Depth


def test_depth_gives_points(small_sample, tmp_path):
    """Planes before the cameras: every point lies on one, at its depth, in the photograph's colour."""
    truth, _ = written("tum", small_sample, tmp_path)
    scene = read_scene(tmp_path)
    assert any("points from the depth maps of 6 photographs" in note for note in scene.notes)
    xyz = scene.points.xyz.numpy()
    planes = []
    for index, name in enumerate(truth.names):
        pose = truth.poses[name]
        planes.append(np.abs(xyz @ pose[2, :3] + pose[2, 3] - (2.0 + 0.25 * index)) < 1e-4)
    assert np.array(planes).any(0).all()
    frame = scene.frames[0]
    on_first = xyz[planes[0]][:50]
    pixels = project(frame, on_first)
    np.testing.assert_allclose(pixels % 1, 0.5, atol=1e-3)  # the centres of its pixels
    photograph = np.asarray(Image.open(frame.path))
    colours = scene.points.rgb.numpy()[planes[0]][:50]
    column, row = pixels.astype(int).T
    np.testing.assert_array_equal(colours, photograph[row, column])


def test_depth_is_a_prior(small_sample, tmp_path):
    """In world units, at the training resolution."""
    written("tum", small_sample, tmp_path)
    with Dataset(read_scene(tmp_path), downscale=2) as dataset:
        depth = priors("depth").at(dataset, 3)
        assert depth.shape == (dataset.camera(3).height, dataset.camera(3).width)
        torch.testing.assert_close(depth, torch.full_like(depth, 2.75))


def test_distrusted_depth_is_left_out(small_sample, tmp_path):
    truth, _ = written("polycam", small_sample, tmp_path)
    scene = read_scene(tmp_path)
    depth = read_depth(scene.frames[0])
    assert depth.shape == (truth.lens.height // 2, truth.lens.width // 2)
    assert not depth[: len(depth) // 2].any()
    np.testing.assert_allclose(depth[len(depth) // 2 :], 2.0)
    lower = project(scene.frames[0], scene.points.xyz.numpy()[:100])[:, 1]
    assert lower.min() > truth.lens.height / 2


def test_depth_maps_of_real_frames_agree(shared_data, tmp_path):
    """Surfaces that one frame sees stand where the next one sees them: poses and units are right."""
    real = shared_data("slambook_rgbd5")
    for item in real.iterdir():
        (tmp_path / item.name).symlink_to(item)
    (tmp_path / "intrinsics.txt").write_text("518 519 325.5 253.5\n")
    scene = read_scene(tmp_path)
    assert len(scene.frames) == 5
    assert len(scene.points) > 50_000
    maps = [read_depth(frame) for frame in scene.frames]
    for a, b in ((0, 1), (1, 2), (3, 4)):
        camera, other = scene.frames[a].camera, scene.frames[b].camera
        rows, columns = np.nonzero(maps[a][::7, ::7])
        rows, columns = rows * 7, columns * 7
        z = maps[a][rows, columns].astype(np.float64)
        pixel = np.stack([columns + 0.5, rows + 0.5], 1)
        local = np.concatenate(
            [(pixel - (camera.cx, camera.cy)) / (camera.fx, camera.fy) * z[:, None], z[:, None]], 1
        )
        to_other = (other.world_to_camera @ torch.linalg.inv(camera.world_to_camera)).numpy()
        moved = local @ to_other[:3, :3].T + to_other[:3, 3]
        seen = moved[:, 2] > 0.3
        moved = moved[seen]
        u, v = (moved[:, :2] / moved[:, 2:] * (other.fx, other.fy) + (other.cx, other.cy)).T.astype(int)
        inside = (u >= 0) & (u < 640) & (v >= 0) & (v < 480)
        measured = maps[b][v[inside], u[inside]]
        known = measured > 0
        assert known.sum() > 1000
        error = np.abs(measured[known] - moved[inside][known, 2]) / moved[inside][known, 2]
        assert np.median(error) < 0.03


def test_intrinsics_of_rgbd_are_asked_for(shared_data):
    real = shared_data("slambook_rgbd5")
    with pytest.raises(DataError) as caught:
        read_scene(real)
    line = str(caught.value).splitlines()[0]
    assert line.startswith(f"{real / 'intrinsics.txt'}: no such file")
    assert line.endswith("write one line into it: fx fy cx cy, in pixels, and the depth of one unit (1000)")


# nerfstudio's masks, depths and moved points


def test_nerfstudio_masks_and_depths(small_sample, tmp_path):
    truth = truth_of(small_sample, lens_of("pinhole"))
    file = foreign.write_nerfstudio(tmp_path, truth, ply=False)
    content = json.loads(file.read_text())
    for name in ("keep", "far"):
        (tmp_path / name).mkdir()
    size = (truth.lens.height, truth.lens.width)
    for index, frame in enumerate(content["frames"]):
        Image.fromarray(np.full(size, 255, np.uint8)).save(tmp_path / "keep" / f"{index}.png")
        Image.fromarray(np.full(size, 3000, np.uint16)).save(tmp_path / "far" / f"{index}.png")
        frame["mask_path"], frame["depth_file_path"] = f"keep/{index}.png", f"far/{index}.png"
    content["frames"][0]["fl_x"] = 70.0
    content["frames"][0]["mask_path"] = "keep/gone.png"
    file.write_text(json.dumps(content))
    scene = read_scene(tmp_path)
    assert scene.frames[0].mask_path is None
    assert scene.frames[1].mask_path == tmp_path / "keep" / "1.png"
    assert scene.frames[0].camera.fx == 70
    assert read_depth(scene.frames[2])[3, 4] == pytest.approx(3.0)
    pose = truth.poses[truth.names[2]]
    depths = scene.points.xyz.numpy() @ pose[2, :3] + pose[2, 3]
    assert (np.abs(depths - 3.0) < 1e-4).sum() > 100
    assert [line for line in scene.warnings if "have no mask" in line]
    assert not [line for line in scene.warnings if "no points" in line]


@pytest.mark.parametrize("moved", [False, True])
def test_nerfstudio_points_in_either_frame(moved, small_sample, tmp_path):
    """Poses after applied_transform, points after it (as later versions write) or before it (as early ones)."""
    truth = truth_of(small_sample, lens_of("pinhole"))
    transform = np.array([[1.0, 0, 0, 0], [0, 0, 1.0, 0], [0, -1.0, 0, 0], [0, 0, 0, 1]])
    original = truth.xyz
    truth.poses = {name: pose @ np.linalg.inv(transform) for name, pose in truth.poses.items()}
    truth.xyz = original @ transform[:3, :3].T
    file = foreign.write_nerfstudio(tmp_path, truth)
    if not moved:
        foreign.write_ply(tmp_path / "sparse_pc.ply", original, truth.rgb)
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "applied_transform": transform[:3].tolist()}))
    np.testing.assert_allclose(read_scene(tmp_path).points.xyz.numpy(), truth.xyz, atol=1e-9)


# What is wrong


def first_line(path: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_scene(path)
    assert caught.value.exit_code == 3
    return str(caught.value).splitlines()[0]


def test_points_in_other_coordinates_are_left_out(small_sample, tmp_path):
    truth, _ = written("realitycapture", small_sample, tmp_path)
    foreign.write_ply(tmp_path / "sparse.ply", truth.xyz + 4.5e6, truth.rgb)
    scene = read_scene(tmp_path)
    assert scene.points is None
    assert any("no camera sees any of its points; random points are used" in line for line in scene.warnings)


def test_photographs_by_label_and_in_folders(small_sample, tmp_path):
    """Labels without extension; the same name in two folders is told apart by the folder or refused."""
    _, file = written("realitycapture", small_sample, tmp_path)
    inner = tmp_path / "images" / "left"
    inner.mkdir()
    (tmp_path / "images" / "view_000.png").rename(inner / "view_000.png")
    assert read_scene(tmp_path).frames[0].name == "left/view_000.png"
    (tmp_path / "images" / "right").mkdir()
    (tmp_path / "images" / "right" / "view_000.png").write_bytes((inner / "view_000.png").read_bytes())
    line = first_line(tmp_path)
    assert line.endswith(
        "'view_000.png' may be any of several photographs of that name; give each its own name"
    )
    file.write_text(file.read_text().replace("view_000.png", "C:\\shots\\right\\view_000.png"))
    assert "right/view_000.png" in [frame.name for frame in read_scene(tmp_path).frames]


@pytest.mark.parametrize(
    ("name", "old", "new", "says"),
    [
        ("metashape", "</document>", "", "is not valid XML"),
        ("metashape", "</f><cx>", "x</f><cx>", "f of sensor 0 is "),
        (
            "metashape",
            'type="frame" class="adjusted"',
            'type="spherical" class="adjusted"',
            "camera type 'spherical' is not supported",
        ),
        ("realitycapture", "view_001.png,", "view_001.png,x", "x in line 3 is 'x"),
        ("realitycapture", "\nview_001.png", "\nview_001.png,1", "line 3 has 17 values under 16 names"),
        ("opensfm", '"brown"', '"spherical"', "is of type 'spherical', which is not supported"),
        ("opensfm", '"rotation": [', '"rotation": [1, ', "is no list of 3 numbers"),
        ("odm", '"focal_x"', '"focal_z"', "focal_x of camera v2 phone is None, not a number"),
        (
            "bundler",
            "# Bundle file v0.3\n7",
            "# Bundle file v0.3\n8",
            "holds 8 cameras, but its list names 7",
        ),
        ("polycam", '"fx"', '"f"', "fx is None, not a number"),
        ("tum", "130503110", "x", "holds what is no number"),
    ],
)
def test_what_is_damaged_is_named(name, old, new, says, small_sample, tmp_path):
    _, file = written(name, small_sample, tmp_path)
    if name == "odm":
        file = tmp_path / "cameras.json"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1) if name != "tum" else text.replace(old, new))
    line = first_line(tmp_path)
    assert str(file) in line
    assert says in line
    assert "; " in line


@pytest.fixture(scope="module")
def fuzzed(small_sample, tmp_path_factory):
    """The sample in every format, by name: its folder, the file with the cameras, and what that holds."""
    made = {}
    for name in FORMATS:
        folder = tmp_path_factory.mktemp("fuzz") / name
        _, file = written(name, small_sample, folder, points=3)
        made[name] = (folder, file, file.read_bytes())
    return made


@pytest.mark.fuzz
@pytest.mark.parametrize("name", [name for name in FORMATS if name != "transforms"])
@settings()
@given(
    at=st.floats(0, 1),
    removed=st.integers(0, 60),
    added=st.binary(max_size=8) | st.sampled_from([b"nan", b"1e999", b"-"]),
)
def test_damage_is_read_or_refused(name, fuzzed, at, removed, added):
    folder, file, data = fuzzed[name]
    cut = int(at * len(data))
    file.write_bytes(data[:cut] + added + data[cut + removed :])
    refused = ""
    try:
        scene = read_scene(folder)
    except DataError as error:
        refused = str(error)
    if refused:
        assert "; " in refused.splitlines()[0]
        return
    assert len(scene.frames) >= 2
    for frame in scene.frames:
        assert torch.isfinite(frame.camera.world_to_camera).all()
        assert frame.camera.fx > 0
    if scene.points is not None:
        assert torch.isfinite(scene.points.xyz).all()
