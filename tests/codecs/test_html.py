"""The web page: what it stores of a scene, what is read back, what is refused. tests/browser sees it drawn."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import hostile
import pytest
import torch
from damage import check_reader, damaged
from hypothesis import given
from hypothesis import strategies as st

from splat import codecs
from splat.codecs import html
from splat.core import DataError, Gaussians
from splat.core.rotations import quat_to_matrix
from splat.raster import constants

ASSETS = Path(html.__file__).parent / "assets"


def rows(scene: Gaussians) -> torch.Tensor:
    """In the order of the page."""
    return html.FORMAT.order(scene, {}, html.FORMAT.options())


def written(folder: Path, scene: Gaussians, metadata: dict | None = None, **options) -> Path:
    path = folder / "a <scene> & more.html"
    codecs.encode(scene, path, metadata, options)
    return path


@pytest.mark.parametrize("count", [1, 255, 257, 1000])
@pytest.mark.parametrize("coefficients", [1, 4, 9, 16])
def test_read_back_within_the_bounds(tmp_path: Path, count: int, coefficients: int) -> None:
    scene = replace(hostile.ordinary(count, coefficients, seed=count), antialiased=count % 2 == 0)
    again, _ = codecs.decode(written(tmp_path, scene))
    assert again.antialiased == scene.antialiased
    bounds = html.FORMAT.max_error(scene, html.FORMAT.options())
    for name, difference in codecs.differences(scene.select(rows(scene)), again).items():
        assert difference <= bounds[name], name


def test_neighbours_are_stored_together() -> None:
    scene = hostile.ordinary(4000)
    ordered = scene.means[rows(scene)]
    assert sorted(map(tuple, ordered.tolist())) == sorted(map(tuple, scene.means.tolist()))
    step = (ordered[1:] - ordered[:-1]).norm(dim=1).median()
    assert step < 0.3 * (scene.means[1:] - scene.means[:-1]).norm(dim=1).median()


def test_rotations_of_all_kinds(tmp_path: Path) -> None:
    """The largest component first, last, negative; equal components; a zero quaternion is no rotation."""
    quats = torch.tensor(
        [[1, 0, 0, 0], [0, 0, 0, -1], [-0.6, 0.8, 0, 0], [1, 1, 1, 1], [1, -1, 1, -1], [0, 0, 0, 0]],
        dtype=torch.float32,
    )
    scene = replace(hostile.ordinary(6), quats=7 * quats)
    again, _ = codecs.decode(written(tmp_path, scene))
    expected = quat_to_matrix(scene.quats[rows(scene)])
    expected = torch.where(torch.isfinite(expected), expected, torch.eye(3))
    # A component is off by at most 7e-4, the largest by 2.1e-3, an entry by four products of two: 2 (...) q dq.
    assert float((quat_to_matrix(again.quats) - expected).abs().max()) < 8e-3


def test_a_scene_without_gaussians(tmp_path: Path) -> None:
    scene = hostile.ordinary(3).select(torch.zeros(3, dtype=torch.bool))
    path = written(tmp_path, scene)
    assert len(codecs.decode(path)[0]) == 0
    assert set(html.FORMAT.max_error(scene, html.FORMAT.options()).values()) == {0.0}


def test_the_page_is_one_file_that_asks_for_nothing(tmp_path: Path) -> None:
    page = written(tmp_path, hostile.ordinary(3)).read_text()
    assert "default-src 'none'" in page
    assert not re.findall(r"(?:src|href)=\"(?!data:)|https?://|@import|url\(", page)
    assert not re.findall(r"\{\{\w+\}\}", page)


def test_what_is_said_of_a_scene_is_kept_and_cannot_leave_its_place(tmp_path: Path) -> None:
    said = {
        "comments": ["</script><script>alert(1)</script>"],
        "offset": [1.5, -2.0, 1e6],
        "up_axis": "z",
        "view": {"position": [1, 2, 3], "target": [0, 0, 0], "up": [0, 0, 1], "fov": [60, 40]},
        "background": [1, 1, 1],
        "generator": "splat",
    }
    path = written(tmp_path, hostile.ordinary(3), said, title="<b>me & you</b>")
    _, metadata = codecs.decode(path)
    assert {key: metadata[key] for key in said} == said
    page = path.read_text()
    assert "alert(1)</script>" not in page
    assert page.count("&lt;b&gt;me &amp; you&lt;/b&gt;") == 2
    path = written(tmp_path, hostile.ordinary(3))
    assert "<title>a &lt;scene&gt; &amp; more</title>" in path.read_text()


@pytest.mark.parametrize(("axis", "up"), [("-y", [0, -1, 0]), ("z", [0, 0, 1]), ("-x", [-1, 0, 0])])
def test_a_first_view_where_no_camera_is_known(tmp_path: Path, axis: str, up: list[float]) -> None:
    scene = hostile.ordinary(100)
    _, metadata = codecs.decode(written(tmp_path, scene, {"up_axis": axis}))
    view = {key: torch.tensor(value) for key, value in metadata["view"].items()}
    assert view["up"].tolist() == up
    forward = view["target"] - view["position"]
    assert float(forward @ view["up"]) < 0  # from above
    cosines = torch.nn.functional.normalize(scene.means - view["position"], dim=1) @ (
        forward / forward.norm()
    )
    assert float((cosines > torch.deg2rad(view["fov"][0] / 2).cos()).float().mean()) > 0.8


def test_the_shaders_constants_are_the_rasterizers() -> None:
    text = (ASSETS / "splat.vert").read_text() + (ASSETS / "splat.frag").read_text()
    found = dict(re.findall(r"const float (\w+) = ([^;]+);", text))
    values = {name: eval(value) for name, value in found.items()}
    assert set(values) == {"NEAR", "EPS2D", "ALPHA_MAX", "ALPHA_MIN"}
    for name, value in values.items():
        assert value == pytest.approx(getattr(constants, name), rel=1e-6)
    worker = (ASSETS / "worker.js").read_text()
    assert float(re.findall(r"NEAR = ([\d.]+)", worker)[0]) == pytest.approx(constants.NEAR)
    # The margin is of the whole width, hence half of that of the half-width.
    margins = re.findall(r"margin[XY] = ([\d.]+) \*", (ASSETS / "renderer.js").read_text())
    assert [2 * float(m) for m in margins] == pytest.approx([constants.FRUSTUM_MARGIN] * 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.replace('"count": 5', '"count": 6'), "do not hold exactly the 6 Gaussians"),
        (lambda p: p.replace('"count": 5', '"count": 4'), "do not hold exactly the 4 Gaussians"),
        (lambda p: p.replace('"count": 5', '"count": 268435456'), "it promises"),
        (lambda p: p.replace('"count": 5', '"count": true'), "'count' is damaged"),
        (lambda p: p.replace('"count"', '"number"'), "'count' is damaged"),
        (lambda p: p.replace('"version": 1', '"version": 2'), "a page of version 2"),
        (lambda p: p.replace("scene-header", "head"), "header is missing or damaged"),
        (lambda p: p.replace('{"version"', '["version"'), "header is missing or damaged"),
        (lambda p: p.replace('"peaks": [', '"peaks": [-1, '), "'peaks' is damaged"),
        (lambda p: p.replace('"antialiased": false', '"antialiased": 0'), "'antialiased' is damaged"),
        (lambda p: p.replace('"background"', '"offset": [0, NaN, 0], "b"'), "'offset' is damaged"),
        (lambda p: p.replace('"background"', '"comments": "x", "b"'), "'comments' is damaged"),
        (lambda p: p.replace('"background"', '"up_axis": [], "b"'), "'up_axis' is damaged"),
        (lambda p: p.replace('"scene-data">H4sI', '"scene-data">H4sA'), "damaged"),
        (lambda p: p.replace('"scene-data">H4', '"scene-data">H'), "the scene's data cannot be read"),
        (lambda p: p.replace('"scene-data"', '"data"'), "cut short"),
    ],
)
def test_damage_is_refused(tmp_path: Path, change: Callable[[str], str], message: str) -> None:
    path = written(tmp_path, hostile.ordinary(5))
    page = path.read_text()
    changed = change(page)
    assert changed != page
    path.write_text(changed)
    with pytest.raises(DataError) as error:
        codecs.decode(path)
    assert message in str(error.value).splitlines()[0]
    assert str(error.value).startswith(str(path))


def test_another_web_page_is_no_scene(tmp_path: Path) -> None:
    path = tmp_path / "index.html"
    path.write_text("<!DOCTYPE html>\n<title>Hello</title>")
    with pytest.raises(DataError, match=r"not a \.html file"):
        codecs.decode(path)


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A page without its scripts, which no reader looks at: damage falls where it matters."""
    path = tmp_path_factory.mktemp("fuzz") / "scene.html"
    codecs.encode(hostile.ordinary(3, 4), path, {"offset": [1.0, 2.0, 3.0], "comments": ["x"]})
    page = path.read_bytes()
    mark = page[: page.index(b"<html")]
    header, data = page.index(b'<script type="application/json"'), page.index(b'<script type="text/plain" id')
    return path, mark + page[header:data]


@pytest.mark.fuzz
@given(data=st.data())
def test_fuzz_a_damaged_page_is_refused_or_read(target: tuple[Path, bytes], data: st.DataObject) -> None:
    path, original = target
    path.write_bytes(data.draw(damaged(original, original.index(b"</script>"))))
    check_reader(path)
