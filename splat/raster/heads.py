"""Pictures of scenes that have heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from splat.core import Camera, Gaussians, UsageError
from splat.core.heads import Head
from splat.raster.api import render
from splat.raster.options import RenderOptions, RenderOutput


def draw(
    gaussians: Gaussians, camera: Camera, options: RenderOptions, heads: Sequence[Head] = ()
) -> RenderOutput:
    """`render`, and then the `heads` on its image, in order; `options.features` are theirs to set.

    Raises:
        UsageError: a head's features are not among the extras of the scene, or two heads have some.
    """
    readers = [head for head in heads if head.features is not None]
    if len(readers) > 1:
        names = " and ".join(head.name for head in readers)
        raise UsageError(f"one head of a scene can blend features; {names} both do")
    for head in readers:
        assert head.features is not None
        if head.features not in gaussians.extras:
            raise UsageError(
                f"the head {head.name} needs the scene's {head.features}, which it does not have"
            )
        options = replace(options, features=gaussians.extras[head.features])
    output = render(gaussians, camera, options)
    for head in heads:
        output = replace(output, image=head.apply(output.image, output.features, camera))
    return output
