"""The exported web page, in a real browser: it draws what the rasterizer draws, and answers its visitor."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import hostile
import numpy as np
import pytest
import torch
from patience import wait

from splat import codecs
from splat.cli import main
from splat.core import Camera, Gaussians
from splat.raster import RenderOptions, render

BACKGROUND = (0.2, 0.4, 0.1)


def picture(page: Any) -> np.ndarray:
    """[H, W, 3] what the page shows without its buttons, in [0, 1]."""
    from PIL import Image

    page.add_style_tag(content="nav, header { visibility: hidden }")
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")) / 255


def shown(page: Any, camera: Camera) -> np.ndarray:
    """[H, W, 3] the picture once `camera` is drawn."""
    names = ("width", "height", "fx", "fy", "cx", "cy")
    values = {name: getattr(camera, name) for name in names}
    values["world_to_camera"] = camera.world_to_camera.tolist()
    page.evaluate("camera => splatPage.show(camera)", values)
    return picture(page)


def rested(page: Any) -> np.ndarray:
    """[H, W, 3] the picture once the camera rests and its order is drawn."""
    page.evaluate(
        """() => splatPage.loaded.then(() => new Promise((done) => {
             splatPage.settled = done;
             splatPage.redraw();
           }))"""
    )
    return picture(page)


def rendered(scene: Gaussians, camera: Camera) -> np.ndarray:
    with torch.no_grad():
        image = render(scene, camera, RenderOptions(background=torch.tensor(BACKGROUND))).image
    return image.clamp(0, 1).numpy()


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(((a - b) ** 2).mean()))


def levels(squares: float) -> float:
    """PSNR, dB, of a mean square error in squared levels of 255."""
    return float(10 * np.log10(255**2 / squares))


@pytest.mark.parametrize(("coefficients", "antialiased"), [(1, True), (4, False), (9, True), (16, False)])
def test_the_page_draws_what_the_rasterizer_draws(
    open_page, tmp_path, screenshots, coefficients, antialiased
):
    scene = replace(hostile.ordinary(600, coefficients), antialiased=antialiased)
    path = tmp_path / "scene.html"
    codecs.encode(scene, path, {"background": BACKGROUND})
    camera = hostile.camera(240, 180)
    page = open_page(path.as_uri(), camera.width, camera.height)
    seen = shown(page, camera)
    page.screenshot(path=screenshots / f"page-{coefficients}.png")

    # Rounding to bytes: 1/12 square levels. As much again for layers of half floats (2^-12 of 1 is 0.06
    # levels each, some tens of them).
    stored, _ = codecs.decode(path)
    assert psnr(seen, rendered(stored, camera)) > levels(2 / 12)
    # A byte over a chunk's colours (a span of 2 or so: 0.6 levels), harmonics up to 1.2 (steps of 0.0095 at
    # 0.3, hence 0.7 levels for a sum of squared basis functions of 1.2), opacity (0.3 levels), and the above.
    assert psnr(seen, rendered(scene, camera)) > levels(0.6**2 + 0.8**2 + 0.3**2 + 2 / 12)


@pytest.mark.parametrize("name", ["needles", "sizes", "near_plane"])
def test_hard_scenes(open_page, tmp_path, name):
    scene = getattr(hostile, name)(300)
    path = tmp_path / "scene.html"
    codecs.encode(scene, path, {"background": BACKGROUND})
    camera = hostile.camera()
    seen = shown(open_page(path.as_uri(), camera.width, camera.height), camera)
    stored, _ = codecs.decode(path)
    assert psnr(seen, rendered(stored, camera)) > levels(2 / 12)


def test_the_commands_agree(open_page, tmp_path, capsys):
    """`splat export` to a page, and `splat render` of the same file along a camera path."""
    from PIL import Image

    scene = hostile.ordinary(2000)
    codecs.encode(scene, tmp_path / "scene.ply")
    assert main(["export", str(tmp_path / "scene.ply"), str(tmp_path / "scene.html")]) == 0
    frame = {"position": [0.5, -1.0, -3.0], "look_at": [0, 0, 3], "fov": 40}
    (tmp_path / "path.json").write_text(json.dumps({"width": 320, "height": 200, "keyframes": [frame]}))
    out = tmp_path / "frames"
    arguments = ["--path", str(tmp_path / "path.json"), "--out", str(out), "--background", "0", "0", "0"]
    assert main(["render", str(tmp_path / "scene.ply"), *arguments]) == 0
    (png,) = out.iterdir()
    expected = np.asarray(Image.open(png).convert("RGB")) / 255

    from splat.core.paths import read_path

    (camera,) = read_path(tmp_path / "path.json").frames()
    requests = []
    page = open_page("about:blank", 320, 200)
    page.on("request", lambda request: requests.append(request.url))
    page.goto((tmp_path / "scene.html").as_uri())
    assert psnr(shown(page, camera), expected) > levels(0.6**2 + 0.8**2 + 0.3**2 + 3 / 12)
    assert [url for url in requests if not url.startswith(("file:", "blob:", "data:"))] == []


@pytest.fixture
def page(open_page, tmp_path):
    """A page with a first view of its own, at a window's size."""
    view = {"position": [0, 0, -2], "target": [0, 0, 3], "up": [0, -1, 0], "fov": [60, 45]}
    path = tmp_path / "scene.html"
    codecs.encode(hostile.ordinary(400, 4), path, {"view": view, "background": BACKGROUND})
    return open_page(path.as_uri(), 400, 300)


