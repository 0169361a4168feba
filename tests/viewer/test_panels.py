"""The panels, through the page: what a visitor sets and presses, and what he then sees and has."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from page import Page
from showcase import HEIGHT, WIDTH, gaussians, session

from splat import codecs
from splat.core import DataError, Gaussians
from splat.core.heads import Head, SavedHead
from splat.core.paths import read_path
from splat.link import Commands, Entry, PanelData
from splat.training import live
from splat.viewer.panels.cameras import CamerasPanel
from splat.viewer.panels.export import ExportPanel
from splat.viewer.panels.path import PathPanel
from splat.viewer.panels.scene import ScenePanel
from splat.viewer.selecting import in_rectangle


def pressed(page: Page, label: str, value: str) -> None:
    """One button of a group."""
    page.set(label, value)


def said(page: Page, text: str) -> None:
    page.wait(lambda: text in page.text())


def told(page: Page, text: str) -> str:
    """The notification that holds the text."""
    return page.wait(lambda: next((f"{t}: {b}" for t, b in page.notifications if text in f"{t}: {b}"), None))


# Cameras


def test_flying_from_photograph_to_photograph(show):
    visit = show()
    page, views = visit.page, visit.session.views
    pressed(page, "Fly to", "Next")
    said(page, "At **view1.png**")
    assert np.allclose(page.camera["position"], views[1].camera.position, atol=1e-5)
    pressed(page, "Fly to", "Previous")
    said(page, "At **view0.png**")
    page.set("Photograph", "4 view3.png")
    said(page, "At **view3.png**")
    assert np.allclose(page.camera["position"], views[3].camera.position, atol=1e-5)


def test_clicking_on_a_camera(show):
    visit = show()
    target = visit.session.views[2].camera
    middle = target.position + 0.1 * target.forward
    origin = middle + 20 * torch.tensor([0.0, -1.0, 0.0])
    visit.page.send(
        "ScenePointerMessage",
        event_type="click",
        ray_origin=tuple(origin.tolist()),
        ray_direction=(0.0, 1.0, 0.0),
        screen_pos=((0.5, 0.5),),
        modifier=None,
    )
    said(visit.page, "At **view2.png**")


def test_the_photograph_over_what_is_drawn(show):
    """The scene has turned black since: `over` shows the photograph, `off` the scene."""
    visit = show()
    page = visit.page
    snapshot = visit.session.slot.latest(timeout=0)[1]
    black = replace(snapshot.gaussians, sh=torch.full((400, 1, 3), -2.0))
    visit.client.source.editor.replace(black, {}, snapshot)
    pressed(page, "Fly to", "Next")
    said(page, "At **view1.png**")
    page.set("Compare", "over")
    photo = visit.session.views[1].photo().float().mean()
    assert photo > 10
    width = round(page.size[1] * WIDTH / HEIGHT)
    margin = (page.size[0] - width) // 2

    def shown() -> bool:
        image = page.image
        scale = image.shape[1] / page.size[0]
        middle = image[:, round(margin * scale) : round((margin + width) * scale)]
        return abs(float(middle.mean()) - float(photo)) < 2.0

    page.wait(shown)
    page.set("Compare", "off")
    page.wait(lambda: not shown())


def test_scores_of_every_photograph(show):
    """The scene's own pictures are met but for their 8 bits; a damaged one stands out and comes first."""
    visit = show()
    page = visit.page
    black = torch.zeros(HEIGHT, WIDTH, 3, dtype=torch.uint8)
    visit.session.views[3].photo = lambda: black
    page.press("Score every photograph")
    panel = visit.panel(CamerasPanel)
    page.wait(lambda: bool(torch.isfinite(panel._scores).all()))
    scores = panel._scores
    # Rounding to 8 bits is off by at most 1/510, and by half of that in the mean.
    assert float(scores[[0, 1, 2, 4]].max()) < 1 / 510
    assert float(scores[3]) > 0.02
    page.set("List", "worst first")
    page.wait(lambda: panel._list.options[0].startswith("4 view3.png"))


# Scene


def rectangle(visit, low, high) -> None:
    visit.page.send(
        "ScenePointerMessage",
        event_type="rect-select",
        ray_origin=None,
        ray_direction=None,
        screen_pos=(low, high),
        modifier="shift",
    )


