"""The search for the best file of a size, and for the smallest file of a quality.

A plan says how many Gaussians stay, how many bands of harmonics, and with which options the format writes
(its `ladder`, from the finest to the coarsest). Size and quality fall with the number of Gaussians, so that
the right number is found exactly for a degree and options. Of the options of a degree, coarser ones are tried
for as long as they help; of the degrees, lower ones likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

# Never leaves fewer than this share of the Gaussians: what is below is no scene any more.
_LEAST_SHARE = 0.01
# A file of a target size is at most this share of it too small (or, at most _STEPS trials were made).
_SLACK = 0.01
_STEPS = 7
# Coarser options are given up after this many in a row did not help (one may be without effect on a small scene).
_PATIENCE = 2


@dataclass(frozen=True)
class Plan:
    """How a scene is written.

    Attributes:
        keep: how many of the most wanted Gaussians stay.
        sh_degree: highest degree of the harmonics.
        options: write options of the format.
    """

    keep: int
    sh_degree: int
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[Any, ...]:
        return self.keep, self.sh_degree, *sorted(self.options.items())


@dataclass(frozen=True)
class Trial:
    """A plan carried out: bytes of the file, PSNR in dB of what is read back."""

    plan: Plan
    bytes: int
    psnr: float


class Unreachable(Exception):
    """No plan meets the target; `nearest` is the one that comes closest."""

    def __init__(self, nearest: Trial) -> None:
        super().__init__(f"{nearest.bytes} bytes at {nearest.psnr:.2f} dB are the nearest")
        self.nearest = nearest


class Search:
    """Finds the plan for a target.

    Args:
        count: Gaussians of the whole scene, at least 1.
        degrees: SH degrees to choose from, the highest first.
        ladder: write options to choose from, the finest first.
        write: plan -> bytes of its file.
        measure: plan -> PSNR in dB of its file, as read back.
        tried: called with each trial, for a progress line.
    """

    def __init__(
        self,
        count: int,
        degrees: Sequence[int],
        ladder: Sequence[Mapping[str, Any]],
        write: Callable[[Plan], int],
        measure: Callable[[Plan], float],
        tried: Callable[[Plan, int, float | None], None] = lambda plan, size, psnr: None,
    ) -> None:
        self._count, self._least = count, max(1, round(_LEAST_SHARE * count))
        self._degrees, self._ladder = list(degrees), [dict(options) for options in ladder]
        self._write, self._measure, self._tried = write, measure, tried
        self._sizes: dict[tuple[Any, ...], int] = {}
        self._quality: dict[tuple[Any, ...], float] = {}

    def for_size(self, target: int) -> Trial:
        """The best file of at most `target` bytes; Unreachable where even the coarsest plan is larger."""
        best: Trial | None = None
        for degree in self._degrees:
            here: Trial | None = None
            failed = 0
            for options in self._ladder:
                found = self._most(degree, options, target)
                if found is None:
                    continue  # coarser options may fit
                if here is None or found.psnr > here.psnr:
                    here, failed = found, 0
                else:
                    failed += 1
                if failed == _PATIENCE or found.plan.keep == self._count:
                    break  # coarser options only lose
            if here is None:
                continue  # fewer bands may fit
            if best is not None and here.psnr <= best.psnr:
                break
            best = here
            if best.plan.keep == self._count and best.plan.options == self._ladder[0]:
                break  # fewer bands only lose
        if best is None:
            least = [Plan(self._least, self._degrees[-1], options) for options in self._ladder]
            raise Unreachable(self._trial(min(least, key=self._size)))
        return best

    def for_quality(self, least: float) -> Trial:
        """The smallest file of at least `least` dB; Unreachable where even the finest plan has less."""
        best: Trial | None = None
        for degree in self._degrees:
            here: Trial | None = None
            failed = 0
            if not self._fits(Plan(self._count, degree, self._ladder[0]), least):
                break  # fewer bands lose more
            for options in self._ladder:
                most = self._below(degree, options, best)
                found = self._fewest(degree, options, least, most)
                if found is not None and (best is None or found.bytes < best.bytes):
                    best = here = found
                    failed = 0
                else:
                    failed += here is not None
                if failed == _PATIENCE or (found is None and most == self._count):
                    break  # coarser options lose more
        if best is None:
            raise Unreachable(self._trial(Plan(self._count, self._degrees[0], self._ladder[0])))
        return best

    def _most(self, degree: int, options: Mapping[str, Any], target: int) -> Trial | None:
        """The plan with the most Gaussians whose file has at most `target` bytes, by regula falsi."""

        def size(keep: int) -> int:
            return self._size(Plan(keep, degree, options))

        low, high = self._least, self._count
        if size(high) <= target:
            return self._trial(Plan(high, degree, options))
        if size(low) > target:
            return None
        for _ in range(_STEPS):
            if high - low <= 1 or target - size(low) <= _SLACK * target:
                break
            # A little under the target: the size is nearly, not quite, linear.
            share = ((1 - _SLACK / 3) * target - size(low)) / (size(high) - size(low))
            middle = min(max(low + int(share * (high - low)), low + 1), high - 1)
            low, high = (middle, high) if size(middle) <= target else (low, middle)
        return self._trial(Plan(low, degree, options))

    def _below(self, degree: int, options: Mapping[str, Any], best: Trial | None) -> int:
        """No file with more Gaussians than this is smaller than `best` by more than bisection leaves open.

        A file has so many bytes and so many more for each Gaussian: its first k of n take at least k/n of it.
        """
        whole = self._size(Plan(self._count, degree, options))
        if best is None or whole < best.bytes:
            return self._count
        return self._count * best.bytes // whole - (self._count >> _STEPS)

    def _fewest(self, degree: int, options: Mapping[str, Any], least: float, most: int) -> Trial | None:
        """The plan with the fewest Gaussians, at most `most`, whose file has at least `least` dB, by bisection."""
        low, high = self._least - 1, most
        if high <= low or not self._fits(Plan(high, degree, options), least):
            return None
        for _ in range(_STEPS):
            if high - low <= max(1, self._count >> _STEPS):
                break
            middle = (low + high) // 2
            fits = self._fits(Plan(middle, degree, options), least)
            low, high = (low, middle) if fits else (middle, high)
        return self._trial(Plan(high, degree, options))

    def _fits(self, plan: Plan, least: float) -> bool:
        return self._trial(plan).psnr >= least

    def _size(self, plan: Plan) -> int:
        if plan.key not in self._sizes:
            self._sizes[plan.key] = self._write(plan)
            self._tried(plan, self._sizes[plan.key], None)
        return self._sizes[plan.key]

    def _trial(self, plan: Plan) -> Trial:
        size = self._size(plan)
        if plan.key not in self._quality:
            self._quality[plan.key] = self._measure(plan)
            self._tried(plan, size, self._quality[plan.key])
        return Trial(plan, size, self._quality[plan.key])
