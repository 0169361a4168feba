"""The search for the best file of a size, and for the smallest file of a quality.

A plan says how many Gaussians stay, how many bands of harmonics, and with which options the format writes
(its `ladder`: from the finest to the coarsest). The number of Gaussians is searched for each pair of the
others; of these first the degree is lowered at the finest options, then the options are coarsened at the
best degree, each for as long as it helps: size and quality are both monotone in the number of Gaussians,
to which everything here is exact, and as good as unimodal in the rest.
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
        best = self._best(lambda degree, options: self._most(degree, options, target), _better, stop=True)
        if best is None:
            coarsest = [
                Plan(self._least, self._degrees[-1], self._ladder[0]),
                Plan(self._least, self._degrees[-1], self._ladder[-1]),
            ]
            raise Unreachable(self._trial(min(coarsest, key=self._size)))
        return best

    def for_quality(self, least: float) -> Trial:
        """The smallest file of at least `least` dB; Unreachable where even the finest plan has less."""
        best = self._best(lambda degree, options: self._fewest(degree, options, least), _smaller, stop=False)
        if best is None:
            raise Unreachable(self._trial(Plan(self._count, self._degrees[0], self._ladder[0])))
        return best

    def _best(
        self,
        find: Callable[[int, Mapping[str, Any]], Trial | None],
        beats: Callable[[Trial, Trial], bool],
        stop: bool,
    ) -> Trial | None:
        """The best of what `find` gives over degrees, then options. `stop` at the first that does not beat
        the best so far, or once a plan keeps everything: the next ones can only be worse."""
        best: Trial | None = None
        finest = self._ladder[0]
        for degree in self._degrees:
            found = find(degree, finest)
            if found is None:
                if stop:
                    continue
                break  # fewer bands cannot be of better quality
            if best is not None and not beats(found, best):
                if stop:
                    break
                continue
            best = found
            if stop and found.plan.keep == self._count:
                return best
        for options in self._ladder[1:]:
            found = find(best.plan.sh_degree if best else self._degrees[-1], options)
            if found is None and stop:
                continue
            if found is None or (best is not None and not beats(found, best)):
                break
            best = found
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

    def _fewest(self, degree: int, options: Mapping[str, Any], least: float) -> Trial | None:
        """The plan with the fewest Gaussians whose file has at least `least` dB, by bisection."""

        def fits(keep: int) -> bool:
            return self._trial(Plan(keep, degree, options)).psnr >= least

        low, high = self._least - 1, self._count
        if not fits(high):
            return None
        for _ in range(_STEPS):
            if high - low <= max(1, self._count >> _STEPS):
                break
            middle = (low + high) // 2
            low, high = (low, middle) if fits(middle) else (middle, high)
        return self._trial(Plan(high, degree, options))

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


def _better(found: Trial, best: Trial) -> bool:
    return found.psnr > best.psnr


def _smaller(found: Trial, best: Trial) -> bool:
    return found.bytes < best.bytes
