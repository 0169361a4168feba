"""The GPU backend on the CPU, thread by thread (cuda/tests/emulate.h)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from splat import _emulated
from splat.raster.cuda import CudaBackend


class EmulatedBackend(CudaBackend):
    name = "emulated"

    def __init__(self, **choices: Any) -> None:
        super().__init__(
            _emulated, **({"backward": "pixels", "captured": False, **choices}), recorder=EmulatedGraph
        )


class EmulatedBySplats(EmulatedBackend):
    name = "emulated by splats"

    def __init__(self) -> None:
        super().__init__(backward="splats")


class CudaBySplats(CudaBackend):
    name = "cuda by splats"

    def __init__(self) -> None:
        super().__init__(backward="splats")


class EmulatedGraph:
    """What a CUDA graph is to the emulation.

    While it captures, no kernel runs and no tensor changes; a replay does it all on the very tensors and with the
    very numbers of the capture, whatever has become of both in Python. Random numbers come from the generator as
    it is at the replay. Tensors made during the capture keep their memory.
    """

    def __init__(self, device: torch.device, generator: torch.Generator) -> None:
        del device
        self._kernels = _emulated.Graph()
        self._generator = generator
        # torch's operations, each with the number of kernels before it.
        self._operations: list[tuple[int, Callable[[], None]]] = []
        self._kept: list[Tensor] = []

    def capture(self, work: Callable[[], Any]) -> Any:
        state = self._generator.get_state()
        self._kernels.capture()
        try:
            with _Recording(self):
                return work()
        finally:
            self._kernels.end_capture()
            self._generator.set_state(state)

    def replay(self) -> None:
        done = 0
        for before, operation in self._operations:
            self._kernels.replay(done, before)
            operation()
            done = before
        self._kernels.replay(done, len(self._kernels))

    def record(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """One of torch's operations: what it would return; nothing is done to its arguments."""
        if function is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("a number is read while a graph is captured")
        inputs = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, Tensor)]
        before = [t.clone() for t in inputs] if function._schema.is_mutable else []
        result = function(*args, **kwargs)
        for tensor, value in zip(inputs, before, strict=False):
            tensor.copy_(value)
        outputs = [t for t in tree_flatten(result)[0] if isinstance(t, Tensor)]
        self._kept += inputs + outputs
        views = all(any(_same_memory(o, i) for i in inputs) for o in outputs)
        if views and not function._schema.is_mutable:
            return result  # a view is there as long as its base

        def again() -> None:
            new = [t for t in tree_flatten(function(*args, **kwargs))[0] if isinstance(t, Tensor)]
            for place, value in zip(outputs, new, strict=True):
                if place.data_ptr() != value.data_ptr():
                    place.copy_(value)

        self._operations.append((len(self._kernels), again))
        return result


class _Recording(TorchDispatchMode):
    def __init__(self, graph: EmulatedGraph) -> None:
        super().__init__()
        self._graph = graph

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self._graph.record(func, args, kwargs or {})


def _same_memory(a: Tensor, b: Tensor) -> bool:
    return a.untyped_storage().data_ptr() == b.untyped_storage().data_ptr()
