"""Which strategies there are, and what is wrong with those that are not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from splat.core import UsageError
from splat.strategies import registry
from splat.strategies.default import Default, DefaultConfig
from splat.strategies.mcmc import Mcmc, McmcConfig
from splat.training.strategy import Strategy

PLUGIN = """
from dataclasses import dataclass

from splat.training.strategy import Strategy


@dataclass(frozen=True)
class Config:
    strength: float = 2.0


class Plugin(Strategy):
    name = "plugin"
    config_type = Config


class Bare(Strategy):
    name = "bare"
"""


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """install(line of entry_points.txt): a distribution acme-splats 1.2 with that entry point."""

    def write(line: str, module: str = "acme_splats") -> None:
        (tmp_path / f"{module}.py").write_text(PLUGIN)
        (tmp_path / "acme_broken.py").write_text("import acme_engine_that_is_missing")
        info = tmp_path / "acme_splats-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-splats\nVersion: 1.2\n")
        (info / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{line}\n")
        monkeypatch.syspath_prepend(tmp_path)

    return write


def test_built_in():
    assert {"default": Default, "mcmc": Mcmc}.items() <= registry.available().items()
    (strategy,) = registry.build(["default"])
    assert isinstance(strategy, Default)
    assert strategy.config == DefaultConfig()


def test_options_as_mapping_or_dataclass():
    (first,) = registry.build(["mcmc"], {"mcmc": {"noise": 1.0}, "default": {"absgrad": True}})
    (second,) = registry.build(["mcmc"], {"mcmc": McmcConfig(noise=1.0)})
    assert first.config == second.config == McmcConfig(noise=1.0)


def test_plugin(install):
    install("plugin = acme_splats:Plugin")
    strategies = registry.build(["mcmc", "plugin"], {"plugin": {"strength": 3.0}})
    assert [s.name for s in strategies] == ["mcmc", "plugin"]
    assert strategies[1].config.strength == 3.0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("plugin = acme_broken:Plugin", "does not load .ModuleNotFoundError: .*acme_engine_that_is_missing"),
        ("plugin = acme_splats:Missing", "does not load .AttributeError"),
        ("plugin = acme_splats:dataclass", "is not a subclass of splat.training.strategy.Strategy"),
        ("bare = acme_splats:Bare", "has no dataclass as its config_type"),
        ("mcmc = acme_splats:Plugin", "takes a name that is taken"),
    ],
)
def test_bad_plugins_name_their_distribution(install, line: str, message: str):
    install(line)
    with pytest.raises(UsageError, match=f"distribution acme-splats 1.2 {message}"):
        registry.available()


@dataclass
class Unrelated:
    noise: float = 1.0


@pytest.mark.parametrize(
    ("names", "configs", "message"),
    [
        (["mcmx"], {}, "unknown strategy 'mcmx'; did you mean 'mcmc'"),
        (["mcmc", "mcmc"], {}, "'mcmc' is named more than once"),
        ([], {}, "exactly one strategy controls density, of default, mcmc; none"),
        (["mcmc", "default"], {}, "exactly one strategy controls density.*mcmc and default"),
        (["mcmc"], {"mcmc": {"nose": 1}}, "options of mcmc: unknown key 'nose'; did you mean 'noise'"),
        (["mcmc"], {"mcmc": {"noise": "loud"}}, "options of mcmc: noise: expected float, got 'loud'"),
        (["mcmc"], {"mcmc": 3}, "options of mcmc: expected keys and values, got 3"),
        (["mcmc"], {"mcmc": Unrelated()}, "options of mcmc: expected keys and values, got Unrelated"),
    ],
)
def test_refusals(names: list[str], configs: dict, message: str):
    with pytest.raises(UsageError, match=message):
        registry.build(names, configs)


class _Moving(Strategy):
    name = "moving"
    config_type = McmcConfig

    def transform(self, gaussians, ctx):
        return gaussians


class _Rounding(_Moving):
    name = "rounding"
    transforms_last = True


def test_nothing_transforms_after_what_makes_the_file_ready(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registry, "BUILT_IN", (Mcmc, _Moving, _Rounding))
    assert len(registry.build(["moving", "mcmc", "rounding"])) == 3
    assert len(registry.build(["rounding", "mcmc"])) == 2
    with pytest.raises(UsageError, match=r"moving would change what rounding .* name moving before rounding"):
        registry.build(["mcmc", "rounding", "moving"])
