"""Coloured handwritten digits, each with a sentence that says what is seen."""

from __future__ import annotations

import torch
from torch import Tensor

from instil.data.images import ArrayData
from instil.data.samples import TensorData
from instil.data.sources.digits import digit_parts
from instil.data.splits import Splits

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
COLOURS = {
    "red": (1.0, 0.1, 0.1),
    "green": (0.1, 1.0, 0.1),
    "blue": (0.2, 0.2, 1.0),
    "yellow": (1.0, 1.0, 0.1),
    "pink": (1.0, 0.2, 1.0),
    "white": (1.0, 1.0, 1.0),
}
TEMPLATES = (
    "a {colour} {digit}",
    "the digit {digit} in {colour}",
    "this {digit} is {colour}",
    "{colour} ink , a {digit}",
)
PADDING = "<pad>"
WORDS = (
    PADDING,
    *sorted(
        {word for text in TEMPLATES for word in text.split() if "{" not in word}
        | {*NAMES, *COLOURS}
    ),
)
LENGTH = max(len(text.split()) for text in TEMPLATES)
SEEDS = (0, 1, 2)  # of train, validation and test


def digit_captions() -> Splits:
    """``image`` (N, 3, 8, 8), a digit in one of six colours, and its caption as ``input_ids`` and ``attention_mask`` (N, 5); one token a word.

    ``label`` is the digit: for judging, a net that learns from captions does not see it.
    """
    train, validation, test = map(_pairs, digit_parts(), SEEDS)
    return Splits(train, validation, test, train.classes, train.kind)


def caption(ids: Tensor) -> str:
    """The sentence of these tokens."""
    return " ".join(WORDS[number] for number in ids.tolist() if WORDS[number] != PADDING)


def _pairs(source: ArrayData, seed: int) -> TensorData:
    generator = torch.Generator().manual_seed(seed)
    colour = torch.randint(len(COLOURS), (len(source),), generator=generator)
    template = torch.randint(len(TEMPLATES), (len(source),), generator=generator)
    image = source.image * torch.tensor(list(COLOURS.values()))[colour][:, :, None, None]
    names = list(COLOURS)
    said = zip(template.tolist(), colour.tolist(), source.label.tolist(), strict=True)
    ids = torch.stack(
        [_tokens(TEMPLATES[t].format(colour=names[c], digit=NAMES[d])) for t, c, d in said]
    )
    facts = {"channels": 3, "size": source.shape[1], "vocabulary": len(WORDS), "length": LENGTH}
    return TensorData(
        {"image": image, "input_ids": ids, "attention_mask": (ids > 0).long()},
        source.label,
        NAMES,
        facts,
    )


def _tokens(text: str) -> Tensor:
    numbers = [WORDS.index(word) for word in text.split()]
    return torch.tensor(numbers + [0] * (LENGTH - len(numbers)))
