"""The circuit on NumPy arrays: a few microseconds a call, one set of weights or a whole population at once."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from interplay.embodied.ncap.circuit import NCAPSwimmer, SignConstrained

__all__ = ["NumPyCircuit"]

Array = NDArray[np.float64]
Synapse = Literal["proprioception", "oscillator", "speed", "turn", "muscles.ipsilateral", "muscles.contralateral"]

_SIDES = np.array([[1.0], [-1.0]])
_NO_PART = np.zeros((1, 1))


class NumPyCircuit:
    """`NCAPSwimmer` without PyTorch and without gradients, in double precision. Made by `NCAPSwimmer.numpy`.

    NaN in gives NaN out: checks would cost as much as the circuit.

    Attributes
    ----------
    n_joints, period
        Of the circuit.
    parameters
        Raw weights in the order of `torch.nn.utils.parameters_to_vector`, shape (..., parameter).
    """

    def __init__(self, module: NCAPSwimmer) -> None:
        self.n_joints = module.n_joints
        self.period = module.wave.period
        self._n_turn_joints = module.n_turn_joints
        self._synapses: list[tuple[str, SignConstrained]] = [
            (name, part) for name, part in module.named_modules() if isinstance(part, SignConstrained)
        ]
        self._wave = module.wave(torch.arange(self.period)).double().numpy()
        raw = [part.raw.detach().double().numpy(force=True).ravel() for _, part in self._synapses]
        self._load(np.concatenate(raw))

    def with_parameters(self, parameters: Float[np.ndarray, "*batch parameter"]) -> NumPyCircuit:
        """The circuit with other raw weights; those of a population give a circuit a row, batch dimensions in front."""
        parameters = np.asarray(parameters, dtype=np.float64)
        if parameters.shape[-1:] != self.parameters.shape[-1:]:
            raise ValueError(
                f"parameters must have {self.parameters.shape[-1]} entries along the last dimension; "
                f"got shape {parameters.shape}"
            )
        other = copy.copy(self)
        other._load(parameters)
        return other

    def without(self, *synapses: Synapse) -> NumPyCircuit:
        """The circuit with some synapses cut: their weights act as zero."""
        known = [name for name, _ in self._synapses]
        other = copy.copy(self)
        other._weights = dict(self._weights)
        for synapse in synapses:
            if synapse not in known:
                raise ValueError(f"the circuit has no synapse {synapse!r}; it has {', '.join(known)}")
            other._weights[synapse] = np.zeros_like(self._weights[synapse])
        other._prepare()
        return other

    def __call__(
        self,
        joint_pos: Float[np.ndarray, "*batch joint"],
        timestep: int | NDArray[np.integer],
        *,
        speed: Array | float | None = None,
        left: Array | float | None = None,
        right: Array | float | None = None,
    ) -> Float[np.ndarray, "*batch joint"]:
        """Torques in [-1, 1]; arguments as for `NCAPSwimmer.forward`, with `timestep` one number or one a row."""
        sides = joint_pos[..., None, :] * _SIDES
        np.maximum(sides, 0.0, out=sides)
        np.minimum(sides, 1.0, out=sides)
        tail = self._proprioception * sides[..., :-1]
        drive = np.empty((*tail.shape[:-1], self.n_joints))
        drive[..., 1:] = tail
        drive[..., 0] = self._oscillator * self._wave[timestep % self.period]
        if "speed" in self._weights:
            drive += self._weights["speed"] * _rows(1.0 - _clip(_given("speed", speed)))[..., None]
        if "turn" in self._weights:
            turn = np.stack(np.broadcast_arrays(_clip(_given("right", right)), _clip(_given("left", left))), -1)
            drive[..., : self._n_turn_joints] += self._weights["turn"] * turn[..., None]
        np.maximum(drive, 0.0, out=drive)
        np.minimum(drive, 1.0, out=drive)
        muscle = self._ipsilateral * drive
        muscle += self._contralateral * drive[..., ::-1, :]
        np.maximum(muscle, 0.0, out=muscle)
        np.minimum(muscle, 1.0, out=muscle)
        torque: Array = muscle[..., 0, :] - muscle[..., 1, :]
        return torque

    def _load(self, parameters: Array) -> None:
        self.parameters = parameters
        self._weights: dict[str, Array] = {}
        start = 0
        for name, part in self._synapses:
            size = math.prod(part.raw.shape)
            raw = parameters[..., start : start + size]
            # Weights of one kind broadcast against (..., side, joint); the oscillator drives a single joint.
            shape = (1, 1) if part.raw.shape == (1,) else (*part.raw.shape, 1)[:2]
            self._weights[name] = _CONSTRAINTS[part.sign, part.parametrisation](raw).reshape(*raw.shape[:-1], *shape)
            start += size
        self._prepare()

    def _prepare(self) -> None:
        self._proprioception = self._weights.get("proprioception", _NO_PART)
        self._oscillator = self._weights.get("oscillator", _NO_PART)[..., 0]
        self._ipsilateral = self._weights["muscles.ipsilateral"]
        self._contralateral = self._weights["muscles.contralateral"]


def _same(raw: Array) -> Array:
    return raw


def _softplus(raw: Array) -> Array:
    return np.logaddexp(0.0, raw)


_CONSTRAINTS: dict[tuple[str, str], Callable[[Array], Array]] = {
    ("excitatory", "clamp"): lambda raw: np.maximum(raw, 0.0),
    ("inhibitory", "clamp"): lambda raw: np.minimum(raw, 0.0),
    ("excitatory", "softplus"): _softplus,
    ("inhibitory", "softplus"): lambda raw: -_softplus(raw),
    ("unsigned", "clamp"): _same,
    ("unsigned", "softplus"): _same,
}


def _given(name: str, value: Array | float | None) -> Array:
    if value is None:
        raise ValueError(f"{name} must be passed to a circuit that has this control; got None")
    return np.asarray(value, dtype=np.float64)


def _clip(value: Array) -> Array:
    return np.minimum(np.maximum(value, 0.0), 1.0)


def _rows(value: Array) -> Array:
    return value[..., None]
