"""The native backend against the reference in float64: every output and every gradient."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from agreement import FLIP_SHARE, assert_gradients_agree, assert_outputs_agree, assert_pictures_agree
from hostile import OUTPUTS, SCENES, STATISTICS, camera, ordinary, run, wires

from splat.raster import RenderOptions, render


@pytest.mark.parametrize("antialiased", [False, True], ids=["classic", "antialiased"])
@pytest.mark.parametrize("kind", SCENES)
def test_outputs_and_gradients(kind: str, antialiased: bool) -> None:
    scene = replace(SCENES[kind](600), antialiased=antialiased)
    view = camera()
    got, gradients = run(scene, view, "cpu", torch.float32, features=5)
    truth, expected = run(scene, view, "reference", torch.float64, features=5)
    assert_outputs_agree(got, truth)
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
    assert_pictures_agree(got, truth)
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
