"""The user's world as a Gymnasium environment: at every event speak or stay silent."""

from __future__ import annotations

from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from jaxtyping import Int

from interplay.agents.prism.gate import CostGate
from interplay.agents.prism.world import HISTORY, NEED_TOKENS, RECEPTIVITY_TOKENS, Episodes, UserWorld, WorldKind

__all__ = ["ProactiveWorld"]

SILENT, SPEAK = 0, 1
NO_EVENT = -1
Observation = Int[np.ndarray, "history tokens=2"]


class ProactiveWorld(gymnasium.Env[Observation, int]):
    """A stream of events of one user; an offer is worth making where it is needed and welcome.

    ============  ====================================================================================================
    observation   int64 (history, 2): need and receptivity token of the last events, the newest in the last row, -1
                  before the stream began
    action        0 silent, 1 speak; neither changes what the user does next
    reward        minus the cost: c_fa for an offer that is not accepted, c_fn for a missed one
    end           terminated after `events` decisions
    info          "p_need" and "p_acc": exact probabilities given the stream up to the observation; after a step
                  "y_need", "y_accept" and "cost" of the event that was acted on
    ============  ====================================================================================================

    Parameters
    ----------
    kind
        "coupled", "independent" or "control", as in `UserWorld.draw`.
    c_fa, c_fn
        The costs, as in `CostGate`.
    events
        Decisions in an episode, 1 or more.
    history
        Events in an observation, 1 or more.
    world_seed
        Draws the emissions, so that all episodes are of one world.
    render_mode
        "ansi": `render` gives the last event and decision as one line of text.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi"], "render_fps": 1}

    def __init__(
        self,
        kind: WorldKind = "coupled",
        *,
        c_fa: float = 1.0,
        c_fn: float = 2.0,
        events: int = HISTORY,
        history: int = HISTORY,
        world_seed: int = 0,
        render_mode: str | None = None,
    ) -> None:
        for name, number in (("events", events), ("history", history)):
            if number < 1:
                raise ValueError(f"{name} must be 1 or more; got {number}")
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be None or 'ansi'; got {render_mode!r}")
        self.gate = CostGate(c_fa, c_fn)
        self.world = UserWorld.draw(kind, generator=np.random.default_rng(world_seed))
        self.events = events
        self.history = history
        self.render_mode = render_mode
        highest = np.broadcast_to(np.array([NEED_TOKENS - 1, RECEPTIVITY_TOKENS - 1]), (history, 2))
        self.observation_space = spaces.Box(np.full((history, 2), NO_EVENT), highest, dtype=np.int64)
        self.action_space = spaces.Discrete(2)
        self._episode: Episodes | None = None
        self._now = 0
        self._line = ""

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start a new stream; it begins with one event, on which the first decision is made."""
        super().reset(seed=seed)
        self._episode = self.world.sample(1, self.events, generator=self.np_random)
        self._now = 0
        self._line = self._shown("")
        return self._observation(), self._probabilities()

    def step(self, action: int) -> tuple[Observation, float, bool, bool, dict[str, Any]]:
        """Decide about the newest event and see the next one; after the last event the observation stays."""
        if self._episode is None or self._now >= self.events:
            raise RuntimeError("the stream has not begun or has ended: call reset() first")
        if not self.action_space.contains(action):
            raise ValueError(f"action must be 0 (silent) or 1 (speak); got {action!r}")
        needed = bool(self._episode.y_need[0, self._now])
        welcome = bool(self._episode.y_accept[0, self._now])
        cost = float(self.gate.realised_cost(int(action), needed, welcome))
        self._line = self._shown(f"{'speak' if action == SPEAK else 'silent'}, cost {cost:g}")
        self._now += 1
        info = {"y_need": int(needed), "y_accept": int(welcome), "cost": cost, **self._probabilities()}
        return self._observation(), 0.0 - cost, self._now >= self.events, False, info

    def render(self) -> str | None:  # type: ignore[override]
        """The last event and what was decided about it, in mode "ansi"."""
        return self._line if self.render_mode == "ansi" else None

    def _stream(self) -> Int[np.ndarray, "episodes=1 events tokens=2"]:
        if self._episode is None:
            raise RuntimeError("the stream has not begun: call reset() first")
        return self._episode.tokens[:, : self._now + 1]

    def _observation(self) -> Observation:
        window = np.full((self.history, 2), NO_EVENT, dtype=np.int64)
        recent = self._stream()[0, -self.history :]
        window[-len(recent) :] = recent
        return window

    def _probabilities(self) -> dict[str, float]:
        p_need, p_acc = self.world.judge(self._stream())
        return {"p_need": float(p_need[0]), "p_acc": float(p_acc[0])}

    def _shown(self, decision: str) -> str:
        need, receptivity = self._stream()[0, -1].tolist()
        return f"event {self._now}: tokens {need}, {receptivity}" + (f": {decision}" if decision else "")
