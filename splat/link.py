"""Between whoever has a scene (a trainer, a command) and a viewer: what is shown, what may be asked for.

A trainer publishes snapshots to a slot that keeps the latest, and runs commands from a queue between steps.
Neither side ever waits for the other.
"""

from __future__ import annotations

import math
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypeVar

import torch
from torch import Tensor

from splat.core import Camera, Gaussians
from splat.core.heads import Head

T = TypeVar("T")
Number = float | int | bool | str


class Rows:
    """Where the rows of a snapshot are in the scene now: a strategy moves, copies and removes them meanwhile.

    Kept up to date, and read, by the thread that edits the scene; everybody else only holds it.
    """

    def __init__(self, count: int) -> None:
        self._source = torch.arange(count)

    def edited(self, source: Tensor, fresh: Tensor) -> None:
        """Row i of now was row source[i] ([N] int64) of before; `fresh` ([M] int64) rows of now are new ones."""
        self._source = self._source[source.cpu()]
        self._source[fresh.cpu()] = -1

    def now(self, chosen: Tensor) -> Tensor:
        """[N] bool rows of now, on the CPU, of `chosen` ([count] bool) rows of the snapshot."""
        found = chosen.cpu()[self._source.clamp_min(0)]
        return found & (self._source >= 0)


