"""Adam over a set of Gaussians: one moment pair a parameter, rates by schedule, dense or fused.

The update is that of torch.optim.Adam (Kingma & Ba 2015, bias-corrected, no weight decay), dense: a
Gaussian that no pixel saw has a zero gradient and its moments decay. Rates follow Kerbl et al. 2023.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from splat import _native
from splat.core import Gaussians
from splat.core.gaussians import PARAMETERS
from splat.training import gpu
from splat.training import moments as quantized
from splat.training.moments import Kind

BETAS = (0.9, 0.999)
EPS = 1e-15

OnCopy = Literal["copy", "init"] | Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Rates:
    """Learning rates of the five parameters.

    Attributes:
        means: centres, at the start, times the scene extent.
        means_final: centres, at the end, times the scene extent; in between it falls exponentially.
        quats: rotations.
        log_scales: logarithms of the scales.
        logit_opacities: opacities before the sigmoid.
        sh0: base colour.
        shN: view-dependent colour.
    """

    means: float = 1.6e-4
    means_final: float = 1.6e-6
    quats: float = 1e-3
    log_scales: float = 5e-3
    logit_opacities: float = 5e-2
    sh0: float = 2.5e-3
    shN: float = 1.25e-4

    def at(self, step: int, horizon: int, extent: float) -> dict[str, float]:
        """Rates of 0-based `step`; from `horizon` on they stay at their final values."""
        t = min(1.0, step / max(1, horizon))
        means = math.exp((1 - t) * math.log(self.means) + t * math.log(self.means_final))
        return {
            "means": means * extent,
            "quats": self.quats,
            "log_scales": self.log_scales,
            "logit_opacities": self.logit_opacities,
            "sh0": self.sh0,
            "shN": self.shN,
        }


@dataclass(frozen=True)
class PerGaussian:
    """How a per-Gaussian value beyond the five parameters begins and what becomes of it in copies.

    Attributes:
        init: a number for an [N] tensor, or a function of the Gaussians that returns [N, ...].
        on_copy: "copy" the source's row, begin anew with "init", or a function of the copied rows.
        lr: learning rate; None where it is not optimised.
        activation: from the stored to the used value; None for the identity.
    """

    init: float | Callable[[Gaussians], Tensor] = 0.0
    on_copy: OnCopy = "copy"
    lr: float | None = None
    activation: Callable[[Tensor], Tensor] | None = None

    def initial(self, gaussians: Gaussians) -> Tensor:
        """[N, ...] first values for `gaussians`."""
        if callable(self.init):
            value = self.init(gaussians).detach()
            if value.shape[:1] != (len(gaussians),):
                raise ValueError(f"init gave shape {tuple(value.shape)} for {len(gaussians)} Gaussians")
            return value.contiguous()
        return torch.full((len(gaussians),), self.init, dtype=gaussians.dtype, device=gaussians.device)

    def copied(self, rows: Tensor, gaussians: Gaussians) -> Tensor:
        """Values of copies whose sources held `rows` ([M, ...]); `gaussians` are the M copies."""
        if self.on_copy == "copy":
            return rows
        if self.on_copy == "init":
            return self.initial(gaussians)
        return self.on_copy(rows)


class GaussianAdam:
    """Optimizer of one set of Gaussians.

    Attributes:
        moments: parameter or extra -> (exp_avg, exp_avg_sq), each of the parameter's shape; quantized, those of
            sh are followed by their scales [N, 2].
        kind: of the parameters' moments; extras have full ones.
        extras: extras that are optimised or follow edits, by name.
        count: steps taken; the bias correction of the next one uses count + 1.
    """

    def __init__(
        self, gaussians: Gaussians, rates: Rates, extent: float, horizon: int, kind: Kind = "full"
    ) -> None:
        self.gaussians = gaussians
        self.kind: Kind = kind
        self.schedule = rates
        self.extent = extent
        self.horizon = horizon
        self.count = 0
        self.extras: dict[str, PerGaussian] = {}
        self.moments: dict[str, tuple[Tensor, ...]] = {}
        for name in PARAMETERS:
            value = getattr(gaussians, name).detach().contiguous()
            setattr(gaussians, name, value)
            self.moments[name] = quantized.zeros(name, value, kind)

    def declare(self, name: str, extra: PerGaussian) -> None:
        """Add a per-Gaussian value to the scene's extras; values already there (a resumed run) are kept."""
        if name in PARAMETERS or name in self.extras:
            raise ValueError(f"per-Gaussian value {name!r} is already declared")
        self.extras[name] = extra
        if name not in self.gaussians.extras:
            self.gaussians.extras[name] = extra.initial(self.gaussians)
        value = self.gaussians.extras[name]
        if extra.lr is not None and name not in self.moments:
            self.moments[name] = quantized.zeros(name, value, "full")

    def value(self, name: str) -> Tensor:
        """[N, ...] the activated values of an extra."""
        raw, activation = self.gaussians.extras[name], self.extras[name].activation
        return raw if activation is None else activation(raw)

    def trained(self) -> list[tuple[str, Tensor]]:
        """Name and tensor of everything that is optimised."""
        extras = [(n, self.gaussians.extras[n]) for n, e in self.extras.items() if e.lr is not None]
        return [(name, getattr(self.gaussians, name)) for name in PARAMETERS] + extras

    def rates(self, step: int) -> dict[str, float]:
        """Rates of 0-based `step`: means, quats, log_scales, logit_opacities, sh0, shN and the extras."""
        rates = self.schedule.at(step, self.horizon, self.extent)
        rates.update({name: extra.lr for name, extra in self.extras.items() if extra.lr is not None})
        return rates

    @torch.no_grad()
    def step(self, rates: dict[str, float], penalties: dict[str, float]) -> None:
        """One dense step from the `.grad` of the parameters and of the optimised extras.

        A parameter without a gradient had none reach it: its moments decay as for a gradient of zero.
        An extra without a gradient is left alone: it takes no part in this step's loss.
        """
        self.count += 1
        g = self.gaussians
        for name, value in self.trained():
            if value.grad is None and name in self.extras:
                continue
            grad = torch.zeros_like(value) if value.grad is None else value.grad
            _add_penalty(name, g, grad, penalties)
            lr, head_lr = (rates["shN"], rates["sh0"]) if name == "sh" else (rates[name], None)
            if self.kind == "quantized" and name in PARAMETERS:
                held = self.moments[name]
                quantized.adam_step(name, value, grad, held, lr, self.count, BETAS, EPS, head_lr)
            else:
                first, second = self.moments[name]
                adam_step(value, grad, first, second, lr, self.count, head_lr)

    @torch.no_grad()
    def step_fused(
        self, deferred: Any, shown: Gaussians, rates: dict[str, float], penalties: dict[str, float]
    ) -> None:
        """Projection-backward at `shown`, which was rendered, penalties and Adam in one native pass.

        Extras as in `step`.
        """
        self.count += 1
        moments = {name: self.moments[name] for name in PARAMETERS}
        deferred.step(
            self.gaussians,
            moments,
            rates,
            step=self.count,
            betas=BETAS,
            eps=EPS,
            penalties=penalties,
            shown=shown,
        )
        for name, extra in self.extras.items():
            value = self.gaussians.extras[name]
            if extra.lr is not None and value.grad is not None:
                first, second = self.moments[name]
                adam_step(value, value.grad, first, second, rates[name], self.count)

    def state_dict(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "extent": self.extent,
            "horizon": self.horizon,
            "rates": asdict(self.schedule),
            "kind": self.kind,
            "moments": {name: list(held) for name, held in self.moments.items()},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over moments and schedule; parameters and extras are loaded by their owner, before."""
        kind = state.get("kind", "full")
        if kind != self.kind:
            raise ValueError(f"saved with {kind} moments, not with {self.kind} ones (--moments)")
        self.count = state["count"]
        self.extent = state["extent"]
        self.horizon = state["horizon"]
        self.schedule = Rates(**state["rates"])
        self.moments = {name: tuple(held) for name, held in state["moments"].items()}


def _add_penalty(name: str, g: Gaussians, grad: Tensor, penalties: dict[str, float]) -> None:
    """Add the gradient of w mean(opacity) or w mean(scale) to `grad`, in place."""
    if name == "logit_opacities" and penalties.get("opacity"):
        o = g.opacities()
        grad.add_(o * (1 - o), alpha=penalties["opacity"] / max(1, o.numel()))
    elif name == "log_scales" and penalties.get("scale"):
        s = g.scales()
        grad.add_(s, alpha=penalties["scale"] / max(1, s.numel()))


def _direction(exp_avg: Tensor, exp_avg_sq: Tensor, count: int) -> Tensor:
    """Bias-corrected Adam direction, of the moments' shape."""
    denominator = (exp_avg_sq.sqrt() / math.sqrt(1 - BETAS[1] ** count)).add_(EPS)
    return (exp_avg / (1 - BETAS[0] ** count)).div_(denominator)


def adam_step(
    param: Tensor,
    grad: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    lr: float,
    count: int,
    head_lr: float | None = None,
) -> None:
    """One Adam step, in place; `count` is the 1-based number of the step. All four are of one shape.

    With `head_lr`, param[:, 0] moves at that rate.
    """
    kernels = gpu.kernels_for(param, exp_avg, exp_avg_sq)
    if kernels is not None:
        arrays = (param.detach(), grad.detach().contiguous(), exp_avg, exp_avg_sq)
        gpu.adam_step(kernels, *arrays, lr, count, BETAS, EPS, head_lr)
        return
    _adam_step(param, grad, exp_avg, exp_avg_sq, lr, count)
    if head_lr is not None:
        # What is missing is the same direction once more.
        param[:, :1] -= (head_lr - lr) * _direction(exp_avg[:, :1], exp_avg_sq[:, :1], count)


def _adam_step(
    param: Tensor, grad: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, lr: float, count: int
) -> None:
    if all(t.device.type == "cpu" and t.dtype == torch.float32 for t in (param, grad)) and all(
        t.is_contiguous() for t in (param, exp_avg, exp_avg_sq)
    ):
        value, gradient, threads = param.detach(), grad.detach().contiguous(), torch.get_num_threads()
        _native.adam_step(value, gradient, exp_avg, exp_avg_sq, lr, count, *BETAS, EPS, threads)
        return
    exp_avg.lerp_(grad, 1 - BETAS[0])
    exp_avg_sq.mul_(BETAS[1]).addcmul_(grad, grad, value=1 - BETAS[1])
    param.sub_(_direction(exp_avg, exp_avg_sq, count), alpha=lr)
