"""Heads of a scene (splat.core.heads) in files: what of them is said in JSON, and their numbers as arrays."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from splat.core.heads import SavedHead

MOST_FEATURES = 256
_MOST_WEIGHTS = 1 << 28
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


@dataclass(frozen=True)
class Said:
    """What a file says of a head beside its numbers.

    Attributes:
        name: of the strategy that it is of.
        options: as in SavedHead.
        count: of its weights.
        features: name of the per-Gaussian values that it reads, or None.
        width: how many of these a Gaussian has; 0 without.
    """

    name: str
    options: Mapping[str, Any]
    count: int
    features: str | None
    width: int

    def saved(self, weights: Tensor) -> SavedHead:
        """The head with its numbers, [count] float32; ValueError where they are not finite."""
        if not bool(torch.isfinite(weights).all()):
            raise ValueError(f"weights of the head {self.name} are not finite")
        return SavedHead(self.options, weights, self.features)

    def to_json(self) -> dict[str, Any]:
        about = {"name": self.name, "options": dict(self.options), "weights": self.count}
        return about | ({"features": self.features, "width": self.width} if self.features else {})


def said(heads: Mapping[str, SavedHead] | None, extras: Mapping[str, Tensor]) -> list[Said]:
    """What is to be written of each head; those whose features are not among the scene's `extras` are left out."""
    found = []
    for name, head in (heads or {}).items():
        if head.features is None or head.features in extras:
            width = 0 if head.features is None else extras[head.features].shape[1]
            found.append(Said(name, head.options, len(head.weights), head.features, width))
    return found


def features(heads: list[Said], extras: Mapping[str, Tensor], count: int) -> Tensor:
    """[count, F] float32 values of the Gaussians that the heads read, those of one after the other; F may be 0."""
    read = [extras[head.features].to("cpu", torch.float32) for head in heads if head.features]
    return torch.cat([torch.empty(count, 0), *read], 1)


def split(heads: list[Said], values: Tensor) -> dict[str, Tensor]:
    """What `features` put together, as extras."""
    parts = values.split([head.width for head in heads], 1)
    return {
        head.features: part.contiguous() for head, part in zip(heads, parts, strict=True) if head.features
    }


def understood(about: Any) -> list[Said]:
    """What a list of `Said.to_json` says; ValueError where it is none."""
    if not isinstance(about, list):
        raise ValueError("the heads are no list")
    found = [_one(item) for item in about]
    names = [head.name for head in found]
    taken = [head.features for head in found if head.features]
    if len(set(names)) < len(names) or len(set(taken)) < len(taken):
        raise ValueError("two heads have the same name")
    if sum(head.width for head in found) > MOST_FEATURES:
        raise ValueError(f"the heads read more than {MOST_FEATURES} values of a Gaussian")
    return found


def _one(item: Any) -> Said:
    if not isinstance(item, dict) or not _is_name(item.get("name")):
        raise ValueError("a head has no name")
    name, options = item["name"], item.get("options")
    if not isinstance(options, dict) or len(json.dumps(options)) > 4096:
        raise ValueError(f"the options of the head {name} are out of range")
    count: Any = item.get("weights")
    width: Any = item.get("width", 0)
    feature = item.get("features")
    if not _is_count(count, _MOST_WEIGHTS) or not _is_count(width, MOST_FEATURES):
        raise ValueError(f"the sizes of the head {name} are out of range")
    if (feature is not None and not _is_name(feature)) or (feature is None) != (width == 0):
        raise ValueError(f"the features of the head {name} are out of range")
    for value in options.values():
        plain = isinstance(value, (str, bool, int)) or (isinstance(value, float) and math.isfinite(value))
        if not plain:
            raise ValueError(f"the options of the head {name} are not plain values")
    return Said(name, options, count, feature, width)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _is_count(value: Any, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most
