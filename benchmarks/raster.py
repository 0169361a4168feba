"""Speed of the native CPU rasterizer: stages, pixel-splat pairs per second, one thread against two.

    python benchmarks/raster.py [--out FILE.json] [--data FOLDER] [--repeats 40]

Scenes: fox's structure-from-motion points as Gaussians (SH degree 3) at 270x480, and garden's at 648x420, with the
sizes and opacities that training starts from. A pair is a pixel of a 16x16 tile and a splat whose ellipse
touches the tile exactly, counted by the reference backend and never by the kernels measured here. Times are
the median of the repeats; the ratios within one run are what counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from splat import _native
from splat.core import Camera, Gaussians
from splat.core.gaussians import PARAMETERS
from splat.core.sh import from_rgb
from splat.raster import RenderOptions, render
from splat.raster.native import Deferred
from splat.raster.reference import count_tile_intersections

STAGES = ("project", "bin", "blend", "blend_backward", "reduce", "project_backward", "fused_step")
TILE_PIXELS = 256


def from_points(xyz: np.ndarray, rgb: np.ndarray) -> Gaussians:
    """Round Gaussians of the root mean square distance to the three nearest points, opacity 0.1."""
    from scipy.spatial import cKDTree

    distances = cKDTree(xyz).query(xyz, 4)[0][:, 1:]
    scale = np.sqrt((distances**2).mean(1)).clip(1e-7)
    count = len(xyz)
    sh = torch.zeros(count, 16, 3)
    sh[:, 0] = from_rgb(torch.from_numpy(rgb / 255.0).float())
    quats = torch.zeros(count, 4)
    quats[:, 0] = 1
    log_scales = torch.from_numpy(np.log(scale)).float()[:, None].repeat(1, 3)
    return Gaussians(
        torch.from_numpy(xyz).float(), quats, log_scales, torch.full((count,), float(np.log(0.1 / 0.9))), sh
    )


def fox(root: Path) -> tuple[Gaussians, Camera]:
    import pycolmap

    model = pycolmap.Reconstruction(str(root / "fox/sparse/0"))
    points = list(model.points3D.values())
    image = sorted(model.images.values(), key=lambda image: image.name)[10]
    pose = torch.eye(4)
    pose[:3] = torch.from_numpy(image.cam_from_world().matrix()).float()
    fx, fy, cx, cy = image.camera.params[:4]
    camera = Camera(image.camera.width, image.camera.height, fx, fy, cx, cy, pose)
    scene = from_points(np.array([p.xyz for p in points]), np.array([p.color for p in points]))
    return scene, camera.resized(270, 480)


def garden(root: Path) -> tuple[Gaussians, Camera]:
    with np.load(root / "garden/test_garden.npz") as stored:
        pose = torch.from_numpy(stored["viewmats"][0]).float()
        matrix = stored["Ks"][0]
        camera = Camera(
            int(stored["width"]),
            int(stored["height"]),
            matrix[0, 0],
            matrix[1, 1],
            matrix[0, 2],
            matrix[1, 2],
            pose,
        )
        return from_points(stored["means3d"].astype(np.float64), stored["colors"].astype(np.float64)), camera


class Driver:
    """Calls the kernels stage by stage, without autograd."""

    def __init__(self, scene: Gaussians, camera: Camera, threads: int) -> None:
        self.raster = _native.Raster()
        self.camera, self.threads = camera, threads
        self.parameters = [getattr(scene, name).clone().numpy() for name in PARAMETERS]
        self.gradients = [np.empty_like(p) for p in self.parameters]
        self.moments = [[np.zeros_like(p) for p in self.parameters] for _ in range(2)]
        size = (camera.height, camera.width)
        self.image, self.alpha = np.empty((*size, 3), np.float32), np.empty(size, np.float32)
        self.v_image = np.random.default_rng(0).normal(size=(*size, 3)).astype(np.float32)

    def step(self) -> dict[str, float]:
        """Milliseconds of every stage of one render, its derivative and a step with rates of zero."""
        c = self.camera
        scene = (self.parameters, 3, False)
        self.raster.forward(
            *scene, c.world_to_camera.numpy(), c.fx, c.fy, c.cx, c.cy, c.width, c.height, None, None,
            self.image, self.alpha, None, None, None, None, None, None, self.threads,
        )  # fmt: skip
        self.raster.blend_backward(self.v_image, *[None] * 9, self.threads)
        self.raster.project_backward(*scene, self.gradients, None, self.threads)
        self.raster.fused_step(
            scene[0], *scene, *self.moments, [0.0] * 6, 1, 0.9, 0.999, 1e-15, 0.01, 0.01, self.threads
        )
        return dict(self.raster.times)


def end_to_end(scene: Gaussians, camera: Camera) -> float:
    """Milliseconds of render, backward from an image gradient, and the deferred step, through torch."""
    moments = {name: (torch.zeros_like(t), torch.zeros_like(t)) for name, t in scene.named_tensors()}
    rates = dict.fromkeys(("means", "quats", "log_scales", "logit_opacities", "sh0", "shN"), 0.0)
    gradient = torch.randn(camera.height, camera.width, 3)
    start = time.perf_counter()
    deferred = Deferred()
    output = render(scene, camera, RenderOptions(deferred=deferred, backend="cpu"))
    output.image.backward(gradient)
    deferred.step(scene, moments, rates, step=1)
    return 1e3 * (time.perf_counter() - start)


def measure(scene: Gaussians, camera: Camera, threads: int, pairs: int, repeats: int) -> dict[str, float]:
    torch.set_num_threads(threads)
    driver = Driver(scene, camera, threads)
    for _ in range(3):
        driver.step()
    runs = [driver.step() for _ in range(repeats)]
    result = {stage: statistics.median(run[stage] for run in runs) for stage in STAGES}
    result["forward"] = statistics.median(run["project"] + run["bin"] + run["blend"] for run in runs)
    result["backward"] = statistics.median(run["blend_backward"] + run["reduce"] for run in runs)
    result["forward_gpairs"] = pairs / result["blend"] / 1e6
    result["backward_gpairs"] = pairs / result["backward"] / 1e6
    end_to_end(scene, camera)
    result["end_to_end"] = statistics.median(end_to_end(scene, camera) for _ in range(repeats // 2))
    return result


def machine() -> dict[str, str | int]:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line
        ]
        name = names[0] if names else name
    return {"cpu": name, "cores": os.cpu_count() or 1, "isa": _native.isa()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = os.environ.get("SPLAT_DATA") or Path(__file__).resolve().parents[2] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=Path(default), help="folder with fox and garden")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/raster.json"))
    parser.add_argument("--repeats", type=int, default=40)
    options = parser.parse_args()

    report: dict = {"machine": machine(), "scenes": {}}
    print(f"{report['machine']['cpu']}, {report['machine']['cores']} cores, {report['machine']['isa']}")
    for name, load in (("fox", fox), ("garden", garden)):
        scene, camera = load(options.data)
        intersections = count_tile_intersections(scene, camera)
        pairs = intersections * TILE_PIXELS
        print(
            f"\n{name}: {len(scene)} Gaussians, {camera.width}x{camera.height}, {intersections} tile intersections, "
            f"{pairs / 1e6:.1f} M pairs"
        )
        results = {threads: measure(scene, camera, threads, pairs, options.repeats) for threads in (1, 2)}
        print(f"{'':18}{'1 thread':>10}{'2 threads':>11}{'ratio':>8}")
        for key in results[1]:
            one, two = results[1][key], results[2][key]
            gain = two / one if key.endswith("gpairs") else one / two
            unit = "G/s" if key.endswith("gpairs") else "ms"
            print(f"{key:18}{one:10.2f}{two:11.2f}{gain:8.2f}  {unit}")
        report["scenes"][name] = {
            "gaussians": len(scene),
            "size": [camera.width, camera.height],
            "intersections": intersections,
            "threads": {str(threads): result for threads, result in results.items()},
        }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
