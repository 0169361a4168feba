"""The pages stay true: README's Python runs, its commands, flags, presets and links exist."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from splat.cli import COMMANDS, main
from splat.core import Gaussians
from splat.training.config import preset_names
from splat.training.strategy import Strategy

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    *(f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")),
]


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    assert len(blocks) >= 2
    namespace: dict = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), namespace)


def test_the_strategy_of_the_page_on_strategies_works():
    page = (ROOT / "docs" / "writing-a-strategy.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    namespace: dict = {}
    exec(compile(block, "writing-a-strategy.md", "exec"), namespace)
    scene = Gaussians(torch.zeros(2, 3), torch.ones(2, 4), torch.log(torch.tensor([[1.0, 2, 3], [4, 5, 3]])),
                      torch.zeros(2), torch.zeros(2, 1, 3))  # fmt: skip
    strategy = namespace["Flat"](namespace["FlatConfig"](weight=0.5))
    assert strategy.losses(SimpleNamespace(gaussians=scene))["flat"].item() == pytest.approx(0.5 * 2)


def test_the_table_of_hooks_is_complete():
    page = (ROOT / "docs" / "writing-a-strategy.md").read_text()
    section = page.split("## The hooks")[1].split("\n## ")[0]
    shown = set(
        re.findall(r"`(\w+)(?:\([\w, ]*\))?`", "".join(re.findall(r"^\| (.*?) \|", section, re.MULTILINE)))
    )
    hooks = {n for n, h in vars(Strategy).items() if inspect.isfunction(h) or isinstance(h, classmethod)}
    assert shown == hooks - {"__init__"}


def test_the_table_of_commands_is_complete():
    assert set(re.findall(r"^\| `splat (\w+)", README, re.MULTILINE)) == set(COMMANDS)


def test_the_table_of_presets_is_complete():
    section = README.split("## Presets")[1].split("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)) == preset_names()


def test_the_commands_shown_exist_with_their_flags(capsys):
    """Every `splat ...` line of the README names a command and flags that its help has."""
    shown = re.findall(r"^splat (\w+)(.*?)(?:#.*)?$", README, re.MULTILINE)
    assert len(shown) >= 4
    for command, rest in shown:
        assert main([command, "--help"]) == 0
        text = capsys.readouterr().out
        for flag in re.findall(r"--[a-z][a-z.-]*", rest):
            assert flag in text, f"splat {command} has no {flag}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert ((ROOT / page).parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page):
    """Paths like data/points.py or docs/architecture.md that a page mentions."""
    folders = "splat|data|cuda|docs|scripts|configs|tests|core|raster|codecs|training|strategies|cli|viewer"
    for path in re.findall(
        rf"(?<![\w/.-])((?:{folders})/[\w/]+\.(?:py|md|h|sh|cpp|yaml))", (ROOT / page).read_text()
    ):
        assert (ROOT / path).exists() or (ROOT / "splat" / path).exists(), path
