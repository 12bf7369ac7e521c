"""A small transformer that predicts the next token (Radford et al. 2018), asked as transformers' causal models are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from instil.networks.text_transformer import KeyValueCache, TransformerBlock


class CausalBody(nn.Module):
    """Tokens with learned positions through ``stages`` of one block each, where a token sees those before it; gives the normed last state."""

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
        """As of transformers' models: with ``use_cache`` the next tokens need no more than what came back as ``cache``."""
        read: Sequence[KeyValueCache | None] = cache or [
            [] if use_cache else None for _ in self.stages
        ]
        before = read[0][0].shape[2] if read[0] else 0
        length, most = input_ids.shape[1], self.position.shape[1]
        if length > most:
            raise ValueError(
                f"a text of {length} tokens is longer than the {most} that this net was built for"
            )
        place = (
            torch.arange(before, before + length, device=input_ids.device)[None]
            if position_ids is None
            else position_ids
        )
        state = self.tokens(input_ids) + self.position[0, place]
        seen = torch.ones(length, before + length, dtype=torch.bool, device=state.device).tril(
            before
        )[None, None]
        if attention_mask is not None:
            seen = seen & attention_mask[:, None, None].bool()
        hidden = torch.zeros_like(seen, dtype=state.dtype).masked_fill(
            ~seen, torch.finfo(state.dtype).min
        )
        states, attentions = [state], []
        for stage, kept in zip(self.stages, read, strict=True):
            state, probability = stage(state, hidden, kept)
            states.append(state)
            attentions.append(probability)
        states[-1] = self.norm(state)  # as transformers has it
        answer = {
            "last_hidden_state": states[-1],
            "hidden_states": tuple(states),
            "attentions": tuple(attentions),
        }
        return answer | ({"cache": read} if use_cache else {})


class CausalTransformer(nn.Module):
    """The body, and a linear head without bias that shares its weight with the tokens' embedding."""

    def __init__(self, vocabulary: int, length: int, width: int, depth: int, heads: int):
        super().__init__()
        self.base_model = CausalBody(vocabulary, length, width, depth, heads)
        self.head = nn.Linear(width, vocabulary, bias=False)
        self.head.weight = self.base_model.tokens.weight

    def get_input_embeddings(self) -> nn.Embedding:
        """Of the tokens."""
        return self.base_model.tokens

    def get_output_embeddings(self) -> nn.Linear:
        """The head."""
        return self.head

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor | None = None
    ) -> dict[str, Tensor | tuple[Tensor, ...]]:
        answer = self.base_model(input_ids, attention_mask)
        return {"logits": self.head(answer["last_hidden_state"]), **answer}


def causal_transformer(
    vocabulary: int, length: int = 128, width: int = 32, depth: int = 2, heads: int = 2
) -> nn.Module:
    """37,792 parameters for 257 tokens and rows of 128 at the defaults; ``input_ids`` and ``attention_mask`` (N, T)."""
    if width % heads:
        raise ValueError(f"width {width} is not a multiple of heads {heads}")
    return CausalTransformer(vocabulary, length, width, depth, heads)
