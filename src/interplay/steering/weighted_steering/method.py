"""A direction added to many layers, as much as the controller says for each prompt."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, Self, get_args

import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.primitives.activations import Edit, Site, edit
from interplay.primitives.positions import Positions
from interplay.steering.collection import collect_activations
from interplay.steering.comparison import compare, is_refusal
from interplay.steering.interface import ModelShape, Steering, Strength
from interplay.steering.weighted_steering.controller import Controller, Gate
from interplay.steering.weighted_steering.directions import unit
from interplay.steering.weighted_steering.reading import Reading, Schedule, Traced
from interplay.steering.weighted_steering.training import FrozenModel, train_on_states, train_through_model

__all__ = ["Train", "WeightedSteering"]

Train = Literal["probe", "end-to-end"]
Tokens = Literal["last", "prompt-end"]
Units = Literal["rel", "abs"]


class WeightedSteering(Steering):
    """Add a direction with strength s * w_l * alpha at layer l; s and w are the controller's for each prompt.

    The strength of `applied` multiplies alpha: 0 is the unsteered model, 1 what was fitted or calibrated.

    Parameters
    ----------
    shape
        Of the model.
    input_layers
        After which layers the controller reads; negative ones count from the end.
    steered_layers
        After which layers the direction is added; "all", or with schedule "prefix" all that come after the inputs.
    alpha
        What the strength is multiplied with; positive.
    alpha_units
        "rel": alpha is in units of the median norm that prompts left alone have after each layer. "abs": as it is.
    schedule
        When the controller reads; see `Schedule`.
    gate, threshold, hidden
        Those of `Controller`.
    refresh
        Of schedule "previous-step": after how many tokens the controller reads again.
    positions
        "last": the prompt's last token and all that is generated. "prompt-end": the prompt's last token alone.

    Attributes
    ----------
    controller : Controller
        The controller, float32.
    directions : Tensor
        One unit vector for each steered layer, [layer, d_model], float32; a buffer.
    norms : Tensor
        Median norm after each steered layer, [layer], or ones where alpha is absolute; a buffer.
    history_ : list of float
        Mean training loss of every epoch or step; of a fitted steering, not kept in its file.
    calibration_ : DataFrame or None
        What `calibrate` measured; not kept in the file.

    Raises
    ------
    ValueError
        Layers that the model lacks, an alpha that is not positive, or a schedule by which no layer can be steered.

    Warns
    -----
    UserWarning
        By schedule "same-pass", layers that come before the last input layer stay unsteered.
    """

    method = "weighted"
    directions: Float[Tensor, "layer d_model"]
    norms: Float[Tensor, " layer"]

    def __init__(
        self,
        shape: ModelShape,
        input_layers: Sequence[int] = (-4, -3, -2, -1),
        steered_layers: Sequence[int] | Literal["all"] = "all",
        alpha: float = 1.0,
        alpha_units: Units = "rel",
        schedule: Schedule = "two-pass",
        gate: Gate = "sigmoid",
        threshold: float = 0.5,
        hidden: int = 1024,
        refresh: int = 1,
        positions: Tokens = "last",
    ) -> None:
        super().__init__(shape)
        if not alpha > 0 or alpha == float("inf"):
            raise ValueError(f"alpha must be positive and finite, got {alpha}; a negative strength steers away")
        if alpha_units not in get_args(Units):
            raise ValueError(f"alpha_units must be one of {', '.join(get_args(Units))}; got {alpha_units!r}")
        if schedule not in get_args(Schedule):
            raise ValueError(f"schedule must be one of {', '.join(get_args(Schedule))}; got {schedule!r}")
        if refresh < 1:
            raise ValueError(f"refresh must be one token or more, got {refresh}")
        if positions not in get_args(Tokens):
            raise ValueError(f"positions must be one of {', '.join(get_args(Tokens))}; got {positions!r}")
        self.positions = positions
        self.input_layers = self._layers(input_layers, "input_layers")
        last = self.input_layers[-1]
        if steered_layers == "all":
            steered_layers = range(last + 1 if schedule == "prefix" else 0, self.shape.n_layers)
        self.steered_layers = self._layers(steered_layers, "steered_layers")
        self.alpha, self.alpha_units, self.schedule, self.refresh = float(alpha), alpha_units, schedule, refresh
        self._check_reachable(last)
        width = len(self.input_layers) * self.shape.d_model
        self.controller = Controller(width, len(self.steered_layers), hidden, gate, threshold)
        self.register_buffer("directions", torch.zeros(len(self.steered_layers), self.shape.d_model))
        self.register_buffer("norms", torch.ones(len(self.steered_layers)))
        self.history_: list[float] = []
        self.calibration_: pd.DataFrame | None = None

    @classmethod
    def fit(
        cls,
        model: nn.Module,
        tokenizer: Any,
        positive: Sequence[str],
        negative: Sequence[str],
        *,
        direction: Tensor | None = None,
        train: Train = "probe",
        opener: str | None = None,
        seed: int = 0,
        epochs: int = 10,
        steps: int = 200,
        batch: int | None = None,
        learning_rate: float | None = None,
        tokens_per_batch: int = 2048,
        **settings: Any,
    ) -> Self:
        """Train the controller to tell prompts that are to be steered from those that are to be left alone.

        Build both lists from the same templates: a controller takes a difference in format where there is one.

        Parameters
        ----------
        model, tokenizer
            A Hugging Face causal language model in evaluation mode, and its tokenizer.
        positive, negative
            Prompts to be steered, and to be left alone, chat template with generation prompt applied.
        direction
            What is added, [d_model] or [layer, d_model] with one for each layer of the model or each steered one; see
            `refusal_direction`. None: mean difference of the two lists' residual streams after each steered layer.
        train
            "probe": the official loss on cached states; the model is run once. It teaches s and holds all w near 0.5.
            "end-to-end": through the frozen model, which is what makes w matter; needs `opener`.
        opener
            For "end-to-end": what a steered prompt is to be answered with.
        seed
            Draws the controller's first weights and the batches.
        epochs, steps
            Of "probe" and of "end-to-end".
        batch, learning_rate
            None: 8 and 5e-5 for "probe", as published, 16 and 1e-3 for "end-to-end".
        tokens_per_batch
            Largest number of positions of a forward pass that reads states.
        **settings
            Those of the constructor.

        Raises
        ------
        ValueError
            No prompts, prompts whose states are all the same or not finite, directions that do not fit.
        """
        if train not in get_args(Train):
            raise ValueError(f"train must be one of {', '.join(get_args(Train))}; got {train!r}")
        if (train == "end-to-end") != (opener is not None):
            raise ValueError("an opener belongs to train='end-to-end', which needs one")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            steering = cls(ModelShape.of(model), **settings)
        layers = sorted({*steering.input_layers, *steering.steered_layers})
        sites = [Site("residual", layer) for layer in layers]
        states = [
            collect_activations(model, tokenizer, prompts, sites, tokens_per_batch=tokens_per_batch)
            for prompts in (positive, negative)
        ]
        x = [torch.cat([part[Site("residual", layer)] for layer in steering.input_layers], 1) for part in states]
        if bool((torch.cat(x) == x[0][0]).all()):
            raise ValueError("all prompts leave the same states at the input layers: there is nothing to tell apart")
        steered = [
            torch.stack([part[Site("residual", layer)] for layer in steering.steered_layers], 1) for part in states
        ]
        if direction is None:
            direction = steered[0].mean(0) - steered[1].mean(0)
        steering.directions = steering._directions(direction)
        if steering.alpha_units == "rel":
            steering.norms = steered[1].norm(dim=-1).median(0).values.to(steering.norms)
        generator = torch.Generator().manual_seed(seed)
        controller = steering.controller.to(x[0].device)
        if opener is None:
            steering.history_ = train_on_states(
                controller, x[0], x[1], generator, epochs, batch or 8, learning_rate or 5e-5
            )
        else:
            frozen = FrozenModel(model, tokenizer, steering, positive, negative, x, opener)
            steering.history_ = train_through_model(frozen, generator, steps, batch or 16, learning_rate or 1e-3)
        steering.controller = controller.cpu()
        return steering

    @classmethod
    def with_controller(
        cls,
        model: nn.Module,
        controller: Controller,
        direction: Float[Tensor, "*layer d_model"],
        norms: Float[Tensor, " layer"] | None = None,
        **settings: Any,
    ) -> Self:
        """A steering of parts that are there already.

        Parameters
        ----------
        model
            A Hugging Face decoder.
        controller
            Shared, not copied.
        direction
            As in `fit`.
        norms
            Of each steered layer; needed where alpha is relative.
        **settings
            Those of the constructor but gate, threshold and hidden, which are the controller's.

        Raises
        ------
        ValueError
            A controller for other layers or another width, or norms that are missing or do not fit.
        """
        steering = cls(ModelShape.of(model), **settings)
        own, count = steering.controller, len(steering.input_layers)
        if (controller.in_dim, controller.n_layers) != (own.in_dim, own.n_layers):
            raise ValueError(
                f"{count} input layers of width {steering.shape.d_model} and {own.n_layers} steered layers need a "
                f"controller from {own.in_dim} to 1 + {own.n_layers}; this one goes from {controller.in_dim} to "
                f"1 + {controller.n_layers}"
            )
        steering.controller = controller
        steering.directions = steering._directions(direction)
        if steering.alpha_units == "rel":
            if norms is None or norms.shape != steering.norms.shape or not bool((norms > 0).all()):
                raise ValueError(
                    f"alpha_units='rel' needs norms, one positive number for each of the {own.n_layers} steered layers"
                )
            steering.norms = norms.detach().to(steering.norms)
        return steering

    @torch.inference_mode()
    def score(
        self, model: nn.Module, tokenizer: Any, prompts: Sequence[str], **options: Any
    ) -> Float[Tensor, " prompt"]:
        """The strength's logit of each prompt: a detector's decision function, positive for prompts to be steered.

        Parameters
        ----------
        model, tokenizer
            The model and its tokenizer.
        prompts
            Texts, chat template with generation prompt applied.
        **options
            Those of `collect_activations`.
        """
        self.check_fits(model)
        sites = [Site("residual", layer) for layer in self.input_layers]
        x = torch.cat(list(collect_activations(model, tokenizer, prompts, sites, **options).values()), 1)
        weight = self.controller.inner.weight
        return self.controller.logits(x.to(weight.device, weight.dtype)).strength

    def calibrate(
        self,
        model: nn.Module,
        tokenizer: Any,
        positive: Sequence[str],
        negative: Sequence[str],
        *,
        alphas: Sequence[float] = (0.0625, 0.125, 0.25, 0.5, 1.0, 2.0),
        target: Any = is_refusal,
        **options: Any,
    ) -> pd.DataFrame:
        """Choose alpha on prompts that neither the fit nor a test has seen, and set it.

        Chosen is the smallest alpha with the largest difference between the shares of positive and negative prompts
        whose continuation shows the target.

        Parameters
        ----------
        model, tokenizer
            The model and its tokenizer.
        positive, negative
            Prompts to be steered, and to be left alone.
        alphas
            Those that are tried.
        target
            What a steered continuation should show; a refusal unless told otherwise.
        **options
            Those of `interplay.steering.comparison.compare`.

        Returns
        -------
        DataFrame
            One row an alpha: alpha, and the shares of positive and negative; also kept in `calibration_`.
        """
        if not alphas or min(alphas) <= 0:
            raise ValueError(f"alphas must be positive numbers, one or more; got {list(alphas)}")
        prompts = [*positive, *negative]
        strengths = [alpha / self.alpha for alpha in sorted(alphas)]
        table = compare(model, tokenizer, self, prompts, strengths, target=target, **options)
        shown = table["target"].to_numpy(float).reshape(len(prompts), len(strengths))
        shares = shown[: len(positive)].mean(0), shown[len(positive) :].mean(0)
        self.calibration_ = pd.DataFrame({"alpha": sorted(alphas), "positive": shares[0], "negative": shares[1]})
        self.alpha = float(self.calibration_["alpha"][int((shares[0] - shares[1]).argmax())])
        return self.calibration_

    def edits(self, model: nn.Module, strength: Strength) -> Mapping[Site, Edit]:
        """Those of a context of its own: a `Reading` that knows no prompt yet."""
        return self._reading(model, strength).edits()

    @contextmanager
    def attached(self, model: nn.Module, strength: Strength, positions: Positions) -> Iterator[Traced]:
        reading = self._reading(model, strength)
        with ExitStack() as stack:
            # Where one layer is read and steered, it is read before it is steered.
            stack.enter_context(reading.attached(model))
            counts = stack.enter_context(edit(model, reading.edits(), positions=positions))
            yield Traced(counts, reading)

    def settings(self) -> dict[str, Any]:
        return {
            "input_layers": list(self.input_layers),
            "steered_layers": list(self.steered_layers),
            "alpha": self.alpha,
            "alpha_units": self.alpha_units,
            "schedule": self.schedule,
            "gate": self.controller.gate,
            "threshold": self.controller.threshold,
            "hidden": self.controller.hidden,
            "refresh": self.refresh,
            "positions": self.positions,
        }

    def amounts(self, s: Float[Tensor, " batch"], w: Float[Tensor, "batch layer"]) -> Float[Tensor, "batch layer"]:
        """The length of what strength 1 adds at every steered layer: s * w_l * alpha, times the norms."""
        return s[:, None] * w * (self.alpha * self.norms.to(w))

    def _reading(self, model: nn.Module, strength: Strength) -> Reading:
        device = next(model.parameters()).device
        controller = self.controller
        if next(controller.parameters()).device != device:
            controller = copy.deepcopy(controller).to(device)
        return Reading(self, controller, strength)

    def _layers(self, layers: Sequence[int], name: str) -> tuple[int, ...]:
        depth = self.shape.n_layers
        found = sorted({layer + depth if layer < 0 else int(layer) for layer in layers})
        if not found or len(found) < len(layers) or found[0] < 0 or found[-1] >= depth:
            raise ValueError(f"{name} must be different layers of the model's {depth}; got {list(layers)}")
        return tuple(found)

    def _directions(self, direction: Tensor) -> Float[Tensor, "layer d_model"]:
        count, width = self.directions.shape
        whole = (self.shape.n_layers, width)
        if direction.shape not in {(width,), (count, width), whole}:
            raise ValueError(
                f"direction must be [{width}], [{count}, {width}] with one for each steered layer or {list(whole)} "
                f"with one for each layer; got {list(direction.shape)}"
            )
        if direction.shape == whole:
            direction = direction[list(self.steered_layers)]
        return unit(direction).to(self.directions).expand(count, width).clone()

    def _check_reachable(self, last: int) -> None:
        """A layer can only be steered in the pass in which the controller reads if the inputs come before it."""
        if self.schedule not in ("same-pass", "prefix"):
            return
        unreachable = [layer for layer in self.steered_layers if layer < last + (self.schedule == "prefix")]
        if len(unreachable) == len(self.steered_layers) or (unreachable and self.schedule == "prefix"):
            raise ValueError(
                f"by schedule {self.schedule!r} the layers {unreachable} cannot be steered: the controller's input is "
                f"complete after layer {last}; read earlier layers, steer later ones, or choose 'two-pass'"
            )
        if unreachable:
            warnings.warn(
                f"by schedule 'same-pass' the layers {unreachable} stay unsteered: the controller's input is complete "
                f"after layer {last}",
                stacklevel=4,
            )
