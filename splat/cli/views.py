"""The views that an export is judged by, and pruned by: photographs of a dataset, or the scene's own renders."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from splat.cli.scene import Colour, Loaded
from splat.codecs.search import Viewpoints
from splat.core import Camera, Gaussians, orbits
from splat.core.heads import Head
from splat.core.transforms import Similarity, transform_camera
from splat.raster import RenderOptions, render
from splat.raster import draw as draw_scene
from splat.training.evaluate import photograph
from splat.training.losses import psnr

Draw = Callable[[Camera], Tensor]

_MOST_SCORED = 12  # views that a search looks at; the outcome is scored on all
_MOST_PRUNED_BY = 100  # views that pruning looks at
_OWN_VIEWS, _OWN_SIZE = 8, (320, 240)
_BEST = 100.0  # dB, what equal images count


@dataclass(frozen=True)
class View:
    """A camera in the scene's own coordinates, and what it should see: [H, W, 3] in [0, 1], and a mask."""

    camera: Camera
    truth: Callable[[], tuple[Tensor, Tensor | None]]


@dataclass(frozen=True)
class Views:
    """Where a scene is looked at from.

    Attributes:
        kind: what they are, in the plural.
        scored: what PSNR is taken over.
        pruned_by: cameras for the scorers that need some; none of the held-out ones.
        background: colour behind the scene.
    """

    kind: str
    scored: Sequence[View]
    pruned_by: Sequence[Camera]
    background: Colour

    def viewpoints(self) -> Viewpoints:
        """For the scorers."""

        def drawn(gaussians: Gaussians, camera: Camera, needs: frozenset[str]) -> Any:
            with torch.no_grad():
                return render(gaussians, camera, RenderOptions(needs=needs))

        return Viewpoints(_some(self.pruned_by, _MOST_PRUNED_BY), drawn)

    @torch.no_grad()
    def psnr(self, draw: Draw, every: bool = True) -> float:
        """Mean PSNR in dB of what `draw` makes of the cameras; of a dozen of them unless `every`."""
        total, views = 0.0, self.scored if every else _some(self.scored, _MOST_SCORED)
        for view in views:
            truth, mask = view.truth()
            image = draw(view.camera).clamp(0, 1)
            total += min(_BEST, psnr(image, truth.to(image), None if mask is None else mask.to(image.device)))
        return total / len(views)

    def of_scene(
        self, gaussians: Gaussians, turn: Similarity | None = None, heads: Sequence[Head] = ()
    ) -> Draw:
        """What draws `gaussians` with their heads: the scene's own, turned and scaled by `turn` about their origin."""
        behind = torch.tensor(self.background, device=gaussians.device)

        def draw(camera: Camera) -> Tensor:
            moved = camera if turn is None else transform_camera(camera, turn)
            options = RenderOptions(background=behind)
            return draw_scene(gaussians, moved.to(gaussians.device), options, heads).image

        return draw


def photographs(loaded: Loaded, downscale: float | None, background: Colour | None) -> Views:
    """The held-out photographs of the scene's dataset; the training ones where none are held out.

    UsageError where the scene has no dataset.
    """
    dataset = loaded.dataset(downscale, background)
    behind = background or loaded.background

    def view(index: int) -> View:
        def truth() -> tuple[Tensor, Tensor | None]:
            image, mask = photograph(dataset, index, behind)
            return image.float() / 255, mask

        return View(loaded.local(dataset.camera(index), dataset.offset), truth)

    held_out = len(dataset.test) > 0
    scored = [view(index) for index in (dataset.test or dataset.train)]
    training = [loaded.local(dataset.camera(index), dataset.offset) for index in dataset.train]
    return Views("held-out views" if held_out else "training views", scored, training, behind)


def own_renders(gaussians: Gaussians, background: Colour, heads: Sequence[Head] = ()) -> Views:
    """Renders of the scene itself from a circle around it: how far a file is from it, without photographs."""
    circle = orbits.orbit(orbits.around(gaussians.means, *_OWN_SIZE), _OWN_VIEWS)
    views = Views("renders of the scene itself", (), (), background)
    draw = views.of_scene(gaussians, heads=heads)

    def view(camera: Camera) -> View:
        return View(camera, lambda: (draw(camera).clamp(0, 1), None))

    return replace(views, scored=[view(camera) for camera in circle])


def _some(things: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of them, evenly spread."""
    count = min(most, len(things))
    return [things[i * len(things) // count] for i in range(count)]
