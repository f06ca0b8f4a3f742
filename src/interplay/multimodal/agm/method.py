"""Adaptive gradient modulation: the share of a modality that is more ahead than it usually is learns more slowly.

At each iteration t, with phi_m the Shapley share of modality m in the logits:

    s_m   = mean over the batch of -log softmax(phi_m)[target]                   (score: the lower, the more ahead)
    r_m   = exp(M / (M - 1) (mean_j s_j - s_m))                                  (relative standing now)
    rho_m = the same of the mean of s_m over all earlier iterations              (usual standing; 1 at the start)
    k_m   = exp(alpha min(rho_m - r_m, cap))                                     (coefficient)

The prediction is sum_m phi_m, unchanged; the gradient that enters phi_m on its way back is multiplied by k_m.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from interplay.multimodal.agm.shapley import ShapleyShares
from interplay.multimodal.training import TrainingMethod
from interplay.primitives.gates import scale_gradient

__all__ = ["AGM", "relative_standing", "share_scores"]

SMALLEST_PROBABILITY = 1e-8


class AGM(TrainingMethod):
    """Train any multimodal model with adaptive gradient modulation (Li et al. 2023).

    Take SGD: under Adam, which divides a gradient by its own usual size, a coefficient that does not vary has next to
    no effect. Under `DistributedDataParallel`, which broadcasts buffers, the first process's reference counts for all.

    Parameters
    ----------
    net, modalities, call, criterion
        As in `TrainingMethod`. The model may fuse its modalities in any way.
    alpha
        Strength of the modulation, 0 or more. The official runs take 1 to 2.5.
    cap
        Largest rho_m - r_m that counts; `math.inf` for none. The official code has 10 (CREMA-D), 7 (UR-Funny) or none.
    start, end
        First and last epoch with modulation, from 0; None for no end. Outside of them k_m = 1 and the reference goes
        on. (The official code then goes on with the last coefficients; its text says "active within".)
    reference
        "running" for rho_m as above; "none" for rho_m = 1 throughout, an ablation.
    score
        The score of a share against the target, the lower the better, without gradient. None: the cross-entropy, with
        probabilities below 1e-8 taken as that. A regression gives its own, and its own `criterion`.
    **shares
        What else `ShapleyShares` takes: masks, eval_masked, batched, sampling, orders, generator.

    Attributes
    ----------
    coefficients, scores, reference_scores
        k_m and s_m of the last batch, and the mean of s_m over all batches: (modality,), in the order of `modalities`.
    iterations
        Batches seen.

    Raises
    ------
    ValueError
        A negative alpha, a cap that is not above 0, an end before the start, an unknown reference.
    """

    coefficients: Tensor
    scores: Tensor
    reference_scores: Tensor
    iterations: Tensor
    epoch: Tensor

    def __init__(
        self,
        net: nn.Module,
        modalities: Sequence[str] | None = None,
        *,
        alpha: float = 1.0,
        cap: float = 10.0,
        start: int = 0,
        end: int | None = None,
        reference: Literal["running", "none"] = "running",
        score: Callable[[Tensor, Tensor], Tensor] | None = None,
        call: Callable[[nn.Module, Mapping[str, Tensor]], Tensor] | None = None,
        criterion: Callable[[Tensor, Tensor], Tensor] = nn.functional.cross_entropy,
        **shares: Any,
    ) -> None:
        super().__init__(net, modalities, call=call, criterion=criterion)
        if not (alpha >= 0 and math.isfinite(alpha)):
            raise ValueError(f"alpha must be 0 or more, got {alpha}")
        if not cap > 0:
            raise ValueError(f"cap must be above 0 (math.inf for none), got {cap}")
        if start < 0 or (end is not None and end < start):
            raise ValueError(f"start and end must be epochs from 0 in this order, got {start} and {end}")
        if reference not in ("running", "none"):
            raise ValueError(f"reference must be running or none, got {reference!r}")
        self.alpha, self.cap, self.start, self.end, self.reference = alpha, cap, start, end, reference
        self.shares = ShapleyShares(net, self.modalities, call=call, **shares)
        self._score = score
        for name, value in (("coefficients", 1.0), ("scores", 0.0), ("reference_scores", 0.0)):
            self.register_buffer(name, torch.full((len(self.modalities),), value))
        self.register_buffer("iterations", torch.zeros((), dtype=torch.int64))
        self.register_buffer("epoch", torch.zeros((), dtype=torch.int64))

    def loss(self, inputs: Mapping[str, Tensor], target: Int[Tensor, " sample"]) -> Float[Tensor, ""]:
        """The loss of the prediction, whose gradient comes back modulated.

        Raises
        ------
        ValueError
            Inputs that miss a modality or differ in batch size, or a target of another shape than one class a sample.
        FloatingPointError
            A share that is not a number, with its modality and the iteration.
        """
        shares = list(self.shares(inputs).by_modality.values())
        if self._score is None and target.shape != shares[0].shape[:1]:
            raise ValueError(
                f"target must hold one class for each of the {len(shares[0])} samples, got {tuple(target.shape)}; "
                "for other targets give score and criterion"
            )
        stacked = torch.stack([share.detach() for share in shares])
        self._refuse_undefined(stacked)
        self._modulate(self._scores_of(stacked, target))
        return self.criterion(
            sum(scale_gradient(share, factor) for share, factor in zip(shares, self.coefficients, strict=True)), target
        )

    def start_epoch(self, epoch: int) -> None:
        self.epoch.fill_(epoch)

    def coefficients_of(self, scores: Float[Tensor, " modality"]) -> Float[Tensor, " modality"]:
        """k_m of these scores, with the reference as it is now."""
        usual = relative_standing(self.reference_scores) if self.reference == "running" else torch.ones_like(scores)
        return torch.exp(self.alpha * (usual - relative_standing(scores)).clamp(max=self.cap))

    def diagnostics(self) -> dict[str, float]:
        """Coefficient and score of each modality in the last batch."""
        named = {"coefficient": self.coefficients, "score": self.scores}
        return {
            f"{what}_{name}": value
            for what, values in named.items()
            for name, value in zip(self.modalities, values.tolist(), strict=True)
        }

    @torch.no_grad()
    def _modulate(self, scores: Float[Tensor, " modality"]) -> None:
        self.scores = scores.to(self.scores)
        active = (self.epoch >= self.start) & (True if self.end is None else self.epoch <= self.end)
        coefficients = self.coefficients_of(self.scores)
        self.coefficients = torch.where(active, coefficients, torch.ones_like(coefficients))
        # The reference is of earlier batches alone: this one joins it after use.
        self.iterations = self.iterations + 1
        self.reference_scores = self.reference_scores + (self.scores - self.reference_scores) / self.iterations

    def _scores_of(self, shares: Float[Tensor, "modality sample ..."], target: Tensor) -> Float[Tensor, " modality"]:
        if self._score is None:
            return share_scores(shares, target)
        return torch.stack([self._score(share, target).detach() for share in shares])

    def _refuse_undefined(self, shares: Float[Tensor, "modality sample ..."]) -> None:
        undefined = shares.isnan().flatten(1).any(1)
        if undefined.any():
            names = [name for name, bad in zip(self.modalities, undefined.tolist(), strict=True) if bad]
            raise FloatingPointError(f"the share of {names} is not a number at iteration {int(self.iterations)}")


def share_scores(
    shares: Float[Tensor, "modality sample class"], target: Int[Tensor, " sample"]
) -> Float[Tensor, " modality"]:
    """Mean over the samples of -log softmax(share)[target], with probabilities below 1e-8 taken as that."""
    log_probabilities = shares.float().log_softmax(-1) if shares.dtype != torch.float64 else shares.log_softmax(-1)
    chosen = log_probabilities.gather(-1, target.expand(len(shares), -1)[..., None])[..., 0]
    return -chosen.clamp(min=math.log(SMALLEST_PROBABILITY)).mean(-1)


def relative_standing(scores: Float[Tensor, " modality"]) -> Float[Tensor, " modality"]:
    """exp(M / (M - 1) (mean score - score)): above 1 where a modality is ahead; exp(other - own) for two modalities."""
    modalities = scores.shape[-1]
    return torch.exp(modalities / (modalities - 1) * (scores.mean(-1, keepdim=True) - scores))
