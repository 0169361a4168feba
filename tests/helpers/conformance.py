"""Files of ours and of others, made once: every format, every SH degree, every peer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import peers
import pytest
import scenes
import torch
from peers import Job

from splat import codecs
from splat.core import Gaussians, sh

COUNT = 300
DEGREES = range(4)


@dataclass(frozen=True)
class Variant:
    """A way of writing a file: the end of its name, and options; `readers` name the peers that read it. A `headed`
    scene has a neural head, which they pass over."""

    name: str
    extension: str
    readers: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    degrees: tuple[int, ...] = (0, 1, 2, 3)
    headed: bool = False


# What Splat writes, and who reads it.
OURS = (
    Variant("ply", ".ply", ("gaussforge", "gsply", "splat-transform", "gaussian-splats-3d")),
    Variant("compressed", ".compressed.ply", ("gaussforge", "gsply", "splat-transform")),
    Variant("splat", ".splat", ("gaussforge", "splat-transform", "gaussian-splats-3d"), degrees=(0,)),
    Variant("ksplat", ".ksplat", ("splat-transform", "gaussian-splats-3d"), degrees=(0, 1, 2)),
    Variant("spz2", ".spz", ("gaussforge", "gsply", "three", "gaussian-splats-3d"), {"version": 2}),
    Variant("spz3", ".spz", ("gaussforge", "gsply", "splat-transform", "three"), {"version": 3}),
    Variant("spz4", ".spz", ("gaussforge", "gsply", "splat-transform", "three"), {"version": 4}),
    Variant("sog", ".sog", ("gaussforge", "splat-transform")),
    Variant("folder", "meta.json", ("splat-transform",)),
    Variant("glb", ".glb", ("three",)),
    Variant(
        "headed",
        ".ply",
        ("gaussforge", "gsply", "splat-transform", "gaussian-splats-3d"),
        degrees=(0, 3),
        headed=True,
    ),
    Variant("headed-glb", ".glb", ("three",), degrees=(3,), headed=True),
)
# What others write of our .ply: writer, end of the name, options of the writer, SH degrees.
THEIRS = (
    ("splat-transform", ".ply", {}, DEGREES),
    ("splat-transform", ".compressed.ply", {}, DEGREES),
    ("splat-transform", ".spz", {"spzVersion": 3}, DEGREES),
    ("splat-transform", ".spz", {"spzVersion": 4}, DEGREES),
    ("splat-transform", ".sog", {}, DEGREES),
    ("splat-transform", "meta.json", {}, (3,)),
    ("splat-transform", ".glb", {}, DEGREES),
    ("gaussian-splats-3d", ".ksplat", {"level": 0}, (0, 2)),
    ("gaussian-splats-3d", ".ksplat", {"level": 1}, (0, 1, 2)),
    ("gaussian-splats-3d", ".ksplat", {"level": 2}, (1, 2)),
    ("gaussforge", ".ply", {}, (0, 3)),
    ("gaussforge", ".compressed.ply", {}, DEGREES),
    ("gaussforge", ".splat", {}, (0,)),
    # Not its harmonics: it orders them in a way of its own, and the format's author reads nothing of its files.
    ("gaussforge", ".ksplat", {}, (0,)),
    ("gaussforge", ".spz", {"spz_version": 3}, DEGREES),
    ("gaussforge", ".spz", {"spz_version": 4}, (0, 3)),
    ("gaussforge", ".sog", {}, (0, 3)),
    ("gsply", ".ply", {}, (0, 3)),
    ("gsply", ".compressed.ply", {}, DEGREES),
    ("gsply", ".spz", {"version": 3}, DEGREES),
    ("gsply", ".spz", {"version": 4}, (0, 3)),
)
# Who reads what a peer wrote, where that is not the peer itself: splat-transform does not read .glb.
READER = {("splat-transform", ".glb"): "three"}
NODE = {"splat-transform", "three", "gaussian-splats-3d"}


def named(folder: Path, stem: str, extension: str) -> Path:
    """A path in `folder` that ends with `extension`; meta.json gets a folder of its own."""
    path = folder / (f"{stem}{extension}" if extension.startswith(".") else f"{stem}/{extension}")
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def scene(degree: int) -> Gaussians:
    """300 Gaussians as a trained scene has them: no opacity at the ends of its byte, every sign and place of the
    largest component among the rotations, harmonics well within every format's range."""
    mixed = scenes.mixed(COUNT, seed=degree).to(torch.float32)
    random = torch.Generator().manual_seed(degree)
    return replace(
        mixed,
        log_scales=mixed.log_scales - 2,
        logit_opacities=mixed.logit_opacities.clamp(-4, 4),
        sh=torch.cat(
            [
                0.5 * torch.randn(COUNT, 1, 3, generator=random).clamp(-3, 3),
                0.15 * torch.randn(COUNT, sh.coefficients(degree) - 1, 3, generator=random).clamp(-3, 3),
            ],
            1,
        ),
    )


