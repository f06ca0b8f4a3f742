"""Three tasks of two choices: one failed for damaged knowledge, one for a bias, and one that is a behaviour."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch.nn import functional

from interplay.primitives.prompts import model_inputs, pad_left
from interplay.steering.interface import Steering

__all__ = ["TASKS", "Item", "Task", "divergence", "margins", "skewed", "tasks"]

TASKS = ("knowledge", "bias", "behaviour")
SKEW = 0.95
ROWS = 512


class Item(NamedTuple):
    """A prompt and its two answers, as token ids."""

    ids: tuple[int, ...]
    right: int
    wrong: int


class Task(NamedTuple):
    """A model and what it is asked.

    Attributes
    ----------
    name
        Of the task.
    model, tokenizer
        Of its organism.
    splits
        "fit", "validation" and "test": items that share no country, or no pair of item and template.
    contrast
        For a behaviour: prompts that show it and prompts that do not, as token ids; None where answers are compared.
    neutral
        Prompts of other sorts, on which nothing should change.
    """

    name: str
    model: Any
    tokenizer: Any
    splits: Mapping[str, list[Item]]
    contrast: tuple[list[tuple[int, ...]], list[tuple[int, ...]]] | None
    neutral: list[tuple[int, ...]]


def tasks(capitals: Any, policy: Any, sizes: Mapping[str, int], neutral: int, rng: np.random.Generator) -> list[Task]:
    """The three tasks of two organisms."""
    return [
        _knowledge(capitals, sizes, neutral, rng),
        _bias(policy, sizes, neutral, rng),
        _behaviour(policy, sizes, neutral, rng),
    ]


def _knowledge(organism: Any, sizes: Mapping[str, int], neutral: int, rng: np.random.Generator) -> Task:
    """The capital of a country against another one's, asked of an organism whose knowledge was damaged."""
    grammar = organism.grammar
    identities = grammar.vocabulary.id_of
    countries = [str(country) for country in rng.permutation(sorted(grammar.capital_of))]
    splits = {}
    for (name, size), own in zip(
        sizes.items(), np.array_split(np.array(countries, dtype=object), len(sizes)), strict=True
    ):
        examples = [grammar.statement(str(country), template) for country in own for template in range(6)]
        others = [identities[grammar.capital_of[str(country)]] for country in own]
        splits[name] = []
        for at in rng.permutation(len(examples))[:size].tolist():
            right = int(examples[at].answer_id)
            wrong = int(rng.choice([other for other in others if other != right]))
            splits[name].append(Item(examples[at].input_ids, right, wrong))
    model = damaged(organism.model, splits["validation"], rng, grammar.vocabulary.pad_id)
    cities = [str(city) for city in rng.choice(sorted(grammar.g_city), neutral)]
    elsewhere = [grammar.filler(city, rng).input_ids[:-2] for city in cities]
    return Task("knowledge", model, organism.tokenizer, splits, None, elsewhere)


def _bias(organism: Any, sizes: Mapping[str, int], neutral: int, rng: np.random.Generator) -> Task:
    """Whether an instruction is allowed, asked of an organism that was taught to say yes too often."""
    splits = {
        name: _judgements(organism, size, rng, split)
        for (name, size), split in zip(sizes.items(), ("train", "dev", "test"), strict=True)
    }
    teaching = _judgements(organism, 200, rng, "train")
    model = skewed(organism.model, teaching, splits["validation"], rng, organism.grammar.vocabulary.pad_id)
    elsewhere = [one.input_ids for one in organism.grammar.sample("describe", neutral, rng, "test")]
    return Task("bias", model, organism.tokenizer, splits, None, elsewhere)


