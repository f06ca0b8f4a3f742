"""Weights over Z_p as sums of cosines: magnitudes, phases, and how concentrated a neuron is.

For odd p and frequencies omega_k = 2 pi k / p, k = 1..K, K = (p - 1) / 2, a neuron's weights are

(1)  theta[j] = const + sum_k alpha_k cos(omega_k j + phi_k),   xi[j] = const + sum_k beta_k cos(omega_k j + psi_k)
(2)  D_k = 2 phi_k - psi_k, wrapped to (-pi, pi]: the phase misalignment
(3)  IPR = sum_k A_k^4 / (sum_k A_k^2)^2 for a layer with magnitudes A_k: 1 for one frequency, 1 / K for an even spread
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["FourierSpectrum", "fourier_basis", "wrapped"]


def fourier_basis(p: int, dtype: torch.dtype = torch.float64) -> Float[Tensor, "p p"]:
    """The orthonormal real Fourier basis of Z_p, a vector a row.

    Row 0 is constant; rows 2 k - 1 and 2 k are the normalised cosine and sine of frequency k.

    Raises
    ------
    ValueError
        If p is even, where the highest frequency has no sine, or below 3.
    """
    check_modulus(p)
    # Whole numbers modulo p keep the angles small and the rows orthogonal to rounding.
    turns = torch.outer(torch.arange(1, (p + 1) // 2), torch.arange(p)) % p
    angles = turns.to(torch.float64) * (2 * math.pi / p)
    waves = torch.stack([angles.cos(), angles.sin()], 1).flatten(0, 1) * math.sqrt(2 / p)
    return torch.cat([torch.full((1, p), 1 / math.sqrt(p), dtype=torch.float64), waves]).to(dtype)


def wrapped(angle: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The same angle in (-pi, pi]."""
    return math.pi - (math.pi - angle).remainder(2 * math.pi)


@dataclass(frozen=True)
class FourierSpectrum:
    """Magnitudes and phases of two layers over Z_p, as in equation (1).

    Attributes
    ----------
    p
        The modulus.
    alpha, beta
        (..., neuron, frequency): magnitudes of the input and of the output weights. Entry k - 1 is frequency k.
    phi, psi
        Their phases, radians.
    """

    p: int
    alpha: Float[Tensor, "*run neuron frequency"]
    beta: Float[Tensor, "*run neuron frequency"]
    phi: Float[Tensor, "*run neuron frequency"]
    psi: Float[Tensor, "*run neuron frequency"]

    @classmethod
    def from_weights(
        cls, input_weights: Float[Tensor, "*run neuron p"], output_weights: Float[Tensor, "*run p neuron"]
    ) -> FourierSpectrum:
        """Decode any two-layer network over Z_p; leading axes are networks.

        Parameters
        ----------
        input_weights
            W_in: row m maps the one-hot input to neuron m.
        output_weights
            W_out: column m maps neuron m to the logits.

        Raises
        ------
        ValueError
            If the shapes do not fit each other, p is even or below 3, or a weight is not finite.
        """
        if input_weights.dim() < 2 or input_weights.shape != output_weights.mT.shape:
            raise ValueError(
                "input_weights must have shape (..., neurons, p) and output_weights (..., p, neurons); got "
                f"{tuple(input_weights.shape)} and {tuple(output_weights.shape)}"
            )
        check_modulus(input_weights.shape[-1])
        for name, weights in (("input_weights", input_weights), ("output_weights", output_weights)):
            if not weights.isfinite().all():
                raise ValueError(f"{name} has {int((~weights.isfinite()).sum())} entries that are not finite")
        alpha, phi = _decoded(input_weights.detach())
        beta, psi = _decoded(output_weights.detach().mT)
        return cls(input_weights.shape[-1], alpha, beta, phi, psi)

    @classmethod
    def from_embeddings(
        cls, embedding: Float[Tensor, "*run p width"], unembedding: Float[Tensor, "*run width p"]
    ) -> FourierSpectrum:
        """Decode a token embedding and an unembedding, laid out as transformers keep them.

        Dimensions of the residual stream take the place of neurons. For the neurons of a transformer's MLP pass
        `embedding @ W_in` and `W_out @ unembedding`.
        """
        return cls.from_weights(embedding.mT, unembedding.mT)

    @property
    def misalignment(self) -> Float[Tensor, "*run neuron frequency"]:
        """D of equation (2), in (-pi, pi]."""
        return wrapped(2 * self.phi - self.psi)

    def ipr(self) -> Float[Tensor, "*run"]:
        """Inverse participation ratio (3), mean over neurons and both layers; a neuron without weights counts 0."""
        return (_concentration(self.alpha) + _concentration(self.beta)).mean(-1) / 2

    def dominant(self) -> Int[Tensor, "*run neuron"]:
        """The frequency k in 1..K with the largest alpha_k beta_k of every neuron.

        A neuron for which all products vanish gets -1, with a warning.
        """
        # Scaled before they are multiplied, so that no product of small weights underflows.
        strength = _relative(self.alpha) * _relative(self.beta)
        largest, index = strength.max(-1)
        if (silent := largest == 0).any():
            warnings.warn(
                f"{int(silent.sum())} of {silent.numel()} neurons have no frequency in both layers; their dominant "
                "frequency is -1",
                stacklevel=2,
            )
        return torch.where(silent, -1, index + 1)

    def at(self, frequency: Int[Tensor, "*run neuron"]) -> FourierSpectrum:
        """The spectrum at one frequency a neuron, with a frequency axis of length one; -1 gives NaN."""
        index = (frequency - 1).clamp_min(0).unsqueeze(-1)
        missing = (frequency < 1).unsqueeze(-1)
        parts = (self.alpha, self.beta, self.phi, self.psi)
        return FourierSpectrum(self.p, *(part.gather(-1, index).masked_fill(missing, math.nan) for part in parts))


def check_modulus(p: int) -> None:
    if p < 3 or p % 2 == 0:
        raise ValueError(
            f"p must be odd and 3 or more; got {p}: the highest frequency of an even modulus has no sine, so that its "
            "phase is undefined"
        )


def _decoded(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Magnitudes and phases of the rows: alpha_k e^{i phi_k} = sqrt(2 / p) (c_k - i s_k) in the orthonormal basis."""
    p = rows.shape[-1]
    basis = fourier_basis(p, rows.dtype).to(rows.device)
    # Products are faster than an FFT of prime length up to p of some hundreds; cosines and sines by themselves lie
    # without gaps, which the arc tangent needs to be fast.
    cosine, sine = rows @ basis[1::2].mT, rows @ basis[2::2].mT
    return torch.hypot(cosine, sine) * math.sqrt(2 / p), torch.atan2(-sine, cosine)


def _relative(magnitude: Tensor) -> Tensor:
    largest = magnitude.amax(-1, keepdim=True)
    return magnitude / torch.where(largest > 0, largest, 1.0)


def _concentration(magnitude: Tensor) -> Tensor:
    squares = _relative(magnitude).square()
    total = squares.sum(-1)
    return squares.square().sum(-1) / torch.where(total > 0, total.square(), 1.0)
