"""Filters, scorers and the search for a target, on made-up files."""

from __future__ import annotations

import bisect
import itertools
import math
from dataclasses import replace

import pytest
import scenes
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splat.codecs import search
from splat.codecs.search import Plan, Search, Unreachable, Viewpoints
from splat.core import Gaussians, UsageError
from splat.raster import RenderOptions, render


@pytest.fixture
def scene() -> Gaussians:
    return scenes.mixed(60).to(torch.float32)


@pytest.mark.parametrize(
    ("text", "count"),
    [("5MB", 5_000_000), ("800kB", 800_000), ("1.5 MiB", 1_572_864), ("4096", 4096), ("2gb", 2 * 10**9)],
)
def test_sizes(text, count):
    assert search.parse_size(text) == count


@pytest.mark.parametrize("text", ["", "MB", "-5MB", "5 parsecs", "0kB", "1e6", "5MB5"])
def test_what_is_no_size(text):
    with pytest.raises(UsageError, match="such as 5MB"):
        search.parse_size(text)


def test_filters_say_which(scene):
    low, high = torch.tensor([-0.5] * 3, dtype=torch.float64), torch.tensor([0.75] * 3, dtype=torch.float64)
    inside = search.inside(scene, low, high)
    assert 0 < inside.sum() < 60
    assert inside.tolist() == [all(-0.5 <= x <= 0.75 for x in mean) for mean in scene.means.tolist()]
    # The borders belong to the box, also where float32 would round them.
    scene.means[0] = torch.tensor([0.1, 0.2, 0.3])
    corner = scene.means[0].double()
    assert search.inside(scene, corner, corner)[0]
    assert not search.inside(scene, corner + 1e-12, corner + 1)[0]
    assert search.opaque(scene, 0.5).tolist() == (scene.logit_opacities >= 0).tolist()
    assert search.small(scene, 0.5).tolist() == [max(s) <= math.log(0.5) for s in scene.log_scales.tolist()]
    for wrong in (
        lambda: search.inside(scene, high, low),
        lambda: search.inside(scene, low, high * math.nan),
        lambda: search.opaque(scene, 1.5),
        lambda: search.small(scene, 0),
        lambda: search.lower_degree(scene, 4),
    ):
        with pytest.raises(UsageError):
            wrong()


def test_lower_degree_makes_nothing_up(scene):
    assert search.lower_degree(scene, 1).sh.equal(scene.sh[:, :4])
    flat = search.lower_degree(scene, 0)
    assert search.lower_degree(flat, 3) is flat


def test_rankings(scene):
    assert search.ranking("opacity", scene).tolist() == torch.argsort(-scene.logit_opacities).tolist()
    first, again = search.ranking("random", scene), search.ranking("random", scene)
    assert first.equal(again)
    assert first.sort().values.tolist() == list(range(60))
    # Equals stay in their order, so that the same scene always gives the same file.
    even = replace(scene, logit_opacities=torch.zeros(60))
    assert search.ranking("opacity", even).tolist() == list(range(60))


def test_contribution_is_the_blending_weight_over_the_views(scene):
    def draw(gaussians, camera, needs):
        return render(gaussians, camera, RenderOptions(needs=needs))

    views = Viewpoints([scenes.camera(dtype=torch.float32), scenes.camera(30, 20, 5.0, torch.float32)], draw)
    total = sum(draw(scene, camera, frozenset({"contribution"})).contribution for camera in views.cameras)
    assert (
        search.ranking("contribution", scene, views).tolist() == torch.argsort(-total, stable=True).tolist()
    )
    for nothing in (None, Viewpoints([], draw)):
        with pytest.raises(UsageError, match="--data"):
            search.ranking("contribution", scene, nothing)


def test_new_scorers_are_known_by_name(scene, monkeypatch):
    monkeypatch.setattr("splat.codecs.search.scorers._SCORERS", {})
    search.register(search.Scorer("height", "the lowest go first", lambda g, seen, generator: -g.means[:, 1]))
    assert search.names() == ("height",)
    assert search.ranking("height", scene).tolist() == torch.argsort(scene.means[:, 1], stable=True).tolist()
    with pytest.raises(ValueError, match="registered already"):
        search.register(search.scorer("height"))
    with pytest.raises(UsageError, match="there are height"):
        search.ranking("depth", scene)


def test_codebooks_follow_the_rows():
    labels = torch.arange(5)
    given = {
        "sog": {"shn_labels": labels, "scales": torch.arange(5)},
        "rate": 3,
        "few_labels": torch.arange(2),
    }
    found = search.select_codebooks(given, torch.tensor([4, 1]), 5)
    assert found["sog"]["shn_labels"].tolist() == [4, 1]
    assert found["sog"]["scales"].tolist() == [0, 1, 2, 3, 4]
    assert found["few_labels"].tolist() == [0, 1]
    assert labels.tolist() == list(range(5))


