"""`NCAPPolicy`: the circuit in the place of the actor's network of a Stable-Baselines3 policy."""

from __future__ import annotations

import math
from typing import Any

from gymnasium import spaces
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.type_aliases import Schedule

from interplay.embodied.ncap.actor import NCAPActor, ncap_actor

__all__ = ["NCAPPolicy"]


class NCAPPolicy(ActorCriticPolicy):
    """Actor: the circuit with fixed normal noise. Critic: a network as usual.

    `PPO(NCAPPolicy, env, policy_kwargs={"circuit": {"init": "uniform"}})`. The environment must have joint angles in
    front and the time as last entry of its observations, as `SwimEnv(include_time=True)` has, and must not normalise
    them: the circuit reads angles in radians.

    Parameters
    ----------
    observation_space, action_space, lr_schedule
        Given by the algorithm. Actions are torques in [-1, 1], one a joint.
    circuit
        Keyword arguments of `ncap_actor`: `init`, `share_weights`, `episode_steps`, ...
    action_noise
        Standard deviation of the actions, 0.1 as published.
    critic
        Units of the critic's hidden layers.
    **kwargs
        Of `ActorCriticPolicy`, but for those that describe the actor.

    Attributes
    ----------
    action_net
        The `NCAPActor`; `policy.action_net.circuit` is the circuit.

    Raises
    ------
    ValueError
        Spaces that the circuit cannot serve, or settings of an actor that is not there.
    """

    action_net: NCAPActor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        lr_schedule: Schedule,
        *,
        circuit: dict[str, Any] | None = None,
        action_noise: float = 0.1,
        critic: tuple[int, ...] = (64, 64),
        **kwargs: Any,
    ) -> None:
        if refused := sorted(set(kwargs) & {"net_arch", "log_std_init", "squash_output", "full_std", "use_expln"}):
            raise ValueError(
                f"{', '.join(refused)}: the actor is the circuit; set circuit, action_noise or critic instead"
            )
        if kwargs.pop("use_sde", False):
            raise ValueError("use_sde must be False: the circuit has no features that could scale the noise")
        if not isinstance(action_space, spaces.Box) or len(action_space.shape) != 1:
            raise ValueError(f"actions must be a Box with one torque a joint; got {action_space}")
        if not isinstance(observation_space, spaces.Box) or len(observation_space.shape) != 1:
            raise ValueError(
                f"observations must be a flat Box, joint angles first and time last; got {observation_space}"
            )
        if not (math.isfinite(action_noise) and action_noise > 0):
            raise ValueError(f"action_noise must be a positive standard deviation; got {action_noise!r}")
        self._circuit = dict(circuit or {})
        self._action_noise = action_noise
        self._critic = tuple(critic)
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            net_arch={"pi": [], "vf": list(self._critic)},
            log_std_init=math.log(action_noise),
            **kwargs,
        )

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        actor = ncap_actor(int(self.action_space.shape[0]), **self._circuit)  # type: ignore[index]
        entries = int(self.observation_space.shape[0])  # type: ignore[index]
        if entries < actor.least_entries:
            raise ValueError(
                f"observations must have {actor.least_entries} entries or more, joint angles first and time last; "
                f"got {entries}"
            )
        self.action_net = actor
        self.log_std.requires_grad_(False)
        learnable = [parameter for parameter in self.parameters() if parameter.requires_grad]
        self.optimizer = self.optimizer_class(learnable, lr=lr_schedule(1), **self.optimizer_kwargs)  # type: ignore[call-arg]

    def _get_constructor_parameters(self) -> dict[str, Any]:
        parameters = super()._get_constructor_parameters()
        for name in ("net_arch", "log_std_init", "squash_output", "full_std", "use_expln", "use_sde"):
            parameters.pop(name, None)
        own = {"circuit": self._circuit, "action_noise": self._action_noise, "critic": self._critic}
        return parameters | own
