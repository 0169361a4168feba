"""The second stage: one camera a group of photographs, and SIFT features of each, into COLMAP's database."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from splat.data.problems import DatasetError, some
from splat.data.sfm.picture import Picture

if TYPE_CHECKING:
    from splat.data.sfm.worker import Job

_FEW = 100  # features; with fewer a photograph rarely finds its place


def extract(job: Job) -> dict[str, Any]:
    """Returns {features: {name: count}}.

    Raises:
        DatasetError: next to nothing was found in all but one photograph.
    """
    import pycolmap

    if not job.database.exists():
        _register(job)
    threads = job.threads
    options = pycolmap.FeatureExtractionOptions(max_image_size=job.options.max_size, num_threads=threads)
    options.sift.max_num_features = job.options.features
    # Two photographs a core and call: progress often, and cores that seldom wait for each other.
    size = max(2 * threads, 2)
    counts = feature_counts(job.database, job.pictures)
    for masked in (False, True):
        left = [p for p in job.pictures if p.masked == masked and counts[p.name] is None]
        reader = pycolmap.ImageReaderOptions()
        if masked:
            reader.mask_path = job.folder / "masks"
        for start in range(0, len(left), size):
            done = len(job.pictures) - sum(count is None for count in counts.values())
            job.progress(done, len(job.pictures))
            names = [picture.name for picture in left[start : start + size]]
            pycolmap.extract_features(
                job.database, job.images, names, reader_options=reader, extraction_options=options
            )
            found = feature_counts(job.database, left[start : start + size])
            counts |= {name: count or 0 for name, count in found.items()}
    job.progress(len(counts), len(counts))
    features = {name: int(count or 0) for name, count in counts.items()}
    poor = [name for name, count in features.items() if count < _FEW]
    if len(features) - len(poor) < 2:
        least, most = min(features.values()), max(features.values())
        cause = (
            f"featureless: {len(poor)} of {len(features)} photographs show too little texture "
            f"({least} to {most} features, {_FEW} needed)"
        )
        remedy = "photograph textured things, in focus and well lit"
        raise DatasetError("featureless", job.data, cause, remedy, some(poor))
    return {"features": features}


def _register(job: Job) -> None:
    """A database with all photographs, each with its camera: written beside and renamed, since ids follow the order."""
    import pycolmap

    unfinished = job.database.with_suffix(".new")
    for path in (unfinished, *(Path(f"{unfinished}-{end}") for end in ("wal", "shm"))):
        path.unlink(missing_ok=True)
    groups: dict[str, list[Picture]] = defaultdict(list)
    for picture in job.pictures:
        groups[picture.camera].append(picture)
    pycolmap.Database.open(unfinished).close()
    model = job.options.camera_model
    reader = pycolmap.ImageReaderOptions(camera_model="SIMPLE_RADIAL" if model == "auto" else model)
    for _, pictures in sorted(groups.items()):
        names = [picture.name for picture in pictures]
        pycolmap.import_images(unfinished, job.images, pycolmap.CameraMode.SINGLE, names, reader)
    os.replace(unfinished, job.database)


def feature_counts(database: Path, pictures: list[Picture]) -> dict[str, int | None]:
    """Features of each photograph; None where it was not looked at yet."""
    import pycolmap

    store = pycolmap.Database.open(database)
    try:
        ids = {image.name: image.image_id for image in store.read_all_images()}
        counts: dict[str, int | None] = {}
        for picture in pictures:
            identity = ids[picture.name]
            known = store.exists_keypoints(identity) and store.exists_descriptors(identity)
            counts[picture.name] = int(store.num_keypoints_for_image(identity)) if known else None
        return counts
    finally:
        store.close()
