"""The fourth stage: poses and points.

The mapper is COLMAP's incremental one (Schonberger and Frahm 2016) with few parameters a camera. Where it leaves
photographs out, as on a walk straight ahead, it is tried again with the focal length of EXIF held and with narrow
triangles allowed, then with the GPS positions of EXIF as priors, and then the global mapper (Pan et al. 2024). Where
GPS tells anything (gps.py), a model that contradicts it is no success either: parts that few matches join come out
shifted or in the wrong proportion, with small errors everywhere. The attempt whose largest model explains the matches
best is taken (evidence.py): more photographs count as long as they are in the right place. Of those that explain them
about as well it is one that agrees with GPS. One thread and one seed give the same model every time.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splat.core.files import replacing
from splat.data.sfm import diagnosis, evidence, gps, snapshots

if TYPE_CHECKING:
    from splat.data.sfm.worker import Job

_ENOUGH = 0.9  # of the photographs; with fewer the next attempt is made
_ABOUT = 0.1  # of the best worth: attempts that fall short of it by less are about as good
# Degrees between the rays of a point, where narrow triangles are allowed (COLMAP's default is 1.5).
_NARROW = 0.5
_FIRM = 30  # points that hold a photograph; COLMAP's incremental mapper asks for as many
_PARALLAX = 1.0  # degrees; a model whose points are seen under less, in the middle, has no depth to speak of
_SNAPSHOTS = 60  # unfinished models for the viewer, about

Attempt = Callable[["Job", Path], list[Path]]


def reconstruct(job: Job) -> dict[str, Any]:
    """Find poses; models go to process/models/ATTEMPT/NUMBER.

    Returns:
        {attempt, models: [{folder, images, points, error, explained, contradicted: matches, gps: metres off GPS, or
        None}], largest first; attempts: {name: images}}.

    Raises:
        DatasetError: no model, or one without parallax.
    """
    import pycolmap

    pycolmap.set_random_seed(job.options.seed)
    try:
        return _best(job)
    finally:
        shutil.rmtree(job.folder / snapshots.FOLDER, ignore_errors=True)


def _best(job: Job) -> dict[str, Any]:
    """Make attempts until one poses enough; what `reconstruct` returns."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, attempt in _attempts(job).items():
        if name == "global" and any(_enough(job, models) for models in found.values()):
            continue
        found[name] = _once(job, name, attempt)
        if _enough(job, found[name]) and _agrees(found[name]):
            break
    sizes = {name: models[0]["images"] if models else 0 for name, models in found.items()}
    if max(sizes.values()) < min(3, len(job.pictures)):
        raise diagnosis.no_model(job)
    worths = {
        name: evidence.worth(models[0]["explained"], models[0]["contradicted"])
        for name, models in found.items()
        if models
    }
    most = max(worths.values())
    about = [name for name, worth in worths.items() if worth >= most - _ABOUT * abs(most)]
    best = max(about, key=lambda name: (_agrees(found[name]), worths[name]))  # the first of equals
    largest = found[best][0]
    if largest["parallax"] < _PARALLAX:
        raise diagnosis.no_parallax(job, f"points are seen under {largest['parallax']:.2g} degrees")
    return {"attempt": best, "models": found[best], "attempts": sizes}


def _enough(job: Job, models: list[dict[str, Any]]) -> bool:
    return bool(models) and models[0]["images"] >= _ENOUGH * len(job.pictures)


def _agrees(models: list[dict[str, Any]]) -> bool:
    """Whether nothing that GPS says contradicts the largest model."""
    return models[0]["gps"] is None or models[0]["gps"] <= gps.AGREES


def _attempts(job: Job) -> dict[str, Attempt]:
    if job.options.mapper == "global":
        return {"global": _global}
    if job.options.mapper == "incremental":
        return {"incremental": _incremental}
    attempts: dict[str, Attempt] = {"incremental": _incremental}
    if _knows_focal(job.database):
        attempts["held-focal"] = _held
    if gps.local(job.database):
        attempts["gps"] = _with_gps
    return {**attempts, "global": _global}


def _knows_focal(database: Path) -> bool:
    import pycolmap

    store = pycolmap.Database.open(database)
    try:
        return any(camera.has_prior_focal_length for camera in store.read_all_cameras())
    finally:
        store.close()


