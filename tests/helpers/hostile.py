"""Scenes that are hard on a rasterizer, and one call that takes everything out of it."""

from __future__ import annotations

import torch
from torch import Tensor

from splat.core import Camera, Gaussians
from splat.raster import RenderOptions, RenderOutput, render
from splat.raster.options import NEEDS

OUTPUTS = ("image", "alpha", "depth", "median_depth", "features")
STATISTICS = ("contribution", "means2d_grad", "means2d_absgrad")


def camera(width: int = 70, height: int = 52) -> Camera:
    """Off-centre and turned; the size is no multiple of the tile's."""
    pose = torch.eye(4)
    pose[:3, :3] = torch.linalg.matrix_exp(torch.tensor([[0, -0.1, 0.2], [0.1, 0, -0.05], [-0.2, 0.05, 0]]))
    pose[:3, 3] = torch.tensor([0.1, -0.2, 0.3])
    return Camera(width, height, 60.0, 65.0, width / 2 + 5, height / 2 - 3, pose)


def ordinary(count: int, coefficients: int = 16, seed: int = 0) -> Gaussians:
    """Random sizes, shapes and opacities in front of and around the camera."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=random)

    means = normal(count, 3) * torch.tensor([1.5, 1.5, 1.0]) + torch.tensor([0.0, 0.0, 3.0])
    return Gaussians(
        means,
        normal(count, 4),
        0.7 * normal(count, 3) - 2.5,
        2 * normal(count),
        0.3 * normal(count, coefficients, 3),
    )


def needles(count: int) -> Gaussians:
    scene = ordinary(count, seed=1)
    scene.log_scales[:] = torch.tensor([0.5, -5.0, -6.0]) + 0.2 * scene.log_scales
    return scene


def sizes(count: int) -> Gaussians:
    """A tenth huge (up to 50 units at distance 3), most far under a pixel."""
    scene = ordinary(count, seed=2)
    scene.log_scales -= 4
    scene.log_scales[: count // 10] += 7
    return scene


def near_plane(count: int) -> Gaussians:
    """Centres at depths from just behind to just before the near plane, up to 0.3."""
    scene = ordinary(count, seed=3)
    view = camera()
    depths = 0.3 * torch.rand(count, generator=torch.Generator().manual_seed(3)) - 0.02
    points = torch.stack([0.5 * scene.means[:, 0] * depths, 0.5 * scene.means[:, 1] * depths, depths], -1)
    rotation, translation = view.world_to_camera[:3, :3], view.world_to_camera[:3, 3]
    scene.means = (points - translation) @ rotation
    scene.log_scales -= 2
    return scene


def opacities(count: int) -> Gaussians:
    """Opacity within 1e-4 of 1, around the cut-off of 1/255, and far below."""
    scene = ordinary(count, seed=4)
    scene.logit_opacities[::3] = 10.0
    scene.logit_opacities[1::3] = -5.5 + 0.3 * scene.logit_opacities[1::3]
    return scene


def crowd(count: int) -> Gaussians:
    """More Gaussians than pixels."""
    scene = ordinary(2 * count * 4, seed=5)
    scene.log_scales -= 1
    return scene


def wires(count: int) -> Gaussians:
    """Some 3,000 times as long as thick and hundreds of pixels long."""
    scene = ordinary(count, seed=6)
    scene.means -= torch.tensor([0.0, 0.0, 1.5])
    scene.log_scales[:] = torch.tensor([-7.0, 1.0, -7.0]) + 0.5 * scene.log_scales
    return scene


def certain(count: int) -> Gaussians:
    """Opacities that float32 cannot tell from 1, and some that it cannot tell from 0."""
    scene = ordinary(count, seed=7)
    scene.logit_opacities = 15 * torch.sign(scene.logit_opacities + 0.5)
    return scene


def turns(count: int) -> Gaussians:
    """Quaternions from 1e-12 to 1e12 long."""
    scene = ordinary(count, seed=8)
    scene.quats *= 10 ** torch.linspace(-12, 12, count)[:, None]
    return scene


def inside(count: int) -> Gaussians:
    """The camera stands in the midst of faint Gaussians as large as the scene."""
    scene = ordinary(count, seed=9)
    scene.means -= torch.tensor([0.0, 0.0, 3.0])
    scene.log_scales[: count // 4] += 4
    scene.logit_opacities[: count // 4] -= 3
    return scene


SCENES = {
    "ordinary": ordinary,
    "needles": needles,
    "sizes": sizes,
    "near plane": near_plane,
    "opacities": opacities,
    "crowd": crowd,
    "wires": wires,
    "certain": certain,
    "turns": turns,
    "inside": inside,
}


def run(
    scene: Gaussians, view: Camera, backend: str, dtype: torch.dtype, features: int = 0, device: str = "cpu"
) -> tuple[RenderOutput, dict[str, Tensor]]:
    """All outputs, and the gradients of their projections on fixed random directions."""
    random = torch.Generator().manual_seed(7)
    scene = scene.map(lambda t: t.detach().to(device, dtype).clone()).requires_grad_()
    view = view.with_pose(view.world_to_camera.to(dtype).clone().requires_grad_())
    background = torch.tensor([0.2, 0.5, 0.7], dtype=dtype, device=device, requires_grad=True)
    channels = None
    if features:
        channels = torch.randn(len(scene), features, generator=random).to(device, dtype).requires_grad_()
    output = render(
        scene, view, RenderOptions(background=background, features=channels, needs=NEEDS, backend=backend)
    )
    loss = sum(
        (value * torch.randn(value.shape, generator=random).to(device, dtype)).sum()
        for value in (getattr(output, name) for name in OUTPUTS)
        if value is not None
    )
    loss.backward()
    gradients = {name: tensor.grad for name, tensor in scene.named_tensors()}
    gradients |= {"pose": view.world_to_camera.grad, "background": background.grad}
    if channels is not None:
        gradients["features"] = channels.grad
    return output, gradients
