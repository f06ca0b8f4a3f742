"""The battery that every mechanism must pass, shipped so that users can run it on their own.

>>> import torch
>>> from interplay.testing import check_mechanism
>>> check_mechanism(torch.nn.Linear(3, 2), torch.randn(4, 3))
"""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

__all__ = ["check_mechanism", "check_refused", "check_same_seed"]


def check_mechanism(
    module: nn.Module,
    *inputs: Tensor,
    batch_dim: int | None = 0,
    gradients: bool = True,
    stateful: bool = False,
    dtypes: Iterable[torch.dtype] = (torch.float32, torch.float64),
    devices: Iterable[str] = ("cpu",),
    bad_inputs: Mapping[str, tuple[Tensor, ...]] | None = None,
) -> None:
    """Check that a module behaves as PyTorch users expect.

    It keeps dtype and device, does not change its inputs, gives the same result for the same seed, sends gradients to
    every parameter that wants one, survives a state_dict round trip, takes a batch of one, refuses bad input, and
    leaves no hook behind.

    Parameters
    ----------
    module
        The mechanism; it is copied, not changed.
    *inputs
        Example inputs, float32, batch of two or more.
    batch_dim
        Dimension of the batch in every input; None where there is none.
    gradients
        Whether gradients must reach every parameter that requires one.
    stateful
        Whether a call changes what the next one returns (running statistics, adaptation); each repeat then starts anew.
    dtypes, devices
        What the module must keep.
    bad_inputs
        Inputs that must raise ValueError, TypeError or RuntimeError, by what is wrong with them.

    Raises
    ------
    AssertionError
        Naming the rule that is broken.
    """
    for dtype in dtypes:
        for device in devices:
            _check_dtype_and_device(module, inputs, dtype, device)
    _check_inputs_untouched(module, inputs)
    _check_repeatable(module, inputs, stateful)
    _check_state_dict(module, inputs)
    _check_hooks(module, inputs)
    if gradients:
        _check_gradients(module, inputs)
    if batch_dim is not None:
        _check_batch_of_one(module, inputs, batch_dim)
    for what, bad in (bad_inputs or {}).items():
        check_refused(lambda bad=bad: copy.deepcopy(module)(*bad), what)


def check_refused(
    call: Callable[[], object],
    what: str,
    *,
    errors: tuple[type[Exception], ...] = (ValueError, TypeError, RuntimeError, IndexError, KeyError),
) -> str:
    """Check that a call with bad input raises one of `errors` with a message, and return the message."""
    try:
        call()
    except errors as error:
        message = str(error).strip()
    else:
        raise AssertionError(f"{what}: bad input was accepted")
    assert message, f"{what}: the error says nothing"
    return message


def check_same_seed(make: Callable[[int], object]) -> None:
    """Check that `make(seed)` gives equal results for equal seeds and different ones for different seeds."""
    assert _equal(make(7), make(7)), "the same seed gives two results"
    assert not _equal(make(7), make(8)), "two seeds give the same result: the seed is not used"


def _run(module: nn.Module, inputs: Iterable[Tensor]) -> list[Tensor]:
    torch.manual_seed(0)
    return _tensors(module(*inputs))


def _tensors(result: Any) -> list[Tensor]:
    if isinstance(result, Tensor):
        return [result]
    if isinstance(result, Mapping):
        return [tensor for value in result.values() for tensor in _tensors(value)]
    if isinstance(result, tuple | list):
        return [tensor for value in result for tensor in _tensors(value)]
    return []


def _check_dtype_and_device(module: nn.Module, inputs: tuple[Tensor, ...], dtype: torch.dtype, device: str) -> None:
    moved = copy.deepcopy(module).to(device=device, dtype=dtype)
    cast = [tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype) for tensor in inputs]
    results = _run(moved, cast)
    assert results, "the mechanism returns no tensor"
    for result in results:
        assert result.device.type == torch.device(device).type, f"moved from {device} to {result.device}"
        if result.is_floating_point():
            assert result.dtype == dtype, f"{dtype} in, {result.dtype} out"
            assert result.isfinite().all(), f"not finite in {dtype}"


def _check_inputs_untouched(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    given = [tensor.clone() for tensor in inputs]
    _run(copy.deepcopy(module), given)
    for position, (before, after) in enumerate(zip(inputs, given, strict=True)):
        assert torch.equal(before, after), f"input {position} was changed in place"


def _check_repeatable(module: nn.Module, inputs: tuple[Tensor, ...], stateful: bool) -> None:
    one = copy.deepcopy(module)
    other = copy.deepcopy(module) if stateful else one
    assert _equal(_run(one, inputs), _run(other, inputs)), "the same seed gives two results"


def _check_state_dict(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    file = io.BytesIO()
    torch.save(module.state_dict(), file)
    file.seek(0)
    fresh = copy.deepcopy(module)
    with torch.no_grad():
        for tensor in [*fresh.parameters(), *fresh.buffers()]:
            tensor.zero_()
    fresh.load_state_dict(torch.load(file, weights_only=True))
    assert _equal(_run(copy.deepcopy(module), inputs), _run(fresh, inputs)), (
        "a state_dict round trip changes the result"
    )


def _check_hooks(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    tried = copy.deepcopy(module)
    before = _hooks(tried)
    _run(tried, inputs)
    assert _hooks(tried) == before, "a call leaves hooks behind"


def _check_gradients(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    tried = copy.deepcopy(module).train()
    results = [tensor for tensor in _run(tried, inputs) if tensor.is_floating_point()]
    weights = [torch.linspace(0.5, 1.5, tensor.numel(), dtype=tensor.dtype).view_as(tensor) for tensor in results]
    torch.stack([(tensor * weight).sum() for tensor, weight in zip(results, weights, strict=True)]).sum().backward()
    for name, parameter in tried.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"no gradient reaches {name}"
            assert parameter.grad.isfinite().all(), f"the gradient of {name} is not finite"
            assert parameter.grad.abs().sum() > 0, f"the gradient of {name} is zero everywhere"


def _check_batch_of_one(module: nn.Module, inputs: tuple[Tensor, ...], batch_dim: int) -> None:
    tried = copy.deepcopy(module).eval()
    single = [tensor.narrow(batch_dim, 0, 1) for tensor in inputs]
    for alone, whole in zip(_run(tried, single), _run(copy.deepcopy(module).eval(), inputs), strict=True):
        assert alone.dim() == whole.dim(), f"a batch of one has {alone.dim()} dimensions, a larger batch {whole.dim()}"


def _hooks(module: nn.Module) -> list[int]:
    return [
        len(part._forward_hooks) + len(part._forward_pre_hooks) + len(part._backward_hooks) for part in module.modules()
    ]


def _equal(left: Any, right: Any) -> bool:
    if isinstance(left, Tensor):
        return torch.equal(left, right)
    if isinstance(left, np.ndarray):
        return np.array_equal(left, right, equal_nan=True)
    if isinstance(left, tuple | list):
        return len(left) == len(right) and all(_equal(a, b) for a, b in zip(left, right, strict=True))
    if hasattr(left, "equals"):
        return bool(left.equals(right))
    return bool(left == right)
