"""The parts of a run put together: dataset, scene, strategies, trainer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from splat.core import Camera, DataError, DeviceError, Gaussians, UsageError
from splat.core.gaussians import PARAMETERS
from splat.core.sh import coefficients
from splat.data import Dataset, read_scene
from splat.link import Commands
from splat.raster import registry
from splat.training import align, memory, schema
from splat.training.config import STEPS, TrainConfig
from splat.training.context import MAIN, Context, Field
from splat.training.evaluate import Evaluation, evaluate
from splat.training.initialise import initialise
from splat.training.perview import Exposure, Poses
from splat.training.strategy import Strategy
from splat.training.trainer import Trainer
from splat.training.views import Views, fixed_background


def choose_device(name: str) -> torch.device:
    """The device of --device; auto takes a GPU that a backend can use. DeviceError if it is not there."""
    if name == "cpu":
        return torch.device("cpu")
    gpu = torch.device("cuda")
    try:
        if not torch.cuda.is_available():
            raise DeviceError("no NVIDIA GPU was found; use --device cpu, and see splat doctor")
        registry.backend("auto", gpu)
    except DeviceError as error:
        if name == "cuda":
            raise DeviceError(f"--device cuda: {error}") from error
        return torch.device("cpu")
    return gpu


def open_dataset(data: Path, config: TrainConfig) -> Dataset:
    """Read the dataset at `data` as `config` wants it; DataError if it cannot be trained on."""
    scene = read_scene(data)
    fixed = None if config.background == "random" else fixed_background(config.background)
    dataset = Dataset(
        scene,
        downscale=config.downscale,
        holdout=config.eval,
        background=fixed,
        views=config.views,
        test_every=config.test_every,
    )
    if len(dataset.train) < 2:
        held = f" ({len(dataset.test)} held out)" if dataset.test else ""
        dataset.close()
        raise DataError(f"{data}: {len(dataset.train)} view to train on{held}; at least 2 are needed")
    try:
        scene.warnings += dataset.warnings()
    except DataError:
        dataset.close()
        raise
    return dataset


@dataclass
class Session:
    """A run in memory."""

    config: TrainConfig
    dataset: Dataset
    trainer: Trainer
    notes: list[str] = field(default_factory=list)  # how the scene began, for the log

    @property
    def device(self) -> torch.device:
        return self.trainer.ctx.gaussians.device

    @property
    def background(self) -> tuple[float, float, float]:
        """The colour that scores and pictures are made on."""
        return fixed_background(self.config.background)

    def state_dict(self) -> dict[str, Any]:
        """What `assemble` needs to go on bit for bit, but for config and data."""
        ctx = self.trainer.ctx
        return {
            "horizon": ctx.steps,
            "cap": ctx.cap,
            "config": schema.to_mapping(self.config),
            "trainer": self.trainer.state_dict(),
        }

    @torch.no_grad()
    def score(self, train_seconds: float, pictures: Path | None = None) -> Evaluation:
        """Scores on the held-out views."""
        trainer, ctx = self.trainer, self.trainer.ctx
        baked = trainer.baked()
        background = torch.tensor(self.background, device=self.device)
        moved = self._aligner(baked, background) if trainer.poses is not None else None
        return evaluate(
            lambda camera: trainer.draw(baked, camera, background),
            self.dataset,
            self.dataset.test,
            self.background,
            step=ctx.step,
            num_gaussians=len(ctx.gaussians),
            train_seconds=train_seconds,
            colour_corrected=trainer.poses is not None or trainer.exposure is not None,
            align=moved,
            pictures=pictures,
            device=self.device,
        )

    def _aligner(self, baked: Gaussians, background: torch.Tensor) -> Any:
        """Moves a held-out camera along with the refined training cameras, then to its best fit."""
        trainer, poses = self.trainer, self.trainer.poses
        assert poses is not None
        before = [self.dataset.camera(i) for i in self.dataset.train]
        after = [poses.camera(position, camera) for position, camera in enumerate(before)]

        def draw(camera: Camera) -> torch.Tensor:
            return trainer.draw(baked, camera, background)

        def move(camera: Camera, target: torch.Tensor, mask: torch.Tensor | None) -> Camera:
            start = align.aligned(camera, before, after)
            return align.fitted(start, draw, target, mask, trainer.ctx.scene_extent)

        return move


def planned(config: TrainConfig, strategies: Sequence[Strategy], views: int) -> TrainConfig:
    """The settings, with the steps and the cap that they leave open as the strategies propose them for so many
    training views: the most of any; without a proposal the usual steps, and no cap."""
    proposals = [strategy.proposal(views) for strategy in strategies]
    steps = max((p.steps for p in proposals if p.steps is not None), default=STEPS)
    cap = max((p.max_gaussians for p in proposals if p.max_gaussians is not None), default=None)
    return replace(config, steps=config.steps or steps, max_gaussians=config.max_gaussians or cap)


def assemble(
    config: TrainConfig,
    dataset: Dataset,
    strategies: Sequence[Strategy],
    *,
    state: dict[str, Any] | None = None,
    commands: Commands | None = None,
) -> Session:
    """A session at its first step, or where `state` (of `Session.state_dict`) left off.

    The session's configuration is the one that was `planned`. A state keeps the horizon that it was planned with:
    `config.steps` beyond it extends the run.
    """
    device = choose_device(config.device)
    backend = registry.backend(config.backend, device)
    config = planned(config, strategies, len(dataset.train))
    end = config.steps
    assert end is not None
    horizon = state["horizon"] if state else end
    cap = config.max_gaussians or (state and state["cap"])
    cap = cap or memory.cap_from_memory(device, coefficients(config.sh_degree), config.moments)

    notes: list[str] = []
    if state is None:
        generator = torch.Generator().manual_seed(config.seed)
        gaussians = initialise(config, dataset, cap, generator, device=device, say=notes.append).to(device)
    else:
        gaussians = _saved_gaussians(state["trainer"]["main"]).to(device)
    main = Field(MAIN, gaussians, config.rates, dataset.extent, horizon, config.moments)
    ctx = Context(
        config=config,
        main=main,
        scene_extent=dataset.extent,
        steps=horizon,
        cap=cap,
        generator=torch.Generator(device).manual_seed(config.seed + 1),
    )
    views = Views(
        dataset,
        config.seed + 2,
        config.background,
        config.progressive,
        config.progressive_interval,
        device,
    )
    count, fits = len(dataset.train), getattr(backend, "fits_poses", False)
    trainer = Trainer(
        ctx,
        strategies,
        views,
        backend,
        deferred=getattr(backend, "deferred", None),
        exposure=Exposure(count, horizon, device) if config.exposure else None,
        # Where the backend does not fit them itself, it takes poses from the host.
        poses=Poses(count, horizon, dataset.extent, device if fits else torch.device("cpu"))
        if config.poses
        else None,
        commands=commands,
    )
    trainer.end = end
    if state is not None:
        _restore(trainer, state)
    return Session(config, dataset, trainer, notes)


def _restore(trainer: Trainer, state: dict[str, Any]) -> None:
    where = state.get("path", "the saved state")
    try:
        trainer.load_state_dict(state["trainer"])
    except KeyError as error:
        raise DataError(
            f"{where}: {error} is missing: another version of splat saved it, and this one cannot go on from there; "
            "resume with that version, or begin a run with what it exported: --init.scene FILE"
        ) from error
    except (ValueError, RuntimeError) as error:
        raise UsageError(
            f"{where}: does not fit these settings or this dataset ({error}); "
            "resume with the settings and the data of the run"
        ) from error


def _saved_gaussians(state: dict[str, Any]) -> Gaussians:
    saved = state["gaussians"]
    parameters = {name: saved[name] for name in PARAMETERS}
    extras = {name: value for name, value in saved.items() if name not in PARAMETERS}
    return Gaussians(**parameters, extras=extras, antialiased=state["antialiased"])
