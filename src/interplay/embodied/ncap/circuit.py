"""The circuit: square-wave oscillator, sign-constrained weights, reciprocal inhibition, and the swimmer made of them.

Activities of the two sides of the body lie along one dimension of size two, dorsal first: (..., side, joint).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from interplay.embodied.ncap.numpy_circuit import NumPyCircuit

__all__ = ["NCAPSwimmer", "ReciprocalInhibition", "SignConstrained", "SquareWaveOscillator", "transfer"]

Sign = Literal["excitatory", "inhibitory", "unsigned"]
Parametrisation = Literal["clamp", "softplus"]
Init = Literal["constant", "uniform"]


class SignConstrained(nn.Module):
    """Weights of one sign; a call returns them.

    Parameters
    ----------
    shape
        Shape of the weights.
    sign
        "excitatory" (w >= 0), "inhibitory" (w <= 0) or "unsigned".
    parametrisation
        "clamp", w = max(raw, 0) or min(raw, 0), the published one: a raw weight beyond zero acts as zero and gets no
        gradient, so gradient descent cannot bring it back. "softplus", w = +-log(1 + exp(raw)): never quite zero and
        always with a gradient. Unsigned weights are the raw ones.
    init
        "constant": 1 or -1, for unsigned weights either with probability 1/2. "uniform": U(0, 1), U(-1, 0) or U(-1, 1).
    generator
        Draws the weights; None for PyTorch's global generator.

    Attributes
    ----------
    raw
        The learnable tensor behind the weights.
    """

    def __init__(
        self,
        shape: Sequence[int],
        sign: Sign,
        *,
        parametrisation: Parametrisation = "clamp",
        init: Init = "constant",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        for name, value, allowed in (
            ("sign", sign, get_args(Sign)),
            ("parametrisation", parametrisation, get_args(Parametrisation)),
            ("init", init, get_args(Init)),
        ):
            if value not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}; got {value!r}")
        self.sign: Sign = sign
        self.parametrisation: Parametrisation = parametrisation
        self.init: Init = init
        self.raw = nn.Parameter(torch.empty(tuple(shape)))
        self.reset_parameters(generator)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights anew."""
        size = torch.empty_like(self.raw).uniform_(0, 1, generator=generator)
        if self.sign == "unsigned":
            self.raw.copy_(torch.where(size < 0.5, 1.0, -1.0) if self.init == "constant" else 2 * size - 1)
            return
        if self.init == "constant":
            size.fill_(1.0)
        if self.parametrisation == "softplus":
            self.raw.copy_(size.clamp_min(torch.finfo(size.dtype).tiny).expm1().log())
        else:
            self.raw.copy_(size if self.sign == "excitatory" else -size)

    def forward(self) -> Float[Tensor, "..."]:
        """The weights."""
        if self.sign == "unsigned":
            return self.raw
        if self.parametrisation == "softplus":
            size = functional.softplus(self.raw)
            return size if self.sign == "excitatory" else -size
        return self.raw.clamp(min=0) if self.sign == "excitatory" else self.raw.clamp(max=0)

    def extra_repr(self) -> str:
        return f"{tuple(self.raw.shape)}, {self.sign}, {self.parametrisation}"


