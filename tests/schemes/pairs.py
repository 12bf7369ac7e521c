"""Small encoder-decoders and batches of pairs for the tests of schemes and objectives."""

from __future__ import annotations

import torch

from instil.core import Batch, Net
from instil.networks.encoder_decoder import encoder_decoder
from instil.tasks.seq2seq import call

VOCABULARY = 9
LENGTH = 5


def net(width: int = 8, seed: int = 0, depth: int = 1) -> Net:
    """An encoder-decoder with random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Net(encoder_decoder(VOCABULARY, width=width, depth=depth), call)


def pairs(step: int = 0, count: int = 16) -> Batch:
    """Pairs of random tokens; every fourth sample has no label."""
    generator = torch.Generator().manual_seed(step)
    ids = torch.randint(2, VOCABULARY, (count, 6), generator=generator)
    label = torch.randint(2, VOCABULARY, (count, LENGTH), generator=generator)
    length = torch.arange(count)[:, None] % (LENGTH - 1) + 1
    position = torch.arange(LENGTH)
    label = label.masked_fill(position == length, 1).masked_fill(position > length, -100)
    label[3::4] = -100
    valid = label != -100
    valid[:, 0] = True
    return {
        "input_ids": ids,
        "encoder_attention_mask": torch.ones_like(ids),
        "label": label,
        "valid": valid,
        "index": torch.arange(count) + count * step,
    }


def timed(step: int = 0) -> Batch:
    """The batch of a step, with its clock."""
    clock = {"step": torch.tensor(step), "progress": torch.tensor(0.0), "seed": torch.tensor(0)}
    return pairs(step) | clock
