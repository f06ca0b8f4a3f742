"""`Interplay/SelfSorting-v0`: a scheduler that is to be learned, which says whose turn it is.

| | |
| --- | --- |
| observation | dict: `values` (n,) ranks over n - 1 in [0, 1], `algotypes` (n,), `frozen` (n,), all by position |
| action | position of the cell that acts next |
| reward | fall of the monotonicity error, minus `cost` for the activation |
| terminated | no active cell can move any more |
| truncated | after `max_activations` |
| starting state | n values in random order, cells of the given algotypes at random places, some of them broken |

The rules of the cells are theirs; the scheduler cannot move anybody, it can only choose who is asked.
"""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from interplay.kinetics.self_sorting.array import SelfSortingArray

__all__ = ["SelfSortingEnv"]

Observation = dict[str, np.ndarray]

_BAR = 6  # pixels
_PALETTE = np.array([[0, 114, 178], [213, 94, 0], [0, 158, 115], [204, 121, 167]], np.uint8)
_FROZEN = np.array([110, 110, 110], np.uint8)


class SelfSortingEnv(gymnasium.Env[Observation, np.int64]):
    """Choose which cell acts next.

    Parameters
    ----------
    n
        Number of cells.
    algotype, direction, frozen, frozen_kind
        As for `SelfSortingArray`.
    cost
        Taken from the reward at each activation.
    max_activations
        After which an episode is cut off.
    render_mode
        "ansi" for a line of values, "rgb_array" for bars coloured by algotype, frozen ones grey.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 30}

    def __init__(
        self,
        n: int = 20,
        algotype: Any = "bubble",
        direction: Any = 1,
        frozen: Any = None,
        frozen_kind: str = "movable",
        cost: float = 0.01,
        max_activations: int = 5000,
        render_mode: str | None = None,
    ) -> None:
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 2:
            raise ValueError(f"n must be a whole number of cells, 2 or more; got {n!r}")
        if max_activations < 1:
            raise ValueError(f"max_activations must be 1 or more; got {max_activations}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be None, 'ansi' or 'rgb_array'; got {render_mode!r}")
        self._options = {"algotype": algotype, "direction": direction, "frozen": frozen, "frozen_kind": frozen_kind}
        self.cost, self.max_activations, self.render_mode = float(cost), int(max_activations), render_mode
        self.array = SelfSortingArray(np.arange(n), **self._options, seed=0)
        kinds = max(len(self.array.kinds), 2)
        self.observation_space = spaces.Dict(
            {
                "values": spaces.Box(0.0, 1.0, (n,), np.float32),
                "algotypes": spaces.MultiDiscrete([kinds] * n),
                "frozen": spaces.MultiBinary(n),
            }
        )
        self.action_space = spaces.Discrete(n)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Shuffle; `options={"values": ...}` starts from values of your own."""
        super().reset(seed=seed)
        size = len(self.array)
        values = (options or {}).get("values")
        if values is None:
            values = self.np_random.permutation(size)
        elif len(values) != size:
            raise ValueError(f"options['values'] must hold {size} numbers; got {len(values)}")
        array_seed = int(self.np_random.integers(2**63))
        self.array = SelfSortingArray(values, **self._options, seed=array_seed)
        self._taken = 0
        return self._observe(), self._inform()

    def step(self, action: np.int64) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Let the cell at position `action` act once."""
        if not self.action_space.contains(action):
            raise ValueError(f"action must be a position from 0 to {len(self.array) - 1}; got {action!r}")
        before = self.array.me
        self.array.activate(self.array.arrangement[action])
        self._taken += 1
        reward = float(before - self.array.me) - self.cost
        truncated = self._taken >= self.max_activations
        return self._observe(), reward, self.array.is_quiescent, truncated, self._inform()

    def render(self) -> Any:
        """A line of text or an image, by `render_mode`; None without one."""
        if self.render_mode == "ansi":
            return " ".join(f"{value:g}" for value in self.array.values)
        if self.render_mode == "rgb_array":
            return self._draw()
        return None

    def _observe(self) -> Observation:
        order = np.unique(self.array.values, return_inverse=True)[1]
        return {
            "values": (order / (len(order) - 1)).astype(np.float32),
            "algotypes": self.array.algotypes.astype(np.int64),
            "frozen": self.array.frozen.astype(np.int8),
        }

    def _inform(self) -> dict[str, Any]:
        return {"me": self.array.me, "swaps": self.array.swaps, "movable": self.array.movable_cells()}

    def _draw(self) -> np.ndarray:
        size = len(self.array)
        order = np.unique(self.array.values, return_inverse=True)[1]
        colours = np.where(self.array.frozen[:, None], _FROZEN, _PALETTE[self.array.algotypes % len(_PALETTE)])
        filled = np.arange(size)[::-1, None] <= order[None, :]
        picture = np.where(filled[..., None], colours[None], np.uint8(255)).astype(np.uint8)
        return picture.repeat(_BAR, axis=0).repeat(_BAR, axis=1)
