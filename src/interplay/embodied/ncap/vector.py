"""`SwimVecEnv`: many swimmers at once, stepped on threads; MuJoCo runs outside of Python's lock."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from interplay.embodied.ncap.body import CONTROL_STEP, SwimmerBody
from interplay.embodied.ncap.environment import SwimTask

__all__ = ["SwimVecEnv"]

Array = NDArray[np.float64]
Flags = NDArray[np.bool_]


class SwimVecEnv(VectorEnv[Array, NDArray[np.float32], Array]):
    """`num_envs` independent `SwimEnv`s that share one model; the same seeds give the same episodes.

    Parameters
    ----------
    num_envs
        1 or more.
    n_links, desired_speed, time_limit, include_time
        As for `SwimEnv`.
    threads
        How many step bodies; None takes as many as there are cores, at most `num_envs`. It does not change results.
    autoreset_mode
        `NEXT_STEP`: the step after the end of an episode begins a new one, ignores the action and rewards nothing.
        `DISABLED`: episodes are begun by `reset`, those of some with the option "reset_mask".

    Examples
    --------
    >>> envs = SwimVecEnv(4)
    >>> observations, _ = envs.reset(seed=0)
    >>> observations.shape
    (4, 23)
    >>> observations, rewards, *_ = envs.step(envs.action_space.sample())
    >>> envs.close()
    """

    def __init__(
        self,
        num_envs: int,
        *,
        n_links: int = 6,
        desired_speed: float = 0.1,
        time_limit: float = 30.0,
        include_time: bool = False,
        threads: int | None = None,
        autoreset_mode: AutoresetMode = AutoresetMode.NEXT_STEP,
    ) -> None:
        for name, value in (("num_envs", num_envs), ("threads", 1 if threads is None else threads)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an integer of 1 or more; got {value!r}")
        if autoreset_mode not in (AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED):
            raise ValueError(f"autoreset_mode must be NEXT_STEP or DISABLED; got {autoreset_mode!r}")
        self.task = SwimTask(n_links, desired_speed, time_limit, include_time)
        self.num_envs = num_envs
        self.single_observation_space = self.task.observation_space
        self.single_action_space = self.task.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self.metadata = {"autoreset_mode": autoreset_mode, "render_fps": round(1 / CONTROL_STEP)}
        self.autoreset_mode = autoreset_mode
        self.bodies = [SwimmerBody(self.task.model) for _ in range(num_envs)]
        self._generators: list[np.random.Generator | None] = [None] * num_envs
        self._observations = np.zeros(self.observation_space.shape)  # type: ignore[arg-type]
        self._steps = np.zeros(num_envs, dtype=np.int64)
        self._over: Flags = np.zeros(num_envs, dtype=bool)
        self._begun = False
        threads = min(num_envs, threads if threads is not None else os.cpu_count() or 1)
        self._chunks = [chunk.tolist() for chunk in np.array_split(np.arange(num_envs), threads)]
        self._threads = ThreadPoolExecutor(threads) if threads > 1 else None

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[Array, dict[str, Any]]:
        """Begin episodes: all, or those where the boolean array `options["reset_mask"]` is true.

        An integer seed gives environment k the seed + k, a sequence gives each its own.
        """
        mask = self._mask(options)
        for index, one in enumerate(self._seeds(seed)):
            if mask[index] and (one is not None or self._generators[index] is None):
                self._generators[index], _ = seeding.np_random(one)
        self._begin(np.flatnonzero(mask))
        self._over[mask] = False
        self._begun = True
        self.task.finish(self._observations, self._steps)
        return self._observations.copy(), {}

    def step(self, actions: Any) -> tuple[Array, Array, Flags, Flags, dict[str, Any]]:
        """Apply torques, shape (environment, joint), for a control step."""
        if not self._begun:
            raise ResetNeeded("call reset before the first step")
        torques = self.task.check_action(actions, (self.num_envs, self.task.model.n_joints))
        over = self._over.copy()
        if over.any() and self.autoreset_mode == AutoresetMode.DISABLED:
            raise ResetNeeded(
                f"the episodes of environments {np.flatnonzero(over).tolist()} are over; with autoreset disabled call "
                "reset(options={'reset_mask': ...}) first"
            )
        self._advance(torques, over)
        self._steps[~over] += 1
        if over.any():
            self._begin(np.flatnonzero(over))
        self.task.finish(self._observations, self._steps)
        rewards = np.where(over, 0.0, self.task.reward(self._observations))
        self._over = self._steps >= self.task.episode_steps
        return self._observations.copy(), rewards, np.zeros(self.num_envs, dtype=bool), self._over.copy(), {}

    def close_extras(self, **kwargs: Any) -> None:
        """Let the threads end."""
        if self._threads is not None:
            self._threads.shutdown()

    def _advance(
        self, torques: Float[np.ndarray, "environment joint"], resting: Bool[np.ndarray, " environment"]
    ) -> None:
        def step(indices: list[int]) -> None:
            for index in indices:
                if not resting[index]:
                    self.bodies[index].step(torques[index])
                    self.bodies[index].observe(self._observations[index])

        if self._threads is None:
            step(self._chunks[0])
        else:
            list(self._threads.map(step, self._chunks))

    def _begin(self, indices: NDArray[np.integer]) -> None:
        for index in indices.tolist():
            generator = self._generators[index]
            if generator is None:
                raise ResetNeeded(f"environment {index} has never begun an episode: call reset without a mask first")
            self.bodies[index].place_at_random(generator)
            self.bodies[index].observe(self._observations[index])
            self._steps[index] = 0

    def _seeds(self, seed: int | Sequence[int | None] | None) -> Sequence[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if isinstance(seed, int | np.integer):
            return [int(seed) + index for index in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise ValueError(f"seed must hold one entry for each of {self.num_envs} environments; got {len(seed)}")
        return seed

    def _mask(self, options: dict[str, Any] | None) -> Flags:
        if not options:
            return np.ones(self.num_envs, dtype=bool)
        mask = options.get("reset_mask")
        if set(options) != {"reset_mask"} or not isinstance(mask, np.ndarray) or mask.dtype != bool:
            raise ValueError(f"options may hold a boolean array 'reset_mask' and nothing else; got {options!r}")
        if mask.shape != (self.num_envs,) or not mask.any():
            raise ValueError(f"reset_mask must have shape ({self.num_envs},) and a true entry; got {mask!r}")
        return mask
