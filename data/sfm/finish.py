"""The last stages: the model refined, placed and written as the dataset's; undistorted photographs."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from splat.core.files import replacing
from splat.data.frame import FILE as FRAME
from splat.data.sfm import diagnosis, gps, orientation
from splat.data.sfm.refine import refine

if TYPE_CHECKING:
    from splat.data.sfm.worker import Job


def finish(job: Job) -> dict[str, Any]:
    """Refine the largest model, turn it if asked to, write sparse/0 and name the others sparse/1, ...

    Returns:
        {registered, total, error, points, observations, cameras, unregistered, models, gps, orient}.
    """
    import pycolmap

    from splat.data.sfm.stages import Ledger

    mapped = Ledger(job.folder / "stages.json").result("mapping")
    models = mapped["models"]
    job.progress(0, 2)
    model = pycolmap.Reconstruction(job.folder / models[0]["folder"])
    if mapped["attempt"] == "incremental":
        model = refine(model, job)
    job.progress(1, 2)
    positions = gps.positions(job.database)
    frame = _place(model, job, positions)
    _write(model, job, [job.folder / other["folder"] for other in models[1:]], frame)
    registered = {model.image(identity).name for identity in model.reg_image_ids()}
    cameras = [
        {"id": identity, "model": camera.model.name, "width": camera.width, "height": camera.height,
         "params": [float(p) for p in camera.params]}
        for identity, camera in sorted(model.cameras.items())
    ]  # fmt: skip
    return {
        "registered": len(registered),
        "total": len(job.pictures),
        "error": float(model.compute_mean_reprojection_error()),
        "points": int(model.num_points3D()),
        "observations": int(model.compute_num_observations()),
        "parallax": diagnosis.parallax(model),
        "cameras": cameras,
        "unregistered": diagnosis.unregistered(job, registered, mapped["attempts"]),
        "models": [
            {**{k: v for k, v in other.items() if k != "names" or n}, "folder": f"sparse/{n}"}
            for n, other in enumerate(models)
        ],
        "gps": positions,
        "frame": frame,
    }


def _place(model: Any, job: Job, positions: dict[str, list[float]]) -> dict[str, Any] | None:
    """Turn or place the model as asked; what frame.json is to say."""
    kind = job.options.orient
    if kind == "none":
        return None
    frame: dict[str, Any] = {"kind": kind}
    if kind == "gps":
        matrix, frame["origin"] = orientation.by_gps(model, positions, job.data, job.options.seed)
        frame["up"] = [0, 0, 1]
    else:
        matrix = orientation.upright(model, {p.name: p.orientation for p in job.pictures})
        frame["up"] = [0, -1, 0]
    orientation.apply(model, matrix)
    return {**frame, "matrix": matrix.tolist()}


def _write(model: Any, job: Job, others: list[Path], frame: dict[str, Any] | None) -> None:
    """sparse/ and frame.json, taking the place of earlier ones together as nearly as a disk can."""
    fresh, old = job.folder / "sparse.new", job.folder / "sparse.old"
    for folder in (fresh, old):
        shutil.rmtree(folder, ignore_errors=True)
    (fresh / "0").mkdir(parents=True)
    model.write_binary(fresh / "0")
    for number, other in enumerate(others, 1):
        shutil.copytree(other, fresh / str(number))
        if frame is not None:
            import pycolmap

            moved = pycolmap.Reconstruction(other)
            orientation.apply(moved, np.array(frame["matrix"]))
            moved.write_binary(fresh / str(number))
    target = job.data / "sparse"
    if target.exists():
        os.replace(target, old)
    os.replace(fresh, target)
    shutil.rmtree(old, ignore_errors=True)
    if frame is None:
        (job.data / FRAME).unlink(missing_ok=True)
        return
    with replacing(job.data / FRAME) as file:
        file.write(json.dumps(frame, indent=1).encode())


def undistort(job: Job) -> dict[str, Any]:
    """undistorted/ with the photographs as a pinhole would have taken them, and their model in sparse/0."""
    import pycolmap

    target, fresh = job.data / "undistorted", job.folder / "undistorted.new"
    shutil.rmtree(fresh, ignore_errors=True)
    job.progress(0, len(job.pictures))
    pycolmap.undistort_images(fresh, job.data / "sparse" / "0", job.images, num_threads=job.threads)
    # COLMAP leaves what its own stereo needs; the dataset is photographs and a model.
    shutil.rmtree(fresh / "stereo", ignore_errors=True)
    for script in fresh.glob("run-*.sh"):
        script.unlink()
    (fresh / "sparse" / "0").mkdir()
    for file in (fresh / "sparse").glob("*.bin"):
        os.replace(file, fresh / "sparse" / "0" / file.name)
    shutil.rmtree(target, ignore_errors=True)
    os.replace(fresh, target)
    job.progress(len(job.pictures), len(job.pictures))
    return {"folder": "undistorted"}
