"""Importing this module enters the environments of Interplay in Gymnasium's registry.

>>> import gymnasium
>>> import interplay.environments
>>> gymnasium.spec("Interplay/Swim-v0").id
'Interplay/Swim-v0'

`gymnasium.make("interplay.environments:Interplay/Swim-v0")` imports it on the way.
"""

from __future__ import annotations

try:
    from gymnasium.envs.registration import register
except ModuleNotFoundError as error:
    raise ImportError("the environments need gymnasium: pip install 'interplay[rl]'") from error

__all__: list[str] = []

register("Interplay/Swim-v0", entry_point="interplay.embodied.ncap.environment:SwimEnv")
register("Interplay/ProactiveWorld-v0", entry_point="interplay.agents.prism.environment:ProactiveWorld")
register("Interplay/SelfSorting-v0", entry_point="interplay.kinetics.self_sorting.environment:SelfSortingEnv")
