"""One frequency of one neuron on its own: the decoupled gradient flow of small weights, and when it takes over.

While all logits are small, quadratic neurons under gradient flow on the loss summed over all p^2 pairs follow

(1)  alpha' = 2 p alpha beta cos D         beta' = p alpha^2 cos D
(2)  phi' = -2 p beta sin D                psi' = p (alpha^2 / beta) sin D,   D = 2 phi - psi
(3)  so that D' = -(4 p beta + p alpha^2 / beta) sin D

for every frequency by itself; the mean loss divides all rates by p^2. With a = alpha e^{i phi}, b = beta e^{i psi} this
is the polynomial flow a' = 2 p b conj(a), b' = p a^2. It conserves alpha^2 - 2 beta^2 and alpha^2 beta sin D. Hence v =
beta^2 obeys v' = +-4 p sqrt((v - r1)(v - r2)(v - r3)), whose roots follow from the start, and the time from v to
infinity is an elliptic integral in Carlson's form,

(4)  T = R_F(v - r1, v - r2, v - r3) / (2 p),

where the differences w_i = v - r_i are the roots of w^3 - (alpha^2 + beta^2) w^2 + alpha^2 (alpha^2 + 4 beta^2) w / 4 -
alpha^4 beta^2 cos^2 D / 4. A flow that starts with cos D < 0 first shrinks to the largest r_i and comes back the same
way.

The signs of (2) are those of the network's gradient. Texts about the paper print them reversed, which would make D = 0
repel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import elliprf
from torch import Tensor

__all__ = ["FlowTrajectories", "decoupled_flow", "dominance_time"]

Complex = NDArray[np.complex128]
Real = NDArray[np.float64]
Magnitudes = Float[Tensor, "*any"] | float


@dataclass(frozen=True)
class FlowTrajectories:
    """Magnitudes and phases over time, float64. From `dominance` on, everything is NaN.

    Attributes
    ----------
    times
        (time,).
    alpha, beta, misalignment
        (time, ...): magnitudes and D in (-pi, pi].
    phi
        (time, ...): how far the input phase has turned since the start, in (-pi, pi]; psi follows from D.
    dominance
        (...): time at which beta reaches the cap, infinite if never.
    """

    times: Float[Tensor, " time"]
    alpha: Float[Tensor, "time ..."]
    beta: Float[Tensor, "time ..."]
    misalignment: Float[Tensor, "time ..."]
    phi: Float[Tensor, "time ..."]
    dominance: Float[Tensor, "*any"]


def dominance_time(
    alpha: Magnitudes,
    beta: Magnitudes,
    misalignment: Magnitudes,
    p: int,
    *,
    beta_cap: float = 0.5,
    mean_loss: bool = True,
) -> Float[Tensor, "*any"]:
    """Time until beta reaches `beta_cap`, by the closed form (4): no integration.

    Parameters
    ----------
    alpha, beta, misalignment
        Magnitudes and D at the start; shapes broadcast.
    p
        Modulus.
    beta_cap
        Where the race ends; infinity asks for the time of the blow-up.
    mean_loss
        Whether time is that of descent on the mean over pairs, or on the sum.

    Returns
    -------
    Tensor
        float64. Zero where beta is at the cap already, infinite where it never gets there (alpha = 0).

    Raises
    ------
    ValueError
        Negative or not finite magnitudes, or a cap that is not positive.
    """
    start, device = _checked(alpha, beta, misalignment, p)
    if not beta_cap > 0:
        raise ValueError(f"beta_cap must be positive; got {beta_cap}")
    alpha_, beta_, misalignment_ = start
    with np.errstate(divide="ignore", invalid="ignore"):
        # Lengths in units of the start's own size, which makes the cubic well scaled.
        size = np.sqrt(alpha_**2 + beta_**2)
        time = _race(alpha_ / size, beta_ / size, misalignment_, beta_cap / size) / (size * 2 * _rate(p, mean_loss))
    time = np.where(alpha_ == 0, np.inf, time)
    return torch.as_tensor(np.where(beta_ >= beta_cap, 0.0, time), device=device)


def decoupled_flow(
    alpha: Magnitudes,
    beta: Magnitudes,
    misalignment: Magnitudes,
    p: int,
    times: Sequence[float] | Float[Tensor, " time"],
    *,
    beta_cap: float = 0.5,
    mean_loss: bool = True,
    tolerance: float = 1e-9,
) -> FlowTrajectories:
    """Trajectories of the flow, each with steps of its own (Dormand and Prince's fifth-order method).

    Parameters
    ----------
    alpha, beta, misalignment, p, beta_cap, mean_loss
        As for `dominance_time`.
    times
        When to look, from zero on, increasing.
    tolerance
        Error of a step relative to the larger magnitude.
    """
    start, device = _checked(alpha, beta, misalignment, p)
    when = torch.as_tensor(times, dtype=torch.float64).cpu().numpy()
    if when.ndim != 1 or len(when) == 0 or when[0] < 0 or (np.diff(when) <= 0).any() or not np.isfinite(when).all():
        raise ValueError("times must be finite and increasing, from zero on")
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance must lie between 0 and 1; got {tolerance}")
    dominance = dominance_time(alpha, beta, misalignment, p, beta_cap=beta_cap, mean_loss=mean_loss)
    ends = np.broadcast_to(dominance.cpu().numpy(), start[0].shape).ravel()
    # Only D counts, so the output phase may start at zero and the input phase at D / 2.
    state = np.stack([(start[0] * np.exp(0.5j * start[2])).ravel(), start[1].ravel().astype(complex)])
    first_phase = np.angle(state[0])
    step = np.full(state.shape[1], np.inf)
    now, rows = 0.0, []
    for time in when:
        running = np.flatnonzero(ends > time)
        if time > now:
            advanced, step[running] = _advance(state[:, running], step[running], time - now, p, mean_loss, tolerance)
            state[:, running] = advanced
        state[:, ends <= time] = np.nan
        now = time
        a, b = state
        rows.append([np.abs(a), np.abs(b), np.angle(a**2 * b.conj()), np.angle(a * np.exp(-1j * first_phase))])
    table = torch.as_tensor(np.array(rows).reshape(len(when), 4, *start[0].shape), device=device)
    return FlowTrajectories(torch.as_tensor(when, device=device), *table.unbind(1), dominance)


def _checked(
    alpha: Magnitudes, beta: Magnitudes, misalignment: Magnitudes, p: int
) -> tuple[tuple[Real, Real, Real], torch.device]:
    if p < 3:
        raise ValueError(f"p must be 3 or more; got {p}")
    given = {"alpha": alpha, "beta": beta, "misalignment": misalignment}
    tensors = {name: torch.as_tensor(value, dtype=torch.float64).detach() for name, value in given.items()}
    for name, tensor in tensors.items():
        if not tensor.isfinite().all() or (name != "misalignment" and (tensor < 0).any()):
            allowed = "finite" if name == "misalignment" else "finite and not negative"
            raise ValueError(f"{name} must be {allowed}; got {float(tensor.flatten()[_worst(tensor)])}")
    device = tensors["alpha"].device
    one, two, three = np.broadcast_arrays(*(tensor.cpu().numpy() for tensor in tensors.values()))
    return (one, two, three), device


def _worst(tensor: Tensor) -> int:
    bad = (~tensor.isfinite() | (tensor < 0)).flatten()
    return int(bad.to(torch.uint8).argmax())


def _rate(p: int, mean_loss: bool) -> float:
    return 1 / p if mean_loss else float(p)


def _race(alpha: Real, beta: Real, misalignment: Real, cap: Real) -> Real:
    """2 p times the time to the cap, for magnitudes with alpha^2 + beta^2 = 1."""
    wide, deep = alpha**2, beta**2
    companion = np.zeros((*alpha.shape, 3, 3))
    companion[..., 0, 0] = wide + deep
    companion[..., 0, 1] = -wide * (wide + 4 * deep) / 4
    companion[..., 0, 2] = wide**2 * deep * np.cos(misalignment) ** 2 / 4
    companion[..., 1, 0] = companion[..., 2, 1] = 1
    unusable = ~np.isfinite(companion).all((-1, -2))
    companion[unusable] = 0
    roots = np.linalg.eigvals(companion).astype(complex)
    away = _carlson(roots)
    # Roots split off the real axis by rounding are real; of the real ones the nearest is where the flow turns.
    real = np.abs(roots.imag) < 1e-7
    nearest = np.where(real, roots.real.clip(0), np.inf).min(-1, keepdims=True)
    turning = _carlson(roots - nearest)
    at_the_cap = np.where(np.isinf(cap), 0.0, _carlson(roots + np.where(np.isinf(cap), 1.0, cap**2 - deep)[..., None]))
    time = np.where(np.cos(misalignment) < 0, 2 * turning - away, away) - at_the_cap
    return np.where(unusable, np.inf, time)


def _carlson(arguments: Complex) -> Real:
    # A real argument that rounding pushed below zero would lie on the branch cut.
    arguments = np.where(np.abs(arguments.imag) < 1e-7, arguments.real.clip(1e-300), arguments)
    return np.asarray(elliprf(*np.moveaxis(arguments, -1, 0)).real)


# Dormand and Prince's tableau; the last row of the stages is the fifth-order solution.
STAGES = (
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
FOURTH = (5179 / 57600, 0.0, 7571 / 16695, 393 / 640, -92097 / 339200, 187 / 2100, 1 / 40)


def _advance(
    state: Complex, step: Real, span: float, p: int, mean_loss: bool, tolerance: float
) -> tuple[Complex, Real]:
    """Carry every column over `span`, each with steps of its own; returns the state and the steps to go on with."""
    rate = _rate(p, mean_loss)

    def velocity(at: Complex) -> Complex:
        return np.stack([2 * rate * at[1] * at[0].conj(), rate * at[0] ** 2])

    state, left = state.copy(), np.full(state.shape[1], span)
    # A tenth of the time in which the magnitudes could change by themselves.
    scale = np.abs(state).max(0)
    step = np.minimum(step, 0.1 / (2 * rate * np.where(scale > 0, scale, math.inf) + 1e-300))
    while (active := np.flatnonzero(left > 0)).size:
        at, length = state[:, active], np.minimum(step[active], left[active])
        slopes = [velocity(at)]
        for weights in STAGES:
            point = at + length * sum(weight * slope for weight, slope in zip(weights, slopes, strict=True))
            slopes.append(velocity(point))
        fourth = at + length * sum(weight * slope for weight, slope in zip(FOURTH, slopes, strict=True))
        error = np.abs(point - fourth).max(0) / (tolerance * np.abs(at).max(0) + 1e-300)
        good = error <= 1
        state[:, active[good]] = point[:, good]
        left[active[good]] -= length[good]
        left[active[good & (length >= left[active] + length)]] = 0.0
        # A step cut short by the end of the span says nothing about the next one, unless it was too long.
        factor = np.clip(0.9 * (error + 1e-10) ** -0.2, 0.2, 5.0)
        proposed = length * factor
        step[active] = np.where(good, np.maximum(proposed, step[active] * np.minimum(factor, 1)), proposed)
    return state, step
