"""Curl descent as a PyTorch optimiser, for any network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.optim import Optimizer

from interplay.primitives.plasticity import Side

__all__ = ["CurlDescent"]

Base = Literal["sgd", "adam"]


class CurlDescent(Optimizer):
    """Gradient descent in which the plasticity of some neurons has another sign, or another gain.

    A step on a weight w with gradient g and gains d (1 where none are given) is

        base "sgd":   b <- momentum b + d g + weight_decay w,   w <- w - lr b
        base "adam":  w <- w - lr (d m' / (sqrt(v') + eps) + weight_decay w)

    with Adam's bias-corrected moments m', v' of g. With renorm="init_frobenius" every parameter with two or more
    dimensions is then brought back to the Frobenius norm that it had when it was handed over.

    Gains act on what the loss asks for, not on the weight decay, which would otherwise blow flipped weights up.
    Momentum gathers the flipped gradients, so that flipping before or after it is the same. For "sgd" and gains of one
    the step is that of `torch.optim.SGD`, for "adam" that of `torch.optim.AdamW`.

    Parameters
    ----------
    params
        Parameters or parameter groups; groups may set any option below but `signs`.
    lr
        Step size.
    signs
        Gains by parameter. A vector belongs to the neurons of `side`: the second dimension of a weight for "pre"
        (inputs of a linear layer, input channels of a convolution), the first for "post". A tensor of as many
        dimensions as the parameter is broadcast as it is; `flip_plan` makes such. Any real number will do: -1 flips, 0
        freezes.
    side
        Which neurons vectors of gains belong to.
    renorm
        None, or "init_frobenius" as in all published runs, without which flipped runs can blow up.
    momentum, weight_decay
        As in the equations; momentum is for base "sgd".
    base
        "sgd" or "adam".
    betas, eps
        Of base "adam".
    maximize
        Ascend instead.
    foreach
        Update all parameters by a few fused calls; False goes through them one by one.

    Raises
    ------
    ValueError
        If an option is out of range, gains are given for a parameter that the optimiser does not hold or do not fit
        it, or a norm that is to be kept is zero.
    RuntimeError
        At a step, if a gradient is sparse.

    Examples
    --------
    >>> model = torch.nn.Linear(3, 2)
    >>> optimizer = CurlDescent(model.parameters(), lr=0.1, signs={model.weight: torch.tensor([-1.0, 1.0, 1.0])})
    >>> model(torch.ones(1, 3)).sum().backward()
    >>> optimizer.step()
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-2,
        *,
        signs: Mapping[Tensor, Tensor] | None = None,
        side: Side = "pre",
        renorm: Literal["init_frobenius"] | None = None,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        base: Base = "sgd",
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
        foreach: bool = True,
    ) -> None:
        self._signs = dict(signs or {})
        defaults = {
            "lr": lr,
            "side": side,
            "renorm": renorm,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "base": base,
            "betas": betas,
            "eps": eps,
            "maximize": maximize,
            "foreach": foreach,
        }
        super().__init__(params, defaults)
        held = {id(parameter) for group in self.param_groups for parameter in group["params"]}
        for parameter in self._signs:
            if id(parameter) not in held:
                raise ValueError(
                    f"signs are given for a parameter of shape {tuple(parameter.shape)} that the optimiser does not "
                    "hold"
                )
        self._signs = {}  # from here on the gains live in the state and travel with it

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._signs = {}

    def add_param_group(self, param_group: dict[str, Any], signs: Mapping[Tensor, Tensor] | None = None) -> None:
        """Add parameters, with their gains if they have any."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            _check_options(group)
            given = {id(parameter): gains for parameter, gains in {**self._signs, **(signs or {})}.items()}
            for parameter in group["params"]:
                if id(parameter) in given:
                    self.state[parameter]["gains"] = fitted_gains(given[id(parameter)], parameter, group["side"])
                if group["renorm"] is not None and parameter.dim() > 1:
                    self.state[parameter]["norm"] = _norm(parameter)
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
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            for parameter in parameters:
                if parameter.grad.is_sparse:
                    raise RuntimeError(
                        f"the gradient of a parameter of shape {tuple(parameter.shape)} is sparse; curl descent needs "
                        "dense gradients: build the embedding with sparse=False"
                    )
            pieces = [parameters] if group["foreach"] else [[parameter] for parameter in parameters]
            for piece in pieces:
                if piece:
                    self._adam(piece, group) if group["base"] == "adam" else self._descend(piece, group)
                    self._renormalise(piece, group)
        return loss

    def _descend(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """The equation of base "sgd"."""
        rate = group["lr"] if group["maximize"] else -group["lr"]
        decay = -group["weight_decay"] if group["maximize"] else group["weight_decay"]
        grads = [parameter.grad for parameter in parameters]
        if not group["momentum"] and not decay:
            self._add_gained(parameters, grads, parameters, rate)
            return
        steps = torch._foreach_mul(parameters, decay) if decay else None
        if group["momentum"]:
            fresh = [parameter for parameter in parameters if "momentum" not in self.state[parameter]]
            for parameter in fresh:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            buffers = [self.state[parameter]["momentum"] for parameter in parameters]
            torch._foreach_mul_(buffers, group["momentum"])
            if steps is not None:
                torch._foreach_add_(buffers, steps)
            steps = buffers
        self._add_gained(steps, grads, parameters, 1.0)
        torch._foreach_add_(parameters, steps, alpha=rate)

    def _adam(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        """The equation of base "adam"."""
        (beta1, beta2), rate = group["betas"], group["lr"] if group["maximize"] else -group["lr"]
        for parameter in parameters:
            state = self.state[parameter]
            if "step" not in state:
                state["step"] = torch.zeros((), dtype=torch.float32)
                for name in ("first", "second"):
                    state[name] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            state["step"] += 1
        grads = [parameter.grad for parameter in parameters]
        first = [self.state[parameter]["first"] for parameter in parameters]
        second = [self.state[parameter]["second"] for parameter in parameters]
        torch._foreach_lerp_(first, grads, 1 - beta1)
        torch._foreach_mul_(second, beta2)
        torch._foreach_addcmul_(second, grads, grads, 1 - beta2)
        counts = [int(self.state[parameter]["step"]) for parameter in parameters]
        scale = torch._foreach_sqrt(second)
        torch._foreach_div_(scale, [(1 - beta2**count) ** 0.5 for count in counts])
        torch._foreach_add_(scale, group["eps"])
        moves = torch._foreach_div(first, scale)
        torch._foreach_div_(moves, [1 - beta1**count for count in counts])
        if group["weight_decay"]:
            torch._foreach_mul_(parameters, 1 - group["lr"] * group["weight_decay"])
        self._add_gained(parameters, moves, parameters, rate)

    def _add_gained(self, targets: list[Tensor], updates: list[Tensor], parameters: list[Tensor], scale: float) -> None:
        """targets += scale * gains * updates, in one pass over memory: the product is never stored."""
        gained = [index for index, parameter in enumerate(parameters) if "gains" in self.state[parameter]]
        plain = [index for index, parameter in enumerate(parameters) if "gains" not in self.state[parameter]]
        if gained:
            gains = [self.state[parameters[index]]["gains"] for index in gained]
            torch._foreach_addcmul_([targets[i] for i in gained], [updates[i] for i in gained], gains, scale)
        if plain:
            torch._foreach_add_([targets[i] for i in plain], [updates[i] for i in plain], alpha=scale)

    def _renormalise(self, parameters: list[Tensor], group: dict[str, Any]) -> None:
        if group["renorm"] is None:
            return
        kept = [parameter for parameter in parameters if "norm" in self.state[parameter]]
        if not kept:
            return
        factors = torch._foreach_div([self.state[parameter]["norm"] for parameter in kept], torch._foreach_norm(kept))
        torch._foreach_mul_(kept, factors)


def _check_options(group: dict[str, Any]) -> None:
    for name in ("lr", "momentum", "weight_decay", "eps"):
        if not group[name] >= 0:
            raise ValueError(f"{name} must be zero or more; got {group[name]}")
    if not all(0 <= beta < 1 for beta in group["betas"]):
        raise ValueError(f"betas must lie in [0, 1); got {group['betas']}")
    for name, allowed in (("side", get_args(Side)), ("base", get_args(Base)), ("renorm", (None, "init_frobenius"))):
        if group[name] not in allowed:
            raise ValueError(f"{name} must be one of {allowed}; got {group[name]!r}")
    if group["base"] == "adam" and group["momentum"]:
        raise ValueError(f"momentum is for base='sgd'; Adam's is betas[0]; got momentum={group['momentum']}")


def fitted_gains(gains: Tensor, parameter: Tensor, side: Side) -> Tensor:
    """Gains that broadcast against their parameter, of its dtype and on its device."""
    shape = tuple(parameter.shape)
    gains = gains.detach().to(parameter)
    if gains.dim() == parameter.dim() and gains.dim() != 1:
        if any(own not in (1, whole) for own, whole in zip(gains.shape, shape, strict=True)):
            raise ValueError(
                f"signs of shape {tuple(gains.shape)} do not broadcast against a parameter of shape {shape}"
            )
        return gains.clone()
    if parameter.dim() == 1 and side == "pre":
        raise ValueError(
            f"side='pre' is not defined for a parameter of shape {shape}: a bias has no sender; leave it out of signs, "
            "or use side='post'"
        )
    dimension = 1 if side == "pre" else 0
    if gains.dim() != 1 or parameter.dim() <= dimension or len(gains) != shape[dimension]:
        expected = shape[dimension] if len(shape) > dimension else 0
        raise ValueError(
            f"signs of a parameter of shape {shape} must have length {expected} on side {side!r}, or as many "
            f"dimensions as the parameter; got shape {tuple(gains.shape)}"
        )
    return gains.reshape([-1 if index == dimension else 1 for index in range(parameter.dim())]).clone()


def _norm(parameter: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(parameter.detach())
    if not norm > 0:
        raise ValueError(
            f"a parameter of shape {tuple(parameter.shape)} is zero, so that renorm cannot keep its norm: "
            "initialise it, or put it into a group with renorm=None"
        )
    return norm
