"""NCAP: a swimming circuit as the prior of a controller (`ncap`).

=============  ======================================================================================================
family         embodied
paper          Bhattasali, Zador, Engel. "Neural Circuit Architectural Priors for Embodied Control", NeurIPS 2022,
               arXiv 2201.05242
official code  github.com/nikhilxb/ncap (PyTorch, MIT licence)
interface      `torch.nn.Module`; `gymnasium.Env` and `VectorEnv`; a Stable-Baselines3 policy; NumPy arrays
input          joint angles divided by their limits, (..., joint), and the time step
output         torques in [-1, 1], (..., joint)
learnable      four weights (30 for five joints where they are not shared)
random         uniform initial weights; where an episode begins; perturbations of the evolution strategy
=============  ======================================================================================================

N joints, joint 0 at the head; d and v are the dorsal and the ventral side, and each equation has its mirror image.

(1)  stretch    d_i = clip(q_i, 0, 1), v_i = clip(-q_i, 0, 1), with q_i the angle over its limit 2 pi / (N + 1)
(2)  B-neurons  bd_i = clip(w_prop d_{i-1} + w_osc o_d [i = 0] + w_turn right [i < turning] + w_speed (1 - speed), 0, 1)
(3)  muscles    md_i = clip(w_ipsi bd_i + w_contra bv_i, 0, 1)
(4)  torque_i = md_i - mv_i

The oscillator has o_d = 1 in the first half of its period and o_v = 1 in the second. Stretch feedback comes from the
measured angle of the joint in front, so nothing is sequential along the body. Weights w_contra and w_speed are
inhibitory, the others excitatory.

- `NCAPSwimmer`, `transfer`: the circuit, and the same weights in another body; `NCAPSwimmer.explain` shows activity.
- `SignConstrained`, `ReciprocalInhibition`, `SquareWaveOscillator`: its parts.
- `NumPyCircuit`: the circuit for simulations, also a whole population of them.
- `ncap_actor`, `NCAPActor`, `NavigationHead`: observations in, torques out.
- `EvolutionStrategy`: how the paper's script trains.
- `SwimEnv`, `SwimVecEnv`, `NCAPPolicy` need the extra `rl`: the task, many of it at once, and the circuit as a policy.

What differs from the official code:

- All joints at once instead of a loop; the numbers are the same.
- Rows of a batch carry their own time step as (...,) instead of (..., 1), and passing it leaves the module's own count
  alone. `speed`, `left` and `right` are (...,) too.
- Equal values share their rank in the evolution strategy, and NaN counts as the worst.
- The swimmer is dm_control's model without dm_control's loop; states agree.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from interplay.embodied.ncap.actor import NavigationHead, NCAPActor, ncap_actor
from interplay.embodied.ncap.circuit import (
    NCAPSwimmer,
    ReciprocalInhibition,
    SignConstrained,
    SquareWaveOscillator,
    transfer,
)
from interplay.embodied.ncap.evolution import EvolutionStrategy
from interplay.embodied.ncap.numpy_circuit import NumPyCircuit

if TYPE_CHECKING:
    from interplay.embodied.ncap.environment import SwimEnv
    from interplay.embodied.ncap.policy import NCAPPolicy
    from interplay.embodied.ncap.vector import SwimVecEnv

__all__ = [
    "EvolutionStrategy",
    "NCAPActor",
    "NCAPPolicy",
    "NCAPSwimmer",
    "NavigationHead",
    "NumPyCircuit",
    "ReciprocalInhibition",
    "SignConstrained",
    "SquareWaveOscillator",
    "SwimEnv",
    "SwimVecEnv",
    "ncap_actor",
    "transfer",
]

_HOME = {"NCAPPolicy": "policy", "SwimEnv": "environment", "SwimVecEnv": "vector"}
_LIBRARIES = {"gymnasium", "mujoco", "dm_control", "stable_baselines3"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in _LIBRARIES:
            raise
        raise ImportError(f"{name} needs {library}: pip install 'interplay[rl]'") from error
