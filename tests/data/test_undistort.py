"""Every camera model of COLMAP, undistorted, against pycolmap's own projection and a pattern known in closed form."""

from __future__ import annotations

import math

import numpy as np
import pycolmap
import pytest
import torch
from PIL import Image

from splat.core import Camera, DataError
from splat.data.intrinsics import MODELS, Intrinsics
from splat.data.resample import load_photo
from splat.data.scene import Frame
from splat.data.undistort import RemapTables, undistorted

WIDTH, HEIGHT = 160, 120
FOCAL = (130.0, 131.0)
CENTRE = (82.0, 58.5)

# Coefficients of the size that real lenses have; fisheyes with a field of some 150 degrees.
CASES = {
    "SIMPLE_RADIAL": (130.0, *CENTRE, -0.12),
    "RADIAL": (130.0, *CENTRE, -0.15, 0.03),
    "OPENCV": (*FOCAL, *CENTRE, 0.055, -0.078, -0.0008, 0.0003),
    "OPENCV_FISHEYE": (55.0, 55.5, *CENTRE, 0.02, -0.005, 0.001, -0.0002),
    "FULL_OPENCV": (*FOCAL, *CENTRE, -0.2, 0.05, 0.001, -0.0005, 0.01, 0.02, -0.01, 0.003),
    "FOV": (*FOCAL, *CENTRE, 0.7),
    "SIMPLE_RADIAL_FISHEYE": (55.0, *CENTRE, 0.02),
    "RADIAL_FISHEYE": (55.0, *CENTRE, 0.02, -0.004),
    "THIN_PRISM_FISHEYE": (
        55.0,
        55.5,
        *CENTRE,
        0.02,
        -0.004,
        0.0008,
        -0.0005,
        0.001,
        -0.0002,
        0.0006,
        -0.0004,
    ),
    "RAD_TAN_THIN_PRISM_FISHEYE": (
        *(55.0, 55.5, *CENTRE, 0.02, -0.004, 0.001, -0.0003, 0.0001, -0.00002),
        *(0.0008, -0.0005, 0.0006, -0.0004, 0.0001, 0.0002),
    ),
    "SIMPLE_DIVISION": (130.0, *CENTRE, -0.1),
    "DIVISION": (*FOCAL, *CENTRE, -0.1),
    "SIMPLE_FISHEYE": (55.0, *CENTRE),
    "FISHEYE": (55.0, 55.5, *CENTRE),
    "EUCM": (80.0, 81.0, *CENTRE, 0.6, 1.1),
}
PINHOLES = {"SIMPLE_PINHOLE": (130.0, *CENTRE), "PINHOLE": (*FOCAL, *CENTRE)}


def intrinsics(model: str) -> Intrinsics:
    return Intrinsics(model, tuple(CASES[model]), WIDTH, HEIGHT)


def pattern(rays: np.ndarray) -> np.ndarray:
    """A smooth colour, 0 to 255, of viewing directions [..., 3]."""
    x, y, z = np.moveaxis(rays / np.linalg.norm(rays, axis=-1, keepdims=True), -1, 0)
    return 127.5 + 100 * np.stack([np.sin(5 * x + y), np.cos(4 * y - x), np.sin(3 * z + 2 * x)], -1)


def test_every_model_is_covered():
    known = {name for name in pycolmap.CameraModelId.__members__ if name != "INVALID"}
    assert {name for name, _, _ in MODELS} == known
    assert set(CASES) | set(PINHOLES) | {"EQUIRECTANGULAR"} == known
    for number, (name, count, focals) in enumerate(MODELS):
        assert pycolmap.CameraModelId.__members__[name].value == number
        camera = pycolmap.Camera(model=name, width=64, height=32, params=[1.0] * count)
        assert len(camera.params) == count
        assert len(camera.focal_length_idxs()) == focals
        if focals:
            assert list(camera.focal_length_idxs()) == list(range(focals))
            assert list(camera.principal_point_idxs()) == [focals, focals + 1]