@dataclass
class Bench:
    """What was made. A failure is kept as its message until a test asks for the file.

    Attributes:
        ours: (variant, degree) -> the file that Splat wrote.
        theirs: (writer, extension, options, degree) -> the file that a peer wrote.
        answers: (file, peer) -> what the peer of Node made of the file.
        failed: output file -> message.
    """

    folder: Path
    ours: dict[tuple[str, int], Path] = field(default_factory=dict)
    theirs: dict[tuple[Any, ...], Path] = field(default_factory=dict)
    answers: dict[tuple[Path, str], Path] = field(default_factory=dict)
    failed: dict[Path, str] = field(default_factory=dict)

    def answer(self, file: Path, peer: str) -> Path:
        """What `peer` made of `file`; the test fails with the peer's message, or is skipped without Node."""
        missing = peers.node_missing()
        if missing:
            pytest.skip(missing)
        path = self.answers[file, peer]
        for step in (file, path):
            if step in self.failed:
                pytest.fail(f"{peer}: {self.failed[step]}")
        return path


def key_of(writer: str, extension: str, options: dict[str, Any], degree: int) -> tuple[Any, ...]:
    return writer, extension, tuple(sorted(options.items())), degree


def variants() -> list[tuple[Variant, int]]:
    """Those that this build of Splat writes."""
    known = codecs.extensions()
    return [(v, degree) for v in OURS if v.extension in known for degree in v.degrees]


def make(folder: Path) -> Bench:
    """Every file of ours and theirs below `folder`, and the answers of all peers of Node."""
    made = Bench(folder)
    jobs: list[Job] = []

    def ask(file: Path, peer: str) -> None:
        if peer not in NODE:
            return
        end = ".ply" if peer == "splat-transform" else ".json"
        answer = named(made.folder, f"{len(jobs)}-answer", end)
        made.answers[file, peer] = answer
        jobs.append(Job(peer, file, answer))

    for variant, degree in variants():
        file = named(made.folder, f"{variant.name}-{degree}", variant.extension)
        headed = scenes.headed(scene(degree)) if variant.headed else (scene(degree), {})
        codecs.encode(headed[0], file, headed[1], variant.options)
        made.ours[variant.name, degree] = file
        for peer in variant.readers:
            ask(file, peer)
    for number, (writer, extension, options, degrees) in enumerate(THEIRS):
        for degree in degrees:
            source, file = made.ours["ply", degree], named(made.folder, f"their-{number}-{degree}", extension)
            made.theirs[key_of(writer, extension, options, degree)] = file
            if writer in NODE:
                jobs.append(Job(writer, source, file, {**options, "degree": degree}))
            elif writer == "gaussforge" and _importable("gaussforge"):
                peers.forge_write(source, file, **options)
            elif writer == "gsply" and _importable("gsply"):
                peers.gsply_write(source, file, **options)
            ask(file, READER.get((writer, extension), writer))
    if peers.node_missing() is None:
        errors = peers.run_node(jobs, made.folder)
        made.failed = {job.output: error for job, error in zip(jobs, errors, strict=True) if error}
    return made


def _importable(name: str) -> bool:
    from importlib.util import find_spec

    return find_spec(name) is not None