def test_selecting_deleting_and_undoing(show):
    visit = show()
    page = visit.page
    pressed(page, "Fly to", "This")
    said(page, "At **view0.png**")
    rectangle(visit, (0.0, 0.0), (0.5, 1.0))
    said(page, "of 400 selected")
    left = int(visit.panel(ScenePanel)._chosen[0].sum())
    assert 100 < left < 300
    page.set("A rectangle will", "add")
    rectangle(visit, (0.5, 0.0), (1.0, 1.0))
    said(page, "**400** of 400")
    page.press("Delete the selection")
    assert "at least one must remain" in told(page, "at least one must remain")
    page.set("A rectangle will", "take away")
    rectangle(visit, (0.5, 0.0), (1.0, 1.0))
    said(page, f"**{left}** of 400")
    before = visit.session.slot.latest(timeout=0)[1].gaussians
    chosen = visit.panel(ScenePanel)._chosen[0]
    page.press("Delete the selection")
    said(page, f"**{400 - left}** Gaussians")
    now = visit.session.slot.latest(timeout=0)[1].gaussians
    assert torch.equal(now.means, before.means[~chosen])
    page.press("Undo the last deletion")
    said(page, "**400** Gaussians")
    page.press("Undo the last deletion")
    told(page, "nothing was removed")


def test_a_rectangle_means_what_is_seen_in_its_column(show, tmp_path):
    """The second of two scenes side by side: what of the rectangle lies over the first one does not count."""
    one, two = session(tmp_path / "one"), session(tmp_path / "two", gaussians(seed=1))
    visit = show(one, two)
    page = visit.page
    before = visit.panel(ScenePanel)
    page.set("Side by side", True)
    page.set("Scene", "2 ball")
    page.wait(lambda: any(isinstance(p, ScenePanel) and p is not before for p in visit.client.panels))
    assert visit.client.source is visit.viewer.sources[1]
    assert visit.client.painter.columns == visit.viewer.sources
    rectangle(visit, (0.25, 0.2), (0.7, 1.0))
    said(page, "of 400 selected")
    pose = visit.client.pose
    camera = pose.camera(pose.width, pose.height, 1, 2)
    expected = in_rectangle(gaussians(seed=1).means, camera, (0.0, 0.2), (0.4, 1.0))
    assert 20 < int(expected.sum()) < 380
    assert torch.equal(visit.panel(ScenePanel)._chosen[0], expected)
    rectangle(visit, (0.1, 0.0), (0.4, 1.0))
    said(page, "Nothing is selected.")


def test_floaters_are_shown_before_they_go(show):
    scene = gaussians()
    far = scene.select(torch.arange(3))
    far.means = torch.tensor([[0.0, -3, 0], [2.5, 0, 1], [-3, 1, 0]])
    visit = show(scene=Gaussians.cat([scene, far]))
    page = visit.page
    page.press("Find floaters")
    said(page, "**3** of 403 selected")
    assert visit.count == 403
    assert "selection" in visit.client.painter.look.filters
    page.press("Delete the selection")
    said(page, "**400** Gaussians")
    assert "selection" not in visit.client.painter.look.filters


def test_the_crop_box_hides_what_is_outside(show):
    visit = show()
    page = visit.page
    page.set("Show the box, hide the rest", True)
    page.wait(lambda: "crop" in visit.client.painter.look.filters)
    page.set("Box size", (0.5, 0.5, 0.5))
    crop = visit.client.painter.look.filters["crop"]
    scene = visit.session.slot.latest(timeout=0)[1].gaussians
    page.wait(lambda: len(crop(scene)) < 100)
    inside = len(crop(scene))
    page.press("Select what is outside")
    said(page, f"**{400 - inside}** of 400")
    page.press("Delete the selection")
    page.wait(lambda: visit.count == inside)


# Compress


def test_a_preview_changes_nothing_until_it_is_committed(show):
    visit = show()
    page = visit.page
    page.set("Format", ".ply")
    page.set("Leave out, %", 50)
    page.press("Preview")
    said(page, "200 of 400 Gaussians")
    said(page, " dB (")
    assert visit.count == 400
    assert len(visit.client.painter.look.filters["compress"](None)) == 200
    page.press("Leave them out of the scene")
    page.wait(lambda: visit.count == 200)
    page.wait(lambda: "compress" not in visit.client.painter.look.filters)
    page.press("Undo the last deletion")
    page.wait(lambda: visit.count == 400)


def test_without_photographs_the_scene_is_the_reference(show):
    visit = show(views=(), evaluate=None)
    visit.page.set("Leave out, %", 10)
    visit.page.press("Preview")
    said(visit.page, "dB to it")


