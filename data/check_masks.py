"""Masks that are damaged, that hide everything, or that are the wrong way round."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from splat.data.check_context import Context, in_parallel
from splat.data.depth import source_camera
from splat.data.images import decode_mask
from splat.data.problems import some
from splat.data.scene import Frame

_LEAST = 0.05  # of a photograph: less is next to nothing
_FEW_POINTS = 50
_REMEDY = "0 means ignore: invert the masks if they are the other way round"


@dataclass(frozen=True)
class _Kept:
    """Shares of a photograph that its mask keeps: of all, of the middle ninth, of the border (an eighth of the width
    and height to each side); and the mask at 128 pixels or so."""

    share: float
    middle: float
    border: float
    small: np.ndarray


def _examine(frame: Frame) -> _Kept:
    assert frame.mask_path is not None
    source = source_camera(frame)
    mask = decode_mask(frame.mask_path, source.width, source.height, frame.orientation)
    height, width = mask.shape
    middle = mask[height // 3 : -(height // 3) or None, width // 3 : -(width // 3) or None]
    inner = mask[height // 8 : -(height // 8) or None, width // 8 : -(width // 8) or None]
    outside = mask.size - inner.size
    border = (int(mask.sum()) - int(inner.sum())) / outside if outside else 0.0
    step = max(1, max(height, width) // 128)
    return _Kept(float(mask.mean()), float(middle.mean()), border, mask[::step, ::step].astype(bool))


def masks(context: Context) -> None:
    """Every mask decodes, fits its photograph, leaves something of it, and the right part."""
    masked = [frame for frame in context.scene.frames if frame.mask_path is not None]
    found = list(in_parallel(_examine, masked, context.report))
    empty = [frame.name for frame, kept in found if kept.share < _LEAST]
    if found and not _inverted(context, found) and empty:
        context.warn(
            "mask-empty", f"masks leave next to nothing of {len(empty)} photographs ({some(empty)})", _REMEDY
        )
    folder = context.scene.root / "masks"
    used = {frame.mask_path for frame in masked}
    surplus = []
    if folder.is_dir():
        surplus = [path.name for path in sorted(folder.rglob("*.png")) if path not in used]
    if surplus:
        message = f"{folder}: {len(surplus)} masks belong to no photograph ({some(surplus)})"
        remedy = "name them masks/NAME.png after their photographs, or remove them"
        context.report.warn("mask-surplus", message, remedy)


def _inverted(context: Context, found: list[tuple[Frame, _Kept]]) -> bool:
    """Whether the masks seem to be the wrong way round; then it is reported.

    Masks made to keep a subject keep the points that were found on it, and the middle of the pictures rather than
    their border. Both speak against masks that are inverted, so both are asked where there are points.
    """
    share = float(np.mean([kept.share for _, kept in found]))
    middle = float(np.mean([kept.middle for _, kept in found]))
    border = float(np.mean([kept.border for _, kept in found]))
    number = {frame.name: index for index, frame in enumerate(context.scene.frames)}
    inside = total = 0
    for frame, kept in found:
        rows = context.sightings.of(number[frame.name])
        row, column = (context.sightings.places[rows][:, ::-1] * kept.small.shape).astype(int).T
        inside += int(kept.small[row, column].sum())
        total += len(row)
    if not middle < border:
        return False
    if total >= _FEW_POINTS:
        # Points on what is ignored are several times as dense as on what is kept.
        density = (inside / total) / max(share, 1e-6), (1 - inside / total) / max(1 - share, 1e-6)
        suspect = density[1] > 3 * density[0]
    else:
        suspect = middle < 0.25 and border > 0.75
    if suspect:
        told = f", and {1 - inside / total:.0%} of the points lie on what they ignore" if total else ""
        message = (
            f"masks keep {border:.0%} of the border and {middle:.0%} of the middle of the photographs{told}"
        )
        context.warn("mask-inverted", message, _REMEDY)
    return suspect