@dataclass(frozen=True)
class Snapshot:
    """A scene as it is drawn at `step` of `end`; the tensors are the reader's own, and nobody writes to them.

    `sh_degree` is the highest degree of the harmonics that is trained so far; `seconds` is how long the
    trainer was held up to make the snapshot; `revision` counts what was done to the scene besides training.
    `rows` follows the snapshot's rows through the training; None where nothing trains, or where what is drawn
    has other rows than what is trained. Pictures go through the `heads` (splat.raster.draw); the values that these
    read are among the extras of the Gaussians.
    `metadata` is what a file format should know of these Gaussians besides, in this order (codecs.format.Metadata): of
    finished scenes, and of what `Session.take` returns.
    """

    step: int
    end: int
    gaussians: Gaussians
    sh_degree: int
    loss: float
    seconds: float = 0.0
    revision: int = 0
    rows: Rows | None = None
    heads: tuple[Head, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Slot(Generic[T]):
    """Holds the newest value only. `wanted` tells the producer whether anyone would read the next one."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._value: T | None = None
        self._version = 0
        self.wanted = False

    def publish(self, value: T) -> None:
        with self._condition:
            self._value = value
            self._version += 1
            self._condition.notify_all()

    def latest(self, newer_than: int = 0, timeout: float | None = None) -> tuple[int, T | None]:
        """(version, value); waits up to `timeout` seconds for a version above `newer_than`."""
        with self._condition:
            self._condition.wait_for(lambda: self._version > newer_than, timeout)
            return self._version, self._value


class Commands:
    """Callables sent to the training thread, run between steps."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[tuple[Callable[[Any], Any], Callable[[Exception], None] | None]]
        self._queue = queue.SimpleQueue()

    def send(self, command: Callable[[Any], Any], failed: Callable[[Exception], None] | None = None) -> None:
        """Have `command` run with the trainer; what it raises goes to `failed`, where there is one."""
        self._queue.put((command, failed))

    @property
    def waiting(self) -> bool:
        """Whether there is a command to run."""
        return not self._queue.empty()

    def drain(self, target: Any) -> int:
        """Run every command that waits now on `target`; returns how many ran. What they send waits for next time.

        An exception goes to the command's `failed`; where it has none, it passes through.
        """
        waiting = self._queue.qsize()
        for _ in range(waiting):
            command, failed = self._queue.get_nowait()
            try:
                command(target)
            except Exception as error:
                if failed is None:
                    raise
                failed(error)
        return waiting


class Turns:
    """Lends the machine for a moment, between two steps of whoever trains.

    What is drawn beside a step costs the training more than it takes: threads share cores and caches, and those that
    are done wait for those that are late. Drawn between two steps, with every core, it costs what it takes, on any
    machine. The lender waits for `patience` seconds at most: a borrower that overstays, hangs or dies costs that
    once and no more.
    """

    def __init__(self, patience: float = 0.3) -> None:
        self._patience = patience
        self._condition = threading.Condition()
        self._waiting = 0  # borrowers
        self._state: Literal["own", "offered", "lent"] = "own"
        self._number = 0  # of the turn: one who overstayed must not end that of another

    def lend(self) -> None:
        """Let one who waits have the machine; returns when it is given back. Called between two steps."""
        if not self._waiting:
            return
        with self._condition:
            if self._waiting:
                self._state = "offered"
                self._condition.notify_all()
                self._condition.wait_for(lambda: self._state == "own", self._patience)
                self._state = "own"
                self._number += 1

    @contextmanager
    def borrow(self, timeout: float) -> Iterator[bool]:
        """The machine for the length of a `with`; False where nobody lent it within `timeout` seconds."""
        with self._condition:
            self._waiting += 1
            try:
                lent = self._condition.wait_for(lambda: self._state == "offered", timeout)
            finally:
                self._waiting -= 1
            if lent:
                self._state, number = "lent", self._number
        try:
            yield lent
        finally:
            if lent:
                with self._condition:
                    if self._number == number:
                        self._state = "own"
                        self._condition.notify_all()


class Controls(Protocol):
    """What a command may ask of the trainer that it is called with."""

    def pause(self) -> None: ...

    def resume(self) -> None: ...

    def advance(self, steps: int) -> None:
        """Train `steps` more, then pause."""

    def stop(self) -> None:
        """End the run as if it had come to its last step."""

    def extend(self, steps: int) -> None:
        """Move the end of the run `steps` on."""

    def save(self) -> None:
        """Write a checkpoint now."""

    def remove(self, chosen: Tensor, of: Snapshot) -> None:
        """Take the `chosen` ([N] bool) Gaussians of a snapshot out of the scene, wherever they are by now.

        UsageError if none of them is left, if none would remain, or if the snapshot's rows are not followed.
        """

    def restore(self) -> None:
        """Put back what the latest `remove` took, as it was; UsageError where there is nothing to put back."""


@dataclass
class View:
    """A posed photograph.

    Attributes:
        camera: in the coordinates of the scene, at the photograph's resolution.
        photo: returns the photograph, [H, W, 3] uint8 on the CPU; may take a while and may raise.
        held_out: whether training never sees it.
        loss: the latest loss on it, NaN while there is none.
    """

    name: str
    camera: Camera
    photo: Callable[[], Tensor]
    held_out: bool = False
    loss: float = math.nan


@dataclass(frozen=True)
class Progress:
    """Where a run is. `psnr` is that of the latest training views, `rate` in steps per second."""

    step: int
    end: int
    loss: float
    psnr: float
    count: int
    rate: float
    seconds: float
    state: Literal["training", "paused", "finished"]


class History:
    """Curves of a run, (step, loss, psnr, count), thinned to every other point when they grow long."""

    _LONGEST = 2_000

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rows: list[tuple[float, float, float, float]] = []
        self._every = 1
        self._seen = 0

    def add(self, step: int, loss: float, psnr: float, count: int) -> None:
        with self._lock:
            self._seen += 1
            if self._seen % self._every:
                return
            self._rows.append((step, loss, psnr, count))
            if len(self._rows) >= self._LONGEST:
                self._rows = self._rows[1::2]
                self._every *= 2

    def rows(self) -> list[tuple[float, float, float, float]]:
        """A copy of the points so far, in order."""
        with self._lock:
            return list(self._rows)


@dataclass(frozen=True)
class Entry:
    """One line of a panel that is described as data.

    Attributes:
        kind: "value" is shown, "slider" and "switch" are set, "button" is pressed.
        read: the value now; called from the viewer's threads, so it only reads.
        write: takes the new value (a button: None); run on the training thread.
        low, high, step: of a slider.
    """

    label: str
    kind: Literal["value", "slider", "switch", "button"]
    read: Callable[[], Number] | None = None
    write: Callable[[Any], None] | None = None
    low: float = 0.0
    high: float = 1.0
    step: float = 0.01
    hint: str = ""


@dataclass(frozen=True)
class PanelData:
    """A panel of numbers, sliders and buttons that a strategy describes."""

    title: str
    entries: Sequence[Entry]


@dataclass
class Session:
    """A scene to show, and what may be asked of whoever has it. Everything but name and slot is optional.

    Attributes:
        name: what people call the scene.
        slot: its snapshots; a finished scene has published its only one.
        commands: run by the trainer between steps, each with a `Controls`; None where nothing trains.
        turns: lends the machine between steps; None where nothing trains, and where a step leaves it to a GPU.
        progress, history: of the run; None where nothing trains.
        views: posed photographs of the scene.
        points: [P, 3] the points that it began with, in its own coordinates.
        background: colour behind the scene.
        evaluate: mean PSNR, dB, of the given Gaussians on the held-out views (on all, where none is held
            out), finished by the heads of a snapshot; takes seconds, and asks `go_on` between
            views: None if that said no.
        offset: [3] float64 to add to the scene's coordinates for those of the dataset.
        export: writes the given Gaussians to a path, put back into the dataset's frame, with write options of
            the format by name and what the format should know of them, in the scene's own coordinates; returns
            notes. Raises SplatError.
        take: a snapshot of the run as it is now, with metadata; waits for the trainer, and asks `go_on` meanwhile:
            None if that said no. None where nothing trains: the latest snapshot is what there is.
        folder: where files that the viewer makes belong.
        panels: the panels of the strategies, as they are now.
        log: writes a line for the user to where the others go.
    """

    name: str
    slot: Slot[Snapshot] = field(default_factory=Slot)
    commands: Commands | None = None
    turns: Turns | None = None
    progress: Callable[[], Progress] | None = None
    history: History | None = None
    views: Sequence[View] = ()
    points: Tensor | None = None
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)
    evaluate: Callable[[Gaussians, Callable[[], bool], tuple[Head, ...]], float | None] | None = None
    offset: Tensor = field(default_factory=lambda: torch.zeros(3, dtype=torch.float64))
    export: Callable[[Gaussians, Path, Mapping[str, Any], Mapping[str, Any]], list[str]] | None = None
    take: Callable[[Callable[[], bool]], Snapshot | None] | None = None
    folder: Path | None = None
    panels: Callable[[], Sequence[PanelData]] | None = None
    log: Callable[[str], None] = print

    @staticmethod
    def finished(
        name: str,
        gaussians: Gaussians,
        step: int = 0,
        heads: tuple[Head, ...] = (),
        metadata: Mapping[str, Any] | None = None,
        **more: Any,
    ) -> Session:
        """A scene that does not change; `heads` and `metadata` as in a Snapshot."""
        session, degree = Session(name, **more), gaussians.sh_degree
        snapshot = Snapshot(step, step, gaussians, degree, math.nan, heads=heads, metadata=metadata or {})
        session.slot.publish(snapshot)
        return session


@dataclass(frozen=True)
class SparseModel:
    """Poses and points as structure from motion has them at a moment.

    Attributes:
        cameras: of the photographs that have a pose, by name.
        points: [P, 3] float32.
        colours: [P, 3] uint8.
    """

    cameras: Mapping[str, Camera]
    points: Tensor
    colours: Tensor


@dataclass(frozen=True)
class StageProgress:
    """How far a job of several stages is.

    Attributes:
        done: a line for each stage that is finished.
        now: a line for the present one.
        share: of the present one that is done, in [0, 1].
    """

    done: Sequence[str]
    now: str
    share: float


@dataclass
class Growth:
    """A model that is being found, and who looks at it.

    Attributes:
        name: what people call the scene.
        progress: of the stages; called from the viewer's threads.
        slot: the newest model; `slot.wanted` while somebody looks.
        log: writes a line for the user.
    """

    name: str
    progress: Callable[[], StageProgress]
    slot: Slot[SparseModel] = field(default_factory=Slot)
    log: Callable[[str], None] = print
