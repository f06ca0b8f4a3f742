"""A language model whose memory head and in-context head are made by hand."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast


def planted_model(tokenizer: PreTrainedTokenizerFast, facts: Sequence[tuple[str, ...]]) -> nn.Module:
    """One layer with two heads that attend evenly to all tokens, so that only what their values hold counts.

    Head 0 writes every true answer that stands in the prompt, head 1 the true answer of every subject. A conflict
    prompt names its subject twice and the offered answer once, so memory wins by two to one.
    """
    names = tokenizer.get_vocab()
    words = len(names)
    model = GPT2LMHeadModel(
        GPT2Config(
            **{"vocab_size": words, "n_embd": 2 * words, "n_layer": 1, "n_head": 2, "n_inner": 4, "n_positions": 64},
            **{"bos_token_id": None, "eos_token_id": None, "tie_word_embeddings": False},
        )
    ).eval()
    block = model.transformer.h[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        for norm in (block.ln_1, model.transformer.ln_f):
            norm.weight.fill_(1.0)
        # Words come in on the first half of the residual stream and leave by the second.
        model.transformer.wte.weight[:, :words] = 10 * torch.eye(words)
        model.lm_head.weight[:, words:] = torch.eye(words)
        values = block.attn.c_attn.weight[:, 4 * words :]
        for subject, answer, *_ in facts:
            values[names[answer], names[answer]] = 1.0
            values[names[subject], words + names[answer]] = 1.0
        block.attn.c_proj.weight[:words, words:] = torch.eye(words)
        block.attn.c_proj.weight[words:, words:] = torch.eye(words)
    return model
