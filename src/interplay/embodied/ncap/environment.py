"""`SwimEnv`: swim forwards with a body of any number of links, the task of the paper in Gymnasium's interface."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from jaxtyping import Float
from numpy.typing import NDArray

from interplay.embodied.ncap.body import CONTROL_STEP, SwimmerBody, SwimmerModel, forward_speed
from interplay.embodied.ncap.camera import Camera

__all__ = ["SwimEnv", "SwimTask"]

Array = NDArray[np.float64]

_FASTEST_DRIFT = 10.0  # m/s; flapping bodies reach about 0.15
_FASTEST_TURN = 100.0  # rad/s; flapping bodies reach about 4


class SwimTask:
    """What observations and rewards are, for one environment or many.

    Parameters
    ----------
    n_links, desired_speed, time_limit, include_time
        As for `SwimEnv`.
    """

    def __init__(self, n_links: int, desired_speed: float, time_limit: float, include_time: bool) -> None:
        for name, value, unit in (("desired_speed", desired_speed, "m/s"), ("time_limit", time_limit, "seconds")):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} must be a positive number of {unit}; got {value!r}")
        self.model = SwimmerModel(n_links)
        self.desired_speed = desired_speed
        self.include_time = include_time
        self.episode_steps = max(1, round(time_limit / CONTROL_STEP))
        bounds = np.concatenate(
            (
                np.full(self.model.n_joints, np.pi),
                np.tile([_FASTEST_DRIFT, _FASTEST_DRIFT, _FASTEST_TURN], self.model.n_links),
                np.ones(int(include_time)),
            )
        )
        self._bounds = bounds
        self.observation_space = spaces.Box(-bounds, bounds, dtype=np.float64)
        self.action_space = spaces.Box(-1.0, 1.0, (self.model.n_joints,), dtype=np.float32)

    def finish(self, observations: Float[np.ndarray, "*batch entry"], steps: Any) -> None:
        """Write the time feature, -1 at the beginning and 1 at the end, and keep within the space."""
        if self.include_time:
            observations[..., -1] = 2 * np.asarray(steps) / self.episode_steps - 1
        np.minimum(observations, self._bounds, out=observations)
        np.maximum(observations, -self._bounds, out=observations)

    def reward(self, observations: Float[np.ndarray, "*batch entry"]) -> Any:
        """Forward speed over the desired one, between 0 and 1."""
        speed = forward_speed(observations, self.model.n_joints)
        return np.minimum(np.maximum(speed / self.desired_speed, 0.0), 1.0)

    def check_action(self, action: Any, shape: tuple[int, ...]) -> Array:
        """The action as an array, or an error that names what is wrong with it."""
        array = np.asarray(action, dtype=np.float64)
        if array.shape != shape:
            raise ValueError(f"action must have shape {shape}, a torque for each joint; got {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError("action must be finite; it holds NaN or infinity")
        return array


class SwimEnv(gymnasium.Env[Array, NDArray[np.float32]]):
    """dm_control's swimmer, rewarded for swimming forwards. `Interplay/Swim-v0`.

    ============  =================================================================================================
    action        torques of the n_links - 1 joints in [-1, 1], head first
    observation   joint angles in radians; for each link its velocity sideways and backwards in m/s and its turning
                  in rad/s; with `include_time` the time from -1 to 1
    reward        forward speed of the head / desired speed, clipped to [0, 1]
    start         at rest, any heading, joints anywhere within their limits
    end           truncated after `time_limit`; never terminated
    ============  =================================================================================================

    Parameters
    ----------
    n_links
        3 or more; 6 in the paper.
    desired_speed
        m/s from which on the reward is 1.
    time_limit
        Seconds; a step takes 0.03.
    include_time
        Whether the time is the last entry of the observation.
    render_mode
        None or "rgb_array": MuJoCo's tracking camera where OpenGL is to be had (see `MUJOCO_GL`), otherwise the body
        drawn from its position.
    width, height
        Of rendered images, in pixels.

    Notes
    -----
    `reset(options={"heading": ..., "joints": ...})` begins in a given pose. Standard tasks of dm_control reward the
    distance to a target instead: their returns are not comparable.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["rgb_array"], "render_fps": round(1 / CONTROL_STEP)}

    def __init__(
        self,
        n_links: int = 6,
        desired_speed: float = 0.1,
        time_limit: float = 30.0,
        include_time: bool = False,
        render_mode: str | None = None,
        width: int = 480,
        height: int = 320,
    ) -> None:
        if render_mode not in {None, *self.metadata["render_modes"]}:
            raise ValueError(f"render_mode must be None or 'rgb_array'; got {render_mode!r}")
        if min(width, height) < 1:
            raise ValueError(f"width and height must be positive numbers of pixels; got {width} and {height}")
        self.task = SwimTask(n_links, desired_speed, time_limit, include_time)
        self.body = SwimmerBody(self.task.model)
        self.observation_space, self.action_space = self.task.observation_space, self.task.action_space
        self.render_mode = render_mode
        self._camera = Camera(width, height)
        self._steps: int | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Array, dict[str, Any]]:
        """Begin an episode; options "heading" (radians) and "joints" (radians, one a joint) fix the pose together."""
        super().reset(seed=seed)
        if options:
            self.body.place(*self._pose(options))
        else:
            self.body.place_at_random(self.np_random)
        self._steps = 0
        return self._observe(), {}

    def step(self, action: Any) -> tuple[Array, float, bool, bool, dict[str, Any]]:
        """Apply torques for a control step; what is outside [-1, 1] is clipped."""
        if self._steps is None:
            raise ResetNeeded("call reset before the first step")
        self.body.step(self.task.check_action(action, (self.task.model.n_joints,)))
        self._steps += 1
        observation = self._observe()
        return observation, float(self.task.reward(observation)), False, self._steps >= self.task.episode_steps, {}

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """The picture as (height, width, 3) with render mode "rgb_array"."""
        return None if self.render_mode is None else self._camera.picture(self.body)

    def close(self) -> None:
        """Release what rendering holds."""
        self._camera.close()

    def _observe(self) -> Array:
        observation = np.empty(self.observation_space.shape)
        self.body.observe(observation)
        self.task.finish(observation, self._steps)
        return observation

    def _pose(self, options: dict[str, Any]) -> tuple[float, Array]:
        if set(options) != {"heading", "joints"}:
            raise ValueError(f"options must be 'heading' and 'joints' together; got {', '.join(map(str, options))}")
        joints = self.task.check_action(options["joints"], (self.task.model.n_joints,))
        return float(options["heading"]), joints
