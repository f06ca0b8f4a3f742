"""A classifier that adapts on each batch and then predicts it: the machinery of NHL and of its baselines."""

from __future__ import annotations

import contextlib
import copy
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from interplay.plasticity.nhl.modulator import (
    ChannelAffine,
    Modulator,
    batch_norms,
    entropy_objective,
    modulated_norms,
)
from interplay.plasticity.nhl.rule import CONVOLUTIONS, SoftHebb

__all__ = ["OnlineAdapter", "logits_of"]

MAX_FAILURES = 3


class OnlineAdapter(nn.Module):
    """A classifier that may change a little with each batch it predicts. The named methods are its subclasses.

    It is made of two optional parts: a local rule on one layer, and an optimiser step on affine gains down the
    gradient of an objective on the logits. Everything else is frozen, dropout is off, and no running statistics are
    touched.

    Parameters
    ----------
    model
        Classifier that returns logits (batch, classes), or an object with `.logits`. It is copied, unless `inplace`.
    rule
        Makes the local rule from the adapter's model; None: no layer learns locally.
    verify_order
        Check on the first batch that no other layer of the kind runs before the one that learns.
    modulator
        Which gains the objective moves, as in `NHL`; empty: none.
    objective
        Logits to a scalar to be lowered.
    batch_statistics
        Batch normalisation uses the statistics of the batch instead of those of training.
    lr, optimizer, steps, predict, episodic, inplace
        As in `NHL`.

    Attributes
    ----------
    model
        The classifier in its present state.
    hebb
        The local rule, `SoftHebb` or None.
    inserted
        The inserted `ChannelAffine` or None.
    skipped
        Number of batches since the last reset whose prediction was not finite: nothing was learnt from them.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        rule: Callable[[nn.Module], SoftHebb] | None = None,
        verify_order: bool = False,
        modulator: Sequence[Modulator] = (),
        objective: Callable[[Tensor], Tensor] = entropy_objective,
        batch_statistics: bool = True,
        lr: float = 1e-3,
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
        steps: int = 1,
        predict: Literal["before", "after"] = "after",
        episodic: bool = False,
        inplace: bool = False,
    ) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
        if any(parameter.is_inference() for parameter in model.parameters()):
            raise ValueError("model was built under torch.inference_mode and cannot adapt; build or load it outside")
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ValueError(f"steps must be an integer of at least 1, got {steps!r}")
        if not (math.isfinite(lr) and lr >= 0):
            raise ValueError(f"lr_mod must be a number of at least 0, got {lr!r}")
        if predict not in ("before", "after"):
            raise ValueError(f"predict must be 'before' or 'after', got {predict!r}")
        self.model = model if inplace else copy.deepcopy(model)
        self.model.requires_grad_(False)
        self.batch_statistics = batch_statistics
        self.objective = objective
        self.steps = steps
        self.predict = predict
        self.episodic = episodic
        self.hebb = rule(self.model) if rule is not None else None
        self._order_unverified = rule is not None and verify_order
        self.inserted: ChannelAffine | None = None
        if "inserted" in modulator:
            if self.hebb is None:
                raise ValueError("modulator='inserted' stands behind the layer that learns, and rule=None names none")
            self.inserted = _affine_behind(self.hebb.layer)

        modulated = modulated_norms(self.model, self.hebb and self.hebb.layer, modulator)
        self._modulators = {
            f"model.{module_name}.{name}": parameter
            for module_name, module in modulated.items()
            for name, parameter in module.named_parameters(recurse=False)
        }
        if self.inserted is not None:
            self._modulators |= {f"inserted.{name}": parameter for name, parameter in self.inserted.named_parameters()}
        for parameter in self._modulators.values():
            parameter.requires_grad_(True)
        self._make_optimizer = partial(optimizer, lr=lr)
        self._source = {name: tensor.detach().clone() for name, tensor in self.adapted_parameters().items()}
        self._adapting = True
        self.reset()
        self.train(False)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Adapt on a batch and predict it.

        Parameters
        ----------
        *args, **kwargs
            What the classifier takes; the first tensor among them is the batch of images.

        Returns
        -------
        Any
            What the classifier returns, without gradient.

        Raises
        ------
        TypeError
            Integer images, or a classifier that does not return logits.
        ValueError
            A single image where batch statistics are needed.
        RuntimeError
            Called under `torch.inference_mode`.
        FloatingPointError
            The third batch in a row whose prediction is not finite.
        """
        self._check_batch(args, kwargs)
        if not self._adapting:
            return self._forward(args, kwargs)
        if self.episodic:
            self._restore()
        if self.hebb is None and not self._modulators:
            return self._forward(args, kwargs)
        for _ in range(self.steps):
            output = self._adapt(args, kwargs)
        if self._modulators and self.predict == "after":
            output = self._forward(args, kwargs)
        return _detached(output)

    def reset(self) -> None:
        """Back to the source: weights, modulators and the optimiser's state. Call it at each new domain."""
        self._restore()
        self.skipped = 0
        self._failures_in_a_row = 0

    def adapted_parameters(self) -> dict[str, nn.Parameter]:
        """All that adaptation changes, by name: the locally learning weight and the modulators."""
        parameters = dict(self._modulators)
        if self.hebb is not None:
            names = {id(parameter): name for name, parameter in self.named_parameters()}
            parameters[names[id(self.hebb.layer.weight)]] = self.hebb.layer.weight
        return parameters

    @contextlib.contextmanager
    def no_adapt(self) -> Iterator[Self]:
        """Predict as the network is now; nothing changes inside the `with` block."""
        before, self._adapting = self._adapting, False
        try:
            yield self
        finally:
            self._adapting = before

    def train(self, mode: bool = True) -> Self:
        """Keep what adaptation needs whatever is asked: dropout off, batch normalisation on its chosen statistics."""
        super().train(False)
        if self.batch_statistics:
            for norm in batch_norms(self.model):
                norm.training = True
                norm.track_running_stats = False
        return self

    def _restore(self) -> None:
        with torch.no_grad():
            for name, tensor in self.adapted_parameters().items():
                tensor.copy_(self._source[name])
        self._optimizer = self._make_optimizer(list(self._modulators.values())) if self._modulators else None

    def _adapt(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """One pass of equations (1) to (4). A batch without a finite prediction leaves nothing behind."""
        weight_before = self.hebb.layer.weight.clone() if self.hebb is not None else None
        with torch.set_grad_enabled(bool(self._modulators)):
            output = self._hooked(args, kwargs, learn=True)
            value = self.objective(logits_of(output))
        if not value.isfinite():
            if weight_before is not None:
                self.hebb.layer.weight.copy_(weight_before)
            self._count_failure()
            return output
        self._failures_in_a_row = 0
        if value.requires_grad:
            value.backward()
            self._optimizer.step()
            self._optimizer.zero_grad()
        return output

    @torch.no_grad()
    def _forward(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        return self._hooked(args, kwargs, learn=False)

    def _hooked(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, learn: bool) -> Any:
        """The model's forward with the rule ahead of its layer and the inserted gains behind; no hook outlives it."""
        with contextlib.ExitStack() as hooks:
            if self.hebb is not None and learn:
                hooks.enter_context(_removing(self.hebb.layer.register_forward_pre_hook(self._learn_once())))
                for handle in self._order_guards():
                    hooks.enter_context(_removing(handle))
            if self.inserted is not None:
                modulate = self.inserted
                handle = self.hebb.layer.register_forward_hook(lambda layer, inputs, z: modulate(z))
                hooks.enter_context(_removing(handle))
            return self.model(*args, **kwargs)

    def _learn_once(self) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        """A hook that learns from the layer's first input in a forward pass, also where the layer is used again."""
        learnt = False

        def learn(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            nonlocal learnt
            if not learnt:
                learnt = True
                self._order_unverified = False
                self.hebb.step(inputs[0].detach())

        return learn

    def _order_guards(self) -> Iterator[RemovableHandle]:
        """Hooks that refuse a layer that runs before the one that was taken for the first."""
        if not self._order_unverified:
            return
        kinds = CONVOLUTIONS if isinstance(self.hebb.layer, CONVOLUTIONS) else (nn.Linear,)
        for name, module in self.model.named_modules():
            if isinstance(module, kinds) and module is not self.hebb.layer:
                yield module.register_forward_pre_hook(partial(self._refuse_earlier, name))

    def _refuse_earlier(self, name: str, layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if self._order_unverified:
            raise ValueError(f"layer {name!r} runs before the first registered one; pass hebb_layer={name!r}")

    def _count_failure(self) -> None:
        self.skipped += 1
        self._failures_in_a_row += 1
        if self._failures_in_a_row >= MAX_FAILURES:
            raise FloatingPointError(
                f"{MAX_FAILURES} batches in a row had predictions that are not finite; check the input for NaN, "
                "lower lr_mod and lr_hebb, and call reset()"
            )
        if self.skipped == 1:
            warnings.warn(
                "predictions of a batch are not finite: nothing was learnt from it (`skipped` counts such batches)",
                RuntimeWarning,
                stacklevel=2,
            )

    def _check_batch(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        images = next((value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)), None)
        if images is None:
            raise TypeError("pass the batch of images as a tensor, the first among the arguments")
        if not images.is_floating_point():
            raise TypeError(f"images must be floating point, got {images.dtype}; scale them as for the training")
        if self._adapting and self._modulators and (torch.is_inference_mode_enabled() or images.is_inference()):
            raise RuntimeError(
                "the modulator needs gradients, which torch.inference_mode rules out; call outside of it, with images "
                "made outside of it (torch.no_grad is fine), or predict without adaptation under no_adapt()"
            )
        if len(images) < 2 and self.batch_statistics and batch_norms(self.model):
            raise ValueError(
                "the variance over a batch of one image is undefined, and batch normalisation is on batch statistics; "
                "use batches of 8 or more, or NHL with modulator='inserted', which keeps the statistics of training"
            )


def _affine_behind(layer: nn.Module) -> ChannelAffine:
    weight = layer.weight
    return ChannelAffine(len(weight), -1 if weight.ndim == 2 else 1, device=weight.device, dtype=weight.dtype)


def logits_of(output: Any) -> Tensor:
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        found = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(output).__name__
        raise TypeError(f"model must return logits (batch, classes), or an object with such .logits; got {found}")
    return logits


def _detached(output: Any) -> Any:
    if isinstance(output, Tensor):
        return output.detach()
    output = copy.copy(output)
    for name, value in vars(output).items() if hasattr(output, "__dict__") else ():
        if isinstance(value, Tensor):
            setattr(output, name, value.detach())
    return output


@contextlib.contextmanager
def _removing(handle: RemovableHandle) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()