class Files:
    """Made-up files: a header, bytes for each Gaussian that grow with degree and palette; a quality that falls
    with what is left out. Counts what a search asks for."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.asked: list[Plan] = []

    def size(self, plan: Plan) -> int:
        self.asked.append(plan)
        palette = plan.options.get("palette", 4096) if plan.sh_degree else 0
        return 300 + plan.keep * (14 + 2 * (plan.sh_degree > 0)) + palette * 3 * (plan.sh_degree + 1) ** 2

    def quality(self, plan: Plan) -> float:
        lost = (1 - plan.keep / self.count) ** 2 * 40 + (3 - plan.sh_degree) * 0.7
        return (
            40 - lost - (0.1 * math.log2(4096 / plan.options.get("palette", 4096)) if plan.sh_degree else 0)
        )

    def search(self) -> Search:
        ladder = [{}, {"palette": 1024}, {"palette": 256}]
        return Search(self.count, [3, 2, 1, 0], ladder, self.size, self.quality)


@settings(max_examples=100)
@given(count=st.integers(1, 200_000), share=st.floats(0.02, 1.2))
def test_a_target_size_is_met_closely(count, share):
    """Never above; and what is left free is a hundredth, or less than a Gaussian, or everything is kept."""
    files = Files(count)
    target = int(share * files.size(Plan(count, 3)))
    least = Plan(max(1, round(count / 100)), 0)
    if files.size(least) > target:
        with pytest.raises(Unreachable) as error:
            files.search().for_size(target)
        assert error.value.nearest.plan == least
        return
    found = files.search().for_size(target)
    assert found.bytes == files.size(found.plan) <= target
    assert found.psnr == files.quality(found.plan)
    one_more = files.size(replace(found.plan, keep=found.plan.keep + 1))
    assert found.plan.keep == count or found.bytes >= 0.99 * target or one_more > target


@settings(max_examples=100)
@given(count=st.integers(1, 200_000), drop=st.floats(0, 20))
def test_a_target_quality_is_met_by_a_smaller_file(count, drop):
    files = Files(count)
    whole = Plan(count, 3)
    found = files.search().for_quality(files.quality(whole) - drop)
    assert found.psnr >= files.quality(whole) - drop
    assert found.bytes <= files.size(whole)
    # Of its degree and options no file with fewer Gaussians would do, to 1/128 of the scene: seven halvings,
    # each rounded up to a whole Gaussian.
    fewer = found.plan.keep - ((count >> 7) + 1)
    if fewer >= max(1, round(count / 100)):
        assert files.quality(replace(found.plan, keep=fewer)) < files.quality(whole) - drop


@settings(max_examples=50)
@given(count=st.integers(1000, 200_000), drop=st.floats(0.05, 5))
def test_no_other_degree_or_option_has_a_smaller_file(count, drop):
    """To what bisection leaves open."""
    files = Files(count)
    least = files.quality(Plan(count, 3)) - drop
    found = files.search().for_quality(least)
    for degree, palette in itertools.product((3, 2, 1, 0), (4096, 1024, 256)):
        keeps = range(max(1, round(count / 100)), count + 1)
        plans = [Plan(keep, degree, {"palette": palette}) for keep in (keeps[0], keeps[-1])]
        if files.quality(plans[1]) < least:
            continue
        first = bisect.bisect_left(
            keeps, least, key=lambda k: files.quality(Plan(k, degree, {"palette": palette}))
        )
        smallest = files.size(Plan(keeps[first], degree, {"palette": palette}))
        # 16 bytes a Gaussian at most; what bisection leaves open, in the file that was found and in this one.
        assert found.bytes <= smallest + 2 * 16 * ((count >> 7) + 1)


def test_what_cannot_win_is_not_halved():
    """Degrees and options that change nothing: one trial of each shows that they do not make the file smaller."""
    files = Files(100_000)
    ladder = [{}, {"palette": 1024}, {"palette": 256}]
    plans = []

    def size(plan: Plan) -> int:
        plans.append(plan)
        return files.size(Plan(plan.keep, 0))

    search_ = Search(100_000, [3, 2, 1, 0], ladder, size, lambda plan: files.quality(Plan(plan.keep, 3)))
    search_.for_quality(files.quality(Plan(100_000, 3)) - 1)
    # Seven halvings; the whole scene in each of twelve ways, and in each as many as might be fewer bytes.
    assert len(plans) <= 7 + 12 + 12


def test_an_impossible_quality_names_the_best(scene):
    files = Files(1000)
    with pytest.raises(Unreachable) as error:
        files.search().for_quality(41)
    assert error.value.nearest.plan == Plan(1000, 3)


def test_no_plan_is_written_twice():
    files = Files(50_000)
    files.search().for_size(600_000)
    keys = [plan.key for plan in files.asked]
    assert len(keys) == len(set(keys)) < 60
