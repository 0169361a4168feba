"""What a model is worth, why photographs have no place in it, and why there is none at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from splat.data.problems import DatasetError
from splat.data.sfm import evidence, gps
from splat.data.sfm.features import feature_counts
from splat.data.sfm.matching import verified_pairs

if TYPE_CHECKING:
    from splat.data.sfm.worker import Job

_STILL = ("PANORAMIC", "PLANAR_OR_PANORAMIC")
_FEW = 100  # features
_SAMPLED = 2000  # points whose angles are taken


def describe(folder: Path, job: Job, places: dict[str, np.ndarray]) -> dict[str, Any]:
    """{folder (relative to the job's), names, images, points, error (pixels), parallax (degrees), explained and
    contradicted (matches, evidence.py), gps (metres off `places`, or None)} of a COLMAP model."""
    import pycolmap

    model = pycolmap.Reconstruction(folder)
    explained, contradicted = evidence.agreement(model, job.database)
    return {
        "folder": folder.relative_to(job.folder).as_posix(),
        "names": sorted(model.image(identity).name for identity in model.reg_image_ids()),
        "images": int(model.num_reg_images()),
        "points": int(model.num_points3D()),
        "error": float(model.compute_mean_reprojection_error()),
        "parallax": parallax(model),
        "explained": explained,
        "contradicted": contradicted,
        "gps": gps.off(model, places),
    }


def parallax(model: Any) -> float:
    """Median over points of the largest angle between the rays that see one, degrees; 0 without points."""
    centres = {identity: model.image(identity).projection_center() for identity in model.reg_image_ids()}
    points = sorted(model.points3D.items())
    largest = []
    for _, point in points[:: max(1, len(points) // _SAMPLED)]:
        seen = np.array([centres[element.image_id] for element in point.track.elements])
        rays = point.xyz - seen
        rays /= np.linalg.norm(rays, axis=1, keepdims=True)
        largest.append(np.degrees(np.arccos(np.clip(rays @ rays.T, -1, 1).min())))
    return float(np.median(largest)) if largest else 0.0


def no_model(job: Job) -> DatasetError:
    """Why no mapper could begin."""
    kinds = Counter(kind for _, kind in verified_pairs(job.database).values())
    count, still = sum(kinds.values()), sum(kinds[kind] for kind in _STILL)
    if still > count / 2:
        return no_parallax(job, f"{still} of {count} pairs differ by a turn alone")
    cause = f"no poses were found: {count} pairs of the {len(job.pictures)} photographs match, but too weakly"
    remedy = "take more photographs, closer to each other: each thing should be on three and more"
    return DatasetError("no-poses", job.data, cause, remedy + _other_mapper(job))


def no_parallax(job: Job, detail: str) -> DatasetError:
    cause = f"no parallax: the camera turned or stood still between photographs ({detail})"
    remedy = "walk around the scene between photographs instead of turning on the spot"
    return DatasetError("no-parallax", job.data, cause, remedy + _other_mapper(job))


def _other_mapper(job: Job) -> str:
    """What else to try where the user has named a mapper."""
    chosen = job.options.mapper
    return "" if chosen == "auto" else f"; or leave out --mapper {chosen}, so that another one is tried, too"


def unregistered(job: Job, registered: set[str], attempts: Collection[str]) -> list[dict[str, str]]:
    """[{name, reason, remedy}] of the photographs that are not among `registered`, after these attempts of mappers."""
    lost = [picture for picture in job.pictures if picture.name not in registered]
    if not lost:
        return []
    features = feature_counts(job.database, lost)
    partners: dict[str, list[str]] = {}
    for first, second in verified_pairs(job.database):
        partners.setdefault(first, []).append(second)
        partners.setdefault(second, []).append(first)
    nearby = "add photographs nearby" + ("" if "global" in attempts else ", or try --mapper global")
    return [
        {"name": p.name, **_reason(features[p.name] or 0, partners.get(p.name, []), registered, nearby)}
        for p in lost
    ]


def _reason(features: int, partners: list[str], registered: set[str], nearby: str) -> dict[str, str]:
    if features < _FEW:
        return {
            "reason": f"{features} features: blurred, dark or without texture",
            "remedy": "take it again in focus, or leave it out",
        }
    if not partners:
        return {
            "reason": "overlaps with no other photograph",
            "remedy": "add photographs between it and the others, or compare more pairs: --matching exhaustive",
        }
    inside = sorted(set(partners) & registered)
    if not inside:
        return {
            "reason": f"belongs to another part of the scene (with {sorted(partners)[0]})",
            "remedy": "add photographs that join the parts",
        }
    return {
        "reason": f"too few matches with {inside[0]}{' and others' if len(inside) > 1 else ''} to place it",
        "remedy": nearby,
    }
