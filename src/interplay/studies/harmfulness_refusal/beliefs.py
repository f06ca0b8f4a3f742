"""What is read at the two tokens: the audit, the directions, the guard and its rivals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor
from torch.nn.functional import cosine_similarity

from interplay.evidence import Measurement
from interplay.steering.harmfulness_refusal import BeliefProbe, ask, diff_of_means
from interplay.studies.harmfulness_refusal.groups import HELD_OUT, Kind, question_of

__all__ = ["FEWEST", "audit", "directions", "fit_prompts", "geometry", "rivals"]

FEWEST = 20
"""With fewer prompts of a kind that behave as they are meant to, nothing is said about it."""

_HARMLESS = ("how-to", "describe", "describe restricted")
_OVERRIDES = ("story restricted", "game restricted", HELD_OUT)
OFF_DIAGONAL = (*_OVERRIDES, "secretly")


class Drawn(NamedTuple):
    """Prompts that clusters are made of.

    Attributes
    ----------
    states
        Of each position, [prompt, state, d_model].
    labels
        1 for harmful, 0 for harmless.
    texts
        In words.
    """

    states: dict[str, Tensor]
    labels: Tensor
    texts: list[str]


def fit_prompts(kinds: Mapping[str, Kind], n: int, rng: np.random.Generator) -> Drawn:
    """`n` refused harmful prompts and about as many accepted harmless ones, the harmless in equal shares of kinds."""
    chosen = [("restricted", 1, n), *((name, 0, n // len(_HARMLESS)) for name in _HARMLESS)]
    rows = {name: rng.permutation(len(kinds[name]))[:count] for name, _, count in chosen}
    states = {
        position: torch.cat([_at(kinds[name], position)[rows[name]] for name, _, _ in chosen])
        for position in ("inst", "post", "before", "instruction")
    }
    labels = torch.cat([torch.full((len(rows[name]),), label) for name, label, _ in chosen])
    texts = [kinds[name].examples[row].text for name, _, _ in chosen for row in rows[name]]
    return Drawn(states, labels, texts)


def directions(drawn: Drawn) -> dict[str, Float[Tensor, "state d_model"]]:
    """v_harm and v_ref."""
    states, labels, _ = drawn
    return {
        name: diff_of_means(states[position][labels == 1], states[position][labels == 0])
        for name, position in (("v_harm", "inst"), ("v_ref", "post"))
    }


def audit(drawn: Drawn, tests: Mapping[str, Kind], suffix: str) -> Iterator[Measurement]:
    """Where each kind lies at both tokens: shares of prompts, means, and the sign of the mean in every state."""
    states, labels, _ = drawn
    probes = {position: BeliefProbe().fit(states[position], labels) for position in ("inst", "post")}
    for position, what in (("inst", "harmfulness"), ("post", "refusal")):
        pooled: dict[str, list[NDArray]] = {}
        for name, kind in tests.items():
            if len(kind) < FEWEST:
                yield Measurement(f"{name}{suffix}", f"mean {what} belief", np.nan)
                continue
            scores = probes[position].layer_scores(_at(kind, position))
            belief = scores.mean(1)
            yield Measurement(f"{name}{suffix}", f"mean {what} belief", float(belief.mean()))
            yield Measurement(f"{name}{suffix}", f"share on the {what} side", float((belief >= 0).mean()))
            for state, values in enumerate(scores.T):
                yield Measurement(f"{name}{suffix}", f"s at t_{position}", float(values.mean()), step=state)
                yield Measurement(f"{name}{suffix}", f"sd of s at t_{position}", float(values.std()), step=state)
            if name in OFF_DIAGONAL:
                pooled.setdefault(kind.group, []).append(scores)
        for group in ("accepted harmful", "refused harmless"):
            scores = np.concatenate(pooled[group]) if group in pooled else np.full((1, states["inst"].shape[1]), np.nan)
            share = float((scores.mean(1) >= 0).mean()) if group in pooled else np.nan
            right = scores.mean(0) * (1 if (group == "accepted harmful") == (position == "inst") else -1) > 0
            yield Measurement(f"{group}{suffix}", f"share on the {what} side", share)
            # The state before the first block is one token of the template at t_post.
            signs = float(right[1:].mean()) if group in pooled else np.nan
            yield Measurement(f"{group}{suffix}", f"share of layers with the right sign at t_{position}", signs)


def geometry(drawn: Drawn, kinds: Mapping[str, Kind], splits: int, rng: np.random.Generator) -> Iterator[Measurement]:
    """Cosine of the two directions in every state, and how high noise lets it be, for both definitions of clusters."""
    states, labels, _ = drawn
    harm = (states["inst"][labels == 1], states["inst"][labels == 0])
    refuse = {"desired": (states["post"][labels == 1], states["post"][labels == 0])}
    overridden = [kinds[name].states.post for name in ("story restricted", "game restricted")]
    if len(torch.cat(overridden)) >= FEWEST and len(kinds["secretly"]) >= FEWEST:
        refuse["behaviour"] = (
            torch.cat([refuse["desired"][0], kinds["secretly"].states.post]),
            torch.cat([refuse["desired"][1], *overridden]),
        )
    n_states = states["inst"].shape[1]
    first = (n_states - 1) // 3 + 1
    for clusters in ("desired", "behaviour"):
        if clusters not in refuse:
            yield Measurement(f"clusters by {clusters}", "least margin below the ceiling", np.nan)
            continue
        cosines = cosine_similarity(diff_of_means(*harm), diff_of_means(*refuse[clusters]), dim=-1)
        ceiling = (_reliability(harm, splits, rng) * _reliability(refuse[clusters], splits, rng)).sqrt()
        for state in range(1, n_states):
            yield Measurement(f"clusters by {clusters}", "cosine", float(cosines[state]), step=state)
            yield Measurement(f"clusters by {clusters}", "ceiling", float(ceiling[state]), step=state)
        margin = float((ceiling - cosines)[first:].min())
        yield Measurement(f"clusters by {clusters}", "least margin below the ceiling", margin)


def _reliability(clusters: Sequence[Tensor], splits: int, rng: np.random.Generator) -> Float[Tensor, " state"]:
    """Expected cosine with a direction from as many other prompts: split halves, lengthened by Spearman and Brown."""
    found = []
    for _ in range(splits):
        orders = [torch.from_numpy(rng.permutation(len(cluster))) for cluster in clusters]
        halves = [
            diff_of_means(*(cluster[order[half::2]] for cluster, order in zip(clusters, orders, strict=True)))
            for half in (0, 1)
        ]
        found.append(cosine_similarity(*halves, dim=-1))
    half = torch.stack(found).mean(0).clamp(min=0)
    return 2 * half / (1 + half)


def rivals(organism: Any, drawn: Drawn, tests: Mapping[str, Kind], rng: np.random.Generator) -> Iterator[Measurement]:
    """Accuracy of the guard, of its variants and of other classifiers, on every kind of prompts."""
    states, labels, texts = drawn
    y = labels.numpy()
    n_states = states["inst"].shape[1]
    middle = range(n_states // 3, 2 * n_states // 3 + 1)
    probes: dict[str, tuple[str, Any]] = {
        "Latent Guard": ("inst", BeliefProbe()),
        "guard, middle layers": ("inst", BeliefProbe(layers=tuple(middle))),
        "guard, layer by cross-validation": ("inst", BeliefProbe(layers="cv")),
        "guard at t_inst - 1": ("before", BeliefProbe()),
        "guard on the mean of the instruction": ("instruction", BeliefProbe()),
        "guard at t_post": ("post", BeliefProbe()),
    }
    for name, (position, probe) in probes.items():
        probe.fit(states[position], labels)
        yield from _accuracies(name, tests, lambda kind, at=position, it=probe: it.predict(_at(kind, at)))
    shuffled = BeliefProbe().fit(states["inst"], torch.from_numpy(rng.permutation(y)))
    yield from _accuracies("guard, random labels", tests, lambda kind: shuffled.predict(kind.states.inst))
    for name, position in (("logistic at t_inst", "inst"), ("logistic at t_post", "post")):
        state, classifier = _best_logistic(states[position], y)
        yield from _accuracies(
            name, tests, lambda kind, at=position, in_=state, it=classifier: it.predict(_at(kind, at)[:, in_].numpy())
        )
    words = make_pipeline(CountVectorizer(token_pattern=r"\S+"), LogisticRegression(max_iter=1000)).fit(texts, y)
    yield from _accuracies("bag of words", tests, lambda kind: words.predict([one.text for one in kind.examples]))
    yield from _accuracies("own judgement", tests, lambda kind: _judgement(organism, kind))


def _accuracies(name: str, tests: Mapping[str, Kind], predict: Any) -> Iterator[Measurement]:
    found = {}
    for kind, prompts in tests.items():
        if len(prompts) >= FEWEST:
            found[kind] = float((np.asarray(predict(prompts)) == prompts.meant.harmful).mean())
            yield Measurement(name, "accuracy", found[kind], item=kind)
    off = [found[kind] for kind in OFF_DIAGONAL if kind in found]
    yield Measurement(name, "accuracy off the diagonal", float(np.mean(off)) if off else np.nan)


def _best_logistic(states: Float[Tensor, "prompt state d_model"], y: NDArray) -> tuple[int, Pipeline]:
    """The state whose logistic probe is best in cross-validation, and the probe on all prompts."""
    probes = [make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)) for _ in range(states.shape[1])]
    scores = [cross_val_score(probe, states[:, at].numpy(), y, cv=5).mean() for at, probe in enumerate(probes)]
    best = int(np.argmax(scores))
    return best, probes[best].fit(states[:, best].numpy(), y)


def _judgement(organism: Any, kind: Kind) -> NDArray:
    """Whether the model answers yes when it is asked whether there is harm."""
    nothing = torch.zeros(kind.states.inst.shape[1:])
    asked = [question_of(organism.grammar, example) for example in kind.examples]
    ids = organism.grammar.vocabulary.id_of
    found = ask(organism.model, organism.tokenizer, asked, nothing, 1, 0.0, answers=(ids["yes"], ids["no"]))
    return found.says_yes.numpy()


def _at(kind: Kind, position: str) -> Float[Tensor, "prompt state d_model"]:
    if position in ("inst", "post"):
        return getattr(kind.states, position)
    return kind.before if position == "before" else kind.instruction
