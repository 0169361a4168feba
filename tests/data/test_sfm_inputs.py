"""What `splat process` takes: folders, videos, masks."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from splat.core import DataError, UsageError
from splat.data.problems import DatasetError
from splat.data.sfm import ProcessOptions, gather, masks, video


def ignored(done: int, total: int) -> None:
    """Takes progress, and does nothing with it."""


def noise(seed: int, width: int = 48, height: int = 32) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture
def photos(tmp_path) -> Path:
    """Three photographs in two folders."""
    folder = tmp_path / "photos"
    (folder / "left").mkdir(parents=True)
    (folder / "right").mkdir()
    noise(0).save(folder / "left" / "a.png")
    noise(1).save(folder / "left" / "b.jpg")
    noise(2).save(folder / "right" / "a.png")
    return folder


def gathered(photos: Path, data: Path, **options) -> dict:
    settings = ProcessOptions(**options)
    found = gather.find([photos], data, settings.masks, settings.chroma_key is not None)
    return gather.gather(found, data, settings, ignored)


def names(result: dict) -> list[str]:
    return [picture["name"] for picture in result["pictures"]]


def mask(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)) > 127


def test_nested_folders_are_cameras_of_their_own(photos, tmp_path):
    result = gathered(photos, tmp_path / "data")
    assert names(result) == ["left/a.png", "left/b.jpg", "right/a.png"]
    assert len({picture["camera"] for picture in result["pictures"]}) == 2
    for name in names(result):
        assert (tmp_path / "data" / "images" / name).read_bytes() == (photos / name).read_bytes()


def test_exif_tells_cameras_apart(photos, tmp_path):
    exif = Image.Exif()
    exif[0x0110] = "Another"
    noise(5).save(photos / "left" / "c.jpg", exif=exif)
    result = gathered(photos, tmp_path / "data")
    cameras = {picture["name"]: picture["camera"] for picture in result["pictures"]}
    assert cameras["left/c.jpg"] != cameras["left/b.jpg"] == cameras["left/a.png"]


@pytest.mark.parametrize(("mode", "count"), [("single", 1), ("folder", 2), ("image", 3)])
def test_cameras_by_choice(photos, tmp_path, mode, count):
    result = gathered(photos, tmp_path / "data", cameras=mode)
    assert len({picture["camera"] for picture in result["pictures"]}) == count


def test_a_dataset_like_folder_gives_images_and_masks(photos, tmp_path):
    root = tmp_path / "root"
    shutil.copytree(photos, root / "images")
    shutil.copytree(photos, root / "images_4")  # reduced copies are not photographs
    (root / "masks" / "left").mkdir(parents=True)
    left = np.zeros((32, 48), dtype=np.uint8)
    left[:, :24] = 255
    Image.fromarray(left).save(root / "masks" / "left" / "a.png")
    result = gathered(root, tmp_path / "data")
    assert names(result) == ["left/a.png", "left/b.jpg", "right/a.png"]
    assert [picture["masked"] for picture in result["pictures"]] == [True, False, False]
    for folder in ("masks", "process/masks"):
        assert (mask(tmp_path / "data" / folder / "left" / "a.png.png") == (left > 0)).all()


def test_masks_are_found_by_the_names_that_the_user_knows(photos, tmp_path):
    """Though names lose their blanks, and what COLMAP does not decode its ending."""
    (photos / "left" / "b.jpg").rename(photos / "left" / "b 2.jpg")
    noise(3).save(photos / "left" / "c.webp", lossless=True)
    folder = tmp_path / "given"
    (folder / "left").mkdir(parents=True)
    for name in ("b 2", "c"):
        Image.fromarray(np.full((32, 48), 255, np.uint8)).save(folder / "left" / f"{name}.png")
    result = gathered(photos, tmp_path / "data", masks=folder)
    masked = [picture["name"] for picture in result["pictures"] if picture["masked"]]
    assert masked == ["left/b_2.jpg", "left/c.webp.png"]


def test_a_folder_of_masks_of_other_photographs_is_refused(photos, tmp_path):
    (tmp_path / "given").mkdir()
    noise(4).save(tmp_path / "given" / "z.png")
    with pytest.raises(DataError, match=r"given: holds no mask of any of the 3 photographs; .* left/a\.png"):
        gathered(photos, tmp_path / "data", masks=tmp_path / "given")


def test_transparency_limits_features_but_not_training(photos, tmp_path):
    rgba = np.dstack([np.asarray(noise(9)), np.full((32, 48), 255, np.uint8)])
    rgba[:10, :, 3] = 0
    Image.fromarray(rgba).save(photos / "left" / "a.png")
    result = gathered(photos, tmp_path / "data")
    assert result["pictures"][0]["masked"]
    assert not (tmp_path / "data" / "masks").exists()
    assert (mask(tmp_path / "data" / "process" / "masks" / "left" / "a.png.png") == (rgba[..., 3] > 0)).all()
    assert Image.open(tmp_path / "data" / "images" / "left" / "a.png").mode == "RGBA"


def test_a_green_screen_is_masked(photos, tmp_path):
    picture = np.full((32, 48, 3), (20, 170, 70), dtype=np.uint8)
    picture[8:24, 12:36] = np.asarray(noise(3, 24, 16)) // 4 + np.array([120, 60, 60], dtype=np.uint8)
    Image.fromarray(picture).save(photos / "left" / "a.png")
    gathered(photos, tmp_path / "data", chroma_key="green")
    kept = mask(tmp_path / "data" / "masks" / "left" / "a.png.png")
    assert not kept[:6].any()
    assert not kept[:, :10].any()
    assert kept[10:22, 14:34].all()


@pytest.mark.parametrize("colour", ["pink-ish", "1,2", "300,0,0", "128,130,127"])
def test_a_key_that_is_none(colour):
    with pytest.raises(UsageError, match="--chroma-key"):
        masks.key_colour(colour)


def test_names_that_lists_of_pairs_cannot_hold(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for seed, name in enumerate(["my photo.png", "my_photo.png", "#1.png"]):
        noise(seed).save(folder / name)
    assert names(gathered(folder, tmp_path / "data")) == ["_1.png", "my_photo.png", "my_photo_2.png"]


def test_formats_that_colmap_cannot_read_become_png(photos, tmp_path):
    noise(7).save(photos / "left" / "c.webp", lossless=True)
    result = gathered(photos, tmp_path / "data")
    assert "left/c.webp.png" in names(result)
    copy = Image.open(tmp_path / "data" / "images" / "left" / "c.webp.png")
    assert (np.asarray(copy) == np.asarray(noise(7))).all()


def test_damaged_and_repeated_photographs_are_left_out(photos, tmp_path):
    shutil.copy(photos / "left" / "a.png", photos / "right" / "copy.png")
    (photos / "left" / "b.jpg").write_bytes((photos / "left" / "b.jpg").read_bytes()[:300])
    result = gathered(photos, tmp_path / "data")
    assert names(result) == ["left/a.png", "right/a.png"]
    assert {entry["name"] for entry in result["skipped"]} == {"left/b.jpg", "right/copy.png"}


def test_photographs_of_an_earlier_run_go(photos, tmp_path):
    gathered(photos, tmp_path / "data")
    (photos / "left" / "b.jpg").unlink()
    gathered(photos, tmp_path / "data")
    assert not (tmp_path / "data" / "images" / "left" / "b.jpg").exists()


def test_a_dataset_inside_its_photographs_is_refused(photos):
    with pytest.raises(UsageError, match="name another folder"):
        gather.find([photos], photos / "data")


def test_photographs_in_place_are_not_copied(photos, tmp_path):
    data = tmp_path / "data"
    shutil.move(photos, data / "images")
    before = {path: path.stat().st_mtime_ns for path in data.rglob("*.*")}
    assert names(gathered(data, data)) == ["left/a.png", "left/b.jpg", "right/a.png"]
    assert {path: path.stat().st_mtime_ns for path in data.rglob("*.*")} == before


@pytest.fixture(scope="module")
def film(tmp_path_factory) -> Path:
    """20 frames of 64x48, each fifth sharp, the others blurred."""
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    base = np.asarray(noise(0, 64, 48))
    with imageio.get_writer(path, fps=10, macro_block_size=1, quality=9) as writer:
        for index in range(20):
            picture = np.roll(base, index, axis=1)
            writer.append_data(picture if index % 5 == 2 else gaussian_filter(picture, (2, 2, 0)))
    return path


def test_the_sharpest_frame_of_each_window(film, tmp_path):
    told = []
    frames = video.extract(film, tmp_path / "out", 4, lambda done, total: told.append((done, total)))
    assert frames == [f"frame_{index:06d}.jpg" for index in (2, 7, 12, 17)]
    assert told[-1] == (20, 20)
    assert all(Image.open(tmp_path / "out" / name).size == (64, 48) for name in frames)


def test_more_frames_than_there_are(film, tmp_path):
    assert len(video.extract(film, tmp_path, 500, ignored)) == 20


def test_rotation_metadata_turns_frames_upright(film, tmp_path):
    turned = tmp_path / "turned.mp4"
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-display_rotation", "90"]
    subprocess.run([*command, "-i", str(film), "-c", "copy", str(turned)], check=True)
    frames = video.extract(turned, tmp_path / "turned", 4, ignored)
    upright = video.extract(film, tmp_path / "straight", 4, ignored)
    assert frames == upright
    for name in frames:
        a = np.asarray(Image.open(tmp_path / "turned" / name), dtype=float)
        b = np.rot90(np.asarray(Image.open(tmp_path / "straight" / name), dtype=float))
        assert a.shape == b.shape == (64, 48, 3)
        # The same decoded frame, but for what JPEG makes of blocks that lie otherwise.
        assert np.abs(a - b).mean() < np.abs(a - b[::-1]).mean() / 4


@pytest.mark.parametrize("damage", ["junk", "half", "empty"])
def test_a_corrupt_video(film, tmp_path, damage):
    path = tmp_path / "film.mp4"
    content = film.read_bytes()
    path.write_bytes({"junk": b"junk" * 500, "half": content[: len(content) // 2], "empty": b""}[damage])
    with pytest.raises(DatasetError, match=r"film.mp4: not a video that can be read; copy it again"):
        video.extract(path, tmp_path / "out", 4, ignored)


def test_frames_of_a_video_are_one_camera(film, photos, tmp_path):
    found = gather.find([photos, film], tmp_path / "data")
    result = gather.gather(found, tmp_path / "data", ProcessOptions(frames=4), ignored)
    frames = [picture for picture in result["pictures"] if picture["sequence"]]
    assert [frame["name"] for frame in frames] == [f"film/frame_{i:06d}.jpg" for i in (2, 7, 12, 17)]
    assert len({frame["camera"] for frame in frames}) == 1
    assert names(result)[:1] == ["photos/left/a.png"]
