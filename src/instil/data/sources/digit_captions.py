"""Source ``digit_captions``: coloured handwritten digits with captions."""

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
"""Red, green and blue factor of each colour."""
TEMPLATES = (
    "a {colour} {digit}",
    "the digit {digit} in {colour}",
    "this {digit} is {colour}",
    "{colour} ink , a {digit}",
)
PADDING = "<pad>"
TEMPLATE_WORDS = {word for word in " ".join(TEMPLATES).split() if "{" not in word}
WORDS = (PADDING, *sorted(TEMPLATE_WORDS | {*NAMES, *COLOURS}))
"""Vocabulary; the index of a word is its token id."""
LENGTH = max(len(text.split()) for text in TEMPLATES)
SEEDS = (0, 1, 2)
"""Random seeds of the train, validation and test samples."""


def digit_captions() -> Splits:
    """Digits in one of six colours, each with a caption, for image-text models.

    Samples have ``image`` (N, 3, 8, 8) and the caption as ``input_ids`` and ``attention_mask``
    (N, 5), one token per word. ``label`` is the digit; it is for evaluation only. A network that
    learns from captions does not read it.

    Returns:
        Train, validation and test data.
    """
    train, validation, test = map(_pairs, digit_parts(), SEEDS)
    return Splits(train, validation, test, train.classes, train.kind)


def caption(ids: Tensor) -> str:
    """Return the caption of token ids (L,), without padding."""
    words = [WORDS[token] for token in ids.tolist()]
    return " ".join(word for word in words if word != PADDING)


def _pairs(source: ArrayData, seed: int) -> TensorData:
    generator = torch.Generator().manual_seed(seed)
    colour = torch.randint(len(COLOURS), (len(source),), generator=generator)
    template = torch.randint(len(TEMPLATES), (len(source),), generator=generator)
    image = source.image * torch.tensor(list(COLOURS.values()))[colour][:, :, None, None]
    names = list(COLOURS)
    choices = zip(template.tolist(), colour.tolist(), source.label.tolist(), strict=True)
    ids = torch.stack(
        [_tokens(TEMPLATES[t].format(colour=names[c], digit=NAMES[d])) for t, c, d in choices]
    )
    facts = {"channels": 3, "size": source.shape[1], "vocabulary": len(WORDS), "length": LENGTH}
    return TensorData(
        {"image": image, "input_ids": ids, "attention_mask": (ids > 0).long()},
        source.label,
        NAMES,
        facts,
    )


def _tokens(text: str) -> Tensor:
    """Token ids (LENGTH,) of a caption, padded with 0."""
    ids = [WORDS.index(word) for word in text.split()]
    return torch.tensor(ids + [0] * (LENGTH - len(ids)))