def _once(job: Job, name: str, attempt: Attempt) -> list[dict[str, Any]]:
    """The models of an attempt, largest first; kept, so that a stop costs the attempt under way alone."""
    folder = job.folder / "models" / name
    report = folder / "models.json"
    if report.is_file():
        return json.loads(report.read_text(encoding="utf-8"))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    positions = gps.local(job.database)
    models = [diagnosis.describe(path, job, positions) for path in attempt(job, folder)]
    models.sort(key=lambda model: (-model["images"], -model["points"]))
    # Of the others those that add something; a mapper begins models that a later one takes in.
    models = [m for n, m in enumerate(models) if n == 0 or set(m["names"]) - set(models[0]["names"])]
    with replacing(report) as file:
        file.write(json.dumps(models).encode())
    return models


def _incremental(job: Job, folder: Path) -> list[Path]:
    return _run_incremental(job, folder, _pipeline(job, folder))


def _held(job: Job, folder: Path) -> list[Path]:
    return _run_incremental(job, folder, _cautious(job, folder, held=True))


def _with_gps(job: Job, folder: Path) -> list[Path]:
    """On a copy of the database, in which the positions have a precision."""
    database = folder / "database.db"
    shutil.copyfile(job.database, database)
    gps.weigh(database)
    options = _cautious(job, folder, held=_knows_focal(job.database))
    options.use_prior_position = options.use_robust_loss_on_prior_position = True
    models = _run_incremental(job, folder, options, database)
    for path in folder.glob("database.db*"):
        path.unlink()
    return models


def _cautious(job: Job, folder: Path, held: bool) -> Any:
    """Narrow triangles allowed, focal length and distortion `held`."""
    options = _pipeline(job, folder)
    if held:
        options.ba_refine_focal_length = options.ba_refine_extra_params = False
        options.mapper.abs_pose_refine_focal_length = options.mapper.abs_pose_refine_extra_params = False
    options.triangulation.min_angle = options.mapper.filter_min_tri_angle = _NARROW
    return options


def _pipeline(job: Job, folder: Path) -> Any:
    import pycolmap

    count = len(job.pictures)
    options = pycolmap.IncrementalPipelineOptions(num_threads=1, random_seed=job.options.seed)
    # A model of three photographs is worth naming where there are thirty.
    options.min_model_size = max(2, min(10, count // 10))
    if job.snapshots:
        options.snapshot_path = job.folder / snapshots.FOLDER
        options.snapshot_frames_freq = max(1, count // _SNAPSHOTS)
        shutil.rmtree(options.snapshot_path, ignore_errors=True)
        options.snapshot_path.mkdir(parents=True)
    return options


def _run_incremental(job: Job, folder: Path, options: Any, database: Path | None = None) -> list[Path]:
    import pycolmap

    posed = 0

    def next_image(step: int = 1) -> None:
        nonlocal posed
        posed += step
        if job.snapshots:
            snapshots.prune(job.folder / snapshots.FOLDER)
        # Models that are tried and dropped count images more than once.
        job.progress(min(posed, len(job.pictures) - 1), len(job.pictures))

    pycolmap.incremental_mapping(
        database or job.database,
        job.images,
        folder,
        options,
        initial_image_pair_callback=lambda: next_image(2),
        next_image_callback=next_image,
    )
    return _models(folder)


def _global(job: Job, folder: Path) -> list[Path]:
    """On a copy of the database, into which the global mapper writes focal lengths."""
    import pycolmap

    job.progress(0, len(job.pictures))
    database = folder / "database.db"
    shutil.copyfile(job.database, database)
    options = pycolmap.GlobalPipelineOptions(num_threads=1, random_seed=job.options.seed)
    options.mapper.num_threads, options.mapper.random_seed = 1, job.options.seed
    options.mapper.bundle_adjustment.refine_focal_length = not _knows_focal(job.database)
    pycolmap.global_mapping(database, job.images, folder, options)
    for path in folder.glob("database.db*"):
        path.unlink()
    for path in _models(folder):
        _drop_loose(path)
    return _models(folder)


def _drop_loose(folder: Path) -> None:
    """Take photographs that next to no point holds out of a model: the global mapper places them all the same."""
    import pycolmap

    model = pycolmap.Reconstruction(folder)
    for identity in sorted(model.reg_image_ids()):
        image = model.image(identity)
        if image.num_points3D < _FIRM:
            model.deregister_frame(image.frame_id)
    shutil.rmtree(folder)
    if model.num_reg_images() >= 2:
        folder.mkdir()
        model.write_binary(folder)


def _models(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if (path / "images.bin").is_file())