def test_the_previewed_file(show, tmp_path):
    visit = show()
    page = visit.page
    page.set("Leave out, %", 25)
    page.press("Preview")
    said(page, "300 of 400 Gaussians")
    page.press("Write and download the file")
    told(page, "sent to the browser")
    (file,) = (tmp_path / "exports").iterdir()
    assert len(codecs.decode(file)[0]) == 300
    assert f"{file.stat().st_size / 1000:.1f} kB" in page.text()


# Path


def test_a_path_from_keyframes_to_file_to_video(show, tmp_path):
    visit = show()
    page, views = visit.page, visit.session.views
    for number in range(2):
        page.set(
            "Photograph", next(o for o in visit.panel(CamerasPanel)._list.options if f"view{number}" in o)
        )
        said(page, f"At **view{number}.png**")
        page.press("Add a keyframe here")
        said(page, f"{number + 1} keyframes")
    page.set("Keyframe", "1 at 0.00 s")
    page.wait(lambda: visit.panel(PathPanel)._keys.at == 0)
    page.set("Seconds to the next", 0.5)
    said(page, "2 keyframes, 0.5 s")
    page.press("Save as JSON")
    told(page, "path.json")
    path = read_path(tmp_path / "paths" / "path.json")
    assert torch.allclose(path.positions[1].float(), views[1].camera.position, atol=1e-4)
    assert path.duration == pytest.approx(0.5)

    page.set("Frames a second", 8)
    page.set("Resolution", "960 x 540")
    page.press("Render a video")
    told(page, "path.mp4")
    import imageio.v2 as imageio

    with imageio.get_reader(tmp_path / "videos" / "path.mp4") as reader:
        frames = [np.asarray(frame) for frame in reader]
    assert len(frames) == 5
    assert frames[0].shape == (540, 960, 3)
    assert frames[0].std() > 5


def test_opening_a_path(show):
    visit = show(offset=torch.tensor([10.0, 0, 0], dtype=torch.float64))
    frames = [{"position": [10 + x, 0, -4], "look_at": [10, 0, 0], "fov": 40} for x in (0, 1, 2)]
    panel = visit.panel(PathPanel)
    panel._load(
        "mine.json", json.dumps({"width": 320, "height": 200, "loop": True, "keyframes": frames}).encode()
    )
    said(visit.page, "3 keyframes, 3.0 s")
    assert panel._size.value == "320 x 200"
    pressed(visit.page, "This one", "Go")
    visit.page.wait(lambda: np.allclose(visit.page.camera["position"], (2, 0, -4), atol=1e-5))
    pressed(visit.page, "Move it", "Earlier")
    pressed(visit.page, "This one", "Remove")
    said(visit.page, "2 keyframes")
    assert [float(f.position[0]) for f in panel._keys.frames] == pytest.approx([0, 1])
    visit.client.guard(panel._load)("bad.json", b"{")
    assert "bad.json" in told(visit.page, "not JSON")


def test_what_comes_quickly_is_done_in_its_order(show, monkeypatch):
    """The first one takes its time; each of two buttons of a group is heard as it was pressed."""
    visit = show()
    panel = visit.panel(PathPanel)
    frames = [{"position": [x, 0, -4], "look_at": [0, 0, 0], "fov": 40} for x in (0, 1, 2)]
    panel._load("mine.json", json.dumps({"width": 320, "height": 200, "keyframes": frames}).encode())
    heard = []

    def slow(what):
        time.sleep(0.2)
        heard.append((what, len(panel._keys)))

    monkeypatch.setattr(panel, "_go", lambda: slow("Go"))
    pressed(visit.page, "This one", "Go")
    pressed(visit.page, "This one", "Remove")
    said(visit.page, "2 keyframes")
    assert heard == [("Go", 3)]


def test_the_preview_flies(show):
    visit = show()
    visit.page.press("Orbit around the scene")
    said(visit.page, "12 keyframes")
    visit.page.press("Play")
    seen = set()

    def moved() -> bool:
        seen.add(tuple(np.round(visit.page.camera["position"], 2)))
        return len(seen) > 5

    visit.page.wait(moved)
    distances = [math.dist((x, z), (0, 0)) for x, y, z in list(seen)[1:]]
    visit.page.press("Stop")
    visit.page.wait(lambda: not visit.panel(PathPanel)._preview.running)
    assert max(distances) < 6


