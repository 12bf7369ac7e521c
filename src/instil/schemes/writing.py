"""Text that nets write after the prompts of a batch, token by token, the same for any cut of the batch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch, Net, Outputs, dry, first, full, passed, uniform

Ask = Callable[[Batch], Outputs]
Choose = Callable[[Sequence[Tensor], Tensor], tuple[Tensor, Tensor]]
"""Of the logits (N, V) of each net and two numbers in [0, 1) a row: the next token (N,), and the log-probability by which it was drawn."""
WRITING = 3001
"""A salt."""
ROWS = ("input_ids", "attention_mask", "valid", "label", "token", "log_probability")
"""What the rows of a text are made of."""


def continued(
    net: Net,
    batch: Batch,
    end: int | None = None,
    prompt: int = 1,
    max_new_tokens: int | None = None,
    temperature: float = 1.0,
    top_p: float = 1.0,
    salt: int = WRITING,
) -> Batch:
    """The batch with, after each prompt, what ``net`` says next instead of what was there; the other arguments are those of ``written``."""
    with dry(net):
        return written(
            batch,
            [net],
            lambda logits, numbers: drawn(logits[0], numbers[:, 0], temperature, top_p),
            end,
            prompt,
            max_new_tokens,
            salt,
        )


def drawn(
    logits: Tensor, numbers: Tensor, temperature: float = 1.0, top_p: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Tokens (N,) of logits (N, V) by numbers (N,) in [0, 1), and their log-probabilities at that temperature, of all tokens.

    A token is where the cumulated probability passes the number. ``top_p``: only the likeliest tokens that together have at least so much.
    ``temperature`` 0: the likeliest one, its log-probability that of temperature 1.
    """
    log = (full(logits) if temperature in (0, 1) else full(logits) / temperature).log_softmax(-1)
    token = picked(log.exp(), numbers, top_p) if temperature else log.argmax(-1)
    return token, log.gather(-1, token[:, None]).squeeze(-1)


def picked(probability: Tensor, numbers: Tensor, top_p: float = 1.0) -> Tensor:
    """Tokens (N,) of probabilities (N, V) by numbers (N,) in [0, 1)."""
    kept = probability
    if top_p < 1:
        ordered, order = probability.sort(dim=-1, descending=True, stable=True)
        among = ordered.cumsum(-1, dtype=torch.float64) - ordered < top_p
        kept = probability * torch.zeros_like(among).scatter(-1, order, among)
    return passed(kept.cumsum(-1, dtype=torch.float64), numbers[:, None]).squeeze(-1)


@torch.no_grad()
def written(
    batch: Batch,
    asks: Sequence[Ask],
    choose: Choose,
    end: int | None = None,
    prompt: int = 1,
    max_new_tokens: int | None = None,
    salt: int = WRITING,
) -> Batch:
    """Rows of the same length, with text after each prompt that ``choose`` picks from what all ``asks`` say, drawn by (seed, step, index).

    A row's prompt ends where ``valid`` (N, T) begins, or after ``prompt`` tokens if that is later. The text ends with the token ``end``, with the
    row, or after ``max_new_tokens``. ``valid`` is True where a written token follows, ``token`` (N, T) says which (-100 elsewhere),
    ``log_probability`` (N, T) with what probability it was drawn (0 elsewhere); nothing has a ``label``. Rows of which nothing counted are left
    without a text.
    """
    given = batch["valid"]
    numbers = uniform(batch, 2 * given.shape[1], salt).view(*given.shape, 2)
    start = (
        (given.int().argmax(1) + 1)
        .clamp_min(prompt)
        .minimum(batch["attention_mask"].sum(1).clamp_min(1))
    )
    ids = torch.cat([batch["input_ids"], torch.zeros_like(batch["input_ids"][:, :1])], 1)
    log_probability = torch.zeros(ids.shape, device=ids.device)
    length, writes = start.clone(), given.any(1)
    readers = [_Reader(ask, batch, start) for ask in asks]
    for turn in range(min(max_new_tokens or given.shape[1], given.shape[1])):
        writes = writes & (length < ids.shape[1])
        if not writes.any():
            break
        last = (start + turn - 1).clamp_max(ids.shape[1] - 2)
        token, log = choose([reader(ids, last) for reader in readers], numbers[:, turn])
        place = torch.where(writes, length, ids.shape[1] - 1)[:, None]
        ids.scatter_(1, place, torch.where(writes[:, None], token[:, None], ids.gather(1, place)))
        log_probability.scatter_(
            1,
            place,
            torch.where(writes[:, None], log[:, None].float(), log_probability.gather(1, place)),
        )
        length = length + writes
        writes = writes & (token != end) if end is not None else writes
    place = torch.arange(ids.shape[1], device=ids.device)[None]
    new = (place >= start[:, None]) & (place < length[:, None])
    text = {
        "input_ids": torch.where(place < length[:, None], ids, ids.new_full((), end or 0))[:, :-1],
        "attention_mask": (place < length[:, None])[:, :-1].to(batch["attention_mask"].dtype),
        "valid": new[:, 1:],
        "label": torch.full_like(ids[:, 1:], UNLABELLED),
        "token": torch.where(new, ids, UNLABELLED)[:, 1:],
        "log_probability": torch.where(new, log_probability, 0.0)[:, 1:],
    }
    return {key: value for key, value in batch.items() if key not in ("bytes", *ROWS)} | text


