"""Decoding and averaging, on images whose right answer is known."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from splat.core import Camera, DataError
from splat.data.images import Photo, decode, decode_mask, read_header, same_aspect
from splat.data.resample import area_resize, load_photo
from splat.data.scene import Frame
from splat.data.undistort import RemapTables


def photo(path, width, height, *, size=None, mask=None, background=None, orientation=1) -> Photo:
    """load_photo of a pinhole photograph of `width` x `height`, averaged to `size`."""
    camera = Camera(width, height, 100.0, 100.0, width / 2, height / 2, torch.eye(4))
    frame = Frame(path.name, path, camera, mask_path=mask, orientation=orientation)
    return load_photo(frame, *(size or (width, height)), RemapTables(1 << 20), background)


def write_png16(path, pixels: np.ndarray) -> None:
    """A 16-bit PNG of [H, W, channels]; Pillow writes none with colour."""
    height, width, channels = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    kind = {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


@pytest.fixture
def rgba(tmp_path):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (8, 12, 4), dtype=np.uint8)
    return pixels, tmp_path / "image.png"


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "CMYK", "YCbCr"])
def test_modes_without_alpha(mode, rgba):
    pixels, path = rgba
    image = Image.fromarray(pixels[..., :3]).convert(mode)
    path = path.with_suffix(".tif" if mode in ("CMYK", "YCbCr") else ".png")
    image.save(path)
    colour, alpha = decode(path)
    assert alpha is None
    np.testing.assert_array_equal(colour, np.asarray(image.convert("RGB")))


def test_rgba_and_grey_with_alpha(rgba):
    pixels, path = rgba
    Image.fromarray(pixels).save(path)
    colour, alpha = decode(path)
    np.testing.assert_array_equal(colour, pixels[..., :3])
    np.testing.assert_array_equal(alpha, pixels[..., 3])
    Image.fromarray(pixels[..., 2:], "LA").save(path)
    colour, alpha = decode(path)
    np.testing.assert_array_equal(colour, np.repeat(pixels[..., 2:3], 3, 2))
    np.testing.assert_array_equal(alpha, pixels[..., 3])


def test_palette_with_a_transparent_entry(tmp_path):
    image = Image.new("P", (4, 2), 1)
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "p.png", transparency=0)
    colour, alpha = decode(tmp_path / "p.png")
    assert alpha.tolist() == [[0, 255, 255, 255], [255] * 4]
    assert colour[1, 1].tolist() == [0, 255, 0]


def test_opaque_alpha_is_dropped(rgba):
    pixels, path = rgba
    pixels[..., 3] = 255
    Image.fromarray(pixels).save(path)
    assert decode(path)[1] is None


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_sixteen_bits(channels, tmp_path):
    """Colour and grey keep their depth."""
    generator = np.random.default_rng(channels)
    pixels = generator.integers(0, 65536, (6, 5, channels), dtype=np.uint16)
    write_png16(tmp_path / "deep.png", pixels)
    colour, alpha = decode(tmp_path / "deep.png")
    grey = channels < 3
    expected = np.repeat(pixels[..., :1], 3, 2) if grey else pixels[..., :3]
    np.testing.assert_allclose(colour, expected / 257.0, atol=1e-4)
    assert (alpha is not None) == (channels in (2, 4))
    if alpha is not None:
        np.testing.assert_allclose(alpha, pixels[..., -1] / 257.0, atol=0.5)


@pytest.mark.parametrize("order", "<>")
def test_sixteen_bit_tiff(order, tmp_path):
    """RGB in one uncompressed strip, in either order of bytes (TIFF 6.0, section 6)."""
    pixels = np.random.default_rng(5).integers(0, 65536, (6, 5, 3), dtype=np.uint16)
    data = pixels.astype(f"{order}u2").tobytes()
    # (tag, type: 3 for short and 4 for long, count, value or where it is); the bits of the channels are behind it.
    tags = [(256, 3, 1, 5), (257, 3, 1, 6), (258, 3, 3, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 14)]
    tags += [(277, 3, 1, 3), (278, 3, 1, 6), (279, 4, 1, len(data))]
    head = b"II*\0" if order == "<" else b"MM\0*"
    body = struct.pack(f"{order}3H", 16, 16, 16) + data
    entries = b"".join(
        struct.pack(f"{order}HHI", tag, kind, count)
        + (
            struct.pack(f"{order}HH", value, 0)
            if kind == 3 and count == 1
            else struct.pack(f"{order}I", value)
        )
        for tag, kind, count, value in tags
    )
    directory = struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)
    (tmp_path / "deep.tif").write_bytes(head + struct.pack(f"{order}I", 8 + len(body)) + body + directory)
    colour, alpha = decode(tmp_path / "deep.tif")
    np.testing.assert_allclose(colour, pixels / 257.0, atol=1e-4)
    assert alpha is None


@pytest.mark.parametrize("channels", [1, 3])
def test_sixteen_bits_are_averaged_before_rounding(channels, tmp_path):
    pixels = np.array([[[257 * 10], [257 * 10 + 129]]], np.uint16).repeat(2, 0).repeat(channels, 2)
    write_png16(tmp_path / "deep.png", pixels)
    # (10 + 10.502) / 2 = 10.25 rounds to 10; rounding first would give (10 + 11) / 2, rounded to 11.
    assert photo(tmp_path / "deep.png", 2, 2, size=(1, 1)).image.tolist() == [[[10, 10, 10]]]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_as_pillow_applies_it(orientation, tmp_path):
    from PIL import ImageOps

    pixels = np.random.default_rng(1).integers(0, 256, (6, 10, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    header = read_header(tmp_path / "turned.png")
    assert (header.width, header.height, header.orientation) == (10, 6, orientation)
    with Image.open(tmp_path / "turned.png") as image:
        upright = np.asarray(ImageOps.exif_transpose(image))
    assert header.shown_size == upright.shape[1::-1]
    np.testing.assert_array_equal(decode(tmp_path / "turned.png", orientation)[0], upright)
    np.testing.assert_array_equal(decode(tmp_path / "turned.png")[0], pixels)


@pytest.mark.parametrize(("width", "height"), [(6, 4), (12, 8), (5, 3), (7, 8), (1, 1), (11, 7)])
def test_area_average_is_exact(width, height):
    """Against the definition: every pixel spread over lcm(in, out) cells, then averaged."""
    image = np.random.default_rng(2).integers(0, 256, (8, 12, 3)).astype(np.float64)
    cells = image.repeat(height, 0).repeat(width, 1)
    expected = cells.reshape(height, 8, width, 12, 3).mean((1, 3))
    result = area_resize(torch.from_numpy(image), width, height).numpy()
    # float32 sums of at most 15 x 13 products of values up to 255
    np.testing.assert_allclose(result, expected, atol=255 * 28 * 2**-24)


def test_blocks_leave_no_seams(tmp_path, monkeypatch):
    pixels = np.random.default_rng(3).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    whole = photo(tmp_path / "a.png", 70, 90, size=(31, 40)).image
    monkeypatch.setattr("splat.data.resample._BLOCK_PIXELS", 500)
    assert torch.equal(photo(tmp_path / "a.png", 70, 90, size=(31, 40)).image, whole)


def test_transparent_colours_do_not_bleed(tmp_path):
    """Half a pixel of opaque red, half of invisible green: red at half the opacity."""
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[:, 0] = (255, 0, 0, 255)
    pixels[:, 1] = (0, 255, 0, 0)
    Image.fromarray(pixels).save(tmp_path / "edge.png")
    straight = photo(tmp_path / "edge.png", 2, 2, size=(1, 1))
    assert straight.image.tolist() == [[[255, 0, 0]]]
    assert straight.alpha is not None
    assert straight.alpha.tolist() == [[128]]
    white = photo(tmp_path / "edge.png", 2, 2, size=(1, 1), background=(1.0, 1.0, 1.0))
    assert white.image.tolist() == [[[255, 128, 128]]]
    assert white.alpha is None


def test_mask_keeps_pixels_whose_whole_area_counts(tmp_path):
    Image.fromarray(np.full((4, 8, 3), 90, np.uint8)).save(tmp_path / "a.png")
    mask = np.full((4, 8), 255, np.uint8)
    mask[0, 3] = 0
    Image.fromarray(mask).save(tmp_path / "mask.png")
    result = photo(tmp_path / "a.png", 8, 4, size=(4, 2), mask=tmp_path / "mask.png").mask
    assert result is not None
    assert result.tolist() == [[255, 0, 255, 255], [255] * 4]


@pytest.mark.parametrize("top", [1, 255, 3])
def test_masks_of_labels_and_of_other_sizes(top, tmp_path):
    mask = np.zeros((2, 4), np.uint8)
    mask[:, 2:] = top
    Image.fromarray(mask).save(tmp_path / "mask.png")
    kept = decode_mask(tmp_path / "mask.png", 8, 4)
    assert kept.tolist() == [[0] * 4 + [1] * 4] * 4


def test_mask_of_another_aspect_is_refused(tmp_path):
    Image.fromarray(np.zeros((20, 20), np.uint8)).save(tmp_path / "mask.png")
    with pytest.raises(
        DataError, match=r"mask\.png: mask is 20x20 but its photograph is 40x30; make the mask"
    ):
        decode_mask(tmp_path / "mask.png", 40, 30)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".tif", ".webp"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 0.95])
def test_damaged_photographs_are_named(suffix, share, tmp_path):
    pixels = np.random.default_rng(4).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    path = tmp_path / f"photo{suffix}"
    Image.fromarray(pixels).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(DataError) as caught:
        decode(path)
    first = str(caught.value).splitlines()[0]
    assert first.startswith(f"{path}: photograph is damaged and cannot be decoded (")
    assert first.endswith("; copy it again from the camera, or remove it")


def test_missing_photograph_is_named(tmp_path):
    with pytest.raises(DataError, match=r"gone\.png: no such photograph; put it back"):
        decode(tmp_path / "gone.png")


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ((1080, 1920), (270, 480), True),
        ((1081, 1921), (270, 480), True),
        ((1080, 1920), (1920, 1080), False),
        ((800, 600), (800, 600), True),
        ((800, 600), (800, 590), False),
        ((4000, 3000), (1000, 751), True),
        ((4000, 3000), (1000, 753), False),
    ],
)
def test_same_aspect(a, b, same):
    assert same_aspect(*a, *b) is same


def test_pngs_can_be_written_after_pycolmap(tmp_path):
    """Where pycolmap is imported before numpy and Pillow, Pillow's writer crashes in a library that both bring."""
    code = (
        "from splat.data.intrinsics import Intrinsics; Intrinsics('PINHOLE', (9., 9., 4., 4.), 8, 8).colmap_camera();"
        "from PIL import Image; Image.effect_noise((64, 64), 50).convert('RGB').save('noise.png'); print('written')"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout == "written\n", done.stderr
