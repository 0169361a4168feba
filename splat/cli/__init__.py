"""The `splat` command: picks the module of a command, runs it, and turns every outcome into an exit code.

Exit codes: 0 done, 1 failure, 2 usage, 3 bad data, 4 device or memory, 130 interrupted. Nothing heavy is
imported before a command is known: `splat --help` answers at once.
"""

from __future__ import annotations

import contextlib
import difflib
import errno
import os
import sys
import traceback
from importlib import import_module

COMMANDS = {
    "process": ("INPUT ... DATA", "make a dataset of photographs or videos: find the cameras' poses"),
    "train": ("DATA", "train a scene from a dataset of posed photographs"),
    "eval": ("RUN_OR_FILE", "score a scene against photographs: PSNR, SSIM, LPIPS"),
    "render": ("RUN_OR_FILE", "render images or a video along cameras, a path or an orbit"),
    "view": ("RUN_OR_FILE ...", "show scenes in the browser"),
    "export": ("RUN_OR_FILE OUT.EXT", "write a scene in another format, chosen by extension"),
    "check": ("DATA", "list every problem of a dataset, and what to do about it"),
    "info": ("FILE", "tell what a scene file, a run or a dataset holds"),
    "doctor": ("", "tell what this machine can do, and what to install"),
    "demo": ("", "make the sample scene, train it, score it, export it"),
}


def usage() -> str:
    width = max(len(f"{name} {operands}") for name, (operands, _) in COMMANDS.items())
    lines = [
        f"  {f'{name} {operands}':<{width}}  {summary}" for name, (operands, summary) in COMMANDS.items()
    ]
    return "\n".join(
        [
            "usage: splat COMMAND [options]",
            "",
            "Turns photographs into 3D Gaussian scenes, on an NVIDIA GPU or any CPU.",
            "",
            "commands:",
            *lines,
            "",
            "examples:",
            "  splat demo                                    see the whole path on a built-in scene",
            "  splat process ~/photos/garden garden          photographs or a video to a dataset",
            "  splat check garden                            is this dataset sound?",
            "  splat train garden --preset cpu --eval",
            "  splat export runs/garden/cpu-20260131-101500 garden.ply",
            "",
            "splat COMMAND --help tells more; --debug shows tracebacks; --version the version.",
        ]
    )


def main(argv: list[str] | None = None) -> int:
    """Run one command and return the exit code of the process. The console script `splat`."""
    argv = sys.argv[1:] if argv is None else argv
    try:
        code = _dispatch(argv)
        sys.stdout.flush()
        return code
    except SystemExit as exit:  # tyro: 0 after --help, 2 after a usage error
        return exit.code if isinstance(exit.code, int) else 0 if exit.code is None else 1
    except BrokenPipeError:
        # The reader of our output has gone (splat info FILE | head); nothing may be written to it any more.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (Exception, KeyboardInterrupt) as error:
        code, message = explain(error)
        if "--debug" in argv:
            traceback.print_exc()
        print(f"splat: {message}", file=sys.stderr)
        return code


def _dispatch(argv: list[str]) -> int:
    if not argv or argv[0] in ("-h", "--help", "help"):
        if len(argv) > 1 and argv[1] in COMMANDS:  # splat help train
            return _dispatch([argv[1], "--help"])
        print(usage(), file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    if argv[0] in ("-V", "--version"):
        from splat import __version__

        print(f"splat {__version__}")
        return 0
    name = argv[0]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, 1, 0.5)
        meant = f"did you mean {near[0]!r}?" if near else f"one of {', '.join(COMMANDS)}"
        print(f"splat: unknown command {name!r}: {meant} (splat --help tells about each)", file=sys.stderr)
        return 2
    return import_module(f"splat.cli.{name}").main(argv[1:])


def explain(error: BaseException) -> tuple[int, str]:
    """Exit code and message of an error that ended a command."""
    from splat.core.errors import SplatError

    if isinstance(error, SplatError):
        return error.exit_code, str(error)
    if isinstance(error, KeyboardInterrupt):
        return 130, "interrupted"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return 4, f"out of memory ({error}): train with a larger --downscale or a lower --max-gaussians"
    if isinstance(error, OSError) and error.filename is not None:
        reason = error.strerror or type(error).__name__
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return 3, f"{error.filename}: {reason}: free some disk space or choose another folder with --out"
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
            return (
                3,
                f"{error.filename}: {reason}: change its permissions, or name a place that you may write to",
            )
        return 1, f"{error.filename}: {reason}"
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return 3, f"{error.strerror}: free some disk space or choose another folder with --out"
    detail = f"{type(error).__name__}: {error}".rstrip(": ")
    return 1, f"unexpected error, a defect of ours: {detail} (--debug shows where)"
