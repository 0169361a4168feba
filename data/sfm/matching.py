"""The third stage: features compared between pairs of photographs, each pair checked by its geometry."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from splat.data.problems import DatasetError
from splat.data.sfm import pairs

if TYPE_CHECKING:
    from splat.data.sfm.worker import Job

_CHUNK = 100  # pairs of one call


def match(job: Job) -> dict[str, Any]:
    """Returns {pairs, verified}.

    Raises:
        DatasetError: no two photographs show the same thing.
    """
    import pycolmap

    if job.fresh:
        _forget(job.database)
    chosen = pairs.choose(job.pictures, job.options.matching, job.database, job.options.seed)
    left = _left(job, chosen)
    options = pycolmap.FeatureMatchingOptions(num_threads=job.threads)
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = job.options.seed
    names = job.folder / "pairs.txt"
    for start in range(0, len(left), _CHUNK):
        job.progress(len(chosen) - len(left) + start, len(chosen))
        chunk = left[start : start + _CHUNK]
        names.write_text("".join(f"{job.pictures[i].name} {job.pictures[j].name}\n" for i, j in chunk))
        pycolmap.match_image_pairs(
            job.database,
            matching_options=options,
            pairing_options=pycolmap.ImportedPairingOptions(match_list_path=names),
            verification_options=verification,
        )
    names.unlink(missing_ok=True)
    job.progress(len(chosen), len(chosen))
    verified = verified_pairs(job.database)
    if not verified:
        cause = f"no two of the {len(job.pictures)} photographs show the same thing"
        remedy = "take photographs that overlap by two thirds, of things that do not move"
        raise DatasetError("no-overlap", job.data, cause, remedy)
    return {"pairs": len(chosen), "verified": len(verified)}


def _left(job: Job, chosen: list[pairs.Pair]) -> list[pairs.Pair]:
    """The pairs that were not compared yet."""
    import pycolmap

    store = pycolmap.Database.open(job.database)
    try:
        ids = {image.name: image.image_id for image in store.read_all_images()}
        of = [ids[picture.name] for picture in job.pictures]
        return [
            (i, j)
            for i, j in chosen
            if not (store.exists_matches(of[i], of[j]) and store.exists_two_view_geometry(of[i], of[j]))
        ]
    finally:
        store.close()


def verified_pairs(database: Path) -> dict[tuple[str, str], tuple[int, str]]:
    """Pairs of names with inliers -> (number of inliers, kind of geometry)."""
    import pycolmap

    store = pycolmap.Database.open(database)
    try:
        names = {image.image_id: image.name for image in store.read_all_images()}
        ids, geometries = store.read_two_view_geometries()
    finally:
        store.close()
    found = {}
    for identity, geometry in zip(ids, geometries, strict=True):
        count = len(geometry.inlier_matches)
        if count:
            first, second = pycolmap.pair_id_to_image_pair(identity)
            kind = pycolmap.TwoViewGeometryConfiguration(geometry.config).name
            found[names[first], names[second]] = (count, kind)
    return found


def _forget(database: Path) -> None:
    """Take all matches out of the database."""
    import pycolmap

    store = pycolmap.Database.open(database)
    try:
        store.clear_matches()
        store.clear_two_view_geometries()
    finally:
        store.close()
