"""The native backend against the reference in float64: every output and every gradient.

The bounds are those the project sets itself: gradients with cosine >= 0.9999 and norm ratio 1 +- 1e-3, and per
Gaussian a relative error with median <= 1e-4 and 99th percentile <= 1e-2. Outputs differ by float32 rounding
(1e-5 relative to values of order one, tens of splats deep) but for pixels where a cut-off flips: at most
FLIP_SHARE of them.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hostile import OUTPUTS, SCENES, STATISTICS, camera, ordinary, run, wires
from torch import Tensor

from splat.raster import RenderOptions, render

FLIP_SHARE = 2e-3


def assert_gradients_agree(native: dict[str, Tensor], truth: dict[str, Tensor]) -> None:
    for name, expected in truth.items():
        got = native[name].double()
        cosine = (got * expected).sum() / (got.norm() * expected.norm())
        assert cosine >= 0.9999, name
        assert abs(got.norm() / expected.norm() - 1) <= 1e-3, name
        if name in ("pose", "background"):
            continue
        got, expected = got.flatten(1) if got.dim() > 1 else got[:, None], expected.reshape(len(expected), -1)
        size = expected.norm(dim=1)
        relative = ((got - expected).norm(dim=1) / size)[size > 0]
        assert relative.median() <= 1e-4, name
        assert torch.quantile(relative, 0.99) <= 1e-2, name


@pytest.mark.parametrize("antialiased", [False, True], ids=["classic", "antialiased"])
@pytest.mark.parametrize("kind", SCENES)
def test_outputs_and_gradients(kind: str, antialiased: bool) -> None:
    scene = replace(SCENES[kind](600), antialiased=antialiased)
    view = camera()
    got, gradients = run(scene, view, "cpu", torch.float32, features=5)
    truth, expected = run(scene, view, "reference", torch.float64, features=5)
    for name in OUTPUTS:
        value = getattr(truth, name).detach()
        error = (getattr(got, name).detach().double() - value).abs() / (1 + value.abs())
        assert (error > 2e-5).double().mean() <= FLIP_SHARE, name
    assert (got.ids != truth.ids).double().mean() <= FLIP_SHARE
    assert (got.radii != truth.radii).double().mean() <= 2e-3  # a half axis within rounding of an integer
    for name in STATISTICS:
        value = getattr(truth, name).double()
        assert (getattr(got, name).double() - value).norm() <= 1e-3 * value.norm(), name
    assert_gradients_agree(gradients, expected)


@pytest.mark.parametrize(
    "change",
    [
        {"cx": -40.0, "cy": 110.0},
        {"width": 1, "height": 1, "fx": 1.0, "fy": 1.0, "cx": 0.5, "cy": 0.5},
        {"fx": 600.0, "fy": 30.0},
    ],
    ids=["principal point outside", "one pixel", "unequal focal lengths"],
)
def test_views(change: dict[str, float]) -> None:
    scene, view = ordinary(600), replace(camera(), **change)
    got, gradients = run(scene, view, "cpu", torch.float32, features=2)
    truth, expected = run(scene, view, "reference", torch.float64, features=2)
    assert (truth.radii > 0).sum() > 10
    for name in OUTPUTS:
        value = getattr(truth, name).detach()
        error = (getattr(got, name).detach().double() - value).abs() / (1 + value.abs())
        assert (error > 2e-5).double().mean() <= FLIP_SHARE, name
    assert_gradients_agree(gradients, expected)


def test_lengths_of_needles_beyond_the_picture() -> None:
    """Thousands of pixels long: the length's gradient is 1e-7 of what its parts would be in pixel coordinates."""
    scene, view = wires(600), camera()
    scene.log_scales[:, 1] += 2
    _, gradients = run(scene, view, "cpu", torch.float32)
    _, expected = run(scene, view, "reference", torch.float64)
    assert_gradients_agree({"log_scales": gradients["log_scales"]}, {"log_scales": expected["log_scales"]})


@pytest.mark.parametrize("coefficients", [1, 4, 9])
@pytest.mark.parametrize("limit", [None, 1])
def test_harmonics_of_every_degree(coefficients: int, limit: int | None) -> None:
    scene, view = ordinary(200, coefficients), camera()
    results = []
    for backend, dtype in (("cpu", torch.float32), ("reference", torch.float64)):
        inputs = scene.to(dtype).clone().requires_grad_()
        image = render(inputs, view.to(dtype), RenderOptions(sh_degree=limit, backend=backend)).image
        (image**2).sum().backward()
        results.append((image.detach().double(), {name: t.grad for name, t in inputs.named_tensors()}))
    (got, gradients), (truth, expected) = results
    assert ((got - truth).abs().amax(-1) > 2e-5).double().mean() <= FLIP_SHARE
    assert_gradients_agree(gradients, expected)


def test_colour_alone_takes_the_same_values() -> None:
    """The fast path without further outputs, bit for bit."""
    scene, view = ordinary(500), camera()
    everything, _ = run(scene, view, "cpu", torch.float32)
    background = torch.tensor([0.2, 0.5, 0.7])
    plain = render(scene, view, RenderOptions(background=background, backend="cpu"))
    assert torch.equal(plain.image, everything.image)
    assert torch.equal(plain.alpha, everything.alpha)


def test_threads_do_not_change_a_bit() -> None:
    scene, view = ordinary(9000), camera(130, 100)  # enough for chunks and tasks to differ
    results = []
    for threads in (1, 2, 3, 5):
        torch.set_num_threads(threads)
        output, gradients = run(scene, view, "cpu", torch.float32, features=2)
        tensors = {name: getattr(output, name) for name in (*OUTPUTS, *STATISTICS, "ids", "radii")}
        results.append(tensors | gradients)
    for other in results[1:]:
        for name, value in results[0].items():
            assert torch.equal(value, other[name]), name


_DRAW = """
import sys, torch
sys.path.insert(0, sys.argv[2])
from hostile import camera, ordinary, run
from splat import _native
output, gradients = run(ordinary(400), camera(), "cpu", torch.float32, features=2)
torch.save((_native.isa(), output.image.detach(), gradients), sys.argv[1])
"""


@pytest.mark.parametrize("isa", ["avx2", "baseline"])
def test_instruction_sets_agree(isa: str, tmp_path: Path) -> None:
    """Another build of the kernels differs by rounding alone (a product and a sum in one step or in two)."""
    out = tmp_path / "drawn.pt"
    environment = os.environ | {"SPLAT_ISA": isa}
    helpers = str(Path(__file__).parents[1] / "helpers")
    subprocess.run([sys.executable, "-c", _DRAW, str(out), helpers], env=environment, check=True)
    used, image, gradients = torch.load(out)
    if used != isa:
        pytest.skip(f"this machine has no {isa}")
    expected, expected_gradients = run(ordinary(400), camera(), "reference", torch.float64, features=2)
    error = (image.double() - expected.image.detach()).abs().amax(-1)
    assert (error > 2e-5).double().mean() <= FLIP_SHARE
    assert_gradients_agree(gradients, expected_gradients)
