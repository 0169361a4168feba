"""Where readers find things, and the first line of every error a user meets."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pycolmap
import pytest
import torch
from PIL import Image

from splat.core import DataError
from splat.data import Dataset, read_scene


def first_line(path: Path) -> str:
    """The first line of the error that reading `path` gives."""
    with pytest.raises(DataError) as caught:
        read_scene(path)
    assert caught.value.exit_code == 3
    return str(caught.value).splitlines()[0]


def edit(folder: Path, change) -> None:
    """Let `change` alter the COLMAP model of a dataset."""
    model = pycolmap.Reconstruction(str(folder / "sparse" / "0"))
    change(model)
    model.write_binary(str(folder / "sparse" / "0"))


def with_camera(folder: Path, **values) -> None:
    """Give the dataset's camera other values."""

    def change(model):
        for name, value in values.items():
            setattr(model.cameras[1], name, value)

    edit(folder, change)


# Layouts


@pytest.mark.parametrize(
    "place", ["sparse", "sparse/0", "sparse/7", "colmap/sparse/0", "colmap/sparse", "colmap/0", "."]
)
def test_places_of_the_model(place, sample):
    files = sample / "model"
    (sample / "sparse" / "0").rename(files)
    (sample / "sparse").rmdir()
    (sample / place).mkdir(parents=True, exist_ok=True)
    for file in files.iterdir():
        file.rename(sample / place / file.name)
    files.rmdir()
    scene = read_scene(sample)
    assert len(scene.frames) == 6
    assert scene.warnings == []
    assert len(scene.points) == 300


def test_model_folder_itself(sample):
    assert len(read_scene(sample / "sparse" / "0").frames) == 6


def test_largest_model_is_taken_and_named(sample):
    def drop(model):
        for image in (4, 5, 6):
            model.deregister_frame(image)

    shutil.copytree(sample / "sparse" / "0", sample / "sparse" / "1")
    edit(sample, drop)
    scene = read_scene(sample)
    assert len(scene.frames) == 6
    assert any(
        "sparse/1 with 6 images is taken as the largest model (sparse/0 has 3)" in note
        for note in scene.notes
    )


@pytest.mark.parametrize("place", [".", "colmap/images"])
def test_places_of_the_photographs(place, sample):
    (sample / place).mkdir(parents=True, exist_ok=True)
    for file in (sample / "images").iterdir():
        file.rename(sample / place / file.name)
    (sample / "images").rmdir()
    assert len(read_scene(sample).frames) == 6


def test_names_relative_to_the_root(sample):
    def rename(model):
        for image in model.images.values():
            image.name = f"images/{image.name}"

    edit(sample, rename)
    assert read_scene(sample).frames[0].name == "images/view_000.png"


def test_reduced_copies_serve_where_the_originals_are_gone(sample):
    (sample / "images").rename(sample / "images_2")
    for file in (sample / "images_2").iterdir():
        Image.open(file).resize((32, 24)).save(file)
    scene = read_scene(sample)
    assert scene.frames[0].camera.width == 32
    assert scene.warnings == [
        f"{sample}: images/ is not there; the reduced copies in images_2/ are used; "
        "add images/ to train from the full resolution"
    ]


def test_originals_are_taken_before_reduced_copies(sample):
    shutil.copytree(sample / "images", sample / "images_2")
    scene = read_scene(sample)
    assert scene.frames[0].path.parent.name == "images"
    assert scene.warnings == []


# Masks


@pytest.mark.parametrize("name", ["view_001.png.png", "view_001.png"])
def test_masks_by_either_name(name, sample):
    (sample / "masks").mkdir()
    mask = np.zeros((48, 64), np.uint8)
    mask[:, 10:] = 255
    Image.fromarray(mask).save(sample / "masks" / name)
    scene = read_scene(sample)
    assert scene.frames[1].mask_path == sample / "masks" / name
    assert scene.frames[0].mask_path is None
    assert any("5 photographs have no mask" in line for line in scene.warnings)
    with Dataset(scene) as data:
        assert torch.equal(data.photo(1).mask, torch.from_numpy(mask))


