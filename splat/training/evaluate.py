"""Scores of a scene on photographs that it was not trained on.

Rendered images are clamped to [0, 1] and not rounded to 8 bits; PSNR is that of the whole image (of its kept
pixels, where there is a mask) and the mean is taken over images, as published figures are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from splat.core import Camera
from splat.data import Dataset
from splat.training.losses import psnr, ssim
from splat.training.views import composite

Draw = Callable[[Camera], Tensor]
Align = Callable[[Camera, Tensor, Tensor | None], Camera]


@dataclass(frozen=True)
class ImageScore:
    """Scores of one view; None where a score was not asked for or its weights are not at hand."""

    name: str
    psnr: float
    ssim: float
    lpips: float | None = None
    psnr_colour_corrected: float | None = None
    psnr_pose_aligned: float | None = None


@dataclass(frozen=True)
class Evaluation:
    """Mean scores over the views, and each view's own."""

    step: int
    psnr: float
    ssim: float
    lpips: float | None
    num_gaussians: int
    train_seconds: float
    psnr_colour_corrected: float | None = None
    psnr_pose_aligned: float | None = None
    per_image: list[ImageScore] = field(default_factory=list)

    def to_json(self) -> str:
        def kept(scores: dict[str, Any]) -> dict[str, Any]:
            optional = ("psnr_colour_corrected", "psnr_pose_aligned")
            return {k: v for k, v in scores.items() if v is not None or k not in optional}

        value = kept(asdict(self))
        value["per_image"] = [kept(score) for score in value["per_image"]]
        return json.dumps(value, indent=2) + "\n"

    def line(self) -> str:
        """One line for the log."""
        parts = [f"PSNR {self.psnr:.2f} dB", f"SSIM {self.ssim:.4f}"]
        if self.lpips is not None:
            parts.append(f"LPIPS {self.lpips:.4f}")
        if self.psnr_colour_corrected is not None:
            parts.append(f"colour-corrected {self.psnr_colour_corrected:.2f} dB")
        if self.psnr_pose_aligned is not None:
            parts.append(f"pose-aligned {self.psnr_pose_aligned:.2f} dB")
        return ", ".join(parts)


@torch.no_grad()
def evaluate(
    draw: Draw,
    dataset: Dataset,
    views: Sequence[int],
    background: tuple[float, float, float],
    *,
    step: int,
    num_gaussians: int,
    train_seconds: float,
    colour_corrected: bool = False,
    align: Align | None = None,
    pictures: Path | None = None,
    device: torch.device | str = "cpu",
) -> Evaluation:
    """Score `draw` on the `views` of `dataset`, at the dataset's resolution.

    Args:
        background: what transparent photographs lie on.
        colour_corrected: score also after the affine colour map that fits each photograph best.
        align: moves a camera to where its photograph fits best; scored besides.
        pictures: folder for render | photograph of a few of the views.
    """
    lpips = load_lpips(device)
    shown = {views[i * len(views) // _PICTURES] for i in range(_PICTURES)} if pictures else set()
    scores = []
    for number, view in enumerate(views):
        dataset.prefetch(views[number + 1 : number + 5])
        camera = dataset.camera(view)
        target, mask = photograph(dataset, view, background)
        target, mask = target.to(device), None if mask is None else mask.to(device)
        truth = target.float() / 255
        image = draw(camera).clamp(0, 1)
        corrected = aligned = None
        if colour_corrected:
            corrected = _psnr(fit_colours(image, truth, mask), truth, mask)
        if align is not None:
            moved = draw(align(camera, target, mask)).clamp(0, 1)
            aligned = _psnr(fit_colours(moved, truth, mask), truth, mask)
        scores.append(
            ImageScore(
                name=dataset.scene.frames[view].name,
                psnr=_psnr(image, truth, mask),
                ssim=ssim(image, truth, mask),
                lpips=None if lpips is None else lpips(_kept(image, truth, mask), truth),
                psnr_colour_corrected=corrected,
                psnr_pose_aligned=aligned,
            )
        )
        if pictures is not None and view in shown:
            side_by_side(pictures / f"eval_{step}_{_plain(scores[-1].name)}.png", image, truth)
    return Evaluation(
        step=step,
        psnr=_mean([s.psnr for s in scores]) or 0.0,
        ssim=_mean([s.ssim for s in scores]) or 0.0,
        lpips=_mean([s.lpips for s in scores]),
        num_gaussians=num_gaussians,
        train_seconds=train_seconds,
        psnr_colour_corrected=_mean([s.psnr_colour_corrected for s in scores]),
        psnr_pose_aligned=_mean([s.psnr_pose_aligned for s in scores]),
        per_image=scores,
    )


_PICTURES = 4


def photograph(
    dataset: Dataset, view: int, background: tuple[float, float, float]
) -> tuple[Tensor, Tensor | None]:
    """[H, W, 3] uint8 photograph over `background` where it is transparent, and its mask."""
    photo = dataset.photo(view)
    if photo.alpha is None:
        return photo.image, photo.mask
    return composite(photo.image, photo.alpha, torch.tensor(background)), photo.mask


def fit_colours(image: Tensor, truth: Tensor, mask: Tensor | None) -> Tensor:
    """[H, W, 3] `image` after the affine colour map that fits its kept pixels best to `truth`, clamped."""
    kept = slice(None) if mask is None else (mask != 0).reshape(-1)
    ones = torch.ones_like(image[..., :1])
    colours = torch.cat([image, ones], -1).reshape(-1, 4)
    a, b = colours[kept].double(), truth.reshape(-1, 3)[kept].double()
    # Normal equations, a little regularised towards nothing at all so that a flat image has a solution.
    normal = a.T @ a + 1e-9 * len(a) * torch.eye(4, dtype=a.dtype, device=a.device)
    fitted = colours.double() @ torch.linalg.solve(normal, a.T @ b)
    return fitted.clamp(0, 1).to(image.dtype).view_as(image)


def load_lpips(device: torch.device | str) -> Callable[[Tensor, Tensor], float] | None:
    """LPIPS (AlexNet) of two images [H, W, 3], or None where the package or its weights are not at hand.

    Nothing is ever downloaded.
    """
    backbone = Path(torch.hub.get_dir()) / "checkpoints" / "alexnet-owt-7be5be79.pth"
    if not backbone.exists():
        return None
    try:
        import lpips
    except ImportError:
        return None
    network = lpips.LPIPS(net="alex", verbose=False).to(device).eval()

    @torch.no_grad()
    def score(a: Tensor, b: Tensor) -> float:
        return float(network(a.permute(2, 0, 1)[None], b.permute(2, 0, 1)[None], normalize=True))

    return score


def side_by_side(path: Path, image: Tensor, truth: Tensor) -> None:
    """Write render | photograph, both [H, W, 3] in [0, 1], as a PNG."""
    from PIL import Image

    both = torch.cat([image, truth], 1).mul(255).round().to(torch.uint8).cpu()
    Image.fromarray(both.numpy()).save(path)


def _psnr(image: Tensor, truth: Tensor, mask: Tensor | None) -> float:
    """PSNR in dB, at most 100: equal images have no finite one, and JSON no word for infinity."""
    return min(psnr(image, truth, mask), 100.0)


def _kept(image: Tensor, truth: Tensor, mask: Tensor | None) -> Tensor:
    """`image` with the photograph where the mask ignores it."""
    return image if mask is None else torch.where(mask[..., None] != 0, image, truth)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return sum(known) / len(known) if known else None


def _plain(name: str) -> str:
    """A frame's name as one part of a file name."""
    return name.replace("/", "_").rsplit(".", 1)[0]
