"""A run on disk: what it leaves, how it resumes, and what happens to it when things go wrong."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from patience import wait

from splat import codecs
from splat.core import DataError, DeviceError, Interrupted, UsageError
from splat.data.sample import write_sample
from splat.link import Commands, Slot
from splat.strategies import registry
from splat.training import checkpoint, guard, live, run
from splat.training.config import TrainConfig
from splat.training.run import RunResult
from splat.training.runfolder import RunFolder
from splat.training.strategy import Strategy

Train = Callable[..., RunResult]

MCMC = {"mcmc": {"refine_start": 20, "refine_every": 10, "refine_stop": 150, "min_opacity": 0.05}}


@pytest.fixture
def train(dataset: Any, config: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> Train:
    """train(out, strategies=, resume=, **changes of the config): a quiet run on the toy photographs."""
    monkeypatch.setattr(run, "open_dataset", lambda data, config: dataset)

    def go(
        out: Path | None = None, strategies: Any = None, resume: Path | None = None, **changes: Any
    ) -> RunResult:
        options = {name: changes.pop(name) for name in ("slot", "commands") if name in changes}
        chosen = replace(config, backend="cpu", strategies=("mcmc",), options=MCMC, **changes)
        strategies = registry.build(chosen.strategies, chosen.options) if strategies is None else strategies
        return run.train(
            chosen, Path("toy"), out, strategies=strategies, resume=resume, quiet=True, **options
        )

    return go


class Event(Strategy):
    """Does something after one step."""

    name = "event"
    config_type = type(None)

    def __init__(self, step: int, action: Callable[[Any], None]) -> None:
        super().__init__(None)
        self.step, self.action = step, action

    def after_step(self, ctx: Any) -> None:
        if ctx.step + 1 == self.step:
            self.action(ctx)


def with_event(step: int, action: Callable[[Any], None]) -> list[Strategy]:
    return [*registry.build(["mcmc"], MCMC), Event(step, action)]


def interrupt(_: Any) -> None:
    os.kill(os.getpid(), signal.SIGINT)


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    """Everything that was saved last, flat."""
    state, warnings = checkpoint.load_latest(RunFolder(folder))
    assert state is not None
    assert not warnings
    field = state["trainer"]["main"]
    moments = field["optimizer"]["moments"]
    flat = {f"{n} moment {i}": m for n, pair in moments.items() for i, m in enumerate(pair)}
    return {**field["gaussians"], **flat, "generator": state["trainer"]["generator"]}


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def metrics(folder: Path) -> list[dict[str, Any]]:
    """metrics.jsonl without what depends on the clock and the machine."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("seconds", "memory_mb")} for line in lines]


def test_a_run_leaves_what_the_design_says(train: Train, tmp_path: Path) -> None:
    out = tmp_path / "run"
    result = train(out, eval_steps=(20,))
    names = {p.name for p in out.iterdir()} - {"tb"}
    assert names == {
        "config.yaml", "env.json", "log.txt", "metrics.jsonl", "ckpts", "stats", "renders", "exports",
    }  # fmt: skip
    assert {p.name for p in (out / "ckpts").iterdir()} == {"step_20.pt", "step_40.pt"}
    assert {p.name for p in (out / "renders").iterdir()} >= {"eval_40_view00.png", "eval_40_view04.png"}
    for step in (20, 40):
        stats = json.loads((out / "stats" / f"eval_{step}.json").read_text())
        assert list(stats) == [
            "step", "psnr", "ssim", "lpips", "num_gaussians", "train_seconds", "per_image",
        ]  # fmt: skip
        assert stats["step"] == step
        assert [image["name"] for image in stats["per_image"]] == ["view00.png", "view04.png"]
    scene, _ = codecs.decode(result.scene)
    assert result.scene == out / "exports" / "point_cloud.ply"
    assert len(scene) == result.num_gaussians
    assert_saved = tensors(out)
    torch.testing.assert_close(scene.means, assert_saved["means"], rtol=0, atol=0)
    assert [line["step"] for line in metrics(out)] == [10, 20, 30, 40]
    assert json.loads((out / "env.json").read_text())["data"].endswith("toy")
    assert "held-out views" in (out / "log.txt").read_text()
    assert RunFolder.open(out).read_config().steps == 40