# Sizes


def test_smaller_photographs_scale_their_intrinsics(sample):
    full = read_scene(sample).frames[0].camera
    for file in (sample / "images").iterdir():
        Image.open(file).resize((32, 24)).save(file)
    scene = read_scene(sample)
    camera = scene.frames[0].camera
    assert (camera.width, camera.height) == (32, 24)
    assert camera.fx == pytest.approx(full.fx / 2)
    assert camera.cx == pytest.approx(full.cx / 2)
    assert scene.notes == ["6 photographs are 32x24 while the camera says 64x48: their intrinsics are scaled"]


def test_turned_photographs_follow_exif_where_the_camera_does(sample):
    """Stored on their side, marked so, and posed upright."""
    pixels = {file.name: np.asarray(Image.open(file)) for file in (sample / "images").iterdir()}
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned to the left: to be turned right by 90 degrees
    for name, upright in pixels.items():
        stored = np.ascontiguousarray(np.rot90(upright))
        Image.fromarray(stored).save(sample / "images" / name, exif=exif)
    scene = read_scene(sample)
    assert scene.notes == ["6 photographs are turned upright by EXIF, as their cameras expect"]
    with Dataset(scene) as data:
        np.testing.assert_array_equal(data.photo(2).image.numpy(), pixels["view_002.png"])


def test_exif_is_ignored_where_the_camera_fits_the_stored_pixels(sample):
    exif = Image.Exif()
    exif[0x0112] = 3
    file = sample / "images" / "view_000.png"
    stored = np.asarray(Image.open(file))
    Image.fromarray(stored).save(file, exif=exif)
    with Dataset(read_scene(sample)) as data:
        np.testing.assert_array_equal(data.photo(0).image.numpy(), stored)


# Errors


def test_no_such_folder(tmp_path):
    line = first_line(tmp_path / "gone")
    assert line.startswith(f"{tmp_path / 'gone'}: no such folder; check the spelling")


def test_empty_folder(tmp_path):
    assert first_line(tmp_path).startswith(f"{tmp_path}: holds no dataset; give a folder with a COLMAP model")


def test_photographs_without_a_model(sample):
    shutil.rmtree(sample / "sparse")
    assert first_line(sample).startswith(
        f"{sample}: 6 photographs but no camera poses; run `splat process {sample} DATA` to compute them"
    )


def test_all_photographs_missing(sample):
    shutil.rmtree(sample / "images")
    assert first_line(sample) == (
        f"{sample}: none of the 6 photographs of the model sparse/0 is there "
        f"(view_000.png, view_001.png, view_002.png and 3 more); put the photographs into {sample / 'images'}"
    )


def test_some_photographs_missing(sample):
    (sample / "images" / "view_001.png").unlink()
    scene = read_scene(sample)
    assert [frame.name for frame in scene.frames] == [f"view_00{i}.png" for i in (0, 2, 3, 4, 5)]
    assert scene.warnings == [
        f"{sample}: 1 of the 6 photographs of the model sparse/0 are missing (view_001.png); "
        "they are left out; put them back to use them"
    ]
    # Tracks follow the numbers of the frames that are left.
    tracks = scene.points.tracks
    assert int(tracks.frames.max()) == 4
    assert int(tracks.offsets[-1]) == len(tracks.frames)
    for index, frame in enumerate(scene.frames):
        seen = scene.points.xyz[tracks.points()[tracks.frames == index]]
        pose = frame.camera.world_to_camera
        local = seen @ pose[:3, :3].T + pose[:3, 3]
        assert (local[:, 2] > 0).all()
        u = local[:, 0] / local[:, 2] * frame.camera.fx + frame.camera.cx
        assert ((u >= 0) & (u <= 64)).all()


