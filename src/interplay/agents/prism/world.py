"""A user with two hidden states, the events that betray them, and the exact probabilities given the events.

Need z moves through smooth, searching, stuck and error, receptivity r between busy and open; both are Markov chains. An
event carries one token of each. Whether help is needed depends on z, whether an offer would be accepted on that and on
r: polite users accept what they did not need, busy ones refuse what they did.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Bool, Float, Int
from sklearn.metrics import roc_auc_score

__all__ = ["Episodes", "UserWorld", "WorldKind"]

WorldKind = Literal["coupled", "independent", "control"]

NEED_START = np.array([0.15, 0.25, 0.35, 0.25])
NEED_STEP = np.array(
    [[0.88, 0.08, 0.03, 0.01], [0.06, 0.80, 0.12, 0.02], [0.02, 0.05, 0.85, 0.08], [0.02, 0.03, 0.10, 0.85]]
)
NEED_OF_STATE = np.array([0.02, 0.12, 0.95, 0.99])
RECEPTIVITY_START = np.array([0.4, 0.6])
RECEPTIVITY_STEP = np.array([[0.90, 0.10], [0.06, 0.94]])
ACCEPTANCE: dict[str, Float[np.ndarray, "need=2 receptivity=2"]] = {
    "coupled": np.array([[0.06, 0.55], [0.30, 0.97]]),
    "independent": np.array([[0.12, 0.95], [0.12, 0.95]]),
    "control": np.array([[0.0, 0.0], [1.0, 1.0]]),
}
NEED_TOKENS, RECEPTIVITY_TOKENS = 8, 5
NEED_CONCENTRATION, RECEPTIVITY_CONCENTRATION = 0.3, 0.4
NEED_AUC = (0.88, 0.97)
HISTORY = 12

Tokens = Int[np.ndarray, "episodes events tokens=2"]


class Episodes(NamedTuple):
    """Event streams and, for each event, whether help was needed and an offer would be accepted."""

    tokens: Tokens
    y_need: Bool[np.ndarray, "episodes events"]
    y_accept: Bool[np.ndarray, "episodes events"]


@dataclass(frozen=True)
class UserWorld:
    """Two hidden Markov chains and how they show; all episodes are handled at once.

    Attributes
    ----------
    need_emission
        (4, 8) probability of each need token in each state of need.
    receptivity_emission
        (2, 5) probability of each receptivity token, busy and open.
    acceptance
        (2, 2) probability of acceptance by need (no, yes) and receptivity (busy, open).
    """

    need_emission: Float[np.ndarray, "states tokens"]
    receptivity_emission: Float[np.ndarray, "2 tokens"]
    acceptance: Float[np.ndarray, "2 2"]

    @classmethod
    def draw(
        cls, kind: WorldKind = "coupled", *, generator: np.random.Generator, trials: int = 4000, attempts: int = 1000
    ) -> UserWorld:
        """A world whose emissions are drawn anew until need is neither obvious nor hidden.

        Rows of the emissions come from Dirichlet distributions, those of need of concentration 0.3, those of
        receptivity 0.4, until the exact probability of need after 12 events has an area under the ROC curve in [0.88,
        0.97].

        Parameters
        ----------
        kind
            "coupled": acceptance depends on need and receptivity. "independent": on receptivity alone. "control": it
            equals need, so that one probability says it all. Emissions depend on the generator, not on the kind.
        generator
            Draws the emissions, and the episodes on which the area is measured.
        trials
            Number of those episodes.
        attempts
            Draws after which to give up.

        Raises
        ------
        ValueError
            An unknown kind.
        RuntimeError
            If no draw of `attempts` is within the range.
        """
        if kind not in ACCEPTANCE:
            raise ValueError(f"kind must be one of {', '.join(get_args(WorldKind))}; got {kind!r}")
        for _ in range(attempts):
            world = cls(
                generator.dirichlet(np.full(NEED_TOKENS, NEED_CONCENTRATION), size=len(NEED_START)),
                generator.dirichlet(np.full(RECEPTIVITY_TOKENS, RECEPTIVITY_CONCENTRATION), size=2),
                ACCEPTANCE[kind],
            )
            episodes = world.sample(trials, HISTORY, generator=generator)
            area = roc_auc_score(episodes.y_need[:, -1], world.judge(episodes.tokens)[0])
            if NEED_AUC[0] <= area <= NEED_AUC[1]:
                return world
        raise RuntimeError(f"none of {attempts} worlds has an area under the ROC curve of need in {NEED_AUC}")

    def sample(self, episodes: int, events: int = HISTORY, *, generator: np.random.Generator) -> Episodes:
        """Draw event streams from their start.

        Parameters
        ----------
        episodes, events
            How many streams, and of how many events each; 1 or more.
        generator
            Draws everything.
        """
        for name, number in (("episodes", episodes), ("events", events)):
            if number < 1:
                raise ValueError(f"{name} must be 1 or more; got {number}")
        need = _chain(NEED_START, NEED_STEP, episodes, events, generator)
        receptivity = _chain(RECEPTIVITY_START, RECEPTIVITY_STEP, episodes, events, generator)
        tokens = np.stack(
            [_draw(self.need_emission[need], generator), _draw(self.receptivity_emission[receptivity], generator)],
            axis=-1,
        )
        y_need = generator.random(need.shape) < NEED_OF_STATE[need]
        y_accept = generator.random(need.shape) < self.acceptance[y_need.astype(int), receptivity]
        return Episodes(tokens, y_need, y_accept)

    def judge(
        self, tokens: Tokens, last: int | None = None
    ) -> tuple[Float[np.ndarray, " episodes"], Float[np.ndarray, " episodes"]]:
        """P(need) and P(accepted | offer) at the last event, exactly, given the events from the start.

        Parameters
        ----------
        tokens
            (episodes, events, 2) need and receptivity token of each event.
        last
            Use only so many of the last events; all, if left out. How long the stream is, is known in either case.

        Raises
        ------
        ValueError
            Tokens of another shape, or a `last` below 1.
        """
        tokens = np.asarray(tokens)
        if tokens.ndim != 3 or tokens.shape[1] < 1 or tokens.shape[2] != 2:
            raise ValueError(f"tokens must have shape (episodes, events, 2) with events; got {tokens.shape}")
        if last is not None and last < 1:
            raise ValueError(f"last must be 1 or more; got {last}")
        unseen = 0 if last is None else max(tokens.shape[1] - last, 0)
        seen = tokens[:, unseen:]
        need = _filter(NEED_START, NEED_STEP, self.need_emission, seen[..., 0], unseen)
        receptivity = _filter(RECEPTIVITY_START, RECEPTIVITY_STEP, self.receptivity_emission, seen[..., 1], unseen)
        p_need = need @ NEED_OF_STATE
        by_need = receptivity @ self.acceptance.T
        return p_need, (1 - p_need) * by_need[:, 0] + p_need * by_need[:, 1]


def _chain(
    start: Float[np.ndarray, " states"],
    step: Float[np.ndarray, "states states"],
    episodes: int,
    events: int,
    generator: np.random.Generator,
) -> Int[np.ndarray, "episodes events"]:
    states = np.empty((episodes, events), dtype=np.int64)
    states[:, 0] = _draw(np.broadcast_to(start, (episodes, len(start))), generator)
    for event in range(1, events):
        states[:, event] = _draw(step[states[:, event - 1]], generator)
    return states


def _draw(
    probabilities: Float[np.ndarray, "*shape outcomes"], generator: np.random.Generator
) -> Int[np.ndarray, "*shape"]:
    """One outcome from each row, by inversion."""
    edges = np.cumsum(probabilities[..., :-1], axis=-1)  # without the last: rounding cannot lead past it
    return (generator.random(probabilities.shape[:-1])[..., None] >= edges).sum(axis=-1)


def _filter(
    start: Float[np.ndarray, " states"],
    step: Float[np.ndarray, "states states"],
    emission: Float[np.ndarray, "states tokens"],
    tokens: Int[np.ndarray, "episodes events"],
    unseen: int,
) -> Float[np.ndarray, "episodes states"]:
    """Posterior of the last state: predict, weigh by the event, normalise."""
    belief = np.broadcast_to(start @ np.linalg.matrix_power(step, unseen), (len(tokens), len(start)))
    for event in range(tokens.shape[1]):
        if event:
            belief = belief @ step
        belief = belief * emission.T[tokens[:, event]]
        belief = belief / belief.sum(axis=1, keepdims=True)
    return belief
