"""From photographs and videos to a dataset: the stages in order, each done once."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from splat.core import DataError, Interrupted, UsageError
from splat.core.files import replacing
from splat.data.problems import DatasetError
from splat.data.sfm.child import Child
from splat.data.sfm.options import ProcessOptions
from splat.data.sfm.stages import Ledger, key, locked

if TYPE_CHECKING:
    from splat.data.sfm.gather import Inputs

_FORMAT = 1  # of what the stages leave; a change does everything again


class Listener(Protocol):
    """Who is told how it goes."""

    def begin(self, stage: str, kept: bool) -> None:
        """A stage begins, or was `kept` from an earlier run."""
        ...

    def progress(self, stage: str, done: int, total: int) -> None: ...

    def end(self, stage: str, seconds: float, result: Any) -> None: ...


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        depends: names of the options that it depends on, besides the stages before it.
        leaves: paths inside the dataset without which it is done again.
        revision: counts changes of what it does; what an earlier one has left is made again.
    """

    name: str
    depends: tuple[str, ...]
    leaves: tuple[str, ...]
    revision: int = 0


PHOTOGRAPHS = Stage("photographs", ("frames", "masks", "chroma_key", "cameras"), ("images",))
STAGES = (
    Stage("features", ("camera_model", "max_size", "features"), ("process/database.db",)),
    Stage("matches", ("matching", "seed"), ("process/database.db",)),
    Stage("mapping", ("mapper",), ("process/models",), revision=2),
    Stage("model", ("orient",), ("sparse/0/images.bin",), revision=1),
)
UNDISTORTION = Stage("undistortion", (), ("undistorted/sparse/0/images.bin",))
STEREO = Stage("stereo", ("mvs_size",), ("dense.ply", "depths"), revision=1)


def process(
    inputs: list[Path], data: Path, options: ProcessOptions, listener: Listener, *, snapshots: bool = False
) -> dict[str, Any]:
    """Make a dataset of photographs and videos in the folder `data`.

    Stages that an earlier call finished from the same inputs and options are kept, and one that was stopped goes on;
    the outcome is the same. Structure from motion runs in a child process.

    Args:
        snapshots: write unfinished models to process/snapshots while poses are found.

    Returns:
        The summary, as process.json has it.

    Raises:
        DataError: inputs that cannot be used; what was made stays.
        UsageError: options or folders that contradict each other.
        Interrupted: Ctrl-C; the same call goes on.
    """
    from splat.data.sfm import gather  # which reads photographs; the child does without

    _check(options)
    found = gather.find(inputs, data, options.masks, options.chroma_key is not None)
    folder = data / "process"
    if (data / "sparse").exists() and not (folder / "stages.json").exists():
        raise UsageError(f"{data / 'sparse'}: a model that `splat process` did not make; name another folder")
    stage = PHOTOGRAPHS.name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder / "lock") as lock, Child(folder / "job.json", lock) as child:
            run = _Run(data, options, listener, Ledger(folder / "stages.json"), child, snapshots)
            depends = key(_FORMAT, version("pycolmap"))
            depends = run.photographs(found, depends)
            for each in STAGES:
                stage = each.name
                depends = run.stage(each, depends)
            for each in _further(options):  # which do not depend on each other
                stage = each.name
                run.stage(each, depends)
            return run.summary()
    except KeyboardInterrupt:
        raise Interrupted(f"stopped at {stage}; the same command goes on from there: {data}") from None
    except OSError as error:
        raise _refused(error, data, stage) from error


