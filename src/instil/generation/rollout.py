"""Rollouts: text generated after the prompts of a batch, independent of the batch's split."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch, Net, side_effect_free
from instil.functional.keyed_random import keyed_uniform
from instil.generation.lockstep import Lockstep
from instil.generation.reader import (
    TEXT_KEYS,
    CachedDecoder,
    ForwardFunction,
    tokens_with_images,
)
from instil.generation.sampling import ChooseTokens, choose_sampled
from instil.roles import IMAGE_TOKENS

EndTokens = int | Sequence[int] | None
"""End token, or several end tokens; None: no token ends a text."""
STREAM = "generation.tokens"
"""Random stream of the sampled tokens."""


def generate_text(
    net: Net,
    batch: Batch,
    end: EndTokens = None,
    min_prompt_tokens: int = 1,
    max_new_tokens: int | None = None,
    temperature: float = 1.0,
    top_p: float = 1.0,
    stream: str = STREAM,
    vocabulary: int | None = None,
) -> Batch:
    """Replace the text after each prompt by text that ``net`` samples.

    Args:
        net: the language model; it runs in evaluation mode.
        batch: see ``generate_with``.
        end: see ``generate_with``.
        min_prompt_tokens: see ``generate_with``.
        max_new_tokens: see ``generate_with``.
        temperature: sampling temperature; 0 takes the most likely token.
        top_p: see ``sample_tokens``.
        stream: see ``generate_with``.
        vocabulary: see ``generate_with``.

    Returns:
        The batch of ``generate_with``.
    """
    with side_effect_free(net):
        return generate_with(
            batch,
            [net],
            choose_sampled(temperature, top_p),
            end,
            min_prompt_tokens,
            max_new_tokens,
            stream,
            vocabulary,
        )


@torch.no_grad()
def generate_with(
    batch: Batch,
    nets: Sequence[ForwardFunction],
    choose: ChooseTokens,
    end: EndTokens = None,
    min_prompt_tokens: int = 1,
    max_new_tokens: int | None = None,
    stream: str = STREAM,
    vocabulary: int | None = None,
) -> Batch:
    """Generate text after each prompt, token by token, from the logits of several networks.

    The text of a row depends on the (seed, step, index) of the row, not on the other rows.

    Args:
        batch: rows of tokens with ``input_ids``, ``attention_mask``, ``valid`` (N, T) and
            ``index``. A prompt ends where ``valid`` begins, or after ``min_prompt_tokens`` tokens
            if that is later.
        nets: networks that compute the logits.
        choose: selects the next tokens.
        end: end token, or several end tokens. None: no token ends a text.
        min_prompt_tokens: minimum number of prompt tokens.
        max_new_tokens: maximum number of generated tokens. None: up to the end of the row.
        stream: name of the random stream.
        vocabulary: number of tokens that may be generated; further logits are padding of the
            model's head. None: all.

    Returns:
        Rows of the same length. ``valid`` is True where a generated token follows. There, ``token``
        (N, T) is that token (-100 elsewhere) and ``log_probability`` (N, T) its log-probability
        from ``choose`` (0 elsewhere). No position has a ``label``. Rows without a valid position
        get no text.
    """
    is_valid = batch["valid"]
    stops = stop_tokens(end)
    stop = torch.tensor(stops, dtype=torch.int64, device=is_valid.device)
    # All numbers at once, keyed by sample: a text does not depend on the other texts of the batch.
    numbers = keyed_uniform(batch, 2 * is_valid.shape[1], stream).view(*is_valid.shape, 2)
    start = prompt_lengths(batch, min_prompt_tokens)
    # One more column: targets are inputs shifted by one, so the last target lies behind the row.
    ids = torch.cat([batch["input_ids"], torch.zeros_like(batch["input_ids"][:, :1])], 1)
    log_probability = torch.zeros(ids.shape, device=ids.device)
    length = start.clone()
    is_running = is_valid.any(1)
    decoders = [CachedDecoder(net, batch, start) for net in nets]
    limit = min(max_new_tokens or is_valid.shape[1], is_valid.shape[1])
    lockstep = Lockstep(nets)
    for turn in itertools.count():
        is_running = is_running & (length < ids.shape[1]) & (turn < limit)
        # Waits for the device once per token, which saves the forward passes after the last end
        # token. Those of a sharded network go on until the texts of all processes have ended.
        if not lockstep.any(bool(is_running.any())):
            break
        last = (start + turn - 1).clamp_max(ids.shape[1] - 2)
        logits = [decoder(ids, last)[:, :vocabulary] for decoder in decoders]
        token, log = choose(logits, numbers[:, min(turn, limit - 1)])
        column = torch.where(is_running, length, ids.shape[1] - 1)
        _write_column(ids, column, token, is_running)
        _write_column(log_probability, column, log.float(), is_running)
        length = length + is_running
        is_running = is_running & ~torch.isin(token, stop)
    text = _text(ids, log_probability, start, length, next(iter(stops), 0))
    text["attention_mask"] = text["attention_mask"].to(batch["attention_mask"].dtype)
    return {key: value for key, value in batch.items() if key not in TEXT_KEYS} | text


def _text(
    ids: Tensor, log_probability: Tensor, start: Tensor, length: Tensor, padding: int
) -> dict[str, Tensor]:
    """Batch entries of tokens (N, T + 1) that were generated from ``start`` to ``length``."""
    column = torch.arange(ids.shape[1], device=ids.device)[None]
    is_text = column < length[:, None]
    is_new = (column >= start[:, None]) & is_text
    return {
        "input_ids": torch.where(is_text, ids, ids.new_full((), padding))[:, :-1],
        "attention_mask": is_text[:, :-1],
        "valid": is_new[:, 1:],
        # Generated text has no labels; the sampled tokens are in ``token``.
        "label": torch.full_like(ids[:, 1:], UNLABELLED),
        "token": torch.where(is_new, ids, UNLABELLED)[:, 1:],
        "log_probability": torch.where(is_new, log_probability, 0.0)[:, 1:],
    }


def text_of_tokens(
    batch: Batch,
    texts: Sequence[tuple[Sequence[int], Sequence[float] | None]],
    end: EndTokens = None,
    min_prompt_tokens: int = 1,
) -> Batch:
    """Replace the text after each prompt by tokens that were generated elsewhere.

    Args:
        batch: see ``generate_with``.
        texts: tokens of each row with their log-probabilities, or None for these.
        end: see ``generate_with``.
        min_prompt_tokens: see ``generate_with``.

    Returns:
        The batch of ``generate_with``, without ``log_probability`` if a text has none.
    """
    start = prompt_lengths(batch, min_prompt_tokens)
    ids = torch.cat([batch["input_ids"], torch.zeros_like(batch["input_ids"][:, :1])], 1)
    log_probability = torch.zeros(ids.shape, device=ids.device)
    length = start.clone()
    for row, (tokens, log_probs) in enumerate(texts):
        first = int(start[row])
        last = first + len(tokens)
        ids[row, first:last] = ids.new_tensor(tokens)
        log_probability[row, first:last] = log_probability.new_tensor(log_probs or 0.0)
        length[row] = last
    text = _text(ids, log_probability, start, length, next(iter(stop_tokens(end)), 0))
    text["attention_mask"] = text["attention_mask"].to(batch["attention_mask"].dtype)
    if any(log_probs is None for _, log_probs in texts):
        del text["log_probability"]
    return {key: value for key, value in batch.items() if key not in TEXT_KEYS} | text


def stop_tokens(end: EndTokens) -> tuple[int, ...]:
    """Tuple of the end tokens; empty for None."""
    if end is None:
        return ()
    return (end,) if isinstance(end, int) else tuple(end)


def prompt_lengths(batch: Batch, min_prompt_tokens: int = 1) -> Tensor:
    """Compute the length of each row's prompt: the tokens up to the first valid position.

    The prompt of a row with images goes on to the first valid position after the last one.

    Args:
        batch: rows of tokens.
        min_prompt_tokens: minimum length of a prompt in a row that is long enough.

    Returns:
        Numbers of tokens (N,), at least 1.
    """
    is_answer = batch["valid"]
    with_images = tokens_with_images(batch)
    if IMAGE_TOKENS in batch:
        column = torch.arange(1, is_answer.shape[1] + 1, device=is_answer.device)
        is_answer = is_answer & (column >= with_images[:, None])
    lengths: Tensor = (is_answer.int().argmax(1) + 1).clamp_min(min_prompt_tokens)
    lengths = lengths.maximum(with_images)
    return lengths.minimum(batch["attention_mask"].sum(1).clamp_min(1))


def _write_column(rows: Tensor, column: Tensor, values: Tensor, mask: Tensor) -> None:
    """Write values (N,) into a column of each row of the mask, in place."""
    before = rows.gather(1, column[:, None])
    rows.scatter_(1, column[:, None], torch.where(mask[:, None], values[:, None], before))
