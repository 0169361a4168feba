"""`splat train` as a user types it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
import yaml
from patience import PATIENCE, wait


def settings(splat, *args) -> dict:
    done = splat("train", *args, "--print-config")
    assert done.code == 0, done.err
    return yaml.safe_load(done.out)


def lines(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_run_folder(run, sample, steps):
    assert {p.name for p in run.iterdir()} >= {
        *("config.yaml", "env.json", "log.txt", "metrics.jsonl"),
        *("ckpts", "stats", "renders", "exports"),
    }
    stats = json.loads((run / "stats" / f"eval_{steps}.json").read_text())
    assert {"step", "psnr", "ssim", "lpips", "num_gaussians", "train_seconds", "per_image"} <= set(stats)
    assert stats["step"] == steps
    assert len(stats["per_image"]) == 2  # every 8th of 12
    assert (run / "ckpts" / f"step_{steps}.pt").exists()
    assert (run / "exports" / "point_cloud.ply").exists()
    assert json.loads((run / "env.json").read_text())["data"] == str(sample.resolve())
    assert [line["step"] for line in lines(run)] == list(range(10, steps + 1, 10))
    assert not [p for p in run.rglob("*") if p.name.endswith(".tmp")]


def test_training_learns(run):
    """The loss (of one view a line) falls from the first lines to the last."""
    losses = [line["loss"] for line in lines(run)]
    assert sum(losses[-3:]) < sum(losses[:3])


def test_flags_beat_the_file_and_the_file_beats_the_preset(splat, tmp_path):
    preset = settings(splat, "--preset", "cpu")
    file = tmp_path / "settings.yaml"
    file.write_text("steps: 111\nseed: 5\nrates: {sh0: 0.004}\noptions: {mcmc: {noise: 7.0, growth: 1.2}}\n")
    both = settings(splat, "--preset", "cpu", "--config", file)
    all_three = settings(splat, "--preset", "cpu", "--config", file, "--steps", 99, "--mcmc.noise", 8)
    assert both["strategies"] == preset["strategies"] == ["mcmc"]
    assert both["max_gaussians"] == preset["max_gaussians"]
    assert (both["steps"], both["seed"], both["rates"]["sh0"]) == (111, 5, 0.004)
    assert both["options"]["mcmc"]["noise"] == 7
    assert (all_three["steps"], all_three["seed"]) == (99, 5)
    assert all_three["options"]["mcmc"]["noise"] == 8
    assert all_three["options"]["mcmc"]["growth"] == 1.2
    assert settings(splat, "--steps", 5)["strategies"] == ["default"]


def test_the_runs_settings_can_be_given_again(splat, run, steps):
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert settings(splat, "--config", run / "config.yaml") == saved
    assert saved["preset"] == "cpu"
    assert saved["steps"] == steps
    assert saved["eval"] is True


def test_a_preset_switch_can_be_switched_off(splat, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("eval: true\n")
    assert settings(splat, "--config", file)["eval"] is True
    assert settings(splat, "--config", file, "--no-eval")["eval"] is False


PLUGIN = '''
from dataclasses import dataclass
from splat.training.strategy import Strategy

@dataclass(frozen=True)
class ToyConfig:
    """Options of the toy."""
    weight: float = 0.5
    """How much it weighs."""

class Toy(Strategy):
    name = "toy"
    config_type = ToyConfig
    steps = 0

    def after_step(self, ctx):
        ctx.log("toy", self.config.weight)
'''


def install_plugin(folder: Path, monkeypatch, module: str) -> None:
    """A distribution `splat-toy` whose entry point names the strategy."""
    (folder / "splat_toy.py").write_text(module)
    info = folder / "splat_toy-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: splat-toy\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("[splat.strategies]\ntoy = splat_toy:Toy\n")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(__import__("sys").modules, "splat_toy", raising=False)


def test_a_plugin_is_in_the_help_and_runs(splat, sample, tmp_path, monkeypatch):
    install_plugin(tmp_path, monkeypatch, PLUGIN)
    shown = splat("train", "--help").out
    assert "--toy.weight" in shown
    assert "How much it weighs." in shown
    out = tmp_path / "run"
    flags = ("--preset", "cpu", "--strategies", "mcmc", "toy", "--toy.weight", 0.25)
    done = splat("train", sample, *flags, "--steps", 10, "--out", out)
    assert done.code == 0, done.err
    assert lines(out)[-1]["toy"] == 0.25


def test_a_plugin_that_does_not_load_is_named(splat, tmp_path, monkeypatch):
    install_plugin(tmp_path, monkeypatch, "import nowhere_to_be_found\n")
    done = splat("train", "--help")
    assert done.code == 2
    assert "splat-toy 1.2" in done.first
    assert "nowhere_to_be_found" in done.first


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "no dataset"),
        (("--preset", "cpuu"), "did you mean 'cpu'"),
        (("DATA", "--steps", "0"), "steps"),
        (("DATA", "--steps", "many"), "many"),
        (("DATA", "--downscale", "0.5"), "downscale"),
        (("DATA", "--strategies", "mcmcc"), "did you mean 'mcmc'"),
        (("DATA", "--strategies", "mcmc", "default"), "exactly one strategy"),
        (("DATA", "--default.absgrad", "--preset", "cpu"), "--default.*"),
        (("DATA", "--config", "NOWHERE"), "NOWHERE"),
        (("DATA", "--stpes", "3"), "--steps"),
        (("DATA", "--device", "tpu"), "tpu"),
        (("--resume", "RUN", "--preset", "cpu"), "--preset"),
        (("--resume", "RUN", "--out", "OUT"), "--out"),
    ],
)
def test_usage_errors(splat, sample, run, tmp_path, flags, said):
    places = {"DATA": str(sample), "RUN": str(run), "NOWHERE": str(tmp_path / "nowhere.yaml"), "OUT": "out"}
    done = splat("train", *(places.get(flag, flag) for flag in flags))
    assert done.code == 2
    assert places.get(said, said) in done.err
    assert not (tmp_path / "out").exists()


def test_a_bad_settings_file_names_the_key(splat, sample, tmp_path):
    file = tmp_path / "settings.yaml"
    file.write_text("rates: {sh00: 0.004}\n")
    done = splat("train", sample, "--config", file)
    assert done.code == 2
    assert str(file) in done.first
    assert "sh0" in done.first


def test_a_folder_in_use_is_left_alone(splat, sample, run, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    assert splat("train", sample, "--out", tmp_path, "--steps", 5).code == 2
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]
    done = splat("train", sample, "--out", run, "--steps", 5)
    assert done.code == 2
    assert "--resume" in done.first


def test_no_gpu_is_a_device_error(splat, sample, tmp_path):
    import torch

    if torch.cuda.is_available():
        pytest.skip("an NVIDIA GPU is at hand")
    done = splat("train", sample, "--device", "cuda", "--out", tmp_path / "run")
    assert done.code == 4
    assert "--device cpu" in done.first
    assert not (tmp_path / "run").exists()


def test_default_place(splat, sample, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert splat("train", sample, "--preset", "cpu", "--steps", 2).code == 0
    (run,) = (tmp_path / "runs" / "sample").iterdir()
    assert run.name.startswith("cpu-2")


def test_resume_goes_on_past_the_end(splat, sample, tmp_path):
    out = tmp_path / "run"
    flags = ("--preset", "cpu", "--eval", "--out", out)
    assert splat("train", sample, *flags, "--steps", 20).code == 0
    done = splat("train", "--resume", out, "--steps", 40)
    assert done.code == 0, done.err
    assert [line["step"] for line in lines(out)] == [10, 20, 30, 40]
    assert (out / "stats" / "eval_40.json").exists()
    assert (out / "ckpts" / "step_40.pt").exists()
    assert splat("eval", out).code == 0


def wait_for(condition, process) -> None:
    """Until `condition()`; fails with what the process said if it ends or takes too long."""
    try:
        wait(lambda: process.poll() is not None or condition())
    finally:
        if process.poll() is not None or not condition():
            process.kill()
            pytest.fail(f"ended with {process.returncode}: {process.communicate()}")


def written(run: Path) -> bool:
    return (run / "metrics.jsonl").exists() and "\n" in (run / "metrics.jsonl").read_text()


def test_control_c_saves_and_can_be_resumed(start, splat, sample, tmp_path):
    out = tmp_path / "run"
    process = start("train", sample, "--preset", "cpu", "--steps", 100_000, "--out", out, cwd=tmp_path)
    wait_for(lambda: written(out), process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert f"--resume {out}" in err.splitlines()[0]
    stopped = max(int(p.stem.split("_")[1]) for p in (out / "ckpts").glob("step_*.pt"))
    assert stopped > 0
    done = splat("train", "--resume", out, "--steps", stopped + 10)
    assert done.code == 0, done.err
    assert (out / "exports" / "point_cloud.ply").exists()
    steps = [line["step"] for line in lines(out)]
    assert steps == sorted(set(steps))


def test_a_killed_run_can_be_used_and_resumed(start, splat, sample, tmp_path):
    out = tmp_path / "run"
    process = start(
        "train", sample, "--preset", "cpu", "--steps", 100_000, "--eval", "--out", out, cwd=tmp_path
    )
    wait_for(lambda: written(out), process)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate(timeout=PATIENCE)
    assert splat("info", out).code == 0
    done = splat("train", "--resume", out, "--steps", 20)
    assert done.code == 0, done.err


def test_views_trains_on_a_few_and_says_which(splat, sample, tmp_path):
    out = tmp_path / "few"
    done = splat("train", sample, "--views", 3, "--eval", "--test-every", 6, "--steps", 2, "--out", out)
    assert done.code == 0, done.err
    log = (out / "log.txt").read_text()
    assert "trains on 3 views: view_001.png, view_005.png, view_011.png" in log
    assert "triangulated again from them" in log
    assert len(json.loads((out / "stats" / "eval_2.json").read_text())["per_image"]) == 2
    scored = splat("eval", out, "--json")  # the run's own protocol
    assert scored.code == 0, scored.err
    assert len(json.loads(scored.out)["per_image"]) == 2


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (("--views", 1), "views: 1 is too few"),
        (("--views", 99), "has 12 views to train on, not 99; lower --views"),
        (("--eval", "--test-every", 1), "test_every: 1 would leave nothing to train on"),
    ],
)
def test_impossible_protocols(splat, sample, flags, message):
    done = splat("train", sample, *flags, "--steps", 1)
    assert done.code == 2
    assert message in done.first
