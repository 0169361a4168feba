"""A run as a viewer sees it: what `link.Session` holds of a training."""

from __future__ import annotations

import math
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

import splat
from splat import link
from splat.core import Camera, Gaussians
from splat.core.heads import Head
from splat.core.world import place
from splat.data import Dataset
from splat.raster import RenderOptions, draw
from splat.training.evaluate import photograph
from splat.training.export import metadata, with_features
from splat.training.losses import psnr
from splat.training.report import Reporter
from splat.training.runfolder import RunFolder
from splat.training.session import Session

PUBLISH_SECONDS = 0.05  # between two snapshots, at least
_RATE_SECONDS = 1.0
_REFINE_SECONDS = 5.0  # between two looks at refined cameras
_TAKE_SECONDS = 0.2  # between two looks whether a scene that is waited for is still wanted
_HISTORY_STEPS = 10

Colour = tuple[float, float, float]


class Live:
    """Publishes a run while somebody watches; without a watcher it costs a comparison a step.

    Attributes:
        state: whether the run is under way.
        logged: name -> the latest number that a strategy logged (Context.log).
    """

    def __init__(
        self,
        session: Session,
        folder: RunFolder,
        reporter: Reporter,
        slot: link.Slot[link.Snapshot] | None = None,
    ) -> None:
        self.trainer = session.trainer
        self.state: Literal["training", "finished"] = "training"
        self.logged: dict[str, float] = {}
        self._session = session
        self._folder = folder
        self._reporter = reporter
        self._slot = slot or link.Slot()
        self._history = link.History()
        self._views: dict[str, link.View] = {}
        self._published: tuple[int, int] | None = None
        self._published_at = -math.inf
        self._refined_at = -math.inf
        self._psnr = math.nan
        self._rate = 0.0
        self._counted = (time.monotonic(), self.trainer.ctx.step)
        self._began = time.monotonic()

    def open(self) -> link.Session:
        """What a watcher is handed."""
        session, dataset = self._session, self._session.dataset
        shown = views(dataset, session.background)
        self._views = {view.name: view for view in shown}
        return link.Session(
            name=dataset.scene.name,
            slot=self._slot,
            commands=self.trainer.commands,
            turns=self.trainer.turns if session.device.type == "cpu" else None,
            progress=self.progress,
            history=self._history,
            views=shown,
            points=None if dataset.points is None else dataset.points.xyz.float(),
            background=session.background,
            evaluate=evaluator(dataset, session.background),
            offset=dataset.offset,
            export=exporter(dataset.offset),
            take=self.take,
            folder=self._folder.path,
            panels=self.panels,
            log=self._reporter.log,
        )

    def after_step(self, score: float) -> None:
        """Enter the step just done; `score` is the running PSNR of the training views."""
        trainer, step = self.trainer, self.trainer.ctx.step
        view = self._views.get(trainer.loss_view)
        if view is not None:
            view.loss = trainer.loss
        self._psnr = score
        if step % _HISTORY_STEPS == 0:
            self._history.add(step, trainer.loss, score, len(trainer.ctx.gaussians))
        self.publish()

    def publish(self) -> None:
        """Publish the scene if somebody asked for it and it is not the one that they have."""
        if not self._slot.wanted:
            return
        trainer, now = self.trainer, time.monotonic()
        stamp = (trainer.ctx.step, trainer.revision)
        if stamp == self._published or now - self._published_at < PUBLISH_SECONDS:
            return
        self._slot.wanted = False
        self._refine(now)
        self._slot.publish(self._snapshot())
        self._published, self._published_at = stamp, now

    def _refine(self, now: float) -> None:
        """Move the views to where their photographs are held to have been taken by now."""
        poses, dataset = self.trainer.poses, self._session.dataset
        if poses is None or now - self._refined_at < _REFINE_SECONDS:
            return
        self._refined_at = now
        for index, camera in refined(self._session).items():
            view = self._views.get(dataset.scene.frames[index].name)
            if view is not None:
                view.camera = camera

    def _snapshot(self) -> link.Snapshot:
        """The scene now; called between two steps."""
        trainer, began = self.trainer, time.monotonic()
        heads = trainer.heads()
        scene = with_features(trainer.baked(), heads).clone()
        return link.Snapshot(
            step=trainer.ctx.step,
            end=trainer.end,
            gaussians=scene,
            sh_degree=trainer.sh_degree,
            loss=trainer.loss,
            seconds=time.monotonic() - began,
            revision=trainer.revision,
            rows=trainer.by_hand.follow() if len(scene) == len(trainer.ctx.gaussians) else None,
            heads=heads,
        )

    def take(self, go_on: Callable[[], bool]) -> link.Snapshot | None:
        """The scene now, with what file formats should know of it; called from other threads, see link.Session."""
        taken: queue.SimpleQueue[link.Snapshot | Exception] = queue.SimpleQueue()

        def make(trainer: Any) -> None:
            taken.put(replace(self._snapshot(), metadata=metadata(self._session)))

        self.trainer.commands.send(make, taken.put)
        while go_on():
            try:
                found = taken.get(timeout=_TAKE_SECONDS)
            except queue.Empty:
                continue
            if isinstance(found, Exception):
                raise found
            return found
        return None

    def panels(self) -> list[link.PanelData]:
        """What runs: the run itself with everything that strategies log, then each strategy."""
        ctx = self.trainer.ctx
        most = link.Entry(
            "Most Gaussians",
            "slider",
            lambda: ctx.cap,
            lambda value: setattr(ctx, "cap", int(value)),
            low=0,
            high=max(1_000_000, 2 * ctx.cap),
            step=100,
            hint="density control adds no more than this; it removes none to get there",
        )
        logged = [_logged(self.logged, name) for name in sorted(self.logged)]
        found = [link.PanelData("run", [most, *logged])]
        for strategy in self.trainer.strategies:
            options = [_option(strategy.config, option.name) for option in fields(strategy.config)]
            found.append(link.PanelData(strategy.name, [*strategy.panel(ctx), *options]))
        return found

    def progress(self) -> link.Progress:
        """Where the run is. Called from other threads: it reads numbers, and nothing that is being written."""
        trainer = self.trainer
        now, step = time.monotonic(), trainer.ctx.step
        since, counted = self._counted
        if now - since >= _RATE_SECONDS:
            latest = (step - counted) / (now - since)
            self._rate = latest if self._rate == 0 else 0.5 * (self._rate + latest)
            self._counted = (now, step)
        paused = trainer.paused and self.state == "training"
        return link.Progress(
            step=step,
            end=trainer.end,
            loss=trainer.loss,
            psnr=self._psnr,
            count=len(trainer.ctx.gaussians),
            rate=0.0 if paused else self._rate,
            seconds=now - self._began,
            state="paused" if paused else self.state,
        )


