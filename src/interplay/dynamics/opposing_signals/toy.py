"""The smallest system with opposing signals, in closed form."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.integrate import solve_ivp

__all__ = ["OpposingSignalsToy", "ToyTrajectory"]

Array = NDArray[np.float64]


class ToyTrajectory(NamedTuple):
    """What happens along a run; every array is (time, ...) with the leading axes of the start behind time.

    Attributes
    ----------
    time
        (time,) number of the step, or the time of the flow.
    loss, loss_plus, loss_minus
        Population loss, and the losses of the two groups of outliers.
    sharpness
        Largest eigenvalue of the Hessian.
    outlier_weight
        v, the weight along the outliers' direction.
    parameters
        (time, ..., d1 + d2 + 1): b_s, b_o, c.
    """

    time: Array
    loss: Array
    loss_plus: Array
    loss_minus: Array
    sharpness: Array
    outlier_weight: Array
    parameters: Array


class OpposingSignalsToy:
    """Regression with a regular part and two groups of outliers that pull one weight to opposite sides.

    Inputs are x = (x_s, x_o) with x_s ~ N(0, 1) in d1 dimensions and x_o = s sqrt(alpha / d2) (1, ..., 1), where
    s = +1 or -1 with probability p / 2 each and 0 else. The target is beta.x_s + kappa |sum(x_o)| / sqrt(d2), the
    model f(x) = c (b.x). With u = (1, ..., 1) / sqrt(d2) and v = u.b_o the population loss is

        L = 1/2 |c b_s - beta|^2 + 1/2 p alpha c^2 v^2 + 1/2 p alpha kappa^2.

    The curvature along u is p alpha c^2. A balanced small start takes c^2 to |beta|, so that the sharpness tends to
    max(2 |beta|, p alpha |beta|) under gradient flow: learning the regular part sharpens the valley between the groups.
    Gradient descent with 2 / eta below that oscillates in v once the curvature crosses 2 / eta; the loss spikes until
    the term p alpha c v^2 in the gradient of c has lowered the curvature again.

    All methods are vectorised over leading axes of `parameters` = (..., d1 + d2 + 1), in float64: many runs at once.

    Parameters
    ----------
    alpha
        Squared size of the outliers' feature.
    p
        Probability of an outlier, 0 to 1; 0 leaves the regular part alone.
    kappa
        What the outliers' targets hold beyond the regular part.
    d1, d2
        Dimensions of the regular and of the outliers' part.
    beta_norm
        |beta|; beta points along the first axis, which is no loss of generality.

    Raises
    ------
    ValueError
        A number out of range.
    """

    def __init__(
        self,
        alpha: float = 100.0,
        p: float = 0.1,
        kappa: float = 1.0,
        d1: int = 10,
        d2: int = 10,
        beta_norm: float = 3.0,
    ) -> None:
        for name, number in (("alpha", alpha), ("kappa", kappa), ("beta_norm", beta_norm)):
            if not (number >= 0 and np.isfinite(number)):
                raise ValueError(f"{name} must be a finite number, zero or more; got {number}")
        if not 0 <= p <= 1:
            raise ValueError(f"p must be a probability, 0 to 1; got {p}")
        for name, dimension in (("d1", d1), ("d2", d2)):
            if dimension < 1:
                raise ValueError(f"{name} must be 1 or more; got {dimension}")
        self.alpha, self.p, self.kappa, self.d1, self.d2 = alpha, p, kappa, d1, d2
        self.beta = np.zeros(d1)
        self.beta[0] = beta_norm
        self.direction = np.full(d2, d2**-0.5)

    def start(self, generator: np.random.Generator, runs: int, *, scale: float = 0.1, outlier: float = 1e-2) -> Array:
        """Balanced small starts, (runs, d1 + d2 + 1): |b_s| = c = scale in random directions, v = +-outlier."""
        regular = generator.normal(size=(runs, self.d1))
        regular *= scale / np.linalg.norm(regular, axis=1, keepdims=True)
        v = outlier * generator.choice([-1.0, 1.0], size=(runs, 1))
        return np.concatenate([regular, v * self.direction, np.full((runs, 1), scale)], axis=1)

    def loss(self, parameters: ArrayLike) -> Array:
        """Population loss."""
        b_s, v, c = self._parts(parameters)
        residual = c[..., None] * b_s - self.beta
        weight = self.p * self.alpha
        return 0.5 * (residual**2).sum(-1) + 0.5 * weight * (c * v) ** 2 + 0.5 * weight * self.kappa**2

    def group_losses(self, parameters: ArrayLike) -> tuple[Array, Array]:
        """Losses of the outliers with s = +1 and s = -1, without the regular part."""
        _, v, c = self._parts(parameters)
        return 0.5 * self.alpha * (c * v - self.kappa) ** 2, 0.5 * self.alpha * (c * v + self.kappa) ** 2

    def gradient(self, parameters: ArrayLike) -> Array:
        """Gradient of the population loss."""
        b_s, v, c = self._parts(parameters)
        residual = c[..., None] * b_s - self.beta
        weight = self.p * self.alpha
        return np.concatenate(
            [
                c[..., None] * residual,
                (weight * c**2 * v)[..., None] * self.direction,
                ((residual * b_s).sum(-1) + weight * c * v**2)[..., None],
            ],
            axis=-1,
        )

    def hessian(self, parameters: ArrayLike) -> Array:
        """Hessian of the population loss, (..., P, P) with P = d1 + d2 + 1."""
        b_s, v, c = self._parts(parameters)
        weight = self.p * self.alpha
        hessian = np.zeros((*c.shape, self.d1 + self.d2 + 1, self.d1 + self.d2 + 1))
        first, second = slice(0, self.d1), slice(self.d1, self.d1 + self.d2)
        square = c[..., None, None] ** 2
        hessian[..., first, first] = square * np.eye(self.d1)
        hessian[..., second, second] = weight * square * np.outer(self.direction, self.direction)
        for part, coupling in (
            (first, 2 * c[..., None] * b_s - self.beta),
            (second, (2 * weight * c * v)[..., None] * self.direction),
        ):
            hessian[..., part, -1] = hessian[..., -1, part] = coupling
        hessian[..., -1, -1] = (b_s**2).sum(-1) + weight * v**2
        return hessian

    def sharpness(self, parameters: ArrayLike) -> Array:
        """Largest eigenvalue of the Hessian.

        The Hessian is c^2 or 0 but for three directions: that of 2 c b_s - beta, u, and c itself.
        """
        b_s, v, c = self._parts(parameters)
        weight = self.p * self.alpha
        small = np.zeros((*c.shape, 3, 3))
        small[..., 0, 0] = c**2
        small[..., 1, 1] = weight * c**2
        small[..., 0, 2] = small[..., 2, 0] = np.linalg.norm(2 * c[..., None] * b_s - self.beta, axis=-1)
        small[..., 1, 2] = small[..., 2, 1] = 2 * weight * c * v
        small[..., 2, 2] = (b_s**2).sum(-1) + weight * v**2
        return np.asarray(np.maximum(np.linalg.eigvalsh(small)[..., -1], c**2))

    def gd(self, eta: ArrayLike, steps: int, start: ArrayLike) -> ToyTrajectory:
        """Gradient descent from `start`; `eta` is a number or an array that broadcasts to the leading axes."""
        rate = np.asarray(eta, dtype=float)
        if steps < 1 or not (rate > 0).all():
            raise ValueError(f"steps must be 1 or more and eta above 0; got steps={steps}, eta={eta}")
        now = self._checked(start)
        visited = np.empty((steps + 1, *now.shape))
        for step in range(steps + 1):
            visited[step] = now
            now = now - rate[..., None] * self.gradient(now)
        return self._trajectory(np.arange(steps + 1.0), visited)

    def flow(self, duration: float, start: ArrayLike, *, points: int = 200) -> ToyTrajectory:
        """Gradient flow from `start`, at `points` times from 0 to `duration`."""
        if not duration > 0 or points < 2:
            raise ValueError(f"duration must be above 0 and points 2 or more; got {duration}, {points}")
        first = self._checked(start)
        times = np.linspace(0, duration, points)

        def velocity(_: float, flat: Array) -> Array:
            return -self.gradient(flat.reshape(first.shape)).ravel()

        solved = solve_ivp(velocity, (0, duration), first.ravel(), "LSODA", times, rtol=1e-9, atol=1e-12)
        return self._trajectory(times, solved.y.T.reshape(points, *first.shape))

    def _trajectory(self, time: Array, visited: Array) -> ToyTrajectory:
        plus, minus = self.group_losses(visited)
        _, v, _ = self._parts(visited)
        return ToyTrajectory(time, self.loss(visited), plus, minus, self.sharpness(visited), v, visited)

    def _checked(self, parameters: ArrayLike) -> Array:
        theta = np.asarray(parameters, dtype=float)
        if theta.ndim < 1 or theta.shape[-1] != self.d1 + self.d2 + 1:
            raise ValueError(
                f"parameters must be (..., d1 + d2 + 1) = (..., {self.d1 + self.d2 + 1}); got shape {theta.shape}"
            )
        return theta

    def _parts(self, parameters: ArrayLike) -> tuple[Array, Array, Array]:
        theta = self._checked(parameters)
        return theta[..., : self.d1], theta[..., self.d1 : -1] @ self.direction, theta[..., -1]
