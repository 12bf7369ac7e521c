"""Beam search of encoder-decoders, and the special tokens of their decoders."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, NamedTuple

import torch
from annotated_types import Ge
from torch import Tensor, nn
from typing_extensions import Doc

from instil.core import UNLABELLED, NonNegative, to_float32

NextLogits = Callable[[Tensor], Tensor]
"""Maps the tokens so far (M, t) to the logits (M, V) of the next token; M is N times the beams."""
SEARCH = "sequence_search"
"""Key of a batch with the ``SequenceSearch`` of the role ``sequence``."""
DEFAULT_LENGTH = 64
"""Largest length of a sequence for batches without labels."""


class SpecialTokens(NamedTuple):
    """Tokens with a meaning for the decoder.

    Attributes:
        start: first input of the decoder.
        ends: tokens that end a sequence.
        pad: input of the decoder after the end of a sequence.
    """

    start: int = 0
    ends: tuple[int, ...] = (1,)
    pad: int = 0


@dataclass(frozen=True)
class SequenceSearch:
    """Options of the search for the most likely sequence of an encoder-decoder.

    Example:
        >>> SequenceSearch(beams=5).length_penalty
        1.0
    """

    beams: Annotated[
        int, Ge(1), Doc("number of hypotheses that the search keeps; 1: greedy search")
    ] = 1
    length_penalty: Annotated[
        NonNegative,
        Doc("exponent of the length by which the log-probability of a hypothesis is divided"),
    ] = 1.0
    max_length: Annotated[
        Annotated[int, Ge(1)] | None,
        Doc("largest number of tokens with the end token; null: the length of the labels"),
    ] = None


SearchOption = Annotated[SequenceSearch, Doc("options of the teacher's search for sequences")]


def special_tokens(model: nn.Module) -> SpecialTokens:
    """Return the special tokens of a model: its attribute, or those of its configuration.

    Args:
        model: model with ``special_tokens``, or with a configuration of transformers.
    """
    own = getattr(model, "special_tokens", None)
    if isinstance(own, SpecialTokens):
        return own
    config: Any = getattr(model, "generation_config", None) or getattr(model, "config", None)
    start = getattr(config, "decoder_start_token_id", None)
    end = getattr(config, "eos_token_id", None)
    pad = getattr(config, "pad_token_id", None)
    if end is None:
        end = SpecialTokens().ends
    ends = tuple(end) if isinstance(end, (list, tuple)) else (int(end),)
    first = pad if start is None else start
    return SpecialTokens(first or 0, ends, pad or 0)


def shift_right(target: Tensor, tokens: SpecialTokens) -> Tensor:
    """Return the inputs of a decoder that predicts ``target``.

    Args:
        target: token ids (N, L), padded with -100.
        tokens: special tokens of the decoder.

    Returns:
        (N, L): the start token and all targets but the last.

    Example:
        >>> shift_right(torch.tensor([[5, 6, 1, -100]]), SpecialTokens())
        tensor([[0, 5, 6, 1]])
    """
    start = torch.full_like(target[:, :1], tokens.start)
    shifted = torch.cat([start, target[:, :-1]], 1)
    return shifted.masked_fill(shifted == UNLABELLED, tokens.pad)


@torch.no_grad()
def beam_search(
    next_logits: NextLogits,
    num_rows: int,
    tokens: SpecialTokens,
    search: SequenceSearch,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Find likely sequences token by token (Sutskever et al. 2014); one beam is greedy search.

    Hypotheses are ranked by their log-probability divided by a power of their length (Wu et al.
    2016, without the constants).

    Args:
        next_logits: logits of the next token for each hypothesis of each row.
        num_rows: number N of rows.
        tokens: special tokens of the decoder.
        search: number of beams, exponent of the length and largest length.
        device: device of the tokens.

    Returns:
        Sequences (N, beams, L) with their end token, padded with -100, the best first, and their
        ranks (N, beams): log-probability divided by the power of the length.
    """
    beams = search.beams
    max_length = search.max_length or DEFAULT_LENGTH
    ids = torch.full((num_rows, beams, 1), tokens.start, device=device)
    # All beams begin equal: only the first one may be continued in the first step.
    scores = torch.full((num_rows, beams), -torch.inf, device=device)
    scores[:, 0] = 0
    length = torch.zeros_like(ids[..., 0])
    is_running = torch.ones_like(length, dtype=torch.bool)
    ends = torch.tensor(tokens.ends, device=device)
    rank = scores
    for _ in range(max_length):
        logits = to_float32(next_logits(ids.flatten(0, 1)))
        log = logits.log_softmax(-1).view(num_rows, beams, -1)
        size = log.shape[-1]
        # A hypothesis that has ended has one continuation, which costs nothing.
        ended = torch.full_like(log[:1, :1], -torch.inf)
        ended[..., tokens.ends[0]] = 0
        total = scores[..., None] + torch.where(is_running[..., None], log, ended)
        new_length = length + is_running
        ranks = total / new_length[..., None] ** search.length_penalty
        rank, index = ranks.flatten(1).topk(beams)
        beam = index // size
        token = index % size
        scores = total.flatten(1).gather(1, index)
        length = new_length.gather(1, beam)
        was_running = is_running.gather(1, beam)
        history = ids.gather(1, beam[..., None].expand_as(ids))
        ids = torch.cat([history, token[..., None]], -1)
        is_running = was_running & ~torch.isin(token, ends)
        if not is_running.any():
            break
    sequences = ids[..., 1:]
    position = torch.arange(sequences.shape[-1], device=device)
    sequences = sequences.masked_fill(position >= length[..., None], UNLABELLED)
    return padded_to(sequences, max_length), rank


def padded_to(sequences: Tensor, length: int) -> Tensor:
    """Pad sequences (..., L) with -100, or cut them, to ``length`` tokens."""
    missing = max(0, length - sequences.shape[-1])
    padded = nn.functional.pad(sequences, (0, missing), value=UNLABELLED)
    return padded[..., :length]
