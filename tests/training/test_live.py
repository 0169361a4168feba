"""What a run tells who looks on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from patience import PATIENCE

from splat import codecs
from splat.cli import main
from splat.data.sample import write_sample
from splat.link import Commands, Session
from splat.strategies import registry
from splat.training.config import TrainConfig, load_preset
from splat.training.perview import moved
from splat.training.run import RunResult, train
from splat.training.trainer import Trainer


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("live") / "sample"
    return write_sample(folder, views=4, width=40, height=30, points=300, samples=1, truth=False)


@pytest.fixture
def watched(data: Path, tmp_path: Path) -> Callable[..., RunResult]:
    """watched(look, settings): trains while look(session) runs in a thread of its own, then stops."""

    def go(look: Callable[[Session], None], settings: TrainConfig) -> RunResult:
        failures: list[BaseException] = []
        commands = Commands()
        threads: list[threading.Thread] = []

        def ready(session: Session) -> None:
            def run() -> None:
                try:
                    look(session)
                except BaseException as error:
                    failures.append(error)
                finally:
                    commands.send(lambda trainer: trainer.stop())

            threads.append(threading.Thread(target=run))
            threads[0].start()

        strategies = registry.build(settings.strategies, settings.options)
        out = tmp_path / "run"
        result = train(settings, data, out, strategies=strategies, commands=commands, ready=ready, quiet=True)
        threads[0].join(PATIENCE)
        if failures:
            raise failures[0]
        return result

    return go


def settings(**more: Any) -> TrainConfig:
    return replace(load_preset("cpu"), steps=100_000, device="cpu", max_gaussians=300, **more)


def ask(session: Session, what: Callable[[Trainer], Any]) -> Any:
    """What the trainer answers between two steps."""
    done, answer = threading.Event(), []
    assert session.commands is not None
    session.commands.send(lambda trainer: (answer.append(what(trainer)), done.set()))
    assert done.wait(20)
    return answer[0]


def test_what_is_taken_is_what_the_command_exports(watched, tmp_path: Path) -> None:
    """With the codebooks that the run has learned, to the byte."""
    vq = {"vq": {"start": 0.0}}

    def look(session: Session) -> None:
        assert session.take is not None
        assert session.export is not None
        ask(session, lambda trainer: trainer.advance(30))
        while session.progress().state != "paused":
            pass
        snapshot = session.take(lambda: True)
        assert snapshot is not None
        assert snapshot.metadata["codebooks"]["sog"]
        kept = snapshot.metadata["codebooks"]["sog"]["shn_labels"].clone()
        session.export(snapshot.gaussians, tmp_path / "live.sog", {}, snapshot.metadata)
        ask(session, lambda trainer: trainer.save())
        # What was taken is its own: it stays while the run goes on.
        ask(session, lambda trainer: trainer.advance(10))
        while session.progress().state != "paused":
            pass
        assert torch.equal(snapshot.metadata["codebooks"]["sog"]["shn_labels"], kept)

    result = watched(look, settings(strategies=("mcmc", "vq"), options=vq, sh_interval=1))
    (saved,) = (result.folder / "ckpts").glob("step_30.pt")
    assert main(["export", str(saved), str(tmp_path / "command.sog")]) == 0
    ours, theirs = (codecs.decode(tmp_path / f"{name}.sog")[0] for name in ("live", "command"))
    for (name, a), (_, b) in zip(ours.named_tensors(), theirs.named_tensors(), strict=True):
        assert torch.equal(a, b), name
    assert (tmp_path / "live.sog").stat().st_size == (tmp_path / "command.sog").stat().st_size


def test_who_no_longer_wants_it_does_not_wait(watched) -> None:
    def look(session: Session) -> None:
        assert session.take is not None
        assert session.take(lambda: False) is None

    watched(look, settings())


def test_refined_cameras_are_shown_where_they_are(watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("splat.training.live._REFINE_SECONDS", 0.0)

    def look(session: Session) -> None:
        first = [view.camera for view in session.views]
        ask(session, lambda trainer: trainer.advance(20))
        while session.progress().state != "paused":
            pass
        session.slot.wanted = True
        session.slot.latest(0, timeout=PATIENCE)
        xi, extent = ask(session, lambda trainer: (trainer.poses.rows.clone(), trainer.poses.extent))
        assert float(xi.abs().max()) > 0
        for i, view in enumerate(session.views):
            expected = moved(first[i], xi[i], extent).world_to_camera
            assert torch.equal(view.camera.world_to_camera, expected)

    watched(look, settings(poses=True))
