"""Sign steps where the momentum is largest, plain steps elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.optim import Optimizer

__all__ = ["SplitSign"]


class SplitSign(Optimizer):
    """SGD with momentum whose largest coordinates take steps of a fixed size.

        m <- beta1 m + (1 - beta1) g
        w <- w - lr m               where |m| is at most the (1 - q) quantile of |m| over all coordinates
        w <- w - lr_sign sign(m)    elsewhere

    Opposing signals make few coordinates large; a bounded step on those is what damps their see-saw in Adam too.

    Parameters
    ----------
    params
        Parameters or parameter groups; groups may set any option. The quantile is over all groups.
    lr
        Step size of the plain coordinates.
    lr_sign
        Size of the sign steps, in units of the weights.
    q
        Fraction of coordinates that take sign steps, 0 to 1; ties stay plain.
    beta1
        Momentum, in [0, 1).

    Raises
    ------
    ValueError
        An option out of range.
    RuntimeError
        At a step, if a gradient is sparse.

    Examples
    --------
    >>> weight = torch.nn.Parameter(torch.zeros(4))
    >>> optimizer = SplitSign([weight], lr=1.0, lr_sign=0.5, q=0.25, beta1=0.0)
    >>> weight.grad = torch.tensor([1.0, -2.0, 3.0, -9.0])
    >>> optimizer.step()
    >>> weight.tolist()
    [-1.0, 2.0, -3.0, 0.5]
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-1, lr_sign: float = 1e-3, q: float = 0.1, beta1: float = 0.9
    ) -> None:
        super().__init__(params, {"lr": lr, "lr_sign": lr_sign, "q": q, "beta1": beta1})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with options of their own."""
        super().add_param_group(param_group)
        try:
            _check_options(self.param_groups[-1])
        except ValueError:
            self.param_groups.pop()
            raise

    @torch.no_grad()
    def step(self, closure: Callable[[], Tensor] | None = None) -> Tensor | None:  # type: ignore[override]
        """Take a step; a closure re-evaluates the loss and its gradients first, and its loss is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        updated: list[tuple[dict[str, Any], Tensor, Tensor]] = []
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                if parameter.grad.is_sparse:
                    raise RuntimeError("SplitSign takes no sparse gradients; use dense ones (sparse=False)")
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"].lerp_(parameter.grad, 1 - group["beta1"])
                updated.append((group, parameter, momentum))
        if not updated:
            return loss
        thresholds = _thresholds({group["q"] for group, _, _ in updated}, [momentum for _, _, momentum in updated])
        for group, parameter, momentum in updated:
            large = momentum.abs() > thresholds[group["q"]].to(momentum.device)
            parameter.sub_(torch.where(large, group["lr_sign"] * momentum.sign(), group["lr"] * momentum))
        return loss


def _thresholds(fractions: Iterable[float], momenta: list[Tensor]) -> dict[float, Tensor]:
    """The size that all but a fraction of the coordinates do not exceed."""
    device = momenta[0].device
    sizes = torch.cat([momentum.abs().flatten().to(device) for momentum in momenta])
    thresholds = {}
    for fraction in fractions:
        plain = len(sizes) - round(fraction * len(sizes))
        thresholds[fraction] = _smallest(sizes, plain) if plain else sizes.new_tensor(-1.0)
    return thresholds


def _smallest(sizes: Tensor, k: int) -> Tensor:
    """The k-th smallest, of any number of elements, where `torch.quantile` refuses more than 2^24."""
    if sizes.device.type != "cpu" or sizes.dtype == torch.bfloat16:
        return sizes.kthvalue(k).values
    # NumPy selects four times as fast on a CPU.
    return sizes.new_tensor(np.partition(sizes.numpy(), k - 1)[k - 1])


def _check_options(group: dict[str, Any]) -> None:
    for name in ("lr", "lr_sign"):
        if not group[name] >= 0:
            raise ValueError(f"{name} must be zero or more; got {group[name]}")
    if not 0 <= group["q"] <= 1:
        raise ValueError(f"q must lie in [0, 1]; got {group['q']}")
    if not 0 <= group["beta1"] < 1:
        raise ValueError(f"beta1 must lie in [0, 1); got {group['beta1']}")
