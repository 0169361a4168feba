"""`splat export`: a trained scene in another format, edited and shrunk on the way if asked."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from splat.cli.command import (
    Common,
    Device,
    Flag,
    OptionalColour,
    OptionalFloat,
    OptionalInt,
    OptionalPath,
    check_colour,
    parse,
    print_json,
    size,
)

if TYPE_CHECKING:
    from splat.cli.exporting import Outcome
    from splat.codecs import Format

OptionalSize = Annotated[str | None, tyro.conf.arg(metavar="SIZE", help_behavior_hint="")]
OptionalBox = Annotated[
    tuple[float, float, float, float, float, float] | None,
    tyro.conf.arg(metavar="X Y Z X Y Z", help_behavior_hint=""),
]
OptionalVector = Annotated[
    tuple[float, float, float] | None, tyro.conf.arg(metavar="X Y Z", help_behavior_hint="")
]

DESCRIPTION = """Write a scene in the format of the extension: {extensions}.

RUN_OR_FILE is a run's folder (its last state), one of its checkpoints, or a scene file to convert. The scene
keeps the dataset's frame and units; where it lies too far from the origin for float32, it is written in local
coordinates and the offset is noted in the file. A turn by `splat process --orient` is undone first, unless
there is --keep-frame. What the format cannot hold is said before it is dropped.