def _logged(values: Mapping[str, float], name: str) -> link.Entry:
    return link.Entry(name.replace("_", " "), "value", lambda: values[name], hint="logged by a strategy")


def _option(config: Any, name: str) -> link.Entry:
    def read() -> link.Number:
        value = getattr(config, name)
        return value if isinstance(value, (bool, int, float)) else str(value)

    return link.Entry(name.replace("_", " "), "value", read, hint="an option, as the run was started with")


def refined(session: Session) -> dict[int, Camera]:
    """Number of the frame -> where its camera is after refinement (--poses); empty where none is refined."""
    poses, dataset = session.trainer.poses, session.dataset
    if poses is None:
        return {}
    cameras = poses.refined([dataset.camera(index) for index in dataset.train])
    return dict(zip(dataset.train, cameras, strict=True))


def views(
    dataset: Dataset,
    background: Colour,
    moved: Callable[[Any], Any] = lambda camera: camera,
    cameras: Mapping[int, Camera] | None = None,
) -> list[link.View]:
    """The photographs of a dataset; `moved` puts their cameras into the coordinates of the scene.

    `cameras` are those that stand elsewhere than the dataset says, by the number of the frame.
    """
    held_out, cameras = set(dataset.test), cameras or {}
    return [
        link.View(
            dataset.scene.frames[index].name,
            moved(cameras.get(index) or dataset.camera(index)),
            lambda index=index: photograph(dataset, index, background)[0],  # type: ignore[misc]
            index in held_out,
        )
        for index in sorted({*dataset.train, *dataset.test})
    ]


def evaluator(
    dataset: Dataset, background: Colour, moved: Callable[[Any], Any] = lambda camera: camera
) -> Callable[[Gaussians, Callable[[], bool], tuple[Head, ...]], float | None]:
    """Scores Gaussians on the held-out photographs, or on all where none is held out: `link.Session.evaluate`."""
    chosen: Sequence[int] = dataset.test or dataset.train

    @torch.no_grad()
    def evaluate(
        gaussians: Gaussians, go_on: Callable[[], bool], heads: tuple[Head, ...] = ()
    ) -> float | None:
        behind = torch.tensor(background, device=gaussians.device)
        scores = []
        for index in chosen:
            if not go_on():
                return None
            target, mask = photograph(dataset, index, background)
            camera = moved(dataset.camera(index)).to(gaussians.device)
            image = draw(gaussians, camera, RenderOptions(background=behind), heads).image
            truth = target.float() / 255
            scores.append(min(float(psnr(image.cpu().clamp(0, 1), truth, mask)), 100.0))
        return sum(scores) / len(scores)

    return evaluate


def exporter(
    offset: Tensor,
) -> Callable[[Gaussians, Path, Mapping[str, Any], Mapping[str, Any]], list[str]]:
    """Writes Gaussians to a file in the frame of the dataset: `link.Session.export`."""

    def export(
        gaussians: Gaussians, path: Path, options: Mapping[str, Any], known: Mapping[str, Any]
    ) -> list[str]:
        from splat import codecs

        placement = place(gaussians.detach().to("cpu"), offset)
        said: dict[str, Any] = {"generator": f"splat {splat.__version__}", **known}
        origin = offset  # of the scene's own coordinates in the file
        said.pop("offset", None)
        if placement.offset is not None:
            said["offset"] = placement.offset.tolist()
            origin = offset - placement.offset
        if "view" in said:
            moved = {
                name: (origin + torch.tensor(said["view"][name])).tolist() for name in ("position", "target")
            }
            said["view"] = {**said["view"], **moved}
        notes = [placement.note] if placement.note else []
        return notes + codecs.encode(placement.gaussians, path, said, options)

    return export
