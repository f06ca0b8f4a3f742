"""Where the parts of a decoder-only transformer are, found by the structure of its modules.

Hugging Face decoders differ in names, hardly in shape: a list of layers, each with an attention block that ends in an
output projection and an MLP that ends in a down-projection, then a final norm and an unembedding. `Decoder` finds these
parts in GPT-2, GPT-NeoX (Pythia), Llama, Mistral, Qwen 2 and 3, Gemma 1 to 3 and whatever is built alike, without
importing transformers. Nothing is copied, nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor, nn

ATTENTION = ("self_attn", "attn", "attention", "self_attention")
# Queries, keys and values come from three projections, from one that puts them side by side (GPT-2, Phi-3), or from one
# that gives them head by head (GPT-NeoX).
ATTENTION_INPUT = {"queries": ("q_proj", "query"), "keys": ("k_proj", "key"), "values": ("v_proj", "value")}
SIDE_BY_SIDE = ("c_attn", "qkv_proj")
HEAD_BY_HEAD = ("query_key_value",)
ATTENTION_OUTPUT = ("o_proj", "out_proj", "c_proj", "dense", "wo")
MLP = ("mlp", "feed_forward", "ffn")
MLP_OUTPUT = ("down_proj", "c_proj", "dense_4h_to_h", "fc_out", "fc2", "w2")
EMBEDDING = ("embed_tokens", "wte", "embed_in", "word_embeddings", "tok_embeddings")
FINAL_NORM = ("norm", "ln_f", "final_layer_norm", "final_layernorm")

Input = Literal["queries", "keys", "values"]


@dataclass(frozen=True)
class HeadInputs:
    """The queries, keys or values of a layer's heads, as its projections give them.

    Attributes
    ----------
    module
        The projection; its output holds them, perhaps among others.
    n_heads
        How many there are: query heads, or key-value heads.
    view
        From the module's output [..., features] to a view [..., head, width] of it.
    """

    module: nn.Module
    n_heads: int
    view: Callable[[Tensor], Tensor]


class Decoder:
    """The parts of a decoder-only language model.

    Parameters
    ----------
    model
        A causal language model, or the body of one.

    Attributes
    ----------
    body
        The module that holds the embedding, the layers and the final norm.
    layers
        The decoder layers.
    n_layers, n_heads, d_model
        Number of layers, of *query* heads a layer, and the width of the residual stream.
    n_kv_heads
        Number of key-value heads a layer; query head h reads key-value head h // (n_heads / n_kv_heads).

    Raises
    ------
    TypeError
        An encoder-decoder model.
    ValueError
        A layout in which the parts cannot be found; the message says what was looked for and what is there.
    """

    def __init__(self, model: nn.Module) -> None:
        config = getattr(model, "config", None)
        if getattr(config, "is_encoder_decoder", False):
            raise TypeError(
                f"model is the encoder-decoder {type(model).__name__}; "
                "pass a decoder-only language model (GPT-2, Llama, ...)"
            )
        self.model = model
        self.path, self.body, self.layers = _find_layers(model)
        get_text_config = getattr(config, "get_text_config", None)
        text = get_text_config() if callable(get_text_config) else config
        heads = getattr(text, "num_attention_heads", None)
        width = getattr(text, "hidden_size", None)
        if not isinstance(heads, int) or not isinstance(width, int):
            raise ValueError(
                f"{type(model).__name__} has decoder layers at {self.path!r}, but its config does not say "
                f"num_attention_heads and hidden_size as integers; got {heads!r} and {width!r}"
            )
        self.n_layers, self.n_heads, self.d_model = len(self.layers), heads, width
        shared = getattr(text, "num_key_value_heads", None)
        self.n_kv_heads = shared if isinstance(shared, int) else 1 if getattr(text, "multi_query", False) else heads

    def layer(self, index: int) -> nn.Module:
        """The decoder layer `index`; its output is the residual stream after it."""
        self.check(index)
        return self.layers[index]

    def attention(self, index: int) -> nn.Module:
        """The attention block of the layer, output projection included."""
        attention = _child(self.layer(index), ATTENTION)
        if attention is None:
            raise ValueError(self._missing(index, "an attention block", ATTENTION, ATTENTION_OUTPUT))
        return attention

    def attention_input(self, index: int, kind: Input) -> HeadInputs:
        """Where the layer's queries, keys or values are, before any query-key norm and before rotary positions."""
        attention, width = self.attention(index), self.head_width(index)
        counts = {"queries": self.n_heads, "keys": self.n_kv_heads, "values": self.n_kv_heads}
        n_heads, place = counts[kind], get_args(Input).index(kind)
        if (separate := _child(attention, ATTENTION_INPUT[kind])) is not None:
            return HeadInputs(separate, n_heads, lambda output: _last_axis(output, n_heads, -1))
        if (fused := _child(attention, SIDE_BY_SIDE)) is not None:
            start = width * sum(list(counts.values())[:place])
            whole, stop = width * sum(counts.values()), start + width * n_heads

            def part(output: Tensor) -> Tensor:
                _expect_width(output, whole)
                return _last_axis(output[..., start:stop], n_heads, width)

            return HeadInputs(fused, n_heads, part)
        if (mixed := _child(attention, HEAD_BY_HEAD)) is not None:

            def every_third(output: Tensor) -> Tensor:
                _expect_width(output, 3 * width * n_heads)
                return _last_axis(output, n_heads, 3, width)[..., place, :]

            return HeadInputs(mixed, n_heads, every_third)
        looked = (*ATTENTION_INPUT[kind], *SIDE_BY_SIDE, *HEAD_BY_HEAD)
        raise ValueError(self._missing(index, f"a projection to {kind}", ATTENTION, looked))

    def attention_output(self, index: int) -> nn.Module:
        """The output projection of the layer's attention; its input is the query heads' outputs side by side."""
        attention = _child(self.layer(index), ATTENTION)
        projection = None if attention is None else _child(attention, ATTENTION_OUTPUT)
        if projection is None:
            raise ValueError(self._missing(index, "an attention output projection", ATTENTION, ATTENTION_OUTPUT))
        return projection

    def mlp_output(self, index: int) -> nn.Module:
        """The down-projection of the layer's MLP; its input is the neurons after their non-linearity."""
        layer = self.layer(index)
        projection = _child(_child(layer, MLP) or layer, MLP_OUTPUT)
        if projection is None:
            raise ValueError(self._missing(index, "an MLP down-projection", MLP, MLP_OUTPUT))
        return projection

    def attention_norm(self, index: int) -> nn.Module | None:
        """The norm between output projection and residual stream (Gemma 2 and 3, OLMo 2, GLM 4), None elsewhere.

        Llama's `post_attention_layernorm` does not count: it is the MLP's input norm in spite of its name.
        """
        layer = self.layer(index)
        if (norm := _child(layer, ("post_self_attn_layernorm",))) is not None:
            return norm
        return _child(layer, ("post_attention_layernorm",)) if hasattr(layer, "post_feedforward_layernorm") else None

    def attention_write(
        self, index: int, heads: Float[Tensor, "*positions head width"]
    ) -> Float[Tensor, "*positions d_model"]:
        """What the layer's attention adds to the residual stream when its heads' outputs are `heads`."""
        write = self.attention_output(index)(heads.flatten(-2))
        norm = self.attention_norm(index)
        scale = getattr(getattr(self.model, "config", None), "residual_multiplier", 1.0)  # Granite's
        added: Tensor = scale * (write if norm is None else norm(write))
        return added

    @property
    def final_norm(self) -> nn.Module:
        """The norm before the unembedding."""
        norm = _child(self.body, FINAL_NORM)
        if norm is None:
            raise ValueError(f"no final norm in {self.path!r}; looked for {_names(FINAL_NORM)}")
        return norm

    @property
    def unembedding(self) -> Float[Tensor, "vocabulary d_model"]:
        """The rows that turn the normed residual stream into logits."""
        get_output_embeddings = getattr(self.model, "get_output_embeddings", None)
        head = get_output_embeddings() if callable(get_output_embeddings) else None
        if head is None or not isinstance(getattr(head, "weight", None), Tensor):
            raise ValueError(
                f"{type(self.model).__name__} has no unembedding; pass the causal language model, not its body"
            )
        weight: Tensor = head.weight
        return weight

    def head_width(self, index: int) -> int:
        """Entries of one query head's output in this layer."""
        return _in_features(self.attention_output(index)) // self.n_heads

    def output_weight(self, index: int) -> Float[Tensor, "heads_times_width d_model"]:
        """The output projection as `write = z @ weight`, a view, whichever way the layer stores it."""
        projection = self.attention_output(index)
        weight = projection.weight
        if not isinstance(weight, Tensor):
            raise ValueError(f"the output projection of layer {index} holds no weight tensor: {projection}")
        return weight if _stores_inputs_first(projection) else weight.mT

    def check(self, layer: int, head: int | None = None, kind: str = "heads") -> None:
        """Refuse a layer or head that is not there; heads of the kinds keys and values are key-value heads.

        Raises
        ------
        IndexError
            With the shape of the model; negative indices are refused too.
        """
        shared = kind in ("keys", "values") and self.n_kv_heads < self.n_heads
        if shared and head is not None and self.n_kv_heads <= head < self.n_heads:
            raise IndexError(
                f"the {kind} of head {head}: the model shares {self.n_kv_heads} key-value heads among {self.n_heads} "
                f"query heads; query head {head} reads key-value head {head * self.n_kv_heads // self.n_heads}"
            )
        if not 0 <= layer < self.n_layers or (head is not None and not 0 <= head < self.n_heads):
            wanted = f"layer {layer}" if head is None else f"head (layer {layer}, head {head})"
            raise IndexError(
                f"{wanted} is out of range: the model has {self.n_layers} layers x {self.n_heads} query heads, from 0"
            )

    def _missing(self, index: int, what: str, blocks: Sequence[str], projections: Sequence[str]) -> str:
        there = ", ".join(name for name, _ in self.layers[index].named_modules() if name)
        return (
            f"layer {index} of {type(self.model).__name__} has no {what}; looked for {_names(blocks)} holding "
            f"{_names(projections)}; the layer holds {there}"
        )


