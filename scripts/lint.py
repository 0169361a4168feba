"""Checks the layers (import-linter) and the types (mypy) of the package as it is installed.

`data/`, `viewer/` and `configs/` lie at the repository's root and install inside `splat` (pyproject.toml,
tool.scikit-build.wheel.packages). Both tools read folders, so this lays that tree out of links first.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TREE = ROOT / "build" / "lint"


def package_table() -> dict[str, str]:
    """Installed path -> folder, from pyproject.toml; its plain lines need no TOML parser (3.10 has none)."""
    text = (ROOT / "pyproject.toml").read_text()
    section = text.split("[tool.scikit-build.wheel.packages]")[1].split("\n[")[0]
    table = dict(re.findall(r'^"(.+)" = "(.+)"$', section, re.MULTILINE))
    if not table:
        raise SystemExit("lint: pyproject.toml has no table tool.scikit-build.wheel.packages")
    return table


def lay_out_tree() -> None:
    """build/lint/splat: links to the sources, in the places where they install."""
    shutil.rmtree(TREE, ignore_errors=True)
    for installed, folder in sorted(package_table().items()):
        place = TREE / installed
        if installed == "splat":
            place.mkdir(parents=True)
            for entry in (ROOT / folder).iterdir():
                (place / entry.name).symlink_to(entry)
        else:
            place.symlink_to(ROOT / folder)


def layers() -> int:
    """Run the contracts of pyproject.toml over the tree."""
    from importlinter.cli import lint_imports

    # The editable install's finder answers before sys.path does, and knows only the scattered folders.
    sys.meta_path[:] = [f for f in sys.meta_path if "Redirecting" not in type(f).__name__]
    os.chdir(TREE)  # import-linter puts the working directory first in sys.path
    return lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)


def types() -> int:
    from mypy.main import main as mypy

    os.environ["MYPYPATH"] = str(TREE)
    try:
        mypy(args=["--config-file", str(ROOT / "pyproject.toml"), "-p", "splat"], clean_exit=True)
    except SystemExit as exit:
        return int(exit.code or 0)
    return 0


if __name__ == "__main__":
    lay_out_tree()
    sys.exit(max(layers(), types()))
