"""Small language networks and batches of prompts with answers, for schemes that generate text."""

from __future__ import annotations

import torch
from torch import nn

from instil.core import Batch, Net
from instil.generation.options import Sampling
from instil.networks.causal_transformer import causal_transformer
from instil.tasks.language import call

VOCABULARY, LENGTH, END = 11, 8, 10
SAMPLING = Sampling(eos_token_id=END)
GREEDY = Sampling(temperature=0.0, eos_token_id=END)


def net(width: int = 8, seed: int = 0, depth: int = 1, sharp: float = 2.0) -> Net:
    """Return a causal network whose outputs differ from token to token."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model: nn.Module = causal_transformer(VOCABULARY, LENGTH, width, depth, 2)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.mul_(sharp)
        return Net(model, call)


def prompts(step: int = 0, size: int = 16) -> Batch:
    """Return padded rows with prompts of 1 to 3 tokens and answers of 1 to 4 tokens.

    An end token closes each answer; one row does not count.
    """
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(0, END, (size, LENGTH + 1), generator=generator)
    prompt_length = torch.randint(1, 4, (size, 1), generator=generator)
    whole = prompt_length + torch.randint(1, 5, (size, 1), generator=generator)
    position = torch.arange(LENGTH + 1)[None]
    ids[position >= whole] = END
    valid = ((position >= prompt_length) & (position <= whole))[:, 1:]
    valid[size // 2] = False
    label = ids[:, 1:].masked_fill(~valid, -100)
    mask = (position <= whole)[:, :-1].long()
    return {
        "input_ids": ids[:, :-1],
        "attention_mask": mask,
        "valid": valid,
        "label": label,
        "index": step * size + torch.arange(size),
    }


def timed(step: int = 0, progress: float = 0.5) -> Batch:
    return prompts(step) | {
        "step": torch.tensor(step),
        "progress": torch.tensor(progress),
        "seed": torch.tensor(0),
    }


def informed(width: int = 8, seed: int = 0) -> Net:
    """Return a network whose rows may have a context before them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net(causal_transformer(VOCABULARY, LENGTH + 4, width, 1, 2), call)


def with_hints(step: int = 0, size: int = 16) -> Batch:
    """Return prompts with contexts of 0 to 4 tokens in separate keys."""
    generator = torch.Generator().manual_seed(step + 1000)
    ids = torch.randint(0, END, (size, 4), generator=generator)
    there = torch.arange(4)[None] < torch.randint(0, 5, (size, 1), generator=generator)
    return prompts(step, size) | {
        "context_ids": ids.masked_fill(~there, END),
        "context_mask": there.long(),
    }


def two_tasks(step: int = 0, size: int = 16, prefix: str = "rationale_") -> Batch:
    """Return rows of answers, with those of a second task under keys of their own."""
    second = prompts(step + 100, size)
    keys = ("input_ids", "attention_mask", "valid", "label")
    return prompts(step, size) | {f"{prefix}{key}": second[key] for key in keys}
