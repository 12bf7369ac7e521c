"""Source ``digit_captions``: coloured handwritten digits with captions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.cards import suggestion
from instil.core import Batch
from instil.data.images import ArrayData
from instil.data.samples import TensorData
from instil.data.sources.digits import digit_parts
from instil.data.splits import Splits
from instil.data.unpaired import unpair

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


def digit_captions(
    num_pairs: Annotated[
        Annotated[int, Ge(1)] | None,
        Doc("training images with their caption; the others have that of another one. null: all"),
    ] = None,
) -> Splits:
    """Digits in one of six colours, each with a caption, for image-text models.

    Samples have ``image`` (N, 3, 8, 8) and the caption as ``input_ids`` and ``attention_mask``
    (N, 5), one token per word. ``label`` is the digit; it is for evaluation only. A network that
    learns from captions does not read it. With ``num_pairs``, ``is_pair`` (N,) is False for the
    training images with the caption of another one.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for more pairs than training images.
    """
    train, validation, test = map(_pairs, digit_parts(), SEEDS)
    if num_pairs is not None:
        unpair(train, num_pairs, ("input_ids", "attention_mask"))
    for part in (train, validation, test):
        part.encode_texts = encode_texts
    return Splits(train, validation, test, train.classes, train.kind)


def encode_texts(texts: Sequence[str]) -> Batch:
    """Return ``input_ids`` and ``attention_mask`` (N, 5) of texts.

    Raises:
        ValueError: for a word that no caption has, and a text with more words.
    """
    for text in texts:
        for word in text.split():
            if word not in WORDS[1:]:
                raise ValueError(
                    f"'{text}': the captions have no word '{word}'.{suggestion(word, WORDS[1:])}"
                )
        if len(text.split()) > LENGTH:
            raise ValueError(f"'{text}': too long. Expected at most {LENGTH} words")
    ids = torch.stack([_tokens(text) for text in texts])
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


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