@pytest.mark.parametrize("model", PINHOLES)
def test_pinholes_are_left_alone(model):
    assert not Intrinsics(model, PINHOLES[model], WIDTH, HEIGHT).distorted


def test_coefficients_of_zero_are_no_distortion():
    assert not Intrinsics("OPENCV", (*FOCAL, *CENTRE, 0.0, 0.0, 0.0, 0.0), WIDTH, HEIGHT).distorted
    assert Intrinsics("FISHEYE", (*FOCAL, *CENTRE), WIDTH, HEIGHT).distorted


@pytest.mark.parametrize("model", CASES)
def test_points_are_found_where_pycolmap_projects_them(model):
    """A point that the pinhole sees at pixel p is in the photograph at source_pixels(p)."""
    camera = intrinsics(model)
    assert camera.fault() is None
    distortion = undistorted(camera)
    generator = np.random.default_rng(3)
    columns = generator.integers(0, distortion.width, 400)
    rows = generator.integers(0, distortion.height, 400)
    depth = generator.uniform(0.5, 20, 400)
    x = (columns + 0.5 - distortion.cx) / distortion.fx * depth
    y = (rows + 0.5 - distortion.cy) / distortion.fy * depth
    expected = np.asarray(camera.colmap_camera().img_from_cam(np.stack([x, y, depth], 1)))
    table = distortion.source_pixels(range(distortion.height)).numpy()[rows, columns]
    shown = np.isfinite(table[:, 0])
    assert shown.mean() > 0.6
    # float32 of up to 160 pixels: 160 * 2^-24
    np.testing.assert_allclose(table[shown], expected[shown], rtol=0, atol=1e-5)
    # What is not shown lies outside the photograph (no model of these folds within its field).
    inside = ((expected >= 0) & (expected <= (WIDTH, HEIGHT))).all(1)
    np.testing.assert_array_equal(shown, inside)


@pytest.mark.parametrize("model", CASES)
def test_undistorted_photograph(model, tmp_path):
    """A pattern of directions, photographed through the model, looks as a pinhole sees it."""
    camera = intrinsics(model)
    v, u = np.mgrid[0:HEIGHT, 0:WIDTH] + 0.5
    rays = np.asarray(camera.colmap_camera().cam_ray_from_img(np.stack([u.ravel(), v.ravel()], 1)))
    image = np.nan_to_num(pattern(rays.reshape(HEIGHT, WIDTH, 3)))
    Image.fromarray((image + 0.5).astype(np.uint8)).save(tmp_path / "photo.png")
    distortion = undistorted(camera)
    width, height = distortion.width, distortion.height
    pinhole = Camera(
        width, height, distortion.fx, distortion.fy, distortion.cx, distortion.cy, torch.eye(4), "photo.png"
    )
    frame = Frame("photo.png", tmp_path / "photo.png", pinhole, distortion)
    photo = load_photo(frame, width, height, RemapTables(1 << 20))
    rows, columns = np.mgrid[0:height, 0:width] + 0.5
    rays = np.stack(
        [(columns - pinhole.cx) / pinhole.fx, (rows - pinhole.cy) / pinhole.fy, np.ones_like(rows)], -1
    )
    mask = photo.mask.numpy() > 0 if photo.mask is not None else np.ones((height, width), bool)
    assert mask.mean() > 0.6
    error = np.abs(photo.image.numpy() - pattern(rays))[mask]
    # Two roundings to 8 bits (0.5 each), and bilinear sampling: h^2/8 |f''| per axis with f'' at most
    # 100 (5 / focal)^2 for the shortest focal of 55: 0.2 in all. Half a pixel at the border is clamped there:
    # 0.5 * 100 * 5 / 55 = 4.5.
    assert np.quantile(error, 0.95) < 1.25
    assert error.max() < 5.75


