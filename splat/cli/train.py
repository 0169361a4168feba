"""`splat train`: preset, file and flags to one configuration, and the run itself."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from splat.cli.command import Common, parse

if TYPE_CHECKING:
    from splat.training.config import TrainConfig

DESCRIPTION = """Train a scene from a dataset of posed photographs.

DATA is a folder with a COLMAP model (sparse/0 beside images/, binary or text), a transforms.json
(nerfstudio, instant-ngp) or Blender's transforms_train.json; `splat check DATA` tells whether it is sound.
What the run writes goes to runs/SCENE/PRESET-TIME, or to exactly --out: config.yaml, log.txt,
metrics.jsonl, ckpts/, stats/, renders/, tb/ and, at the end, exports/point_cloud.ply.

A setting comes from the flags, else from --config, else from --preset; the defaults below are those of the
preset and file that are named on this command line. --print-config shows the outcome.

Ctrl-C saves the state and exits with 130; --resume RUN goes on from there, with a larger --steps also past
the end of a finished run.

--viewer serves a page with the run in it and buttons to steer it; --keep-viewer keeps it after the last step.

Examples:
  splat train ~/photos/garden                            30,000 steps
  splat train ~/photos/garden --preset cpu --eval        minutes on a laptop, scored on held-out views
  splat train ~/photos/garden --preset mcmc --steps 7000 --downscale 4 --max-gaussians 500000
  splat train ~/photos/garden --strategies mcmc --mcmc.opacity-penalty 0.02 --rates.sh0 0.005
  splat train ~/photos/garden --viewer                   watch and steer it in the browser
  splat train --resume runs/garden/cpu-20260131-101500 --steps 10000

Presets: {presets}."""


def main(argv: list[str]) -> int:
    from splat.strategies import registry
    from splat.training import config as configuration

    known = registry.available()
    base = _base(argv)
    args_type = _args_type(base, known)
    args_type.__doc__ = DESCRIPTION.format(presets=", ".join(configuration.preset_names()))
    args: Any = parse(args_type, "train", argv, pairs=True)
    config = _config(args, base, known)
    if args.print_config:
        print(configuration.to_yaml(config), end="")
        return 0
    return _train(args, config)


def _train(args: Any, config: TrainConfig) -> int:
    from splat.core import UsageError
    from splat.strategies import registry
    from splat.training.run import train

    if args.resume is not None and args.out is not None:
        raise UsageError("--resume goes on in the folder of the run: leave --out out")
    if args.resume is None and args.data is None:
        raise UsageError(
            "no dataset: name a folder (splat train DATA), or a run to go on with (--resume RUN)"
        )
    strategies = registry.build(config.strategies, config.options)
    options: dict[str, Any] = {"strategies": strategies, "resume": args.resume}
    if not (args.viewer or args.keep_viewer):
        train(config, args.data, args.out, **options)
        return 0
    from splat.cli.view import watching

    with watching(args.viewer_host, args.viewer_port) as ready:
        train(config, args.data, args.out, ready=ready, keep=args.keep_viewer, **options)
    return 0


def _base(argv: list[str]) -> TrainConfig:
    """What preset, file and resumed run say, before any flag: the defaults of the flags."""
    from splat.core import UsageError
    from splat.training import config as configuration
    from splat.training.runfolder import RunFolder

    early = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for flag in ("--preset", "--config", "--resume"):
        early.add_argument(flag, nargs="?")  # the real parser complains about a missing value
    named = early.parse_known_args(argv)[0]
    base = None
    if named.resume is not None:
        if named.preset is not None:
            raise UsageError("--resume goes on with the settings of the run: leave --preset out")
        base = RunFolder.open(Path(named.resume)).read_config()
    if named.preset is not None:
        base = configuration.load_preset(named.preset)
    if named.config is not None:
        base = configuration.load_file(Path(named.config), base)
    return configuration.load_preset("default") if base is None else base


def _args_type(base: TrainConfig, known: dict[str, Any]) -> type:
    """The flags as a dataclass: those of the command, the settings, one group a strategy."""
    import tyro

    def path(text: str) -> Any:
        hint = tyro.conf.arg(help=text, metavar="PATH", help_behavior_hint="")
        return Annotated[Path | None, hint]

    def flag(text: str) -> Any:
        return Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(help=text)]

    dataset = tyro.conf.arg(
        help="The dataset; not needed with --resume.", metavar="DATA", help_behavior_hint=""
    )
    fields: list[Any] = [
        ("data", Annotated[Path | None, tyro.conf.Positional, dataset], None),
        ("config", path("A YAML file of settings, such as a run's config.yaml."), None),
        ("out", path("The run's folder, new or empty; by default runs/SCENE/PRESET-TIME."), None),
        ("resume", path("A run's folder: go on where it stopped."), None),
        ("viewer", flag("Show the run in the browser, and let it be steered there."), False),
        ("viewer_host", Annotated[str, tyro.conf.arg(help="Serve the viewer here.")], "127.0.0.1"),
        ("viewer_port", Annotated[int, tyro.conf.arg(help="The viewer's port, or the next free.")], 8080),
        ("keep_viewer", flag("Keep the viewer when the run is done, until Ctrl-C."), False),
        ("print_config", flag("Print every setting as YAML, and do nothing."), False),
        ("settings", Annotated[type(base), tyro.conf.arg(name="")], base),
    ]
    for name, strategy in known.items():
        group = tyro.conf.arg(help=f"Options of the strategy {name!r}.")
        fields.append((name, Annotated[strategy.config_type, group], _options(name, strategy, base)))
    return dataclasses.make_dataclass("Train", fields, bases=(Common,))


def _options(name: str, strategy: Any, base: TrainConfig) -> Any:
    """The strategy's own settings as preset and file have them."""
    from splat.training import schema

    return schema.apply(strategy.config_type(), base.options.get(name), f"options of {name}")


def _config(args: Any, base: TrainConfig, known: dict[str, Any]) -> TrainConfig:
    """The settings with the options of the chosen strategies in full."""
    from splat.core import UsageError
    from splat.training import schema

    settings = args.settings
    options = {}
    for name, strategy in known.items():
        if name in settings.strategies:
            options[name] = schema.to_mapping(getattr(args, name))
        elif getattr(args, name) != _options(name, strategy, base):
            names = " ".join(settings.strategies)
            raise UsageError(
                f"--{name}.* is given, but the strategies are {names}: add {name} to --strategies"
            )
    return dataclasses.replace(settings, options={**base.options, **options})