# Export


def test_a_file_is_written_and_sent(show, tmp_path):
    visit = show()
    visit.page.set("Name", "../../etc/passwd")
    visit.page.press("Write and download")
    told(visit.page, "is no name for a file")
    visit.page.set("Name", "my ball")
    visit.page.press("Write and download")
    told(visit.page, "sent to the browser")
    assert len(codecs.decode(tmp_path / "exports" / "my ball.ply")[0]) == 400
    visit.page.press("Write and download")
    visit.page.wait(lambda: (tmp_path / "exports" / "my ball-2.ply").exists())


def test_a_full_disk_is_told_and_all_goes_on(show):
    def full(scene, path, options, known):
        raise DataError(f"{path}: cannot be written (No space left on device): check the disk's space")

    visit = show(export=full)
    visit.page.press("Write and download")
    assert "No space left" in told(visit.page, "No space left")
    count = visit.page.images
    visit.page.move(position=(0.0, -1.0, -5.0))
    visit.page.wait_image(count)


# Strategies


def test_a_strategy_describes_its_panel(show):
    state = {"rate": 0.25, "on": False, "pressed": 0, "seen": 3.0}
    entries = [
        Entry("Seen", "value", lambda: state["seen"]),
        Entry("Rate", "slider", lambda: state["rate"], lambda v: state.update(rate=v)),
        Entry("On", "switch", lambda: state["on"], lambda v: state.update(on=v)),
        Entry("Again", "button", None, lambda v: state.update(pressed=state["pressed"] + 1)),
    ]
    commands = Commands()
    visit = show(panels=lambda: [PanelData("toy", entries)], commands=commands)
    page = visit.page
    said(page, "| Seen | 3 |")
    state["seen"] = 1234567.0
    said(page, "| Seen | 1,234,567 |")
    page.set("Rate", 0.5)
    page.set("On", True)
    page.press("Again")
    page.wait(lambda: (commands.drain(None) and False) or state["pressed"] == 1)
    assert state == {"rate": 0.5, "on": True, "pressed": 1, "seen": 1234567.0}
    state["rate"] = 0.75
    page.wait(lambda: page.elements[page.find("Rate")]["value"] == 0.75)


def test_a_page_opens_on_what_the_visitor_sees(show, tmp_path):
    """Wherever the scene lies in the file."""
    visit = show()
    visit.session.export = live.exporter(torch.tensor([100.0, 0.0, 0.0], dtype=torch.float64))
    visit.page.move(position=(1.0, -2.0, -3.0), look_at=(0.5, 0.0, 0.25))
    visit.panel(ExportPanel)._form._format.value = ".html"
    visit.page.wait(lambda: visit.client.pose.position[1] == -2)
    visit.page.press("Write and download")
    visit.page.wait(lambda: any(title.startswith("Written") for title, _ in visit.page.notifications))
    (file,) = (tmp_path / "exports").iterdir()
    view = codecs.decode(file)[1]["view"]
    assert view["position"] == pytest.approx([101, -2, -3])
    assert view["target"] == pytest.approx([100.5, 0, 0.25])
    assert view["up"] == pytest.approx([0, -1, 0])
    assert view["fov"][1] == pytest.approx(math.degrees(visit.client.pose.fov))
    assert view["fov"][0] > view["fov"][1]


def test_networks_on_pictures_are_shown_and_can_be_left_out(show):
    """In pictures and videos; not in those of a file, which holds no features."""
    saved = SavedHead({}, torch.zeros(0), "glow")
    head = Head("glow", lambda image, features, camera: image + features, saved)
    scene = replace(gaussians(), extras={"glow": torch.full((400, 3), 0.3)})
    visit = show(scene=scene, heads=(head,))
    client, page = visit.client, visit.page
    page.wait(lambda: page.elements[page.find("Networks on pictures")]["visible"])

    def drawn() -> torch.Tensor:
        return client.painter.picture(client.pose, (WIDTH, HEIGHT)).float()

    bright = drawn().mean()
    page.set("Networks on pictures", False)
    page.wait(lambda: not client.painter.look.heads)
    assert drawn().mean() < bright - 5
    page.set("Networks on pictures", True)
    page.wait(lambda: client.painter.look.heads)
    client.painter.look.filters["compress"] = lambda shown: replace(shown, extras={})
    client.painter.redraw()
    assert drawn().mean() < bright - 5
