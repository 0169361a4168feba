"""What `splat export` does between reading and printing: filters, pruning, the move, the search, the score."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splat.cli import moving, target
from splat.cli.export_job import Job, Say
from splat.cli.scene import Loaded, load
from splat.codecs import Format, search
from splat.codecs.parts import parts
from splat.core import DataError, UsageError
from splat.core.transforms import Similarity
from splat.data import frame


@dataclass
class Outcome:
    """What an export has done.

    Attributes:
        path: the file that was written.
        format: its name.
        options: the write options, by name.
        count, sh_degree: of the scene in it.
        bytes: of all of its files.
        parts: bytes of each part.
        source: the scene that was read: path, count, sh_degree.
        notes: lines on what was changed or left out.
        pruned: {method, count} of what a score left out, or None.
        target: {what was asked for, chosen: in words}, or None.
        psnr: {views, count, before, after} in dB, or None where it was not asked for; `before` is None where
            the views are the scene's own renders.
    """

    path: Path
    format: str
    options: dict[str, Any]
    count: int
    sh_degree: int
    bytes: int
    parts: dict[str, int]
    source: dict[str, Any]
    notes: list[str]
    pruned: dict[str, Any] | None
    target: dict[str, Any] | None
    psnr: dict[str, Any] | None


def export(args: Any, form: Format, options: Any, say: Say) -> Outcome:
    """Do what the arguments of the command say.

    Args:
        form, options: of the file to write.
        say: prints a line for people.

    Raises:
        UsageError: arguments that contradict each other, do not fit the scene or ask for what is impossible.
        DataError: a scene that cannot be read, or a file that cannot be written.
    """
    _check(args)
    job = _prepare(args, form, options, say)
    before = (len(job.loaded.gaussians), job.loaded.gaussians.sh_degree)
    plan, target = _plan(job)
    gaussians = job.kept(plan)
    job.note(*form.losses(gaussians, job.metadata))
    with _folder(args.out.parent):
        job.note(*job.encode(plan, args.out))
    pieces = parts(form, args.out)
    pruned = len(job.scene) - plan.keep
    return Outcome(
        path=args.out,
        format=form.name,
        options=dataclasses.asdict(job.settings(plan)),
        count=len(gaussians),
        sh_degree=min(gaussians.sh_degree, form.sh_degree),
        bytes=sum(pieces.values()),
        parts=pieces,
        source={"path": args.scene, "count": before[0], "sh_degree": before[1]},
        notes=job.notes,
        pruned={"method": args.method, "count": pruned} if pruned else None,
        target=target,
        psnr=_score(job) if args.report or target else None,
    )


def _check(args: Any) -> None:
    """UsageError for arguments that are wrong whatever the scene."""
    if args.target_size is not None and args.target_psnr_drop is not None:
        raise UsageError("--target-size and --target-psnr-drop are two targets: give one of them")
    if args.prune is not None and (args.target_size is not None or args.target_psnr_drop is not None):
        raise UsageError("--prune is what a target chooses: leave --prune or the target out")
    if args.prune is not None and not 0 <= args.prune < 1:
        raise UsageError(f"--prune {args.prune:g}: give the share to leave out, from 0 to below 1")
    if args.target_psnr_drop is not None and not args.target_psnr_drop >= 0:
        raise UsageError(f"--target-psnr-drop {args.target_psnr_drop:g}: it cannot be below 0")
    if args.target_size is not None:
        search.parse_size(args.target_size)
    search.scorer(args.method)


def _prepare(args: Any, form: Format, options: Any, say: Say) -> Job:
    """Read the scene and filter it."""
    move = moving.similarity(args)
    loaded = load(args.scene, args.device, args.data)
    scene, metadata = loaded.gaussians.detach().to("cpu"), dict(loaded.metadata)
    if loaded.session is not None:
        from splat.training.export import baked

        scene, metadata = baked(loaded.session)
    undone = None if args.keep_frame else _frame(loaded)
    if undone is not None:
        move = move.after(undone)
    job = Job(args, form, options, loaded, scene, metadata, move, say, torch.arange(len(scene)))
    if undone is not None:
        job.note("the frame of structure from motion is restored (--keep-frame leaves the dataset's)")
    if args.crop is not None:
        low, high = torch.tensor(args.crop, dtype=torch.float64).view(2, 3) - loaded.offset
        _filter(job, "--crop", search.inside(job.scene, low, high))
    if args.min_opacity is not None:
        _filter(job, "--min-opacity", search.opaque(job.scene, args.min_opacity))
    if args.max_scale is not None:
        _filter(job, "--max-scale", search.small(job.scene, args.max_scale))
    if args.sh_degree is not None:
        job.scene = search.lower_degree(job.scene, args.sh_degree)
    return job


def _frame(loaded: Loaded) -> Similarity | None:
    """What undoes the turn of the run's dataset by `splat process --orient`; None where there was none."""
    if loaded.session is None:
        return None
    placed = frame.read(loaded.session.dataset.scene.root)
    return None if placed is None else placed.inverse()


def _filter(job: Job, flag: str, wanted: Tensor) -> None:
    """Keep the Gaussians that are `wanted` [N] bool."""
    count, left = len(job.scene), int(wanted.sum())
    if count and not left:
        raise UsageError(f"{flag} leaves none of the {count:,} Gaussians: give a wider limit")
    job.scene, job.rows = job.scene.select(wanted), job.rows[wanted]
    job.note(f"{flag} leaves {left:,} of {count:,} Gaussians")


def _plan(job: Job) -> tuple[search.Plan, dict[str, Any] | None]:
    """What is kept, and what was chosen to meet a target, if there is one."""
    args, count = job.args, len(job.scene)
    if args.target_size is not None:
        return target.for_size(job, search.parse_size(args.target_size))
    if args.target_psnr_drop is not None:
        return target.for_quality(job, args.target_psnr_drop)
    keep = count if args.prune is None else max(min(1, count), round((1 - args.prune) * count))
    return search.Plan(keep, job.scene.sh_degree), None


def _score(job: Job) -> dict[str, Any]:
    own = job.photographs is None
    return {
        "views": job.views.kind,
        "count": len(job.views.scored),
        "before": None if own else job.psnr_before(),
        "after": job.psnr(job.args.out),
    }


@contextmanager
def _folder(path: Path) -> Iterator[None]:
    """The folder for a file to write, made where it is missing, and unmade where the writing fails."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    try:
        path.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException as error:
        for folder in missing:
            with suppress(OSError):
                folder.rmdir()
        if isinstance(error, OSError):
            raise DataError(
                f"{path}: cannot be made or written to ({error.strerror}); name another folder"
            ) from error
        raise
