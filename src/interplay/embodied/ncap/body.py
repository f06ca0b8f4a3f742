"""dm_control's swimmer as a MuJoCo simulation, stepped without dm_control's own loop.

The model is dm_control's, link for link; a control step computes what `Physics.step` of dm_control computes, and the
states agree to the bit. Only the observations that nobody asks for in between are left out.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

__all__ = ["CONTROL_STEP", "SwimmerBody", "SwimmerModel", "check_mujoco_version"]

Array = NDArray[np.float64]

CONTROL_STEP = 0.03
"""Seconds of one control step, dm_control's."""

_HALF_LINK = 0.05
_ROOT = 3  # coordinates of the head: x, y and heading
_BEFORE_VELOCITIES = 12  # positions of nose and target, two axes of the head


def check_mujoco_version(version: str) -> None:
    """Refuse versions of MuJoCo with which dm_control does not load its models."""
    if int(version.partition(".")[0]) >= 4:
        raise ImportError(
            f"dm_control cannot load its models with mujoco {version} (MjModel has no attribute flex_vertedge): "
            "pip install 'mujoco>=3.3,<4'"
        )


check_mujoco_version(mujoco.__version__)
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # dm_control tries window systems, which headless machines do not have
    from dm_control.suite import swimmer as dm_control_swimmer


@functools.lru_cache(maxsize=32)
def _model_text(n_links: int) -> tuple[str, dict[str, bytes]]:
    text, assets = dm_control_swimmer.get_model_and_assets(n_links)
    return text.decode(), assets


class SwimmerModel:
    """What all swimmers of `n_links` links have in common; read only, so that threads may share it.

    Attributes
    ----------
    n_links, n_joints
        There is one joint less than links, joint 0 behind the head.
    joint_limit
        2 pi / n_links, in radians.
    substeps
        Physics steps in a control step.
    """

    def __init__(self, n_links: int = 6) -> None:
        if isinstance(n_links, bool) or not isinstance(n_links, int | np.integer) or n_links < 3:
            raise ValueError(f"n_links must be an integer of 3 or more, dm_control's minimum; got {n_links!r}")
        self.n_links = int(n_links)
        self.n_joints = self.n_links - 1
        text, assets = _model_text(self.n_links)
        self.mujoco = mujoco.MjModel.from_xml_string(text, assets)
        for material in ("target", "target_default", "target_highlight"):
            self.mujoco.material(material).rgba[3] = 0  # the task has no target
        self.without_sensors = mujoco.MjModel.from_xml_string(text, assets)
        self.without_sensors.opt.disableflags |= mujoco.mjtDisableBit.mjDSBL_SENSOR
        self.substeps = round(CONTROL_STEP / self.mujoco.opt.timestep)
        self.joint_limit = float(self.mujoco.jnt_range[-1, 1])
        self.segments = [
            self.mujoco.body(name).id for name in ("head", *map("segment_{}".format, range(self.n_joints)))
        ]

    @property
    def observation_size(self) -> int:
        """Joint angles and three velocities of each link."""
        return self.n_joints + 3 * self.n_links


class SwimmerBody:
    """One swimmer in its medium.

    Attributes
    ----------
    data
        MuJoCo's state; `qpos` holds the head's x and y in metres, its heading, and the joint angles in radians.
    """

    def __init__(self, model: SwimmerModel) -> None:
        self.model = model
        self.data = mujoco.MjData(model.mujoco)
        # Views into MuJoCo's memory, which stays where it is: looking them up anew costs as much as a step of a part.
        self._control = self.data.ctrl
        self._joints = self.data.qpos[_ROOT:]
        self._velocities = self.data.sensordata[_BEFORE_VELOCITIES:].reshape(-1, 6)
        self.place(0.0, np.zeros(model.n_joints))

    def place(self, heading: float, joints: Float[np.ndarray, " joint"]) -> None:
        """Put the body at rest at the origin in this pose."""
        mujoco.mj_resetData(self.model.mujoco, self.data)
        self.data.qpos[2] = heading
        self._joints[:] = joints
        mujoco.mj_forward(self.model.mujoco, self.data)

    def place_at_random(self, generator: np.random.Generator) -> None:
        """A pose as dm_control draws it: any heading, each joint anywhere within its limits."""
        limit = self.model.joint_limit
        self.place(generator.uniform(-np.pi, np.pi), generator.uniform(-limit, limit, self.model.n_joints))

    def step(self, torques: Float[np.ndarray, " joint"]) -> None:
        """A control step under constant torques, which MuJoCo clips to [-1, 1]. Other threads may run meanwhile."""
        self._control[:] = torques
        blind = self.model.without_sensors
        mujoco.mj_step2(blind, self.data)
        mujoco.mj_step(blind, self.data, self.model.substeps - 1)
        mujoco.mj_step1(self.model.mujoco, self.data)

    def observe(self, out: Float[np.ndarray, " entry"]) -> None:
        """Write joint angles, then the velocities of each link in its own frame: sideways, backwards, turning."""
        joints = self.model.n_joints
        out[:joints] = self._joints
        velocities = out[joints : self.model.observation_size].reshape(-1, 3)
        velocities[:, :2] = self._velocities[:, :2]
        velocities[:, 2] = self._velocities[:, 5]

    def outline(self) -> Float[np.ndarray, "point 2"]:
        """Where the body is, in metres from nose to tail: the ends of all links."""
        centres: Array = self.data.xpos[self.model.segments, :2]
        along: Array = self.data.xmat[self.model.segments].reshape(-1, 3, 3)[:, :2, 1]
        return np.concatenate((centres[:1] - _HALF_LINK * along[:1], centres + _HALF_LINK * along))


def forward_speed(observations: Float[np.ndarray, "*batch entry"], n_joints: int) -> Any:
    """Speed of the head towards its nose in m/s, which points to -y in its frame."""
    return -observations[..., n_joints + 1]
