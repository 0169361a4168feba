"""Heads of a scene in glTF documents: in the extras of `asset`, in attributes and an accessor; see gltf."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from splat.codecs import heads
from splat.codecs.gltf_document import Document
from splat.core import DataError, Gaussians
from splat.core.heads import SavedHead


def attributes(said: list[heads.Said], gaussians: Gaussians) -> dict[str, np.ndarray]:
    """What the heads read of the Gaussians, attribute by attribute, [N, 1] each."""
    values = heads.features(said, gaussians.extras, len(gaussians)).numpy()
    return {name: values[:, [i]] for i, name in enumerate(_names(values.shape[1]))}


def read(
    document: Document, stored: Any, named: Any, found: list[Gaussians], notes: list[str]
) -> dict[str, dict[str, SavedHead]]:
    """The heads that `stored` tells of as `heads` of the metadata; what they read goes to the scene.

    Where another program has left out what belongs to them, there are none, and a note.

    Args:
        named: the attributes of the last primitive.
        found: the Gaussians of each primitive.
    """
    if stored is None:
        return {}
    try:
        said = heads.understood(stored)
        accessors = [item["accessor"] for item in stored]
    except (ValueError, KeyError) as error:
        notes.append(f"ignored the heads of the scene: {error}")
        return {}
    names = _names(sum(head.width for head in said))
    if len(found) != 1 or not set(names) <= set(named):
        notes.append("ignored the heads of the scene: another program left out what belongs to them")
        return {}
    values = torch.empty(len(found[0]), len(names))
    for i, name in enumerate(names):
        column = document.accessor(named[name], 1)[:, 0]
        if len(column) != len(values):
            raise DataError(
                f"{document.path}: damaged: {len(column)} values of {name}, there are {len(values)} Gaussians"
            )
        values.numpy()[:, i] = column
    found[0].extras = heads.split(said, values)
    saved = {}
    for head, accessor in zip(said, accessors, strict=True):
        weights = document.accessor(accessor, 1)[:, 0]
        if len(weights) != head.count:
            raise DataError(
                f"{document.path}: damaged: {len(weights)} weights of the head {head.name}, not {head.count}"
            )
        try:
            saved[head.name] = head.saved(torch.from_numpy(weights.copy()))
        except ValueError as error:
            raise DataError(f"{document.path}: damaged: {error}") from None
    return {"heads": saved} if saved else {}


def _names(width: int) -> list[str]:
    return [f"_FEATURE_{i}" for i in range(width)]
