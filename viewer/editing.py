"""Taking Gaussians out of a scene and putting them back: in a run on the training thread, else in the viewer's
own copy."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from splat.codecs import search
from splat.core import Gaussians, UsageError
from splat.link import Session, Snapshot

_REMEMBERED = 8  # states of a finished scene that can be gone back to


class Editor:
    """Edits of one session, by whoever looks at it."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._lock = threading.Lock()
        self._past: list[Snapshot] = []

    def remove(self, chosen: Tensor, of: Snapshot, failed: Callable[[Exception], None]) -> None:
        """Take the `chosen` ([N] bool) Gaussians of a snapshot out.

        In a run it is done between two of its steps, and what goes wrong there is given to `failed`.

        Raises:
            UsageError: on a finished scene, if the snapshot is not of the scene as it is now, or if nothing
                would remain.
        """
        if self._session.commands is not None:
            self._session.commands.send(lambda trainer: trainer.remove(chosen, of), failed)
            return
        if bool(chosen.all()):
            raise UsageError("these are all Gaussians: at least one must remain")
        kept = ~chosen.cpu()
        metadata, _ = search.kept_metadata(of.metadata, kept.nonzero()[:, 0], len(kept), as_learned=True)
        self.replace(of.gaussians.select(kept.to(of.gaussians.device)), metadata, of)

    def replace(self, gaussians: Gaussians, metadata: Mapping[str, Any], of: Snapshot) -> None:
        """Put `gaussians`, of which `metadata` is to be known, in the place of a snapshot of a finished scene.

        Raises:
            UsageError: the snapshot is not of the scene as it is now.
        """
        with self._lock:
            if self._session.slot.latest(timeout=0)[1] is not of:
                raise UsageError("the scene has changed since these were chosen: choose again")
            self._past = [*self._past, of][-_REMEMBERED:]
            changed = replace(of, gaussians=gaussians, metadata=metadata, revision=of.revision + 1)
            self._session.slot.publish(changed)

    def restore(self, failed: Callable[[Exception], None]) -> None:
        """Take the latest edit back; UsageError, or a call of `failed`, where it took nothing."""
        if self._session.commands is not None:
            self._session.commands.send(lambda trainer: trainer.restore(), failed)
            return
        with self._lock:
            latest = self._session.slot.latest(timeout=0)[1]
            if not self._past or latest is None:
                raise UsageError("nothing was removed that could be put back")
            before = self._past.pop()
            self._session.slot.publish(replace(before, revision=latest.revision + 1))
