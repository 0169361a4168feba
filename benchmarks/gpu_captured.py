"""Our step as a CUDA graph, for gpu.py: what launching it at once is worth."""

from __future__ import annotations

from typing import Any

import torch
from gpu_contestants import NOISE, PENALTIES, Ours
from torch import Tensor

from splat.core import DeviceError
from splat.raster import RenderOptions
from splat.strategies.kernels import add_noise_
from splat.training import trainer
from splat.training.optim import BETAS, EPS

WARM_UP = 3


class Captured:
    """The preset mcmc's step between two refinements, captured once and replayed.

    All that changes from step to step lies on the device before the replay: view and rates in the kernels' frame,
    the photograph and the strength of the noise in tensors of their own. On the CPU, in a dry run, the step is taken
    anew in the replay's place.
    """

    def __init__(self, ours: Ours) -> None:
        self.ours, self.ctx = ours, ours.trainer.ctx
        scene = ours.scene
        self.device = scene.device
        self.guard = ours.backend.guard(self.device)  # type: ignore[attr-defined]
        self.target = torch.zeros_like(ours.problem.photos[0])
        self.gain = torch.zeros((), device=self.device)
        self.taken = 0
        self.graph: Any = None
        self.lease: Any = None

    def step(self) -> None:
        if self.graph is None and self.taken == 0 and self.device.type == "cuda":
            self._capture()
        self._prepare()
        if self.graph is not None:
            self.graph.replay()
            self.guard.send()
        else:
            self._take()
        self.guard.listen()
        if self.guard.refused:
            if self.graph is not None:
                raise DeviceError("the captured step lacks room for its splats")
            self.guard.resume()

    def _prepare(self) -> None:
        """What this step is about, to the device."""
        view = self.taken % len(self.ours.problem.cameras)
        self.camera = self.ours.trainer.views.dataset.camera(view)
        self.rates = self.ctx.optimizer.rates(self.taken)
        self.taken += 1
        self.target.copy_(self.ours.problem.photos[view])
        self.gain.fill_(NOISE * self.rates["means"])
        if self.graph is not None:
            kernels, c = self.lease.kernels, self.camera
            pose = c.world_to_camera.flatten().tolist()
            rates = [self.rates[n] for n in ("means", "quats", "log_scales", "logit_opacities", "sh0", "shN")]
            self.lease.raster.set_frame(
                kernels.View(pose, c.fx, c.fy, c.cx, c.cy, c.width, c.height),
                kernels.Rates(rates, self.taken, *BETAS, EPS, *PENALTIES.values(), len(self.ours.scene)),
                self.lease.place[0],
                torch.cuda.current_stream(self.device).cuda_stream,  # where the replay goes
            )

    def _take(self) -> None:
        self.lease = None  # its memory serves again
        scene = self.ours.scene
        deferred = self.ours.backend.deferred(self.guard)  # type: ignore[attr-defined]
        output = self.ours.backend.render(scene, self.camera, RenderOptions(deferred=deferred))
        trainer.photometric(output.image, self.target, None, 0.2).backward()
        self.lease = deferred._lease
        moments = self.ctx.optimizer.moments
        deferred.step(scene, moments, self.rates, step=max(1, self.taken), penalties=PENALTIES)
        eta: Tensor = torch.randn_like(scene.means) * self.gain
        g = scene
        add_noise_(g.means, g.quats, g.log_scales, g.logit_opacities, eta, 1.0, self.guard)

    def _capture(self) -> None:
        stream = torch.cuda.Stream(self.device)
        stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(stream):
            # Until there is room for every view, and for the moves between them.
            for _ in range(WARM_UP * len(self.ours.problem.cameras)):
                self._prepare()
                self._take()
                self.guard.settle()
                if self.guard.refused:
                    self.guard.resume()
        torch.cuda.synchronize(self.device)
        graph = torch.cuda.CUDAGraph()
        self.guard.capturing = True
        try:
            with torch.cuda.graph(graph, stream=stream):
                self._take()
        finally:
            self.guard.capturing = False
        self.graph = graph
