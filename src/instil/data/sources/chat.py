"""Source ``chat``: conversations, prompts with answers, and texts for language models."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor
from typing_extensions import Doc

from instil.data.chat_encoding import ChatEncoder, LossOn
from instil.data.chat_files import chat_sources
from instil.data.chat_images import ImageProcessor, check_image_options
from instil.data.chat_preparation import prepared
from instil.data.chat_splits import tally_notes, texts_of_splits
from instil.data.chat_template import load_template
from instil.data.ragged_fitting import Fit, Integers, Truncation, fit_texts
from instil.data.ragged_pairs import RaggedPairs, fit_pairs
from instil.data.ragged_rows import RaggedRows
from instil.data.special_tokens import BosOption, EndOption
from instil.data.splits import (
    Splits,
    TestOption,
    ValidationOption,
)
from instil.data.subword_tokenizer import SubwordTokenizer
from instil.data.tables import Files
from instil.data.token_arrays import NO_TEACHER, TokenArrays
from instil.data.token_verifier import set_verifier
from instil.data.tokenizers import Tokenizer, load_tokenizer
from instil.data.verifiers import VerifierOption

ChatFiles = Annotated[
    Files,
    Doc(
        "file or pattern (.jsonl, .jsonl.gz, .json, .parquet), folder that `save_to_disk` wrote, "
        "or name of a data set on the hub; or these by split (train, validation, test)"
    ),
]
TokenizerOption = Annotated[
    str, Doc("tokenizer file or folder, name of a model on the hub, or bytes")
]
TemplateOption = Annotated[
    str | None,
    Doc("file of a chat template (Jinja), or chatml; null: the template of the tokenizer"),
]
LossOption = Annotated[
    LossOn,
    Doc(
        "learned tokens; assistant: all answers; completion: the last answer, or all after the "
        "prompt; all: every token"
    ),
]
TruncationOption = Annotated[
    Truncation,
    Doc(
        "texts that are longer than a row: error; drop, leave them out; right, cut the end; left, "
        "cut the beginning; split, several rows"
    ),
]
Limit = Annotated[int | None, Ge(1), Doc("largest number of training texts; null: all")]
HeldOut = Annotated[
    int | None, Ge(1), Doc("largest number of validation texts, and of test texts; null: all")
]


def chat(
    files: ChatFiles,
    tokenizer: TokenizerOption,
    chat_template: TemplateOption = None,
    length: Annotated[int, Ge(2), Doc("largest length of a row in tokens")] = 1024,
    loss_on: LossOption = "assistant",
    truncation: TruncationOption = "error",
    packing: Annotated[
        bool, Doc("whether training rows hold several texts, which do not see one another")
    ] = False,
    preferences: Annotated[
        bool,
        Doc("whether rows are preference pairs with a rejected answer, for the scheme dpkd"),
    ] = False,
    rows: Limit = None,
    held_out: HeldOut = None,
    validation: ValidationOption = 0.1,
    test: TestOption = 0.1,
    prune: Annotated[
        bool, Doc("reduce the vocabulary to the tokens of these texts and their components")
    ] = False,
    end: Annotated[
        EndOption | None,
        Doc("token that ends a text, or a list of them; null: those of the tokenizer's folder"),
    ] = None,
    bos: Annotated[
        BosOption,
        Doc("whether texts without a template begin with the tokenizer's first token"),
    ] = "auto",
    processes: Annotated[
        int | None, Ge(1), Doc("number of processes that encode texts; null: by size and cores")
    ] = None,
    config: Annotated[
        str | None, Doc("configuration of the data set on the hub; null: the default")
    ] = None,
    verifier: VerifierOption = None,
    base: Path = Path(),
) -> Splits:
    """Conversations in the chat template of a model, for language models.

    A row has ``messages`` (with ``tools``, if there are any), ``prompt`` and ``completion`` (texts,
    or lists of messages), ``instruction`` and ``output``, ``query`` and ``response``, or ``text``.
    It may have a ``domain`` and a ``teacher_id``, which are keys of the batch. Messages may have
    images, whose paths start from the folder of the data file; the processor of the tokenizer's
    folder prepares them. A batch is padded to its longest row.

    With ``preferences`` a row has a preferred and a rejected answer, and batches have the tokens of
    the rejected one under keys that begin with ``rejected_``.

    The tokens are kept in memory-mapped files in the cache, by the contents of the files, the
    tokenizer, the template and ``loss_on``.

    Args:
        base: folder that relative paths start from.

    Returns:
        Train, validation and test data.

    Raises:
        ValueError: for a file that cannot be read, a row of another form, and texts that do not
            fit into a row.
    """
    loaded = load_tokenizer(tokenizer, (), base, end, bos)
    template = load_template(chat_template, loaded, base)
    images = ImageProcessor.of(loaded)
    encoder = ChatEncoder(loaded, template, loss_on, images, preferences)
    if preferences:
        _check_pair_options(truncation, packing)
    sources = chat_sources(files, config, base)
    arrays = {split: prepared(parts, encoder, processes) for split, parts in sources.items()}
    if any(part.images for part in arrays.values()):
        check_image_options(truncation, packing, prune)
    texts = texts_of_splits(arrays, (validation, test), 2 if preferences else 1)
    names = ("train", "validation", "test")
    fits: dict[str, tuple[TokenArrays, list[Fit]]] = {}
    for split, limit in zip(names, (rows, held_out, held_out), strict=True):
        part, selected = texts[split]
        fits[split] = (part, _fits(part, selected[:limit], length, truncation, preferences))
    tokens = _vocabulary(fits, loaded) if prune else []
    if template is not None and isinstance(loaded, SubwordTokenizer):
        # The exported student has the template of its training.
        loaded.files = replace(loaded.files, chat_template=template.without_marks())
    data: list[RaggedRows] = []
    for split, (part, of_split) in fits.items():
        common = (_row_keys(part, of_split[0], arrays), length, loaded, tokens, images)
        samples: RaggedRows
        if preferences:
            samples = RaggedPairs(part, of_split, *common)
        else:
            samples = RaggedRows(part, of_split[0], *common)
        samples.notes = (*tally_notes(arrays.get(split), split), *_fit_notes(of_split, split))
        samples.source_split = split if split in arrays else "train"
        data.append(samples)
    train = data[0].packed() if packing else data[0]
    splits = Splits(train, data[1], data[2], train.classes, train.kind)
    return set_verifier(splits, verifier)


def _row_keys(part: TokenArrays, fit: Fit, arrays: Mapping[str, TokenArrays]) -> dict[str, Tensor]:
    """``domain`` and ``teacher_id`` of each row, if there are any."""
    keys: dict[str, Tensor] = {}
    domains = sorted(set().union(*(each.domains for each in arrays.values())))
    if len(domains) > 1:
        codes = np.array([domains.index(name) for name in part.domains])
        keys["domain"] = torch.from_numpy(codes[part.texts["domain"][fit.text]])
    columns = [each.texts["teacher_id"] for each in arrays.values()]
    has_teacher = np.concatenate([column != NO_TEACHER for column in columns])
    if has_teacher.any():
        if not has_teacher.all():
            raise ValueError(
                f"teacher_id: {int((~has_teacher).sum())} of {len(has_teacher)} rows have none. "
                "Expected one in every row"
            )
        teachers = sorted(set().union(*(each.teachers for each in arrays.values())))
        column = part.texts["teacher_id"][fit.text]
        if teachers:
            column = np.array([teachers.index(name) for name in part.teachers])[column]
        keys["teacher_id"] = torch.from_numpy(column)
    return keys


def _fits(
    part: TokenArrays, texts: Integers, length: int, truncation: Truncation, preferences: bool
) -> list[Fit]:
    """Parts of the texts for each row; with pairs, those of the rejected texts follow."""
    if preferences:
        return list(fit_pairs(part, texts, length, truncation))
    return [fit_texts(part, texts, length, truncation)]


def _vocabulary(
    fits: Mapping[str, tuple[TokenArrays, Sequence[Fit]]], tokenizer: Tokenizer
) -> list[int]:
    """Smallest vocabulary of the rows."""
    is_used = np.zeros(tokenizer.size, bool)
    for part, of_split in fits.values():
        for fit in of_split:
            for start, stop in zip(fit.start, fit.stop, strict=True):
                is_used[part.tokens[start:stop]] = True
    return sorted(tokenizer.closed(is_used.nonzero()[0].tolist()))


def _check_pair_options(truncation: Truncation, packing: bool) -> None:
    """Raise ValueError for options that preference pairs do not support."""
    if packing or truncation == "split":
        option = "packing" if packing else "truncation: split"
        raise ValueError(
            f"preferences: rows of pairs support no {option}. Expected one row for each text. "
            "Leave it out"
        )


def _fit_notes(fits: Sequence[Fit], split: str) -> list[str]:
    notes = chain.from_iterable(fit.notes for fit in fits)
    return [f"{split} texts: {note}" for note in notes]
