"""The GPU backend on the CPU, thread by thread (cuda/tests/emulate.h)."""

from __future__ import annotations

from splat import _emulated
from splat.raster.cuda import CudaBackend


class EmulatedBackend(CudaBackend):
    name = "emulated"

    def __init__(self) -> None:
        super().__init__(_emulated)


class EmulatedBySplats(CudaBackend):
    name = "emulated by splats"

    def __init__(self) -> None:
        super().__init__(_emulated, backward="splats")


class CudaBySplats(CudaBackend):
    name = "cuda by splats"

    def __init__(self) -> None:
        super().__init__(backward="splats")