def test_corrupt_photograph(sample):
    path = sample / "images" / "view_003.png"
    path.write_bytes(b"not an image at all")
    assert first_line(sample).startswith(
        f"{path}: photograph is damaged and cannot be decoded (not an image); copy it"
    )


def test_size_of_another_aspect(sample):
    path = sample / "images" / "view_003.png"
    Image.new("RGB", (64, 40)).save(path)
    assert first_line(sample) == (
        f"{path}: photograph is 64x40 but its camera is 64x48; use the photographs from which the poses were "
        "computed, uncropped, or compute the poses again"
    )


def test_photograph_turned_afterwards(sample):
    path = sample / "images" / "view_003.png"
    Image.new("RGB", (48, 64)).save(path)
    assert "(it was turned by 90 degrees after the poses were computed); use" in first_line(sample)


def test_single_view(sample):
    for index in range(1, 6):
        (sample / "images" / f"view_00{index}.png").unlink()
    assert first_line(sample) == (
        f"{sample}: a single usable view (view_000.png); a scene needs at least 2 posed photographs: add some"
    )


def test_no_points_is_a_warning(sample):
    edit(sample, lambda model: model.delete_all_points2D_and_points3D())
    scene = read_scene(sample)
    assert scene.points is None
    assert scene.warnings == [
        f"{sample / 'sparse' / '0'}: the model has no points; random points are used; "
        "keep points3D when exporting for better results"
    ]


def test_duplicate_names(sample):
    path = sample / "sparse" / "0" / "images.bin"
    path.write_bytes(path.read_bytes().replace(b"view_001.png", b"view_000.png"))
    assert (
        first_line(sample)
        == f"{path}: lists the photograph view_000.png more than once; remove one of them from the model"
    )


def test_unknown_camera_model(sample):
    path = sample / "sparse" / "0" / "cameras.bin"
    data = bytearray(path.read_bytes())
    data[12:16] = (99).to_bytes(4, "little")  # count (8), id (4), model (4)
    path.write_bytes(bytes(data))
    line = first_line(sample)
    assert line.startswith(
        f"{path}: camera 1 has the unknown camera model 99; use one of SIMPLE_PINHOLE, PINHOLE"
    )


@pytest.mark.parametrize(
    ("params", "cause"),
    [
        ([-60.0, 60.0, 32.0, 24.0], "focal length -60 is not positive"),
        ([60.0, 60.0, 9000.0, 24.0], "principal point (9000, 24) is far outside the 64x48 image"),
        ([1e9, 1e9, 32.0, 24.0], "focal length 1e+09 is absurd for 64x48 pixels"),
    ],
)
def test_absurd_intrinsics(params, cause, sample):
    with_camera(sample, params=params)
    assert first_line(sample) == (
        f"{sample}: camera of view_000.png: {cause}; estimate the intrinsics again, or correct them by hand"
    )


def test_installed_reader(monkeypatch, tmp_path):
    """Entry points are asked after the built-in readers; one that does not load is named with its package."""
    from importlib.metadata import EntryPoint

    from splat.data import registry

    points = [EntryPoint("toy", "no_such_module:Reader", registry.ENTRY_POINT_GROUP)]
    monkeypatch.setattr(registry, "entry_points", lambda group: points)
    assert first_line(tmp_path).startswith(
        "reader 'toy' of the installed package 'unknown' does not load; update"
    )
    points[0] = EntryPoint("toy", f"{__name__}:ToyReader", registry.ENTRY_POINT_GROUP)
    (tmp_path / "toy.txt").touch()
    assert read_scene(tmp_path).reader == "toy"


class ToyReader:
    name = "toy"

    def sniff(self, path):
        return (path / "toy.txt").exists()

    def read(self, path, report):
        from splat.core import Camera
        from splat.data import Frame, Scene

        frames = [
            Frame(str(i), path / str(i), Camera(2, 2, 1.0, 1.0, 1.0, 1.0, torch.eye(4))) for i in (1, 2)
        ]
        return Scene(path, "toy", self.name, frames)
