"""Exposure and pose refinement undo what was done to the photographs, and evaluation sees it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from splat.core import Camera
from splat.data import Photo
from splat.raster import RenderOptions
from splat.raster.reference import ReferenceBackend
from splat.training import align
from splat.training.evaluate import Evaluation, ImageScore, fit_colours
from splat.training.losses import photometric
from splat.training.perview import Exposure, Poses, moved
from splat.training.session import Session

Start = Callable[..., Session]


def camera() -> Camera:
    pose = torch.eye(4)
    pose[2, 3] = 3
    return Camera(24, 20, 24.0, 24.0, 12.0, 10.0, pose)


def test_moved_is_a_rigid_motion_with_the_gradient_of_its_parameters() -> None:
    xi = torch.tensor([0.1, -0.2, 0.3, 0.2, 0.1, -0.3], dtype=torch.float64, requires_grad=True)
    start = camera().to(torch.float64)
    pose = moved(start, xi, 2.0).world_to_camera
    rotation = pose[:3, :3].detach()
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64))
    assert torch.linalg.det(rotation) == pytest.approx(1.0)
    assert torch.equal(
        moved(start, torch.zeros(6, dtype=torch.float64), 2.0).world_to_camera, start.world_to_camera
    )
    assert torch.autograd.gradcheck(lambda x: moved(start, x, 2.0).world_to_camera, (xi,))


def test_only_the_row_that_was_seen_moves() -> None:
    poses = Poses(3, 100, 1.0, torch.device("cpu"))
    (poses.camera(1, camera()).world_to_camera.square().sum()).backward()
    poses.update(1, 0)
    assert (poses.rows[1] != 0).any()
    assert (poses.rows[[0, 2]] == 0).all()
    assert poses.counts == [0, 1, 0]


def test_the_mean_exposure_stays_the_identity() -> None:
    exposure = Exposure(4, 100, torch.device("cpu"))
    for step in range(20):
        image = exposure.apply(step % 4, torch.full((2, 2, 3), 0.5))
        (image - 0.2 * (step % 4)).square().sum().backward()
        exposure.update(step % 4, step)
    torch.testing.assert_close(exposure.rows.mean(0), torch.eye(3, 4), rtol=0, atol=1e-6)
    assert (exposure.rows[0] - exposure.rows[3]).abs().max() > 1e-3


def test_exposure_recovers_gains_of_the_photographs(start: Start, dataset: Any) -> None:
    """Photographs darkened in turn: with compensation the colour-corrected score is that of equal ones."""
    gains = torch.tensor([1.0, 0.7, 1.0, 0.7, 1.0, 0.7, 1.0, 0.7])
    dataset.photos = [
        Photo((photo.image * gain).round().to(torch.uint8))
        for photo, gain in zip(dataset.photos, gains, strict=True)
    ]
    plain, compensated = start(steps=300, backend="cpu"), start(steps=300, exposure=True, backend="cpu")
    plain.trainer.run()
    compensated.trainer.run()
    exposure = compensated.trainer.exposure
    assert exposure is not None
    brightness = exposure.rows[:, :, :3].sum((1, 2))
    dark = torch.tensor([gains[i] < 1 for i in dataset.train])
    assert brightness[dark].max() < brightness[~dark].min()
    assert compensated.trainer.loss < plain.trainer.loss
    assert compensated.score(0.0).psnr_colour_corrected is not None
    assert plain.score(0.0).psnr_colour_corrected is None


def test_pose_refinement_brings_cameras_back(start: Start, dataset: Any, truth: Any) -> None:
    """A true scene with two disturbed cameras: refinement takes back most of it."""
    right = list(dataset.cameras)
    disturbed = [1, 5]
    for i in disturbed:
        xi = torch.tensor([0.01, -0.01, 0.0, 0.0, 0.02, 0.01])
        dataset.cameras[i] = moved(right[i], xi, dataset.extent)
    session = start(steps=300, poses=True, sh_interval=1, backend="cpu")
    trainer, poses = session.trainer, session.trainer.poses
    assert poses is not None
    poses.rate = 1e-3
    for name, value in truth.named_tensors():
        setattr(trainer.ctx.gaussians, name, value.clone())
    trainer.ctx.optimizer.rates = lambda step: dict.fromkeys(  # the scene stays; the cameras move
        ("means", "quats", "log_scales", "logit_opacities", "sh0", "shN"), 0.0
    )

    def error(i: int) -> float:
        with torch.no_grad():
            now = poses.camera(dataset.train.index(i), dataset.cameras[i])
        return float((now.world_to_camera - right[i].world_to_camera).norm())

    before = [error(i) for i in disturbed]
    trainer.run()
    assert all(error(i) < 0.5 * b for i, b in zip(disturbed, before, strict=True))
    scores = session.score(0.0)
    assert scores.psnr_pose_aligned is not None
    assert scores.psnr_pose_aligned > 30


def test_a_similarity_is_found_and_applied_to_cameras() -> None:
    r = torch.Generator().manual_seed(0)
    source = torch.randn(6, 3, generator=r, dtype=torch.float64)
    xi = torch.tensor([0, 0, 0, 0.3, -0.2, 0.5], dtype=torch.float64)
    rotation = moved(camera().to(torch.float64), xi, 1.0).world_to_camera[:3, :3]
    shift = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    scale, turned, moved_by = align.similarity(source, 1.5 * source @ rotation.T + shift)
    assert scale == pytest.approx(1.5)
    torch.testing.assert_close(turned, rotation)
    torch.testing.assert_close(moved_by, shift)

    before = [camera().with_pose(_at(p)) for p in source.float()]
    after = [camera().with_pose(_at(p)) for p in (source + shift).float()]
    carried = align.aligned(before[2], before, after)
    torch.testing.assert_close(carried.position, after[2].position, rtol=0, atol=1e-5)
    few = align.similarity(source[:2], source[:2] + shift)
    assert few[0] == 1.0
    torch.testing.assert_close(few[2], shift)


def _at(position: torch.Tensor) -> torch.Tensor:
    pose = torch.eye(4)
    pose[:3, 3] = -position
    return pose


def test_fitting_a_camera_finds_a_small_displacement(dataset: Any, truth: Any) -> None:
    right = dataset.camera(4)
    wrong = moved(right, torch.tensor([0.0, 0.01, 0.0, 0.01, 0.0, -0.01]), 3.3)

    def draw(c: Camera) -> torch.Tensor:
        return ReferenceBackend().render(truth, c, RenderOptions()).image

    # At 24 x 20 pixels a turn and a shift look much alike: the picture tells, not the pose.
    def loss(c: Camera) -> float:
        return float(photometric(draw(c), dataset.photo(4).image))

    found = align.fitted(wrong, draw, dataset.photo(4).image, None, 3.3)
    assert loss(found) - loss(right) < 0.25 * (loss(wrong) - loss(right))


def test_colours_are_fitted_where_the_mask_keeps_them() -> None:
    r = torch.Generator().manual_seed(1)
    truth = torch.rand(6, 7, 3, generator=r)
    image = 0.5 * truth + 0.1
    mask = torch.full((6, 7), 255, dtype=torch.uint8)
    mask[0] = 0
    image[0] = 0.9
    torch.testing.assert_close(fit_colours(image, truth, mask)[1:], truth[1:], rtol=0, atol=1e-5)
    flat = torch.full_like(truth, 0.3)
    assert torch.isfinite(fit_colours(flat, truth, None)).all()


def test_scores_are_written_with_the_names_that_readers_know() -> None:
    score = Evaluation(7, 20.0, 0.5, None, 3, 1.5, per_image=[ImageScore("a.png", 20.0, 0.5)])
    value = json.loads(score.to_json())
    assert list(value) == ["step", "psnr", "ssim", "lpips", "num_gaussians", "train_seconds", "per_image"]
    assert value["per_image"] == [{"name": "a.png", "psnr": 20.0, "ssim": 0.5, "lpips": None}]
    more = json.loads(replace(score, psnr_pose_aligned=21.0).to_json())
    assert more["psnr_pose_aligned"] == 21.0