@pytest.mark.parametrize("extra", [{}, {"exposure": True, "background": "random", "progressive": 1}])
def test_resuming_goes_on_bit_for_bit(train: Train, tmp_path: Path, extra: dict[str, Any]) -> None:
    straight, stopped = tmp_path / "straight", tmp_path / "stopped"
    train(straight, steps=200, progressive_interval=60, **extra)
    with pytest.raises(Interrupted, match=f"--resume {stopped}") as caught:
        train(stopped, with_event(120, interrupt), steps=200, progressive_interval=60, **extra)
    assert caught.value.exit_code == 130
    assert checkpoint.listed(RunFolder(stopped))[-1][0] == 120

    # As after a kill: lines that were written past the checkpoint, the last one torn.
    with open(stopped / "metrics.jsonl", "a") as file:
        file.write('{"step": 130, "loss": 9}\n{"step": 140, "lo')
    train(resume=stopped, steps=200, progressive_interval=60, **extra)
    assert_equal(tensors(stopped), tensors(straight))
    assert metrics(stopped) == metrics(straight)
    assert (stopped / "exports" / "point_cloud.ply").read_bytes() == (
        straight / "exports" / "point_cloud.ply"
    ).read_bytes()


def test_a_finished_run_is_extended_past_its_horizon(train: Train, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(out, steps=30)
    longer = train(resume=out, steps=50)
    assert longer.step == 50
    assert RunFolder.open(out).read_config().steps == 50
    rates = {line["step"]: line["lr_means"] for line in metrics(out)}
    assert rates[40] == rates[50] < rates[30] < rates[10]
    assert rates[50] == pytest.approx(1.6e-6 * 3.3)


def test_an_end_that_people_moved_holds_after_a_resume(train: Train, tmp_path: Path) -> None:
    out, commands = tmp_path / "run", Commands()
    commands.send(lambda trainer: trainer.extend(30))
    with pytest.raises(Interrupted):
        train(out, with_event(45, interrupt), steps=30, commands=commands)
    assert RunFolder.open(out).read_config().steps == 60
    assert train(resume=out, steps=60).step == 60
    with pytest.raises(UsageError, match="has taken 60 steps already; give --steps above that"):
        train(resume=out, steps=59)


def test_a_run_that_never_saved_starts_over_in_its_folder(train: Train, tmp_path: Path) -> None:
    out = tmp_path / "run"
    train(out)
    for _, path in checkpoint.listed(RunFolder(out)):
        path.unlink()
    assert train(resume=out).step == 40
    assert [line["step"] for line in metrics(out)] == [10, 20, 30, 40]


def test_a_damaged_checkpoint_is_skipped_with_a_warning(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "SAVE_STEPS", 10)
    out = tmp_path / "run"
    train(out)
    expected = tensors(out)
    latest = out / "ckpts" / "step_40.pt"
    latest.write_bytes(latest.read_bytes()[:-2000])
    train(resume=out)
    assert_equal(tensors(out), expected)
    log = (out / "log.txt").read_text()
    assert "step_40.pt: damaged" in log
    assert "resumed after step 30" in log


def test_the_last_two_checkpoints_and_scored_ones_are_kept(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "SAVE_STEPS", 5)
    train(tmp_path / "run", eval_steps=(15,))
    assert [step for step, _ in checkpoint.listed(RunFolder(tmp_path / "run"))] == [15, 35, 40]


def test_time_alone_is_a_reason_to_save(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "SAVE_SECONDS", 0.0)
    seen = []

    def look(ctx: Any) -> None:
        seen.extend(step for step, _ in checkpoint.listed(RunFolder(tmp_path / "run")))

    train(tmp_path / "run", with_event(8, look), steps=9)
    assert seen == [6, 7]


def test_nan_never_reaches_the_disk(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "SAVE_STEPS", 10)

    def poison(ctx: Any) -> None:
        ctx.gaussians.sh[2, 1, 0] = float("inf")

    out = tmp_path / "run"
    with pytest.raises(guard.NotFinite, match=r"one of the steps 11 to 20 .* \(sh\)") as caught:
        train(out, with_event(16, poison))
    assert caught.value.exit_code == 1
    assert [step for step, _ in checkpoint.listed(RunFolder(out))] == [0, 10]
    assert all(torch.isfinite(t).all() for t in tensors(out).values())
    assert not (out / "exports" / "point_cloud.ply").exists()


def test_the_step_that_made_a_place_nan_is_named(train: Train, tmp_path: Path) -> None:
    def poison(ctx: Any) -> None:
        ctx.gaussians.means[3, 1] = float("nan")

    with pytest.raises(guard.NotFinite, match=r"step 16 made 1 Gaussians .* \(means\)") as caught:
        train(tmp_path / "run", with_event(16, poison))
    assert "Gaussian 3:" in str(caught.value)


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), None]
)
def test_running_out_of_memory_saves_first(train: Train, tmp_path: Path, error: Exception | None) -> None:
    def burst(ctx: Any) -> None:
        if error is None:
            torch.empty(1 << 60, dtype=torch.uint8)  # what the machine itself says
        else:
            raise error

    out = tmp_path / "run"
    with pytest.raises(DeviceError, match="--max-gaussians") as caught:
        train(out, with_event(13, burst))
    assert caught.value.exit_code == 4
    assert checkpoint.listed(RunFolder(out))[-1][0] == 12
    assert train(resume=out).step == 40


