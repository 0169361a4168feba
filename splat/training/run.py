"""`train`: a run from the dataset to the exported scene, with everything that it leaves on disk."""

from __future__ import annotations

import gc
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from splat.core import DataError, DeviceError, Interrupted, SplatError, UsageError
from splat.link import Commands, Slot, Snapshot
from splat.link import Session as LinkSession
from splat.training import checkpoint, guard, memory
from splat.training.config import TrainConfig, to_yaml
from splat.training.context import Field
from splat.training.evaluate import Evaluation
from splat.training.export import export_scene
from splat.training.live import Live
from splat.training.losses import decibels, squared_error
from splat.training.readback import Readback
from splat.training.report import Reporter
from splat.training.runfolder import RunFolder, require_disk, write_text
from splat.training.session import Session, assemble, open_dataset
from splat.training.strategy import Strategy
from splat.training.trainer import Trainer

SAVE_STEPS = 500
SAVE_SECONDS = 60.0
METRIC_STEPS = 10
CHECK_STEPS = 10
_CHECKPOINTS = 4  # at a time: the last two, a scored one, the one being written


@dataclass(frozen=True)
class RunResult:
    """What a finished run leaves."""

    folder: Path
    step: int
    num_gaussians: int
    train_seconds: float
    evaluation: Evaluation | None
    scene: Path


def train(
    config: TrainConfig,
    data: Path | None,
    out: Path | None = None,
    *,
    strategies: Sequence[Strategy],
    resume: Path | None = None,
    slot: Slot[Snapshot] | None = None,
    commands: Commands | None = None,
    ready: Callable[[LinkSession], None] | None = None,
    keep: bool = False,
    quiet: bool = False,
) -> RunResult:
    """Train on `data`, or go on with the run at `resume` (on its own data unless `data` is given).

    Args:
        out: the run's folder; None for runs/SCENE/PRESET-TIME.
        strategies: fresh instances, in order.
        slot: receives snapshots while somebody wants them.
        commands: obeyed between steps; each is called with the Trainer.
        ready: called before the first step with what a viewer may show and ask for.
        keep: after the last step, obey commands until one asks to stop; the run goes on where one extends it.
        quiet: print nothing.

    Raises:
        Interrupted: SIGINT or SIGTERM came; the state is saved.
        DeviceError: memory ran out; the state is saved.
        SplatError: a parameter became NaN or infinite, or data, disk or settings are at fault.
    """
    state: dict[str, Any] | None = None
    warnings: list[str] = []
    if resume is not None:
        folder = RunFolder.open(resume)
        data = data or folder.read_data()
        state, warnings = checkpoint.load_latest(folder)
        taken = state["trainer"]["step"] if state else 0
        if config.steps is not None and config.steps < taken:
            raise UsageError(
                f"{resume}: has taken {taken:,} steps already; give --steps above that, or leave it out"
            )
    if data is None:
        raise DataError("no dataset given; name its folder")
    dataset = open_dataset(data, config)
    try:
        session = assemble(config, dataset, strategies, state=state, commands=commands)
        if resume is None:
            folder = RunFolder.create(out, dataset.scene.name, session.config, data)
        else:
            write_text(folder.config, to_yaml(session.config))  # an extension holds for later resumes too
        reporter = Reporter(folder, quiet=quiet, cut_to=session.trainer.ctx.step)
        try:
            for warning in (*warnings, *dataset.scene.warnings):
                reporter.log(f"warning: {warning}")
            run = _Run(session, folder, reporter, slot, state)
            if ready is not None:
                ready(run.live.open())
            return run.complete(keep)
        finally:
            reporter.close()
    finally:
        dataset.close()


