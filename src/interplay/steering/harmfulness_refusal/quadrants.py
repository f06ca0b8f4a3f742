"""The map of belief against behaviour: does the model find a prompt harmful, and will it refuse?"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple, Self, get_args

import numpy as np
import pandas as pd
import torch

from interplay.steering.harmfulness_refusal.belief import BeliefProbe, Layers
from interplay.steering.harmfulness_refusal.states import States

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["GROUPS", "Group", "HarmRefuseMap"]

Clusters = Literal["desired", "behaviour"]

FEWEST_OFF_DIAGONAL = 20
"""Prompts of each group that does not do as desired, for clusters by behaviour."""


class Group(NamedTuple):
    """What prompts of a group are and what the model does with them."""

    harmful: bool
    refused: bool


GROUPS: Mapping[str, Group] = MappingProxyType(
    {
        "refused harmful": Group(True, True),
        "accepted harmless": Group(False, False),
        "accepted harmful": Group(True, False),
        "refused harmless": Group(False, True),
    }
)
"""The four groups; the first two are what is desired."""

_COLOURS = ("#D55E00", "#0072B2", "#E69F00", "#56B4E9")


class HarmRefuseMap:
    """Delta_harmful at t_inst and Delta_refuse at t_post of prompts of four groups.

    Parameters
    ----------
    clusters
        "desired": both beliefs are measured against refused harmful and accepted harmless prompts. "behaviour": the
        belief to refuse is measured against all refused and all accepted ones.
    layers
        Those of `BeliefProbe`.

    Attributes
    ----------
    harmful_, refuse_ : BeliefProbe
        The probes at t_inst and t_post.
    frame : DataFrame
        One row a prompt: group, harmful, refused, delta_harmful, delta_refuse. A prompt that belongs to a cluster is
        measured against the centroid without it.
    """

    def __init__(self, clusters: Clusters = "desired", layers: Layers = "all") -> None:
        if clusters not in get_args(Clusters):
            raise ValueError(f"clusters must be one of {', '.join(get_args(Clusters))}, got {clusters!r}")
        self.clusters: Clusters = clusters
        self.layers = layers

    def fit(self, groups: Mapping[str, States]) -> Self:
        """Fit the clusters and place every prompt.

        Parameters
        ----------
        groups
            Hidden states by the name of the group, one of `GROUPS`; refused harmful and accepted harmless must be
            there.

        Raises
        ------
        ValueError
            An unknown group, one of the clusters missing, or, by behaviour, fewer than 20 prompts of a group that does
            not do as desired; and what `BeliefProbe.fit` refuses.
        """
        if unknown := groups.keys() - GROUPS.keys():
            raise ValueError(f"unknown groups {sorted(unknown)}; allowed are {', '.join(GROUPS)}")
        for name, group in GROUPS.items():
            desired = group.harmful == group.refused
            there = len(groups[name]) if name in groups else 0
            if there < (1 if desired else FEWEST_OFF_DIAGONAL) and (desired or self.clusters == "behaviour"):
                raise ValueError(
                    f"{there} prompts of {name!r}: clusters={self.clusters!r} needs "
                    f"{'some' if desired else f'{FEWEST_OFF_DIAGONAL} or more'}"
                )
        names = [name for name in GROUPS if name in groups]
        states = States.joined([groups[name] for name in names])
        frame = pd.DataFrame(
            [(name, *GROUPS[name]) for name in names for _ in range(len(groups[name]))],
            columns=["group", "harmful", "refused"],
        )
        desired = (frame["harmful"] == frame["refused"]).to_numpy()
        in_refuse = desired if self.clusters == "desired" else np.ones(len(frame), dtype=bool)
        self.harmful_ = BeliefProbe(layers=self.layers)
        self.refuse_ = BeliefProbe(layers=self.layers)
        for column, probe, read, member, label in (
            ("delta_harmful", self.harmful_, states.inst, desired, "harmful"),
            ("delta_refuse", self.refuse_, states.post, in_refuse, "refused"),
        ):
            labels = torch.tensor(frame[label].to_numpy(dtype=np.int64))
            fitted = torch.tensor(member)
            probe.fit(read[fitted], labels[fitted])
            scores = np.empty(len(frame))
            scores[member] = probe.left_out_scores(read[fitted], labels[fitted])
            if not member.all():
                scores[~member] = probe.decision_function(read[~fitted])
            frame[column] = scores
        self.frame = frame
        return self

    def place(self, states: States) -> pd.DataFrame:
        """delta_harmful and delta_refuse of further prompts, one row each."""
        return pd.DataFrame(
            {
                "delta_harmful": self.harmful_.decision_function(states.inst),
                "delta_refuse": self.refuse_.decision_function(states.post),
            }
        )

    def plot(self, axes: Axes | None = None) -> Axes:
        """Scatter of the frame: belief to the right is harmful, above it is to refuse."""
        if axes is None:
            from matplotlib.figure import Figure

            axes = Figure(figsize=(5, 4.5), layout="constrained").subplots()
        for (name, rows), colour in zip(self.frame.groupby("group", sort=False), _COLOURS, strict=False):
            axes.scatter(rows["delta_harmful"], rows["delta_refuse"], s=14, alpha=0.7, color=colour, label=str(name))
        for line in (axes.axhline, axes.axvline):
            line(0.0, color="0.6", linewidth=0.8, zorder=0)
        axes.set_xlabel("belief that it is harmful, at $t_{inst}$")
        axes.set_ylabel("belief to refuse, at $t_{post}$")
        axes.legend(frameon=False, fontsize="small")
        return axes
