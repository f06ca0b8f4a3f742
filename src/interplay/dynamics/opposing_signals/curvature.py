"""Sharpness and the groups' parts in it, by Hessian-vector products over batches: no Hessian is ever formed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from interplay.dynamics.opposing_signals.probe import Probe
from interplay.primitives.conflict import update_cosine

__all__ = ["Curvature", "Opposition", "Sharpness", "gradient_opposition", "group_curvature", "lanczos", "sharpness"]


class Sharpness(NamedTuple):
    """The largest algebraic eigenvalue of a Hessian.

    Attributes
    ----------
    value
        The eigenvalue; never above the true one (a Ritz value).
    vector
        (P,) its unit eigenvector, over all trainable parameters, flat.
    residual
        |H v - value v|: an eigenvalue lies within this distance of the value.
    products
        Hessian-vector products that were taken.
    restart
        (P,) where to begin when the Hessian has changed a little: the vector with a part of the next two, one of which
        may have become the first.
    """

    value: float
    vector: Tensor
    residual: float
    products: int
    restart: Tensor


class Opposition(NamedTuple):
    """How far the mean gradients of two groups point against each other.

    Attributes
    ----------
    cosine
        -1 is perfect opposition.
    norm_a, norm_b
        Norms of the two gradients.
    by_parameter
        The cosine for every parameter by name; empty if not asked for. NaN where a gradient is zero.
    """

    cosine: float
    norm_a: float
    norm_b: float
    by_parameter: dict[str, float]


class Curvature:
    """Gradients and Hessian-vector products of a probe set's loss sum_i w_i l_i, w_i = 1 / N unless given.

    Products are taken batch by batch. A probe of a single batch keeps the graph of its gradient, so that a product
    costs one backward pass through it; it stands for the parameters of the moment at which the object was made.

    Parameters
    ----------
    model
        Its trainable parameters are the coordinates. It is used in the mode it is in; with BatchNorm in training mode
        the loss depends on the batches, and running statistics are put back.
    probe
        The samples and their loss.
    weights
        (N,) weights of the samples.

    Warns
    -----
    UserWarning
        BatchNorm with running statistics is in training mode: the curvature is that of batches, not of the model.
    """

    def __init__(self, model: nn.Module, probe: Probe, weights: Tensor | None = None) -> None:
        self.model, self.probe = model, probe
        self.names, self.parameters = zip(*_trainable(model), strict=True)
        for name, module in model.named_modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.training and module.track_running_stats:
                warnings.warn(
                    f"{name or 'the model'} is BatchNorm in training mode: curvature is that of the batches as they "
                    "are cut; call model.eval() first, or give the whole set as one batch",
                    stacklevel=2,
                )
                break
        self.batches = probe.batches if isinstance(probe.batches, list) else None
        with _undisturbed(model):
            self.samples = len(probe.losses(model))
        if weights is not None and weights.shape != (self.samples,):
            raise ValueError(f"weights must be ({self.samples},), one a sample; got shape {tuple(weights.shape)}")
        self.weights = None if weights is None else weights.to(self.parameters[0])
        self._kept: tuple[Tensor, ...] | None = None

    def gradient(self, weights: Tensor | None = None) -> Tensor:
        """(P,) gradient, with other weights if given."""
        total = torch.zeros(self._size(), dtype=self.parameters[0].dtype, device=self.parameters[0].device)
        with _undisturbed(self.model):
            for loss in self._losses(weights):
                total += _flat(torch.autograd.grad(loss, self.parameters, allow_unused=True), self.parameters)
        return total

    def product(self, vector: Tensor, weights: Tensor | None = None) -> Tensor:
        """(P,) Hessian times vector, with other weights if given."""
        if self.batches is not None and len(self.batches) == 1 and weights is None:
            if self._kept is None:
                with _undisturbed(self.model):
                    (loss,) = self._losses(None)
                    self._kept = self._first(loss)
            return self._second(self._kept, vector, keep=True)
        total = torch.zeros_like(vector)
        with _undisturbed(self.model):
            for loss in self._losses(weights):
                total += self._second(self._first(loss), vector, keep=False)
        return total

    def _losses(self, weights: Tensor | None) -> Iterator[Tensor]:
        weights = self.weights if weights is None else weights.to(self.parameters[0])
        start = 0
        for batch in self.batches if self.batches is not None else self.probe:
            losses = self.probe.batch_losses(self.model, batch)
            chosen = None if weights is None else weights[start : start + len(losses)]
            start += len(losses)
            if chosen is None:
                yield losses.sum() / self.samples
            elif chosen.any():
                yield losses @ chosen.to(losses)

    def _first(self, loss: Tensor) -> tuple[Tensor, ...]:
        gradients = torch.autograd.grad(loss, self.parameters, create_graph=True, allow_unused=True)
        return tuple(
            torch.zeros_like(parameter) if gradient is None else gradient
            for gradient, parameter in zip(gradients, self.parameters, strict=True)
        )

    def _second(self, gradients: tuple[Tensor, ...], vector: Tensor, *, keep: bool) -> Tensor:
        pairs = [
            (gradient, direction)
            for gradient, direction in zip(gradients, self._split(vector), strict=True)
            if gradient.requires_grad
        ]
        if not pairs:
            return torch.zeros_like(vector)
        outputs, directions = zip(*pairs, strict=True)
        products = torch.autograd.grad(
            outputs, self.parameters, directions, retain_graph=keep, allow_unused=True, materialize_grads=False
        )
        return _flat(products, self.parameters)

    def _split(self, vector: Tensor) -> list[Tensor]:
        pieces = vector.split([parameter.numel() for parameter in self.parameters])
        return [piece.view_as(parameter) for piece, parameter in zip(pieces, self.parameters, strict=True)]

    def _size(self) -> int:
        return sum(parameter.numel() for parameter in self.parameters)


def sharpness(
    model: nn.Module,
    probe: Probe,
    *,
    iterations: int = 40,
    tolerance: float = 1e-3,
    start: Tensor | None = None,
    seed: int = 0,
    weights: Tensor | None = None,
) -> Sharpness:
    """Largest ALGEBRAIC eigenvalue of the Hessian of the probe's loss, by Lanczos on Hessian-vector products.

    Power iteration would find the eigenvalue of largest size, which is often negative early in training.

    Parameters
    ----------
    model, probe, weights
        As of `Curvature`.
    iterations
        Most products; the memory is that of as many vectors of P numbers.
    tolerance
        Stop when the residual is below this part of the value. The error of the value itself is of its square.
    start
        (P,) where to begin, `restart` of an earlier call: a warm start needs fewer products. A component in a random
        direction is added, and ten products are taken at least, so that it does not get stuck on an eigenvector that is
        no longer the first.
    seed
        Of the random direction.

    Raises
    ------
    ValueError
        Nothing to train, a start of another size, iterations below one.
    """
    curvature = Curvature(model, probe, weights)
    return lanczos(curvature.product, _first_vector(curvature, start, seed), iterations=iterations, tolerance=tolerance)


def lanczos(
    product: Callable[[Tensor], Tensor],
    start: Tensor,
    *,
    iterations: int = 40,
    tolerance: float = 1e-3,
    least: int = 10,
) -> Sharpness:
    """Largest algebraic eigenvalue of a symmetric operator, with full reorthogonalisation.

    Parameters
    ----------
    product
        (P,) in, (P,) out.
    start
        (P,) not zero.
    iterations, tolerance
        As of `sharpness`.
    least
        Fewest products, unless the vectors that can be reached are exhausted.
    """
    if iterations < 1:
        raise ValueError(f"iterations must be 1 or more; got {iterations}")
    norm = float(start.norm())
    if not (norm > 0 and math.isfinite(norm)):
        raise ValueError("start must be finite and not zero")
    iterations = min(iterations, len(start))
    basis = start.new_empty(iterations, len(start))
    diagonal, beside = np.zeros(iterations), np.zeros(iterations)
    vector = start / norm
    for step in range(iterations):
        basis[step] = vector
        image = product(vector)
        diagonal[step] = float(image @ vector)
        for _ in range(2):  # twice is enough: one pass leaves what rounding makes of it
            image = image - (basis[: step + 1] @ image) @ basis[: step + 1]
        beside[step] = float(image.norm())
        # Before the last step the eigenvalues of the small matrix cost nothing against a product.
        tridiagonal = np.diag(diagonal[: step + 1]) + np.diag(beside[:step], 1) + np.diag(beside[:step], -1)
        if not np.isfinite(tridiagonal).all():
            raise ValueError("the Hessian is not finite: the loss has overflowed or is not differentiable twice")
        values, vectors = np.linalg.eigh(tridiagonal)
        value, residual = float(values[-1]), float(abs(beside[step] * vectors[-1, -1]))
        scale = float(np.abs(values).max())
        if (residual <= tolerance * abs(value) and step + 1 >= least) or beside[step] <= 1e-6 * scale:
            break
        vector = image / beside[step]
    tops = torch.as_tensor(vectors[:, :-4:-1].T.copy()).to(basis) @ basis[: step + 1]
    restart = tops[0] + 0.3 * tops[1:].sum(0)
    return Sharpness(value, tops[0] / tops[0].norm(), residual, step + 1, restart / restart.norm())


def group_curvature(
    model: nn.Module, probe: Probe, vector: Tensor, groups: Mapping[str, ArrayLike]
) -> dict[str, float]:
    """v.H_G v for every group: its part in the curvature of the whole loss along a direction.

    H_G is the Hessian of the group's part of the mean loss, sum over the group of l_i / N. For groups that make up the
    whole set the parts add up to v.H v, which is the sharpness if v is its eigenvector.

    Parameters
    ----------
    model, probe
        As of `Curvature`.
    vector
        (P,) the direction v, for example `Sharpness.vector`.
    groups
        Indices of the samples by name of the group.
    """
    curvature = Curvature(model, probe)
    parts = {}
    for name, members in groups.items():
        weights = _indicator(members, curvature.samples, name).to(vector) / curvature.samples
        parts[name] = float(vector @ curvature.product(vector, weights))
    return parts


def gradient_opposition(
    model: nn.Module, probe: Probe, group_a: ArrayLike, group_b: ArrayLike, *, per_parameter: bool = True
) -> Opposition:
    """Cosine between the mean gradients of two groups, and their norms.

    Parameters
    ----------
    model, probe
        As of `Curvature`.
    group_a, group_b
        Indices of the samples.
    per_parameter
        Whether to give the cosine of every parameter, too.

    Raises
    ------
    ValueError
        An empty group, or indices out of range.
    """
    curvature = Curvature(model, probe)
    gradients = []
    for name, members in (("group_a", group_a), ("group_b", group_b)):
        indicator = _indicator(members, curvature.samples, name)
        gradients.append(curvature.gradient(indicator / indicator.sum()))
    pieces = [curvature._split(gradient) for gradient in gradients]
    by_parameter = {}
    if per_parameter:
        pairs = zip(curvature.names, *pieces, strict=True)
        by_parameter = {name: float(update_cosine(left, right)) for name, left, right in pairs}
    norms = [float(gradient.norm()) for gradient in gradients]
    return Opposition(float(update_cosine(*gradients)), *norms, by_parameter)


def _first_vector(curvature: Curvature, start: Tensor | None, seed: int) -> Tensor:
    first = curvature.parameters[0]
    noise = torch.randn(curvature._size(), generator=torch.Generator().manual_seed(seed)).to(first)
    noise /= noise.norm()
    if start is None:
        return noise
    if start.shape != noise.shape:
        raise ValueError(f"start must hold a number for each of {len(noise)} parameters; got {tuple(start.shape)}")
    return start.to(first) / start.norm() + 0.1 * noise


def _indicator(members: ArrayLike, samples: int, name: str) -> Tensor:
    index = torch.as_tensor(np.asarray(members, dtype=np.int64))
    if index.dim() != 1 or not len(index):
        raise ValueError(f"{name} must hold the indices of one sample or more; got shape {tuple(index.shape)}")
    if int(index.min()) < 0 or int(index.max()) >= samples:
        raise ValueError(
            f"{name} must lie in [0, {samples - 1}], the samples of the probe; got {int(index.min())} to "
            f"{int(index.max())}"
        )
    return torch.zeros(samples).index_fill_(0, index, 1.0)


def _trainable(model: nn.Module) -> Sequence[tuple[str, nn.Parameter]]:
    trainable = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    if not trainable:
        raise ValueError("the model has no parameter that requires a gradient")
    return trainable


def _flat(tensors: Sequence[Tensor | None], parameters: Sequence[Tensor]) -> Tensor:
    pairs = zip(tensors, parameters, strict=True)
    return torch.cat(
        [(torch.zeros_like(parameter) if tensor is None else tensor).detach().flatten() for tensor, parameter in pairs]
    )


@contextmanager
def _undisturbed(model: nn.Module) -> Iterator[None]:
    """Buffers (running statistics) are put back, and attention takes a path that can be differentiated twice."""
    # Not copied back in place: a kept graph may hold the buffers that the forward pass has seen.
    before = [(module, dict(module._buffers)) for module in model.modules()]
    for module, buffers in before:
        module._buffers.update({name: buffer.clone() for name, buffer in buffers.items() if buffer is not None})
    try:
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        for module, buffers in before:
            module._buffers.update(buffers)
