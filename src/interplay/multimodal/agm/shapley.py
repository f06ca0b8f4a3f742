"""The share of each modality in what a model predicts: Shapley values over absent modalities.

For modalities 1..M and a coalition S, f(S) is the prediction with the modalities outside S masked. The share of m is

    phi_m = sum over S without m of |S|! (M - |S| - 1)! / M! (f(S + m) - f(S)) + f(empty) / M,

so that the shares add up to the prediction of the whole, f(all). The weights of f(empty) cancel, so 2^M - 1 coalitions
are asked for: with two modalities phi_1 = (f(12) + f(1) - f(2)) / 2.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.multimodal.fusion import FusionNet
from interplay.primitives.modes import evaluating

__all__ = ["ShapleyShares", "Shares", "mixes_or_draws"]

Mask = Literal["zeros", "mean"] | Callable[[str, Tensor], Tensor]
Call = Callable[[nn.Module, Mapping[str, Tensor]], Tensor]

LARGEST_EXACT = 6  # modalities; 63 coalitions


class Shares(NamedTuple):
    """A prediction and what each modality has in it.

    Attributes
    ----------
    by_modality
        phi_m, of the shape of the prediction.
    total
        Their sum, the prediction with every modality present.
    """

    by_modality: dict[str, Tensor]
    total: Tensor


class ShapleyShares:
    """Split the prediction of a multimodal model into one share a modality. Gradients flow through every pass.

    Not a module, so that the parameters of `net` stand once in the `state_dict` of a module that holds both.

    Parameters
    ----------
    net
        Any module that takes its inputs by name.
    modalities
        The names of the inputs that are modalities, two or more; others, such as an attention mask, are passed on
        unmasked. None: those of `net`, which must then have an attribute `modalities`.
    masks
        What an absent modality is replaced by: "zeros", right where inputs are centred; "mean", the mean over the
        batch; or a function of name and values that gives a replacement of the same shape.
    eval_masked
        Run masked passes in evaluation mode, so that they neither use nor change batch statistics and drop nothing
        out, as the official code does. Each module gets its own mode back.
    batched
        Run all passes as one batch of (2^M - 1) times the samples. None: where that changes nothing, which is where no
        module normalises over the batch or drops out (see `mixes_or_draws`). Give False to a network that does so
        by a plain function.
    sampling
        "exact", up to 6 modalities; "permutations" averages over `orders` random cyclic orders, each from every start:
        M (M - 1) + 1 passes for each, an unbiased estimate whose shares add up all the same.
    orders
        Cyclic orders drawn at each call.
    generator
        Source of the orders.
    call
        `call(net, inputs)` gives the prediction; None: `net(inputs)`.

    Raises
    ------
    ValueError
        Fewer than two modalities, more than six with exact sampling, or an unknown mask or sampling.
    """

    def __init__(
        self,
        net: nn.Module,
        modalities: Sequence[str] | None = None,
        *,
        masks: Mask = "zeros",
        eval_masked: bool = True,
        batched: bool | None = None,
        sampling: Literal["exact", "permutations"] = "exact",
        orders: int = 1,
        generator: torch.Generator | None = None,
        call: Call | None = None,
    ) -> None:
        names = tuple(getattr(net, "modalities", ())) if modalities is None else tuple(modalities)
        if len(set(names)) < 2 or len(set(names)) != len(names):
            raise ValueError(f"modalities must be two or more different names, got {list(names)}")
        if sampling not in ("exact", "permutations"):
            raise ValueError(f"sampling must be exact or permutations, got {sampling!r}")
        if sampling == "exact" and len(names) > LARGEST_EXACT:
            raise ValueError(
                f"{len(names)} modalities need {2 ** len(names) - 1} passes; take sampling='permutations' beyond "
                f"{LARGEST_EXACT}"
            )
        if masks not in ("zeros", "mean") and not callable(masks):
            raise ValueError(f"masks must be zeros, mean or a function of name and values, got {masks!r}")
        if orders < 1:
            raise ValueError(f"orders must be 1 or more, got {orders}")
        self.net = net
        self.modalities = names
        self.masks = masks
        self.eval_masked = eval_masked
        self.batched = batched
        self.sampling = sampling
        self.orders = orders
        self.generator = generator
        self._call = call
        self._exact = _exact_weights(len(names)) if sampling == "exact" else None

    def __call__(self, inputs: Mapping[str, Tensor]) -> Shares:
        """Shares of one batch.

        Raises
        ------
        ValueError
            An input of a modality is missing, or the inputs are of different numbers of samples.
        """
        samples = self._checked(inputs)
        coalitions, weights = self._exact or _sampled_weights(len(self.modalities), self.orders, self.generator)
        absent = {name: self._absent(name, inputs[name]) for name in self.modalities}
        batched = not (self.eval_masked and self.net.training and mixes_or_draws(self.net))
        if self.batched if self.batched is not None else batched:
            predictions = self._together(inputs, absent, coalitions, samples)
        else:
            predictions = self._apart(inputs, absent, coalitions)
        mixed = weights.to(predictions) @ predictions.flatten(1)
        shares = mixed.view(len(self.modalities), *predictions.shape[1:])
        return Shares(dict(zip(self.modalities, shares.unbind(), strict=True)), predictions[0])

    def _together(
        self,
        inputs: Mapping[str, Tensor],
        absent: Mapping[str, Tensor],
        coalitions: Sequence[frozenset[int]],
        samples: int,
    ) -> Float[Tensor, "coalition sample ..."]:
        """Every coalition's prediction by one pass; the encoders of a `FusionNet` need not see what they saw before."""
        fusion = self._call is None and type(self.net).forward is FusionNet.forward
        if fusion and set(self.modalities) == set(self.net.modalities):
            return self._fused_together(inputs, absent, coalitions, samples)
        stacked = {
            name: torch.cat([values] * len(coalitions))
            for name, values in inputs.items()
            if name not in self.modalities
        }
        for position, name in enumerate(self.modalities):
            choice = [inputs[name] if position in coalition else absent[name] for coalition in coalitions]
            stacked[name] = torch.cat(choice)
        predictions = self._predict({name: stacked[name] for name in inputs})
        return predictions.view(len(coalitions), samples, *predictions.shape[1:])

    def _fused_together(
        self,
        inputs: Mapping[str, Tensor],
        absent: Mapping[str, Tensor],
        coalitions: Sequence[frozenset[int]],
        samples: int,
    ) -> Float[Tensor, "coalition sample ..."]:
        # Zeros have one latent, whatever the sample.
        absent = {name: values[:1] for name, values in absent.items()} if self.masks == "zeros" else absent
        present, masked = self.net.encode(inputs), self.net.encode(absent)
        latents = {}
        for position, name in enumerate(self.modalities):
            instead = masked[name].expand_as(present[name])
            choice = [present[name] if position in coalition else instead for coalition in coalitions]
            latents[name] = torch.cat(choice)
        predictions = self.net.fuse(latents)
        return predictions.view(len(coalitions), samples, *predictions.shape[1:])

    def _apart(
        self, inputs: Mapping[str, Tensor], absent: Mapping[str, Tensor], coalitions: Sequence[frozenset[int]]
    ) -> Float[Tensor, "coalition sample ..."]:
        """Every coalition's prediction by a pass of its own: the whole one first, in the network's present mode."""
        predictions = [self._predict(inputs)]
        with evaluating(*([self.net] if self.eval_masked else [])):
            for coalition in coalitions[1:]:
                masked = {
                    name: absent[name] for position, name in enumerate(self.modalities) if position not in coalition
                }
                predictions.append(self._predict({**inputs, **masked}))
        return torch.stack(predictions)

    def _predict(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self.net(inputs) if self._call is None else self._call(self.net, inputs)

    def _absent(self, name: str, values: Tensor) -> Tensor:
        if self.masks == "zeros":
            return torch.zeros_like(values)
        if self.masks == "mean":
            if not values.is_floating_point():
                raise ValueError(f"input {name!r} is {values.dtype}, which has no mean; give masks a function")
            return values.mean(0, keepdim=True).expand_as(values)
        replacement = self.masks(name, values)
        if replacement.shape != values.shape:
            raise ValueError(
                f"masks must keep the shape of the input {name!r}, {tuple(values.shape)}; it gave "
                f"{tuple(replacement.shape)}"
            )
        return replacement

    def _checked(self, inputs: Mapping[str, Tensor]) -> int:
        missing = [name for name in self.modalities if name not in inputs]
        if missing:
            raise ValueError(
                f"inputs must hold the modalities {list(self.modalities)}; got {list(inputs)}, without {missing}"
            )
        sizes = {name: len(values) for name, values in inputs.items()}
        if len(set(sizes.values())) != 1:
            raise ValueError(f"inputs must be of the same samples; the batch sizes are {sizes}")
        return next(iter(sizes.values()))


def mixes_or_draws(net: nn.Module) -> bool:
    """Whether a module of `net` behaves differently in training: it normalises over the batch, or it drops out.

    Dropout is found as a module, and as any number above zero under a name with "drop" in it, which is how attention
    layers and recurrent ones keep it.
    """
    batch_statistics = (nn.modules.batchnorm._BatchNorm, nn.modules.instancenorm._InstanceNorm)
    for module in net.modules():
        if isinstance(module, batch_statistics):
            return True
        if isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
            return True
        if any("drop" in name and isinstance(value, float) and value > 0 for name, value in vars(module).items()):
            return True
    return False


def _exact_weights(modalities: int) -> tuple[list[frozenset[int]], Float[Tensor, "modality coalition"]]:
    """All coalitions but the empty one, the whole first, and the weight of each in each share."""
    members = range(modalities)
    coalitions = [
        frozenset(chosen) for size in range(modalities, 0, -1) for chosen in itertools.combinations(members, size)
    ]
    whole = math.factorial(modalities)

    def weight(member: int, coalition: frozenset[int]) -> float:
        others = len(coalition - {member})
        size = math.factorial(others) * math.factorial(modalities - others - 1) / whole
        return size if member in coalition else -size

    table = [[weight(member, coalition) for coalition in coalitions] for member in members]
    return coalitions, torch.tensor(table, dtype=torch.float64)


def _sampled_weights(
    modalities: int, orders: int, generator: torch.Generator | None
) -> tuple[list[frozenset[int]], Float[Tensor, "modality coalition"]]:
    """Coalitions that random orders build up, the whole first. Every start of a cycle is taken: f(empty) cancels."""
    places: dict[frozenset[int], int] = {frozenset(range(modalities)): 0}
    terms: list[tuple[int, int, float]] = []
    step = 1 / (orders * modalities)
    for _ in range(orders):
        cycle = torch.randperm(modalities, generator=generator).tolist()
        for start in range(modalities):
            before = frozenset[int]()
            for member in cycle[start:] + cycle[:start]:
                after = before | {member}
                terms.append((member, places.setdefault(after, len(places)), step))
                if before:
                    terms.append((member, places[before], -step))
                before = after
    weights = torch.zeros(modalities, len(places), dtype=torch.float64)
    for member, place, change in terms:
        weights[member, place] += change
    return list(places), weights
