"""A run on disk: one folder, files written beside and renamed, the disk asked before every large write."""

from __future__ import annotations

import json
import os
import platform
import shlex
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from splat.core import DataError, UsageError
from splat.core.files import replacing
from splat.training import config as configuration
from splat.training.config import TrainConfig

_SPARE = 64 << 20  # bytes that a run leaves on the disk


def write_text(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())


def require_disk(folder: Path, need: int) -> None:
    """DataError unless the disk of `folder` has `need` bytes and something to spare."""
    have = shutil.disk_usage(folder).free
    if have < need + _SPARE:
        raise DataError(
            f"{folder}: not enough disk: {_megabytes(need + _SPARE)} needed, {_megabytes(have)} free; "
            "free some or give another folder with --out"
        )


class RunFolder:
    """The places in a run's folder; see `create` and `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.env = path / "env.json"
        self.log = path / "log.txt"
        self.metrics = path / "metrics.jsonl"
        self.checkpoints = path / "ckpts"
        self.stats = path / "stats"
        self.renders = path / "renders"
        self.exports = path / "exports"
        self.tensorboard = path / "tb"

    @property
    def quoted(self) -> str:
        """The path as a command line takes it."""
        return shlex.quote(str(self.path))

    @classmethod
    def create(cls, out: Path | None, scene: str, config: TrainConfig, data: Path) -> RunFolder:
        """A new run at exactly `out`, or at runs/SCENE/PRESET-TIME below the working directory."""
        if out is None:
            stem = Path("runs") / (scene or "scene") / f"{config.preset}-{time.strftime('%Y%m%d-%H%M%S')}"
            out = next(p for p in _numbered(stem) if not p.exists())
        elif out.exists() and not out.is_dir():
            raise UsageError(f"{out}: is a file; give a folder with --out")
        elif out.is_dir() and any(out.iterdir()):
            if (out / "config.yaml").exists() and (out / "ckpts").is_dir():
                raise UsageError(
                    f"{out}: already holds a run; use --resume {cls(out).quoted}, or give another --out"
                )
            raise UsageError(f"{out}: is not empty and holds no run; give a new folder with --out")
        folder = cls(out)
        try:
            for place in (folder.checkpoints, folder.stats, folder.renders, folder.exports):
                place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{out}: cannot make the run's folder: {error.strerror}") from error
        write_text(folder.env, json.dumps(environment(data), indent=2) + "\n")
        write_text(folder.config, configuration.to_yaml(config))
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The run at `path`; DataError if there is none."""
        folder = cls(path)
        if not path.is_dir():
            raise DataError(f"{path}: no such run folder")
        if not folder.config.exists():
            raise DataError(f"{path}: not a run folder: config.yaml is missing")
        return folder

    def read_config(self) -> TrainConfig:
        return configuration.load_file(self.config)

    def read_data(self) -> Path:
        """The dataset that the run was started on."""
        try:
            return Path(json.loads(self.env.read_text(encoding="utf-8"))["data"])
        except (OSError, ValueError, KeyError) as error:
            raise DataError(f"{self.env}: does not name the dataset; give it on the command line") from error

    def cut_metrics(self, step: int) -> None:
        """Drop the lines of metrics.jsonl that were written after `step`, and a torn last line."""
        if not self.metrics.exists():
            return
        kept = []
        for line in self.metrics.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    kept.append(line)
            except ValueError:
                continue
        write_text(self.metrics, "".join(line + "\n" for line in kept))


def environment(data: Path) -> dict[str, Any]:
    """What a reader of the run may ask: machine, versions, command line, dataset."""
    import splat

    return {
        "splat": splat.__version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "command": sys.argv,
        "data": str(data.resolve()),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _numbered(stem: Path) -> Iterator[Path]:
    yield stem
    number = 2
    while True:
        yield stem.with_name(f"{stem.name}-{number}")
        number += 1


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.0f} MB"
