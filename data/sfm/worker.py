"""The child process of `splat process`: python -m splat.data.sfm.worker JOB.

It reads names of stages from its standard input, a line each, and does each as JOB, a JSON file, says at that time. On
its standard output it writes one JSON document a line: {"done", "total"} as it goes, and at the end of a stage
{"result"} or {"error"}. Whatever COLMAP prints goes to the standard error, which is the log.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from splat.data.problems import DatasetError
from splat.data.sfm.options import ProcessOptions
from splat.data.sfm.picture import Picture

_INTERVAL = 0.2  # seconds between two reports of progress


@dataclass
class Job:
    """What a stage works on.

    Attributes:
        data: the dataset; `process` in it has the database and the models.
        pictures: sorted by name.
        options: as the user gave them.
        fresh: whether nothing of the stage was done before from the same inputs.
        snapshots: whether to write unfinished models for the viewer.
        stream: where messages go.
    """

    data: Path
    pictures: list[Picture]
    options: ProcessOptions
    fresh: bool
    snapshots: bool
    stream: TextIO

    def __post_init__(self) -> None:
        self._told = 0.0

    @property
    def folder(self) -> Path:
        return self.data / "process"

    @property
    def images(self) -> Path:
        return self.data / "images"

    @property
    def database(self) -> Path:
        return self.folder / "database.db"

    @property
    def threads(self) -> int:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return self.options.threads or cores

    def send(self, message: dict[str, Any]) -> None:
        self.stream.write(json.dumps(message) + "\n")
        self.stream.flush()

    def progress(self, done: int, total: int) -> None:
        """Tell how far the stage is; often is fine."""
        now = time.monotonic()
        if done >= total or now - self._told >= _INTERVAL:
            self._told = now
            self.send({"done": done, "total": total})


def read_job(path: Path, stream: TextIO) -> Job:
    document = json.loads(path.read_text(encoding="utf-8"))
    options = document["options"]
    options["masks"] = None  # they are in the dataset already
    pictures = [Picture(**picture) for picture in document["pictures"]]
    options = ProcessOptions(**options)
    return Job(Path(document["data"]), pictures, options, document["fresh"], document["snapshots"], stream)


def main(argv: list[str]) -> int:
    # Messages keep the standard output to themselves; what libraries print joins the log.
    stream = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    wanted: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(wanted,), daemon=True).start()
    # Pillow's libraries first: loaded after pycolmap's, its PNG encoder meets another zlib and aborts.
    import PIL.Image

    PIL.Image.init()
    while True:
        stage = wanted.get()
        print(f"==== {stage}, {time.strftime('%Y-%m-%d %H:%M:%S')}", file=sys.stderr, flush=True)
        job = read_job(Path(argv[0]), stream)
        try:
            job.send({"result": _stage(stage)(job)})
        except DatasetError as error:
            fields = {
                "code": error.code,
                "path": str(error.path),
                "cause": error.cause,
                "remedy": error.remedy,
            }
            job.send({"error": fields})


def _listen(wanted: queue.SimpleQueue[str]) -> None:
    """Pass on the names of stages, a line each, and end when the command that started this one has ended."""
    for line in sys.stdin:
        wanted.put(line.strip())
    os._exit(1)


def _stage(name: str) -> Callable[[Job], Any]:
    if name == "stereo":
        from splat.data.sfm.dense import dense

        return dense
    from splat.data.sfm import features, finish, mapping, matching

    return {
        "features": features.extract,
        "matches": matching.match,
        "mapping": mapping.reconstruct,
        "model": finish.finish,
        "undistortion": finish.undistort,
    }[name]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
