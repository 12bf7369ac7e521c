"""Inputs of an encoder, each with a sequence of tokens as label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from instil.core import UNLABELLED, Batch
from instil.data.columns import Column, is_missing_row, is_text
from instil.data.label_kinds import SequenceData
from instil.data.pair_tokenizers import PairTokenizer, pair_tokenizer
from instil.data.samples import Facts

MASK = "encoder_attention_mask"
DIMENSIONS = {
    "input_features": "(N, channels, T)",
    "input_values": "(N, T)",
    "pixel_values": "(N, C, H, W)",
}
"""Form of the inputs of an encoder that are real numbers."""


class SequencePairs(SequenceData):
    """Samples in memory with the tokens of a target as label, for the task ``seq2seq``.

    A batch has ``label`` int64 (N, L) with the end token, padded with -100, ``valid`` (N, L) of
    ``counted_tokens``, and ``label_length`` (N,).

    Args:
        tensors: input of the encoder by batch key, and optionally ``encoder_attention_mask``.
        targets: token ids of each target, without the end token; None for no label.
        tokenizer: tokenizer of the targets.

    Raises:
        ValueError: for tensors of another length, or an index that is not a token.
    """

    noun = "pair"

    def __init__(
        self,
        tensors: Mapping[str, Tensor],
        targets: Sequence[Sequence[int] | None],
        tokenizer: PairTokenizer,
    ):
        self.tokenizer = tokenizer
        key, value = next(iter(tensors.items()))
        facts: Facts = {
            "vocabulary": tokenizer.size,
            "start": tokenizer.start,
            "end": tokenizer.end,
            "pad": tokenizer.pad,
            "inputs": key,
        }
        if value.is_floating_point():
            facts["channels"] = value.shape[1]
        sequences = [[] if ids is None else [*ids, tokenizer.end] for ids in targets]
        super().__init__(tensors, sequences, ("token",), facts)

    @property
    def facts(self) -> Facts:
        """``vocabulary``, ``start``, ``end``, ``pad``, ``inputs`` and, for arrays, ``channels``."""
        return dict(self._facts)

    @property
    def is_text(self) -> bool:
        """Whether characters and words of a target's text can be counted."""
        return self.tokenizer.is_text

    def text_of(self, ids: Sequence[int]) -> str:
        """Return the text of the token ids of a target."""
        return self.tokenizer.text_of(ids)

    def __getitems__(self, rows: Tensor | Sequence[int]) -> Batch:
        """Return the batch of these rows with ``valid`` and ``label_length``."""
        batch = super().__getitems__(rows)
        return batch | {"valid": counted_tokens(batch["label"])}

    def _checked(self, label: Tensor) -> Tensor:
        size = self.tokenizer.size
        if label.ndim != 2 or label.is_floating_point() or (label.numel() and label.max() >= size):
            raise ValueError(
                f"labels of pairs are token ids (N, L) below {size}. Expected whole numbers, got "
                f"{label.dtype} {tuple(label.shape)}"
            )
        return label.to(torch.int64)


def counted_tokens(label: Tensor) -> Tensor:
    """Return which tokens count: those with a label, and the first one of unlabelled samples.

    A decoder predicts the first token from the input alone, so that a teacher's distribution of it
    needs no label.

    Args:
        label: token ids (N, L), -100 for padding and for samples without a label.

    Returns:
        Boolean (N, L).

    Example:
        >>> counted_tokens(torch.tensor([[5, 1, -100], [-100, -100, -100]]))
        tensor([[ True,  True, False],
                [ True, False, False]])
    """
    counted = label != UNLABELLED
    counted[:, 0] = True
    return counted


def text_pairs(pairs: Sequence[tuple[str, str | None]], tokenizer: PairTokenizer) -> SequencePairs:
    """Return pairs of texts as samples with ``input_ids`` and ``encoder_attention_mask``.

    Args:
        pairs: source and target of each sample; None marks a missing label.
        tokenizer: tokenizer of sources and targets.
    """
    sources = [[*tokenizer.source_ids(source), tokenizer.end] for source, _ in pairs]
    targets = [None if target is None else tokenizer.target_ids(target) for _, target in pairs]
    lengths = torch.tensor([len(ids) for ids in sources])
    ids = torch.nn.utils.rnn.pad_sequence(
        [torch.tensor(source) for source in sources], True, tokenizer.pad
    )
    mask = (torch.arange(ids.shape[1]) < lengths[:, None]).long()
    return SequencePairs({"input_ids": ids, MASK: mask}, targets, tokenizer)


def column_pairs(inputs: Mapping[str, Tensor], label: Column) -> SequencePairs:
    """Return arrays, such as audio features, each with a text or symbols as target.

    Args:
        inputs: input of the encoder by batch key, such as ``input_features`` (N, channels, T).
        label: texts, which are split into characters, or symbol indices of each sample; an empty
            one is a missing label.

    Raises:
        ValueError: for inputs of another form, and values that are not finite.
    """
    for key in DIMENSIONS.keys() & inputs.keys():
        _check_input(key, inputs[key])
    unit = "characters" if is_text(label) else "words"
    texts = [row if isinstance(row, str) else _joined_symbols(row) for row in label]
    tokenizer = pair_tokenizer(unit, None, [("", text) for text in texts])
    return SequencePairs(inputs, [tokenizer.target_ids(text) or None for text in texts], tokenizer)


def _joined_symbols(row: Any) -> str:
    return "" if is_missing_row(row) else " ".join(map(str, row))


def _check_input(key: str, value: Tensor) -> None:
    """Raise ValueError for an input of another form, and for values that are not finite."""
    form = DIMENSIONS[key]
    if not value.is_floating_point() or value.ndim != len(form.split(",")) or not value.numel():
        raise ValueError(
            f"columns.{key}: wrong form. Expected floating-point numbers {form}, got {value.dtype} "
            f"of shape {tuple(value.shape)}. Set axes if the order of the dimensions differs"
        )
    is_finite = value.flatten(1).isfinite().all(1)
    if not is_finite.all():
        row = int((~is_finite).nonzero()[0])
        raise ValueError(
            f"columns.{key}: sample {row} has values that are not finite. Expected finite values. "
            "Remove the sample"
        )
