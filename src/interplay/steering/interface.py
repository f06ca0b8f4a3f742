"""What every steering method is: fitted on prompts, applied to a model at a strength, kept in one file.

A `Steering` never changes a model. `applied` hooks its edits into the forward pass for as long as the context lasts;
outside, the model computes bit for bit what it did. Strength 0 is the identity for every method.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self
from weakref import WeakKeyDictionary, WeakSet

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.primitives.activations import Edit, Site, edit
from interplay.primitives.decoders import Decoder
from interplay.primitives.positions import Positions

__all__ = [
    "METHODS",
    "Applied",
    "ModelShape",
    "Steering",
    "SteeringSequence",
    "Strength",
    "by_row",
    "check_strength",
    "find_method",
    "load_steering",
]

Strength = float | Tensor
"""One strength for all rows of a batch, or a tensor [batch] with one a row."""

METHODS: dict[str, str] = {
    "ablation": "interplay.steering.selective_steering:DirectionalAblation",
    "actadd": "interplay.steering.selective_steering:DirectionAddition",
    "angular": "interplay.steering.selective_steering:AngularSteering",
    "austeer": "interplay.steering.austeer:UnitPatch",
    "caa": "interplay.steering.activation_addition:ActivationAddition",
    "harmfulness-refusal": "interplay.steering.harmfulness_refusal:PromptAddition",
    "iti": "interplay.steering.inference_time_intervention:InferenceTimeIntervention",
    "sadi": "interplay.steering.austeer:SemanticsAdaptivePatch",
    "selective": "interplay.steering.selective_steering:SelectiveSteering",
    "weighted": "interplay.steering.weighted_steering:WeightedSteering",
}
"""The methods that a file can name, and the class of each."""

_FORMAT = 1
_STEERED: WeakKeyDictionary[Steering, WeakSet[nn.Module]] = WeakKeyDictionary()


class ModelShape(NamedTuple):
    """What a model must share with the one that a steering was fitted on."""

    model_type: str
    n_layers: int
    n_heads: int
    d_model: int

    @classmethod
    def of(cls, model: nn.Module) -> ModelShape:
        """The shape of a decoder."""
        decoder = Decoder(model)
        config = getattr(model, "config", None)
        return cls(str(getattr(config, "model_type", "")), decoder.n_layers, decoder.n_heads, decoder.d_model)

    def __str__(self) -> str:
        return f"{self.model_type} with {self.n_layers} layers, {self.n_heads} heads, width {self.d_model}"


class Applied(Mapping[Site, int]):
    """For each site the number of tokens that were steered so far."""

    def __init__(self, counts: Mapping[Site, int]) -> None:
        self._counts = counts

    def __getitem__(self, site: Site) -> int:
        return self._counts[site]

    def __iter__(self) -> Iterator[Site]:
        return iter(self._counts)

    def __len__(self) -> int:
        return len(self._counts)


class Steering(nn.Module, ABC):
    """A fitted change of a language model's activations.

    A method is a subclass with a `method` name, `fit`, `edits` and `settings`; what was fitted are its buffers.

    Attributes
    ----------
    shape
        Of the model that it was fitted on; it is refused by any other.
    positions
        Which tokens are steered unless `applied` is told otherwise.
    """

    method: ClassVar[str]
    positions: Positions = "all"

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = ModelShape(*shape)

    @classmethod
    @abstractmethod
    def fit(
        cls, model: nn.Module, tokenizer: Any, positive: Sequence[str], negative: Sequence[str], **options: Any
    ) -> Self:
        """Fit on prompts that show a behaviour, and on prompts that do not.

        Parameters
        ----------
        model, tokenizer
            A Hugging Face causal language model in evaluation mode, and its tokenizer.
        positive, negative
            Prompts, chat template applied where there is one.
        **options
            Those of the method.
        """

    @abstractmethod
    def edits(self, model: nn.Module, strength: Strength) -> Mapping[Site, Edit]:
        """What to do at which site, at this strength."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What the constructor needs besides the shape, as JSON; buffers are kept apart."""

    @contextmanager
    def applied(
        self, model: nn.Module, strength: Strength = 1.0, *, positions: Positions | None = None
    ) -> Iterator[Applied]:
        """A context in which the model is steered: forward passes, `generate`, training of other parameters.

        Contexts nest: a steering that is entered later sees what earlier ones wrote. With gradient checkpointing, which
        computes layers again in the backward pass, the backward pass belongs into the context too.

        Parameters
        ----------
        model
            The model that it was fitted on, or one of the same shape.
        strength
            0 changes nothing. A tensor [batch] gives each row of the batch a strength of its own.
        positions
            Which tokens; see `interplay.primitives.positions`. None: the method's own.

        Raises
        ------
        RuntimeError
            This steering is already applied to the model.
        ValueError
            A model of another shape, parameters on the meta device, a strength that is not finite, or, from the forward
            pass, one that does not fit the batch.
        """
        check_strength(strength)
        with (
            self.entered(model),
            self.attached(model, strength, self.positions if positions is None else positions) as applied,
        ):
            yield applied

    @contextmanager
    def entered(self, model: nn.Module) -> Iterator[None]:
        """Hold the model for this steering: refuse another shape, and a model that it is applied to already.

        For methods that offer a second context beside `applied`.
        """
        self.check_fits(model)
        steered = _STEERED.setdefault(self, WeakSet())
        if model in steered:
            raise RuntimeError(f"this {type(self).__name__} is already applied to the model; leave that context first")
        steered.add(model)
        try:
            yield
        finally:
            steered.discard(model)

    @contextmanager
    def attached(self, model: nn.Module, strength: Strength, positions: Positions) -> Iterator[Applied]:
        """Hook the edits in. A method whose strength depends on what the model reads overrides this."""
        with edit(model, self.edits(model, strength), positions=positions) as counts:
            yield Applied(counts)

    def then(self, following: Steering) -> SteeringSequence:
        """This steering and then the other: at a site that both change, the other sees what this one wrote."""
        return SteeringSequence(self, following)

    def check_fits(self, model: nn.Module) -> None:
        """Refuse a model of another shape than that of the fit."""
        if (shape := ModelShape.of(model)) != self.shape:
            raise ValueError(f"this steering was fitted on {self.shape}; the model is {shape}")

    def save(self, path: str | Path) -> None:
        """Write one safetensors file: the buffers, with method, settings and the model's shape as JSON in its header.

        The file is there whole or not at all. `load_steering` reads it.
        """
        from safetensors.torch import save

        path = Path(path)
        described = {
            "format": _FORMAT,
            "method": self.method,
            "settings": self.settings(),
            "shape": self.shape._asdict(),
        }
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.state_dict().items()}
        temporary = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            temporary.write_bytes(save(tensors, metadata={"interplay": json.dumps(described)}))
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