class _Reader:
    """One net that reads rows of text token by token, and remembers them in its cache where it has one."""

    def __init__(self, ask: Ask, batch: Batch, start: Tensor):
        self.ask, self.batch = (
            ask,
            {key: value for key, value in batch.items() if key not in (*ROWS, "bytes")},
        )
        before = (
            int(start.max()) - 1
        )  # of every prompt all but its last token is read at once; what is missing to the longest one is masked
        place = torch.arange(before, device=start.device)[None].expand(len(start), -1)
        self.mask = (place < start[:, None] - 1).long()
        self.past, self.caches = None, True
        if before:
            mask = torch.cat(
                [torch.ones_like(self.mask[:, :1]), self.mask[:, 1:]], 1
            )  # attention to nothing at all is not defined
            outputs = ask(self._seen(batch["input_ids"][:, :before], mask, place))
            self.past, self.caches = outputs.get("past"), "past" in outputs

    def __call__(self, ids: Tensor, last: Tensor) -> Tensor:
        """The logits (N, V) of the token that follows place ``last`` (N,) of each row."""
        if not self.caches:
            return self._anew(ids, last)
        self.mask = torch.cat([self.mask, torch.ones_like(last[:, None])], 1)
        outputs = self.ask(self._seen(ids.gather(1, last[:, None]), self.mask, last[:, None]))
        self.past, self.caches = outputs.get("past"), "past" in outputs
        logits: Tensor = outputs["logits"][:, -1]
        return logits

    def _anew(self, ids: Tensor, last: Tensor) -> Tensor:
        """The same by a net without a cache, of the whole rows."""
        place = torch.arange(int(last.max()) + 1, device=last.device)[None]
        mask = (place <= last[:, None]).long()
        logits: Tensor = self.ask(
            {"input_ids": ids[:, : mask.shape[1]], "attention_mask": mask} | self.batch
        )["logits"]
        return logits[torch.arange(len(last), device=last.device), last]

    def _seen(self, ids: Tensor, mask: Tensor, place: Tensor) -> Batch:
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": place,
            "past": self.past,
        } | self.batch


def some(batch: Batch, rows: Tensor) -> Batch:
    """These rows of a batch, with its clock."""
    number = len(first(batch))
    return {
        key: value[rows]
        if isinstance(value, Tensor) and value.ndim and len(value) == number
        else value
        for key, value in batch.items()
    }


def by_step(batch: Batch, salt: int) -> float:
    """A number in [0, 1) of (seed, step) alone, alike for all micro-batches and ranks."""
    return float(
        uniform(
            {key: batch[key] for key in ("seed", "step") if key in batch}
            | {"index": torch.zeros(1, dtype=torch.int64)},
            1,
            salt,
        )
    )


def log_probabilities(logits: Tensor, token: Tensor) -> Tensor:
    """Of tokens (N, T), -100 where there is none, the log-probability by logits (N, T, V) at their places, 0 where there is none."""
    there = token != UNLABELLED
    log = full(logits).log_softmax(-1).gather(-1, token.clamp_min(0)[..., None]).squeeze(-1)
    return torch.where(there, log, 0.0)
