"""The only way in which a set of Gaussians changes its size or swaps its rows.

Parameters, optimizer moments, extras and per-Gaussian state move together; what becomes of the moments is
stated at every edit. Rules of the moments: 3D Gaussian splatting as MCMC (Kheradmand et al. 2024) and
adaptive density control (Kerbl et al. 2023); see each method.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from splat.core import Gaussians
from splat.core.gaussians import PARAMETERS
from splat.training.optim import GaussianAdam, OnCopy, PerGaussian


@dataclass(frozen=True)
class Edit:
    """What happened to the rows of one field, enough for any cache to follow.

    Attributes:
        field: name of the field, "main" for the scene itself.
        kind: the method of `Edits` that was called.
        before: number of Gaussians before.
        source: [after] int64, for each row of now the row of before that it came from.
        fresh: [M] int64 rows of now that are copies, children or relocated: their history is not theirs.
        changed: [C] int64 rows of now that kept their place and whose values were overwritten.
    """

    field: str
    kind: Literal["copy", "split", "remove", "relocate", "replace", "permute"]
    before: int
    source: Tensor
    fresh: Tensor
    changed: Tensor

    @property
    def after(self) -> int:
        """Number of Gaussians now."""
        return self.source.shape[0]

    def follow(self, cache: Tensor, fill: float = 0.0) -> Tensor:
        """[after, ...] a [before, ...] cache moved along; fresh rows hold `fill`."""
        moved = cache[self.source]
        moved[self.fresh] = fill
        return moved


class Edits:
    """Edits of one set of Gaussians.

    Values are given as parameter or extra name -> rows; what is not named is copied from the source.

    Attributes:
        state: name -> [N, ...] per-Gaussian values that are not part of the scene (statistics).
        listeners: called with every Edit after it was made.
    """

    def __init__(self, gaussians: Gaussians, optimizer: GaussianAdam, field: str = "main") -> None:
        self.gaussians = gaussians
        self.optimizer = optimizer
        self.field = field
        self.state: dict[str, Tensor] = {}
        self.listeners: list[Callable[[Edit], None]] = []
        self._tracked: dict[str, PerGaussian] = {}

    def track(
        self, name: str, init: float | Callable[[Gaussians], Tensor] = 0.0, on_copy: OnCopy = "init"
    ) -> None:
        """Keep a per-Gaussian statistic in `state[name]` that follows every edit and every checkpoint."""
        if name in self._tracked:
            raise ValueError(f"per-Gaussian state {name!r} is already tracked")
        self._tracked[name] = PerGaussian(init, on_copy)
        self.state[name] = self._tracked[name].initial(self.gaussians)

    @torch.no_grad()
    def copy(
        self, index: Tensor, values: dict[str, Tensor] | None = None, *, update_source: bool = False
    ) -> Edit:
        """Append copies of the rows `index` ([M] int64, repeats allowed), with `values` in place of copies.

        With `update_source` the source rows take `values` too (repeats must agree) and begin with zero
        moments, as in MCMC's growth; otherwise they stay as they are. Copies begin with zero moments.
        """
        n = len(self.gaussians)
        source = torch.cat([self._arange(n), index])
        fresh = self._arange(index.shape[0]) + n
        changed = index if update_source else index[:0]
        return self._rebuild("copy", source, fresh, values or {}, changed)

    @torch.no_grad()
    def split(self, index: Tensor, values: dict[str, Tensor], *, parts: int = 2) -> Edit:
        """Replace the rows `index` ([M] int64, no repeats) by `parts` children each, appended.

        Child p of index[i] is row p * M + i of `values`. Children begin with zero moments.
        """
        keep = torch.ones(len(self.gaussians), dtype=torch.bool, device=index.device)
        keep[index] = False
        kept = keep.nonzero()[:, 0]
        source = torch.cat([kept, index.repeat(parts)])
        fresh = self._arange(parts * index.shape[0]) + kept.shape[0]
        return self._rebuild("split", source, fresh, values, index[:0])

    @torch.no_grad()
    def remove(self, which: Tensor) -> Edit:
        """Remove rows: an [N] bool mask or [M] int64 positions. The others keep values and moments."""
        keep = torch.ones(len(self.gaussians), dtype=torch.bool, device=which.device)
        keep[which] = False
        source = keep.nonzero()[:, 0]
        return self._rebuild("remove", source, source[:0], {}, source[:0])

    @torch.no_grad()
    def relocate(self, dead: Tensor, source: Tensor, values: dict[str, Tensor]) -> Edit:
        """Move the rows `dead` ([M] int64, no repeats) onto `source` ([M] int64, repeats allowed).

        Both take `values` (repeats must agree); the rest is copied. Moments as in MCMC: zeroed in the
        source rows, kept in the relocated ones.
        """
        rows = self._arange(len(self.gaussians))
        rows[dead] = source
        return self._rebuild("relocate", rows, dead, values, source, keep_moments=True)

    @torch.no_grad()
    def replace(self, name: str, index: Tensor | None, values: Tensor, *, zero_moments: bool = True) -> Edit:
        """Overwrite one parameter or extra in the rows `index` ([M] int64, or None for all).

        The moments of that parameter in those rows are zeroed unless `zero_moments` is False.
        """
        rows = self._arange(len(self.gaussians))
        index = rows if index is None else index
        self._tensor(name)[index] = values
        if zero_moments and name in self.optimizer.moments:
            for moment in self.optimizer.moments[name]:
                moment[index] = 0
        return self._announce(Edit(self.field, "replace", rows.shape[0], rows, rows[:0], index))

    @torch.no_grad()
    def permute(self, order: Tensor) -> Edit:
        """Reorder the rows: row i of now is row order[i] of before. Moments move along."""
        return self._rebuild("permute", order, order[:0], {}, order[:0])

    def _arange(self, n: int) -> Tensor:
        return torch.arange(n, device=self.gaussians.device)

    def _tensor(self, name: str) -> Tensor:
        return getattr(self.gaussians, name) if name in PARAMETERS else self.gaussians.extras[name]

    def _rebuild(
        self,
        kind: Literal["copy", "split", "remove", "relocate", "permute"],
        source: Tensor,
        fresh: Tensor,
        values: dict[str, Tensor],
        changed: Tensor,
        keep_moments: bool = False,
    ) -> Edit:
        """Gather every tensor through `source`, then write `values` into the fresh and changed rows."""
        g, before = self.gaussians, len(self.gaussians)
        unknown = set(values) - set(PARAMETERS) - set(g.extras)
        if unknown:
            raise ValueError(f"{kind}: no parameter or extra named {', '.join(sorted(unknown))}")

        # Everything is gathered first and put in place at the end: an allocation that fails changes nothing.
        copies = g.select(source[fresh]) if fresh.numel() else None
        parameters = {name: getattr(g, name).index_select(0, source) for name in PARAMETERS}
        extras = self._gathered(g.extras, self.optimizer.extras, source, fresh, copies)
        state = self._gathered(self.state, self._tracked, source, fresh, copies)
        moments = dict(self.optimizer.moments)
        if not keep_moments:
            for name, held in moments.items():
                moments[name] = tuple(moment.index_select(0, source) for moment in held)
        for name, rows in values.items():
            moved = parameters[name] if name in parameters else extras[name]
            moved[fresh] = rows
            if changed.numel():
                moved[changed] = rows
        for held in moments.values():
            for moment in held:
                if not keep_moments:
                    moment[fresh] = 0
                moment[changed] = 0

        for name, value in parameters.items():
            setattr(g, name, value)
        g.extras.update(extras)
        self.state.update(state)
        self.optimizer.moments.update(moments)
        return self._announce(Edit(self.field, kind, before, source, fresh, changed))

    @staticmethod
    def _gathered(
        store: dict[str, Tensor],
        rules: dict[str, PerGaussian],
        source: Tensor,
        fresh: Tensor,
        copies: Gaussians | None,
    ) -> dict[str, Tensor]:
        """The values of `store` through `source`; each value's own rule says what the fresh rows hold."""
        gathered = {name: value.index_select(0, source) for name, value in store.items()}
        if copies is not None:
            for name, rows in gathered.items():
                rows[fresh] = rules.get(name, PerGaussian()).copied(rows[fresh], copies)
        return gathered

    def _announce(self, edit: Edit) -> Edit:
        for listener in self.listeners:
            listener(edit)
        return edit