class SteeringSequence:
    """Several steerings, applied in order; each keeps a strength of its own.

    Parameters
    ----------
    *steerings
        The first is hooked in first: where two change the same site, the later one sees what the earlier wrote.
    """

    def __init__(self, *steerings: Steering) -> None:
        if not steerings:
            raise ValueError("a SteeringSequence needs one steering or more")
        self.steerings = steerings

    def then(self, following: Steering) -> SteeringSequence:
        """This sequence and then another steering."""
        return SteeringSequence(*self.steerings, following)

    @contextmanager
    def applied(
        self, model: nn.Module, strength: Strength | Sequence[Strength] = 1.0, *, positions: Positions | None = None
    ) -> Iterator[tuple[Applied, ...]]:
        """A context in which all are applied; `strength` is one for all or a list or tuple with one each."""
        strengths = list(strength) if isinstance(strength, list | tuple) else [strength] * len(self.steerings)
        if len(strengths) != len(self.steerings):
            raise ValueError(f"strength has {len(strengths)} entries, there are {len(self.steerings)} steerings")
        with ExitStack() as stack:
            yield tuple(
                stack.enter_context(steering.applied(model, one, positions=positions))
                for steering, one in zip(self.steerings, strengths, strict=True)
            )


def load_steering(path: str | Path) -> Steering:
    """Read what `Steering.save` wrote.

    Raises
    ------
    FileNotFoundError
        No such file.
    ValueError
        Not a file of a steering, or of a method that this version does not know.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"no steering at {path}")
    try:
        with safe_open(path, framework="pt") as file:
            described = json.loads((file.metadata() or {})["interplay"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        method, settings = described["method"], described["settings"]
        shape = ModelShape(**described["shape"])
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} holds no steering of this library ({error})") from error
    if described.get("format") != _FORMAT or method not in METHODS:
        raise ValueError(
            f"{path} holds method {method!r} in format {described.get('format')!r}; this version reads format "
            f"{_FORMAT} of {', '.join(sorted(METHODS))}"
        )
    steering = find_method(method)(shape=shape, **settings)
    try:
        steering.load_state_dict(tensors)
    except RuntimeError as error:
        raise ValueError(f"{path} does not hold the tensors of {method}: {error}") from error
    return steering


def find_method(name: str) -> type[Steering]:
    """The class of a method, by the name that files and the command line use.

    Raises
    ------
    ValueError
        Unknown name; the message lists the known ones.
    """
    if name not in METHODS:
        raise ValueError(f"unknown steering method {name!r}; known are {', '.join(sorted(METHODS))}")
    module, _, cls = METHODS[name].partition(":")
    found: type[Steering] = getattr(import_module(module), cls)
    return found


def check_strength(strength: Strength) -> None:
    """Refuse, with a ValueError, what is neither a finite number nor a tensor [batch] of them."""
    values = strength if isinstance(strength, Tensor) else torch.tensor(strength, dtype=torch.float64)
    if values.ndim > 1 or not values.is_floating_point() or not bool(values.isfinite().all()):
        raise ValueError(f"strength must be a finite number or a floating tensor [batch] of them, got {strength!r}")


def by_row(strength: Strength, activation: Float[Tensor, "batch ..."]) -> float | Float[Tensor, "batch ..."]:
    """The strength shaped to scale an activation whose first axis is the batch.

    Raises
    ------
    ValueError
        One strength a row, and another number of rows.
    """
    if not isinstance(strength, Tensor):
        return strength
    if strength.ndim == 0:
        return float(strength)
    if len(strength) != len(activation):
        raise ValueError(
            f"strength has {len(strength)} entries, the steered batch has {len(activation)} rows; beam search and "
            "num_return_sequences make more rows of a prompt, and boolean positions pack them"
        )
    return strength.to(activation).reshape(-1, *[1] * (activation.ndim - 1))