class _Run:
    """Observes the trainer of a session: metrics, checkpoints, scores, snapshots."""

    def __init__(
        self,
        session: Session,
        folder: RunFolder,
        reporter: Reporter,
        slot: Slot[Snapshot] | None,
        state: dict[str, Any] | None,
    ) -> None:
        self.session = session
        self.trainer = session.trainer
        self.ctx = session.trainer.ctx
        self.folder = folder
        self.reporter = reporter
        self.live = Live(session, folder, reporter, slot)
        self.evaluation: Evaluation | None = None
        self._before = state["seconds"] if state else 0.0
        self._began = time.monotonic()
        self._apart = 0.0  # seconds spent on scores and checkpoints
        self._saved_step = self.ctx.step if state else -1
        self._saved_at = time.monotonic()
        self._checked_step = self.ctx.step
        self._psnr = math.nan
        # On their way from the device: a line of metrics with its squared error, a check with the steps it is of.
        self._errors: Readback[dict[str, Any]] = Readback()
        self._doubts: Readback[tuple[int, int]] = Readback()
        self._signal: int | None = None
        self.trainer.observers.append(self._after_step)
        self.trainer.idlers.append(lambda trainer: self.live.publish())
        self.trainer.save = self.save

    @property
    def seconds(self) -> float:
        """Training time, resumed parts included; scores and checkpoints are not counted."""
        return self._before + time.monotonic() - self._began - self._apart

    def complete(self, keep: bool = False) -> RunResult:
        """Train to the end, score and export; with `keep`, again wherever a command extends the run."""
        self._announce()
        with self._signals():
            while True:
                result = self._to_the_end()
                if not keep or self.trainer.stopping:
                    return result
                self.reporter.log("the run is finished; the viewer stays until Ctrl-C")
                if not self.trainer.linger():
                    return result

    def _to_the_end(self) -> RunResult:
        try:
            if self._saved_step < 0:
                self._require_room()
                self.save()
            self.live.state = "training"
            self.trainer.run()
            if self._signal is not None:
                self._interrupted(self._signal)
            self.save()
            if self.evaluation is None or self.evaluation.step != self.ctx.step:
                self._score()
        except Exception as error:
            if not memory.is_out_of_memory(error):
                raise
            self._out_of_memory(error)
        self.live.state = "finished"
        scene, note = export_scene(self.session, self.folder)
        if note:
            self.reporter.log(note)
        count = len(self.ctx.gaussians)
        if self.trainer.way:
            self.reporter.log(f"steps on the GPU: {self.trainer.way}")
        self.reporter.log(f"{count:,} Gaussians after {self.seconds:.0f} s of training: {scene}")
        return RunResult(self.folder.path, self.ctx.step, count, self.seconds, self.evaluation, scene)

    def save(self) -> None:
        """Write a checkpoint of the current step, unless there is one; refuse what is not finite."""
        if self._saved_step == self.ctx.step:
            return
        with self._off_the_clock():
            self.trainer.settle()
            self._begin_check()
            self._receive(wait=True)
            self._keep_end()
            state = {"seconds": self.seconds, **self.session.state_dict()}
            checkpoint.save(self.folder, self.ctx.step, state)
            self._saved_step, self._saved_at = self.ctx.step, time.monotonic()

    def _keep_end(self) -> None:
        """What people moved the end to holds for later resumes too."""
        if self.trainer.end != self.session.config.steps:
            self.session.config = replace(self.session.config, steps=self.trainer.end)
            write_text(self.folder.config, to_yaml(self.session.config))

    def _after_step(self, trainer: Trainer) -> None:
        step = self.ctx.step
        if step % CHECK_STEPS == 0:
            self._begin_check()
        elif self.session.device.type == "cpu":
            guard.check_geometry(self._fields(), step)  # elsewhere it would wait for the device
        if step % METRIC_STEPS == 0:
            self._record()
        self._receive()
        if self.reporter.due():
            self.reporter.progress(step, trainer.end, trainer.loss, self._psnr, len(self.ctx.gaussians))
        scored = step in self.session.config.eval_steps and step < trainer.end
        if scored or step % SAVE_STEPS == 0 or time.monotonic() - self._saved_at >= SAVE_SECONDS:
            self.save()
        if scored:
            self._score()
        self.live.after_step(self._psnr)

    def _announce(self) -> None:
        dataset, ctx = self.session.dataset, self.ctx
        held = f", {len(dataset.test)} held out" if dataset.test else ""
        camera = dataset.camera(dataset.train[0])
        for note in (*dataset.scene.notes, *dataset.notes, *self.session.notes):
            self.reporter.log(note)
        self.reporter.log(
            f"{dataset.scene.name}: {len(dataset.train)} views{held}, {camera.width}x{camera.height}; "
            f"{len(ctx.gaussians):,} Gaussians, at most {ctx.cap:,}; "
            f"{self.trainer.backend.name} backend on {self.session.device}"
        )
        if ctx.step:
            self.reporter.log(f"resumed after step {ctx.step:,}")
        self.reporter.log(f"writing to {self.folder.path}")

    def _record(self) -> None:
        """Put together a line of metrics; it is written when its error has arrived from the device."""
        ctx = self.ctx
        error = squared_error(ctx.output.image.detach().clamp(0, 1), ctx.target, ctx.mask)
        values = {
            "step": ctx.step,
            "loss": self.trainer.loss,
            "psnr": math.nan,  # not yet known
            "num_gaussians": len(ctx.gaussians),
            "lr_means": ctx.rates["means"],
            "seconds": round(self.seconds, 3),
            "memory_mb": round(memory.resident() / 1e6),
            **ctx.scalars,
        }
        self.live.logged.update(ctx.scalars)
        ctx.scalars.clear()
        self._errors.send(values, error)

    def _begin_check(self) -> None:
        """Ask the device whether every parameter is finite."""
        if self._checked_step != self.ctx.step:
            self._doubts.send((self._checked_step + 1, self.ctx.step), guard.doubtful(self._fields()))
            self._checked_step = self.ctx.step

    def _receive(self, *, wait: bool = False) -> None:
        """Write the metrics that are complete; NotFinite names the step and the Gaussian of a check that failed."""
        for values, error in self._errors.received(wait=wait):
            latest = decibels(error)
            self._psnr = latest if math.isnan(self._psnr) else 0.9 * self._psnr + 0.1 * latest
            self.reporter.metrics(values | {"psnr": latest})
        for (first, last), doubts in self._doubts.received(wait=wait):
            if doubts:
                guard.report(self._fields(), first, last, None)

    def _fields(self) -> list[Field]:
        return [self.ctx.main, *self.ctx.fields.values()]

    def _score(self) -> None:
        if not self.session.dataset.test:
            return
        with self._off_the_clock():
            self.evaluation = self.session.score(self.seconds, self.folder.renders)
            write_text(self.folder.stats / f"eval_{self.ctx.step}.json", self.evaluation.to_json())
        count = len(self.evaluation.per_image)
        self.reporter.log(f"step {self.ctx.step:,}: {self.evaluation.line()} on {count} held-out views")

    def _require_room(self) -> None:
        """DataError unless the checkpoints of a scene grown to the given cap fit on the disk."""
        count = max(len(self.ctx.gaussians), self.session.config.max_gaussians or 0)
        floats = sum(3 * v[0].numel() for _, v in self.ctx.gaussians.named_tensors() if len(v))
        require_disk(self.folder.path, _CHECKPOINTS * 4 * floats * count)

    def _interrupted(self, number: int) -> None:
        self.save()
        name = signal.Signals(number).name
        raise Interrupted(
            f"{name}: stopped after step {self.ctx.step:,}, everything is saved; "
            f"go on with: splat train --resume {self.folder.quoted}"
        )

    def _out_of_memory(self, error: BaseException) -> None:
        """Save what there is, then DeviceError with what to lower."""
        for field in self._fields():
            for _, value in field.optimizer.trained():
                value.grad = None
        self.ctx.further = []
        gc.collect()
        count, step = len(self.ctx.gaussians), self.ctx.step
        try:
            self.save()
            kept = f"the state after step {step:,} is saved"
        except SplatError:
            raise
        except Exception:
            kept = f"the state after step {max(0, self._saved_step):,} is saved"
        raise DeviceError(
            f"out of memory at step {step:,} with {count:,} Gaussians; {kept}: lower --max-gaussians "
            f"(below {count:,}) or raise --downscale (now {self.session.config.downscale:g}), "
            f"then go on with: splat train --resume {self.folder.quoted}"
        ) from error

    @contextmanager
    def _off_the_clock(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            spent = time.monotonic() - began
            self._apart += spent
            self.reporter.apart(spent)

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM ends the run between two steps; a second one acts as it always does."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def stop(number: int, frame: Any) -> None:
            self._signal = number
            self.trainer.stop()
            for each, handler in before.items():
                signal.signal(each, handler)

        for number in before:
            signal.signal(number, stop)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
