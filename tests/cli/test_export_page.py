"""`splat export` to a web page: it opens where the first photograph was taken, wherever the scene is moved."""

from __future__ import annotations

import torch

from splat import codecs
from splat.cli.scene import load


def opened(splat, run, out, *flags):
    done = splat("export", run, out, *flags)
    assert done.code == 0, done.err
    scene, metadata = codecs.decode(out)
    return scene, {key: torch.tensor(value, dtype=torch.float64) for key, value in metadata["view"].items()}


def test_a_page_opens_at_the_first_photograph(splat, run, tmp_path):
    scene, view = opened(splat, run, tmp_path / "scene.html")
    loaded = load(run, "cpu")
    camera = loaded.cameras("all")[0]
    assert len(scene) == len(loaded.gaussians)
    torch.testing.assert_close(view["position"], camera.position.double() + loaded.offset)
    forward = view["target"] - view["position"]
    torch.testing.assert_close(forward / forward.norm(), camera.forward.double(), atol=1e-5, rtol=0)
    assert 0.1 < float(forward.norm()) / float((scene.means - view["position"]).norm(dim=1).median()) < 10
    assert float(view["up"] @ camera.world_to_camera[1, :3].double()) < -0.5
    across = 2 * torch.atan(torch.tensor(camera.width / camera.fx / 2, dtype=torch.float64))
    torch.testing.assert_close(view["fov"][0], across.rad2deg())


def test_the_view_moves_with_the_scene(splat, run, tmp_path):
    _, view = opened(splat, run, tmp_path / "plain.html")
    move = ("--rotate", 90, 0, 0, "--scale", 2, "--translate", 10, 0, -5)
    _, moved = opened(splat, run, tmp_path / "moved.html", *move)
    turn = torch.tensor([[1, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64)
    shift = torch.tensor([10, 0, -5], dtype=torch.float64)
    for key in ("position", "target"):
        expected = 2 * turn @ view[key] + shift
        torch.testing.assert_close(moved[key], expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(moved["up"], turn @ view["up"])


def test_a_page_can_be_exported_again(splat, run, tmp_path):
    _, view = opened(splat, run, tmp_path / "first.html", "--html.title", "Mine")
    assert "<title>Mine</title>" in (tmp_path / "first.html").read_text()
    _, again = opened(splat, tmp_path / "first.html", tmp_path / "second.html")
    torch.testing.assert_close(again, view)
    _, turned = opened(splat, tmp_path / "first.html", tmp_path / "third.html", "--rotate", 0, 90, 0)
    assert not torch.allclose(turned["position"], view["position"])