def test_the_first_view_is_that_of_the_file(page, tmp_path):
    """Position, direction and field of view; what was asked for fits the window."""
    focal = 150 / np.tan(np.radians(45) / 2)
    pose = torch.eye(4)
    pose[2, 3] = 2
    # Across 60 degrees need a focal length of 346 pixels, down 45 of 362: the smaller one shows both.
    focal = min(focal, 200 / np.tan(np.radians(60) / 2))
    camera = Camera(400, 300, focal, focal, 200, 150, pose)
    stored, _ = codecs.decode(tmp_path / "scene.html")
    assert psnr(rested(page), rendered(stored, camera)) > levels(2 / 12)


def changed(page: Any, before: np.ndarray) -> np.ndarray:
    """[H, W, 3] the picture once it is another one: wheel and double click act a moment later."""

    def seen() -> list[np.ndarray]:
        after = rested(page)
        return [after] if psnr(before, after) < 30 else []

    return wait(seen)[0]


def test_mouse_and_keys(page):
    first = rested(page)

    def drag(button: str = "left") -> None:
        page.mouse.move(200, 150)
        page.mouse.down(button=button)
        page.mouse.move(230, 170, steps=3)
        page.mouse.up(button=button)

    drag()
    seen = changed(page, first)
    drag("right")
    seen = changed(page, seen)
    page.mouse.wheel(0, -300)
    seen = changed(page, seen)
    where = page.evaluate("() => splatPage.controls.position")
    page.keyboard.down("KeyD")
    wait(lambda: page.evaluate("() => splatPage.controls.position") != where)
    page.keyboard.up("KeyD")
    seen = rested(page)
    page.mouse.dblclick(260, 120)
    seen = changed(page, seen)
    page.keyboard.press("r")
    assert np.array_equal(rested(page), first)
    page.keyboard.press("f")
    assert page.text_content("#mode") == "Fly"
    drag()
    changed(page, first)
    page.keyboard.press("r")
    page.keyboard.press("b")
    black = rested(page)
    corner = (first[0, 0] - black[0, 0]) / BACKGROUND  # what is not covered shows the background
    assert np.ptp(corner) < 0.03
    page.keyboard.press("h")
    assert page.locator("#keys").is_visible()


def test_fingers_on_a_phone(open_page, tmp_path, screenshots):
    path = tmp_path / "scene.html"
    codecs.encode(hostile.ordinary(400, 1), path)
    page = open_page(path.as_uri(), 390, 844, has_touch=True, is_mobile=True, device_scale_factor=2)
    first = rested(page)
    page.add_style_tag(content="nav, header { visibility: visible !important }")
    page.screenshot(path=screenshots / "page-phone.png")
    assert page.evaluate("() => document.documentElement.scrollWidth") <= 390
    for button in page.locator("nav button").all():
        box = button.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
        assert box["height"] >= 36

    touch = page.context.new_cdp_session(page)

    def fingers(kind: str, *points: tuple[float, float]) -> None:
        spots = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": spots})

    fingers("touchStart", (150, 400))
    fingers("touchMove", (220, 430))
    fingers("touchEnd")
    changed(page, first)
    distance = page.evaluate("() => splatPage.controls.distance")
    fingers("touchStart", (150, 400), (250, 400))
    fingers("touchMove", (100, 400), (300, 400))
    fingers("touchEnd")
    assert page.evaluate("() => splatPage.controls.distance") == pytest.approx(distance / 2, rel=1e-3)


def test_a_browser_without_webgl_is_told(open_page, tmp_path):
    path = tmp_path / "scene.html"
    codecs.encode(hostile.ordinary(10, 1), path)
    page = open_page(path.as_uri(), before="HTMLCanvasElement.prototype.getContext = () => null")
    page.get_by_text("This page needs WebGL 2").wait_for()


def test_a_damaged_page_says_so(open_page, tmp_path):
    path = tmp_path / "scene.html"
    codecs.encode(hostile.ordinary(10, 1), path)
    for old, new, message in (
        ('scene-data">H4sI', 'scene-data">H4sA', "The scene in this page is damaged"),
        ('"count": 10', '"count": 11', "The scene in this page is cut short"),
    ):
        broken = tmp_path / "broken.html"
        broken.write_text(path.read_text().replace(old, new))
        open_page(broken.as_uri()).get_by_text(message).wait_for()