def find_decoder(model: nn.Module) -> Decoder | None:
    """The model's `Decoder`, or None for a module of another kind."""
    try:
        return Decoder(model)
    except (TypeError, ValueError):
        return None


def _find_layers(model: nn.Module) -> tuple[str, nn.Module, nn.ModuleList]:
    """The one list of attention layers that stands next to a token embedding (a vision tower's does not)."""
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList)}
    for name, layers in lists.items():
        body = model.get_submodule(name.rpartition(".")[0])
        if _child(body, EMBEDDING) is not None and any(_has_heads(layer) for layer in layers):
            return name, body, layers
    raise ValueError(
        f"{type(model).__name__} has no decoder layers that this library knows: looked for a ModuleList next to an "
        f"embedding named {_names(EMBEDDING)}, whose layers hold {_names(ATTENTION)} with {_names(ATTENTION_OUTPUT)}; "
        f"found the ModuleLists {', '.join(lists) or 'none'}. Address modules by path instead: Site('module', path=...)"
    )


def _has_heads(layer: nn.Module) -> bool:
    attention = _child(layer, ATTENTION)
    return attention is not None and _child(attention, ATTENTION_OUTPUT) is not None


def _child(module: nn.Module, names: Sequence[str]) -> nn.Module | None:
    for name in names:
        if isinstance(child := getattr(module, name, None), nn.Module):
            return child
    return None


def _last_axis(activation: Tensor, *sizes: int) -> Tensor:
    """A view in which the last axis is split."""
    return activation.view(*activation.shape[:-1], *sizes)


def _expect_width(output: Tensor, width: int) -> None:
    if output.shape[-1] != width:
        raise ValueError(
            f"the fused projection gives {output.shape[-1]} features; queries, keys and values would take {width}"
        )


def _names(names: Sequence[str]) -> str:
    return " | ".join(names)


def _stores_inputs_first(projection: nn.Module) -> bool:
    """Whether the weight is [inputs, outputs] as in GPT-2's Conv1D, not [outputs, inputs] as in nn.Linear."""
    return hasattr(projection, "nf") and not hasattr(projection, "in_features")


def _in_features(projection: nn.Module) -> int:
    if _stores_inputs_first(projection) and isinstance(projection.weight, Tensor):
        return int(projection.weight.shape[0])
    features = getattr(projection, "in_features", None)
    if not isinstance(features, int):
        raise ValueError(f"cannot read the input width of the projection {projection}")
    return features
