"""A small causal transformer (Radford et al. 2018), called like the models of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from instil.cards import NonNegativeInt, PositiveInt
from instil.networks.attention_heads import check_heads
from instil.networks.text_transformer import KeyValueCache, TransformerBlock


class CausalBody(nn.Module):
    """Embeddings with learned positions, ``stages`` of one causal block each, and a layer norm.

    Args:
        vocabulary: number of tokens.
        length: largest number of tokens per row.
        width: width of the hidden states.
        depth: number of blocks.
        heads: number of attention heads.
    """

    def __init__(self, vocabulary: int, length: int, width: int, depth: int, heads: int):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        nn.init.normal_(self.tokens.weight, std=0.02)
        self.position = nn.Parameter(torch.randn(1, length, width) * 0.02)
        self.stages = nn.ModuleList(TransformerBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Sequence[KeyValueCache] | None = None,
        use_cache: bool = False,
    ) -> dict[str, Any]:
        """Compute the hidden states of tokens.

        Args:
            input_ids: (N, T).
            attention_mask: (N, S + T), over the S tokens in the cache and these; 0 for padding. Or
                (N, 1, T, T), 1 for each pair of tokens that may see one another.
            position_ids: (N, T); by default the positions after the cache.
            cache: ``cache`` of an earlier call; it is extended in place.
            use_cache: whether to return a cache.

        Returns:
            ``last_hidden_state``, ``hidden_states`` and ``attentions`` as in transformers, and
            ``cache`` with ``use_cache``.

        Raises:
            ValueError: if the text is longer than ``length``.
        """
        caches: Sequence[KeyValueCache | None] = cache or [
            [] if use_cache else None for _ in self.stages
        ]
        num_cached = caches[0][0].shape[2] if caches[0] else 0
        length = input_ids.shape[1]
        self._check_length(length)
        if position_ids is None:
            end = num_cached + length
            position_ids = torch.arange(num_cached, end, device=input_ids.device)[None]
        state = self.tokens(input_ids) + self.position[0, position_ids]
        mask_bias = _mask_bias(state, num_cached, attention_mask)
        states = [state]
        attentions = []
        for stage, stage_cache in zip(self.stages, caches, strict=True):
            state, probability = stage(state, mask_bias, stage_cache)
            states.append(state)
            attentions.append(probability)
        # In transformers, too, the last of the hidden states is the one after the norm.
        states[-1] = self.norm(state)
        outputs = {
            "last_hidden_state": states[-1],
            "hidden_states": tuple(states),
            "attentions": tuple(attentions),
        }
        return outputs | ({"cache": caches} if use_cache else {})

    def _check_length(self, length: int) -> None:
        longest = self.position.shape[1]
        if length > longest:
            raise ValueError(
                f"a text of {length} tokens is longer than the {longest} that this net was built "
                "for"
            )


def _mask_bias(state: Tensor, num_cached: int, attention_mask: Tensor | None) -> Tensor:
    """Addend of the attention scores: 0 for visible tokens, very negative for others."""
    length = state.shape[1]
    visible = torch.ones(length, num_cached + length, dtype=torch.bool, device=state.device)
    visible = visible.tril(num_cached)[None, None]
    if attention_mask is not None:
        if attention_mask.ndim == 2:
            attention_mask = attention_mask[:, None, None]
        visible = visible & attention_mask.bool()
    # Finite and not -inf: a row without any visible token would become NaN in the softmax.
    lowest = torch.finfo(state.dtype).min
    return torch.zeros_like(visible, dtype=state.dtype).masked_fill(~visible, lowest)


class CausalTransformer(nn.Module):
    """``CausalBody`` and a linear head without bias that shares the weight of the embedding.

    Args:
        vocabulary: number of tokens.
        length: largest number of tokens per row.
        width: width of the hidden states.
        depth: number of blocks.
        heads: number of attention heads.
    """

    def __init__(self, vocabulary: int, length: int, width: int, depth: int, heads: int):
        super().__init__()
        self.base_model = CausalBody(vocabulary, length, width, depth, heads)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.base_model.tokens.weight

    def get_input_embeddings(self) -> nn.Embedding:
        """Return the embedding of the tokens."""
        return self.base_model.tokens

    def get_output_embeddings(self) -> nn.Linear:
        """Return the head."""
        return self.head

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> dict[str, Tensor | tuple[Tensor, ...]]:
        """Compute ``logits`` (N, T, V) and the outputs of the body.

        Args:
            input_ids: (N, T).
            attention_mask: (N, T), 0 for padding.
        """
        outputs = self.base_model(input_ids, attention_mask)
        return {"logits": self.head(outputs["last_hidden_state"]), **outputs}


def causal_transformer(
    vocabulary: PositiveInt,
    length: PositiveInt = 128,
    width: PositiveInt = 32,
    depth: NonNegativeInt = 2,
    heads: PositiveInt = 2,
) -> nn.Module:
    """Build a causal transformer: 37,792 parameters for 257 tokens at the defaults.

    Args:
        vocabulary: number of tokens.
        length: largest number of tokens per row.
        width: width of the hidden states, a multiple of ``heads``.
        depth: number of blocks.
        heads: number of attention heads.

    Raises:
        ValueError: if ``width`` is not a multiple of ``heads``.
    """
    check_heads(width, heads)
    return CausalTransformer(vocabulary, length, width, depth, heads)