def _refused(error: OSError, data: Path, stage: str) -> DatasetError:
    """What to say of a disk that would not write to the dataset, or not read what it is made of."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        remedy = "free some space and start the same command again: it goes on from here"
        return DatasetError("disk-full", data, f"the disk is full; stopped at {stage}", remedy)
    path = data if error.filename is None else Path(os.fsdecode(error.filename))
    reason = (error.strerror or type(error).__name__).lower()
    if path.absolute().is_relative_to(data.absolute()):
        remedy = "name a folder that you may write to"
        return DatasetError("not-writable", path, f"cannot be written: {reason}; stopped at {stage}", remedy)
    remedy = "see that it may be read, or leave it out, and start the same command again"
    return DatasetError("not-readable", path, f"{reason}; stopped at {stage}", remedy)


def _further(options: ProcessOptions) -> list[Stage]:
    """The stages after the model that were asked for."""
    wanted = ((UNDISTORTION, options.undistort), (STEREO, options.mvs))
    return [stage for stage, asked in wanted if asked]


def _check(options: ProcessOptions) -> None:
    for name, least in (
        ("frames", 2),
        ("max_size", 64),
        ("mvs_size", 32),
        ("features", 64),
        ("threads", 0),
        ("seed", 0),
    ):
        value = getattr(options, name)
        if value is not None and value < least:
            raise UsageError(f"--{name.replace('_', '-')} {value}: give {least} or more")
    if options.chroma_key is not None:
        from splat.data.sfm.masks import key_colour

        key_colour(options.chroma_key)


class _Run:
    def __init__(
        self,
        data: Path,
        options: ProcessOptions,
        listener: Listener,
        ledger: Ledger,
        child: Child,
        snapshots: bool,
    ) -> None:
        self._data, self._options, self._listener = data, options, listener
        self._ledger, self._child, self._snapshots = ledger, child, snapshots
        self._job = data / "process" / "job.json"

    def photographs(self, found: Inputs, depends: str) -> str:
        """The first stage; gives its fingerprint."""
        from splat.data.sfm import gather

        def work(fresh: bool) -> Any:
            told = lambda done, total: self._listener.progress(PHOTOGRAPHS.name, done, total)  # noqa: E731
            return gather.gather(found, self._data, self._options, told)

        own = key(depends, found.fingerprint(), self._options.part(*PHOTOGRAPHS.depends))
        whole = True
        if self._ledger.state(PHOTOGRAPHS.name, own) == "done":
            pictures = self._ledger.result(PHOTOGRAPHS.name)["pictures"]
            whole = all((self._data / "images" / picture["name"]).is_file() for picture in pictures)
        self._once(PHOTOGRAPHS, own, work, whole)
        return own

    def stage(self, stage: Stage, depends: str) -> str:
        """A stage of the child process, after one of the fingerprint `depends`; gives its own."""

        def work(fresh: bool) -> Any:
            if fresh:
                self._clear(stage)
            document = {
                "data": str(self._data.resolve()),
                "pictures": self._ledger.result(PHOTOGRAPHS.name)["pictures"],
                "options": self._options.part(*asdict(self._options)),
                "snapshots": self._snapshots,
                "fresh": fresh,
            }
            with replacing(self._job) as file:
                file.write(json.dumps(document).encode())
            return self._child.run(
                stage.name,
                lambda message: self._listener.progress(stage.name, message["done"], message["total"]),
            )

        name = f"{stage.name} {stage.revision}" if stage.revision else stage.name
        own = key(depends, name, self._options.part(*stage.depends))
        self._once(stage, own, work, all((self._data / path).exists() for path in stage.leaves))
        return own

    def _once(self, stage: Stage, own: str, work: Callable[[bool], Any], whole: bool) -> None:
        """Do the work of a stage unless it is done."""
        state = self._ledger.state(stage.name, own)
        kept = state == "done" and whole
        self._listener.begin(stage.name, kept)
        if kept:
            return
        order = [PHOTOGRAPHS.name, *(each.name for each in STAGES)]
        ends = [UNDISTORTION.name, STEREO.name]
        after = order[order.index(stage.name) + 1 :] + ends if stage.name in order else []
        self._ledger.begin(stage.name, own, after)
        start = time.monotonic()
        try:
            result = work(state != "begun")
        except BaseException:
            with suppress(DataError):  # a disk that is full: the first error counts
                self._ledger.spent(stage.name, time.monotonic() - start)
            raise
        self._ledger.finish(stage.name, time.monotonic() - start, result)
        self._listener.end(stage.name, self._ledger.seconds(stage.name), result)

    def _clear(self, stage: Stage) -> None:
        """Remove what an earlier run with other inputs or options has left."""
        folder = self._data / "process"
        if stage.name == "features":
            for path in folder.glob("database.*"):
                path.unlink()
        if stage.name == "mapping":
            shutil.rmtree(folder / "models", ignore_errors=True)

    def summary(self) -> dict[str, Any]:
        """What was done, for people and programs; also written to process.json."""
        gathered, model = self._ledger.result("photographs"), self._ledger.result("model")
        mapping, matches = self._ledger.result("mapping"), self._ledger.result("matches")
        stages = [PHOTOGRAPHS, *STAGES, *_further(self._options)]
        summary = {
            **model,
            "data": str(self._data),
            "skipped": gathered["skipped"],
            "pairs": matches["pairs"],
            "verified_pairs": matches["verified"],
            "mapper": mapping["attempt"],
            "off_gps": mapping["models"][0]["gps"],
            "attempts": mapping["attempts"],
            "seconds": {stage.name: round(self._ledger.seconds(stage.name), 2) for stage in stages},
            "options": self._options.part(*asdict(self._options)),
            "pycolmap": version("pycolmap"),
        }
        with replacing(self._data / "process.json") as file:
            file.write(json.dumps(summary, indent=1).encode())
        return summary
