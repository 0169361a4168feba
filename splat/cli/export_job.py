"""One export under way: the scene after the filters, what a plan keeps of it, its file and its score."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from splat import codecs
from splat.cli import moving
from splat.cli.opening import opening
from splat.cli.scene import Loaded
from splat.cli.views import Views, own_renders, photographs
from splat.codecs import Format, search
from splat.core import Gaussians
from splat.core.transforms import Similarity, transform_gaussians
from splat.core.world import place
from splat.strategies import registry

Say = Callable[..., None]


@dataclass
class Job:
    """One export: what was asked for, and the scene after the filters, still in its own coordinates.

    Attributes:
        args: the command's arguments.
        form, options: of the file to write.
        loaded: what RUN_OR_FILE named.
        scene: on the CPU, filtered, the coordinates those of `loaded`.
        metadata: what a codec should know.
        move: from the world frame of `loaded` to that of the file.
        say: prints a line for people.
        rows: [N] int64, of `scene` among the Gaussians of `loaded`.
    """

    args: Any
    form: Format
    options: Any
    loaded: Loaded
    scene: Gaussians
    metadata: dict[str, Any]
    move: Similarity
    say: Say
    rows: Tensor
    notes: list[str] = field(default_factory=list)

    def note(self, *lines: str) -> None:
        """Tell these lines, each once."""
        for line in lines:
            if line not in self.notes:
                self.notes.append(line)
                self.say(f"note: {line}")

    @cached_property
    def placed(self) -> tuple[Gaussians, Tensor]:
        """The scene as the file has it, in the world frame where float32 allows; where the origin of the
        scene's own coordinates lies in it, [3] float64."""
        origin, turn = self.move.points(self.loaded.offset), moving.turn(self.move)
        placement = place(self.scene if turn is None else transform_gaussians(self.scene, turn), origin)
        self.metadata.pop("offset", None)
        if placement.offset is not None:
            self.metadata["offset"] = placement.offset.tolist()
            origin = origin - placement.offset
        if turn is not None and self.metadata.get("up_axis"):
            self.metadata["up_axis"] = moving.turned_axis(self.metadata["up_axis"], self.move)
        if placement.note:
            self.note(placement.note)
        if "view" in self.form.holds:
            if turn is not None:
                self.metadata.pop("view", None)
            self.metadata.update(opening(self.loaded, self.scene, turn, origin))
        return placement.gaussians, origin

    @cached_property
    def photographs(self) -> Views | None:
        """Those of the run's dataset or of --data; None for a file without."""
        if self.loaded.session is None and self.loaded.data is None:
            return None
        return photographs(self.loaded, self.args.downscale, self.args.background)

    @cached_property
    def views(self) -> Views:
        """What PSNR is taken on."""
        if self.photographs is not None:
            return self.photographs
        behind = self.args.background or self.loaded.background
        return own_renders(self.loaded.gaussians, behind, self.loaded.heads)

    @cached_property
    def ranking(self) -> Tensor:
        """[N] the Gaussians of the scene, the most wanted first."""
        seen = None if self.photographs is None else self.photographs.viewpoints()
        return search.ranking(self.args.method, self.scene.to(self.loaded.gaussians.device), seen)

    def kept(self, plan: search.Plan) -> Gaussians:
        """What a plan keeps of the file's scene, rows in their own order, grown to cover what it leaves out."""
        scene = self.placed[0]
        if plan.keep < len(scene):
            scene = search.survivors(scene, self.ranking[: plan.keep].sort().values)
        return search.lower_degree(scene, plan.sh_degree)

    def metadata_of(self, plan: search.Plan) -> dict[str, Any]:
        """What a codec should know of what a plan keeps."""
        rows = self.rows
        if self.metadata.get("codebooks") and plan.keep < len(self.scene):
            rows = rows[self.ranking[: plan.keep].sort().values]
        whole = plan.sh_degree >= self.loaded.gaussians.sh_degree
        metadata, notes = search.kept_metadata(
            self.metadata,
            rows,
            len(self.loaded.gaussians),
            as_learned=whole and moving.turn(self.move) is None,
        )
        self.note(*notes)
        return metadata

    def settings(self, plan: search.Plan) -> Any:
        """The write options of a plan."""
        return dataclasses.replace(self.options, **plan.options)

    def encode(self, plan: search.Plan, path: Path) -> list[str]:
        return codecs.encode(self.kept(plan), path, self.metadata_of(plan), self.settings(plan))

    def psnr(self, path: Path, every: bool = True) -> float:
        """PSNR in dB of the file at `path`, as the cameras of the scene that it was made from see it."""
        found, metadata = codecs.decode(path)
        means = (found.means.double() - self.placed[1]).float()
        local = dataclasses.replace(found, means=means).to(self.loaded.gaussians.device)
        heads, _ = registry.heads(metadata.get("heads") or {}, local.device)
        return self.views.psnr(self.views.of_scene(local, moving.turn(self.move), heads), every)

    def psnr_before(self, every: bool = True) -> float:
        """PSNR in dB of the scene that was read, with the heads of its run."""
        return self.views.psnr(lambda camera: self.loaded.draw(camera, self.views.background), every)