@pytest.mark.parametrize("model", ["OPENCV", "SIMPLE_RADIAL", "DIVISION"])
def test_mild_distortion_keeps_size_and_focal_length(model):
    camera = intrinsics(model)
    distortion = undistorted(camera)
    assert (distortion.fx, distortion.fy) == camera.pinhole[:2]
    if model == "OPENCV":
        assert (distortion.width, distortion.height) == (WIDTH, HEIGHT)
        assert (distortion.cx, distortion.cy) == CENTRE


@pytest.mark.parametrize("model", ["FISHEYE", "OPENCV_FISHEYE", "EUCM"])
def test_wide_fields_are_limited_to_sixty_degrees(model):
    """A circular fisheye of 150 degrees and more: its pinhole holds at most 60 degrees to each side."""
    distortion = undistorted(intrinsics(model))
    limit = math.tan(math.radians(60)) + 1 / 55
    assert distortion.cx / distortion.fx <= limit
    assert (distortion.width - distortion.cx) / distortion.fx <= limit
    assert distortion.width > WIDTH


def test_folding_polynomial_is_cut_where_it_turns():
    """k1 = -0.4: r (1 - 0.4 r^2) grows until r = sqrt(1 / 1.2) = 0.913 and then shows the photograph mirrored."""
    camera = Intrinsics("SIMPLE_RADIAL", (60.0, 80.0, 60.0, -0.4), WIDTH, HEIGHT)
    distortion = undistorted(camera)
    # Within two steps of the search: tangents of 85 degrees in 511 steps.
    step = math.radians(85) / 511 * (1 + distortion.radius**2)
    assert distortion.radius == pytest.approx(math.sqrt(1 / 1.2), abs=2 * step)
    table = distortion.source_pixels(range(distortion.height))
    v, u = np.mgrid[0 : distortion.height, 0 : distortion.width] + 0.5
    radius = np.hypot((u - distortion.cx) / 60, (v - distortion.cy) / 60)
    assert not np.isfinite(table[..., 0].numpy()[radius > distortion.radius]).any()


def test_panoramas_are_refused():
    code, cause, remedy = Intrinsics("EQUIRECTANGULAR", (640.0, 320.0), 640, 320).fault()
    assert code == "camera-model"
    assert "panorama" in cause
    assert "perspective" in remedy


@pytest.mark.parametrize("model", [*CASES, *PINHOLES])
def test_resized_camera_sees_the_same(model):
    """Twice the pixels: every ray lands at twice the coordinates."""
    params = {**CASES, **PINHOLES}[model]
    camera = Intrinsics(model, tuple(params), WIDTH, HEIGHT)
    twice = camera.resized(2 * WIDTH, 2 * HEIGHT)
    rays = np.array([[0.1, -0.2, 1.0], [0.3, 0.2, 1.0], [-0.4, 0.05, 1.0]])
    small = np.asarray(camera.colmap_camera().img_from_cam(rays))
    large = np.asarray(twice.colmap_camera().img_from_cam(rays))
    np.testing.assert_allclose(large, 2 * small, rtol=1e-12)


@pytest.mark.parametrize(
    ("params", "cause"),
    [
        ((-100.0, 100.0, 80.0, 60.0), "focal length -100 is not positive"),
        ((0.0, 100.0, 80.0, 60.0), "focal length 0 is not positive"),
        ((1e-3, 1e-3, 80.0, 60.0), "focal length 0.001 is absurd for 160x120 pixels"),
        ((1e6, 1e6, 80.0, 60.0), "focal length 1e+06 is absurd for 160x120 pixels"),
        ((100.0, 100.0, 900.0, 60.0), r"principal point (900, 60) is far outside the 160x120 image"),
        ((100.0, math.nan, 80.0, 60.0), "intrinsics are not finite (PINHOLE [100.0, nan, 80.0, 60.0])"),
        ((100.0, 100.0, 80.0), "camera model PINHOLE has 3 parameters where 4 are needed"),
    ],
)
def test_absurd_intrinsics(params, cause):
    assert Intrinsics("PINHOLE", params, WIDTH, HEIGHT).fault()[1] == cause


def test_data_errors_exit_with_three():
    assert DataError.exit_code == 3
