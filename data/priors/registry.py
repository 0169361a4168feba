"""Priors and where they come from.

A provider is a class with a ``name``, the ``kinds`` that it gives and ``at``; installed packages add theirs under the
entry-point group ``splat.priors``.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, get_args

from torch import Tensor

from splat.core import UsageError

if TYPE_CHECKING:
    from splat.data.dataset import Dataset

Kind = Literal["depth", "normal", "flow", "matches", "masks"]
KINDS: tuple[Kind, ...] = get_args(Kind)
GROUP = "splat.priors"
_PAIRS = frozenset({"flow", "matches"})


class Provider(Protocol):
    """Gives priors of some kinds; made once a run with the user's options.

    What `at` returns, at the training resolution and for the pinhole pictures that training uses:
        depth: [H, W] float32, camera z up to what the user's losses leave open (scale, shift); 0 = not known.
        normal: [H, W, 3] float32 unit vectors, world frame; zeros = not known.
        masks: [H, W] bool, false = not of the scene.
        flow: [H, W, 2] float32, from pixels of the view to those of the other, pixels; NaN = not known.
        matches: [M, 4] float32, pixels (u, v) in the view and in the other.
    """

    name: ClassVar[str]
    kinds: ClassVar[frozenset[str]]

    def __init__(self, options: Mapping[str, Any]) -> None: ...

    def at(self, kind: Kind, dataset: Dataset, view: int, other: int | None) -> Tensor | None:
        """The prior of a view, or None where there is none.

        Raises:
            DataError: what there is cannot be used; the first line names it.
        """
        ...


class Prior:
    """One kind of prior from one provider; what was read or computed is kept."""

    def __init__(self, kind: Kind, provider: Provider) -> None:
        self.kind = kind
        self.provider = provider
        self._kept: dict[tuple[int, int | None], Tensor | None] = {}

    def at(self, dataset: Dataset, view: int, other: int | None = None) -> Tensor | None:
        """The prior of view `view` of `dataset` (to view `other`, for flow and matches); None where there is none."""
        if (other is not None) != (self.kind in _PAIRS):
            wanted = "is between two views" if self.kind in _PAIRS else "is of one view"
            raise ValueError(f"a prior of the kind {self.kind!r} {wanted}")
        key = (view, other)
        if key not in self._kept:
            self._kept[key] = self.provider.at(self.kind, dataset, view, other)
        return self._kept[key]


def providers() -> dict[str, type[Provider]]:
    """Every provider by name, the built-in ones first.

    Raises:
        UsageError: a plugin does not load or takes a name that is taken; the message names its distribution.
    """
    from splat.data.priors.files import Files
    from splat.data.priors.onnx import Onnx

    found: dict[str, type[Provider]] = {Files.name: Files, Onnx.name: Onnx}
    for point in sorted(entry_points(group=GROUP), key=lambda point: point.name):
        if point.name in found:
            raise UsageError(
                f"priors {point.name!r} of {_origin(point)} take a name that is taken; uninstall it"
            )
        try:
            found[point.name] = point.load()
        except Exception as error:
            raise UsageError(
                f"priors {point.name!r} of {_origin(point)} do not load ({type(error).__name__}: {error}); "
                f"update or uninstall that distribution"
            ) from error
    return found


def priors(kind: Kind, provider: str = "files", options: Mapping[str, Any] | None = None) -> Prior:
    """Priors of a kind.

    Args:
        provider: "files", beside the images; "onnx", by a model of the user's; or an installed one.
        options: of the provider.

    Raises:
        UsageError: an unknown provider or option, or a kind that the provider does not give.
    """
    known = providers()
    if provider not in known:
        raise UsageError(f"unknown provider of priors {provider!r}; there are {', '.join(known)}")
    chosen = known[provider]
    if kind not in chosen.kinds:
        raise UsageError(f"the provider {provider!r} gives {', '.join(sorted(chosen.kinds))}, not {kind!r}")
    return Prior(kind, chosen(options or {}))


def _origin(point: EntryPoint) -> str:
    return f"distribution {point.dist.name}" if point.dist else f"an unnamed distribution ({point.value})"