class ReciprocalInhibition(nn.Module):
    """Two sides that excite their own output and inhibit that of the other side: equation (3).

    (a, b) -> (g(ipsi a + contra b), g(ipsi b + contra a)) with g(x) = clip(x, 0, 1), ipsi >= 0 and contra <= 0.

    Parameters
    ----------
    shape
        Shape of the weights of one kind, which must broadcast to (side, unit): (1,) for one weight shared by all,
        (2, units) for weights of their own.
    sign_constraints
        Whether `ipsilateral` is excitatory and `contralateral` inhibitory; otherwise both are unsigned.
    parametrisation, init, generator
        As for `SignConstrained`.
    """

    def __init__(
        self,
        shape: Sequence[int] = (1,),
        *,
        sign_constraints: bool = True,
        parametrisation: Parametrisation = "clamp",
        init: Init = "constant",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        signs: tuple[Sign, Sign] = ("excitatory", "inhibitory") if sign_constraints else ("unsigned", "unsigned")
        self.ipsilateral, self.contralateral = (
            SignConstrained(shape, sign, parametrisation=parametrisation, init=init, generator=generator)
            for sign in signs
        )

    def forward(
        self, one: Float[Tensor, "*batch unit"], other: Float[Tensor, "*batch unit"]
    ) -> tuple[Float[Tensor, "*batch unit"], Float[Tensor, "*batch unit"]]:
        """Outputs of the two sides, in [0, 1]."""
        if one.shape != other.shape:
            raise ValueError(f"the two sides must have one shape; got {tuple(one.shape)} and {tuple(other.shape)}")
        outputs = self.contract(torch.stack((one, other), -2))
        return outputs[..., 0, :], outputs[..., 1, :]

    def contract(self, sides: Float[Tensor, "*batch 2 unit"]) -> Float[Tensor, "*batch 2 unit"]:
        """The same for sides that are stacked already."""
        return torch.addcmul(self.ipsilateral() * sides, self.contralateral(), sides.flip(-2)).clamp(0, 1)


class SquareWaveOscillator(nn.Module):
    """A pair of head neurons of which one fires in each half of the period; not learnable.

    Parameters
    ----------
    period
        In time steps, 2 or more. The dorsal half takes period // 2 steps; an odd period warns.
    """

    def __init__(self, period: int = 60) -> None:
        super().__init__()
        if isinstance(period, bool) or not isinstance(period, int) or period < 2:
            raise ValueError(f"oscillator_period must be an integer of 2 or more time steps; got {period!r}")
        if period % 2:
            warnings.warn(
                f"the oscillator's period of {period} steps is odd: the dorsal half lasts {period // 2} steps, the "
                f"ventral one {period - period // 2}; an even period has equal halves",
                UserWarning,
                stacklevel=2,
            )
        self.period = period

    def forward(self, timestep: Shaped[Tensor, "*batch"]) -> Bool[Tensor, "*batch 2"]:
        """Whether the dorsal and the ventral neuron fire. Fractional time steps are rounded."""
        if timestep.is_floating_point():
            timestep = timestep.round()
        dorsal = timestep.remainder(self.period) < self.period // 2
        return torch.stack((dorsal, ~dorsal), -1)

    def extra_repr(self) -> str:
        return f"period={self.period}"


class NCAPSwimmer(nn.Module):
    """Joint angles in, torques out, through the wiring of a worm's swimming circuit: equations (1) to (4).

    Parameters
    ----------
    n_joints
        N >= 2, joint 0 at the head.
    oscillator_period
        P in time steps, 2 or more.
    share_weights
        One weight of each kind for both sides and all joints, or weights of their own.
    sign_constraints
        Whether excitatory weights stay positive and inhibitory ones negative.
    init
        "constant" (1 and -1) or "uniform".
    proprioception, head_oscillator
        Whether the circuit has these parts at all.
    speed_control, turn_control
        Whether it has units that brake all B-neurons, and that drive those of the first `n_turn_joints` joints.
    parametrisation
        "clamp" as published, or "softplus".
    generator
        Draws the weights; None for PyTorch's global generator.

    Notes
    -----
    Pass `timestep` wherever episodes start at different times. Without it the module counts its calls and must be told
    by `reset` where an episode begins.
    """

    def __init__(
        self,
        n_joints: int,
        *,
        oscillator_period: int = 60,
        share_weights: bool = True,
        sign_constraints: bool = True,
        init: Init = "constant",
        proprioception: bool = True,
        head_oscillator: bool = True,
        speed_control: bool = False,
        turn_control: bool = False,
        n_turn_joints: int = 1,
        parametrisation: Parametrisation = "clamp",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        if isinstance(n_joints, bool) or not isinstance(n_joints, int) or n_joints < 2:
            raise ValueError(f"n_joints must be an integer of 2 or more, so that a wave can travel; got {n_joints!r}")
        if not 1 <= n_turn_joints <= n_joints:
            raise ValueError(f"n_turn_joints must be between 1 and n_joints = {n_joints}; got {n_turn_joints!r}")
        self.settings: dict[str, Any] = {
            "oscillator_period": oscillator_period,
            "share_weights": share_weights,
            "sign_constraints": sign_constraints,
            "init": init,
            "proprioception": proprioception,
            "head_oscillator": head_oscillator,
            "speed_control": speed_control,
            "turn_control": turn_control,
            "n_turn_joints": n_turn_joints,
            "parametrisation": parametrisation,
        }
        self.n_joints, self.n_turn_joints = n_joints, n_turn_joints
        self.share_weights = share_weights

        def weights(sign: Sign, *shape: int) -> SignConstrained:
            return SignConstrained(
                (1,) if share_weights else shape,
                sign if sign_constraints else "unsigned",
                parametrisation=parametrisation,
                init=init,
                generator=generator,
            )

        self.wave = SquareWaveOscillator(oscillator_period)
        self.proprioception = weights("excitatory", 2, n_joints - 1) if proprioception else None
        self.oscillator = weights("excitatory", 2) if head_oscillator else None
        self.speed = weights("inhibitory", 2, n_joints) if speed_control else None
        self.turn = weights("excitatory", 2, n_turn_joints) if turn_control else None
        self.muscles = ReciprocalInhibition(
            (1,) if share_weights else (2, n_joints),
            sign_constraints=sign_constraints,
            parametrisation=parametrisation,
            init=init,
            generator=generator,
        )
        self._step = 0
        self._warned = False

    def reset(self) -> None:
        """Begin an episode: the circuit's own count of time steps returns to zero."""
        self._step = 0

    def forward(
        self,
        joint_pos: Float[Tensor, "*batch joint"],
        *,
        timestep: Shaped[Tensor, "*batch"] | int | None = None,
        speed: Float[Tensor, "*batch"] | None = None,
        left: Float[Tensor, "*batch"] | None = None,
        right: Float[Tensor, "*batch"] | None = None,
    ) -> Float[Tensor, "*batch joint"]:
        """Torques in [-1, 1].

        Parameters
        ----------
        joint_pos
            Angles divided by the joints' limits; what is outside [-1, 1] is clipped.
        timestep
            Time steps since the episode of each row began. None: the module's own count, which then goes on by one.
        speed
            1 fastest, 0 stopped; needs `speed_control`.
        left, right
            0 straight on, 1 sharpest turn; need `turn_control`.

        Raises
        ------
        ValueError
            Wrong number of joints, NaN, a control that the circuit needs and does not get.
        """
        activity = self._activities(joint_pos, timestep, speed, left, right)
        if timestep is None:
            self._step += 1
        return activity["torque"]

    def explain(
        self,
        joint_pos: Float[Tensor, "*batch joint"],
        *,
        timestep: Shaped[Tensor, "*batch"] | int | None = None,
        speed: Float[Tensor, "*batch"] | None = None,
        left: Float[Tensor, "*batch"] | None = None,
        right: Float[Tensor, "*batch"] | None = None,
    ) -> dict[str, Tensor]:
        """What every part of the circuit does for these inputs; the module's count of time stands still.

        Returns
        -------
        dict
            "oscillator" (..., side); "stretch", "b_neuron" and "muscle" (..., side, joint), dorsal side first;
            "torque" (..., joint).
        """
        return self._activities(joint_pos, timestep, speed, left, right)

    def weights(self) -> dict[str, Tensor]:
        """The weights as they act, after sign constraints, by the name of their synapse."""
        named = {
            "proprioception": self.proprioception,
            "oscillator": self.oscillator,
            "speed": self.speed,
            "turn": self.turn,
            "ipsilateral": self.muscles.ipsilateral,
            "contralateral": self.muscles.contralateral,
        }
        return {name: part().detach().clone() for name, part in named.items() if part is not None}

    def numpy(self) -> NumPyCircuit:
        """The same circuit on NumPy arrays, without gradients, for fast simulations; a copy of the weights."""
        from interplay.embodied.ncap.numpy_circuit import NumPyCircuit

        return NumPyCircuit(self)

    def _activities(
        self,
        joint_pos: Tensor,
        timestep: Tensor | int | None,
        speed: Tensor | None,
        left: Tensor | None,
        right: Tensor | None,
    ) -> dict[str, Tensor]:
        self._check_joints(joint_pos)
        batch = joint_pos.shape[:-1]
        stretch = torch.stack((joint_pos, -joint_pos), -2).clamp(0, 1)
        wave = self._wave(batch, timestep, joint_pos)
        head = self.oscillator() * wave if self.oscillator is not None else torch.zeros_like(wave)
        tail = stretch[..., :-1]
        tail = self.proprioception() * tail if self.proprioception is not None else torch.zeros_like(tail)
        drive = torch.cat((head.expand(*batch, 2).unsqueeze(-1), tail), -1)
        if self.speed is not None:
            brake = 1 - self._control("speed", speed, "speed_control", batch).clamp(0, 1)
            drive = drive + self.speed() * brake[..., None, None]
        if self.turn is not None:
            sides = [
                self._control(name, value, "turn_control", batch) for name, value in (("right", right), ("left", left))
            ]
            turn = self.turn() * torch.stack(sides, -1).clamp(0, 1).unsqueeze(-1).expand(*batch, 2, self.n_turn_joints)
            drive = drive + functional.pad(turn, (0, self.n_joints - self.n_turn_joints))
        b_neuron = drive.clamp(0, 1)
        muscle = self.muscles.contract(b_neuron)
        torque = muscle[..., 0, :] - muscle[..., 1, :]
        return {"oscillator": wave, "stretch": stretch, "b_neuron": b_neuron, "muscle": muscle, "torque": torque}

    def _check_joints(self, joint_pos: Tensor) -> None:
        if joint_pos.dim() == 0 or joint_pos.shape[-1] != self.n_joints:
            raise ValueError(
                f"joint_pos must have n_joints = {self.n_joints} entries along its last dimension; "
                f"got shape {tuple(joint_pos.shape)}"
            )
        if torch.compiler.is_compiling():
            return
        # One sum finds out whether there can be NaN; infinities of both signs, which are clipped, also make one.
        if math.isnan(joint_pos.detach().sum()) and joint_pos.isnan().any():
            raise ValueError("joint_pos holds NaN; the simulation has probably diverged: reset it")

    def _wave(self, batch: torch.Size, timestep: Tensor | int | None, joint_pos: Tensor) -> Tensor:
        if timestep is None:
            if math.prod(batch) > 1 and not self._warned:
                self._warned = True
                warnings.warn(
                    "without `timestep` all rows of a batch share one phase of the oscillator; pass the time step of "
                    "each row where their episodes do not begin together",
                    UserWarning,
                    stacklevel=4,
                )
            timestep = self._step
        if not isinstance(timestep, Tensor):
            timestep = torch.tensor(timestep, device=joint_pos.device)
        elif timestep.dim() and timestep.shape != batch:
            raise ValueError(
                f"timestep must have one entry for each row of joint_pos, shape {tuple(batch)}; "
                f"got {tuple(timestep.shape)}"
            )
        return self.wave(timestep).to(joint_pos.dtype)

    def _control(self, name: str, value: Tensor | None, switch: str, batch: torch.Size) -> Tensor:
        if value is None:
            raise ValueError(f"{name} must be passed to a circuit with {switch}=True; got None")
        if value.shape != batch:
            raise ValueError(f"{name} must have the shape {tuple(batch)} of joint_pos' rows; got {tuple(value.shape)}")
        return value

    def extra_repr(self) -> str:
        return f"n_joints={self.n_joints}, share_weights={self.share_weights}"


def transfer(module: NCAPSwimmer, n_joints: int) -> NCAPSwimmer:
    """The same weights in a body with another number of joints.

    Raises
    ------
    ValueError
        The module's weights are not shared: they belong to joints that the other body may not have.
    """
    if not module.share_weights:
        raise ValueError(
            "only shared weights transfer to another number of joints; this module has weights of its own for each "
            "joint: train one with share_weights=True"
        )
    settings = module.settings | {"n_turn_joints": min(module.n_turn_joints, n_joints)}
    other = NCAPSwimmer(n_joints, **settings)
    reference = next(module.parameters())
    other.to(device=reference.device, dtype=reference.dtype)
    other.load_state_dict(module.state_dict())
    return other
