"""Every edit moves parameters, moments, extras and state of the same Gaussian together."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from splat.core import Gaussians
from splat.core.gaussians import PARAMETERS
from splat.training.edits import Edit, Edits
from splat.training.optim import GaussianAdam, PerGaussian, Rates


def numbered(n: int, degree: int = 1) -> Gaussians:
    """n Gaussians whose every value tells the row it began in."""
    row = torch.arange(n, dtype=torch.float32)
    return Gaussians(
        means=row[:, None].repeat(1, 3),
        quats=row[:, None].repeat(1, 4),
        log_scales=row[:, None].repeat(1, 3),
        logit_opacities=row.clone(),
        sh=row[:, None, None].repeat(1, (degree + 1) ** 2, 3),
    )


def setup(n: int) -> tuple[Gaussians, GaussianAdam, Edits]:
    """Numbered Gaussians, moments and state: exp_avg = row + 1000, exp_avg_sq = row + 2000."""
    g = numbered(n)
    adam = GaussianAdam(g, Rates(), extent=1.0, horizon=100)
    adam.declare("label", PerGaussian(lambda g: g.means[:, :1].clone(), "copy", lr=1e-2))
    adam.declare("age", PerGaussian(7.0, "init"))
    edits = Edits(g, adam)
    edits.track("seen", lambda g: g.means[:, 0] + 5)
    for first, second in adam.moments.values():
        row = torch.arange(n, dtype=torch.float32).view(-1, *[1] * (first.dim() - 1))
        first += row + 1000
        second += row + 2000
    edits.state["seen"] = torch.arange(n, dtype=torch.float32) + 3000
    g.extras["age"] = torch.arange(n, dtype=torch.float32) + 4000
    return g, adam, edits


def flat(t: torch.Tensor) -> list[float]:
    """The first value of each row, after checking that the row is constant."""
    rows = t.reshape(t.shape[0], -1)
    assert (rows == rows[:, :1]).all()
    return rows[:, 0].tolist()


def test_copy_appends_with_zero_moments_and_keeps_the_source() -> None:
    g, adam, edits = setup(3)
    edit = edits.copy(torch.tensor([2, 2]))
    for name in PARAMETERS:
        assert flat(getattr(g, name)) == [0, 1, 2, 2, 2]
        assert flat(adam.moments[name][0]) == [1000, 1001, 1002, 0, 0]
        assert flat(adam.moments[name][1]) == [2000, 2001, 2002, 0, 0]
    assert flat(g.extras["label"]) == [0, 1, 2, 2, 2]
    assert flat(g.extras["age"]) == [4000, 4001, 4002, 7, 7]
    assert flat(edits.state["seen"]) == [3000, 3001, 3002, 7, 7]  # init of the copy: its mean 2, plus 5
    assert edit.before == 3
    assert edit.after == 5
    assert edit.follow(torch.tensor([5.0, 6.0, 7.0]), -1.0).tolist() == [5, 6, 7, -1, -1]


def test_copy_with_update_source_zeroes_and_overwrites_the_source() -> None:
    g, adam, edits = setup(3)
    edits.copy(torch.tensor([1, 1]), {"logit_opacities": torch.tensor([9.0, 9.0])}, update_source=True)
    assert flat(g.logit_opacities) == [0, 9, 2, 9, 9]
    assert flat(g.means) == [0, 1, 2, 1, 1]
    assert flat(adam.moments["means"][0]) == [1000, 0, 1002, 0, 0]


def test_split_replaces_the_source_by_its_children() -> None:
    g, adam, edits = setup(4)
    children = torch.tensor([10.0, 30.0, 11.0, 31.0])[:, None].repeat(1, 3)
    edit = edits.split(torch.tensor([1, 3]), {"means": children})
    assert flat(g.means) == [0, 2, 10, 30, 11, 31]
    assert flat(g.quats) == [0, 2, 1, 3, 1, 3]
    assert flat(adam.moments["sh"][1]) == [2000, 2002, 0, 0, 0, 0]
    assert edit.source.tolist() == [0, 2, 1, 3, 1, 3]
    assert edit.fresh.tolist() == [2, 3, 4, 5]


def test_relocate_keeps_the_moments_of_the_dead_and_zeroes_the_source() -> None:
    g, adam, edits = setup(4)
    opacity = torch.tensor([5.0, 5.0])
    edits.relocate(torch.tensor([0, 2]), torch.tensor([3, 3]), {"logit_opacities": opacity})
    assert flat(g.means) == [3, 1, 3, 3]
    assert flat(g.logit_opacities) == [5, 1, 5, 5]
    assert flat(adam.moments["means"][0]) == [1000, 1001, 1002, 0]
    assert flat(edits.state["seen"]) == [8, 3001, 8, 3003]


def test_replace_touches_one_parameter_and_its_moments() -> None:
    g, adam, edits = setup(3)
    edits.replace("logit_opacities", None, torch.full((3,), -4.0))
    assert flat(g.logit_opacities) == [-4, -4, -4]
    assert flat(adam.moments["logit_opacities"][0]) == [0, 0, 0]
    assert flat(adam.moments["means"][0]) == [1000, 1001, 1002]
    edits.replace("means", torch.tensor([1]), torch.full((1, 3), 8.0), zero_moments=False)
    assert flat(g.means) == [0, 8, 2]
    assert flat(adam.moments["means"][0]) == [1000, 1001, 1002]


def test_unknown_names_are_refused_before_anything_moves() -> None:
    g, _, edits = setup(3)
    with pytest.raises(ValueError, match="opacity"):
        edits.copy(torch.tensor([0]), {"opacity": torch.zeros(1)})
    assert len(g) == 3


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["copy", "split", "remove", "relocate", "permute"]), st.integers(0, 999))
    )
)
def test_any_sequence_of_edits_keeps_rows_together(script: list[tuple[str, int]]) -> None:
    """A cache that follows by the Edit records alone always equals the parameters."""
    g, adam, edits = setup(6)
    cache = {"row": torch.arange(6, dtype=torch.float32)}

    def listen(edit: Edit) -> None:
        assert edit.before == cache["row"].shape[0]
        cache["row"] = cache["row"][edit.source]

    edits.listeners.append(listen)
    for kind, seed in script:
        n = len(g)
        if n < 2 or n > 200:
            break
        pick = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
        some = pick[: max(1, n // 3)]
        if kind == "copy":
            edits.copy(some)
        elif kind == "split":
            edits.split(some, {})
        elif kind == "remove":
            edits.remove(some)
        elif kind == "relocate":
            edits.relocate(some, pick[-1:].expand(some.shape[0]), {})
        else:
            edits.permute(pick)
        for name, value in g.named_tensors():
            if name != "age":
                assert flat(value) == cache["row"].tolist()
        for name, pair in adam.moments.items():
            assert pair[0].shape == dict(g.named_tensors())[name].shape
