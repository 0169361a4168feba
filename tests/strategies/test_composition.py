"""Strategies that work on one scene together: density control, pruning, a neural head, quantization."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from splat import codecs
from splat.data.sample import write_sample
from splat.strategies import registry
from splat.training.config import load_preset
from splat.training.export import exported
from splat.training.session import Session, assemble, open_dataset

OPTIONS = {
    "mcmc": {"refine_start": 2, "refine_every": 4},
    "spectral": {"keep": 0.6, "method": "opacity", "start": 0.3, "stop": 0.3},
    "compensation": {"start": 0.3, "features": 4},
    "vq": {"start": 0.5, "every": 4, "words": 32, "palette": 32},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("together") / "sample"
    return write_sample(folder, views=8, width=48, height=36, points=300, samples=1, truth=False)


def start(data: Path, names: tuple[str, ...], state=None, layout: str = "sog") -> Session:
    config = replace(
        load_preset("cpu"),
        strategies=names,
        steps=40,
        sh_interval=5,
        device="cpu",
        max_gaussians=350,
        eval=True,
    )
    options = {**OPTIONS, "vq": {**OPTIONS["vq"], "layout": layout}}
    return assemble(config, open_dataset(data, config), registry.build(names, options), state=state)


@pytest.mark.parametrize(
    "names",
    [
        ("mcmc", "spectral", "compensation", "vq"),
        ("default", "compensation", "spectral", "vq"),
        ("spectral", "mcmc", "vq"),
    ],
)
def test_they_train_score_and_export_together(data: Path, names: tuple[str, ...], tmp_path: Path):
    session = start(data, names)
    session.trainer.run()
    ctx = session.trainer.ctx
    assert 0 < len(ctx.gaussians) <= ctx.cap < 350
    assert torch.isfinite(torch.tensor(session.score(0.0).psnr))
    gaussians, metadata, _ = exported(session)
    notes = codecs.encode(gaussians, tmp_path / "scene.sog", metadata)
    assert any("compensation" in note for note in notes) == ("compensation" in names)
    assert len(codecs.decode(tmp_path / "scene.sog")[0]) == len(ctx.gaussians)


@pytest.mark.parametrize("layout", ["sog", "vq"])
def test_together_they_resume_bit_for_bit(data: Path, layout: str):
    names = ("mcmc", "spectral", "compensation", "vq")
    whole = start(data, names, layout=layout)
    whole.trainer.run()
    first = start(data, names, layout=layout)
    first.trainer.end = 27
    first.trainer.run()
    second = start(data, names, first.state_dict(), layout)
    second.trainer.run()
    for name, value in whole.trainer.ctx.gaussians.named_tensors():
        assert torch.equal(dict(second.trainer.ctx.gaussians.named_tensors())[name], value), name
    assert second.score(0.0).psnr == whole.score(0.0).psnr