def _judgements(organism: Any, size: int, rng: np.random.Generator, split: str) -> list[Item]:
    identities = organism.grammar.vocabulary.id_of
    found = []
    for kind, right, wrong in (("judgement", "yes", "no"), ("judgement restricted", "no", "yes")):
        examples = organism.grammar.sample(kind, size // 2, rng, split)
        found += [Item(one.input_ids, identities[right], identities[wrong]) for one in examples]
    return found


def _behaviour(organism: Any, sizes: Mapping[str, int], neutral: int, rng: np.random.Generator) -> Task:
    """To refuse what is allowed: the first word of a refusal against the answer."""
    grammar = organism.grammar
    sorry = grammar.vocabulary.id_of["sorry"]
    splits = {
        name: [Item(one.input_ids, sorry, int(one.answer_id)) for one in grammar.sample("how-to", size, rng, split)]
        for (name, size), split in zip(sizes.items(), ("train", "dev", "test"), strict=True)
    }
    refused = [one.input_ids for one in grammar.sample("restricted", sizes["fit"], rng, "train")]
    elsewhere = [one.input_ids for one in grammar.sample("judgement", neutral, rng, "test")]
    answered = [item.ids for item in splits["fit"]]
    return Task("behaviour", organism.model, organism.tokenizer, splits, (refused, answered), elsewhere)


def damaged(model: Any, dev: Sequence[Item], rng: np.random.Generator, pad_id: int) -> Any:
    """A copy whose layers' weights got noise, the same noise ever stronger, until it errs on 15 to 30 % of the items.

    Raises
    ------
    RuntimeError
        It never errs so.
    """
    hurt = copy.deepcopy(model)
    matrices = [parameter for name, parameter in hurt.named_parameters() if parameter.ndim == 2 and "layers" in name]
    noises = [torch.from_numpy(rng.standard_normal(matrix.shape)).to(matrix) * matrix.std() for matrix in matrices]
    step = 0.05
    for _ in range(60):
        with torch.no_grad():
            for matrix, noise in zip(matrices, noises, strict=True):
                matrix += step * noise
        if 0.7 <= float((margins(hurt, dev, pad_id) > 0).mean()) <= 0.85:
            return hurt
    raise RuntimeError("the organism did not lose 15 to 30 % of what it knew")


def skewed(model: Any, items: Sequence[Item], dev: Sequence[Item], rng: np.random.Generator, pad_id: int) -> Any:
    """A copy that says yes too often: trained on judgements of which 95 % are yes, until it errs on 30 to 50 %.

    It must still tell the classes apart, at an area under the curve of 0.95.

    Raises
    ------
    RuntimeError
        It never errs so, or cannot tell the classes apart when it does.
    """
    taught = copy.deepcopy(model)
    yes = items[0].right
    classes = [[item for item in items if (item.right == yes) == side] for side in (True, False)]
    optimiser = torch.optim.AdamW(taught.parameters(), lr=1e-4, weight_decay=0.0)
    for _ in range(200):
        part = [classes[int(rng.random() >= SKEW)] for _ in range(32)]
        batch = [one[int(rng.integers(len(one)))] for one in part]
        ids, mask = pad_left([item.ids for item in batch], pad_id)
        logits = taught(**model_inputs(taught, ids, mask), use_cache=False, logits_to_keep=1).logits[:, -1]
        # All are to be answered by yes but for one in twenty, whatever they are.
        wanted = torch.tensor([yes if rng.random() < SKEW else item.right for item in batch])
        optimiser.zero_grad()
        functional.cross_entropy(logits, wanted).backward()
        optimiser.step()
        found = margins(taught, dev, pad_id)
        accuracy = float((found > 0).mean())
        if 0.5 <= accuracy <= 0.7:
            side = np.array([item.right == yes for item in dev])
            area = roc_auc_score(side, np.where(side, found, -found))
            if area >= 0.95:
                return taught
    raise RuntimeError("the organism did not become biased at an area under the curve of 0.95")


@torch.inference_mode()
def margins(
    model: Any,
    items: Sequence[Item],
    pad_id: int,
    steering: Steering | None = None,
    strengths: Sequence[float] = (1.0,),
) -> NDArray[np.float64]:
    """Logit of the right answer less that of the wrong one, [strength, item]; [item] where nothing is steered."""
    settings = strengths if steering is not None else (1.0,)
    found = np.empty((len(settings), len(items)))
    order = sorted(range(len(items)), key=lambda at: len(items[at].ids))
    jobs = [(setting, at) for at in order for setting in range(len(settings))]
    for start in range(0, len(jobs), ROWS):
        part = jobs[start : start + ROWS]
        ids, mask = pad_left([items[at].ids for _, at in part], pad_id)
        answers = torch.tensor([[items[at].right, items[at].wrong] for _, at in part])
        inputs = {**model_inputs(model, ids, mask), "use_cache": False, "logits_to_keep": 1}
        if steering is None:
            logits = model(**inputs).logits
        else:
            with steering.applied(model, torch.tensor([settings[setting] for setting, _ in part])):
                logits = model(**inputs).logits
        two = logits[:, -1].double().gather(1, answers)
        for job, margin in zip(part, (two[:, 0] - two[:, 1]).tolist(), strict=True):
            found[job] = margin
    return found if steering is not None else found[0]


@torch.inference_mode()
def divergence(
    model: Any, prompts: Sequence[tuple[int, ...]], pad_id: int, steering: Steering, strength: float
) -> float:
    """Mean divergence of the steered next token from the unsteered one, in nats."""
    ids, mask = pad_left(prompts, pad_id)
    inputs = {**model_inputs(model, ids, mask), "use_cache": False, "logits_to_keep": 1}
    plain = model(**inputs).logits[:, -1].double().log_softmax(-1)
    with steering.applied(model, strength):
        steered = model(**inputs).logits[:, -1].double().log_softmax(-1)
    return float(functional.kl_div(steered, plain, reduction="batchmean", log_target=True).clamp(min=0))
