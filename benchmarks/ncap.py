"""The circuit against the official module, and environment steps against dm_control, Gymnasium and a plain network.

`--official DIR` also times the authors' code: DIR is a checkout of https://github.com/nikhilxb/ncap.
"""

from __future__ import annotations

import argparse
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from measure import HEADER, compare
from torch import nn

os.environ.setdefault("MUJOCO_GL", "disable")

from dm_control import suite
from gymnasium.vector import SyncVectorEnv

from interplay.embodied.ncap import NCAPSwimmer, SwimEnv, SwimVecEnv

CALLS, STEPS, SWIMMERS = 200, 300, 16


def official(directory: Path) -> type[nn.Module]:
    """The authors' module; the frameworks that its file imports, and the module does not use, are left empty."""
    for name, content in (
        ("garage", {}),
        ("garage.torch", {"global_device": None}),
        ("garage.torch.policies", {}),
        ("garage.torch.policies.policy", {"Policy": nn.Module}),
        ("tonic", {}),
        ("tonic.torch", {"agents": None, "models": None, "normalizers": None}),
    ):
        module = types.ModuleType(name)
        module.__dict__.update(content)
        sys.modules[name] = module
    sys.path.insert(0, str(directory))
    from neurobo.ncap.swimmer import SwimmerModule

    return SwimmerModule  # type: ignore[no-any-return]


def forward_passes(directory: Path | None) -> list[str]:
    """Torques of five joints, without gradients."""
    rows = []
    for batch in (1, 256):
        generator = torch.Generator().manual_seed(0)
        joints, steps = torch.rand(batch, 5, generator=generator) * 2 - 1, torch.arange(batch)
        ours = NCAPSwimmer(5)
        arrays, counts = joints.double().numpy(), steps.numpy()
        circuit = ours.numpy()

        def repeat(call: Callable[[], object]) -> Callable[[], None]:
            def work() -> None:
                with torch.no_grad():
                    for _ in range(CALLS):
                        call()

            return work

        perceptron = nn.Sequential(nn.Linear(23, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 5))
        observations = torch.rand(batch, 23, generator=generator)
        alternatives = {
            "NCAPSwimmer": repeat(lambda ours=ours, joints=joints, steps=steps: ours(joints, timestep=steps)),
            "NCAPSwimmer.numpy()": repeat(
                lambda circuit=circuit, arrays=arrays, counts=counts: circuit(arrays, counts)
            ),
            "network 23-64-64-5 of PyTorch": repeat(lambda net=perceptron, rows=observations: net(rows)),
        }
        if directory is not None:
            theirs, times = official(directory)(n_joints=5), steps[:, None].float()
            alternatives["official module"] = repeat(
                lambda theirs=theirs, joints=joints, times=times: theirs(joints, timesteps=times)
            )
        rows += compare(f"{CALLS} forward passes, batch {batch}", alternatives).rows()
    return rows


def environment_steps() -> list[str]:
    """Steps of the six-link swimmer under random torques, observations and rewards included."""
    torques = np.random.default_rng(0).uniform(-1, 1, (STEPS, SWIMMERS, 5))
    single, direct = SwimEnv(), suite.load("swimmer", "swimmer6")
    batch, sync = SwimVecEnv(SWIMMERS, threads=1), SyncVectorEnv([SwimEnv] * SWIMMERS)

    def alone() -> None:
        single.reset(seed=0)
        for action in torques[:, 0]:
            single.step(action)

    def dm_control() -> None:
        direct.reset()
        for action in torques[:, 0]:
            direct.step(action)

    def vector(envs: SwimVecEnv | SyncVectorEnv) -> None:
        envs.reset(seed=0)
        for actions in torques.astype(np.float32):
            envs.step(actions)

    rows = compare(f"{STEPS} steps of one swimmer", {"SwimEnv": alone, "dm_control's environment": dm_control}).rows()
    title = f"{STEPS} steps of {SWIMMERS} swimmers, one thread"
    vectors = {"SwimVecEnv": lambda: vector(batch), "Gymnasium's SyncVectorEnv of SwimEnv": lambda: vector(sync)}
    return rows + compare(title, vectors, repeats=5).rows()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = os.environ.get("NCAP_OFFICIAL")
    parser.add_argument(
        "--official", type=Path, default=default and Path(default), help="the authors' repository; NCAP_OFFICIAL"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [HEADER, *forward_passes(arguments.official), *environment_steps()]
    if arguments.official is None:
        rows += ["", "The official code was not there: pass --official DIR or set NCAP_OFFICIAL."]
    print("\n".join(rows))


if __name__ == "__main__":
    main()
