"""What all E-I layers share: parameters of one sign, E-I Init on the first batch, the circuit."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from interplay.primitives.competition import pooled_inhibition
from interplay.spiking.ei_snn.circuit import EICurrents, EIProp, ei_circuit, scale_gradient
from interplay.spiking.ei_snn.initialization import InitialMoments, moments

if TYPE_CHECKING:
    import nir

__all__ = ["EILayer"]

_TOLERATED_NEGATIVE_SHARE = 0.01


class EILayer(nn.Module):
    """Base of `EILinear` and `EIConv2d`, which say how `weight` is applied to the input.

    `weight` holds W_EE in its first `out_features` rows and W_IE in the others, so that one product serves both;
    `weight_ee` and `weight_ie` are views of it.
    """

    weight: nn.Parameter
    weight_ei: nn.Parameter
    gain_i: nn.Parameter | None
    gain_e: nn.Parameter | None
    bias: nn.Parameter | None
    is_initialized: Tensor
    unit_dim: int

    def __init__(
        self,
        kernel: tuple[int, ...],
        units: int,
        *,
        ei_ratio: int,
        output_layer: bool,
        ei_init: bool,
        ei_prop: EIProp | bool,
        check: bool,
        name: str | None,
        generator: torch.Generator | None,
        device: torch.device | str | None,
        dtype: torch.dtype | None,
    ) -> None:
        super().__init__()
        if ei_ratio < 1 or ei_ratio > units:
            raise ValueError(
                f"ei_ratio must be between 1 and the {units} excitatory units, so that there is an inhibitory one; "
                f"got {ei_ratio}"
            )
        self.excitatory, self.inhibitory = units, units // ei_ratio
        self.fan_in = math.prod(kernel)
        self.output_layer = output_layer
        self.ei_init = ei_init
        self.ei_prop = EIProp(ei_prop, ei_prop) if isinstance(ei_prop, bool) else ei_prop
        self.check = check
        self.name = name
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.weight = nn.Parameter(torch.empty(self.excitatory + self.inhibitory, *kernel, **factory))
        self.weight_ei = nn.Parameter(torch.empty(self.excitatory, self.inhibitory, **factory))
        for parameter, size in (("gain_i", self.inhibitory), ("gain_e", units), ("bias", units)):
            self.register_parameter(parameter, None if output_layer else nn.Parameter(torch.empty(size, **factory)))
        self.register_buffer("is_initialized", torch.tensor(False, device=device))
        self._ready = False  # what is_initialized says, without reading a tensor in every call
        self._calls_with_sign_check, self._next_sign_check = 0, 1
        self.reset_parameters(generator)

    @property
    def weight_ee(self) -> Float[Tensor, "excitatory ..."]:
        """W_EE, a view."""
        return self.weight[: self.excitatory]

    @property
    def weight_ie(self) -> Float[Tensor, "inhibitory ..."]:
        """W_IE, a view."""
        return self.weight[self.excitatory :]

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw anew. With `ei_init` the weights wait, in units of their mean, for the batch that sets their scale."""
        self.weight.exponential_(generator=generator)
        self.weight_ei.fill_(1 / self.inhibitory)
        for parameter, value in ((self.gain_i, 1.0), (self.gain_e, 1.0), (self.bias, 0.0)):
            if parameter is not None:
                parameter.fill_(value)
        self._mark_initialized(False)
        if not self.ei_init:
            self._set_scale(1 / self.fan_in, 1 / math.sqrt(self.fan_in))

    @torch.no_grad()
    def initialize_(self, x: Float[Tensor, "..."]) -> InitialMoments:
        """E-I Init from a batch of this layer's input; the first call of the layer does it by itself.

        Returns
        -------
        InitialMoments
            The moments of the batch and what followed from them.

        Raises
        ------
        ValueError
            The batch is negative somewhere, not finite, constant or silent, or the layer is initialised already.
        """
        if self._ready:
            raise ValueError(
                f"{self._label()} is initialised already; call reset_parameters() to draw its weights anew"
            )
        self._check_shape(x)
        batch = x.flatten(0, self.unit_dim - 1) if x.dim() > -self.unit_dim else x.unsqueeze(0)
        found = moments(batch, self.fan_in, self._label())
        self._set_scale(found.scale, found.inhibitory_gain)
        return found

    @torch.no_grad()
    def project_(self) -> None:
        """Set negative weights and gains to zero, in place."""
        for parameter in (self.weight, self.weight_ei, self.gain_i, self.gain_e):
            if parameter is not None:
                # A network run step by step meets this between the forward passes of one graph. Nothing is negative
                # then and nothing changes, which autograd must be told: it counts writes, not changes.
                with torch.autograd._unsafe_preserve_version_counter(parameter):
                    torch.relu_(parameter)  # clamp_ has no rule for vmap

    def currents(self, x: Float[Tensor, "..."]) -> EICurrents:
        """The currents behind the output; `divisive` is NaN in an output layer, which has none."""
        drive, inhibition = self._drive(x)
        subtractive = pooled_inhibition(inhibition, self.weight_ei, dim=self.unit_dim)
        if self.gain_i is None:
            divisive = torch.full_like(subtractive, math.nan)
        else:
            divisive = pooled_inhibition(inhibition, self.weight_ei * self.gain_i, dim=self.unit_dim)
        return EICurrents(drive, subtractive, divisive, drive - subtractive)

    def forward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Current into the excitatory units; in an output layer the balanced current alone."""
        if not self._ready:
            self.initialize_(x)
        self._warn_of_negative_weights()
        self.project_()
        drive, inhibition = self._drive(x)
        weight_ei = self.weight_ei
        if self.ei_prop.scale_gradient:
            weight_ei = scale_gradient(weight_ei, 1 / self.fan_in)
        if self.gain_i is None or self.gain_e is None or self.bias is None:
            return drive - pooled_inhibition(inhibition, weight_ei, dim=self.unit_dim)
        return ei_circuit(
            drive,
            inhibition,
            weight_ei,
            self.gain_i,
            self.gain_e,
            self.bias,
            dim=self.unit_dim,
            prop=self.ei_prop,
        )

    def feedforward(self, x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
        """Currents of excitatory and inhibitory units together, `weight` applied to `x`."""
        raise NotImplementedError

    def nir_node(self, shape: tuple[int, ...], dt: float) -> nir.NIRNode:
        """The linear node of an output layer, W_EE - W_EI W_IE; a layer that divides has none.

        Raises
        ------
        ValueError
            The layer divides, or is not initialised.
        """
        if not self.output_layer:
            raise ValueError(
                f"{self._label()} divides one current by another, for which NIR has no node: the network cannot be "
                "exported. Only output layers, whose inhibition is subtractive alone, are linear"
            )
        if not self._ready:
            raise ValueError(f"{self._label()} is not initialised; run a batch through the network before exporting it")
        signed = self.weight_ee - (self.weight_ei @ self.weight_ie.flatten(1)).view_as(self.weight_ee)
        return self._linear_node(signed.detach().cpu().numpy(), shape)

    def _linear_node(self, weight: np.ndarray, shape: tuple[int, ...]) -> nir.NIRNode:
        raise NotImplementedError

    def _drive(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self._check_shape(x)
        if self.check:
            if bool(x.isnan().any()):
                raise ValueError(f"the input of {self._label()} has NaN entries")
            if (lowest := x.min().item()) < 0:
                raise ValueError(f"the input of {self._label()} must not be negative, got {lowest:.4g}")
        drive, inhibition = self.feedforward(x).split((self.excitatory, self.inhibitory), dim=self.unit_dim)
        return drive, inhibition

    def _check_shape(self, x: Tensor) -> None:
        if not x.is_floating_point():
            raise TypeError(f"the input of {self._label()} must be floating point, got {x.dtype}; call .float() on it")
        if x.dim() < -self.unit_dim or x.shape[self.unit_dim] != self.weight.shape[1]:
            raise ValueError(
                f"the input of {self._label()} must have {self.weight.shape[1]} entries along dim {self.unit_dim}, "
                f"got shape {tuple(x.shape)}"
            )

    def _set_scale(self, weight: float, gain_i: float) -> None:
        self.weight.mul_(weight)
        if self.gain_i is not None:
            self.gain_i.fill_(gain_i)
        self._mark_initialized(True)

    def _mark_initialized(self, value: bool) -> None:
        self.is_initialized.fill_(value)
        self._ready = value

    def _warn_of_negative_weights(self) -> None:
        # Only parameters proper: inside vmap nothing may depend on values, and a compiled graph must not break. Looking
        # at calls 1, 2, 4, 8, ... finds an optimiser that does not project without reading the weights every time.
        if not self.training or torch.compiler.is_compiling() or type(self.weight) is not nn.Parameter:
            return
        self._calls_with_sign_check += 1
        if self._calls_with_sign_check < self._next_sign_check:
            return
        self._next_sign_check *= 2
        share = (self.weight < 0).float().mean().item()
        if share > _TOLERATED_NEGATIVE_SHARE:
            self._next_sign_check = math.inf
            warnings.warn(
                f"{share:.0%} of the weights of {self._label()} were negative and are set to 0; call "
                "constrain(optimizer, model) once, so that they are set to 0 after every step",
                stacklevel=3,
            )

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args)
        if prefix + "is_initialized" in state_dict:
            self._ready = bool(state_dict[prefix + "is_initialized"])
            if not self._ready:
                warnings.warn(
                    f"the state loaded into {self._label()} is not initialised yet; its next batch will do it",
                    stacklevel=2,
                )

    def _label(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})" + (f" {self.name!r}" if self.name else "")
