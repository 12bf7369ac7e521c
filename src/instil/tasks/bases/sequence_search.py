"""Search for the most likely sequences of an encoder-decoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch, side_effect_free
from instil.generation.sequences import (
    DEFAULT_LENGTH,
    SEARCH,
    SequenceSearch,
    beam_search,
    padded_to,
    special_tokens,
)
from instil.tasks.bases.encoder_decoder_head import project
from instil.tasks.bases.encoder_decoder_parts import Memory, decoded


class DeferredSearch:
    """Search for likely sequences, which runs when its role is read.

    Args:
        model: the model.
        inputs: inputs of the encoder.
        memory: outputs of the encoder; None for a model without ``get_encoder``.
        batch: the batch, with the options of the search.
        scale: factor before the head; None where the model's own logits are used.
    """

    def __init__(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        memory: Memory | None,
        batch: Batch,
        scale: float | None,
    ):
        self.model = model
        self.inputs = inputs
        self.memory = memory
        self.scale = scale
        self.search = search_options(batch)

    @torch.no_grad()
    def __call__(self) -> Tensor:
        """Return the hypotheses (N, beams, L), the best first."""
        first = next(iter(self.inputs.values()))
        with side_effect_free(self.model):
            if getattr(self.model, "can_generate", bool)():
                return transformers_sequences(self.model, self.inputs, self.search)
            tokens = special_tokens(self.model)
            return beam_search(self._next_logits, len(first), tokens, self.search, first.device)[0]

    def _next_logits(self, ids: Tensor) -> Tensor:
        """Logits (M, V) of the token after the last one; M is N times the beams."""
        beams = self.search.beams
        if self.memory is None or self.scale is None:
            inputs = {key: value.repeat_interleave(beams, 0) for key, value in self.inputs.items()}
            result = self.model(**inputs, decoder_input_ids=ids)
            logits: Tensor = result["logits"] if isinstance(result, Mapping) else result
            return logits[:, ids.shape[1] - 1]
        state = self.memory.outputs["last_hidden_state"].repeat_interleave(beams, 0)
        mask = self.memory.mask
        mask = None if mask is None else mask.repeat_interleave(beams, 0)
        outputs = decoded(self.model, Memory({"last_hidden_state": state}, mask), ids)
        return project(self.model, outputs["last_hidden_state"][:, -1], self.scale).logits()


def search_options(batch: Batch) -> SequenceSearch:
    """Return the options of the search; the length is that of the labels by default."""
    search: SequenceSearch = batch.get(SEARCH, SequenceSearch())
    if search.max_length is not None:
        return search
    label = batch.get("label")
    length = DEFAULT_LENGTH if label is None else label.shape[1]
    return replace(search, max_length=length)


def transformers_sequences(
    model: Any, inputs: Mapping[str, Tensor], search: SequenceSearch
) -> Tensor:
    """Search with ``generate`` of transformers, which has a cache.

    Args:
        model: encoder-decoder of transformers.
        inputs: inputs of the encoder.
        search: options of the search.

    Returns:
        (N, beams, L), padded with -100, the best first.
    """
    from transformers import GenerationMixin

    # Whisper overrides ``generate`` by one that needs the tokens of a pretrained tokenizer.
    result = GenerationMixin.generate(
        model,
        **inputs,
        do_sample=False,
        num_beams=search.beams,
        num_return_sequences=search.beams,
        length_penalty=search.length_penalty,
        max_new_tokens=search.max_length,
    )
    ids = result[:, 1:].unflatten(0, (-1, search.beams))
    ends = torch.tensor(special_tokens(model).ends, device=ids.device)
    is_end = torch.isin(ids, ends)
    is_after = is_end.cumsum(-1) - is_end.long() > 0
    return padded_to(ids.masked_fill(is_after, UNLABELLED), search.max_length or DEFAULT_LENGTH)
