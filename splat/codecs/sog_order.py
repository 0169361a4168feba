"""The order of the Gaussians in SOG's images, which is free: the one in which they compress best."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt
import torch

from splat.codecs.quantize import morton_codes
from splat.codecs.sog_quantize import Quantized, by_first_use


def arrangement(q: Quantized) -> npt.NDArray[np.int64]:
    """[N] rows: along the Morton curve through the cells that the centres' upper bytes name, by label in each.

    Within a cell the upper bytes are the same in any order, and the lower ones are nearly noise: there it is the
    palette's labels that gain by standing in order. Equals keep their order.
    """
    cells = morton_codes(torch.from_numpy((q.means >> 8).astype(np.int64))).numpy()
    rows = np.argsort(cells, kind="stable")
    if q.palette is None:
        return rows
    # Named in the order of their first use along the curve, so that they mostly grow from cell to cell as well.
    _, labels = by_first_use(torch.from_numpy(q.palette.entries), torch.from_numpy(q.palette.labels[rows]))
    return rows[np.lexsort((labels.numpy(), cells[rows]))]


def arranged(q: Quantized, rows: npt.NDArray[np.int64]) -> Quantized:
    """The same scene with its Gaussians in the order `rows`, and the palette in the order of their first use of it."""
    palette = q.palette
    if palette is not None:
        entries, labels = by_first_use(
            torch.from_numpy(palette.entries), torch.from_numpy(palette.labels[rows])
        )
        palette = replace(palette, entries=entries.numpy(), labels=labels.numpy())
    return replace(
        q, means=q.means[rows], quats=q.quats[rows], scales=q.scales[rows], sh0=q.sh0[rows], palette=palette
    )
