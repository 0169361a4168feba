"""What a person takes out of a scene while it trains, and puts back."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor

from splat.core import UsageError
from splat.link import Rows, Snapshot
from splat.training.context import Field
from splat.training.edits import Edit

_REMEMBERED = 8  # removals that can be taken back


class ByHand:
    """Edits of a field by rows that were chosen in a snapshot of some steps ago.

    Everything is called on the training thread.
    """

    def __init__(self, field: Field) -> None:
        self._field = field
        self._followed: weakref.WeakSet[Rows] = weakref.WeakSet()
        self._removed: list[dict[str, Tensor]] = []
        field.edits.listeners.append(self._edited)

    def follow(self) -> Rows:
        """The rows as they are now, followed for as long as somebody holds the result."""
        rows = Rows(len(self._field.gaussians))
        self._followed.add(rows)
        return rows

    def remove(self, chosen: Tensor, of: Snapshot) -> None:
        """See link.Controls.remove; the rows that go are remembered, without their moments."""
        if of.rows is None:
            raise UsageError("a strategy draws other Gaussians than it trains: none can be removed by hand")
        gaussians = self._field.gaussians
        mask = of.rows.now(chosen).to(gaussians.device)
        if not bool(mask.any()):
            raise UsageError("none of the chosen Gaussians is left in the scene: choose again")
        if bool(mask.all()):
            raise UsageError("these are all Gaussians: at least one must remain")
        self._removed.append({name: value[mask] for name, value in gaussians.named_tensors()})
        del self._removed[:-_REMEMBERED]
        self._field.edits.remove(mask)

    def restore(self, room: int) -> None:
        """Append what the latest removal took, with zero moments; `room` is how many more may be added."""
        if not self._removed:
            raise UsageError("nothing was removed that could be put back")
        values = self._removed[-1]
        count = len(values["means"])
        if count > room:
            raise UsageError(f"{count:,} Gaussians cannot be put back: the run may have {room:,} more")
        self._removed.pop()
        first = torch.zeros(count, dtype=torch.long, device=values["means"].device)
        self._field.edits.copy(first, values)

    def _edited(self, edit: Edit) -> Any:
        for rows in list(self._followed):
            rows.edited(edit.source, edit.fresh)
