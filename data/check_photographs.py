"""Photographs that are damaged, there twice, blurred, empty, or exposed unlike the others.

All is measured on grey copies with a longer side of 640 pixels, and compared with the set itself: what is usual there
depends on the subject, the lens and the light. The thresholds were set on four real sets, and on these with single
photographs spoiled; docs/datasets.md has the figures.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass

import numpy as np

from splat.data.check_context import Context, in_parallel
from splat.data.images import oriented, preview
from splat.data.problems import some
from splat.data.scene import Frame

_SIDE = 640
_SMALL = 256  # longer side of the copies that points are looked up in
_THUMBNAIL = 64
_FEW = 8  # photographs; of fewer nothing can be said to be usual

# Octaves that the finest detail in some direction must lie under the median of the set. On four real sets, whose own
# photographs lie at most 0.47 under, a Gaussian blur of 0.7 pixels at 640 costs 1.0 and more, one of 1.0 pixels 1.5;
# motion by 2 pixels 1.0 and more, by 3 to 8 pixels 1.3.
_BLUR = 0.7
# Times the median absolute deviation, scaled to a standard deviation: of normally distributed values one in three
# million lies so far to one side.
_OUTLIER = 5.0
# Two thumbnails that differ by less than a shift of so many of their pixels would are one photograph: 0.3% of the
# width. Real neighbours 1 degree apart lie at 0.21 and more.
_SHIFT = 0.2
_STOPS = 0.5  # of exposure: 1.4 times the light is seen beside the neighbouring view
_NEIGHBOURS = 4
_FLAT = 2.0  # grey levels of deviation in a whole photograph


@dataclass(frozen=True)
class Look:
    """What a photograph looks like from afar.

    Attributes:
        grey: [h, w] uint8, longer side at most 256, as its camera sees it.
        thumbnail: [4096] float32 of mean 0 and length 1.
        gradient: what a shift by one pixel of the thumbnail changes, as half the squared distance of thumbnails.
        detail: [4] log2 of the finest detail's energy over that of the next scale, along rows, columns and diagonals.
        deviation: standard deviation of the grey levels.
        digest: of the file.
    """

    grey: np.ndarray
    thumbnail: np.ndarray
    gradient: float
    detail: np.ndarray
    deviation: float
    digest: str


def look(frame: Frame) -> Look:
    """Decode a photograph and look at it from afar; DatasetError where it is damaged."""
    from PIL import Image

    picture = preview(frame.path, _SIDE)
    image = Image.fromarray(picture)
    square = np.asarray(image.resize((_THUMBNAIL, _THUMBNAIL), Image.Resampling.BOX), dtype=np.float32)
    square = square - square.mean()
    length = float(np.sqrt((square**2).sum()))
    square /= max(length, 1e-6)
    # Half the squared distance of a picture from itself, shifted by one pixel; the smaller of both directions.
    gradient = min(float((np.diff(square, axis=axis) ** 2).sum()) / 2 for axis in (0, 1))
    fine = picture.astype(np.float32)
    image.thumbnail((_SMALL, _SMALL), Image.Resampling.BOX)
    grey = oriented(np.asarray(image), frame.orientation)
    detail = np.log2((_energy(fine) + 1e-3) / (_energy(_halved(fine)) + 1e-3))
    digest = hashlib.sha256(frame.path.read_bytes()).hexdigest()
    return Look(grey, square.ravel(), gradient, detail, float(picture.std()), digest)


def _energy(image: np.ndarray) -> np.ndarray:
    """[4] mean squared second difference along rows, columns and both diagonals: motion blurs one of them."""
    if min(image.shape) < 3:
        return np.zeros(4)
    twice = 2 * image[1:-1, 1:-1]
    beside = (
        image[1:-1, :-2] + image[1:-1, 2:],
        image[:-2, 1:-1] + image[2:, 1:-1],
        image[:-2, :-2] + image[2:, 2:],
        image[:-2, 2:] + image[2:, :-2],
    )
    return np.array([float(((twice - pair) ** 2).mean()) for pair in beside])


def _halved(image: np.ndarray) -> np.ndarray:
    height, width = (size // 2 * 2 for size in image.shape)
    image = image[:height, :width]
    return (image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]) / 4


def photographs(context: Context) -> None:
    """Everything that the photographs show without the model but for the exposure."""
    seen = list(in_parallel(look, context.scene.frames, context.report))
    frames, looks = [frame for frame, _ in seen], [value for _, value in seen]
    if not looks:
        return
    flat = [frame.name for frame, value in seen if value.deviation < _FLAT]
    if flat:
        context.warn("flat", f"{some(flat)}: nothing but one colour", "remove them")
    _duplicates(context, frames, looks)
    _blurred(context, frames, looks)
    _exposure(context, frames, looks)


def _duplicates(context: Context, frames: list[Frame], looks: list[Look]) -> None:
    """Files that are the same, and photographs that all but are."""
    remedy = "keep one of them, or held-out views are seen in training"
    same: dict[str, list[int]] = defaultdict(list)
    for index, value in enumerate(looks):
        same[value.digest].append(index)
    for group in same.values():
        if len(group) > 1:
            names = some([frames[index].name for index in group])
            context.warn("duplicate-image", f"{names} are the same photograph", remedy)
    kept = [group[0] for group in same.values() if looks[group[0]].deviation >= _FLAT]
    pictures = np.stack([looks[index].thumbnail for index in kept]) if kept else np.empty((0, 1), np.float32)
    gradients = np.array([looks[index].gradient for index in kept])
    pairs = []
    for start in range(0, len(kept), 1024):
        distance = 1 - pictures[start : start + 1024] @ pictures.T
        limit = _SHIFT**2 * np.minimum(gradients[start : start + 1024, None], gradients[None])
        rows, columns = np.nonzero(distance < limit)
        pairs += [(kept[start + a], kept[b]) for a, b in zip(rows, columns, strict=True) if start + a < b]
    if pairs:
        shown = some([f"{frames[a].name} and {frames[b].name}" for a, b in pairs])
        context.warn("near-duplicate", f"{shown} are all but the same photograph", remedy)


def _blurred(context: Context, frames: list[Frame], looks: list[Look]) -> None:
    textured = [index for index, value in enumerate(looks) if value.deviation >= _FLAT]
    if len(textured) < _FEW:
        return
    detail = np.stack([looks[index].detail for index in textured])
    under = np.median(detail, axis=0) - detail
    # What is usual below the median counts: sharper photographs among the others make none of them blurred.
    usual = [1.4826 * float(np.median(column[column >= 0])) for column in under.T]
    excess = (under - np.maximum(_BLUR, _OUTLIER * np.array(usual))).max(1)
    found = [textured[i] for i in np.argsort(-excess) if excess[i] > 0]
    if found:
        names = some([frames[index].name for index in found])
        context.warn(
            "blurred", f"{len(found)} photographs are blurred beside the others ({names})", "remove them"
        )


def spread(values: np.ndarray) -> float:
    """Median absolute deviation, scaled to the standard deviation of normally distributed values."""
    return 1.4826 * float(np.median(np.abs(values - np.median(values))))


def _exposure(context: Context, frames: list[Frame], looks: list[Look]) -> None:
    """Photographs that are lighter or darker than those taken beside them."""
    gains = exposures(context, frames, looks)
    known = np.flatnonzero(np.isfinite(gains))
    by_points = len(known) >= _FEW
    if not by_points:
        # Without points the whole picture has to do: neighbours show nearly the same.
        light = [float(((look.grey / 255.0) ** 2.2).mean()) for look in looks]
        gains = np.log2(np.array(light) + 1e-4)
        known = np.arange(len(frames))
    if len(known) < _FEW:
        return
    beside = _beside(context, [frames[index] for index in known])
    away = gains[known] - np.median(gains[known][beside], axis=1)
    limit = max(_STOPS, _OUTLIER * spread(away))
    found = [i for i in np.argsort(-np.abs(away)) if abs(away[i]) > limit]
    if found:
        names = some([f"{frames[known[i]].name} {away[i]:+.1f}" for i in found])
        message = f"{len(found)} photographs are exposed unlike those beside them (in stops: {names})"
        remedy = "train with --exposure, and lock exposure and white balance when taking photographs"
        context.warn("exposure-jump", message, remedy)
    low, high = np.percentile(gains[known], (5, 95))
    if by_points and high - low > _STOPS:
        message = f"the exposure of most photographs lies within {high - low:.1f} stops: --exposure fits such changes"
        context.report.note("exposure-range", message)


def _beside(context: Context, frames: list[Frame]) -> np.ndarray:
    """[len(frames), 4] numbers of the photographs taken nearest to each one in place and direction."""
    poses = [frame.camera.camera_to_world.double() for frame in frames]
    places = np.stack([pose[:3, 3].numpy() for pose in poses]) / context.extent
    axes = np.stack([pose[:3, 2].numpy() for pose in poses])
    apart = np.linalg.norm(places[:, None] - places[None], axis=2)
    apart += np.linalg.norm(axes[:, None] - axes[None], axis=2)  # radians, nearly
    np.fill_diagonal(apart, np.inf)
    return np.argsort(apart, axis=1)[:, :_NEIGHBOURS]


def exposures(context: Context, frames: list[Frame], looks: list[Look]) -> np.ndarray:
    """[len(frames)] stops by which each photograph is lighter than the others at the points that it shares with
    them; NaN where too few tell."""
    least = 20  # points, so that single highlights do not decide
    number = {frame.name: index for index, frame in enumerate(frames)}
    sightings = context.sightings
    owners, points, values = [], [], []
    for place, frame in enumerate(context.scene.frames):
        index = number.get(frame.name)
        rows = sightings.of(place)
        if index is None:
            continue
        grey = looks[index].grey
        row, column = (sightings.places[rows][:, ::-1] * grey.shape).astype(int).T
        level = grey[row, column]
        usable = (level > 5) & (level < 250)  # neither black nor burnt out
        owners.append(np.full(int(usable.sum()), index))
        points.append(sightings.points[rows][usable])
        values.append(np.log2((level[usable] / 255.0) ** 2.2))  # sRGB, nearly
    gains = np.full(len(frames), np.nan)
    if not owners:
        return gains
    owner, point, value = (np.concatenate(part) for part in (owners, points, values))
    if len(value) == 0:
        return gains
    point = np.unique(point, return_inverse=True)[1]
    counts = np.bincount(point)
    known = [index for index in range(len(frames)) if int((owner == index).sum()) >= least]
    gain = np.zeros(len(frames))
    for _ in range(10):  # brightness of the points, gains of the photographs, in turn
        brightness = np.bincount(point, value - gain[owner]) / counts
        rest = value - brightness[point]
        for index in known:
            gain[index] = np.median(rest[owner == index])
        gain -= np.median(gain[known]) if known else 0.0
    gains[known] = gain[known]
    return gains