def test_other_errors_are_not_taken_for_memory(train: Train, tmp_path: Path) -> None:
    def fail(ctx: Any) -> None:
        raise RuntimeError("a defect")

    with pytest.raises(RuntimeError, match="a defect"):
        train(tmp_path / "run", with_event(13, fail))


def test_too_little_disk_is_said_before_the_first_step(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(10**9, 10**9 - 1000, 1000))
    with pytest.raises(DataError, match=r"not enough disk: \d+ MB needed, 0 MB free") as caught:
        train(tmp_path / "run")
    assert caught.value.exit_code == 3
    assert checkpoint.listed(RunFolder(tmp_path / "run")) == []


def test_a_folder_that_holds_something_is_refused(train: Train, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="is not empty and holds no run"):
        train(tmp_path)
    out = tmp_path / "run"
    train(out, steps=5)
    with pytest.raises(UsageError, match=f"already holds a run; use --resume {out}"):
        train(out)
    with pytest.raises(UsageError, match="is a file"):
        train(tmp_path / "notes.txt")
    with pytest.raises(DataError, match="no such run folder"):
        train(resume=tmp_path / "absent")
    with pytest.raises(DataError, match="not a run folder"):
        train(resume=tmp_path)


def test_runs_without_out_get_a_folder_each(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first, second = train(steps=2), train(steps=2)
    assert first.folder != second.folder
    for result in (first, second):
        assert result.folder.parent == Path("runs/toy")
        assert result.folder.name.startswith("default-")


def test_resuming_with_another_dataset_or_settings_is_refused(
    train: Train, tmp_path: Path, dataset: Any
) -> None:
    train(tmp_path / "run", steps=5, exposure=True)
    dataset.train = [1, 2, 3]
    with pytest.raises(UsageError, match="saved for 6 views, not 3"):
        train(resume=tmp_path / "run", steps=5, exposure=True)


def test_a_state_of_another_version_is_refused_with_its_path_and_a_way_out(
    train: Train, tmp_path: Path
) -> None:
    """A strategy that has learnt to keep one value more."""

    class Newer(Strategy):
        name = "toy"
        config_type = type(None)
        controls_density = True

        def __init__(self) -> None:
            super().__init__(None)

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.pace = state["pace"]

    train(tmp_path / "run", strategies=[Newer()], steps=5)
    saved = tmp_path / "run" / "ckpts" / "step_5.pt"
    with pytest.raises(DataError) as caught:
        train(resume=tmp_path / "run", strategies=[Newer()], steps=9)
    message = str(caught.value)
    assert message.startswith(f"{saved}: 'pace' is missing: another version of splat saved it")
    assert "--init.scene FILE" in message
    assert "\n" not in message


def test_snapshots_are_published_only_while_wanted(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "PUBLISH_SECONDS", 0.0)
    slot: Any = Slot()
    steps = []

    class Watch(Strategy):
        name = "watch"

        def after_step(self, ctx: Any) -> None:
            snapshot = slot.latest(timeout=0)[1]
            steps.append(None if snapshot is None else snapshot.step)
            slot.wanted = ctx.step in (10, 11)

    train(
        tmp_path / "run",
        [*registry.build(["mcmc"], MCMC), Watch(None)],
        slot=slot,
        steps=20,
    )
    # Wanted after the 0-based steps 10 and 11: the snapshots hold 11 and 12 finished steps.
    assert steps == [None] * 11 + [11] + [12] * 8
    snapshot = slot.latest(timeout=0)[1]
    assert len(snapshot.gaussians) > 0
    assert snapshot.end == 20


def test_sigterm_and_a_stop_command_end_the_run(train: Train, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="SIGTERM: stopped after step 7"):
        train(tmp_path / "a", with_event(7, lambda ctx: os.kill(os.getpid(), signal.SIGTERM)))
    commands = Commands()
    result = train(
        tmp_path / "b", with_event(7, lambda ctx: commands.send(lambda t: t.stop())), commands=commands
    )
    assert result.step == 7
    assert result.scene.exists()
    assert signal.getsignal(signal.SIGINT) is before


CHILD = """
import sys, pathlib, torch
from splat.strategies import registry
from splat.training import run
from splat.training.config import TrainConfig
torch.set_num_threads(1)
data, out = map(pathlib.Path, sys.argv[1:])
run.SAVE_STEPS = 1
config = TrainConfig(steps=100_000, strategies=("mcmc",), max_gaussians=2000, device="cpu")
begun = (out / "config.yaml").exists()
where = {"resume": out} if begun else {"out": out}
run.train(config, data, strategies=registry.build(["mcmc"]), quiet=True, **where)
"""


def test_kill_at_any_moment_leaves_a_loadable_run(tmp_path: Path) -> None:
    """A child that does little but save is killed after random times; each time the run goes on."""
    data = write_sample(tmp_path / "data", views=4, width=32, height=24, points=200, truth=False)
    out, dice, reached = tmp_path / "run", random.Random(0), [0]
    for _ in range(3):
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(data), str(out)], cwd=tmp_path)

        def further(child: subprocess.Popen[bytes] = child) -> bool:
            saved = checkpoint.listed(RunFolder(out)) if out.exists() else []
            return child.poll() is not None or bool(saved and saved[-1][0] > reached[-1])

        wait(further)
        time.sleep(0.3 * dice.random())
        assert child.poll() is None
        child.kill()
        child.wait()
        state, warnings = checkpoint.load_latest(RunFolder(out))
        assert state is not None
        assert not warnings
        assert all(torch.isfinite(t).all() for t in state["trainer"]["main"]["gaussians"].values())
        assert state["step"] > reached[-1]
        reached.append(state["step"])
    # What a kill left half-written goes with the next checkpoint.
    (out / "ckpts" / ".step_9.pt.1.tmp").write_bytes(b"torn")
    checkpoint.save(RunFolder(out), reached[-1] + 1, {})
    assert not list((out / "ckpts").glob(".*.tmp"))
