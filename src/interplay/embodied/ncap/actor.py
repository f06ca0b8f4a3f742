"""The circuit as the actor of a policy: observations in, torques out, for any training code in PyTorch."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Normal

from interplay.embodied.ncap.circuit import NCAPSwimmer

__all__ = ["NCAPActor", "NavigationHead", "ncap_actor"]

_NEAR_SIDE, _NEAR_AHEAD = 0.1, 0.12  # metres within which the target counts as reached, as published


class NavigationHead(nn.Module):
    """From the direction of a target to the controls of the circuit.

    Parameters
    ----------
    kind
        "hardcoded": turn while the target is more than 0.1 m aside, go while it is more than 0.12 m away lengthwise.
        "learned": a linear map of (x', |y|).
    """

    def __init__(self, kind: Literal["hardcoded", "learned"] = "hardcoded") -> None:
        super().__init__()
        if kind not in ("hardcoded", "learned"):
            raise ValueError(f"kind must be 'hardcoded' or 'learned'; got {kind!r}")
        self.linear = nn.Linear(2, 3) if kind == "learned" else None

    def forward(
        self, to_target: Float[Tensor, "*batch 2"]
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Right, left and speed from the target's (x, y) in the head's frame, in metres."""
        features = torch.stack((-to_target[..., 0], to_target[..., 1].abs()), -1)
        if self.linear is not None:
            right, left, speed = self.linear(features).unbind(-1)
            return right, left, speed
        aside, ahead = features.unbind(-1)
        return tuple(
            flag.to(to_target.dtype) for flag in (aside > _NEAR_SIDE, aside < -_NEAR_SIDE, ahead > _NEAR_AHEAD)
        )  # type: ignore[return-value]


class NCAPActor(nn.Module):
    """Reads joint angles and time out of an observation and returns torques.

    Parameters
    ----------
    circuit
        What to drive.
    episode_steps
        Steps at which the time feature, the last entry of the observation, reaches 1; it begins at -1. None: there is
        no such entry and the circuit counts for itself, see `NCAPSwimmer.reset`.
    joint_limit
        Radians that count as a fully bent joint; None for 2 pi / (N + 1), the limit of dm_control's swimmers.
    navigation
        Steers by a target whose (x, y) follows the joint angles; the circuit needs speed and turn control.
    noise
        Standard deviation of a normal distribution around the torques, as PPO wants it (published: 0.1). None for
        torques alone, as DDPG wants them.
    """

    def __init__(
        self,
        circuit: NCAPSwimmer,
        *,
        episode_steps: int | None = 1000,
        joint_limit: float | None = None,
        navigation: NavigationHead | None = None,
        noise: float | None = None,
    ) -> None:
        super().__init__()
        if episode_steps is not None and episode_steps < 1:
            raise ValueError(f"episode_steps must be a positive number of steps, or None; got {episode_steps!r}")
        if joint_limit is not None and not (math.isfinite(joint_limit) and joint_limit > 0):
            raise ValueError(f"joint_limit must be a positive angle in radians, or None; got {joint_limit!r}")
        if noise is not None and not (math.isfinite(noise) and noise > 0):
            raise ValueError(f"noise must be a positive standard deviation, or None; got {noise!r}")
        self.circuit = circuit
        self.episode_steps = episode_steps
        self.joint_limit = 2 * math.pi / (circuit.n_joints + 1) if joint_limit is None else float(joint_limit)
        self.navigation = navigation
        self.noise = noise

    @property
    def least_entries(self) -> int:
        """Entries that an observation must have."""
        return self.circuit.n_joints + 2 * (self.navigation is not None) + (self.episode_steps is not None)

    def forward(self, observations: Float[Tensor, "*batch entry"]) -> Float[Tensor, "*batch joint"] | Normal:
        """Torques in [-1, 1], or their distribution where there is noise."""
        if observations.shape[-1] < self.least_entries:
            raise ValueError(
                f"observations must have {self.least_entries} entries or more (joint angles first, the time last); "
                f"got {observations.shape[-1]}"
            )
        joints = self.circuit.n_joints
        controls: dict[str, Any] = {}
        if self.navigation is not None:
            right, left, speed = self.navigation(observations[..., joints : joints + 2])
            controls = {"right": right, "left": left, "speed": speed}
        timestep = None
        if self.episode_steps is not None:
            timestep = ((observations[..., -1] + 1) / 2 * self.episode_steps).round()
        torques = self.circuit(observations[..., :joints] / self.joint_limit, timestep=timestep, **controls)
        return torques if self.noise is None else Normal(torques, self.noise)


def ncap_actor(
    n_joints: int,
    *,
    episode_steps: int | None = 1000,
    joint_limit: float | None = None,
    navigation: Literal["hardcoded", "learned"] | None = None,
    noise: float | None = None,
    **circuit: Any,
) -> NCAPActor:
    """An actor with a circuit of its own.

    Parameters
    ----------
    n_joints, **circuit
        Of `NCAPSwimmer`; navigation switches speed and turn control on.
    episode_steps, joint_limit, navigation, noise
        Of `NCAPActor`.

    Examples
    --------
    >>> import torch
    >>> actor = ncap_actor(5)
    >>> actor(torch.zeros(8, 24)).shape
    torch.Size([8, 5])
    """
    if navigation is not None:
        circuit = {"speed_control": True, "turn_control": True} | circuit
    return NCAPActor(
        NCAPSwimmer(n_joints, **circuit),
        episode_steps=episode_steps,
        joint_limit=joint_limit,
        navigation=None if navigation is None else NavigationHead(navigation),
        noise=noise,
    )
