"""Gradient gates: what goes forward is untouched, what comes back is the factor times what autograd would send."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from interplay.primitives.gates import scale_gradient


@settings(deadline=None)
@given(factor=st.floats(-3, 3), shape=st.lists(st.integers(1, 4), max_size=3))
def test_the_values_stay_and_the_gradient_is_multiplied(factor, shape):
    values = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    gated = scale_gradient(values, factor)
    torch.testing.assert_close(gated, values, rtol=0, atol=0)
    (gradient,) = torch.autograd.grad(gated.sin().sum(), values)
    torch.testing.assert_close(gradient, factor * values.detach().cos())


def test_a_factor_per_row_gates_each_row():
    values = torch.ones(3, 2, requires_grad=True)
    scale_gradient(values, torch.tensor([[0.0], [1.0], [-2.0]])).sum().backward()
    assert values.grad.tolist() == [[0, 0], [1, 1], [-2, -2]]


def test_networks_at_once_have_gates_of_their_own():
    values, factors = torch.randn(4, 5), torch.tensor([0.0, 0.5, 1.0, -1.0])
    gradients = torch.func.vmap(torch.func.grad(lambda x, k: scale_gradient(x, k).square().sum()))(values, factors)
    torch.testing.assert_close(gradients, 2 * values * factors[:, None])


def test_the_gate_stands_once_in_a_second_derivative():
    x = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(scale_gradient(x, 0.5) ** 3, x, create_graph=True)
    assert first.item() == pytest.approx(0.5 * 3 * 4)
    (second,) = torch.autograd.grad(first, x)
    assert second.item() == pytest.approx(0.5 * 0.5 * 6 * 2)  # the gradient flows through the gated value again


def test_dtype_is_kept_where_the_factor_has_another():
    values = torch.ones(2, dtype=torch.bfloat16, requires_grad=True)
    scale_gradient(values, torch.tensor(0.5, dtype=torch.float64)).sum().backward()
    assert values.grad.dtype == torch.bfloat16


@pytest.mark.filterwarnings("ignore:.*should not be instantiated:DeprecationWarning")  # PyTorch looks at its own class
def test_compile_keeps_the_gate():
    values = torch.ones(3, requires_grad=True)
    torch.compile(lambda x: scale_gradient(x, 0.25).sum(), backend="aot_eager")(values).backward()
    assert values.grad.tolist() == [0.25] * 3


def test_bad_input_is_refused():
    with pytest.raises(TypeError, match="int64"):
        scale_gradient(torch.arange(3), 1.0)
    with pytest.raises(ValueError, match=r"\(4,\).*\(3,\)"):
        scale_gradient(torch.ones(3), torch.ones(4))
    with pytest.raises(ValueError, match="broadcast"):
        scale_gradient(torch.ones(3), torch.ones(2, 3))
