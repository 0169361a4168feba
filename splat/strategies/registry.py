"""The strategies at hand: those of this package and those of installed plugins.

A plugin is a distribution with an entry point in the group `splat.strategies` that names a subclass of
`splat.training.strategy.Strategy`; the entry point's name is what the user types.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import is_dataclass
from importlib import metadata
from itertools import pairwise
from typing import Any

import torch

from splat.core import UsageError
from splat.core.heads import Head, SavedHead
from splat.strategies.compensation import Compensation
from splat.strategies.default import Default
from splat.strategies.mcmc import Mcmc
from splat.strategies.sparse import SparseView
from splat.strategies.spectral import Spectral
from splat.strategies.vq import Vq
from splat.training import schema
from splat.training.strategy import Strategy

GROUP = "splat.strategies"
BUILT_IN: tuple[type[Strategy], ...] = (Default, Mcmc, SparseView, Spectral, Compensation, Vq)


def available() -> dict[str, type[Strategy]]:
    """Every strategy by name, the built-in ones first.

    Raises:
        UsageError: a plugin does not load, is not a strategy, or takes a name that is taken; the message
            names the distribution that it came with.
    """
    found: dict[str, type[Strategy]] = {strategy.name: strategy for strategy in BUILT_IN}
    for entry in sorted(metadata.entry_points(group=GROUP), key=lambda e: e.name):
        origin = _origin(entry)
        try:
            strategy = entry.load()
        except Exception as error:
            raise UsageError(
                f"strategy {entry.name!r} of {origin} does not load ({type(error).__name__}: {error}); "
                f"update or uninstall that distribution"
            ) from error
        problem = _problem(strategy)
        if problem:
            raise UsageError(f"strategy {entry.name!r} of {origin} {problem}; update or uninstall it")
        if entry.name in found:
            raise UsageError(f"strategy {entry.name!r} of {origin} takes a name that is taken; uninstall it")
        found[entry.name] = strategy
    return found


def build(names: Iterable[str], configs: Mapping[str, Any] | None = None) -> list[Strategy]:
    """The strategies of a run, in the order of `names`.

    Args:
        names: exactly one of them controls density.
        configs: name -> options: an instance of the strategy's config_type or a mapping of its fields.
            Strategies without an entry take their defaults; entries of other strategies are left alone.

    Raises:
        UsageError: an unknown or repeated name, an unknown option, none or several that control density, an
            order or a company that cannot work.
    """
    names, configs, known = list(names), configs or {}, available()
    for name in names:
        if name not in known:
            raise UsageError(f"unknown strategy {name!r}{schema.nearest(name, known)}")
        if names.count(name) > 1:
            raise UsageError(f"strategy {name!r} is named more than once")
    dense = [name for name in names if known[name].controls_density]
    if len(dense) != 1:
        options = ", ".join(name for name, strategy in known.items() if strategy.controls_density)
        given = f"{' and '.join(dense)} are named" if dense else "none of the given ones does"
        raise UsageError(f"exactly one strategy controls density, of {options}; {given}")
    transforming = [name for name in names if known[name].transform is not Strategy.transform]
    for name, later in pairwise(transforming):
        if known[name].transforms_last:
            raise UsageError(
                f"{later} would change what {name} has made ready for the file: "
                f"name {later} before {name} in --strategies"
            )
    built = [known[name](_config(name, known[name].config_type, configs.get(name))) for name in names]
    heads = [name for name in names if known[name].after_render is not Strategy.after_render]
    further = [strategy.name for strategy in built if strategy.draws_further]
    if heads and further:
        raise UsageError(
            f"{further[0]} compares further pictures of the scene, which the head of {heads[0]} does not reach: "
            f"leave one of the two out, or switch off what draws them"
        )
    return built


def heads(saved: Mapping[str, SavedHead], device: torch.device) -> tuple[tuple[Head, ...], list[str]]:
    """The heads of a file, and a line for each that cannot be applied: its strategy is not installed, or is another.

    Args:
        saved: name of a strategy -> its head in numbers, as `splat.codecs.decode` gives them.
    """
    known, found, notes = available(), [], []
    for name, numbers in saved.items():
        if name not in known:
            notes.append(f"the head {name} is left out: no strategy of that name is installed")
            continue
        try:
            found.append(known[name].restored(numbers, device))
        except ValueError as error:
            notes.append(f"the head {name} is left out: it does not fit this version ({error})")
    return tuple(found), notes


def _config(name: str, config_type: type, given: Any) -> Any:
    if isinstance(given, config_type):
        return given
    return schema.apply(config_type(), given, f"options of {name}")


def _problem(strategy: Any) -> str:
    """What keeps an entry point's object from being a strategy; empty if nothing."""
    if not (isinstance(strategy, type) and issubclass(strategy, Strategy)):
        return "is not a subclass of splat.training.strategy.Strategy"
    if not is_dataclass(getattr(strategy, "config_type", None)):
        return "has no dataclass as its config_type"
    return ""


def _origin(entry: metadata.EntryPoint) -> str:
    if entry.dist is None:
        return f"an unnamed distribution ({entry.value})"
    return f"distribution {entry.dist.name} {entry.dist.version}"
