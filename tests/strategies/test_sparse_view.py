"""The strategy as a whole: what is switched off does nothing, all of it goes on bit for bit, and keeps company."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch

from splat.core import UsageError
from splat.data.sample import write_sample
from splat.strategies import registry
from splat.strategies.sparse import SparseView, SparseViewConfig
from splat.strategies.sparse.strategy import PIECES
from splat.training.config import STEPS, load_preset
from splat.training.session import Session, assemble, open_dataset

NAMES = tuple(piece.name for piece in PIECES)
ALL = {
    **{name: {"on": True} for name in NAMES},
    "sh": {"on": True, "degree": 1, "dropout": 0.3},
    "dropout": {"on": True, "anchors": 0.02, "neighbours": 3},
    "binocular": {"on": True, "start": 0.3},
    "floaters": {"on": True, "every": 0.2, "gap": 0.3},
    "second": {"on": True, "tolerance": 5.0, "prune_every": 0.3},
    "unpool": {"on": True, "every": 0.1, "above": 1.5},
    "prior": {"on": True},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("few") / "sample"
    return write_sample(folder, views=8, width=48, height=36, points=300, samples=1)


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def start(data: Path, options, names=("mcmc", "sparse_view"), state=None, **settings) -> Session:
    config = replace(
        load_preset("cpu"),
        strategies=names,
        steps=40,
        sh_interval=5,
        device="cpu",
        max_gaussians=400,
        eval=True,
        **settings,
    )
    density = {"refine_start": 2, "refine_every": 4}
    options = {"mcmc": density, "default": {**density, "grow_threshold": 1e-5}, "sparse_view": options}
    return assemble(config, open_dataset(data, config), registry.build(names, options), state=state)


def off(**on) -> dict:
    return {**{name: {"on": False} for name in NAMES}, **on}


def tensors(session: Session) -> dict[str, torch.Tensor]:
    ctx = session.trainer.ctx
    found = {f"main.{n}": v for n, v in ctx.gaussians.named_tensors()}
    for name, field in ctx.fields.items():
        found |= {f"{name}.{n}": v for n, v in field.gaussians.named_tensors()}
    return found


def test_every_piece_has_a_switch_and_options_of_its_own():
    assert {f.name for f in fields(SparseViewConfig)} == {*NAMES, "steps", "most_steps", "gaussians"}
    for piece in PIECES:
        assert isinstance(piece.config_type().on, bool)


def test_switched_off_it_changes_nothing_and_leaves_the_fused_step(data: Path):
    plain, switched = start(data, {}, ("mcmc",)), start(data, off())
    for session in (plain, switched):
        session.trainer.end = 10
        session.trainer.run()
    assert switched.trainer._straight
    for name, value in tensors(plain).items():
        assert torch.equal(tensors(switched)[name], value), name


@pytest.mark.parametrize("density", ["mcmc", "default"])
def test_with_every_piece_it_goes_on_bit_for_bit(data: Path, density: str):
    names = (density, "sparse_view")
    whole = start(data, ALL, names)
    whole.trainer.run()
    first = start(data, ALL, names)
    first.trainer.end = 27
    first.trainer.run()
    second = start(data, ALL, names, first.state_dict())
    second.trainer.run()
    expected, found = tensors(whole), tensors(second)
    assert expected.keys() == found.keys()
    assert any(name.startswith("second.") for name in expected)
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    assert second.score(0.0).psnr == whole.score(0.0).psnr
    assert whole.trainer.baked().sh_degree == 1


@pytest.mark.parametrize("name", NAMES)
def test_each_piece_alone_changes_the_run(data: Path, name: str):
    plain, single = start(data, off()), start(data, off(**{name: ALL[name]}))
    for session in (plain, single):
        session.trainer.run()
    if name == "sh":
        assert single.trainer.baked().sh_degree == 1
    assert len(plain.trainer.ctx.gaussians) != len(single.trainer.ctx.gaussians) or not torch.equal(
        plain.trainer.ctx.gaussians.means, single.trainer.ctx.gaussians.means
    )


def test_the_second_field_has_density_control_and_penalties_of_its_own(data: Path):
    session = start(data, off(second=ALL["second"]))
    session.trainer.run()
    field = session.trainer.ctx.fields["second"]
    assert field.penalties == session.trainer.ctx.density.penalties(session.trainer.ctx)
    main = session.trainer.ctx.gaussians
    assert len(field.gaussians) > 300
    assert not torch.equal(field.gaussians.means[:50], main.means[:50])


def test_a_head_does_not_go_with_pieces_that_draw_other_views():
    names = ("mcmc", "sparse_view", "compensation")
    with pytest.raises(UsageError, match=r"sparse_view compares further pictures .* head of compensation"):
        registry.build(names, {"sparse_view": off(binocular={"on": True})})
    registry.build(names)


@pytest.mark.parametrize("flag", ["poses", "exposure"])
def test_pieces_that_compare_views_refuse_what_moves_or_recolours_them(data: Path, flag: str):
    with pytest.raises(UsageError, match=f"binocular .* --{flag} changes"):
        start(data, off(binocular=ALL["binocular"]), **{flag: True})
    start(data, off(dropout=ALL["dropout"]), **{flag: True})


def test_it_comes_before_what_prepares_the_file():
    with pytest.raises(UsageError, match="name sparse_view before vq"):
        registry.build(("mcmc", "vq", "sparse_view"))


def test_needs_are_those_of_the_pieces_in_use():
    assert SparseView(SparseViewConfig()).needs == {"contribution", "radii"}
    assert registry.build(("mcmc", "sparse_view"), {"sparse_view": off()})[1].needs == frozenset()


def test_more_views_take_more_steps_and_gaussians(data: Path):
    """Where the settings name none; the run's own settings name them afterwards."""
    preset = load_preset("sparse")
    assert preset.steps is None
    (view,) = (s for s in registry.build(preset.strategies, preset.options) if s.name == "sparse_view")
    proposals = [view.proposal(views) for views in (2, 3, 5, 6, 12, 100)]
    assert [p.steps for p in proposals] == [500, 500, 1389, 2000, 2000, 2000]
    assert [p.max_gaussians for p in proposals] == [20_000, 20_000, 33_333, 40_000, 80_000, 80_000]
    config = replace(preset, views=6, eval=True, device="cpu", init=replace(preset.init, source="points"))
    with open_dataset(data, config) as dataset:
        session = assemble(config, dataset, registry.build(config.strategies, config.options))
        assert (session.config.steps, session.trainer.end, session.trainer.ctx.steps) == (2000, 2000, 2000)
        assert session.config.max_gaussians == session.trainer.ctx.cap == 40_000
        named = replace(config, steps=7, max_gaussians=50)
        again = assemble(named, dataset, registry.build(config.strategies, config.options))
        assert (again.trainer.end, again.trainer.ctx.steps, again.trainer.ctx.cap) == (7, 7, 50)
        plain = replace(config, strategies=("default",), options={})
        assert assemble(plain, dataset, registry.build(["default"])).trainer.end == STEPS


def test_the_preset_trains_on_three_views(data: Path):
    config = replace(load_preset("sparse"), steps=60, views=3, eval=True, device="cpu")
    with open_dataset(data, config) as dataset:
        session = assemble(config, dataset, registry.build(config.strategies, config.options))
        count, before = len(session.trainer.ctx.gaussians), session.score(0.0).psnr
        session.trainer.run()
        assert len(dataset.train) == 3
        assert any("begins with" in note for note in session.notes)
        assert 0 < count <= session.config.max_gaussians
        assert session.score(0.0).psnr > before
