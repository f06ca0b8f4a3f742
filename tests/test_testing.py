"""The battery finds each fault that it promises to find."""

import pytest
import torch
from torch import nn

from interplay.testing import check_mechanism, check_refused, check_same_seed

X = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))


class Faulty(nn.Module):
    """A linear layer with one fault."""

    def __init__(self, fault: str) -> None:
        super().__init__()
        self.fault = fault
        self.linear = nn.Linear(3, 2)
        self.calls = 0
        if fault == "dead parameter":
            self.unused = nn.Parameter(torch.ones(2))
        if fault == "state outside the state_dict":
            self.register_buffer("scale", torch.full((1,), 2.0), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.fault == "changes its input":
            x.mul_(2)
        if self.fault == "loses the dtype":
            return self.linear(x).float()
        if self.fault == "not repeatable":
            return self.linear(x) + self.calls
        if self.fault == "leaves a hook":
            self.linear.register_forward_hook(lambda *_: None)
        if self.fault == "state outside the state_dict":
            return self.linear(x) * self.scale
        if self.fault == "squeezes a batch of one":
            return self.linear(x).squeeze()
        return self.linear(x)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("changes its input", "changed in place"),
        ("loses the dtype", "float64 in, torch.float32 out"),
        ("not repeatable", "two results"),
        ("leaves a hook", "leaves hooks"),
        ("dead parameter", "no gradient reaches unused"),
        ("state outside the state_dict", "round trip"),
        ("squeezes a batch of one", "batch of one"),
    ],
)
def test_faults_are_found(fault, message):
    with pytest.raises(AssertionError, match=message):
        check_mechanism(Faulty(fault), X)


def test_a_sound_module_passes():
    check_mechanism(nn.Linear(3, 2), X, bad_inputs={"wrong width": (torch.randn(4, 5),)})


def test_accepted_bad_input_is_found():
    with pytest.raises(AssertionError, match="bad input was accepted"):
        check_mechanism(nn.Linear(3, 2), X, bad_inputs={"fine": (X,)})
    with pytest.raises(AssertionError, match="the error says nothing"):
        check_refused(lambda: (_ for _ in ()).throw(ValueError("")), "empty message")


def test_same_seed():
    check_same_seed(lambda seed: torch.rand(3, generator=torch.Generator().manual_seed(seed)))
    with pytest.raises(AssertionError, match="seed is not used"):
        check_same_seed(lambda seed: torch.zeros(3))
    with pytest.raises(AssertionError, match="two results"):
        check_same_seed(lambda seed: torch.rand(3))
