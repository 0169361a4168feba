"""Presets, files and flags: what is read is what is meant, and what is wrong is named."""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path

import pytest

from splat.core import UsageError
from splat.strategies import registry
from splat.training import schema
from splat.training.config import TrainConfig, load_file, load_preset, preset_names, to_yaml


def written(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text)
    return path


def test_presets_are_there_and_load() -> None:
    assert {"default", "mcmc", "fast", "cpu"} <= set(preset_names())
    for name in preset_names():
        assert load_preset(name).preset == name
    assert load_preset("default") == TrainConfig()


def test_the_strategies_of_every_preset_are_there_and_take_its_options() -> None:
    for name in preset_names():
        config = load_preset(name)
        built = registry.build(config.strategies, config.options)
        assert [strategy.name for strategy in built] == list(config.strategies)


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'mcmc'"):
        load_preset("mcm")


@pytest.mark.parametrize("name", ["default", "mcmc", "fast", "cpu"])
def test_yaml_reads_back_equal(name: str, tmp_path: Path) -> None:
    preset = load_preset(name)
    options = {"mcmc": {**preset.options.get("mcmc", {}), "growth": 1.2}}
    config = replace(preset, options=options, max_gaussians=7, eval_steps=(3,))
    assert load_file(written(tmp_path, to_yaml(config))) == config


def test_a_file_goes_over_the_preset_and_merges_options(tmp_path: Path) -> None:
    path = written(tmp_path, "steps: 9\nrates: {sh0: 1e-3}\noptions: {mcmc: {growth: 1.2}}\n")
    base = replace(load_preset("cpu"), options={"mcmc": {"noise": 1.0}, "other": {"x": 1}})
    config = load_file(path, base)
    assert config.preset == "cpu"
    assert config.steps == 9
    assert config.rates == replace(base.rates, sh0=1e-3)
    assert config.max_gaussians == base.max_gaussians
    assert config.options == {"mcmc": {"noise": 1.0, "growth": 1.2}, "other": {"x": 1}}


def test_a_file_may_name_its_preset(tmp_path: Path) -> None:
    assert load_file(written(tmp_path, "preset: cpu\nseed: 1\n")) == replace(load_preset("cpu"), seed=1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz: 3", r"unknown key 'stepz'; did you mean 'steps'\?"),
        ("rates: {sh_0: 1}", r"rates: unknown key 'sh_0'; did you mean 'sh0'\?"),
        ("steps: many", "steps: expected int, got 'many'"),
        ("steps: true", "steps: expected int, got True"),
        ("eval: 1", "eval: expected bool, got 1"),
        ("background: green", "'green' .* is not one of black, white, random"),
        ("strategies: mcmc", "strategies: expected a list"),
        ("init: 3", "init: expected keys and values"),
        ("- 1\n- 2", "expected keys and values"),
        ("steps: [", "not a YAML file"),
        ("steps: 0", "steps: 0 is not a positive number"),
        ("downscale: 0.5", "downscale: 0.5 would enlarge"),
        ("init: {opacity: 1.0}", "init.opacity: 1.0 is not between 0 and 1"),
        ("rates: {means: 0.0}", "rates.means: 0.0 is not a positive number"),
        ("rates: {sh0: -1.0}", "rates.sh0: -1.0 is not a positive number"),
        ("rates: {quats: .nan}", "rates.quats: nan is not a positive number"),
        ("seed: -1", "seed: -1 is not between 0 and 2"),
        ("eval_steps: [5, 0]", "eval_steps: 5 0: steps are counted from 1"),
        ("max_gaussians: 0", "max_gaussians: 0 is not a positive number"),
    ],
)
def test_mistakes_are_usage_errors_that_name_key_and_remedy(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        load_file(written(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent\.yaml: cannot read"):
        load_file(tmp_path / "absent.yaml")


def test_whole_numbers_and_bare_exponents_are_floats(tmp_path: Path) -> None:
    config = load_file(written(tmp_path, "downscale: 2\nrates: {means: 1e-4}\nmax_gaussians: null\n"))
    assert config.downscale == 2.0
    assert isinstance(config.downscale, float)
    assert config.rates.means == 1e-4


def test_every_setting_has_help() -> None:
    """The docstrings under the fields become the command's help; one that is missing would leave a gap."""
    source = Path(schema.__file__).with_name("config.py").read_text()
    for kind in (TrainConfig, type(TrainConfig().init)):
        for f in fields(kind):
            declaration = source.split(f"\n    {f.name}: ", 1)[1]
            assert declaration.split("\n", 1)[1].lstrip().startswith('"""'), f.name
