"""The names that others build on, and how long they take to import."""

from __future__ import annotations

import importlib
import inspect
import resource
import subprocess
import sys

import pytest

# A name that goes or changes is a breaking change: it needs a line in CHANGELOG.md.
SURFACE = {
    "splat": ["Camera", "Gaussians", "RenderOptions", "RenderOutput", "SplatError", "__version__", "render"],
    "splat.core": [
        *("Camera", "DataError", "DeviceError", "Gaussians", "Interrupted", "SplatError", "UsageError"),
    ],
    "splat.raster": ["RenderOptions", "RenderOutput", "draw", "render"],
    "splat.codecs": [
        *("Decoded", "Format", "decode", "differences", "encode", "extensions", "format_to_write", "formats"),
        *("inspect", "losses", "sniff"),
    ],
    "splat.data": ["Dataset", "Frame", "Photo", "Points", "Scene", "Tracks", "random_points", "read_scene"],
}

# What a strategy may override, with the arguments that it is given.
HOOKS = {
    "forecast": ["count", "cap", "taken", "steps"],
    "setup": ["ctx"],
    "proposal": ["views"],
    "needed": ["ctx"],
    "renders": ["ctx"],
    "transform": ["gaussians", "ctx"],
    "features": ["gaussians", "ctx"],
    "after_render": ["output", "ctx"],
    "head": ["ctx"],
    "losses": ["ctx"],
    "penalties": ["ctx"],
    "after_backward": ["ctx"],
    "after_step": ["ctx"],
    "runs_ahead": ["ctx"],
    "numbers": ["ctx"],
    "repeats": ["ctx"],
    "edited": ["edit", "ctx"],
    "panel": ["ctx"],
    "export": ["ctx"],
    "state_dict": [],
    "load_state_dict": ["state"],
}


@pytest.mark.parametrize("module", SURFACE)
def test_public_names_are_pinned(module):
    found = importlib.import_module(module)
    assert sorted(found.__all__) == sorted(SURFACE[module])
    for name in SURFACE[module]:
        assert getattr(found, name) is not None
        assert name in dir(found)


def test_the_hooks_of_a_strategy_are_pinned():
    from splat.training.strategy import Strategy

    found = {
        name: list(inspect.signature(hook).parameters)[1:]
        for name, hook in vars(Strategy).items()
        if inspect.isfunction(hook) and not name.startswith("_")
    }
    assert found == HOOKS


def test_an_unknown_name_is_an_attribute_error():
    import splat

    with pytest.raises(AttributeError, match="no_such_name"):
        _ = splat.no_such_name


def seconds(code: str, cwd) -> float:
    """Of processor time, the best of three: the machine may be busy with other things."""
    best = float("inf")
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-c", code], cwd=cwd, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return best


def test_import_takes_little_beyond_torch(tmp_path):
    """With every public name loaded, and the modules that train: at most as long again as torch itself."""
    torch = seconds("import torch", tmp_path)
    names = ", ".join(SURFACE["splat"])
    code = f"from splat import {names}; import splat.data, splat.training.run, splat.strategies.registry, splat.codecs"
    assert seconds(code, tmp_path) < 2 * torch


def test_heavy_packages_are_imported_only_where_they_are_used(tmp_path):
    """Everything but the commands that need them runs without viser, open3d, gsplat, pycolmap and imageio."""
    code = (
        "import sys, splat; from splat import render; import splat.data, splat.training.run, splat.codecs;"
        "import splat.strategies.registry, splat.cli, splat.viewer;"
        "print([m for m in ('viser', 'open3d', 'gsplat', 'pycolmap', 'imageio', 'PIL', 'tensorboard', 'lpips')"
        " if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