Filters come first (--crop, --min-opacity, --max-scale, in the scene's own coordinates), then --prune, then
the move (--transform, --rotate, --scale, --translate).

--target-size and --target-psnr-drop choose how many Gaussians and SH bands to keep, and with which options to
write, and tell what they chose. PSNR is that of the decoded file on the held-out photographs of the run, or of
--data (on the training photographs where none is held out); a scene file without --data is compared with its
own renders.

Methods of --prune and of the targets:
{methods}

Examples:
  splat export runs/garden/cpu-20260131-101500 garden.ply
  splat export runs/garden/cpu-20260131-101500/ckpts/step_7000.pt garden-7000.ply
  splat export runs/garden/cpu-20260131-101500 garden.ply --target-size 5MB --report
  splat export garden.ply small.ply --data ~/photos/garden --prune 0.4 --method contribution --report
  splat export scan.splat scan.ply --crop -1 -1 -1 1 1 1 --rotate 90 0 0 --min-opacity 0.02"""


@dataclass
class Export(Common):
    scene: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_OR_FILE")]
    """A run's folder, a checkpoint or a scene file."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT.EXT")]
    """The file to write; an existing one is replaced once the new one is whole."""
    data: OptionalPath = None
    """The dataset of a file, for its photographs and cameras; of a run only where it was moved."""
    crop: OptionalBox = None
    """Keep the Gaussians with centres in this box: its low corner, then its high corner."""
    min_opacity: OptionalFloat = None
    """Leave out Gaussians of a lower opacity, 0 to 1."""
    max_scale: OptionalFloat = None
    """Leave out Gaussians with a longer axis (standard deviation, world units)."""
    sh_degree: OptionalInt = None
    """Keep no more bands of the colours' harmonics than up to this degree, 0 to 3."""
    prune: OptionalFloat = None
    """Leave out this share of the Gaussians, 0 to 1: those that --method puts last."""
    method: Annotated[str, tyro.conf.arg(metavar="NAME")] = "opacity"
    """What tells which Gaussians to leave out, see above; contribution needs cameras: a run, or --data."""
    transform: OptionalPath = None
    """Move the scene by the 4x4 matrix of this file, 16 numbers as text or JSON, row by row: a rotation, a
    uniform scale and a translation."""
    rotate: OptionalVector = None
    """Turn the scene by these angles, degrees, about the x, then the y, then the z axis."""
    scale: OptionalFloat = None
    """Enlarge the scene about the origin, after --rotate."""
    translate: OptionalVector = None
    """Shift the scene, after --scale."""
    target_size: OptionalSize = None
    """Make the best file of at most this size, such as 5MB, 800kB or 1.5MiB."""
    target_psnr_drop: OptionalFloat = None
    """Make the smallest file that loses at most this much PSNR, dB."""
    keep_frame: Flag = False
    """Leave the scene as its dataset lies: do not undo what `splat process --orient` did."""
    report: Flag = False
    """Tell the bytes of each part of the file, and, where there are photographs, the PSNR before and after."""
    downscale: OptionalFloat = None
    """Take photographs this many times smaller for PSNR; by default as the run was trained, or 1."""
    background: OptionalColour = None
    """Colour behind the scene for PSNR, red green blue in 0..1; by default the run's, or black."""
    device: Device = "auto"
    """Where to render for PSNR and contributions."""
    json: Flag = False
    """Print one JSON document."""


def main(argv: list[str]) -> int:
    from splat.cli import exporting

    args: Any = parse(_args_type(), "export", argv, pairs=True)
    check_colour(args.background)
    form, options = _options(args)
    outcome = exporting.export(args, form, options, say=_quiet if args.json else print)
    if args.json:
        print_json(dataclasses.asdict(outcome))
    else:
        _print(outcome, args.report)
    return 0


def _quiet(line: str) -> None:
    """Says nothing: stdout is for the JSON document, which holds the notes."""


def _args_type() -> type:
    """The flags, with one group for the write options of each format that has some."""
    from splat import codecs
    from splat.cli.exporting import search  # with the methods that strategies bring

    fields: list[Any] = []
    for form in _with_options():
        group = tyro.conf.arg(help=f"Options of {form.name} files ({', '.join(form.extensions)}).")
        fields.append((_slug(form), Annotated[form.options, group], form.options()))
    made = dataclasses.make_dataclass("Export", fields, bases=(Export,))
    methods = "\n".join(f"  {name}: {search.scorer(name).summary}" for name in search.names())
    made.__doc__ = DESCRIPTION.format(extensions=", ".join(codecs.extensions()), methods=methods)
    return made


def _with_options() -> list[Format]:
    from splat import codecs

    return [form for form in codecs.formats() if form.write is not None and dataclasses.fields(form.options)]


def _slug(form: Format) -> str:
    """A format's group of flags: spz, compressed_ply."""
    return form.extensions[0].strip(".").replace(".", "_").replace("-", "_")


def _options(args: Any) -> tuple[Format, Any]:
    """The format of the file to write and its options; UsageError where others are given."""
    from splat import codecs
    from splat.core import UsageError

    chosen = codecs.format_to_write(args.out)
    for form in _with_options():
        if form is not chosen and getattr(args, _slug(form)) != form.options():
            flag = _slug(form).replace("_", "-")
            raise UsageError(f"--{flag}.* is given, but {args.out} is written as {chosen.name}")
    return chosen, getattr(args, _slug(chosen), chosen.options())


def _print(outcome: Outcome, report: bool) -> None:
    """What was done, for people."""
    if outcome.target is not None:
        print(f"chosen: {outcome.target['chosen']}")
    elif outcome.pruned is not None:
        print(f"pruned by {outcome.pruned['method']}: {outcome.pruned['count']:,} Gaussians")
    if report:
        width = max(map(len, outcome.parts))
        for name, count in outcome.parts.items():
            print(f"  {name:<{width}}  {count:>13,} bytes  {100 * count / max(1, outcome.bytes):5.1f}%")
    if outcome.psnr is not None:
        score = outcome.psnr
        where = f"{score['count']} {score['views']}"
        if score["before"] is None:
            print(f"PSNR {score['after']:.2f} dB against {where} (no photographs: name them with --data)")
        else:
            change = score["after"] - score["before"]
            print(
                f"PSNR {score['before']:.2f} dB, of the file {score['after']:.2f} dB ({change:+.2f}): {where}"
            )
    each = f", {outcome.bytes / outcome.count:.1f} bytes each" if report and outcome.count else ""
    print(f"{outcome.count:,} Gaussians, {size(outcome.bytes)}{each}: {outcome.path}")
