"""Opposing signals: sharpness against PyHessian and its own limit, the price of watching, SplitSign against Adam."""

from __future__ import annotations

import functools
import warnings

import torch
from measure import HEADER, compare
from torch import nn
from torch.nn import functional

from interplay.dynamics.opposing_signals import Curvature, LossChangeRecorder, Probe, SplitSign, lanczos, sharpness

SAMPLES, STEPS = 1000, 200
cross_entropy = functools.partial(functional.cross_entropy, reduction="none")


def trained() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A 784-64-64-10 network of 55 thousand parameters, past its first steps, where the top eigenvalue is positive."""
    torch.manual_seed(0)
    x, y = torch.randn(SAMPLES, 784), torch.randint(0, 10, (SAMPLES,))
    model = nn.Sequential(nn.Linear(784, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    for _ in range(STEPS):
        optimizer.zero_grad()
        functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model, x, y


def against_pyhessian(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[str]:
    """The largest eigenvalue to 0.1 %, and the same in four batches."""
    try:
        from pyhessian import hessian
    except ImportError:
        return ["", "PyHessian was not there: pip install --no-deps pyhessian.", ""]
    rows = []
    batches = list(zip(x.split(250), y.split(250), strict=True))
    for title, data, theirs in (
        ("one batch", (x, y), {"data": (x, y)}),
        ("four batches of 250", batches, {"dataloader": batches}),
    ):
        probe = Probe(data, cross_entropy, batch_size=SAMPLES)

        def peer(theirs: dict[str, object] = theirs) -> float:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.manual_seed(0)
                return hessian(model, nn.CrossEntropyLoss(), cuda=False, **theirs).eigenvalues(tol=1e-3)[0][0]

        ours = sharpness(model, probe)
        alternatives = {
            "sharpness (Lanczos, residual 0.1 %)": lambda probe=probe: sharpness(model, probe),
            "PyHessian (power iteration, change 0.1 %)": peer,
            "sharpness, warm start": lambda probe=probe, ours=ours: sharpness(model, probe, start=ours.restart),
        }
        work = f"lambda_max, {SAMPLES} samples, 55k parameters, {title}: ours {ours.value:.4f}, PyHessian {peer():.4f}"
        rows += compare(work, alternatives, repeats=7).rows()
    return rows


def against_the_limit(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> list[str]:
    """Lanczos costs about two gradients a product."""
    probe, start = Probe((x, y), cross_entropy, batch_size=SAMPLES), torch.randn(55_050)
    parameters = list(model.parameters())

    def ours() -> None:
        lanczos(Curvature(model, probe).product, start, iterations=20, tolerance=0.0)

    def gradients() -> None:
        for _ in range(40):
            torch.autograd.grad(functional.cross_entropy(model(x), y), parameters)

    alternatives = {"20 products of Lanczos": ours, "40 gradients": gradients}
    return compare(f"the limit of Lanczos, {SAMPLES} samples, 55k parameters", alternatives, repeats=7).rows()


def price_of_watching(x: torch.Tensor, y: torch.Tensor) -> list[str]:
    """Full-batch training with and without a recorder, which takes the losses that the step computes."""

    def train(recorder: LossChangeRecorder | None) -> None:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(784, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for step in range(100):
            optimizer.zero_grad()
            losses = cross_entropy(model(x), y)
            losses.mean().backward()
            optimizer.step()
            if recorder is not None:
                recorder.update(losses, step=step)

    alternatives = {
        "with LossChangeRecorder": lambda: train(LossChangeRecorder(SAMPLES)),
        "without": lambda: train(None),
    }
    return compare(f"100 full-batch steps, {SAMPLES} samples", alternatives, repeats=7).rows()


def against_adam() -> list[str]:
    """Ten million parameters; SplitSign must find a quantile of all of them."""
    parameters = [nn.Parameter(torch.randn(1600, 1600) / 40) for _ in range(4)]
    for parameter in parameters:
        parameter.grad = torch.randn_like(parameter)
    alternatives = {
        "SplitSign": SplitSign(parameters, lr=1e-4, lr_sign=1e-5).step,
        "torch.optim.Adam(foreach)": torch.optim.Adam(parameters, 1e-5, foreach=True).step,
    }
    return compare("a step on 10 million parameters", alternatives, repeats=7).rows()


def main() -> None:
    torch.set_num_threads(1)
    model, x, y = trained()
    rows = [*against_the_limit(model, x, y), *price_of_watching(x, y), *against_adam()]
    print("\n".join([HEADER, *rows, *against_pyhessian(model, x, y)]))


if __name__ == "__main__":
    main()
